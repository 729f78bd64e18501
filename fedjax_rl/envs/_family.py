"""Families of environments: whose physics agents get."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import EnvFamily, check_count, component, is_concrete, static

from ._environment import Environment, EnvironmentWrapper, Params
from ._physics import Rule, did_you_mean, names_of, replace, stack_of


Intervals = tuple[tuple[Any, Any], ...]


@component
class UniformFamily(EnvFamily):
    """Draws each varied parameter of each agent uniformly and independently; the others are nominal.

    The law of a parameter is uniform on a union of intervals, by length. Of points (empty intervals) each is equally
    likely. Integer parameters take the integers of their intervals, both ends included. Agent i's physics depends on
    the key and i only, and that of one parameter not on which others vary.

    Args:
        env: the environment.
        nominal: its parameters, for one agent.
        intervals: field name -> ((low, high), ...). The numbers are leaves.
        ties: (field, source, factor): the field is factor times the source, after the draw.
    """

    env: Environment = static()
    nominal: Params
    intervals: dict[str, Intervals]
    ties: tuple[tuple[str, str, float], ...] = static(default=())

    def sample(self, key: jax.Array, num_agents: int) -> Params:
        names = names_of(self.nominal)
        values = {
            name: jax.tree.map(lambda leaf: stack_of(leaf, num_agents), getattr(self.nominal, name)) for name in names
        }
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_agents))
        for name, intervals in self.intervals.items():
            field_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, names.index(name))
            dtype = values[name].dtype
            values[name] = jax.vmap(lambda k, u=intervals, t=dtype: _draw(k, u, t))(field_keys)
        for name, source, factor in self.ties:
            values[name] = (values[source] * factor).astype(values[name].dtype)
        return replace(self.nominal, **values)


def _draw(key: jax.Array, intervals: Intervals, dtype: Any) -> jax.Array:
    """One number from a union of intervals, by one uniform."""
    integer = jnp.issubdtype(dtype, jnp.integer)
    low, high = (jnp.stack([jnp.asarray(pair[end], jnp.result_type(float)) for pair in intervals]) for end in (0, 1))
    length = high - low + integer
    # Where all intervals are points, each weighs the same.
    weight = jnp.where(jnp.sum(length) > 0, length, 1)
    end = jnp.cumsum(weight)
    position = jax.random.uniform(key, dtype=end.dtype) * end[-1]
    index = jnp.minimum(jnp.sum(position >= end), len(intervals) - 1)
    inside = jnp.where(length[index] > 0, position - (end[index] - weight[index]), 0)
    value = low[index] + (jnp.floor(inside) if integer else inside)
    return jnp.clip(value, low[index], high[index]).astype(dtype)


def uniform_family(
    env: Environment,
    *,
    ties: Sequence[tuple[str, str, float]] = (),
    dead: Mapping[str, str] | None = None,
    **ranges: Any,
) -> UniformFamily:
    """Agents whose physics is drawn uniformly from given ranges.

    Args:
        env: the environment.
        ties: (field, source, factor) triples: the field follows its source; a tie whose field has a range is dropped.
        dead: parameters that nothing reads, with the reason; a range for one is refused.
        ranges: for each varied parameter a number (the same for all), (low, high), or a sequence of (low, high) from
            whose union is drawn. A parameter that only takes some values is given by the values instead, each equally
            likely, repeats included.

    Raises:
        ValueError: unknown parameter, or a range that is empty, not finite, overlapping or physically impossible.

    Example:
        >>> family = uniform_family(MountainCarContinuous(), power=(0.001, 0.002))
        >>> family.sample(jax.random.key(0), 3).power.shape
        (3,)
    """
    nominal = env.default_params
    intervals, fixed = {}, {}
    for name, given in ranges.items():
        if name not in names_of(nominal):
            raise ValueError(f"{name} is not a parameter of {env.name}; {did_you_mean(name, names_of(nominal))}")
        if name in (dead or {}):
            raise ValueError(f"{name} of {env.name} must not be given, got {given!r}: {(dead or {})[name]}")
        union = read_range(name, given, getattr(nominal, name), env.rules.get(name, Rule()))
        if isinstance(union, tuple):
            intervals[name] = union
        else:
            fixed[name] = union
    kept = tuple(tie for tie in ties if tie[0] not in ranges)
    return UniformFamily(env, replace(nominal, **fixed), intervals, kept)


def read_range(name: str, given: Any, nominal: Any, rule: Rule) -> Any:
    """One parameter's range as written by a user: the intervals, or the number when it is the same for all."""
    if isinstance(nominal, bool):
        if not isinstance(given, bool):
            raise ValueError(f"{name} must be True or False, got {given!r}")
        return given
    if np.ndim(nominal) > 0:
        raise ValueError(f"{name} is an array and cannot be varied, got {given!r}")
    if np.issubdtype(np.result_type(nominal), np.integer):
        rule = rule._replace(integer=True)
    if _is_number(given):
        return _checked(name, given, rule)
    if not isinstance(given, Sequence | np.ndarray) or isinstance(given, str) or len(given) == 0:
        raise ValueError(f"{name} must be a number, (low, high) or a sequence of (low, high), got {given!r}")
    if rule.values:
        return tuple((_checked(name, value, rule),) * 2 for value in given)
    pairs = [given] if len(given) == 2 and all(map(_is_number, given)) else list(given)
    if not all(
        isinstance(pair, Sequence | np.ndarray) and len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs
    ):
        raise ValueError(f"{name} must be a number, (low, high) or a sequence of (low, high), got {given!r}")
    intervals = tuple((_checked(name, low, rule), _checked(name, high, rule)) for low, high in pairs)
    if is_concrete(intervals):
        _check_union(name, given, intervals, rule.integer)
    return intervals


def _check_union(name: str, given: Any, intervals: Intervals, integer: bool) -> None:
    """Raises unless the intervals are ordered, disjoint, and either all points or all longer."""
    for low, high in intervals:
        if low > high:
            raise ValueError(f"{name} must have low <= high, got {given!r}; write ({high:g}, {low:g})")
    points = [low == high for low, high in intervals]
    if any(points) and not all(points) and not integer:
        raise ValueError(f"{name} mixes points and intervals, and a point would never be drawn, got {given!r}")
    ordered = sorted(intervals)
    for (_, high), (low, _) in itertools.pairwise(ordered):
        if low < high or (integer and low == high):
            raise ValueError(f"{name} must have intervals that do not overlap, got {given!r}")


def _is_number(value: Any) -> bool:
    """Whether it is one number, traced or not."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.number)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(name: str, value: Any, rule: Rule) -> Any:
    """The number, if the rule admits it; a tracer passes."""
    if not is_concrete(value):
        return value
    number = float(value)
    if not rule.admits(number):
        remedy = f"; {rule.remedy}" if rule.remedy else ""
        raise ValueError(f"{name} {rule.requirement()}, got {value!r}{remedy}")
    return int(number) if rule.integer else number


@dataclasses.dataclass(frozen=True)
class PooledEnvironment(EnvironmentWrapper):
    """An environment of which every copy has its own physics; see `pooled`."""

    physics_axis: ClassVar[int | None] = 0


@component
class PooledFamily(EnvFamily):
    """One agent that plays E environments of different physics at a time: centralised training on everybody's worlds.

    Its environment e has the physics that agent e // copies of the single family gets from the same key.
    """

    single: EnvFamily
    num_envs: int = static()
    copies: int = static(default=1)

    @property
    def env(self) -> Environment:
        return PooledEnvironment(self.single.env)

    @property
    def num_agents(self) -> int:
        return 1

    @property
    def base(self) -> EnvFamily:
        return self.single

    def sample(self, key: jax.Array, num_agents: int) -> Params:
        self._check(num_agents)
        return self._pool(self.single.sample(key, self.num_envs // self.copies))

    def sample_unseen(self, key: jax.Array, num_agents: int) -> Params:
        self._check(num_agents)
        return self._pool(self.single.sample_unseen(key, self.num_envs // self.copies))

    def _pool(self, worlds: Params) -> Params:
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, self.copies, axis=0)[None], worlds)

    def worlds(self, physics: Params) -> Params:
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:])), physics)

    def _check(self, num_agents: int) -> None:
        if num_agents != 1:
            raise ValueError(
                f"num_agents must be 1 for a pooled family, got {num_agents}; its one agent plays all "
                f"{self.num_envs} worlds, so give that number to pooled(family, num_envs=...)"
            )


def pooled(family: EnvFamily, num_envs: int | None = None, copies: int = 1) -> PooledFamily:
    """Centralised training: one agent plays the worlds of several agents side by side.

    Args:
        family: where the worlds come from.
        num_envs: E, the number of environments of the agent's rollout; may be left out where the family fixes the
            number of worlds (a fleet table).
        copies: environments of each world: what N agents play with `copies` environments each, one agent plays with
            E = N copies.

    Raises:
        ValueError: a family that is pooled already, or a number that is not the family's.
    """
    if isinstance(family, PooledFamily):
        raise ValueError("family must not be pooled already; pool its base with the number of worlds wanted")
    check_count("copies", copies)
    if num_envs is None and family.num_agents is not None:
        num_envs = family.num_agents * copies
    if num_envs is None:
        raise ValueError("num_envs must be given, got None: this family draws as many worlds as it is asked for")
    check_count("num_envs", num_envs)
    if num_envs % copies:
        raise ValueError(f"num_envs must be a multiple of copies={copies}, got {num_envs}")
    if family.num_agents not in (None, num_envs // copies):
        raise ValueError(
            f"num_envs must be {family.num_agents * copies}, the number of agents of the family times copies, got "
            f"{num_envs}"
        )
    return PooledFamily(family, num_envs, copies)
