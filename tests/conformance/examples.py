"""At least one instance of every registered component. A registry line without an example here fails the suite."""

import math

import optax

from fedjax_rl import aggregators, envs, learners, participation, policies, topologies, transforms


AGGREGATORS = {
    "mean": [aggregators.mean()],
    "median": [aggregators.median()],
    "trimmed_mean": [aggregators.trimmed_mean(0.0), aggregators.trimmed_mean(0.2)],
}
# (transform, the same with its neutral parameter or None)
TRANSFORMS = {
    "clip": [(transforms.clip(0.5), transforms.clip(math.inf))],
    "from_optax": [
        (transforms.from_optax(optax.clip_by_global_norm(0.5)), transforms.from_optax(optax.identity())),
        (transforms.from_optax(optax.trace(0.9)), None),
    ],
}
TOPOLOGIES = {"star": [topologies.star()], "isolated": [topologies.isolated()]}
# Poles count as fallen so early that episodes of different lengths fit into a few steps.
CARTPOLE = envs.cartpole_family("packer-r", max_steps_in_episode=5, theta_threshold=0.06)
CONTINUOUS = envs.cartpole_family("packer-r", continuous=True, max_steps_in_episode=5)
_PLAY = {"num_envs": 2, "num_steps": 8}


def _policy(family: object = CARTPOLE) -> policies.Policy:
    return policies.mlp_policy(family.env, hidden_sizes=(8,))  # type: ignore[attr-defined]


def _gru() -> policies.Policy:
    return policies.gru_policy(CARTPOLE.env, hidden_sizes=(8,), memory_size=4)


OBJECTIVES = {
    "reinforce": [
        learners.reinforce(_policy(), baseline="none", **_PLAY),  # two short equal episodes would cancel an average
        learners.reinforce(_policy(), baseline="value", **_PLAY),
        learners.reinforce(_gru(), baseline="value", **_PLAY),
    ],
    "actor_critic": [
        learners.actor_critic(_policy(), **_PLAY),
        learners.actor_critic(_policy(), episodes="fresh", normalization="returns", **_PLAY),
    ],
    "ppo": [
        learners.ppo(_policy(), **_PLAY),
        learners.ppo(_policy(CONTINUOUS), **_PLAY),
        learners.ppo(_gru(), **_PLAY),
    ],
}
CORRECTIONS = {"proximal": [learners.proximal(0.1)]}


def training(objective: learners.Objective, step_size: float = 0.1, **kwargs: object) -> learners.LocalTraining:
    """Local training with plain SGD, whose zero step is a zero difference."""
    sgd = learners.optimizer(optax.sgd, learning_rate=step_size)
    return learners.local_training(objective, sgd, **kwargs)  # type: ignore[arg-type]


# As functions of the step size.
LEARNERS = {
    "local_training": [
        *(lambda s, o=o: training(o, s) for objectives in OBJECTIVES.values() for o in objectives),
        *(
            lambda s, c=c: training(OBJECTIVES["ppo"][0], s, corrections=(c,))
            for cs in CORRECTIONS.values()
            for c in cs
        ),
        lambda s: training(OBJECTIVES["ppo"][0], s, num_local_steps=2, num_epochs=2, num_minibatches=4),
        lambda s: training(OBJECTIVES["ppo"][-1], s, num_local_steps=2, num_epochs=2, num_minibatches=2),
        lambda s: training(OBJECTIVES["actor_critic"][0], s, optimizer_state="average", weight="uniform"),
        lambda s: learners.local_training(
            OBJECTIVES["actor_critic"][0],
            learners.optimizer(optax.adam, learning_rate=s),
            num_local_steps=2,
            optimizer_state="keep",
        ),
    ],
    "server_optimizer": [
        lambda s: learners.server_optimizer(
            training(OBJECTIVES["ppo"][0], s), learners.optimizer(optax.sgd, learning_rate=1.0)
        )
    ],
}
PARTICIPATION = {
    "everyone": [participation.everyone()],
    "uniform_cohort": [participation.uniform_cohort(3), participation.uniform_cohort(7)],
}


def every(table: dict) -> list:
    """All examples of a role."""
    return [example for examples in table.values() for example in examples]


def label(value: object) -> str:
    """A readable test id, the same in every process: no addresses."""
    return type(value[0] if isinstance(value, tuple) else value).__name__
