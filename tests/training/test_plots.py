"""The pictures: what the curves are, and that every kind of run gives one."""

from pathlib import Path

import numpy as np
import pytest

from fedjax_rl.metrics import bootstrap_interval
from fedjax_rl.training import plot_agents, plot_returns
from fedjax_rl.training._plots import curve, varying_columns


def rows(num_seeds: int = 1, every: int = 2) -> list[dict]:
    return [
        {
            "seed": seed, "round": r, "env_steps": 100 * r, "episodes": r, "train_return_mean": None if r == 1 else r,
            "return_mean": 10.0 * r + seed if r % every == 0 else None, "return_p10": 5.0, "return_p90": 99.0,
        }
        for r in range(1, 7) for seed in range(num_seeds)
    ]  # fmt: skip


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


def test_one_seed_shows_the_spread_of_its_episodes() -> None:
    line = curve(rows())
    assert line is not None
    np.testing.assert_array_equal(line.x, [2, 4, 6])
    np.testing.assert_array_equal(line.mean, [20, 40, 60])
    np.testing.assert_array_equal(line.low, [5, 5, 5])
    np.testing.assert_array_equal(line.high, [99, 99, 99])


def test_several_seeds_show_the_interval_of_their_mean() -> None:
    line = curve(rows(num_seeds=4), x="env_steps")
    assert line is not None
    np.testing.assert_array_equal(line.x, [200, 400, 600])
    np.testing.assert_allclose(line.mean, [21.5, 41.5, 61.5])
    low, high = bootstrap_interval(np.array([20.0, 21, 22, 23]))
    np.testing.assert_allclose([line.low[0], line.high[0]], [low, high])
    assert (line.low >= line.mean - 1.5).all()
    assert (line.low < line.mean).all()
    assert (line.high > line.mean).all()
    assert (line.high <= line.mean + 1.5).all()
    assert "4 seeds" in line.meaning


def test_a_field_without_values_has_no_curve() -> None:
    assert curve(rows(), "drift") is None
    training = curve(rows(), "train_return_mean")
    assert training is not None
    np.testing.assert_array_equal(training.x, [2, 3, 4, 5, 6])


@pytest.mark.parametrize("runs", [1, 3, 9])
def test_learning_curves(tmp_path: Path, runs: int) -> None:
    labelled = [(f"run {i}", rows(num_seeds=1 + i % 2)) for i in range(runs)]
    assert is_picture(plot_returns(labelled, tmp_path / "returns.png", title="title"))


def test_one_evaluation_and_no_evaluation_are_pictures_too(tmp_path: Path) -> None:
    assert is_picture(plot_returns([("a", rows(every=6))], tmp_path / "1.png"))
    assert is_picture(plot_returns([("a", rows(every=7))], tmp_path / "2.png"))
    with pytest.raises(ValueError, match="no return to plot"):
        plot_returns([("a", rows(every=7)[:1])], tmp_path / "3.png")
    assert not (tmp_path / "3.png").exists()


def agents(num_agents: int, *varying: str) -> list[dict]:
    return [
        {"seed": 0, "split": "unseen" if i % 4 == 0 else "training", "agent": i, "gravity": 9.8, "half_length": 0.5,
         "masspole": 0.1, "return_mean": float(i % 7)} | dict.fromkeys(varying, i / num_agents)
        for i in range(num_agents)
    ]  # fmt: skip


def test_the_physics_that_varies() -> None:
    assert varying_columns(agents(5, "masspole", "gravity")) == ["gravity", "masspole"]
    assert varying_columns(agents(5)) == []


@pytest.mark.parametrize("varying", [(), ("gravity",), ("gravity", "masspole", "half_length", "tau", "force_mag")])
@pytest.mark.parametrize("num_agents", [1, 5, 2000])
def test_pictures_of_the_agents(tmp_path: Path, varying: tuple[str, ...], num_agents: int) -> None:
    assert is_picture(plot_agents(agents(num_agents, *varying), tmp_path / "agents.png", title="title"))


def test_a_table_read_back_gives_the_same_picture(tmp_path: Path) -> None:
    """agents.csv holds texts, and empty cells for agents that were not evaluated."""
    texts = [{name: str(value) for name, value in row.items()} for row in agents(20, "gravity")]
    first = plot_agents(agents(20, "gravity"), tmp_path / "1.png").read_bytes()
    assert plot_agents(texts, tmp_path / "2.png").read_bytes() == first
    assert is_picture(plot_agents([*texts, {**texts[0], "return_mean": ""}], tmp_path / "3.png"))


def test_the_plotting_backend_of_a_notebook_is_left_alone(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = mpl.get_backend()
    plot_returns([("a", rows())], tmp_path / "a.png")
    assert mpl.get_backend() == before
