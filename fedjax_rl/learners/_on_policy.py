"""What the on-policy objectives share: playing, bootstrapping and the batch."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ..core import Mean, Sum, check_choice, check_count, check_flag, check_range, component, static, tree
from ..policies import Distribution, Memory, Policy
from ..rl import (
    RolloutState,
    Trajectory,
    check_schedule,
    discounted_returns,
    ended_episodes,
    entropy_bonus,
    generalized_advantages,
    init_rollout,
    rollout,
    run_if_any,
    value_at,
)
from ._objective import Collected, Objective, check_world


PyTree = Any
# The gradient of whole episodes is taken in at most so many blocks, of a multiple of so many rows: what the widest
# vector registers hold, which products of matrices are fastest with.
_BLOCKS, _LANES = 20, 16


class Values(NamedTuple):
    """The critic's opinion of a trajectory."""

    value: jax.Array  # f32[T, E] V(s_t)
    final_value: jax.Array  # f32[T, E] V(final observation) where an episode was truncated, 0 elsewhere
    last_value: jax.Array  # f32[E] V(observation after the last step)


class Recall(NamedTuple):
    """What the policy needs besides the observations of a row, where it remembers."""

    memory: Memory  # leaves [E, ...] before the first step, of the policy that acted
    starts: jax.Array  # bool[E, T] an episode begins here: what was before is forgotten


class Batch(NamedTuple):
    """On-policy samples, leaves [S, ...] with S = T E; [E, T, ...], a row per environment, of a policy with memory."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array  # f32[S] under the behaviour policy
    value: jax.Array  # f32[S]
    advantage: jax.Array  # f32[S]
    target: jax.Array  # f32[S] of the critic
    mask: jax.Array  # bool[S] a real step
    after: PyTree = ()  # what a subclass adds, leaves [S, ...]
    recall: Recall | tuple[()] = ()  # of a policy with memory


# advantage and target f32[T, E], and perhaps what becomes `Batch.after`
Estimate = Callable[[Trajectory, Values], tuple[Any, ...]]


class PlayState(NamedTuple):
    """What an on-policy agent keeps."""

    rollout: RolloutState | tuple[()]  # environments under way; none where every round starts afresh
    # i32[] local steps so far; schedules read it
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    extra: PyTree = ()  # what a subclass adds


@component
class Play:
    """How an agent plays between two gradient computations."""

    policy: Policy = static()
    num_envs: int = static()
    num_steps: int = static()
    episodes: str = static(default="continue")
    bootstrap_on_truncation: bool = static(default=True)

    def init_state(self, key: jax.Array, env: Any, physics: PyTree) -> RolloutState | tuple[()]:
        """Environments under way; none where every round starts afresh."""
        return () if self.episodes == "fresh" else self._start(key, env, physics)

    def _start(self, key: jax.Array, env: Any, physics: PyTree) -> RolloutState:
        return init_rollout(key, env, physics, self.num_envs, self.policy.initial_memory((self.num_envs,)))

    def __call__(
        self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: Any
    ) -> tuple[Trajectory, Values, Any, dict[str, Any]]:
        """Plays `num_steps` steps of `num_envs` environments of one agent.

        Returns:
            the trajectory with leaves [T, E, ...] (`extras` = (log_prob, value, the memory after the step)), the
            critic's values, the next state, and the report of the episodes that ended.
        """
        k_reset, k_act, k_play = jax.random.split(key, 3)
        fresh = self.episodes == "fresh"
        start = self._start(k_reset, env, physics) if fresh else state

        def act(noise: jax.Array, observation: jax.Array, *memory: jax.Array) -> tuple[Any, ...]:
            after, distribution, value = self.policy.step(params, memory, observation)
            action = distribution.sample(noise)
            # By the function that the loss calls too: of a saturated squashed action only like ratios cancel.
            return action, (distribution.log_prob(action), value, after), *after

        noise = self.policy.noise(k_act, (self.num_steps, self.num_envs))
        end, trajectory = rollout(k_play, env, physics, act, noise, start, auto_reset=not fresh)
        metrics = report_episodes(start, trajectory)
        trajectory = trajectory._replace(reward=trajectory.reward * self.policy.reward_scale(params))
        return trajectory, self._values(params, trajectory, end), () if fresh else end, metrics

    def _values(self, params: PyTree, trajectory: Trajectory, end: RolloutState) -> Values:
        _, value, memory = trajectory.extras
        last_value = self.policy.step(params, end.memory, end.observation)[2]
        if not self.bootstrap_on_truncation:
            return Values(value, jnp.zeros_like(value), last_value)
        cut = trajectory.truncated & ~trajectory.terminated
        # Most rollouts are cut nowhere: look at the final observations only where some are.
        final_value = run_if_any(
            jnp.any(cut), lambda p, m, x: self.policy.step(p, m, x)[2], params, memory, trajectory.final_observation
        )
        return Values(value, jnp.where(cut, final_value, 0), last_value)

    def batch(
        self, state: Any, trajectory: Trajectory, advantage: jax.Array, target: jax.Array, after: PyTree = ()
    ) -> Batch:
        """Turns [T, E, ...] into rows: samples [S, ...], or environments [E, T, ...] of a policy with memory.

        `state` is what the trajectory began with, as `__call__` got it.
        """
        log_prob, value, _ = trajectory.extras
        parts = Batch(
            trajectory.observation, trajectory.action, log_prob, value, advantage, target, trajectory.mask, after
        )  # fmt: skip
        if not self.policy.has_memory:
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)
        memory = self.policy.initial_memory((self.num_envs,)) if self.episodes == "fresh" else state.memory
        ended = (trajectory.terminated | trajectory.truncated)[:-1]
        starts = jnp.concatenate([jnp.zeros((1, self.num_envs), bool), ended])  # the rollout has emptied the first
        return turned(parts)._replace(recall=Recall(memory, starts.T))

    def evaluate(self, params: PyTree, batch: Batch) -> tuple[Distribution, jax.Array]:
        """The distributions and V at the steps of a batch, of its mask's shape; through time where it remembers."""
        if isinstance(batch.recall, Recall):
            memory, starts = batch.recall
            return turned(self.policy.network.unroll(params, memory, turned(batch.observation), starts.T))
        return self.policy.network.apply(params, batch.observation)


class OnPolicy(Objective):
    """An objective that learns from what it has just played; a subclass has these fields and says how."""

    play: Play
    discount: Any
    value_cost: Any  # a number or a schedule, as the next
    entropy_cost: Any

    tells_returns = True
    # True: the loss is a mean over real rows, so that it adds up over blocks weighted by them. Whoever compares rows
    # with each other in the loss, as by normalising advantages there, must not say so.
    additive: ClassVar[bool] = False

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
        return self.play.num_envs * (1 if self.play.policy.has_memory else self.play.num_steps)

    def check(self, env: Any, physics: PyTree) -> None:
        check_world(self.play.policy, self.play.num_envs, env, physics)

    def init(self, key: jax.Array, env: Any) -> PyTree:
        return self.play.policy.network.init(key)

    def init_statistics(self, env: Any) -> PyTree:
        return self.play.policy.init_statistics()

    def complete(self, params: PyTree, statistics: PyTree) -> PyTree:
        return self.play.policy.complete(params, statistics)

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree) -> PlayState:
        return PlayState(self.play.init_state(key, env, physics), jnp.int32(0))

    def after_step(self, params: PyTree, state: PlayState, batch: Batch) -> PlayState:
        return state._replace(count=state.count + 1)

    def collect_with(
        self, estimate: Estimate, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PlayState
    ) -> Collected:
        """Plays, and turns the trajectory into samples by estimate(trajectory, values) -> (advantage, target, ...)."""
        trajectory, values, rollout, metrics = self.play(key, env, physics, params, state.rollout)
        policy, seen = self.play.policy, trajectory.observation
        estimates = estimate(trajectory, values)
        # The network learns from what it has read, even if the statistics move on.
        trajectory = trajectory._replace(observation=policy.process(params, seen))
        batch = self.play.batch(state.rollout, trajectory, *estimates)
        num_samples = metrics["env_steps"].total.astype(jnp.float32)
        nothing = jnp.zeros_like(values.last_value)
        raw = trajectory.reward / policy.reward_scale(params)
        ends = (trajectory.terminated, trajectory.truncated, jnp.zeros_like(values.final_value), nothing)
        returns = discounted_returns(raw, *ends, self.discount)  # unused, and not computed, without statistics
        statistics = policy.observe(seen, returns, trajectory.mask)
        return Collected(batch, state._replace(rollout=rollout), num_samples, metrics, statistics)

    def total_loss(
        self, policy_loss: jax.Array, critic_loss: jax.Array, distribution: Any, state: PlayState, batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """policy loss + value_cost critic loss - entropy_cost mean(entropy), and the report."""
        entropy = entropy_bonus(distribution.entropy(), batch.mask)
        value_cost, entropy_cost = value_at(self.value_cost, state.count), value_at(self.entropy_cost, state.count)
        total = policy_loss + value_cost * critic_loss - entropy_cost * entropy
        return total, {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy}

    def parts(self, params: PyTree) -> PyTree:
        return self.play.policy.parts(params)

    def by_block(self, batch: Batch) -> tuple[Callable[[jax.Array], Batch], jax.Array] | None:
        if not self.additive or self.play.episodes == "continue" or self.play.policy.has_memory:
            return None
        num_rows = batch.mask.shape[0]
        size = self.play.num_envs * max(1, self.play.num_steps // _BLOCKS)
        size = -(-size // _LANES) * _LANES
        num_blocks = -(-num_rows // size)
        place = jnp.cumsum(batch.mask)  # of each real row among them, from 1 on
        num_real, numbers = place[-1], jnp.arange(num_rows, dtype=jnp.int32)
        real = jnp.zeros((num_blocks * size,), jnp.int32)
        real = real.at[jnp.where(batch.mask, place - 1, num_blocks * size)].set(numbers, mode="drop")

        def block(number: jax.Array) -> Batch:
            begin = number * size
            rows = jax.lax.dynamic_slice_in_dim(real, begin, size)
            return tree.take(batch, rows)._replace(mask=begin + jnp.arange(size) < num_real)

        left = num_real - size * jnp.arange(num_blocks)
        return block, jnp.clip(left, 0, size) / jnp.maximum(num_real, 1)

    @property
    def whole_trajectories(self) -> bool:
        return self.play.episodes == "fresh"

    def distribution(self, params: PyTree, batch: Batch) -> tuple[Any, jax.Array]:
        return self.play.evaluate(params, batch)[0], batch.mask

    def log_prob(self, params: PyTree, batch: Batch) -> jax.Array:
        return jnp.where(batch.mask, self.distribution(params, batch)[0].log_prob(batch.action), 0)

    def over_trajectories(self, batch: Batch, x: jax.Array) -> jax.Array:
        if self.play.policy.has_memory:
            return jnp.broadcast_to(jnp.sum(x, 1, keepdims=True), x.shape)
        grid = x.reshape(-1, self.play.num_envs)  # whole batches keep their order: [T, E] in rows
        return jnp.broadcast_to(jnp.sum(grid, 0, keepdims=True), grid.shape).reshape(-1)

    @property
    def num_trajectories(self) -> int:
        return self.play.num_envs

    def by_trajectory(self, batch: Batch) -> tuple[Batch, jax.Array]:
        if self.play.policy.has_memory:
            pieces = jax.tree.map(lambda x: x[:, None], batch)
        else:  # whole batches keep their order: [T, E] in rows
            pieces = turned(jax.tree.map(lambda x: x.reshape(-1, self.play.num_envs, *x.shape[1:]), batch))
        steps = jnp.sum(pieces.mask.reshape(self.play.num_envs, -1), 1)
        return pieces, steps / jnp.maximum(jnp.sum(steps), 1)

    def reweigh(self, batch: Batch, weight: jax.Array) -> Batch:
        return batch._replace(advantage=batch.advantage * weight)


def play(
    policy: Policy, num_envs: int, num_steps: int, episodes: str = "continue", bootstrap_on_truncation: bool = True
) -> Play:
    """Validates and builds `Play`; the arguments are those of the objectives."""
    if not isinstance(policy, Policy):
        raise ValueError(f"policy must be a Policy, got {policy!r}; build one with mlp_policy(family.env)")
    check_count("num_envs", num_envs)
    check_count("num_steps", num_steps)
    check_choice("episodes", episodes, ("continue", "fresh"))
    check_flag("bootstrap_on_truncation", bootstrap_on_truncation)
    return Play(policy, num_envs, num_steps, episodes, bootstrap_on_truncation)


def report_episodes(start: RolloutState, trajectory: Trajectory) -> dict[str, Any]:
    """Steps played, and the episodes that ended."""
    ended = ended_episodes(start, trajectory)
    return {
        "env_steps": Sum(jnp.sum(trajectory.mask, dtype=jnp.int32)),
        "episodes": Sum(ended.num),
        "train_return_mean": Mean(ended.total_return, ended.num),
        "episode_length": Mean(ended.total_length, ended.num),
    }


def turned(values: PyTree) -> PyTree:
    """[T, E, ...] as [E, T, ...] and back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), values)


def gae(discount: Any, gae_lambda: Any) -> Estimate:
    """Generalised advantages and their targets."""

    def estimate(trajectory: Trajectory, values: Values) -> tuple[jax.Array, jax.Array]:
        return generalized_advantages(
            trajectory.reward, values.value, trajectory.terminated, trajectory.truncated, values.final_value,
            values.last_value, discount, gae_lambda,
        )  # fmt: skip

    return estimate


def check_costs(value_cost: Any, entropy_cost: Any) -> None:
    """Raises unless both are numbers or schedules >= 0."""
    check_schedule("value_cost", value_cost, 0)
    check_schedule("entropy_cost", entropy_cost, 0)


def check_discounting(discount: Any, gae_lambda: Any = 1.0) -> None:
    """Raises unless both lie in [0, 1]."""
    check_range("discount", discount, 0, 1)
    check_range("gae_lambda", gae_lambda, 0, 1)
