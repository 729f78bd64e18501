"""Policies: a network and the distribution its outputs describe."""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ..core import check_choice, check_count, check_flag, check_range
from ._distributions import Categorical, DiagonalGaussian, Distribution, SquashedGaussian
from ._mlp import ACTIVATIONS
from ._networks import ActorCritic


PyTree = Any

_KINDS = ("categorical", "gaussian", "squashed_gaussian")


class Policy(abc.ABC):
    """What an agent acts with: structure only, hashable and compared by value; the parameters are an argument."""

    def check(self, env: Any) -> None:
        """Raises `ValueError` where it does not fit the spaces of an environment."""
        del env

    @abc.abstractmethod
    def init(self, key: jax.Array) -> PyTree:
        """Draws parameters."""

    @abc.abstractmethod
    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        """The distribution of the action and the value of the state.

        Args:
            params: from `init`.
            observation: `f32[..., d]`.

        Returns:
            a batch `[...]` of distributions, and V(s) `f32[...]`.
        """

    @abc.abstractmethod
    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The randomness of as many actions as the shape has elements, for `Distribution.sample`."""

    @abc.abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Everything that makes this policy, as JSON values; `policy_from_architecture` inverts it."""


@dataclasses.dataclass(frozen=True)
class MLPPolicy(Policy):
    """A perceptron with an actor's and a critic's head; build it with `mlp_policy`."""

    observation_size: int
    action_size: int  # number of actions, or dimensions of one
    distribution: str  # "categorical", "gaussian" or "squashed_gaussian"
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    shared_trunk: bool = True
    initial_log_std: float = 0.0
    low: tuple[float, ...] = ()  # the action box, where the distribution is squashed into it
    high: tuple[float, ...] = ()
    fast_gradient: bool = True
    initialization: str = "orthogonal"

    def check(self, env: Any) -> None:
        space = env.action_space()
        num_actions = getattr(space, "n", None)
        found = (_shape(env.observation_space()), "categorical" if num_actions is not None else "box")
        wanted = ((self.observation_size,), "categorical" if self.distribution == "categorical" else "box")
        size = int(num_actions) if num_actions is not None else math.prod(_shape(space))
        if (*found, size) != (*wanted, self.action_size):
            raise ValueError(
                f"policy must fit {env.name}: observations of shape {found[0]} and {_actions(found[1], size)}; got one "
                f"for shape {wanted[0]} and {_actions(wanted[1], self.action_size)}: build it for this family's env"
            )

    def init(self, key: jax.Array) -> PyTree:
        """Draws `{"params": {"trunk_0": {"kernel", "bias"}, ..., "actor": {...}, "critic": {...}, "log_std": ...}}`.

        Separate trunks are called `actor_trunk_0` and `critic_trunk_0`; only Gaussians have `log_std`.
        """
        return self._network.init(key, jnp.zeros((self.observation_size,), jnp.result_type(float)))

    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        if jnp.shape(observation)[-1:] != (self.observation_size,):
            raise ValueError(
                f"observation must have {self.observation_size} entries along its last axis, "
                f"got shape {jnp.shape(observation)}"
            )
        outputs, value, log_std = cast(Any, self._network.apply(params, observation))
        if self.distribution == "categorical":
            return Categorical(outputs), value
        log_std = jnp.broadcast_to(log_std, outputs.shape)
        if self.distribution == "gaussian":
            return DiagonalGaussian(outputs, log_std), value
        return SquashedGaussian(outputs, log_std, self.low, self.high), value

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """`f32[*shape]` uniform in [0, 1) for discrete actions, standard normal `f32[*shape, D]` otherwise."""
        if self.distribution == "categorical":
            return jax.random.uniform(key, shape)
        return jax.random.normal(key, (*shape, self.action_size))

    def architecture(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        return {"kind": "mlp"} | {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}

    @property
    def _network(self) -> ActorCritic:
        start = None if self.distribution == "categorical" else self.initial_log_std
        return ActorCritic(
            self.action_size, self.hidden_sizes, self.activation, self.shared_trunk, start, self.fast_gradient,
            self.initialization,
        )  # fmt: skip


def mlp_policy(
    env: Any,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    shared_trunk: bool = True,
    squash: bool = False,
    initial_log_std: float = 0.0,
    *,
    fast_gradient: bool = True,
    initialization: str = "orthogonal",
) -> MLPPolicy:
    """A multilayer perceptron for an environment.

    Discrete actions get a categorical distribution, boxes a diagonal Gaussian whose log standard deviation is one
    parameter per action dimension, independent of the state.

    Args:
        env: an environment with a flat observation box and discrete actions or a flat action box.
        hidden_sizes: widths of the hidden layers; `()` is a linear policy.
        activation: "tanh", "relu", "elu", "silu" or "gelu".
        shared_trunk: whether actor and critic share the hidden layers (acting then costs half).
        squash: squash a Gaussian into the action box with tanh; otherwise actions are unbounded and the environment
            clips them.
        initial_log_std: log standard deviation at the beginning, of the action before squashing.
        fast_gradient: differentiate with the hand-written feature-major gradient, the faster one on a CPU; False:
            ordinary autodiff, which can also push tangents forward (`jax.jvp`).
        initialization: "orthogonal" (small actor's head, zero biases), or "uniform" in +-1 / sqrt(inputs) as
            PyTorch's linear layers begin.

    Raises:
        ValueError: a value is wrong, or the environment's spaces are not flat; the text says which.

    Example:
        >>> policy = mlp_policy(env, hidden_sizes=(32, 32))
        >>> params = policy.init(jax.random.key(0))
        >>> distribution, value = policy.apply(params, observation)
        >>> action = distribution.sample(policy.noise(jax.random.key(1), value.shape))
    """
    observation_shape = _shape(env.observation_space())
    if len(observation_shape) != 1:
        raise ValueError(
            f"env must have a flat observation box [d], got observations of shape {observation_shape} from {env!r}; "
            "flatten them in the environment"
        )
    space, low, high = env.action_space(), (), ()
    num_actions = getattr(space, "n", None)
    if num_actions is not None:
        if squash:
            raise ValueError(f"squash must be False for the {num_actions} discrete actions of {env!r}, got True")
        size, distribution = int(num_actions), "categorical"
    else:
        shape = _shape(space)
        if len(shape) != 1:
            raise ValueError(
                f"env must have discrete actions or a flat action box [d], got actions of shape {shape} from {env!r}; "
                "flatten them in the environment"
            )
        size = shape[0]
        distribution = "squashed_gaussian" if squash else "gaussian"
        if squash:
            low, high = (
                tuple(np.broadcast_to(bound, shape).astype(float).tolist()) for bound in (space.low, space.high)
            )
    fields = {
        "observation_size": observation_shape[0],
        "action_size": size,
        "distribution": distribution,
        "hidden_sizes": hidden_sizes,
        "activation": activation,
        "shared_trunk": shared_trunk,
        "initial_log_std": initial_log_std,
        "low": low,
        "high": high,
        "fast_gradient": fast_gradient,
        "initialization": initialization,
    }
    return _validated(fields)


def policy_from_architecture(architecture: Mapping[str, Any]) -> MLPPolicy:
    """The policy that `Policy.architecture` described.

    Raises:
        ValueError: the description is of another kind, has unknown or missing entries, or a wrong value.
    """
    fields = dict(architecture)
    check_choice("architecture['kind']", fields.pop("kind", None), ("mlp",))
    known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(MLPPolicy)}
    if unknown := fields.keys() - known.keys():
        raise ValueError(f"architecture has the unknown entries {sorted(unknown)}; known are {sorted(known)}")
    if missing := {name for name, required in known.items() if required} - fields.keys():
        raise ValueError(f"architecture lacks the entries {sorted(missing)}")
    return _validated(fields)


def _actions(kind: str, size: int) -> str:
    return f"{size} discrete actions" if kind == "categorical" else f"an action box of {size} dimensions"


def _shape(space: Any) -> tuple[int, ...]:
    """Of a space's elements; a space without one, such as a dictionary, is not flat either."""
    shape = getattr(space, "shape", None)
    return () if shape is None else tuple(map(int, shape))


def _validated(fields: Mapping[str, Any]) -> MLPPolicy:
    """Checks every entry and brings it into the type that compares by value."""
    fields = dict(fields)
    for name, number in (("hidden_sizes", int), ("low", float), ("high", float)):
        value = fields.get(name, ())
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"{name} must be a sequence of numbers, got {value!r}")
        for entry in value:
            if number is int:
                check_count(name, entry, remedy="every hidden layer needs a width, as in (64, 64)")
            else:
                check_range(name, entry)
        if name in fields:
            fields[name] = tuple(map(number, value))
    policy = MLPPolicy(**fields)
    check_count("observation_size", policy.observation_size)
    check_count("action_size", policy.action_size)
    check_choice("distribution", policy.distribution, _KINDS)
    check_choice("activation", policy.activation, ACTIVATIONS)
    check_choice("initialization", policy.initialization, ("orthogonal", "uniform"))
    check_range("initial_log_std", policy.initial_log_std, -20, 20, remedy="exp of it is a standard deviation")
    for name in ("shared_trunk", "fast_gradient"):
        check_flag(name, getattr(policy, name))
    if policy.distribution == "squashed_gaussian":
        sizes = {len(policy.low), len(policy.high)}
        if sizes != {policy.action_size} or not all(
            math.isfinite(low) and math.isfinite(high) and low < high
            for low, high in zip(policy.low, policy.high, strict=True)
        ):
            raise ValueError(
                f"squash needs an action box with finite low < high in each of {policy.action_size} dimensions, "
                f"got low={policy.low}, high={policy.high}; use squash=False for unbounded actions"
            )
    elif policy.low or policy.high:
        raise ValueError(f"low and high belong to a squashed_gaussian, got distribution={policy.distribution!r}")
    return dataclasses.replace(
        policy,
        observation_size=int(policy.observation_size),
        action_size=int(policy.action_size),
        initial_log_std=float(policy.initial_log_std),
    )
