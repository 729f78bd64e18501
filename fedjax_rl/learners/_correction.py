"""Corrections change local training without being another algorithm."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..core import Received


PyTree = Any


class Context(NamedTuple):
    """What a correction sees when it changes a gradient."""

    objective: Any
    gradient_at: Callable[[PyTree], PyTree]  # params -> the uncorrected gradient of the same batch
    params: PyTree  # where the gradient was taken
    anchor: PyTree  # the parameters this agent downloaded
    batch: PyTree
    shared: PyTree  # this correction's server variable
    local: PyTree  # this correction's memory


class Trained(NamedTuple):
    """What one agent's round of local training amounts to."""

    delta: PyTree  # trained parameters minus the anchor
    num_steps: jax.Array  # i32[] gradient steps


class Correction(abc.ABC):  # noqa: B024 - every hook has a meaningful default
    """Every hook is the identity unless redefined."""

    def init_shared(self, params: PyTree) -> PyTree:
        """A server variable that every agent downloads (SCAFFOLD: c)."""
        del params
        return ()

    def init_local(self, params: PyTree) -> PyTree:
        """An agent's memory (SCAFFOLD: c_i)."""
        del params
        return ()

    def behaviour(self, key: jax.Array, params: PyTree, anchor: PyTree, shared: PyTree, local: PyTree) -> PyTree:
        """The parameters that collect data."""
        del key, anchor, shared, local
        return params

    def gradient(self, key: jax.Array, gradient: PyTree, context: Context) -> tuple[PyTree, PyTree]:
        """(corrected gradient, new memory)."""
        del key
        return gradient, context.local

    def message(self, local: PyTree, shared: PyTree, trained: Trained) -> tuple[PyTree, PyTree]:
        """(new memory, extra payload to be aggregated along)."""
        del shared, trained
        return local, ()

    def merge(self, shared: PyTree, extra: PyTree, received: Received) -> PyTree:
        """The server variable digests the aggregated extra payload."""
        del extra, received
        return shared

    def settle(self, before: PyTree, after: PyTree, delivered: jax.Array) -> PyTree:
        """Commits the memory; redefine where it must not move when the message is lost."""
        del before, delivered
        return after
