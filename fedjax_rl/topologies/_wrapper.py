"""A topology around another one."""

import abc
from typing import Any

import jax

from ..core import Cohort, Envelope, Mail, Metrics, Node, NodeState, Places, Topology


class Wrapper(Topology):
    """Does what the wrapped topology does unless redefined."""

    inner: Topology

    @abc.abstractmethod
    def inside(self, places: Places) -> Places:
        """The wrapped topology's places, of all agents or with one agent's slice."""

    @property
    def per_agent_models(self) -> bool:
        return self.inner.per_agent_models

    @property
    def mixes_models(self) -> bool:
        return self.inner.mixes_models

    @property
    def carries_messages(self) -> bool:
        return self.inner.carries_messages

    @property
    def num_places(self) -> int | None:
        return self.inner.num_places

    @property
    def stale(self) -> bool:
        return self.inner.stale

    @property
    def synchronous(self) -> bool:
        return self.inner.synchronous

    @property
    def one_by_one(self) -> bool:
        return self.inner.one_by_one

    @property
    def by_rounds(self) -> bool:
        return self.inner.by_rounds

    @property
    def lossless(self) -> bool:
        return self.inner.lossless

    @property
    def delivers(self) -> bool:
        return self.inner.delivers

    def check(self, num_agents: int) -> None:
        self.inner.check(num_agents)

    def init(self, node: Node, state: NodeState, message: Any, num_agents: int) -> Places:
        return self.inner.init(node, state, message, num_agents)

    def pull(self, node: Node, places: Places, agent: jax.Array) -> Any:
        return self.inner.pull(node, self.inside(places), agent)

    def version(self, places: Places, agent: jax.Array) -> jax.Array:
        return self.inner.version(self.inside(places), agent)

    def staleness(self, places: Places, agent: jax.Array) -> jax.Array:
        return self.inner.staleness(self.inside(places), agent)

    def merges(self, places: Places, num_messages: jax.Array) -> jax.Array:
        return self.inner.merges(self.inside(places), num_messages)

    def hears(self, places: Places, agent: jax.Array) -> jax.Array | bool:
        return self.inner.hears(self.inside(places), agent)

    def arrive(self, places: Places, cohort: Cohort, envelopes: Envelope) -> Envelope:
        return self.inner.arrive(self.inside(places), cohort, envelopes)

    def report(self, before: Places, after: Places) -> Metrics:
        return self.inner.report(self.inside(before), self.inside(after))

    def model(self, places: Places, agent: jax.Array) -> Any:
        return self.inner.model(self.inside(places), agent)

    def address(self, places: Places, agent: jax.Array) -> jax.Array:
        return self.inner.address(self.inside(places), agent)

    def charge(self, places: Places, agent: jax.Array, uplink: jax.Array, downlink: jax.Array) -> Any:
        return self.inner.charge(self.inside(places), agent, uplink, downlink)

    @abc.abstractmethod
    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        """The mail reaches the meeting places."""


def check_topology(inner: Any) -> None:
    """Raises `ValueError` unless it is a topology."""
    if not isinstance(inner, Topology):
        raise ValueError(f"inner must be a Topology, got {inner!r}; for example star()")


def check_server(name: str, inner: Any) -> None:
    """Raises `ValueError` unless all agents share one meeting place and work with its newest model."""
    check_topology(inner)
    if inner.num_places != 1 or inner.stale or inner.by_rounds:
        raise ValueError(
            f"inner must be one server whose newest model every agent receives with {name}, got "
            f"{type(inner).__name__}; use star() or buffered(star(), capacity)"
        )
