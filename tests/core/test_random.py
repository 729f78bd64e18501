"""Quick numbers and orders: uniform, independent between words, keys and neighbours. Fixed keys: nothing here is flaky.

Bounds are stated as the probability that a good generator misses them.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import permutation, quick


KEY = quick(jax.random.key(0))


def words(keys, num_words):
    """u32[..., num_words], of one key or several."""
    draw = jax.jit(lambda key: jax.random.bits(key, (num_words,), jnp.uint32))
    return np.asarray(jax.vmap(draw)(keys) if keys.ndim else draw(keys))


def chi_square(values, num_bins):
    """How many standard deviations the chi-square statistic of equal bins is off."""
    counts = np.bincount(values.reshape(-1), minlength=num_bins)
    expected = values.size / num_bins
    statistic = np.sum((counts - expected) ** 2) / expected
    return (statistic - (num_bins - 1)) / np.sqrt(2 * (num_bins - 1))


def folded(num_keys, key=KEY):
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(num_keys))


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_bytes_are_uniform(shift):
    # One key with 2^22 words, and 2^12 keys with 2^10: 255 degrees of freedom; 5 deviations: 1e-6 each.
    for drawn in (words(KEY, 2**22), words(folded(2**12), 2**10)):
        assert abs(chi_square((drawn >> shift) & 0xFF, 256)) < 5


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 64])
def test_neighbours_are_independent(lag):
    # Joint law of the upper four bits (and of the lower ones) of words `lag` apart, and of keys `lag` apart.
    for drawn in (words(KEY, 2**22), words(folded(2**12), 2**10).T.reshape(-1)):
        for part in (drawn >> 28, drawn & 0xF):
            assert abs(chi_square(part[:-lag] * 16 + part[lag:], 256)) < 5


def test_every_bit_of_key_and_number_changes_half_of_the_bits():
    # 2^14 keys; a share of changed bits has deviation .0039; of 32 x 96 shares the largest stays below .0039 x 5.5
    # but with probability 1e-4.
    data = np.random.default_rng(0).integers(0, 2**32, (2**14, 3), dtype=np.uint32)

    def word(row):
        key = jax.random.wrap_key_data(row[:2], impl=jax.random.key_impl(KEY))
        return jax.random.bits(jax.random.fold_in(key, row[2]), (), jnp.uint32)

    draw = jax.jit(jax.vmap(word))
    before = np.asarray(draw(data))
    for column in range(3):
        for bit in range(32):
            flipped = data.copy()
            flipped[:, column] ^= np.uint32(1 << bit)
            changed = before ^ np.asarray(draw(flipped))
            shares = [np.mean((changed >> b) & 1) for b in range(32)]
            np.testing.assert_allclose(shares, 0.5, atol=5.5 * 0.0039)


def test_words_repeat_as_often_as_they_should():
    # A counter behind one invertible mixer would never repeat a word. 2^18 words: 8 pairs expected, of Poisson's law;
    # over 64 keys 512 +- 23, five deviations.
    repeats = sum(row.size - np.unique(row).size for row in words(folded(64), 2**18))
    assert abs(repeats - 512) < 5 * 23


def test_keys_do_not_meet():
    # 2^21 keys by splits, by numbers and one below the other: a random 64-bit key repeats with probability 1e-7.
    split = jax.random.split(KEY, 2**20)
    below = jax.jit(jax.vmap(lambda key: jax.random.split(key, 2)))(split[: 2**18]).reshape(-1)
    keys = jnp.concatenate([jax.random.key_data(k) for k in (split, folded(2**19), below)])
    packed = np.asarray(keys).astype(np.uint64) @ np.array([1, 2**32], np.uint64)
    assert len(np.unique(packed)) == len(packed) == 2**21


def test_moments_of_what_is_drawn_from_it():
    # 2^20 draws: five deviations of the mean and of the variance, and of the correlation with the next draw.
    uniform, normal = (np.asarray(f(KEY, (2**20,)), np.float64) for f in (jax.random.uniform, jax.random.normal))
    n = 2**20
    assert abs(uniform.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs(normal.mean()) < 5 / np.sqrt(n)
    assert abs(normal.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs(np.mean(normal[1:] * normal[:-1])) < 5 / np.sqrt(n)
    permuted = np.asarray(jax.random.permutation(KEY, 1000))
    assert sorted(permuted) == list(range(1000)) and np.any(permuted != np.arange(1000))


def test_draws_do_not_depend_on_how_they_are_computed(x64):
    keys = folded(5)
    one_by_one = np.stack([np.asarray(jax.random.uniform(k, (3, 2), jnp.float64)) for k in keys])
    together = jax.jit(jax.vmap(lambda k: jax.random.uniform(k, (3, 2), jnp.float64)))(keys)
    np.testing.assert_array_equal(one_by_one, together)
    assert len(np.unique(one_by_one)) == 30
    assert jax.random.bits(KEY, (4,), jnp.uint8).dtype == jnp.uint8


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 1024, 1025, 5000, 100_000])
def test_an_order_is_that_of_its_random_bits(size):
    # NumPy sorts by the random bits of every word; what came out before stays in order where they agree.
    order = np.asarray(jax.jit(permutation, static_argnums=1)(KEY, size))
    below = max(1, (size - 1).bit_length())
    num_words = next(n for n in range(1, 99) if n * (32 - below) >= 2 * below)
    drawn = np.asarray(jax.random.bits(KEY, (num_words, size), jnp.uint32)) >> below
    expected = np.arange(size)
    for word in drawn:
        expected = expected[np.argsort(word, kind="stable")]
    np.testing.assert_array_equal(order, expected)
    assert order.dtype == np.int32 and sorted(order) == list(range(size))


@pytest.mark.parametrize("key", [KEY, jax.random.key(0)], ids=["quick", "default"])
def test_all_orders_are_equally_likely(key):
    # 24 orders of 4 numbers and 120 of 5, 2^17 keys: 23 and 119 degrees of freedom; 5 deviations: 1e-4. Large orders:
    # where a number ends up is independent of it, of 2^16 numbers and 16 keys the correlations have deviation 2^-8.
    for size in (4, 5):
        orders = np.asarray(jax.vmap(lambda k, size=size: permutation(k, size))(folded(2**17, key)))
        ranks = np.unique(orders @ size ** np.arange(size), return_inverse=True)[1]
        assert ranks.max() == math.factorial(size) - 1 and abs(chi_square(ranks, math.factorial(size))) < 5
    large = np.asarray(jax.vmap(lambda k: permutation(k, 2**16))(folded(16, key)))
    for order in large:
        assert abs(np.corrcoef(order, np.arange(2**16))[0, 1]) < 5 * 2**-8
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 5 * 2**-8
