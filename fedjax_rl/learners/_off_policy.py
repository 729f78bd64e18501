"""What the off-policy objectives share: playing into a replay buffer, drawing from it, moving target networks."""

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import check_choice, check_count, check_range, component, static, tree
from ..policies import Policy
from ..rl import Replay, RolloutState, Trajectory, init_replay, init_rollout, rollout
from ._objective import Collected, Objective, check_world
from ._on_policy import check_discounting, report_episodes


PyTree = Any


class Transition(NamedTuple):
    """Steps of the environment, leaves [..., ...]; the rows of a replay buffer and of a batch."""

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array  # bool: nothing follows; a time limit is no such end
    next_observation: jax.Array  # what the step led to, before any reset
    mask: Any  # bool: a real step, to be learned from; () in a memory where all steps are real


class OffPolicyState(NamedTuple):
    """What an off-policy agent keeps."""

    rollout: RolloutState | tuple[()]  # environments under way; none where every local step starts afresh
    replay: Replay  # of `Transition`s
    target: PyTree  # the slow copy of what `tracked` chooses
    # i32[] local steps so far; schedules read it
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


@component
class Practice:
    """How an agent plays into its memory, and how much it draws; build it with `practice`."""

    policy: Any = static()
    num_envs: int = static()
    num_steps: int = static()
    capacity: int = static()
    batch_size: int = static()
    episodes: str = static()
    learning_starts: Any


class OffPolicy(Objective):
    """An objective that learns from what it remembers; a subclass has these fields and says how it acts and learns."""

    play: Practice
    discount: Any
    target_rate: Any
    target_period: Any

    tells_returns = True

    # ------------------------------------------------------------ what a subclass says

    @abc.abstractmethod
    def act(self, params: PyTree, observation: jax.Array, noise: jax.Array, count: jax.Array) -> jax.Array:
        """The actions [E, ...] that gather experience after `count` i32[] local steps."""

    @abc.abstractmethod
    def tracked(self, params: PyTree) -> PyTree:
        """The part of the parameters that has a slow copy."""

    # ------------------------------------------------------------ what they share

    @property
    def policy(self) -> Policy:
        return self.play.policy

    @property
    def num_envs(self) -> int:
        return self.play.num_envs

    @property
    def env_steps(self) -> int:
        return self.play.num_envs * self.play.num_steps

    @property
    def batch_size(self) -> int:
        return self.play.batch_size

    def check(self, env: Any, physics: PyTree) -> None:
        check_world(self.play.policy, self.play.num_envs, env, physics)

    def init(self, key: jax.Array, env: Any) -> PyTree:
        return self.play.policy.init(key)

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree) -> OffPolicyState:
        continues = self.play.episodes == "continue"
        start = init_rollout(key, env, physics, self.play.num_envs) if continues else ()
        _, played, _ = jax.eval_shape(
            lambda: self._played(key, env, physics, params, start, jnp.int32(0))  # only for shapes and dtypes
        )
        row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), self._transitions(played))
        replay = init_replay(row, self.play.capacity)
        return OffPolicyState(start, replay, self.tracked(params), jnp.int32(0))

    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: OffPolicyState) -> Collected:
        """Plays, remembers, and draws a batch; while the memory is small its rows do not count."""
        k_play, k_sample = jax.random.split(key)
        end, played, metrics = self._played(k_play, env, physics, params, state.rollout, state.count)
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self._transitions(played))
        replay = state.replay.add(rows)
        batch = replay.sample(k_sample, self.play.batch_size)
        ready = jnp.broadcast_to(replay.size >= self.play.learning_starts, (self.play.batch_size,))
        batch = batch._replace(mask=ready & batch.mask if self.play.episodes == "fresh" else ready)
        num_samples = metrics["env_steps"].total.astype(jnp.float32)
        return Collected(batch, state._replace(rollout=end, replay=replay), num_samples, metrics)

    def after_step(self, params: PyTree, state: OffPolicyState, batch: Transition) -> OffPolicyState:
        """target <- (1 - rate) target + rate params, in every `target_period`-th local step."""
        count = state.count + 1
        rate = self.target_rate
        moved = jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, state.target, self.tracked(params))
        return state._replace(target=tree.where(count % self.target_period == 0, moved, state.target), count=count)

    def bootstrapped(self, batch: Transition, following: jax.Array) -> jax.Array:
        """The temporal-difference target y = r + gamma (1 - terminated) V(s'), f32[S]; nothing flows through it."""
        going_on = jnp.where(batch.terminated, jnp.zeros((), following.dtype), following)
        return jax.lax.stop_gradient(batch.reward + self.discount * going_on)

    def _played(
        self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: Any, count: jax.Array
    ) -> tuple[Any, Trajectory, dict[str, Any]]:
        """The environments' next state, T steps of E environments, and the report of the episodes that ended."""
        k_reset, k_act, k_play = jax.random.split(key, 3)
        fresh = self.play.episodes == "fresh"
        start = init_rollout(k_reset, env, physics, self.play.num_envs) if fresh else state

        def act(noise: jax.Array, observation: jax.Array) -> tuple[jax.Array, tuple[()]]:
            return self.act(params, observation, noise, count), ()

        noise = self.play.policy.noise(k_act, (self.play.num_steps, self.play.num_envs))
        end, trajectory = rollout(k_play, env, physics, act, noise, start, auto_reset=not fresh)
        return () if fresh else end, trajectory, report_episodes(start, trajectory)

    def _transitions(self, t: Trajectory) -> Transition:
        mask = t.mask if self.play.episodes == "fresh" else ()
        return Transition(t.observation, t.action, t.reward, t.terminated, t.final_observation, mask)


def practice(
    policy: Policy, num_envs: int, num_steps: int, capacity: int, batch_size: int, learning_starts: int, episodes: str
) -> Practice:
    """Validates and builds `Practice`; the arguments are those of the objectives."""
    check_count("num_envs", num_envs)
    check_count("num_steps", num_steps)
    check_count("capacity", capacity)
    check_count("batch_size", batch_size)
    check_choice("episodes", episodes, ("continue", "fresh"))
    block = num_envs * num_steps
    capacity = -(-capacity // block) * block
    check_range("learning_starts", learning_starts, 0, capacity, remedy="or nothing is ever learned")
    return Practice(policy, num_envs, num_steps, capacity, batch_size, episodes, learning_starts)


def check_targets(discount: Any, target_rate: Any, target_period: Any) -> None:
    """Raises unless the numbers of temporal-difference learning with a slow copy are good."""
    check_discounting(discount)
    check_range("target_rate", target_rate, 0, 1, open_low=True, remedy="1 copies, less follows slowly")
    check_count("target_period", target_period)
