"""Actor-critic networks as flax modules."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ._mlp import dense_stack


class Dense(nn.Module):
    """Holds the parameters of one dense layer; `dense_stack` computes with them."""

    width: int
    gain: float
    initialization: str

    @nn.compact
    def __call__(self, input_size: int) -> tuple[jax.Array, jax.Array]:
        """Returns kernel `f32[in, out]` and bias `f32[out]`."""
        dtype = jnp.result_type(float)
        if self.initialization == "orthogonal":
            kernel, bias = nn.initializers.orthogonal(self.gain), nn.initializers.zeros_init()
        else:
            kernel = bias = uniform(1 / math.sqrt(input_size))
        return (
            self.param("kernel", kernel, (input_size, self.width), dtype),
            self.param("bias", bias, (self.width,), dtype),
        )


def uniform(bound: float) -> nn.initializers.Initializer:
    """Uniform in [-bound, bound]."""
    return lambda key, shape, dtype=None: jax.random.uniform(key, shape, dtype, -bound, bound)


class ActorCritic(nn.Module):
    """A perceptron with two heads, what the actor wants and what the critic expects.

    The parameters are `trunk_0, trunk_1, ..., actor, critic`, or `actor_trunk_0, ..., critic_trunk_0, ...` where the
    trunks are separate, each with `kernel` and `bias`; and `log_std` where the actions are continuous.

    Args:
        num_outputs: outputs of the actor.
        hidden_sizes: widths of the hidden layers.
        activation: one of `ACTIVATIONS`.
        shared_trunk: whether actor and critic share the hidden layers.
        initial_log_std: log standard deviation of every action dimension at the beginning; None: no such parameter.
        fast_gradient: see `dense_stack`.
        initialization: "orthogonal": hidden kernels with gain sqrt(2), the actor's head with gain 0.01 (nearly uniform
            actions at the beginning), the critic's with 1, biases zero; "uniform": everything in +-1 / sqrt(inputs),
            the habit of PyTorch's linear layers.

    Reference: Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
        2014 (orthogonal); Andrychowicz et al., "What matters for on-policy deep actor-critic methods?", 2021, section
        3.2 (the small head of the actor).
    """

    num_outputs: int
    hidden_sizes: Sequence[int]
    activation: str
    shared_trunk: bool
    initial_log_std: float | None
    fast_gradient: bool
    initialization: str

    @nn.compact
    def __call__(self, observation: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Evaluates both heads.

        Args:
            observation: `f32[..., d]`.

        Returns:
            the actor's outputs `f32[..., num_outputs]`, the value `f32[...]`, and log_std `f32[num_outputs]` or None.
        """
        sizes = [observation.shape[-1], *self.hidden_sizes]

        def layer(name: str, input_size: int, width: int, gain: float) -> tuple[jax.Array, jax.Array]:
            return Dense(width, gain, self.initialization, name=name)(input_size)

        def trunk(name: str) -> list[tuple[jax.Array, jax.Array]]:
            steps = enumerate(itertools.pairwise(sizes))
            return [layer(f"{name}_{number}", *step, math.sqrt(2)) for number, step in steps]

        def stack(*layers: tuple[jax.Array, jax.Array]) -> jax.Array:
            return dense_stack(layers, observation, self.activation, self.fast_gradient)

        hidden = [trunk("trunk")] if self.shared_trunk else [trunk("actor_trunk"), trunk("critic_trunk")]
        actor = layer("actor", sizes[-1], self.num_outputs, 0.01)
        critic = layer("critic", sizes[-1], 1, 1.0)
        if self.shared_trunk:
            # Both heads in one product: acting costs one small matrix less.
            heads: Any = tuple(jnp.concatenate(parts, -1) for parts in zip(actor, critic, strict=True))
            both = stack(*hidden[0], heads)
            outputs, value = both[..., :-1], both[..., -1]
        else:
            outputs, value = stack(*hidden[0], actor), stack(*hidden[1], critic)[..., 0]
        if self.initial_log_std is None:
            return outputs, value, None
        start = nn.initializers.constant(self.initial_log_std)
        return outputs, value, self.param("log_std", start, (self.num_outputs,), jnp.result_type(float))


class Perceptron(nn.Module):
    """A perceptron with one head; the parameters are `layer_0, layer_1, ..., head`, each with `kernel` and `bias`.

    Args:
        num_outputs: of the head.
        hidden_sizes: widths of the hidden layers.
        activation: one of `ACTIVATIONS`.
        head_gain: of the head's orthogonal kernel.
        fast_gradient: see `dense_stack`.
        initialization: "orthogonal" or "uniform", as in `ActorCritic`.
    """

    num_outputs: int
    hidden_sizes: Sequence[int]
    activation: str
    head_gain: float
    fast_gradient: bool
    initialization: str

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """`f32[..., d]` -> `f32[..., num_outputs]`."""
        sizes = [inputs.shape[-1], *self.hidden_sizes]
        hidden = [
            Dense(width, math.sqrt(2), self.initialization, name=f"layer_{number}")(input_size)
            for number, (input_size, width) in enumerate(itertools.pairwise(sizes))
        ]
        head = Dense(self.num_outputs, self.head_gain, self.initialization, name="head")(sizes[-1])
        return dense_stack((*hidden, head), inputs, self.activation, self.fast_gradient)
