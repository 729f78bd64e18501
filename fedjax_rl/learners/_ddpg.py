"""Deep deterministic policy gradient."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core import component
from ..policies import box_policy, least
from ..rl import check_schedule, masked_mean, value_at, value_loss
from ._objective import Objective
from ._off_policy import OffPolicy, OffPolicyState, Practice, Transition, check_targets, practice


PyTree = Any


@component
class DDPG(OffPolicy):
    """A deterministic actor that climbs its critic; build it with `ddpg`."""

    play: Practice
    discount: Any
    target_rate: Any
    target_period: Any
    exploration: Any

    def tracked(self, params: PyTree) -> PyTree:
        return params

    def act(self, params: PyTree, observation: jax.Array, noise: jax.Array, count: jax.Array) -> jax.Array:
        policy = self.play.policy
        scale = jnp.asarray(value_at(self.exploration, count), noise.dtype)
        return policy.explored(policy.distribution(params["actor"], observation).mode(), scale * noise)

    def loss(
        self, key: jax.Array, params: PyTree, state: OffPolicyState, batch: Transition
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        policy = self.play.policy
        slow_action = policy.distribution(state.target["actor"], batch.next_observation).mode()
        following = least(policy.q_values(state.target["critic"], batch.next_observation, slow_action))
        target = self.bootstrapped(batch, following)
        values = policy.q_values(params["critic"], batch.observation, batch.action)
        critic_loss = sum((value_loss(value, target, batch.mask) for value in values), start=jnp.zeros(()))
        action = policy.distribution(params["actor"], batch.observation).mode()
        climbed = policy.q_values(jax.lax.stop_gradient(params["critic"]), batch.observation, action)[0]
        policy_loss = -masked_mean(climbed, batch.mask)
        report = {"policy_loss": policy_loss, "value_loss": critic_loss, "q_mean": masked_mean(values[0], batch.mask)}
        return policy_loss + critic_loss, report


def ddpg(
    env: Any,
    *,
    num_envs: int = 8,
    num_steps: int = 4,
    discount: float = 0.99,
    capacity: int = 50_000,
    batch_size: int = 128,
    learning_starts: int = 1_000,
    exploration: Any = 0.1,
    target_rate: float = 0.005,
    target_period: int = 1,
    num_critics: int = 1,
    episodes: str = "continue",
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "relu",
    initialization: str = "orthogonal",
) -> Objective:
    """DDPG: off-policy actor-critic for continuous actions with a deterministic actor mu(s).

    loss = sum_k mean((Q_k(s, a) - y)^2) - mean(Q_0(s, mu(s))), y = r + gamma (1 - terminated) min_k Q'_k(s', mu'(s')),
    where ' is the slow copy. The first term moves critics only and the second, in which critics are constants, only the
    actor, so with an elementwise optimiser (SGD, Adam) this one loss equals one optimiser for each.

    Args:
        env: the environment, with a box of actions; the networks are `box_policy(env, stochastic=False, ...)`.
        num_envs: environments (E) of one agent.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        capacity: transitions an agent remembers; rounded up to whole blocks of num_envs x num_steps.
        batch_size: transitions drawn per local step.
        learning_starts: transitions in the buffer before anything is learned.
        exploration: standard deviation of the Gaussian noise added to actions, in half widths of the box; a number or a
            schedule over local steps.
        target_rate: share of the networks that their slow copies take over.
        target_period: local steps between two movements of the slow copies.
        num_critics: K; 1 is DDPG, 2 takes the lesser of two critics as TD3 does.
        episodes: "continue" keeps environments from local step to local step; "fresh" plays one new episode each.
        hidden_sizes: widths of the hidden layers of each network.
        activation: of the hidden layers.
        initialization: "orthogonal" or "uniform".

    Reference: Lillicrap et al., "Continuous control with deep reinforcement learning", ICLR 2016, algorithm 1;
        Fujimoto et al., "Addressing function approximation error in actor-critic methods", ICML 2018, eq. 10.
    """
    check_targets(discount, target_rate, target_period)
    check_schedule("exploration", exploration, 0)
    policy = box_policy(env, hidden_sizes, activation, False, num_critics, initialization=initialization)
    play = practice(policy, num_envs, num_steps, capacity, batch_size, learning_starts, episodes)
    return DDPG(play, discount, target_rate, target_period, exploration)
