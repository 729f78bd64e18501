"""AFedPG: normalised momentum steps along policy gradients that agents take at a point ahead of the model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..core import Envelope, Learner, Metrics, Received, check_choice, check_flag, check_range, component, static, tree
from ..rl import check_schedule, power_decay, value_at
from ._correction import Correction
from ._local_training import LocalTraining, local_training
from ._objective import Objective
from ._optimizer import optimizer
from ._wrapper import Wrapper


PyTree = Any


class AFedPGShared(NamedTuple):
    """What a meeting place keeps."""

    inner: PyTree  # of local training, with the model theta
    ahead: PyTree  # theta~, where agents take their gradients
    direction: PyTree  # d, in the sign of a loss's gradient
    version: jax.Array  # i32[] k, server steps so far

    @property
    def params(self) -> PyTree:
        """The model's parameters."""
        return self.inner.params


class AFedPGDownload(NamedTuple):
    """What an agent receives."""

    inner: PyTree  # of local training, at theta~
    momentum: jax.Array  # f[] alpha_k at its departure

    @property
    def params(self) -> PyTree:
        """Where the gradient is taken."""
        return self.inner.params


@component
class AFedPG(Wrapper):
    """Lookahead, momentum, a step of a given length; build it with `afedpg`."""

    learner: LocalTraining
    step_size: Any
    momentum: Any
    lookahead: bool = static()

    def uploads_gradient(self, env: Any) -> bool:
        return False  # it is taken at theta~, and a momentum travels with it

    def init_shared(self, key: jax.Array, env: Any) -> AFedPGShared:
        inner = self.learner.init_shared(key, env)
        return AFedPGShared(inner, inner.params, tree.zeros_like(inner.params), jnp.int32(0))

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, shared: AFedPGShared) -> PyTree:
        return self.learner.init_local(key, env, physics, shared.inner)

    def broadcast(self, shared: AFedPGShared) -> AFedPGDownload:
        ahead = self.learner.broadcast(shared.inner.with_params(shared.ahead))
        return AFedPGDownload(ahead, jnp.asarray(value_at(self.momentum, shared.version), jnp.result_type(float)))

    def update(
        self, key: jax.Array, env: Any, physics: PyTree, download: AFedPGDownload, local: PyTree, work: jax.Array | None
    ) -> tuple[PyTree, Envelope, Metrics]:
        local, envelope, metrics = self.learner.update(key, env, physics, download.inner, local, work)
        marks = envelope.marks._replace(note=download.momentum)
        bits = envelope.bits + tree.num_bits(download.momentum)
        return local, envelope._replace(marks=marks, bits=bits), metrics

    def merge(
        self, key: jax.Array, env: Any, shared: AFedPGShared, message: PyTree, received: Received
    ) -> AFedPGShared:
        # A plain step of length one from the origin is minus the gradient; all else that it uploads merges as it would.
        origin = shared.inner.with_params(tree.zeros_like(shared.params))
        merged = self.learner.merge(key, env, origin, message, received)
        gradient = tree.scale(-1, merged.params)
        momentum = jnp.asarray(received.marks.note)
        a = jnp.where(shared.version == 0, 1, momentum)  # d_0 is the first gradient
        direction = tree.add(tree.scale(1 - a, shared.direction), tree.scale(a, gradient))
        norm = tree.norm(direction)
        length = value_at(self.step_size, shared.version) / jnp.where(norm > 0, norm, 1)
        moved = tree.scale(-length, direction)
        params = tree.add(shared.params, moved)
        return AFedPGShared(
            merged.with_params(params),
            self._ahead(params, moved, momentum),
            direction,
            shared.version + 1,
        )

    def policy(self, shared: AFedPGShared, local: PyTree) -> PyTree:
        return self.learner.policy(shared.inner, local)

    def _ahead(self, params: PyTree, moved: PyTree, momentum: jax.Array) -> PyTree:
        """theta + ((1 - alpha) / alpha)(theta - theta_prev)."""
        if not self.lookahead:
            return params
        a = jnp.maximum(momentum, jnp.finfo(momentum.dtype).eps)
        return tree.add(params, tree.scale((1 - a) / a, moved))


def afedpg(
    objective: Objective,
    step_size: Any,
    momentum: Any,
    *,
    lookahead: bool = True,
    num_local_steps: int = 1,
    weight: str = "samples",
    corrections: tuple[Correction, ...] = (),
) -> Learner:
    r"""AFedPG: asynchronous policy gradients, normalised, with momentum and a lookahead that makes up for the delay.

    When the gradient g arrives that an agent took at the theta~ of version k' = k - delta_k, with a = alpha_{k'}:

        d <- (1 - a) d + a g,  theta_k = theta_{k-1} + eta_{k-1} d / |d|,
        theta~_k = theta_k + ((1 - a) / a)(theta_k - theta_{k-1}),

    and the agent departs with theta~_k and alpha_k. The momentum is the one of the version at departure; it travels
    with the gradient. d begins as the first gradient (a = 1 in the first step, except in its lookahead, where
    (1 - a)/a keeps the given a). One arrival per server step is `sequential(snapshot(star()))` with `first_arrivals`;
    one agent alone is N-PG-IGT. Several gradients of one version that are merged at once are the minibatch methods:
    Rennala with weight="steps", Malenia with weight="uniform". Agents are evaluated with theta.

    All parameters that the objective trains, a critic's too, share the direction and its norm. The momentum of several
    gradients that are merged at once is their weighted mean; no transform changes it.

    Args:
        objective: whose gradient agents upload, such as `reinforce(policy)`.
        step_size: eta_k > 0, a number or a schedule of the version k = 0, 1, ...; see `afedpg_schedules`.
        momentum: alpha_k in (0, 1], a number or a schedule; 1 is the normalised policy gradient.
        lookahead: False is the "vanilla" asynchronous method, theta~ = theta.
        num_local_steps: gradients that an agent takes at most at one theta~; it uploads their mean.
        weight: "samples", "steps" (the number of its gradients) or "uniform".
        corrections: of the gradient, as in `local_training`.

    Raises:
        ValueError: a value is wrong.

    Reference: Lan et al., "Asynchronous federated reinforcement learning with policy gradient updates", ICLR 2025,
        algorithms 1 and 2; Fatkhullin et al., "Stochastic policy gradient methods: improved sample complexity for
        Fisher-non-degenerate policies", ICML 2023 (N-PG-IGT); Tyurin et al., "Rennala NIGT / Malenia NIGT", 2025.
    """
    if not isinstance(objective, Objective):
        raise ValueError(f"objective must be an Objective, got {objective!r}; for example reinforce(policy)")
    check_schedule("step_size", step_size, 0, open_low=True, open_high=True)
    check_schedule("momentum", momentum, 0, 1, open_low=True)
    check_flag("lookahead", lookahead)
    learner = local_training(
        objective,
        optimizer(optax.sgd, learning_rate=1.0),
        num_local_steps=num_local_steps,
        corrections=corrections,
        upload="gradient",
        weight=weight,
    )
    return AFedPG(learner, step_size, momentum, lookahead)


def afedpg_schedules(step_size: float, convergence: str = "stationary") -> dict[str, Any]:
    """The steps and momenta of AFedPG's theorems, as arguments of `afedpg`.

    Args:
        step_size: eta_0 > 0.
        convergence: "stationary": eta_k = eta_0 (k+1)^(-5/7), alpha_k = (k+1)^(-4/7); "global": eta_k = eta_0 / (k+1),
            alpha_k = (k+1)^(-4/5).

    Returns:
        `step_size` and `momentum`.

    Raises:
        ValueError: a value is wrong.

    Reference: Lan et al., "Asynchronous federated reinforcement learning with policy gradient updates", ICLR 2025, the
        theorems on stationary points and on global convergence.
    """
    exponents = {"stationary": (5 / 7, 4 / 7), "global": (1.0, 4 / 5)}
    check_range("step_size", step_size, 0, open_low=True, open_high=True)
    check_choice("convergence", convergence, tuple(exponents))
    step, momentum = exponents[convergence]
    return {"step_size": power_decay(step_size, step), "momentum": power_decay(1.0, momentum)}
