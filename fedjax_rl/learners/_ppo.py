"""Proximal policy optimisation."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_choice, check_flag, check_range, component, static
from ..policies import Policy
from ..rl import (
    Trajectory,
    adapted,
    approximate_kl,
    clipped_surrogate_loss,
    masked_mean,
    normalize,
    value_loss,
)
from ._objective import Collected, Objective
from ._on_policy import (
    Batch,
    OnPolicy,
    Play,
    PlayState,
    Values,
    check_costs,
    check_discounting,
    gae,
    play,
)


PyTree = Any


@component
class PPO(OnPolicy):
    """Surrogates of the return near the behaviour policy; build it with `ppo`."""

    additive = True

    play: Play
    discount: Any
    gae_lambda: Any
    clip: Any
    kl_cost: Any
    kl_target: Any
    value_cost: Any
    entropy_cost: Any
    normalize_advantages: bool = static()
    surrogate: str = static()

    @property
    def uses_ratios(self) -> bool:
        return True

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree) -> PlayState:
        state = super().init_local(key, env, physics, params)
        if self.surrogate != "kl":
            return state
        return state._replace(extra=jnp.asarray(self.kl_cost, jnp.result_type(float)))

    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PlayState) -> Collected:
        return self.collect_with(self._estimate, key, env, physics, params, state)

    def _estimate(self, trajectory: Trajectory, values: Values) -> tuple[jax.Array, jax.Array]:
        advantage, target = gae(self.discount, self.gae_lambda)(trajectory, values)
        return normalize(advantage, trajectory.mask) if self.normalize_advantages else advantage, target

    def loss(
        self, key: jax.Array, params: PyTree, state: PlayState, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        distribution, value = self.play.evaluate(params, batch)
        log_prob = distribution.log_prob(batch.action)
        kl = approximate_kl(log_prob, batch.log_prob, batch.mask)
        if self.surrogate == "clip":
            policy_loss = clipped_surrogate_loss(log_prob, batch.log_prob, batch.advantage, batch.mask, self.clip)
        else:
            ratio = jnp.exp(log_prob - batch.log_prob)
            policy_loss = -masked_mean(ratio * batch.advantage, batch.mask)
        if self.surrogate == "kl":
            policy_loss += state.extra * kl
        critic_loss = value_loss(value, batch.target, batch.mask)
        total, report = self.total_loss(policy_loss, critic_loss, distribution, state, batch)
        return total, report | {"approximate_kl": kl}

    def after_step(self, params: PyTree, state: PlayState, batch: Batch) -> PlayState:
        state = super().after_step(params, state, batch)
        if self.surrogate != "kl":
            return state
        kl = approximate_kl(self.log_prob(params, batch), batch.log_prob, batch.mask)
        return state._replace(extra=adapted(state.extra, kl, self.kl_target, limit=1e3))


def ppo(
    policy: Policy,
    *,
    num_envs: int = 8,
    num_steps: int = 128,
    discount: float = 0.99,
    gae_lambda: float = 0.95,
    surrogate: str = "clip",
    clip: float = 0.2,
    kl_cost: float = 1.0,
    kl_target: float = 0.01,
    value_cost: float = 0.5,
    entropy_cost: float = 0.0,
    normalize_advantages: bool = True,
    bootstrap_on_truncation: bool = True,
    episodes: str = "continue",
) -> Objective:
    """PPO, clipped or with an adaptive KL penalty, and the bare surrogate that TRPO maximises.

    loss = policy loss + value_cost mean((V - target)^2) - entropy_cost mean(entropy), with the policy loss
    "clip": -mean(min(rho A, clip(rho, 1 - c, 1 + c) A)); "kl": -mean(rho A) + beta KL(pi_behaviour || pi);
    "ratio": -mean(rho A), for `natural_gradient(max_kl=...)`; rho = pi(a|s) / pi_behaviour(a|s). Epochs and minibatches
    are arguments of `local_training`.

    Args:
        policy: network and action distribution.
        num_envs: environments (E) of one agent.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        gae_lambda: lambda in [0, 1].
        surrogate: "clip", "kl" or "ratio".
        clip: c > 0 of "clip".
        kl_cost: the first beta of "kl".
        kl_target: of "kl": after a local step whose KL was 1.5 times above or below it, the agent multiplies or divides
            its beta by 1.5. (The paper's factor is 2; 1.5 suits the few local steps between two meetings.)
        value_cost: weight of the critic's loss; a number or a schedule such as `ramp(0.5, 0.1, 500)`.
        entropy_cost: weight of the entropy bonus; a number or a schedule.
        normalize_advantages: to zero mean and unit standard deviation over the batch.
        bootstrap_on_truncation: whether a time limit continues with V(final observation).
        episodes: "continue" keeps environments from round to round; "fresh" plays one new episode per environment.

    Reference: Schulman et al., "Proximal policy optimization algorithms", 2017, eq. 6 to 9.
    """
    check_discounting(discount, gae_lambda)
    check_choice("surrogate", surrogate, ("clip", "kl", "ratio"))
    check_range("clip", clip, 0, open_low=True)
    check_range("kl_cost", kl_cost, 0, open_low=True)
    check_range("kl_target", kl_target, 0, open_low=True)
    check_costs(value_cost, entropy_cost)
    check_flag("normalize_advantages", normalize_advantages)
    playing = play(policy, num_envs, num_steps, episodes, bootstrap_on_truncation)
    return PPO(
        playing, discount, gae_lambda, clip, kl_cost, kl_target, value_cost, entropy_cost, normalize_advantages,
        surrogate,
    )  # fmt: skip
