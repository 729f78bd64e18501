"""gymnax environments that differ between agents."""

from typing import Any, NamedTuple

from fedjax_rl.core import check_range

from ._cartpole import CartPole
from ._environment import Environment
from ._family import UniformFamily, uniform_family
from ._gymnax import gymnax_environment
from ._liveness import dead_fields


class PhysicsSet(NamedTuple):
    """A published law of the physics."""

    ranges: dict[str, Any]
    ties: tuple[tuple[str, str, float], ...] = ()


# What `spread` varies: the physics proper. Limits, thresholds, time steps and goals are varied on request only.
SPREAD = {
    "Pendulum-v1": ("g", "m", "l"),
    "Acrobot-v1": (
        "link_length_1",
        "link_mass_1",
        "link_mass_2",
        "link_com_pos_1",
        "link_com_pos_2",
        "link_moi",
    ),
    "MountainCar-v0": ("force", "gravity"),
    "MountainCarContinuous-v0": ("power", "gravity"),
}

_OUTER = ((0.5, 0.75), (1.25, 1.5))
_INNER = (0.75, 1.25)
_ONE_MASS = (("link_mass_2", "link_mass_1", 1.0),)

PHYSICS_SETS: dict[str, dict[str, PhysicsSet]] = {
    "Pendulum-v1": {
        "packer-r": PhysicsSet({"m": _INNER, "l": _INNER}),
        "packer-e": PhysicsSet({"m": _OUTER, "l": _OUTER}),
    },
    "Acrobot-v1": {
        "packer-r": PhysicsSet({"link_mass_1": _INNER, "link_length_1": _INNER, "link_moi": _INNER}, _ONE_MASS),
        "packer-e": PhysicsSet({"link_mass_1": _OUTER, "link_length_1": _OUTER, "link_moi": _OUTER}, _ONE_MASS),
        "jin": PhysicsSet({"link_length_1": (0.5, 1.5)}, (("link_com_pos_1", "link_length_1", 0.5),)),
    },
    "MountainCar-v0": {
        "packer-r": PhysicsSet({"force": (0.0005, 0.005), "gravity": (0.001, 0.005)}),
        "packer-e": PhysicsSet(
            {"force": ((0.0001, 0.0005), (0.005, 0.01)), "gravity": ((0.0005, 0.001), (0.005, 0.01))}
        ),
    },
}

_DEAD = {
    ("Acrobot-v1", "link_length_2"): "it is read by nothing (in Gymnasium only by the renderer); "
    "the second link's dynamics are link_com_pos_2, link_mass_2 and link_moi",
}


def gymnax_family(
    name: str | Environment, physics_set: str = "nominal", *, spread: float = 0.0, **ranges: Any
) -> UniformFamily:
    """gymnax environments whose physics differs between agents.

    Published sets, each parameter uniform and independent; R is 0.75-1.25, E is 0.5-0.75 or 1.25-1.5:

    | environment | packer-r, packer-e | jin |
    |---|---|---|
    | Pendulum | m, l: R, E | |
    | Acrobot | mass of both links (the same), length, inertia: R, E | link_length_1 0.5-1.5, its centre in the middle |
    | MountainCar | R: force 0.0005-0.005, gravity 0.001-0.005 | |
    | | E: force 0.0001-0.0005 or 0.005-0.01, gravity 0.0005-0.001 or 0.005-0.01 | |

    Args:
        name: gymnax's name, with or without version ("Pendulum-v1", "pendulum"), or an environment of ours.
            MountainCarContinuous is our own (gymnax's car sticks to the left wall); CartPole is refused, see
            `cartpole_family`.
        physics_set: name of the set to start from.
        spread: draws every parameter that is physics proper from nominal * [1 - spread, 1 + spread]: g, m, l of
            Pendulum; lengths, masses, centres and inertia of Acrobot; force or power and gravity of MountainCar. Other
            environments mix physics with rules of the game, so give their ranges one by one.
        ranges: field -> number, (low, high), or several (low, high), replacing the set's or the spread's.

    Raises:
        ValueError: unknown environment, set or field, a field that nothing reads, or impossible physics.

    Example:
        >>> family = gymnax_family("Pendulum-v1", spread=0.2)
        >>> family = gymnax_family("FourRooms-misc", fail_prob=(0.0, 0.5))

    Reference:
        Packer et al., "Assessing Generalization in Deep Reinforcement Learning", 2018, and its code; Jin et al.,
        "Federated Reinforcement Learning with Environment Heterogeneity", AISTATS 2022, and its code.
    """
    env = name if isinstance(name, Environment) else gymnax_environment(name)
    sets = {"nominal": PhysicsSet({}), **PHYSICS_SETS.get(env.name, {})}
    if physics_set not in sets:
        raise ValueError(f"physics_set must be one of {', '.join(sets)} for {env.name}, got {physics_set!r}")
    check_range("spread", spread, 0.0, 1.0, open_high=True)
    chosen = sets[physics_set]
    varied = {**chosen.ranges, **_spread_ranges(env, spread, physics_set), **ranges}
    return uniform_family(env, ties=chosen.ties, dead=dead_parameters(env, tuple(varied)), **varied)


def _spread_ranges(env: Environment, spread: float, physics_set: str) -> dict[str, Any]:
    """Intervals around the nominal physics."""
    if spread == 0:
        return {}
    if physics_set != "nominal":
        raise ValueError(f"spread must be 0 with physics_set={physics_set!r}, got {spread!r}; give one of the two")
    if env.name not in SPREAD:
        raise ValueError(
            f"spread must be 0 for {env.name}, got {spread!r}: which of its parameters are physics is for you to say; "
            f"give ranges, as in {next(iter(env.default_params.__annotations__), 'field')}=(low, high)"
        )
    nominal = env.default_params
    centres = {name: getattr(nominal, name) for name in SPREAD[env.name]}
    return {name: (centre * (1 - spread), centre * (1 + spread)) for name, centre in centres.items()}


def dead_parameters(env: Environment, names: tuple[str, ...]) -> dict[str, str]:
    """The parameters that nothing reads, with the reason; known good names spare the tracing."""
    if isinstance(env, CartPole) or set(names) <= set(SPREAD.get(env.name, ())):
        return {}
    return {name: _DEAD.get((env.name, name), "nothing an agent can notice depends on it") for name in dead_fields(env)}
