"""Sampling without replacement: every subset equally likely, at a cost that follows its size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_rl.participation import sample_distinct


@pytest.mark.parametrize(("num", "size"), [(7, 3), (6, 3), (5, 4)])
def test_every_subset_is_equally_likely(num, size):
    # Pearson's statistic of n draws over C subsets is chi-square with C - 1 degrees of freedom; false alarm: 1e-6.
    n = 20_000
    keys = jax.random.split(jax.random.key(0), n)
    sets = np.sort(np.asarray(jax.vmap(lambda k: sample_distinct(k, num, size))(keys)), axis=1)
    names = {subset: i for i, subset in enumerate(itertools.combinations(range(num), size))}
    counts = np.bincount([names[tuple(row)] for row in sets], minlength=len(names))
    expected = n / len(names)
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < scipy.stats.chi2.isf(1e-6, len(names) - 1)


def test_the_cost_follows_the_cohort():
    # No array with one entry per agent appears: 1 000 of 10 million.
    text = jax.jit(lambda k: sample_distinct(k, 10_000_000, 1000)).lower(jax.random.key(0)).as_text()
    assert "10000000x" not in text
    index = sample_distinct(jax.random.key(1), 10_000_000, 1000)
    assert len(set(np.asarray(index).tolist())) == 1000
    assert index.dtype == jnp.int32
