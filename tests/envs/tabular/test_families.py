"""Families of random and of hand-made MDPs: published definitions, heterogeneity, closed forms."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import envs
from tests.oracles import finite_worlds as oracle


pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)
DATA = Path(__file__).parents[2] / "data"


sample = jax.jit(lambda family, key, num_agents: family.sample(key, num_agents), static_argnums=2)


def arrays(family, num_agents=20, key=KEY):
    """Kernels and rewards of agents, in NumPy."""
    physics = sample(family, key, num_agents)
    return np.asarray(physics.kernel), np.asarray(physics.reward)


def eps_p(kernels):
    """Greatest total variation between two agents in a state and action."""
    return max(0.5 * abs(P - Q).sum(-1).max() for P, Q in itertools.combinations(kernels, 2))


def eps_r(rewards):
    return max(abs(r - q).max() for r, q in itertools.combinations(rewards, 2))


# ---------------------------------------------------------------- Garnets


def test_garnet_of_the_homogeneous_regime():
    # P(s'|s,a) = (1 + u) / (2 + u + u'), u and u' uniform on [0, 0.02]: eps_P < 0.02 / 2.02, and over 60 rows of 100
    # agents the extremes come close: the greatest of n uniforms is below 0.9 of its bound with probability 0.9^n, far
    # below 1e-9 here.
    family = envs.garnet_family()
    kernels, rewards = arrays(family, 100)
    assert kernels.shape == (100, 30, 2, 30)
    assert np.all((kernels > 0).sum(-1) == 2)
    assert np.all((kernels > 0) == (kernels[0] > 0))
    assert 0.008 < eps_p(kernels) < 0.02 / 2.02  # published instance: 0.009
    assert 0.018 < eps_r(rewards) < 0.02
    np.testing.assert_array_equal(rewards[..., 0], rewards[..., 1])
    np.testing.assert_array_equal(family.support.shape, (1, 30, 2, 30))


def test_garnet_of_the_heterogeneous_regime():
    family = envs.garnet_family("heterogeneous")
    kernels, rewards = arrays(family, 100)
    assert eps_p(kernels) == pytest.approx(1, abs=1e-12)
    assert eps_p(kernels[::2]) < 0.02 / 2.02 and eps_p(kernels[1::2]) < 0.02 / 2.02
    np.testing.assert_array_equal(rewards[1::2], -rewards[::2])
    assert eps_r(rewards) == pytest.approx(2 * rewards.max())
    # The greatest of 30 uniform rewards is below 0.8 with probability 0.8^30 = 1e-3, for this seed once and for all.
    assert 1.6 < eps_r(rewards) < 2


@pytest.mark.parametrize("num_actions", [1, 2, 4])
def test_features_and_policy_of_a_garnet(num_actions):
    family = envs.garnet_family(num_actions=num_actions, num_features=5)
    assert family.features.shape == (30, 5) and family.features.min() >= 0
    np.testing.assert_allclose(family.features.sum(1), 1)
    assert np.linalg.matrix_rank(family.features) == 5
    np.testing.assert_allclose(family.policy.sum(1), 1)
    share = 1 / max(num_actions - 1, 1)
    assert np.all(np.isclose(family.policy, share) | (family.policy == 0))
    assert np.all((family.policy > 0).sum(1) == max(num_actions - 1, 1))


def test_the_published_garnet_has_the_same_structure():
    # Its file holds P^pi and r of 100 agents; ours, under its deterministic policy, obeys the same bounds.
    with np.load(DATA / "scafflsa_garnet_heterogeneous_n100.npz") as file:
        published = file["kernel"], file["reward"], file["features"]
    family = envs.garnet_family("heterogeneous")
    kernels, rewards = arrays(family, 100)
    ours = np.einsum("sa,nsat->nst", family.policy, kernels), rewards[..., 0], family.features
    for P, r, phi in (published, ours):
        assert P.shape == (100, 30, 30) and r.shape == (100, 30) and phi.shape == (30, 8)
        assert np.all((P > 0).sum(-1) == 2)
        assert P[P > 0].min() >= 1 / 2.02 - 1e-12 and P.max() <= 1.02 / 2.02 + 1e-12
        for half in (P[::2], P[1::2]):
            assert np.all((half > 0) == (half[0] > 0))
        np.testing.assert_array_equal(r, r[0] * np.where(np.arange(100) % 2, -1, 1)[:, None])
        np.testing.assert_allclose(phi.sum(1), 1)


def test_noise_of_a_garnet_is_a_leaf():
    noises = jnp.array([0.0, 0.5])
    swept = jax.vmap(lambda h: envs.garnet_family(kernel_noise=h).sample(KEY, 5).kernel)(noises)
    assert eps_p(np.asarray(swept[0])) < 1e-12
    assert 0.1 < eps_p(np.asarray(swept[1])) < 0.5 / 2.5


# ---------------------------------------------------------------- mixtures


@pytest.mark.parametrize("e", [0.0, 0.1, 1.0])
def test_mixture_is_a_mixture(e):
    family = envs.mixture_family(eps_p=e, eps_r=e / 2)
    kernels, rewards = arrays(family)
    own, own_rewards = arrays(envs.mixture_family(eps_p=1.0, eps_r=1.0))
    np.testing.assert_allclose(kernels, (1 - e) * family.common.kernel + e * own, atol=1e-12)
    np.testing.assert_allclose(rewards, (1 - e / 2) * family.common.reward + e / 2 * own_rewards, atol=1e-12)
    assert eps_p(kernels) <= e + 1e-12 and eps_r(rewards) <= e / 2 + 1e-12
    assert e == 0 or eps_p(own) > 0.5


def test_rows_of_a_mixture_are_dirichlet():
    # A component of Dirichlet(1, ..., 1) in S = 5 has mean 1/5 and variance 4/150. n = 4 * 5 * 2000 rows, nearly
    # independent components of bounded variable: 6 standard errors have probability 2e-9.
    kernels, rewards = arrays(envs.mixture_family(eps_p=1.0, eps_r=1.0), 2000)
    num, std = kernels[..., 0].size, np.sqrt(4 / 150)
    assert np.all(abs(kernels.mean((0, 1, 2)) - 0.2) < 6 * std / np.sqrt(num))
    fourth = 24 / (5 * 6 * 7 * 8) - 4 * 0.2 * 6 / (5 * 6 * 7) + 6 * 0.04 * 2 / 30 - 3 * 0.2**4  # E (x - 1/5)^4
    error = np.sqrt((fourth - std**4) / num)
    assert np.all(abs(((kernels - 0.2) ** 2).mean((0, 1, 2)) - std**2) < 6 * error)
    assert abs(rewards.mean() - 0.5) < 6 * np.sqrt(1 / 12 / rewards.size)


def test_agents_of_one_type_are_the_same():
    kernels, rewards = arrays(envs.mixture_family(eps_p=0.3, eps_r=0.3, num_types=2), 6)
    for x in (kernels, rewards):
        np.testing.assert_array_equal(x[::2], np.broadcast_to(x[0], x[::2].shape))
        np.testing.assert_array_equal(x[1::2], np.broadcast_to(x[1], x[1::2].shape))
        assert abs(x[0] - x[1]).max() > 0.01
    other, _ = arrays(envs.mixture_family(eps_p=0.3, eps_r=0.3, num_types=2), 2, jax.random.key(99))
    np.testing.assert_array_equal(other, kernels[:2])  # types belong to the population, not to the draw


def test_branching_bounds_the_successors():
    kernels, _ = arrays(envs.mixture_family(8, 3, eps_p=1.0, branching=3))
    assert np.all((kernels > 0).sum(-1) == 3)
    assert len(np.unique((kernels > 0).reshape(20, -1), axis=0)) == 20
    common = envs.mixture_family(8, 3, eps_p=0.0, branching=3).common.kernel
    assert np.all((common > 0).sum(-1) == 3)


def test_a_centre_of_your_own():
    centre = envs.TabularParams(np.eye(3)[:, None].repeat(2, 1), np.zeros((3, 2)), np.array([1.0, 0, 0]), 7)
    family = envs.mixture_family(common=centre, eps_p=0.5)
    assert family.env == envs.TabularMDP(3, 2)
    physics = family.sample(KEY, 2)
    assert physics.kernel[:, np.arange(3), :, np.arange(3)].min() >= 0.5
    np.testing.assert_array_equal(physics.max_steps_in_episode, 7)
    np.testing.assert_array_equal(physics.initial, [[1, 0, 0]] * 2)


@pytest.mark.parametrize("e", [0.2, 0.6, 1.0])
def test_disjoint_supports_are_at_distance_eps(e):
    family = envs.random_mdp_family(eps_p=e, support="disjoint")
    assert (family.env.state_size, family.env.action_size) == (5, 5)
    kernels, rewards = arrays(family)
    distance = 0.5 * abs(kernels - family.common.kernel).sum(-1)
    np.testing.assert_allclose(distance, e, atol=1e-12)
    np.testing.assert_array_equal(rewards, np.broadcast_to(family.common.reward, rewards.shape))
    assert rewards.min() >= 0 and rewards.max() <= 1


def test_sparse_supports():
    # A row of S = 5 keeps max(1, Binomial(5, 0.2)) states: on average 1 + 0.8^5 = 1.328, with a variance below 1.
    # n = 25 * 1000 rows: 6 standard errors have probability 2e-9.
    kernels, _ = arrays(envs.random_mdp_family(eps_p=1.0, support="sparse"), 1000)
    sizes = (kernels > 0).sum(-1)
    assert sizes.min() == 1
    assert abs(sizes.mean() - (1 + 0.8**5)) < 6 / np.sqrt(sizes.size)
    full, _ = arrays(envs.random_mdp_family(eps_p=1.0), 5)
    assert np.all(full > 0)


def test_synthetic_family_is_a_mixture_in_every_step():
    family = envs.synthetic_family(eps_p=0.1)
    kernels, rewards = arrays(family, 5)
    assert family.env == envs.EpisodicMDP(4, 5, 5)
    assert kernels.shape == (5, 4, 5, 5, 5) and rewards.shape == (5, 4, 5, 5)
    own, _ = arrays(envs.synthetic_family(eps_p=1.0), 5)
    np.testing.assert_allclose(kernels, 0.9 * family.common.kernel + 0.1 * own, atol=1e-12)
    assert abs(family.common.kernel[0] - family.common.kernel[1]).max() > 0.1
    np.testing.assert_array_equal(rewards, np.broadcast_to(family.common.reward, rewards.shape))


# ---------------------------------------------------------------- conflicts


def shared_value(family, policy, gamma=0.99):
    """Mean over the two types of rho V^pi."""
    physics = jax.tree.map(np.asarray, family.sample(KEY, 2))
    values = [oracle.value(P, r, policy, gamma) for P, r in zip(physics.kernel, physics.reward, strict=True)]
    return float(np.mean(np.sum(physics.initial * values, axis=1)))


def test_conflict_in_closed_form():
    family = envs.conflict_family()
    kernels, rewards = arrays(family, 4)
    np.testing.assert_array_equal(kernels[2:], kernels[:2])
    for p in (0.0, 0.3, 0.5, 1.0):
        policy = np.array([[(1 - p) / 2] * 2 + [p / 2] * 2] * 2)
        v = [q * 0.99 / (0.01 * (1 - (1 - q) * 0.99)) for q in (p, 1 - p)]
        assert shared_value(family, policy) == pytest.approx(np.mean(v), rel=1e-12)
    assert shared_value(family, np.array([[0.25] * 4] * 2)) == pytest.approx(98.02, abs=0.005)
    initial = np.array([1.0, 0.0])
    assert oracle.best_deterministic(kernels[:2], rewards[:2], initial, 0.99) == pytest.approx(49.5, abs=1e-9)
    own = [oracle.optimal_value(P, r, 0.99)[0] for P, r in zip(kernels[:2], rewards[:2], strict=True)]
    assert own == pytest.approx([99, 99])
    assert eps_p(kernels) == 1 and eps_r(rewards) == 0


def test_seven_states_are_those_of_the_file():
    physics = envs.seven_state_family().sample(KEY, 2)
    with np.load(DATA / "conflicting_mdp_7x4.npz") as file:
        np.testing.assert_allclose(physics.kernel, file["kernel"], atol=1e-15)
        np.testing.assert_allclose(physics.reward, file["reward"], atol=1e-15)
        np.testing.assert_allclose(physics.initial, np.broadcast_to(file["initial"], (2, 7)), atol=1e-15)
    published = envs.seven_state_family("published").sample(KEY, 1).initial[0]
    np.testing.assert_allclose(published, [0.05, 0.05, 0.05, 0.3, 0.3, 0.2, 0.05])


def test_values_of_the_seven_states():
    family = envs.seven_state_family()
    kernels, rewards = arrays(family, 2)
    rho = np.full(7, 1 / 7)
    own = [oracle.optimal_value(P, r, 0.99) @ rho for P, r in zip(kernels, rewards, strict=True)]
    assert np.mean(own) == pytest.approx(97.558, abs=5e-4)
    assert oracle.best_deterministic(kernels, rewards, rho, 0.99) == pytest.approx(63.065, abs=5e-4)
    # With actions 1 and 2 half and half in state 0 both types have the same values, and what is best elsewhere is the
    # best of 4^4 deterministic choices: a lower bound of the best stochastic policy.
    best = 0.0
    for choice in itertools.product(range(4), repeat=4):
        policy = np.eye(4)[[0, 0, 0, *choice]]
        policy[0] = [0, 0.5, 0.5, 0]
        best = max(best, shared_value(family, policy))
    assert best == pytest.approx(96.87, abs=5e-3)
    assert eps_p(kernels) == 1 and eps_r(rewards) == 0


# ---------------------------------------------------------------- relabelled, episodic


@pytest.mark.parametrize("permutation", ["shift", "random"])
def test_relabelled_actions_lead_where_their_meaning_leads(permutation):
    base = envs.mixture_family(eps_p=0.2, eps_r=0.2)
    family = envs.relabelled_family(base, 0.5, permutation)
    kernels, rewards = arrays(family, 10)
    plain, plain_rewards = arrays(base, 10)
    meanings = np.asarray(family.meanings(KEY, 10))
    for c in range(10):
        np.testing.assert_array_equal(np.sort(meanings[c]), np.arange(4))
        # To a rounding: the compiler adds up the rows of the two programs in its own order.
        np.testing.assert_allclose(kernels[c], plain[c][:, meanings[c]], rtol=1e-15)
        np.testing.assert_allclose(rewards[c], plain_rewards[c][:, meanings[c]], rtol=1e-15)
        own = oracle.optimal_value(kernels[c], rewards[c], 0.9)
        np.testing.assert_allclose(own, oracle.optimal_value(plain[c], plain_rewards[c], 0.9))
    np.testing.assert_array_equal(meanings[::2], np.broadcast_to(np.arange(4), (5, 4)))
    if permutation == "shift":
        np.testing.assert_array_equal(meanings[1::2], np.broadcast_to([1, 2, 3, 0], (5, 4)))
    else:
        assert len(np.unique(meanings[1::2], axis=0)) > 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_the_relabelled(share):
    family = envs.relabelled_family(envs.conflict_family(), share)
    moved = np.any(np.asarray(family.meanings(KEY, 100)) != np.arange(4), axis=1)
    np.testing.assert_array_equal(np.cumsum(moved), np.floor(np.arange(1, 101) * share + 1e-4))


def test_relabelling_works_on_finite_horizons():
    base = envs.synthetic_family(eps_p=0.1)
    kernels, _ = arrays(envs.relabelled_family(base, 1.0), 3)
    np.testing.assert_allclose(kernels, np.roll(arrays(base, 3)[0], -1, axis=3), rtol=1e-15)


def test_episodic_family_repeats_the_world():
    base = envs.maze_family()
    family = envs.episodic_family(base, 6)
    physics, plain = family.sample(KEY, 3), base.sample(KEY, 3)
    assert physics.kernel.shape == (3, 6, 25, 4, 25)
    for h in range(6):
        np.testing.assert_array_equal(physics.kernel[:, h], plain.kernel)
        np.testing.assert_array_equal(physics.reward[:, h], plain.reward)
    np.testing.assert_array_equal(physics.max_steps_in_episode, 6)
    stacked = envs.stacked_family(family, 2)
    np.testing.assert_array_equal(stacked.sample(KEY, 3).kernel, physics.kernel)


def test_what_is_common_does_not_depend_on_the_precision():
    exact = [envs.garnet_family(seed=5).support, envs.mixture_family(seed=5).common.kernel]
    jax.config.update("jax_enable_x64", False)  # the fixture restores what was before
    rough = [envs.garnet_family(seed=5).support, envs.mixture_family(seed=5).common.kernel]
    jax.tree.map(np.testing.assert_array_equal, exact, rough)
    assert envs.mixture_family(seed=5).sample(KEY, 2).kernel.dtype == jnp.float32


BAD = [
    (lambda: envs.garnet_family("mixed"), "regime must be one of 'homogeneous', 'heterogeneous', got 'mixed'"),
    (lambda: envs.garnet_family(branching=31), "branching must be at most num_states = 30, got 31"),
    (lambda: envs.garnet_family(num_features=0), "num_features must be an integer >= 1"),
    (lambda: envs.garnet_family(kernel_noise=-0.1), r"kernel_noise must lie in \[0, inf\), got -0.1"),
    (lambda: envs.garnet_family(seed=-1), "seed must be an integer >= 0, got -1"),
    (lambda: envs.mixture_family(eps_p=1.1), r"eps_p must lie in \[0, 1\], got 1.1"),
    (lambda: envs.mixture_family(eps_r=float("nan")), r"eps_r must lie in \[0, 1\], got nan"),
    (lambda: envs.mixture_family(num_types=0), "num_types must be an integer >= 1"),
    (lambda: envs.mixture_family(branching=6), "branching must be at most S = 5, got 6"),
    (lambda: envs.mixture_family(0, 2), "num_states must be an integer >= 1, got 0"),
    (lambda: envs.mixture_family(max_steps_in_episode=0), "max_steps_in_episode must be an integer >= 1"),
    (
        lambda: envs.mixture_family(common=envs.TabularParams(np.ones((2, 1, 2)), np.zeros((2, 1)), np.ones(2) / 2)),
        r"common: kernel\[0, 0\] must sum to one, but sums to 2 \(2 such\)",
    ),
    (lambda: envs.random_mdp_family(support="half"), "support must be one of 'full', 'disjoint', 'sparse', got 'half'"),
    (lambda: envs.random_mdp_family(sparsity=0), r"sparsity must lie in \(0, 1\], got 0"),
    (lambda: envs.random_mdp_family(1, 1, support="disjoint"), "num_states must be an integer >= 2, got 1"),
    (lambda: envs.synthetic_family(horizon=0), "horizon must be an integer >= 1"),
    (lambda: envs.conflict_family(3), "num_actions must be even, got 3"),
    (lambda: envs.seven_state_family("random"), "initial must be one of 'uniform', 'published', got 'random'"),
    (lambda: envs.relabelled_family(envs.conflict_family(), 2), r"share must lie in \[0, 1\], got 2"),
    (lambda: envs.relabelled_family(envs.conflict_family(), 0.5, "flip"), "permutation must be one of"),
    (lambda: envs.relabelled_family(envs.cartpole_family()), "family must be one of tabular MDPs, got CartPole-v1"),
    (lambda: envs.episodic_family(envs.synthetic_family(), 4), "must have the environment TabularMDP, got Episodic"),
    (lambda: envs.episodic_family(envs.conflict_family(), 0), "horizon must be an integer >= 1"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("family", "branching"),
    [
        (envs.garnet_family("heterogeneous", 8, 3, 3), 3),
        (envs.mixture_family(8, 3, branching=2), 4),
        (envs.mixture_family(8, 3, branching=5), None),
        (envs.mixture_family(5, 3), None),
        (envs.random_mdp_family(), None),
        (envs.conflict_family(), 1),
        (envs.maze_family(), 1),
        (envs.frozen_lake_family(), 4),
        (envs.windy_cliff_family(), 4),
        (envs.grid_world_family("3x3", success=0.8, slip="neighbours", at_goal="stay", eps_p=0.3), 3),
    ],
)
def test_no_agent_has_more_successors_than_its_environment_tells(family, branching):
    assert family.env.branching == branching
    kernels, _ = arrays(family, 12)
    most = int((kernels > 0).sum(-1).max())
    assert most <= (branching or family.env.num_states)
