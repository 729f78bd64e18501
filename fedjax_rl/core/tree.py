"""Pytree arithmetic that JAX does not bring."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ._component import component, static


PyTree = Any


@component
class Packed:
    """A tree as one vector per dtype: what is done to all leaves alike is then done once, not leaf by leaf."""

    vectors: dict[str, jax.Array]  # dtype of the leaves -> [..., P]
    structure: Any = static()
    kinds: tuple[tuple[str, tuple[int, ...]], ...] = static()  # dtype and shape of each leaf

    def unpack(self) -> PyTree:
        """The tree; axes that the vectors have got in front, as from `vmap`, are in front of every leaf's."""
        begin = dict.fromkeys(self.vectors, 0)
        found = []
        for dtype, shape in self.kinds:
            vector, end = self.vectors[dtype], begin[dtype] + math.prod(shape)
            found.append(vector[..., begin[dtype] : end].reshape(*vector.shape[:-1], *shape))
            begin[dtype] = end
        return jax.tree.unflatten(self.structure, found)


def pack(tree: PyTree) -> Packed:
    """All leaves side by side."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, tree))
    parts: dict[str, list[jax.Array]] = {}
    for x in leaves:
        parts.setdefault(x.dtype.name, []).append(jnp.ravel(x))
    vectors = {dtype: jnp.concatenate(each) for dtype, each in parts.items()}
    return Packed(vectors, structure, tuple((x.dtype.name, x.shape) for x in leaves))


def take(tree: PyTree, index: Any) -> PyTree:
    """Indexes the leading axis of every leaf."""
    return jax.tree.map(lambda x: x[index], tree)


def replicate(tree: PyTree, num: int) -> PyTree:
    """Gives every leaf a new leading axis of `num` equal slices."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *jnp.shape(x))), tree)


def pad(tree: PyTree, num: int) -> PyTree:
    """Gives every leaf `num` rows; those that are missing repeat the first one."""

    def longer(x: jax.Array) -> jax.Array:
        missing = num - x.shape[0]
        return jnp.concatenate([x, jnp.broadcast_to(x[:1], (missing, *x.shape[1:]))]) if missing else x

    return jax.tree.map(longer, tree)


def where(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """Selects leaf by leaf; `condition` of shape [*lead] broadcasts over the trailing axes of every leaf."""

    def select(x: Any, y: Any) -> jax.Array:
        if x is y:  # what nobody changed, such as a table an agent draws from, need not be read and written
            return x
        expanded = jnp.reshape(condition, jnp.shape(condition) + (1,) * (jnp.ndim(x) - jnp.ndim(condition)))
        return jnp.where(expanded, x, y)

    return jax.tree.map(select, yes, no)


def zeros_like(tree: PyTree) -> PyTree:
    """Zero arrays of the shapes and dtypes of the leaves (arrays or `ShapeDtypeStruct`s)."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)


def add(x: PyTree, y: PyTree) -> PyTree:
    """x + y, leaf by leaf."""
    return jax.tree.map(jnp.add, x, y)


def subtract(x: PyTree, y: PyTree) -> PyTree:
    """x - y, leaf by leaf."""
    return jax.tree.map(jnp.subtract, x, y)


def scale(factor: Any, tree: PyTree) -> PyTree:
    """factor * x for every leaf x, in the leaf's own dtype."""
    return jax.tree.map(lambda x: x * jnp.asarray(factor, x.dtype), tree)


def norm(tree: PyTree) -> jax.Array:
    """The Euclidean norm of all leaves together, f32[] (f64[] for float64 leaves); no sum is of less precision."""
    wide = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in pack(tree).vectors.values())
    return jnp.sqrt(sum((jnp.sum(jnp.square(x)) for x in wide), start=jnp.zeros(())))


def all_finite(tree: PyTree) -> jax.Array:
    """bool[]: no floating leaf holds a NaN or an infinity."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in pack(floating(tree)).vectors.values()] or [True]))


def floating(tree: PyTree) -> list[jax.Array]:
    """The leaves that hold floating numbers."""
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]


def num_bits(tree: PyTree) -> int:
    """Size of the raw arrays [bit]; leaves may be arrays or `ShapeDtypeStruct`s."""
    return sum(8 * math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def copy(tree: PyTree) -> PyTree:
    """Strong-typed arrays in buffers of their own, which may be donated."""

    def fresh(x: jax.Array) -> jax.Array:
        extended = jnp.issubdtype(x.dtype, jax.dtypes.extended)
        return jax.random.clone(x) if extended else jnp.array(x, copy=True)

    return jax.tree.map(fresh, strong(tree))


def strong(tree: PyTree) -> PyTree:
    """The same values without weak types, so that a carried state keeps its avals from round to round."""

    def convert(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(convert, tree)


def weighted_sum(stack: PyTree, weight: jax.Array) -> PyTree:
    """sum_m weight[m] stack[m] for leaves [M, ...]; integer leaves are summed as they are where the weight is positive.

    Integers carry residues (secure aggregation), whose sum must wrap and must not be scaled.
    """

    def add_up(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.tensordot(weight.astype(x.dtype), x, 1)
        present = jnp.reshape(weight > 0, weight.shape + (1,) * (x.ndim - 1))
        return jnp.sum(jnp.where(present, x, jnp.zeros((), x.dtype)), 0, dtype=x.dtype)

    return jax.tree.map(add_up, stack)
