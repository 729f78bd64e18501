"""The library's rollout and its full rounds, through what users call."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fedjax_rl.aggregators import mean
from fedjax_rl.core import Fold, agent_map, compile_rounds, few_agents_at_a_time, make_mesh, make_round, tree
from fedjax_rl.envs import cartpole_family, garnet_family
from fedjax_rl.learners import Correction, LocalTraining, actor_critic, federated_td, local_training, optimizer, ppo
from fedjax_rl.participation import first_arrivals, ratio_system, uniform_cohort
from fedjax_rl.policies import Categorical, mlp_policy
from fedjax_rl.rl import init_rollout, rollout
from fedjax_rl.topologies import sequential, snapshot, star

from . import _plain_lsa
from ._plain_ppo import CLIP, DISCOUNT, EPOCHS, LAMBDA, LEARNING_RATE, MINIBATCHES, plain_ppo
from ._setting import Setting
from ._work import Work, forward_flop, gradient_flop, repeated


COHORT = 64  # arrivals in a round
FAMILY = "packer-r"  # every agent has a physics of its own


def our_rollout(setting: Setting) -> Work:
    """Acting alone: N agents share a policy; of what they see, the sum of their rewards is kept."""
    family, mesh = cartpole_family(FAMILY), make_mesh(setting.num_devices)
    policy = mlp_policy(family.env, hidden_sizes=setting.hidden_sizes)
    weights = policy.init(jax.random.key(0))
    agents = jnp.arange(setting.num_agents)
    chunk_size = _chunk_size(setting)

    def one_agent(common: Any, agent: jax.Array, physics: Any, state: Any) -> tuple[Any, jax.Array]:
        key, weights = common
        k_act, k_play = jax.random.split(jax.random.fold_in(key, agent))

        def act(noise: jax.Array, observation: jax.Array) -> tuple[jax.Array, tuple[()]]:
            return policy.apply(weights, observation)[0].sample(noise), ()

        noise = policy.noise(k_act, (setting.num_steps, setting.num_envs))
        state, trajectory = rollout(k_play, family.env, physics, act, noise, state)
        return state, jnp.sum(trajectory.reward)

    def play(key: jax.Array, carry: Any) -> tuple[Any, jax.Array]:
        physics, state = carry
        xs = (agents, physics, state)
        state, rewards = agent_map(one_agent, (key, weights), xs, chunk_size=chunk_size, mesh=mesh)
        return (physics, state), jnp.sum(rewards)

    def first(key: jax.Array) -> Any:
        physics = family.sample(key, setting.num_agents)
        keys = jax.random.split(key, setting.num_agents)
        return physics, jax.vmap(lambda k, p: init_rollout(k, family.env, p, setting.num_envs))(keys, physics)

    call, seconds = repeated(play, _spread(jax.jit(first)(jax.random.key(0)), setting.num_agents, mesh))
    env_steps = setting.num_agents * setting.num_envs * setting.num_steps
    return Work(call, seconds, env_steps * forward_flop(setting), env_steps)


def our_network(setting: Setting) -> Work:
    """The policy's network alone, as often and in as large batches as in the rollout that is its reference.

    No rollout can be faster, and no library that acts with such a network.
    """
    mesh = make_mesh(setting.num_devices)
    policy = mlp_policy(cartpole_family(FAMILY).env, hidden_sizes=setting.hidden_sizes)
    weights = policy.init(jax.random.key(0))

    def one_agent(weights: Any, observation: jax.Array) -> tuple[jax.Array, tuple[()]]:
        def step(observation: jax.Array, _: None) -> tuple[jax.Array, None]:
            distribution, value = policy.apply(weights, observation)
            assert isinstance(distribution, Categorical)
            # Depends on all that comes out, or some of it would not be computed.
            return observation + 1e-6 * (distribution.logits[..., :1] + value[..., None]), None

        return jax.lax.scan(step, observation, length=setting.num_steps)[0], ()

    def play(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        observation, _ = agent_map(one_agent, weights, (observation,), chunk_size=_chunk_size(setting), mesh=mesh)
        return observation, jnp.sum(observation)

    first = jax.random.normal(jax.random.key(1), (setting.num_agents, setting.num_envs, 4))
    call, seconds = repeated(play, _spread(first, setting.num_agents, mesh))
    env_steps = setting.num_agents * setting.num_envs * setting.num_steps
    reference = functools.partial(our_rollout, setting)
    return Work(call, seconds, env_steps * forward_flop(setting), env_steps, reference=reference)


def our_gradient(setting: Setting) -> Work:
    """The gradient of the policy's network alone, agent by agent, as often and of as many rows as in the round.

    A round that acts, and then takes a gradient of each agent, is no faster than `our_network` and this together.
    """
    mesh = make_mesh(setting.num_devices)
    policy = mlp_policy(cartpole_family(FAMILY).env, hidden_sizes=setting.hidden_sizes)
    weights = policy.init(jax.random.key(0))
    rows = jax.random.normal(jax.random.key(1), (setting.num_envs * setting.num_steps, 4))

    def loss(weights: Any, rows: jax.Array) -> jax.Array:
        distribution, value = policy.apply(weights, rows)
        assert isinstance(distribution, Categorical)
        return jnp.sum(distribution.logits**2) + jnp.sum(value**2)  # the least that depends on all that comes out

    def one_agent(common: Any, size: jax.Array) -> tuple[tuple[()], Any]:
        weights, rows = common
        return (), few_agents_at_a_time(jax.grad(loss))(weights, size * rows)

    def add(common: Any, total: Any, terms: Any, valid: jax.Array) -> Any:
        del common
        return tree.add(total, tree.weighted_sum(terms, valid))

    def play(key: jax.Array, sizes: jax.Array) -> tuple[jax.Array, Any]:
        del key
        fold = Fold(jax.eval_shape(lambda: weights), add)
        _, total = agent_map(
            one_agent, (weights, rows), (sizes,), chunk_size=_chunk_size(setting), mesh=mesh, fold=fold
        )
        return sizes, total

    sizes = jnp.linspace(0.5, 1.5, setting.num_agents)  # what agents differ in
    call, seconds = repeated(play, _spread(sizes, setting.num_agents, mesh))
    env_steps = setting.num_agents * setting.num_envs * setting.num_steps
    return Work(
        call, seconds, env_steps * gradient_flop(setting), env_steps, reference=functools.partial(our_round, setting)
    )


def our_round(setting: Setting, step: Any = optax.adam, **parts: Any) -> Work:
    """A federated round of actor-critic: per local step, play and take one gradient step; then average and merge.

    Args:
        setting: its shape.
        step: the local optimiser.
        parts: of `rounds`.
    """
    return rounds(setting, _learner(setting, step), forward_flop(setting) + gradient_flop(setting), **parts)


def our_ppo(setting: Setting, *corrections: Correction) -> Work:
    """A federated round of PPO with the numbers of `plain_ppo`, its reference."""
    env = cartpole_family(FAMILY).env
    policy = mlp_policy(env, hidden_sizes=setting.hidden_sizes, shared_trunk=False)
    objective = ppo(
        policy, num_envs=setting.num_envs, num_steps=setting.num_steps, discount=DISCOUNT, gae_lambda=LAMBDA, clip=CLIP
    )
    adam = optimizer(optax.adam, learning_rate=LEARNING_RATE)
    learner = local_training(
        objective, adam, num_epochs=EPOCHS, num_minibatches=MINIBATCHES, optimizer_state="keep", corrections=corrections
    )  # fmt: skip
    flop = 2 * (forward_flop(setting, 1) + EPOCHS * gradient_flop(setting, 1))  # two networks of one output
    return rounds(setting, learner, flop)._replace(reference=functools.partial(plain_ppo, setting))


def our_lsa(setting: Setting) -> Work:
    """A round of federated TD learning: Garnets of 30 states, 8 features, `num_steps` local steps of one sample."""
    family = garnet_family("heterogeneous")
    learner = federated_td(
        family.features, family.policy, _plain_lsa.DISCOUNT, step_size=_plain_lsa.STEP_SIZE,
        num_local_steps=setting.num_steps,
    )  # fmt: skip

    def reference() -> Work:
        physics = family.sample(jax.random.key(0), setting.num_agents)
        reward = physics.reward[:, :, 0]  # the same for all actions
        return _plain_lsa.plain_lsa(setting, physics.kernel, reward, family.features, family.policy)

    return rounds(setting, learner, 0.0, family)._replace(reference=reference)


def our_arrivals(setting: Setting) -> Work:
    """Asynchronous rounds of `COHORT` arrivals each, every one a step of the server; against cohorts of as many agents.

    Both run on one device: a cohort out of many agents is spread over all devices, and small.
    """
    env = cartpole_family(FAMILY).env
    policy = mlp_policy(env, hidden_sizes=setting.hidden_sizes)
    objective = actor_critic(policy, num_envs=setting.num_envs, num_steps=setting.num_steps)
    learner = local_training(objective, optimizer(optax.adam, learning_rate=1e-3), upload="gradient")
    flop = forward_flop(setting) + gradient_flop(setting)
    clock = first_arrivals(ratio_system(setting.num_agents, 4.0), batch=COHORT)

    def reference() -> Work:
        return rounds(setting, learner, flop, num_devices=1, participation=uniform_cohort(COHORT))

    topology = sequential(snapshot(star()))
    asynchronous = rounds(setting, learner, flop, num_devices=1, topology=topology, participation=clock)
    return asynchronous._replace(reference=reference)


def rounds(
    setting: Setting,
    learner: LocalTraining,
    flop_per_step: float,
    family: Any = None,
    *,
    anew: bool = False,
    num_devices: int | None = None,
    **parts: Any,
) -> Work:
    """Rounds of a learner, as users run them.

    Args:
        setting: how many agents, on how many devices, and how many rounds a call has.
        learner: what an agent does.
        flop_per_step: of matrix products, per environment step.
        family: default: CartPole, every agent with a physics of its own.
        anew: whether every call trains from a new model on; its steps are those that are real, in the first training.
        num_devices: default: as many as the setting has, at most one for each agent, as the trainer does.
        parts: of `make_round`.
    """
    mesh = make_mesh(min(num_devices or setting.num_devices, setting.num_agents))
    round_ = make_round(
        cartpole_family(FAMILY) if family is None else family,
        learner,
        parts.pop("aggregator", None) or mean(),
        num_agents=setting.num_agents,
        chunk_size=setting.chunk_size or "auto",
        mesh=mesh,
        **parts,
    )
    state = round_.init(jax.random.key(0))
    begin = time.perf_counter()
    advance = compile_rounds(round_, state, setting.rounds_per_call)
    seconds = time.perf_counter() - begin

    count = 0

    def call() -> dict[str, Any]:
        nonlocal state, count
        count += 1
        if anew:
            state = round_.init(jax.random.key(count))
        state, history = advance(round_, state, setting.rounds_per_call)
        return jax.block_until_ready((state, history))[1]

    updates = setting.rounds_per_call * setting.num_agents
    if "participation" in parts:  # how many agents act is the rule's business
        updates = int(call()["agent_updates"].sum())
    env_steps = updates * learner.num_local_steps * setting.num_envs * setting.num_steps
    if anew:
        env_steps = int(call()["env_steps"].sum())
    return Work(call, seconds, env_steps * flop_per_step, env_steps, updates)


def _learner(setting: Setting, step: Any = optax.adam) -> LocalTraining:
    """Actor-critic, one gradient step after every rollout."""
    policy = mlp_policy(cartpole_family(FAMILY).env, hidden_sizes=setting.hidden_sizes)
    objective = actor_critic(policy, num_envs=setting.num_envs, num_steps=setting.num_steps)
    return local_training(
        objective, optimizer(step, learning_rate=1e-3), num_local_steps=setting.num_local_steps,
        optimizer_state="reset",
    )  # fmt: skip


def _chunk_size(setting: Setting) -> int:
    """Agents that act at a time: as many as in a round of theirs."""
    if setting.chunk_size:
        return setting.chunk_size
    round_ = make_round(
        cartpole_family(FAMILY), _learner(setting), mean(), num_agents=setting.num_agents, chunk_size="auto"
    )
    assert round_.chunk_size is not None
    return round_.chunk_size


def _spread(stacked: Any, num_agents: int, mesh: Mesh | None) -> Any:
    """Lays leaves [N, ...] out over the devices where N allows it, so that the first call finds them as all others."""
    if mesh is None or num_agents % mesh.size:
        return stacked
    return jax.device_put(stacked, NamedSharding(mesh, P("agents")))
