"""What devices exchange in a round, read off the compiled program."""

import re

import jax
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_mesh, make_round, participation, policies


_COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
_ARRAY = re.compile(r"\w+\[([\d,]*)\]")
NUM_AGENTS, HIDDEN = 16, 8


def exchanged(aggregator, num_agents=NUM_AGENTS, **roles):
    """[(kind, elements of each array)] of a round of agents that keep their moments, on four devices."""
    family = envs.cartpole_family("packer-r")
    policy = policies.mlp_policy(family.env, hidden_sizes=(HIDDEN,))
    objective = learners.actor_critic(policy, num_envs=2, num_steps=5)
    learner = learners.local_training(objective, optax.adam(1e-3), optimizer_state="keep")
    round_ = make_round(family, learner, aggregator, num_agents=num_agents, mesh=make_mesh(4), **roles)
    state = round_.init(jax.random.key(0))
    text = jax.jit(round_.step, donate_argnums=0).lower(state).compile().as_text()
    found = []
    for shapes, kind in _COLLECTIVE.findall(text):
        arrays = re.sub(r"\{[^}]*\}|/\*.*?\*/", "", shapes)
        found.append((kind, [int(np.prod([int(n) for n in dims.split(",") if n])) for dims in _ARRAY.findall(arrays)]))
    num_params = sum(x.size for x in jax.tree.leaves(policy.init(jax.random.key(0))))
    return found, num_params


@pytest.mark.parametrize("num_agents", [NUM_AGENTS, 5, 18])  # four devices need not divide them
def test_a_mean_exchanges_one_sum_of_the_parameters(num_agents):
    found, num_params = exchanged(aggregators.mean(), num_agents)
    assert {kind for kind, _ in found} == {"all-reduce"}
    # One of floats, the parameters among them, and one of counts: XLA adds up types apart.
    assert len(found) == 2
    floats, counts = sorted((sizes for _, sizes in found), key=sum, reverse=True)
    # The model and the total weight, and the metrics: between processes, every array is an exchange of its own.
    assert len(floats) <= 2 and len(counts) <= 2
    assert num_params <= sum(floats) < num_params + 20
    assert sum(counts) < 20


@pytest.mark.parametrize("size", [8, 5])  # four devices need not divide it
def test_a_cohort_exchanges_what_its_members_keep(size):
    cohort = participation.uniform_cohort(size)
    found, num_params = exchanged(aggregators.mean(), participation=cohort)
    assert found == exchanged(aggregators.mean(), 8 * NUM_AGENTS + 2, participation=cohort)[0]  # whoever stays at home
    assert {kind for kind, _ in found} == {"all-reduce", "all-gather"}
    assert len(found) == 4  # what they keep there and back, and the sums of floats and of counts: not a leaf each
    each = -(-size // 4) * 4
    gathered = sum(sum(sizes) for kind, sizes in found if kind == "all-gather")
    assert 2 * num_params * each <= gathered < (2 * num_params + 60) * each  # two moments, environments, metrics


@pytest.mark.parametrize("aggregator", [aggregators.trimmed_mean(0.1), aggregators.median()], ids=["trimmed", "median"])
def test_a_robust_aggregator_spreads_the_parameters(aggregator):
    found, num_params = exchanged(aggregator)
    # Each device gets all messages' values of its part of the parameters; only leaves that do not divide go to all.
    gathered = [sum(sizes) for kind, sizes in found if kind == "all-gather"]
    assert all(size <= NUM_AGENTS * 3 for size in gathered)
    assert sum(kind == "all-to-all" for kind, _ in found) > 0
    assert sum(sum(sizes) for kind, sizes in found if kind == "all-reduce") < num_params + 40
