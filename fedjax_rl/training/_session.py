"""One stretch of a run, from its start or a checkpoint to its end or an interruption: chunks of compiled rounds, and
between them everything a person wants to see and to keep."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..core import Round, Rounds, compile_rounds, init_seeds, stack_rounds
from ._build import Experiment
from ._checkpoint import Checkpoints
from ._folder import RunFolder
from ._processes import agree, leads
from ._progress import Reporter
from ._record import OnRound, Record, Row
from ._stop import GracefulStop


# The compiled program takes any number of rounds up to this; always the same, so that a resumed run runs the same one.
_MAX_CHUNK = 100
# A chunk lasts about this long: Ctrl-C and the live line wait for it.
_CHUNK_SECONDS = 1.0


class Session:
    """Trains an experiment, or several that one program serves; `restore` first to go on from a checkpoint.

    Args:
        experiments: what is trained, side by side: rounds that differ in numbers only, with as many seeds each, and
            nothing else but names and folders.
        folders: of each, where to write; None: nowhere.
        checkpoints: the folder of the checkpoints; None: there are none.
        go_on: how to go on from the last one, for messages.
        on_round: called with every logged row; returns True to stop.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        folders: Sequence[RunFolder | None],
        checkpoints: Path | None,
        go_on: str,
        on_round: OnRound | None = None,
    ):
        self._go_on = go_on
        self.experiments, self.config = experiments, experiments[0].config  # of what all have in common
        self.round = _one_round(experiments)
        self.num_runs = len(experiments) * self.config.num_seeds
        self.records = [
            Record(e, folder, on_round, i * self.config.num_seeds if self.num_runs > 1 else None)
            for i, (e, folder) in enumerate(zip(experiments, folders, strict=True))
        ]
        self.rounds, self.seconds, self.compile_seconds = 0, 0.0, 0.0
        self.first_chunk, self.later_chunks = _Speed(), _Speed()
        self._checkpoints = None
        if checkpoints is not None:
            self._checkpoints = checkpoints_of(experiments[0], checkpoints)
        self._last_checkpoint = time.perf_counter()
        self.state: Any = first_state(experiments)

    # ------------------------------------------------------------ checkpoints

    def restore(self) -> None:
        """Goes back to the last checkpoint, and cuts metrics.jsonl and agents.jsonl to it.

        Raises:
            ValueError: the checkpoint cannot be read, or is of another configuration, or beyond the last round.
        """
        assert self._checkpoints is not None
        latest = self._checkpoints.latest
        if latest is not None and self.config.num_rounds < latest:
            raise ValueError(f"num_rounds is {self.config.num_rounds}, but the run has already done {latest}")
        for record in self.records:
            if record.folder is not None and leads():
                record.folder.write_config(record.config)  # it may have been given more rounds
                if latest != self.config.num_rounds:
                    record.folder.forget_results()  # they are of fewer rounds
        if latest is None:  # stopped before anything was saved: start again
            for record in self.records:
                record.cut(0)
            return
        counters = self._checkpoints.counters()
        like = layout(self.state)
        self.state = None  # two states at a time may not fit
        self.state = _filled(self.experiments[0].round, self._checkpoints.restore(like))
        self.rounds, self.seconds = latest, float(counters["seconds"])
        for record, counted in zip(self.records, counters.get("experiments", [counters]), strict=True):
            record.restore(counted, latest)

    def configurations(self) -> list[str] | None:
        """Of the experiments in the last checkpoint, as TOML; None where there is none."""
        assert self._checkpoints is not None
        if self._checkpoints.latest is None:
            return None
        counters = self._checkpoints.counters()
        return [counted.get("config", "") for counted in counters.get("experiments", [counters])]

    def save(self) -> None:
        """Writes a checkpoint. The metrics up to here are on the disk already, so they never lag behind it."""
        if self._checkpoints is None or self.rounds == 0:
            return
        of_each = [record.counters() for record in self.records]
        counters = of_each[0] if len(of_each) == 1 else {"experiments": of_each}
        self._checkpoints.save(self.rounds, self.state, {"seconds": self.seconds, **counters})
        self._last_checkpoint = time.perf_counter()

    def close(self) -> None:
        """Releases the folder of checkpoints."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    def state_of(self, record: Record) -> Any:
        """The state of one of the experiments, as it would be if it had been trained alone."""
        if record.first_row is None:
            return self.state
        rows = slice(record.first_row, record.first_row + self.config.num_seeds)
        return jax.tree.map(lambda x: x[rows] if self.config.num_seeds > 1 else x[rows][0], self.state)

    # ------------------------------------------------------------ the loop

    @property
    def env_steps(self) -> int:
        """Of all experiments and seeds so far."""
        return sum(sum(record.env_steps) for record in self.records)

    def _compile(self) -> Callable[..., Any]:
        mesh = self.experiments[0].mesh if self.num_runs > 1 else None
        num_seeds = self.num_runs if self.num_runs > 1 else None
        start = time.perf_counter()
        advance = compile_rounds(self.round, self.state, _MAX_CHUNK, num_seeds=num_seeds, mesh=mesh)
        self.compile_seconds = time.perf_counter() - start
        return advance

    def run(
        self, reporter: Reporter, stop: GracefulStop, advance: Callable[..., Any] | None = None
    ) -> Callable[..., Any] | None:
        """Trains until the last round, or until somebody wants to stop; then what was done is saved.

        Args:
            reporter: hears how far the run is.
            stop: says whether to stop.
            advance: the program of another session of the same shapes; None: compile.

        Returns:
            The program; None where there was nothing to do.

        Raises:
            OSError: something could not be written; the last checkpoint is intact.
        """
        if self.rounds == self.config.num_rounds:
            return advance
        self._clock = time.perf_counter()
        advance = advance or self._compile()
        reporter.begin(self.rounds, self.env_steps)
        self._loop(reporter, stop, advance)
        return advance

    def _loop(self, reporter: Reporter, stop: GracefulStop, advance: Callable[..., Any]) -> None:
        while True:
            (count, *_), stops, (overdue, *_) = agree(self._next_count(), stop.requested, self._overdue())
            if any(stops) or self.rounds == self.config.num_rounds:
                stop.requested = stop.requested or any(stops)
                break
            if overdue:
                self.save()
            if self._chunk(advance, count, reporter):
                stop.requested = True
            if self._every(self.config.checkpoint.every_rounds):
                self.save()
        self.save()

    def _chunk(self, advance: Callable[..., Any], count: int, reporter: Reporter) -> bool:
        """Runs the next few rounds, evaluates and logs; returns whether somebody who read the lines wants to stop."""
        start = time.perf_counter()
        self.state, history = advance(self.round, self.state, count)
        columns = {name: x.reshape(self.num_runs, -1)[:, :count] for name, x in history.items()}
        seconds = time.perf_counter() - start
        speed = self.later_chunks if self.first_chunk.rounds else self.first_chunk
        speed.add(seconds, count, _total(columns, "env_steps"), _total(columns, "agent_updates"))
        before, self.rounds = self.rounds, self.rounds + count
        evaluates = self._every(self.config.evaluation.every) or self.rounds == self.config.num_rounds
        rows, agents = [], []
        for i, record in enumerate(self.records):
            mine = slice(i * self.config.num_seeds, (i + 1) * self.config.num_seeds)
            rows.append(record.rows({name: column[mine] for name, column in columns.items()}, before, count))
            agents.append(record.evaluate(rows[-1], self.state, self.rounds) if evaluates else [])
        now = time.perf_counter()
        passed, self._clock = now - self._clock, now
        wants_to_stop = self._log(rows, agents, passed)
        self.seconds += passed
        shown = self._shown([row for lines in rows for row in lines[-self.config.num_seeds :]])
        reporter.update(self.rounds, self.env_steps, shown)
        return wants_to_stop

    def _log(self, rows: list[list[Row]], agents: list[list[Row]], passed: float) -> bool:
        stops = []
        for record, lines, of_agents in zip(self.records, rows, agents, strict=True):
            try:
                stops.append(record.log(lines, of_agents, self.seconds, passed))
            except OSError as error:
                saved = self._checkpoints.latest if self._checkpoints is not None else None
                kept = f"the run is saved up to round {saved}" if saved is not None else "nothing is saved yet"
                where = record.folder.path if record.folder is not None else "its folder"
                raise OSError(
                    f"could not write to {where}: {error.strerror or error}; {kept}. Make room, then: {self._go_on}"
                ) from error
        return any(stops)

    def _next_count(self) -> int:
        """How many rounds to run before the host has something to do."""
        known = self.later_chunks if self.later_chunks.rounds else self.first_chunk
        pace = known.pace(_CHUNK_SECONDS) if known.rounds else 1
        ahead = [self.config.num_rounds - self.rounds]
        for every in (self.config.evaluation.every, self.config.checkpoint.every_rounds):
            if every:
                ahead.append(every - self.rounds % every)
        return min(*ahead, pace, _MAX_CHUNK)

    def _every(self, rounds: int) -> bool:
        return rounds > 0 and self.rounds % rounds == 0

    def _overdue(self) -> bool:
        limit = self.config.checkpoint.every_seconds
        return limit > 0 and time.perf_counter() - self._last_checkpoint > limit

    def _shown(self, rows: list[Row]) -> tuple[str, float] | None:
        """The first of these fields that the last round has, averaged over seeds and experiments."""
        for name in ("return_mean", "train_return_mean"):
            values = [row[name] for row in rows if row.get(name) is not None]
            if values:
                return name, float(np.mean(values))
        return None


def first_state(experiments: Sequence[Experiment]) -> Any:
    """The state before the first round: of one seed, or stacked for several and for several experiments."""
    config, mesh = experiments[0].config, experiments[0].mesh
    if len(experiments) * config.num_seeds == 1:
        return experiments[0].round.init(jax.random.key(config.seed))
    seeds = np.concatenate([np.arange(e.config.seed, e.config.seed + e.config.num_seeds) for e in experiments])
    keys = jax.vmap(jax.random.key)(seeds)
    return init_seeds(_one_round(experiments), keys, mesh=mesh)


def checkpoints_of(experiment: Experiment, folder: Path) -> Checkpoints:
    """The checkpoints of a run in its folder: what the number of devices adds to a state does not count."""
    return Checkpoints(folder, keep=experiment.config.checkpoint.keep, content=experiment.round.without_padding)


def _one_round(experiments: Sequence[Experiment]) -> Round | Rounds:
    """What the program runs: a round, or a stack of those of several experiments."""
    return experiments[0].round if len(experiments) == 1 else stack_rounds([e.round for e in experiments])


def _filled(round_: Round, state: Any) -> Any:
    """A state from a checkpoint, which may come from another number of devices."""
    if round_.num_rows == round_.num_agents:
        return state
    return jax.jit(Round.with_padding, donate_argnums=1)(round_, state)


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
