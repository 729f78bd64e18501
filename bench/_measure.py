"""Times one setting in this process. `in_process_of_its_own` is what the commands use."""

import dataclasses
import datetime
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from . import _machine
from ._gymnax import gymnax_stepping
from ._ours import our_arrivals, our_gradient, our_lsa, our_network, our_ppo, our_rollout, our_round
from ._pairs import against_flower, against_gymnax, against_sb3, against_torch_tutorial
from ._setting import Measurement, Setting
from ._variants import our_acting, our_cohort, our_flat, our_preset, our_processes, our_variant
from ._work import Work, copy, fma, matmul


_WORKS = {
    "matmul": matmul,
    "fma": fma,
    "copy": copy,
    "gymnax_random": gymnax_stepping,
    "gymnax_policy": gymnax_stepping,
    "network": our_network,
    "gradient": our_gradient,
    "rollout": our_rollout,
    "round": our_round,
    "ppo": our_ppo,
    "lsa": our_lsa,
    "lsa_double": our_lsa,
    "arrivals": our_arrivals,
    "acting": our_acting,
    "sgd": our_variant,
    "noisy": our_variant,
    "trimmed": our_variant,
    "flat": our_flat,
    "cohort": our_cohort,
    "processes": our_processes,
    "preset": our_preset,
    "peer_sb3": against_sb3,
    "peer_flower": against_flower,
    "peer_torch_tutorial": against_torch_tutorial,
    "peer_gymnax": against_gymnax,
}


class Effort(NamedTuple):
    """How long to repeat a call."""

    min_calls: int = 5
    min_seconds: float = 1.0
    max_calls: int = 50


class Memory(NamedTuple):
    """Fields of `Measurement`."""

    peak_rss_mb: float
    compile_rss_mb: float
    peak_device_mb: float | None


def measure(setting: Setting, effort: Effort = Effort()) -> Measurement:
    """Compiles, warms up, and times calls of the work and of a matrix product in turns.

    In turns, because a shared machine changes its speed: the share of the bound compares what ran side by side. The
    memory is read before the first product, which has buffers of its own.

    Args:
        setting: what to measure; needs as many devices as it says.
        effort: at least `min_calls` calls and `min_seconds` of work, at most `max_calls` calls.
    """
    if len(jax.devices()) < setting.num_devices:
        raise ValueError(f"num_devices must be at most {len(jax.devices())}, got {setting.num_devices}")
    work = _WORKS[setting.work](setting)
    compile_rss_mb = _machine.peak_rss_mb()
    for _ in range(2):  # the first call pays for page faults, the second for what the allocator learnt
        work.call()
    memory = Memory(_machine.peak_rss_mb(), compile_rss_mb, _machine.peak_device_mb())
    product = work if setting.work == "matmul" else matmul(setting)
    product.call()
    reference = work.reference() if work.reference else None
    try:
        seconds, product_seconds, reference_seconds = _in_turns(work, product, reference, effort)
    finally:
        work.close()
        if reference:
            reference.close()
    over_reference = None
    if reference:
        scale = _amount(work, reference) / _amount(reference, work)
        over_reference = statistics.median(
            scale * theirs / ours for ours, theirs in zip(seconds, reference_seconds, strict=True)
        )
        work = work._replace(versions={**work.versions, **reference.versions})
    matmul_gflops = product.flop / statistics.median(product_seconds) / 1e9
    return _measurement(setting, work, seconds, matmul_gflops, memory, over_reference)


def _in_turns(work: Work, product: Work, reference: Work | None, effort: Effort) -> tuple[list[float], ...]:
    """Seconds of the calls of each; two first of the reference, and one before each product, do not count."""
    if reference:
        reference.call()
        reference.call()
    seconds, product_seconds, reference_seconds = [], [], []
    while len(seconds) < effort.min_calls or (sum(seconds) < effort.min_seconds and len(seconds) < effort.max_calls):
        product.call()  # the first one after a call of half a minute takes up to twice its time
        product_seconds.append(_timed(product.call))
        seconds.append(_timed(work.call))
        if reference:
            reference_seconds.append(_timed(reference.call))
    return seconds, product_seconds, reference_seconds


def _amount(work: Work, other: Work) -> int:
    """What a call does, in a unit that both have: of agents that learn the same thing, updates; else steps."""
    return work.agent_updates if work.agent_updates and other.agent_updates else work.env_steps


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _measurement(
    setting: Setting,
    work: Work,
    seconds: list[float],
    matmul_gflops: float,
    memory: Memory,
    over_reference: float | None,
) -> Measurement:
    median = statistics.median(seconds)
    env_steps = work.env_steps / median if work.env_steps else None
    per_step = work.flop / work.env_steps if work.env_steps and work.flop else None
    return Measurement(
        setting=setting,
        flags=_machine.flags(),
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_revision=_machine.git_revision(),
        machine=f"{platform.system()} {platform.machine()}",
        cpu_model=_machine.cpu_model(),
        num_cores=_machine.num_cores(),
        num_physical_cores=_machine.num_physical_cores(),
        device=_machine.device(),
        versions=_machine.versions() | dict(work.versions),
        compile_seconds=work.compile_seconds,
        seconds=median,
        seconds_all=tuple(seconds),
        env_steps_per_second=env_steps,
        machine_rate=(work.flop + work.bytes_moved) / median / 1e9 if setting.unit else None,
        agent_updates_per_second=work.agent_updates / median if work.agent_updates else None,
        **memory._asdict(),
        matmul_gflops=matmul_gflops,
        flop_per_step=per_step,
        share_of_bound=env_steps * per_step / (matmul_gflops * 1e9) if env_steps and per_step else None,
        over_reference=over_reference,
    )


def in_process_of_its_own(setting: Setting, effort: Effort = Effort()) -> Measurement:
    """Measures in a new interpreter: its memory is this setting's alone, and its devices are as many as it asks for.

    Raises:
        RuntimeError: the measurement failed; the text is the other process's error.
    """
    request = json.dumps({"setting": dataclasses.asdict(setting), "effort": effort._asdict()})
    command = [sys.executable, "-m", "bench._measure", request]
    process = subprocess.run(command, cwd=_machine.ROOT, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise RuntimeError(f"measuring {setting} failed:\n{process.stderr.strip()}")
    return Measurement.from_json(process.stdout.splitlines()[-1])


def default_num_devices() -> int:
    """One CPU device per core, or all accelerators; asked in a process that ends and so holds no accelerator."""
    code = "import jax; print(0 if jax.default_backend() == 'cpu' else jax.device_count())"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(found.stdout.splitlines()[-1]) or _machine.num_cores()


def _main() -> None:
    request = json.loads(sys.argv[1])
    fields = request["setting"]
    setting = Setting(**{**fields, "hidden_sizes": tuple(fields["hidden_sizes"])})
    jax.config.update("jax_num_cpu_devices", setting.num_devices)  # before the first use of JAX
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # as `use_all_cores` does
    print(measure(setting, Effort(**request["effort"])).to_json())


if __name__ == "__main__":
    _main()
