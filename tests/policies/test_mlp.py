"""The dense stack against loops, and its hand-written gradient against autodiff."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.policies import ACTIVATIONS, dense_stack


MANY = 150  # enough samples for the hand-written gradient to be used


def parameters(sizes=(4, 6, 5, 3), dtype=jnp.float32, seed=0):
    generator = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), dtype)

    return tuple((draw(a, b), draw(b)) for a, b in itertools.pairwise(sizes))


def inputs(*shape, dtype=jnp.float32, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*shape, 4)), dtype)


def total(layers, x, activation="tanh", fast=True):
    """A scalar of order 1 whose derivative reaches every output differently."""
    out = dense_stack(layers, x, activation, fast)
    return jnp.mean(jnp.cos(jnp.arange(out.size)).reshape(out.shape) * out + jnp.sin(out))


def both(f, *args):
    """The function with the fast gradient and with the plain one."""
    ways = (functools.partial(total, fast=True), functools.partial(total, fast=False))
    return jax.jit(lambda *args: tuple(f(way, *args) for way in ways))(*args)


def assert_close(pair, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), *pair)


EXACT: Any = {"rtol": 1e-12, "atol": 1e-12}


def test_equals_a_loop_over_neurons(x64):
    layers, x = parameters(dtype=jnp.float64), inputs(2, 3, dtype=jnp.float64)
    for row, out in zip(np.asarray(x).reshape(-1, 4), np.asarray(dense_stack(layers, x)).reshape(-1, 3), strict=True):
        h = list(row)
        for number, (kernel, bias) in enumerate(layers):
            z = [sum(h[i] * kernel[i, j] for i in range(len(h))) + bias[j] for j in range(len(bias))]
            h = [np.tanh(v) for v in z] if number < 2 else z
        np.testing.assert_allclose(out, np.array(h), **EXACT)


@pytest.mark.parametrize(
    ("activation", "shape"),
    [*((name, (MANY,)) for name in ACTIVATIONS), *(("tanh", shape) for shape in [(), (3,), (15, 10), (3, 5, 10)])],
)
def test_gradient_is_that_of_autodiff(x64, activation, shape):
    layers, x = parameters(dtype=jnp.float64), inputs(*shape, dtype=jnp.float64)
    assert_close(both(lambda f, *args: jax.grad(f, (0, 1))(*args, activation), layers, x), **EXACT)


def test_gradient_without_jit(x64):
    layers, x = parameters(dtype=jnp.float64), inputs(MANY, dtype=jnp.float64)
    assert_close((jax.grad(total)(layers, x), both(lambda f, *args: jax.grad(f)(*args), layers, x)[1]), **EXACT)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_in_float32(activation):
    layers, x = parameters(), inputs(MANY)

    def mean_square(layers, fast):
        return jnp.mean(jnp.square(dense_stack(layers, x, activation, fast)))

    gradient = jax.jit(jax.grad(mean_square), static_argnums=1)
    assert_close((gradient(layers, True), gradient(layers, False)), rtol=2e-5, atol=2e-5)


def test_value_under_differentiation_is_the_value(x64):
    layers, x = parameters(dtype=jnp.float64), inputs(MANY, dtype=jnp.float64)
    under, _ = jax.vjp(lambda layers: dense_stack(layers, x), layers)
    np.testing.assert_allclose(under, dense_stack(layers, x), **EXACT)


def test_many_samples_take_the_hand_written_way_and_few_the_plain_one():
    def jvp(num, fast):
        x = inputs(num)
        return jax.jvp(lambda x: dense_stack(parameters(), x, "tanh", fast), (x,), (x,))

    with pytest.raises(TypeError, match="custom_vjp"):
        jvp(MANY, True)
    jvp(MANY, False)
    jvp(3, True)


@pytest.mark.parametrize("batched", [(0, 0), (None, 0), (0, None)])
def test_under_vmap(x64, batched):
    layers = jax.tree.map(lambda *x: jnp.stack(x), *[parameters(dtype=jnp.float64, seed=s) for s in range(3)])
    x = inputs(3, MANY, dtype=jnp.float64)
    if batched[0] is None:
        layers = jax.tree.map(lambda x: x[0], layers)
    if batched[1] is None:
        x = x[0]
    assert_close(both(lambda f, *args: jax.vmap(jax.grad(f, (0, 1)), batched)(*args), layers, x), **EXACT)


def test_under_map_and_scan(x64):
    layers, x = parameters(dtype=jnp.float64), inputs(3, MANY, dtype=jnp.float64)

    def mapped(f):
        return jax.lax.map(lambda x: jax.grad(f)(layers, x), x)

    def descended(f):
        def step(layers, x):
            return jax.tree.map(lambda p, g: p - 1e-4 * g, layers, jax.grad(f)(layers, x)), None

        return jax.lax.scan(step, layers, x)[0]

    def through_a_scan(f):
        def whole(layers):
            return jax.lax.scan(lambda carry, x: (carry + f(layers, x), None), 0.0, x)[0]

        return jax.grad(whole)(layers)

    for run in (mapped, descended, through_a_scan):
        assert_close(both(run), **EXACT)


def test_the_gradient_has_derivatives_of_its_own(x64):
    layers, x = parameters((4, 3, 1), dtype=jnp.float64), inputs(MANY, dtype=jnp.float64)
    tangent = jax.tree.map(jnp.ones_like, layers)

    def forward_over_reverse(f):
        return jax.jvp(lambda p: jax.grad(f)(p, x), (layers,), (tangent,))[1]

    def reverse_over_reverse(f):
        return jax.grad(lambda p: sum(g.sum() for g in jax.tree.leaves(jax.grad(f)(p, x))))(layers)

    forward, reverse = both(forward_over_reverse), both(reverse_over_reverse)
    assert_close(forward, **EXACT)
    assert_close(reverse, **EXACT)
    assert_close((forward[0], reverse[0]), **EXACT)


def test_one_layer_is_linear(x64):
    layers, x = parameters((4, 2), dtype=jnp.float64), inputs(MANY, dtype=jnp.float64)
    np.testing.assert_allclose(dense_stack(layers, x), x @ layers[0][0] + layers[0][1][None], **EXACT)
    assert_close(both(lambda f, *args: jax.grad(f, (0, 1))(*args), layers, x), **EXACT)


@pytest.mark.parametrize("kind", [jnp.float32, jnp.float64, jnp.int32])
def test_floating_type_of_the_result(x64, kind):
    out = dense_stack(parameters(), inputs(MANY).astype(kind))
    assert out.dtype == (jnp.float64 if kind == jnp.float64 else jnp.float32)
