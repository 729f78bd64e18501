"""Playing: T steps of the E environments of one agent."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from ._branch import greatest


PyTree = Any
_BLOCKS = 20  # a rollout without resets looks so often whether everybody has come to an end
Act = Callable[..., tuple[Any, ...]]


class Playable(Protocol):
    """What a rollout asks of an environment; all methods see ONE environment."""

    physics_axis: ClassVar[int | None]

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> PyTree: ...

    def reset_from(self, noise: PyTree, params: PyTree) -> tuple[PyTree, PyTree]: ...

    def step_env(
        self, key: jax.Array, state: PyTree, action: PyTree, params: PyTree
    ) -> tuple[PyTree, PyTree, jax.Array, jax.Array, dict[str, Any]]: ...

    def is_truncated(self, state: PyTree, params: PyTree) -> jax.Array: ...


class RolloutState(NamedTuple):
    """E environments under way."""

    env_state: PyTree  # leaves [E, ...]
    observation: PyTree  # [E, ...] what the next action is chosen from
    episode_return: jax.Array  # f32[E] undiscounted, of the episode under way
    episode_length: jax.Array  # i32[E] steps of the episode under way
    memory: tuple[jax.Array, ...] = ()  # leaves [E, ...] what the policy remembers of the episode under way


class Trajectory(NamedTuple):
    """T steps of E environments, leaves [T, E, ...]."""

    observation: PyTree  # what the action was chosen from
    action: PyTree
    reward: jax.Array  # 0 where the step is not real
    terminated: jax.Array  # bool: this step ended the episode for good
    truncated: jax.Array  # bool: this step reached the time limit
    final_observation: PyTree  # what the step led to, before a reset
    mask: jax.Array  # bool: a real step; False once an environment stands still
    extras: PyTree  # what `act` returned besides the action
    episode_return: jax.Array  # f32 running total, this step included: the episode's return where it ended
    episode_length: jax.Array  # i32 running total, this step included


def init_rollout(
    key: jax.Array, env: Playable, physics: PyTree, num_envs: int, memory: tuple[jax.Array, ...] = ()
) -> RolloutState:
    """Starts one episode in each of `num_envs` environments.

    Args:
        key: of all resets.
        env: the environment.
        physics: of one agent, leaves [...], or [E, ...] where `env.physics_axis` is 0.
        num_envs: E.
        memory: `policy.initial_memory((E,))`, zeros; nothing for a policy that remembers nothing.
    """
    noise = env.reset_noise(key, (num_envs,))
    observation, env_state = _over_envs(env, env.reset_from, num_envs)(noise, physics)
    zero = jnp.zeros((num_envs,), jnp.result_type(float))
    return RolloutState(env_state, observation, zero, jnp.zeros((num_envs,), jnp.int32), memory)


def rollout(
    key: jax.Array, env: Playable, physics: PyTree, act: Act, noise: PyTree, state: RolloutState, *,
    auto_reset: bool = True,
) -> tuple[RolloutState, Trajectory]:  # fmt: skip
    """Plays T steps in E environments of one agent.

    Everything random is drawn at once before the first step: the actions' noise by the caller, the resets here. Inside
    the loop only a stochastic environment draws, from a key of its step and number.

    Args:
        key: of resets and of stochastic environments.
        env: the environment.
        physics: of one agent, leaves [...], or [E, ...] where `env.physics_axis` is 0.
        act: (noise, observation, *memory) -> (action, extras, *memory), all [E, ...]; memory is 0 before an episode.
        noise: leaves [T, E, ...], from `policy.noise(key, (T, E))`; its shape says what T and E are.
        state: from `init_rollout`, or from the rollout before.
        auto_reset: True: an episode that ends is followed by the next one, and the state carries over to the next
            call. False: every environment plays to its first end and stands still from then on (its mask is False, its
            rewards are 0, its state and observation stay those of the end). Start such a rollout from `init_rollout`.
            Once all stand still, of all agents under `vmap`, nothing is computed any more: the rows left are zeros.

    Returns:
        the next state, and the trajectory.
    """
    num_steps, num_envs = jax.tree.leaves(noise)[0].shape[:2]
    k_reset, k_step = jax.random.split(key)

    def one_step(inputs: tuple[jax.Array, PyTree, PyTree], physics: PyTree) -> PyTree:
        return env.step_env(*inputs, physics)

    step_env = _over_envs(env, one_step, num_envs)
    reset_from = _over_envs(env, env.reset_from, num_envs)
    is_truncated = _over_envs(env, env.is_truncated, num_envs)
    real = jnp.ones((num_envs,), bool)

    def play(state: RolloutState, number: jax.Array, noise: PyTree) -> tuple[PyTree, PyTree, jax.Array, Trajectory]:
        action, extras, *memory = act(noise, state.observation, *state.memory)
        keys = jax.random.split(jax.random.fold_in(k_step, number), num_envs)
        final_observation, env_state, reward, terminated, _ = step_env((keys, state.env_state, action), physics)
        truncated = is_truncated(env_state, physics)
        total = state.episode_return + reward.astype(state.episode_return.dtype)
        length = state.episode_length + 1
        step = Trajectory(
            state.observation, action, reward, terminated, truncated, final_observation, real, extras, total, length
        )  # fmt: skip
        return env_state, tuple(memory), jnp.logical_or(terminated, truncated), step

    def step_and_reset(state: RolloutState, xs: PyTree) -> tuple[RolloutState, Trajectory]:
        number, noise, reset_noise = xs
        env_state, memory, ended, step = play(state, number, noise)
        fresh = reset_from(reset_noise, physics)
        observation, env_state = _select(ended, fresh, (step.final_observation, env_state))
        counted = (step.episode_return, step.episode_length, *memory)
        total, length, *memory = _select(ended, (0,) * len(counted), counted)
        return RolloutState(env_state, observation, total, length, tuple(memory)), step

    def step_or_stand(carry: PyTree, xs: PyTree) -> tuple[PyTree, Trajectory]:
        state, alive = carry
        env_state, memory, ended, step = play(state, *xs)
        # Where an episode is over nothing of this step is used: physics may run away after the end.
        played = RolloutState(env_state, step.final_observation, step.episode_return, step.episode_length, memory)
        state = _select(alive, played, state)
        step = step._replace(
            reward=_select(alive, step.reward, 0),
            terminated=alive & step.terminated,
            truncated=alive & step.truncated,
            final_observation=state.observation,
            mask=alive,
            episode_return=state.episode_return,
            episode_length=state.episode_length,
        )
        return (state, jnp.logical_and(alive, jnp.logical_not(ended))), step

    if auto_reset:
        numbers = jnp.arange(num_steps)
        resets = env.reset_noise(k_reset, (num_steps, num_envs))
        state, trajectory = lax.scan(step_and_reset, state, (numbers, noise, resets))
        return state, trajectory._replace(mask=jnp.ones((num_steps, num_envs), bool))
    (state, _), trajectory = _scan_until(lambda carry: jnp.any(carry[1]), step_or_stand, (state, real), noise)
    return state, trajectory


def _scan_until(
    goes_on: Callable[[PyTree], jax.Array], f: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], carry: PyTree,
    xs: PyTree,
) -> tuple[PyTree, PyTree]:  # fmt: skip
    """`lax.scan` of f over (number, x), block by block, that stops when no element of the batch goes on.

    Returns:
        the carry, and the results [T, ...], zeros from where it stopped.
    """
    num_steps = jax.tree.leaves(xs)[0].shape[0]
    size = max(1, num_steps // _BLOCKS)

    def block(begin: jax.Array, size: int, carry: PyTree) -> tuple[PyTree, PyTree]:
        rows = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, begin, size), xs)
        return lax.scan(f, carry, (begin + jnp.arange(size), rows))

    def written(results: PyTree, some: PyTree, begin: jax.Array) -> PyTree:
        return jax.tree.map(lambda all_, x: lax.dynamic_update_slice_in_dim(all_, x, begin, 0), results, some)

    def turn(state: PyTree) -> PyTree:
        begin, carry, results = state
        carry, some = block(begin, size, carry)
        return begin + size, carry, written(results, some, begin)

    def more(state: PyTree) -> jax.Array:
        begin, carry, _ = state
        return (begin + size <= num_steps) & (greatest(goes_on(carry).astype(jnp.int32)) > 0)

    shapes = jax.eval_shape(lambda carry: block(jnp.int32(0), size, carry)[1], carry)
    results = jax.tree.map(lambda x: jnp.zeros((num_steps, *x.shape[1:]), x.dtype), shapes)
    _, carry, results = lax.while_loop(more, turn, (jnp.int32(0), carry, results))
    if rest := num_steps % size:  # a few steps that make no block
        begin = jnp.int32(num_steps - rest)
        carry, some = block(begin, rest, carry)
        results = written(results, some, begin)
    return carry, results


def _over_envs(env: Playable, f: Callable[..., Any], num_envs: int) -> Callable[..., Any]:
    """f(inputs, physics) of one environment, for E of them with one physics or one each."""
    return jax.vmap(f, (0, env.physics_axis), axis_size=num_envs)


def _select(condition: jax.Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """`where` by environment on every leaf, keeping the type of `on_false` or, for numbers, of the array."""

    def select(x: Any, y: Any) -> jax.Array:
        like = y if isinstance(y, jax.Array) else x
        shape = (*condition.shape, *[1] * (like.ndim - condition.ndim))
        return jnp.where(condition.reshape(shape), x, y)

    return jax.tree.map(select, on_true, on_false)
