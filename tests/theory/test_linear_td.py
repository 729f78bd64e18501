"""TD systems, their noise and what FedLSA makes of them, against sums over transitions and SciPy."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from fedjax_rl import theory
from tests.oracles import finite_mdp as oracle
from tests.theory.instances import Instances, mixture, random_mdps, slope


pytestmark = pytest.mark.usefixtures("x64")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
COUNT = 100


@pytest.fixture(scope="module")
def mdps() -> Instances:
    return random_mdps(COUNT, seed=2)


@pytest.fixture
def laws(mdps: Instances) -> np.ndarray:
    return np.asarray(theory.stationary_distribution(theory.policy_chain(mdps.kernel, mdps.policy)))


@pytest.mark.parametrize("trace_decay", [0.0, 0.6])
def test_td_system(mdps: Instances, laws: np.ndarray, trace_decay: float) -> None:
    P, r, pi, _, phi, gamma = mdps
    A, b = theory.td_system(phi, P, r, pi, laws, gamma, trace_decay)
    fixed = theory.fixed_point(A, b)
    for k in range(COUNT):
        A_k, b_k = oracle.td_system(phi[k], P[k], r[k], pi[k], laws[k], gamma[k], trace_decay)
        np.testing.assert_allclose(A[k], A_k, **CLOSE)
        np.testing.assert_allclose(b[k], b_k, **CLOSE)
        np.testing.assert_allclose(A_k @ fixed[k], b_k, **CLOSE)


def test_with_a_feature_for_every_state_the_fixed_point_is_the_value(mdps: Instances, laws: np.ndarray) -> None:
    P, r, pi, _, _, gamma = mdps
    for trace_decay in (0.0, 0.9):
        system = theory.td_system(np.eye(P.shape[1]), P, r, pi, laws, gamma, trace_decay)
        np.testing.assert_allclose(theory.fixed_point(*system), theory.state_values(P, r, pi, gamma), rtol=1e-8)


def test_noise_covariance(mdps: Instances, laws: np.ndarray) -> None:
    P, r, pi, _, phi, gamma = mdps
    theta = np.random.default_rng(3).normal(size=(COUNT, phi.shape[-1]))
    found = theory.td_noise_covariance(phi, P, r, pi, laws, theta, gamma)
    for k in range(COUNT):
        mean, second, _ = oracle.td_noise(phi[k], P[k], r[k], pi[k], laws[k], theta[k], gamma[k])
        np.testing.assert_allclose(found[k], second - np.outer(mean, mean), **CLOSE)
    together = theory.averaged_noise_covariance(found)
    np.testing.assert_allclose(together, np.sum(found, 0) / COUNT**2, **CLOSE)


def test_markov_noise_covariance(mdps: Instances, laws: np.ndarray) -> None:
    P, r, pi, _, phi, gamma = mdps
    theta = np.random.default_rng(4).normal(size=(COUNT, phi.shape[-1]))
    found = theory.markov_noise_covariance(phi, P, r, pi, laws, theta, gamma)
    for k in range(COUNT):
        expected = oracle.long_run_covariance(phi[k], P[k], r[k], pi[k], laws[k], theta[k], gamma[k])
        np.testing.assert_allclose(found[k], expected, **CLOSE)
    np.testing.assert_allclose(found, jnp.swapaxes(found, -1, -2), **CLOSE)


def test_without_memory_markov_noise_is_that_of_independent_samples() -> None:
    rng = np.random.default_rng(5)
    law = rng.dirichlet(np.ones(5))
    P = np.broadcast_to(law, (5, 2, 5))
    # Every transition starts where the last one ended, so only a noise that does not look at s' is without memory.
    r, pi, phi = rng.normal(size=(5, 2)), rng.dirichlet(np.ones(2), 5), rng.normal(size=(5, 3))
    arguments = (phi, P, r, pi, law, rng.normal(size=3), 0.0)
    np.testing.assert_allclose(
        theory.markov_noise_covariance(*arguments), theory.td_noise_covariance(*arguments), **CLOSE
    )


def test_lyapunov() -> None:
    rng = np.random.default_rng(6)
    root = rng.normal(size=(COUNT, 5, 5))
    A = rng.normal(size=(COUNT, 5, 5)) / 4 + 2 * np.eye(5)
    Q = root @ root.swapaxes(1, 2)
    X, covariance = theory.solve_lyapunov(A, Q), theory.stationary_covariance(A, Q, 0.1)
    for k in range(COUNT):
        np.testing.assert_allclose(X[k], scipy.linalg.solve_continuous_lyapunov(A[k], Q[k]), **CLOSE)
    np.testing.assert_allclose(covariance, 0.1 * X, **CLOSE)


def test_exact_covariance_with_a_random_matrix() -> None:
    # Agents 3, MDPs 100 in one call; the oracle iterates the second moment, which contracts, up to its limit.
    rng = np.random.default_rng(7)
    N, S, A, d, gamma, eta = 3, 4, 2, 2, 0.6, 0.3
    P, r = rng.dirichlet(np.ones(S), (COUNT, N, S, A)), rng.uniform(size=(COUNT, N, S, A))
    pi, phi = rng.dirichlet(np.ones(A), (COUNT, S)), rng.uniform(size=(COUNT, S, d))
    mu = np.asarray(theory.stationary_distribution(theory.policy_chain(P, pi[:, None])))
    system = theory.td_system(phi[:, None], P, r, pi[:, None], mu, gamma)
    theta = np.asarray(theory.federated_fixed_point(*system))
    found = theory.exact_stationary_covariance(phi, P, r, pi, mu, theta, gamma, eta)
    for k in range(COUNT):
        A_bar, noise, spread = np.zeros((d, d)), np.zeros((d, d)), np.zeros((d * d, d * d))
        for c in range(N):
            A_c, _ = oracle.td_system(phi[k], P[k, c], r[k, c], pi[k], mu[k, c], gamma)
            mean, second, squares = oracle.td_noise(phi[k], P[k, c], r[k, c], pi[k], mu[k, c], theta[k], gamma)
            A_bar, noise = A_bar + A_c / N, noise + (second - np.outer(mean, mean)) / N**2
            spread += (squares - np.kron(A_c, A_c)) / N**2
        step = np.kron(np.eye(d) - eta * A_bar, np.eye(d) - eta * A_bar) + eta**2 * spread
        assert np.abs(np.linalg.eigvals(step)).max() < 1
        power, total = step, np.eye(d * d)
        for _ in range(60):  # the sum of all powers, by doubling
            total, power = total + power @ total, power @ power
        np.testing.assert_allclose(found[k].ravel(), eta**2 * total @ noise.ravel(), rtol=1e-10, atol=1e-14)
    # For small steps it is the solution of the Lyapunov equation.
    small = theory.exact_stationary_covariance(phi, P, r, pi, mu, theta, gamma, 1e-6)
    noise = theory.td_noise_covariance(phi[:, None], P, r, pi[:, None], mu, theta[:, None], gamma)
    first = theory.stationary_covariance(jnp.mean(system.matrix, 1), theory.averaged_noise_covariance(noise), 1e-6)
    np.testing.assert_allclose(small, first, rtol=1e-3, atol=1e-9 * float(jnp.max(jnp.abs(first))))


def test_limits_exist_where_the_recursion_is_stable() -> None:
    rng = np.random.default_rng(11)
    for _ in range(COUNT):
        A, b, eta = rng.normal(size=(3, 2, 2)) + np.eye(2), rng.normal(size=(3, 2)), rng.uniform(0.1, 2)
        mean = np.mean([np.linalg.matrix_power(np.eye(2) - eta * own, 4) for own in A], 0)
        steps_contract = np.abs(np.linalg.eigvals(mean)).max() < 1
        with nullcontext() if steps_contract else pytest.raises(ValueError, match="step_size must be so small"):
            theory.fed_lsa_bias(A, b, eta, num_local_steps=4)
        flow_decays = np.linalg.eigvals(A[0]).real.min() > 0
        with nullcontext() if flow_decays else pytest.raises(ValueError, match="matrix must have eigenvalues with pos"):
            theory.stationary_covariance(A[0], np.eye(2), eta)
        assert np.isnan(jax.jit(theory.stationary_covariance)(A[0], np.eye(2), eta)).any() != flow_decays


def test_no_second_moment_where_the_steps_are_too_large() -> None:
    # One state, feature 1, reward r: A(Z) = 1 - gamma without noise: a step contracts for eta (1 - gamma) < 2.
    one = (
        np.ones((1, 1)),
        np.ones((1, 1, 1, 1)),
        np.ones((1, 1, 1)),
        np.ones((1, 1)),
        np.ones((1, 1)),
        np.zeros(1),
        0.5,
    )
    assert float(theory.exact_stationary_covariance(*one, 3.99)[0, 0]) == pytest.approx(0)
    with pytest.raises(ValueError, match="step_size must be so small that the second moment stays bounded"):
        theory.exact_stationary_covariance(*one, 4.01)


def test_no_fixed_point_without_independent_features() -> None:
    for matrix in (np.ones((2, 2)), np.zeros((2, 2)), np.asarray([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]])):
        vector = np.ones(len(matrix))
        with pytest.raises(ValueError, match="matrix must be regular, got a singular one"):
            theory.fixed_point(matrix, vector)
        for function in (theory.federated_fixed_point, theory.scafflsa_control_variates):
            with pytest.raises(ValueError, match="matrix must have a regular mean"):
                function(np.stack([matrix] * 2), np.stack([vector] * 2))
    with pytest.raises(ValueError, match=r"matrix\[1\] must be regular"):
        theory.fixed_point(np.stack([np.eye(2), np.ones((2, 2))]), np.ones(2))
    with pytest.raises(ValueError, match="no two eigenvalues that sum to zero"):
        theory.solve_lyapunov(np.diag([1.0, -1.0]), np.eye(2))


def random_systems(count: int, num_agents: int = 5, size: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    A = np.eye(size) + 0.4 * rng.normal(size=(count, num_agents, size, size)) / np.sqrt(size)
    return A, rng.normal(size=(count, num_agents, size))


@pytest.mark.parametrize(("step_size", "num_local_steps"), [(0.1, 1), (0.1, 2), (0.05, 7), (0.02, 32)])
def test_fed_lsa_bias(step_size: float, num_local_steps: int) -> None:
    A, b = random_systems(COUNT)
    theta = np.asarray(theory.federated_fixed_point(A, b))
    bias = theory.fed_lsa_bias(A, b, step_size, num_local_steps=num_local_steps)
    local = np.asarray(theory.fixed_point(A, b))
    for k in range(COUNT):
        np.testing.assert_allclose(theta[k], np.linalg.solve(A[k].mean(0), b[k].mean(0)), **CLOSE)
        limit = oracle.fed_lsa_limit(A[k], b[k], step_size, num_local_steps)
        np.testing.assert_allclose(bias[k], limit - theta[k], **CLOSE)
        # The formula as it is printed.
        powers = [np.linalg.matrix_power(np.eye(3) - step_size * A_c, num_local_steps) for A_c in A[k]]
        drift = np.mean([(np.eye(3) - M) @ (own - theta[k]) for M, own in zip(powers, local[k], strict=True)], 0)
        np.testing.assert_allclose(bias[k], np.linalg.solve(np.eye(3) - np.mean(powers, 0), drift), **CLOSE)


def test_bias_vanishes_without_local_steps_and_with_equal_matrices() -> None:
    A, b = random_systems(COUNT)
    one = theory.fed_lsa_bias(A, b, 0.1, num_local_steps=1)
    np.testing.assert_allclose(one, 0, atol=1e-14)
    equal = np.broadcast_to(A[:, :1], A.shape)
    for num_local_steps in (2, 100, 10_000):
        rewards_only = theory.fed_lsa_bias(equal, b, 0.1, num_local_steps=num_local_steps)
        np.testing.assert_allclose(rewards_only, 0, atol=1e-13)
    assert float(jnp.min(jnp.linalg.norm(theory.fed_lsa_bias(A, b, 0.1, num_local_steps=2), axis=-1))) > 1e-4


def test_bias_expansion_is_of_first_order() -> None:
    A, b = random_systems(COUNT)
    errors = []
    for step_size in (1e-2, 1e-3, 1e-4):
        bias = theory.fed_lsa_bias(A, b, step_size, num_local_steps=10)
        first = theory.fed_lsa_bias_expansion(A, b, step_size, num_local_steps=10)
        errors.append(float(jnp.max(jnp.linalg.norm(first - bias, axis=-1) / jnp.linalg.norm(bias, axis=-1))))
    # The remainder is one order higher: ten times less per decade, up to 30 % at these steps.
    assert 7 < errors[0] / errors[1] < 13
    assert 7 < errors[1] / errors[2] < 13


def test_log_bias_has_slope_one_in_step_size_and_local_steps() -> None:
    A, b = random_systems(1)
    steps, counts = np.logspace(-6, -4, 5), np.asarray([2, 3, 5, 9, 17])
    over_steps = [float(jnp.linalg.norm(theory.fed_lsa_bias(A, b, eta, num_local_steps=10))) for eta in steps]
    over_counts = [float(jnp.linalg.norm(theory.fed_lsa_bias(A, b, 1e-5, num_local_steps=int(H)))) for H in counts]
    # The next term is eta H, at most 1e-3 of the first one's size times the condition of A.
    assert abs(slope(steps, np.asarray(over_steps)) - 1) < 5e-3
    assert abs(slope(counts - 1, np.asarray(over_counts)) - 1) < 5e-3


def test_control_variates_hold_scafflsa_at_its_fixed_point() -> None:
    A, b = random_systems(COUNT)
    theta, local = theory.federated_fixed_point(A, b), theory.fixed_point(A, b)
    xi = theory.scafflsa_control_variates(A, b)
    np.testing.assert_allclose(jnp.sum(xi, 1), 0, atol=1e-12)
    np.testing.assert_allclose(xi, jnp.einsum("knde,kne->knd", A, theta[:, None] - local), **CLOSE)
    drift = jnp.einsum("knde,ke->knd", A, theta) - b - xi  # what a local step moves by
    np.testing.assert_allclose(drift, 0, atol=1e-12)


def test_mean_squared_error_adds_up() -> None:
    A, b = random_systems(3)
    covariance = np.broadcast_to(np.diag([1.0, 2.0, 3.0]), (3, 3, 3))
    found = theory.fed_lsa_mean_squared_error(A, b, covariance, 0.1, num_local_steps=5)
    bias = theory.fed_lsa_bias(A, b, 0.1, num_local_steps=5)
    np.testing.assert_allclose(found.bias, jnp.sum(bias**2, -1), **CLOSE)
    np.testing.assert_allclose(found.variance, 6.0)
    np.testing.assert_allclose(found.total, found.bias + 6.0)


def test_federated_td_is_td_of_the_mdp_averaged_by_visits() -> None:
    # Not of the one averaged with equal weights, unless all agents draw states from one law.
    instance = mixture(5, 6, 2, 3, seed=9)
    P, r, pi, phi = instance.kernel(1.0), instance.reward, instance.policy, instance.features
    laws = theory.stationary_distribution(theory.policy_chain(P, pi))
    points = theory.td_fixed_points(phi, P, r, pi, 0.9)
    visited = theory.averaged_mdp(P, r, laws)
    same = theory.fixed_point(*theory.td_system(phi, *visited, pi, jnp.mean(laws, 0), 0.9))
    np.testing.assert_allclose(points.federated, same, **CLOSE)
    assert float(jnp.linalg.norm(points.federated - points.averaged)) > 1e-3

    law = np.random.default_rng(0).dirichlet(np.ones(6))
    common = theory.federated_fixed_point(*theory.td_system(phi, P, r, pi, law, 0.9))
    averaged = theory.fixed_point(*theory.td_system(phi, *theory.averaged_mdp(P, r), pi, law, 0.9))
    np.testing.assert_allclose(common, averaged, **CLOSE)


def test_spread_of_systems() -> None:
    A, b = random_systems(COUNT)
    local = np.asarray(theory.fixed_point(A, b))
    zeta, spread = theory.system_heterogeneity(A), theory.fixed_point_spread(local)
    gap = theory.personalization_gap(local, local[:, 0])
    for k in range(COUNT):
        np.testing.assert_allclose(zeta[k], max(np.linalg.norm(M - A[k].mean(0), 2) for M in A[k]), **CLOSE)
        np.testing.assert_allclose(spread[k], np.sum(local[k].var(0)), **CLOSE)
        np.testing.assert_allclose(gap[k], np.mean([np.linalg.norm(x - local[k, 0]) for x in local[k]]), **CLOSE)
