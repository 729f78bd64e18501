"""Agents work with one of the last few versions, which the server keeps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core import (
    Cohort,
    Envelope,
    Mail,
    Node,
    NodeState,
    Places,
    Topology,
    check,
    check_count,
    component,
    is_concrete,
    static,
    tree,
)
from ._discounts import Discount, check_discount
from ._wrapper import Wrapper, check_server


class Ring(NamedTuple):
    """The last R downloads: number t is kept in slot t modulo R."""

    downloads: Any  # [R, ...]
    version: jax.Array  # i32[R]


class Kept(NamedTuple):
    """What the server keeps."""

    inner: Any
    ring: Ring
    time: jax.Array  # i32[] number of the newest download


class Ringed(Wrapper):
    """A server that keeps its last downloads."""

    size: int

    @property
    def stale(self) -> bool:
        return True

    @property
    def synchronous(self) -> bool:
        return False

    def inside(self, places: Places) -> Places:
        return Places(places.public.inner, ())

    def _first(self, node: Node, inside: Places) -> Places:
        download, version = self._newest(node, inside)
        ring = Ring(tree.replicate(download, self.size), jnp.full(self.size, version))
        return Places(Kept(inside.public, ring, jnp.int32(0)), ())

    def _publish(self, node: Node, places: Places, inside: Places, time: jax.Array) -> Kept:
        """Writes the newest download as number `time`."""
        slot = time % self.size
        ring = jax.tree.map(lambda x, y: x.at[slot].set(y), places.public.ring, Ring(*self._newest(node, inside)))
        return Kept(inside.public, ring, time)

    def _newest(self, node: Node, inside: Places) -> tuple[Any, jax.Array]:
        nobody = jnp.int32(0)
        return self.inner.pull(node, inside, nobody), self.inner.version(inside, nobody)

    def _back(self, places: Places, steps: jax.Array) -> Any:
        """The download of some numbers ago, and its version."""
        kept = places.public
        return tree.take(kept.ring, (kept.time - steps) % self.size)

    def staleness(self, places: Places, agent: jax.Array) -> jax.Array:
        return self.version(places, agent) - self._back(places, self._steps(places, agent)).version

    def pull(self, node: Node, places: Places, agent: jax.Array) -> Any:
        return self._back(places, self._steps(places, agent)).downloads

    def _steps(self, places: Places, agent: jax.Array) -> jax.Array:
        """i32[]: how many numbers ago the download of an agent is."""
        raise NotImplementedError


@component
class Asynchronous(Ringed):
    """Remembers of every agent the version it departed with; build it with `asynchronous`."""

    inner: Topology
    discount: Discount | None
    size: int = static()

    @property
    def num_places(self) -> int | None:
        return self.inner.num_places if self.discount is None else None

    @property
    def lossless(self) -> bool:
        return self.inner.lossless and self.discount is None

    def init(self, node: Node, state: NodeState, message: Any, num_agents: int) -> Places:
        places = self._first(node, self.inner.init(node, state, message, num_agents))
        return places._replace(own=jnp.zeros(num_agents, jnp.int32))

    def arrive(self, places: Places, cohort: Cohort, envelopes: Envelope) -> Envelope:
        envelopes = super().arrive(places, cohort, envelopes)
        return envelopes if self.discount is None else self.discount.shrink(envelopes)

    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        inside = self.inner.push(key, node, self.inside(places), cohort, mail)
        now = self.inner.version(inside, jnp.int32(0))
        departed = jnp.where(cohort.active, now, cohort.take(places.own))
        return Places(self._publish(node, places, inside, now), cohort.put(places.own, departed))

    def _steps(self, places: Places, agent: jax.Array) -> jax.Array:
        return jnp.clip(places.public.time - places.own, 0, self.size - 1)


@component
class Delayed(Ringed):
    """Every agent is late by its own number of rounds; build it with `delayed`."""

    inner: Topology
    delays: Any  # i32[N]
    size: int = static()

    @property
    def by_rounds(self) -> bool:
        return True

    def check(self, num_agents: int) -> None:
        super().check(num_agents)
        if len(self.delays) != num_agents:
            raise ValueError(f"delays must be {num_agents} numbers, one per agent, got {len(self.delays)}")

    def init(self, node: Node, state: NodeState, message: Any, num_agents: int) -> Places:
        return self._first(node, self.inner.init(node, state, message, num_agents))

    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        inside = self.inner.push(key, node, self.inside(places), cohort, mail)
        return Places(self._publish(node, places, inside, places.public.time + 1), ())

    def _steps(self, places: Places, agent: jax.Array) -> jax.Array:
        return jnp.clip(jnp.asarray(self.delays, jnp.int32)[agent], 0, self.size - 1)


def asynchronous(inner: Topology, max_staleness: int, discount: Discount | None = None) -> Topology:
    """`snapshot` with a bounded staleness S, out of S + 1 versions that the server keeps instead of N downloads.

    An agent works with the version it departed with; one that would be more than S versions old works with the oldest
    that is kept, as if the server had called it. Its message counts s(d) times, d its staleness at arrival.

    The bound holds where a round begins. In `sequential(asynchronous(star(), S))` with batches of B arrivals, a
    message may become up to B - 1 versions older while those before it are digested, and agents are refreshed to what
    was kept when the batch began; as long as nobody is refreshed, it is `sequential(snapshot(star()))`.

    Args:
        inner: one server, `star()` or `buffered(star(), capacity)`.
        max_staleness: S >= 0 [versions].
        discount: s, such as `polynomial(0.5)`; None: none.

    Raises:
        ValueError: `inner` is not one server whose newest model all agents receive, or a value is out of its range.
    """
    check_server("asynchronous", inner)
    check_count("max_staleness", max_staleness, 0)
    check_discount(discount)
    return Asynchronous(inner, discount, int(max_staleness) + 1)


def delayed(inner: Topology, delays: Any) -> Topology:
    """Every agent always works with the model of so many rounds ago.

        theta_{t+1} = theta_t + mean_i Delta_i(theta_{t - d_i})

    Before round d_i it is the first model. All zero: it is `inner`.

    Args:
        inner: one server, `star()` or `buffered(star(), capacity)`.
        delays: i32[N] d_i >= 0 [rounds]; the largest + 1 models are kept.

    Raises:
        ValueError: `inner` is not one server whose newest model all agents receive, or delays are no counts.
    """
    check_server("delayed", inner)
    if not is_concrete(delays):
        raise ValueError("delays must be known before tracing: the largest one says how many models are kept")
    given = np.asarray(delays)
    check("delays", delays, lambda _: given.ndim == 1 and given.size > 0, "must be a list of one number per agent")
    check("delays", delays, lambda _: (given == given.astype(np.int32)).all() and given.min() >= 0, "must be counts")
    return Delayed(inner, given.astype(np.int32), int(given.max()) + 1)
