"""Advantage actor-critic."""

from typing import Any

import jax

from ..core import check_choice, check_range, component, static
from ..policies import Policy
from ..rl import entropy_bonus, policy_gradient_loss, value_loss
from ._objective import Collected, Objective
from ._on_policy import Batch, OnPolicy, Play, check_discounting, collect_with_advantages, play


PyTree = Any


@component
class ActorCritic(OnPolicy):
    """One policy-gradient and critic loss per sample; build it with `actor_critic`."""

    play: Play
    discount: Any
    gae_lambda: Any
    value_cost: Any
    entropy_cost: Any
    normalization: str = static()

    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PyTree) -> Collected:
        return collect_with_advantages(
            self.play, key, env, physics, params, state, self.discount, self.gae_lambda, self.normalization
        )

    def loss(
        self, key: jax.Array, params: PyTree, state: PyTree, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        distribution, value = self.play.policy.apply(params, batch.observation)
        policy_loss = policy_gradient_loss(distribution.log_prob(batch.action), batch.advantage, batch.mask)
        critic_loss = value_loss(value, batch.target, batch.mask)
        entropy = entropy_bonus(distribution.entropy(), batch.mask)
        total = policy_loss + self.value_cost * critic_loss - self.entropy_cost * entropy
        return total, {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy}


def actor_critic(
    policy: Policy,
    *,
    num_envs: int = 8,
    num_steps: int = 200,
    discount: float = 0.99,
    gae_lambda: float = 0.95,
    value_cost: float = 0.5,
    entropy_cost: float = 0.01,
    normalization: str = "none",
    bootstrap_on_truncation: bool = True,
    episodes: str = "continue",
) -> Objective:
    """Advantage actor-critic with generalised advantages.

    loss = -mean(log pi(a|s) A) + value_cost mean((V - target)^2) - entropy_cost mean(entropy).

    Args:
        policy: network and action distribution.
        num_envs: environments (E) of one agent.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        gae_lambda: lambda in [0, 1]; 0 = one-step TD, 1 = Monte-Carlo with bootstrap.
        value_cost: weight of the critic's loss.
        entropy_cost: weight of the entropy bonus.
        normalization: "none"; "advantages" or "returns" to zero mean and unit standard deviation over the batch
            (normalised returns are the critic's target too, and the advantage is their difference to V).
        bootstrap_on_truncation: whether a time limit continues with V(final observation); False treats it as the end.
        episodes: "continue" keeps environments from round to round; "fresh" plays one new episode per environment.

    Reference: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, section 4 (the loss);
        Schulman et al., "High-dimensional continuous control using generalized advantage estimation", 2016, eq. 16.
    """
    check_discounting(discount, gae_lambda)
    check_choice("normalization", normalization, ("none", "advantages", "returns"))
    check_range("value_cost", value_cost, 0)
    check_range("entropy_cost", entropy_cost, 0)
    playing = play(policy, num_envs, num_steps, episodes, bootstrap_on_truncation)
    return ActorCritic(playing, discount, gae_lambda, value_cost, entropy_cost, normalization)
