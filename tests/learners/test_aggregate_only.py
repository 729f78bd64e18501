"""Aggregation by parts: what travels, what stays, and who acts with what."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, policies, run


N = 3
FAMILY = envs.cartpole_family("packer-r")
SGD = learners.optimizer(optax.sgd, learning_rate=0.1)


def training(optimizer=SGD, **kwargs):
    policy = policies.mlp_policy(FAMILY.env, hidden_sizes=(4,), shared_trunk=False)
    return learners.local_training(learners.actor_critic(policy, num_envs=2, num_steps=10), optimizer, **kwargs)


def play(learner, num_rounds=3):
    round_ = make_round(FAMILY, learner, aggregators.mean(), num_agents=N)
    state, history = run(round_, round_.init(jax.random.key(0)), num_rounds)
    return round_.policies(state, jnp.arange(N))["params"], history


def same(layer):
    """Whether all agents act with the same numbers."""
    return all(np.array_equal(x[0], x[k]) for x in jax.tree.leaves(layer) for k in range(N))


def test_the_actor_is_shared_and_the_critics_are_not():
    params, history = play(learners.aggregate_only(training(weight="uniform"), ("actor",)))
    assert same(params["actor"]) and same(params["actor_trunk_0"])
    assert not same(params["critic"]) and not same(params["critic_trunk_0"])
    actor = 4 * 4 + 4 + 4 * 2 + 2
    assert history["uplink_bits"][0] == N * 32 * actor == history["downlink_bits"][0]


def test_nothing_is_private_where_all_parts_are_shared():
    plain, _ = play(training(weight="uniform"))
    both, history = play(learners.aggregate_only(training(weight="uniform"), ("actor", "critic")))
    jax.tree.map(np.testing.assert_array_equal, plain, both)
    assert history["uplink_bits"][0] == N * 32 * (30 + 4 * 4 + 4 + 4 + 1)


def test_the_first_round_moves_private_parts_as_isolated_training_would():
    # The critic's gradient does not look at the actor once the data are there: one round, same data.
    shared, _ = play(learners.aggregate_only(training(weight="uniform"), ("critic",)), 1)
    plain = make_round(FAMILY, training(weight="uniform"), aggregators.mean(), num_agents=N)
    start = plain.init(jax.random.key(0))
    first = jax.tree.map(np.asarray, plain.policies(start, jnp.arange(N))["params"])
    moved, _ = play(training(weight="uniform"), 1)
    np.testing.assert_allclose(  # the mean of the private movements is the movement of the shared model
        np.mean(shared["actor"]["kernel"] - first["actor"]["kernel"], 0),
        (moved["actor"]["kernel"] - first["actor"]["kernel"])[0],
        rtol=1e-4, atol=1e-7,
    )  # fmt: skip
    np.testing.assert_array_equal(shared["critic"]["kernel"], moved["critic"]["kernel"])


def test_weights_scale_the_merged_movement_of_a_part():
    whole, _ = play(learners.aggregate_only(training(weight="uniform"), {"actor": 1.0, "critic": 1.0}), 1)
    half, _ = play(learners.aggregate_only(training(weight="uniform"), {"actor": 1.0, "critic": 0.5}), 1)
    still, _ = play(learners.aggregate_only(training(weight="uniform"), {"actor": 1.0, "critic": 0.0}), 1)
    np.testing.assert_array_equal(whole["actor"]["kernel"], half["actor"]["kernel"])
    middle = (np.asarray(whole["critic"]["kernel"]) + np.asarray(still["critic"]["kernel"])) / 2
    np.testing.assert_allclose(half["critic"]["kernel"], middle, rtol=1e-5, atol=1e-7)


def test_it_wraps_a_server_optimizer():
    server = learners.server_optimizer(training(), learners.optimizer(optax.adam, learning_rate=0.05))
    params, history = play(learners.aggregate_only(server, ("actor",)))
    assert same(params["actor"]) and not same(params["critic"])
    assert int(history["nonfinite_messages"].sum()) == 0


def checked(parts, shared_trunk=False):
    policy = policies.mlp_policy(FAMILY.env, hidden_sizes=(4,), shared_trunk=shared_trunk)
    inner = learners.local_training(learners.actor_critic(policy), SGD)
    return make_round(FAMILY, learners.aggregate_only(inner, parts), aggregators.mean(), num_agents=N)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learners.aggregate_only(training(), ()), "parts must name at least one part"),
        (lambda: learners.aggregate_only(training(), "actor"), "parts must name at least one part"),
        (lambda: learners.aggregate_only(training(), {"actor": -1.0}), r"parts\['actor'\] must lie in \[0, inf\)"),
        (lambda: learners.aggregate_only(training(upload="gradient")), "must upload the movement of its parameters"),
        (lambda: learners.aggregate_only(training(optimizer_state="average")), "optimizer_state='average'"),
        (
            lambda: learners.aggregate_only(training(weight="uniform", corrections=(learners.control_variates(),))),
            r"corrections with a server variable \(ControlVariates\)",
        ),
        (lambda: checked(("acter",)), r"parts must be names out of \['actor', 'critic'\], got 'acter'"),
        (lambda: checked(("actor", "critic"), shared_trunk=True), "parts must name 'trunk' too, got"),
        (lambda: learners.aggregate_only("ppo"), r"learner must be local_training\(...\)"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_it_goes_together_with_running_statistics():
    policy = policies.normalized_policy(policies.mlp_policy(FAMILY.env, hidden_sizes=(4,), shared_trunk=False))
    for wrap in (lambda x: x, lambda x: learners.server_optimizer(x, optax.sgd(1.0))):
        inner = learners.local_training(learners.actor_critic(policy, num_envs=2, num_steps=10), SGD, weight="uniform")
        learner = learners.aggregate_only(wrap(inner), ("actor",))
        round_ = make_round(FAMILY, learner, aggregators.mean(), num_agents=N)
        state, _ = run(round_, round_.init(jax.random.key(0)), 2)
        params = round_.policies(state, jnp.arange(N))
        assert same(params["network"]["params"]["actor"]) and not same(params["network"]["params"]["critic"])
        assert float(params["statistics"]["observations"]["count"][0]) == 2 * 20


def test_the_divergence_from_the_global_policy_is_reported():
    # With a zero step nothing moves; with steps, it is the mean divergence on the batch that was just learned from.
    still = training(learners.optimizer(optax.sgd, learning_rate=0.0), measure_kl=True)
    zero = make_round(FAMILY, still, aggregators.mean(), num_agents=N)
    assert float(run(zero, zero.init(jax.random.key(0)), 1)[1]["kl_to_global"][0]) == 0.0
    learner = training(learners.optimizer(optax.sgd, learning_rate=3.0), measure_kl=True)
    shared = learner.init_shared(jax.random.key(0), FAMILY.env)
    physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(1), 1))
    local = learner.init_local(jax.random.key(2), FAMILY.env, physics, shared)
    key = jax.random.key(3)
    _, envelope, metrics = learner.update(key, FAMILY.env, physics, learner.broadcast(shared), local, None)
    k_collect = jax.random.split(jax.random.fold_in(key, 0), 3)[0]
    batch = learner.objective.collect(k_collect, FAMILY.env, physics, shared.params, local.objective).batch
    moved = jax.tree.map(jnp.add, shared.params, envelope.payload.params)
    p, q = (jax.nn.softmax(learner.objective.distribution(x, batch)[0].logits) for x in (shared.params, moved))
    expected = np.mean(np.sum(p * (np.log(p) - np.log(q)), -1))
    assert expected > 1e-4
    np.testing.assert_allclose(metrics["kl_to_global"].total, expected, rtol=1e-3)


def test_a_penalty_with_a_memory_of_its_own_uploads_nothing():
    inner = training(weight="uniform", corrections=(learners.kl_to_global(1.0, target=0.1),))
    params, _ = play(learners.aggregate_only(inner, ("actor",)))
    assert same(params["actor"]) and not same(params["critic"])
