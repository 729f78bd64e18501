"""Transitions of one agent's finite MDP, in the four ways in which theorems are stated."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._categorical import inverse_cdf
from ._episodic import EpisodicParams
from ._mdp import TabularParams


class Transitions(NamedTuple):
    """What was seen of an MDP, leaves [...] of one shape."""

    state: jax.Array  # i32[...]
    action: jax.Array  # i32[...]
    reward: jax.Array  # f[...]
    next_state: jax.Array  # i32[...]


def iid_transitions(
    key: jax.Array, params: TabularParams, policy: jax.Array, law: jax.Array, num_samples: int
) -> Transitions:
    """Independent transitions from a given law of the state, such as the stationary one of the policy.

        s ~ law,  a ~ pi(. | s),  s' ~ P(. | s, a)

    Args:
        key: gives three uniform numbers a transition, float[T, 3], for s, a and s' in this order.
        params: one MDP.
        policy: f[S, A].
        law: f[S].
        num_samples: T.

    Returns:
        leaves [T].
    """
    policy, law = jnp.asarray(policy), jnp.asarray(law)
    uniform = jax.random.uniform(key, (num_samples, 3))
    state = inverse_cdf(uniform[:, 0], law[None])
    action = inverse_cdf(uniform[:, 1], policy[state])
    return _step(params, state, action, uniform[:, 2])


def markov_transitions(
    key: jax.Array, params: TabularParams, policy: jax.Array, state: jax.Array, num_steps: int
) -> tuple[jax.Array, Transitions]:
    """A stretch of one chain that is never reset.

        a_t ~ pi(. | s_t),  s_{t+1} ~ P(. | s_t, a_t)

    Args:
        key: gives two uniform numbers a step, float[T, 2], for a and s' in this order.
        params: one MDP.
        policy: f[S, A].
        state: i32[] where the chain is; first `inverse_cdf(uniform, params.initial)`, then what was returned.
        num_steps: T.

    Returns:
        where the chain is then, and leaves [T].
    """

    policy = jnp.asarray(policy)

    def step(state: jax.Array, uniform: jax.Array) -> tuple[jax.Array, Transitions]:
        action = inverse_cdf(uniform[0], policy[state])
        seen = _step(params, state, action, uniform[1])
        return seen.next_state, seen

    return jax.lax.scan(step, jnp.asarray(state, jnp.int32), jax.random.uniform(key, (num_steps, 2)))


def generative_transitions(key: jax.Array, params: TabularParams | EpisodicParams) -> Transitions:
    """One transition from every state and action, as from a simulator that can be put anywhere.

        s'(s, a) ~ P(. | s, a)

    Args:
        key: gives one uniform number for each, float[S, A].
        params: one MDP; of finite horizon: with a leading axis H everywhere.

    Returns:
        leaves [S, A], or [H, S, A].
    """
    kernel, reward = jnp.asarray(params.kernel), jnp.asarray(params.reward)
    next_state = inverse_cdf(jax.random.uniform(key, reward.shape), kernel)
    state, action = (jax.lax.broadcasted_iota(jnp.int32, reward.shape, reward.ndim - back) for back in (2, 1))
    return Transitions(state, action, reward, next_state)


def episodes(
    key: jax.Array, params: TabularParams | EpisodicParams, policy: jax.Array, num_episodes: int, horizon: int
) -> Transitions:
    """Episodes from the reset law.

        s_0 ~ rho,  a_h ~ pi_h(. | s_h),  s_{h+1} ~ P_h(. | s_h, a_h),  h = 0, ..., H - 1

    Args:
        key: gives float[E, 1 + 2 H] uniform numbers: for s_0, then for a_h and s_{h+1} in turn.
        params: one MDP, discounted or of finite horizon.
        policy: f[S, A], or f[H, S, A] where it changes with the step.
        num_episodes: E.
        horizon: H [steps]; of an `EpisodicParams` the length of its first axis.

    Returns:
        leaves [E, H].

    Raises:
        ValueError: the horizon is not that of the MDP or of the policy.
    """
    policy, inhomogeneous = jnp.asarray(policy), isinstance(params, EpisodicParams)
    lengths = [len(params.kernel)] * inhomogeneous + [len(policy)] * (policy.ndim == 3)
    if any(length != horizon for length in lengths):
        raise ValueError(f"horizon must be that of the MDP and of the policy, {lengths}, got {horizon}")
    uniform = jax.random.uniform(key, (num_episodes, 1 + 2 * horizon))
    first = inverse_cdf(uniform[:, 0], jnp.asarray(params.initial)[None])
    pairs = jnp.moveaxis(uniform[:, 1:].reshape(num_episodes, horizon, 2), 1, 0)  # [H, E, 2]

    def step(state: jax.Array, xs: Any) -> tuple[jax.Array, Transitions]:
        h, uniform = xs
        now = policy if policy.ndim == 2 else policy[h]
        world = params
        if inhomogeneous:
            world = TabularParams(jnp.asarray(params.kernel)[h], jnp.asarray(params.reward)[h], params.initial)
        seen = _step(world, state, inverse_cdf(uniform[:, 0], now[state]), uniform[:, 1])
        return seen.next_state, seen

    _, seen = jax.lax.scan(step, first, (jnp.arange(horizon), pairs))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), seen)


def _step(params: Any, state: jax.Array, action: jax.Array, uniform: jax.Array) -> Transitions:
    """One step of as many chains as there are states."""
    next_state = inverse_cdf(uniform, jnp.asarray(params.kernel)[state, action])
    return Transitions(state, action, jnp.asarray(params.reward)[state, action], next_state)
