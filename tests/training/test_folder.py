"""The run folder: who may write to it, strict and atomic files, and damage that is noticed."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.training import ExperimentConfig, RunFolder
from fedjax_rl.training._folder import METRIC_FIELDS, plain, write_atomically


CONFIG = ExperimentConfig(name="x")


def rows(*rounds: int) -> list[dict]:
    return [{"seed": 0, "round": r, "env_steps": 10 * r, "drift": 0.5} for r in rounds]


def test_a_new_folder_holds_the_configuration(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "b", CONFIG)
    again, config = RunFolder.open(folder.path)
    assert config == CONFIG
    assert again.path == folder.path
    assert again.read_metrics() == []
    assert again.read_summary() is None
    assert again.read_agents() == []


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).append_metrics(rows(1))
    with pytest.raises(ValueError, match=r"already holds a run.*resume.*--overwrite"):
        RunFolder.create(tmp_path, CONFIG)
    assert len(RunFolder(tmp_path).read_metrics()) == 1


def test_overwriting_removes_the_files_of_the_run_only(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, CONFIG)
    folder.append_metrics(rows(1))
    folder.write_summary({"a": 1})
    (folder.checkpoints / "5").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "policy-seed0.npz").touch()
    folder = RunFolder.create(tmp_path, CONFIG.replace(seed=3), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "metrics.jsonl", "notes.txt"]
    assert folder.read_metrics() == []
    assert RunFolder.open(tmp_path)[1].seed == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "config.toml").write_text("theirs")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        RunFolder.create(tmp_path, CONFIG, overwrite=overwrite)
    assert (tmp_path / "config.toml").read_text() == "theirs"
    with pytest.raises(ValueError, match="is a file, not a folder"):
        RunFolder.create(tmp_path / "config.toml", CONFIG, overwrite=overwrite)


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no run"):
        RunFolder.open(tmp_path)


def test_metrics_are_strict_json_with_every_field(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, CONFIG)
    folder.append_metrics(
        [
            {
                "round": 1,
                "drift": jnp.float32(0.1),
                "entropy": np.nan,
                "policy_loss": np.float64(-np.inf),
                "episodes": 2**60,
            }
        ]
    )
    text = folder.metrics_file.read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON"))
    assert list(row) == [*METRIC_FIELDS, "policy_loss"]
    assert row["drift"] == 0.1  # the shortest decimal of the float32, not 0.10000000149011612
    assert (row["entropy"], row["policy_loss"], row["return_mean"], row["episodes"]) == (None, None, None, 2**60)


def test_metrics_are_cut_to_a_round(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, CONFIG)
    folder.append_metrics(rows(1, 2))
    folder.append_metrics(rows(3, 4))
    assert [row["round"] for row in folder.cut(3)[0]] == [1, 2, 3]
    assert [row["round"] for row in folder.read_metrics()] == [1, 2, 3]


def agent_rows(*rounds: int) -> list[dict]:
    row = {"seed": 0, "env_steps": 9, "uplink_bits_total": 8, "episodes_each": 2, "agents": [0, 3]}
    return [row | {"round": r, "return_mean": [1.5, np.float32(0.1)]} for r in rounds]


def test_returns_of_agents_are_cut_with_the_metrics(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, CONFIG)
    assert folder.read_agent_returns() == []
    assert folder.cut(5) == ([], [])
    assert not folder.agent_returns_file.exists()
    folder.append_metrics(rows(1, 2, 3))
    folder.append_agent_returns(agent_rows(2))
    folder.append_agent_returns(agent_rows(3))
    assert folder.read_agent_returns()[0]["return_mean"] == [1.5, 0.1]
    with folder.agent_returns_file.open("a") as file:
        file.write('{"seed": 0, "rou')
    metrics, agents = folder.cut(2)
    assert ([row["round"] for row in metrics], [row["round"] for row in agents]) == ([1, 2], [2])
    assert folder.read_agent_returns() == agents
    folder.agent_returns_file.write_text("nonsense\n")
    with pytest.raises(ValueError, match=r"agents\.jsonl, line 1"):
        folder.read_agent_returns()
    RunFolder.create(tmp_path, CONFIG, overwrite=True)
    assert not folder.agent_returns_file.exists()


def test_totals_are_filled_in_where_a_run_is_older_than_them(tmp_path: Path) -> None:
    """Each line's bits stand for the rounds since the line before; a total that was counted is left alone."""
    folder = RunFolder.create(tmp_path, CONFIG)
    lines = [
        {"seed": 0, "round": 2, "uplink_bits": 10.0},
        {"seed": 1, "round": 2, "uplink_bits": 100.0},
        {"seed": 0, "round": 5, "uplink_bits": 20.0},
        {"seed": 1, "round": 5, "uplink_bits": 100.0, "uplink_bits_total": 777},
        {"seed": 1, "round": 6, "uplink_bits": 3.0},
    ]
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row["uplink_bits_total"] for row in folder.read_metrics()] == [20, 200, 80, 777, 780]


def test_a_torn_last_line_is_left_out_and_other_damage_is_told(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, CONFIG)
    folder.append_metrics(rows(1, 2))
    with folder.metrics_file.open("a") as file:
        file.write('{"round": 3, "dri')
    assert [row["round"] for row in folder.read_metrics()] == [1, 2]
    assert len(folder.cut(9)[0]) == 2
    folder.append_metrics(rows(3))  # goes on in a line of its own
    assert [row["round"] for row in folder.read_metrics()] == [1, 2, 3]
    folder.metrics_file.write_text('{"round": 1}\nnonsense\n{"round": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        folder.read_metrics()


def test_a_failed_append_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path, CONFIG)
    folder.append_metrics(rows(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.append_metrics(rows(2))
    assert [row["round"] for row in folder.read_metrics()] == [1]
    with pytest.raises(OSError, match="No space left"):
        write_atomically(folder.config_file, lambda file: file.write("half"))
    assert RunFolder.open(tmp_path)[1] == CONFIG
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "metrics.jsonl"]


def test_agents_are_a_table(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, CONFIG)
    folder.write_agents([{"agent": 0, "half_length": np.float32(0.1)}, {"agent": 1, "half_length": math.nan, "x": 2}])
    assert folder.agents_file.read_text() == "agent,half_length,x\n0,0.1,\n1,,2\n"
    assert folder.read_agents()[1] == {"agent": "1", "half_length": "", "x": "2"}


def test_plain_values() -> None:
    value = {"a": (np.int64(3), jnp.arange(2), [np.float64(0.1), np.bool_(True)]), 5: None, "s": "t"}
    assert plain(value) == {"a": [3, [0, 1], [0.1, True]], "5": None, "s": "t"}
