"""Files of measurements: ratios of equal settings, a refusal of all others; one file as a table."""

import dataclasses
from pathlib import Path

import pytest

from bench import __main__ as command
from bench._compare import NotComparable, table
from bench._setting import Measurement, Setting, append
from bench._table import markdown


ROUND = Setting("round", num_agents=3, num_envs=2, num_steps=5, hidden_sizes=(8,), chunk_size=2, num_devices=2)
MEASUREMENT = Measurement(
    setting=ROUND,
    flags={},
    time="2026-01-01T00:00:00+00:00",
    git_revision="f" * 40,
    machine="Linux x86_64",
    cpu_model="slide rule",
    num_cores=2,
    num_physical_cores=None,
    device="cpu",
    versions={"jax": "0.10.2"},
    machine_rate=None,
    compile_seconds=2.0,
    seconds=0.3,
    seconds_all=(0.2, 0.3, 0.4),
    env_steps_per_second=100.0,
    agent_updates_per_second=10.0,
    peak_rss_mb=300.0,
    compile_rss_mb=250.0,
    peak_device_mb=None,
    matmul_gflops=100.0,
    flop_per_step=1e6,
    share_of_bound=1e-3,
    over_reference=None,
)


def faster(m: Measurement, factor: float) -> Measurement:
    """The same work, done faster while the machine multiplied at the same speed."""
    assert m.env_steps_per_second is not None and m.share_of_bound is not None
    return dataclasses.replace(
        m,
        seconds=m.seconds / factor,
        env_steps_per_second=m.env_steps_per_second * factor,
        share_of_bound=m.share_of_bound * factor,
        over_reference=None,
        peak_rss_mb=m.peak_rss_mb / 2,
        git_revision="0" * 40,
    )


def test_ratios() -> None:
    text = table([MEASUREMENT], [faster(MEASUREMENT, 3)])
    assert text.splitlines()[1].split()[-4:] == ["3.00", "3.00", "1.00", "0.50"]
    assert f"git_revision: {MEASUREMENT.git_revision} -> {'0' * 40}" in text


def test_several_lines_of_a_setting_count_by_their_median() -> None:
    new = [faster(MEASUREMENT, factor) for factor in (1, 2, 90)]
    assert table([MEASUREMENT], new).splitlines()[1].split()[-4] == "2.00"


def test_versions_that_only_some_lines_have_are_compared() -> None:
    pairs = [dataclasses.replace(MEASUREMENT, versions={"jax": "0.10.2", "peer torch": v}) for v in ("2.12", "2.13")]
    text = table([MEASUREMENT, pairs[0]], [MEASUREMENT, pairs[1]])
    assert "peer torch: 2.12 -> 2.13" in text and "jax" not in text


def test_order_of_lines_does_not_matter() -> None:
    other = dataclasses.replace(MEASUREMENT, setting=dataclasses.replace(ROUND, num_agents=5))
    text = table([MEASUREMENT, other], [faster(other, 2), faster(MEASUREMENT, 3)])
    assert [line.split()[-4] for line in text.splitlines()[1:3]] == ["3.00", "2.00"]


@pytest.mark.parametrize(
    ("setting", "other", "differing"),
    [
        ({"num_agents": 4}, {}, "num_agents: 4 against 3"),
        ({"num_envs": 8, "num_steps": 6}, {}, "num_envs: 8 against 2, num_steps: 6 against 5"),
        ({"hidden_sizes": (8, 8)}, {}, r"hidden_sizes: \(8, 8\) against \(8,\)"),
        ({"chunk_size": None}, {}, "chunk_size: None against 2"),
        ({"num_devices": 1}, {}, "num_devices: 1 against 2"),
        ({}, {"flags": {"XLA_FLAGS": "--x"}}, "flag XLA_FLAGS: '--x' against None"),
        ({}, {"cpu_model": "abacus"}, "cpu_model: 'abacus' against"),
        ({}, {"num_cores": 64}, "num_cores: 64 against"),
    ],
)
def test_different_settings_are_refused(setting: dict, other: dict, differing: str) -> None:
    changed = dataclasses.replace(MEASUREMENT, setting=dataclasses.replace(ROUND, **setting), **other)
    with pytest.raises(NotComparable, match=f"only the second file .* {differing}"):
        table([MEASUREMENT], [changed])


def test_a_missing_setting_is_refused() -> None:
    other = dataclasses.replace(MEASUREMENT, setting=dataclasses.replace(ROUND, num_agents=4))
    with pytest.raises(NotComparable, match="only the first file has round with num_agents=4"):
        table([MEASUREMENT, other], [MEASUREMENT])
    with pytest.raises(NotComparable, match="the other file is empty"):
        table([MEASUREMENT], [])


def test_compare_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    append(files[0], MEASUREMENT)
    append(files[1], dataclasses.replace(MEASUREMENT, setting=dataclasses.replace(ROUND, num_steps=9)))
    assert command.main(["compare", *map(str, files)]) == 1
    assert "num_steps: 9 against 5" in capsys.readouterr().err
    assert command.main(["compare", str(files[0]), str(files[0])]) == 0


@pytest.mark.parametrize(
    ("days", "printed"),
    [([1], "2026-01-01;"), ([1, 4], "01-01 to 2026-01-04;"), ([4, 2, 1, 2], "01-01 to 2026-01-04;")],
)
def test_table_tells_dates_and_fewer_devices(days, printed) -> None:
    product = dataclasses.replace(
        MEASUREMENT, setting=dataclasses.replace(ROUND, work="matmul", num_devices=1), machine_rate=100.0
    )
    one = dataclasses.replace(MEASUREMENT, setting=dataclasses.replace(ROUND, num_devices=1))
    sizes = [dataclasses.replace(ROUND, num_agents=10 + day) for day in days]
    rest = [dataclasses.replace(MEASUREMENT, setting=s, time=f"2026-01-0{d}") for s, d in zip(sizes, days, strict=True)]
    text = markdown([product, one, *rest], {})
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines()[2:5]]
    assert cells == [
        ["matmul 2048", ""],
        ["round 8, 2 x 5 steps, 1 of 2 devices", "3"],
        ["round 8, 2 x 5 steps", str(10 + days[0])],
    ]
    assert printed in text
