"""What waits for slow agents and what does not: learner, step size, topology and participation of each method."""

from typing import Any

import numpy as np
from _clocks import ASYNCHRONOUS, SECONDS, WORLDS, carts, round_seconds, slowness, system

from fedjax_rl.training import ExperimentConfig


NORMALISED = {"algorithm": "afedpg(step_size={step}, momentum=0.1)"}
VANILLA = {"algorithm": "afedpg(step_size={step}, momentum=0.1, lookahead=False)"}
SGD = {"algorithm": "local_training()", "optimizer": "sgd(learning_rate={step})", "upload": "gradient"}
LOCAL = {"algorithm": "local_training()", "optimizer": "adam(learning_rate={step})"}
A3C = {"objective": "a2c()", "optimizer": "rmsprop(learning_rate={step})", "upload": "gradient"}
DISCOUNTED = "sequential(snapshot({}, polynomial(0.5)))"
EVERYONE = "timed(everyone(), {system})"
ARRIVALS = "first_arrivals({system}, batch={agents})"
RENNALA = "gradient_race({system}, total={agents}, most={most}, stop='total')"
MALENIA = "gradient_race({system}, total={agents}, most={most}, stop='harmonic')"
# Step sizes: the best by return at the end of `waiting.py --pilot` (ratio 4, unlike worlds, seeds of its own), none of
# them at an end of what was tried.
# Learner, step size, topology, participation; what is in braces is filled in. Messages of one gradient weigh alike.
METHODS: dict[str, tuple[dict[str, Any], float, str, str]] = {
    "AFedPG": (NORMALISED, 0.02, ASYNCHRONOUS, ARRIVALS),
    "synchronous FedPG": (NORMALISED, 0.15, "star()", EVERYONE),
    "synchronous FedPG (sgd)": (SGD, 0.6, "star()", EVERYONE),
    "vanilla asynchronous": (VANILLA, 0.02, ASYNCHRONOUS, ARRIVALS),
    "A3C": (A3C, 0.002, ASYNCHRONOUS, ARRIVALS),
    "FedAsync": (LOCAL | {"wrappers": ("fed_async(0.6)",)}, 0.03, DISCOUNTED.format("star()"), ARRIVALS),
    "FedBuff": (LOCAL, 0.03, DISCOUNTED.format("buffered(star(), 4)"), ARRIVALS),
    "Rennala": (NORMALISED, 0.15, "star()", RENNALA),
    "Malenia": (NORMALISED, 0.15, "star()", MALENIA),
}


def variant(
    method: str, kind: str, world: str, agents: int, gradients: int, seeds: int, step: float | None = None
) -> ExperimentConfig:
    """A method for the virtual time that so many gradients take where nobody waits; `step`: instead of the chosen."""
    learner, chosen, topology, rule = METHODS[method]
    times = 4 * 500 * SECONDS * slowness(agents, kind)
    # So many gradients of the fastest come before the first of the slowest; and a race for N needs no more than N.
    most = max(4, int(np.ceil(times.max() / times.min() - 1e-9)))
    most = min(most, agents) if rule == RENNALA else most
    learner = {
        name: value.format(step=chosen if step is None else step) if isinstance(value, str) else value
        for name, value in learner.items()
    }
    if rule in (RENNALA, MALENIA):
        learner |= {"num_local_steps": most, "weight": "steps" if rule == RENNALA else "uniform"}
    rounds = max(2, round(gradients / np.sum(1 / times) / round_seconds(rule, times, most)))
    meeting = {
        "topology": topology,
        "participation": rule.format(system=system(kind), agents=agents, most=most),
    }
    label = f"{method}, {kind}, {world}"
    return carts(label, agents, seeds, rounds, world={"family": WORLDS[world]}, learner=learner, round=meeting)
