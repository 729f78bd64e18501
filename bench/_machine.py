"""Where a measurement was taken."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import jax
import psutil


ROOT = Path(__file__).parents[1]
FLAGS = ("JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_PLATFORMS", "LIBTPU_INIT_ARGS", "XLA_FLAGS")
PACKAGES = ("jax", "jaxlib", "numpy", "gymnax", "fedjax_rl")


def git_revision() -> str:
    """The commit checked out, with "-dirty" where tracked files differ; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu_model() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """Logical cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_physical_cores() -> int | None:
    """Cores without hyper-threads, of the whole machine; None where the system does not tell."""
    return psutil.cpu_count(logical=False)


def flags() -> dict[str, str]:
    """The environment variables that are set and change the compiler, the device or the number format."""
    return {name: os.environ[name] for name in FLAGS if os.environ.get(name)}


def versions() -> dict[str, str]:
    """Versions of what decides the speed."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def device() -> str:
    """Kind of the devices, such as "cpu" or "NVIDIA H100"."""
    return jax.devices()[0].device_kind


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far [MB]."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: a new process inherits the maximum of the one that started it.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def peak_device_mb() -> float | None:
    """Largest memory in use on the first device so far [MB]; None where the device does not count."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 1e6 if stats and "peak_bytes_in_use" in stats else None
