"""A policy for actions in a box, with critics of the action."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ._deterministic import Deterministic
from ._distributions import Distribution, SquashedGaussian
from ._networks import Perceptron
from ._policy import Policy, action_box, check_box, check_spaces, describe, observation_size, tidy


PyTree = Any

LEAST_LOG_STD, GREATEST_LOG_STD = -20.0, 2.0


@dataclasses.dataclass(frozen=True)
class BoxPolicy(Policy):
    """An actor whose actions fill a box, and critics Q_k(s, a); build it with `box_policy`."""

    observation_size: int
    action_size: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    stochastic: bool = True
    num_critics: int = 2
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    fast_gradient: bool = True
    initialization: str = "orthogonal"

    def check(self, env: Any) -> None:
        check_spaces(env, self.observation_size, False, self.action_size)

    def init(self, key: jax.Array) -> PyTree:
        """Draws `{"actor": {"layer_0": {"kernel", "bias"}, ..., "head"}, "critic": {"q_0": {...}, "q_1": {...}}}`."""
        k_actor, *k_critics = jax.random.split(key, 1 + self.num_critics)
        observation = jnp.zeros((self.observation_size,), jnp.result_type(float))
        both = jnp.zeros((self.observation_size + self.action_size,), observation.dtype)
        critics = {f"q_{k}": self._critic.init(key, both)["params"] for k, key in enumerate(k_critics)}
        return {"actor": self._actor.init(k_actor, observation)["params"], "critic": critics}

    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        """The actor's distribution, and the least Q of its greedy action."""
        distribution = self.distribution(params["actor"], observation)
        return distribution, least(self.q_values(params["critic"], observation, distribution.mode()))

    def distribution(self, actor: PyTree, observation: jax.Array) -> Distribution:
        """pi(.|s).

        Args:
            actor: the entry "actor" of the parameters.
            observation: `f32[..., d]`.

        Returns:
            squashed Gaussians whose standard deviation depends on s too, or single actions center + half tanh(.).
        """
        outputs = cast(jax.Array, self._actor.apply({"params": actor}, observation))
        if not self.stochastic:
            center, half = self._box(outputs)
            return Deterministic(center + half * jnp.tanh(outputs))
        mean, log_std = jnp.split(outputs, 2, -1)
        return SquashedGaussian(mean, jnp.clip(log_std, LEAST_LOG_STD, GREATEST_LOG_STD), self.low, self.high)

    def q_values(self, critics: PyTree, observation: jax.Array, action: jax.Array) -> list[jax.Array]:
        """Q_k(s, a) of each critic, which sees the action scaled to [-1, 1].

        Args:
            critics: the entry "critic" of the parameters.
            observation: `f32[..., d]`.
            action: `f32[..., D]`, in the box.

        Returns:
            num_critics arrays `f32[...]`.
        """
        center, half = self._box(action)
        both = jnp.concatenate([observation, (action - center) / half], -1)
        names = [f"q_{k}" for k in range(self.num_critics)]
        return [cast(jax.Array, self._critic.apply({"params": critics[name]}, both))[..., 0] for name in names]

    def explored(self, action: jax.Array, shift: jax.Array) -> jax.Array:
        """The action moved by `shift` `f32[..., D]` half widths, but not out of the box."""
        center, half = self._box(action)
        return jnp.clip(action + half * shift, center - half, center + half)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Standard normal `f32[*shape, D]`."""
        return jax.random.normal(key, (*shape, self.action_size))

    def architecture(self) -> dict[str, Any]:
        return describe("box", self)

    @property
    def log_volume(self) -> float:
        """sum_i log half width_i: what a log-density in the box gains when the box is scaled to [-1, 1]^D."""
        return float(np.sum(np.log((np.asarray(self.high) - np.asarray(self.low)) / 2)))

    def _box(self, like: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Centre and half width, of as many axes as the array."""
        low, high = (jnp.asarray(bound, like.dtype) for bound in (self.low, self.high))
        shape = (*[1] * (like.ndim - 1), self.action_size)
        return ((low + high) / 2).reshape(shape), ((high - low) / 2).reshape(shape)

    @property
    def _actor(self) -> Perceptron:
        # A small head: the first actions are near the centre of the box.
        size = self.action_size * (2 if self.stochastic else 1)
        return Perceptron(size, self.hidden_sizes, self.activation, 0.01, self.fast_gradient, self.initialization)

    @property
    def _critic(self) -> Perceptron:
        return Perceptron(1, self.hidden_sizes, self.activation, 1.0, self.fast_gradient, self.initialization)


def least(values: list[jax.Array]) -> jax.Array:
    """The elementwise minimum of the critics."""
    return functools.reduce(jnp.minimum, values)


def box_policy(
    env: Any,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    stochastic: bool = True,
    num_critics: int = 2,
    *,
    fast_gradient: bool = True,
    initialization: str = "orthogonal",
) -> BoxPolicy:
    """An actor for a box of actions, squashed into it by tanh, with critics Q_k(s, a); separate perceptrons.

    Args:
        env: an environment with a flat observation box and a flat, finite action box.
        hidden_sizes: widths of the hidden layers of each; `()` is linear.
        activation: "tanh", "relu", "elu", "silu" or "gelu".
        stochastic: a Gaussian before squashing whose mean and log standard deviation (kept within [-20, 2]) depend on
            the state; False: one action.
        num_critics: K; value estimates take the least of them.
        fast_gradient: see `mlp_policy`.
        initialization: "orthogonal" or "uniform", see `mlp_policy`.

    Raises:
        ValueError: a value is wrong, or the spaces do not fit.
    """
    if hasattr(env.action_space(), "n"):
        raise ValueError(f"env must have a box of actions, got the discrete ones of {env!r}; use q_policy")
    size, low, high = action_box(env)
    fields = {
        "observation_size": observation_size(env),
        "action_size": size,
        "low": low,
        "high": high,
        "stochastic": stochastic,
        "num_critics": num_critics,
        "hidden_sizes": hidden_sizes,
        "activation": activation,
        "fast_gradient": fast_gradient,
        "initialization": initialization,
    }
    return validated_box(fields)


def validated_box(fields: Mapping[str, Any]) -> BoxPolicy:
    """Checks every entry and builds the policy."""
    policy = BoxPolicy(**tidy(fields))
    check_box(policy.action_size, policy.low, policy.high, "box_policy", "bound the actions in the environment")
    return policy
