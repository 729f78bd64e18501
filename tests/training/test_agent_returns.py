"""Learning curves of single agents: what is recorded, that a resumed run records the same, and their picture."""

from pathlib import Path

import numpy as np
import pytest

from fedjax_rl.training import Result, RunFolder, plot_agent_curves, resume, train
from tests.training.examples import TINY


CONFIG = TINY.replace(evaluation={"every": 2, "per_agent_every": 2, "episodes": 9, "max_agents": 3})


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(CONFIG, out=tmp_path_factory.mktemp("runs") / "a", progress=False)


def test_the_agents_are_those_of_the_evaluation(run: Result) -> None:
    assert run.folder is not None
    rows = RunFolder(run.folder).read_agent_returns()
    assert rows == run.agent_returns
    assert [row["round"] for row in rows] == [4, 8, 9]  # every other evaluation, and the last
    history = {row["round"]: row for row in run.history}
    for row in rows:
        assert row["agents"] == [0, 1, 3]  # three of five, evenly strided
        assert row["episodes_each"] == 3
        logged = history[row["round"]]
        assert np.mean(row["return_mean"]) == pytest.approx(logged["return_mean"], rel=1e-6)
        assert min(row["return_mean"]) == pytest.approx(logged["return_min"], rel=1e-6)
        assert [row[name] for name in ("seed", "env_steps", "uplink_bits_total")] == [
            logged[name] for name in ("seed", "env_steps", "uplink_bits_total")
        ]
    assert is_picture(run.folder / "agents_curves.png")


def test_nothing_is_recorded_unasked(tmp_path: Path) -> None:
    result = train(TINY.replace(num_rounds=1), out=tmp_path, progress=False)
    assert result.agent_returns == []
    assert not {"agents.jsonl", "agents_curves.png"} & {path.name for path in tmp_path.iterdir()}


def test_recording_changes_nothing_else(run: Result) -> None:
    silent = train(CONFIG.replace(evaluation={"per_agent_every": 0}), progress=False)
    times = {"seconds"}
    for mine, theirs in zip(run.history, silent.history, strict=True):
        assert {k: v for k, v in mine.items() if k not in times} == {k: v for k, v in theirs.items() if k not in times}


def test_a_crashed_and_resumed_run_has_the_same_agents(run: Result, tmp_path: Path) -> None:
    """The crash comes after the evaluation of round 8 is on the disk, and before a checkpoint knows of it."""
    config = CONFIG.replace(checkpoint={"every_rounds": 7})

    def crash(row: dict) -> None:
        if row["round"] == 8:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(config, out=tmp_path, progress=False, on_round=crash)
    folder = RunFolder(tmp_path)
    assert [row["round"] for row in folder.read_agent_returns()] == [4, 8]
    with folder.agent_returns_file.open("a") as file:
        file.write('{"seed": 3, "round": 9, "env')
    resumed = resume(tmp_path, progress=False)
    assert folder.read_agent_returns() == resumed.agent_returns == run.agent_returns
    assert [row["uplink_bits_total"] for row in resumed.history] == [row["uplink_bits_total"] for row in run.history]


def test_bits_of_rounds_without_a_line_count_after_a_resume_too(run: Result, tmp_path: Path) -> None:
    config = CONFIG.replace(logging={"every": 5}, evaluation={"every": 0}, checkpoint={"every_rounds": 4})

    def crash(row: dict) -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):  # at round 5, the first with a line
        train(config, out=tmp_path, progress=False, on_round=crash)
    resumed = resume(tmp_path, progress=False)
    assert {row["round"]: row["uplink_bits_total"] for row in resumed.history} == {
        row["round"]: row["uplink_bits_total"] for row in run.history if row["round"] in (5, 9)
    }


def rows(num_agents: int, num_seeds: int = 1, num_points: int = 6) -> list[dict]:
    return [
        {
            "seed": seed, "round": 2 * r, "env_steps": r, "uplink_bits_total": r, "episodes_each": 3,
            "agents": list(range(num_agents)), "return_mean": [10.0 * r + i for i in range(num_agents)],
        }
        for r in range(1, num_points + 1) for seed in range(num_seeds)
    ]  # fmt: skip


@pytest.mark.parametrize(("num_agents", "num_seeds", "num_points"), [(1, 1, 1), (5, 3, 6), (1000, 2, 50)])
def test_pictures_of_curves(tmp_path: Path, num_agents: int, num_seeds: int, num_points: int) -> None:
    path = plot_agent_curves(rows(num_agents, num_seeds, num_points), tmp_path / "a.png", title="title")
    assert is_picture(path)


def test_quantiles_and_lines_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr("fedjax_rl.training._plots._save", lambda figure, path: figures.append(figure) or path)
    plot_agent_curves(rows(11, num_seeds=2), tmp_path / "a.png")  # 22 agents: no lines of single ones
    plot_agent_curves(rows(11), tmp_path / "b.png")
    many, few = ({line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()} for figure in figures)
    assert len(figures[0].axes[0].get_lines()) == 2
    assert len(figures[1].axes[0].get_lines()) == 2 + 11
    for lines in (many, few):
        np.testing.assert_allclose(lines["worst agent"], 10.0 * np.arange(1, 7))
        np.testing.assert_allclose(lines["median agent"], 10.0 * np.arange(1, 7) + 5)
    bands = [np.ptp(c.get_paths()[0].vertices[:, 1][np.isclose(c.get_paths()[0].vertices[:, 0], 2)])
             for c in figures[1].axes[0].collections]  # fmt: skip
    np.testing.assert_allclose(bands, [10, 8])  # all agents; 10th to 90th percentile


def test_nothing_recorded_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="per-agent-every 1"):
        plot_agent_curves([], tmp_path / "a.png")
