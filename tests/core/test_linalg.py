"""Solves and decompositions, one matrix at a time whatever is mapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import linalg


pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(name="matrices")
def make_matrices():
    return np.random.default_rng(0).normal(size=(2, 70, 5, 5)) + 4 * np.eye(5)


@pytest.mark.parametrize("trailing", [(), (3,)])
def test_solves_under_vmap_as_numpy_does(matrices, trailing):
    right = np.random.default_rng(1).normal(size=(2, 70, 5, *trailing))
    found = jax.jit(jax.vmap(jax.vmap(linalg.solve)))(matrices, right)
    columns = right[..., None] if not trailing else right
    np.testing.assert_allclose(found.reshape(columns.shape), np.linalg.solve(matrices, columns), rtol=1e-10)


def test_derivatives_are_those_of_the_inverse(matrices):
    A, b, D = matrices[0, 0], np.arange(5.0), matrices[0, 1]
    x = np.linalg.solve(A, b)
    for differentiate in (jax.jacrev, jax.jacfwd):
        jacobian = differentiate(lambda A: linalg.solve(A, jnp.asarray(b)))(jnp.asarray(A))
        np.testing.assert_allclose(np.tensordot(jacobian, D, 2), -np.linalg.solve(A, D @ x), rtol=1e-9)
    together = jax.vmap(jax.grad(lambda A: linalg.solve(A, jnp.asarray(b)).sum()))(matrices[0])
    np.testing.assert_allclose(together[0], jax.grad(lambda A: linalg.solve(A, jnp.asarray(b)).sum())(A), rtol=1e-9)


def test_decompositions_under_vmap_are_numpys(matrices):
    np.testing.assert_allclose(
        jax.vmap(linalg.singular_values)(matrices[0]), np.linalg.svd(matrices[0], compute_uv=False), rtol=1e-10
    )
    found, expected = (
        np.sort_complex(x) for x in (jax.vmap(linalg.eigenvalues)(matrices[0]), np.linalg.eigvals(matrices[0]))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_no_batch_reaches_the_solver(matrices):
    # A batched call shares its matrices out over threads and waits for them; two of those can wait for ever.
    text = jax.jit(jax.vmap(linalg.solve)).lower(matrices[0], matrices[0, :, 0]).as_text()
    calls = [line for line in text.splitlines() if "custom_call" in line and "getrf" in line]
    assert calls
    assert not any("70x5x5" in line for line in calls)
