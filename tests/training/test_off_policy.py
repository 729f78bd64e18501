"""Objectives with networks of their own, from the configuration to the exported policy."""

from pathlib import Path

import jax
import numpy as np
import pytest

from fedjax_rl import learners
from fedjax_rl.policies import BoxPolicy, QPolicy
from fedjax_rl.rl import ramp
from fedjax_rl.training import build, evaluate_run, load_policy, resume, train
from tests.training.examples import TINY


REMEMBER = "capacity=64, batch_size=16, learning_starts=16"
SMALL = TINY.replace(num_agents=3, num_rounds=2, learner={"num_epochs": 1, "num_local_steps": 2, "num_minibatches": 2})
SMALL = SMALL.replace(rollout={"num_envs": 2, "num_steps": 4}, evaluation={"every": 1, "episodes": 3})
BOX = {"family": "cartpole_family('packer-r', continuous=True, max_steps_in_episode=40)"}


@pytest.mark.parametrize(
    ("name", "world", "kind"),
    [
        ("dqn", {}, QPolicy),
        pytest.param("double_dqn", {}, QPolicy, marks=pytest.mark.slow),
        pytest.param("ddpg", BOX, BoxPolicy, marks=pytest.mark.slow),
        ("sac", BOX, BoxPolicy),
    ],
)
def test_a_run_leaves_a_policy_that_plays(tmp_path: Path, name: str, world: dict, kind: type) -> None:
    config = SMALL.replace(world=world, learner={"objective": f"{name}({REMEMBER})"})
    whole = train(config, out=tmp_path / "whole", progress=False)
    part = train(config.replace(num_rounds=1), out=tmp_path / "part", progress=False)
    assert part.folder is not None and whole.folder is not None
    again = resume(part.folder, num_rounds=2, progress=False)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)  # the memory was restored too
    assert [row["nonfinite_messages"] for row in whole.history] == [0, 0]
    assert whole.history[-1]["drift"] > 0
    policy, params = load_policy(whole.folder / "policy.npz")
    assert policy == whole.policy
    assert isinstance(policy, kind)
    assert policy.hidden_sizes == (8,)  # pyright: ignore[reportAttributeAccessIssue]
    jax.tree.map(np.testing.assert_array_equal, params, whole.params)
    report = evaluate_run(whole.folder, num_episodes=6, greedy=True)
    assert 1 <= report["training_agents"]["return_mean"] <= 40


def test_the_configuration_reaches_the_objective() -> None:
    config = SMALL.replace(
        policy={"hidden_sizes": (7,), "activation": "relu", "initialization": "uniform"},
        rollout={"episodes": "fresh"},
        learner={"objective": f"double_dqn({REMEMBER}, epsilon=ramp(0.5, 0.1, 77))"},
    )
    built = build(config)
    network = {"hidden_sizes": (7,), "activation": "relu", "initialization": "uniform"}
    remember = {"capacity": 64, "batch_size": 16, "learning_starts": 16}
    assert built.learner.objective == learners.double_dqn(  # pyright: ignore[reportAttributeAccessIssue]
        built.family.env, num_envs=2, num_steps=4, episodes="fresh", epsilon=ramp(0.5, 0.1, 77), **remember, **network
    )
    assert built.policy == built.learner.objective.policy  # pyright: ignore[reportAttributeAccessIssue]


def test_an_objective_that_cannot_play_the_world_is_named() -> None:
    with pytest.raises(ValueError, match=r"learner\.objective: env must have discrete actions"):
        build(SMALL.replace(world=BOX, learner={"objective": "dqn()"}))
    with pytest.raises(ValueError, match=r"learner\.objective: dqn: hidden_sizes is set by the configuration"):
        build(SMALL.replace(learner={"objective": "dqn(hidden_sizes=(3,))"}))
