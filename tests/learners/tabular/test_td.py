"""Federated TD learning: against a loop, against exact limits, and what must hold on the way there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, run, theory
from tests.oracles import tabular_td as oracle


GAMMA, ETA, H, N = 0.9, 0.1, 5, 4
FAMILY = envs.garnet_family("heterogeneous", 6, 3, 2, 3)
FEATURES, POLICY = FAMILY.features, FAMILY.policy
x64 = pytest.mark.usefixtures("x64")


def record(round_, state):
    controls = state.local.corrections
    return {"theta": state.places.public.shared.params} | ({"control": controls[0]} if controls else {})


def start(learner, num_agents=N, family=FAMILY, **kwargs):
    round_ = make_round(family, learner, aggregators.mean(), num_agents=num_agents, **kwargs)
    state = round_.init(jax.random.key(0))
    return round_, state, jax.tree.map(np.array, state.physics)


def exact(physics, **kwargs):
    """A_c, b_c and theta*."""
    law = theory.stationary_distribution(theory.policy_chain(physics.kernel, POLICY))
    system = theory.td_system(FEATURES, physics.kernel, physics.reward, POLICY, law, GAMMA, **kwargs)
    return *system, theory.federated_fixed_point(*system)


class Spy:
    """The rows that every agent draws in every round, by playing the rounds agent by agent."""

    def __init__(self, round_, state, num_rounds):
        self.rows = []
        objective, local = round_.learner.objective, state.local.objective
        collect = jax.jit(objective.collect, static_argnums=1)
        for t in range(num_rounds):
            k_agent = jax.random.split(jax.random.fold_in(state.key, t), 4)[1]
            collected = []
            for c in range(round_.num_agents):
                key = jax.random.fold_in(jax.random.fold_in(k_agent, c), 0)  # of the agent, of its update
                k_collect = jax.random.split(jax.random.fold_in(key, 0), 3)[0]
                physics, own = (jax.tree.map(lambda x, c=c: x[c], part) for part in (state.physics, local))
                theta = jnp.zeros(FEATURES.shape[1])
                collected.append(collect(k_collect, round_.env, physics, theta, own))
            local = jax.tree.map(lambda *xs: jnp.stack(xs), *(c.state for c in collected))
            self.rows.append([jax.tree.map(np.asarray, c.batch) for c in collected])


@x64
@pytest.mark.parametrize("name", ["federated_td", "scafflsa"])
@pytest.mark.parametrize(("sampling", "lam"), [("iid", 0.0), ("generative", 0.0), ("markov", 0.0), ("markov", 0.7)])
def test_three_rounds_equal_the_loop(name, sampling, lam):
    make = getattr(learners, name)
    initial = np.array([0.3, -0.2, 0.5])
    learner = make(
        FEATURES, POLICY, GAMMA, step_size=ETA, num_local_steps=H, sampling=sampling, trace=lam, initial=initial
    )
    round_, state, physics = start(learner)
    samples = [[(x.state, x.reward, x.next_state) for x in agents] for agents in Spy(round_, state, 3).rows]
    for agents in samples:
        for c, (s, r, following) in enumerate(agents):  # they are transitions of the agent's own MDP
            likely = np.einsum("sa,sat->st", POLICY, physics.kernel[c])
            assert np.all(likely[s, following] > 0)
            np.testing.assert_allclose(r, physics.reward[c, s, 0], rtol=1e-12)  # the same for every action
            if sampling == "markov":
                np.testing.assert_array_equal(following[:-1], s[1:])
    if sampling == "markov":  # the chain and its trace go on from round to round
        for c in range(N):
            assert [agents[c][2][-1] for agents in samples[:-1]] == [agents[c][0][0] for agents in samples[1:]]
    path, controls = oracle.fed_lsa(samples, FEATURES, GAMMA, ETA, initial, lam, name == "scafflsa")
    _, history = run(round_, state, 3, record=record)
    np.testing.assert_allclose(history["theta"], path, rtol=0, atol=1e-9)
    if name == "scafflsa":
        xi = history["control"] - history["control"].mean(1, keepdims=True)  # c_c - c, and c is the mean of the c_c
        np.testing.assert_allclose(xi, controls, rtol=0, atol=1e-9)
