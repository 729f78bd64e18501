"""Decompositions that many agents can ask for at the same time.

XLA's CPU client shares the matrices of one batched decomposition out over its threads, and the thread that shares them
waits for the others. In programs where several such calls are independent, on two threads two of them wait for each
other for ever (jaxlib 0.10.2; reproduced within a second by two solves of 100 matrices each). Here a `vmap` becomes a
loop over single matrices, which nobody waits in.
"""

import jax
import jax.numpy as jnp


_solve = jax.custom_batching.sequential_vmap(jnp.linalg.solve)
singular_values = jax.custom_batching.sequential_vmap(lambda matrix: jnp.linalg.svd(matrix, compute_uv=False))
"""Singular values f[n] of one matrix f[n, m], the largest first."""
eigenvalues = jax.custom_batching.sequential_vmap(jnp.linalg.eigvals)
"""Eigenvalues c[n] of one matrix f[n, n]."""


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The x with A x = b, for one matrix; differentiable, and batched by `vmap` only.

    Args:
        matrix: f[n, n] A.
        right: f[n] or f[n, k] b.

    Returns:
        the shape of `right`.
    """
    dtype = jnp.result_type(matrix, right)
    matrix, right = matrix.astype(dtype), right.astype(dtype)
    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x,
        right,
        solve=lambda _, y: _solve(matrix, y),
        transpose_solve=lambda _, y: _solve(matrix.T, y),
    )
