"""Evaluations with known answers, ours and Gymnasium's, and the two against each other."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import make_mesh
from fedjax_rl.envs import CartPole, cartpole_family, pooled, stacked
from fedjax_rl.policies import gru_policy
from fedjax_rl.training import Evaluation, evaluate, evaluate_gymnasium
from fedjax_rl.training._evaluate import horizon_of, spread
from tests.training.examples import BALANCING, Probing, controller, linear_policy, physics


KEY = jax.random.key(0)
PLAYERS = [evaluate, evaluate_gymnasium]
POLICY = linear_policy()
UNSTOPPABLE = {"theta_threshold": [3.0], "x_threshold": [1e6]}


@pytest.mark.parametrize("play", PLAYERS)
def test_whoever_cannot_fall_plays_until_the_own_time_limit(play: Any) -> None:
    limits = [1, 7, 30]
    worlds = physics(max_steps_in_episode=limits, gravity=[0.0], x_threshold=[1e6], theta_threshold=[3.1])
    result = play(KEY, CartPole(), POLICY, controller(BALANCING), worlds, 4, greedy=True)
    np.testing.assert_array_equal(result.lengths, np.repeat(limits, 4).reshape(3, 4))
    np.testing.assert_array_equal(result.returns, result.lengths)


@pytest.mark.parametrize("play", PLAYERS)
def test_whoever_falls_at_once_gets_the_one_reward_of_that_step(play: Any) -> None:
    worlds = physics(x_threshold=[1e-9, 2.4], max_steps_in_episode=[20])
    result = play(KEY, CartPole(), POLICY, controller(BALANCING), worlds, 3, greedy=True)
    np.testing.assert_array_equal(result.lengths, [[1, 1, 1], [20, 20, 20]])
    np.testing.assert_array_equal(result.returns, result.lengths)


@pytest.mark.parametrize("play", PLAYERS)
def test_a_good_controller_balances_and_its_opposite_does_not(play: Any) -> None:
    worlds = physics(actuator_polarity=[1.0, -1.0, 1.0, -1.0], max_steps_in_episode=[200])
    weights = np.outer([1, -1, -1, 1], BALANCING)  # a reversed motor needs the reversed controller
    result = play(KEY, CartPole(), POLICY, controller(weights), worlds, 5, per_agent=True, greedy=True)
    np.testing.assert_array_equal(result.lengths[:2], np.full((2, 5), 200))
    assert result.lengths[2:].max() < 20


@pytest.mark.parametrize("play", PLAYERS)
def test_a_shared_policy_plays_every_agents_world(play: Any) -> None:
    worlds = physics(actuator_polarity=[1.0, -1.0], max_steps_in_episode=[100])
    result = play(KEY, CartPole(), POLICY, controller(BALANCING), worlds, 2, greedy=True)
    assert result.lengths[0].min() == 100
    assert result.lengths[1].max() < 20


@pytest.mark.parametrize("play", PLAYERS)
@pytest.mark.parametrize("env", [CartPole(), stacked(CartPole(), 2, True)], ids=["memory", "stacked"])
def test_whoever_remembers_plays_with_any_motor(play: Any, env: Any) -> None:
    policy = Probing(stacked=env != CartPole())
    worlds = physics(actuator_polarity=[1.0, -1.0, -1.0], max_steps_in_episode=[100, 100, 60])
    result = play(KEY, env, policy, policy.init(KEY), worlds, 4, greedy=True)
    np.testing.assert_array_equal(result.lengths, [[100] * 4, [100] * 4, [60] * 4])


def test_a_recurrent_policy_changes_its_mind() -> None:
    # Its one cell counts steps, h' = (1 - z) + z h with z = sigmoid(3): it passes 1/2 at the 15th step, and the push of
    # 1 N to one side becomes one to the other. The cart would be 0.7 m away after 60 steps, but comes back instead.
    policy = gru_policy(CartPole(), (), 1)
    params = jax.tree.map(jnp.zeros_like, policy.init(KEY))
    params["params"]["trunk_memory"]["input_bias"] = jnp.array([0.0, 3.0, 20.0])
    params["params"]["actor"] = {"kernel": jnp.array([[100.0, -100.0]]), "bias": jnp.array([-50.0, 50.0])}
    worlds = physics(
        gravity=[0.0], force_mag=[1.0], theta_threshold=[3.1], x_threshold=[0.4], max_steps_in_episode=[60]
    )
    for play in PLAYERS:
        assert play(KEY, CartPole(), policy, params, worlds, 2, greedy=True).lengths.tolist() == [[60, 60]]
    params["params"]["trunk_memory"]["input_bias"] = jnp.array([0.0, 9.0, 20.0])  # counts too slowly
    for play in PLAYERS:
        assert play(KEY, CartPole(), policy, params, worlds, 2, greedy=True).lengths.max() < 60


def test_gymnasium_agrees_on_random_physics_with_sampled_actions() -> None:
    """Two independent means of n = 24 agents x 20 episodes each.

    |difference| <= 4.5 combined standard errors, which are conservative; by the normal law a false alarm has
    probability below 7e-6.
    """
    worlds = cartpole_family("packer-e", max_steps_in_episode=60).sample(jax.random.key(5), 24)
    params = controller(BALANCING / 100)  # nearly uniform actions
    ours = evaluate(KEY, CartPole(), POLICY, params, worlds, 20)
    theirs = evaluate_gymnasium(KEY, CartPole(), POLICY, params, worlds, 20)
    error = math.hypot(ours.standard_error, theirs.standard_error)
    assert ours.returns.std() > 5
    assert abs(ours.returns.mean() - theirs.returns.mean()) <= 4.5 * error
    # The agents differ, and the two agree on who is better: a wrong physics would not.
    assert np.corrcoef(ours.returns.mean(1), theirs.returns.mean(1))[0, 1] > 0.8


@pytest.mark.parametrize(
    ("env", "worlds", "reason"),
    [
        (CartPole(continuous=True), physics(tau=[0.02]), "two actions"),
        (CartPole(reward="set_point"), physics(set_point=[0.5]), "not for the reward 'set_point'"),
        (pooled(cartpole_family(), 2).env, physics(tau=[0.02]), "only CartPole"),
        (CartPole(), physics(actuator_polarity=[0.5]), "actuator_polarity must be 1 or -1"),
    ],
)
def test_gymnasium_refuses_what_it_cannot_represent(env: Any, worlds: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        evaluate_gymnasium(KEY, env, POLICY, controller(BALANCING), worlds)


def test_the_layout_does_not_matter() -> None:
    worlds = cartpole_family("packer-r", max_steps_in_episode=30).sample(jax.random.key(1), 7)
    params = controller(BALANCING / 100)
    results = [
        evaluate(KEY, CartPole(), POLICY, params, worlds, 3, chunk_size=chunk_size, mesh=mesh)
        for chunk_size, mesh in ((7, None), (1, None), (3, make_mesh(2)))
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result.lengths, results[0].lengths)


def test_an_agent_plays_the_same_whoever_else_is_there() -> None:
    worlds = cartpole_family("packer-r", max_steps_in_episode=30).sample(jax.random.key(1), 6)
    params = controller(BALANCING / 100)
    everyone = evaluate(KEY, CartPole(), POLICY, params, worlds, 3)
    index = np.array([1, 4])
    some = evaluate(KEY, CartPole(), POLICY, params, jax.tree.map(lambda x: x[index], worlds), 3, ids=index)
    np.testing.assert_array_equal(some.lengths, everyone.lengths[index])


def test_other_keys_give_other_episodes() -> None:
    worlds = physics(tau=[0.02] * 3)
    first, second = (
        evaluate(jax.random.key(i), CartPole(), POLICY, controller(BALANCING / 100), worlds, 5) for i in (0, 1)
    )
    assert not np.array_equal(first.lengths, second.lengths)


def test_pooled_worlds_are_refused() -> None:
    family = pooled(cartpole_family(), 3)
    with pytest.raises(ValueError, match="one by one"):
        evaluate(KEY, family.env, POLICY, controller(BALANCING), family.sample(KEY, 1))


def test_a_time_limit_is_needed() -> None:
    with pytest.raises(ValueError, match="no max_steps_in_episode"):
        horizon_of({"gravity": jnp.ones(3)})


@pytest.mark.parametrize(
    ("num_agents", "max_agents", "num_episodes", "index", "each"),
    [
        (5, 1000, 100, [0, 1, 2, 3, 4], 20),
        (7, 3, 100, [0, 2, 4], 34),
        (10, 5, 3, [0, 2, 4, 6, 8], 1),
        (1, 1, 1, [0], 1),
    ],
)
def test_episodes_are_spread_evenly(
    num_agents: int, max_agents: int, num_episodes: int, index: list, each: int
) -> None:
    found, episodes = spread(num_agents, max_agents, num_episodes)
    np.testing.assert_array_equal(found, index)
    assert episodes == each


def test_the_largest_fleets_are_spread_without_overflow() -> None:
    found, _ = spread(2**31 - 1, 1000, 100)
    assert (np.diff(found) > 0).all()
    assert found[-1] < 2**31 - 1


def test_statistics_by_hand() -> None:
    result = Evaluation(np.array([[100.0, 200.0], [300.0, 400.0]]), np.array([[1, 2], [3, 6]]))
    found = result.summary((195.0, 400.0))
    assert result.standard_error == pytest.approx(np.sqrt(12500) / 2)
    expected = {
        "agents": 2,
        "episodes": 4,
        "return_mean": 250.0,
        "return_min": 150.0,
        "success_rate_195": 0.75,
        "success_rate_400": 0.25,
        "episode_length": 3.0,
        "return_p10": 130.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
