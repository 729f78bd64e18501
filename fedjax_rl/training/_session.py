"""One stretch of a run, from its start or a checkpoint to its end or an interruption: chunks of compiled rounds, and
between them everything a person wants to see and to keep."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..core import compile_rounds, init_seeds
from ._build import Experiment
from ._checkpoint import Checkpoints
from ._folder import RunFolder, ordered, plain
from ._measure import Evaluator, agent_returns
from ._progress import Reporter
from ._stop import GracefulStop


# The compiled program takes any number of rounds up to this; always the same, so that a resumed run runs the same one.
_MAX_CHUNK = 100
# A chunk lasts about this long: Ctrl-C and the live line wait for it.
_CHUNK_SECONDS = 1.0

Row = dict[str, Any]
OnRound = Callable[[Row], bool | None]


class Session:
    """Trains an experiment; `restore` first to go on from a checkpoint.

    Args:
        experiment: what is trained.
        folder: where to write; None: nowhere.
        on_round: called with every logged row; returns True to stop.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder | None, on_round: OnRound | None):
        self.experiment, self.config, self.folder = experiment, experiment.config, folder
        self.evaluator = Evaluator(experiment)
        self.history: list[Row] = []
        self.agent_returns: list[Row] = []  # the lines of agents.jsonl
        self.rounds, self.seconds, self.compile_seconds = 0, 0.0, 0.0
        # Python integers: ten thousand agents overflow 32 bits within minutes.
        self.env_steps = [0] * self.config.num_seeds
        self.episodes = [0] * self.config.num_seeds
        self.uplink_bits = [0] * self.config.num_seeds
        self.first_chunk, self.later_chunks = _Speed(), _Speed()
        self._on_round = on_round
        self._checkpoints = None
        if folder is not None:
            self._checkpoints = Checkpoints(folder.checkpoints, keep=self.config.checkpoint.keep)
        self._last_checkpoint = time.perf_counter()
        self.state: Any = first_state(experiment)

    @property
    def _num_seeds(self) -> int | None:
        return self.config.num_seeds if self.config.num_seeds > 1 else None

    # ------------------------------------------------------------ checkpoints

    def restore(self) -> None:
        """Goes back to the last checkpoint, and cuts metrics.jsonl and agents.jsonl to it.

        Raises:
            ValueError: the checkpoint cannot be read, or is of another configuration, or beyond the last round.
        """
        assert self.folder is not None and self._checkpoints is not None
        latest = self._checkpoints.latest
        if latest is not None and self.config.num_rounds < latest:
            raise ValueError(f"num_rounds is {self.config.num_rounds}, but the run has already done {latest}")
        self.folder.write_config(self.config)  # it may have been given more rounds
        if latest != self.config.num_rounds:
            self.folder.forget_results()  # they are of fewer rounds
        if latest is None:  # stopped before anything was saved: start again
            self.folder.cut(0)
            return
        counters = self._checkpoints.counters()
        like = layout(self.state)
        self.state = None  # two states at a time may not fit
        self.state = self._checkpoints.restore(like)
        self.rounds, self.seconds = latest, float(counters["seconds"])
        self.env_steps, self.episodes = list(counters["env_steps"]), list(counters["episodes"])
        self.history, self.agent_returns = self.folder.cut(latest)
        totals = {row["seed"]: row["uplink_bits_total"] for row in self.history}
        by_history = [totals.get(self.config.seed + seed, 0) for seed in range(self.config.num_seeds)]
        self.uplink_bits = list(counters.get("uplink_bits", by_history))  # an old checkpoint does not know it

    def save(self) -> None:
        """Writes a checkpoint. The metrics up to here are on the disk already, so they never lag behind it."""
        if self._checkpoints is None or self.rounds == 0:
            return
        counters = {
            "seconds": self.seconds,
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "uplink_bits": self.uplink_bits,
        }
        self._checkpoints.save(self.rounds, self.state, counters)
        self._last_checkpoint = time.perf_counter()

    def close(self) -> None:
        """Releases the folder of checkpoints."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    # ------------------------------------------------------------ the loop

    def run(self, reporter: Reporter, stop: GracefulStop) -> None:
        """Trains until the last round, or until somebody wants to stop; then what was done is saved.

        Raises:
            OSError: something could not be written; the last checkpoint is intact.
        """
        if self.rounds == self.config.num_rounds:
            return
        start = self._clock = time.perf_counter()
        mesh = self.experiment.mesh if self._num_seeds else None
        advance = compile_rounds(self.experiment.round, self.state, _MAX_CHUNK, num_seeds=self._num_seeds, mesh=mesh)
        self.compile_seconds = time.perf_counter() - start
        reporter.begin(self.rounds, sum(self.env_steps))
        while self.rounds < self.config.num_rounds and not stop.requested:
            rows = self._chunk(advance)
            agents: list[Row] = []
            if self._every(self.config.evaluation.every) or self.rounds == self.config.num_rounds:
                agents = self._evaluate(rows)
            if self._log(rows, agents):
                stop.requested = True
            if self._every(self.config.checkpoint.every_rounds) or self._overdue():
                self.save()
            reporter.update(self.rounds, sum(self.env_steps), self._shown(rows, "return_mean", "train_return_mean"))
        self.save()

    def _chunk(self, advance: Callable[..., Any]) -> list[Row]:
        """Runs the next few rounds and returns a row for each of them and each seed."""
        known = self.later_chunks if self.later_chunks.rounds else self.first_chunk
        pace = known.pace(_CHUNK_SECONDS) if known.rounds else 1
        ahead = [self.config.num_rounds - self.rounds]
        for every in (self.config.evaluation.every, self.config.checkpoint.every_rounds):
            if every:
                ahead.append(every - self.rounds % every)
        count = min(*ahead, pace, _MAX_CHUNK)
        start = time.perf_counter()
        self.state, history = advance(self.experiment.round, self.state, count)
        columns = {name: np.asarray(x).reshape(self.config.num_seeds, -1)[:, :count] for name, x in history.items()}
        seconds = time.perf_counter() - start
        rows = [self._row(columns, seed, i) for i in range(count) for seed in range(self.config.num_seeds)]
        self.rounds += count
        speed = self.later_chunks if self.first_chunk.rounds else self.first_chunk
        speed.add(seconds, count, _total(columns, "env_steps"), _total(columns, "agent_updates"))
        return rows

    def _row(self, columns: dict[str, np.ndarray], seed: int, i: int) -> Row:
        values = {name: column[seed, i] for name, column in columns.items()}
        self.env_steps[seed] += int(values.pop("env_steps", 0))
        self.episodes[seed] += int(values.pop("episodes", 0))
        self.uplink_bits[seed] += int(values.get("uplink_bits", 0))
        counts = {
            "env_steps": self.env_steps[seed],
            "episodes": self.episodes[seed],
            "uplink_bits_total": self.uplink_bits[seed],
        }
        return plain({"seed": self.config.seed + seed, "round": self.rounds + i + 1, **counts, **values})

    def _evaluate(self, rows: list[Row]) -> list[Row]:
        """Adds an evaluation to the rows of the last round, and returns its lines of agents.jsonl if it has any."""
        settings, agents = self.config.evaluation, []
        thresholds, every = settings.success, settings.per_agent_every
        kept = every > 0 and (self._every(settings.every * every) or self.rounds == self.config.num_rounds)
        for seed, row in enumerate(rows[-self.config.num_seeds :]):
            measured = self.evaluator.after_round(self.state, seed, self.rounds)
            found = measured.evaluation.summary(thresholds)
            names = ("return_mean", "return_std", "return_min", "return_worst_decile", "return_p10", "return_p90")
            row |= {name: found[name] for name in names}
            row["success_rate"] = found[f"success_rate_{thresholds[-1]:g}"] if thresholds else None
            if kept:
                agents.append(agent_returns(row, measured))
        return agents

    def _log(self, rows: list[Row], agents: list[Row]) -> bool:
        """Writes the rows that are wanted; returns whether somebody who read them wants to stop."""
        now = time.perf_counter()
        passed, self._clock = now - self._clock, now
        rounds = len(rows) // self.config.num_seeds
        logged = []
        for i, row in enumerate(rows):
            row["seconds"] = round(self.seconds + passed * (i // self.config.num_seeds + 1) / rounds, 3)
            if row["round"] % self.config.logging.every == 0 or "return_mean" in row:
                logged.append(ordered(row))
        self.seconds += passed
        self.history += logged
        self.agent_returns += agents
        if self.folder is not None:
            self._write(self.folder, logged, agents)
        stops = [self._on_round(row) for row in logged] if self._on_round else []  # everybody hears every row
        return any(stops)

    def _write(self, folder: RunFolder, rows: list[Row], agents: list[Row]) -> None:
        try:
            if agents:
                folder.append_agent_returns(agents)
            folder.append_metrics(rows)
        except OSError as error:
            saved = self._checkpoints.latest if self._checkpoints is not None else None
            kept = f"the run is saved up to round {saved}" if saved is not None else "nothing is saved yet"
            raise OSError(
                f"could not write to {folder.path}: {error.strerror or error}; {kept}. Make room, then: "
                f"fedjax-rl resume {folder.path}"
            ) from error

    def _every(self, rounds: int) -> bool:
        return rounds > 0 and self.rounds % rounds == 0

    def _overdue(self) -> bool:
        limit = self.config.checkpoint.every_seconds
        return limit > 0 and time.perf_counter() - self._last_checkpoint > limit

    def _shown(self, rows: list[Row], *names: str) -> tuple[str, float] | None:
        """The first of these fields that the last round has, averaged over seeds."""
        for name in names:
            values = [row[name] for row in rows[-self.config.num_seeds :] if row.get(name) is not None]
            if values:
                return name, float(np.mean(values))
        return None


def first_state(experiment: Experiment) -> Any:
    """The state before the first round: of one seed, or stacked for several."""
    config, mesh = experiment.config, experiment.mesh
    if config.num_seeds == 1:
        return experiment.round.init(jax.random.key(config.seed))
    keys = jax.vmap(jax.random.key)(np.arange(config.seed, config.seed + config.num_seeds))
    return jax.jit(lambda r, keys: init_seeds(r, keys, mesh=mesh))(experiment.round, keys)


def layout(state: Any) -> Any:
    """The shapes, dtypes and places of a state's arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


class _Speed:
    """Work done and time taken."""

    def __init__(self) -> None:
        self.seconds, self.rounds, self.env_steps, self.updates = 0.0, 0, 0, 0

    def add(self, seconds: float, rounds: int, env_steps: int, updates: int) -> None:
        self.seconds += seconds
        self.rounds += rounds
        self.env_steps += env_steps
        self.updates += updates

    def pace(self, seconds: float) -> int:
        """Rounds that take so many seconds, at least one."""
        return max(1, int(seconds * self.rounds / max(self.seconds, 1e-9)))


def _total(columns: dict[str, np.ndarray], name: str) -> int:
    return int(columns[name].sum(dtype=np.int64)) if name in columns else 0
