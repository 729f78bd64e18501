"""Finite MDPs whose kernel and rewards are physics."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check, check_count

from .._environment import Environment
from .._physics import Rule
from .._spaces import Box, Discrete
from ._categorical import inverse_cdf


class TabularParams(NamedTuple):
    """One discounted finite MDP; a leading axis holds agents."""

    kernel: Any  # f[S, A, S] P(s' | s, a)
    reward: Any  # f[S, A] expected reward
    initial: Any  # f[S] law of the first state
    max_steps_in_episode: Any = 100  # i[]


class TabularState(NamedTuple):
    """Where the chain is."""

    state: jax.Array  # i32[]
    time: jax.Array  # i32[] steps since the reset


RULES = {"max_steps_in_episode": Rule(low=1, integer=True)}


@dataclasses.dataclass(frozen=True)
class TabularMDP(Environment):
    """A finite MDP (S, A, P, r, rho) with the arrays as physics.

        s_0 ~ rho,  s_{t+1} ~ P(. | s_t, a_t),  reward r(s_t, a_t)

    The observation is the state, one-hot, so that linear and neural learners of every kind run on it. The reward is
    the expected one: it has the same values and less noise than one paid on arrival. An episode never terminates: an
    end is an absorbing state without reward. It is truncated after `max_steps_in_episode`.

    Args:
        state_size: S.
        action_size: A.
        branching: b, the most successors that a state and action of any agent may have; None: S. Learners that draw
            whole transitions keep tables of S A b of them.
    """

    state_size: int
    action_size: int
    branching: int | None = None

    def __post_init__(self) -> None:
        check_count("state_size", self.state_size)
        check_count("action_size", self.action_size)
        if self.branching is not None:
            check_count("branching", self.branching)
            limit = f"must be at most state_size = {self.state_size}"
            check("branching", self.branching, lambda v: v <= self.state_size, limit)

    @property
    def name(self) -> str:
        return f"TabularMDP-{self.state_size}x{self.action_size}"

    @property
    def num_states(self) -> int:
        """S."""
        return self.state_size

    @property
    def num_transitions(self) -> int:
        """The most (s, a, s') that may have a probability above zero."""
        return self.state_size * self.action_size * (self.branching or self.state_size)

    @property
    def default_params(self) -> TabularParams:
        """Every state follows every other with the same probability; no reward."""
        states, actions = self.state_size, self.action_size
        kernel = np.broadcast_to(1 / states, (states, actions, states))
        return TabularParams(kernel, np.zeros((states, actions)), np.full((states,), 1 / states))

    @property
    def rules(self) -> Mapping[str, Rule]:
        return RULES

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """float[*shape]: one uniform number a reset."""
        return jax.random.uniform(key, shape)

    def reset_from(self, noise: jax.Array, params: TabularParams) -> tuple[jax.Array, TabularState]:
        state = TabularState(inverse_cdf(noise, params.initial), jnp.int32(0))
        return self._observe(state, params), state

    def step_env(
        self, key: jax.Array, state: TabularState, action: jax.Array, params: TabularParams
    ) -> tuple[jax.Array, TabularState, jax.Array, jax.Array, dict[str, Any]]:
        here = (state.state, action)
        following = inverse_cdf(jax.random.uniform(key, ()), jnp.asarray(params.kernel)[here])
        reward = jnp.asarray(params.reward)[here].astype(dtype_of(params))
        new = TabularState(following, state.time + 1)
        return self._observe(new, params), new, reward, jnp.zeros((), bool), {}

    def _observe(self, state: TabularState, params: TabularParams) -> jax.Array:
        return jax.nn.one_hot(state.state, self.state_size, dtype=dtype_of(params))

    def observation_space(self, params: TabularParams | None = None) -> Box:
        del params
        return Box(0.0, 1.0, (self.state_size,))

    def action_space(self, params: TabularParams | None = None) -> Discrete:
        del params
        return Discrete(self.action_size)


def branching_of(kernel: Any) -> int | None:
    """The most successors of any state and action in f[..., S]; None where these are all states."""
    kernel = np.asarray(kernel)
    most = int(np.count_nonzero(kernel, axis=-1).max())
    return None if most == kernel.shape[-1] else most


def dtype_of(params: Any) -> Any:
    """Of observations and rewards."""
    return jnp.result_type(float, params.kernel, params.reward)
