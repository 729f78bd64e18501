"""Commands: the suites (limit, throughput, round, ...), all of them, peers, compare, table, plot."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ._compare import NotComparable, table
from ._measure import Effort, default_num_devices, in_process_of_its_own
from ._peer import PEERS, missing
from ._plot import plot
from ._setting import WORKS, Measurement, Setting, append, read
from ._suites import SUITES, peers
from ._table import markdown


_REFERENCES = {
    "network": "acting with it",
    "gradient": "the round with it",
    "acting": "the round", "sgd": "the round with adam", "noisy": "the plain round", "trimmed": "the plain round",
    "flat": "a thousand agents", "cohort": "everyone of a thousand", "processes": "one process",
    "arrivals": "synchronous cohorts", "ppo": "a plain loop", "lsa": "NumPy, tuned", "lsa_double": "NumPy",
    "peer_gymnax": "gymnax",
} | {f"peer_{name}": shown for name, shown in PEERS.items()}  # fmt: skip
PEER_WORKS = tuple(work for work in WORKS if work.startswith("peer_"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "limit": "products, multiply-adds, memory; a policy's network and its gradient alone; gymnax stepping",
        "throughput": "rollouts and full rounds of several shapes; with any option below, of that one shape",
        "round": "the parts of a round: acting, the optimiser, what happens to messages, the aggregator",
        "ppo": "rounds of PPO against a plain jitted PPO loop in the same process",
        "lsa": "rounds of federated TD learning against NumPy loops in the same process",
        "arrivals": "asynchronous rounds against cohorts of as many agents, from 100 to 100 000 agents",
        "scaling": "full rounds from 1 to 100 000 agents, of other shapes, and of two processes",
        "flat": "full rounds of 100 to 100 000 agents against rounds of a thousand: what a step costs",
        "memory": "a million agents, all of them and a thousand at a time",
        "compile": "how long presets take to compile",
        "all": "all of these",
        "peers": "against stable-baselines3, Flower, a PyTorch tutorial (`make bench-peers` installs them) and gymnax",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--out", type=Path, default=Path("runs/bench.jsonl"), help="file to append a line each to")
        command.add_argument("--devices", type=int, default=None, help="default: one per core, or all accelerators")
        command.add_argument("--calls", type=int, default=5, help="timed calls at least")
        if name == "throughput":
            command.add_argument("--work", choices=WORKS, default=None)
            for option in ("agents", "envs", "steps", "local-steps", "rounds-per-call", "matmul-size"):
                command.add_argument(f"--{option}", type=int, default=None)
            command.add_argument("--hidden", type=int, nargs="+", default=None, help="widths of the hidden layers")
            command.add_argument("--chunk", type=int, default=None, help="agents per vmap; default: by the shape")
        if name == "peers":
            command.add_argument("--only", choices=PEER_WORKS, nargs="+", default=PEER_WORKS, help="default: all")
            command.add_argument("--agents", type=int, default=1000, help="of the large federations; default: 1000")
    command = commands.add_parser("compare", help="ratios, second over first; refuses different settings")
    command.add_argument("files", type=Path, nargs=2)
    command = commands.add_parser("table", help="files of measurements as a table in Markdown")
    command.add_argument("files", type=Path, nargs="+")
    command = commands.add_parser("plot", help="draw files of measurements")
    command.add_argument("files", type=Path, nargs="+")
    command.add_argument("--out", type=Path, default=None, help="default: the first file's name with .png")
    return parser


def _one_setting(arguments: argparse.Namespace, num_devices: int) -> Setting | None:
    """The setting that options of `throughput` describe; None where none is given."""
    given = {
        "work": arguments.work,
        "num_agents": arguments.agents,
        "num_envs": arguments.envs,
        "num_steps": arguments.steps,
        "num_local_steps": arguments.local_steps,
        "rounds_per_call": arguments.rounds_per_call,
        "matmul_size": arguments.matmul_size,
        "hidden_sizes": None if arguments.hidden is None else tuple(arguments.hidden),
        "chunk_size": arguments.chunk,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    return Setting(**{"work": "round", "num_envs": 8, "num_devices": num_devices, **given})


def _line(measurement: Measurement) -> str:
    """What the screen shows of a measurement."""
    m, setting = measurement, measurement.setting
    speed = f"{m.env_steps_per_second / 1e6:9.3f} M steps/s" if m.env_steps_per_second else " " * 19
    if m.machine_rate:
        speed = f"{m.machine_rate:9.1f} {setting.unit:9}"
    share = f"{m.share_of_bound:6.1%} of the bound" if m.share_of_bound else " " * 19
    line = (
        f"{setting.label:44} {setting.size:>6} {speed} {share}  matmul {m.matmul_gflops:5.0f} GFLOP/s"
        f"  compile {m.compile_seconds:5.2f} s  {m.peak_rss_mb:6.0f} MB"
    )
    return f"{line}  {m.over_reference:.2f}x {_REFERENCES[setting.work]}" if m.over_reference else line


def _measure_all(arguments: argparse.Namespace) -> None:
    num_devices = arguments.devices or default_num_devices()
    settings: list[Setting] = []
    one = _one_setting(arguments, num_devices) if arguments.command == "throughput" else None
    for name, suite in SUITES.items():
        if one is None and arguments.command in (name, "all"):
            settings += suite(num_devices)
    if arguments.command == "peers":
        settings = [s for s in peers(num_devices, arguments.agents) if s.work in arguments.only]
    for setting in [one] if one else settings:
        if reason := missing(setting.work):
            print(f"skipped {setting.label}: {reason}", file=sys.stderr)
            continue
        effort = Effort(arguments.calls)
        if setting.work.removeprefix("peer_") in PEERS:  # they take seconds where the library takes milliseconds
            effort = effort._replace(min_seconds=0.0)
        measurement = in_process_of_its_own(setting, effort)
        append(arguments.out, measurement)
        print(_line(measurement), flush=True)
    if arguments.command == "all":
        plot(read([arguments.out]), arguments.out.with_suffix(".png"), _REFERENCES)
        print(f"drew {arguments.out.with_suffix('.png')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "compare":
            print(table(*(read([path]) for path in arguments.files)))
        elif arguments.command == "table":
            print(markdown(read(arguments.files), _REFERENCES))
        elif arguments.command == "plot":
            out = arguments.out or arguments.files[0].with_suffix(".png")
            plot(read(arguments.files), out, _REFERENCES)
            print(f"drew {out}")
        else:
            _measure_all(arguments)
    except (NotComparable, ValueError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
