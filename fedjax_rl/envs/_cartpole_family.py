"""CartPoles that differ between agents."""

from typing import Any

from fedjax_rl.core import check_choice

from ._cartpole import CartPole
from ._family import UniformFamily, uniform_family


PHYSICS_SETS: dict[str, dict[str, Any]] = {
    "nominal": {},
    "jin": {"half_length": (0.1, 0.9)},
    "packer-r": {"force_mag": (5.0, 15.0), "half_length": (0.25, 0.75), "masspole": (0.05, 0.5)},
    "packer-e": {
        "force_mag": ((1.0, 5.0), (15.0, 20.0)),
        "half_length": ((0.05, 0.25), (0.75, 1.0)),
        "masspole": ((0.01, 0.05), (0.5, 1.0)),
    },
    "carl": {
        "masscart": (0.1, 10.0),
        "masspole": (0.01, 1.0),
        "half_length": (0.05, 5.0),
        "force_mag": (1.0, 100.0),
        "tau": (0.002, 0.2),
    },
}


def cartpole_family(physics_set: str = "nominal", *, continuous: bool = False, **ranges: Any) -> UniformFamily:
    """CartPoles whose physics differs between agents.

    The published sets, each parameter uniform and independent:

    | set | half_length [m] | masspole [kg] | force_mag [N] | others |
    |---|---|---|---|---|
    | nominal | 0.5 | 0.1 | 10 | all agents play CartPole-v1 |
    | jin | 0.1-0.9 | | | |
    | packer-r | 0.25-0.75 | 0.05-0.5 | 5-15 | |
    | packer-e | 0.05-0.25 or 0.75-1 | 0.01-0.05 or 0.5-1 | 1-5 or 15-20 | |
    | carl | 0.05-5 | 0.01-1 | 1-100 | masscart 0.1-10 kg, tau 0.002-0.2 s |

    The time limit is CartPole-v1's 500 steps; the first three were published with 200 (`max_steps_in_episode=200`).
    CARL bounds gravity from below only, so it stays nominal.

    These sets differ in physics but hardly in what is best to do. Two parameters make agents want different things;
    both are ours, not published: `actuator_polarity` reverses the motor, and `set_point` asks for a place to stand,
    which the observation does not tell (giving it switches to the reward of the same name).

    Args:
        physics_set: name of the set to start from.
        continuous: the action is a force in [-1, 1] force_mag instead of one of two.
        ranges: field of `CartPoleParams` -> number, (low, high), or several (low, high), replacing the set's.
            `actuator_polarity` takes the values an agent may have, each equally likely: (-1, 1) reverses every agent's
            motor with probability 1/2, (-1, 1, 1, 1) with 1/4.

    Raises:
        ValueError: unknown set or field, or impossible physics.

    Example:
        >>> family = cartpole_family("packer-r", gravity=(8.0, 11.0), actuator_polarity=(-1, 1))
        >>> physics = family.sample(jax.random.key(0), 1000)

    Reference:
        jin: Jin et al., "Federated Reinforcement Learning with Environment Heterogeneity", AISTATS 2022, and its code;
        packer-r, packer-e: Packer et al., "Assessing Generalization in Deep Reinforcement Learning", 2018;
        carl: Benjamins et al., "Contextualize Me - The Case for Context in Reinforcement Learning", TMLR 2023 (bounds
        of the library's CARLCartPole).
    """
    check_choice("physics_set", physics_set, tuple(PHYSICS_SETS))
    env = CartPole(continuous=continuous, reward="set_point" if "set_point" in ranges else "survival")
    return uniform_family(env, **{**PHYSICS_SETS[physics_set], **ranges})
