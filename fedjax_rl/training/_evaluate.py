"""Plays whole episodes to measure: every agent's world, with the policy that the agent would act with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ..core import Round, agent_map, fetch, jit, tree
from ..envs import Environment
from ..metrics import return_statistics
from ..policies import Policy
from ..rl import init_rollout, rollout


class Evaluation(NamedTuple):
    """Episodes of A agents, E each."""

    returns: np.ndarray  # f64[A, E] undiscounted
    lengths: np.ndarray  # i64[A, E] steps

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over these agents' episodes, s / sqrt(A E).

        Conservative when the agents differ: their spread counts as noise, although the same agents would play again.
        """
        return float(self.returns.std() / np.sqrt(self.returns.size))

    def summary(self, thresholds: Sequence[float] = ()) -> dict[str, Any]:
        """JSON values: statistics of the return over episodes and agents, success rates, mean length."""
        statistics = return_statistics(self.returns, self.lengths, tuple(thresholds))
        low, high = np.percentile(self.returns, [10, 90])
        counts = {"agents": self.returns.shape[0], "episodes": self.returns.size}
        return counts | statistics | {"return_p10": float(low), "return_p90": float(high)}


def spread(num_agents: int, max_agents: int, num_episodes: int) -> tuple[np.ndarray, int]:
    """Chooses who is evaluated: min(N, max_agents) agents at even strides, and ceil(num_episodes / that) episodes each.

    Returns:
        Agent numbers i32[A], and the episodes of each.
    """
    count = min(num_agents, max_agents)
    index = np.arange(count, dtype=np.int64) * num_agents // count
    return index.astype(np.int32), -(-num_episodes // count)


def horizon_of(physics: Any) -> int:
    """The longest time limit among agents [steps], read on the host because it is the length of a compiled loop.

    Raises:
        ValueError: the physics name no time limit.
    """
    limit = getattr(physics, "max_steps_in_episode", None)
    if limit is None:
        raise ValueError(f"{type(physics).__name__} has no max_steps_in_episode, and an evaluation needs a time limit")
    return int(np.max(np.asarray(limit)))


def evaluate(
    key: jax.Array,
    env: Environment,
    policy: Policy,
    params: Any,
    physics: Any,
    num_episodes: int = 1,
    *,
    per_agent: bool = False,
    greedy: bool = False,
    ids: np.ndarray | None = None,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> Evaluation:
    """Plays whole episodes in each agent's world.

    Agent i's episodes follow from the key and its id alone, whatever the number of agents, the chunks and the devices.

    Args:
        key: a typed key.
        env: the environment; every one of its environments has one agent's physics.
        policy: the policy.
        params: its parameters; leaves [A, ...] with `per_agent`.
        physics: one world per agent, leaves [A, ...].
        num_episodes: episodes of each agent.
        per_agent: whether every agent has parameters of its own.
        greedy: play the mode of the distribution instead of a sample.
        ids: i32[A] the agents' ids, which their random numbers follow from; 0, 1, ... by default.
        chunk_size: agents at a time; chosen by itself when None.
        mesh: devices that share the agents.

    Returns:
        Returns and lengths, [A, num_episodes].

    Raises:
        ValueError: the physics have no time limit, or pool several worlds in one agent.
    """
    if getattr(env, "physics_axis", None) is not None:
        raise ValueError("an agent that pools several worlds cannot be evaluated; give its worlds one by one")
    count = jax.tree.leaves(physics)[0].shape[0]
    agents = jnp.arange(count, dtype=jnp.int32) if ids is None else jnp.asarray(ids, jnp.int32)
    if chunk_size is None:
        # Some hundred environments fill the vector units; models of their own fill the cache earlier.
        chunk_size = max(1, (64 if per_agent else 512) // num_episodes)
    played = _play(
        key, None if per_agent else params, params if per_agent else None, physics, agents,
        env=env, policy=policy, num_episodes=num_episodes, horizon=horizon_of(physics), greedy=greedy,
        chunk_size=chunk_size, mesh=mesh,
    )  # fmt: skip
    returns, lengths = fetch(played)
    return Evaluation(np.asarray(returns, np.float64), np.asarray(lengths, np.int64))


@jit(static_argnames=("env", "policy", "num_episodes", "horizon", "greedy", "chunk_size", "mesh"))
def _play(
    key: jax.Array, shared: Any, own: Any, physics: Any, agents: jax.Array, *, env: Environment, policy: Policy,
    num_episodes: int, horizon: int, greedy: bool, chunk_size: int, mesh: Mesh | None,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    def one_agent(common: Any, agent: jax.Array, physics: Any, own: Any) -> tuple[Any, None]:
        key, shared = common
        params = shared if own is None else own
        k_start, k_noise, k_play = jax.random.split(jax.random.fold_in(key, agent), 3)

        def act(noise: jax.Array, observation: jax.Array, *memory: jax.Array) -> tuple[Any, ...]:
            memory, distribution, _ = policy.step(params, memory, observation)
            return (distribution.mode() if greedy else distribution.sample(noise)), (), *memory

        noise = policy.noise(k_noise, (horizon, num_episodes))
        start = init_rollout(k_start, env, physics, num_episodes, policy.initial_memory((num_episodes,)))
        _, played = rollout(k_play, env, physics, act, noise, start, auto_reset=False)
        returns = jnp.sum(jnp.where(played.mask, played.reward, jnp.zeros((), played.reward.dtype)), 0)
        return (returns, jnp.sum(played.mask, 0, dtype=jnp.int32)), None

    return agent_map(one_agent, (key, shared), (agents, physics, own), chunk_size=chunk_size, mesh=mesh)[0]


@jit()
def models_of(round_: Round, state: Any, index: jax.Array, seed: jax.Array | None = None) -> Any:
    """The parameters that agents act with: leaves [A, ...], or [...] where all agents share one model.

    Args:
        round_: the round.
        state: its state, or the stacked states of several seeds.
        index: i32[A] agents.
        seed: i32[] which of the stacked states.
    """
    if seed is not None:
        state = tree.take(state, seed)
    if round_.per_agent_models:
        return round_.policies(state, index)
    return tree.take(round_.policies(state, index[:1]), 0)
