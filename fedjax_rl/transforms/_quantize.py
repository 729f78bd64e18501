"""Few bits per number, unbiased."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Envelope, Transform, check, check_count, component, is_concrete, static, tree


@component
class Quantize(Transform):
    """Rounds every leaf at random to b-bit integers times a scale; build it with `quantize`."""

    bits: int = static()

    def encode(self, key: jax.Array, agent: Any, envelope: Envelope, download: Any) -> tuple[Any, Envelope]:
        leaves, structure = jax.tree.flatten(envelope.payload)
        levels = 2 ** (self.bits - 1) - 1  # integers -levels, ..., levels
        rounded, size = [], 0
        for i, x in enumerate(leaves):
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                rounded.append(x)  # integers are counts and residues, which nothing may blur
                size += tree.num_bits(x)
                continue
            scale = jnp.max(jnp.abs(x), initial=0) / levels
            position = x / jnp.where(scale > 0, scale, 1)
            below = jnp.floor(position)
            up = jax.random.uniform(jax.random.fold_in(key, i), x.shape, x.dtype) < position - below
            # The rounded position may leave the range by the last digit of the division.
            integer = jnp.clip(below + up, -levels, levels)
            rounded.append(scale * integer)
            size += x.size * self.bits + 32  # the scale travels in single precision
        payload = jax.tree.unflatten(structure, rounded)
        return agent, envelope.resized(payload, size, tree.num_bits(envelope.payload))


def quantize(bits: int) -> Transform:
    """Sends b-bit integers and one scale per leaf; rounding is random, so that the message is right on average.

        Q(x) = s (floor(x / s) + B),  B ~ Bernoulli(x / s - floor(x / s)),  s = |x|_inf / (2^(b-1) - 1)

    so E[Q(x)] = x and |Q(x) - x| < s; an entry's variance is at most s^2 / 4, and 0 where x / s is an integer. A leaf
    of n numbers takes b n + 32 bits. Integer leaves travel as they are.

    Args:
        bits: b >= 2 per number, its sign included; at most 24, from where on single precision is no longer finer.

    Reference: Alistarh et al., "QSGD: Communication-efficient SGD via gradient quantization and encoding", NeurIPS
        2017, section 3.1, with the largest entry as the scale and plain integers instead of Elias codes.
    """
    check_count("bits", bits, 2, remedy="one bit has no room for a sign and a zero")
    if is_concrete(bits):
        check("bits", bits, lambda b: b <= 24, "must be at most 24", "leave quantize out for full precision")
    return Quantize(int(bits))
