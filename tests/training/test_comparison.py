"""Comparing runs: every number against a plain recomputation, and everything a reader has to be told."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedjax_rl.metrics import bootstrap_interval, paired_difference, unpaired_difference
from fedjax_rl.training import (
    Comparison,
    ExperimentConfig,
    Result,
    RunFolder,
    compare,
    comparison_tables,
    console,
    distinct_labels,
)
from fedjax_rl.training._comparison import FEW_SEEDS
from tests.training.runs import curves, summary, write_run


SLOW = {0: [10.0, 60, 40, 90, 100], 1: [20, 30, 60, 80, 100], 2: [10, 20, 30, 40, 45], 3: [0, 70, 80, 70, 40]}
FAST = {0: [60.0, 80, 90, 95, 99], 1: [40, 90, 95, 99, 99], 2: [30, 50, 70, 80, 90], 3: [20, 80, 90, 99, 99]}


def shown(comparison: Comparison, **options: Any) -> str:
    """The tables as text."""
    text = io.StringIO()
    for table in comparison_tables(comparison, **options):
        console(file=text).print(table)
    return text.getvalue()


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "slow", SLOW), write_run(tmp_path / "fast", FAST, steps=50, bits=3000)]


def is_picture(path: Path | None) -> bool:
    return path is not None and path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


# ---------------------------------------------------------------- the numbers


def test_last_returns_are_of_the_final_evaluation(pair: list[Path]) -> None:
    slow, fast = compare(pair).report["runs"]
    np.testing.assert_allclose(slow["return"]["of_seeds"], [101, 101, 46, 41])
    assert slow["return"]["mean"]["value"] == pytest.approx(289 / 4)
    low, high = bootstrap_interval(np.array([101.0, 101, 46, 41]))
    assert (slow["return"]["mean"]["low"], slow["return"]["mean"]["high"]) == pytest.approx((float(low), float(high)))
    assert slow["return"]["interquartile_mean"]["value"] == pytest.approx((101 + 46) / 2)
    assert slow["return"]["worst_decile"]["value"] == pytest.approx(289 / 8)
    assert (slow["round"], slow["env_steps"], slow["uplink_bits_total"]) == (10, 1000, 10_000)
    assert (fast["round"], fast["env_steps"], fast["uplink_bits_total"]) == (10, 500, 30_000)
    assert slow["seeds"] == [0, 1, 2, 3]


def test_equal_seeds_are_paired(pair: list[Path]) -> None:
    slow, fast = compare(pair).report["runs"]
    expected = paired_difference(np.array([101.0, 101, 46, 41]), np.array([100.0, 100, 91, 100]))
    assert slow["difference"] is None
    assert fast["difference"] == {"to": "slow", "paired": True, **expected._asdict()}
    assert fast["difference"]["value"] == pytest.approx((-1 - 1 + 45 + 59) / 4)


def test_other_seeds_are_independent_samples(pair: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", {seed + 1: curve for seed, curve in FAST.items()})
    difference = compare([pair[0], other]).report["runs"][1]["difference"]
    expected = unpaired_difference(np.array([101.0, 101, 46, 41]), np.array([100.0, 100, 91, 100]))
    assert difference == {"to": "slow", "paired": False, **expected._asdict()}
    assert "unpaired" in shown(compare([pair[0], other]))


def plain_times(runs: dict[int, list[float]], threshold: float, for_good: bool) -> list[float]:
    """Rounds to a threshold, one evaluation after the other."""
    times = []
    for curve in runs.values():
        time = math.inf
        for number, value in reversed(list(enumerate(curve))):
            if value >= threshold:
                time = 2.0 * (number + 1)
            elif for_good:
                break
        times.append(time)
    return times


@pytest.mark.parametrize("threshold", [0.0, 50.0, 80.0, 99.0, 500.0])
@pytest.mark.parametrize("for_good", [False, True])
def test_prices_of_a_threshold(pair: list[Path], threshold: float, for_good: bool) -> None:
    report = compare(pair, thresholds=[threshold]).report
    assert report["thresholds"] == [threshold]
    for run, written, steps, bits in zip(report["runs"], (SLOW, FAST), (100, 50), (1000, 3000), strict=True):
        found = run["thresholds"][f"{threshold:g}"]["for_good" if for_good else "first"]
        times = plain_times(written, threshold, for_good)
        assert found["reached"] == sum(map(math.isfinite, times))
        assert found["share"]["value"] == found["reached"] / 4
        for price, each in (("round", 1), ("env_steps", steps), ("uplink_bits_total", bits)):
            expected = [each * time if math.isfinite(time) else None for time in times]
            assert found[price]["of_seeds"] == expected
            # Of four seeds, half have reached it with the second of them.
            median = sorted(times)[1] * each
            assert found[price]["quantiles"]["0.5"]["value"] == (median if math.isfinite(median) else None)


def test_thresholds_are_those_of_all_runs(tmp_path: Path) -> None:
    paths = [
        write_run(
            tmp_path / str(i), SLOW, config=ExperimentConfig(name=str(i)).replace(evaluation={"success": success})
        )
        for i, success in enumerate([(50.0, 195.0), (80.0, 50.0)])
    ]
    comparison = compare(paths)
    assert comparison.report["thresholds"] == [50, 80, 195]
    for threshold in ("50", "80", "195"):
        assert f"≥ {threshold} for the first time" in shown(comparison)
        assert f"≥ {threshold} for good" in shown(comparison, for_good=True)


def test_the_tables_show_the_numbers(pair: list[Path]) -> None:
    text = shown(compare(pair, labels=["slow [a]", "fast"], thresholds=[80.0, 95.0]))
    for part in ("slow [a]", "72.2 [", "+25.5 [", "paired", "3/4 [", "4/4 [", "uplink [bit]", "∞"):
        assert part in text
    good = shown(compare(pair, thresholds=[80.0]), for_good=True)
    assert "2/4 [" in good


def test_the_report_is_strict_json(pair: list[Path]) -> None:
    report = compare(pair).report  # nobody reaches 195
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text) == report
    assert report["runs"][0]["thresholds"]["475"]["first"]["round"]["of_seeds"] == [None] * 4


def test_results_compare_like_their_folders(pair: list[Path]) -> None:
    folder, config = RunFolder.open(pair[1])
    history, final = folder.read_metrics(), folder.read_summary()
    assert final is not None
    parts: Any = {"policy": None, "params": None, "agents": [], "interrupted": False, "per_agent_models": False}
    result = Result(config=config, history=history, summary=final, folder=None, **parts)
    mixed, folders = compare([pair[0], result]).report, compare(pair).report
    assert mixed["runs"][1].pop("folder") is None
    folders["runs"][1].pop("folder")
    assert mixed == folders


# ---------------------------------------------------------------- what a reader has to know


def notes(*paths: Path) -> str:
    return " | ".join(compare(paths).report["notes"])


def test_runs_that_agree_have_no_notes(tmp_path: Path) -> None:
    many = curves(FEW_SEEDS, 100.0)
    assert notes(write_run(tmp_path / "a", many), write_run(tmp_path / "b", many)) == ""


def test_few_seeds_and_unequal_steps_are_noted(pair: list[Path]) -> None:
    said = notes(*pair)
    assert "fewer than 10 seeds: slow, fast" in said
    assert "unequal environment steps (slow: 1.0 k, fast: 500.0)" in said


def test_other_evaluations_and_worlds_are_noted(tmp_path: Path) -> None:
    config = ExperimentConfig(name="b", num_agents=7).replace(
        evaluation={"greedy": True, "final_episodes": 3}, world={"family": "cartpole_family('jin')"}
    )
    many = curves(FEW_SEEDS, 100.0)
    said = notes(write_run(tmp_path / "a", many), write_run(tmp_path / "b", many, config=config))
    assert "evaluation.greedy differs (a: False; b: True)" in said
    assert "evaluation.final_episodes differs (a: 10; b: 3)" in said
    assert "world.family differs" in said
    assert said.count(" | ") == 2


@pytest.mark.parametrize("stale", [False, True])
def test_an_unfinished_run_is_compared_by_its_last_evaluation(pair: list[Path], tmp_path: Path, stale: bool) -> None:
    """Also one that has the summary of a shorter run: it was given more rounds and stopped before them."""
    path = write_run(tmp_path / "stopped", FAST, finished=False)
    if stale:
        RunFolder(path).write_summary(summary({seed: [1000.0] for seed in FAST}, 4))
    report = compare([pair[0], path]).report
    assert report["returns_from"] == "the last evaluation while training"
    assert [run["finished"] for run in report["runs"]] == [True, False]
    np.testing.assert_allclose(report["runs"][0]["return"]["of_seeds"], [100, 100, 45, 40])
    np.testing.assert_allclose(report["runs"][1]["return"]["of_seeds"], [99, 99, 90, 99])
    assert report["runs"][1]["return"]["worst_decile"]["value"] == pytest.approx(387 / 8)
    assert any(note.startswith("not finished: stopped") for note in report["notes"])


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "a", {0: SLOW[0]}), write_run(tmp_path / "b", {0: FAST[0]})]
    comparison = compare(paths, out=tmp_path / "one.png")
    second = comparison.report["runs"][1]
    assert second["difference"] == {"to": "a", "paired": True, "value": -1.0, "low": None, "high": None}
    assert second["return"]["mean"] == {"value": 100.0, "low": None, "high": None}
    assert "a single seed has no interval: a, b" in " ".join(comparison.report["notes"])
    text = shown(comparison)
    assert "-1.0" in text
    assert "-1.0 [" not in text
    assert "100.0 [" not in text
    assert is_picture(comparison.picture)


# ---------------------------------------------------------------- the picture


def test_the_picture_goes_where_it_is_wanted(pair: list[Path], tmp_path: Path) -> None:
    assert compare(pair).picture is None
    assert compare(pair, out=tmp_path).picture == tmp_path / "compare.png"
    assert is_picture(compare(pair, out=tmp_path / "other.png").picture)


def test_the_panels_show_the_means_against_their_prices(
    pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr("fedjax_rl.training._comparison_views._save", lambda f, path: figures.append(f) or path)
    silent = write_run(tmp_path / "silent", SLOW, bits=0)
    lone = write_run(tmp_path / "lone", {0: FAST[0]}, steps=5000)
    compare([*pair, silent, lone], out=tmp_path / "a.png", thresholds=[50.0, 500.0])
    panels = figures[0].axes
    lines = [{line.get_label(): line for line in axes.get_lines()} for axes in panels]
    for panel, each in zip(lines, (2, 200, 2000), strict=True):
        np.testing.assert_allclose(panel["slow"].get_xdata(), each * np.arange(1, 6))
        np.testing.assert_allclose(panel["slow"].get_ydata(), np.mean(list(SLOW.values()), 0))
    assert ["silent" in panel for panel in lines] == [True, True, False]
    assert [axes.get_xscale() for axes in panels] == ["linear", "log", "linear"]
    # A band for each run with several seeds; the dashed line of 50, but not the one of 500, far above.
    assert [len(axes.collections) for axes in panels] == [3, 3, 2]
    levels = [line.get_ydata()[0] for line in panels[0].get_lines() if line.get_linestyle() == "--"]
    assert levels == [50.0]


def test_no_two_lines_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr("fedjax_rl.training._comparison_views._save", lambda f, path: figures.append(f) or path)
    compare([write_run(tmp_path / str(i), {0: [1.0, 2.0]}) for i in range(20)], out=tmp_path / "a.png")
    lines = figures[0].axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 20


@pytest.mark.parametrize("count", [2, 9])
def test_pictures_of_many_runs_and_of_one_evaluation(tmp_path: Path, count: int) -> None:
    paths = [write_run(tmp_path / f"run-{i}", curves(3, 10.0 + i, num_points=1)) for i in range(count)]
    assert is_picture(compare(paths, out=tmp_path / "a.png").picture)


# ---------------------------------------------------------------- labels and errors


def test_labels_tell_runs_apart() -> None:
    a, b = ExperimentConfig(name="a"), ExperimentConfig(name="b")
    assert distinct_labels([a, b], [None, None]) == ["a", "b"]
    assert distinct_labels([a, a], [Path("x/1"), Path("x/2")]) == ["1", "2"]
    assert distinct_labels([a, a], [Path("x/1"), Path("y/1")]) == ["x/1", "y/1"]
    assert distinct_labels([a, a], [Path("x/1"), Path("x/1")]) == ["x/1 (1)", "x/1 (2)"]
    assert distinct_labels([a, a], [None, Path("x")]) == ["a (1)", "a (2)"]


def test_what_cannot_be_compared_is_told(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        compare(pair[:1])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        compare([pair[0], tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no run"):
        compare([pair[0], tmp_path / "empty"])
    with pytest.raises(ValueError, match="labels must be 2 different texts"):
        compare(pair, labels=["a", "a"])
    with pytest.raises(ValueError, match="labels must be 2 different texts"):
        compare(pair, labels=["a"])
    with pytest.raises(ValueError, match="confidence must lie"):
        compare(pair, confidence=95)
    folder = RunFolder.create(tmp_path / "young", ExperimentConfig(name="young"))
    folder.append_metrics([{"seed": 0, "round": 1, "env_steps": 5, "train_return_mean": 3.0}])
    with pytest.raises(ValueError, match=r"young has no evaluation yet.*resume.*evaluation\.every"):
        compare([pair[0], folder.path])


# ---------------------------------------------------------------- further prices


def told(pair: list[Path], **field: list[float]) -> None:
    """Gives every round of the first run further fields."""
    folder = RunFolder(pair[0])
    rows = folder.read_metrics()
    folder.metrics_file.unlink()
    folder.append_metrics(row | {name: values[row["round"] - 1] for name, values in field.items()} for row in rows)


def test_fields_are_prices_totals_and_means(pair: list[Path]) -> None:
    sent = [3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    told(pair, messages_delivered=sent, silent_share=[0.1 * i for i in range(10)])
    told_too = {"totals": ["messages_delivered"], "means": ["silent_share"]}
    comparison = compare(pair, thresholds=[60.0], prices=["messages_delivered"], **told_too)
    slow, fast = comparison.report["runs"]
    assert comparison.report["prices"][-1] == "messages_delivered_total"
    assert (slow["messages_delivered_total"], fast["messages_delivered_total"]) == (sum(sent), 0)
    reached = slow["thresholds"]["60"]["first"]["messages_delivered_total"]["of_seeds"]
    assert reached == [sum(sent[:4]), sum(sent[:6]), None, sum(sent[:4])]
    assert slow["means"]["silent_share"]["value"] == pytest.approx(0.45)
    assert slow["totals"]["messages_delivered"]["value"] == sum(sent)
    assert fast["means"]["silent_share"] is fast["totals"]["messages_delivered"] is None
    text = shown(comparison)
    for part in ("messages delivered", "silent share", "0.450"):
        assert part in text


def test_returns_at_equal_prices_lie_on_the_curves(pair: list[Path]) -> None:
    report = compare(pair).report
    assert report["equal_prices"] == {"round": 10, "env_steps": 500, "uplink_bits_total": 10_000}
    slow, fast = (run["at_equal"] for run in report["runs"])
    # 500 steps are half of the slow run: between its evaluations after 4 and 6 rounds.
    assert slow["env_steps"]["value"] == pytest.approx(np.mean([(c[1] + c[2]) / 2 for c in SLOW.values()]))
    assert fast["env_steps"]["value"] == pytest.approx(np.mean([c[-1] for c in FAST.values()]))
    # 10 000 bits are a third of the fast run: between those after 2 and 4 rounds.
    assert fast["uplink_bits_total"]["value"] == pytest.approx(
        np.mean([c[0] / 3 + c[1] * 2 / 3 for c in FAST.values()])
    )


def test_a_price_before_the_first_evaluation_has_no_return(pair: list[Path], tmp_path: Path) -> None:
    short = write_run(tmp_path / "short", {seed: [1.0] for seed in SLOW}, steps=1)
    assert compare([pair[0], short]).report["runs"][0]["at_equal"]["env_steps"] is None


def test_steps_are_shared_among_agents_where_their_numbers_differ(pair: list[Path], tmp_path: Path) -> None:
    four = write_run(tmp_path / "four", FAST, config=ExperimentConfig(name="four", num_agents=4))
    assert "env_steps_per_agent" not in compare(pair).report["prices"]
    comparison = compare([pair[0], four], out=tmp_path / "a.png", thresholds=[60.0])
    assert [run["env_steps_per_agent"] for run in comparison.report["runs"]] == [10, 250]
    headings = [str(column.header) for table in comparison_tables(comparison) for column in table.columns]
    assert "environment steps per agent" in headings
    assert is_picture(comparison.picture)


def test_what_cannot_be_added_up_is_told(pair: list[Path], tmp_path: Path) -> None:
    for option in ("prices", "totals", "means"):
        with pytest.raises(ValueError, match="no run has a field 'letters'; there are downlink_bits"):
            compare(pair, **{option: ["letters"]})
    config = ExperimentConfig(name="sparse").replace(logging={"every": 2})
    sparse = write_run(tmp_path / "sparse", SLOW, config=config)
    with pytest.raises(ValueError, match=r"every round, but sparse has logging\.every = 2"):
        compare([pair[0], sparse], prices=["uplink_bits"])
