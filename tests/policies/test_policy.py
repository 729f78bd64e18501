"""Policies: parameters, heads, noise, description, and what is refused."""

import json
import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_rl.envs import CartPole
from fedjax_rl.policies import (
    Categorical,
    DiagonalGaussian,
    SquashedGaussian,
    dense_stack,
    mlp_policy,
    policy_from_architecture,
)


KEY = jax.random.key(0)


def world(observation=(5,), actions: Any = 3, low: Any = -1.0, high: Any = 1.0):
    """An environment of which only the spaces matter; `actions` is a number or a shape."""
    action = SimpleNamespace(n=actions, shape=()) if isinstance(actions, int) else None
    action = action or SimpleNamespace(shape=actions, low=low, high=high)
    return SimpleNamespace(observation_space=lambda: SimpleNamespace(shape=observation), action_space=lambda: action)


DISCRETE, BOX = world(), world(actions=(2,), low=np.array([-1.0, 0.0]), high=2.0)
POLICIES = {
    "discrete": mlp_policy(DISCRETE, (8, 6)),
    "separate": mlp_policy(DISCRETE, (8,), shared_trunk=False),
    "linear": mlp_policy(DISCRETE, ()),
    "gaussian": mlp_policy(BOX, (8,), "relu", initial_log_std=-0.5),
    "squashed": mlp_policy(BOX, (8,), squash=True, fast_gradient=False),
}


def wrong(value: Any) -> Any:
    """An argument that a type checker would refuse."""
    return value


def init(policy):
    return jax.jit(policy.init)(KEY)


def observations(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 5)), jnp.result_type(float))


every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def test_names_and_shapes_of_the_parameters():
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(POLICIES["discrete"].init, KEY))
    assert shapes == {
        "params": {
            "trunk_0": {"kernel": (5, 8), "bias": (8,)},
            "trunk_1": {"kernel": (8, 6), "bias": (6,)},
            "actor": {"kernel": (6, 3), "bias": (3,)},
            "critic": {"kernel": (6, 1), "bias": (1,)},
        }
    }
    assert set(jax.eval_shape(POLICIES["separate"].init, KEY)["params"]) == {
        "actor_trunk_0",
        "critic_trunk_0",
        "actor",
        "critic",
    }
    log_std = init(POLICIES["gaussian"])["params"]["log_std"]
    np.testing.assert_array_equal(log_std, jnp.full(2, -0.5))


def test_kernels_are_orthogonal_and_biases_zero():
    params = init(mlp_policy(DISCRETE, (64, 64)))["params"]
    np.testing.assert_allclose(params["trunk_1"]["kernel"].T @ params["trunk_1"]["kernel"], 2 * np.eye(64), atol=1e-5)
    np.testing.assert_allclose(params["trunk_0"]["kernel"] @ params["trunk_0"]["kernel"].T, 2 * np.eye(5), atol=1e-5)
    np.testing.assert_allclose(params["actor"]["kernel"].T @ params["actor"]["kernel"], 1e-4 * np.eye(3), atol=1e-9)
    np.testing.assert_allclose(jnp.linalg.norm(params["critic"]["kernel"]), 1, rtol=1e-5)
    assert all(not layer["bias"].any() for layer in params.values())


def test_a_new_policy_is_nearly_uniform():
    policy = mlp_policy(DISCRETE)
    distribution, _ = policy.apply(init(policy), observations(100))
    assert (distribution.entropy() > math.log(3) - 1e-3).all()


@every_policy
@pytest.mark.parametrize("shape", [(), (7,), (4, 3)])
def test_shapes(policy, shape):
    def play(params, noise):
        distribution, value = policy.apply(params, jnp.ones((*shape, 5)))
        action, log_prob = distribution.sample_and_log_prob(noise)
        rest = (value, log_prob, distribution.entropy(), distribution.kl(distribution))
        return distribution, action, distribution.mode(), rest

    noise = jax.eval_shape(lambda: policy.noise(KEY, shape))
    distribution, action, mode, rest = jax.eval_shape(play, jax.eval_shape(policy.init, KEY), noise)
    kinds = {"categorical": Categorical, "gaussian": DiagonalGaussian, "squashed_gaussian": SquashedGaussian}
    assert type(distribution) is kinds[policy.distribution]
    assert action.shape == (shape if policy.distribution == "categorical" else (*shape, 2))
    assert {x.shape for x in rest} == {shape}
    assert (action.shape, action.dtype) == (mode.shape, mode.dtype)


def test_both_heads_equal_two_networks():
    policy = POLICIES["discrete"]
    generator = np.random.default_rng(1)
    shapes = jax.eval_shape(policy.init, KEY)
    params = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape), x.dtype), shapes)
    observation = observations(9)
    layers = {name: (layer["kernel"], layer["bias"]) for name, layer in params["params"].items()}
    distribution, value = policy.apply(params, observation)
    trunk = (layers["trunk_0"], layers["trunk_1"])
    assert isinstance(distribution, Categorical)
    np.testing.assert_allclose(distribution.logits, dense_stack((*trunk, layers["actor"]), observation), rtol=1e-5)
    np.testing.assert_allclose(value, dense_stack((*trunk, layers["critic"]), observation)[:, 0], rtol=1e-5)


def test_separate_trunks_share_nothing():
    policy = POLICIES["separate"]
    value = jax.jit(jax.grad(lambda p: policy.apply(p, jnp.ones((200, 5)))[1].sum()))
    gradient = value(init(policy))["params"]
    moved = {name for name, layer in gradient.items() if layer["kernel"].any()}
    assert moved == {"critic_trunk_0", "critic"}


@every_policy
def test_fast_and_plain_gradients_agree(x64, policy):
    architecture = policy.architecture()
    fast, plain = (policy_from_architecture(architecture | {"fast_gradient": flag}) for flag in (True, False))
    observation = observations(25, 8)
    noise = policy.noise(KEY, (25, 8))

    def loss(params, policy):
        distribution, value = policy.apply(params, observation)
        action = jax.lax.stop_gradient(distribution.sample(noise))
        return jnp.mean(distribution.log_prob(action) + jnp.square(value) + distribution.entropy())

    gradients = jax.jit(lambda params: [jax.grad(loss)(params, p) for p in (fast, plain)])(init(policy))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12), *gradients)


@pytest.mark.parametrize("wide", [True, False])
def test_floating_type_is_the_default_one(request, wide):
    if wide:
        request.getfixturevalue("x64")
    for policy in POLICIES.values():

        def play(policy=policy):
            params, noise = policy.init(KEY), policy.noise(KEY, (3,))
            distribution, value = policy.apply(params, jnp.ones((3, 5)))
            return params, noise, value, distribution.log_prob(distribution.sample(noise))

        leaves = jax.tree.leaves(jax.eval_shape(play))
        assert {(x.dtype, x.weak_type) for x in leaves} == {(jnp.dtype(jnp.float64 if wide else jnp.float32), False)}


def test_noise_has_the_law_that_the_distribution_wants():
    # n = 20 000; Kolmogorov-Smirnov; each fails with probability 1e-6 if the law is right.
    uniform = POLICIES["discrete"].noise(KEY, (100, 200))
    normal = POLICIES["gaussian"].noise(KEY, (100, 100))
    assert uniform.shape == (100, 200) and normal.shape == (100, 100, 2)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert scipy.stats.kstest(np.ravel(uniform), "uniform").pvalue > 1e-6
    assert scipy.stats.kstest(np.ravel(normal), "norm").pvalue > 1e-6


@every_policy
def test_a_policy_is_its_description(policy):
    text = json.dumps(policy.architecture(), allow_nan=False)
    again = policy_from_architecture(json.loads(text))
    assert again == policy and hash(again) == hash(policy) and again is not policy


def test_policies_compare_by_value_and_serve_as_structure():
    same, other = mlp_policy(CartPole()), mlp_policy(CartPole(), activation="relu")
    assert mlp_policy(CartPole()) == same and same != other
    traces = []

    def value(policy):
        traces.append(policy)
        return policy.apply(policy.init(KEY), jnp.ones(4))[1]

    run = jax.jit(value, static_argnums=0)
    for policy in (same, mlp_policy(CartPole(), hidden_sizes=[64, 64]), other):
        run.eval_shape(policy)
    assert traces == [same, other]


def test_environments_of_the_package():
    assert mlp_policy(CartPole()).action_size == 2
    squashed = mlp_policy(CartPole(continuous=True), squash=True)
    assert (squashed.low, squashed.high, squashed.action_size) == ((-1.0,), (1.0,), 1)
    assert mlp_policy(CartPole(continuous=True)).distribution == "gaussian"
    assert POLICIES["squashed"].low == (-1.0, 0.0) and POLICIES["squashed"].high == (2.0, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mlp_policy(world(observation=(3, 3))),
            r"flat observation box \[d\], got observations of shape \(3, 3\)",
        ),
        (lambda: mlp_policy(world(observation=())), r"flat observation box \[d\]"),
        (lambda: mlp_policy(world(actions=(2, 2))), r"flat action box \[d\], got actions of shape \(2, 2\)"),
        (lambda: mlp_policy(world(actions=())), "discrete actions or a flat action box"),
        (lambda: mlp_policy(DISCRETE, squash=True), "squash must be False for the 3 discrete actions"),
        (lambda: mlp_policy(world(actions=(1,), high=np.inf), squash=True), "finite low < high .* use squash=False"),
        (lambda: mlp_policy(world(actions=(1,), low=1.0), squash=True), "finite low < high"),
        (lambda: mlp_policy(DISCRETE, (64, 0)), "hidden_sizes must be an integer >= 1, got 0"),
        (lambda: mlp_policy(DISCRETE, wrong(64)), "hidden_sizes must be a sequence of numbers, got 64"),
        (lambda: mlp_policy(DISCRETE, wrong((6.4,))), "hidden_sizes must be an integer >= 1, got 6.4"),
        (lambda: mlp_policy(DISCRETE, activation="softplus"), "activation must be one of 'tanh', .* got 'softplus'"),
        (lambda: mlp_policy(BOX, initial_log_std=math.nan), "initial_log_std must lie in"),
        (lambda: mlp_policy(DISCRETE, shared_trunk=wrong("no")), "shared_trunk must be True or False, got 'no'"),
        (lambda: POLICIES["discrete"].apply({}, jnp.ones(4)), "must have 5 entries"),
        (
            lambda: policy_from_architecture({"kind": "cnn"}),
            r"architecture\['kind'\] must be one of 'mlp', 'gru', 'q', 'box', 'mixture', 'normalized', got 'cnn'",
        ),
        (lambda: policy_from_architecture({"kind": "mlp", "depth": 3}), r"unknown entries \['depth'\]"),
        (lambda: policy_from_architecture({"kind": "mlp", "action_size": 2}), "lacks the entries"),
        (
            lambda: policy_from_architecture(POLICIES["discrete"].architecture() | {"low": [0.0], "high": [1.0]}),
            "low and high belong to a squashed_gaussian",
        ),
    ],
)
def test_errors_name_the_argument_the_value_and_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_uniform_initialization_fills_its_interval():
    # n = 64 x 64 uniform numbers: the largest misses the bound by more than 1 % with probability 0.99^4096 < 1e-17.
    policy = mlp_policy(DISCRETE, initialization="uniform")
    params = policy.init(jax.random.key(0))["params"]
    kernel = np.abs(np.asarray(params["trunk_1"]["kernel"]))
    assert 0.99 / 8 < kernel.max() <= 1 / 8
    assert 0 < np.abs(params["trunk_1"]["bias"]).max() <= 1 / 8
    with pytest.raises(ValueError, match="initialization must be one of 'orthogonal', 'uniform', got 'xavier'"):
        mlp_policy(DISCRETE, initialization="xavier")
