"""Agent k descends mean_s |theta - row_ks|^2 / 2 on the rows that are its physics; no environment is played."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.core import EnvFamily, component
from fedjax_rl.learners import Collected, Objective


class RowsPhysics(NamedTuple):
    rows: jax.Array  # f[S, D]
    num_samples: jax.Array  # f[] what the agent says its rows are worth


class NoEnvironment:
    """Nothing to play."""


@component
class RowsFamily(EnvFamily):
    """Physics given as arrays, leaves [N, ...]."""

    physics: RowsPhysics

    env = NoEnvironment

    def sample(self, key: jax.Array, num_agents: int) -> RowsPhysics:
        return jax.tree.map(lambda x: x[:num_agents], self.physics)


@component
class RowsObjective(Objective):
    """Deterministic: collects the agent's rows."""

    first: Any  # f[D] initial parameters

    def init(self, key: jax.Array, env: Any) -> dict[str, jax.Array]:
        return {"theta": jnp.asarray(self.first)}

    def init_local(self, key: jax.Array, env: Any, physics: RowsPhysics, params: Any) -> tuple[()]:
        return ()

    def collect(self, key: jax.Array, env: Any, physics: RowsPhysics, params: Any, state: Any) -> Collected:
        return Collected(physics.rows, state, physics.num_samples, {})

    def loss(self, key: jax.Array, params: Any, state: Any, batch: jax.Array) -> Any:
        distance = jnp.mean(jnp.sum((params["theta"][None] - batch) ** 2, -1)) / 2
        return distance, {"distance": distance}
