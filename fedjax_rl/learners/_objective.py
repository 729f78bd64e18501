"""What a local RL algorithm is: data it collects and a loss on them."""

import abc
from typing import Any, NamedTuple

import jax

from ..core import Metrics


PyTree = Any


class Collected(NamedTuple):
    """What one `collect` brings home."""

    batch: PyTree  # leaves [S, ...], one row per sample; the rows are what minibatches split
    state: PyTree  # the objective's next state
    num_samples: jax.Array  # f32[] environment steps behind the batch
    metrics: Metrics


class Objective(abc.ABC):
    """One local RL algorithm for ONE agent; one file each."""

    @property
    def batch_size(self) -> int | None:
        """Rows of a batch where they are known beforehand; minibatches must divide them."""
        return None

    def check(self, env: Any, physics: PyTree) -> None:
        """Raises `ValueError` where it cannot play this environment; `physics` of one agent, shapes only."""
        del env, physics

    @abc.abstractmethod
    def init(self, key: jax.Array, env: Any) -> PyTree:
        """Parameters."""

    @abc.abstractmethod
    def init_local(self, key: jax.Array, env: Any, physics: PyTree) -> PyTree:
        """State that stays with the agent: environments, replay, target network, running statistics."""

    @abc.abstractmethod
    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PyTree) -> Collected:
        """Acts in the agent's environments."""

    @abc.abstractmethod
    def loss(
        self, key: jax.Array, params: PyTree, state: PyTree, batch: PyTree
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss to descend, f32[], and what to report."""

    @abc.abstractmethod
    def log_prob(self, params: PyTree, batch: PyTree) -> jax.Array:
        """log pi(a|s) of the batch, f32[S], for importance ratios."""

    def after_step(self, params: PyTree, state: PyTree) -> PyTree:
        """After a local step: target networks, statistics."""
        del params
        return state
