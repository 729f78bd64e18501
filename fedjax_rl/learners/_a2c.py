"""Advantage actor-critic in the form of A3C's synchronous brother."""

from ..policies import Policy
from ._actor_critic import actor_critic
from ._objective import Objective


def a2c(
    policy: Policy, *, num_envs: int = 16, num_steps: int = 5, discount: float = 0.99, value_cost: float = 0.5,
    entropy_cost: float = 0.01,
) -> Objective:  # fmt: skip
    """A2C: `actor_critic` on short rollouts, with returns that run to the end of the rollout and bootstrap there.

    G_t = r_t + ... + gamma^{T-t-1} r_{T-1} + gamma^{T-t} V(s_T), A_t = G_t - V(s_t). The paper's optimiser is
    `optax.rmsprop`; many local steps per round make up for the short rollouts.

    Args:
        policy: network and action distribution.
        num_envs: environments (E) of one agent, which go on from round to round.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        value_cost: weight of the critic's loss; a number or a schedule.
        entropy_cost: weight of the entropy bonus; a number or a schedule.

    Reference: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3, with one
        synchronous worker.
    """
    return actor_critic(
        policy, num_envs=num_envs, num_steps=num_steps, discount=discount, gae_lambda=1.0, value_cost=value_cost,
        entropy_cost=entropy_cost,
    )  # fmt: skip
