"""Losses of the policy and of the critic, means over the real steps of a batch.

Every function takes arrays of one shape and an optional mask, `bool` of that shape; what the mask excludes adds nothing
to the loss or to its gradient, whatever its value.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._masks import masked_mean


def policy_gradient_loss(log_prob: jax.Array, advantage: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """-mean(log pi(a|s) A), whose gradient is the policy gradient; nothing flows through A.

    Args:
        log_prob: `f32[...]` of the action taken, under the policy that is differentiated.
        advantage: `f32[...]`: an advantage, a return, or either minus a baseline.
        mask: `bool[...]`.

    Reference: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
        1992; Sutton and Barto, "Reinforcement learning", 2nd edition, sections 13.3 and 13.4.
    """
    return -masked_mean(log_prob * _clean(advantage, mask), mask)


def clipped_surrogate_loss(
    log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, mask: jax.Array | None = None, clip: Any = 0.2
) -> jax.Array:
    """-mean(min(rho A, clip(rho, 1 - c, 1 + c) A)), rho = pi(a|s) / pi_old(a|s).

    Args:
        log_prob: `f32[...]` under the policy that is differentiated.
        old_log_prob: `f32[...]` under the policy that acted.
        advantage: `f32[...]`.
        mask: `bool[...]`.
        clip: c > 0.

    Reference: Schulman et al., "Proximal policy optimization algorithms", 2017, equation 7.
    """
    advantage = _clean(advantage, mask)
    ratio = jnp.exp(log_prob - _clean(old_log_prob, mask))
    return -masked_mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage), mask)


def value_loss(value: jax.Array, target: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """mean((V(s) - G)^2); nothing flows through the target G (semi-gradient).

    Args:
        value: `f32[...]`.
        target: `f32[...]`.
        mask: `bool[...]`.

    Reference: Sutton and Barto, "Reinforcement learning", 2nd edition, section 9.3.
    """
    return masked_mean(jnp.square(value - _clean(target, mask)), mask)


def huber_loss(value: jax.Array, target: jax.Array, mask: jax.Array | None = None, threshold: Any = 1.0) -> jax.Array:
    """mean(h(e)) of e = |V - G|: h = e^2 / 2 up to the threshold c, c (e - c / 2) beyond; nothing flows through G.

    Args:
        value: `f32[...]`.
        target: `f32[...]`.
        mask: `bool[...]`.
        threshold: c > 0, the largest slope; infinity: half the squared error.

    Reference: Mnih et al., "Human-level control through deep reinforcement learning", 2015, methods (the clipped
        error of DQN).
    """
    error = jnp.abs(value - _clean(target, mask))
    near = jnp.minimum(error, threshold)
    return masked_mean(near * (error - near / 2), mask)


def clipped_value_loss(
    value: jax.Array, old_value: jax.Array, target: jax.Array, mask: jax.Array | None = None, clip: Any = 0.2
) -> jax.Array:
    """mean(max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2)).

    A step that takes V further than c from where it was earns nothing.

    Args:
        value: `f32[...]`.
        old_value: `f32[...]` the critic when the data were collected.
        target: `f32[...]`.
        mask: `bool[...]`.
        clip: c > 0, in units of the value.

    Reference: Engstrom et al., "Implementation matters in deep policy gradients", 2020, section 3.
    """
    target, old_value = _clean(target, mask), _clean(old_value, mask)
    near = old_value + jnp.clip(value - old_value, -clip, clip)
    return masked_mean(jnp.maximum(jnp.square(value - target), jnp.square(near - target)), mask)


def entropy_bonus(entropy: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """mean(H(pi(.|s))) [nat]: subtract it, times a cost, from a loss that is minimised.

    Args:
        entropy: `f32[...]`.
        mask: `bool[...]`.

    Reference: Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, section 4.
    """
    return masked_mean(entropy, mask)


def entropy_loss(entropy: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """-mean(H(pi(.|s))) [nat], the bonus with the sign of a loss.

    Args:
        entropy: `f32[...]`.
        mask: `bool[...]`.
    """
    return -masked_mean(entropy, mask)


def approximate_kl(log_prob: jax.Array, old_log_prob: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """mean(rho - 1 - log rho), rho = pi(a|s) / pi_old(a|s): from actions of pi_old, an estimate of KL(pi_old || pi).

    Unbiased, since E[rho] = 1, and never negative, unlike -mean(log rho).

    Args:
        log_prob: `f32[...]` under the new policy.
        old_log_prob: `f32[...]` under the policy that acted.
        mask: `bool[...]`.

    Reference: Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html.
    """
    log_ratio = log_prob - _clean(old_log_prob, mask)
    return masked_mean(jnp.expm1(log_ratio) - log_ratio, mask)


def _clean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """A constant of the loss; where the mask excludes it 0, because a gradient times NaN is NaN even if it is 0."""
    x = lax.stop_gradient(x)
    return x if mask is None else jnp.where(mask, x, jnp.zeros((), x.dtype))
