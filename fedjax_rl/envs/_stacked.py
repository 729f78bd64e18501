"""Remembering by looking at the last few steps."""

import dataclasses
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import EnvFamily, check, check_count

from ._environment import Environment, EnvironmentWrapper, Noise, Observation, Params, State
from ._family import PooledFamily
from ._spaces import Box


Family = TypeVar("Family", bound=EnvFamily)


class StackedState(NamedTuple):
    """An environment and what was last seen of it."""

    state: State
    observation: jax.Array  # f32[observation size] the whole stack

    @property
    def time(self) -> jax.Array:
        """i32[] steps since the reset."""
        return self.state.time


@dataclasses.dataclass(frozen=True)
class StackedEnvironment(EnvironmentWrapper):
    """An environment that shows its last steps too; build it with `stacked`.

    The observation is (o_t, o_{t-1}, ..., o_{t-k+1}) and, if asked, (a_{t-1}, ..., a_{t-k+1}), newest first, one-hot
    where actions are discrete and clipped to the box otherwise; zeros stand for what was before the episode.
    """

    num_frames: int = 4
    actions: bool = False

    def reset_from(self, noise: Noise, params: Params) -> tuple[Observation, StackedState]:
        observation, state = self.env.reset_from(noise, params)
        stack = self.begin(observation)
        return stack, StackedState(state, stack)

    def step_env(
        self, key: jax.Array, state: StackedState, action: jax.Array, params: Params
    ) -> tuple[Observation, StackedState, jax.Array, jax.Array, dict[str, Any]]:
        observation, new, reward, terminated, info = self.env.step_env(key, state.state, action, params)
        stack = self.push(state.observation, observation, action)
        return stack, StackedState(new, stack), reward, terminated, info

    def is_truncated(self, state: StackedState, params: Params) -> jax.Array:
        return self.env.is_truncated(state.state, params)

    def begin(self, observation: jax.Array) -> jax.Array:
        """The stack after a reset: the first observation f32[d], and zeros."""
        before = jnp.zeros((self._size - observation.shape[-1],), observation.dtype)
        return jnp.concatenate([observation, before])

    def push(self, stack: jax.Array, observation: jax.Array, action: jax.Array) -> jax.Array:
        """The stack after a step: the newest in front, the oldest gone.

        Args:
            stack: f32[observation size] before the step.
            observation: f32[d] what the bare environment showed after it.
            action: that led there.
        """
        split = self.num_frames * observation.shape[-1]
        parts = [observation, stack[: split - observation.shape[-1]]]
        if self.actions and self.num_frames > 1:
            coded = self._coded(action).astype(stack.dtype)
            parts += [coded, stack[split : stack.shape[-1] - coded.shape[-1]]]
        return jnp.concatenate(parts)

    def observation_space(self, params: Params | None = None) -> Box:
        space = self.env.observation_space(params)
        one, acting = self.env.action_space(params), (self.num_frames - 1) * self.actions

        def bound(which: str, discrete: float) -> np.ndarray:
            """Of the stack; it holds zeros too, which the bare box need not."""
            frame = np.broadcast_to(getattr(space, which), space.shape).astype(float)
            action = [discrete] * one.n if hasattr(one, "n") else np.broadcast_to(getattr(one, which), one.shape)
            older = np.concatenate([np.tile(frame, self.num_frames - 1), np.tile(np.asarray(action, float), acting)])
            return np.concatenate([frame, np.minimum(older, 0) if which == "low" else np.maximum(older, 0)])

        return Box(bound("low", 0.0), bound("high", 1.0), (self._size,), space.dtype)

    @property
    def _size(self) -> int:
        """Of an observation."""
        (frame,), space = self.env.observation_space().shape, self.env.action_space()
        action = space.n if hasattr(space, "n") else space.shape[0]
        return self.num_frames * frame + (self.num_frames - 1) * self.actions * action

    def _coded(self, action: jax.Array) -> jax.Array:
        space = self.env.action_space()
        if hasattr(space, "n"):
            return jax.nn.one_hot(action, space.n)
        return jnp.clip(action, jnp.asarray(space.low), jnp.asarray(space.high))


def stacked(env: Environment, num_frames: int = 4, actions: bool = False) -> StackedEnvironment:
    """An environment whose observation is the last k observations and perhaps the k - 1 actions between them.

    Hidden physics makes an agent's world partially observed; what it did and what came of it tells the physics.

    Args:
        env: an environment with flat observations.
        num_frames: k; 1 shows what the environment shows.
        actions: whether the actions are shown too; a policy that samples cannot know them otherwise.

    Raises:
        ValueError: the environment's spaces are not flat, it is stacked or pooled already, or a value is wrong.

    Reference: Mnih et al., "Human-level control through deep reinforcement learning", 2015, methods (stacked frames).
    """
    if isinstance(env, StackedEnvironment):
        raise ValueError("env must not be stacked already; stack the bare environment with the number wanted")
    if env.physics_axis is not None:
        raise ValueError("env must not be pooled; use stacked_family on the pooled family")
    check_count("num_frames", num_frames)
    check("actions", actions, lambda v: isinstance(v, bool), "must be True or False")
    shape, space = env.observation_space().shape, env.action_space()
    if len(shape) != 1 or not (hasattr(space, "n") or len(space.shape) == 1):
        raise ValueError(
            f"env must have a flat observation box [d] and discrete actions or a flat action box, got observations of "
            f"shape {shape} and actions of shape {space.shape} from {env.name}; flatten them in the environment"
        )
    return StackedEnvironment(env, int(num_frames), actions)


def stacked_family(family: Family, num_frames: int = 4, actions: bool = True) -> Family:
    """The same agents with the same physics, each seeing its last few steps: a memory without a recurrent network.

    The observation is the last k observations and the k - 1 actions between them, newest first, zeros before the
    episode. A pooled family is stacked inside.

    Args:
        family: whose worlds.
        num_frames: k; 1 shows what the environment shows.
        actions: whether the actions are shown too; a policy that samples cannot know them otherwise.

    Raises:
        ValueError: as `stacked`, or the family has no field `env` to replace.

    Example:
        >>> family = stacked_family(cartpole_family(actuator_polarity=(-1, 1)), num_frames=4)
        >>> family.env.observation_space().shape
        (22,)
    """
    if isinstance(family, PooledFamily):
        return dataclasses.replace(family, single=stacked_family(family.single, num_frames, actions))
    if not dataclasses.is_dataclass(family) or "env" not in {field.name for field in dataclasses.fields(family)}:
        raise ValueError(f"family must have a field env, got {family!r}; build it from stacked(env, num_frames)")
    return dataclasses.replace(family, env=stacked(family.env, num_frames, actions))  # type: ignore[type-var]
