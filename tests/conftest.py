"""What every test runs under: four CPU devices, no silent rank promotion, no display. Warnings are errors."""

import os
from collections.abc import Iterator

import jax
import pytest


os.environ.setdefault("MPLBACKEND", "Agg")
# Both before the first computation: devices are counted once per process.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs one test in float64; arrays made outside of it keep their float32."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
