"""The command `fedjax-rl`."""

import argparse
import dataclasses
import datetime
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from . import registry
from .training import ExperimentConfig, preset, preset_names


PROGRAM = "fedjax-rl"
DEFAULT_PRESET = "cartpole"
INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C has stopped

_AXES: dict[str, Any] = {
    "round": "round",
    "env_steps": "env_steps",
    "episodes": "episodes",
    "uplink_bits": "uplink_bits_total",
    "virtual_time": "virtual_time",
}

_EXAMPLES = """examples:
  fedjax-rl train                                          256 CartPoles that differ learn one policy
  fedjax-rl train --agents 1000 --round.participation "uniform_cohort(100)"
  fedjax-rl train --round.aggregator "trimmed_mean(0.1)" --learner.corrections "proximal(0.1)"
  fedjax-rl train --config my.toml --num-seeds 5 --out runs/mine
  fedjax-rl sweep --over 'learner.optimizer.learning_rate=[1e-3, 3e-3, 1e-2]' --num-seeds 8
  fedjax-rl resume runs/mine
  fedjax-rl plot runs/a runs/b
  fedjax-rl compare runs/a runs/b                          tables with intervals over seeds, and compare.png
  fedjax-rl list aggregators
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments after the program's name; None: those of the process.

    Returns:
        The exit code: 0, 1 (the disk), 2 (the user's input), or 130 (interrupted).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [argument for argument in argv if argument != "--debug"]
    try:
        if argv[:1] in (["train"], ["sweep"]):
            return _train(argv[1:]) if argv[0] == "train" else _sweep(argv[1:])
        arguments = _parser().parse_args(argv)
        return arguments.action(arguments)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: aborted", file=sys.stderr)
        return _leave(INTERRUPTED)
    except (ValueError, FileNotFoundError) as error:
        return _complain(error, debug, 2)
    except BrokenPipeError:  # the reader has seen enough, as in `fedjax-rl list | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        return _complain(error, debug, 1)
    except RuntimeError as error:
        from .training import PeerLost

        if not isinstance(error, PeerLost):
            raise
        return _complain(error, debug, 1)


def _complain(error: Exception, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exc()
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return _leave(code)


def _leave(code: int) -> int:
    """Ends one of several processes at once after an error: an ordinary exit would wait for those that wait for it."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        from .training import exit_at_once

        exit_at_once(code)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Federated reinforcement learning in JAX: one jitted round, thousands of heterogeneous agents.",
        epilog=_EXAMPLES + "\n--debug after any command shows the traceback of an error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, summary: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(action=action)
        return added

    # Only for the list of commands: `train` has a flag for every field of the configuration, and its own parser.
    command("train", "train an experiment (train --help lists every field that can be set)", lambda _: _train([]))
    command("sweep", "train a grid of values times seeds in as few programs as possible", lambda _: _sweep([]))

    resume = command("resume", "go on with an interrupted run, or train a finished one for more rounds", _resume)
    resume.add_argument("dir", type=Path, metavar="DIR", help="the run folder")
    resume.add_argument("--rounds", type=int, help="rounds in all (default: as configured)")
    resume.add_argument("--quiet", action="store_true", help="report nothing but errors")
    resume.add_argument("--coordinator", help="HOST:PORT of process 0 of several that train together, or auto")
    resume.add_argument("--num-processes", type=int, help="how many processes train together")
    resume.add_argument("--process-id", type=int, help="which of them this is, counted from 0")

    evaluate = command("evaluate", "play the trained policies of a run, on training and on unseen agents", _evaluate)
    evaluate.add_argument("dir", type=Path, metavar="DIR", help="the run folder")
    evaluate.add_argument("--episodes", type=int, default=100, help="at least so many, over all agents (default: 100)")
    how = evaluate.add_mutually_exclusive_group()
    how.add_argument("--greedy", dest="greedy", action="store_true", default=None, help="play the most likely action")
    how.add_argument("--sampled", dest="greedy", action="store_false", help="sample the actions")
    evaluate.add_argument("--gymnasium", action="store_true", help="play in Gymnasium's own CartPole-v1 too")
    evaluate.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")

    plot = command("plot", "draw the learning curves of one or several runs into one picture", _plot)
    plot.add_argument("dirs", type=Path, nargs="+", metavar="DIR", help="run folders")
    plot.add_argument("--out", type=Path, help="the picture (default: DIR/returns.png, or runs.png for several)")
    plot.add_argument(
        "--timeline", action="store_true", help="who worked when, instead of the curves (default: DIR/timeline.png)"
    )
    plot.add_argument("--x", choices=tuple(_AXES), default="round", help="the horizontal axis")

    compare = command("compare", "compare returns, and rounds, steps and bits to a threshold, with intervals", _compare)
    compare.add_argument("dirs", type=Path, nargs="+", metavar="RUN", help="run folders; the first is the reference")
    compare.add_argument("--out", type=Path, default=Path("compare.png"), help="the picture (default: compare.png)")
    compare.add_argument(
        "--label", action="append", metavar="TEXT", help="name of a run, in the order of RUN; once for each"
    )
    compare.add_argument(
        "--threshold", type=float, action="append", help="of the return, may be repeated (default: evaluation.success)"
    )
    compare.add_argument(
        "--for-good", action="store_true", help="count a threshold as reached when no later evaluation is below it"
    )
    compare.add_argument("--json", action="store_true", help="print JSON instead of tables")

    roles = (*registry.ROLES, "optimizers", "presets")
    lists = command("list", "list what a configuration can name, one a line, with what it does", _list)
    lists.add_argument("role", nargs="?", choices=roles, metavar="ROLE", help=f"one of {', '.join(roles)}")
    return parser


def _version() -> str:
    from . import __version__

    return __version__


# ---------------------------------------------------------------- train


@dataclasses.dataclass(frozen=True)
class Train:
    """Train an experiment.

    Starts from a preset or a configuration file; every field can be given another value.
    """

    experiment: Any
    preset: str = DEFAULT_PRESET
    """Preset to start from; see fedjax-rl list presets."""
    config: Path | None = None
    """Configuration file to start from, instead of a preset."""
    out: Path | None = None
    """Run folder (default: runs/NAME-TIME)."""
    overwrite: bool = False
    """Replace the run that is in the folder."""
    agents: int | Literal["auto"] | None = None
    """Number of agents; short for --num-agents."""
    rounds: int | None = None
    """Rounds of communication; short for --num-rounds."""
    quiet: bool = False
    """Report nothing but errors."""
    coordinator: str | None = None
    """Host and port of process 0 of several that train together; auto: as the batch system says."""
    num_processes: int | None = None
    """How many processes train together."""
    process_id: int | None = None
    """Which of them this is, counted from 0."""


@dataclasses.dataclass(frozen=True)
class Sweep(Train):
    """Train every combination of some values, side by side.

    Every field that is not varied can be given a value, as with train.
    """

    over: tuple[str, ...] = ()
    """KEY=[VALUE, ...] as in TOML, once or several times; a key may lead on into an expression, as in
    learner.optimizer.learning_rate=[1e-3, 1e-2] or round.transforms.0.norm=[1.0, 2.0]."""
    resume: bool = False
    """Go on with the sweep in the folder."""


def _train(argv: Sequence[str]) -> int:
    arguments, config, out = _arguments(argv, Train)

    from .training import train

    _prepare_devices(arguments)
    result = train(config, out=out, overwrite=arguments.overwrite, progress=not arguments.quiet)
    return INTERRUPTED if result.interrupted else 0


def _sweep(argv: Sequence[str]) -> int:
    arguments, config, out = _arguments(argv, Sweep)

    from .training import read_over, sweep

    over = read_over(arguments.over)
    if arguments.resume and not (arguments.out and arguments.out.is_dir()):
        raise ValueError(f"--resume needs --out, the folder of the sweep, got {arguments.out}")
    _prepare_devices(arguments)
    result = sweep(
        config, over, out=out, overwrite=arguments.overwrite, resume=arguments.resume, progress=not arguments.quiet
    )
    return INTERRUPTED if result.interrupted else 0


def _arguments(argv: Sequence[str], kind: type[Train]) -> tuple[Any, ExperimentConfig, Path]:
    """The arguments, the configuration that they describe, and the run folder."""
    arguments = _parsed(argv, _base_config(argv), kind)
    config: ExperimentConfig = arguments.experiment
    changes = {"num_agents": arguments.agents, "num_rounds": arguments.rounds}
    config = config.replace(**{name: value for name, value in changes.items() if value is not None})
    if arguments.coordinator is not None and arguments.out is None:
        raise ValueError("--out must be given with --coordinator: the processes write into one folder")
    return arguments, config, arguments.out or Path("runs") / f"{config.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _prepare_devices(arguments: Any) -> None:
    """Before the first use of JAX: all cores of this machine, and the other processes of this run."""
    from .training import join_processes, use_all_cores, use_compilation_cache

    use_all_cores()
    use_compilation_cache()
    join_processes(arguments.coordinator, arguments.num_processes, arguments.process_id)


def _base_config(argv: Sequence[str]) -> ExperimentConfig:
    """Reads the preset or the file that the defaults of all other flags come from."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=PROGRAM)
    first.add_argument("--preset")
    first.add_argument("--config", type=Path)
    known, _ = first.parse_known_args(argv)
    if known.preset is not None and known.config is not None:
        raise ValueError("give either --preset or --config, not both")
    if known.config is None:
        return preset(known.preset or DEFAULT_PRESET)
    config = ExperimentConfig.load(known.config)
    return config.replace(name=known.config.stem) if config.name == ExperimentConfig.name else config


def _parsed(argv: Sequence[str], base: ExperimentConfig, kind: type[Train]) -> Any:
    import tyro

    fields = Annotated[ExperimentConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    own: list[Any] = [("experiment", fields)]
    if kind is Sweep:  # each --over adds to those before
        own.append(("over", tyro.conf.UseAppendAction[tuple[str, ...]], dataclasses.field(default=())))
    whole = dataclasses.make_dataclass(
        kind.__name__, own, bases=(kind,), frozen=True, namespace={"__doc__": kind.__doc__}
    )
    name = kind.__name__.lower()
    return tyro.cli(whole, default=whole(experiment=base), args=list(argv), prog=f"{PROGRAM} {name}")


# ---------------------------------------------------------------- the other commands


def _resume(arguments: argparse.Namespace) -> int:
    from .training import resume

    _prepare_devices(arguments)
    result = resume(arguments.dir, num_rounds=arguments.rounds, progress=not arguments.quiet)
    return INTERRUPTED if result.interrupted else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from .training import console, evaluate_run, result_table, use_all_cores

    use_all_cores()
    report = evaluate_run(
        arguments.dir,
        num_episodes=arguments.episodes,
        greedy=arguments.greedy,
        gymnasium=arguments.gymnasium,
        seed=arguments.seed,
    )
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    actions = "most likely" if report["greedy"] else "sampled"
    console().print(result_table(report | {"title": f"{arguments.dir}, round {report['rounds']}, {actions} actions"}))
    if "gymnasium_agents" in report:
        difference = report["gymnasium_agents"]["difference"]
        shown = "unequal without any spread" if difference is None else f"{difference:+.2f} combined standard errors"
        print(f"Gymnasium minus ours: {shown}")
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from .training import RunFolder, distinct_labels, plot_agent_curves, plot_agents, plot_returns, plot_timeline

    if arguments.timeline:
        if len(arguments.dirs) > 1 and arguments.out is not None:
            raise ValueError(
                "--out must be left out with --timeline of several runs: each gets a picture in its folder"
            )
        for path in arguments.dirs:
            folder, config = RunFolder.open(path)
            print(plot_timeline(config, arguments.out or folder.timeline_plot))
        return 0
    runs, folders = [], []
    for path in arguments.dirs:
        folder, config = RunFolder.open(path)
        folders.append(folder)
        runs.append((config, folder.read_metrics()))
    labels = distinct_labels([config for config, _ in runs], [folder.path for folder in folders])
    labelled = [(label, rows) for label, (_, rows) in zip(labels, runs, strict=True)]
    single = len(folders) == 1
    out = arguments.out or (folders[0].returns_plot if single else Path("runs.png"))
    title = f"{runs[0][0].name}: {runs[0][0].num_agents} agents" if single else ""
    print(plot_returns(labelled, out, x=_AXES[arguments.x], title=title))
    if single and arguments.out is None and (rows := folders[0].read_agents()):
        print(plot_agents(rows, folders[0].agents_plot, title=title))
    if single and arguments.out is None and (rows := folders[0].read_agent_returns()):
        print(plot_agent_curves(rows, folders[0].agent_curves_plot, title=title))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from .training import compare, comparison_tables, console

    comparison = compare(arguments.dirs, arguments.label, arguments.out, thresholds=arguments.threshold)
    if arguments.json:
        print(json.dumps(comparison.report | {"picture": str(comparison.picture)}, indent=2))
        return 0
    out = console()
    for table in comparison_tables(comparison, for_good=arguments.for_good):
        out.print(table)
    for note in comparison.report["notes"]:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    print(comparison.picture)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    roles = (arguments.role,) if arguments.role else (*registry.ROLES, "optimizers", "presets")
    for number, role in enumerate(roles):
        if len(roles) > 1:
            print(("\n" if number else "") + f"{role}:")
        entries = _entries(role)
        width = max(len(name) for name, _ in entries)
        for name, summary in entries:
            print(f"{'  ' if len(roles) > 1 else ''}{name:<{width}}  {summary}")
    return 0


def _entries(role: str) -> list[tuple[str, str]]:
    """Names and one-line descriptions of a role."""
    if role == "presets":
        return [(name, preset(name).description) for name in preset_names()]
    if role == "optimizers":
        from .training import optimizer_summaries

        return list(optimizer_summaries().items())
    return [(name, registry.summary(role, name)) for name in registry.names(role)]


if __name__ == "__main__":
    sys.exit(main())
