"""Natural policy gradient with tracking against loops over Bellman's equation, closed forms and limits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, participation, run, theory, topologies
from tests.oracles import tabular_policy_gradient as oracle


pytestmark = pytest.mark.usefixtures("x64")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
GAMMA, ETA = 0.8, 0.1
N, S, A = 4, 3, 2
DRAWN = np.random.default_rng(0)
COMMON = DRAWN.dirichlet(np.ones(S), (S, A))
P, R, RHO = np.broadcast_to(COMMON, (N, S, A, S)), DRAWN.uniform(size=(N, S, A)), np.full((N, S), 1 / S)
FAMILY = envs.family_from_arrays({"kernel": P, "reward": R, "initial": RHO})


def round_of(entropy_weight=0.0, topology=None, family=FAMILY, num_agents=N, step_size=ETA, **options):
    learner = learners.tracking_npg(step_size, discount=GAMMA, entropy_weight=entropy_weight)
    return make_round(family, learner, aggregators.mean(), num_agents=num_agents, topology=topology, **options)


def shared_of(round_, state):
    """Every agent's shared variables, leaves [N, ...]."""
    if round_.topology.per_agent_models:
        return state.places.own.shared
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (round_.num_agents, *x.shape)), state.places.public.shared)


def log_policy(shared):
    return jax.nn.log_softmax(shared.params, -1)


WEIGHTS = np.array([[2, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 2]]) / 3  # of a path
TOPOLOGIES = {
    "server": (topologies.star(), np.full((N, N), 1 / N)),
    "ring": (topologies.gossip(topologies.ring(N)), topologies.ring(N).matrix()),
    "path": (topologies.gossip(WEIGHTS), WEIGHTS),
}


@pytest.mark.parametrize("entropy_weight", [0.0, 0.4])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_three_rounds_are_those_of_the_paper(name, entropy_weight):
    topology, weights = TOPOLOGIES[name]
    round_ = round_of(entropy_weight, topology)
    state = round_.init(jax.random.key(0))
    step = jax.jit(lambda s: round_.step(s)[0])
    path = oracle.tracking_npg(P, R, GAMMA, entropy_weight, ETA, weights, 3)
    for expected_policy, expected_tracker in path:
        state = step(state)
        shared = shared_of(round_, state)
        np.testing.assert_allclose(log_policy(shared), expected_policy, **CLOSE)
        np.testing.assert_allclose(shared.tracker, expected_tracker, **CLOSE)
        np.testing.assert_allclose(shared.tracker.mean(0), state.local.worth.mean(0), **CLOSE)


@pytest.mark.parametrize("entropy_weight", [0.0, 0.4])
def test_alone_it_is_the_natural_policy_gradient(entropy_weight):
    alone = envs.family_from_arrays({"kernel": P[:1], "reward": R[:1], "initial": RHO[:1]})
    round_ = round_of(entropy_weight, family=alone, num_agents=1)
    state = round_.init(jax.random.key(0))
    step = jax.jit(lambda s: round_.step(s)[0])
    policy = np.full((S, A), 1 / A)
    alpha = 1 - ETA * entropy_weight / (1 - GAMMA)
    for _ in range(4):
        state = step(state)
        worth = np.asarray(theory.action_values(P[0], R[0], policy, GAMMA, entropy_weight))
        policy = policy**alpha * np.exp(ETA / (1 - GAMMA) * worth)
        policy = policy / policy.sum(1, keepdims=True)
        np.testing.assert_allclose(jax.nn.softmax(state.places.public.shared.params, -1), policy, **CLOSE)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_it_finds_the_best_policy_of_the_mean_task(name):
    # In the end an action of gap D loses a factor exp(-eta D / (1 - gamma)) a round against the best one. With eta = 1
    # and the least gap here, 0.0142, 400 rounds leave exp(-28) = 5e-13 of it.
    best = theory.policy_iteration(COMMON, R.mean(0), GAMMA)
    worth = np.sort(R.mean(0) + GAMMA * COMMON @ np.asarray(best.values), axis=1)
    assert (worth[:, 1] - worth[:, 0]).min() > 0.014
    round_ = round_of(topology=TOPOLOGIES[name][0], step_size=1.0)
    state, history = run(round_, round_.init(jax.random.key(0)), 400)
    policies = jax.nn.softmax(round_.policies(state, jnp.arange(N)), -1)
    np.testing.assert_allclose(policies, np.broadcast_to(best.policy, (N, S, A)), atol=1e-9)
    np.testing.assert_allclose(history["objective"][-1], RHO[0] @ np.asarray(best.values), atol=1e-9)
    assert (history["nonfinite_messages"] == 0).all()


def test_with_entropy_it_contracts_as_fast_as_one_agent_would():
    # Exact entropy-regularised natural gradients contract the soft Q by alpha a round, or by gamma where the step is
    # the longest, eta = (1 - gamma) / tau, which is soft policy iteration.
    tau = 0.4
    values = np.zeros(S)
    for _ in range(300):  # Bellman's soft equation
        worth = R.mean(0) + GAMMA * COMMON @ values
        values = tau * np.log(np.exp(worth / tau).sum(1))
    round_ = round_of(tau, step_size=(1 - GAMMA) / tau)

    def record(round_, state):
        policy = jax.nn.softmax(state.places.public.shared.params, -1)
        apart = theory.action_values(COMMON, R.mean(0), policy, GAMMA, tau) - worth
        return {"error": jnp.max(jnp.abs(apart))}

    _, history = run(round_, round_.init(jax.random.key(0)), 40, record=record)
    error = history["error"]
    assert error[-1] < 1e-10
    falling = error[1:8]
    assert (falling[1:] <= GAMMA * falling[:-1] + 1e-12).all()


def test_everyone_is_needed():
    with pytest.raises(ValueError, match=r"participation must be everyone\(\) with TrackingNPG"):
        round_of(participation=participation.uniform_cohort(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learners.tracking_npg(-1.0), "step_size must lie in [0, inf), got -1.0"),
        (lambda: learners.tracking_npg(discount=1.0), "discount must lie in [0, 1), got 1.0"),
        (lambda: learners.tracking_npg(entropy_weight=-1.0), "entropy_weight must lie in [0, inf), got -1.0"),
        (
            lambda: learners.tracking_npg(0.5, discount=0.8, entropy_weight=1.0),
            "step_size must lie in [0, 0.2], got 0.5; more than (1 - gamma) / tau inverts the policy",
        ),
        (
            lambda: round_of(family=envs.cartpole_family("packer-r")),
            "family must be of discounted finite MDPs with tracking_npg, got ",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
