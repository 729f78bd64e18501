"""Some parts of the model are everybody's, the others stay with their agent."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ..core import Envelope, Learner, Metrics, Received, check_range, component, seal, tree
from ._local_training import LocalTraining
from ._parts import join, split
from ._server_optimizer import ServerOptimizer
from ._wrapper import Wrapper


PyTree = Any


class PrivateLocal(NamedTuple):
    """What an agent keeps when it keeps parts of the model too."""

    inner: PyTree
    params: PyTree  # its own parts; None in the place of the shared ones


@component
class AggregateOnly(Wrapper):
    """Uploads and downloads some parts; build it with `aggregate_only`."""

    learner: Any
    weights: dict[str, Any]  # part -> factor of its merged movement

    @property
    def personal(self) -> bool:
        return True

    def check(self, env: Any, physics: PyTree) -> None:
        self.learner.check(env, physics)
        kept = jax.eval_shape(lambda key: self.learner.init_shared(key, env), jax.random.key(0))
        known = sorted(set(jax.tree.leaves(self.parts(kept.params))))
        unknown = sorted(self.weights.keys() - set(known))
        if unknown:
            raise ValueError(f"parts must be names out of {known}, got {unknown[0]!r}")
        if "trunk" in known and "trunk" not in self.weights:
            raise ValueError(
                f"parts must name 'trunk' too, got {sorted(self.weights)}: heads fit the trunk that they grew on; or "
                "give the policy shared_trunk=False"
            )

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, shared: PyTree) -> PrivateLocal:
        return PrivateLocal(self.learner.init_local(key, env, physics, shared), self._split(shared.params)[1])

    def broadcast(self, shared: PyTree) -> PyTree:
        download = self.learner.broadcast(shared)
        return download._replace(params=self._split(download.params)[0])

    def update(
        self, key: jax.Array, env: Any, physics: PyTree, download: PyTree, local: PrivateLocal, work: jax.Array | None
    ) -> tuple[PrivateLocal, Envelope, Metrics]:
        whole = download._replace(params=join(download.params, local.params))
        inner, envelope, metrics = self.learner.update(key, env, physics, whole, local.inner, work)
        moved, own = self._split(envelope.payload.params)
        sealed = seal(envelope.payload._replace(params=moved))
        after = PrivateLocal(inner, tree.add(local.params, own))
        return after, envelope._replace(payload=sealed.payload, bits=sealed.bits), metrics

    def settle(self, before: PrivateLocal, after: PrivateLocal, delivered: jax.Array) -> PrivateLocal:
        return after._replace(inner=self.learner.settle(before.inner, after.inner, delivered))

    def merge(self, key: jax.Array, env: Any, shared: PyTree, message: PyTree, received: Received) -> PyTree:
        still = tree.zeros_like(self._split(shared.params)[1])
        moved = join(message.params, still)
        moved = jax.tree.map(lambda m, part: self.weights.get(part, 1.0) * m, moved, self.parts(moved))
        return self.learner.merge(key, env, shared, message._replace(params=moved), received)

    def policy(self, shared: PyTree, local: PrivateLocal) -> PyTree:
        own = shared.with_params(join(self._split(shared.params)[0], local.params))
        return self.learner.policy(own, local.inner)

    def _split(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """(shared parts, private parts), each with None in the place of the other."""
        return split(params, self.parts(params), self.weights)


def aggregate_only(learner: Learner, parts: Sequence[str] | Mapping[str, float] = ("actor",)) -> Learner:
    """Only these parts of the model are downloaded, uploaded and merged; every agent keeps the others to itself.

    Sharing the actor leaves every agent the critic of its own rewards; sharing the critic alone is FedKL's
    `expose_critic`. Agents act, and are evaluated, with the shared parts and their own.

    Args:
        learner: `local_training(...)`, or a `server_optimizer` around it.
        parts: names out of "actor", "critic" and "trunk" (what both use, `shared_trunk=True`), or a dictionary from
            names to factors of their merged movement, such as {"actor": 1.0, "critic": 0.5}.

    Raises:
        ValueError: the learner uploads more than a movement of parameters, or nothing would be shared.
    """
    weights = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, 1.0)
    if isinstance(parts, str) or not weights:
        raise ValueError(f"parts must name at least one part, as in ('actor',), got {parts!r}")
    for name, weight in weights.items():
        check_range(f"parts[{name!r}]", weight, 0)
    training: Any = learner
    while isinstance(training, ServerOptimizer):
        training = training.learner
    if not isinstance(training, LocalTraining):
        raise ValueError(f"learner must be local_training(...), or server_optimizer(...) around it, got {learner!r}")
    if training.upload != "delta" or training.optimizer_state == "average":
        raise ValueError(
            f"learner must upload the movement of its parameters alone, got upload={training.upload!r} and "
            f"optimizer_state={training.optimizer_state!r}; use upload='delta' with 'reset' or 'keep'"
        )
    if any(c.has_server_variable for c in training.corrections):
        names = ", ".join(type(c).__name__ for c in training.corrections if c.has_server_variable)
        raise ValueError(f"corrections with a server variable ({names}) would upload the private parts; drop them")
    return AggregateOnly(learner, weights)
