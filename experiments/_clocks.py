"""What the experiments with clocks share: carts that take their time."""

from typing import Any

import numpy as np

from fedjax_rl.training import ExperimentConfig


ASYNCHRONOUS = "sequential(snapshot(star()))"
SECONDS = 1e-3  # of the fastest agent for an environment step
WORLDS = {
    "like": "cartpole_family('nominal')",
    "unlike": "cartpole_family('packer-r')",
}


def slowness(num_agents: int, kind: str) -> np.ndarray:
    """How many times longer than the fastest each agent takes: kind "sqrt", or the ratio of the slowest."""
    if kind == "sqrt":
        return np.sqrt(np.arange(1, num_agents + 1))
    return 1 + (float(kind) - 1) * np.arange(num_agents) / max(num_agents - 1, 1)


def system(kind: str) -> str:
    """The system with these speeds, as an expression."""
    preset = "sqrt_system(" if kind == "sqrt" else f"ratio_system(ratio={float(kind)}, "
    return f"{preset}seconds_per_env_step={SECONDS})"


def carts(name: str, num_agents: int, num_seeds: int, num_rounds: int, **sections: Any) -> ExperimentConfig:
    """CartPole with 500 steps, 4 whole episodes for a gradient, 32-32 networks; what varies is given."""
    sections = {name: dict(section) for name, section in sections.items()}
    world = sections.pop("world", {"family": WORLDS["unlike"]})
    learner = {"objective": "reinforce(baseline='average')", **sections.pop("learner", {})}
    if not learner.get("algorithm", "").startswith(("afedpg", "fed_async")):
        learner = {"optimizer_state": "reset", "weight": "uniform", **learner}
    return ExperimentConfig().replace(
        name=name,
        num_agents=num_agents,
        num_seeds=num_seeds,
        num_rounds=num_rounds,
        world=world,
        policy={"hidden_sizes": (32, 32), "shared_trunk": False},
        rollout={"num_envs": 4, "num_steps": 500, "episodes": "fresh"},
        learner=learner,
        evaluation={"every": max(1, round(num_rounds / 20)), "success": (), "unseen_agents": 0, "episodes": 8},
        **sections,
    )


def round_seconds(rule: str, times: np.ndarray, most: int = 1) -> float:
    """How long a round for as many gradients as agents takes, where agent i takes times[i] for each, `most` at most."""
    if rule.startswith("timed") or "harmonic" in rule:  # Malenia's mean is reached when the slowest has arrived
        return times.max()
    if rule.startswith("first_arrivals"):  # a batch closes before the fastest agent returns
        return times.min()
    ends = np.sort(np.concatenate([times * number for number in range(1, most + 1)]))
    return ends[len(times) - 1]
