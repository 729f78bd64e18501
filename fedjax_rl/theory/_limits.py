"""Whether a limit exists: what is NaN if it does not, for `lifted` to say so."""

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_rl.core import linalg


_NUM_SQUARINGS = 60  # a spectral radius of 1 - 1e-16 has died out after 2^60 steps


def contracts(matrix: jax.Array) -> jax.Array:
    """Whether B^t goes to zero, b[] for f[d, d]; by repeated squaring, which no defective eigenvalue disturbs."""
    power = lax.fori_loop(0, _NUM_SQUARINGS, lambda _, power: power @ power, matrix)
    return jnp.max(jnp.abs(power)) < 1  # false for NaN, which inf - inf becomes


def solution(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The only x with A x = b; NaN where A is singular to rounding.

    Args:
        matrix: f[d, d] A.
        right: f[d] b.
    """
    singular = linalg.singular_values(matrix)
    regular = singular[-1] > 10 * len(matrix) * jnp.finfo(matrix.dtype).eps * singular[0]
    return jnp.where(regular, linalg.solve(matrix, right), jnp.nan)
