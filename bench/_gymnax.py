"""gymnax's own `step` on its own CartPole, as its users call it: what acting costs without this library's rollout."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fedjax_rl.envs import cartpole_family
from fedjax_rl.policies import mlp_policy

from ._setting import Setting
from ._work import Work, device_mesh, forward_flop, repeated


def gymnax_stepping(setting: Setting, *, plain: bool = False) -> Work:
    """`num_envs` environments, spread over the devices, with random actions or a policy network.

    Args:
        setting: its shape.
        plain: compiled as `jax.jit` does by itself, without the options that this library compiles with.
    """
    import gymnax

    if setting.num_envs % setting.num_devices:
        raise ValueError(f"num_envs must be a multiple of num_devices={setting.num_devices}, got {setting.num_envs}")
    env, params = gymnax.make("CartPole-v1")
    env_step = jax.vmap(env.step, (0, 0, 0, None))
    policy = mlp_policy(cartpole_family("nominal").env, hidden_sizes=setting.hidden_sizes)
    weights = policy.init(jax.random.key(0))
    here = setting.num_envs // setting.num_devices

    def action(key: jax.Array, observation: jax.Array) -> jax.Array:
        if setting.work == "gymnax_random":
            return jax.random.randint(key, (here,), 0, 2)
        return policy.apply(weights, observation)[0].sample(policy.noise(key, (here,)))

    def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        observation, state = carry
        k_act, k_step = jax.random.split(key)
        actions = action(k_act, observation)
        observation, state, reward, *_ = env_step(jax.random.split(k_step, here), state, actions, params)
        return (observation, state), jnp.sum(reward)

    def play(key: jax.Array, carry: Any) -> tuple[Any, jax.Array]:
        key = jax.random.fold_in(key, jax.lax.axis_index("devices"))
        carry, rewards = jax.lax.scan(step, carry, jax.random.split(key, setting.num_steps))
        return carry, jnp.sum(rewards)[None]

    mesh = device_mesh(setting.num_devices)
    spread = jax.shard_map(
        play, mesh=mesh, in_specs=(P(), P("devices")), out_specs=(P("devices"), P("devices")), check_vma=False
    )
    keys = jax.random.split(jax.random.key(0), setting.num_envs)
    carry = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    carry = jax.device_put(carry, NamedSharding(mesh, P("devices")))
    call, seconds = repeated(spread, carry, plain=plain)
    env_steps = setting.num_envs * setting.num_steps
    flop = 0.0 if setting.work == "gymnax_random" else env_steps * forward_flop(setting)
    return Work(call, seconds, flop, env_steps)
