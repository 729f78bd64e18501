"""Pictures of a run: learning curves with intervals, and the return against the physics of the agents."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..metrics import bootstrap_interval


# Okabe and Ito's palette: told apart by colour-blind readers too. Line styles repeat the distinction in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")
_GREY = "#6b6b6b"

Axis = Literal["round", "env_steps", "episodes", "uplink_bits_total", "virtual_time"]
_AXIS_NAMES = {
    "round": "communication round",
    "env_steps": "environment steps, all agents",
    "episodes": "episodes, all agents",
    "uplink_bits_total": "uplink [bit], all agents",
    "virtual_time": "virtual time [s]",
}


class Curve(NamedTuple):
    """One line of a picture with its interval, all f64[P]."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    meaning: str  # of the interval


def curve(rows: Sequence[Mapping[str, Any]], field: str = "return_mean", x: Axis = "round") -> Curve | None:
    """Builds the curve of a field of metrics.jsonl.

    Several seeds give the mean over seeds and its 95 % interval (a bootstrap, which never leaves the range of the
    seeds). One seed gives, for `return_mean`, the 10th to the 90th percentile of the evaluation's episodes.

    Returns:
        The curve, or None where the field never has a value.
    """
    points: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row.get(field) is not None:
            points[row["round"]].append(row)
    if not points:
        return None
    rounds = sorted(points)
    xs = np.array([np.mean([row[x] for row in points[r]]) for r in rounds])
    mean = np.array([np.mean([row[field] for row in points[r]]) for r in rounds])
    num_seeds = len({row["seed"] for row in rows})
    if num_seeds > 1:
        bounds = [bootstrap_interval(np.array([row[field] for row in points[r]])) for r in rounds]
        low, high = np.array(bounds).T
        return Curve(xs, mean, low, high, f"mean and 95 % interval over {num_seeds} seeds")
    if field == "return_mean" and all(points[r][0].get("return_p10") is not None for r in rounds):
        low, high = (np.array([points[r][0][name] for r in rounds]) for name in ("return_p10", "return_p90"))
        return Curve(xs, mean, low, high, "mean and 10th to 90th percentile of episodes")
    return Curve(xs, mean, mean, mean, "mean")


def plot_returns(
    runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], path: str | Path, *, x: Axis = "round", title: str = ""
) -> Path:
    """Draws the learning curves of one or several runs into one picture.

    Args:
        runs: a label and the lines of metrics.jsonl, for each run.
        path: the picture, a PNG, SVG or PDF file.
        x: the horizontal axis.
        title: above the picture.

    Raises:
        ValueError: there is nothing to draw.
    """
    figure = _figure(7.2, 4.3)
    axes = figure.subplots()
    drawn, meanings = 0, []
    for number, (label, rows) in enumerate(runs):
        colour, style = COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS) % len(_STYLES)]
        evaluated, training = curve(rows, "return_mean", x), curve(rows, "train_return_mean", x)
        line = evaluated if evaluated is not None and (len(evaluated.x) > 1 or training is None) else training
        if line is None:
            continue
        if len(runs) == 1 and training is not None and line is evaluated:
            label = "while training (episodes that ended)"
            axes.plot(training.x, training.mean, color=_GREY, linewidth=0.9, label=label)
        marker = "o" if len(line.x) <= 30 else None
        name = label if len(runs) > 1 else "evaluation after aggregation" if line is evaluated else "while training"
        axes.plot(line.x, line.mean, style, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=name)
        alpha = 0.18 if len(runs) <= 4 else 0.08
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=alpha, linewidth=0)
        meanings.append(line.meaning)
        drawn += 1
    if not drawn:
        raise ValueError("there is no return to plot: no episode has ended yet and nothing was evaluated")
    axes.set_xlabel(_AXIS_NAMES[x])
    axes.set_ylabel("return of an episode (sum of rewards)")
    axes.set_title(title, fontsize=11, loc="left")
    axes.margins(x=0.02)
    _tidy(axes)
    # Curves that rise leave room at the lower right; many runs get their legend beside the picture.
    if drawn > 6:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.legend(frameon=False, fontsize=9, loc="best")
    figure.supxlabel("; ".join(dict.fromkeys(meanings)), fontsize=8, color=_GREY)
    return _save(figure, path)


def plot_agents(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "") -> Path:
    """Draws each agent's mean return against every physics parameter that differs between agents.

    Args:
        rows: the rows of agents.csv.
        path: the picture.
        title: above the picture.
    """
    rows = [row for row in rows if row.get("return_mean") not in (None, "")]
    returns = np.array([float(row["return_mean"]) for row in rows])
    unseen = np.array([row.get("split") == "unseen" for row in rows], dtype=bool)
    varying = varying_columns(rows)
    if not varying:
        return _histogram(returns, unseen, path, title)
    columns = min(3, len(varying))
    lines = math.ceil(len(varying) / columns)
    figure = _figure(max(4.6, 3.4 * columns), 0.7 + 2.7 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    # Thousands of points on one spot would hide each other: make them small and translucent.
    alpha, area = float(np.clip(150 / max(len(rows), 1), 0.2, 0.8)), float(np.clip(5000 / max(len(rows), 1), 4, 24))
    for axes, name in zip(grid.flat, varying, strict=False):
        values = np.array([float(row[name]) for row in rows])
        for (group, colour, label), marker in zip(_groups(unseen), "o^", strict=True):
            if group.any():
                axes.scatter(values[group], returns[group], s=area, color=colour, alpha=alpha, marker=marker,
                             linewidths=0, label=f"{label} agents ({group.sum()})")  # fmt: skip
        _trend(axes, values, returns)
        axes.set_xlabel(_axis_label(name))
        _tidy(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("mean return")
    for axes in list(grid.flat)[len(varying) :]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    for handle in legend.legend_handles:
        handle.set_alpha(0.9)
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([22])
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return _save(figure, path)


_LEVELS = (0, 10, 50, 90, 100)
_MAX_LINES = 20  # more lines of single agents would hide each other


def plot_agent_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str = "") -> Path:
    """Draws how the returns of single agents spread and rise: quantiles over agents, and each of a few agents.

    The agents of all seeds together are one population: what varies between seeds is part of the spread.

    Args:
        rows: the lines of agents.jsonl.
        path: the picture.
        title: above the picture.

    Raises:
        ValueError: there is nothing to draw.
    """
    points: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        points[row["round"]].append(row)
    if not points:
        raise ValueError("no agent's returns were recorded; train with --evaluation.per-agent-every 1")
    rounds = sorted(points)
    quantiles = {r: np.percentile(np.concatenate([row["return_mean"] for row in points[r]]), _LEVELS) for r in rounds}
    lowest, low, median, high, highest = np.array([quantiles[r] for r in rounds]).T
    figure = _figure(7.2, 4.3)
    axes = figure.subplots()
    marker = "o" if len(rounds) <= 30 else None
    axes.fill_between(rounds, lowest, highest, color=COLOURS[0], alpha=0.12, linewidth=0, label="all agents")
    axes.fill_between(rounds, low, high, color=COLOURS[0], alpha=0.25, linewidth=0, label="10th to 90th percentile")
    agents: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for r in rounds:
        for row in points[r]:
            for agent, value in zip(row["agents"], row["return_mean"], strict=True):
                agents[row["seed"], agent][r] = value
    if len(agents) <= _MAX_LINES:
        for number, line in enumerate(agents.values()):
            label = "one agent" if number == 0 else None
            axes.plot(list(line), list(line.values()), color=_GREY, linewidth=0.7, alpha=0.7, label=label)
    axes.plot(rounds, lowest, "--", color=COLOURS[1], linewidth=1.3, label="worst agent")
    axes.plot(rounds, median, color=COLOURS[0], linewidth=2.0, marker=marker, markersize=3.5, label="median agent")
    axes.set_xlabel(_AXIS_NAMES["round"])
    axes.set_ylabel("mean return of an agent")
    axes.set_title(title, fontsize=11, loc="left")
    axes.margins(x=0.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _tidy(axes)
    axes.legend(frameon=False, fontsize=9, loc="best")
    figure.supxlabel(_who_played(rows), fontsize=8, color=_GREY)
    return _save(figure, path)


def _who_played(rows: Sequence[Mapping[str, Any]]) -> str:
    num_seeds, most = len({row["seed"] for row in rows}), max(len(row["agents"]) for row in rows)
    each = sorted({row["episodes_each"] for row in rows})
    episodes = f"{each[0]}" if len(each) == 1 else f"{each[0]} to {each[-1]}"
    seeds = f" in each of {num_seeds} seeds" if num_seeds > 1 else ""
    return (
        f"{most} evaluated agents{seeds}; an agent's return is the mean of {episodes} "
        f"episode{'' if episodes == '1' else 's'}, whose chance is part of the spread"
    )


_NOT_PHYSICS = ("seed", "split", "agent", "label", "episodes", "return_mean", "return_std", "length_mean")


def varying_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the physics columns of agents.csv whose values differ between agents."""
    names = [name for name in (rows[0] if rows else {}) if name not in _NOT_PHYSICS]
    return [name for name in names if len({row[name] for row in rows}) > 1]


# Units of the physics that this package ships; other names stand for themselves.
_UNITS = {
    "gravity": "m/s²", "masscart": "kg", "masspole": "kg", "half_length": "m", "force_mag": "N", "tau": "s",
    "theta_threshold": "rad", "x_threshold": "m", "max_steps_in_episode": "steps", "set_point": "m",
}  # fmt: skip


def _axis_label(name: str) -> str:
    words = "half-length of the pole" if name == "half_length" else name.replace("_", " ")
    return f"{words} [{_UNITS[name]}]" if name in _UNITS else words


def _trend(axes: Any, values: np.ndarray, returns: np.ndarray) -> None:
    """Draws the mean return of ten equally populated bins, where there are enough agents for that."""
    if len(values) < 60 or len(np.unique(values)) < 20:
        return
    bins = np.array_split(np.argsort(values, kind="stable"), 10)
    x, y = [values[b].mean() for b in bins], [returns[b].mean() for b in bins]
    axes.plot(x, y, color="black", linewidth=1.4, label="mean of a tenth of the agents")


def _groups(unseen: np.ndarray) -> list[tuple[np.ndarray, str, str]]:
    return [(~unseen, COLOURS[0], "training"), (unseen, COLOURS[1], "unseen")]


def _histogram(returns: np.ndarray, unseen: np.ndarray, path: str | Path, title: str) -> Path:
    """All agents live in the same world: the spread of their returns is all there is to see."""
    figure = _figure(5.6, 3.6)
    axes = figure.subplots()
    if len(returns):
        low, high = returns.min(), returns.max()
        pad = max(0.02 * (high - low), 0.5)
        edges = np.linspace(low - pad, high + pad, 25)
        groups = [(returns[g], c, f"{name} agents ({g.sum()})") for g, c, name in _groups(unseen) if g.any()]
        values, colours, labels = zip(*groups, strict=True)
        axes.hist(values, edges, color=colours, label=labels)
        axes.legend(frameon=False, fontsize=9)
    axes.set_xlabel("mean return of an agent")
    axes.set_ylabel("number of agents")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title or "all agents have the same physics", fontsize=11, loc="left")
    _tidy(axes)
    return _save(figure, path)


def plot_grid(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], path: str | Path, *, title: str = "") -> Path:
    """Draws the final return at every point of a sweep, with its interval.

    The key with the most values is the horizontal axis, on a logarithmic scale where they span more than a decade; the
    others tell lines apart.

    Args:
        rows: values by key, and `return_mean`, `return_low`, `return_high`.
        keys: what varies.
        path: the picture.
        title: above the picture.
    """
    distinct = {key: list(dict.fromkeys(str(row[key]) for row in rows)) for key in keys}
    across = max(keys, key=lambda key: len(distinct[key]))
    numeric = all(isinstance(row[across], int | float) for row in rows)
    figure = _figure(7.2, 4.3)
    axes = figure.subplots()
    others = [key for key in keys if key != across]
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(", ".join(f"{key.rpartition('.')[2]} = {row[key]}" for key in others), []).append(row)
    for number, (label, line) in enumerate(lines.items()):
        line = [row for row in line if row["return_mean"] is not None]
        if numeric:
            line.sort(key=lambda row: row[across])
        x = [row[across] if numeric else distinct[across].index(str(row[across])) for row in line]
        mean = np.array([row["return_mean"] for row in line])
        low, high = (
            np.array([row["return_mean"] if row[name] is None else row[name] for row in line])
            for name in ("return_low", "return_high")
        )
        style = _STYLES[number // len(COLOURS) % len(_STYLES)] if numeric else ""
        axes.errorbar(
            x, mean, (mean - low, high - mean), fmt=f"o{style}", color=COLOURS[number % len(COLOURS)], capsize=3,
            markersize=4, linewidth=1.6, label=label or None,
        )  # fmt: skip
    if numeric:
        values = [abs(row[across]) for row in rows if row[across]]
        if all(row[across] > 0 for row in rows) and max(values) > 10 * min(values):
            axes.set_xscale("log")
    else:
        axes.set_xticks(range(len(distinct[across])), distinct[across], fontsize=8)
    axes.set_xlabel(across)
    axes.set_ylabel("return after the last round")
    axes.set_title(title, fontsize=11, loc="left")
    _tidy(axes)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.supxlabel("mean over seeds and agents, 95 % bootstrap interval over seeds", fontsize=8, color=_GREY)
    return _save(figure, path)


def _tidy(axes: Any) -> None:
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _figure(width: float, height: float) -> Any:
    """A figure that is only ever written to a file: it leaves a notebook's plotting backend alone."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    figure.savefig(path, dpi=150)
    return path
