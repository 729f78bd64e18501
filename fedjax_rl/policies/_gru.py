"""Gated recurrent units: one step, many steps, and the network with an actor's and a critic's head."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ._mlp import dense_stack
from ._networks import Dense, uniform


Memory = tuple[jax.Array, ...]


def gru_step(inputs: jax.Array, memory: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """One step of a gated recurrent unit of H cells.

        r = sigmoid(x_r + U_r h),   z = sigmoid(x_z + U_z h),   n = tanh(x_n + r (U_n h + b)),   h' = (1 - z) n + z h

    Args:
        inputs: (x_r, x_z, x_n) `f32[..., 3 H]`, which know nothing of the memory.
        memory: h `f32[..., H]`.
        kernel: (U_r, U_z, U_n) side by side, `f32[H, 3 H]`.
        bias: b `f32[H]`.

    Returns:
        h' `f32[..., H]`.

    Reference: Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
        translation", 2014, section 2.3, with the reset gate behind the product as in cuDNN.
    """
    size = memory.shape[-1]
    recalled = memory @ kernel
    reset, keep = jnp.split(jax.nn.sigmoid(inputs[..., : 2 * size] + recalled[..., : 2 * size]), 2, -1)
    bias = jnp.expand_dims(bias, range(memory.ndim - 1))
    new = jnp.tanh(inputs[..., 2 * size :] + reset * (recalled[..., 2 * size :] + bias))
    return (new + keep * (memory - new)).astype(memory.dtype)


def gru_unroll(
    inputs: jax.Array, memory: jax.Array, starts: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """`gru_step` over time, with h = 0 where an episode starts.

    Args:
        inputs: `f32[T, ..., 3 H]`.
        memory: before the first step, `f32[..., H]`.
        starts: `bool[T, ...]`.
        kernel: as in `gru_step`.
        bias: as in `gru_step`.

    Returns:
        h' of every step, `f32[T, ..., H]`.
    """

    def step(memory: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        inputs, start = xs
        memory = gru_step(inputs, jnp.where(start[..., None], 0, memory), kernel, bias)
        return memory, memory

    return lax.scan(step, memory, (inputs, starts))[1]


class _Unit(nn.Module):
    """Holds the parameters of one gated recurrent unit."""

    memory_size: int
    initialization: str

    @nn.compact
    def __call__(self, input_size: int) -> tuple[jax.Array, ...]:
        """Returns the inputs' kernel `f32[in, 3 H]` and bias `f32[3 H]`, the memory's `f32[H, 3 H]` and `f32[H]`."""
        dtype, size = jnp.result_type(float), self.memory_size
        if self.initialization == "orthogonal":
            kernel, bias = _orthogonal_gates, nn.initializers.zeros_init()
        else:
            kernel = bias = uniform(1 / math.sqrt(size))
        return (
            self.param("input_kernel", kernel, (input_size, 3 * size), dtype),
            self.param("input_bias", bias, (3 * size,), dtype),
            self.param("memory_kernel", kernel, (size, 3 * size), dtype),
            self.param("memory_bias", bias, (size,), dtype),
        )


def _orthogonal_gates(key: jax.Array, shape: tuple[int, int], dtype: Any = None) -> jax.Array:
    """Three orthogonal matrices side by side, one for each gate."""
    draw = nn.initializers.orthogonal()
    return jnp.concatenate([draw(k, (shape[0], shape[1] // 3), dtype) for k in jax.random.split(key, 3)], -1)


class RecurrentActorCritic(nn.Module):
    """A perceptron, a gated recurrent unit behind it, and two heads that read its memory.

    The parameters are `trunk_0, ..., trunk_memory, actor, critic`, or `actor_trunk_0, ..., actor_trunk_memory,
    critic_trunk_0, ...` where actor and critic share nothing; and `log_std` where the actions are continuous.

    Args:
        num_outputs: outputs of the actor.
        hidden_sizes: widths of the hidden layers before the unit.
        memory_size: cells (H) of each unit.
        activation: one of `ACTIVATIONS`, of the hidden layers.
        shared_trunk: whether actor and critic share hidden layers and memory.
        initial_log_std: as in `ActorCritic`.
        fast_gradient: see `dense_stack`.
        initialization: "orthogonal" as in `ActorCritic`, every gate with gain 1; "uniform": a unit's parameters in
            +-1 / sqrt(H), the others as in `ActorCritic`.
    """

    num_outputs: int
    hidden_sizes: Sequence[int]
    memory_size: int
    activation: str
    shared_trunk: bool
    initial_log_std: float | None
    fast_gradient: bool
    initialization: str

    @nn.compact
    def __call__(
        self, memory: Memory, observation: jax.Array, starts: jax.Array | None = None
    ) -> tuple[Memory, jax.Array, jax.Array, jax.Array | None]:
        """Evaluates both heads, at one step or, where `starts` is given, at many.

        Args:
            memory: of one trunk, or of the actor's and the critic's, `f32[..., H]` each.
            observation: `f32[..., d]`, or `f32[T, ..., d]`.
            starts: `bool[T, ...]` where an episode starts.

        Returns:
            the memories after each step, the actor's outputs `f32[..., num_outputs]`, the value `f32[...]`, and log_std
            `f32[num_outputs]` or None; with a leading axis T where `starts` is given.
        """
        sizes = [observation.shape[-1], *self.hidden_sizes]

        def layer(name: str, input_size: int, width: int, gain: float) -> tuple[jax.Array, jax.Array]:
            return Dense(width, gain, self.initialization, name=name)(input_size)

        def remember(name: str, memory: jax.Array) -> jax.Array:
            steps = enumerate(itertools.pairwise(sizes))
            hidden = [layer(f"{name}_{number}", *step, math.sqrt(2)) for number, step in steps]
            unit = _Unit(self.memory_size, self.initialization, name=f"{name}_memory")
            kernel, bias, *recurrent = unit(sizes[-1])
            # All that does not depend on the memory is computed for all steps at once.
            inputs = dense_stack((*hidden, (kernel, bias)), observation, self.activation, self.fast_gradient)
            if starts is None:
                return gru_step(inputs, memory, *recurrent)
            return gru_unroll(inputs, memory, starts, *recurrent)

        names = ("trunk",) if self.shared_trunk else ("actor_trunk", "critic_trunk")
        memories = tuple(remember(*pair) for pair in zip(names, memory, strict=True))

        def head(name: str, memory: jax.Array, width: int, gain: float) -> jax.Array:
            stack = (layer(name, self.memory_size, width, gain),)
            return dense_stack(stack, memory, self.activation, self.fast_gradient)

        outputs = head("actor", memories[0], self.num_outputs, 0.01)
        value = head("critic", memories[-1], 1, 1.0)[..., 0]
        if self.initial_log_std is None:
            return memories, outputs, value, None
        start = nn.initializers.constant(self.initial_log_std)
        return memories, outputs, value, self.param("log_std", start, (self.num_outputs,), jnp.result_type(float))
