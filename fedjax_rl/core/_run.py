"""Runs rounds: many per dispatch, from a host loop that stays in charge."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from . import tree
from ._agent_map import agent_map, place
from ._compile import compiler_options, jit
from ._component import check_count
from ._processes import fetch
from ._round import Round, RoundState
from ._rounds import Rounds


PyTree = Any
History = dict[str, Any]
Record = Callable[[Round, RoundState], dict[str, jax.Array]]


def make_mesh(num_devices: int | None = None) -> Mesh | None:
    """A mesh over the first `num_devices` devices (None: all) along the axis "agents"; None for a single device.

    With several CPU devices, set `jax_cpu_enable_async_dispatch` to False before the first use of JAX, as the command
    line does: slices of sharded arrays, started together on busy cores, can otherwise wait for each other for ever.
    """
    available = len(jax.devices())
    num_devices = available if num_devices is None else num_devices
    check_count("num_devices", num_devices)
    if num_devices < available and jax.process_count() > 1:
        raise ValueError(
            f"num_devices must be {available}, all devices of the {jax.process_count()} processes, got {num_devices}: "
            "a process without a device could not take part"
        )
    if num_devices > available:
        raise ValueError(
            f"num_devices must be at most {available}, the devices JAX sees, got {num_devices}; more CPU devices: "
            f'jax.config.update("jax_num_cpu_devices", {num_devices}) before the first use of JAX'
        )
    if num_devices == 1:
        return None
    return jax.make_mesh((num_devices,), ("agents",), axis_types=(AxisType.Auto,), devices=jax.devices()[:num_devices])


def init_seeds(round_: Round | Rounds, keys: jax.Array, *, mesh: Mesh | None = None) -> RoundState:
    """The first states of several independent runs, leaves [K, ...], one per key; of stacked rounds [G K, ...]."""
    _check_seeds(round_, len(keys))
    return _first_states(round_, keys, mesh)


@jit(once=True, static_argnames="mesh")  # one program for all rounds that differ in numbers only
def _first_states(round_: Round | Rounds, keys: jax.Array, mesh: Mesh | None) -> RoundState:
    def first_state(round_: Any, seed: jax.Array, key: jax.Array) -> tuple[RoundState, None]:
        return _round_of(round_, seed, len(keys)).init(key), None

    seeds = jnp.arange(len(keys), dtype=jnp.int32)
    states, _ = agent_map(first_state, round_, (seeds, keys), chunk_size=1, mesh=mesh)
    return place(states, mesh)


def _round_of(round_: Round | Rounds, seed: jax.Array, num_seeds: int) -> Round:
    """The round that a seed runs in: consecutive seeds share one."""
    return round_.at(seed // (num_seeds // round_.num_rounds)) if isinstance(round_, Rounds) else round_


def _check_seeds(round_: Round | Rounds, num_seeds: int | None) -> None:
    if not isinstance(round_, Rounds):
        return
    if num_seeds is None or num_seeds % round_.num_rounds:
        raise ValueError(
            f"num_seeds must be a multiple of the {round_.num_rounds} stacked rounds, got {num_seeds}: as many seeds "
            "for each"
        )


def where_held(states: PyTree, seed: int) -> tuple[PyTree, int]:
    """The stacked states as the one device holds them that has a seed's, and the row of the seed there.

    Nothing is copied and no device waits for another, unlike in a slice of the sharded arrays.

    Args:
        states: leaves [K, ...].
        seed: row of the whole stack.
    """

    def holds(shard: Any, num_seeds: int) -> bool:
        begin, end, _ = shard.index[0].indices(num_seeds)
        return begin <= seed < end

    shards = [next(s for s in x.addressable_shards if holds(s, len(x))) for x in jax.tree.leaves(states)]
    (row,) = {seed - (shard.index[0].start or 0) for shard in shards}
    return jax.tree.unflatten(jax.tree.structure(states), [shard.data for shard in shards]), row


def run(
    round_: Round | Rounds,
    state: RoundState,
    num_rounds: int,
    *,
    rounds_per_call: int = 100,
    num_seeds: int | None = None,
    mesh: Mesh | None = None,
    callback: Callable[[RoundState, History], bool | None] | None = None,
    record: Record | None = None,
) -> tuple[RoundState, History]:
    """Runs rounds and collects their metrics.

    The rounds are compiled once, whatever their number, and dispatched `rounds_per_call` at a time. `state` is donated:
    its buffers are reused, so keep the returned one.

    Args:
        round_: the round, or several of one structure (`stack_rounds`) with as many seeds each.
        state: from `round_.init(key)`, or from `init_seeds` when `num_seeds` is given.
        num_rounds: how many rounds.
        rounds_per_call: rounds per dispatch; the result does not depend on it.
        num_seeds: K stacked states run in one program, one seed after another on each device.
        mesh: with `num_seeds`: devices that share the seeds. The round itself then has no mesh.
        callback: called as callback(state, history of the last call) after each dispatch; returns True to stop early.
            The next dispatch donates `state`: copy what you want to keep.
        record: called as record(round, state) after every round, inside the compiled program; the arrays it returns
            join the metrics. For what only the experimenter knows, such as the distance to an exact solution. Another
            function recompiles, also where it is the same lambda written again.

    Returns:
        The last state, and the metrics as arrays [num_rounds, ...] ([K, num_rounds, ...] with seeds). Where devices do
        not divide N, states have more rows than agents (`Round.without_padding`), but for those that `record` sees.

    Raises:
        ValueError: a wrong value, or `record` returns a name that the metrics have already.

    Example:
        >>> def record(round_, state):
        ...     return {"error": jnp.sum((state.places.public.shared.params - solution) ** 2)}
        >>> state, history = run(round_, state, 1000, record=record)  # doctest: +SKIP
    """
    check_count("num_rounds", num_rounds, minimum=0)
    if num_seeds is None and state.key.ndim:
        raise ValueError(f"num_seeds must be {state.key.shape[0]}, the number of stacked states, got None")
    if num_seeds is not None and state.key.shape != (num_seeds,):
        raise ValueError(f"num_seeds must be the number of stacked states, {state.key.shape}, got {num_seeds}")
    check_count("rounds_per_call", rounds_per_call)
    _check_seeds(round_, num_seeds)
    size = max(1, min(rounds_per_call, num_rounds))
    advance = _jitted(jax.default_backend())
    ahead = () if num_seeds is None else (slice(None),)  # axes before that of the rounds
    pieces: list[History] = []
    left = num_rounds
    while left > 0 or not pieces:
        now = min(size, left)
        state, history = advance(
            round_, state, jnp.int32(now), size=size, num_seeds=num_seeds, mesh=mesh, record=record
        )
        pieces.append({name: x[(*ahead, slice(now))] for name, x in fetch(history).unpack().items()})
        left -= now
        if callback is not None and callback(state, pieces[-1]):
            break
    return state, {name: np.concatenate([p[name] for p in pieces], axis=len(ahead)) for name in pieces[0]}


def compile_rounds(
    round_: Round | Rounds, state: RoundState, size: int, *, num_seeds: int | None = None, mesh: Mesh | None = None
) -> Callable[[Any, RoundState, int], tuple[RoundState, History]]:
    """Compiles ahead of time what `run` dispatches, for callers that time compilation apart.

    Returns:
        advance(round_, state, num_rounds <= size) -> (state, history [size], of which the first num_rounds count). The
        history is on the host.
    """
    jitted = _jitted(jax.default_backend())
    compiled = jitted.lower(round_, state, jnp.int32(size), size=size, num_seeds=num_seeds, mesh=mesh).compile()

    def advance(round_: Round | Rounds, state: RoundState, num_rounds: int) -> tuple[RoundState, History]:
        state, history = compiled(round_, state, jnp.int32(num_rounds))
        return state, fetch(history).unpack()

    return advance


@functools.cache
def _jitted(backend: str) -> Any:
    return jax.jit(
        _rounds,
        static_argnames=("size", "num_seeds", "mesh", "record"),
        donate_argnames="state",
        compiler_options=compiler_options(backend),
    )


def _rounds(
    round_: Round | Rounds,
    state: RoundState,
    num_rounds: jax.Array,
    *,
    size: int,
    num_seeds: int | None,
    mesh: Mesh | None,
    record: Record | None = None,
) -> tuple[RoundState, tree.Packed]:
    """The first `num_rounds` of at most `size` rounds; a dynamic count, so that every length shares one program."""
    if num_seeds is None:
        if mesh is not None:
            raise ValueError("mesh shares out seeds, and there are none; give num_seeds, or the mesh to make_round")
        return _one_run(_round_of(round_, jnp.int32(0), 1), num_rounds, state, size, record)
    check_count("num_seeds", num_seeds)

    def one_seed(common: PyTree, seed: jax.Array, state: RoundState) -> tuple[PyTree, None]:
        rounds, num_rounds = common
        round_ = _round_of(rounds, seed, num_seeds)
        if round_.mesh is not None:
            raise ValueError("several seeds need a round without a mesh: the devices share the seeds instead")
        return _one_run(round_, num_rounds, state, size, record), None

    seeds = jnp.arange(num_seeds, dtype=jnp.int32)
    return place(agent_map(one_seed, (round_, num_rounds), (seeds, state), chunk_size=1, mesh=mesh)[0], mesh)


def _one_run(
    round_: Round, num_rounds: jax.Array, state: RoundState, size: int, record: Record | None
) -> tuple[RoundState, tree.Packed]:
    """One seed's rounds. The history stays packed until it is on the host: a metric is a column of one array."""

    def step(state: RoundState) -> tuple[RoundState, tree.Packed]:
        state, metrics = round_.step(state)
        recorded = {} if record is None else record(round_, round_.without_padding(state))
        if taken := sorted(recorded.keys() & metrics.keys()):
            raise ValueError(f"record must not return {', '.join(taken)}, which the metrics have already; rename it")
        return state, tree.pack(metrics | recorded)

    spec = jax.eval_shape(step, state)[1]
    history = tree.zeros_like(jax.tree.map(lambda s: jax.ShapeDtypeStruct((size, *s.shape), s.dtype), spec))

    def body(t: jax.Array, carry: tuple[RoundState, tree.Packed]) -> tuple[RoundState, tree.Packed]:
        state, metrics = step(carry[0])
        return state, jax.tree.map(lambda h, m: h.at[t].set(m), carry[1], metrics)

    return jax.lax.fori_loop(0, num_rounds, body, (state, history))
