"""Reports of many agents become one number each, whatever their types and sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import Max, Mean, Sum
from fedjax_rl.core._metrics import reduce


def test_reports_of_all_kinds():
    generator = np.random.default_rng(0)
    total, count = generator.normal(size=5).astype(np.float32), np.array([2, 0, 1, 3, 0], np.int32)
    rows = generator.normal(size=(5, 3)).astype(np.float32)
    bits = np.array([2**24 + 1, 1, 0, 3, 2**24], np.int32)  # a float of 32 bits would lose the last ones
    reports = {
        "mean": Mean(jnp.asarray(total), jnp.asarray(count)),
        "share": Mean(jnp.asarray(total), jnp.ones(5)),
        "sum": Sum(jnp.asarray(bits)),
        "flags": Sum(jnp.array([True, True, False, True, True])),
        "rows": Sum(jnp.asarray(rows)),
        "none": Mean(jnp.zeros(5), jnp.zeros(5)),
        "bad": Sum(jnp.array([1.0, np.nan, 0.0, 0.0, 0.0])),
        "late": Max(jnp.array([3, 9, 2, 0, 1])),
        "early": Max(jnp.array([-3, -9, -2, -5, -1])),
        "far": Max(jnp.asarray(np.abs(rows))),
    }
    expected = {
        "mean": total.sum() / 6, "share": total.mean(), "sum": 2**25 + 5, "flags": 4, "rows": rows.sum(),
        "none": np.nan, "bad": np.nan, "late": 9, "early": 0, "far": np.abs(rows).max(),
    }  # fmt: skip
    for found in (reduce(reports), jax.jit(reduce)(reports)):
        assert found.keys() == expected.keys() and all(x.shape == () for x in found.values())
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
        assert int(found["sum"]) == 2**25 + 5
    assert reduce({}) == {}
