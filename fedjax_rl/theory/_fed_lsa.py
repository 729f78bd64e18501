"""Where federated linear stochastic approximation ends, with and without control variates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.core import check_count

from ._lifted import lifted
from ._limits import contracts, solution


_SINGULAR = ("matrix", "must have a regular mean over the agents, got a singular one; drop features that others span")


class MeanSquaredError(NamedTuple):
    """E |theta - theta*|^2 in the long run, to first order in the step size."""

    bias: jax.Array  # f[...] |theta_inf - theta*|^2
    variance: jax.Array  # f[...] tr Sigma
    total: jax.Array  # f[...]


@lifted(
    "(n,d,d),(n,d),()->(d)",
    precise=True,
    exists=(
        "step_size",
        "must be so small that mean_c (I - step_size A_c)^num_local_steps contracts, or FedLSA has no limit; "
        "lower it, and drop features that others span",
    ),
)
def fed_lsa_bias(matrix: jax.Array, vector: jax.Array, step_size: Any, *, num_local_steps: int) -> jax.Array:
    """theta_inf - theta* of FedLSA: how far local steps move the limit of its mean iterate.

        theta_inf - theta* = (I - mean_c M_c)^-1 mean_c (I - M_c) (theta_c* - theta*),    M_c = (I - eta A_c)^H

    evaluated without cancellation from I - M_c = eta A_c S_c, S_c = sum_{h < H} (I - eta A_c)^h, which also serves
    singular A_c: (mean_c A_c S_c)^-1 mean_c S_c (b_c - A_c theta*). It is zero for H = 1, and for equal A_c.

    Args:
        matrix: `f[..., N, d, d]` A_c.
        vector: `f[..., N, d]` b_c.
        step_size: eta > 0.
        num_local_steps: H.

    Returns:
        `f[..., d]`.

    Raises:
        ValueError: not in float64, the step size or H is out of range, or there is no limit; within a trace the result
            is NaN then.

    Reference: Mangold et al., "SCAFFLSA: taming heterogeneity in federated linear stochastic approximation and TD
        learning", 2024 (the bias of FedLSA).
    """
    check_count("num_local_steps", num_local_steps)
    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    contraction = identity - step_size * matrix
    power, partial = identity, jnp.zeros_like(matrix)  # (I - eta A)^k and the sum of the powers below k, k = 0
    for digit in f"{num_local_steps:b}":
        power, partial = power @ power, partial + power @ partial
        if digit == "1":
            power, partial = power @ contraction, partial + power
    drift = jnp.mean(jnp.einsum("nde,ne->nd", partial, _residual(matrix, vector)), 0)
    bias = solution(jnp.mean(matrix @ partial, 0), drift)
    return jnp.where(contracts(jnp.mean(power, 0)), bias, jnp.nan)


@lifted("(n,d,d),(n,d),()->(d)", precise=True, exists=_SINGULAR)
def fed_lsa_bias_expansion(matrix: jax.Array, vector: jax.Array, step_size: Any, *, num_local_steps: int) -> jax.Array:
    """The bias of FedLSA to first order in eta H.

        theta_inf - theta* = -(eta (H - 1) / 2) Abar^-1 mean_c A_c^2 (theta_c* - theta*) + O((eta H)^2)

    Args:
        matrix: `f[..., N, d, d]` A_c.
        vector: `f[..., N, d]` b_c.
        step_size: eta > 0.
        num_local_steps: H.

    Returns:
        `f[..., d]`.

    Raises:
        ValueError: not in float64, the step size or H is out of range, or the mean of A_c is singular.
    """
    check_count("num_local_steps", num_local_steps)
    drift = jnp.mean(jnp.einsum("nde,ne->nd", matrix, _residual(matrix, vector)), 0)
    return -step_size * (num_local_steps - 1) / 2 * solution(jnp.mean(matrix, 0), drift)


@lifted("(n,d,d),(n,d)->(n,d)", precise=True, exists=_SINGULAR)
def scafflsa_control_variates(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """xi_c* = A_c theta* - b_c = A_c (theta* - theta_c*): SCAFFLSA's control variates at its fixed point; sum_c = 0.

    Args:
        matrix: `f[..., N, d, d]` A_c.
        vector: `f[..., N, d]` b_c.

    Returns:
        `f[..., N, d]`.

    Raises:
        ValueError: not in float64, or the mean of A_c is singular.

    Reference: Mangold et al., "SCAFFLSA: taming heterogeneity in federated linear stochastic approximation and TD
        learning", 2024, with the sign for which a local step moves by -eta (A_c theta - b_c - xi_c).
    """
    return -_residual(matrix, vector)


def fed_lsa_mean_squared_error(
    matrix: jax.Array, vector: jax.Array, covariance: jax.Array, step_size: Any, *, num_local_steps: int
) -> MeanSquaredError:
    """The floor of FedLSA: |bias|^2 + tr Sigma. That of SCAFFLSA is tr Sigma alone.

    Args:
        matrix: `f[..., N, d, d]` A_c.
        vector: `f[..., N, d]` b_c.
        covariance: `f[..., d, d]` Sigma, by `stationary_covariance`.
        step_size: eta > 0.
        num_local_steps: H.

    Returns:
        The two parts and their sum.

    Raises:
        ValueError: as `fed_lsa_bias`.
    """
    offset = fed_lsa_bias(matrix, vector, step_size, num_local_steps=num_local_steps)
    bias, variance = jnp.sum(offset**2, -1), jnp.trace(covariance, axis1=-2, axis2=-1)
    return MeanSquaredError(bias, variance, bias + variance)


def _residual(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """b_c - A_c theta* of each agent, with theta* = Abar^-1 bbar."""
    optimum = solution(jnp.mean(matrix, 0), jnp.mean(vector, 0))
    residual = vector - jnp.einsum("nde,e->nd", matrix, optimum)
    return residual - jnp.mean(residual, 0, keepdims=True)  # its mean is zero but for rounding
