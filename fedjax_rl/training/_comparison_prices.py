"""What returns are held against, beyond what every run counts: totals of fields, and steps per agent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..metrics import Estimate, bootstrap_interval
from ._runs import Run, prices


PER_AGENT = "env_steps_per_agent"  # a price where the numbers of agents differ
TOTAL = "_total"


def priced(runs: Sequence[Run], fields: Sequence[str]) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """The runs with further prices in their histories, and the names of all prices.

    Raises:
        ValueError: rounds are missing, so that nothing can be added up.
    """
    names = prices(runs)
    if fields:
        for run in runs:
            if run.config.logging.every != 1:
                raise ValueError(
                    f"prices need every round, but {run.label} has logging.every = {run.config.logging.every}; train "
                    "it with 1, or leave prices out"
                )
    differ = len({run.config.num_agents for run in runs}) > 1
    if differ:
        names += (PER_AGENT,)
    found = tuple(run._replace(history=_extended(run, fields, differ)) for run in runs)
    return found, (*names, *(name + TOTAL for name in fields))


def check_fields(runs: Sequence[Run], fields: Sequence[str]) -> None:
    """Raises `ValueError` for a field that no run has."""
    for field in fields:
        if not any(field in row for run in runs for row in run.history):
            known = sorted({name for run in runs for row in run.history for name in row})
            raise ValueError(f"no run has a field {field!r}; there are {', '.join(known)}")


def _extended(run: Run, fields: Sequence[str], per_agent: bool) -> list[dict[str, Any]]:
    sums: dict[tuple[int, str], float] = {}
    rows = []
    for row in run.history:
        new = dict(row)
        if per_agent:
            assert run.config.num_agents != "auto"  # a run has filled it in
            new[PER_AGENT] = row["env_steps"] / run.config.num_agents
        for name in fields:
            key = (row["seed"], name)
            sums[key] = sums.get(key, 0) + (row.get(name) or 0)
            new[name + TOTAL] = sums[key]
        rows.append(new)
    return rows


def describe_fields(run: Run, fields: Sequence[str], total: bool, confidence: float) -> dict[str, Any]:
    """The total or the mean of fields over the rounds that have them, over seeds; None where no round has."""
    found: dict[str, Any] = {}
    for field in fields:
        values: dict[int, list[float]] = {}
        for row in run.history:
            if row.get(field) is not None:
                values.setdefault(row["seed"], []).append(row[field])
        of_seeds = [np.sum(rows) if total else np.mean(rows) for _, rows in sorted(values.items())]
        found[field] = estimate(np.array(of_seeds, float), confidence)._asdict() if values else None
    return found


def equal_prices(runs: Sequence[Run], names: Sequence[str]) -> dict[str, float]:
    """How much of each price every seed of every run has paid; runs that pay none of it do not count."""
    levels = {}
    for name in names:
        ends = [rows[-1][name] for run in runs for rows in run.evaluations.values()]
        levels[name] = float(min((end for end in ends if end > 0), default=0))
    return levels


def returns_at(run: Run, levels: Mapping[str, float], confidence: float) -> dict[str, Any]:
    """The return for each of these prices, between evaluations on a line; None before the first evaluation."""
    found: dict[str, Any] = {}
    for name, level in levels.items():
        of_seeds = np.array([
            np.interp(level, [r[name] for r in rows], [r["return_mean"] for r in rows], left=np.nan, right=np.nan)
            for _, rows in sorted(run.evaluations.items())
        ])  # fmt: skip
        found[name] = estimate(of_seeds, confidence)._asdict() if np.isfinite(of_seeds).all() else None
    return found


def estimate(values: np.ndarray, confidence: float) -> Estimate:
    """A mean over seeds with its interval, which a single seed has not."""
    if len(values) < 2:
        return Estimate(float(values.mean()), np.nan, np.nan)
    low, high = bootstrap_interval(values, confidence=confidence)
    return Estimate(float(values.mean()), float(low), float(high))
