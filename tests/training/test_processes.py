"""Several processes that train together, on the loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import pytest

from fedjax_rl.training import RunFolder, join_processes, resume, train, use_compilation_cache
from tests.training.examples import TINY


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
CONFIG = TINY.replace(devices="auto")  # of five agents: two devices, and four, do not divide them


def lines(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in RunFolder(path).read_metrics()]


def assert_same_lines(ours: Path, theirs: Path) -> None:
    """The same measurements, but for the order of additions."""
    for mine, other in zip(lines(ours), lines(theirs), strict=True):
        told = {name for name, value in other.items() if value is not None}
        assert told == {name for name, value in mine.items() if value is not None}
        # Losses are means of terms around one that may cancel out: a rounding of those is left.
        expected = pytest.approx({name: other[name] for name in told}, rel=1e-5, abs=1e-7)
        assert {name: mine[name] for name in told} == expected


def start(config_file: Path, out: Path, *more: str) -> list[subprocess.Popen]:
    """Two processes of one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "fedjax_rl.cli", "train", "--config", str(config_file), "--out", str(out)]
    return [
        subprocess.Popen(
            [*command, *more, "--coordinator", coordinator, "--num-processes", "2", "--process-id", str(i)],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip


def saved_rounds(run: Path) -> list[int]:
    """Of the checkpoints that are whole."""
    return [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdigit()]


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.to_toml())
    processes = start(file, tmp_path / "two")
    heard = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], heard
    assert "2 cpu devices of 2 processes" in heard[0] and "devices" not in heard[1]  # one of them reports
    train(CONFIG.replace(devices=2), out=tmp_path / "one", progress=False)
    assert_same_lines(tmp_path / "two", tmp_path / "one")
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    # What two processes have saved goes on in one, on another number of devices.
    for name in ("two", "one"):
        longer = resume(tmp_path / name, num_rounds=CONFIG.num_rounds + 2, progress=False)
        assert longer.history[-1]["round"] == CONFIG.num_rounds + 2
    assert_same_lines(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_run_and_its_checkpoint_resumes(tmp_path: Path, victim: int) -> None:
    config = CONFIG.replace(num_rounds=100_000, evaluation={"every": 0}, checkpoint={"every_rounds": 20})
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    processes = start(file, tmp_path / "run")
    deadline = time.monotonic() + 300
    while not saved_rounds(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.2)
    processes[victim].send_signal(signal.SIGKILL)
    survivor = processes[1 - victim]
    heard = survivor.communicate(timeout=120)[1]
    processes[victim].communicate()
    said = "another process of this run has died" in heard and "fedjax-rl resume" in heard
    if victim == 0:  # the coordinator: JAX itself may be faster, and aborts
        assert said or (survivor.returncode < 0 and "another task died" in heard), heard
    else:
        assert said and survivor.returncode == 1, heard
    saved = max(saved_rounds(tmp_path / "run"))
    resumed = resume(tmp_path / "run", num_rounds=saved + 1, progress=False)
    assert resumed.history[-1]["round"] == saved + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 2, None), "coordinator must be given with num_processes"),
        (("host:1234", None, 0), "num_processes and process_id must be given"),
        (("host:1234", 2, 2), r"process_id must lie in \[0, 2\)"),
        (("host", 2, 0), "coordinator must be HOST:PORT or 'auto', got 'host'"),
        (("auto", 2, None), "num_processes must be left out"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_processes(*arguments)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, CORES), ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
     ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5)],
)  # fmt: skip
def test_all_cores_are_used_unless_somebody_has_decided(given: dict[str, str], expected: int) -> None:
    code = "from fedjax_rl.training import use_all_cores; use_all_cores(); import jax; print(jax.device_count())"
    inherited = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    env = inherited | {"JAX_PLATFORMS": "cpu"} | given
    assert (
        int(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout) == expected
    )


def test_alone_nothing_is_joined() -> None:
    join_processes(None, None, None)


def test_the_cache_of_programs_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        monkeypatch.delenv("FEDJAX_RL_CACHE_DIR", raising=False)
        use_compilation_cache()
        assert {name: getattr(jax.config, name) for name in names} == before
        monkeypatch.setenv("FEDJAX_RL_CACHE_DIR", str(tmp_path))
        use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path)  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
