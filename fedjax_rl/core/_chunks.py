"""How many agents to work on at a time, where nobody says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from . import tree
from ._processes import least


# Measured on CPUs over 126 shapes, within 10 % of the best: rows enough to fill the vectors, and models that stay in
# the cache with their gradients and moments.
_ROWS = 400
_CACHE_BYTES = 16 * 2**20  # a core's share of the cache there, taken where the system tells nothing
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# Share of an accelerator's memory for what a chunk leaves lying about.
_MEMORY_SHARE = 0.5


def automatic_chunk_size(round_: Any, trace: Callable[[], Any], memory: Callable[[], int]) -> int:
    """Agents per `vmap`, from shapes alone.

    Args:
        round_: the round.
        trace: () -> jaxpr of one agent's round; used on accelerators only, for it takes time.
        memory: () -> bytes of one device; asked on accelerators only.
    """
    if jax.default_backend() == "cpu":
        shared = jax.eval_shape(lambda key: round_.learner.init_shared(key, round_.env), jax.random.key(0))
        model = jax.eval_shape(round_.learner.broadcast, shared)
        model_bytes = max(1, tree.num_bits(model) // 8)
        size = min(_ROWS // round_.learner.num_envs, least(cache_bytes()) // (3 * model_bytes))
    else:
        size = int(_MEMORY_SHARE * memory()) // max(1, peak_bytes(trace()))
    return max(1, min(round_.num_agents, size))


def cache_bytes() -> int:
    """A core's share of the largest cache; at most 32 MiB, for a share of a machine is told of all of its caches."""
    try:
        shares = [_share(cache) for cache in _CACHES.glob("index*")]
    except (OSError, ValueError, ZeroDivisionError):
        shares = []
    return min(max(shares, default=_CACHE_BYTES), 2 * _CACHE_BYTES)


def _share(cache: Path) -> int:
    """Of one core, from what Linux tells of a cache: "32768K", and "ff,00000003", a bit per core that uses it."""
    size, cores = (cache / "size").read_text().strip(), (cache / "shared_cpu_map").read_text().strip()
    if not size.endswith("K"):
        raise ValueError(f"size of a cache: {size!r}")
    return int(size[:-1]) * 1024 // int(cores.replace(",", ""), 16).bit_count()


def peak_bytes(jaxpr: Any) -> int:
    """Most bytes that are alive at a time when a program runs as written; compilers fuse, and need less.

    Args:
        jaxpr: a `ClosedJaxpr`, or a plain one.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    last_use = {}
    for number, equation in enumerate(jaxpr.eqns):
        for var in equation.invars:
            if not hasattr(var, "val"):  # a literal
                last_use[var] = number
    for var in jaxpr.outvars:
        if not hasattr(var, "val"):
            last_use[var] = len(jaxpr.eqns)
    alive = sum(_num_bytes(var) for var in (*jaxpr.invars, *jaxpr.constvars))
    peak = alive
    for number, equation in enumerate(jaxpr.eqns):
        alive += sum(_num_bytes(var) for var in equation.outvars)
        inside = max((peak_bytes(inner) for inner in _inner(equation)), default=0)
        peak = max(peak, alive + inside)
        gone = {var for var in equation.invars if not hasattr(var, "val") and last_use[var] == number}
        unused = {var for var in equation.outvars if var not in last_use}
        alive -= sum(_num_bytes(var) for var in gone | unused)
    return peak


def _inner(equation: Any) -> list[Any]:
    """The programs that an equation calls: bodies of loops, branches."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr") or hasattr(item, "eqns"):
                found.append(item)
    return found


def _num_bytes(var: Any) -> int:
    aval = var.aval
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return 8 * aval.size
    return aval.size * aval.dtype.itemsize
