"""The neutral choices: everyone acts, and everyone meets at one server."""

from typing import Any

import jax
import jax.numpy as jnp

from . import tree
from ._component import component
from ._messages import Cohort, Job, Mail, Message
from ._roles import Download, Node, NodeState, Participation, Places, Shared, Topology


@component
class Star(Topology):
    """One server; every agent downloads its model and uploads to it."""

    @property
    def num_places(self) -> int:
        return 1

    def init(self, node: Node, state: NodeState, message: Message, num_agents: int) -> Places:
        return Places(state, ())

    def pull(self, node: Node, places: Places, agent: jax.Array) -> Download:
        return node.broadcast(places.public.shared)

    def version(self, places: Places, agent: jax.Array) -> jax.Array:
        return places.public.version

    def model(self, places: Places, agent: jax.Array) -> Shared:
        return places.public.shared

    def meet(self, models: Any, cohort: Cohort) -> Any:
        num = jnp.maximum(jnp.sum(cohort.active), 1)

        def average(x: jax.Array) -> jax.Array:
            mine = cohort.take(x)
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return mine
            mean = tree.weighted_sum(mine, cohort.active) / num.astype(x.dtype)
            return tree.where(cohort.active, jnp.broadcast_to(mean, mine.shape), mine)

        return jax.tree.map(average, models)

    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        return places._replace(public=node.digest(key, places.public, mail.to(0)))


@component
class Everyone(Participation):
    """All N agents act in every round; a round takes one unit of virtual time."""

    @property
    def complete(self) -> bool:
        return True

    def init(self, key: jax.Array, num_agents: int, job: Job) -> Any:
        return jnp.float32(0)

    def sample(self, key: jax.Array, state: Any, num_agents: int) -> tuple[Any, Cohort]:
        time = state + 1
        return time, Cohort(None, jnp.ones(num_agents, bool), jnp.ones(num_agents, jnp.float32), None, time)


def star() -> Star:
    """One server that all agents meet at."""
    return Star()


def everyone() -> Everyone:
    """Full participation: all N agents act in every round."""
    return Everyone()
