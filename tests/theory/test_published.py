"""Numbers that were published, or computed from published instances, and the orders that theorems predict."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from fedjax_rl import theory
from tests.theory.instances import DATA, mixture, slope


pytestmark = pytest.mark.usefixtures("x64")


class Garnet:
    """The instance behind the heterogeneous figure of SCAFFLSA: 100 agents, 30 states, 8 features, eta = 0.1."""

    def __init__(self) -> None:
        data = np.load(DATA / "scafflsa_garnet_heterogeneous_n100.npz")
        self.kernel, self.reward = data["kernel"][:, :, None], data["reward"][:, :, None]
        self.policy, self.features, self.discount = np.ones((30, 1)), data["features"], float(data["gamma"])
        self.known_law = data["stationary"]
        self.law = theory.stationary_distribution(data["kernel"])
        self.common = (self.features, self.kernel, self.reward, self.policy, self.law)
        self.system = theory.td_system(*self.common, self.discount)

    def noise(self) -> jax.Array:
        theta = theory.federated_fixed_point(*self.system)
        return theory.averaged_noise_covariance(theory.td_noise_covariance(*self.common, theta, self.discount))


@pytest.fixture
def garnet() -> Garnet:
    return Garnet()


def test_instance_of_the_scafflsa_figure(garnet: Garnet) -> None:
    np.testing.assert_allclose(garnet.law, garnet.known_law, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(theory.transition_heterogeneity(garnet.kernel), 1)
    assert round(float(theory.reward_heterogeneity(garnet.reward)), 1) == 1.9
    slowest = jnp.min(jnp.linalg.eigvals(jnp.mean(garnet.system.matrix, 0)).real)
    assert round(float(slowest), 5) == 1.32e-3


def test_plateaus_of_the_scafflsa_figure(garnet: Garnet) -> None:
    mean = jnp.mean(garnet.system.matrix, 0)
    covariance = theory.stationary_covariance(mean, garnet.noise(), 0.1)
    floor = theory.fed_lsa_mean_squared_error(*garnet.system, covariance, 0.1, num_local_steps=100)
    assert round(float(floor.bias), 5) == 0.01943
    assert round(float(floor.variance), 6) == 2.293e-3
    # Read off the figure, to about 1 %, at the end of ten noisy runs.
    np.testing.assert_allclose(floor.total, 0.0214, rtol=0.02)
    np.testing.assert_allclose(floor.variance, 2.34e-3, rtol=0.03)


def test_what_first_order_in_the_step_size_leaves_out(garnet: Garnet) -> None:
    theta = theory.federated_fixed_point(*garnet.system)
    exact = theory.exact_stationary_covariance(*garnet.common, theta, garnet.discount, 0.1)
    first = theory.stationary_covariance(jnp.mean(garnet.system.matrix, 0), garnet.noise(), 0.1)
    np.testing.assert_allclose(jnp.trace(exact), jnp.trace(first), rtol=1e-3)
    errors = {}
    for num_local_steps in (1, 2, 10, 100):
        bias = theory.fed_lsa_bias(*garnet.system, 0.1, num_local_steps=num_local_steps)
        expansion = theory.fed_lsa_bias_expansion(*garnet.system, 0.1, num_local_steps=num_local_steps)
        norm = float(jnp.linalg.norm(bias))
        errors[num_local_steps] = float(jnp.linalg.norm(expansion - bias)) / norm if num_local_steps > 1 else norm
    assert errors[1] < 1e-13
    assert errors[2] < errors[10] < 4e-3  # eta H <= 1
    assert round(errors[100], 3) == 0.035


def test_squared_bias_of_the_scafflsa_instance_has_slope_two(garnet: Garnet) -> None:
    def squared(step_size: float, num_local_steps: int) -> float:
        return float(jnp.sum(theory.fed_lsa_bias(*garnet.system, step_size, num_local_steps=num_local_steps) ** 2))

    counts, steps = np.asarray([2, 3, 6, 11]), np.asarray([0.001, 0.01, 0.1])
    over_counts = slope(counts - 1, np.asarray([squared(0.01, int(H)) for H in counts]))
    over_steps = slope(steps, np.asarray([squared(float(eta), 10) for eta in steps]))
    assert abs(over_counts - 2) < 0.005  # relative error of the first order below 4e-3 throughout
    assert abs(over_steps - 2) < 0.005


def test_seven_states_in_conflict() -> None:
    data = np.load(DATA / "conflicting_mdp_7x4.npz")
    P, r, rho, gamma = data["kernel"], data["reward"], data["initial"], float(data["gamma"])
    local = theory.policy_iteration(P, r, gamma)
    assert round(float(jnp.mean(local.values @ rho)), 3) == 97.558
    deterministic = theory.best_deterministic_policy(P, r, rho, gamma)
    assert round(float(deterministic.value), 3) == 63.065
    averaged = theory.policy_iteration(*theory.averaged_mdp(P, r), gamma)
    np.testing.assert_allclose(theory.averaged_return(P, r, averaged.policy, rho, gamma), deterministic.value)
    stochastic = theory.best_stochastic_policy(jax.random.key(0), P, r, rho, gamma)
    assert round(float(stochastic.value), 2) == 96.87
    np.testing.assert_allclose(stochastic.policy[0, :2].sum(), 0.5, atol=1e-4)  # by the symmetry of the two types


def test_two_states_in_conflict() -> None:
    # Two actions of four lead agent c from state 0 to a state that pays 1 for ever; the others stay.
    gamma, S, A = 0.99, 2, 4
    P = np.zeros((2, S, A, S))
    P[:, 1, :, 1] = 1
    P[0, 0, :2, 0] = P[0, 0, 2:, 1] = P[1, 0, :2, 1] = P[1, 0, 2:, 0] = 1
    r = np.zeros((S, A))
    r[1] = 1
    start = np.asarray([1.0, 0.0])
    deterministic = theory.best_deterministic_policy(P, r, start, gamma)
    stochastic = theory.best_stochastic_policy(jax.random.key(1), P, r, start, gamma)
    p = 0.5
    np.testing.assert_allclose(deterministic.value, 49.5, rtol=1e-12)
    np.testing.assert_allclose(stochastic.value, p * gamma / (1 - (1 - p) * gamma) / (1 - gamma), rtol=1e-10)
    assert round(float(stochastic.value), 2) == 98.02


def test_average_without_lojasiewicz_has_three_stationary_points() -> None:
    example = theory.average_without_lojasiewicz()
    common = (example.kernel, example.reward)
    terms = (example.initial, example.discount, example.entropy_weight)

    @jax.jit
    def values(theta: jax.Array) -> jax.Array:
        policy = theory.softmax_policy(example.logits(theta))
        return theory.expected_return(*common, policy, *terms)

    @jax.jit
    def slopes(theta: jax.Array) -> jax.Array:
        return theory.softmax_gradient(example.logits(theta), *common, *terms)[:, 0, 1]

    def roots(function: object) -> list[float]:
        grid = np.linspace(-8, 8, 321)
        signs = np.asarray([float(function(theta)) for theta in grid])  # type: ignore[operator]
        places = np.flatnonzero(np.sign(signs[:-1]) != np.sign(signs[1:]))
        return [brentq(lambda x: float(function(x)), grid[i], grid[i + 1], xtol=1e-10) for i in places]  # type: ignore[operator]

    found = roots(lambda theta: jnp.mean(slopes(theta)))
    assert [round(theta, 3) for theta in found] == [-4.872, 0.040, 3.028]
    assert [round(float(jnp.mean(values(theta))), 3) for theta in found] == [4.867, 3.766, 4.126]
    own = [roots(lambda theta, agent=agent: slopes(theta)[agent]) for agent in range(2)]
    # Each agent has a single maximum. The figure names them in the other order.
    assert [len(points) for points in own] == [1, 1]
    assert sorted(round(points[0], 3) for points in own) == [-4.915, 3.233]


class FederatedQ:
    """Ten agents, S = 10, A = 3, gamma = 0.9: kernels (1 - e) P_0 + e Q_c, rows from a flat Dirichlet law."""

    def __init__(self) -> None:
        data = np.load(DATA / "federated_q_10x3_n10.npz")
        self.common, self.own, self.reward = data["common"], data["own"], data["reward"]

    def kernel(self, share: float) -> np.ndarray:
        return (1 - share) * self.common[None] + share * self.own

    def floor(self, share: Any, step_size: Any, num_local_steps: int) -> np.ndarray:
        """max |Q_inf - Q*| for each share and step size; only new numbers of local steps compile."""

        def one(share: jax.Array, step_size: jax.Array) -> jax.Array:
            kernel = (1 - share) * self.common[None] + share * self.own
            limit = theory.federated_q_limit(kernel, self.reward, 0.9, step_size, num_local_steps=num_local_steps)
            return jnp.max(jnp.abs(limit.bias))

        return np.asarray(jax.jit(jnp.vectorize(one))(*np.broadcast_arrays(share, step_size)))


@pytest.mark.parametrize(
    ("num_local_steps", "expected"), [(1, 0.0), (2, 2.5e-4), (4, 7.4e-4), (8, 1.65e-3), (16, 2.6e-3)]
)
def test_floor_of_federated_q_learning_in_local_steps(num_local_steps: int, expected: float) -> None:
    np.testing.assert_allclose(FederatedQ().floor(1.0, 0.05, num_local_steps), expected, rtol=0.011, atol=1e-12)


def test_floor_of_federated_q_learning_in_step_size_and_heterogeneity() -> None:
    problem = FederatedQ()
    share, step = np.asarray([0.05, 0.2, 1.0, 1.0, 1.0]), np.asarray([0.05, 0.05, 0.05, 0.1, 0.2])
    np.testing.assert_allclose(problem.floor(share, step, 8), [4.8e-6, 7.7e-5, 1.65e-3, 2.6e-3, 1.06e-2], rtol=0.02)
    # Orders: one in the step size and in E - 1, two in kappa, where eta E is small.
    steps, shares, counts = np.asarray([1e-3, 2e-3, 5e-3]), np.asarray([0.02, 0.05, 0.1]), np.asarray([2, 4, 8])
    kappa = np.asarray([float(theory.kernel_deviation(problem.kernel(share))) for share in shares])
    over_counts = np.asarray([problem.floor(0.1, 1e-3, int(E)) for E in counts])
    assert abs(slope(steps, problem.floor(0.1, steps, 8)) - 1) < 0.03
    assert abs(slope(kappa, problem.floor(shares, 5e-3, 8)) - 2) < 0.05
    assert abs(slope(counts - 1, over_counts) - 1) < 0.03


@pytest.mark.parametrize(
    ("num_local_steps", "expected"),
    [(1, [1.65e-2, 1.8e-4, 1.8e-6]), (4, [0.21, 3.0e-3, 3.8e-5]), (16, [1.5, 4.2e-2, 5.2e-4])],
)
def test_federated_q_learning_with_falling_steps(num_local_steps: int, expected: list[float]) -> None:
    # eta_t = 2 / ((1 - gamma) (t + 20 E)), t = 1, 2, ..., starts just below 1 / E; after 400, 4000, 40 000 local steps.
    problem = FederatedQ()
    kernel, reward = problem.kernel(1.0), problem.reward
    etas = 2 / (0.1 * (np.arange(1, 40_001) + 20 * num_local_steps))
    path = theory.federated_q_path(np.zeros((10, 3)), kernel, reward, 0.9, etas, num_local_steps=num_local_steps)
    target = theory.policy_iteration(*theory.averaged_mdp(kernel, reward), 0.9).action_values
    errors = np.asarray(jnp.max(jnp.abs(path - target[None]), (1, 2)))
    found = errors[np.asarray([400, 4000, 40_000]) // num_local_steps - 1]
    np.testing.assert_allclose(found, expected, rtol=0.05)


def orders(share: float, reward_share: float = 0.0) -> tuple[float, float, float]:
    """Drift bias, personalisation gap and distance to the averaged MDP; N = 20, S = 30, d = 8, eta = 0.1, H = 50."""
    instance = mixture(20, 30, 2, 8, seed=3)
    own = np.random.default_rng(4).uniform(-1, 1, (20, 30, 2))
    P, r = instance.kernel(share), instance.reward[None] + reward_share * own
    phi = instance.features / instance.features.sum(1, keepdims=True)
    law = theory.stationary_distribution(theory.policy_chain(P, instance.policy))
    system = theory.td_system(phi, P, r, instance.policy, law, 0.95)
    points = theory.td_fixed_points(phi, P, r, instance.policy, 0.95)
    return (
        float(jnp.linalg.norm(theory.fed_lsa_bias(*system, 0.1, num_local_steps=50))),
        float(theory.personalization_gap(points.local, points.federated)),
        float(jnp.linalg.norm(points.federated - points.averaged)),
    )


def test_two_kinds_of_error() -> None:
    shares = np.asarray([0.01, 0.02, 0.05, 0.1])
    drift, gap, distance = np.asarray([orders(share) for share in shares]).T
    # The next order is a share of the share: at most 10 % of a value at the end, 5 % of a slope over the decade.
    assert abs(slope(shares, drift) - 2) < 0.05
    assert abs(slope(shares, gap) - 1) < 0.05
    assert abs(slope(shares, distance) - 2) < 0.05
    assert 1e-9 < drift[0] < 1e-3 * gap[0]

    fixed_rewards = np.asarray([orders(share, 0.5)[0] for share in shares])
    assert abs(slope(shares, fixed_rewards) - 1) < 0.1  # first order where rewards differ as well
    drift, gap, distance = np.asarray([orders(0.0, share) for share in shares]).T
    np.testing.assert_allclose(drift, 0, atol=1e-12)  # rewards alone move no limit
    np.testing.assert_allclose(distance, 0, atol=1e-11)
    np.testing.assert_allclose(gap / shares, gap[0] / shares[0], rtol=1e-6)  # exactly linear


def test_values_differ_in_proportion_and_policies_from_a_threshold_on() -> None:
    # S = 10, A = 3, gamma = 0.9, N = 10, common rewards in [0, 1].
    instance = mixture(10, 10, 3, seed=5)
    shares = np.asarray([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    P, r = np.stack([instance.kernel(share) for share in shares]), instance.reward
    V = theory.state_values(P, r, instance.policy, 0.9)
    apart = np.asarray(jnp.max(jnp.abs(V[:, :, None] - V[:, None]), (1, 2, 3)))
    eps_P = theory.transition_heterogeneity(P)
    bound = np.asarray(theory.simulation_bound(eps_P, 0.0, 0.9))
    shared = theory.policy_iteration(P.mean(1), r, 0.9).policy
    best = theory.policy_iteration(P, r, 0.9).values
    loss = np.asarray(jnp.max(best - theory.state_values(P, r, shared[:, None], 0.9), (1, 2)))
    assert abs(slope(shares[:4], apart[:4]) - 1) < 0.02
    assert (apart <= bound).all()
    np.testing.assert_allclose(bound / shares, bound[0] / shares[0])  # 90 eps_P, eps_P proportional to the share
    np.testing.assert_allclose(loss[0], 0, atol=1e-11)  # the same actions are best for everybody
    assert (loss <= np.asarray(theory.policy_transfer_bound(eps_P, 0.0, 0.9))).all()
    assert loss[-1] > 0.01


def test_price_of_one_policy_for_all() -> None:
    # S = 10, A = 3, gamma = 0.9, four agents: nothing below a threshold, then more and more, always below the bound.
    instance = mixture(4, 10, 3, seed=6)
    rho, prices = np.full(10, 0.1), []
    solve = jax.jit(theory.best_stochastic_policy)
    for share in (0.01, 0.2, 0.6, 1.0):
        P, r = instance.kernel(share), instance.reward
        local = theory.policy_iteration(P, r, 0.9).values
        shared = solve(jax.random.key(0), P, r, rho, 0.9)
        prices.append(float(jnp.mean(local @ rho) - shared.value))
        bound = theory.policy_transfer_bound(theory.transition_heterogeneity(P), 0.0, 0.9)
        assert prices[-1] <= bound
    np.testing.assert_allclose(prices[0], 0, atol=1e-10)
    assert prices[0] <= prices[1] <= prices[2] <= prices[3]
    assert prices[3] > 0.01
