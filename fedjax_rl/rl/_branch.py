"""Control flow that stays control flow under `vmap`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun


PyTree = Any


@jax.custom_batching.custom_vmap
def greatest(x: jax.Array) -> jax.Array:
    """The largest element; under `vmap` that of the whole batch, without a batch axis.

    So loops and branches that depend on it stay loops and branches: what one element needs, all of them do.
    """
    return jnp.max(x)


@greatest.def_vmap
def _greatest_of_batch(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size, in_batched
    return greatest(x), False


def run_if_any(condition: jax.Array, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """Returns function(*args) where the condition holds and zeros elsewhere, and saves the work if it holds nowhere.

    Under `vmap` an ordinary `lax.cond` on a batched condition becomes a `select` and runs both sides. This one asks
    whether the condition holds for ANY element of the batch, stays a branch, and then selects by element; nested
    `vmap`s reduce one by one. What a condition guards is therefore computed for the whole batch or not at all.

    Args:
        condition: `bool[]` (per element of a batch).
        function: of arrays; what it closes over counts as arguments.
        *args: pytrees; leaves without a batch axis stay without one inside.

    Returns:
        The function's result or zeros of its shape. There is no derivative through it.
    """
    leaves, tree = jax.tree.flatten(args)
    jaxpr, shape = jax.make_jaxpr(lambda *leaves: function(*jax.tree.unflatten(tree, leaves)), return_shape=True)(
        *leaves
    )
    num_consts = len(jaxpr.consts)

    # Closed-over arrays become arguments: the batching rule would not see their batch axes otherwise.
    def flat(*inputs: jax.Array) -> list[jax.Array]:
        return jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, inputs[:num_consts]))(*inputs[num_consts:])

    out = _branch(flat)(condition, *jaxpr.consts, *leaves)
    return jax.tree.unflatten(jax.tree.structure(shape), out)


def _branch(function: Callable[..., list[jax.Array]]) -> Callable[..., list[jax.Array]]:
    """The branch on one condition, and the rule that makes it the branch of a batch."""

    def zeros(*inputs: jax.Array) -> list[jax.Array]:
        return [jnp.zeros(x.shape, x.dtype) for x in jax.eval_shape(function, *inputs)]

    @jax.custom_batching.custom_vmap
    def branch(condition: jax.Array, *inputs: jax.Array) -> list[jax.Array]:
        return lax.cond(condition, function, zeros, *inputs)

    @branch.def_vmap
    def rule(
        axis_size: int, in_batched: list[bool], condition: jax.Array, *inputs: jax.Array
    ) -> tuple[list[jax.Array], list[bool]]:
        condition_batched, *batched = in_batched
        somewhere = jnp.any(condition) if condition_batched else condition
        if any(batched):
            axes = [0 if b else None for b in batched]
            out = _branch(jax.vmap(function, axes, axis_size=axis_size))(somewhere, *inputs)
        else:
            out = _branch(function)(somewhere, *inputs)
        flags = [condition_batched or any(batched)] * len(out)
        if not condition_batched:
            return out, flags

        def masked(x: jax.Array) -> jax.Array:
            x = x if any(batched) else jnp.broadcast_to(x, (axis_size, *x.shape))
            return jnp.where(condition.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros((), x.dtype))

        return [masked(x) for x in out], flags

    return branch
