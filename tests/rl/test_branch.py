"""`run_if_any`: exact values, and a branch that survives `vmap`."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.rl import run_if_any


W = jnp.arange(6.0).reshape(2, 3) + 1


def f(w, x):
    return {"product": x @ w, "count": jnp.int32(7)}


def guarded(condition, w, x):
    return run_if_any(condition, f, w, x)


def equations(jaxpr: Any, conds: int = 0) -> Iterator[tuple[str, int, Any]]:
    """Name, number of enclosing `cond`s and the equation, everywhere below a jaxpr."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, conds, equation
        deeper = conds + (equation.primitive.name == "cond")
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner, deeper)


@pytest.mark.parametrize("jit", [True, False])
def test_one_element(jit):
    run = jax.jit(guarded) if jit else guarded
    x = jnp.array([1.0, 2.0])
    out = run(jnp.bool_(True), W, x)
    np.testing.assert_array_equal(out["product"], x @ W)
    assert out["count"] == 7
    out = run(jnp.bool_(False), W, x)
    np.testing.assert_array_equal(out["product"], jnp.zeros(3))
    assert out["count"] == 0 and out["count"].dtype == jnp.int32


@pytest.mark.parametrize("pattern", [[0, 0, 0], [0, 1, 0], [1, 1, 1]])
def test_a_batch_is_exact_by_element(pattern):
    condition = jnp.array(pattern, bool)
    x = jnp.arange(6.0).reshape(3, 2)
    out = jax.jit(jax.vmap(guarded, (0, None, 0)))(condition, W, x)
    np.testing.assert_array_equal(out["product"], jnp.where(condition[:, None], x @ W, 0))
    np.testing.assert_array_equal(out["count"], 7 * condition)


def test_nested_batches_are_exact_by_element():
    generator = np.random.default_rng(0)
    condition = jnp.asarray(generator.uniform(size=(4, 3)) < 0.4)
    w = jnp.asarray(generator.normal(size=(4, 2, 3)), jnp.float32)
    x = jnp.asarray(generator.normal(size=(4, 3, 2)), jnp.float32)
    out = jax.jit(jax.vmap(jax.vmap(guarded, (0, None, 0))))(condition, w, x)
    np.testing.assert_allclose(
        out["product"], jnp.where(condition[..., None], jnp.einsum("ani,aij->anj", x, w), 0), rtol=1e-6
    )


@pytest.mark.parametrize("axes", [(0, None, None), (None, None, 0), (None, 0, None), (None, None, None)])
@pytest.mark.parametrize("holds", [True, False])
def test_any_argument_may_be_unbatched(axes, holds):
    full = (jnp.full(3, holds), jnp.stack([W, 2 * W, 3 * W]), jnp.arange(6.0).reshape(3, 2) + 1)
    arguments = [x if axis == 0 else x[0] for x, axis in zip(full, axes, strict=True)]
    if axes == (None, None, None):
        out = jax.vmap(lambda _: guarded(*arguments))(jnp.arange(3))
    else:
        out = jax.vmap(guarded, axes)(*arguments)
    whole = [jnp.broadcast_to(a, (3, *a.shape)) if axis is None else a for a, axis in zip(arguments, axes, strict=True)]
    expected = jnp.einsum("ni,nij->nj", whole[2], whole[1]) * holds
    np.testing.assert_allclose(out["product"], expected)


def test_it_stays_a_branch_under_nested_vmap():
    mapped = jax.vmap(jax.vmap(guarded, (0, None, 0)), (0, 0, 0))
    jaxpr = jax.make_jaxpr(mapped)(jnp.zeros((4, 3), bool), jnp.zeros((4, 2, 3)), jnp.zeros((4, 3, 2)))
    found = list(equations(jaxpr.jaxpr))
    products = [depth for name, depth, _ in found if name == "dot_general"]
    assert products and all(depth == 1 for depth in products)
    conditions = [equation.invars[0].aval.shape for name, _, equation in found if name == "cond"]
    assert conditions == [()]


def test_parameters_without_a_batch_stay_without_one():
    jaxpr = jax.make_jaxpr(jax.vmap(guarded, (0, None, 0)))(jnp.zeros(5, bool), W, jnp.zeros((5, 2)))
    (product,) = [equation for name, _, equation in equations(jaxpr.jaxpr) if name == "dot_general"]
    assert sorted(v.aval.shape for v in product.invars) == [(2, 3), (5, 2)]


def test_closed_over_arrays_are_batched_too():
    def one(condition, w, x):
        return run_if_any(condition, lambda: x @ w)

    condition = jnp.array([True, False, True])
    x = jnp.arange(6.0).reshape(3, 2)
    out = jax.jit(jax.vmap(one, (0, None, 0)))(condition, W, x)
    np.testing.assert_array_equal(out, jnp.where(condition[:, None], x @ W, 0))


def test_inside_a_loop_of_batches():
    condition = jnp.array([[False, False], [True, False]])
    x = jnp.arange(8.0).reshape(2, 2, 2)
    out = jax.lax.map(lambda slot: jax.vmap(guarded, (0, None, 0))(slot[0], W, slot[1])["product"], (condition, x))
    np.testing.assert_array_equal(out, jnp.where(condition[..., None], x @ W, 0))
