"""A picture of a file of measurements."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._setting import Measurement


def plot(measurements: Sequence[Measurement], path: Path, references: Mapping[str, str]) -> None:
    """Draws what was held against something as bars, and all else over the number of agents, a line per kind of work.

    Args:
        measurements: of one machine; of equal settings the last one counts.
        path: of the picture.
        references: work -> what it was held against.

    Raises:
        ValueError: nothing there acts or learns.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    last = list({m.setting: m for m in measurements}.values())
    ratios = [m for m in last if m.over_reference is not None]
    lines: dict[str, list[Measurement]] = {}
    for m in last:
        if (m.env_steps_per_second is not None or m.setting.work == "preset") and m.over_reference is None:
            lines.setdefault(f"{m.setting.label}, {m.setting.num_devices} devices", []).append(m)
    if not lines and not ratios:
        raise ValueError("there is no measurement with environment steps to plot; run throughput or scaling first")
    heights = ([5.0] if lines else []) + ([1.0 + 0.22 * len(ratios)] if ratios else [])
    figure = plt.figure(figsize=(16, sum(heights)), layout="constrained")
    # A grid of one column: each part is as wide as the picture.
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if lines:
        _draw_lines(parts.pop(0), lines, last)
    if ratios:
        _draw_ratios(parts.pop(0), ratios, references)
    first = last[0]
    figure.suptitle(f"{first.cpu_model}, {first.num_cores} cores, {first.device}, jax {first.versions['jax']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_lines(part, lines: Mapping[str, Sequence[Measurement]], measurements: Sequence[Measurement]) -> None:
    """Speed, compile seconds and memory."""
    panels = part.subplots(1, 3)
    quantities = (
        ("million environment steps per second", lambda m: (m.env_steps_per_second or math.nan) / 1e6, True),
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
    part.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")


def _draw_bounds(axes, measurements: Sequence[Measurement]) -> None:
    """What the fastest matmul of the file allows a round of each network."""
    gflops = max(m.matmul_gflops for m in measurements)
    rounds = {m.setting.hidden_sizes: m.flop_per_step for m in measurements if m.setting.work == "round"}
    for sizes, per_step in rounds.items():
        if not per_step:
            continue
        net = "-".join(map(str, sizes))
        axes.axhline(gflops * 1e3 / per_step, color="grey", linestyle="--", linewidth=0.8)
        axes.annotate(
            f"bound of a round, {net}",
            (0.01, gflops * 1e3 / per_step),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize="x-small",
        )


def _draw_ratios(part, measurements: Sequence[Measurement], references: Mapping[str, str]) -> None:
    """How many times as fast each work was as what it was held against."""
    axes = part.subplots()
    for place, m in enumerate(measurements):
        ratio = m.over_reference or 1.0
        axes.barh(place, ratio - 1, left=1.0, color="C0" if ratio >= 1 else "C1")
        axes.text(
            max(ratio, 1.0), place, f" {ratio:.2f}x {references.get(m.setting.work, '')}", va="center", fontsize="small"
        )
    sizes = [f"{m.setting.size:,}".replace(",", " ") for m in measurements]
    names = [
        f"{m.setting.label}, {size} agents, {m.setting.num_devices} devices"
        for m, size in zip(measurements, sizes, strict=True)
    ]
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.margins(x=0.2)  # for the text beside the longest bar
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast")
    axes.grid(axis="x", alpha=0.3)
