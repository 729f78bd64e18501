"""The layout of agents is not part of the result: chunks, devices, neighbours and seeds, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_mesh, make_round, participation, policies, run, topologies
from fedjax_rl.core import component


NUM_AGENTS = 10
pytestmark = pytest.mark.usefixtures("x64")


def cartpoles(*, num_agents=NUM_AGENTS, objective="actor_critic", num_local_steps=1, aggregator=None, **kwargs):
    family = envs.cartpole_family("packer-r")
    policy = policies.mlp_policy(family.env, hidden_sizes=(16, 16))
    factory = getattr(learners, objective)
    learner = learners.local_training(
        factory(policy, num_envs=2, num_steps=50), optax.adam(1e-3), num_local_steps=num_local_steps
    )
    return make_round(family, learner, aggregator or aggregators.mean(), num_agents=num_agents, **kwargs)


def one_round(round_):
    """The parameters, the agents' environments and the metrics after one round."""
    state, history = run(round_, round_.init(jax.random.key(3)), 1)
    return round_.policies(state, jnp.arange(round_.num_agents)), round_.without_padding(state).local, history


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    ("chunk_size", "num_devices"), [(1, 1), (7, 1), (NUM_AGENTS, 1), (1, 2), (7, 2), (NUM_AGENTS, 2), (3, 4)]
)
def test_any_chunk_size_and_device_count_give_the_same_round(chunk_size, num_devices, everyone_at_once):
    params, local, history = one_round(cartpoles(chunk_size=chunk_size, mesh=make_mesh(num_devices)))
    expected_params, expected_local, expected_history = everyone_at_once
    for x, y in zip(leaves(params) + leaves(local), leaves(expected_params) + leaves(expected_local), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)
    # The same random numbers: every environment is in the same step of the same episode.
    np.testing.assert_array_equal(
        local.objective.rollout.episode_length, expected_local.objective.rollout.episode_length
    )
    for name in history:
        np.testing.assert_allclose(history[name], expected_history[name], rtol=1e-6, err_msg=name)


@pytest.fixture(name="everyone_at_once", scope="module")
def run_everyone_at_once():
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    result = jax.tree.map(np.asarray, one_round(cartpoles()))
    jax.config.update("jax_enable_x64", before)
    return result


@pytest.mark.parametrize(("objective", "num_local_steps"), [("actor_critic", 3), ("ppo", 1), ("reinforce", 1)])
def test_an_agent_does_not_depend_on_the_others(objective, num_local_steps):
    # Isolated agents 0..3 learn the same whether six others exist or not.
    few, many = (
        one_round(
            cartpoles(
                num_agents=n, objective=objective, num_local_steps=num_local_steps, topology=topologies.isolated()
            )
        )[0]
        for n in (4, NUM_AGENTS)
    )
    for x, y in zip(leaves(few), leaves(many), strict=True):
        np.testing.assert_allclose(x, y[:4], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "correction", [learners.control_variates(), learners.dynamic_regularization(0.5)], ids=["scaffold", "feddyn"]
)
def test_an_isolated_agents_server_variable_does_not_depend_on_the_others(correction):
    # Alone at its meeting place an agent is everyone, whatever the number of other places.
    family = envs.cartpole_family("packer-r")
    objective = learners.actor_critic(policies.mlp_policy(family.env, hidden_sizes=(4,)), num_envs=2, num_steps=10)
    learner = learners.local_training(
        objective, learners.optimizer(optax.sgd, learning_rate=0.1), corrections=(correction,), weight="uniform"
    )
    models = []
    for num_agents in (1, 3):
        round_ = make_round(
            family, learner, aggregators.mean(), num_agents=num_agents, topology=topologies.isolated()
        )  # fmt: skip
        state, _ = run(round_, round_.init(jax.random.key(3)), 3)
        models.append(leaves(round_.policies(state, jnp.arange(1))))
    for x, y in zip(*models, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


def test_a_cohort_of_all_is_everyone():
    class Shuffled(participation.UniformCohort):
        def sample(self, key, state, num_agents):
            state, cohort = super().sample(key, state, num_agents)
            return state, cohort._replace(index=jnp.roll(jnp.arange(num_agents, dtype=jnp.int32), 3))

    component(Shuffled)
    expected = one_round(cartpoles())
    # The same agents in other slots.
    result = one_round(cartpoles(participation=Shuffled(NUM_AGENTS), chunk_size=4))
    for x, y in zip(leaves(result[:2]), leaves(expected[:2]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


def test_trimming_nothing_is_the_uniform_mean():
    expected = one_round(cartpoles())  # every agent has the same number of samples here
    result = one_round(cartpoles(aggregator=aggregators.trimmed_mean(0.0)))
    for x, y in zip(leaves(result[:2]), leaves(expected[:2]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)
