"""A peer's end of the line: tell what one call does, then do one call for every line that comes."""

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any


# Only `serve` writes to the pipe: what a library prints goes with the errors.
_answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def request() -> dict[str, Any]:
    """The work that is asked for."""
    return json.loads(sys.argv[1])


def serve(
    call: Callable[[], object], packages: Iterable[str], *, env_steps: int = 0, agent_updates: int = 0, **notes: Any
) -> None:
    """Calls once per line until there are no more.

    Args:
        call: the work.
        packages: those whose versions decide the speed.
        env_steps: of a call; 0 where episodes end when they end.
        agent_updates: of a call; 0 where nothing is federated.
        notes: settings that were chosen here.
    """
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
    versions |= {name: str(value) for name, value in notes.items()}
    _answer(versions=versions, env_steps=env_steps, agent_updates=agent_updates)
    for _ in sys.stdin:
        begin = time.perf_counter()
        call()
        _answer(seconds=time.perf_counter() - begin)


def fastest(choose: Callable[[int], None], choices: Iterable[int], probe: Callable[[], None]) -> int:
    """The choice under which `probe` takes least time, the best of three in turns; leaves it chosen."""
    best: dict[int, float] = {}
    for _ in range(3):
        for choice in choices:
            choose(choice)
            probe()  # what starts threads is not timed
            begin = time.perf_counter()
            probe()
            best[choice] = min(best.get(choice, float("inf")), time.perf_counter() - begin)
    choice = min(best, key=best.__getitem__)
    choose(choice)
    return choice


def thread_counts() -> tuple[int, ...]:
    """One thread, and one per core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (1,) if cores == 1 else (1, cores)


def _answer(**fields: Any) -> None:
    print(json.dumps(fields), file=_answers)
