"""Training from Python: `train(config) -> Result`."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..policies import Policy
from . import _summary as summaries
from ._build import Experiment, build, tables
from ._config import ExperimentConfig
from ._export import save_policy
from ._folder import RunFolder, plain
from ._measure import Measured, agent_rows
from ._plots import plot_agent_curves, plot_agents, plot_returns
from ._processes import describe_devices, leader_first, leads, with_peers
from ._progress import Reporter
from ._record import OnRound, Record, Row
from ._session import Session
from ._stop import GracefulStop


@dataclasses.dataclass(frozen=True)
class Result:
    """What `train` returns.

    Attributes:
        config: the configuration, with the number of agents filled in.
        policy: the policy; `policy.apply(params, observation)`.
        params: its trained parameters, with a leading axis of agents where every agent has its own
            (`per_agent_models`), and before that an axis of seeds where there are several.
        history: the lines of metrics.jsonl.
        summary: what summary.json says; empty for a run that was stopped early.
        agents: the rows of agents.csv; empty for a run that was stopped early.
        folder: the run folder, or None.
        interrupted: whether the run was stopped before its last round.
        per_agent_models: whether every agent has a model of its own.
        agent_returns: the lines of agents.jsonl; empty without `evaluation.per_agent_every`.
    """

    config: ExperimentConfig
    policy: Policy
    params: Any
    history: list[Row]
    summary: dict[str, Any]
    agents: list[Row]
    folder: Path | None
    interrupted: bool
    per_agent_models: bool
    agent_returns: list[Row] = dataclasses.field(default_factory=list)

    def values(self, field: str, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rounds and the values of a field of the history, where it has one.

        Args:
            field: such as "return_mean" or "drift".
            seed: of which seed; the first by default.
        """
        seed = self.config.seed if seed is None else seed
        rows = [row for row in self.history if row["seed"] == seed and row.get(field) is not None]
        return np.array([row["round"] for row in rows]), np.array([row[field] for row in rows])


@with_peers
def train(
    config: ExperimentConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    on_round: OnRound | None = None,
) -> Result:
    """Trains an experiment.

    The results follow from the configuration alone: chunks, checkpoints, interruptions and the folder change nothing.
    Ctrl-C finishes the rounds under way, saves and returns; a second one aborts at once. Several processes that have
    called `jax.distributed.initialize` (or `join_processes`) train together: all call this alike, on a file system they
    share; the first one writes and reports.

    Args:
        config: the experiment.
        out: the run folder; None: nothing is written.
        overwrite: replace a run that is already in the folder.
        resume: go on with the run in the folder.
        progress: whether to report progress on standard error.
        on_round: called with every line of metrics.jsonl as it is made; returns True to stop.

    Returns:
        What was learned and measured.

    Raises:
        ValueError: the configuration cannot work, or the folder holds another run.
        OSError: something could not be written; the last checkpoint is intact.
        PeerLost: another process of the run has died.

    Example:
        >>> result = train(preset("cartpole").replace(num_rounds=1, num_agents=2), progress=False)
        >>> len(result.history)
        1
    """
    folder = None
    if resume:
        if out is None or overwrite:
            raise ValueError("resume needs the folder of the run (out), and excludes overwrite")
        folder, before = RunFolder.open(out)
        check_same(before, config, folder)
    reporter = Reporter(config.name, config.num_rounds, enabled=progress and leads())
    session = None
    try:
        with GracefulStop(reporter.say) as stop:
            experiment = build(config)
            if out is not None and folder is None:
                folder, experiment = begin(Path(out), experiment, overwrite=overwrite)
            reporter.open(_headline(experiment))
            checkpoints = None if folder is None else folder.checkpoints
            session = Session([experiment], [folder], checkpoints, f"fedjax-rl resume {out}", on_round)
            if resume:
                session.restore()
            session.run(reporter, stop)
            (result,) = finish(session)
            _report(session, result, reporter)
            return result
    finally:
        reporter.close()
        if session is not None:
            session.close()


def resume(folder: str | Path, *, num_rounds: int | None = None, progress: bool = True) -> Result:
    """Goes on with an interrupted run, or trains a finished one for more rounds.

    Args:
        folder: the run folder.
        num_rounds: rounds in all; None: as configured.
        progress: whether to report progress on standard error.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no run, or its checkpoint does not fit its configuration.
    """
    _, config = RunFolder.open(folder)
    if num_rounds is not None:
        config = config.replace(num_rounds=num_rounds)
    return train(config, out=folder, resume=True, progress=progress)


def begin(out: Path, experiment: Experiment, *, overwrite: bool) -> tuple[RunFolder, Experiment]:
    """Creates the folder, with a copy of the table of a fleet: the run stays what it was when the table changes."""
    contents = {name: Path(name).read_bytes() for name in tables(experiment.config.world.family)}
    experiment = experiment._replace(config=with_own_tables(experiment.config, out))

    def folder() -> RunFolder:
        return RunFolder.create(out, experiment.config, overwrite=overwrite) if leads() else RunFolder(out)

    made = leader_first(folder)
    for name, content in contents.items():
        if leads():
            _copy_of(name, out).write_bytes(content)
    return made, experiment


def _copy_of(table: str, folder: Path) -> Path:
    return folder.resolve() / f"fleet{Path(table).suffix.lower()}"


def with_own_tables(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The same experiment on the folder's copy of its table."""
    text = config.world.family
    for name in tables(text):
        text = text.replace(name, str(_copy_of(name, folder)))
    return config.replace(world={"family": text})


# May differ between a checkpoint and the run that goes on from it: nothing of it changes what is learned.
_FREE = ("name", "description", "num_rounds", "devices", "chunk_size", "evaluation.", "logging.", "checkpoint.")


def check_same(before: ExperimentConfig, config: ExperimentConfig, folder: RunFolder) -> None:
    """Raises `ValueError` where a run cannot go on with another configuration than it began with."""
    config = with_own_tables(config, folder.path)
    changed = {name: pair for name, pair in before.differences(config).items() if not name.startswith(_FREE)}
    if config.num_agents == "auto":  # the folder holds the number that it stood for
        changed.pop("num_agents", None)
    if changed:
        text = "; ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in changed.items())
        raise ValueError(f"the run in {folder.path} cannot go on with another configuration: {text}")


def _headline(experiment: Experiment) -> str:
    config = experiment.config
    seeds = f" · {config.num_seeds} seeds" if config.num_seeds > 1 else ""
    return (
        f"{config.num_agents} agents · {config.rollout.num_envs} x {config.rollout.num_steps} steps{seeds} · "
        f"{describe_devices(experiment.mesh)}{chunks_of(experiment)}"
    )


def chunks_of(experiment: Experiment) -> str:
    """How many agents a device works on at a time."""
    size, num_agents = experiment.round.chunk_size, experiment.round.num_agents
    return f" · {'all' if size is None or size >= num_agents else size} agents at a time"


# ---------------------------------------------------------------- the end of a run

# What a summary says of the training itself, whatever is evaluated later.
_OF_THE_TRAINING = (
    "seconds", "compile_seconds", "env_steps_per_second", "agent_updates_per_second", "rounds_per_second", "command",
)  # fmt: skip


def finish(session: Session) -> list[Result]:
    """Evaluates the experiments of a session, and writes what finished runs leave."""
    return [_finish(session, record) for record in session.records]


def _finish(session: Session, record: Record) -> Result:
    config, experiment, folder = record.config, record.experiment, record.folder
    seeds = range(config.num_seeds)
    models = [record.evaluator.models(session.state, k) for k in seeds]
    params = models[0] if len(models) == 1 else jax.tree.map(lambda *leaves: np.stack(leaves), *models)
    interrupted = session.rounds < config.num_rounds
    summary, agents = {}, []
    if not interrupted:
        training = [record.evaluator.all_agents(session.state, k, session.rounds) for k in seeds]
        unseen = [m for k in seeds if (m := record.evaluator.unseen(session.state, k, session.rounds)) is not None]
        summary = plain(_summary(session, record, training, unseen))
        earlier = folder.read_summary() if folder is not None else None
        if earlier is not None and earlier["rounds"] == session.rounds:  # nothing was trained: what it took is known
            summary |= {name: earlier[name] for name in _OF_THE_TRAINING if name in earlier}
        for k, measured in enumerate(training):
            agents += agent_rows(measured, experiment.family, seed=config.seed + k, split="training")
            if unseen:
                agents += agent_rows(unseen[k], experiment.family, seed=config.seed + k, split="unseen")
        if folder is not None and leads():
            _write(folder, record, session.rounds, models, summary, agents)
    own = experiment.round.per_agent_models
    path = None if folder is None else folder.path
    return Result(
        config, experiment.policy, params, record.history, summary, agents, path, interrupted, own,
        record.agent_returns,
    )  # fmt: skip


def _report(session: Session, result: Result, reporter: Reporter) -> None:
    reporter.close()
    if result.interrupted:
        hint = f"; go on with: fedjax-rl resume {result.folder}" if result.folder is not None else ""
        reporter.say(f"stopped after round {session.rounds} of {result.config.num_rounds}{hint}")
        return
    reporter.table(result.summary)
    if result.folder is not None:
        reporter.say(f"written to {result.folder}")


def _summary(
    session: Session, record: Record, training: Sequence[Measured], unseen: Sequence[Measured]
) -> dict[str, Any]:
    config, speed = record.config, session.later_chunks if session.later_chunks.rounds else session.first_chunk
    folder, shared = record.folder, len(session.records)
    return {
        "name": config.name,
        "description": config.description,
        "num_agents": config.num_agents,
        "num_seeds": config.num_seeds,
        "rounds": session.rounds,
        "env_steps": record.env_steps[0],  # of each seed; episodes end where they end, so seeds differ
        "episodes": record.episodes[0],
        "seconds": session.seconds,
        "compile_seconds": session.compile_seconds,
        # Of this experiment alone, where several share the program.
        **summaries.speeds(speed.env_steps // shared, speed.updates // shared, speed.rounds, speed.seconds),
        **summaries.describe_results(
            config,
            [m.evaluation for m in training],
            [m.evaluation for m in unseen],
            per_agent_models=record.experiment.round.per_agent_models,
        ),
        **summaries.describe_machine(),
        "repeat": None if folder is None else summaries.repeat_command(folder.config_file),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _write(
    folder: RunFolder, record: Record, num_rounds: int, models: Sequence[Any], summary: dict[str, Any],
    agents: list[Row],
) -> None:  # fmt: skip
    config, round_ = record.config, record.experiment.round
    for k, params in enumerate(models):
        path = folder.policy_file if len(models) == 1 else folder.path / f"policy-seed{config.seed + k}.npz"
        own = round_.num_agents if round_.per_agent_models else None
        save_policy(path, record.experiment.policy, params, num_agents=own)
    folder.write_agents(agents)
    label = f"{config.name}: {config.num_agents} agents"
    if any(row.get("return_mean", row.get("train_return_mean")) is not None for row in record.history):
        plot_returns([(config.name, record.history)], folder.returns_plot, title=label)
    plot_agents(agents, folder.agents_plot, title=f"{label}, after round {num_rounds}")
    if record.agent_returns:
        plot_agent_curves(record.agent_returns, folder.agent_curves_plot, title=label)
    folder.write_summary(summary)  # last: it says that the run is complete
