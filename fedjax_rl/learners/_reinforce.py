"""REINFORCE and GPOMDP."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_choice, component, static
from ..policies import Policy
from ..rl import Trajectory, discounted_returns, masked_mean, policy_gradient_loss, value_loss
from ._objective import Collected, Objective
from ._on_policy import Batch, OnPolicy, Play, Values, check_costs, check_discounting, play


PyTree = Any


@component
class Reinforce(OnPolicy):
    """The likelihood-ratio policy gradient; build it with `reinforce`."""

    additive = True

    play: Play
    discount: Any
    value_cost: Any
    entropy_cost: Any
    returns: str = static()
    baseline: str = static()
    normalize_by: str = static()

    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PyTree) -> Collected:
        return self.collect_with(self._estimate, key, env, physics, params, state)

    def _estimate(self, trajectory: Trajectory, values: Values) -> tuple[jax.Array, jax.Array]:
        """The score that multiplies grad log pi, and the returns."""
        to_go = discounted_returns(
            trajectory.reward,
            trajectory.terminated,
            trajectory.truncated,
            values.final_value,
            jnp.zeros_like(values.last_value),
            self.discount,
        )
        mask = trajectory.mask.astype(to_go.dtype)
        score = to_go if self.returns == "to_go" else jnp.broadcast_to(to_go[0], to_go.shape)
        if self.baseline == "average":
            alive = jnp.sum(mask, 1, keepdims=True)
            score = score - jnp.sum(score * mask, 1, keepdims=True) / jnp.maximum(alive, 1)
        elif self.baseline == "value":
            score = score - values.value
        if self.normalize_by == "episodes":  # the loss divides by the samples: turn that into a mean over episodes
            score = score * jnp.sum(mask) / score.shape[1]
        return score, to_go

    def loss(
        self, key: jax.Array, params: PyTree, state: PyTree, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        distribution, value = self.play.evaluate(params, batch)
        policy_loss = policy_gradient_loss(distribution.log_prob(batch.action), batch.advantage, batch.mask)
        learns_values = self.baseline == "value"
        critic_loss = value_loss(value, batch.target, batch.mask) if learns_values else jnp.zeros(())
        total, report = self.total_loss(policy_loss, critic_loss, distribution, state, batch)
        if not learns_values:
            del report["value_loss"]
        return total, report | {"return_to_go": masked_mean(batch.target, batch.mask)}


def reinforce(
    policy: Policy,
    *,
    num_envs: int = 8,
    num_steps: int = 500,
    discount: float = 0.99,
    returns: str = "to_go",
    baseline: str = "average",
    normalize_by: str = "steps",
    value_cost: float = 0.5,
    entropy_cost: float = 0.0,
    episodes: str = "fresh",
) -> Objective:
    r"""REINFORCE / GPOMDP: the policy-gradient theorem on whole episodes.

    grad J = E[sum_t grad log pi(a_t|s_t) (G_t - b_t)], G_t = sum_{t' >= t} gamma^{t'-t} r_{t'}.

    Args:
        policy: network and action distribution.
        num_envs: episodes (E) per local step.
        num_steps: longest episode (T); what is unfinished then is cut there, without bootstrap.
        discount: gamma in [0, 1].
        returns: "to_go" G_t at every step (GPOMDP), "total" G_0 at every step (REINFORCE).
        baseline: "none"; "average" over the E episodes at the same step; "value" the critic, trained along.
        normalize_by: "steps" divides by the number of steps (time average), "episodes" by the number of episodes (sum).
        value_cost: weight of the critic's loss where baseline="value".
        entropy_cost: weight of the entropy bonus; a number or a schedule such as `ramp(0.05, 0.0, 500)`.
        episodes: "fresh" starts every local step with new episodes, as the estimator asks; "continue" keeps playing.

    Reference: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
        1992; Baxter and Bartlett, "Infinite-horizon policy-gradient estimation", 2001 (GPOMDP).
    """
    check_discounting(discount)
    check_choice("returns", returns, ("to_go", "total"))
    check_choice("baseline", baseline, ("none", "average", "value"))
    check_choice("normalize_by", normalize_by, ("steps", "episodes"))
    check_costs(value_cost, entropy_cost)
    if returns == "total" and episodes != "fresh":
        raise ValueError(
            f"episodes must be 'fresh' with returns='total', got {episodes!r}: a rollout that goes on does not "
            "know where its first episodes began; use returns='to_go'"
        )
    if baseline == "average" and num_envs == 1:
        raise ValueError(
            "baseline must not be 'average' with num_envs=1, whose only episode is its own average; use "
            "'none' or 'value'"
        )
    playing = play(policy, num_envs, num_steps, episodes, bootstrap_on_truncation=False)
    return Reinforce(playing, discount, value_cost, entropy_cost, returns, baseline, normalize_by)
