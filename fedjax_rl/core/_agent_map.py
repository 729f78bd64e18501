"""The only place that lays agents out: vmap, chunks of vmap, shards of chunks of vmap."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from . import tree


PyTree = Any

_LARGE = 2**20  # bytes of a leaf on a device


def place(stacked: PyTree, mesh: Mesh | None, *, per_agent: bool = True) -> PyTree:
    """Pins where a carried state lives, so that it comes out of a round as it went in.

    Leaves [R, ...] are sharded over their rows, of agents or seeds, where the devices divide R; all else is replicated.
    """
    if mesh is None:
        return stacked

    def pin(x: jax.Array) -> jax.Array:
        divides = per_agent and x.shape[0] % mesh.shape["agents"] == 0
        return lax.with_sharding_constraint(x, NamedSharding(mesh, P("agents") if divides else P()))

    return jax.tree.map(pin, stacked)


def num_rows(num_agents: int, mesh: Mesh | None) -> int:
    """Rows of what N agents carry: the next multiple of D devices, so that it can be shared out; N where N < D."""
    devices = 1 if mesh is None else mesh.shape["agents"]
    return num_agents if num_agents < devices else -(-num_agents // devices) * devices


def take_rows(stacked: PyTree, index: jax.Array, mesh: Mesh | None) -> PyTree:
    """The rows `index` i32[M], each in [0, R), of what agents carry, on every device.

    `tree.take` is one exchange per leaf where the rows are shared out; this is one for all leaves but large ones. Bit
    for bit, but that complex numbers lose the sign of a zero.
    """
    leaves = jax.tree.leaves(stacked)
    num = len(leaves[0]) if leaves else 0
    devices = 1 if mesh is None else mesh.shape["agents"]
    if devices == 1 or num % devices or not num:
        return tree.take(stacked, index)
    per_device = num // devices

    def one_device(stacked: PyTree, index: jax.Array) -> PyTree:
        row = index - lax.axis_index("agents") * per_device
        here = (row >= 0) & (row < per_device)

        def of_its_device(rows: jax.Array) -> jax.Array:
            return lax.psum(jnp.where(here[:, None], rows, 0), "agents")

        # as integers: a sum of floats loses -0.0 and the subnormal
        return _as_integers(of_its_device, tree.take(stacked, jnp.clip(row, 0, per_device - 1)), large=True)

    return jax.shard_map(one_device, mesh=mesh, in_specs=(P("agents"), P()), out_specs=P(), check_vma=False)(
        stacked, index
    )


class Fold(NamedTuple):
    """A sum over agents that `agent_map` accumulates chunk by chunk instead of stacking its terms."""

    zero: PyTree  # shapes and dtypes of the sum, arrays or `ShapeDtypeStruct`s
    add: Callable[[PyTree, PyTree, PyTree, jax.Array], PyTree]  # (common, sum, terms [C, ...], valid bool[C]) -> sum


def agent_map(
    f: Callable[..., tuple[PyTree, PyTree]],
    common: PyTree,
    xs: PyTree,
    *,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
    everywhere: bool = False,
    fold: Fold | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs `f(common, *x) -> (kept, terms)` for every agent: shards over devices, chunks in a loop, `vmap` inside.

    The result does not depend on the layout, up to the order of the floating sums in `fold`.

    Args:
        f: the work of ONE agent.
        common: what all agents share; an explicit argument because a closure does not cross `shard_map`.
        xs: a tuple of pytrees with leaves [N, ...], one slice per agent.
        chunk_size: agents per `vmap`; None: all at once. Smaller chunks keep temporaries in cache. A chunk of one
            agent runs without `vmap`, so that `lax.cond` stays a branch.
        mesh: devices along the axis "agents"; None: no sharding.
        everywhere: every device holds all of `xs`, and gets all of what is kept. Always so where the devices do not
            divide N; for agents that were chosen it saves an exchange per leaf, in and out.
        fold: sums the terms; None: the terms are stacked.

    Returns:
        kept with leaves [N, ...], and the folded sum (or the terms [N, ...] without `fold`).
    """
    num = jax.tree.leaves(xs)[0].shape[0]
    devices = 1 if mesh is None else mesh.shape["agents"]
    if num < devices:  # one arrival does not need a mesh
        mesh, devices = None, 1
    per_device = -(-num // devices)
    chunks = -(-per_device // min(chunk_size or per_device, per_device))
    size = -(-per_device // chunks)  # even chunks: one trace serves all; the last one begins earlier, and repeats some
    repeated = chunks * size - per_device
    even = per_device * devices == num
    everywhere = mesh is not None and (everywhere or not even)

    def one_chunk(common: PyTree, total: PyTree, valid: jax.Array, xs: PyTree) -> tuple[PyTree, PyTree]:
        if size == 1:
            out = f(common, *jax.tree.map(lambda x: x[0], xs))
            kept, terms = jax.tree.map(lambda x: jnp.asarray(x)[None], out)
        else:
            kept, terms = jax.vmap(lambda x: f(common, *x))(xs)
        return (total, (kept, terms)) if fold is None else (fold.add(common, total, terms, valid), (kept, ()))

    def in_turn(common: PyTree, zero: PyTree, valid: jax.Array, xs: PyTree) -> tuple[PyTree, PyTree]:
        def turn(total: PyTree, number: jax.Array) -> tuple[PyTree, PyTree]:
            begin = jnp.minimum(number * size, per_device - size)
            new = begin + jnp.arange(size) >= number * size
            return one_chunk(common, total, new & _rows(valid, begin, size), _rows(xs, begin, size))

        total, results = lax.scan(turn, zero, jnp.arange(chunks))
        return total, jax.tree.map(lambda x: _in_order(x, repeated), results)

    def one_device(common: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        valid = jnp.ones((per_device,), bool)
        if everywhere:  # where they are not even, the last devices begin earlier, and repeat what others do
            begin = lax.axis_index("agents") * per_device
            start = jnp.minimum(begin, num - per_device)
            xs = _rows(xs, start, per_device)
            valid = start + jnp.arange(per_device) >= begin
        zero = () if fold is None else jax.tree.map(lambda z: jnp.zeros(z.shape, z.dtype), fold.zero)
        total, results = (one_chunk if chunks == 1 else in_turn)(common, zero, valid, xs)
        kept, terms = results if even else _of_all_devices(results, num)
        if everywhere and even:  # terms stay apart: whoever compares messages spreads their parameters
            kept = _of_all_devices(kept, num)
        if fold is None:
            return kept, terms
        return kept, total if mesh is None else _of_all_sums(total)

    if mesh is None:
        return one_device(common, xs)
    each = P() if everywhere else P("agents")
    out_specs = (each, P("agents") if fold is None and even else P())
    run = jax.shard_map(one_device, mesh=mesh, in_specs=(P(), each), out_specs=out_specs, check_vma=False)
    return run(common, xs)


def _rows(stacked: PyTree, begin: Any, size: int) -> PyTree:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, begin, size), stacked)


def _in_order(chunks: jax.Array, repeated: int) -> jax.Array:
    """[chunks, size, ...] -> the rows one after the other, without those that the last chunk repeats."""
    num, size, *shape = chunks.shape
    if not repeated:
        return chunks.reshape(num * size, *shape)
    return jnp.concatenate([chunks[:-1].reshape((num - 1) * size, *shape), chunks[-1, repeated:]])


def _of_all_devices(stacked: PyTree, num: int) -> PyTree:
    """The rows of all N agents from those that each device worked on, the last ones of it where they are fewer."""

    def gather(rows: jax.Array) -> jax.Array:
        found, per_device = lax.all_gather(rows, "agents"), len(rows)
        share = [min(per_device, max(0, num - device * per_device)) for device in range(len(found))]
        return jnp.concatenate([found[device, per_device - n :] for device, n in enumerate(share) if n])

    return _as_integers(gather, stacked)


def _of_all_sums(sums: PyTree) -> PyTree:
    """The sums over all devices."""
    leaves, structure = jax.tree.flatten(sums)
    totals = _at_once(lambda x: lax.psum(x, "agents"), [x.reshape(1, x.size) for x in leaves])
    return jax.tree.unflatten(structure, [y.reshape(x.shape) for x, y in zip(leaves, totals, strict=True)])


def _as_integers(meet: Callable[[jax.Array], jax.Array], stacked: PyTree, large: bool = False) -> PyTree:
    """`meet`, which moves rows and computes nothing, of all leaves [R, ...]: small ones packed as words of 32 bits.

    Large leaves go as they are, or, if `large`, as integers of their own width; complex numbers and those of less than
    a byte always as they are.
    """
    leaves, structure = jax.tree.flatten(stacked)
    sent = [_to_integers(x, large) for x in leaves]
    rows = _at_once(meet, [x.reshape(len(x), math.prod(x.shape[1:])) for x in sent])
    found = [row.reshape(len(row), *x.shape[1:]) for row, x in zip(rows, sent, strict=True)]
    return jax.tree.unflatten(structure, [_from_integers(y, x) for y, x in zip(found, leaves, strict=True)])


def _to_integers(x: jax.Array, large: bool) -> jax.Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return jax.random.key_data(x)
    is_large = x.nbytes > _LARGE
    width = _width(x.dtype)
    if width == 0 or (is_large and not large):
        return x
    if jnp.issubdtype(x.dtype, jnp.bool_):
        x = x.astype(jnp.uint8)
    if is_large:  # signed: XLA would join it with the pack of words, and two devices of a CPU take 1.3 times as long
        return lax.bitcast_convert_type(x, jnp.dtype(f"int{width}"))
    return lax.bitcast_convert_type(x, jnp.dtype(f"uint{min(width, 32)}")).astype(jnp.uint32)  # 64 bits: an axis of two


def _from_integers(sent: jax.Array, like: jax.Array) -> jax.Array:
    """What `_to_integers` took apart."""
    dtype = like.dtype
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return jax.random.wrap_key_data(sent, impl=jax.random.key_impl(like))
    if sent.dtype == dtype:
        return sent
    if jnp.issubdtype(dtype, jnp.bool_):
        return sent.astype(bool)
    if sent.dtype == jnp.uint32:
        sent = sent.astype(f"uint{min(_width(dtype), 32)}")
    return lax.bitcast_convert_type(sent, dtype)


def _width(dtype: Any) -> int:
    """Bits of a real number or a flag; 0 for complex numbers and for those of less than a byte."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return 8
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return 0
    bits = (jnp.finfo if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo)(dtype).bits
    return bits if bits % 8 == 0 else 0


def _at_once(meet: Callable[[jax.Array], jax.Array], leaves: list[jax.Array]) -> list[jax.Array]:
    """`meet`, by which devices exchange an array, of all leaves [R, ?] of one type side by side.

    An exchange costs what its first byte costs (between processes a millisecond). Large leaves go alone: a pack is a
    copy.
    """
    packs: dict[Any, list[int]] = {}
    for i, x in enumerate(leaves):
        packs.setdefault((x.dtype, i if x.nbytes > _LARGE else None), []).append(i)
    found = list(leaves)
    for members in packs.values():
        ends = list(itertools.accumulate(leaves[i].shape[1] for i in members))
        parts = jnp.split(meet(jnp.concatenate([leaves[i] for i in members], 1)), ends[:-1], 1)
        for i, part in zip(members, parts, strict=True):
            found[i] = part
    return found


def few_agents_at_a_time(f: Callable[..., PyTree], size: int = 1) -> Callable[..., PyTree]:
    """`f` (the work of one agent) such that any `vmap` runs it for `size` agents at a time, in a loop.

    A gradient of one agent fits the cache, that of a whole chunk does not. The rule is recursive, so seeds x agents
    stay cache-sized too. All inputs must be arguments of `f` (no closure over tracers). No reverse mode through it.
    """
    g = jax.custom_batching.custom_vmap(f)

    @g.def_vmap
    def rule(axis_size: int, in_batched: list[PyTree], *args: PyTree) -> tuple[PyTree, PyTree]:
        leaves, tree = jax.tree.flatten(args)
        batched = jax.tree.leaves(in_batched)

        def call(h: Callable[..., PyTree]) -> Callable[[list[jax.Array]], PyTree]:
            def with_mapped(mapped: list[jax.Array]) -> PyTree:
                rest = iter(mapped)
                return h(
                    *jax.tree.unflatten(tree, [next(rest) if b else x for x, b in zip(leaves, batched, strict=True)])
                )

            return with_mapped

        mapped = [x for x, b in zip(leaves, batched, strict=True) if b]
        groups = -(-axis_size // size)
        each = -(-axis_size // groups)  # even groups, padded: a remainder would be compiled a second time
        if each == 1:
            out = lax.map(call(g), mapped)
        else:
            out = lax.map(jax.vmap(call(f)), [_grouped(x, groups, each) for x in mapped])
            out = jax.tree.map(lambda x: x.reshape(groups * each, *x.shape[2:])[:axis_size], out)
        return out, jax.tree.map(lambda _: True, out)

    return g


def _grouped(x: jax.Array, groups: int, each: int) -> jax.Array:
    """[N, ...] -> [groups, each, ...], the last slice repeated where N falls short."""
    missing = groups * each - x.shape[0]
    if missing:
        x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
    return x.reshape(groups, each, *x.shape[1:])
