"""The library held against what its users run today: the same work, either in its own way, to be called in turns."""

import dataclasses
import functools

import optax

from fedjax_rl.envs import cartpole_family
from fedjax_rl.learners import LocalTraining, clip_gradient, local_training, optimizer, reinforce
from fedjax_rl.policies import mlp_policy
from fedjax_rl.training import build, preset

from ._gymnax import gymnax_stepping
from ._ours import FAMILY, our_ppo, our_rollout, rounds
from ._peer import peer
from ._plain_ppo import CLIP, DISCOUNT, EPOCHS, LAMBDA, LEARNING_RATE, MINIBATCHES
from ._setting import Setting
from ._work import Work, forward_flop, gradient_flop


MAX_NORM = 0.5  # of the gradient in stable-baselines3
STEP_SIZE = 0.01  # of REINFORCE


def against_sb3(setting: Setting) -> Work:
    """Rounds of PPO against iterations of stable-baselines3, which has one agent with as many environments as one."""
    request = dataclasses.asdict(setting) | {
        "num_epochs": EPOCHS,
        "num_minibatches": MINIBATCHES,
        "learning_rate": LEARNING_RATE,
        "discount": DISCOUNT,
        "gae_lambda": LAMBDA,
        "clip": CLIP,
        "max_norm": MAX_NORM,
    }
    work = our_ppo(setting, clip_gradient(MAX_NORM))
    return work._replace(reference=functools.partial(peer, "sb3", request))


def against_flower(setting: Setting) -> Work:
    """Rounds of REINFORCE, a gradient step after `num_steps` steps of one environment, against Flower's simulation."""
    if setting.num_envs != 1:
        raise ValueError(f"num_envs must be 1 with peer_flower, whose clients have one each, got {setting.num_envs}")
    policy = mlp_policy(cartpole_family(FAMILY).env, hidden_sizes=setting.hidden_sizes)
    objective = reinforce(
        policy, num_envs=1, num_steps=setting.num_steps, discount=DISCOUNT, baseline="none", episodes="continue"
    )
    learner = local_training(objective, optimizer(optax.sgd, learning_rate=STEP_SIZE))
    work = rounds(setting, learner, forward_flop(setting) + gradient_flop(setting))
    request = dataclasses.asdict(setting) | {"learning_rate": STEP_SIZE, "discount": DISCOUNT}
    return work._replace(reference=functools.partial(peer, "flower", request))


def against_torch_tutorial(setting: Setting) -> Work:
    """Trainings of the preset `tutorial-exact` against the same in PyTorch, both from a new model on in every call.

    Whole episodes: here environments are computed until all of an agent's chunk have ended, there one by one.
    """
    config = preset("tutorial-exact").replace(
        num_agents=setting.num_agents,
        policy={"hidden_sizes": setting.hidden_sizes},
        rollout={"num_envs": setting.num_envs, "num_steps": setting.num_steps},
    )
    experiment = build(config)
    assert isinstance(experiment.learner, LocalTraining)
    flop = forward_flop(setting) + gradient_flop(setting)
    work = rounds(setting, experiment.learner, flop, experiment.family, anew=True)
    return work._replace(reference=functools.partial(peer, "torch_tutorial", dataclasses.asdict(setting)))


def against_gymnax(setting: Setting) -> Work:
    """Acting with a physics per agent against gymnax's `step` of as many environments of one physics.

    As its users call it: one `jax.jit` on one device, which has all threads. The suite `limit` has the same step with
    this library's devices and compiler options.
    """
    num_envs = setting.num_agents * setting.num_envs
    theirs = dataclasses.replace(setting, work="gymnax_policy", num_agents=1, num_envs=num_envs, num_devices=1)
    return our_rollout(setting)._replace(reference=functools.partial(gymnax_stepping, theirs, plain=True))
