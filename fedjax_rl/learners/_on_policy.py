"""What the on-policy objectives share: playing, bootstrapping and the batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import Mean, Sum, check_choice, check_count, check_flag, check_range, component, static, tree
from ..policies import Policy
from ..rl import (
    RolloutState,
    Trajectory,
    generalized_advantages,
    init_rollout,
    normalize,
    rollout,
    run_if_any,
)
from ._objective import Collected, Objective


PyTree = Any


class Values(NamedTuple):
    """The critic's opinion of a trajectory."""

    value: jax.Array  # f32[T, E] V(s_t)
    final_value: jax.Array  # f32[T, E] V(final observation) where an episode was truncated, 0 elsewhere
    last_value: jax.Array  # f32[E] V(observation after the last step)


class Batch(NamedTuple):
    """On-policy samples, leaves [S, ...] with S = T E."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array  # f32[S] under the behaviour policy
    value: jax.Array  # f32[S]
    advantage: jax.Array  # f32[S]
    target: jax.Array  # f32[S] of the critic
    mask: jax.Array  # bool[S] a real step


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
        return () if self.episodes == "fresh" else init_rollout(key, env, physics, self.num_envs)

    def __call__(
        self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: Any
    ) -> tuple[Trajectory, Values, Any, dict[str, Any]]:
        """Plays `num_steps` steps of `num_envs` environments of one agent.

        Returns:
            the trajectory with leaves [T, E, ...] (`extras` = (log_prob, value)), the critic's values, the next
            state, and the report of the episodes that ended.
        """
        k_reset, k_act, k_play = jax.random.split(key, 3)
        fresh = self.episodes == "fresh"
        start = init_rollout(k_reset, env, physics, self.num_envs) if fresh else state

        def act(noise: jax.Array, observation: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            distribution, value = self.policy.apply(params, observation)
            action = distribution.sample(noise)
            # By the function that the loss calls too: of a saturated squashed action only like ratios cancel.
            return action, (distribution.log_prob(action), value)

        noise = self.policy.noise(k_act, (self.num_steps, self.num_envs))
        end, trajectory = rollout(k_play, env, physics, act, noise, start, auto_reset=not fresh)
        ended = trajectory.terminated | trajectory.truncated
        count = jnp.sum(ended)
        metrics = {
            "env_steps": Sum(jnp.sum(trajectory.mask, dtype=jnp.int32)),
            "episodes": Sum(jnp.sum(ended, dtype=jnp.int32)),
            "train_return_mean": Mean(jnp.sum(jnp.where(ended, trajectory.episode_return, 0)), count),
            "episode_length": Mean(jnp.sum(jnp.where(ended, trajectory.episode_length, 0)), count),
        }
        return trajectory, self._values(params, trajectory, end), () if fresh else end, metrics

    def _values(self, params: PyTree, trajectory: Trajectory, end: RolloutState) -> Values:
        value = trajectory.extras[1]
        last_value = self.policy.apply(params, end.observation)[1]
        if not self.bootstrap_on_truncation:
            return Values(value, jnp.zeros_like(value), last_value)
        cut = trajectory.truncated & ~trajectory.terminated
        # Most rollouts are cut nowhere: look at the final observations only where some are.
        final_value = run_if_any(
            jnp.any(cut), lambda p, x: self.policy.apply(p, x)[1], params, trajectory.final_observation
        )
        return Values(value, jnp.where(cut, final_value, 0), last_value)


class OnPolicy(Objective):
    """An objective that learns from what it has just played; a subclass has the field `play` and says how."""

    play: Play

    @property
    def batch_size(self) -> int:
        return self.play.num_envs * self.play.num_steps

    def check(self, env: Any, physics: PyTree) -> None:
        self.play.policy.check(env)
        worlds = None if env.physics_axis is None else jax.tree.leaves(physics)[0].shape[0]
        if worlds not in (None, self.play.num_envs):
            raise ValueError(f"num_envs must be {worlds}, the pooled worlds of an agent, got {self.play.num_envs}")

    def init(self, key: jax.Array, env: Any) -> PyTree:
        return self.play.policy.init(key)

    def init_local(self, key: jax.Array, env: Any, physics: PyTree) -> PyTree:
        return self.play.init_state(key, env, physics)

    def log_prob(self, params: PyTree, batch: Batch) -> jax.Array:
        return self.play.policy.apply(params, batch.observation)[0].log_prob(batch.action)


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


def make_batch(trajectory: Trajectory, advantage: jax.Array, target: jax.Array) -> Batch:
    """Flattens [T, E, ...] to [S, ...]."""
    log_prob, value = trajectory.extras
    parts = Batch(trajectory.observation, trajectory.action, log_prob, value, advantage, target, trajectory.mask)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)


def collect_with_advantages(
    play: Play,
    key: jax.Array,
    env: Any,
    physics: PyTree,
    params: PyTree,
    state: Any,
    discount: Any,
    gae_lambda: Any,
    normalization: str,
) -> Collected:
    """Plays, and turns the trajectory into samples with generalised advantages and the critic's targets.

    normalization: "none", "advantages", or "returns" (then the targets are normalised and the advantage is their
    difference to V).
    """
    trajectory, values, state, metrics = play(key, env, physics, params, state)
    advantage, target = generalized_advantages(
        trajectory.reward,
        values.value,
        trajectory.terminated,
        trajectory.truncated,
        values.final_value,
        values.last_value,
        discount,
        gae_lambda,
    )
    if normalization == "returns":
        target = normalize(target, trajectory.mask)
        advantage = target - values.value
    elif normalization == "advantages":
        advantage = normalize(advantage, trajectory.mask)
    batch = make_batch(trajectory, advantage, target)
    return Collected(batch, state, metrics["env_steps"].total.astype(jnp.float32), metrics)


def check_discounting(discount: Any, gae_lambda: Any = 1.0) -> None:
    """Raises unless both lie in [0, 1]."""
    check_range("discount", discount, 0, 1)
    check_range("gae_lambda", gae_lambda, 0, 1)


def agents_per_chunk(policy: Policy, num_envs: int) -> int:
    """A good `chunk_size` for `make_round` on a CPU (measured): rows enough for the vectors, models that fit the cache.

    Args:
        policy: what the agents act with.
        num_envs: environments (E) of one agent.
    """
    params = jax.eval_shape(lambda: policy.init(jax.random.key(0)))  # touches no device
    model_bytes = tree.num_bits(params) // 8
    return max(1, min(100, 400 // num_envs, 16 * 2**20 // (3 * model_bytes)))
