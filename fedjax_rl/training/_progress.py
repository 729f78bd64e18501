"""What a person sees while a run is under way: a live line on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


_SECONDS_BETWEEN_LINES = 10.0
_GROUPS = {
    "training_agents": "training",
    "unseen_agents": "unseen",
    "gymnasium_agents": "training, in Gymnasium",
}


def amount(value: float) -> str:
    """A number with a unit prefix: 5.1 M, 83.0 k, 4.2."""
    for limit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f}{letter}"
    return f"{value:.1f}"


def console(**options: Any) -> Console:
    """A console that does not break lines for a terminal that is not there."""
    made = Console(highlight=False, **options)
    return made if made.is_terminal else Console(highlight=False, width=120, **options)


class Reporter:
    """Reports progress on standard error, so that standard output stays free for results.

    Args:
        name: of the run.
        num_rounds: rounds in all.
        enabled: whether to say anything.
    """

    def __init__(self, name: str, num_rounds: int, *, enabled: bool = True):
        self.console = console(stderr=True, quiet=not enabled)
        self._enabled, self._name, self._num_rounds = enabled, name, num_rounds
        self._return = "–"
        self._live: Progress | None = None
        self._task: Any = None
        self.begin(0, 0)

    def open(self, headline: str) -> None:
        """Says what is trained, and starts the live line on a terminal."""
        self.say(f"{self._name}: {headline} · {self._num_rounds} rounds")
        if self._enabled and self.console.is_terminal:
            self._live = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("rounds · {task.fields[speed]} · return {task.fields[reached]} · ETA"),
                TimeRemainingColumn(compact=True),
                console=self.console,
            )
            self._task = self._live.add_task(self._name, total=self._num_rounds, speed="compiling", reached="–")
            self._live.start()

    def begin(self, num_rounds: int, env_steps: int) -> None:
        """Starts the clock after compilation.

        Args:
            num_rounds: rounds done by earlier sessions.
            env_steps: environment steps done by earlier sessions.
        """
        self._first, self._first_steps = num_rounds, env_steps
        self._start = self._last_line = time.perf_counter()

    def update(self, num_rounds: int, env_steps: int, reached: tuple[str, float] | None) -> None:
        """Shows where the run is.

        Args:
            num_rounds: rounds done.
            env_steps: environment steps done.
            reached: the name and the value of a return.
        """
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        rounds, steps = num_rounds - self._first, env_steps - self._first_steps
        speed = f"{amount(rounds / seconds)} rounds/s · {amount(steps / seconds)} steps/s"
        if reached is not None and (reached[0] == "return_mean" or "training" in self._return or self._return == "–"):
            self._return = f"{reached[1]:.1f}" + ("" if reached[0] == "return_mean" else " (training)")
        if self._live is not None:
            self._live.update(self._task, completed=num_rounds, speed=speed, reached=self._return)
        elif now - self._last_line > _SECONDS_BETWEEN_LINES or num_rounds == self._num_rounds:
            self._last_line = now
            left = seconds / max(rounds, 1) * (self._num_rounds - num_rounds)
            self.say(f"round {num_rounds}/{self._num_rounds} · {speed} · return {self._return} · {left:.0f} s left")

    def say(self, text: str) -> None:
        """Prints a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the live line."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self, summary: Mapping[str, Any]) -> None:
        """Prints the final evaluation."""
        self.console.print(result_table(summary))


def grid_table(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Table:
    """The points of a sweep as a table, the best in bold."""
    table = Table()
    for key in (*keys, "return", "95 % interval"):
        table.add_column(key, justify="right" if key in ("return", "95 % interval") else "left", overflow="fold")
    means = [row["return_mean"] for row in rows if row["return_mean"] is not None]
    for row in rows:
        mean, low, high = row["return_mean"], row["return_low"], row["return_high"]
        table.add_row(
            *(str(row[key]) for key in keys),
            "–" if mean is None else f"{mean:.1f}",
            "–" if low is None else f"[{low:.1f}, {high:.1f}]",
            style="bold" if mean is not None and mean == max(means) else "",
        )
    return table


def result_table(summary: Mapping[str, Any]) -> Table:
    """The final evaluation as a table: training agents, unseen agents, and in Gymnasium."""
    thresholds = summary.get("success_thresholds", [])
    table = Table(title=str(summary.get("title", "")), title_justify="left", title_style="bold")
    table.add_column("agents")
    for name in ("return", "± s.e.", "worst agent", *(f"≥ {t:g}" for t in thresholds), "episodes"):
        table.add_column(name, justify="right")
    for key, label in _GROUPS.items():
        values = summary.get(key)
        if values is None:
            continue
        rates = [f"{100 * values[f'success_rate_{t:g}']:.0f} %" for t in thresholds]
        table.add_row(
            f"{values['agents']} {label}",
            f"{values['return_mean']:.1f}",
            f"{values['standard_error']:.1f}" if values["standard_error"] is not None else "–",
            f"{values['return_min']:.1f}",
            *rates,
            str(values["episodes"]),
        )
    return table
