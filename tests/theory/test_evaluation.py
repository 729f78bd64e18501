"""Values, optimal policies and chains of one MDP, each against NumPy and SciPy on 100 random ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import theory
from tests.oracles import finite_mdp as oracle
from tests.theory.instances import Instances, random_mdps


pytestmark = pytest.mark.usefixtures("x64")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
COUNT = 100


@pytest.fixture(scope="module")
def mdps() -> Instances:
    return random_mdps(COUNT)


@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
def test_values(mdps: Instances, entropy_weight: float) -> None:
    P, r, pi, rho, _, gamma = mdps
    V = theory.state_values(P, r, pi, gamma, entropy_weight)
    Q = theory.action_values(P, r, pi, gamma, entropy_weight)
    J = theory.expected_return(P, r, pi, rho, gamma, entropy_weight)
    for k in range(COUNT):
        expected = oracle.values(P[k], r[k], pi[k], gamma[k], entropy_weight)
        np.testing.assert_allclose(V[k], expected, **CLOSE)
        np.testing.assert_allclose(Q[k], oracle.action_values(P[k], r[k], pi[k], gamma[k], entropy_weight), **CLOSE)
        np.testing.assert_allclose(J[k], rho[k] @ expected, **CLOSE)


def test_a_policy_that_never_plays_an_action_has_a_finite_entropy() -> None:
    kernel, reward = np.ones((1, 2, 1)), np.asarray([[1.0, 5.0]])
    sure = np.asarray([[1.0, 0.0]])
    np.testing.assert_allclose(theory.state_values(kernel, reward, sure, 0.5, 1.0), [2.0])
    gradient = theory.softmax_gradient(np.asarray([[0.0, -np.inf]]), kernel, reward, np.ones(1), 0.5, 1.0)
    np.testing.assert_array_equal(gradient, [[0.0, 0.0]])


def test_chain_and_reward_of_a_policy(mdps: Instances) -> None:
    P, r, pi, *_ = mdps
    M, gain = theory.policy_chain(P, pi), theory.policy_reward(r, pi)
    for k in range(COUNT):
        np.testing.assert_allclose(M[k], oracle.chain(P[k], pi[k]), **CLOSE)
        np.testing.assert_allclose(gain[k], np.sum(pi[k] * r[k], 1), **CLOSE)


def test_discounted_occupancy(mdps: Instances) -> None:
    P, r, pi, rho, _, gamma = mdps
    d = theory.discounted_occupancy(P, pi, rho, gamma)
    np.testing.assert_allclose(jnp.sum(d, -1), 1, **CLOSE)
    for k in range(COUNT):
        np.testing.assert_allclose(d[k], oracle.occupancy(P[k], pi[k], rho[k], gamma[k]), **CLOSE)
    gain = theory.policy_reward(r, pi)
    J = theory.expected_return(P, r, pi, rho, gamma)
    np.testing.assert_allclose(jnp.sum(d * gain, -1) / (1 - gamma), J, **CLOSE)


def test_optimal_values(mdps: Instances) -> None:
    P, r, _, _, _, gamma = mdps
    exact = theory.policy_iteration(P, r, gamma)
    iterated = theory.value_iteration(P, r, gamma, tolerance=1e-12)
    for k in range(COUNT):
        best = oracle.optimal_values(P[k], r[k], gamma[k])
        np.testing.assert_allclose(exact.values[k], best, **CLOSE)
        np.testing.assert_allclose(iterated.values[k], best, **CLOSE)
    np.testing.assert_allclose(theory.state_values(P, r, exact.policy, gamma), exact.values, **CLOSE)
    np.testing.assert_allclose(jnp.max(exact.action_values, -1), exact.values, **CLOSE)
    np.testing.assert_allclose(iterated.action_values, exact.action_values, **CLOSE)
    np.testing.assert_array_equal(theory.greedy_policy(exact.action_values), exact.policy)
    np.testing.assert_array_equal(iterated.policy, exact.policy)


def test_value_iteration_keeps_its_tolerance(mdps: Instances) -> None:
    P, r, _, _, _, gamma = mdps
    exact = theory.policy_iteration(P, r, gamma).values
    errors = [
        float(jnp.max(jnp.abs(theory.value_iteration(P, r, gamma, tolerance=tolerance).values - exact)))
        for tolerance in (0.1, 1e-3, 1e-6)
    ]
    assert errors[0] < 0.1
    assert errors[1] < 1e-3
    assert errors[2] < 1e-6 < errors[0]  # it does stop early


def test_equal_actions_do_not_cycle() -> None:
    # Every action is the same, up to rounding that differs between them.
    rng = np.random.default_rng(0)
    row = rng.dirichlet(np.ones(5), (5, 1))
    kernel = np.repeat(row, 4, 1) + 1e-17 * rng.normal(size=(5, 4, 5))
    reward = np.repeat(rng.uniform(size=(5, 1)), 4, 1)
    found = theory.policy_iteration(np.abs(kernel), reward, 0.999, max_iterations=50)
    stopped = theory.policy_iteration(np.abs(kernel), reward, 0.999, max_iterations=1)
    np.testing.assert_array_equal(found.policy, stopped.policy)


def test_finite_horizon(mdps: Instances) -> None:
    rng = np.random.default_rng(1)
    count, H, S, A = COUNT, 3, 3, 2
    P = rng.dirichlet(np.ones(S), (count, H, S, A))
    r, pi = rng.uniform(size=(count, H, S, A)), rng.dirichlet(np.ones(A), (count, H, S))
    rho = rng.dirichlet(np.ones(S), count)
    optimum, V = theory.backward_induction(P, r), theory.episodic_values(P, r, pi)
    for k in range(count):
        np.testing.assert_allclose(optimum.values[k], oracle.episodic_values(P[k], r[k], None), **CLOSE)
        np.testing.assert_allclose(V[k], oracle.episodic_values(P[k], r[k], pi[k]), **CLOSE)
    np.testing.assert_allclose(theory.episodic_values(P, r, optimum.policy), optimum.values, **CLOSE)
    np.testing.assert_allclose(jnp.max(optimum.action_values, -1), optimum.values[:, :-1], **CLOSE)
    d = theory.episodic_occupancy(P, pi, rho)
    returns = jnp.einsum("khs,khsa,khsa->k", d, pi, r)
    np.testing.assert_allclose(returns, jnp.einsum("ks,ks->k", rho, V[:, 0]), **CLOSE)


def test_stationary_distribution(mdps: Instances) -> None:
    M = np.asarray(theory.policy_chain(mdps.kernel, mdps.policy))
    mu = theory.stationary_distribution(M)
    limit = theory.limiting_distribution(M, mdps.initial)
    for k in range(COUNT):
        np.testing.assert_allclose(mu[k], oracle.stationary(M[k]), **CLOSE)
    np.testing.assert_allclose(limit, mu, **CLOSE)


def test_transient_states_and_periods_have_a_stationary_law() -> None:
    chain = np.asarray([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # state 0 is left for a cycle of two
    np.testing.assert_allclose(theory.stationary_distribution(chain), [0, 0.5, 0.5], atol=1e-15)
    np.testing.assert_allclose(theory.limiting_distribution(chain, np.eye(3)[0]), [0, 0.5, 0.5], atol=1e-12)
    np.testing.assert_array_equal(theory.stationary_distribution(np.ones((1, 1))), [1.0])


def test_reducible_chains_are_refused() -> None:
    chain = np.asarray([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    stack = np.stack([np.full((3, 3), 1 / 3), chain])
    with pytest.raises(ValueError, match=r"chain\[1\].*several closed classes.*limiting_distribution"):
        theory.stationary_distribution(stack)
    traced = jax.jit(theory.stationary_distribution)(stack)
    assert not np.isnan(traced[0]).any()
    assert np.isnan(traced[1]).all()
    np.testing.assert_allclose(theory.limiting_distribution(chain, np.eye(3)[0]), [0, 0.4, 0.6], atol=1e-12)


def test_mixing_time(mdps: Instances) -> None:
    M = np.asarray(theory.policy_chain(mdps.kernel, mdps.policy))
    lazy = 0.95 * np.eye(M.shape[-1]) + 0.05 * M  # some dozens of steps
    for distance in (0.25, 1e-3):
        found = theory.mixing_time(lazy, distance=distance)
        np.testing.assert_array_equal(found, [oracle.mixing_time(chain, distance) for chain in lazy])


def test_mixing_time_at_its_ends() -> None:
    cycle = np.roll(np.eye(4), 1, 1)
    assert theory.mixing_time(cycle) == np.inf
    assert theory.mixing_time(np.full((4, 4), 0.25)) == 1
    assert theory.mixing_time(np.ones((1, 1))) == 0
    stay = 1 - 2.0**-20  # two states; d(t) = (1 - 2^-19)^t / 2
    slow = np.asarray([[stay, 1 - stay], [1 - stay, stay]])
    assert theory.mixing_time(slow) == np.ceil(np.log(0.5) / np.log1p(-(2.0**-19)))


def test_spectral_gap(mdps: Instances) -> None:
    M = np.asarray(theory.policy_chain(mdps.kernel, mdps.policy))
    expected = [1 - np.sort(np.abs(np.linalg.eigvals(chain)))[-2] for chain in M]
    np.testing.assert_allclose(theory.spectral_gap(M), expected, **CLOSE)
    p, q = 0.3, 0.2
    np.testing.assert_allclose(theory.spectral_gap(np.asarray([[1 - p, p], [q, 1 - q]])), p + q)
    np.testing.assert_allclose(theory.spectral_gap(np.roll(np.eye(4), 1, 1)), 0, atol=1e-14)


@pytest.mark.parametrize("size", [3, 4, 5, 10, 50])
def test_consensus_gap(size: int) -> None:
    identity = np.eye(size)
    ring = (identity + np.roll(identity, 1, 1) + np.roll(identity, -1, 1)) / 3
    np.testing.assert_allclose(theory.consensus_gap(ring), 2 / 3 * (1 - np.cos(2 * np.pi / size)), **CLOSE)
    np.testing.assert_allclose(theory.consensus_gap(np.full((size, size), 1 / size)), 1, **CLOSE)
    np.testing.assert_allclose(theory.consensus_gap(identity), 0, atol=1e-12)
    # One exchange over a directed ring: what is left of any spread is at most 1 - gap, and the worst attains it.
    directed = (identity + np.roll(identity, 1, 1)) / 2
    left = np.linalg.svd(directed - 1 / size, compute_uv=False)[0]
    np.testing.assert_allclose(theory.consensus_gap(directed), 1 - left, **CLOSE)


def test_a_matrix_that_moves_the_mean_is_refused() -> None:
    with pytest.raises(ValueError, match="matrix must have columns that sum to one"):
        theory.consensus_gap(np.asarray([[1.0, 0.0], [0.5, 0.5]]))
