"""What an environment is: one MDP whose physics is an argument."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ._physics import Rule


State = Any
Params = Any
Observation = Any
Noise = Any


class Environment(abc.ABC):
    """One Markov decision process whose physics `params` is an argument, so that agents may differ in it.

    Follows gymnax 1.0 where gymnax has a word: `reset(key, params)`, `step(key, state, action, params)` with six
    values, `step_env` without automatic reset, spaces, `default_params`. Unlike there, the randomness of a reset is
    drawn apart from its use (`reset_noise`, `reset_from`), so that a rollout draws all its resets at once. Methods see
    one environment; `vmap` over it. An environment is structure: hashable, compared by value, without arrays inside.

    A state is a pytree with a strongly typed i32 `time`, the steps since the reset; its types do not change in a step.
    Parameters are a NamedTuple or dataclass with the time limit in `max_steps_in_episode`.
    """

    physics_axis: ClassVar[int | None] = None
    """None: all environments of an agent share one physics. 0: each has its own (see `pooled`)."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name of the task."""

    @property
    @abc.abstractmethod
    def default_params(self) -> Params:
        """Nominal physics."""

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Which values the physics parameters may take; a parameter without a rule takes any finite number."""
        return {}

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""
        space = self.action_space()
        if not hasattr(space, "n"):
            raise AttributeError(f"{self.name} has continuous actions, see action_space()")
        return space.n

    @abc.abstractmethod
    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> Noise:
        """All randomness of as many resets as the shape has elements, a pytree [*shape, ...]."""

    @abc.abstractmethod
    def reset_from(self, noise: Noise, params: Params) -> tuple[Observation, State]:
        """The first observation and state of an episode; nothing is drawn here."""

    @abc.abstractmethod
    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[Observation, State, jax.Array, jax.Array, dict[str, Any]]:
        """One step without automatic reset.

        Args:
            key: for stochastic dynamics; deterministic ones ignore it.
            state: state of this environment.
            action: i32[] for discrete actions, float [action size] otherwise.
            params: physics.

        Returns:
            observation, state, reward float[], terminated bool[], further information.
        """

    def is_truncated(self, state: State, params: Params) -> jax.Array:
        """Whether the time limit is reached, bool[]."""
        return state.time >= params.max_steps_in_episode

    @abc.abstractmethod
    def observation_space(self, params: Params | None = None) -> Any:
        """Box of observations."""

    @abc.abstractmethod
    def action_space(self, params: Params | None = None) -> Any:
        """Discrete or Box of actions."""

    def reset(self, key: jax.Array, params: Params | None = None) -> tuple[Observation, State]:
        """Starts an episode: observation and state."""
        return self.reset_from(self.reset_noise(key, ()), self.default_params if params is None else params)

    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Params | None = None
    ) -> tuple[Observation, State, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step; where it ends the episode, observation and state are the first ones of the next episode.

        Returns:
            observation, state, reward float[], terminated bool[], truncated bool[], information, in which
            `final_observation` is the observation that the step led to, whether or not a reset followed.
        """
        params = self.default_params if params is None else params
        k_step, k_reset = jax.random.split(key)
        last, stepped, reward, terminated, info = self.step_env(k_step, state, action, params)
        truncated = self.is_truncated(stepped, params)
        fresh = self.reset(k_reset, params)
        ended = jnp.logical_or(terminated, truncated)
        observation, state = jax.tree.map(lambda new, old: jax.lax.select(ended, new, old), fresh, (last, stepped))
        return observation, state, reward, terminated, truncated, {**info, "final_observation": last}


@dataclasses.dataclass(frozen=True)
class EnvironmentWrapper(Environment):
    """An environment that is another one but for what a subclass says."""

    env: Environment

    @property
    def name(self) -> str:
        return self.env.name

    @property
    def default_params(self) -> Params:
        return self.env.default_params

    @property
    def rules(self) -> Mapping[str, Rule]:
        return self.env.rules

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> Noise:
        return self.env.reset_noise(key, shape)

    def reset_from(self, noise: Noise, params: Params) -> tuple[Observation, State]:
        return self.env.reset_from(noise, params)

    def step_env(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[Observation, State, jax.Array, jax.Array, dict[str, Any]]:
        return self.env.step_env(key, state, action, params)

    def is_truncated(self, state: State, params: Params) -> jax.Array:
        return self.env.is_truncated(state, params)

    def observation_space(self, params: Params | None = None) -> Any:
        return self.env.observation_space(params)

    def action_space(self, params: Params | None = None) -> Any:
        return self.env.action_space(params)
