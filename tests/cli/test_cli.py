"""The command: every way to use it, and every way to use it wrongly."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedjax_rl import registry
from fedjax_rl.cli import main
from fedjax_rl.training import RunFolder, preset_names
from tests.training.examples import TINY
from tests.training.runs import curves, write_run


ROOT = Path(__file__).parents[2]
TRAIN = ["--evaluation.unseen-agents", "0", "--rounds", "1"]


def process(*arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "fedjax_rl.cli", *arguments]
    environment = os.environ | {"COLUMNS": "120"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY.to_toml())
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config_file: str) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    flags = ["--agents", "4", "--seed", "1", "--learner.objective", "actor_critic()", "--round.aggregator", "median"]
    assert main(["train", "--config", config_file, "--out", str(out), "--quiet", *TRAIN, *flags]) == 0
    return out


# ---------------------------------------------------------------- using it


def test_flags_reach_the_configuration(run: Path) -> None:
    _, config = RunFolder.open(run)
    assert (config.num_agents, config.num_rounds, config.seed) == (4, 1, 1)
    assert (config.learner.objective, config.round.aggregator) == ("actor_critic()", "median")
    assert config.world == TINY.world
    summary = RunFolder(run).read_summary()
    assert summary is not None
    assert summary["rounds"] == 1


def test_help_is_shown_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("train", "resume", "evaluate", "plot", "compare", "list", "examples:"))


def test_the_help_of_train_lists_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--preset", "tutorial", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--preset", "--config", "--agents", "--out", "--overwrite", "--learner.num-epochs", "--num-seeds"):
        assert flag in text
    assert "(default: 8)" in text  # the preset's


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import fedjax_rl

    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fedjax-rl {fedjax_rl.__version__}\n"


@pytest.mark.parametrize("role", [*registry.ROLES, "optimizers", "presets"])
def test_list_gives_one_name_a_line_with_its_description(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", role]) == 0
    lines = capsys.readouterr().out.splitlines()
    if role in registry.ROLES:
        assert [line.split()[0] for line in lines] == list(registry.names(role))
    if role == "presets":
        assert [line.split()[0] for line in lines] == list(preset_names())
    assert all(len(line.split()) >= 3 for line in lines)


def test_list_without_a_role_gives_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{role}:\n" in text for role in (*registry.ROLES, "presets"))


def test_evaluate_prints_a_table_or_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--episodes", "8", "--sampled", "--gymnasium"]) == 0
    text = capsys.readouterr().out
    assert "4 training" in text
    assert "in Gymnasium" in text
    assert "combined standard errors" in text
    assert main(["evaluate", str(run), "--episodes", "8", "--greedy", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["greedy"] is True
    assert report["training_agents"]["episodes"] == 8
    assert report["unseen_agents"] is None


def test_plot_writes_pictures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [run / "returns.png", run / "agents.png"]
    for picture in pictures:
        picture.unlink()
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out.split() == [str(picture) for picture in pictures]
    together = tmp_path / "both.png"
    for x in ("env_steps", "uplink_bits"):
        assert main(["plot", str(run), str(run), "--out", str(together), "--x", x]) == 0
    assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in [*pictures, together])


def test_plot_draws_the_agents_where_they_were_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", curves(2, 100.0))
    counts = {"seed": 0, "env_steps": 1, "uplink_bits_total": 1, "episodes_each": 1}
    rows = [counts | {"round": r, "agents": [0, 1], "return_mean": [r, 2.0 * r]} for r in (2, 4)]
    RunFolder(run).append_agent_returns(rows)
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out.split() == [str(run / "returns.png"), str(run / "agents_curves.png")]
    assert (run / "agents_curves.png").read_bytes()[:4] == b"\x89PNG"


def test_compare_prints_tables_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_run(tmp_path / name, curves(3, top))) for name, top in (("a", 100.0), ("b", 250.0))]
    out = tmp_path / "both.png"
    assert main(["compare", *runs, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ("│ a ", "│ b ", "paired", "≥ 195 for the first time", "note: fewer than 10"))
    assert text.splitlines()[-1] == str(out)
    assert out.read_bytes()[:4] == b"\x89PNG"
    flags = ["--label", "left", "--label", "right", "--threshold", "50", "--for-good"]
    assert main(["compare", *runs, "--out", str(out), *flags]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ("│ left ", "│ right ", "≥ 50 for good"))
    assert "≥ 195" not in text
    assert main(["compare", *runs, "--out", str(out), *flags, "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert [run["label"] for run in report["runs"]] == ["left", "right"]
    assert report["picture"] == str(out)


# ---------------------------------------------------------------- using it wrongly


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "--preset", "cartpol"], ["no preset 'cartpol'", "did you mean cartpole?"]),
        (["train", "--config", "missing.toml"], ["no configuration file missing.toml"]),
        (["train", "--config", "{broken}"], ["broken.toml, line 3: learner.num_epoch", "did you mean num_epochs?"]),
        (["train", "--preset", "talk", "--config", "{broken}"], ["either --preset or --config"]),
        (["train", "--agents", "0"], ["num_agents must be at least 1, got 0"]),
        (["train", "--round.aggregator", "trimed_mean(0.1)"], ["round.aggregator", "did you mean trimmed_mean?"]),
        (["train", "--round.aggregator", "trimmed_mean(0.7)"], ["round.aggregator", "0.7"]),
        (["train", "--round.aggregator", "mean("], ["aggregator is wrong", "never closed"]),
        (["train", "--learner.objective", "ppo(clipping=0.1)"], ["learner.objective", "ppo(*, discount=0.99"]),
        (["train", "--world.family", "fleet_family('{fleet}')"], ["fleet.csv, row 3", "masspole"]),
        (["train", "--world.family", "__import__('os').system('true')"], ["only a registered name can be called"]),
        (["train", "--devices", "64"], ["num_devices must be at most"]),
        (["train", "--out", "{full}"], ["not empty and holds no run"]),
        (["train", "--out", "{run}"], ["already holds a run", "resume", "--overwrite"]),
        (["resume", "nowhere"], ["there is no folder nowhere"]),
        (["resume", "{full}"], ["holds no run"]),
        (["resume", "{run}", "--rounds", "0"], ["num_rounds must be at least 1"]),
        (["evaluate", "{run}", "--episodes", "0"], ["num_episodes must be at least 1"]),
        (["evaluate", "nowhere"], ["there is no folder nowhere"]),
        (["plot", "{full}"], ["holds no run"]),
        (["compare", "{run}"], ["at least two runs, got 1", "plot"]),
        (["compare", "{run}", "{full}"], ["full holds no run"]),
        (["compare", "{run}", "nowhere"], ["there is no folder nowhere"]),
        (["compare", "{run}", "{run}", "--label", "a"], ["labels must be 2 different texts"]),
    ],
)
def test_bad_input_is_one_message_and_code_2(
    arguments: list[str], parts: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.toml").write_text("num_agents = 3\n[learner]\nnum_epoch = 2\n")
    (tmp_path / "fleet.csv").write_text("half_length,masspole\n0.5,0.1\n0.5,-1\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    names = {"broken": tmp_path / "broken.toml", "fleet": tmp_path / "fleet.csv", "full": tmp_path / "full", "run": run}
    arguments = [argument.format(**names) for argument in arguments]
    if arguments[0] == "train" and "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    try:
        code = main(arguments)
    except SystemExit as stop:  # the parser of the flags has found the error
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    error = " ".join((captured.err + captured.out).replace("│", " ").split())
    for part in parts:
        assert part in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "COMMAND"),
        (["trian"], "trian"),
        (["list", "agregators"], "agregators"),
        (["train", "--learner.num-epoch", "3"], "--learner.num-epochs"),
        (["train", "--learner.num-epochs", "three"], "--learner.num-epochs"),
        (["train", "--learner.upload", "deltas"], "deltas"),
        (["evaluate", "x", "--greedy", "--sampled"], "not allowed with"),
    ],
)
def test_bad_flags_are_told_by_the_parser(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert part in captured.err + captured.out


def test_debug_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


# ---------------------------------------------------------------- Ctrl-C


def metrics(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in RunFolder(folder).read_metrics()]


def test_ctrl_c_saves_and_a_resumed_run_equals_an_uninterrupted_one(config_file: str, tmp_path: Path) -> None:
    flags = ["--config", config_file, "--evaluation.every", "50", "--evaluation.unseen-agents", "0"]
    stopped = process("train", *flags, "--rounds", "1000000", "--out", str(tmp_path / "a"))
    deadline = time.monotonic() + 120
    while not (folder := RunFolder(tmp_path / "a")).metrics_file.exists() or len(folder.read_metrics()) < 3:
        assert stopped.poll() is None, stopped.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped.send_signal(signal.SIGINT)
    _, error = stopped.communicate(timeout=120)
    assert stopped.returncode == 130, error
    assert f"go on with: fedjax-rl resume {tmp_path / 'a'}" in " ".join(error.split())
    assert "Traceback" not in error
    done = metrics(tmp_path / "a")[-1]["round"]
    assert [row["round"] for row in metrics(tmp_path / "a")] == list(range(1, done + 1))
    assert f"stopped after round {done} of 1000000" in error

    rounds = str(done + 3)
    both = [
        process("resume", str(tmp_path / "a"), "--rounds", rounds),
        process("train", *flags, "--rounds", rounds, "--out", str(tmp_path / "b")),
    ]
    for other in both:
        _, error = other.communicate(timeout=300)
        assert other.returncode == 0, error
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert len(metrics(tmp_path / "a")) == done + 3
    assert (tmp_path / "a" / "agents.csv").read_bytes() == (tmp_path / "b" / "agents.csv").read_bytes()
    assert f"round {rounds}/{rounds}" in error  # plain lines, since nobody watches a terminal
    assert "training" in error


def test_a_second_ctrl_c_aborts_at_once() -> None:
    from fedjax_rl.training._stop import GracefulStop

    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), GracefulStop(said.append) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("not aborted")  # pragma: no cover
    assert len(said) == 1
    assert signal.getsignal(signal.SIGINT) is before
