"""When agents worked and when they waited: a Gantt picture of a run."""

from pathlib import Path

import jax
import numpy as np

from ..participation import Timeline, timeline
from ._build import build
from ._config import ExperimentConfig
from ._plots import _GREY, COLOURS, _figure, _save, _tidy


ROUNDS, AGENTS = 40, 24  # more of them are not told apart


def plot_timeline(config: ExperimentConfig, path: str | Path, *, num_rounds: int = ROUNDS) -> Path:
    """Draws the jobs of the first rounds of a run's first seed: a bar from departure to arrival, a line per round.

    Who acts and when is drawn again from the configuration, which takes no training. Gaps are time spent waiting.

    Args:
        config: of the run.
        path: the picture, a PNG, SVG or PDF file.
        num_rounds: rounds to draw, at most the run's.

    Raises:
        ValueError: who acts depends on what agents report (selection by loss or return), so it cannot be drawn again.
    """
    round_ = build(config.replace(devices=1)).round
    num_rounds = min(num_rounds, config.num_rounds)
    return draw_timeline(timeline(round_, num_rounds, jax.random.key(config.seed)), path, title=config.name)


def draw_timeline(jobs: Timeline, path: str | Path, title: str = "") -> Path:
    """Draws jobs; of many agents those that act first.

    Args:
        jobs: who worked when.
        path: the picture, a PNG, SVG or PDF file.
        title: of the picture.
    """
    agents, first = np.unique(jobs.agent, return_index=True)
    shown = np.sort(agents[np.argsort(first)][:AGENTS])
    figure = _figure(9.0, 1.6 + 0.26 * len(shown))
    axes = figure.subplots()
    for row, agent in enumerate(shown):
        mine = np.flatnonzero(jobs.agent == agent)
        bars = np.stack([jobs.start[mine], jobs.finish[mine] - jobs.start[mine]], 1)
        colours = [COLOURS[0] if number % 2 == 0 else COLOURS[5] for number in range(len(mine))]
        axes.broken_barh(bars.tolist(), (row - 0.36, 0.72), facecolors=colours, edgecolor="white", linewidth=0.5)
        cut = bars[jobs.late[mine]]
        axes.broken_barh(cut.tolist(), (row - 0.36, 0.72), facecolors="white", edgecolor=_GREY, hatch="////", lw=0.5)
    for close in np.unique(jobs.close):
        axes.axvline(close, color=_GREY, linewidth=0.6, alpha=0.6)
    _tidy(axes)
    axes.grid(False)
    axes.set_yticks(range(len(shown)), [str(agent) for agent in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, max(jobs.finish.max(), jobs.close.max()) * 1.01)
    axes.set_ylabel("agent" if len(shown) == len(agents) else f"agent ({len(shown)} of {len(agents)})")
    axes.set_xlabel("virtual time [s]; a bar is a job (hatched: too late), a line is the end of a round")
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    return _save(figure, path)
