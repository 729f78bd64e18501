"""Compiler options of programs that may be called inside others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import compiler_options, jit


@pytest.mark.parametrize("once", [True, False])
def test_a_program_with_options_runs_alone_and_inside_others(once):
    traces = []

    @jit(once=once, static_argnames="times")
    def scaled(x, *, times):
        """The text."""
        traces.append(times)
        return times * x

    x = jnp.arange(3.0)
    np.testing.assert_array_equal(scaled(x, times=2), 2 * x)
    np.testing.assert_array_equal(scaled(x + 1, times=2), 2 * x + 2)
    assert traces == [2]  # compiled once
    # JAX refuses options of a program within a program.
    np.testing.assert_array_equal(jax.jit(lambda x: scaled(x, times=3) + 1)(x), 3 * x + 1)
    np.testing.assert_array_equal(jax.vmap(lambda x: scaled(x, times=3))(x), 3 * x)
    assert jax.grad(lambda x: scaled(x, times=5))(1.0) == 5
    # Nor does it help that the arguments are known there.
    np.testing.assert_array_equal(jax.jit(lambda: scaled(x, times=3))(), 3 * x)
    assert jax.eval_shape(lambda: scaled(x, times=3)).shape == (3,)
    np.testing.assert_array_equal(jax.lax.scan(lambda c, _: (c + scaled(x, times=3), None), x, length=2)[0], 7 * x)
    assert (scaled.__name__, scaled.__doc__) == ("scaled", "The text.")


def test_options_are_those_of_the_processor():
    assert compiler_options("gpu") is compiler_options("tpu", once=True) is None
    assert compiler_options("cpu") != compiler_options("cpu", once=True)
