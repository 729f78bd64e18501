"""Policies over action values and in boxes, and the distribution that is one action."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import CartPole
from fedjax_rl.policies import (
    Deterministic,
    SquashedGaussian,
    box_policy,
    epsilon_greedy,
    policy_from_architecture,
    q_policy,
)
from tests.probes.two_states import Arms


POLICIES = {
    "q": q_policy(CartPole(), (8, 6), "relu", fast_gradient=False),
    "linear q": q_policy(CartPole(), ()),
    "stochastic": box_policy(CartPole(continuous=True), (8,)),
    "deterministic": box_policy(Arms(), (8,), "relu", False, 1, initialization="uniform"),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


@every_policy
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_it_plays(policy, shape):
    params = policy.init(jax.random.key(0))
    distribution, value = policy.apply(params, jnp.ones((*shape, policy.observation_size)))
    action = distribution.sample(policy.noise(jax.random.key(1), shape))
    mode = distribution.mode()
    assert (action.shape, action.dtype) == (mode.shape, mode.dtype)
    assert value.shape == shape
    assert action.shape[: len(shape)] == shape


@every_policy
def test_the_description_is_complete(policy):
    again = policy_from_architecture(json.loads(json.dumps(policy.architecture())))
    assert again == policy
    assert hash(again) == hash(policy)
    with pytest.raises(ValueError, match="unknown entries"):
        policy_from_architecture({**policy.architecture(), "depth": 3})
    with pytest.raises(ValueError, match="activation must be one of"):
        policy_from_architecture({**policy.architecture(), "activation": "step"})


def test_greedy_actions_are_the_best():
    policy = POLICIES["linear q"]
    params = policy.init(jax.random.key(0))
    observation = jax.random.normal(jax.random.key(1), (100, 4))
    values = policy.q_values(params, observation)
    distribution, value = policy.apply(params, observation)
    best = np.argmax(values, -1)
    assert 0 < best.sum() < 100
    for noise in (0.0, 0.5, 1 - 1e-7):
        np.testing.assert_array_equal(distribution.sample(jnp.full(100, noise, jnp.float32)), best)
    np.testing.assert_array_equal(value, np.max(values, -1))


def test_probabilities_of_epsilon_greedy():
    values = jnp.asarray([[0.0, 2.0, 1.0], [5.0, 5.0, 0.0]])
    for epsilon in (0.0, 0.3, 1.0):
        probabilities = jax.nn.softmax(epsilon_greedy(values, epsilon).logits)
        wanted = np.full((2, 3), epsilon / 3)
        wanted[[0, 1], [1, 0]] += 1 - epsilon
        np.testing.assert_allclose(probabilities, wanted, rtol=1e-6, atol=1e-7)


def test_actions_fill_the_box_and_critics_see_it_scaled():
    policy = box_policy(Arms(), ())
    params = policy.init(jax.random.key(0))
    head = params["critic"]["q_1"]["head"]
    value = policy.q_values(params["critic"], jnp.ones((1,)), jnp.asarray([2.0]))[1]
    np.testing.assert_allclose(value, head["kernel"][0, 0] + head["kernel"][1, 0] * 0.5, rtol=1e-6)
    assert policy.log_volume == pytest.approx(np.log(2))
    wide = jax.tree.map(lambda x: x + 100.0, params)
    distribution = policy.distribution(wide["actor"], jnp.ones((1,)))
    assert isinstance(distribution, SquashedGaussian)
    assert distribution.log_std.max() == 2.0
    np.testing.assert_allclose(distribution.mode(), [3.0])


def test_one_action():
    point = Deterministic(jnp.asarray([[1.0, 2.0], [3.0, 4.0]]))
    other = Deterministic(jnp.asarray([[1.0, 2.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(point.sample(jnp.full((2, 2), 9.0)), point.mode())
    np.testing.assert_array_equal(point.log_prob(other.mode()), [0, -np.inf])
    np.testing.assert_array_equal(point.kl(other), [0, np.inf])
    np.testing.assert_array_equal(point.entropy(), [0, 0])
    np.testing.assert_array_equal(point.sample_and_log_prob(jnp.zeros((2, 2)))[1], [0, 0])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"env must have discrete actions .* use box_policy"):
        q_policy(Arms())
    with pytest.raises(ValueError, match=r"env must have a box of actions, got the discrete ones .* use q_policy"):
        box_policy(CartPole())
    with pytest.raises(ValueError, match="num_critics must be an integer >= 1, got 0"):
        box_policy(Arms(), num_critics=0)
    with pytest.raises(ValueError, match="box_policy needs an action box with finite low < high"):
        policy_from_architecture({**POLICIES["deterministic"].architecture(), "low": [3.0]})
