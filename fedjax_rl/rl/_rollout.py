"""Playing: T steps of the E environments of one agent."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from ._branch import greatest


PyTree = Any
# A rollout without resets looks so often whether everybody has come to an end. A look is one small kernel on a CPU; an
# accelerator waits for the host.
_BLOCKS = 100
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


class Episodes(NamedTuple):
    """The episodes that came to an end in a rollout, of all its environments together."""

    num: jax.Array  # i32[]
    total_return: jax.Array  # f32[] undiscounted, each from its beginning on
    total_length: jax.Array  # integer[] steps, each from its beginning on


class _World(NamedTuple):
    """What moves from step to step, leaves [E, ...]."""

    env_state: PyTree
    observation: PyTree
    memory: tuple[jax.Array, ...]


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
    everybody = jnp.ones((num_envs,), bool)

    # Every array that a step carries or writes is a kernel of its own: flags are written as one byte, and what follows
    # from rewards and ends is worked out after the loop.
    def play(world: _World, number: jax.Array, noise: PyTree) -> tuple[_World, jax.Array, Trajectory]:
        action, extras, *memory = act(noise, world.observation, *world.memory)
        keys = jax.random.split(jax.random.fold_in(k_step, number), num_envs)
        final_observation, env_state, reward, terminated, _ = step_env((keys, world.env_state, action), physics)
        flags = (terminated, is_truncated(env_state, physics))
        step = Trajectory(world.observation, action, reward, *flags, final_observation, everybody, extras)
        return _World(env_state, final_observation, tuple(memory)), jnp.logical_or(*flags), step

    def step_and_reset(world: _World, xs: PyTree) -> tuple[_World, Trajectory]:
        number, noise, reset_noise = xs
        after, ended, step = play(world, number, noise)
        observation, env_state = reset_from(reset_noise, physics)
        memory = jax.tree.map(jnp.zeros_like, after.memory)
        return _select(ended, _World(env_state, observation, memory), after), _packed(step)

    def step_or_stand(carry: tuple[_World, jax.Array], xs: PyTree) -> tuple[PyTree, Trajectory]:
        world, alive = carry
        after, ended, step = play(world, *xs)
        # Where an episode is over nothing of this step is used: physics may run away after the end.
        world = _select(alive, after, world)
        step = step._replace(
            reward=_select(alive, step.reward, 0),
            terminated=alive & step.terminated,
            truncated=alive & step.truncated,
            final_observation=world.observation,
            mask=alive,
        )
        return (world, jnp.logical_and(alive, jnp.logical_not(ended))), _packed(step)

    world = _World(state.env_state, state.observation, state.memory)
    if auto_reset:
        resets = env.reset_noise(k_reset, (num_steps, num_envs))
        world, packed = lax.scan(step_and_reset, world, (jnp.arange(num_steps), noise, resets))
    else:
        start = (world, everybody)
        (world, _), packed = _scan_until(lambda carry: jnp.any(carry[1]), step_or_stand, start, noise)
    trajectory = _unpacked(packed)
    if auto_reset:
        trajectory = trajectory._replace(mask=jnp.ones((num_steps, num_envs), bool))
    over = _last_end(trajectory) if auto_reset else jnp.full((1, num_envs), -1)  # what has ended for good stays told
    total, length = _totals(state, trajectory, _numbers(trajectory) > over, over < 0)
    return RolloutState(world.env_state, world.observation, total, length, world.memory), trajectory


def ended_episodes(start: RolloutState, trajectory: Trajectory) -> Episodes:
    """Adds up the episodes that ended.

    Args:
        start: what the rollout began with; its episodes under way count from their beginnings on.
        trajectory: leaves [T, E, ...].
    """
    last = _last_end(trajectory)
    total, length = _totals(start, trajectory, _numbers(trajectory) <= last, last >= 0)
    return Episodes(jnp.sum(_ended(trajectory), dtype=jnp.int32), jnp.sum(total), jnp.sum(length))


def _totals(
    start: RolloutState, trajectory: Trajectory, counted: jax.Array, from_start: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rewards and steps [E] of the real steps counted [T, E], and of those before the rollout where told [1, E]."""
    reward = trajectory.reward.astype(start.episode_return.dtype)
    total = jnp.sum(jnp.where(counted, reward, 0), 0)
    length = jnp.sum(counted & trajectory.mask, 0, dtype=start.episode_length.dtype)
    return (
        total + jnp.where(from_start[0], start.episode_return, 0),
        length + jnp.where(from_start[0], start.episode_length, 0),
    )


def _ended(trajectory: Trajectory) -> jax.Array:
    return jnp.logical_or(trajectory.terminated, trajectory.truncated)


def _last_end(trajectory: Trajectory) -> jax.Array:
    """The last step that ended an episode, i32[1, E]; -1 where none did."""
    return jnp.max(jnp.where(_ended(trajectory), _numbers(trajectory), -1), 0, keepdims=True)


def _numbers(trajectory: Trajectory) -> jax.Array:
    """Of the steps, i32[T, E]."""
    return lax.broadcasted_iota(jnp.int32, trajectory.reward.shape, 0)


def _packed(step: Trajectory) -> Trajectory:
    """A step whose three flags are one byte."""
    byte = step.terminated + 2 * step.truncated.astype(jnp.uint8) + 4 * step.mask.astype(jnp.uint8)
    return step._replace(terminated=byte, truncated=(), mask=())


def _unpacked(steps: Trajectory) -> Trajectory:
    terminated, truncated, mask = (steps.terminated & bit != 0 for bit in (1, 2, 4))
    return steps._replace(terminated=terminated, truncated=truncated, mask=mask)


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
