"""Natural policy gradient and the trust-region step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_count, check_range, component, static, tree
from ..rl import masked_mean
from ._correction import Context, Correction, require_distribution, require_whole_batches
from ._objective import Objective


PyTree = Any
ACTING = ("actor", "trunk")  # the parts that the action distribution depends on


@component
class NaturalGradient(Correction):
    """Turns the gradient g of the actor into F^-1 g; build it with `natural_gradient`."""

    max_kl: Any
    damping: Any
    critic_scale: Any
    num_iterations: int = static()
    num_backtracks: int = static()

    def check(self, training: Any) -> None:
        require_distribution("natural_gradient", training)
        require_whole_batches("natural_gradient", training)

    def gradient(self, key: jax.Array, gradient: PyTree, context: Context) -> tuple[PyTree, PyTree]:
        parts = context.objective.parts(context.params)

        def only_actor(values: PyTree) -> PyTree:
            return jax.tree.map(lambda x, part: x if part in ACTING else jnp.zeros_like(x), values, parts)

        divergence = mean_kl(context.objective, context.params, context.batch)
        slope = jax.grad(divergence)

        def product(v: PyTree) -> PyTree:
            """(F + damping) v, forward over reverse."""
            curved = jax.jvp(slope, (context.params,), (v,))[1]
            return only_actor(jax.tree.map(lambda f, x: f + self.damping * x, curved, v))

        steepest = only_actor(gradient)
        direction = conjugate_gradient(product, steepest, self.num_iterations)
        if self.max_kl is not None:
            curvature = inner(direction, product(direction))
            longest = jnp.sqrt(2 * self.max_kl / jnp.maximum(curvature, 1e-12))
            direction = tree.scale(self._longest_good(longest, direction, divergence, context), direction)
        step = jax.tree.map(
            lambda d, g, part: d if part in ACTING else self.critic_scale * g, direction, gradient, parts
        )
        return step, context.memory

    def _longest_good(
        self, longest: jax.Array, direction: PyTree, divergence: Callable[[PyTree], jax.Array], context: Context
    ) -> jax.Array:
        """The first of longest, longest / 2, longest / 4, ... that lowers the loss within the region; 0 if none."""
        if self.num_backtracks == 0:
            return longest
        before = context.loss_at(context.params, context.batch)

        def look(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            length, ready = found
            shorter = longest * 0.5 ** i.astype(longest.dtype)
            there = jax.tree.map(lambda p, d: p - shorter.astype(p.dtype) * d, context.params, direction)
            good = (context.loss_at(there, context.batch) < before) & (divergence(there) <= 1.5 * self.max_kl)
            return jnp.where(good & ~ready, shorter, length), ready | good

        nothing = (jnp.zeros_like(longest), jnp.bool_(False))
        return jax.lax.fori_loop(0, self.num_backtracks, look, nothing)[0]


def mean_kl(objective: Objective, params: PyTree, batch: PyTree) -> Callable[[PyTree], jax.Array]:
    """x -> mean_s KL(pi_params(.|s) || pi_x(.|s)) over a batch, whose Hessian at params is the Fisher matrix."""
    here, mask = objective.distribution(params, batch)
    here = jax.lax.stop_gradient(here)

    def divergence(there: PyTree) -> jax.Array:
        return masked_mean(here.kl(objective.distribution(there, batch)[0]), mask)

    return divergence


def inner(x: PyTree, y: PyTree) -> jax.Array:
    """<x, y> over all leaves."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.sum(a * b), x, y))


def conjugate_gradient(product: Callable[[PyTree], PyTree], b: PyTree, num_iterations: int) -> PyTree:
    """An approximate solution of A x = b for a positive definite A.

    Args:
        product: v -> A v.
        b: right-hand side.
        num_iterations: fixed, so that all agents of a `vmap` do the same work; exact after as many as dimensions. A
            solved system stays as it is, and so does one whose next direction A does not see: a singular A (the Fisher
            matrix of a softmax) would divide rounding errors by rounding errors.

    Reference: Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
    """

    first = inner(b, b)
    tiny = 10 * jnp.finfo(first.dtype).eps

    def iterate(_: int, carry: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
        x, residual, search, square, steepest = carry
        curved = product(search)
        length, curvature = inner(search, search), inner(search, curved)
        steepest = jnp.maximum(steepest, curvature / jnp.where(length > 0, length, 1))
        goes_on = (square > tiny**2 * first) & (curvature > tiny * steepest * length)
        step = jnp.where(goes_on, square / jnp.where(goes_on, curvature, 1), 0)
        x = jax.tree.map(lambda a, p: a + step * p, x, search)
        residual = jax.tree.map(lambda r, c: r - step * c, residual, curved)
        new = jnp.where(goes_on, inner(residual, residual), 0)
        turn = new / jnp.where(goes_on, square, 1)
        return x, residual, jax.tree.map(lambda r, p: r + turn * p, residual, search), new, steepest

    start = (tree.zeros_like(b), b, b, first, jnp.zeros_like(first))
    return jax.lax.fori_loop(0, num_iterations, iterate, start)[0]


def natural_gradient(
    max_kl: float | None = None,
    damping: float = 0.1,
    critic_scale: float = 1.0,
    num_iterations: int = 10,
    num_backtracks: int = 0,
) -> Correction:
    r"""Natural policy gradient, and with `max_kl` the trust-region step (TRPO).

    The actor's gradient g becomes (F + damping)^{-1} g, with F = E_s[grad^2 KL(pi(.|s) || pi_theta'(.|s))] (Fisher), by
    conjugate gradients on exact Fisher-vector products; nothing of size d^2 is built. With `max_kl` it is scaled by
    sqrt(2 delta / x^T (F + damping) x), and with `num_backtracks` halved until the loss falls and the divergence keeps
    within 1.5 delta. The optimiser then is `optimizer(optax.sgd, learning_rate=1.0)`; TRPO's loss is
    `ppo(surrogate="ratio")`.

    Args:
        max_kl: delta; None leaves the length to the optimiser.
        damping: added to the diagonal of F.
        critic_scale: factor of the critic's gradient, which has no Fisher matrix; with learning rate 1, its own rate.
        num_iterations: of conjugate gradients.
        num_backtracks: tries of the line search; 0: none. Needs `max_kl`.

    Reference: Kakade, "A natural policy gradient", 2001; Schulman et al., "Trust region policy optimization", ICML
        2015, appendix C.
    """
    if max_kl is not None:
        check_range("max_kl", max_kl, 0, open_low=True)
    elif num_backtracks:
        raise ValueError(f"num_backtracks must be 0 without max_kl, got {num_backtracks}; give max_kl=0.01")
    check_range("damping", damping, 0)
    check_range("critic_scale", critic_scale, 0)
    check_count("num_iterations", num_iterations)
    check_count("num_backtracks", num_backtracks, minimum=0)
    return NaturalGradient(max_kl, damping, critic_scale, num_iterations, num_backtracks)
