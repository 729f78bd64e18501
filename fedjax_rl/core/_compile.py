"""What programs are compiled with."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._component import is_concrete


def compiler_options(backend: str, *, once: bool = False) -> dict[str, Any] | None:
    """What rounds are compiled with on a backend such as "cpu"; a comparison should use the same.

    Args:
        backend: of JAX.
        once: for a program that runs once, such as that of the first state: what counts is how soon it runs.
    """
    if backend != "cpu":
        return None
    # LLVM's higher levels cost a third of the compile time, and nothing here is faster with them.
    level = {"xla_backend_optimization_level": 1}
    if once:
        # XLA's older emitters: 60 % less to compile, and up to twice as long to run.
        return {**level, "xla_cpu_use_fusion_emitters": False}
    # Full-width vectors are worth 20-25 % on AVX-512 machines, and XLA does not use them by itself.
    return {**level, "xla_cpu_prefer_vector_width": 512}


def jit(*, once: bool = False, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`jax.jit` with these options, which JAX takes at the outermost level only: inside a trace, without them.

    Args:
        once: of `compiler_options`.
        kwargs: of `jax.jit`.
    """

    def decorate(f: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache  # the backend is not asked before the first call
        def jitted(backend: str | None) -> Callable[..., Any]:
            options = None if backend is None else compiler_options(backend, once=once)
            return jax.jit(f, compiler_options=options, **kwargs)

        @functools.wraps(f)
        def call(*args: Any, **named: Any) -> Any:
            # What a trace closes over is concrete inside it too; what is made there is not.
            alone = is_concrete((args, named, jnp.zeros(())))
            return jitted(jax.default_backend() if alone else None)(*args, **named)

        return call

    return decorate
