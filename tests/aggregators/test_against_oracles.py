"""Aggregators against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators
from fedjax_rl.aggregators._order import sorted_present
from tests.oracles import aggregation


CASES = [
    (aggregators.mean(), aggregation.mean),
    (aggregators.median(), aggregation.median),
    *(
        (aggregators.trimmed_mean(t), lambda x, w, t=t: aggregation.trimmed_mean(x, w, t))
        for t in (0.0, 0.1, 0.29, 0.3, 0.49)
    ),
]


@pytest.mark.parametrize(("aggregator", "oracle"), CASES, ids=[str(case[0]) for case in CASES])
@pytest.mark.parametrize("num", [1, 2, 5, 10])
def test_equals_the_oracle(aggregator, oracle, num):
    generator = np.random.default_rng(num)
    x = generator.normal(size=(num, 3, 2)).round(1)  # rounded: ties happen
    w = generator.uniform(0.5, 2.0, num)
    if num > 2:
        w[1] = 0.0
    stack, weight = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
    _, out = aggregator.apply(jax.random.key(0), (), stack, weight)
    np.testing.assert_allclose(out, oracle(x, w), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trim", [-0.1, 0.5, 0.6, float("nan")])
def test_trim_is_validated(trim):
    with pytest.raises(ValueError, match=r"trim must lie in \[0, 0\.5\), got .*use median\(\)"):
        aggregators.trimmed_mean(trim)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_sorting_by_bits_is_the_order_of_floats(dtype, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, np.inf, -np.inf, 1e-6, -1e-6]
    x = jnp.asarray(np.concatenate([rng.normal(size=(51, 3, 2)), np.tile(special, (2, 3, 1)).T]), dtype)
    present = jnp.asarray(rng.uniform(size=57) < 0.8)
    expected = np.sort(np.where(present[:, None, None], np.asarray(x, np.float64), np.inf), axis=0)
    found = jax.jit(sorted_present)(x, present)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found, np.float64), expected)
