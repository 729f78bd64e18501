"""Grid worlds, frozen lakes, windy cliffs and mazes against the originals and against loops."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.misc import rooms

from fedjax_rl import envs
from tests.oracles import finite_worlds as oracle


pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(5)
LEFT, DOWN, RIGHT, UP = range(4)


sample = jax.jit(lambda family, num_agents: family.sample(KEY, num_agents), static_argnums=1)


def world(family):
    """The first agent's."""
    return jax.tree.map(lambda x: np.asarray(x[0]), sample(family, 1))


def gymnasium_arrays(map_name, success_rate):
    """Kernel, expected rewards, reset law and time limit of Gymnasium's table."""
    spec = {"4x4": "FrozenLake-v1", "8x8": "FrozenLake8x8-v1"}[map_name]
    env = gymnasium.make(spec, success_rate=success_rate)
    table, num = env.unwrapped.P, env.unwrapped.observation_space.n
    P, r = np.zeros((num, 4, num)), np.zeros((num, 4))
    for s, a in np.ndindex(num, 4):
        for probability, following, reward, _ in table[s][a]:
            P[s, a, following] += probability
            r[s, a] += probability * reward
    return P, r, env.unwrapped.initial_state_distrib, env.spec.max_episode_steps


@pytest.mark.parametrize("map_name", ["4x4", "8x8"])
@pytest.mark.parametrize("success_rate", [1 / 3, 0.8, 1.0])
def test_frozen_lake_is_gymnasiums(map_name, success_rate):
    P, r, rho, limit = gymnasium_arrays(map_name, success_rate)
    ours = world(envs.frozen_lake_family(map_name, success_rate))
    np.testing.assert_allclose(ours.kernel, P, atol=1e-15)
    np.testing.assert_allclose(ours.reward, r, atol=1e-15)
    np.testing.assert_array_equal(ours.initial, rho)
    assert ours.max_steps_in_episode == limit


@pytest.mark.parametrize(("map_name", "steps", "best"), [("4x4", 100, 0.74), ("8x8", 200, 0.91)])
def test_optimum_of_the_frozen_lakes(map_name, steps, best):
    ours = world(envs.frozen_lake_family(map_name))
    assert oracle.finite_horizon_value(ours.kernel, ours.reward, steps)[0] == pytest.approx(best, abs=0.005)


def test_ice_is_as_slippery_as_it_is_drawn():
    # n = 2000: sup |F_n - F| > 2.8 / sqrt(n) with probability below 2 exp(-2 * 2.8^2) = 3e-7 (Dvoretzky et al.).
    kernels = np.asarray(sample(envs.frozen_lake_family(success_rate=(0.4, 0.8)), 2000).kernel)
    success = np.sort(kernels[:, 0, RIGHT, 1])
    assert success.min() >= 0.4 and success.max() <= 0.8
    assert abs((success - 0.4) / 0.4 - np.arange(1, 2001) / 2000).max() < 2.8 / np.sqrt(2000)
    np.testing.assert_allclose(
        kernels[:, 0, RIGHT, 0] + kernels[:, 0, RIGHT, 4], 1 - np.asarray(kernels[:, 0, RIGHT, 1])
    )


def test_four_rooms_are_gymnaxs():
    # gymnax takes another direction with probability fail_prob, each of the three equally often.
    jax.config.update("jax_enable_x64", False)  # which gymnax does not work with; the fixture restores what was before
    env = rooms.FourRooms()
    params = env.default_params.replace(fail_prob=0.0)
    ours = world(envs.grid_world_family("four_rooms"))
    free = np.asarray(env.env_map)
    intended = np.zeros((169, 4, 169))
    ours_of_theirs = (UP, RIGHT, DOWN, LEFT)
    with jax.numpy_rank_promotion("allow"):
        _, start = env.reset_env(KEY, params)

        def step(position, action):
            state = start.replace(pos=position)
            return env.step_env(KEY, state, action, params)[1].pos

        cells = np.argwhere(free)
        moved = jax.vmap(lambda p: jax.vmap(lambda a: step(p, a))(jnp.arange(4)))(jnp.asarray(cells))
    for (i, j), targets in zip(cells, np.asarray(moved), strict=True):
        for theirs, (k, m) in enumerate(targets):
            intended[i * 13 + j, ours_of_theirs[theirs], k * 13 + m] = 1
    goal, first = (int(x[0] * 13 + x[1]) for x in (env.goal_fixed, env.pos_fixed))
    others = (intended.sum(1, keepdims=True) - intended) / 3
    expected = 2 / 3 * intended + 1 / 3 * others
    expected[goal] = np.eye(169)[goal]
    walls = np.flatnonzero(~free.ravel())
    expected[walls] = np.eye(169)[walls][:, None]
    np.testing.assert_allclose(ours.kernel, expected, atol=1e-6)
    assert ours.initial[first] == 1
    arrival = expected[:, :, goal].copy()
    arrival[goal] = 0
    np.testing.assert_allclose(ours.reward, arrival, atol=1e-6)
    assert free.sum() == 104


def test_3x3_is_the_published_grid():
    family = envs.grid_world_family("3x3", success=0.8, slip="neighbours", at_goal="stay")
    ours = world(family)
    P, cells = oracle.rooms_3x3(0.8)
    states = [3 * i + j for i, j in cells]
    for action, name in enumerate(("left", "down", "right", "up")):
        np.testing.assert_allclose(ours.kernel[np.ix_(states, [action], states)][:, 0], P[name], atol=1e-15)
    np.testing.assert_array_equal(ours.reward[states], np.repeat([[0.0]] * 7 + [[1.0]], 4, axis=1))
    np.testing.assert_array_equal(ours.kernel[4], np.eye(9)[[4] * 4])  # the wall
    np.testing.assert_array_equal(ours.initial, np.eye(9)[0])


def test_mixed_grids_keep_to_the_neighbours():
    plain = world(envs.grid_world_family("3x3", success=0.8, slip="neighbours", at_goal="stay"))
    ours = sample(envs.grid_world_family("3x3", success=0.8, slip="neighbours", at_goal="stay", eps_p=0.25), 30)
    own = (np.asarray(ours.kernel) - 0.75 * plain.kernel) / 0.25
    np.testing.assert_allclose(own.sum(-1), 1)
    assert own.min() > -1e-12
    assert np.all(own[:, 0, :, [1, 3]] > 0) and np.allclose(own[:, 0, :, [1, 3]].sum(0), 1)  # beside the corner
    assert 0.5 * abs(np.asarray(ours.kernel) - plain.kernel).sum(-1).max() <= 0.25 + 1e-12


@pytest.mark.parametrize(("height", "width", "theta"), [(4, 4, 0.0), (4, 4, 0.7), (3, 6, 1.0)])
def test_windy_cliff_is_the_published_one(height, width, theta):
    ours = world(envs.windy_cliff_family(height, width, theta))
    P, r = oracle.windy_cliff(width, height, theta)
    state = {(x, y): (height - 1 - y) * width + x for x in range(width) for y in range(height)}
    for action, name in enumerate(("left", "down", "right", "up")):
        for here, s in state.items():
            assert ours.reward[s, action] == r[here]
            for there, t in state.items():
                assert ours.kernel[s, action, t] == pytest.approx(P[name][here][there], abs=1e-15)
    assert ours.initial[state[0, 0]] == 1


def test_winds_are_drawn_by_agent():
    kernels = np.asarray(sample(envs.windy_cliff_family(), 500).kernel)
    theta = 3 * kernels[:, 5, LEFT, 9]  # blown down from the second row
    assert 0 <= theta.min() < 0.02 < 0.98 < theta.max() <= 1  # a gap of 0.02 has probability 0.98^500 = 4e-5, once
    assert abs(theta.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 500)


# ---------------------------------------------------------------- layouts


def test_what_happens_at_goals_holes_and_cliffs():
    text = "S.G/HC."
    absorb = world(envs.grid_world_family(text, success=1.0, step_reward=-0.5))
    np.testing.assert_array_equal(absorb.kernel[3], np.eye(6)[[3] * 4])
    np.testing.assert_array_equal(absorb.kernel[2], np.eye(6)[[2] * 4])
    np.testing.assert_array_equal(absorb.kernel[4], np.eye(6)[[0] * 4])
    np.testing.assert_array_equal(absorb.reward[[2, 3]], 0)
    np.testing.assert_array_equal(absorb.reward[5], [-0.5, -0.5, -0.5, 0.5])
    restart = world(envs.grid_world_family(text, success=1.0, at_goal="restart"))
    np.testing.assert_array_equal(restart.kernel[2], np.eye(6)[[0] * 4])
    np.testing.assert_array_equal(restart.reward, np.repeat(np.eye(6)[2][:, None], 4, 1))
    stay = world(envs.grid_world_family(text, success=1.0, at_goal="stay"))
    np.testing.assert_array_equal(stay.kernel[2], np.eye(6)[[1, 5, 2, 2]])


@pytest.mark.parametrize(
    ("slip", "expected"),
    [
        ("sideways", {4: 0.7, 1: 0.15, 7: 0.15}),
        ("others", {4: 0.7, 1: 0.1, 7: 0.1, 3: 0.1}),
        ("neighbours", {4: 0.7, 1: 0.15, 7: 0.15}),
        ("down", {4: 0.7, 7: 0.3}),
    ],
)
def test_slipping(slip, expected):
    # To the right from the left cell of the middle row, whose neighbours are 0, 4 and 6.
    ours = world(envs.grid_world_family("S../.../..G", success=0.7, slip=slip))
    moved = {{1: 0, 7: 6}.get(cell, cell): share for cell, share in expected.items()}
    for cell in range(9):
        assert ours.kernel[3, RIGHT, cell] == pytest.approx(moved.get(cell, 0), abs=1e-12)


def test_agents_take_layouts_in_turn():
    family = envs.grid_world_family(("S.G/.#./...", "S.G/..#/..."), success=1.0)
    kernels = np.asarray(sample(family, 4).kernel)
    np.testing.assert_array_equal(kernels[:2], kernels[2:])
    np.testing.assert_array_equal(kernels[:, 1, DOWN].argmax(1), [1, 4, 1, 4])
    np.testing.assert_array_equal(kernels[:, 8, UP].argmax(1), [5, 8, 5, 8])


def test_random_goals():
    # Each of the 22 free cells besides the start is the goal of an agent with probability 1/22; n = 600 agents miss one
    # with probability (21/22)^600 = 8e-13 each.
    family = envs.grid_world_family("5x5", goal="random")
    physics = sample(family, 600)
    places = np.arange(25)
    absorbing = np.asarray(physics.kernel)[:, places, :, places].min(-1).T == 1  # [N, S]
    walls = absorbing.all(0)
    goals = absorbing & ~walls
    assert walls.sum() == 2
    np.testing.assert_array_equal(goals.sum(1), 1)
    assert len(np.unique(goals.argmax(1))) == 22
    assert not goals[:, 0].any()
    for agent in range(600):
        value = oracle.optimal_value(np.asarray(physics.kernel[agent]), np.asarray(physics.reward[agent]), 0.99)
        assert 0 < value[0] <= 1 and abs(value[goals[agent]]) < 1e-9


# ---------------------------------------------------------------- mazes


def test_mazes_have_walls_by_depth_first_search():
    # n = 3000 mazes each of ours and of a recursion: the share of mazes in which a cell is open differs by more than 6
    # standard errors with probability 2e-9 a cell.
    num, rng = 3000, np.random.default_rng(0)
    keys = jax.random.split(KEY, num)
    ours = np.asarray(jax.jit(jax.vmap(envs.maze_family().walls_down))(keys))
    theirs = np.array([oracle.maze(rng, 5) for _ in range(num)])
    p, q = ours.mean(0), theirs.mean(0)
    assert np.all(abs(p - q) <= 6 * np.sqrt(2 * 0.25 / num))
    np.testing.assert_array_equal(p == 1, q == 1)
    np.testing.assert_array_equal(p == 0, q == 0)
    # The same bound holds for the share of every single maze, of which there are few.
    mazes, index = np.unique(np.concatenate([ours, theirs]).reshape(2 * num, -1), axis=0, return_inverse=True)
    shares = [np.bincount(half, minlength=len(mazes)) / num for half in (index[:num], index[num:])]
    assert len(mazes) > 10
    assert np.all(abs(shares[0] - shares[1]) <= 6 * np.sqrt(2 * 0.25 / num))


def test_a_maze_is_a_deterministic_walk_to_the_goal():
    family = envs.maze_family()
    physics = sample(family, 50)
    kernels, rewards = np.asarray(physics.kernel), np.asarray(physics.reward)
    assert set(np.unique(kernels)) == {0.0, 1.0}
    np.testing.assert_array_equal(rewards, np.broadcast_to(rewards[0], rewards.shape))  # eps_r = 0
    assert np.argwhere(rewards[0]).tolist() == [[19, DOWN], [23, RIGHT]]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(50))
    walkable = np.asarray(jax.jit(jax.vmap(family.walls_down))(keys)).reshape(50, -1)
    for agent, free in enumerate(walkable):
        value = oracle.optimal_value(kernels[agent], rewards[agent], 0.95)
        assert np.all(value[free][:-1] > 0) and value[24] == 0  # every room leads to the goal
        assert np.all(value[~free] == 0)
        for s, a in np.ndindex(25, 4):
            target = kernels[agent, s, a].argmax()
            assert target == s or (free[s] and free[target] and abs(target - s) in (1, 5))
            assert not (target != s and abs(target - s) == 1 and target // 5 != s // 5)
    assert 0.5 * abs(kernels[:, None] - kernels[None]).sum(-1).max() == 1


def test_larger_mazes():
    free = np.asarray(envs.maze_family(9).walls_down(KEY))
    assert free[::2, ::2].all() and free.sum() in (25 + 24, 25 + 25)
    assert envs.maze_family(9).env == envs.TabularMDP(81, 4, branching=1)


BAD = [
    (lambda: envs.grid_world_family("S.G/.."), "layout must have rows of the same length"),
    (lambda: envs.grid_world_family("fourrooms"), "'f' in row 0, column 0 .* maps known by name: 3x3"),
    (lambda: envs.grid_world_family("S../.x./..G"), "'x' in row 1, column 1 .* is no symbol; # wall"),
    (lambda: envs.grid_world_family("S../..."), "layout must have a goal G"),
    (lambda: envs.grid_world_family(".../..G"), "layout must have a start S"),
    (lambda: envs.grid_world_family("S#G/.#."), "cell number 2 of 'S#G/.#.' cannot be reached"),
    (lambda: envs.grid_world_family("SHG/.H."), "cell number 2 of 'SHG/.H.' cannot be reached"),
    (lambda: envs.grid_world_family("S#./.#.", goal="random"), "cell number 2 .* cannot be reached"),
    (lambda: envs.grid_world_family("S#", goal="random"), "must have a free cell besides the start"),
    (lambda: envs.grid_world_family(("S.G", "SG/..")), "maps of one size, got 1x3, 2x2"),
    (lambda: envs.grid_world_family(()), r"layout must be a text or a sequence of texts, got \(\)"),
    (lambda: envs.grid_world_family(7), "layout must be a text or a sequence of texts, got 7"),
    (lambda: envs.grid_world_family(success=1.5), r"success must lie in \[0, 1\], got 1.5"),
    (lambda: envs.grid_world_family(success=(0.9, 0.1)), r"success must have low <= high, got \(0.9, 0.1\)"),
    (lambda: envs.grid_world_family(success=(0.9, 0.1, 0.2)), r"success must be a number or \(low, high\)"),
    (lambda: envs.grid_world_family(slip="up"), "slip must be one of 'sideways'"),
    (lambda: envs.grid_world_family(goal="none"), "goal must be one of 'map', 'random'"),
    (lambda: envs.grid_world_family(at_goal="end"), "at_goal must be one of"),
    (lambda: envs.grid_world_family(eps_p=-1), r"eps_p must lie in \[0, 1\], got -1"),
    (lambda: envs.grid_world_family(max_steps_in_episode=0), "max_steps_in_episode must be an integer >= 1"),
    (lambda: envs.frozen_lake_family("5x5"), "map_name must be one of '4x4', '8x8', got '5x5'"),
    (lambda: envs.frozen_lake_family(success_rate=-1), r"success_rate must lie in \[0, 1\], got -1"),
    (lambda: envs.windy_cliff_family(wind=4), r"wind must lie in \[0, 3\], got 4"),
    (lambda: envs.windy_cliff_family(width=2), "width must be an integer >= 3, got 2"),
    (lambda: envs.maze_family(4), "size must be odd, got 4"),
    (lambda: envs.maze_family(1), "size must be an integer >= 3, got 1"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()
