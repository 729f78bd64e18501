"""What every family owes: physics by key and number alone, and worlds that reset and step under jit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import tree
from tests.conformance.examples import FAMILIES


KEY = jax.random.key(11)
ALL = {f"{name}-{i}": family for name, many in FAMILIES.items() for i, family in enumerate(many)}
FAMILY = pytest.mark.parametrize("family", ALL.values(), ids=ALL)
TRACES = []


@functools.partial(jax.jit, static_argnums=2)
def sample(family, key, num_agents):
    TRACES.append(1)
    return family.sample(key, num_agents)


def count(family):
    """As many agents as it has, or four."""
    return family.num_agents or 4


@FAMILY
def test_physics_has_the_leaves_of_the_nominal_one(family):
    physics, nominal = family.worlds(sample(family, KEY, count(family))), family.env.default_params
    assert type(physics) is type(nominal)
    for expected, leaf in zip(jax.tree.leaves(nominal), jax.tree.leaves(physics), strict=True):
        assert leaf.shape[1:] == np.shape(expected)
        assert leaf.dtype == jnp.result_type(expected)
        assert not leaf.weak_type
        assert bool(jnp.all(jnp.isfinite(leaf)))
    if hasattr(physics, "kernel"):
        kernel, initial = np.asarray(physics.kernel), np.asarray(physics.initial)
        assert kernel.shape[:-1] == physics.reward.shape and kernel.shape[-1] == initial.shape[-1]
        for law in (kernel, initial):
            assert law.min() >= 0
            np.testing.assert_allclose(law.sum(-1), 1, atol=1e-6)


@FAMILY
def test_physics_of_an_agent_does_not_depend_on_how_many_there_are(family):
    if family.num_agents is not None:
        with pytest.raises(ValueError, match="num_agents must be"):
            family.sample(KEY, family.num_agents + 1)
        return
    many, one = sample(family, KEY, 4), sample(family, KEY, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:1], b, rtol=1e-6, atol=1e-7), many, one)


@FAMILY
def test_one_compilation_serves_all_keys_and_seeds_can_be_mapped(family):
    first = sample(family, KEY, count(family))
    before, keys = len(TRACES), jnp.stack([jax.random.key(12), KEY])
    for key in keys:
        sample(jax.tree.map(lambda x: x, family), key, count(family))
    assert len(TRACES) == before
    mapped = jax.jit(jax.vmap(lambda key: family.sample(key, count(family))))(keys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), tree.take(mapped, 1), first)


@FAMILY
@pytest.mark.parametrize("double", [False, True])
def test_seen_and_unseen_agents_have_the_types_of_the_precision(family, double, request):
    if double:
        request.getfixturevalue("x64")
    nominal = family.env.default_params
    kinds = [jax.eval_shape(lambda: family.worlds(family.sample(KEY, count(family))))]
    if family.num_unseen == 0:
        with pytest.raises(ValueError, match="unseen"):
            family.sample_unseen(KEY, 1)
    else:
        kinds.append(jax.eval_shape(lambda: family.worlds(family.sample_unseen(KEY, 1))))
    for kind in kinds:
        for expected, leaf in zip(jax.tree.leaves(nominal), jax.tree.leaves(kind), strict=True):
            assert (leaf.shape[1:], leaf.dtype) == (np.shape(expected), jnp.result_type(expected))


@FAMILY
def test_worlds_reset_and_step_under_jit(family):
    env, space = family.env, family.env.observation_space()

    def play(key, params):
        def body(carry, key):
            k_act, k_step = jax.random.split(key)
            action = env.action_space().sample(k_act)
            new, state, reward, *ends, info = env.step(k_step, carry[1], action, params)
            return (new, state), (new, reward, *ends, info["final_observation"])

        first = env.reset(key, params)
        return first[0], jax.lax.scan(body, first, jax.random.split(key, 9))[1]

    worlds = family.worlds(sample(family, KEY, count(family)))
    num = jax.tree.leaves(worlds)[0].shape[0]
    first, (new, reward, terminated, truncated, last) = jax.jit(jax.vmap(play))(jax.random.split(KEY, num), worlds)
    assert first.shape == (num, *space.shape) and new.shape == last.shape == (num, 9, *space.shape)
    assert terminated.dtype == truncated.dtype == jnp.bool_
    assert reward.shape == terminated.shape == truncated.shape == (num, 9)
    for x in (first, new, reward, last):
        assert np.all(np.isfinite(x))
    first = np.asarray(first)
    assert np.all(first >= space.low) and np.all(first <= space.high)
