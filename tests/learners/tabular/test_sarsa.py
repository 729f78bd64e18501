"""SARSA: against a loop in which the data depend on the parameters."""

import jax
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, run
from tests.oracles import tabular_td as oracle


GAMMA, ETA, TEMPERATURE, H, N, ROUNDS = 0.9, 0.2, 0.5, 4, 3, 3
FAMILY = envs.garnet_family("heterogeneous", 6, 3, 2, 3)
PHI = np.random.default_rng(0).normal(size=(6, 3, 5))


def make(num_local_steps=H, **kwargs):
    return learners.local_training(
        learners.sarsa(PHI, GAMMA, TEMPERATURE, **kwargs), learners.optimizer(optax.sgd, learning_rate=ETA),
        num_local_steps=num_local_steps, weight="uniform",
    )  # fmt: skip


@pytest.mark.usefixtures("x64")
def test_three_rounds_equal_the_loop():
    theta = np.linspace(-1, 1, 5)
    round_ = make_round(FAMILY, make(initial=theta), aggregators.mean(), num_agents=N)
    state = round_.init(jax.random.key(0))
    physics = jax.tree.map(np.array, state.physics)
    k_local = jax.random.split(jax.random.key(0), 5)[3]
    starts = [jax.random.uniform(jax.random.fold_in(k_local, c), (2,)) for c in range(N)]
    uniform = np.zeros((ROUNDS, N, H, 2))
    for t, c, h in np.ndindex(ROUNDS, N, H):
        k_agent = jax.random.split(jax.random.fold_in(state.key, t), 4)[1]
        key = jax.random.fold_in(jax.random.fold_in(k_agent, c), 0)  # of the agent, of its update
        k_collect = jax.random.split(jax.random.fold_in(key, h), 3)[0]
        uniform[t, c, h] = jax.random.uniform(k_collect, (1, 2))[0]
    path = oracle.sarsa(
        uniform, np.array(starts), physics.kernel, physics.reward, PHI, GAMMA, TEMPERATURE, ETA, theta
    )  # fmt: skip

    def record(round_, state):
        return {"theta": state.places.public.shared.params}

    _, history = run(round_, state, ROUNDS, record=record)
    np.testing.assert_allclose(history["theta"], path, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_several_rows_of_a_collect_follow_one_another():
    round_ = make_round(FAMILY, make(1, num_samples=6), aggregators.mean(), num_agents=1)
    state = round_.init(jax.random.key(0))
    objective = round_.learner.objective
    physics, local = (jax.tree.map(lambda x: x[0], x) for x in (state.physics, state.local.objective))
    theta = objective.init(jax.random.key(0), round_.env)
    collected = objective.collect(jax.random.key(1), round_.env, physics, theta, local)
    rows, after = collected.batch, collected.state
    assert (rows.state[0], rows.action[0]) == tuple(local)
    np.testing.assert_array_equal(rows.next_state[:-1], rows.state[1:])
    np.testing.assert_array_equal(rows.next_action[:-1], rows.action[1:])
    assert (rows.next_state[-1], rows.next_action[-1]) == tuple(after)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"features must have shape \[S, A, d\], got \[6, 3\]"):
        learners.sarsa(np.ones((6, 3)), GAMMA)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        learners.sarsa(PHI, GAMMA, 0)
    with pytest.raises(ValueError, match="discount must lie in"):
        learners.sarsa(PHI, 1.0)
    other = envs.garnet_family("heterogeneous", 5, 3, 2, 3)
    with pytest.raises(ValueError, match="features must have as many rows as the MDP has states, 5, got 6"):
        make_round(other, make(), aggregators.mean(), num_agents=2)
