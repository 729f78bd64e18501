"""Evaluates a run folder again: more episodes, another way to act, or in Gymnasium."""

import math
from pathlib import Path
from typing import Any

import jax

from ._build import build
from ._folder import RunFolder, plain
from ._gymnasium import evaluate_gymnasium
from ._measure import Evaluator
from ._session import checkpoints_of, first_state, layout
from ._summary import over_seeds


def evaluate_run(
    folder: str | Path,
    *,
    num_episodes: int = 100,
    greedy: bool | None = None,
    gymnasium: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Plays the trained policies of a run folder, as of its last checkpoint.

    Args:
        folder: the run folder.
        num_episodes: at least so many episodes, spread evenly over the training agents, and as many over unseen ones.
        greedy: play the most likely action, or sampled ones; None: as configured.
        gymnasium: also play the same training agents in Gymnasium's CartPole-v1.
        seed: of the episodes.

    Returns:
        `training_agents`, `unseen_agents` (None where the family has none) and, when asked for, `gymnasium_agents`
        with `difference`, Gymnasium's mean minus ours in combined standard errors; `rounds`, `greedy`,
        `success_thresholds`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no run or no checkpoint, or Gymnasium cannot play the environment.
    """
    run, config = RunFolder.open(folder)
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}")
    greedy = config.evaluation.greedy if greedy is None else greedy
    config = config.replace(evaluation={"episodes": num_episodes, "greedy": greedy})
    experiment = build(config)
    checkpoints = checkpoints_of(experiment, run.checkpoints)
    try:
        rounds = checkpoints.latest
        state = checkpoints.restore(layout(first_state([experiment])))
    finally:
        checkpoints.close()
    assert rounds is not None  # restore has seen to it
    evaluator = Evaluator(experiment, salt=seed + 1, first_row=0 if config.num_seeds > 1 else None)
    seeds = range(config.num_seeds)
    thresholds = config.evaluation.success
    training = [evaluator.after_round(state, k, rounds) for k in seeds]
    unseen = [m for k in seeds if (m := evaluator.unseen(state, k, rounds, num_episodes)) is not None]
    report: dict[str, Any] = {
        "rounds": rounds,
        "greedy": greedy,
        "success_thresholds": list(thresholds),
        "training_agents": over_seeds([m.evaluation for m in training], thresholds),
        "unseen_agents": over_seeds([m.evaluation for m in unseen], thresholds) if unseen else None,
    }
    if gymnasium:
        played = [
            evaluate_gymnasium(
                jax.random.key(seed + k),
                experiment.family.base.env,
                experiment.policy,
                m.params,
                m.physics,
                m.evaluation.returns.shape[1],
                per_agent=experiment.round.per_agent_models,
                greedy=greedy,
            )
            for k, m in zip(seeds, training, strict=True)
        ]
        there, here = over_seeds(played, thresholds), report["training_agents"]
        error = math.hypot(there["standard_error"], here["standard_error"])
        difference = there["return_mean"] - here["return_mean"]
        there["difference"] = difference / error if error > 0 else 0.0 if difference == 0 else math.inf
        report["gymnasium_agents"] = there
    return plain(report)
