"""Training: what a run leaves behind, and that nothing but the configuration decides what it learns."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.training import (
    ExperimentConfig,
    Result,
    RunFolder,
    _session,
    build,
    evaluate_run,
    load_policy,
    resume,
    train,
)
from fedjax_rl.training._folder import METRIC_FIELDS
from fedjax_rl.training._measure import Evaluator, agent_rows
from tests.training.examples import TINY


LOSSES = {"policy_loss", "value_loss", "approximate_kl"}


def lines(path: Path | None) -> list[dict[str, Any]]:
    """metrics.jsonl without what no two runs share: the time."""
    assert path is not None
    rows = RunFolder(path).read_metrics()
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def same(x: Any, y: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), x, y)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One finished run, for the tests that only look at it."""
    return train(TINY, out=tmp_path_factory.mktemp("runs") / "tiny", progress=False)


# ---------------------------------------------------------------- what a run leaves


def test_the_folder_is_complete(run: Result) -> None:
    assert run.folder is not None
    assert {path.name for path in run.folder.iterdir()} == {
        "config.toml", "metrics.jsonl", "summary.json", "agents.csv", "returns.png", "agents.png", "policy.npz",
        "checkpoints",
    }  # fmt: skip
    assert ExperimentConfig.load(run.folder / "config.toml") == TINY
    for name in ("returns.png", "agents.png"):
        assert (run.folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_metrics_have_every_field_of_every_round(run: Result) -> None:
    assert run.folder is not None
    text = (run.folder / "metrics.jsonl").read_text()
    rows = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in text.splitlines()]
    assert rows == run.history
    assert [row["round"] for row in rows] == list(range(1, 10))
    assert all(set(METRIC_FIELDS) | LOSSES <= set(row) for row in rows)
    assert [row["env_steps"] for row in rows] == [5 * 2 * 16 * r for r in range(1, 10)]  # agents x envs x steps
    assert all(a["episodes"] <= b["episodes"] and a["seconds"] <= b["seconds"] for a, b in zip(rows, rows[1:]))  # noqa: B905, RUF007
    assert [row["round"] for row in rows if row["return_mean"] is not None] == [4, 8, 9]
    for row in rows:
        assert row["nonfinite_messages"] == 0
        assert row["uplink_bits"] == row["downlink_bits"] == 5 * 32 * (4 * 8 + 8 + 8 * 2 + 2 + 8 + 1)
        assert row["uplink_bits_total"] == row["round"] * row["uplink_bits"]
        assert 0 < row["entropy"] <= math.log(2)
        assert row["train_return_mean"] is None or 1 <= row["train_return_mean"] <= 40
        if row["return_mean"] is not None:
            assert row["return_min"] <= row["return_mean"] <= 40
            assert 0 <= row["success_rate"] <= 1


def test_the_summary_agrees_with_the_table_of_agents(run: Result) -> None:
    assert run.folder is not None
    folder = RunFolder(run.folder)
    summary, agents = folder.read_summary(), folder.read_agents()
    assert summary is not None
    assert summary == run.summary
    for group, split, count in (("training_agents", "training", 5), ("unseen_agents", "unseen", 5)):
        rows = [row for row in agents if row["split"] == split]
        assert len(rows) == summary[group]["agents"] == count
        assert {row["episodes"] for row in rows} == {"2"}
        assert np.mean([float(row["return_mean"]) for row in rows]) == pytest.approx(summary[group]["return_mean"])
        assert summary[group]["episodes"] == 2 * count
    assert summary["compile_seconds"] > 0
    assert summary["env_steps_per_second"] > 0
    assert summary["env_steps"] == run.history[-1]["env_steps"]
    assert {"jax", "python", "fedjax_rl"} <= set(summary["versions"])
    assert summary["device"]["platform"] == jax.default_backend()
    assert summary["repeat"] == f"fedjax-rl train --config {run.folder / 'config.toml'}"
    assert {"git_revision", "command", "finished"} <= set(summary)


def test_agents_carry_the_physics_they_trained_with(run: Result) -> None:
    assert run.folder is not None
    rows = [row for row in RunFolder(run.folder).read_agents() if row["split"] == "training"]
    state = _session.first_state([build(TINY)])
    for name in ("half_length", "force_mag", "masspole", "gravity"):
        np.testing.assert_array_equal([np.float32(row[name]) for row in rows], getattr(state.physics, name))


def test_the_exported_policy_is_the_trained_one(run: Result) -> None:
    assert run.folder is not None
    policy, params = load_policy(run.folder / "policy.npz")
    assert policy == run.policy
    assert same(params, run.params)
    assert not same(params, run.policy.init(jax.random.key(0)))


def test_the_result_gives_curves(run: Result) -> None:
    rounds, values = run.values("return_mean")
    np.testing.assert_array_equal(rounds, [4, 8, 9])
    assert values.shape == (3,)


# ---------------------------------------------------------------- nothing else decides


def test_chunks_and_folders_change_nothing(run: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_session, "_CHUNK_SECONDS", 0.0)  # one round at a time
    heard: list[dict] = []
    again = train(TINY, progress=False, on_round=heard.append)  # pyright: ignore[reportArgumentType]
    assert again.folder is None
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in heard] == lines(run.folder)
    assert heard == again.history
    assert same(again.params, run.params)
    assert again.summary["training_agents"] == run.summary["training_agents"]


@pytest.mark.parametrize("checkpoint", [{}, {"every_rounds": 2}], ids=["at the stop", "every other round"])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(run: Result, tmp_path: Path, checkpoint: dict) -> None:
    config = TINY.replace(checkpoint=checkpoint)
    stopped = train(config, out=tmp_path / "a", progress=False, on_round=lambda row: row["round"] == 6)
    assert stopped.interrupted
    assert stopped.summary == {}
    before = lines(stopped.folder)
    assert 6 <= before[-1]["round"] < 9
    assert before == lines(run.folder)[: len(before)]
    resumed = resume(tmp_path / "a", progress=False)
    assert not resumed.interrupted
    assert lines(tmp_path / "a") == lines(run.folder)
    assert same(resumed.params, run.params)
    assert [row["seconds"] for row in resumed.history] == sorted(row["seconds"] for row in resumed.history)
    for group in ("training_agents", "unseen_agents"):
        assert resumed.summary[group] == run.summary[group]
    assert (tmp_path / "a" / "agents.csv").read_bytes() == (run.folder / "agents.csv").read_bytes()  # pyright: ignore[reportOptionalOperand]


def test_a_run_goes_on_with_another_number_of_devices(tmp_path: Path, x64: None) -> None:
    """Of five agents, which four devices hold in eight rows, three in six, and one in five."""
    # The server waits for messages, as many as agents may send at once: no more where there are more rows.
    waiting = {"aggregator": "median()", "topology": "buffered(star(), 3)"}
    config = TINY.replace(evaluation={"every": 2}, round=waiting)
    alone = train(config.replace(num_rounds=6), progress=False)
    for num_rounds, devices in ((2, 4), (4, 3), (6, 1)):
        stretch = config.replace(num_rounds=num_rounds, devices=devices)
        moved = train(stretch, out=tmp_path, resume=num_rounds > 2, progress=False)
        assert evaluate_run(tmp_path, num_episodes=5)["rounds"] == num_rounds
    for x, y in zip(jax.tree.leaves(moved.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
    for mine, expected in zip(lines(tmp_path), alone.history, strict=True):
        told = {name for name, value in expected.items() if value is not None and name != "seconds"}
        assert {name: mine[name] for name in told} == pytest.approx({n: expected[n] for n in told}, rel=1e-6, abs=1e-9)


def test_metrics_beyond_the_checkpoint_are_played_again(run: Result, tmp_path: Path) -> None:
    """A crash may come between a line of metrics and the next checkpoint."""
    config = TINY.replace(checkpoint={"every_rounds": 3})

    def crash(row: dict) -> None:
        if row["round"] == 8:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(config, out=tmp_path, progress=False, on_round=crash)
    assert lines(tmp_path)[-1]["round"] >= 8
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 9, "env_')
    resume(tmp_path, progress=False)
    assert lines(tmp_path) == lines(run.folder)


def test_a_run_stopped_before_its_first_checkpoint_starts_again(run: Result, tmp_path: Path) -> None:
    def crash(row: dict) -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(TINY, out=tmp_path, progress=False, on_round=crash)
    resume(tmp_path, progress=False)
    assert lines(tmp_path) == lines(run.folder)


def test_a_finished_run_trains_on_for_more_rounds(run: Result, tmp_path: Path) -> None:
    short = TINY.replace(num_rounds=6)
    train(short, out=tmp_path, progress=False)
    longer = resume(tmp_path, num_rounds=9, progress=False)
    assert same(longer.params, run.params)
    assert RunFolder.open(tmp_path)[1].num_rounds == 9
    with pytest.raises(ValueError, match="num_rounds is 5, but the run has already done 9"):
        resume(tmp_path, num_rounds=5, progress=False)


def test_another_configuration_cannot_go_on(run: Result) -> None:
    other = TINY.replace(learner={"num_epochs": 3})
    with pytest.raises(ValueError, match=r"another configuration: learner\.num_epochs was 2, now 3"):
        train(other, out=run.folder, resume=True, progress=False)
    with pytest.raises(ValueError, match="already holds a run"):
        train(TINY, out=run.folder, progress=False)
    with pytest.raises(ValueError, match="resume needs the folder"):
        train(TINY, resume=True)


def test_a_wrong_configuration_leaves_an_old_run_alone(run: Result) -> None:
    with pytest.raises(ValueError, match="not registered"):
        train(TINY.replace(round={"aggregator": "maen"}), out=run.folder, overwrite=True, progress=False)
    assert run.folder is not None
    assert (run.folder / "summary.json").exists()


def test_a_full_disk_is_told_and_the_checkpoint_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = RunFolder.append_metrics

    def full(self: RunFolder, rows: list[dict]) -> None:
        if rows[-1]["round"] > 6:
            raise OSError(28, "No space left on device")
        append(self, rows)

    monkeypatch.setattr(RunFolder, "append_metrics", full)
    monkeypatch.setattr(_session, "_CHUNK_SECONDS", 0.0)
    with pytest.raises(OSError, match=r"No space left on device.*saved up to round 6.*resume"):
        train(TINY.replace(checkpoint={"every_rounds": 2}), out=tmp_path, progress=False)
    assert lines(tmp_path)[-1]["round"] == 6
    assert (tmp_path / "checkpoints" / "6").is_dir()


# ---------------------------------------------------------------- several seeds, models of their own


def test_several_seeds_are_the_single_runs_side_by_side(run: Result, tmp_path: Path) -> None:
    """The same random numbers; the compiled programs differ, so their floating sums may, in the last places."""
    config = TINY.replace(num_seeds=2, seed=2, num_rounds=1)
    both = train(config, out=tmp_path, progress=False)
    assert [(row["round"], row["seed"]) for row in both.history] == [(1, 2), (1, 3)]
    single = train(TINY.replace(num_rounds=1), progress=False)  # seed 3
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, atol=1e-5), both.params, single.params)
    assert both.history[1]["episodes"] == single.history[0]["episodes"]
    assert not np.allclose(both.params["params"]["actor"]["kernel"][0], both.params["params"]["actor"]["kernel"][1])
    assert len(both.summary["seeds"]) == 2
    means = [entry["training_agents"]["return_mean"] for entry in both.summary["seeds"]]
    assert both.summary["training_agents"]["return_mean"] == pytest.approx(np.mean(means))
    assert both.summary["training_agents"]["standard_error"] == pytest.approx(np.std(means, ddof=1) / math.sqrt(2))
    assert {path.name for path in tmp_path.glob("policy*")} == {"policy-seed2.npz", "policy-seed3.npz"}
    assert same(load_policy(tmp_path / "policy-seed3.npz")[1], jax.tree.map(lambda x: x[1], both.params))


def test_isolated_agents_keep_models_of_their_own(tmp_path: Path) -> None:
    config = TINY.replace(num_rounds=2, round={"topology": "isolated()"})
    result = train(config, out=tmp_path, progress=False)
    assert result.per_agent_models
    kernel = result.params["params"]["actor"]["kernel"]
    assert kernel.shape == (5, 8, 2)
    assert not np.allclose(kernel[0], kernel[1])
    assert result.summary["unseen_policy"] == "unseen agent j plays with the model of agent j mod 5"
    assert same(load_policy(tmp_path / "policy.npz")[1], result.params)


def test_a_fleet_keeps_its_unseen_rows(tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    path.write_text("half_length,max_steps_in_episode\n" + "".join(f"{0.3 + i / 50},{20 + i}\n" for i in range(10)))
    experiment = build(TINY.replace(num_agents="auto", world={"family": f"fleet_family('{path}')"}))
    evaluator, state = Evaluator(experiment), _session.first_state([experiment])
    trained, unseen = evaluator.all_agents(state, 0, 0), evaluator.unseen(state, 0, 0)
    assert unseen is not None
    rows = agent_rows(trained, experiment.family, seed=0, split="training")
    rows += agent_rows(unseen, experiment.family, seed=0, split="unseen")
    assert [row["split"] for row in rows] == ["training"] * 8 + ["unseen"] * 2  # five were asked for
    assert {row["label"] for row in rows} == {f"row {number}" for number in range(2, 12)}
    for row in rows:  # a spreadsheet's row 2 is the table's first
        assert float(row["half_length"]) == pytest.approx(0.3 + (int(row["label"].removeprefix("row ")) - 2) / 50)


# ---------------------------------------------------------------- evaluating a folder again


def test_a_run_can_be_evaluated_again_here_and_in_gymnasium(run: Result) -> None:
    assert run.folder is not None
    files = sorted((path.name, path.stat().st_mtime_ns) for path in run.folder.iterdir())
    report = evaluate_run(run.folder, num_episodes=100, greedy=False, gymnasium=True)
    assert report["rounds"] == 9
    assert report["training_agents"]["episodes"] == report["gymnasium_agents"]["episodes"] == 100
    assert report["unseen_agents"]["episodes"] == 100
    # Both means have conservative standard errors; by the normal law beyond 4.5 with probability below 7e-6.
    assert abs(report["gymnasium_agents"]["difference"]) < 4.5
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.folder.iterdir()) == files
    assert evaluate_run(run.folder, num_episodes=10) == evaluate_run(run.folder, num_episodes=10)
    assert evaluate_run(run.folder, num_episodes=10, seed=1) != evaluate_run(run.folder, num_episodes=10)
    with pytest.raises(ValueError, match="num_episodes must be at least 1"):
        evaluate_run(run.folder, num_episodes=0)


@pytest.mark.parametrize(("chunk_size", "told"), [(2, "2 agents at a time"), ("none", "all agents at a time")])
def test_the_first_line_tells_the_size_of_chunks(
    chunk_size: int | str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(TINY.replace(num_agents=5, num_rounds=1, chunk_size=chunk_size, evaluation={"every": 0}), progress=True)
    first = next(line for line in capsys.readouterr().err.splitlines() if "agents" in line)
    assert told in first


def test_float64_works(x64: None) -> None:
    result = train(TINY.replace(num_rounds=1), progress=False)
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(result.params))


def test_a_run_on_a_table_keeps_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "carts.csv"
    table.write_text("half_length\n0.5\n0.6\n0.4\n0.3\n0.55\n")
    monkeypatch.chdir(tmp_path)
    config = TINY.replace(num_agents="auto", num_rounds=1, world={"family": "fleet_family('carts.csv')"})
    first = train(config, out=tmp_path / "run", progress=False)
    table.write_text("half_length\n9\n9\n9\n9\n9\n")
    monkeypatch.chdir("/")
    again = resume(tmp_path / "run", num_rounds=2, progress=False)
    lengths = [row["half_length"] for row in again.agents]
    assert lengths == [row["half_length"] for row in first.agents] and 9.0 not in lengths
    monkeypatch.chdir(tmp_path)
    table.write_text("half_length\n0.5\n0.6\n0.4\n0.3\n0.55\n")
    assert train(config.replace(num_rounds=2), out=tmp_path / "run", resume=True, progress=False).summary["rounds"] == 2


def test_an_extended_run_that_is_stopped_leaves_no_results_of_the_shorter_one(tmp_path: Path) -> None:
    train(TINY.replace(num_rounds=1), out=tmp_path / "run", progress=False)
    longer = TINY.replace(num_rounds=6)
    train(longer, out=tmp_path / "run", resume=True, progress=False, on_round=lambda row: row["round"] >= 2)
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not (tmp_path / "run" / "policy.npz").exists()


def test_resuming_a_finished_run_keeps_what_training_took(tmp_path: Path) -> None:
    before = train(TINY.replace(num_rounds=2), out=tmp_path / "run", progress=False).summary
    after = resume(tmp_path / "run", progress=False).summary
    names = ("compile_seconds", "env_steps_per_second", "seconds", "command")
    assert [before[name] for name in names] == [after[name] for name in names]
    assert before["training_agents"] == after["training_agents"]
