"""Experiments from a configuration: presets, training, evaluation, run folders, pictures.

Names are loaded when they are used, so that `fedjax-rl --help` need not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from ._build import Experiment as Experiment
    from ._build import build as build
    from ._build import optimizer_summaries as optimizer_summaries
    from ._comparison import compare as compare
    from ._comparison import distinct_labels as distinct_labels
    from ._comparison_views import comparison_tables as comparison_tables
    from ._config import ExperimentConfig as ExperimentConfig
    from ._config import preset as preset
    from ._config import preset_names as preset_names
    from ._evaluate import Evaluation as Evaluation
    from ._evaluate import evaluate as evaluate
    from ._export import load_policy as load_policy
    from ._export import save_policy as save_policy
    from ._folder import RunFolder as RunFolder
    from ._grid import read_over as read_over
    from ._gymnasium import evaluate_gymnasium as evaluate_gymnasium
    from ._plots import plot_agent_curves as plot_agent_curves
    from ._plots import plot_agents as plot_agents
    from ._plots import plot_returns as plot_returns
    from ._processes import PeerLost as PeerLost
    from ._processes import exit_at_once as exit_at_once
    from ._processes import join_processes as join_processes
    from ._processes import use_all_cores as use_all_cores
    from ._processes import use_compilation_cache as use_compilation_cache
    from ._progress import console as console
    from ._progress import result_table as result_table
    from ._reevaluate import evaluate_run as evaluate_run
    from ._runs import Comparison as Comparison
    from ._sweep import Sweep as Sweep
    from ._sweep import sweep as sweep
    from ._timeline import draw_timeline as draw_timeline
    from ._timeline import plot_timeline as plot_timeline
    from ._train import Result as Result
    from ._train import resume as resume
    from ._train import train as train

_HOME = {
    "Experiment": "_build",
    "build": "_build",
    "optimizer_summaries": "_build",
    "compare": "_comparison",
    "comparison_tables": "_comparison_views",
    "distinct_labels": "_comparison",
    "ExperimentConfig": "_config",
    "preset": "_config",
    "preset_names": "_config",
    "Evaluation": "_evaluate",
    "evaluate": "_evaluate",
    "load_policy": "_export",
    "save_policy": "_export",
    "RunFolder": "_folder",
    "evaluate_gymnasium": "_gymnasium",
    "plot_agent_curves": "_plots",
    "plot_agents": "_plots",
    "plot_returns": "_plots",
    "PeerLost": "_processes",
    "exit_at_once": "_processes",
    "join_processes": "_processes",
    "use_all_cores": "_processes",
    "use_compilation_cache": "_processes",
    "console": "_progress",
    "result_table": "_progress",
    "read_over": "_grid",
    "Sweep": "_sweep",
    "sweep": "_sweep",
    "draw_timeline": "_timeline",
    "plot_timeline": "_timeline",
    "evaluate_run": "_reevaluate",
    "Comparison": "_runs",
    "Result": "_train",
    "resume": "_train",
    "train": "_train",
}
__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
