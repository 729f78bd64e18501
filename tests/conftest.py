"""What every test runs under: four CPU devices, no silent rank promotion, no display. Warnings are errors."""

import os
from collections.abc import Iterator
from pathlib import Path


# Programs are small here, and most of the time goes into compiling them: without optimisation, and with XLA's older
# emitters, it is half of it. `XLA_FLAGS= make test` compiles as users do.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

import jax
import pytest


os.environ.setdefault("MPLBACKEND", "Agg")
# Both before the first computation: devices are counted once per process.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_cpu_enable_async_dispatch", False)  # see use_all_cores
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def bounded_number_of_programs() -> Iterator[None]:
    """Forgets compiled programs before they use up the memory maps that a process may have (65 530 on Linux)."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs one test in float64; arrays made outside of it keep their float32."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
