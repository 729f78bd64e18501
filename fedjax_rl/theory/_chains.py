"""Markov chains and mixing matrices: stationary laws, mixing times, spectral gaps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_rl.core import check_range, is_concrete, linalg

from ._lifted import lifted


_NUM_DOUBLINGS = 40  # chains are followed for up to 2^40 steps


@lifted(
    "(s,s)->(s)",
    exists=(
        "chain",
        "must have a single stationary law, got several closed classes of states; use limiting_distribution, whose law "
        "depends on the start",
    ),
)
def stationary_distribution(chain: jax.Array) -> jax.Array:
    """The only law mu with mu P = mu: the solution of (I - P^T + 1 1^T) mu = 1.

    A chain with several closed classes has many. For such a one this raises; within a trace, where nothing can be
    raised, the law is NaN. `limiting_distribution` is the law reached from a given start.

    Args:
        chain: `f[..., S, S]` P(s' | s), rows sum to one; see `policy_chain`.

    Returns:
        `f[..., S]`.

    Raises:
        ValueError: the chain has more than one stationary law.

    Reference: Levin and Peres, "Markov chains and mixing times", 2nd edition, 2017, corollary 1.17; the linear system
        is that of Paige, Styan and Wachter, "Computation of the stationary distribution of a Markov chain", 1975.
    """
    size = len(chain)
    ones = jnp.ones(size, chain.dtype)
    balance = jnp.eye(size, dtype=chain.dtype) - chain.T
    law = linalg.solve(balance + jnp.ones_like(chain), ones)
    # I - P^T has rank S - 1 exactly if there is one closed class.
    singular = linalg.singular_values(balance)
    unique = singular[-2] > size * jnp.finfo(chain.dtype).eps if size > 1 else True
    law = jnp.maximum(law, 0)  # transient states come out as zero up to rounding
    return jnp.where(unique, law / jnp.sum(law), jnp.nan)


@lifted("(s,s),(s)->(s)")
def limiting_distribution(chain: jax.Array, initial: jax.Array) -> jax.Array:
    """The share of time spent in each state: lim (1 / T) sum_{t < T} rho P^t, which exists for every chain.

    It equals lim rho ((I + P) / 2)^t, which is computed by repeated squaring: laziness removes periods and keeps the
    stationary laws.

    Args:
        chain: `f[..., S, S]` P(s' | s), rows sum to one.
        initial: `f[..., S]` rho, the law of s_0.

    Returns:
        `f[..., S]`; for an irreducible chain its stationary law, whatever the start.

    Reference: Puterman, "Markov decision processes", 1994, appendix A.4 (the limiting matrix).
    """

    def square(_: int, power: jax.Array) -> jax.Array:
        power = power @ power
        return power / jnp.sum(power, -1, keepdims=True)  # without it rounding doubles at every squaring

    lazy = (chain + jnp.eye(len(chain), dtype=chain.dtype)) / 2
    return initial @ lax.fori_loop(0, _NUM_DOUBLINGS, square, lazy)


def mixing_time(chain: jax.Array, *, distance: float = 0.25) -> jax.Array:
    """The first t at which max_s TV(P^t(. | s), mu) <= distance, TV being half the L1 norm.

    The distance never grows with t, so t is found by bisection over powers of P.

    Args:
        chain: `f[..., S, S]` P(s' | s), rows sum to one, with a single stationary law.
        distance: in (0, 1).

    Returns:
        `f[...]` steps; inf for a periodic chain, or beyond 2^40 steps.

    Raises:
        ValueError: not in float64, the chain has more than one stationary law, or the distance lies outside (0, 1).

    Reference: Levin and Peres, "Markov chains and mixing times", 2nd edition, 2017, section 4.5.
    """
    check_range("distance", distance, low=0.0, high=1.0, open_low=True, open_high=True)
    return _mixing_time(chain, stationary_distribution(chain), distance=distance)


@lifted("(s,s)->()")
def spectral_gap(chain: jax.Array) -> jax.Array:
    """1 - max |lambda| over all eigenvalues of P but one eigenvalue 1 (the absolute spectral gap).

    0 for periodic chains and for several closed classes. The relaxation time is its inverse. For a chain that is not
    reversible it gives the rate in the long run only; `mixing_time` is exact.

    Args:
        chain: `f[..., S, S]` P(s' | s), rows sum to one.

    Returns:
        `f[...]` in [0, 1], up to rounding.

    Reference: Levin and Peres, "Markov chains and mixing times", 2nd edition, 2017, section 12.2.
    """
    if chain.shape[-1] == 1:
        return jnp.ones(chain.shape[:-2], chain.dtype)  # nothing is left to die out
    return 1 - jnp.sort(jnp.abs(_eigenvalues(chain)))[..., -2]


_eigenvalues = jnp.vectorize(linalg.eigenvalues, signature="(s,s)->(s)")


def consensus_gap(matrix: jax.Array) -> jax.Array:
    """1 - |W - 1 1^T / N|_2: after one exchange x <- W x the spread around the mean has shrunk by at least this share.

    Args:
        matrix: `f[..., N, N]` W; rows and columns sum to one, entries may be negative and W need not be symmetric. Ring
            of weight 1/3 on itself and on each neighbour: 2/3 (1 - cos(2 pi / N)); complete graph with equal weights:
            1.

    Returns:
        `f[...]`, at most 1; 0 for a graph that is not connected.

    Raises:
        ValueError: rows or columns do not sum to one, so that the mean would move.

    Reference: Xiao and Boyd, "Fast linear iterations for distributed averaging", 2004, theorem 1.
    """
    if is_concrete(matrix):
        entries = np.asarray(matrix)
        for axis, kind in ((-1, "rows"), (-2, "columns")):
            error = np.abs(entries.sum(axis) - 1).max()
            if not error <= (1e-8 if entries.dtype == np.float64 else 1e-4):
                raise ValueError(
                    f"matrix must have {kind} that sum to one, got an error of {error:g}; "
                    "Metropolis weights do it for any undirected graph"
                )
    return _consensus_gap(matrix)


@lifted("(n,n)->()")
def _consensus_gap(matrix: jax.Array) -> jax.Array:
    size = len(matrix)
    return 1 - linalg.singular_values(matrix - jnp.full((size, size), 1 / size, matrix.dtype))[0]


@lifted("(s,s),(s)->()", precise=True)
def _mixing_time(chain: jax.Array, law: jax.Array, *, distance: float) -> jax.Array:
    def square(power: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
        following = power @ power
        return following / jnp.sum(following, -1, keepdims=True), power

    def far(power: jax.Array) -> jax.Array:
        return jnp.max(jnp.sum(jnp.abs(power - law[None]), -1)) / 2 > distance

    def descend(carry: tuple[jax.Array, jax.Array], step: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        reached, time = carry
        power, length = step
        candidate = reached @ power
        onward = far(candidate)
        return (jnp.where(onward, candidate, reached), time + jnp.where(onward, length, 0)), None

    _, powers = lax.scan(square, chain, None, length=_NUM_DOUBLINGS)
    lengths = 2.0 ** jnp.arange(_NUM_DOUBLINGS, dtype=chain.dtype)
    start = jnp.eye(len(chain), dtype=chain.dtype)
    (_, time), _ = lax.scan(descend, (start, jnp.zeros((), chain.dtype)), (powers, lengths), reverse=True)
    never = time >= jnp.sum(lengths)  # no power was near
    return jnp.where(far(start), jnp.where(never, jnp.inf, time + 1), 0.0)
