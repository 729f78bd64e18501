"""What the experiments share: train named variants, compare them, leave a table and a picture."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from fedjax_rl.training import ExperimentConfig, compare, comparison_tables, console, train, use_all_cores


def arguments(name: str, doc: str | None, **defaults: int) -> argparse.Namespace:
    """`--seeds`, `--out` and whatever numbers the experiment has."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    for option, value in {"seeds": 20, **defaults}.items():
        parser.add_argument(f"--{option.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    use_all_cores()
    return parser.parse_args()


def study(variants: Mapping[str, ExperimentConfig], out: Path, thresholds: tuple[float, ...] = ()) -> dict:
    """Trains every variant into its own folder and compares them; returns the report, which is also on the disk."""
    results = []
    for label, config in variants.items():
        folder = out / "".join(c if c.isalnum() or c in "-._" else "_" for c in label)
        results.append(train(config, out=folder, overwrite=True, progress=False))
        print(f"{label}: {results[-1].summary['training_agents']['return_mean']:.1f}", flush=True)
    comparison = compare(results, list(variants), out=out, thresholds=thresholds or None)
    for table in comparison_tables(comparison):
        console().print(table)
    (out / "report.json").write_text(json.dumps(comparison.report, indent=2))
    return comparison.report
