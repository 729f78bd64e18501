"""A file of measurements as a table in Markdown, for docs/performance.md."""

from collections.abc import Mapping, Sequence

from ._setting import Measurement


def markdown(measurements: Sequence[Measurement], references: Mapping[str, str]) -> str:
    """One row per setting, the last measurement of it, and below it where and with what they were taken.

    Args:
        measurements: of one machine.
        references: work -> what it was held against.
    """
    last = {m.setting: m for m in measurements}
    usual = max(setting.num_devices for setting in last)
    rows = [
        ("work", "agents", "M env steps/s", "of the bound", "against", "compile [s]", "seconds a round", "peak [MB]")
    ]
    for m in last.values():
        label, size = m.setting.label, f"{m.setting.size:,}".replace(",", " ")
        if not m.setting.unit and m.setting.num_devices < usual:
            label += f", {m.setting.num_devices} of {usual} devices"
        speed = "" if m.env_steps_per_second is None else f"{m.env_steps_per_second / 1e6:.2f}"
        if m.machine_rate is not None:
            speed = f"{m.machine_rate:.0f} {m.setting.unit}"
        against = "" if m.over_reference is None else f"{m.over_reference:.2f}x {references.get(m.setting.work, '')}"
        rows.append(
            (
                label,
                "" if m.setting.unit else size,
                speed,
                "" if m.share_of_bound is None else f"{m.share_of_bound:.0%}",
                against.strip(),
                f"{m.compile_seconds:.1f}" if m.compile_seconds else "",  # not known of other processes
                f"{m.seconds / m.setting.rounds_per_call:.3g}",
                f"{m.peak_rss_mb:.0f}",
            )
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join([*lines, "", _conditions(list(last.values()))])


def _conditions(measurements: Sequence[Measurement]) -> str:
    """Machine, versions, dates and the matmul of the same processes."""
    first = measurements[0]
    gflops = sorted(m.matmul_gflops for m in measurements if m.setting.matmul_size >= 2048) or [0.0]
    days = [m.time[:10] for m in measurements]
    dates = " to ".join(dict.fromkeys([min(days), max(days)]))
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    cores = f"{first.num_cores} logical of {first.num_physical_cores} physical cores"
    return (
        f"{first.cpu_model}, {cores}, {first.device}; {versions}; {dates}; matrix products of the "
        f"same processes: {gflops[0]:.0f} to {gflops[-1]:.0f} GFLOP/s, median {gflops[len(gflops) // 2]:.0f}."
    )
