"""Random numbers and orders that cost little: an agent draws several numbers in every step of its environments."""

import math

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl


_WEYL, _OTHER_WEYL = 0x9E3779B9, 0x85EBCA6B  # odd: what they multiply stays distinct


def quick(key: jax.Array) -> jax.Array:
    """The same key for a cheap generator: `jax.random` draws from it as from any other, ten times as fast on a CPU.

    A word is f(c a + k0) xor g(c b xor k1), where c counts the words of a call, (k0, k1) is the key, a and b are odd,
    and f and g are invertible mixers of 32 bits; `split` and `fold_in` mix both words of the key with the number. It is
    meant for simulation, where thousands of keys make some thousand words each, and is no secret generator: derive keys
    that must not meet, such as those of agents and rounds, with the default generator, and call this last.

    Args:
        key: a typed key of the default generator, of any shape.

    Reference:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011 (counter-based generators); Steele, Lea,
        Flood, "Fast splittable pseudorandom number generators", 2014 (mixed Weyl sequences); the mixers' constants are
        those that C. Wellons's search of 2018 and its successors found least biased.
    """
    # Other generators have longer keys, whose first two words tell them apart as well.
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl=_GENERATOR)


def permutation(key: jax.Array, size: int) -> jax.Array:
    """The numbers 0 to size - 1 in random order, i32[size]: `jax.random.permutation`, two to five times as fast.

    What XLA sorts quickly are single integers: a word holds random bits and, below them, a position. Further sorts of
    what came out add bits (a radix sort) until there are at least twice as many as a position has. Two numbers keep
    their order where all their bits agree: on average, less than one of the size (size - 1) / 2 pairs.

    Args:
        key: a typed key of any generator.
        size: how many, at most 2^31.
    """
    below = max(1, (size - 1).bit_length())  # bits of a position
    position = jax.lax.iota(jnp.uint32, size)
    mask = jnp.uint32((1 << below) - 1)
    digits = jax.random.bits(key, (-(-2 * below // (32 - below)), size), jnp.uint32) & ~mask
    order = None
    for digit in digits:
        now = jnp.sort(digit | position) & mask
        order = now if order is None else order[now]
    assert order is not None
    return order.astype(jnp.int32)


def _mix(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _mix_otherwise(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0x735A2D97)
    return x ^ (x >> 15)


def _words(key: jax.Array, count: jax.Array) -> jax.Array:
    return _mix(count * jnp.uint32(_WEYL) + key[0]) ^ _mix_otherwise(count * jnp.uint32(_OTHER_WEYL) ^ key[1])


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    if bit_width == 64:
        high, low = (_words(key, 2 * count + i).astype(jnp.uint64) for i in (0, 1))
        return high << 32 | low
    words = _words(key, count)
    return words if bit_width == 32 else (words >> (32 - bit_width)).astype(f"uint{bit_width}")


def _fold_in(key: jax.Array, data: jax.Array | int) -> jax.Array:
    data = jnp.asarray(data).astype(jnp.uint32)
    first = _mix(_mix_otherwise(data * jnp.uint32(_WEYL) + key[0]) ^ key[1])
    second = _mix_otherwise((_mix(data * jnp.uint32(_OTHER_WEYL) ^ key[1]) + key[0]) ^ first)
    return jnp.stack([first, second])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # Other numbers than people count with, so that a split and a `fold_in` of one key do not meet.
    numbers = jax.lax.iota(jnp.uint32, math.prod(shape)) + jnp.uint32(0xA5000000)
    return jax.vmap(_fold_in, (None, 0))(key, numbers).reshape(*shape, 2)


def _seed(seed: jax.Array) -> jax.Array:
    return _fold_in(jnp.zeros(2, jnp.uint32), seed)


_GENERATOR = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in, name="quick", tag="quick"
)
