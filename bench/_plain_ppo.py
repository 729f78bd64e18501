"""PPO for one agent as a plain jitted loop: what rounds of PPO are held against."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fedjax_rl.envs import cartpole_family

from ._setting import Setting
from ._work import Work, repeated


EPOCHS = MINIBATCHES = 4
DISCOUNT, LAMBDA, CLIP, LEARNING_RATE = 0.99, 0.95, 0.2, 3e-4


class _Net(nn.Module):
    """A tanh perceptron as everybody writes it."""

    hidden_sizes: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.hidden_sizes:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


def plain_ppo(setting: Setting) -> Work:
    """One agent with all the environments of the setting: a scan to play, a scan for the advantages, two to learn.

    Written as single-file PPO in JAX is written: flax's dense layers, automatic differentiation, environments that
    reset themselves in every step, one permutation per epoch. No federation, no masks, no metrics.
    """
    env = cartpole_family("nominal").env
    num_envs, num_steps = setting.num_agents * setting.num_envs, setting.num_steps
    actor, critic = _Net(setting.hidden_sizes, 2), _Net(setting.hidden_sizes, 1)
    adam = optax.adam(LEARNING_RATE)

    def value_of(params: Any, observation: jax.Array) -> jax.Array:
        return jnp.asarray(critic.apply(params["critic"], observation))[..., 0]

    def log_probs(params: Any, observation: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(jnp.asarray(actor.apply(params["actor"], observation)))

    def act_and_step(params: Any, carry: Any, key: jax.Array) -> tuple[Any, Any]:
        observation, state = carry
        k_act, k_step = jax.random.split(key)
        logits = log_probs(params, observation)
        action = jax.random.categorical(k_act, logits)
        log_prob = jnp.take_along_axis(logits, action[:, None], -1)[:, 0]
        value = value_of(params, observation)
        step_keys = jax.random.split(k_step, num_envs)
        following, state, reward, terminated, truncated, _ = jax.vmap(env.step)(step_keys, state, action)
        return (following, state), (observation, action, log_prob, value, reward, terminated | truncated)

    def advantages(values: jax.Array, rewards: jax.Array, ends: jax.Array, last: jax.Array) -> jax.Array:
        def back(carry: Any, row: Any) -> tuple[Any, jax.Array]:
            advantage, following = carry
            value, reward, end = row
            goes_on = DISCOUNT * (1.0 - end)
            advantage = reward + goes_on * following - value + goes_on * LAMBDA * advantage
            return (advantage, value), advantage

        return jax.lax.scan(back, (jnp.zeros_like(last), last), (values, rewards, ends), reverse=True)[1]

    def loss(params: Any, rows: Any) -> jax.Array:
        observation, action, old_log_prob, advantage, target = rows
        log_prob = jnp.take_along_axis(log_probs(params, observation), action[:, None], -1)[:, 0]
        ratio = jnp.exp(log_prob - old_log_prob)
        clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
        surrogate = -jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))
        return surrogate + 0.5 * jnp.mean(jnp.square(value_of(params, observation) - target))

    def update(key: jax.Array, carry: Any) -> tuple[Any, jax.Array]:
        params, moments, world = carry
        k_play, k_learn = jax.random.split(key)
        world, played = jax.lax.scan(
            functools.partial(act_and_step, params), world, jax.random.split(k_play, num_steps)
        )
        observation, action, log_prob, value, reward, end = played
        advantage = advantages(value, reward, end.astype(jnp.float32), value_of(params, world[0]))
        target = advantage + value
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        batch = (observation, action, log_prob, advantage, target)
        batch = jax.tree.map(lambda x: x.reshape(num_steps * num_envs, *x.shape[2:]), batch)

        def minibatch(carry: Any, rows: Any) -> tuple[Any, None]:
            params, moments = carry
            updates, moments = adam.update(jax.grad(loss)(params, rows), moments, params)
            return (optax.apply_updates(params, updates), moments), None

        def epoch(carry: Any, key: jax.Array) -> tuple[Any, None]:
            order = jax.random.permutation(key, num_steps * num_envs)
            shuffled = jax.tree.map(lambda x: x[order].reshape(MINIBATCHES, -1, *x.shape[1:]), batch)
            return jax.lax.scan(minibatch, carry, shuffled)

        (params, moments), _ = jax.lax.scan(epoch, (params, moments), jax.random.split(k_learn, EPOCHS))
        return (params, moments, world), jnp.sum(reward)

    k_actor, k_critic, k_reset = jax.random.split(jax.random.key(0), 3)
    params = {"actor": actor.init(k_actor, jnp.zeros(4)), "critic": critic.init(k_critic, jnp.zeros(4))}
    world = jax.jit(jax.vmap(env.reset))(jax.random.split(k_reset, num_envs))
    call, seconds = repeated(update, (params, adam.init(params), world))
    return Work(call, seconds, 0.0, num_envs * num_steps)
