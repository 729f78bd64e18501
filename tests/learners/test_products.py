"""Every objective with every correction learns a bandit whose expected return is known in closed form."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, learners, make_round, policies, registry, run
from fedjax_rl.core import EnvFamily, component
from tests.probes.bandit import BanditFamily
from tests.probes.two_states import Arms, Physics


NUM_AGENTS, ROUNDS = 3, 3
FAMILY = BanditFamily()
POLICY = policies.mlp_policy(FAMILY.env, hidden_sizes=(4,))
# Enough plays that chance cannot turn the mean gradient around: of the difference of the logits it is at least
# p (1 - p) = 1 / 4 per unit of reward, and with n = 512 plays of an agent the standard error is below 1.5 / 4 /
# sqrt(512) = 0.017, so the sign of one agent's gradient is wrong with probability < 1e-40.
FRESH = {"num_envs": 512, "num_steps": 1, "episodes": "fresh"}
OBJECTIVES = {
    "reinforce": lambda: learners.reinforce(POLICY, baseline="none", **FRESH),
    "actor_critic": lambda: learners.actor_critic(POLICY, **FRESH),
    "a2c": lambda: learners.a2c(POLICY, num_envs=64, num_steps=8),
    "ppo": lambda: learners.ppo(POLICY, num_envs=64, num_steps=8),
}
# Every local step plays one block and draws one batch; the slow copies do not matter where every step ends an episode.
REPLAY = {
    "num_envs": 8, "num_steps": 1, "capacity": 1600, "batch_size": 64, "learning_starts": 8, "hidden_sizes": (16,),
    "activation": "tanh",
}  # fmt: skip
WITH_REPLAY = {
    "dqn": lambda: learners.dqn(FAMILY.env, epsilon=1.0, **REPLAY),
    "double_dqn": lambda: learners.double_dqn(FAMILY.env, epsilon=1.0, **REPLAY),
    "ddpg": lambda: learners.ddpg(Arms(), exploration=0.5, **REPLAY),
    "sac": lambda: learners.sac(Arms(), **REPLAY),
}
# These play no bandit; tests/learners/tabular has them.
FINITE_MDPS = {"td", "sarsa", "q_learning", "policy_ascent", "softmax_policy_gradient"}
CORRECTIONS = {
    "proximal": lambda: learners.proximal(0.1),
    "kl_to_global": lambda: learners.kl_to_global(0.1),
    "control_variates": learners.control_variates,
    "dynamic_regularization": lambda: learners.dynamic_regularization(1.0),
    "mime": lambda: learners.mime(0.2),
    "mime_lite": lambda: learners.mime_lite(0.2),
    "normalized_averaging": learners.normalized_averaging,
    "svrpg": learners.svrpg,
    "svrpg_momentum": lambda: learners.svrpg_momentum(0.8),
    "hapg_momentum": lambda: learners.hapg_momentum(0.8),
    "natural_gradient": lambda: learners.natural_gradient(0.01),
    "importance_weighting": learners.importance_weighting,
    "mixed_behaviour": lambda: learners.mixed_behaviour(0.5),
    "clip_gradient": lambda: learners.clip_gradient(0.5),
    "importance_averaging": learners.importance_averaging,
    "projection": lambda: learners.projection(5.0),
}
REFUSED = {
    ("ppo", "importance_weighting"): "objective must not weigh by ratios itself with importance_weighting, got PPO",
    **{
        ("ppo", c): f"objective must not weigh by ratios itself with {c}, got PPO"
        for c in ("svrpg", "svrpg_momentum", "hapg_momentum")
    },
    **{
        ("a2c", c): f"objective must collect whole trajectories with {c}, got ActorCritic; use episodes='fresh'"
        for c in ("svrpg", "svrpg_momentum", "hapg_momentum")
    },
}
STOCHASTIC = "objective must have a stochastic policy with {}, got {}"
TRAJECTORIES = "objective must collect whole trajectories with {}, got {}; use episodes='fresh'"
NAMES = {"dqn": "DQN", "double_dqn": "DQN", "ddpg": "DDPG", "sac": "SAC"}
REFUSED |= {
    (name, c): STOCHASTIC.format(c, NAMES[name])
    for name in ("dqn", "double_dqn", "ddpg")
    for c in ("kl_to_global", "mixed_behaviour", "natural_gradient", "importance_weighting")
}
REFUSED |= {
    (name, c): TRAJECTORIES.format(c, NAMES[name])
    for name in NAMES
    for c in ("svrpg", "svrpg_momentum", "hapg_momentum")
}
REFUSED |= {
    (name, "importance_averaging"): "objective must be a table with importance_averaging, got"
    for name in (*OBJECTIVES, *WITH_REPLAY)
}
REFUSED["sac", "importance_weighting"] = "objective must have a loss of the form log pi A with importance_weighting"
REPRESENTATIVE = {"reinforce": "hapg_momentum", "actor_critic": "svrpg", "a2c": "control_variates", "ppo": "mime"}


def train(objective, correction):
    """Expected returns [N] before and after, and the history."""
    learner = learners.local_training(
        OBJECTIVES[objective](), learners.optimizer(optax.sgd, learning_rate=0.5), num_local_steps=2,
        corrections=() if correction is None else (CORRECTIONS[correction](),), weight="uniform",
    )  # fmt: skip
    round_ = make_round(FAMILY, learner, aggregators.mean(), num_agents=NUM_AGENTS)
    state = round_.init(jax.random.key(0))
    before = expected_returns(round_, state)
    state, history = run(round_, state, ROUNDS)
    return before, expected_returns(round_, state), history


def expected_returns(round_, state):
    params = round_.policies(state, jnp.arange(NUM_AGENTS))
    logits = jax.vmap(lambda p: POLICY.apply(p, jnp.ones(1))[0].logits)(params)
    return np.asarray(jnp.sum(jax.nn.softmax(logits) * state.physics.reward, -1))


def test_the_tables_are_complete():
    assert {*OBJECTIVES, *WITH_REPLAY, *FINITE_MDPS} == set(registry.names("objectives"))
    assert set(CORRECTIONS) == set(registry.names("corrections"))


def learns(objective, correction):
    if (objective, correction) in REFUSED:
        with pytest.raises(ValueError, match=re.escape(REFUSED[objective, correction])):
            train(objective, correction)
        return
    before, after, history = train(objective, correction)
    np.testing.assert_allclose(before, (1 + np.arange(NUM_AGENTS) / 4) / 2, rtol=0.02)  # the first policy is uniform
    assert (after > before + 0.01).all()
    assert all(np.isfinite(values).all() for values in history.values())
    assert (history["nonfinite_messages"] == 0).all()
    np.testing.assert_array_equal(history["env_steps"], np.full(ROUNDS, NUM_AGENTS * 2 * 512))


@pytest.mark.parametrize(
    ("objective", "correction"),
    [
        *REPRESENTATIVE.items(),
        *(pair for pair in REFUSED if pair[0] in OBJECTIVES),
        ("ppo", "natural_gradient"),
        ("actor_critic", "importance_weighting"),
    ],
)
def test_representatives_learn(objective, correction):
    learns(objective, correction)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("correction", [None, *CORRECTIONS])
def test_every_product_learns(objective, correction):
    if REPRESENTATIVE[objective] != correction:
        learns(objective, correction)


@component
class ArmsFamily(EnvFamily):
    """Agents that all play `Arms`."""

    env = Arms()

    def sample(self, key, num_agents):
        return Physics(jnp.full(num_agents, 3))


def learns_from_memory(objective, correction):
    """The values of both arms, or the arm that is played, come nearer to what is right."""
    made = WITH_REPLAY[objective]()
    family = ArmsFamily() if objective in ("ddpg", "sac") else FAMILY

    def make():
        learner = learners.local_training(
            made, learners.optimizer(optax.sgd, learning_rate=0.1), num_local_steps=200,
            corrections=() if correction is None else (CORRECTIONS[correction](),), weight="uniform",
        )  # fmt: skip
        return make_round(family, learner, aggregators.mean(), num_agents=NUM_AGENTS)

    def error(round_, state):
        params = jax.tree.map(lambda x: x[0], round_.policies(state, jnp.arange(1)))
        if objective in ("ddpg", "sac"):
            return abs(float(made.policy.apply(params, jnp.ones(1))[0].mode()[0]) - family.env.best)
        mean_reward = state.physics.reward.mean(0)
        return float(jnp.max(jnp.abs(made.policy.q_values(params, jnp.ones(1)) - mean_reward)))

    if (objective, correction) in REFUSED:
        with pytest.raises(ValueError, match=re.escape(REFUSED[objective, correction])):
            make()
        return
    round_ = make()
    state = round_.init(jax.random.key(0))
    before = error(round_, state)
    state, history = run(round_, state, ROUNDS)
    assert error(round_, state) < before - 0.05
    assert all(np.isfinite(values).all() for values in history.values())
    assert (history["nonfinite_messages"] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("objective", WITH_REPLAY)
@pytest.mark.parametrize("correction", [None, *CORRECTIONS])
def test_every_product_with_a_memory_learns(objective, correction):
    learns_from_memory(objective, correction)
