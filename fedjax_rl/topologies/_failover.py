"""A server that fails, and a replica that takes over."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import (
    Cohort,
    Mail,
    Metrics,
    Node,
    NodeState,
    Places,
    Topology,
    check_count,
    check_range,
    component,
    tree,
)
from ._asynchronous import Ringed
from ._wrapper import Wrapper, check_topology


class Running(NamedTuple):
    """The server, its replica and what they went through."""

    inner: Any  # what the server keeps
    replica: Any  # what it kept when it was last replicated
    rounds: jax.Array  # i32[] rounds so far
    away: jax.Array  # i32[] rounds until the replica takes over; 0 = there is a server
    unsaved: jax.Array  # i32[] rounds that the server worked since it was replicated or took over
    failures: jax.Array  # i32[] so far
    lost: jax.Array  # i32[] rounds so far whose work is lost


@component
class Failover(Wrapper):
    """Falls back to a replica; build it with `failover`."""

    inner: Topology
    failure: Any
    sync_period: Any
    outage: Any

    @property
    def synchronous(self) -> bool:
        return False

    @property
    def by_rounds(self) -> bool:
        return True

    @property
    def lossless(self) -> bool:
        return False

    @property
    def delivers(self) -> bool:
        return False

    def inside(self, places: Places) -> Places:
        return Places(places.public.inner, places.own)

    def init(self, node: Node, state: NodeState, message: Any, num_agents: int) -> Places:
        inside = self.inner.init(node, state, message, num_agents)
        return Places(Running(inside.public, inside.public, *[jnp.int32(0)] * 5), inside.own)

    def hears(self, places: Places, agent: jax.Array) -> jax.Array | bool:
        return super().hears(places, agent) & (places.public.away == 0)

    def charge(self, places: Places, agent: jax.Array, uplink: jax.Array, downlink: jax.Array) -> Any:
        uplink, downlink = super().charge(places, agent, uplink, downlink)
        return uplink, jnp.where(places.public.away == 0, downlink, 0.0)

    def report(self, before: Places, after: Places) -> Metrics:
        then, now = before.public, after.public
        own = {"failures": now.failures - then.failures, "lost_rounds": now.lost - then.lost}
        return {**super().report(before, after), **own}

    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        public: Running = places.public
        works = public.away == 0
        # Versions that were lost come again, and must not meet the random numbers of the first time.
        fresh = jnp.where(public.failures > 0, jax.random.fold_in(key, public.failures), key)
        pushed = self.inner.push(fresh, node, self.inside(places), cohort, mail)
        inner = tree.where(works, pushed.public, public.inner)
        rounds = public.rounds + 1
        unsaved = public.unsaved + works
        saves = works & (rounds % self.sync_period == 0)
        replica = tree.where(saves, inner, public.replica)
        unsaved = jnp.where(saves, 0, unsaved)
        k_failure = jax.random.fold_in(jax.random.fold_in(key, 0x6661), rounds)
        fails = works & (jax.random.uniform(k_failure) < self.failure)
        now = Running(
            inner=tree.where(fails, _restored(replica, inner), inner),
            replica=replica,
            rounds=rounds,
            away=jnp.where(fails, self.outage, jnp.maximum(public.away - 1, 0)).astype(jnp.int32),
            unsaved=jnp.where(fails, 0, unsaved),
            failures=public.failures + fails,
            lost=public.lost + jnp.where(works, jnp.where(fails, unsaved, 0), 1),
        )
        return Places(now, pushed.own)


def _restored(replica: Any, lost: Any) -> Any:
    """The replica where it takes over; the count of refused merges goes on."""

    def node(then: Any, now: Any) -> Any:
        return then._replace(refused=now.refused) if isinstance(then, NodeState) else then

    return jax.tree.map(node, replica, lost, is_leaf=lambda x: isinstance(x, NodeState))


def failover(inner: Topology, failure: float, sync_period: int = 10, outage: int = 1) -> Topology:
    """The server fails with a probability per round; a replica of some rounds ago takes over after an outage.

    After every round whose number is a multiple of the period, what the server keeps is replicated. Then the server
    fails with probability p: all since the last replica is lost, versions included, and for some rounds there is no
    server: agents work on the replica's model, and their messages are lost (their memories do not commit). Models
    that agents departed with are theirs and stay; one of a version that was lost counts as new.

    A round's report has `failures`, and `lost_rounds`: rounds that the failed server had worked since it was
    replicated, and the round itself in an outage. With p = 0 it is `inner`.

    Args:
        inner: a topology with servers, such as `star()` or `sequential(snapshot(star()))`.
        failure: p in [0, 1] per round.
        sync_period: rounds between two replications, >= 1.
        outage: rounds without a server, >= 0.

    Raises:
        ValueError: `inner` has no server, keeps the departed models on it, or a value is out of its range.
    """
    check_topology(inner)
    below = inner
    while isinstance(below, Wrapper):
        if isinstance(below, Ringed):
            raise ValueError(
                f"inner must let agents keep the models they departed with under failover, got {type(below).__name__}, "
                "whose models the failed server kept; use snapshot(...)"
            )
        below = below.inner
    if inner.per_agent_models:
        raise ValueError(
            f"inner must have a server that can fail with failover, got {type(inner).__name__}, whose models are the "
            "agents' own; use star()"
        )
    check_range("failure", failure, 0, 1)
    check_count("sync_period", sync_period)
    check_count("outage", outage, 0)
    return Failover(inner, failure, sync_period, outage)
