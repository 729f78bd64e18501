"""Run folders that were never trained: curves written by hand, for tests that only read them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_rl.training import ExperimentConfig, RunFolder


def write_run(
    path: Path,
    curves: Mapping[int, Sequence[float]],
    *,
    config: ExperimentConfig | None = None,
    steps: int = 100,
    bits: int = 1000,
    finished: bool = True,
) -> Path:
    """Writes a run folder.

    Args:
        path: the folder.
        curves: by seed, the return at the evaluation after rounds 2, 4, 6, ...
        config: of the run; its name is the folder's by default.
        steps: environment steps of each round.
        bits: uplink of each round [bit].
        finished: whether it has a summary; its final return of a seed is the last of the curve plus 1, and the worst
            decile half of that.
    """
    folder = RunFolder.create(path, config or ExperimentConfig(name=path.name))
    num_rounds = 2 * len(next(iter(curves.values())))
    folder.append_metrics(
        {
            "seed": seed, "round": r, "env_steps": steps * r, "episodes": r, "uplink_bits": bits,
            "uplink_bits_total": bits * r, "return_mean": curve[r // 2 - 1] if r % 2 == 0 else None,
            "return_worst_decile": curve[r // 2 - 1] / 2 if r % 2 == 0 else None,
        }
        for r in range(1, num_rounds + 1) for seed, curve in curves.items()
    )  # fmt: skip
    if finished:
        folder.write_summary(summary(curves, num_rounds))
    return folder.path


def summary(curves: Mapping[int, Sequence[float]], num_rounds: int) -> dict[str, Any]:
    """What a comparison reads of summary.json."""
    return {
        "rounds": num_rounds,
        "seeds": [
            {"seed": seed, "training_agents": {"return_mean": c[-1] + 1, "return_worst_decile": (c[-1] + 1) / 2}}
            for seed, c in curves.items()
        ],
    }


def curves(num_seeds: int, top: float, num_points: int = 6) -> dict[int, list[float]]:
    """Curves that rise to about `top`, seed 0, 1, ..."""
    rng = np.random.default_rng(num_seeds)
    rise = np.linspace(0.1, 1.0, num_points)
    return {seed: [float(x) for x in top * rise + rng.normal(size=num_points)] for seed in range(num_seeds)}
