"""Softmax policies of finite MDPs: a table of logits, or a tree of coins."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


def softmax_probabilities(params: jax.Array) -> jax.Array:
    """pi(a | s) = exp theta(s, a) / sum_a' exp theta(s, a').

    Args:
        params: f[..., S, A] theta.

    Returns:
        f[..., S, A]; rows sum to one.
    """
    return jax.nn.softmax(params, -1)


def bits_probabilities(params: jax.Array) -> jax.Array:
    """The policy that draws the bits of its action one after the other, the most significant first.

        pi(a | s) = prod_{p < k} softmax(theta[s, 2^p - 1 + w_0 ... w_{p-1}])[w_p],  a = w_0 w_1 ... w_{k-1} in binary

    The prefix of length p, read as a number, is the place of a coin within the p-th level of a binary tree. Every law
    on the 2^k actions is a product of such coins.

    Args:
        params: f[..., S, 2^k - 1, 2] theta, a coin for each prefix.

    Returns:
        f[..., S, 2^k]; rows sum to one.

    Reference: Labbi et al., "Federated softmax policy gradient", AISTATS 2026 (the policy of b-RS-FedPG).
    """
    return jnp.exp(_along_bits(params, jnp.ones(num_bits(params.shape[-2] + 1), params.dtype)))


def num_bits(num_actions: int) -> int:
    """k of A = 2^k actions."""
    return num_actions.bit_length() - 1


def _along_bits(params: jax.Array, weight: jax.Array) -> jax.Array:
    """sum_p c_p log pi(w_p | s, w_0 ... w_{p-1}) for all actions, f[..., S, 2^k]; weight f[k] c."""
    log_coins = jax.nn.log_softmax(params, -1)
    lead = params.shape[:-2]
    total = jnp.zeros((*lead, 1), params.dtype)
    for p in range(weight.shape[0]):
        level = log_coins[..., 2**p - 1 : 2 ** (p + 1) - 1, :]
        total = (total[..., None] + weight[p] * level).reshape(*lead, 2 ** (p + 1))
    return total


class Parametrization(NamedTuple):
    """How parameters make a policy, and what of it is regularised."""

    shape: Callable[[int, int], tuple[int, ...]]  # of the parameters, from S and A
    log_probabilities: Callable[[jax.Array], jax.Array]  # theta -> log pi, f[S, A]
    penalty: Callable[[jax.Array, Any], jax.Array]  # (theta, gamma) -> what lambda multiplies, f[S, A]


def _bits_penalty(params: jax.Array, discount: Any) -> jax.Array:
    """sum_p gamma^(p / (k - 1)) log pi(w_p | s, w_0 ... w_{p-1}): as if the k bits took one step together."""
    count = num_bits(params.shape[-2] + 1)
    return _along_bits(params, jnp.asarray(discount, params.dtype) ** (jnp.arange(count) / max(count - 1, 1)))


PARAMETRIZATIONS = {
    "softmax": Parametrization(
        lambda num_states, num_actions: (num_states, num_actions),
        lambda params: jax.nn.log_softmax(params, -1),
        lambda params, discount: jax.nn.log_softmax(params, -1),
    ),
    "bits": Parametrization(
        lambda num_states, num_actions: (num_states, num_actions - 1, 2),
        lambda params: _along_bits(params, jnp.ones(num_bits(params.shape[-2] + 1), params.dtype)),
        _bits_penalty,
    ),
}
