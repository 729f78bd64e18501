"""Running statistics against the moments of all data at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.rl import RunningStatistics, running_statistics


def batches(seed=0, shape=(3,)):
    generator = np.random.default_rng(seed)
    out = []
    for leading in ((4, 2), (1, 1), (10, 3), (2, 5)):
        x = generator.normal(generator.normal(), 2.0, (*leading, *shape))
        out.append((x, generator.uniform(size=leading) < 0.7))
    return out


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
@pytest.mark.parametrize("masked", [True, False])
def test_a_stream_equals_all_data_at_once(x64, shape, masked):
    statistics, kept = running_statistics(shape), []
    for x, mask in batches(shape=shape):
        if masked:
            spoilt = np.where(mask.reshape(*mask.shape, *[1] * len(shape)), x, np.nan)
            statistics = jax.jit(RunningStatistics.update)(statistics, jnp.asarray(spoilt), jnp.asarray(mask))
            kept.append(x[mask])
        else:
            statistics = statistics.update(jnp.asarray(x))
            kept.append(x.reshape(-1, *shape))
    data = np.concatenate(kept)
    assert statistics.count == len(data)
    np.testing.assert_allclose(statistics.mean, data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, data.std(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.normalize(jnp.asarray(data)), (data - data.mean(0)) / data.std(0), atol=1e-7)


def test_merging_is_associative_and_commutative(x64):
    a, b, c, d = (running_statistics((3,)).update(jnp.asarray(x), jnp.asarray(m)) for x, m in batches(1))
    merge = RunningStatistics.merge
    expected = functools.reduce(merge, (a, b, c, d))
    for other in (
        merge(merge(a, b), merge(c, d)),
        merge(a, merge(b, merge(c, d))),
        functools.reduce(merge, (d, c, b, a)),
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), other, expected)


def test_nothing_is_neutral():
    empty = running_statistics((3,))
    some = empty.update(jnp.arange(6.0).reshape(2, 3))
    for merged in (empty.merge(some), some.merge(empty), some.update(jnp.full((2, 3), jnp.nan), jnp.zeros(2, bool))):
        jax.tree.map(np.testing.assert_array_equal, merged, some)
    x = jnp.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(empty.normalize(x), x, rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(empty.merge(empty)))


def test_a_large_mean_does_not_drown_a_small_deviation():
    # In float32 a sum of squares near 1e8 would leave an error of about 10 in the variance of 1.
    x = np.random.default_rng(2).normal(1e4, 1.0, (50, 40)).astype(np.float32)
    statistics = running_statistics()
    for row in x:
        statistics = statistics.update(jnp.asarray(row))
    np.testing.assert_allclose(statistics.std, x.astype(np.float64).std(), rtol=2e-3)


def test_a_constant_and_a_limit():
    statistics = running_statistics().update(jnp.full(5, 7.0))
    assert statistics.normalize(jnp.float32(7.0)) == 0
    assert statistics.normalize(jnp.float32(8.0), limit=10.0) == 10
    assert statistics.normalize(jnp.float32(-8.0), limit=10.0) == -10


def test_state_types_are_a_fixed_point():
    before = running_statistics((3,))
    after = jax.eval_shape(RunningStatistics.update, before, jnp.ones((4, 3)), jnp.ones(4, bool))
    same = jax.tree.map(lambda x, y: (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type), before, after)
    assert all(jax.tree.leaves(same))


def test_agents_collect_apart():
    x = jnp.asarray(np.random.default_rng(3).normal(size=(4, 10, 2)), jnp.float32)
    per_agent = jax.vmap(lambda x: running_statistics((2,)).update(x))(x)
    merged, _ = jax.lax.scan(lambda total, one: (total.merge(one), None), running_statistics((2,)), per_agent)
    np.testing.assert_allclose(merged.mean, x.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(merged.variance, x.var((0, 1)), rtol=1e-5)
