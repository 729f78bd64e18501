"""Trees as one vector per dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import tree


def _tree(offset: float = 0.0):
    return {
        "kernel": jnp.arange(6.0).reshape(2, 3) + offset,
        "bias": (jnp.array(7.0) + offset, jnp.zeros((0, 4))),
        "counts": [jnp.array([1, 2], jnp.int32), jnp.array(3, jnp.int32)],
        "flag": jnp.array(True),
        "half": jnp.ones(2, jnp.bfloat16),
    }


def _assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_unpacking_gives_the_tree_back():
    packed = tree.pack(_tree())
    shapes = {dtype: x.shape for dtype, x in packed.vectors.items()}
    assert shapes == {"float32": (7,), "int32": (3,), "bool": (1,), "bfloat16": (2,)}
    _assert_same(packed.unpack(), _tree())
    _assert_same(jax.jit(lambda t: tree.pack(t).unpack())(_tree()), _tree())


def test_axes_in_front_of_the_vectors_are_in_front_of_the_leaves():
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[_tree(i) for i in range(5)])
    packed = jax.vmap(tree.pack)(stacked)
    assert packed.vectors["float32"].shape == (5, 7)
    _assert_same(packed.unpack(), stacked)
    _assert_same(jax.tree.map(np.asarray, packed).unpack(), stacked)


def test_trees_without_leaves_and_leaves_without_numbers():
    assert tree.pack({}).unpack() == {}
    empty = {"none": jnp.zeros((3, 0))}
    _assert_same(tree.pack(empty).unpack(), empty)
    assert bool(tree.all_finite({}))
    assert float(tree.norm({})) == 0.0


def test_arithmetic_of_whole_vectors():
    one, other = ({name: _tree(i)[name] for name in ("kernel", "bias", "counts")} for i in (1.0, 0.0))
    moved = tree.subtract(tree.pack(one), tree.pack(other)).unpack()
    np.testing.assert_array_equal(moved["kernel"], np.ones((2, 3)))
    np.testing.assert_array_equal(moved["counts"][0], np.zeros(2, np.int32))
    numbers = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[12]], jnp.int32)}
    assert float(tree.norm(numbers)) == 13.0
    assert bool(tree.all_finite(numbers))
    assert not bool(tree.all_finite(numbers | {"c": jnp.array([[1.0, jnp.nan]])}))
    assert not bool(tree.all_finite(numbers | {"c": jnp.array(jnp.inf, jnp.float16)}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (jnp.full(100, 20.0, jnp.float16), jnp.full(100, 20.0, jnp.float16)),  # the squares add up to more than 65504
        (jnp.ones(256, jnp.bfloat16), jnp.ones(1, jnp.bfloat16)),  # 257 is no bfloat16
        (jnp.full(1, 40000), jnp.full(1, 40000)),  # the square of neither is an int32
    ],
)
def test_a_norm_is_added_up_in_single_precision_at_least(one, other):
    expected = np.linalg.norm(np.concatenate([one, other]).astype(float))
    found = tree.norm({"one": one, "other": other})
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_keys_are_packed_like_numbers():
    keys = {"a": jax.random.split(jax.random.key(0), 3), "b": jax.random.key(1)}
    found = tree.pack(keys).unpack()
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(*map(jax.random.key_data, (x, y))), found, keys)
