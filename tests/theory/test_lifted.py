"""What all functions of the room share: leading axes, dtypes, errors, transformations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import theory
from tests.theory.instances import random_mdps


MDPS = random_mdps(3)


def values(**changes: Any) -> jax.Array:
    arguments = {"kernel": MDPS.kernel[0], "reward": MDPS.reward[0], "policy": MDPS.policy[0], "discount": 0.9}
    return theory.state_values(**(arguments | changes))


@pytest.mark.usefixtures("x64")
def test_leading_axes_broadcast() -> None:
    P, r, pi, *_ = MDPS
    grid = theory.state_values(P[:, None], r[:, None], pi, np.asarray([0.5, 0.6, 0.9]))
    assert grid.shape == (3, 3, 6)
    np.testing.assert_allclose(grid[2, 1], theory.state_values(P[2], r[2], pi[1], 0.6), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_what_lacks_the_axis_of_agents_is_common_to_all() -> None:
    P, r, pi, rho, *_ = MDPS
    common = theory.averaged_return(P, r[0], pi[0], rho[0], 0.9)
    repeated = theory.averaged_return(P, np.stack([r[0]] * 3), pi[0], np.stack([rho[0]] * 3), 0.9)
    np.testing.assert_allclose(common, repeated, rtol=1e-14)


@pytest.mark.usefixtures("x64")
def test_transformations() -> None:
    P, r, pi, *_ = MDPS
    plain = theory.state_values(P, r, pi, 0.9)
    np.testing.assert_allclose(jax.jit(theory.state_values)(P, r, pi, 0.9), plain, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(theory.state_values, (0, 0, 0, None))(P, r, pi, 0.9), plain, rtol=1e-12)
    in_discount = jax.grad(lambda gamma: jnp.sum(theory.state_values(P, r, pi, gamma)))(0.9)
    difference = (jnp.sum(theory.state_values(P, r, pi, 0.9 + 1e-6)) - jnp.sum(plain)) / 1e-6
    np.testing.assert_allclose(in_discount, difference, rtol=1e-4)
    optimum = theory.policy_iteration(P, r, 0.9)
    np.testing.assert_allclose(jax.jit(theory.policy_iteration)(P, r, 0.9).values, optimum.values, rtol=1e-12)
    by_map = jax.vmap(theory.policy_iteration, (0, 0, None))(P, r, 0.9)
    np.testing.assert_array_equal(by_map.policy, optimum.policy)


def test_float32_where_precision_does_not_matter() -> None:
    P, r, pi, rho, *_ = (np.asarray(part, np.float32) for part in MDPS)
    V = theory.state_values(P, r, pi, 0.9)
    assert V.dtype == jnp.float32
    expected = np.linalg.solve(
        np.eye(6) - 0.9 * np.einsum("ksat,ksa->kst", MDPS.kernel, MDPS.policy),
        np.sum(MDPS.policy * MDPS.reward, -1)[..., None],
    )[..., 0]
    np.testing.assert_allclose(V, expected, rtol=1e-4, atol=1e-4)
    optimum, iterated = theory.policy_iteration(P, r, 0.9), theory.value_iteration(P, r, 0.9)
    np.testing.assert_allclose(iterated.values, optimum.values, rtol=1e-4, atol=1e-4)
    mu = theory.stationary_distribution(theory.policy_chain(P, pi))
    np.testing.assert_allclose(jnp.sum(mu, -1), 1, rtol=1e-5)
    assert theory.averaged_return(P, r, pi[0], rho, 0.9).dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_dtype_follows_the_arguments() -> None:
    P, r, pi, *_ = (np.asarray(part, np.float32) for part in MDPS)
    assert theory.state_values(P, r, pi, 0.9).dtype == jnp.float32
    assert theory.state_values(MDPS.kernel, r, MDPS.policy, 0.9).dtype == jnp.float64
    assert theory.state_values(np.ones((1, 1, 1), int), np.ones((1, 1), int), np.ones((1, 1), int), 0.5)[0] == 2.0


def test_float32_is_refused_where_precision_matters() -> None:
    matrix, vector = np.eye(2)[None], np.ones((1, 2))
    with pytest.raises(ValueError, match=r"needs float64, got jax_enable_x64=False.*jax_enable_x64"):
        theory.fixed_point(matrix, vector)
    with pytest.raises(ValueError, match="needs float64"):
        theory.fed_lsa_bias(matrix, vector, 0.1, num_local_steps=3)
    with pytest.raises(ValueError, match="needs float64"):
        theory.best_stochastic_policy(
            jax.random.key(0), np.ones((1, 1, 1, 1)), np.ones((1, 1, 1)), np.ones((1, 1)), 0.9
        )


@pytest.mark.usefixtures("x64")
def test_float32_arrays_are_refused_where_precision_matters() -> None:
    with pytest.raises(ValueError, match="fixed_point needs float64, got matrix, vector of dtype float32; convert"):
        theory.fixed_point(np.eye(2, dtype=np.float32), np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discount": 1.0}, r"discount must lie in \[0, 1\), got 1.0; an undiscounted problem has a horizon"),
        ({"discount": np.asarray([0.5, -0.1])}, r"discount must lie in \[0, 1\), got array"),
        ({"discount": np.nan}, r"discount must lie in \[0, 1\), got nan"),
        ({"kernel": MDPS.kernel[0, :, :, :5]}, r"kernel must be f\[..., S, A, S\] with S = 6 as in kernel"),
        (
            {"reward": MDPS.reward[0, :, :2]},
            r"reward must be f\[..., S, A\] with A = 3 as in kernel, got shape \(6, 2\)",
        ),
        ({"reward": 1.0}, r"reward must be f\[..., S, A\], got shape \(\)"),
        ({"reward": np.full((6, 3), np.nan)}, r"reward\[0, 0\] must be finite, got .*nan"),
        ({"policy": np.full((6, 3), 0.5)}, r"policy\[0\] must sum to one, got .*1.5.*; divide each row by its sum"),
        ({"policy": np.asarray([[2.0, -1.0, 0.0]] * 6)}, r"policy\[0, 1\] must be nonnegative, got .*-1.0"),
        ({"kernel": np.where(MDPS.kernel[0] > 2, 0, np.nan)}, r"kernel\[0, 0, 0\] must be finite, got .*nan"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values(**changes)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A, b: theory.fed_lsa_bias(A, b, 0.0, num_local_steps=2), "step_size must be positive and finite, got"),
        (lambda A, b: theory.fed_lsa_bias(A, b, 0.1, num_local_steps=0), "num_local_steps must be an integer >= 1"),
        (lambda A, b: theory.fixed_point(A, b[:, :1]), "vector must be .* with D = 2 as in matrix, got shape"),
        (lambda A, b: theory.kernel_deviation(A[:, :, None], reduce="median"), "reduce must be one of 'max', 'mean'"),
        (lambda A, b: theory.mixing_time(A[0], distance=1.0), r"distance must lie in \(0, 1\)"),
        (lambda A, b: theory.averaged_mdp(A[:, :, None], b[:, :, None], -b[0]), "weight must be nonnegative"),
        (lambda A, b: theory.averaged_mdp(A[:, :, None], b[:, :, None], 0 * b[0]), "weight must have a positive sum"),
        (lambda A, b: theory.value_iteration(A[:, :, None], b[:, :, None], 0.9, tolerance=0.0), "tolerance must lie"),
        (lambda A, b: theory.averaged_mdp(2 * A[:, :, None], b[:, :, None]), r"kernel\[0, 0, 0\] must sum to one"),
        (
            lambda A, b: theory.simulation_bound(-0.1, 0.0, 0.9),
            "transition_gap must be nonnegative and finite, got -0.1",
        ),
        (lambda A, b: theory.simulation_bound([0.1, -0.1], 0.0, 0.9), "transition_gap must be nonnegative and finite"),
        (
            lambda A, b: theory.federated_q_limit(A[:, :, None], b[:, :, None], 0.9, 1.5, num_local_steps=2),
            r"step_size must lie in \(0, 1\], got 1.5",
        ),
        (
            lambda A, b: theory.best_stochastic_policy(0, A[:, :, None], b[:, :, None], b / 2, 0.9),
            "key must be a typed",
        ),
        (lambda A, b: theory.average_without_lojasiewicz((1, 2)), "success must be pairs, one for each agent"),
        (lambda A, b: theory.average_without_lojasiewicz(((0.0, 1.5),)), r"success\[0\]\[1\] must lie in \[0, 1\]"),
    ],
)
def test_more_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.stack([np.eye(2)] * 2), np.ones((2, 2)))


def test_the_room_exports_what_it_has() -> None:
    for name in dir(theory):
        if not name.startswith("_"):
            assert (getattr(theory, name).__doc__ or "").strip(), f"{name} lacks a docstring"
