"""A policy that is greedy over action values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from ._distributions import Categorical, Distribution
from ._networks import Perceptron
from ._policy import Policy, check_spaces, describe, observation_size, tidy


PyTree = Any


@dataclasses.dataclass(frozen=True)
class QPolicy(Policy):
    """Plays argmax_a Q(s, a); build it with `q_policy`."""

    observation_size: int
    num_actions: int
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    fast_gradient: bool = True
    initialization: str = "orthogonal"

    def check(self, env: Any) -> None:
        check_spaces(env, self.observation_size, True, self.num_actions)

    def init(self, key: jax.Array) -> PyTree:
        """Draws `{"params": {"layer_0": {"kernel", "bias"}, ..., "head": {...}}}`."""
        return self._network.init(key, jnp.zeros((self.observation_size,), jnp.result_type(float)))

    def q_values(self, params: PyTree, observation: jax.Array) -> jax.Array:
        """Q(s, a) for all a.

        Args:
            params: from `init`.
            observation: `f32[..., d]`.

        Returns:
            `f32[..., A]`.
        """
        return cast(jax.Array, self._network.apply(params, observation))

    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        """All probability on the best action, and its value max_a Q(s, a)."""
        values = self.q_values(params, observation)
        return epsilon_greedy(values, 0.0), jnp.max(values, -1)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """`f32[*shape]` uniform in [0, 1)."""
        return jax.random.uniform(key, shape)

    def architecture(self) -> dict[str, Any]:
        return describe("q", self)

    @property
    def _network(self) -> Perceptron:
        return Perceptron(
            self.num_actions, self.hidden_sizes, self.activation, 1.0, self.fast_gradient, self.initialization
        )


def epsilon_greedy(values: jax.Array, epsilon: Any) -> Categorical:
    """The best action (the first of several) with probability 1 - epsilon, else any, all alike.

    Args:
        values: Q(s, a), `f32[..., A]`.
        epsilon: in [0, 1], a number or f32[].
    """
    num_actions = values.shape[-1]
    other = jnp.asarray(epsilon, values.dtype) / num_actions
    best = jax.nn.one_hot(jnp.argmax(values, -1), num_actions, dtype=bool)
    return Categorical(jnp.log(jnp.where(best, 1 - (num_actions - 1) * other, other)))


def q_policy(
    env: Any,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    *,
    fast_gradient: bool = True,
    initialization: str = "orthogonal",
) -> QPolicy:
    """A multilayer perceptron with one output Q(s, a) per discrete action, played greedily.

    Args:
        env: an environment with a flat observation box and discrete actions.
        hidden_sizes: widths of the hidden layers; `()` is linear.
        activation: "tanh", "relu", "elu", "silu" or "gelu".
        fast_gradient: see `mlp_policy`.
        initialization: "orthogonal" or "uniform", see `mlp_policy`.

    Raises:
        ValueError: a value is wrong, the observations are not flat, or the actions are not discrete.
    """
    num_actions = getattr(env.action_space(), "n", None)
    if num_actions is None:
        raise ValueError(f"env must have discrete actions for action values, got the box of {env!r}; use box_policy")
    fields = {
        "observation_size": observation_size(env),
        "num_actions": int(num_actions),
        "hidden_sizes": hidden_sizes,
        "activation": activation,
        "fast_gradient": fast_gradient,
        "initialization": initialization,
    }
    return validated_q(fields)


def validated_q(fields: Mapping[str, Any]) -> QPolicy:
    """Checks every entry and builds the policy."""
    return QPolicy(**tidy(fields))
