"""An environment that counts: everything it does is known beforehand."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp


class CounterPhysics(NamedTuple):
    terminate_at: Any = 3  # steps; the episode is over for good
    max_steps_in_episode: Any = 5
    scale: Any = 1.0


class CounterState(NamedTuple):
    label: jax.Array  # f[] which episode this is
    time: jax.Array  # i32[]


@dataclasses.dataclass(frozen=True)
class Counter:
    """Observes (time, label), pays scale * time + action; past its end the square root of the time left is NaN."""

    physics_axis: ClassVar[int | None] = None
    labelled: bool = True

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Labels 100, 101, ... in order of the rows, so that a test knows which row was used."""
        size = 1
        for length in shape:
            size *= length
        return (100 + jnp.arange(size, dtype=jnp.result_type(float)) * self.labelled).reshape(shape)

    def reset_from(self, noise: jax.Array, params: CounterPhysics) -> tuple[jax.Array, CounterState]:
        state = CounterState(noise, jnp.int32(0))
        return self._observe(state, params), state

    def step_env(
        self, key: jax.Array, state: CounterState, action: jax.Array, params: CounterPhysics
    ) -> tuple[jax.Array, CounterState, jax.Array, jax.Array, dict[str, Any]]:
        state = CounterState(state.label, state.time + 1)
        left = jnp.asarray(params.max_steps_in_episode - state.time, state.label.dtype)
        alive = 0 * jnp.sqrt(left)  # 0, and NaN past the time limit
        reward = params.scale * state.time.astype(state.label.dtype) + action + alive
        state = CounterState(state.label + alive, state.time)
        return self._observe(state, params), state, reward, state.time >= params.terminate_at, {}

    def is_truncated(self, state: CounterState, params: CounterPhysics) -> jax.Array:
        return state.time >= params.max_steps_in_episode

    def _observe(self, state: CounterState, params: CounterPhysics) -> jax.Array:
        return jnp.stack([state.time.astype(state.label.dtype), state.label])


class PooledCounter(Counter):
    """Every environment has its own physics."""

    physics_axis: ClassVar[int | None] = 0


class Dice:
    """A stochastic environment without end: pays what it draws."""

    physics_axis: ClassVar[int | None] = None

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros(shape)

    def reset_from(self, noise: jax.Array, params: CounterPhysics) -> tuple[jax.Array, jax.Array]:
        return noise[None], noise

    def step_env(
        self, key: jax.Array, state: jax.Array, action: jax.Array, params: CounterPhysics
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        return state[None], state, jax.random.uniform(key), jnp.bool_(False), {}

    def is_truncated(self, state: jax.Array, params: CounterPhysics) -> jax.Array:
        return jnp.bool_(False)
