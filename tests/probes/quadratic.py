"""A federated problem with a closed form: agent k descends |theta - target_k|^2 / 2; no environment is played."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.core import EnvFamily, Learner, Sum, component, seal, static, tree


class NoEnvironment:
    """Nothing to play."""


class Local(NamedTuple):
    rounds: jax.Array  # i32[] rounds this agent took part in
    draw: jax.Array  # f32[] the last random number it drew


@component
class Targets(EnvFamily):
    """Agent k's physics is its target; `broken` agents produce NaN."""

    targets: jax.Array  # f32[N, D]

    env = NoEnvironment

    def sample(self, key: jax.Array, num_agents: int) -> jax.Array:
        return self.targets[:num_agents]


@component
class Descent(Learner):
    """One gradient step of size `step_size`; the message is the difference of the parameters."""

    step_size: Any
    noise: Any = 0.0
    num_parameters: int = static(default=3)

    def init_shared(self, key: jax.Array, env: Any) -> dict[str, jax.Array]:
        return {"params": jnp.zeros(self.num_parameters)}

    def init_local(self, key: jax.Array, env: Any, physics: Any, shared: Any) -> Local:
        return Local(jnp.int32(0), jax.random.uniform(key))

    def broadcast(self, shared: Any) -> Any:
        return shared["params"]

    def update(self, key: jax.Array, env: Any, physics: Any, download: Any, local: Local, work: Any) -> Any:
        noise = self.noise * jax.random.normal(key, download.shape, download.dtype)
        delta = -self.step_size * (download - physics + noise)
        after = Local(local.rounds + 1, jax.random.uniform(key))
        return after, seal(delta, weight=1.0), {"distance": tree.norm(download - physics), "visits": Sum(jnp.int32(1))}

    def merge(self, key: jax.Array, env: Any, shared: Any, message: Any, received: Any) -> Any:
        return {"params": shared["params"] + message}

    def policy(self, shared: Any, local: Any) -> Any:
        return shared["params"]
