"""Rounds held against the plain round: what the parts of a round cost, and what a layout costs."""

import concurrent.futures
import dataclasses
import functools
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax

from fedjax_rl.aggregators import trimmed_mean
from fedjax_rl.core import compile_rounds
from fedjax_rl.participation import uniform_cohort
from fedjax_rl.training import build, preset
from fedjax_rl.transforms import clip, from_optax

from ._ours import our_rollout, our_round
from ._peer import peer
from ._setting import Setting
from ._work import Work


THOUSAND = 1000  # agents of a cohort out of many, and of the round that others are held against
NUM_PROCESSES = 2
_VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "sgd": lambda: {"step": optax.sgd},
    "noisy": lambda: {"transforms": (clip(1.0), from_optax(optax.add_noise(1e-6, 0.0, 0)))},
    "trimmed": lambda: {"aggregator": trimmed_mean(0.1)},
}


def our_acting(setting: Setting) -> Work:
    """Acting alone, against the round that it is a part of."""
    return our_rollout(setting)._replace(reference=functools.partial(our_round, setting))


def our_variant(setting: Setting) -> Work:
    """A round with one part changed: without moments, with clipped and noisy messages, with a robust aggregator."""
    work = our_round(setting, **_VARIANTS[setting.work]())
    return work._replace(reference=functools.partial(our_round, setting))


def our_flat(setting: Setting) -> Work:
    """Rounds of N agents against rounds of `THOUSAND` with no more steps in all, at least one."""
    rounds = max(1, setting.num_agents * setting.rounds_per_call // THOUSAND)
    thousand = dataclasses.replace(setting, num_agents=THOUSAND, rounds_per_call=rounds)
    return our_round(setting)._replace(reference=functools.partial(our_round, thousand))


def our_cohort(setting: Setting) -> Work:
    """Rounds of `THOUSAND` agents out of many, against rounds of everyone where there are no others.

    On one device, since the states of a cohort's agents travel between devices, and those of everyone do not.
    """
    work = our_round(setting, participation=uniform_cohort(THOUSAND))
    everyone = dataclasses.replace(setting, num_agents=THOUSAND)
    return work._replace(reference=functools.partial(our_round, everyone))


def our_preset(setting: Setting) -> Work:
    """A preset as it is: what matters is how long it takes to compile."""
    config = preset(setting.variant)
    experiment = build(config)
    state = experiment.round.init(jax.random.key(0))
    begin = time.perf_counter()
    advance = compile_rounds(experiment.round, state, setting.rounds_per_call)
    seconds = time.perf_counter() - begin

    def call() -> object:
        nonlocal state
        state, history = advance(experiment.round, state, setting.rounds_per_call)
        return jax.block_until_ready((state, history))

    updates = int(config.num_agents) * setting.rounds_per_call
    return Work(call, seconds, 0.0, agent_updates=updates)


def our_processes(setting: Setting) -> Work:
    """Rounds of several processes with one device each, against one process with as many devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"

    def start(number: int) -> Work:
        request = {"setting": dataclasses.asdict(setting), "coordinator": coordinator, "process_id": number}
        script = Path(__file__).with_name("_half.py")
        return peer("process", request | {"num_processes": NUM_PROCESSES}, python=Path(sys.executable), script=script)

    pool = concurrent.futures.ThreadPoolExecutor(NUM_PROCESSES)  # they wait for each other
    halves = list(pool.map(start, range(NUM_PROCESSES)))

    def call() -> None:
        list(pool.map(lambda half: half.call(), halves))

    def close() -> None:
        futures = [pool.submit(half.close) for half in halves]
        concurrent.futures.wait(futures)
        pool.shutdown()

    together = dataclasses.replace(setting, num_devices=NUM_PROCESSES)
    return halves[0]._replace(call=call, close=close, reference=functools.partial(our_round, together))
