"""What can be timed, and what tells what the machine can do: a matrix product, multiply-adds, a copy."""

import itertools
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fedjax_rl.core import compiler_options

from ._setting import Setting


class Work(NamedTuple):
    """Something compiled that can be called again and again."""

    call: Callable[[], object]  # returns when the result is there
    compile_seconds: float
    flop: float  # of matrix products, or of `fma`, per call
    env_steps: int = 0  # per call; 0 where there is no environment
    agent_updates: int = 0  # per call; 0 where nothing learns
    bytes_moved: float = 0.0  # per call, to and from memory; 0 where that is not what is measured
    reference: "Callable[[], Work] | None" = None  # builds the same work done plainly, to be called in turns with it
    versions: Mapping[str, str] = MappingProxyType({})  # of what is not of this process
    close: Callable[[], None] = lambda: None  # after the last call


def compiled(
    f: Callable[..., Any], *args: Any, donate: tuple[int, ...] = (), plain: bool = False
) -> tuple[Callable[..., Any], float]:
    """Compiles a function for arguments like these, with the library's options unless `plain`; and the seconds."""
    options = None if plain else compiler_options(jax.default_backend())
    begin = time.perf_counter()
    advance = jax.jit(f, donate_argnums=donate, compiler_options=options).lower(*args).compile()
    return advance, time.perf_counter() - begin


def repeated(play: Callable[..., Any], carry: Any, *, plain: bool = False) -> tuple[Callable[[], None], float]:
    """Compiles `play(key, carry) -> (carry, result)`; each call goes on where the last one stopped, with a new key.

    Returns:
        the call, and the seconds of its compilation.
    """
    advance, seconds = compiled(play, jax.random.key(0), carry, donate=(1,), plain=plain)
    count = 0

    def call() -> None:
        nonlocal carry, count
        count += 1
        carry, result = advance(jax.random.key(count), carry)
        jax.block_until_ready((carry, result))

    return call, seconds


def device_mesh(num_devices: int) -> Mesh:
    """The first devices along one axis, "devices"."""
    devices = jax.devices()[:num_devices]
    return jax.make_mesh((num_devices,), ("devices",), axis_types=(AxisType.Auto,), devices=devices)


def matmul(setting: Setting) -> Work:
    """One square float32 product per device, all devices at once: what this machine multiplies in JAX."""
    n, mesh = setting.matmul_size, device_mesh(setting.num_devices)
    shape = (setting.num_devices, n, n)
    matrices = jax.device_put(jnp.full(shape, 1 / n, jnp.float32), NamedSharding(mesh, P("devices")))

    def square(matrix: jax.Array) -> jax.Array:
        return (matrix[0] @ matrix[0])[None]

    product, seconds = compiled(
        jax.shard_map(square, mesh=mesh, in_specs=P("devices"), out_specs=P("devices")), matrices
    )
    return Work(lambda: jax.block_until_ready(product(matrices)), seconds, 2.0 * setting.num_devices * n**3)


def fma(setting: Setting) -> Work:
    """Multiply-adds of float32 numbers that stay in a core's first cache: the most this machine computes in JAX."""
    chains, depth, turns, length = 8, 64, 1000, 4096  # several chains, for each waits for its last result

    def chain(_: int, x: jax.Array) -> jax.Array:
        values = [x + number / 8 for number in range(chains)]
        for _ in range(depth):
            values = [value * 0.5 + 0.25 for value in values]
        return sum(values[1:], values[0]) / chains

    mesh = device_mesh(setting.num_devices)
    x = jax.device_put(jnp.full(setting.num_devices * length, 0.5, jnp.float32), NamedSharding(mesh, P("devices")))
    run, seconds = compiled(
        jax.shard_map(
            lambda x: jax.lax.fori_loop(0, turns, chain, x), mesh=mesh, in_specs=P("devices"), out_specs=P("devices")
        ),
        x,
    )
    flop = 2.0 * setting.num_devices * length * turns * chains * depth
    return Work(lambda: jax.block_until_ready(run(x)), seconds, flop)


def copy(setting: Setting) -> Work:
    """Reads and writes arrays far larger than caches: the bandwidth of the memory."""
    length = 2**25  # 128 MiB per device
    mesh = device_mesh(setting.num_devices)
    numbers = jax.device_put(jnp.zeros(setting.num_devices * length, jnp.float32), NamedSharding(mesh, P("devices")))
    increase, seconds = compiled(lambda x: x + 1, numbers, donate=(0,))

    def call() -> None:
        nonlocal numbers
        numbers = jax.block_until_ready(increase(numbers))

    return Work(call, seconds, 0.0, bytes_moved=2.0 * numbers.nbytes)


def forward_flop(setting: Setting, outputs: int = 2) -> float:
    """One evaluation of a shared-trunk actor-critic for CartPole: 4 inputs; a logit that decides, and a value."""
    sizes = (4, *setting.hidden_sizes, outputs)
    return sum(2.0 * rows * columns for rows, columns in itertools.pairwise(sizes))


def gradient_flop(setting: Setting, outputs: int = 2) -> float:
    """One gradient per step: forward, gradient of the weights, gradient of the inputs but for the first layer's."""
    return 3 * forward_flop(setting, outputs) - 2.0 * 4 * setting.hidden_sizes[0]
