"""Programs of others, each in an environment of its own, that do a call of the same work whenever they are told to."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ._machine import ROOT
from ._work import Work


PEERS = {"sb3": "stable-baselines3", "flower": "Flower", "torch_tutorial": "PyTorch"}
ENVIRONMENTS = ROOT / ".bench-peers"


def missing(work: str) -> str | None:
    """Why a work has no peer to be held against here, and what to do; None where it has one or needs none."""
    name = work.removeprefix("peer_")
    if name not in PEERS or (ENVIRONMENTS / name / ".ready").exists():
        return None
    return f"{PEERS[name]} is not installed in {ENVIRONMENTS / name}; `make bench-peers` installs it"


def peer(name: str, request: dict[str, Any], *, python: Path | None = None, script: Path | None = None) -> Work:
    """Starts a peer and waits until it is ready.

    Args:
        name: one of `PEERS`.
        request: the work, as `bench/peers/_protocol.py` hands it to the script.
        python: its interpreter; default: that of its environment.
        script: default: `bench/peers/_<name>.py`.

    Raises:
        FileNotFoundError: it is not installed.
        RuntimeError: it ended; the text is what it said last.
    """
    if python is None and (reason := missing(name)):
        raise FileNotFoundError(reason)
    python = python or ENVIRONMENTS / name / "bin" / "python"
    command = [python, "-E", script or ROOT / "bench" / "peers" / f"_{name}.py", json.dumps(request)]
    # Errors go to a file: nobody reads while a call runs, and a full pipe would stop the peer.
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdin is not None and process.stdout is not None
    told, heard = process.stdin, process.stdout

    def close() -> None:
        """No more lines come: it ends by itself."""
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        errors.close()

    def answer() -> dict[str, Any]:
        line = heard.readline()
        if line:
            return json.loads(line)
        process.wait()
        errors.seek(0)
        last = "\n".join(errors.read().splitlines()[-30:])
        raise RuntimeError(f"the peer {name} ended with status {process.returncode}:\n{last}")

    def call() -> None:
        try:
            told.write("go\n")
            told.flush()
        except BrokenPipeError:
            pass  # `answer` tells why
        answer()

    try:
        ready = answer()
    except BaseException:
        close()
        raise
    versions = {f"peer {package}": version for package, version in ready["versions"].items()}
    return Work(call, 0.0, 0.0, ready["env_steps"], ready["agent_updates"], versions=versions, close=close)
