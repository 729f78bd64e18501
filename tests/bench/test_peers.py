"""Programs of others: how they are talked to, what they are asked for, and what is said where they miss or die."""

import dataclasses
import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import _pairs, _peer
from bench._machine import ROOT
from bench._measure import Effort, measure
from bench._peer import PEERS, peer
from bench._setting import Measurement, Setting
from bench._suites import peers


SCRIPTS = ROOT / "bench" / "peers"
FAKE = f"""
import sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
import _protocol
request = _protocol.request()
if request["fails"] == "at once":
    raise ValueError("no such toy")
print("noise")
calls = 0
def call():
    global calls
    calls += 1
    print("more noise")
    if request["fails"] == "later" and calls == 2:
        raise ValueError("the toy broke")
    time.sleep(0.05)
    open(request["log"], "a").write("call\\n")
_protocol.serve(call, ["pip"], env_steps=7, agent_updates=request["updates"], threads=3)
open(request["log"], "a").write("end\\n")
"""


@pytest.fixture
def fake(tmp_path: Path) -> Any:
    """`peer` with a script that does nothing, but slowly."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)

    def start(name: str, request: dict[str, Any], **more: Any) -> Any:
        (tmp_path / "request.json").write_text(json.dumps(request))
        request = {"fails": "never", "log": str(tmp_path / "log"), "updates": 2, **more, **request}
        return peer(name, request, python=Path(sys.executable), script=script)

    return start


def test_a_line_is_a_call(fake: Any, tmp_path: Path) -> None:
    work = fake("sb3", {})
    assert (work.env_steps, work.agent_updates) == (7, 2)
    assert work.versions.keys() == {"peer python", "peer pip", "peer threads"} and work.versions["peer threads"] == "3"
    work.call()
    work.call()
    assert (tmp_path / "log").read_text() == "call\ncall\n"
    work.close()
    assert (tmp_path / "log").read_text() == "call\ncall\nend\n"


def test_a_peer_that_does_not_start_is_told(fake: Any) -> None:
    with pytest.raises(RuntimeError, match=r"the peer flower ended with status 1:(.|\n)*ValueError: no such toy"):
        fake("flower", {"fails": "at once"})


def test_a_peer_that_dies_in_a_call_is_told(fake: Any) -> None:
    work = fake("flower", {"fails": "later"})
    work.call()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"the peer flower ended with status 1:(.|\n)*ValueError: the toy broke"):
            work.call()
    work.close()


def test_missing_peers_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_peer, "ENVIRONMENTS", tmp_path)
    out = tmp_path / "lines.jsonl"
    works = [f"peer_{name}" for name in PEERS]
    assert command.main(["peers", "--only", *works, "--devices", "1", "--out", str(out)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5 and not out.exists()
    assert all("is not installed" in line and "`make bench-peers` installs it" in line for line in said)
    with pytest.raises(FileNotFoundError, match="PyTorch is not installed"):
        peer("torch_tutorial", {})


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_asked_for_the_same_work(
    name: str, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_envs = 1 if name == "flower" else 2
    setting = Setting(
        f"peer_{name}", 2, num_envs, num_steps=16, hidden_sizes=(8,), chunk_size=2, rounds_per_call=2, matmul_size=64
    )
    updates = 0 if name == "sb3" else 2
    monkeypatch.setattr(_pairs, "peer", functools.partial(fake, updates=updates))
    m = measure(setting, Effort(min_calls=2, min_seconds=0.0))
    request = json.loads((tmp_path / "request.json").read_text())
    asked = re.findall(r"\bwork\[\"(\w+)\"\]", (SCRIPTS / f"_{name}.py").read_text(), re.IGNORECASE)
    assert {"num_steps", "hidden_sizes", "rounds_per_call"} <= set(asked) <= request.keys()
    assert request.items() >= (dataclasses.asdict(setting) | {"hidden_sizes": [8]}).items()
    assert (tmp_path / "log").read_text() == 4 * "call\n" + "end\n"
    assert m.versions["peer threads"] == "3" and Measurement.from_json(m.to_json()) == m
    assert m.agent_updates_per_second == pytest.approx(4 / m.seconds)
    assert m.env_steps_per_second is not None and m.over_reference is not None
    steps = m.env_steps_per_second * m.seconds
    if name == "torch_tutorial":  # steps after the end of an episode are none
        assert 8 * 4 * num_envs < steps < 16 * 4 * num_envs
    else:
        assert round(steps) == 16 * 4 * num_envs
    amount = steps / 7 if name == "sb3" else 4 / 2  # a call of ours over one of the peer, which lasts 0.05 s and more
    assert m.over_reference >= 0.99 * amount * 0.05 / max(m.seconds_all)


def test_gymnax_is_paired() -> None:
    setting = Setting("peer_gymnax", 3, num_envs=2, num_steps=5, hidden_sizes=(8,), num_devices=2, matmul_size=64)
    m = measure(setting, Effort(min_calls=2, min_seconds=0.0))
    assert m.over_reference is not None and 0.01 < m.over_reference < 100
    assert m.env_steps_per_second == pytest.approx(30 / m.seconds)


def test_flower_has_one_environment_each() -> None:
    with pytest.raises(ValueError, match="num_envs must be 1 with peer_flower"):
        measure(Setting("peer_flower", 2, num_envs=2))


def test_suite() -> None:
    settings = list(peers(2, 30))
    assert len(set(settings)) == len(settings)
    assert {s.work for s in settings} == set(command.PEER_WORKS)
    assert {s.num_agents for s in settings if s.work == "peer_flower"} == {30}


def test_every_peer_has_a_script_and_pinned_requirements() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.txt")} == PEERS.keys()
    for name in PEERS:
        assert (SCRIPTS / f"_{name}.py").exists()
        assert all("==" in line for line in (SCRIPTS / f"{name}.txt").read_text().splitlines())
