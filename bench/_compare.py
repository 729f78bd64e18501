"""Ratios of two files of measurements, of equal settings only."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from ._setting import Measurement


class NotComparable(ValueError):
    """The two files were measured under different settings or on different machines."""


def conditions(measurement: Measurement) -> dict[str, Any]:
    """What must agree: the setting, the flags, and where it ran."""
    where = ("machine", "cpu_model", "num_cores", "device")
    flags = {f"flag {name}": value for name, value in measurement.flags.items()}
    return dataclasses.asdict(measurement.setting) | flags | {name: getattr(measurement, name) for name in where}


def pair_up(
    old: Sequence[Measurement], new: Sequence[Measurement]
) -> list[tuple[list[Measurement], list[Measurement]]]:
    """Groups the lines of two files by their conditions; a file may hold several lines of the same.

    Raises:
        NotComparable: one has conditions the other lacks; the text lists what differs.
    """
    groups = [_grouped(old), _grouped(new)]
    complaints = []
    for mine, other, name in ((*groups, "first"), (*groups[::-1], "second")):
        for key in mine.keys() - other.keys():
            complaints.append(_complaint(conditions(mine[key][0]), other, name))
    if complaints:
        raise NotComparable("the runs differ in their settings:\n" + "\n".join(sorted(complaints)))
    return [(lines, groups[1][key]) for key, lines in groups[0].items()]


def table(old: Sequence[Measurement], new: Sequence[Measurement]) -> str:
    """Second over first: speed, compilation, memory, and speed relative to the matmul of the same run.

    Raises:
        NotComparable: see `pair_up`.
    """
    rows: list[tuple[str, ...]] = [("work", "size", "devices", "speed", "of the bound", "compile", "memory")]
    for before, after in pair_up(old, new):
        setting = before[0].setting
        ratios = [_ratio(before, after, name) for name in ("speed", "share_of_bound", "compile_seconds", "peak_rss_mb")]
        rows.append((setting.label, str(setting.size), str(setting.num_devices), *ratios))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_notes(old, new)])


def _grouped(measurements: Sequence[Measurement]) -> dict[tuple, list[Measurement]]:
    groups: dict[tuple, list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault(tuple(sorted(conditions(measurement).items(), key=lambda item: item[0])), []).append(
            measurement
        )
    return groups


def _complaint(mine: dict[str, Any], other: dict[tuple, list[Measurement]], name: str) -> str:
    """What the nearest of the other file's conditions differ in."""
    best: dict[str, tuple[Any, Any]] | None = None
    for key in other:
        theirs = dict(key)
        names = mine.keys() | theirs.keys()
        differing = {n: (mine.get(n), theirs.get(n)) for n in names if mine.get(n) != theirs.get(n)}
        if best is None or len(differing) < len(best):
            best = differing
    what = (
        f"  only the {name} file has {mine['work']} with num_agents={mine['num_agents']}, num_envs={mine['num_envs']}"
    )
    if best is None:
        return f"{what}; the other file is empty"
    details = ", ".join(f"{n}: {best[n][0]!r} against {best[n][1]!r}" for n in sorted(best))
    return f"{what}; the nearest of the other differs in {details}"


def _value(measurement: Measurement, name: str) -> float | None:
    if name == "speed":
        return 1 / measurement.seconds
    return getattr(measurement, name)


def _ratio(old: Sequence[Measurement], new: Sequence[Measurement], name: str) -> str:
    medians = []
    for measurements in (old, new):
        values = [value for value in (_value(m, name) for m in measurements) if value is not None]
        if not values:
            return "-"
        medians.append(statistics.median(values))
    return f"{medians[1] / medians[0]:.2f}"


def _notes(old: Sequence[Measurement], new: Sequence[Measurement]) -> list[str]:
    """What may explain a ratio: revisions and versions."""
    notes = []
    everything = [[{"git_revision": m.git_revision} | m.versions for m in measurements] for measurements in (old, new)]
    for name in ("git_revision", *sorted({name for m in old for name in m.versions})):
        seen = [sorted({of[name] for of in versions if name in of}) for versions in everything]
        if seen[0] != seen[1]:
            notes.append(f"{name}: {', '.join(seen[0])} -> {', '.join(seen[1])}")
    return notes
