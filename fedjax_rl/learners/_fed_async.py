"""FedAsync: the model moves part of the way to what an agent has trained."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Envelope, Learner, Metrics, Need, Received, check_range, component, tree
from ._local_training import LocalTraining
from ._wrapper import Wrapper


PyTree = Any


@component
class FedAsync(Wrapper):
    """Mixes trained models into the server's; build it with `fed_async`."""

    learner: LocalTraining
    mixing: Any

    @property
    def needs(self) -> frozenset[Need]:
        return self.learner.needs | {Need.AVERAGE}

    def update(
        self, key: jax.Array, env: Any, physics: PyTree, download: Any, local: PyTree, work: jax.Array | None
    ) -> tuple[PyTree, Envelope, Metrics]:
        local, envelope, metrics = self.learner.update(key, env, physics, download, local, work)
        trained = tree.add(download.params, envelope.payload.params)
        return local, envelope._replace(payload=envelope.payload._replace(params=trained)), metrics

    def merge(self, key: jax.Array, env: Any, shared: Any, message: Any, received: Received) -> Any:
        # A discounted model is a shorter vector: subtracting the model as much discounted leaves a shorter way to it.
        scale = jnp.asarray(received.marks.scale)
        moved = jax.tree.map(
            lambda x, m: jnp.asarray(self.mixing, x.dtype) * (m - scale.astype(x.dtype) * x),
            shared.params,
            message.params,
        )
        return self.learner.merge(key, env, shared, message._replace(params=moved), received)


def fed_async(learner: LocalTraining, mixing: float = 0.6) -> Learner:
    """FedAsync: agents upload trained models, and the server mixes each one into what it has when it arrives.

        theta <- theta + alpha sum_i p_i s_i (theta_i - theta),

    theta the model NOW, not the one that agent i pulled; p_i = 1 where every arrival is a step of its own
    (`sequential(snapshot(star(), discount=...))`), and s_i the topology's discount of staleness. alpha = 1 with one
    agent per merge and no delay is FedAvg of one agent. The paper's local problem is `corrections=(proximal(mu),)`.
    Transforms see whole models: compress or clip differences (FedBuff) instead.

    Args:
        learner: `local_training(...)` that uploads the movement of its parameters alone.
        mixing: alpha in (0, 1].

    Raises:
        ValueError: the learner uploads something else, or the number is out of range.

    Reference: Xie, Koyejo and Gupta, "Asynchronous federated optimization", 2019, algorithm 1.
    """
    if not isinstance(learner, LocalTraining):
        raise ValueError(f"learner must be local_training(...), got {learner!r}")
    if learner.upload != "delta" or learner.optimizer_state == "average":
        raise ValueError(
            f"learner must upload the movement of its parameters alone, got upload={learner.upload!r} and "
            f"optimizer_state={learner.optimizer_state!r}; use upload='delta' with 'reset' or 'keep'"
        )
    reading = [type(c).__name__ for c in learner.corrections if c.has_server_variable or c.reads_movement]
    if reading:
        raise ValueError(
            f"corrections must leave the merge alone with fed_async, got {', '.join(reading)}; drop them, or use "
            "proximal(mu)"
        )
    check_range("mixing", mixing, 0, 1, open_low=True)
    return FedAsync(learner, mixing)
