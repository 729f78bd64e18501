"""What the experiments share: train named variants, compare them, leave tables and pictures."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjax_rl.training import ExperimentConfig, compare, comparison_tables, console, train, use_all_cores


def arguments(name: str, doc: str | None, **defaults: int) -> argparse.Namespace:
    """`--seeds`, `--out`, `--resume` and whatever numbers the experiment has."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    for option, value in {"seeds": 20, **defaults}.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    parser.add_argument("--resume", action="store_true", help="keep finished runs of the same configuration")
    use_all_cores()
    return parser.parse_args()


def study(
    variants: Mapping[str, ExperimentConfig],
    options: argparse.Namespace,
    thresholds: tuple[float, ...] | Mapping[str, tuple[float, ...]] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    **told: Sequence[str] | Mapping[str, Sequence[str]],
) -> None:
    """Trains every variant into its own folder and compares them, each with the first of its group.

    Args:
        variants: label -> what to train.
        options: what `arguments` returned; `out` gets the runs, the pictures, and the tables as `report.json`.
        thresholds: of the return, of all pictures or by name of the picture.
        groups: name of a picture -> labels in it; by default one picture of all.
        told: `prices`, `totals` and `means` of `compare`, likewise.
    """
    folders, out = {}, options.out
    for label, config in variants.items():
        folders[label] = out / "".join(c if c.isalnum() or c in "-._" else "_" for c in label)
        if options.resume and _finished(folders[label], config):
            continue
        result = train(config, out=folders[label], overwrite=True, progress=False)
        print(f"{label}: {result.summary['training_agents']['return_mean']:.1f}", flush=True)
    reports = {}
    for name, labels in (groups or {"compare": list(variants)}).items():
        runs = [folders[label] for label in labels]
        own = {key: _of(name, value) for key, value in {"thresholds": thresholds or None, **told}.items()}
        comparison = compare(runs, labels, out=out / f"{name}.png", **own)
        reports[name] = comparison.report
        console().print(*comparison_tables(comparison))
    (out / "report.json").write_text(json.dumps(reports, indent=2))


def _of(name: str, value: Any) -> Any:
    """What one picture gets."""
    return value.get(name, ()) if isinstance(value, Mapping) else value


def _finished(folder: Path, config: ExperimentConfig) -> bool:
    """Whether a folder holds a finished run of this very configuration."""
    if not (folder / "summary.json").exists():
        return False
    return ExperimentConfig.from_toml((folder / "config.toml").read_text()) == config
