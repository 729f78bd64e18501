"""Messages are digested one after the other."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Cohort, Envelope, Mail, Node, NodeState, Places, Topology, component, tree
from ._wrapper import Wrapper, check_topology


@component
class Sequential(Wrapper):
    """One merge per message; build it with `sequential`."""

    inner: Topology

    @property
    def num_places(self) -> None:
        return None

    @property
    def stale(self) -> bool:
        return True

    @property
    def synchronous(self) -> bool:
        return False

    @property
    def one_by_one(self) -> bool:
        return True

    def inside(self, places: Places) -> Places:
        return places

    def init(self, node: Node, state: NodeState, message: Any, num_agents: int) -> Places:
        return self.inner.init(node._replace(num_slots=1), state, message, num_agents)

    def arrive(self, places: Places, cohort: Cohort, envelopes: Envelope) -> Envelope:
        delivered = cohort.active & (envelopes.weight > 0)
        if self.inner.num_places == 1:
            ahead = jnp.cumsum(delivered, dtype=jnp.int32) - delivered
        else:
            address = self._addresses(places, cohort)
            earlier = jnp.tril(address[:, None] == address[None], -1) & delivered[None]
            ahead = jnp.sum(earlier, axis=1, dtype=jnp.int32)
        passed = jax.vmap(lambda own, num: self.inner.merges(Places(places.public, own), num))(
            cohort.take(places.own), ahead
        )
        header = envelopes.header._replace(staleness=envelopes.header.staleness + passed)
        return self.inner.arrive(places, cohort, envelopes._replace(header=header))

    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        node = node._replace(num_slots=1)
        slots = cohort._replace(index=cohort.ids(), time=jnp.broadcast_to(cohort.time, cohort.active.shape))

        def one(places: Places, slot: Any) -> tuple[Places, None]:
            alone, envelope, address = tree.take(slot, None)
            alone = alone._replace(time=cohort.time)
            return self.inner.push(key, node, places, alone, Mail(envelope, None, address)), None

        return jax.lax.scan(one, places, (slots, mail.envelopes, mail.address))[0]

    def _addresses(self, places: Places, cohort: Cohort) -> jax.Array:
        def one(own: Any, agent: jax.Array) -> jax.Array:
            return self.inner.address(Places(places.public, own), agent)

        return jax.vmap(one)(cohort.take(places.own), cohort.ids())


def sequential(inner: Topology) -> Topology:
    """A meeting place digests messages one after the other, in the order of their slots: one merge each.

    A message is as many versions older as were made by those before it. With `snapshot` inside,
    `sequential(snapshot(star()))`, it is asynchronous federated learning: every agent works with the model it departed
    with, and departs again with the one right after its own merge. Then arrivals may be computed in batches without a
    difference, as long as nobody arrives twice in a batch. One merge per message takes time: where it does not matter
    who is first, leave this out and a batch is merged as one.

    Args:
        inner: where models live; its meeting places must be able to take messages one at a time.

    Raises:
        ValueError: the agents of a round must meet in `inner`, or it counts rounds (`gossip`, `periodic`, `failover`,
            `delayed`).
    """
    check_topology(inner)
    if inner.by_rounds:
        raise ValueError(
            f"inner must take messages one at a time with sequential, got {type(inner).__name__}, which lives by "
            "rounds; put sequential inside where that is possible, as in failover(sequential(star()), ...)"
        )
    return Sequential(inner)
