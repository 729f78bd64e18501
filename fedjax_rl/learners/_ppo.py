"""Proximal policy optimisation."""

from typing import Any

import jax

from ..core import check_flag, check_range, component, static
from ..policies import Policy
from ..rl import approximate_kl, clipped_surrogate_loss, entropy_bonus, value_loss
from ._objective import Collected, Objective
from ._on_policy import Batch, OnPolicy, Play, check_discounting, collect_with_advantages, play


PyTree = Any


@component
class PPO(OnPolicy):
    """The clipped surrogate; build it with `ppo`."""

    play: Play
    discount: Any
    gae_lambda: Any
    clip: Any
    value_cost: Any
    entropy_cost: Any
    normalize_advantages: bool = static()

    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PyTree) -> Collected:
        normalization = "advantages" if self.normalize_advantages else "none"
        return collect_with_advantages(
            self.play, key, env, physics, params, state, self.discount, self.gae_lambda, normalization
        )

    def loss(
        self, key: jax.Array, params: PyTree, state: PyTree, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        distribution, value = self.play.policy.apply(params, batch.observation)
        log_prob = distribution.log_prob(batch.action)
        policy_loss = clipped_surrogate_loss(log_prob, batch.log_prob, batch.advantage, batch.mask, self.clip)
        critic_loss = value_loss(value, batch.target, batch.mask)
        entropy = entropy_bonus(distribution.entropy(), batch.mask)
        total = policy_loss + self.value_cost * critic_loss - self.entropy_cost * entropy
        kl = approximate_kl(log_prob, batch.log_prob, batch.mask)
        report = {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy}
        return total, report | {"approximate_kl": kl}


def ppo(
    policy: Policy,
    *,
    num_envs: int = 8,
    num_steps: int = 128,
    discount: float = 0.99,
    gae_lambda: float = 0.95,
    clip: float = 0.2,
    value_cost: float = 0.5,
    entropy_cost: float = 0.0,
    normalize_advantages: bool = True,
    bootstrap_on_truncation: bool = True,
    episodes: str = "continue",
) -> Objective:
    """PPO with the clipped surrogate.

    loss = -mean(min(rho A, clip(rho, 1 - c, 1 + c) A)) + value_cost mean((V - target)^2) - entropy_cost mean(entropy),
    rho = pi(a|s) / pi_behaviour(a|s). Epochs and minibatches are arguments of `local_training`.

    Args:
        policy: network and action distribution.
        num_envs: environments (E) of one agent.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        gae_lambda: lambda in [0, 1].
        clip: c > 0.
        value_cost: weight of the critic's loss.
        entropy_cost: weight of the entropy bonus.
        normalize_advantages: to zero mean and unit standard deviation over the batch.
        bootstrap_on_truncation: whether a time limit continues with V(final observation).
        episodes: "continue" keeps environments from round to round; "fresh" plays one new episode per environment.

    Reference: Schulman et al., "Proximal policy optimization algorithms", 2017, eq. 7 and 9.
    """
    check_discounting(discount, gae_lambda)
    check_range("clip", clip, 0, open_low=True)
    check_range("value_cost", value_cost, 0)
    check_range("entropy_cost", entropy_cost, 0)
    check_flag("normalize_advantages", normalize_advantages)
    playing = play(policy, num_envs, num_steps, episodes, bootstrap_on_truncation)
    return PPO(playing, discount, gae_lambda, clip, value_cost, entropy_cost, normalize_advantages)
