"""Finite MDPs under learners made for anything, and in a configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, policies, run
from fedjax_rl.training import train
from tests.oracles import finite_worlds as oracle
from tests.training.examples import TINY


def test_a_neural_learner_finds_a_common_policy():
    # Exact values before and after: from the uniform policy at least three quarters of the way to the mean of the own
    # optima, an upper bound that no common policy need reach.
    gamma, num_agents = 0.9, 4
    family = envs.mixture_family(eps_p=0.1, num_types=2)
    policy = policies.mlp_policy(family.env, hidden_sizes=(32,))
    objective = learners.ppo(policy, num_envs=8, num_steps=32, discount=gamma, entropy_cost=0.02)
    learner = learners.local_training(objective, optax.adam(0.005), num_epochs=4, optimizer_state="keep")
    round_ = make_round(family, learner, aggregators.mean(), num_agents=num_agents)
    state = round_.init(jax.random.key(0))
    physics = jax.tree.map(np.asarray, state.physics)

    def mean_value(pi):
        values = [oracle.value(P, r, pi, gamma) for P, r in zip(physics.kernel, physics.reward, strict=True)]
        return np.mean(np.sum(physics.initial * values, axis=1))

    own = [oracle.optimal_value(P, r, gamma) for P, r in zip(physics.kernel, physics.reward, strict=True)]
    best, start = np.mean(np.sum(physics.initial * own, axis=1)), mean_value(np.full((5, 4), 0.25))
    state, _ = run(round_, state, num_rounds=45)
    params = jax.tree.map(lambda x: x[0], round_.policies(state, jnp.arange(1)))
    distribution, _ = policy.apply(params, jnp.eye(5))
    learned = np.exp([distribution.log_prob(jnp.full((5,), a)) for a in range(4)]).T
    np.testing.assert_allclose(learned.sum(1), 1, rtol=1e-5)
    assert start + 0.75 * (best - start) < mean_value(learned) <= best


def test_a_run_on_arrays_keeps_its_own_copy_and_has_no_unseen_agents(tmp_path, monkeypatch):
    kernel = np.random.default_rng(0).dirichlet(np.ones(3), (4, 3, 2))
    np.savez(tmp_path / "worlds.npz", kernel=kernel, reward=np.ones((4, 3, 2)))
    monkeypatch.chdir(tmp_path)
    config = TINY.replace(
        num_agents="auto", num_rounds=1, world={"family": "family_from_arrays('worlds.npz', max_steps_in_episode=9)"}
    )
    result = train(config, out=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "fleet.npz").read_bytes() == (tmp_path / "worlds.npz").read_bytes()
    assert len(result.agents) == 4
    for row in result.agents:  # the reward is 1 in every step
        assert row["return_mean"] == row["length_mean"] == pytest.approx(9)
