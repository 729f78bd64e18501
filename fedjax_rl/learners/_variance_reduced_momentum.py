"""FedSVRPG-M and FedHAPG-M: local steps along a momentum that is corrected for the move of the model."""

import abc
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ..core import check_range, component, tree
from ._correction import (
    Context,
    Correction,
    Merging,
    require_first_gradient,
    require_movement,
    require_plain_sgd,
    require_trajectories,
    require_uniform_weights,
)
from ._importance import trajectory_ratio


PyTree = Any


class Reference(NamedTuple):
    """What the meeting place broadcasts besides the model theta_r."""

    previous: PyTree  # theta_{r-1}
    direction: PyTree  # u_r, in the sign of a loss's gradient


class _VarianceReducedMomentum(Correction):
    """The meeting place's part, which both share: u_{r+1} = -mean Delta_i / (eta K)."""

    reads_movement: ClassVar[bool] = True
    needs_all_steps: ClassVar[bool] = True

    @abc.abstractmethod
    def _name(self) -> str:
        """For messages."""

    def check(self, training: Any) -> None:
        name = self._name()
        require_trajectories(name, training)
        require_uniform_weights(name, training)
        require_movement(name, training)
        require_plain_sgd(name, training)
        require_first_gradient(name, self, training)
        for other in training.corrections:
            if other is not self and type(other).behaviour is not Correction.behaviour:
                raise ValueError(
                    f"corrections must leave the behaviour to {name}, got {type(other).__name__} beside it; drop it"
                )

    def init_shared(self, params: PyTree) -> Reference:
        return Reference(params, tree.zeros_like(params))

    def merge(self, shared: Reference, extra: PyTree, moved: PyTree, merging: Merging) -> tuple[Reference, PyTree]:
        length = merging.learning_rate * merging.num_steps
        scale = jnp.where(length == 0, 0, -1 / jnp.where(length == 0, 1, length))  # nobody moved: no direction
        return Reference(merging.params, tree.scale(scale, moved)), moved


@component
class SVRPGMomentum(_VarianceReducedMomentum):
    """u = beta g + (1 - beta)(u_r + g - w g_{r-1}); build it with `svrpg_momentum`."""

    beta: Any
    max_ratio: Any

    def _name(self) -> str:
        return "svrpg_momentum"

    def gradient(self, key: jax.Array, gradient: PyTree, context: Context) -> tuple[PyTree, PyTree]:
        objective, reference = context.objective, context.shared
        ratio = trajectory_ratio(objective, reference.previous, context.behaviour, context.batch, self.max_ratio)
        before = context.gradient_at(reference.previous, objective.reweigh(context.batch, ratio))
        keep = 1 - self.beta
        corrected = jax.tree.map(lambda g, u, b: g + keep * (u - b), gradient, reference.direction, before)
        return corrected, context.memory


@component
class HAPGMomentum(_VarianceReducedMomentum):
    """u = beta w g + (1 - beta)(u_r + B(theta - theta_{r-1})); build it with `hapg_momentum`."""

    beta: Any
    max_ratio: Any

    def _name(self) -> str:
        return "hapg_momentum"

    def behaviour(self, key: jax.Array, params: PyTree, anchor: PyTree, shared: Reference, memory: PyTree) -> PyTree:
        a = jax.random.uniform(key)
        return jax.tree.map(lambda p, q: a.astype(p.dtype) * p + (1 - a).astype(p.dtype) * q, params, shared.previous)

    def gradient(self, key: jax.Array, gradient: PyTree, context: Context) -> tuple[PyTree, PyTree]:
        objective, batch, between = context.objective, context.batch, context.behaviour
        ratio = trajectory_ratio(objective, context.params, between, batch, self.max_ratio)
        weighed = context.gradient_at(context.params, objective.reweigh(batch, ratio))
        way = tree.subtract(context.params, context.shared.previous)
        # (grad log p . way) of each trajectory: the transpose of a transpose, because the network's hand-written
        # gradient cannot be pushed forward.
        log_prob, pull_back = jax.vjp(lambda p: objective.log_prob(p, batch), between)
        slope = jax.linear_transpose(lambda x: pull_back(x)[0], log_prob)(way)[0]
        score = jax.lax.stop_gradient(objective.over_trajectories(batch, slope))
        # The gradient is affine in the weights: the part that they do not touch (critic, entropy) is no score's.
        weighed_by = (context.gradient_at(between, objective.reweigh(batch, w)) for w in (score, jnp.zeros_like(score)))
        first = tree.subtract(*weighed_by)
        second = jax.jvp(lambda p: context.gradient_at(p, batch), (between,), (way,))[1]
        keep = 1 - self.beta
        corrected = jax.tree.map(
            lambda g, u, b, h: self.beta * g + keep * (u + b + h), weighed, context.shared.direction, first, second
        )
        return corrected, context.memory


def svrpg_momentum(beta: float = 0.2, max_ratio: float = float("inf")) -> Correction:
    r"""FedSVRPG-M, its equation (4): momentum that is corrected by an importance-weighted gradient at the last model.

    One trajectory tau ~ p(.|theta_{r,k}) per local step (a batch of E trajectories averages E such terms):
    u_{r,k} = beta g(tau|theta_{r,k}) + (1 - beta)(u_r + g(tau|theta_{r,k}) - w g(tau|theta_{r-1})),
    w = p(tau|theta_{r-1}) / p(tau|theta_{r,k}), theta_{r,k+1} = theta_{r,k} + eta u_{r,k}; then
    u_{r+1} = mean Delta_i / (eta K) and theta_{r+1} = theta_r + lambda u_{r+1}. The plain merge is lambda = eta K;
    another lambda is `server_optimizer(learner, optimizer(optax.sgd, learning_rate=lambda / (eta K)))`. u_0 = 0,
    theta_{-1} = theta_0. beta = 1 is FedAvg on policy gradients.

    Args:
        beta: in (0, 1].
        max_ratio: largest w; infinity is the paper's estimator.

    Reference: Wang et al., "Momentum for the win: Collaborative federated reinforcement learning across heterogeneous
        environments", ICML 2024, algorithm 1.
    """
    check_range("beta", beta, 0, 1, open_low=True)
    check_range("max_ratio", max_ratio, 0, open_low=True)
    return SVRPGMomentum(beta, max_ratio)


def hapg_momentum(beta: float = 0.2, max_ratio: float = float("inf")) -> Correction:
    r"""FedHAPG-M: momentum that is corrected by a Hessian-vector product between the last two models.

    theta_hat = a theta_{r,k} + (1 - a) theta_{r-1}, a ~ U(0, 1), tau ~ p(.|theta_hat):
    u_{r,k} = beta w g(tau|theta_{r,k}) + (1 - beta)(u_r + B (theta_{r,k} - theta_{r-1})),
    w = p(tau|theta_{r,k}) / p(tau|theta_hat), B v = (grad log p(tau|theta_hat) . v) g + grad^2 Phi(tau|theta_hat) v.
    The product is exact (forward over reverse), no finite difference. The rest is as in `svrpg_momentum`.

    Args:
        beta: in (0, 1].
        max_ratio: largest w; infinity is the paper's estimator.

    Reference: Wang et al., "Momentum for the win: Collaborative federated reinforcement learning across heterogeneous
        environments", ICML 2024, algorithm 2.
    """
    check_range("beta", beta, 0, 1, open_low=True)
    check_range("max_ratio", max_ratio, 0, open_low=True)
    return HAPGMomentum(beta, max_ratio)
