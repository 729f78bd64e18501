"""FedNPG and FedNPG-ADMM: one natural gradient of all agents together."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..core import (
    Envelope,
    Learner,
    Metrics,
    Need,
    Received,
    check_count,
    check_range,
    component,
    few_agents_at_a_time,
    linalg,
    seal,
    static,
    tree,
)
from ._natural_gradient import ACTING, conjugate_gradient, inner, mean_kl
from ._objective import Collected, Objective
from ._parts import join, split


PyTree = Any


class NPGShared(NamedTuple):
    """What the meeting place keeps and agents download."""

    params: PyTree
    direction: PyTree  # y, the consensus on the natural gradient
    exchange: jax.Array  # i32[] exchanges since the model moved


class NPGLocal(NamedTuple):
    """What an agent keeps while the model stands still."""

    objective: PyTree
    batch: PyTree
    gradient: PyTree  # g_i
    multiplier: PyTree  # lambda_i
    own: PyTree  # y_i


class _FederatedNPG(Learner):
    """What both share: collecting, gradient, Fisher-vector products, and the trust-region step."""

    objective: Objective
    max_kl: Any
    damping: Any
    critic_rate: Any

    @property
    def num_envs(self) -> int:
        return self.objective.num_envs

    def check(self, env: Any, physics: PyTree) -> None:
        self.objective.check(env, physics)
        if jax.tree.leaves(self.objective.init_statistics(env)):
            raise ValueError(
                "policy must not normalise by running statistics with fed_npg and fed_npg_admm, whose messages do not "
                "carry them; use the policy inside, or local_training with natural_gradient"
            )

    def parts(self, params: PyTree) -> PyTree:
        """The name of the part that every leaf belongs to."""
        return self.objective.parts(params)

    def policy(self, shared: Any, local: Any) -> PyTree:
        return shared.params

    def _collect(
        self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PyTree
    ) -> tuple[Collected, PyTree, Metrics]:
        """Plays at the downloaded model and takes the gradient of the loss there."""
        k_collect, k_loss = jax.random.split(key)
        collected = self.objective.collect(k_collect, env, physics, params, state)
        differentiate = few_agents_at_a_time(_gradient)
        gradient, report = differentiate(self.objective, k_loss, params, collected.state, collected.batch)
        after = self.objective.after_step(params, collected.state, collected.batch)
        return collected._replace(state=after), gradient, collected.metrics | report

    def _actor(self, values: PyTree) -> PyTree:
        """Zero outside the actor."""
        return jax.tree.map(
            lambda x, part: x if part in ACTING else jnp.zeros_like(x), values, self.objective.parts(values)
        )

    def _fisher(self, params: PyTree, batch: PyTree, v: PyTree) -> PyTree:
        """(F_i + damping) v on the actor."""
        slope = jax.grad(mean_kl(self.objective, params, batch))
        curved = jax.jvp(slope, (params,), (v,))[1]
        return self._actor(jax.tree.map(lambda f, x: f + self.damping * x, curved, v))

    def _moved(self, params: PyTree, direction: PyTree, curvature: jax.Array) -> PyTree:
        """theta - sqrt(2 delta / y^T F y) y, for y = F^-1 (gradient of a loss)."""
        length = jnp.sqrt(2 * self.max_kl / jnp.maximum(curvature, 1e-12))
        return jax.tree.map(lambda p, y: p - length.astype(p.dtype) * y, params, direction)


def _gradient(
    objective: Objective, key: jax.Array, params: PyTree, state: PyTree, batch: PyTree
) -> tuple[PyTree, Metrics]:
    return jax.grad(objective.loss, argnums=1, has_aux=True)(key, params, state, batch)


@component
class FedNPG(_FederatedNPG):
    """Uploads the gradient and the Fisher matrix; build it with `fed_npg`."""

    objective: Objective
    max_kl: Any
    damping: Any
    critic_rate: Any

    def init_shared(self, key: jax.Array, env: Any) -> NPGShared:
        params = self.objective.init(key, env)
        return NPGShared(params, (), jnp.int32(0))

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, shared: NPGShared) -> PyTree:
        return self.objective.init_local(key, env, physics, shared.params)

    def broadcast(self, shared: NPGShared) -> PyTree:
        return shared.params

    def update(
        self, key: jax.Array, env: Any, physics: PyTree, download: PyTree, local: PyTree, work: jax.Array | None
    ) -> tuple[PyTree, Envelope, Metrics]:
        collected, gradient, metrics = self._collect(key, env, physics, download, local)
        actor, critic = self._halves(download)
        flat, unravel = ravel_pytree(actor)
        still = tree.zeros_like(critic)

        def column(v: jax.Array) -> jax.Array:
            return ravel_pytree(self._halves(self._fisher(download, collected.batch, join(unravel(v), still)))[0])[0]

        fisher = jax.lax.map(column, jnp.eye(flat.size, dtype=flat.dtype))
        payload = {"gradient": gradient, "fisher": fisher}
        return collected.state, seal(payload, num_samples=collected.num_samples), metrics

    def merge(self, key: jax.Array, env: Any, shared: NPGShared, message: PyTree, received: Received) -> NPGShared:
        actor, critic = self._halves(message["gradient"])
        flat, unravel = ravel_pytree(actor)
        solution = linalg.solve(message["fisher"], flat)
        direction = join(unravel(solution), tree.zeros_like(critic))
        params = self._moved(shared.params, direction, jnp.vdot(solution, flat))
        return shared._replace(params=_critic_step(self, params, message["gradient"]))

    def _halves(self, values: PyTree) -> tuple[PyTree, PyTree]:
        """(what the action distribution depends on, the critic)."""
        return split(values, self.objective.parts(values), ACTING)


@component
class FedNPGADMM(_FederatedNPG):
    """Finds the same direction by exchanging vectors; build it with `fed_npg_admm`."""

    objective: Objective
    max_kl: Any
    damping: Any
    critic_rate: Any
    penalty: Any
    num_exchanges: int = static()
    num_iterations: int = static()

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.EVERYONE, Need.DELIVERY})

    def init_shared(self, key: jax.Array, env: Any) -> NPGShared:
        params = self.objective.init(key, env)
        return NPGShared(params, tree.zeros_like(params), jnp.int32(0))

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, shared: NPGShared) -> NPGLocal:
        state = self.objective.init_local(key, env, physics, shared.params)
        batch = jax.eval_shape(
            lambda k: self.objective.collect(k, env, physics, shared.params, state).batch, jax.random.key(0)
        )
        zero = tree.zeros_like(shared.params)
        return NPGLocal(state, tree.zeros_like(batch), zero, zero, zero)

    def broadcast(self, shared: NPGShared) -> NPGShared:
        return shared

    def update(
        self, key: jax.Array, env: Any, physics: PyTree, download: NPGShared, local: NPGLocal, work: jax.Array | None
    ) -> tuple[NPGLocal, Envelope, Metrics]:
        params = download.params
        zero = tree.zeros_like(params)

        def play(local: NPGLocal) -> tuple[NPGLocal, Metrics]:
            collected, gradient, metrics = self._collect(key, env, physics, params, local.objective)
            return NPGLocal(collected.state, collected.batch, gradient, zero, zero), metrics

        def wait(local: NPGLocal) -> tuple[NPGLocal, Metrics]:
            report = tree.zeros_like(jax.eval_shape(play, local)[1])
            apart = tree.subtract(local.own, download.direction)
            multiplier = jax.tree.map(lambda m, a: m + self.penalty * a, local.multiplier, apart)
            return local._replace(multiplier=multiplier), report

        first = download.exchange == 0  # the same for all agents, so it stays a branch under `vmap`
        local, metrics = jax.lax.cond(first, lambda x: tree.strong(play(x)), lambda x: tree.strong(wait(x)), local)
        solve = few_agents_at_a_time(_own_direction)
        own, curvature = solve(self, params, local, download.direction)
        sent = jax.tree.map(lambda y, m: y + m / self.penalty, own, local.multiplier)
        last = download.exchange == self.num_exchanges
        payload = {
            "direction": tree.where(last, zero, sent),
            "curvature": jnp.where(last, curvature, 0),
            "critic": tree.where(first, self._critic(local.gradient), zero),
        }
        envelope = seal(payload)
        vector = jnp.float32(tree.num_bits(params))
        bits = jnp.where(last, 32.0, vector)  # after the vectors one number decides how far to go
        return local._replace(own=own), envelope._replace(bits=bits), metrics

    def merge(self, key: jax.Array, env: Any, shared: NPGShared, message: PyTree, received: Received) -> NPGShared:
        last = shared.exchange == self.num_exchanges
        params = _critic_step(self, shared.params, message["critic"])
        moved = NPGShared(
            self._moved(params, shared.direction, message["curvature"]), tree.zeros_like(params), jnp.int32(0)
        )
        return tree.where(last, moved, NPGShared(params, message["direction"], shared.exchange + 1))

    def _critic(self, values: PyTree) -> PyTree:
        return tree.subtract(values, self._actor(values))


def _own_direction(learner: FedNPGADMM, params: PyTree, local: NPGLocal, direction: PyTree) -> tuple[PyTree, jax.Array]:
    """y_i = (F_i + rho)^-1 (g_i - lambda_i + rho y), and y^T F_i y of the consensus."""
    rho = learner.penalty
    pull = learner._actor(jax.tree.map(lambda g, m, y: g - m + rho * y, local.gradient, local.multiplier, direction))

    def product(v: PyTree) -> PyTree:
        return jax.tree.map(lambda f, x: f + rho * x, learner._fisher(params, local.batch, v), v)

    own = conjugate_gradient(product, pull, learner.num_iterations)
    return own, inner(direction, learner._fisher(params, local.batch, direction))


def _critic_step(learner: _FederatedNPG, params: PyTree, gradient: PyTree) -> PyTree:
    """One plain step of the critic along the mean gradient."""
    parts = learner.objective.parts(params)
    return jax.tree.map(
        lambda p, g, part: p if part in ACTING else p - learner.critic_rate * g, params, gradient, parts
    )


def fed_npg(objective: Objective, *, max_kl: float = 0.01, damping: float = 0.01, critic_rate: float = 0.1) -> Learner:
    r"""FedNPG: the natural gradient of the average objective, from the agents' gradients and Fisher matrices.

    y = (mean F_i)^{-1} mean g_i, theta <- theta - sqrt(2 delta / y^T F y) y for gradients of a loss. The upload has
    d^2 numbers: for small networks, and as the measure of `fed_npg_admm`, which needs d.

    Args:
        objective: with a stochastic policy; its loss at the behaviour policy gives the gradient.
        max_kl: delta > 0, mean divergence of a step.
        damping: added to the diagonal of every F_i.
        critic_rate: step size of the critic, which follows its plain mean gradient.

    Reference: Lan et al., "Improved communication efficiency in federated natural policy gradient via ADMM-based
        gradient updates", NeurIPS 2023, eq. 7.
    """
    _check(objective, max_kl, damping, critic_rate)
    return FedNPG(objective, max_kl, damping, critic_rate)


def fed_npg_admm(
    objective: Objective,
    *,
    max_kl: float = 0.01,
    damping: float = 0.01,
    critic_rate: float = 0.1,
    penalty: float = 0.1,
    num_exchanges: int = 5,
    num_iterations: int = 10,
) -> Learner:
    r"""FedNPG-ADMM: the direction of `fed_npg` by consensus, with vectors instead of matrices on the wire.

    The model stands still for `num_exchanges` rounds, in which agents reuse one batch and solve
    min_y sum_i (y^T F_i y / 2 - g_i^T y) by ADMM:
    y_i <- (F_i + rho)^{-1}(g_i - lambda_i + rho y), y <- mean(y_i + lambda_i / rho),
    lambda_i <- lambda_i + rho (y_i - y). One more round brings y^T F y, a single number, and the model moves as in
    `fed_npg`. Every agent must take part in every round.

    Args:
        objective: with a stochastic policy; its loss at the behaviour policy gives the gradient.
        max_kl: delta > 0, mean divergence of a step.
        damping: added to the diagonal of every F_i.
        critic_rate: step size of the critic, which follows its plain mean gradient.
        penalty: rho > 0; near the size of the F_i's eigenvalues it converges fastest.
        num_exchanges: of vectors, per step of the model.
        num_iterations: of conjugate gradients, per exchange.

    Reference: Lan et al., "Improved communication efficiency in federated natural policy gradient via ADMM-based
        gradient updates", NeurIPS 2023, algorithm 1; the explicit iteration is Boyd et al., "Distributed optimization
        and statistical learning via ADMM", 2011, section 7.1.
    """
    _check(objective, max_kl, damping, critic_rate)
    check_range("penalty", penalty, 0, open_low=True)
    check_count("num_exchanges", num_exchanges)
    check_count("num_iterations", num_iterations)
    return FedNPGADMM(objective, max_kl, damping, critic_rate, penalty, num_exchanges, num_iterations)


def _check(objective: Objective, max_kl: float, damping: float, critic_rate: float) -> None:
    if not isinstance(objective, Objective) or not objective.has_distribution:
        raise ValueError(f"objective must be an Objective with a stochastic policy, got {objective!r}; try reinforce")
    check_range("max_kl", max_kl, 0, open_low=True)
    check_range("damping", damping, 0, open_low=True)
    check_range("critic_rate", critic_rate, 0)
