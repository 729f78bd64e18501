"""The folder of a run: what is in it, who may write to it, and how it survives an interruption.

::

    config.toml      the whole configuration, defaults too
    fleet.csv        the table of the agents, where there is one
    metrics.jsonl    one JSON object per logged round and seed; see `METRIC_FIELDS`
    summary.json     final evaluation, versions, device, speed, the command that repeats the run
    agents.csv       physics and return of each agent
    agents.jsonl     with evaluation.per_agent_every: returns of each agent, one JSON object per evaluation and seed
    returns.png      learning curve
    agents.png       return against each physics parameter
    agents_curves.png  learning curves of the agents, where there is an agents.jsonl
    timeline.png     who worked when, where `plot --timeline` has drawn it
    policy.npz       the trained parameters with their architecture (policy-seed0.npz, ... for several seeds)
    checkpoints/     what `resume` goes on from
"""

import contextlib
import csv
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._config import ExperimentConfig


# The fields of a line of metrics.jsonl, in order; the learner's own losses follow them by name.
METRIC_FIELDS = (
    "seed",
    "round",  # 1: after the first round
    "env_steps",  # of all agents since the start
    "episodes",  # finished by all agents since the start
    "seconds",  # since the start, compilation included, interruptions not
    "train_return_mean",  # episodes that ended in this round's rollouts; null when none did
    "return_mean",  # evaluation after aggregation; null in rounds without one
    "return_std",
    "return_min",
    "return_worst_decile",
    "return_p10",
    "return_p90",
    "success_rate",
    "uplink_bits",  # of this round, all agents
    "uplink_bits_total",  # since the start: rounds without a line count too
    "downlink_bits",  # of this round, all agents
    "virtual_time",  # when the round closes [s]; the number of rounds where agents have no clocks
    "drift",
    "entropy",
    "nonfinite_messages",
)

# A line of agents.jsonl; lists have one entry per evaluated agent.
AGENT_FIELDS = ("seed", "round", "env_steps", "uplink_bits_total", "episodes_each", "agents", "return_mean")

_OURS = (
    "config.toml", "fleet.csv", "fleet.parquet", "fleet.pq", "metrics.jsonl", "agents.jsonl", "summary.json",
    "agents.csv", "returns.png", "agents.png", "agents_curves.png", "timeline.png", "policy.npz",
)  # fmt: skip
_OUR_FOLDERS = ("checkpoints",)


def plain(value: Any) -> Any:
    """Turns NumPy and JAX scalars, arrays and containers into strict JSON values; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    array = np.asarray(value)
    if array.ndim:
        return [plain(item) for item in array]
    if np.issubdtype(array.dtype, np.floating):
        # The shortest decimal that is this number in its own precision: 0.1, not 0.10000000149011612.
        return plain(float(str(array)))
    return array.item()


def write_atomically(path: Path, write: Callable[[IO[Any]], object], mode: str = "w") -> None:
    """Writes a file under another name and moves it into place, so that a reader sees the old or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        binary = "b" in mode
        with temporary.open(mode, encoding=None if binary else "utf-8", newline=None if binary else "") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


class RunFolder:
    """The files of one run; make it with `create` (a new run) or `open` (one that exists)."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.agent_returns_file = self.path / "agents.jsonl"
        self.summary_file = self.path / "summary.json"
        self.agents_file = self.path / "agents.csv"
        self.returns_plot = self.path / "returns.png"
        self.agents_plot = self.path / "agents.png"
        self.agent_curves_plot = self.path / "agents_curves.png"
        self.timeline_plot = self.path / "timeline.png"
        self.policy_file = self.path / "policy.npz"
        self.checkpoints = self.path / "checkpoints"

    @property
    def holds_run(self) -> bool:
        """Whether a run has been started here."""
        return self.config_file.is_file() and (self.metrics_file.exists() or self.checkpoints.is_dir())

    @staticmethod
    def create(path: str | Path, config: ExperimentConfig, *, overwrite: bool = False) -> "RunFolder":
        """Makes the folder of a new run.

        Args:
            path: the folder; it may exist if it is empty.
            config: written to config.toml.
            overwrite: whether a run that is already there may be deleted: its own files only.

        Raises:
            ValueError: the folder holds a run (without `overwrite`), or other files.
            OSError: it cannot be written.
        """
        folder = RunFolder(path)
        if folder.path.exists() and not folder.path.is_dir():
            raise ValueError(f"{folder.path} is a file, not a folder; choose another --out")
        if folder.holds_run:
            if not overwrite:
                raise ValueError(
                    f"{folder.path} already holds a run; continue it with `fedjax-rl resume {folder.path}`, "
                    "replace it with --overwrite, or choose another --out"
                )
            folder._clear()
        elif folder.path.is_dir() and any(folder.path.iterdir()):
            raise ValueError(f"{folder.path} is not empty and holds no run; choose another --out")
        folder.path.mkdir(parents=True, exist_ok=True)
        header = "Everything this run follows from. Repeat it with: fedjax-rl train --config <this file>"
        write_atomically(folder.config_file, lambda file: file.write(config.to_toml(header)))
        folder.metrics_file.touch()
        return folder

    @staticmethod
    def open(path: str | Path) -> tuple["RunFolder", ExperimentConfig]:
        """Opens the folder of an existing run and reads its configuration.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it holds no run.
        """
        folder = RunFolder(path)
        if not folder.path.exists():
            raise FileNotFoundError(f"there is no folder {folder.path}")
        if not folder.holds_run:
            raise ValueError(f"{folder.path} holds no run: it lacks config.toml and metrics.jsonl")
        return folder, ExperimentConfig.load(folder.config_file)

    def _clear(self) -> None:
        # The configuration goes last: until then the folder counts as a run and can be cleared again.
        for name in _OUR_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for path in self.path.glob("policy-seed*.npz"):
            path.unlink()
        for name in reversed(_OURS):
            (self.path / name).unlink(missing_ok=True)

    # ------------------------------------------------------------ metrics.jsonl and agents.jsonl

    def append_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines to metrics.jsonl and waits until they are on the disk.

        Raises:
            OSError: nothing of the lines is left in the file then.
        """
        _append(self.metrics_file, [ordered(row) for row in rows])

    def read_metrics(self) -> list[dict[str, Any]]:
        """Reads metrics.jsonl; a last line that was torn by a crash is left out.

        Raises:
            ValueError: another line is damaged.
        """
        return _with_totals(_read(self.metrics_file))

    def append_agent_returns(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines to agents.jsonl; see `append_metrics`."""
        _append(self.agent_returns_file, [{name: plain(row[name]) for name in AGENT_FIELDS} for row in rows])

    def read_agent_returns(self) -> list[dict[str, Any]]:
        """Reads agents.jsonl as `read_metrics` does; an empty list where agents were not recorded."""
        return _read(self.agent_returns_file)

    def cut(self, num_rounds: int, *, write: bool = True) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Drops the lines after a round, which the checkpoint to resume from does not know.

        Args:
            num_rounds: the last round to keep.
            write: False: only read, as the processes do that do not lead.

        Returns:
            What is left of metrics.jsonl and of agents.jsonl.
        """
        metrics, agents = (
            [row for row in rows if row["round"] <= num_rounds]
            for rows in (self.read_metrics(), self.read_agent_returns())
        )
        for path, rows in ((self.metrics_file, metrics), (self.agent_returns_file, agents)):
            if write and path.exists():
                text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
                write_atomically(path, lambda file, text=text: file.write(text))
        return metrics, agents

    # ------------------------------------------------------------ what a finished run leaves

    def write_config(self, config: ExperimentConfig) -> None:
        """Replaces config.toml (a resumed run may have been given more rounds)."""
        header = "Everything this run follows from. Repeat it with: fedjax-rl train --config <this file>"
        write_atomically(self.config_file, lambda file: file.write(config.to_toml(header)))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        text = json.dumps(plain(summary), indent=2, allow_nan=False) + "\n"
        write_atomically(self.summary_file, lambda file: file.write(text))

    def read_summary(self) -> dict[str, Any] | None:
        """Reads summary.json; None while the run has not finished."""
        return json.loads(self.summary_file.read_text(encoding="utf-8")) if self.summary_file.exists() else None

    def forget_results(self) -> None:
        """Removes what a finished run leaves, before it goes on; summary.json first, which says it is complete."""
        for path in (self.summary_file, self.agents_file, self.agents_plot, *self.path.glob("policy*.npz")):
            path.unlink(missing_ok=True)

    def write_agents(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes agents.csv, one row per agent; empty cells where a value is None."""
        columns = list(dict.fromkeys(name for row in rows for name in row))

        def write(file: IO[str]) -> None:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: plain(value) for name, value in row.items()} for row in rows)

        write_atomically(self.agents_file, write)

    def read_agents(self) -> list[dict[str, str]]:
        """Reads agents.csv; an empty list while the run has not finished."""
        if not self.agents_file.exists():
            return []
        with self.agents_file.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def _read(path: Path) -> list[dict[str, Any]]:
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not a JSON object: {error}") from None
    return rows


def _with_totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fills in `uplink_bits_total` in lines that were written before the field existed.

    A line's bits stand for every round since the line before: exact where each round was logged or all are alike.
    """
    last: dict[Any, tuple[int, int]] = {}
    for row in rows:
        if row.get("uplink_bits") is not None and row.get("uplink_bits_total") is None:
            before, total = last.get(row.get("seed"), (0, 0))
            row["uplink_bits_total"] = total + (row["round"] - before) * int(row["uplink_bits"])
        if row.get("uplink_bits_total") is not None:
            last[row.get("seed")] = (row["round"], row["uplink_bits_total"])
    return rows


def ordered(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with every field of `METRIC_FIELDS`, None where it has none, and its others in alphabetical order."""
    others = sorted(set(row) - set(METRIC_FIELDS))
    return {name: plain(row.get(name)) for name in (*METRIC_FIELDS, *others)}
