"""A policy that sees observations in units of their own spread."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import check, check_range
from ._distributions import Distribution
from ._policy import Memory, Policy


PyTree = Any


class Moments(NamedTuple):
    """Running sums, which agents may simply add up: the statistics of all they saw, in any order."""

    # f32[] numbers seen
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    total: jax.Array  # f32[d] their sum
    squares: jax.Array  # f32[d] the sum of their squares

    @property
    def mean(self) -> jax.Array:
        """f32[d], 0 before anything was seen."""
        return self.total / jnp.maximum(self.count, 1)

    @property
    def std(self) -> jax.Array:
        """f32[d] of the population, 1 before two numbers were seen and at least 1e-4."""
        variance = self.squares / jnp.maximum(self.count, 1) - jnp.square(self.mean)
        return jnp.where(self.count > 1, jnp.sqrt(jnp.maximum(variance, 1e-8)), 1.0)


def moments_of(x: jax.Array, mask: jax.Array) -> Moments:
    """The sums over a batch.

    Args:
        x: `f32[..., *shape]`; what the mask excludes may be anything.
        mask: `bool[...]` of the leading axes.
    """
    axes = tuple(range(mask.ndim))
    kept = jnp.where(jnp.expand_dims(mask, tuple(range(mask.ndim, x.ndim))), x, 0)
    return Moments(jnp.sum(mask, dtype=x.dtype), jnp.sum(kept, axes), jnp.sum(jnp.square(kept), axes))


@dataclasses.dataclass(frozen=True)
class NormalizedPolicy(Policy):
    """A network behind running statistics; build it with `normalized_policy`.

    What agents act with is `{"network": parameters, "observations": [count, total, squares], "returns": [...]}`;
    what is trained are the network's parameters alone.
    """

    inner: Policy
    observations: bool = True
    rewards: bool = False
    limit: float = 10.0
    observation_size: int = 0

    @property
    def network(self) -> Policy:
        return self.inner

    def init(self, key: jax.Array) -> PyTree:
        return self.complete(self.inner.init(key), self.init_statistics())

    def init_statistics(self) -> dict[str, Moments]:
        dtype = jnp.result_type(float)
        zero = jnp.zeros((), dtype)
        wide = jnp.zeros((self.observation_size,), dtype)
        return {"observations": Moments(zero, wide, wide), "returns": Moments(zero, zero, zero)}

    def complete(self, params: PyTree, statistics: dict[str, Moments]) -> PyTree:
        known = {name: moments._asdict() for name, moments in statistics.items()}
        return {"network": params, "statistics": known}

    def observe(self, observation: jax.Array, returns: jax.Array, mask: jax.Array) -> dict[str, Moments]:
        return {"observations": moments_of(observation, mask), "returns": moments_of(returns, mask)}

    def process(self, params: PyTree, observation: jax.Array) -> jax.Array:
        if not self.observations:
            return observation
        moments = Moments(**params["statistics"]["observations"])
        axes = tuple(range(observation.ndim - 1))
        mean, std = (jnp.expand_dims(x, axes).astype(observation.dtype) for x in (moments.mean, moments.std))
        return jnp.clip((observation - mean) / std, -self.limit, self.limit)

    def reward_scale(self, params: PyTree) -> jax.Array | float:
        return 1 / Moments(**params["statistics"]["returns"]).std if self.rewards else 1.0

    @property
    def has_memory(self) -> bool:
        return self.inner.has_memory

    def initial_memory(self, shape: tuple[int, ...]) -> Memory:
        return self.inner.initial_memory(shape)

    def step(self, params: PyTree, memory: Memory, observation: jax.Array) -> tuple[Memory, Distribution, jax.Array]:
        return self.inner.step(params["network"], memory, self.process(params, observation))

    def unroll(
        self, params: PyTree, memory: Memory, observation: jax.Array, starts: jax.Array
    ) -> tuple[Distribution, jax.Array]:
        return self.inner.unroll(params["network"], memory, self.process(params, observation), starts)

    def check(self, env: Any) -> None:
        self.inner.check(env)

    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        return self.inner.apply(params["network"], self.process(params, observation))

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.inner.noise(key, shape)

    def parts(self, params: PyTree) -> PyTree:
        return self.inner.parts(params)

    def architecture(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("observations", "rewards", "limit", "observation_size")}
        return {"kind": "normalized", "inner": self.inner.architecture(), **fields}


def normalized_policy(
    policy: Policy, *, observations: bool = True, rewards: bool = False, limit: float = 10.0
) -> NormalizedPolicy:
    """Observations minus their running mean, over their running standard deviation; rewards over that of the returns.

    The statistics are sums, so that those of many agents add up exactly. `local_training(statistics="federated")` sends
    what a round has added as part of the message (its bits are counted), "local" leaves each agent its own.
    In float32 the sums resolve some 10^7 observations; later ones hardly move them any more.

    Args:
        policy: the network that reads normalised observations, such as `mlp_policy(family.env)`.
        observations: whether observations are normalised.
        rewards: whether advantages and the critic's targets are computed from rewards divided by the running standard
            deviation of the discounted returns to go.
        limit: normalised observations are clipped to +-limit.

    Reference: Andrychowicz et al., "What matters for on-policy deep actor-critic methods?", 2021, section 3.3.
    """
    if not isinstance(policy, Policy) or isinstance(policy, NormalizedPolicy):
        raise ValueError(f"policy must be a Policy that does not normalise yet, got {policy!r}")
    for name, value in (("observations", observations), ("rewards", rewards)):
        check(name, value, lambda v: isinstance(v, bool), "must be True or False")
    if not observations and not rewards:
        raise ValueError("observations and rewards must not both be False: nothing would be normalised")
    check_range("limit", limit, 0, open_low=True)
    size = getattr(policy, "observation_size", None)
    if size is None:
        raise ValueError(f"policy must say its observation_size, got {policy!r}")
    return NormalizedPolicy(policy, observations, rewards, float(limit), int(size))
