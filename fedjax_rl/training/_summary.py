"""summary.json: what a run reached, how fast, and on what."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ._config import ExperimentConfig
from ._evaluate import Evaluation


_PACKAGES = ("fedjax_rl", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "orbax-checkpoint")


def over_seeds(evaluations: Sequence[Evaluation], thresholds: Sequence[float]) -> dict[str, Any]:
    """One evaluation per seed becomes one set of numbers.

    Means are over seeds. `standard_error` is over seeds where there are several, else over the episodes.
    """
    parts = [evaluation.summary(thresholds) for evaluation in evaluations]
    merged = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    merged |= {"agents": parts[0]["agents"], "episodes": sum(part["episodes"] for part in parts)}
    means = [part["return_mean"] for part in parts]
    if len(parts) > 1:
        merged["standard_error"] = float(np.std(means, ddof=1) / np.sqrt(len(means)))
    else:
        merged["standard_error"] = evaluations[0].standard_error
    return merged


def describe_results(
    config: ExperimentConfig,
    training: Sequence[Evaluation],
    unseen: Sequence[Evaluation],
    *,
    per_agent_models: bool,
) -> dict[str, Any]:
    """The part of summary.json that says what was reached."""
    thresholds = config.evaluation.success
    seeds = []
    for k, evaluation in enumerate(training):
        entry: dict[str, Any] = {"seed": config.seed + k, "training_agents": evaluation.summary(thresholds)}
        if unseen:
            entry["unseen_agents"] = unseen[k].summary(thresholds)
        seeds.append(entry)
    num_agents = config.num_agents
    policy = "the most likely action" if config.evaluation.greedy else "sampled actions"
    return {
        "training_agents": over_seeds(training, thresholds),
        "unseen_agents": over_seeds(unseen, thresholds) if unseen else None,
        "seeds": seeds,
        "success_thresholds": list(thresholds),
        "evaluated_policy": policy + (" of each agent's own model" if per_agent_models else " of the shared model"),
        "unseen_policy": f"unseen agent j plays with the model of agent j mod {num_agents}"
        if per_agent_models
        else "the shared model",
    }


def describe_machine() -> dict[str, Any]:
    """The part of summary.json that says where the run took place."""
    devices = jax.devices()
    return {
        "device": {
            "platform": devices[0].platform,
            "kind": _processor() if devices[0].platform == "cpu" else devices[0].device_kind,
            "count": len(devices),
            "cores": os.cpu_count(),
            "float64": bool(jax.config.read("jax_enable_x64")),
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
        },
        "versions": versions(),
        "git_revision": git_revision(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The commit that this package's source is at, with "-dirty" where it was changed; None outside a repository."""
    folder = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy inside somebody else's repository is not under its control.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    revision = git("rev-parse", "HEAD")
    return f"{revision}-dirty" if revision and git("status", "--porcelain", "--untracked-files=no") else revision


def repeat_command(config_file: Path) -> str:
    """The command that repeats a run from its configuration."""
    return shlex.join(["fedjax-rl", "train", "--config", str(config_file)])


def speeds(env_steps: int, updates: int, rounds: int, seconds: float) -> dict[str, float | None]:
    """Steady speeds, of the rounds alone: compilation, evaluations and files apart; None before a second chunk."""
    if seconds <= 0 or rounds == 0:
        return {"env_steps_per_second": None, "agent_updates_per_second": None, "rounds_per_second": None}
    return {
        "env_steps_per_second": env_steps / seconds,
        "agent_updates_per_second": updates / seconds,
        "rounds_per_second": rounds / seconds,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
