"""Running statistics: exact over agents, read by the network, and carried by messages."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, policies, run


N = 3
FAMILY = envs.cartpole_family("packer-r")
INNER = policies.mlp_policy(FAMILY.env, hidden_sizes=(4,), shared_trunk=False)


def training(policy, learning_rate=0.1, **kwargs):
    sgd = learners.optimizer(optax.sgd, learning_rate=learning_rate)
    objective = learners.actor_critic(policy, num_envs=2, num_steps=10)
    return learners.local_training(objective, sgd, weight="uniform", **kwargs)


def play(learner, num_rounds=2):
    round_ = make_round(FAMILY, learner, aggregators.mean(), num_agents=N)
    state, history = run(round_, round_.init(jax.random.key(0)), num_rounds)
    return round_.policies(state, jnp.arange(N)), history


def test_statistics_of_many_agents_add_up_exactly():
    rows = np.random.default_rng(0).normal(2.0, 3.0, size=(5, 40, 4))
    parts = [policies.moments_of(jnp.asarray(r), jnp.ones(40, bool)) for r in rows]
    merged = jax.tree.map(lambda *x: sum(x), *parts)
    np.testing.assert_allclose(merged.mean, rows.reshape(-1, 4).mean(0), rtol=1e-5)
    np.testing.assert_allclose(merged.std, rows.reshape(-1, 4).std(0), rtol=1e-4)


def test_masked_rows_do_not_count():
    rows = jnp.asarray([[1.0], [np.nan], [3.0]])
    moments = policies.moments_of(rows, jnp.asarray([True, False, True]))
    assert float(moments.count) == 2 and float(moments.mean[0]) == 2 and float(moments.std[0]) == 1


def test_before_anything_was_seen_nothing_changes():
    policy = policies.normalized_policy(INNER)
    params = policy.init(jax.random.key(0))
    observation = jax.random.normal(jax.random.key(1), (5, 4))
    for found, expected in zip(
        policy.apply(params, observation), INNER.apply(params["network"], observation), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_network_reads_normalised_and_clipped_observations():
    policy = policies.normalized_policy(INNER, limit=2.0)
    rows = jnp.asarray(np.random.default_rng(1).normal(5.0, 0.1, size=(1000, 4)), jnp.float32)
    network = INNER.init(jax.random.key(0))
    params = policy.complete(network, policy.observe(rows, rows[:, 0], jnp.ones(1000, bool)))
    found = policy.process(params, rows)
    np.testing.assert_allclose(found.mean(0), 0, atol=0.05)
    assert float(jnp.abs(found).max()) <= 2.0
    expected = np.clip((rows - rows.mean(0, keepdims=True)) / rows.std(0, keepdims=True), -2, 2)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_federated_statistics_travel_and_local_ones_stay():
    policy = policies.normalized_policy(INNER)
    federated, with_bits = play(training(policy))
    counts = federated["statistics"]["observations"]["count"]
    np.testing.assert_allclose(counts, 2 * 2 * 10)  # the mean over agents: 2 rounds of 20 steps
    assert np.array_equal(federated["statistics"]["observations"]["total"][0],
                          federated["statistics"]["observations"]["total"][1])  # fmt: skip
    local, without_bits = play(training(policy, statistics="local"))
    totals = local["statistics"]["observations"]["total"]
    assert not np.array_equal(totals[0], totals[1])
    np.testing.assert_array_equal(local["network"]["params"]["actor"]["kernel"][0],
                                  local["network"]["params"]["actor"]["kernel"][1])  # fmt: skip
    extra = 32 * N * (1 + 4 + 4 + 1 + 1 + 1)
    assert float(with_bits["uplink_bits"][0] - without_bits["uplink_bits"][0]) == extra


def test_federated_statistics_are_those_of_all_agents_together():
    # A zero step keeps the policy; every agent's own sums, kept local, must average to the federated ones.
    policy = policies.normalized_policy(INNER)
    federated, _ = play(training(policy, 0.0), 1)
    local, _ = play(training(policy, 0.0, statistics="local"), 1)
    for name in ("count", "total", "squares"):
        own = local["statistics"]["observations"][name]
        np.testing.assert_allclose(federated["statistics"]["observations"][name][0], own.mean(0), rtol=1e-5)


def test_rewards_are_divided_by_the_spread_of_returns():
    policy = policies.normalized_policy(INNER, observations=False, rewards=True)
    objective = learners.actor_critic(policy, num_envs=2, num_steps=30, gae_lambda=1.0, discount=0.9)
    network = objective.init(jax.random.key(0), FAMILY.env)
    physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(1), 1))
    state = objective.init_local(jax.random.key(2), FAMILY.env, physics, network)

    def rewards(statistics):
        params = objective.complete(network, statistics)
        trajectory, *_ = objective.play(jax.random.key(3), FAMILY.env, physics, params, state.rollout)
        return trajectory.reward, objective.collect(jax.random.key(3), FAMILY.env, physics, params, state).statistics

    plain, seen = rewards(objective.init_statistics(FAMILY.env))
    np.testing.assert_array_equal(plain, 1)
    scaled, again = rewards(seen)
    np.testing.assert_allclose(scaled, 1 / seen["returns"].std, rtol=1e-6)
    np.testing.assert_allclose(again["returns"].total, seen["returns"].total, rtol=1e-5)  # of unscaled rewards


def test_architecture_round_trip():
    policy = policies.normalized_policy(INNER, rewards=True, limit=5.0)
    assert policies.policy_from_architecture(policy.architecture()) == policy
    mixture = policies.mixture_policy(INNER, 3)
    assert policies.policy_from_architecture(mixture.architecture()) == mixture


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="nothing would be normalised"):
        policies.normalized_policy(INNER, observations=False)
    with pytest.raises(ValueError, match="does not normalise yet"):
        policies.normalized_policy(policies.normalized_policy(INNER))
    with pytest.raises(ValueError, match="statistics must be one of 'federated', 'local'"):
        training(INNER, statistics="shared")


def test_sums_over_samples_are_not_weighed_by_samples_again():
    learner = learners.local_training(
        learners.actor_critic(policies.normalized_policy(INNER)), optax.sgd(0.1), weight="samples"
    )
    with pytest.raises(ValueError, match="weight must be 'uniform' with federated running statistics, got 'samples'"):
        make_round(FAMILY, learner, aggregators.mean(), num_agents=N)
