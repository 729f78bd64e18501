"""Alias tables draw every value by the right number of words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.learners.tabular._alias import alias_table, draw, possible


def words_of(table, num_values):
    """How many of the 2^32 words draw each value, read off the table."""
    table = np.asarray(table).astype(object)
    num_bits = len(table).bit_length() - 1
    cell = 2 ** (32 - num_bits)
    counts = [0] * len(table)
    for value, entry in enumerate(table):
        counts[value] += entry >> num_bits
        counts[entry % len(table)] += cell - (entry >> num_bits)
    assert sum(counts) == 2**32 and not any(counts[num_values:])
    return np.array(counts[:num_values], np.float64)


def laws():
    generator = np.random.default_rng(0)
    for n in (1, 2, 3, 8, 57):
        yield np.full(n, 1 / n)
        yield np.eye(n)[n // 2]
        for power in (1, 8, 40):
            law = generator.uniform(size=n) ** power * (generator.uniform(size=n) < 0.7)
            law[0] += 1e-6
            yield law / law.sum()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_value_has_its_share_of_the_words(dtype):
    for law in laws():
        words = words_of(jax.jit(alias_table)(jnp.asarray(law, dtype)), len(law))
        # Single precision: what rounding leaves, 16 eps of the whole and an ulp of each, goes to the largest.
        np.testing.assert_allclose(
            words / 2**32, law, rtol=0, atol=(len(law) + 1) * 2.0**-32 + 40 * np.finfo(dtype).eps
        )
        assert not np.any(words[law == 0])


def test_words_are_read_as_the_table_says():
    law = np.array([0.5, 0.0, 0.25, 0.125, 0.125])
    table = alias_table(jnp.asarray(law, jnp.float32))
    # Every 2^12-th word is a sample without chance: each value's share is right up to one word a cell and side.
    word = jnp.arange(2**20, dtype=jnp.uint32) << 12
    share = np.bincount(jax.jit(draw)(word, table), minlength=5) / 2**20
    np.testing.assert_allclose(share, law, rtol=0, atol=16 / 2**20)
    assert share[1] == 0


def test_possible_values_are_those_with_a_probability():
    law = jnp.asarray([0.0, 0.5, 0.0, 0.25, 0.25, 0.0])
    for most, left_out in ((2, True), (3, False), (5, False), (6, False)):
        value, probability, more = jax.jit(possible, static_argnums=1)(law, most)
        assert bool(more) == left_out
        kept = min(most, 3)
        assert value[:kept].tolist() == [1, 3, 4][:kept]
        assert probability.tolist() == [0.5, 0.25, 0.25, 0.0, 0.0, 0.0][:most]
