"""Advantage actor-critic."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_choice, check_count, check_flag, component, static
from ..policies import Policy
from ..rl import Trajectory, masked_mean, n_step_returns, normalize, policy_gradient_loss, value_loss
from ._objective import Collected, Objective
from ._on_policy import (
    Batch,
    OnPolicy,
    Play,
    Values,
    check_costs,
    check_discounting,
    gae,
    play,
)


PyTree = Any


@component
class ActorCritic(OnPolicy):
    """One policy-gradient and critic loss per sample; build it with `actor_critic`."""

    additive = True

    play: Play
    discount: Any
    gae_lambda: Any
    value_cost: Any
    entropy_cost: Any
    normalization: str = static()
    num_steps_ahead: int | None = static(default=None)
    residual_gradient: bool = static(default=False)

    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PyTree) -> Collected:
        return self.collect_with(self._estimate, key, env, physics, params, state)

    def _estimate(self, trajectory: Trajectory, values: Values) -> tuple[Any, ...]:
        if self.num_steps_ahead is None:
            advantage, target = gae(self.discount, self.gae_lambda)(trajectory, values)
        else:
            target = n_step_returns(
                trajectory.reward, values.value, trajectory.terminated, trajectory.truncated, values.final_value,
                values.last_value, self.discount, self.num_steps_ahead,
            )  # fmt: skip
            advantage = target - values.value
        if self.normalization == "returns":
            target = normalize(target, trajectory.mask)
            advantage = target - values.value
        elif self.normalization == "advantages":
            advantage = normalize(advantage, trajectory.mask)
        if not self.residual_gradient:
            return advantage, target
        goes_on = ~trajectory.terminated
        if not self.play.bootstrap_on_truncation:
            goes_on &= ~trajectory.truncated
        return advantage, target, (trajectory.reward, self.discount * goes_on, trajectory.final_observation)

    def loss(
        self, key: jax.Array, params: PyTree, state: PyTree, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        distribution, value = self.play.evaluate(params, batch)
        policy_loss = policy_gradient_loss(distribution.log_prob(batch.action), batch.advantage, batch.mask)
        if self.residual_gradient:
            reward, discount, following = batch.after
            target = reward + discount * self.play.policy.apply(params, following)[1]
            critic_loss = masked_mean(jnp.square(target - value), batch.mask)
        else:
            critic_loss = value_loss(value, batch.target, batch.mask)
        return self.total_loss(policy_loss, critic_loss, distribution, state, batch)


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
    num_steps_ahead: int | None = None,
    residual_gradient: bool = False,
    bootstrap_on_truncation: bool = True,
    episodes: str = "continue",
) -> Objective:
    """Advantage actor-critic, from one-step temporal differences to Monte-Carlo.

    loss = -mean(log pi(a|s) A) + value_cost mean((V - target)^2) - entropy_cost mean(entropy).

    Args:
        policy: network and action distribution; a critic of its own (`shared_trunk=False`) keeps large returns from
            swamping the actor.
        num_envs: environments (E) of one agent.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        gae_lambda: lambda in [0, 1]; 0 = one-step TD, A = r + gamma V(s') - V(s); 1 = Monte-Carlo with bootstrap.
        value_cost: weight of the critic's loss; a number or a schedule such as `ramp(0.5, 0.1, 500)`.
        entropy_cost: weight of the entropy bonus; a number or a schedule.
        normalization: "none"; "advantages" or "returns" to zero mean and unit standard deviation over the batch
            (normalised returns are the critic's target too, and the advantage is their difference to V).
        num_steps_ahead: n of n-step returns in the place of generalised advantages; None: `gae_lambda` decides.
        residual_gradient: the critic descends (r + gamma V(s') - V(s))^2 through V(s') too, as the formula is often
            printed; False is temporal-difference learning, whose target is a constant.
        bootstrap_on_truncation: whether a time limit continues with V(final observation); False treats it as the end.
        episodes: "continue" keeps environments from round to round; "fresh" plays one new episode per environment.

    Reference: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, section 4 (the loss);
        Schulman et al., "High-dimensional continuous control using generalized advantage estimation", 2016, eq. 16;
        Baird, "Residual algorithms", ICML 1995 (the residual gradient).
    """
    check_discounting(discount, gae_lambda)
    check_choice("normalization", normalization, ("none", "advantages", "returns"))
    check_costs(value_cost, entropy_cost)
    if num_steps_ahead is not None:
        check_count("num_steps_ahead", num_steps_ahead, remedy="1 is the one-step temporal difference")
    check_flag("residual_gradient", residual_gradient)
    if residual_gradient and normalization == "returns":
        raise ValueError(
            "normalization must not be 'returns' with residual_gradient=True: its target is not a return; "
            "use 'advantages' or 'none'"
        )
    playing = play(policy, num_envs, num_steps, episodes, bootstrap_on_truncation)
    if residual_gradient and policy.has_memory:
        raise ValueError(
            "residual_gradient must be False with a policy that has a memory: V(s') would need the memory of its own"
        )
    return ActorCritic(
        playing, discount, gae_lambda, value_cost, entropy_cost, normalization, num_steps_ahead, residual_gradient
    )
