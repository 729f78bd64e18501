"""Soft actor-critic."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_range, component
from ..policies import box_policy, least
from ..rl import masked_mean, value_loss
from ._objective import Objective
from ._off_policy import OffPolicy, OffPolicyState, Practice, Transition, check_targets, practice


PyTree = Any


@component
class SAC(OffPolicy):
    """A stochastic actor that climbs its critics and its entropy; build it with `sac`."""

    play: Practice
    discount: Any
    target_rate: Any
    target_period: Any
    target_entropy: Any
    initial_temperature: Any

    def init(self, key: jax.Array, env: Any) -> PyTree:
        log_alpha = jnp.log(jnp.asarray(self.initial_temperature, jnp.result_type(float)))
        return {**super().init(key, env), "log_alpha": log_alpha}

    def tracked(self, params: PyTree) -> PyTree:
        return params["critic"]

    def act(self, params: PyTree, observation: jax.Array, noise: jax.Array, count: jax.Array) -> jax.Array:
        return self.play.policy.distribution(params["actor"], observation).sample(noise)

    def loss(
        self, key: jax.Array, params: PyTree, state: OffPolicyState, batch: Transition
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        policy, fixed = self.play.policy, jax.lax.stop_gradient(params)
        alpha, fixed_alpha = jnp.exp(params["log_alpha"]), jnp.exp(fixed["log_alpha"])
        k_now, k_next = jax.random.split(key)

        def drawn(key: jax.Array, actor: PyTree, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
            """An action, and its log-density in the box scaled to [-1, 1]."""
            noise = policy.noise(key, observation.shape[:-1])
            action, log_prob = policy.distribution(actor, observation).sample_and_log_prob(noise)
            return action, log_prob + policy.log_volume

        action, log_prob = drawn(k_next, fixed["actor"], batch.next_observation)
        following = least(policy.q_values(state.target, batch.next_observation, action))
        target = self.bootstrapped(batch, following - fixed_alpha * log_prob)
        values = policy.q_values(params["critic"], batch.observation, batch.action)
        critic_loss = sum((value_loss(value, target, batch.mask) for value in values), start=jnp.zeros(())) / 2

        action, log_prob = drawn(k_now, params["actor"], batch.observation)
        climbed = least(policy.q_values(fixed["critic"], batch.observation, action))
        policy_loss = masked_mean(fixed_alpha * log_prob - climbed, batch.mask)
        surplus = jax.lax.stop_gradient(-log_prob - self.target_entropy)
        temperature_loss = masked_mean(alpha * surplus, batch.mask)
        report = {
            "policy_loss": policy_loss,
            "value_loss": critic_loss,
            "q_mean": masked_mean(values[0], batch.mask),
            "entropy": -masked_mean(log_prob, batch.mask),
            "temperature": alpha,
        }
        return critic_loss + policy_loss + temperature_loss, report

    def parts(self, params: PyTree) -> PyTree:
        return {**super().parts(params), "log_alpha": "temperature"}

    def distribution(self, params: PyTree, batch: Transition) -> tuple[Any, jax.Array]:
        return self.play.policy.distribution(params["actor"], batch.observation), batch.mask

    def log_prob(self, params: PyTree, batch: Transition) -> jax.Array:
        return jnp.where(batch.mask, self.distribution(params, batch)[0].log_prob(batch.action), 0)


def sac(
    env: Any,
    *,
    num_envs: int = 8,
    num_steps: int = 4,
    discount: float = 0.99,
    capacity: int = 50_000,
    batch_size: int = 128,
    learning_starts: int = 1_000,
    target_rate: float = 0.005,
    target_period: int = 1,
    target_entropy: float | None = None,
    initial_temperature: float = 1.0,
    num_critics: int = 2,
    episodes: str = "continue",
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "relu",
    initialization: str = "orthogonal",
) -> Objective:
    """SAC: off-policy actor-critic for continuous actions that maximises return plus entropy.

    With a~ ~ pi(.|s), a' ~ pi(.|s') and y = r + gamma (1 - terminated) (min_k Q'_k(s', a') - alpha log pi(a'|s')),

        loss = sum_k mean((Q_k(s, a) - y)^2) / 2  +  mean(alpha log pi(a~|s) - min_k Q_k(s, a~))
               - mean(alpha (log pi(a~|s) + target entropy)).

    The three terms move the critics, the actor and log alpha, each with the rest held constant, so with an elementwise
    optimiser (SGD, Adam) this one loss equals one optimiser for each. Densities are those of actions scaled to [-1, 1].

    Args:
        env: the environment, with a box of actions; the networks are `box_policy(env, ...)`.
        num_envs: environments (E) of one agent.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        capacity: transitions an agent remembers; rounded up to whole blocks of num_envs x num_steps.
        batch_size: transitions drawn per local step.
        learning_starts: transitions in the buffer before anything is learned.
        target_rate: share of the critics that their slow copies take over.
        target_period: local steps between two movements of the slow copies.
        target_entropy: of the actions scaled to [-1, 1]^D [nat]; None: -D.
        initial_temperature: the first alpha.
        num_critics: K.
        episodes: "continue" keeps environments from local step to local step; "fresh" plays one new episode each.
        hidden_sizes: widths of the hidden layers of each network.
        activation: of the hidden layers.
        initialization: "orthogonal" or "uniform".

    Reference: Haarnoja et al., "Soft actor-critic algorithms and applications", 2018, eq. 5, 7 and 18, algorithm 1.
    """
    check_targets(discount, target_rate, target_period)
    check_range("initial_temperature", initial_temperature, 0, math.inf, open_low=True, open_high=True)
    policy = box_policy(env, hidden_sizes, activation, True, num_critics, initialization=initialization)
    if target_entropy is None:
        target_entropy = -float(policy.action_size)
    check_range("target_entropy", target_entropy)
    play = practice(policy, num_envs, num_steps, capacity, batch_size, learning_starts, episodes)
    return SAC(play, discount, target_rate, target_period, target_entropy, initial_temperature)
