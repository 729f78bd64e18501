"""A grid of configurations times seeds, trained side by side: `sweep(config, over) -> Sweep`."""

import csv
import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np

from ..core import Round, Rounds, make_mesh, memory_bytes, same_program, tree
from ..metrics import bootstrap_interval
from ._build import Experiment, build
from ._config import ExperimentConfig
from ._folder import RunFolder, write_atomically
from ._grid import Point, points
from ._plots import plot_grid
from ._processes import agree, describe_devices, leads, with_peers
from ._progress import Reporter, grid_table
from ._session import Session, checkpoints_of
from ._stop import GracefulStop
from ._train import begin, check_same, chunks_of, finish, with_own_tables


# All points that share a program share these too: they say what the host does between rounds.
_IN_COMMON = ("num_rounds", "num_seeds", "evaluation", "logging", "checkpoint")
_MEMORY = 0.5  # share of the memory that the states of one program may take


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `sweep` returns.

    Attributes:
        rows: of each point its values by key, the mean final return over seeds with its 95 % bootstrap interval
            (`return_mean`, `return_low`, `return_high`), and its run folder; no returns where it was not finished.
        num_programs: programs that were compiled.
        interrupted: whether it was stopped before the end.
        folder: where it is, or None.
    """

    rows: list[dict[str, Any]]
    num_programs: int
    interrupted: bool
    folder: Path | None

    @property
    def best(self) -> dict[str, Any]:
        """The row with the largest mean return."""
        finished = [row for row in self.rows if row["return_mean"] is not None]
        if not finished:
            raise ValueError("no point is finished")
        return max(finished, key=lambda row: row["return_mean"])


@with_peers
def sweep(
    config: ExperimentConfig,
    over: Mapping[str, Sequence[Any]],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> Sweep:
    """Trains every combination of some values, `config.num_seeds` seeds each.

    Points that differ in numbers only (learning rates, clipping norms, physics) are rows of one compiled program, laid
    out like agents: one after another on each device. Points of another structure (another aggregator, network or
    number of agents) get a program of their own. Rows that do not fit into memory together follow one another.

    Args:
        config: what all points have in common.
        over: key -> values; see `points`.
        out: a folder that gets a run folder for every point, `sweep.csv` and `sweep.png`; None: nothing is written.
        overwrite: replace runs that are already there.
        resume: go on with the sweep in the folder; finished points are kept.
        progress: whether to report progress on standard error.

    Raises:
        ValueError: a key or a value is wrong, or the folder holds other runs.
        OSError: something could not be written.

    Example:
        >>> found = sweep(preset("cartpole").replace(num_rounds=1, num_agents=2, num_seeds=2),
        ...               {"learner.optimizer.learning_rate": [1e-3, 1e-2]}, progress=False)
        >>> len(found.rows), found.num_programs
        (2, 1)
    """
    if resume and (out is None or overwrite):
        raise ValueError("resume needs the folder of the sweep (out), and excludes overwrite")
    grid = points(config, over)
    experiments = [build(point.config, num_runs=max(2, len(grid) * config.num_seeds)) for point in grid]
    parts = _parts(experiments)
    folder = None if out is None else Path(out)
    run = _Run(config.name, grid, experiments, len(parts), folder, overwrite, resume, progress)
    for number, part in enumerate(parts):
        if run.finished_before(part):
            continue
        run.train(number, part)
        if run.interrupted:
            break
    rows = [_row(point, run.summaries.get(i), folder) for i, point in enumerate(grid)]
    if leads() and not run.interrupted:
        if folder is not None:
            _write(folder, rows, list(over), f"{config.name}: {config.num_seeds} seeds")
        if progress:
            Reporter(config.name, 0).console.print(grid_table(rows, list(over)))
    return Sweep(rows, run.num_programs, run.interrupted, folder)


class _Run:
    """A sweep under way, part by part."""

    def __init__(
        self,
        name: str,
        grid: Sequence[Point],
        experiments: Sequence[Experiment],
        num_parts: int,
        folder: Path | None,
        overwrite: bool,
        resume: bool,
        progress: bool,
    ):
        self.name, self.grid, self.experiments, self.num_parts = name, grid, experiments, num_parts
        self.folder, self.overwrite, self.resume, self.progress = folder, overwrite, resume, progress
        self.summaries: dict[int, Mapping[str, Any]] = {}  # of the finished points
        self.num_programs, self.interrupted = 0, False
        self._program: _Program | None = None  # the last one that was compiled

    def finished_before(self, part: Sequence[int]) -> bool:
        """Whether all points of a part were finished when the sweep was stopped; then their summaries are kept."""
        if not self.resume or self.folder is None:
            return False
        kept = _finished(self.folder, self.grid, self.experiments, part)
        ((all_kept, *_),) = agree(bool(kept))  # files may reach other hosts later
        if all_kept:
            self.summaries |= kept
        return bool(all_kept)

    def train(self, number: int, part: Sequence[int]) -> None:
        """Trains the points of a part side by side, to the end or until somebody wants to stop."""
        num_rounds = self.experiments[part[0]].config.num_rounds
        reporter = Reporter(self.name, num_rounds, enabled=self.progress and leads())
        session = None
        try:
            with GracefulStop(reporter.say) as stop:
                session = _session(
                    self.grid, self.experiments, part, self.folder, number,
                    overwrite=self.overwrite, resume=self.resume,
                )  # fmt: skip
                reporter.open(_headline(session, number, self.num_parts))
                self._advance(session, reporter, stop)
                results = finish(session)
                # Who asks while the last part is evaluated is answered when nothing is left to do.
                asked = any(*agree(stop.requested))
                self.interrupted = asked and (results[0].interrupted or number + 1 < self.num_parts)
            if results[0].interrupted:
                hint = "" if self.folder is None else f"; go on with --resume --out {self.folder}"
                reporter.say(f"stopped after round {session.rounds}{hint}")
                return
            self.summaries |= {i: result.summary for i, result in zip(part, results, strict=True)}
            if self.folder is not None:
                _leave_checkpoints(session)
        finally:
            reporter.close()
            if session is not None:
                session.close()

    def _advance(self, session: Session, reporter: Reporter, stop: GracefulStop) -> None:
        """Runs a session, by the last program where that serves it."""
        known = self._program.advance if self._program is not None and self._program.serves(session) else None
        advance = session.run(reporter, stop, known)
        if advance is not None and known is None:
            self._program = _Program(session.num_runs, session.round, advance)
            self.num_programs += 1


class _Program(NamedTuple):
    """A compiled program, and what it was compiled for."""

    num_runs: int
    round: Round | Rounds
    advance: Callable[..., Any]

    def serves(self, session: Session) -> bool:
        """Whether a session's rounds differ from these in numbers only."""
        return self.num_runs == session.num_runs and same_program(self.round, session.round)


def _parts(experiments: Sequence[Experiment]) -> list[list[int]]:
    """Numbers of the experiments that one session trains: of one structure, and as many as memory allows."""
    groups: list[list[int]] = []
    for i, experiment in enumerate(experiments):
        for group in groups:
            if _together(experiments[group[0]], experiment):
                group.append(i)
                break
        else:
            groups.append([i])
    parts = []
    for group in groups:
        first = experiments[group[0]]
        state = jax.eval_shape(first.round.init, jax.random.key(0))
        bytes_each = max(1, tree.num_bits(state) // 8) * first.config.num_seeds
        most = max(1, int(_MEMORY * memory_bytes(first.mesh) / bytes_each))
        size = _even_part(len(group), most)
        parts += [group[begin : begin + size] for begin in range(0, len(group), size)]
    return parts


def _even_part(count: int, most: int) -> int:
    """Points of a part: parts of one size share a program, so that is worth up to twice as many parts, but not more."""
    fewest = math.ceil(count / most)
    parts = next((parts for parts in range(fewest, 2 * fewest) if count % parts == 0), fewest)
    return math.ceil(count / parts)


def _together(one: Experiment, other: Experiment) -> bool:
    return same_program(one.round, other.round) and all(
        getattr(one.config, name) == getattr(other.config, name) for name in _IN_COMMON
    )


def _session(
    grid: Sequence[Point], experiments: Sequence[Experiment], part: Sequence[int], folder: Path | None, number: int, *,
    overwrite: bool, resume: bool,
) -> Session:  # fmt: skip
    """The session of a part, with the folders of its points."""
    num_runs = len(part) * experiments[part[0]].config.num_seeds
    if num_runs == 1:  # alone, it has all devices to itself
        mine = [build(grid[part[0]].config)]
    else:
        devices = _size(experiments[part[0]].mesh)  # of several processes all, of one no more than there are runs
        mesh = make_mesh(devices if jax.process_count() > 1 else min(num_runs, devices))
        mine = [experiments[i]._replace(mesh=mesh) for i in part]
    folders: list[RunFolder | None] = [None] * len(part)
    checkpoints = None
    if folder is not None:
        checkpoints = folder / "checkpoints" / f"part{number}"
        paths = [folder / grid[i].label for i in part]
        held = [first for first, *_ in agree(*[resume and RunFolder(path).holds_run for path in paths])]
        for k, path in enumerate(paths):
            if held[k]:
                folders[k] = RunFolder(path)
                mine[k] = mine[k]._replace(config=with_own_tables(mine[k].config, path))
            else:
                folders[k], mine[k] = begin(path, mine[k], overwrite=overwrite)
        if not resume and leads():  # those of an earlier grid
            shutil.rmtree(checkpoints, ignore_errors=True)
        agree(True)  # nobody looks into the folder before it is clean
    session = Session(mine, folders, checkpoints, f"the same command with --resume --out {folder}")
    if resume and checkpoints is not None:
        _check_grid(session, folder)
        session.restore()
    return session


def _check_grid(session: Session, folder: Path | None) -> None:
    """Raises where the checkpoint of a part is of other points, or of the same in another order."""
    saved = session.configurations()
    if saved is None:
        return
    foreign = f"the sweep in {folder} cannot go on with another grid: "
    if len(saved) != len(session.records):
        raise ValueError(
            f"{foreign}its program had {len(saved)} points, now {len(session.records)}; choose another --out"
        )
    for text, record in zip(saved, session.records, strict=True):
        assert record.folder is not None
        try:
            check_same(ExperimentConfig.from_toml(text), record.config, record.folder)
        except ValueError as error:
            raise ValueError(f"{foreign}{error}") from error


def _size(mesh: Any) -> int:
    return 1 if mesh is None else mesh.size


def _finished(
    folder: Path, grid: Sequence[Point], experiments: Sequence[Experiment], part: Sequence[int]
) -> dict[int, Mapping[str, Any]]:
    """The summaries of a part whose points are all finished; else nothing.

    Raises:
        ValueError: a point's folder holds a run of another configuration.
    """
    found: dict[int, Mapping[str, Any]] = {}
    for i in part:
        path = folder / grid[i].label
        if not RunFolder(path).holds_run:
            continue
        run, before = RunFolder.open(path)
        check_same(before, experiments[i].config, run)
        summary = run.read_summary()
        if summary is not None and summary["rounds"] == experiments[i].config.num_rounds:
            found[i] = summary
    return found if len(found) == len(part) else {}


def _leave_checkpoints(session: Session) -> None:
    """Gives every point the checkpoint of a run of its own, so that it can be evaluated and gone on with alone."""
    for record in session.records:
        assert record.folder is not None
        checkpoints = checkpoints_of(record.experiment, record.folder.checkpoints)
        try:
            checkpoints.save(
                session.rounds, session.state_of(record), {"seconds": session.seconds, **record.counters()}
            )
        finally:
            checkpoints.close()


def _headline(session: Session, number: int, num_parts: int) -> str:
    config = session.config
    part = f"program {number + 1} of {num_parts} · " if num_parts > 1 else ""
    return (
        f"{part}{len(session.records)} points x {config.num_seeds} seeds · {config.num_agents} agents · "
        f"{describe_devices(session.experiments[0].mesh)}{chunks_of(session.experiments[0])}"
    )


def _row(point: Point, summary: Mapping[str, Any] | None, folder: Path | None) -> dict[str, Any]:
    returns = [seed["training_agents"]["return_mean"] for seed in summary["seeds"]] if summary else []
    low, high = bootstrap_interval(np.array(returns)) if len(returns) > 1 else (None, None)
    return {
        **point.values,
        "return_mean": float(np.mean(returns)) if returns else None,
        "return_low": None if low is None else float(low),
        "return_high": None if high is None else float(high),
        "folder": None if folder is None else str(folder / point.label),
    }


def _write(folder: Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], title: str) -> None:
    def write(file: IO[str]) -> None:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    write_atomically(folder / "sweep.csv", write)
    plot_grid(rows, keys, folder / "sweep.png", title=title)
