"""Plays a trained policy in Gymnasium's own CartPole-v1, with each agent's physics set on it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..envs import CartPole, CartPoleParams, Environment, StackedEnvironment
from ..policies import Memory, Policy
from ._evaluate import Evaluation, horizon_of


def evaluate_gymnasium(
    key: jax.Array,
    env: Environment,
    policy: Policy,
    params: Any,
    physics: CartPoleParams,
    num_episodes: int = 1,
    *,
    per_agent: bool = False,
    greedy: bool = False,
) -> Evaluation:
    """Plays whole episodes in Gymnasium; all episodes advance together, with one call of the policy per step.

    A reversed motor is played by exchanging the two actions.

    Args:
        key: a typed key; it also seeds Gymnasium's resets.
        env: the environment the policy was trained in, a CartPole with two actions and the reward of CartPole-v1, or
            such a one stacked.
        policy: the policy.
        params: its parameters; leaves [A, ...] with `per_agent`.
        physics: leaves [A].
        num_episodes: episodes of each agent.
        per_agent: whether every agent has parameters of its own.
        greedy: play the mode of the distribution instead of a sample.

    Returns:
        Returns and lengths, [A, num_episodes].

    Raises:
        ValueError: Gymnasium's CartPole cannot play this environment.
    """
    _check(env, physics)
    columns = {name: np.asarray(value, np.float64) for name, value in physics._asdict().items()}
    num_agents = columns["gravity"].shape[0]
    horizon = horizon_of(physics)
    k_noise, k_reset = jax.random.split(key)
    games = [_make({name: float(column[i]) for name, column in columns.items()})
             for i in range(num_agents) for _ in range(num_episodes)]  # fmt: skip
    seeds = np.asarray(jax.random.randint(k_reset, (len(games),), 0, 2**31 - 1))
    observations = np.stack([game.reset(seed=int(seed))[0] for game, seed in zip(games, seeds, strict=True)])
    reversed_motor = np.repeat(columns["actuator_polarity"] < 0, num_episodes)
    limits = np.repeat(columns["max_steps_in_episode"].astype(np.int64), num_episodes)
    returns, lengths = np.zeros(len(games)), np.zeros(len(games), np.int64)
    playing = np.ones(len(games), bool)

    # Shapes never change, so the call is compiled once; finished games keep their last observation.
    @jax.jit
    def act(
        params: Any, noise_key: jax.Array, step: jax.Array, memory: Memory, stack: jax.Array
    ) -> tuple[Memory, jax.Array]:
        noise = policy.noise(jax.random.fold_in(noise_key, step), (num_agents, num_episodes))

        def one(params: Any, noise: jax.Array, memory: Memory, observation: jax.Array) -> tuple[Memory, jax.Array]:
            memory, distribution, _ = policy.step(params, memory, observation)
            return memory, distribution.mode() if greedy else distribution.sample(noise)

        seen = stack.reshape(num_agents, num_episodes, -1)
        memory, actions = jax.vmap(one, (0 if per_agent else None, 0, 0, 0))(params, noise, memory, seen)
        return memory, actions.reshape(-1)

    begin, push = _seen(env)
    memory = policy.initial_memory((num_agents, num_episodes))
    stack = begin(jnp.asarray(observations))
    for step in range(horizon):
        memory, chosen = act(params, k_noise, jnp.int32(step), memory, stack)
        actions = np.where(reversed_motor, 1 - np.asarray(chosen), np.asarray(chosen))
        for i in np.flatnonzero(playing):
            observations[i], reward, terminated, _, _ = games[i].step(int(actions[i]))
            returns[i] += reward
            lengths[i] += 1
            playing[i] = not terminated and lengths[i] < limits[i]
        if not playing.any():
            break
        stack = push(stack, jnp.asarray(observations), chosen)
    shape = (num_agents, num_episodes)
    return Evaluation(returns.reshape(shape), lengths.reshape(shape))


def _seen(env: Environment) -> tuple[Any, Any]:
    """What a policy sees of all games: after the resets, and after a step that took these actions."""
    if not isinstance(env, StackedEnvironment):
        return lambda observation: observation, lambda stack, observation, action: observation
    return jax.jit(jax.vmap(env.begin)), jax.jit(jax.vmap(env.push))


def _check(env: Environment, physics: Any) -> None:
    """Raises unless Gymnasium's CartPole-v1 can be given this physics."""
    env = env.env if isinstance(env, StackedEnvironment) else env
    if not isinstance(env, CartPole):
        raise ValueError(f"only CartPole can be played in Gymnasium with an agent's physics, got {env.name}")
    if env.continuous:
        raise ValueError("Gymnasium's CartPole-v1 has two actions; a policy with continuous ones cannot play it")
    if env.reward != "survival":
        raise ValueError(f"Gymnasium's CartPole-v1 pays for survival, not for the reward {env.reward!r}")
    if np.any(np.abs(np.asarray(physics.actuator_polarity)) != 1):
        raise ValueError("actuator_polarity must be 1 or -1 to be played in Gymnasium, by exchanging the actions")


def _make(values: dict[str, float]) -> Any:
    """Gymnasium's CartPole, bare: its time limit is a wrapper, and is counted by the caller."""
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv

    game = CartPoleEnv()
    game.gravity, game.masscart, game.masspole = values["gravity"], values["masscart"], values["masspole"]
    game.length, game.force_mag, game.tau = values["half_length"], values["force_mag"], values["tau"]
    game.total_mass = game.masscart + game.masspole
    game.polemass_length = game.masspole * game.length
    game.theta_threshold_radians, game.x_threshold = values["theta_threshold"], values["x_threshold"]
    return game
