"""FedNPG with matrices and with ADMM against explicit linear algebra, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, participation, policies, run
from fedjax_rl.core import Received, tree
from tests.oracles import natural_gradient as oracle


pytestmark = pytest.mark.usefixtures("x64")
N, DELTA, DAMPING, RHO = 3, 0.02, 0.05, 0.3
FAMILY = envs.cartpole_family("packer-r", max_steps_in_episode=11)


def objective():
    policy = policies.mlp_policy(FAMILY.env, hidden_sizes=(), shared_trunk=False)
    return learners.actor_critic(policy, num_envs=3, num_steps=20, entropy_cost=0.0)


def play(learner, num_rounds):
    """Rounds by hand, so that the batches are known: the models between them, and each round's batches."""
    physics = FAMILY.sample(jax.random.key(1), N)
    shared = learner.init_shared(jax.random.key(2), FAMILY.env)
    shared = shared._replace(params=jax.tree.map(lambda x: x + 0.1, shared.params))
    agents = [tree.take(physics, k) for k in range(N)]
    locals_ = [learner.init_local(jax.random.key(10 + k), FAMILY.env, agents[k], shared) for k in range(N)]
    models, batches, bits = [shared.params], [], []
    collect, update = jax.jit(learner.objective.collect, static_argnums=1), jax.jit(learner.update, static_argnums=1)
    for r in range(num_rounds):
        messages, found = [], []
        for k in range(N):
            key = jax.random.fold_in(jax.random.key(r), k)
            state = getattr(locals_[k], "objective", locals_[k])
            found.append(
                collect(jax.random.split(key)[0], FAMILY.env, agents[k], learner.policy(shared, None), state).batch
            )
            locals_[k], envelope, _ = update(key, FAMILY.env, agents[k], learner.broadcast(shared), locals_[k], None)
            messages.append(envelope.payload)
            bits.append(float(envelope.bits))
        message = jax.tree.map(lambda *x: sum(x) / N, *messages)
        received = Received(jnp.float32(N), jnp.int32(N), jnp.float32(1))
        shared = learner.merge(jax.random.key(0), FAMILY.env, shared, message, received)
        models.append(shared.params)
        batches.append(found)
    return models, batches, bits


def actor(params):
    layer = params["params"]["actor"]
    return np.concatenate([np.asarray(layer["kernel"]), np.asarray(layer["bias"])[None]])


def pieces(theta, batches):
    """Gradients and damped Fisher matrices of all agents."""
    rows = [jax.tree.map(np.asarray, batch) for batch in batches]
    g = [oracle.loss_gradient(theta, b.observation, b.action, b.advantage) for b in rows]
    F = [oracle.fisher(theta, b.observation) + DAMPING * np.eye(theta.size) for b in rows]
    return g, F


def test_fed_npg_solves_for_all_agents_together():
    learner = learners.fed_npg(objective(), max_kl=DELTA, damping=DAMPING)
    models, batches, bits = play(learner, 3)
    for r in range(3):
        theta = actor(models[r])
        expected = oracle.fed_npg(theta, *pieces(theta, batches[r]), DELTA)
        np.testing.assert_allclose(actor(models[r + 1]), expected, rtol=1e-7, atol=1e-10)
    gradient, fisher = 10 + 5, 10 * 10  # actor and critic; the actor's matrix
    assert bits[0] == 64 * (gradient + fisher)


@pytest.mark.parametrize("num_exchanges", [1, 4])
def test_fed_npg_admm_follows_its_iteration(num_exchanges):
    learner = learners.fed_npg_admm(
        objective(), max_kl=DELTA, damping=DAMPING, penalty=RHO, num_exchanges=num_exchanges, num_iterations=10
    )
    models, batches, bits = play(learner, 2 * (num_exchanges + 1))
    for turn in range(2):
        start = turn * (num_exchanges + 1)
        theta = actor(models[start])
        g, F = pieces(theta, batches[start])
        expected = oracle.fed_npg_admm(theta, g, F, DELTA, RHO, num_exchanges)
        for waiting in range(1, num_exchanges + 1):
            np.testing.assert_array_equal(actor(models[start + waiting]), theta)
        np.testing.assert_allclose(actor(models[start + num_exchanges + 1]), expected, rtol=1e-6, atol=1e-9)
    assert bits[0] == 64 * 15
    assert bits[N * num_exchanges] == 32


def test_many_exchanges_of_admm_give_fed_npg():
    exact = learners.fed_npg(objective(), max_kl=DELTA, damping=DAMPING)
    consensus = learners.fed_npg_admm(
        objective(), max_kl=DELTA, damping=DAMPING, penalty=RHO, num_exchanges=200, num_iterations=10
    )
    shift = actor(play(exact, 1)[0][1]) - actor(play(exact, 1)[0][0])
    models = play(consensus, 201)[0]
    np.testing.assert_allclose(actor(models[-1]) - actor(models[0]), shift, rtol=1e-5, atol=1e-8)


def test_the_critic_follows_its_plain_gradient():
    learner = learners.fed_npg(objective(), critic_rate=0.0)
    models, _, _ = play(learner, 1)
    np.testing.assert_array_equal(models[0]["params"]["critic"]["kernel"], models[1]["params"]["critic"]["kernel"])
    learner = learners.fed_npg(objective(), critic_rate=0.1)
    models, _, _ = play(learner, 1)
    assert not np.array_equal(models[0]["params"]["critic"]["kernel"], models[1]["params"]["critic"]["kernel"])


def test_rounds_improve_and_waiting_rounds_play_nothing():
    learner = learners.fed_npg_admm(objective(), num_exchanges=2)
    round_ = make_round(FAMILY, learner, aggregators.mean(), num_agents=4)
    _, history = run(round_, round_.init(jax.random.key(0)), 6)
    np.testing.assert_array_equal(history["env_steps"], [240, 0, 0, 240, 0, 0])
    assert int(history["nonfinite_messages"].sum()) == 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"participation must be everyone\(\) with FedNPGADMM, got UniformCohort"):
        make_round(
            FAMILY, learners.fed_npg_admm(objective()), aggregators.mean(), num_agents=4,
            participation=participation.uniform_cohort(2),
        )  # fmt: skip
    normalized = policies.normalized_policy(policies.mlp_policy(FAMILY.env, shared_trunk=False))
    with pytest.raises(ValueError, match="must not normalise by running statistics with fed_npg"):
        make_round(
            FAMILY, learners.fed_npg(learners.actor_critic(normalized)), aggregators.mean(), num_agents=4
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"max_kl must lie in \(0, inf\)"):
        learners.fed_npg(objective(), max_kl=0.0)
    with pytest.raises(ValueError, match="objective must be an Objective with a stochastic policy"):
        learners.fed_npg("reinforce")


def test_a_server_optimizer_does_not_fit():
    wrapped = learners.server_optimizer(learners.fed_npg(objective()), optax.sgd(1.0))
    with pytest.raises(ValueError, match=r"learner must keep its model in a shared state .*, got FedNPG"):
        make_round(FAMILY, wrapped, aggregators.mean(), num_agents=4)
