"""How noisy TD updates are, and the covariance of the iterate that follows from it."""

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_rl.core import linalg

from ._lifted import lifted


@lifted("(s,d),(s,a,s),(s,a),(s,a),(s),(d),()->(d,d)")
def td_noise_covariance(
    features: jax.Array, kernel: jax.Array, reward: jax.Array, policy: jax.Array, law: jax.Array, theta: jax.Array,
    discount: Any,
) -> jax.Array:  # fmt: skip
    """Cov(A(Z) theta - b(Z)) of TD(0) with independent samples s ~ mu, a ~ pi(. | s), s' ~ P(. | s, a).

        A(Z) theta - b(Z) = phi(s) (phi(s)^T theta - gamma phi(s')^T theta - r(s, a))

    Args:
        features: `f[..., S, d]` phi(s).
        kernel: `f[..., S, A, S]` P(s' | s, a). A chain P^pi is an MDP with one action: `chain[..., None, :]`.
        reward: `f[..., S, A]`, given s and a not random.
        policy: `f[..., S, A]` pi(a | s).
        law: `f[..., S]` mu.
        theta: `f[..., d]` where the noise is looked at, such as theta*.
        discount: gamma in [0, 1).

    Returns:
        `f[..., d, d]`.

    Reference: Mangold et al., "SCAFFLSA: taming heterogeneity in federated linear stochastic approximation and TD
        learning", 2024 (the noise epsilon^c).
    """
    error, share = _errors(features, kernel, reward, policy, theta, discount)
    first, second = jnp.sum(share * error, (1, 2)), jnp.sum(share * error**2, (1, 2))
    mean = features.T @ (law * first)
    return features.T @ ((law * second)[:, None] * features) - jnp.outer(mean, mean)


@lifted("(s,d),(s,a,s),(s,a),(s,a),(s),(d),()->(d,d)")
def markov_noise_covariance(
    features: jax.Array, kernel: jax.Array, reward: jax.Array, policy: jax.Array, law: jax.Array, theta: jax.Array,
    discount: Any,
) -> jax.Array:  # fmt: skip
    """sum_{k in Z} Cov(eps_0, eps_k) of TD(0) along one stationary trajectory, eps_k = A(Z_k) theta - b(Z_k).

    The lags k > 0 are summed by the fundamental matrix (I - P^pi + 1 mu^T)^-1. In the place of the covariance of one
    sample it gives the covariance of the iterate to first order in the step size.

    Args:
        features: `f[..., S, d]` phi(s).
        kernel: `f[..., S, A, S]` P(s' | s, a).
        reward: `f[..., S, A]`, given s and a not random.
        policy: `f[..., S, A]` pi(a | s).
        law: `f[..., S]` mu, the stationary law of P^pi.
        theta: `f[..., d]` where the noise is looked at, such as theta*.
        discount: gamma in [0, 1).

    Returns:
        `f[..., d, d]`.

    Reference: Kemeny and Snell, "Finite Markov chains", 1960, chapter 4 (variances of sums along a chain).
    """
    error, share = _errors(features, kernel, reward, policy, theta, discount)
    drift = jnp.sum(share * error, (1, 2))[:, None] * features  # f[S, d] E[eps_k | s_k]
    mean = law @ drift
    drift = drift - mean[None]
    chain = jnp.sum(share, 1)
    fundamental = linalg.solve(jnp.eye(len(chain), dtype=chain.dtype) - chain + law[None, :], drift)
    # sum_{k > 0} E[(eps_0 - mean) (eps_k - mean)^T]: after s' = s_1 the expectations are those of the chain.
    onward = jnp.einsum("sat,td->sd", share * error, fundamental)
    later = features.T @ (law[:, None] * onward)
    here = jnp.einsum("s,sd,se->de", law * jnp.sum(share * error**2, (1, 2)), features, features)
    return here - jnp.outer(mean, mean) + later + later.T


@lifted("(n,d,d)->(d,d)")
def averaged_noise_covariance(covariance: jax.Array) -> jax.Array:
    """Q = (1 / N^2) sum_c Cov_c: the covariance of the mean of N agents' independent updates.

    Args:
        covariance: `f[..., N, d, d]` of each agent.

    Returns:
        `f[..., d, d]`.
    """
    return jnp.mean(covariance, 0) / len(covariance)


@lifted(
    "(d,d),(d,d)->(d,d)",
    precise=True,
    exists=(
        "matrix",
        "must have no two eigenvalues that sum to zero, got such ones; the equation has no single solution",
    ),
)
def solve_lyapunov(matrix: jax.Array, noise: jax.Array) -> jax.Array:
    """The X with A X + X A^T = Q, by one linear system of d^2 unknowns: meant for d up to about 50.

    Args:
        matrix: `f[..., d, d]` A; no two eigenvalues may sum to zero.
        noise: `f[..., d, d]` Q, symmetric.

    Returns:
        `f[..., d, d]`, symmetric.

    Raises:
        ValueError: not in float64, or there is no single solution; within a trace it is NaN then.
    """
    roots = linalg.eigenvalues(matrix)
    sums = jnp.abs(roots[:, None] + roots[None, :])
    regular = jnp.min(sums) > 10 * len(matrix) * jnp.finfo(matrix.dtype).eps * jnp.max(sums)
    return jnp.where(regular, _solve(_lyapunov(matrix), noise), jnp.nan)


@lifted(
    "(d,d),(d,d),()->(d,d)",
    precise=True,
    exists=(
        "matrix",
        "must have eigenvalues with positive real parts, got others; no small step size makes it contract",
    ),
)
def stationary_covariance(matrix: jax.Array, noise: jax.Array, step_size: Any) -> jax.Array:
    """Sigma with Abar Sigma + Sigma Abar^T = eta Q: the covariance of the shared iterate to first order in eta.

    Args:
        matrix: `f[..., d, d]` Abar; its eigenvalues have positive real parts.
        noise: `f[..., d, d]` Q, by `averaged_noise_covariance`.
        step_size: eta > 0.

    Returns:
        `f[..., d, d]`.

    Raises:
        ValueError: not in float64, the step size is not positive, or the eigenvalues are not as said; within a trace
            the result is NaN then.

    Reference: Kushner and Yin, "Stochastic approximation and recursive algorithms", 2nd edition, 2003, chapter 10
        (constant step size).
    """
    return _covariance(_lyapunov(matrix), step_size * noise)


@lifted(
    "(s,d),(n,s,a,s),(n,s,a),(s,a),(n,s),(d),(),()->(d,d)",
    precise=True,
    exists=("step_size", "must be so small that the second moment stays bounded, got one for which it grows; lower it"),
)
def exact_stationary_covariance(
    features: jax.Array, kernel: jax.Array, reward: jax.Array, policy: jax.Array, law: jax.Array, theta: jax.Array,
    discount: Any, step_size: Any,
) -> jax.Array:  # fmt: skip
    """E (theta_t - theta*) (theta_t - theta*)^T in the long run for H = 1, the randomness of A(Z) included.

    N agents draw independent transitions and average after every step. With e = theta_t - theta* and no approximation,

        X = E[(I - eta A(Z)) X (I - eta A(Z))^T] + eta^2 Q,       A(Z) = (1 / N) sum_c A_c(Z_c)

    is one linear system of d^2 unknowns; `stationary_covariance` leaves out what is of higher order in eta.

    Args:
        features: `f[..., S, d]` phi(s).
        kernel: `f[..., N, S, A, S]` P_c(s' | s, a).
        reward: `f[..., N, S, A]`.
        policy: `f[..., S, A]` pi(a | s).
        law: `f[..., N, S]` mu_c.
        theta: `f[..., d]` theta*, the federated fixed point.
        discount: gamma in [0, 1).
        step_size: eta > 0, small enough for the second moment to stay bounded.

    Returns:
        `f[..., d, d]`.

    Raises:
        ValueError: not in float64, the step size is not positive, or the second moment grows without bound; within a
            trace the result is NaN then.
    """
    size, num_agents = features.shape[-1], len(kernel)
    chain = jnp.einsum("nsat,sa->nst", kernel, policy)
    weight = law[:, :, None] * chain  # f[N, S, S] of the transition s -> s'
    difference = features[:, None, :] - discount * features[None, :, :]  # f[S, S, d] phi(s) - gamma phi(s')
    matrix = jnp.einsum("nst,sd,ste->nde", weight, features, difference)
    squares = jnp.einsum("sd,sf->sdf", features, features)
    inner = jnp.einsum("st,ste,stg->seg", jnp.sum(weight, 0), difference, difference)
    # vec(X) -> vec(sum_c E[A_c(Z) X A_c(Z)^T]) less the same with the mean A_c.
    random = jnp.einsum("sdf,seg->dfeg", squares, inner) - jnp.einsum("nde,nfg->dfeg", matrix, matrix)
    step = jnp.eye(size, dtype=features.dtype) - step_size * jnp.mean(matrix, 0)
    operator = jnp.kron(step, step) + (step_size / num_agents) ** 2 * random.reshape(size**2, size**2)
    noise = td_noise_covariance(features, kernel, reward, policy, law, theta, discount)
    right = step_size**2 * jnp.mean(noise, 0) / num_agents
    return _covariance(jnp.eye(size**2, dtype=features.dtype) - operator, right)


def _solve(operator: jax.Array, right: jax.Array) -> jax.Array:
    """The symmetric X with operator vec(X) = vec(right), rows one after the other."""
    found = linalg.solve(operator, right.ravel()).reshape(right.shape)
    return (found + found.T) / 2


def _lyapunov(matrix: jax.Array) -> jax.Array:
    """vec(X) -> vec(A X + X A^T)."""
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    return jnp.kron(matrix, identity) + jnp.kron(identity, matrix)


def _covariance(operator: jax.Array, noise: jax.Array) -> jax.Array:
    """The X with operator vec(X) = vec(noise), the limit of a recursion; NaN where the recursion is not stable.

    It is stable exactly if the solution for noise I is positive definite: Lyapunov's theorem, and for I - (a positive
    map) that of Stein.
    """
    trial = _solve(operator, jnp.eye(len(noise), dtype=noise.dtype))
    stable = jnp.min(jnp.real(linalg.eigenvalues(trial))) > 0
    return jnp.where(stable, _solve(operator, noise), jnp.nan)


def _errors(
    features: jax.Array, kernel: jax.Array, reward: jax.Array, policy: jax.Array, theta: jax.Array, discount: Any
) -> tuple[jax.Array, jax.Array]:
    """phi(s)^T theta - gamma phi(s')^T theta - r(s, a), f[S, A, S], and the probabilities of (a, s') given s."""
    values = features @ theta
    error = values[:, None, None] - discount * values[None, None, :] - reward[:, :, None]
    return error, policy[:, :, None] * kernel
