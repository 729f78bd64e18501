"""Stacked observations against a list of what was seen and done."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import EnvFamily
from fedjax_rl.envs import (
    CartPole,
    FleetFamily,
    MountainCarContinuous,
    PooledEnvironment,
    cartpole_family,
    fleet_family,
    gymnax_environment,
    gymnax_family,
    pooled,
    stacked,
    stacked_family,
)


KEY = jax.random.key(0)
BARE = {"discrete": CartPole(), "continuous": CartPole(continuous=True), "gymnax": gymnax_environment("Acrobot-v1")}


def shown(frames, actions, num_frames, env, with_actions):
    """What must be shown after these frames and the actions between them, newest first."""
    space = env.action_space()
    size = space.n if hasattr(space, "n") else space.shape[0]
    parts = [*frames[::-1][:num_frames], *[np.zeros_like(frames[0])] * max(0, num_frames - len(frames))]
    if with_actions:
        coded = [np.eye(size)[a] if hasattr(space, "n") else np.clip(a, space.low, space.high) for a in actions]
        parts += [*coded[::-1][: num_frames - 1], *[np.zeros(size)] * max(0, num_frames - 1 - len(coded))]
    return np.concatenate(parts)


@pytest.mark.parametrize("with_actions", [True, False])
@pytest.mark.parametrize("num_frames", [1, 2, 4])
@pytest.mark.parametrize("bare", BARE.values(), ids=BARE)
def test_it_shows_what_was_seen_and_done(x64, bare, num_frames, with_actions):
    env = stacked(bare, num_frames, with_actions)
    params, noise = bare.default_params, bare.reset_noise(KEY, ())
    frame, inner = bare.reset_from(noise, params)
    observation, state = env.reset_from(noise, params)
    step, bare_step = jax.jit(env.step_env), jax.jit(bare.step_env)
    frames, actions = [np.asarray(frame)], []
    space = env.observation_space()
    generator = np.random.default_rng(0)
    for number in range(7):
        assert observation.shape == space.shape and bool(space.contains(observation))
        np.testing.assert_allclose(observation, shown(frames, actions, num_frames, bare, with_actions), rtol=1e-12)
        discrete = hasattr(bare.action_space(), "n")
        drawn = generator.integers(2) if discrete else 2 * generator.normal(size=bare.action_space().shape)
        action = jnp.asarray(drawn, jnp.int32 if discrete else jnp.float64)
        key = jax.random.key(number)
        observation, state, reward, terminated, _ = step(key, state, action, params)
        frame, inner, bare_reward, bare_terminated, _ = bare_step(key, inner, action, params)
        assert (reward, terminated, state.time) == (bare_reward, bare_terminated, inner.time)
        assert env.is_truncated(state, params) == bare.is_truncated(inner, params)
        frames.append(np.asarray(frame))
        actions.append(np.asarray(action))


def test_an_episode_knows_nothing_of_the_one_before():
    env = stacked(CartPole(), 3, True)
    params = CartPole().default_params._replace(max_steps_in_episode=4)
    observation, state = env.reset(KEY, params)
    for number in range(4):
        observation, state, _, _, truncated, info = jax.jit(env.step)(
            jax.random.key(number), state, jnp.int32(1), params
        )
    assert truncated and state.time == 0
    assert not observation[4:].any() and observation[:4].any()
    np.testing.assert_array_equal(state.observation, observation)
    np.testing.assert_array_equal(info["final_observation"][12:], [0, 1, 0, 1])  # both actions were 1
    assert info["final_observation"][4:12].all()


FAMILIES = {
    "cartpole": cartpole_family("packer-r", actuator_polarity=(-1, 1)),
    "gymnax": gymnax_family("Pendulum-v1", spread=0.2),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_physics_of_a_family_stays(family):
    remembering = stacked_family(family, 3)
    assert remembering.env == stacked(family.env, 3, True)
    assert remembering.base is remembering and remembering.num_agents is None
    for draw in ("sample", "sample_unseen"):
        jax.tree.map(np.testing.assert_array_equal, getattr(remembering, draw)(KEY, 5), getattr(family, draw)(KEY, 5))


def test_pooled_families_are_stacked_inside():
    single = FAMILIES["cartpole"]
    family = stacked_family(pooled(single, 4), 2)
    assert family == pooled(stacked_family(single, 2), 4)
    assert family.env == PooledEnvironment(stacked(CartPole(), 2, True)) and family.env.physics_axis == 0
    assert family.base.env == stacked(CartPole(), 2, True)
    jax.tree.map(np.testing.assert_array_equal, family.worlds(family.sample(KEY, 1)), single.sample(KEY, 4))


def test_fleets_stay_fleets(tmp_path: Path):
    path = tmp_path / "fleet.csv"
    path.write_text("agent,half_length\n" + "".join(f"m{i},{0.3 + i / 50}\n" for i in range(5)))
    bare = fleet_family(path)
    family = stacked_family(bare, 2, actions=False)
    assert isinstance(family, FleetFamily) and family.labels == bare.labels and family.num_agents == 4
    assert family.env.observation_space().shape == (8,)
    np.testing.assert_array_equal(family.sample(KEY, 4).half_length, bare.sample(KEY, 4).half_length)


def test_bounds_hold_what_was_not_yet_seen():
    env = stacked(MountainCarContinuous(), 2, True)
    bare, space = MountainCarContinuous().observation_space(), env.observation_space()
    assert space.shape == (5,)
    np.testing.assert_allclose(space.low[:2], bare.low)
    assert (space.low[2:] <= 0).all() and (space.high[2:] >= 0).all()
    assert bool(space.contains(env.reset(KEY)[0]))


def test_environments_are_structure():
    assert stacked(CartPole(), 2) == stacked(CartPole(), 2) and hash(stacked(CartPole())) == hash(stacked(CartPole()))
    assert stacked(CartPole(), 2) != stacked(CartPole(), 2, True)
    assert stacked(CartPole(), 2).name == "CartPole-v1" and stacked(CartPole(), 2).num_actions == 2


class Bare(EnvFamily):
    """A family that keeps its environment elsewhere."""

    env = CartPole()

    def sample(self, key, num_agents):
        return None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stacked(CartPole(), 0), "num_frames must be an integer >= 1, got 0"),
        (lambda: stacked(CartPole(), 2, 1), "actions must be True or False, got 1"),  # type: ignore[arg-type]
        (lambda: stacked(stacked(CartPole())), "must not be stacked already"),
        (lambda: stacked(pooled(cartpole_family(), 3).env), "must not be pooled; use stacked_family"),
        (lambda: stacked_family(stacked_family(cartpole_family())), "must not be stacked already"),
        (lambda: stacked_family(Bare()), "family must have a field env"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_stacked_family_is_still_a_component():
    family = stacked_family(cartpole_family(half_length=(0.1, 0.2)), 2)
    assert dataclasses.is_dataclass(family)
    half_length = jax.jit(lambda f: f.sample(KEY, 3))(family).half_length
    np.testing.assert_allclose(half_length, family.sample(KEY, 3).half_length)
