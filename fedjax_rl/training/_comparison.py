"""Runs beside each other: what they reached, for what price, and whether the seeds can tell them apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..metrics import (
    TimeToThreshold,
    interquartile_mean_interval,
    paired_difference,
    threshold_statistics,
    time_to_threshold,
    unpaired_difference,
)
from ._comparison_prices import check_fields, describe_fields, equal_prices, estimate, priced, returns_at
from ._comparison_views import plot_comparison
from ._config import ExperimentConfig
from ._folder import RunFolder, plain
from ._progress import amount
from ._runs import Comparison, Run
from ._train import Result


PICTURE = "compare.png"
FEW_SEEDS = 10

# What these settings change, when runs differ in them.
_MATTERS = {
    "world.family": "returns are of different worlds",
    "evaluation.greedy": "most likely actions against sampled ones",
    "evaluation.max_agents": "other agents were evaluated",
    "evaluation.episodes": "thresholds were met with other evaluation noise",
    "evaluation.final_episodes": "final returns have other evaluation noise",
    "evaluation.every": "thresholds were looked for on other grids of rounds",
}


def compare(
    runs: Sequence[str | Path | Result],
    labels: Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    thresholds: Sequence[float] | None = None,
    prices: Sequence[str] = (),
    totals: Sequence[str] = (),
    means: Sequence[str] = (),
    confidence: float = 0.95,
) -> Comparison:
    """Compares runs, seeds being the independent units.

    Last returns are those of the final evaluation (every agent), or of the last evaluation while training if a run
    has not finished. Their means and interquartile means have bootstrap intervals, and so has the difference to the
    first run: paired where both have the same seeds, and of independent samples otherwise. A threshold is reached by a
    seed at the first evaluation whose mean return over agents is at or above it (`first`), or from which on no later
    one is below (`for_good`); seeds that never do count as infinitely late. Returns are also told at equal prices:
    what every seed of every run has paid, read off the curves between evaluations.

    Args:
        runs: run folders, or what `train` returned; the first one is the reference.
        labels: of the runs; by default their names, or their folders where names are equal.
        out: the picture, or the folder to draw `compare.png` in; None: no picture.
        thresholds: of the return; by default all that the runs' `evaluation.success` names.
        prices: fields of metrics.jsonl whose sum over the rounds returns are held against too, such as
            "messages_delivered"; a run without the field pays nothing.
        totals: fields that are only told, added up over the rounds, such as "failures".
        means: fields that are only told, averaged over the rounds, such as "silent_share".
        confidence: of the intervals, in (0, 1); the picture's are at 95 %.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there are fewer than two runs, a folder holds no run, a run has no evaluation yet, or nobody has a
            field of `prices`, `totals` or `means`.

    Reference: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(runs)}; look at a single one with plot")
    opened = _labelled([_open(run) for run in runs], labels)
    check_fields(opened, (*prices, *totals, *means))
    opened, names = priced(opened, prices)
    levels = equal_prices(opened, names)
    if thresholds is None:
        thresholds = sorted({threshold for run in opened for threshold in run.config.evaluation.success})
    finished = all(run.summary is not None for run in opened)
    last = [_last_returns(run, finished) for run in opened]
    entries = [
        _describe(run, returns, thresholds, confidence, names)
        | {"at_equal": returns_at(run, levels, confidence)}
        | {"totals": describe_fields(run, totals, True, confidence)}
        | {"means": describe_fields(run, means, False, confidence)}
        | {"difference": _difference(last[0], returns, opened[0].label, confidence) if number else None}
        for number, (run, returns) in enumerate(zip(opened, last, strict=True))
    ]
    report = {
        "runs": entries,
        "thresholds": list(thresholds),
        "prices": list(names),
        "equal_prices": levels,
        "confidence": confidence,
        "returns_from": "the final evaluation of every agent" if finished else "the last evaluation while training",
        "notes": _notes(opened, entries),
    }
    picture = None
    if out is not None:
        picture = plot_comparison(opened, Path(out) / PICTURE if Path(out).is_dir() else out, thresholds, names)
    return Comparison(opened, plain(report), picture)


def distinct_labels(configs: Sequence[ExperimentConfig], paths: Sequence[Path | None]) -> list[str]:
    """Names that tell runs apart: those of the experiments, else of the folders, else their paths, else numbers too."""
    names = [config.name for config in configs]
    candidates = [names]
    if all(path is not None for path in paths):
        candidates += [[path.name for path in paths if path is not None], [str(path) for path in paths]]
    for found in candidates:
        if len(set(found)) == len(found):
            return found
    return [f"{name} ({number})" for number, name in enumerate(candidates[-1], start=1)]


# ---------------------------------------------------------------- reading


def _open(run: str | Path | Result) -> Run:
    if isinstance(run, Result):
        opened = Run("", run.folder, run.config, run.history, run.summary or None)
    else:
        folder, config = RunFolder.open(run)
        opened = Run("", folder.path, config, folder.read_metrics(), folder.read_summary())
    if not opened.evaluations:
        raise ValueError(
            f"{opened.path or opened.config.name} has no evaluation yet, so there is no return to compare; go on with "
            "fedjax-rl resume, or train with --evaluation.every 10"
        )
    # A run that was given more rounds and stopped before them still has the summary of its shorter self.
    if opened.summary is not None and opened.summary["rounds"] != opened.history[-1]["round"]:
        opened = opened._replace(summary=None)
    return opened


def _labelled(runs: Sequence[Run], labels: Sequence[str] | None) -> tuple[Run, ...]:
    if labels is None:
        labels = distinct_labels([run.config for run in runs], [run.path for run in runs])
    if len(labels) != len(runs) or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be {len(runs)} different texts, one for each run, got {list(labels)}")
    return tuple(run._replace(label=label) for run, label in zip(runs, labels, strict=True))


class _Returns(NamedTuple):
    """Last returns, one of each seed."""

    seeds: list[int]
    mean: np.ndarray  # f64[K] over agents
    worst_decile: np.ndarray  # f64[K] of the agents


def _last_returns(run: Run, finished: bool) -> _Returns:
    if finished and run.summary is not None:
        rows = {entry["seed"]: entry["training_agents"] for entry in run.summary["seeds"]}
    else:
        rows = {seed: rows[-1] for seed, rows in run.evaluations.items()}
    seeds = sorted(rows)
    mean, worst = (np.array([rows[k][name] for k in seeds], float) for name in ("return_mean", "return_worst_decile"))
    return _Returns(seeds, mean, worst)


# ---------------------------------------------------------------- numbers


def _describe(
    run: Run, last: _Returns, thresholds: Sequence[float], confidence: float, names: Sequence[str]
) -> dict[str, Any]:
    ends = [rows[-1] for rows in run.evaluations.values()]
    return {
        "label": run.label,
        "folder": None if run.path is None else str(run.path),
        "num_agents": run.config.num_agents,
        "seeds": last.seeds,
        "finished": run.summary is not None,
        **{name: float(np.mean([row[name] for row in ends])) for name in names},
        "return": {
            "mean": estimate(last.mean, confidence)._asdict(),
            "interquartile_mean": interquartile_mean_interval(last.mean, confidence=confidence)._asdict(),
            "worst_decile": estimate(last.worst_decile, confidence)._asdict(),
            "of_seeds": last.mean,
        },
        "thresholds": {
            f"{threshold:g}": {
                "first": _times(run, threshold, False, confidence, names),
                "for_good": _times(run, threshold, True, confidence, names),
            }
            for threshold in thresholds
        },
    }


def _times(run: Run, threshold: float, for_good: bool, confidence: float, names: Sequence[str]) -> dict[str, Any]:
    """When each seed reached a threshold, by every price."""
    found: dict[str, TimeToThreshold] = {}
    for price in names:
        times = [
            time_to_threshold(
                np.array([row[price] for row in rows]),
                np.array([row["return_mean"] for row in rows]),
                threshold,
                for_good=for_good,
            )
            for _, rows in sorted(run.evaluations.items())
        ]
        found[price] = threshold_statistics(np.array(times), confidence=confidence)
    first = found["round"]
    return {"reached": first.reached, "share": first.share._asdict()} | {
        price: {
            "of_seeds": statistics.times,
            "quantiles": {f"{level:g}": quantile._asdict() for level, quantile in statistics.quantiles.items()},
        }
        for price, statistics in found.items()
    }


def _difference(first: _Returns, second: _Returns, label: str, confidence: float) -> dict[str, Any]:
    paired = first.seeds == second.seeds
    estimate = (paired_difference if paired else unpaired_difference)(first.mean, second.mean, confidence=confidence)
    return {"to": label, "paired": paired, **estimate._asdict()}


# ---------------------------------------------------------------- what a reader has to know


def _notes(runs: Sequence[Run], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for name, meaning in _MATTERS.items():
        labels: dict[Any, list[str]] = {}
        for run in runs:
            labels.setdefault(_setting(run.config, name), []).append(run.label)
        if len(labels) > 1:
            told = "; ".join(f"{', '.join(same)}: {value}" for value, same in labels.items())
            notes.append(f"{name} differs ({told}): {meaning}")
    unfinished = [run.label for run in runs if run.summary is None]
    if unfinished:
        notes.append(f"not finished: {', '.join(unfinished)}; last returns are of the last evaluation while training")
    steps = [entry["env_steps"] for entry in entries]
    if max(steps) > 1.01 * min(steps):
        told = ", ".join(f"{entry['label']}: {amount(entry['env_steps'])}" for entry in entries)
        notes.append(f"last returns are after unequal environment steps ({told})")
    silent = [entry["label"] for entry in entries if entry["uplink_bits_total"] == 0]
    if silent:
        notes.append(f"nothing is sent by {', '.join(silent)}: no curve against uplink")
    numbers = {entry["label"]: len(entry["seeds"]) for entry in entries}
    if single := [label for label, number in numbers.items() if number == 1]:
        notes.append(f"a single seed has no interval: {', '.join(single)}")
    few = [label for label, number in numbers.items() if 1 < number < FEW_SEEDS]
    if few:
        notes.append(
            f"fewer than {FEW_SEEDS} seeds: {', '.join(few)}; bootstrap intervals are too narrow then (3 seeds: a "
            "nominal 95 % covers about 75 %, 5 seeds: 83 %)"
        )
    return notes


def _setting(config: ExperimentConfig, name: str) -> Any:
    section, field = name.split(".")
    return getattr(getattr(config, section), field)
