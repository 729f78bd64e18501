"""Policies: a network and the distribution its outputs describe."""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from ..core import check_choice, check_count, check_flag, check_range
from ._distributions import Categorical, DiagonalGaussian, Distribution, SquashedGaussian
from ._mlp import ACTIVATIONS
from ._networks import ActorCritic


PyTree = Any
Memory = tuple[jax.Array, ...]
P = TypeVar("P", bound="NetworkPolicy")

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

    @property
    def has_memory(self) -> bool:
        """Whether it remembers the episode: then act by `step` and learn by `unroll`, for `apply` knows no past."""
        return False

    def initial_memory(self, shape: tuple[int, ...]) -> Memory:
        """What is remembered at the beginning of an episode: zeros `[*shape, ...]`, or nothing at all."""
        del shape
        return ()

    def step(self, params: PyTree, memory: Memory, observation: jax.Array) -> tuple[Memory, Distribution, jax.Array]:
        """One step further in an episode.

        Args:
            params: from `init`.
            memory: leaves `[..., size]`, of the steps before.
            observation: `f32[..., d]`.

        Returns:
            the new memory, a batch `[...]` of distributions, and V `f32[...]`.
        """
        return memory, *self.apply(params, observation)

    def unroll(
        self, params: PyTree, memory: Memory, observation: jax.Array, starts: jax.Array
    ) -> tuple[Distribution, jax.Array]:
        """`step` over time, differentiable through time.

        Args:
            params: from `init`.
            memory: leaves `[..., size]`, before the first of these steps.
            observation: `f32[T, ..., d]`.
            starts: `bool[T, ...]` whether an episode begins at this step: what was before is forgotten.

        Returns:
            a batch `[T, ...]` of distributions, and V `f32[T, ...]`.
        """
        del memory, starts
        return self.apply(params, observation)

    # ------------------------------------------------------------ running statistics; a policy without has none of it

    @property
    def network(self) -> "Policy":
        """What is trained: it reads processed observations."""
        return self

    def init_statistics(self) -> PyTree:
        """Running sums of nothing yet."""
        return ()

    def complete(self, params: PyTree, statistics: PyTree) -> PyTree:
        """What an agent acts with, from the network's parameters and the statistics."""
        del statistics
        return params

    def observe(self, observation: jax.Array, returns: jax.Array, mask: jax.Array) -> PyTree:
        """What a rollout adds to the statistics: observations f32[..., d], returns to go f32[...], mask bool[...]."""
        del observation, returns, mask
        return ()

    def process(self, params: PyTree, observation: jax.Array) -> jax.Array:
        """The observation as the network reads it; `params` are complete."""
        del params
        return observation

    def reward_scale(self, params: PyTree) -> jax.Array | float:
        """The factor of all rewards in training; `params` are complete."""
        del params
        return 1.0

    # ------------------------------------------------------------ parts

    def parts(self, params: PyTree) -> PyTree:
        """The name of the part that every leaf belongs to: "actor", "critic", or "trunk" where both use it."""

        def name(path: Any, leaf: Any) -> str:
            keys = [str(getattr(key, "key", key)) for key in path]
            return next((part for part in ("critic", "trunk") for key in keys if key.startswith(part)), "actor")

        return jax.tree_util.tree_map_with_path(name, params)

    @abc.abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Everything that makes this policy, as JSON values; `policy_from_architecture` inverts it."""


@dataclasses.dataclass(frozen=True)
class NetworkPolicy(Policy):
    """What policies with an actor's and a critic's head have in common."""

    kind: ClassVar[str]

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
        check_spaces(env, self.observation_size, self.distribution == "categorical", self.action_size)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """`f32[*shape]` uniform in [0, 1) for discrete actions, standard normal `f32[*shape, D]` otherwise."""
        if self.distribution == "categorical":
            return jax.random.uniform(key, shape)
        return jax.random.normal(key, (*shape, self.action_size))

    def architecture(self) -> dict[str, Any]:
        return describe(self.kind, self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Inverts `architecture` without its kind.

        Raises:
            ValueError: unknown or missing entries, or a wrong value.
        """
        known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}
        if unknown := fields.keys() - known.keys():
            raise ValueError(f"architecture has the unknown entries {sorted(unknown)}; known are {sorted(known)}")
        if missing := {name for name, required in known.items() if required} - fields.keys():
            raise ValueError(f"architecture lacks the entries {sorted(missing)}")
        return validated(cls, fields)

    @property
    def start_of_log_std(self) -> float | None:
        """The log standard deviation at the beginning; None where actions are discrete."""
        return None if self.distribution == "categorical" else self.initial_log_std

    def distribution_of(self, outputs: jax.Array, log_std: jax.Array | None) -> Distribution:
        """What the actor's outputs describe."""
        if log_std is None:
            return Categorical(outputs)
        log_std = jnp.broadcast_to(log_std, outputs.shape)
        if self.distribution == "gaussian":
            return DiagonalGaussian(outputs, log_std)
        return SquashedGaussian(outputs, log_std, self.low, self.high)

    def check_observation(self, observation: jax.Array) -> None:
        """Raises unless its last axis has the right size."""
        if jnp.shape(observation)[-1:] != (self.observation_size,):
            raise ValueError(
                f"observation must have {self.observation_size} entries along its last axis, "
                f"got shape {jnp.shape(observation)}"
            )


@dataclasses.dataclass(frozen=True)
class MLPPolicy(NetworkPolicy):
    """A perceptron with an actor's and a critic's head; build it with `mlp_policy`."""

    kind: ClassVar[str] = "mlp"

    def init(self, key: jax.Array) -> PyTree:
        """Draws `{"params": {"trunk_0": {"kernel", "bias"}, ..., "actor": {...}, "critic": {...}, "log_std": ...}}`.

        Separate trunks are called `actor_trunk_0` and `critic_trunk_0`; only Gaussians have `log_std`.
        """
        return self._network.init(key, jnp.zeros((self.observation_size,), jnp.result_type(float)))

    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        self.check_observation(observation)
        outputs, value, log_std = cast(Any, self._network.apply(params, observation))
        return self.distribution_of(outputs, log_std), value

    @property
    def _network(self) -> ActorCritic:
        return ActorCritic(
            self.action_size, self.hidden_sizes, self.activation, self.shared_trunk, self.start_of_log_std,
            self.fast_gradient, self.initialization,
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
    fields = {
        "hidden_sizes": hidden_sizes,
        "activation": activation,
        "shared_trunk": shared_trunk,
        "initial_log_std": initial_log_std,
        "fast_gradient": fast_gradient,
        "initialization": initialization,
    }
    return validated(MLPPolicy, spaces_of(env, squash) | fields)


def spaces_of(env: Any, squash: bool) -> dict[str, Any]:
    """The fields of a `NetworkPolicy` that follow from an environment's spaces.

    Raises:
        ValueError: the spaces are not flat, or `squash` is asked for with discrete actions.
    """
    space, low, high = env.action_space(), (), ()
    num_actions = getattr(space, "n", None)
    if num_actions is not None:
        if squash:
            raise ValueError(f"squash must be False for the {num_actions} discrete actions of {env!r}, got True")
        size, distribution = int(num_actions), "categorical"
    else:
        size, *box = action_box(env)
        distribution = "squashed_gaussian" if squash else "gaussian"
        if squash:
            low, high = box
    return {
        "observation_size": observation_size(env),
        "action_size": size,
        "distribution": distribution,
        "low": low,
        "high": high,
    }


def observation_size(env: Any) -> int:
    """Entries of an observation, which must be a flat box."""
    shape = _shape(env.observation_space())
    if len(shape) != 1:
        raise ValueError(
            f"env must have a flat observation box [d], got observations of shape {shape} from {env!r}; "
            "flatten them in the environment"
        )
    return shape[0]


def action_box(env: Any) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Dimensions of an action, and the least and the greatest action; the box must be flat."""
    space = env.action_space()
    shape = _shape(space)
    if len(shape) != 1:
        raise ValueError(
            f"env must have discrete actions or a flat action box [d], got actions of shape {shape} from {env!r}; "
            "flatten them in the environment"
        )
    low, high = (tuple(np.broadcast_to(bound, shape).astype(float).tolist()) for bound in (space.low, space.high))
    return shape[0], low, high


def describe(kind: str, policy: Any) -> dict[str, Any]:
    """The fields of a policy as JSON values, with the name of its kind."""
    fields = dataclasses.asdict(policy)
    return {"kind": kind} | {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}


def check_spaces(env: Any, observation_size: int, discrete: bool, action_size: int) -> None:
    """Raises unless a policy of these sizes fits an environment; `action_size` counts actions or dimensions of one."""
    space = env.action_space()
    num_actions = getattr(space, "n", None)
    size = math.prod(_shape(space)) if num_actions is None else int(num_actions)
    found = (_shape(env.observation_space()), num_actions is not None, size)
    wanted = ((observation_size,), discrete, action_size)
    if found != wanted:
        raise ValueError(
            f"policy must fit {env.name}: observations of shape {found[0]} and {_actions(*found[1:])}; got one for "
            f"shape {wanted[0]} and {_actions(*wanted[1:])}: build it for this family's env"
        )


def _actions(discrete: bool, size: int) -> str:
    return f"{size} discrete actions" if discrete else f"an action box of {size} dimensions"


def _shape(space: Any) -> tuple[int, ...]:
    """Of a space's elements; a space without one, such as a dictionary, is not flat either."""
    shape = getattr(space, "shape", None)
    return () if shape is None else tuple(map(int, shape))


def tidy(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the entries that all networks have and brings them into the types that compare by value."""
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
    for name in ("observation_size", "action_size", "num_actions", "num_critics"):
        if name in fields:
            check_count(name, fields[name])
            fields[name] = int(fields[name])
    for name, choices in (("activation", ACTIVATIONS), ("initialization", ("orthogonal", "uniform"))):
        if name in fields:
            check_choice(name, fields[name], choices)
    for name in ("shared_trunk", "fast_gradient", "stochastic"):
        if name in fields:
            check_flag(name, fields[name])
    return fields


def check_box(size: int, low: tuple[float, ...], high: tuple[float, ...], name: str, remedy: str) -> None:
    """Raises unless there are finite low < high in every dimension."""
    if {len(low), len(high)} != {size} or not all(
        math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(low, high, strict=True)
    ):
        raise ValueError(
            f"{name} needs an action box with finite low < high in each of {size} dimensions, "
            f"got low={low}, high={high}; {remedy}"
        )


def validated(cls: type[P], fields: Mapping[str, Any]) -> P:
    """Checks every entry and brings it into the type that compares by value."""
    policy = cls(**tidy(fields))
    check_choice("distribution", policy.distribution, _KINDS)
    check_range("initial_log_std", policy.initial_log_std, -20, 20, remedy="exp of it is a standard deviation")
    if policy.distribution == "squashed_gaussian":
        check_box(policy.action_size, policy.low, policy.high, "squash", "use squash=False for unbounded actions")
    elif policy.low or policy.high:
        raise ValueError(f"low and high belong to a squashed_gaussian, got distribution={policy.distribution!r}")
    return dataclasses.replace(policy, initial_log_std=float(policy.initial_log_std))
