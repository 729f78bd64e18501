"""A picture of a file of measurements."""

from collections.abc import Sequence
from pathlib import Path

from ._setting import Measurement


def plot(measurements: Sequence[Measurement], path: Path) -> None:
    """Draws speed, compile seconds and memory against the number of agents, a line per kind of work.

    Raises:
        ValueError: nothing there has environment steps.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines: dict[str, list[Measurement]] = {}
    for m in measurements:
        if m.env_steps_per_second is not None:
            lines.setdefault(f"{m.setting.label}, {m.setting.num_devices} devices", []).append(m)
    if not lines:
        raise ValueError("there is no measurement with environment steps to plot; run throughput or scaling first")
    figure, panels = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    quantities = (
        ("million environment steps per second", lambda m: m.env_steps_per_second / 1e6, True),
        ("seconds to compile", lambda m: m.compile_seconds, False),
        ("peak memory [MB]", lambda m: m.peak_rss_mb, False),
    )
    for axes, (name, value, logarithmic) in zip(panels, quantities, strict=True):
        for number, (label, group) in enumerate(lines.items()):
            points = sorted((m.setting.size, value(m)) for m in group)
            marker = "os^vDPX*"[number % 8]
            axes.plot(*zip(*points, strict=True), marker=marker, linewidth=1, label=label)
        axes.set_xscale("log")
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel("agents (environments for gymnax)")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    _draw_bounds(panels[0], measurements)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    first = measurements[0]
    figure.suptitle(f"{first.cpu_model}, {first.num_cores} cores, {first.device}, jax {first.versions['jax']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_bounds(axes, measurements: Sequence[Measurement]) -> None:
    """What the fastest matmul of the file allows a round of each network."""
    gflops = max(m.matmul_gflops for m in measurements)
    rounds = {m.setting.hidden_sizes: m.flop_per_step or 0.0 for m in measurements if m.setting.work == "round"}
    for sizes, per_step in rounds.items():
        net = "-".join(map(str, sizes))
        axes.axhline(gflops * 1e3 / per_step, color="grey", linestyle="--", linewidth=0.8)
        axes.annotate(
            f"bound of a round, {net}",
            (0.01, gflops * 1e3 / per_step),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize="x-small",
        )
