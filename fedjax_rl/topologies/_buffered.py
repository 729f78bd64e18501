"""The messages of several rounds become one merge."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import (
    Cohort,
    Envelope,
    Header,
    Mail,
    Marks,
    Node,
    NodeState,
    Places,
    Topology,
    Total,
    add_up,
    check_count,
    component,
    static,
    tree,
)
from ._wrapper import Wrapper, check_server


class Stack(NamedTuple):
    """Messages that wait one by one, for aggregators that are not linear; empty rows have weight 0."""

    payload: Any  # [R, ...]
    weight: jax.Array  # f32[R]
    marks: Marks  # f[R] each
    # i32[]
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]

    def add(self, mail: Mail) -> "Stack":
        """With the messages that have arrived in the next rows."""
        envelopes = mail.envelopes
        assert envelopes is not None
        arrived = envelopes.weight > 0
        rows = jnp.where(arrived, self.count + jnp.cumsum(arrived, dtype=jnp.int32) - 1, self.weight.shape[0])
        held, new = (self.payload, self.weight, self.marks), (envelopes.payload, envelopes.weight, envelopes.marks)
        written = jax.tree.map(lambda x, y: x.at[rows].set(y.astype(x.dtype), mode="drop"), held, new)
        payload, weight, marks = written
        return Stack(payload, weight, marks, self.count + jnp.sum(arrived, dtype=jnp.int32))

    def mail(self) -> Mail:
        """To the one meeting place."""
        num = self.weight.shape[0]
        none = jnp.zeros(num)
        header = Header(jnp.zeros(num, jnp.int32), jnp.zeros(num, jnp.int32), none, none, none)
        return Mail(
            Envelope(self.payload, self.weight, none, header, self.marks), None, jnp.zeros(num, jnp.int32)
        )  # fmt: skip


class Sum(NamedTuple):
    """The weighted sum of the messages that wait, for linear aggregators."""

    total: Total

    @property
    def count(self) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """i32[]: how many there are."""
        return self.total.count

    def add(self, mail: Mail) -> "Sum":
        """With those that have arrived."""
        if mail.totals is not None:
            new = tree.take(mail.totals, 0)
        else:
            assert mail.envelopes is not None
            new = add_up(mail.envelopes.payload, mail.envelopes.weight, mail.envelopes.marks)
        return Sum(jax.tree.map(lambda x, y: x + y.astype(x.dtype), self.total, new))

    def mail(self) -> Mail:
        """To the one meeting place."""
        return Mail(None, tree.replicate(self.total, 1), jnp.zeros(1, jnp.int32))


class Waiting(NamedTuple):
    """What the server keeps."""

    inner: Any
    buffer: Any  # `Sum` or `Stack`


@component
class Buffered(Wrapper):
    """Merges when enough messages have come; build it with `buffered`."""

    inner: Topology
    capacity: int = static()

    @property
    def synchronous(self) -> bool:
        return False

    def inside(self, places: Places) -> Places:
        return Places(places.public.inner, places.own)

    def init(self, node: Node, state: NodeState, message: Any, num_agents: int) -> Places:
        inside = self.inner.init(node, state, message, num_agents)
        zero = jnp.zeros(())
        if node.linear:
            buffer = Sum(Total(message, jnp.float32(0), jnp.int32(0), Marks(zero, zero)))
        else:
            rows = self.capacity + node.num_slots - 1
            marks = tree.replicate(Marks(zero, zero), rows)
            buffer = Stack(tree.replicate(message, rows), jnp.zeros(rows, jnp.float32), marks, jnp.int32(0))
        return Places(Waiting(inside.public, buffer), inside.own)

    def merges(self, places: Places, num_messages: jax.Array) -> jax.Array:
        full = (places.public.buffer.count + num_messages) // self.capacity
        return self.inner.merges(self.inside(places), full)

    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        buffer = places.public.buffer.add(mail)

        def merge(waiting: Waiting) -> Waiting:
            inside = Places(waiting.inner, places.own)
            merged = self.inner.push(key, node, inside, cohort, waiting.buffer.mail())
            return Waiting(merged.public, tree.zeros_like(waiting.buffer))

        full = buffer.count >= self.capacity
        public = jax.lax.cond(full, merge, lambda waiting: waiting, Waiting(places.public.inner, buffer))
        return places._replace(public=public)


def buffered(inner: Topology, capacity: int) -> Topology:
    """The server waits until it has enough messages, from whatever rounds, and merges them as one.

    Messages carry the discount of their staleness at arrival. A linear aggregator keeps their sum only, any other one
    the messages themselves. Where many messages come at once, they are all part of the merge that they complete:
    `sequential(buffered(...))` merges exactly `capacity` at a time.

    FedBuff is `sequential(snapshot(buffered(star(), 10), discount=polynomial(0.5)))`:

        theta <- theta + (1/K) sum_{k=1..K} s(d_k) Delta_k

    with the server's learning rate by `server_optimizer(learner, optax.sgd(...))`. Capacity 1: it is `inner`.

    Args:
        inner: one server, `star()`.
        capacity: K >= 1 messages per merge.

    Raises:
        ValueError: `inner` is not one server whose newest model all agents receive, or the capacity is no count.

    Reference: Nguyen et al., "Federated learning with buffered asynchronous aggregation", AISTATS 2022, algorithm 1.
    """
    check_server("buffered", inner)
    check_count("capacity", capacity)
    return Buffered(inner, int(capacity))
