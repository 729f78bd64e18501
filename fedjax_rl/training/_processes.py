"""The devices and processes of a run. One process by default; several, on one host or many, run the same program
together, each with a part of the agents. The first of them leads: it alone writes files and reports."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils


Args = ParamSpec("Args")
T = TypeVar("T")
AUTO = "auto"
CACHE_VARIABLE = "FEDJAX_RL_CACHE_DIR"


class PeerLost(RuntimeError):
    """Another process of the run has gone, and with it a part of the agents."""


def use_all_cores() -> None:
    """Asks JAX for one CPU device per core, before its first use; too late is no error, only slower.

    Programs are then run one after another: two that XLA started together wait for each other for ever where the cores
    are busy and devices exchange something (jaxlib 0.10, reproduced by slices of sharded arrays under load).
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if getattr(jax.config, "jax_num_cpu_devices", -1) > 0:  # somebody has decided
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:  # JAX has run already
        return


def use_compilation_cache() -> None:
    """Keeps compiled programs in the folder that the environment variable FEDJAX_RL_CACHE_DIR names, if it does.

    A program that is there already is loaded in a fraction of the time it takes to compile. Not the default: the cache
    grows without bound, and on some processors JAX refuses every entry of it.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def join_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several that train together; does nothing without a coordinator.

    Args:
        coordinator: host and port of process 0; "auto": JAX finds all three in the environment of the batch system
            (SLURM, Open MPI, Cloud TPU).
        num_processes: how many there are.
        process_id: which this is, counted from 0.

    Raises:
        ValueError: the arguments do not fit together, or the processes do not find each other.
    """
    numbers = {"num_processes": num_processes, "process_id": process_id}
    given = [name for name, value in numbers.items() if value is not None]
    if coordinator is None:
        if given:
            raise ValueError(f"coordinator must be given with {given[0]}; write the host and port of process 0")
        return
    if coordinator != AUTO:
        if num_processes is None or process_id is None:
            raise ValueError("num_processes and process_id must be given with coordinator, unless it is 'auto'")
        if not 0 <= process_id < num_processes:
            raise ValueError(f"process_id must lie in [0, {num_processes}), the number of processes, got {process_id}")
        if not coordinator.rpartition(":")[2].isdigit() or ":" not in coordinator:
            raise ValueError(f"coordinator must be HOST:PORT or 'auto', got {coordinator!r}")
    elif given:
        raise ValueError(f"{given[0]} must be left out with coordinator 'auto', which finds it")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(None if coordinator == AUTO else coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"coordinator {coordinator!r}: the processes did not find each other: {reason[:300]}"
        ) from error


def leads() -> bool:
    """Whether this process writes and reports."""
    return jax.process_index() == 0


def agree(*numbers: int | bool) -> list[tuple[int, ...]]:
    """Each number as every process has it, first the leader's; all of them must call it together."""
    if jax.process_count() == 1:
        return [(int(number),) for number in numbers]
    # Whole numbers up to 2^31: without 64 bits nothing longer travels.
    gathered = multihost_utils.process_allgather(np.array(numbers, np.int32))
    return [tuple(int(x) for x in column) for column in np.asarray(gathered).T]


def leader_first(action: Callable[[], T]) -> T:
    """Lets the leader act before the others, so that they find what it has made.

    Raises:
        ValueError: on the others, where the leader has failed; it raises its own error.
    """
    if leads():
        try:
            result = action()
        except BaseException:
            agree(False)
            raise
        agree(True)
        return result
    ((succeeded, *_),) = agree(True)
    if not succeeded:
        raise ValueError("process 0 has refused; it says why")
    return action()


def with_peers(function: Callable[Args, T]) -> Callable[Args, T]:
    """What needs all processes, such that a failed exchange raises `PeerLost`: one of them has died."""

    @functools.wraps(function)
    def call(*args: Args.args, **kwargs: Args.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            reason = " ".join(str(error).split())
            if jax.process_count() > 1 and any(word in reason for word in ("Gloo", "NCCL", "nccl", "UNAVAILABLE")):
                raise PeerLost(
                    f"process {jax.process_index()} of {jax.process_count()}: another process of this run has died "
                    f"({reason[:160]}); start all of them again, with `fedjax-rl resume`, or a sweep with --resume"
                ) from error
            raise

    return call


def exit_at_once(code: int) -> NoReturn:
    """Ends a process whose peers are gone: an ordinary exit would wait for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def describe_devices(mesh: Any) -> str:
    """ "2 cpu devices", and of how many processes."""
    count = 1 if mesh is None else mesh.size
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{count} {jax.default_backend()} device{'s' if count > 1 else ''}{processes}"
