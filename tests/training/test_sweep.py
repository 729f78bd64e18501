"""Sweeps: which points there are, that sharing a program changes nothing, and that they can be stopped."""

import csv
from pathlib import Path
from typing import Any

import pytest

from fedjax_rl.training import (
    ExperimentConfig,
    RunFolder,
    _session,
    _sweep,
    evaluate_run,
    read_over,
    resume,
    sweep,
    train,
)
from fedjax_rl.training._grid import points
from tests.training.examples import TINY


RATE = "learner.optimizer.learning_rate"
CONFIG = TINY.replace(num_seeds=2, learner={"optimizer": "adam(learning_rate=0.001)"})


def lines(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in RunFolder(path).read_metrics()]


# ---------------------------------------------------------------- the grid


def test_the_last_key_varies_fastest() -> None:
    found = points(CONFIG, {RATE: [0.1, 0.2], "round.aggregator": ["mean()", "median()"]})
    assert [p.label for p in found] == [
        "000-learning_rate=0.1,aggregator=mean",
        "001-learning_rate=0.1,aggregator=median",
        "002-learning_rate=0.2,aggregator=mean",
        "003-learning_rate=0.2,aggregator=median",
    ]
    assert found[2].config.learner.optimizer == "adam(learning_rate=0.2)"
    assert found[1].config.round.aggregator == "median()"
    assert found[1].values == {RATE: 0.1, "round.aggregator": "median()"}


def test_integers_among_numbers_need_no_program_of_their_own() -> None:
    assert [p.config.learner.optimizer for p in points(CONFIG, {RATE: [1, 0.5]})] == [
        "adam(learning_rate=1.0)",
        "adam(learning_rate=0.5)",
    ]
    assert [p.config.num_agents for p in points(CONFIG, {"num_agents": [1, 2]})] == [1, 2]
    assert points(CONFIG, {"learner.measure_kl": [True, False]})[0].values == {"learner.measure_kl": True}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("round.transforms.1.bits", 4, ("clip(1.0)", "quantize(bits=4)")),
        ("round.transforms.0.0", 2.5, ("clip(2.5)", "quantize(bits=8)")),
        ("round.transforms.0", "dropout(0.5)", ("dropout(0.5)", "quantize(bits=8)")),
        ("round.transforms", ["clip(3.0)"], ("clip(3.0)",)),
    ],
)
def test_a_key_leads_into_expressions(key: str, value: Any, expected: tuple[str, ...]) -> None:
    config = CONFIG.replace(round={"transforms": ("clip(1.0)", "quantize(bits=8)")})
    (point,) = points(config, {key: [value]})
    assert point.config.round.transforms == expected


def test_arguments_are_added_and_nested_ones_found() -> None:
    config = CONFIG.replace(learner={"optimizer": "chain(clip_by_global_norm(1.0), adam(0.1))"})
    (point,) = points(config, {"learner.optimizer.0.0": [2.0]})
    assert point.config.learner.optimizer == "chain(clip_by_global_norm(2.0), adam(0.1))"
    (point,) = points(config, {"learner.optimizer.1.b1": [0.5]})
    assert point.config.learner.optimizer == "chain(clip_by_global_norm(1.0), adam(0.1, b1=0.5))"
    (point,) = points(CONFIG.replace(learner={"objective": "ppo"}), {"learner.objective.clip": [0.3]})
    assert point.config.learner.objective == "ppo(clip=0.3)"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({}, "over must name at least one key"),
        ({RATE: 0.1}, "must have a list of values, got 0.1"),
        ({RATE: []}, "must have a list of values"),
        ({"learner.optimiser": ["sgd(0.1)"]}, "there is no field 'optimiser'"),
        ({"round.transforms.2.bits": [1]}, "'2' must be the number of one of 0 entries"),
        ({"learner.num_epochs.x": [1]}, "2 has nothing inside"),
        ({"learner.optimizer.inner.x": [1]}, "has no argument inner"),
        ({"num_agents": [0]}, "num_agents must be at least 1"),
    ],
)
def test_a_key_that_leads_nowhere_is_refused(over: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        points(CONFIG, over)


@pytest.mark.parametrize("text", ["a", "a=1", "a=[", "a=[1"])
def test_a_bad_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--over must be KEY"):
        read_over([text])


def test_lists_are_read_as_toml() -> None:
    assert read_over(["a.b=[1, 2.5]", 'c=["x=1"]']) == {"a.b": [1, 2.5], "c": ["x=1"]}
    with pytest.raises(ValueError, match="names a twice"):
        read_over(["a=[1]", "a=[2]"])


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two learning rates and two aggregators: two programs."""
    over = {RATE: [0.001, 0.1], "round.aggregator": ["mean()", "median()"]}
    return sweep(CONFIG, over, out=tmp_path_factory.mktemp("sweeps") / "s", progress=False)


def test_points_that_differ_in_numbers_share_a_program(swept: Any) -> None:
    assert swept.num_programs == 2
    assert not swept.interrupted
    assert [row[RATE] for row in swept.rows] == [0.001, 0.001, 0.1, 0.1]
    assert all(row["return_low"] <= row["return_mean"] <= row["return_high"] for row in swept.rows)
    assert swept.best["return_mean"] == max(row["return_mean"] for row in swept.rows)


def test_a_point_equals_a_run_of_its_own(swept: Any, tmp_path: Path) -> None:
    config = CONFIG.replace(learner={"optimizer": "adam(learning_rate=0.1)"})
    alone = train(config, out=tmp_path / "alone", progress=False)
    point = Path(swept.rows[2]["folder"])
    assert lines(point) == lines(tmp_path / "alone")
    summary = RunFolder(point).read_summary()
    assert summary is not None and summary["training_agents"] == alone.summary["training_agents"]
    assert swept.rows[2]["return_mean"] == pytest.approx(alone.summary["training_agents"]["return_mean"])


def test_what_a_sweep_leaves(swept: Any) -> None:
    assert {path.name for path in swept.folder.iterdir()} == {
        *(Path(row["folder"]).name for row in swept.rows), "checkpoints", "sweep.csv", "sweep.png",
    }  # fmt: skip
    with (swept.folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["return_mean"]) for row in rows] == [row["return_mean"] for row in swept.rows]
    point = Path(swept.rows[3]["folder"])
    assert evaluate_run(point, num_episodes=5)["rounds"] == CONFIG.num_rounds
    longer = resume(point, num_rounds=CONFIG.num_rounds + 1, progress=False)
    assert longer.history[-1]["round"] == CONFIG.num_rounds + 1


def test_a_stopped_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = {RATE: [0.001, 0.1]}
    monkeypatch.setattr(_session, "_CHUNK_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(_sweep, "GracefulStop", _StopsAtOnce)
        stopped = sweep(CONFIG, over, out=tmp_path / "s", progress=False)
    assert stopped.interrupted and stopped.rows[0]["return_mean"] is None
    with pytest.raises(ValueError, match="no point is finished"):
        _ = stopped.best
    resumed = sweep(CONFIG, over, out=tmp_path / "s", progress=False, resume=True)
    whole = sweep(CONFIG, over, progress=False)
    assert [row["return_mean"] for row in resumed.rows] == [row["return_mean"] for row in whole.rows]
    again = sweep(CONFIG, over, out=tmp_path / "s", progress=False, resume=True)
    assert again.num_programs == 0  # everything is there already
    assert again.rows == resumed.rows
    with pytest.raises(ValueError, match="already holds a run"):
        sweep(CONFIG, over, out=tmp_path / "s", progress=False)
    with pytest.raises(ValueError, match="cannot go on with another configuration"):
        sweep(CONFIG.replace(seed=9), over, out=tmp_path / "s", progress=False, resume=True)
    for other in ({RATE: [0.001, 0.5]}, {RATE: [0.1, 0.001]}, {RATE: [0.001, 0.1, 0.5]}):
        with pytest.raises(ValueError, match="cannot go on with another grid"):
            sweep(CONFIG, other, out=tmp_path / "s", progress=False, resume=True)


def test_an_earlier_grid_leaves_nothing_behind(tmp_path: Path) -> None:
    config = CONFIG.replace(num_seeds=1, num_rounds=2)
    sweep(config, {RATE: [0.001, 0.01]}, out=tmp_path / "s", progress=False)
    second = sweep(config, {RATE: [0.3, 0.4]}, out=tmp_path / "s", progress=False)
    alone = sweep(config, {RATE: [0.3, 0.4]}, progress=False)
    assert [row["return_mean"] for row in second.rows] == [row["return_mean"] for row in alone.rows]
    resumed = sweep(config, {RATE: [0.3, 0.4]}, out=tmp_path / "s", progress=False, resume=True)
    assert resumed.num_programs == 0 and resumed.rows == second.rows


class _StopsAtOnce(_sweep.GracefulStop):
    """Somebody presses Ctrl-C after the first look."""

    looks = 0

    @property
    def requested(self) -> bool:
        type(self).looks += 1
        return type(self).looks > 2

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def test_what_does_not_fit_together_follows_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace(num_seeds=1, num_rounds=2)
    over = {RATE: [0.001, 0.01, 0.1, 1.0]}
    together = sweep(config, over, progress=False)
    monkeypatch.setattr(_sweep, "_MEMORY", 2.5 * _bytes_each(config) / _sweep.memory_bytes(None))
    apart = sweep(config, over, progress=False)
    assert apart.num_programs == 1  # of two rows each
    assert [row["return_mean"] for row in apart.rows] == [row["return_mean"] for row in together.rows]


def test_the_number_of_devices_changes_nothing() -> None:
    # Three points with two seeds each, on four devices: rows need not divide.
    config = CONFIG.replace(num_rounds=2)
    over = {RATE: [0.001, 0.01, 0.1]}
    alone, spread = (sweep(config.replace(devices=n), over, progress=False) for n in (1, 4))
    assert spread.num_programs == alone.num_programs == 1
    assert spread.rows == alone.rows  # each row is computed on one device, so to the bit


def test_a_point_whose_agents_do_not_divide_by_the_devices_goes_on_alone(tmp_path: Path) -> None:
    config = CONFIG.replace(num_rounds=1, num_seeds=1, devices=4)
    (row,) = sweep(config, {RATE: [0.001]}, out=tmp_path, progress=False).rows
    assert resume(row["folder"], num_rounds=2, progress=False).history[-1]["round"] == 2


@pytest.mark.parametrize(
    ("count", "most", "size"), [(16, 16, 16), (16, 100, 16), (16, 6, 4), (4, 2, 2), (6, 4, 3), (7, 3, 3), (5, 1, 1)]
)
def test_parts_are_of_one_size_where_they_can_be(count: int, most: int, size: int) -> None:
    assert _sweep._even_part(count, most) == size


def _bytes_each(config: ExperimentConfig) -> int:
    import jax

    from fedjax_rl.core import tree
    from fedjax_rl.training import build

    return tree.num_bits(jax.eval_shape(build(config).round.init, jax.random.key(0))) // 8
