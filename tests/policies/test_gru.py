"""The recurrent policy against loops over time, in float64, and what memory must and must not do."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import CartPole
from fedjax_rl.policies import Categorical, gru_policy, mlp_policy, policy_from_architecture
from tests.oracles import recurrent as oracle


KEY = jax.random.key(0)
T, E = 7, 3
BOX = CartPole(continuous=True)
POLICIES = {
    "shared": gru_policy(CartPole(), (5,), 4),
    "separate": gru_policy(CartPole(), (5, 3), 4, shared_trunk=False),
    "bare": gru_policy(CartPole(), (), 4, fast_gradient=False),
    "squashed": gru_policy(BOX, (5,), 4, squash=True, initialization="uniform"),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
discrete = pytest.mark.parametrize("policy", [POLICIES[n] for n in ("shared", "separate", "bare")])


def draws(policy, seed=0) -> tuple[Any, Any, jax.Array, jax.Array]:
    """Parameters, memory, observations and starts, all different from zero."""
    generator = np.random.default_rng(seed)

    def normal(x):
        return jnp.asarray(generator.normal(size=x.shape), x.dtype)

    params, memory = jax.eval_shape(policy.init, KEY), policy.initial_memory((E,))
    observation = jnp.asarray(generator.normal(size=(T, E, 4)), jnp.result_type(float))
    starts = jnp.asarray(generator.random((T, E)) < 0.3).at[3, 1].set(True)
    return jax.tree.map(normal, params), jax.tree.map(normal, memory), observation, starts


def theta_of(params):
    return jax.tree.map(np.array, params["params"])


@discrete
def test_unroll_equals_the_loop_over_time(x64, policy):
    params, memory, observation, starts = draws(policy)
    distribution, value = jax.jit(policy.unroll)(params, memory, observation, starts)
    logits, v, _ = oracle.play(
        theta_of(params), [np.asarray(m) for m in memory], np.asarray(observation), np.asarray(starts)
    )
    np.testing.assert_allclose(distribution.logits, logits, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(value, v, rtol=1e-12, atol=1e-13)


@discrete
def test_gradient_through_time_equals_finite_differences(x64, policy):
    params, memory, observation, starts = draws(policy)
    weight = np.random.default_rng(1).normal(size=(T, E, 3))

    def loss(params, memory):
        distribution, value = policy.unroll(params, memory, observation, starts)
        return jnp.sum(distribution.logits * weight[..., :2]) + jnp.sum(value * weight[..., 2])

    def expected(theta, memories):
        logits, v, _ = oracle.play(theta, memories, np.asarray(observation), np.asarray(starts))
        return np.sum(logits * weight[..., :2]) + np.sum(v * weight[..., 2])

    gradient, backwards = jax.jit(jax.grad(loss, (0, 1)))(params, memory)
    generator = np.random.default_rng(2)
    memories = [np.array(m) for m in memory]
    for name, layer in theta_of(params).items():
        for part, values in layer.items():
            for flat in generator.choice(values.size, min(values.size, 4), replace=False):
                index, ends = np.unravel_index(flat, values.shape), []
                for sign in (1, -1):
                    theta = theta_of(params)
                    theta[name][part][index] += sign * 1e-6
                    ends.append(expected(theta, memories))
                slope = (ends[0] - ends[1]) / 2e-6
                np.testing.assert_allclose(gradient["params"][name][part][index], slope, rtol=1e-6, atol=1e-7)
    for which, flow in enumerate(backwards):
        ends = []
        for sign in (1, -1):
            moved = [m.copy() for m in memories]
            moved[which][0, 2] += sign * 1e-6
            ends.append(expected(theta_of(params), moved))
        np.testing.assert_allclose(flow[0, 2], (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-7)


def test_fast_and_plain_gradients_agree(x64):
    params, memory, observation, starts = draws(POLICIES["shared"])
    many = 30  # times T are samples enough for the hand-written gradient of the layers
    memory = (jnp.tile(memory[0], (many // E, 1)),)
    observation, starts = jnp.tile(observation, (1, many // E, 1)), jnp.tile(starts, (1, many // E))

    def loss(params, policy):
        distribution, value = policy.unroll(params, memory, observation, starts)
        return jnp.sum(jnp.square(distribution.logits)) + jnp.sum(value)

    fast = POLICIES["shared"]
    plain = policy_from_architecture(fast.architecture() | {"fast_gradient": False})
    gradients = jax.jit(lambda params: [jax.grad(loss)(params, p) for p in (fast, plain)])(params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10), *gradients)


@every_policy
def test_unroll_equals_step_by_step(x64, policy):
    params, memory, observation, starts = draws(policy)
    together = policy.unroll(params, memory, observation, starts)
    for t in range(T):
        memory = jax.tree.map(lambda m, t=t: jnp.where(starts[t][:, None], 0, m), memory)
        memory, distribution, value = policy.step(params, memory, observation[t])
        alone = (distribution, value)
        jax.tree.map(lambda x, y, t=t: np.testing.assert_allclose(x[t], y, rtol=1e-12, atol=1e-12), together, alone)


@every_policy
def test_nothing_of_an_episode_leaks_into_the_next(policy):
    params, memory, observation, starts = draws(policy)
    starts = jnp.zeros_like(starts).at[4].set(True)

    @jax.jit
    def second_episode(memory, first_episode):
        seen = jnp.concatenate([first_episode, observation[4:]])
        distribution, value = policy.unroll(params, memory, seen, starts)
        return jax.tree.map(lambda x: x[4:], (distribution.sample(policy.noise(KEY, (T, E))), value))

    one = second_episode(memory, observation[:4])
    other = second_episode(jax.tree.map(lambda m: 5 - m, memory), 3 * observation[:4] + 1)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    # The test sees what it looks for: without the start the past matters.
    assert not np.allclose(
        *(policy.unroll(params, m, observation, starts)[1][0] for m in (memory, (memory[0] + 1,) * len(memory)))
    )


def test_names_shapes_and_parts_of_the_parameters():
    params = jax.eval_shape(POLICIES["separate"].init, KEY)["params"]
    assert set(params) == {
        f"{head}{rest}" for head in ("actor", "critic") for rest in ("", "_trunk_0", "_trunk_1", "_trunk_memory")
    }
    assert jax.tree.map(jnp.shape, params["actor_trunk_memory"]) == {
        "input_kernel": (3, 12),
        "input_bias": (12,),
        "memory_kernel": (4, 12),
        "memory_bias": (4,),
    }
    for name, policy in (("separate", POLICIES["separate"]), ("shared", POLICIES["shared"])):
        parts = policy.parts(jax.eval_shape(policy.init, KEY))["params"]
        expected = "trunk" if name == "shared" else "critic"
        assert set(parts[f"{'' if name == 'shared' else 'critic_'}trunk_memory"].values()) == {expected}
        assert set(parts["actor"].values()) == {"actor"}


def test_gates_are_orthogonal_and_biases_zero():
    params = jax.jit(gru_policy(CartPole(), (64,), 64).init)(KEY)["params"]
    for name in ("input_kernel", "memory_kernel"):
        for gate in jnp.split(params["trunk_memory"][name], 3, -1):
            np.testing.assert_allclose(gate.T @ gate, np.eye(64), atol=1e-5)
    assert not any(layer[b].any() for layer in params.values() for b in layer if b.endswith("bias"))


def test_separate_memories_share_nothing():
    policy = POLICIES["separate"]
    params, memory, observation, starts = draws(policy)
    value = jax.jit(jax.grad(lambda p: jnp.sum(policy.unroll(p, memory, observation, starts)[1])))
    gradient = value(params)["params"]
    assert {name for name, layer in gradient.items() if any(x.any() for x in layer.values())} == {
        name for name in gradient if name.startswith("critic")
    }


@pytest.mark.parametrize("wide", [True, False])
@every_policy
def test_types_are_a_fixed_point(request, policy, wide):
    if wide:
        request.getfixturevalue("x64")

    def act():
        params, memory = policy.init(KEY), policy.initial_memory((E,))
        after, distribution, value = policy.step(params, memory, jnp.ones((E, 4)))
        return memory, after, value, distribution.log_prob(distribution.sample(policy.noise(KEY, (E,))))

    memory, after, *rest = jax.eval_shape(act)
    kinds = [[(x.shape, x.dtype, x.weak_type) for x in part] for part in (memory, after)]
    assert kinds[0] == kinds[1]
    assert {(x.dtype, x.weak_type) for x in (*memory, *rest)} == {
        (jnp.dtype(jnp.float64 if wide else jnp.float32), False)
    }


@every_policy
def test_a_policy_is_its_description(policy):
    again = policy_from_architecture(json.loads(json.dumps(policy.architecture(), allow_nan=False)))
    assert again == policy and hash(again) == hash(policy) and again is not policy
    assert policy.architecture()["kind"] == "gru"


def test_a_policy_without_memory_is_the_special_case():
    policy = mlp_policy(CartPole(), (8,))
    params, observation = policy.init(KEY), jnp.ones((T, E, 4))
    assert not policy.has_memory and policy.initial_memory((E,)) == ()
    distribution, value = policy.apply(params, observation)
    memory, stepped, stepped_value = policy.step(params, (), observation)
    unrolled, unrolled_value = policy.unroll(params, (), observation, jnp.ones((T, E), bool))
    assert memory == ()
    assert isinstance(distribution, Categorical) and isinstance(stepped, Categorical)
    for other in ((stepped, stepped_value), (unrolled, unrolled_value)):
        jax.tree.map(np.testing.assert_array_equal, (distribution, value), other)


def test_what_is_wrong_is_refused():
    policy = POLICIES["shared"]
    with pytest.raises(TypeError, match="cannot be asked without it; call step or unroll"):
        policy.apply({}, jnp.ones(4))
    with pytest.raises(ValueError, match="must have 4 entries"):
        policy.step({}, policy.initial_memory(()), jnp.ones(5))
    with pytest.raises(ValueError, match="memory_size must be an integer >= 1, got 0"):
        gru_policy(CartPole(), memory_size=0)
    with pytest.raises(ValueError, match="memory_size must be an integer >= 1, got -1"):
        policy_from_architecture(policy.architecture() | {"memory_size": -1})
    with pytest.raises(ValueError, match="hidden_sizes must be an integer >= 1"):
        gru_policy(CartPole(), (0,))
    with pytest.raises(ValueError, match="squash must be False"):
        gru_policy(CartPole(), squash=True)
