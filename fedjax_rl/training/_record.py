"""What one experiment of a session leaves behind: lines, counts and evaluations, of all its seeds."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ._build import Experiment
from ._folder import RunFolder, ordered, plain
from ._measure import Evaluator, agent_returns
from ._processes import leads


Row = dict[str, Any]
OnRound = Callable[[Row], bool | None]


class Record:
    """The lines of one experiment, and where they are written.

    Args:
        experiment: what is trained.
        folder: where to write; None: nowhere.
        on_round: called with every logged row; returns True to stop.
        first_row: where its seeds begin in the stacked states; None: the state is of one seed.
    """

    def __init__(
        self, experiment: Experiment, folder: RunFolder | None, on_round: OnRound | None, first_row: int | None
    ):
        self.experiment, self.config, self.folder = experiment, experiment.config, folder
        self.first_row = first_row
        self.evaluator = Evaluator(experiment, first_row=first_row)
        self.history: list[Row] = []
        self.agent_returns: list[Row] = []  # the lines of agents.jsonl
        # Python integers: ten thousand agents overflow 32 bits within minutes.
        self.env_steps = [0] * self.config.num_seeds
        self.episodes = [0] * self.config.num_seeds
        self.uplink_bits = [0] * self.config.num_seeds
        self._on_round = on_round

    # ------------------------------------------------------------ checkpoints

    def counters(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        counts = {"env_steps": self.env_steps, "episodes": self.episodes, "uplink_bits": self.uplink_bits}
        return counts | {"config": self.config.to_toml()}  # of several experiments in one checkpoint, which is which

    def restore(self, counters: dict[str, Any], num_rounds: int) -> None:
        """Goes back to a checkpoint, and cuts metrics.jsonl and agents.jsonl to it."""
        self.env_steps, self.episodes = list(counters["env_steps"]), list(counters["episodes"])
        self.cut(num_rounds)
        totals = {row["seed"]: row["uplink_bits_total"] for row in self.history}
        by_history = [totals.get(self.config.seed + seed, 0) for seed in range(self.config.num_seeds)]
        self.uplink_bits = list(counters.get("uplink_bits", by_history))  # an old checkpoint does not know it

    def cut(self, num_rounds: int) -> None:
        """Forgets the lines of later rounds."""
        if self.folder is not None:
            self.history, self.agent_returns = self.folder.cut(num_rounds, write=leads())

    # ------------------------------------------------------------ lines

    def rows(self, columns: dict[str, np.ndarray], before: int, count: int) -> list[Row]:
        """A row for each of `count` rounds and each seed.

        Args:
            columns: metrics [num_seeds, count].
            before: rounds done before.
            count: rounds.
        """
        return [self._row(columns, seed, before, i) for i in range(count) for seed in range(self.config.num_seeds)]

    def _row(self, columns: dict[str, np.ndarray], seed: int, before: int, i: int) -> Row:
        values = {name: column[seed, i] for name, column in columns.items()}
        self.env_steps[seed] += int(values.pop("env_steps", 0))
        self.episodes[seed] += int(values.pop("episodes", 0))
        self.uplink_bits[seed] += int(values.get("uplink_bits", 0))
        counts = {
            "env_steps": self.env_steps[seed],
            "episodes": self.episodes[seed],
            "uplink_bits_total": self.uplink_bits[seed],
        }
        return plain({"seed": self.config.seed + seed, "round": before + i + 1, **counts, **values})

    def evaluate(self, rows: list[Row], state: Any, num_rounds: int) -> list[Row]:
        """Adds an evaluation to the rows of the last round, and returns its lines of agents.jsonl if it has any."""
        settings, agents = self.config.evaluation, []
        thresholds, every = settings.success, settings.per_agent_every * settings.every
        kept = settings.per_agent_every > 0 and (
            num_rounds == self.config.num_rounds or (every > 0 and num_rounds % every == 0)
        )
        for seed, row in enumerate(rows[-self.config.num_seeds :]):
            measured = self.evaluator.after_round(state, seed, num_rounds)
            found = measured.evaluation.summary(thresholds)
            names = ("return_mean", "return_std", "return_min", "return_worst_decile", "return_p10", "return_p90")
            row |= {name: found[name] for name in names}
            row["success_rate"] = found[f"success_rate_{thresholds[-1]:g}"] if thresholds else None
            if kept:
                agents.append(agent_returns(row, measured))
        return agents

    def log(self, rows: list[Row], agents: list[Row], begin: float, passed: float) -> bool:
        """Writes the rows that are wanted; returns whether somebody who read them wants to stop.

        Args:
            rows: of some rounds.
            agents: lines of agents.jsonl.
            begin: seconds of the run before these rounds.
            passed: seconds that they took.

        Raises:
            OSError: they could not be written.
        """
        rounds = len(rows) // self.config.num_seeds
        logged = []
        for i, row in enumerate(rows):
            row["seconds"] = round(begin + passed * (i // self.config.num_seeds + 1) / rounds, 3)
            if row["round"] % self.config.logging.every == 0 or "return_mean" in row:
                logged.append(ordered(row))
        self.history += logged
        self.agent_returns += agents
        if self.folder is not None and leads():
            if agents:
                self.folder.append_agent_returns(agents)
            self.folder.append_metrics(logged)
        stops = [self._on_round(row) for row in logged] if self._on_round else []  # everybody hears every row
        return any(stops)
