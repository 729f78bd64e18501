"""A learner around another one."""

from typing import Any

import jax

from ..core import Envelope, Learner, Metrics, Need, Received


PyTree = Any


class Wrapper(Learner):
    """Does what the wrapped learner does unless redefined."""

    learner: Any

    def check(self, env: Any, physics: PyTree) -> None:
        self.learner.check(env, physics)

    @property
    def personal(self) -> bool:
        return self.learner.personal

    @property
    def needs(self) -> frozenset[Need]:
        return self.learner.needs

    @property
    def num_envs(self) -> int:
        return self.learner.num_envs

    @property
    def measures_variance(self) -> bool:
        return self.learner.measures_variance

    @property
    def tells_returns(self) -> bool:
        return self.learner.tells_returns

    def uploads_gradient(self, env: Any) -> bool:
        return self.learner.uploads_gradient(env)

    def job(self, env: Any) -> tuple[float, float, int]:
        return self.learner.job(env)

    def parts(self, params: PyTree) -> PyTree:
        """The name of the part that every leaf belongs to."""
        return self.learner.parts(params)

    def init_shared(self, key: jax.Array, env: Any) -> Any:
        return self.learner.init_shared(key, env)

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, shared: Any) -> PyTree:
        return self.learner.init_local(key, env, physics, shared)

    def broadcast(self, shared: Any) -> Any:
        return self.learner.broadcast(shared)

    def update(
        self, key: jax.Array, env: Any, physics: PyTree, download: Any, local: PyTree, work: jax.Array | None
    ) -> tuple[PyTree, Envelope, Metrics]:
        return self.learner.update(key, env, physics, download, local, work)

    def settle(self, before: PyTree, after: PyTree, delivered: jax.Array) -> PyTree:
        return self.learner.settle(before, after, delivered)

    def merge(self, key: jax.Array, env: Any, shared: Any, message: Any, received: Received) -> Any:
        return self.learner.merge(key, env, shared, message, received)

    def policy(self, shared: Any, local: PyTree) -> PyTree:
        return self.learner.policy(shared, local)
