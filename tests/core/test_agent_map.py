"""Agents on several devices get what they get on one, whatever the leaves of their state are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import Fold, agent_map, make_mesh, take_rows, tree


def each(common, number):
    """One leaf of every kind that a state may have."""
    key = jax.random.fold_in(common, number)
    noise = jax.random.normal(key, (300, 300))  # 3 agents on a device: more than 1 MiB
    state = {
        "large": noise,
        "small": noise[0],
        "scalar": noise[0, 0],
        "integer": number,
        "byte": number.astype(jnp.uint8),
        "flag": number % 2 == 0,
        "half": noise[1].astype(jnp.bfloat16),
        "empty": jnp.zeros((0,)),
        "empty rows": jnp.zeros((3, 0), jnp.int32),
        "key": key,
        "keys": jax.random.split(key, 3),
        "other key": jax.random.key(number, impl="rbg"),
    }
    return state, (noise[2], number)


def plain(tree):
    """NumPy arrays, keys as their words."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


@pytest.mark.parametrize("num_agents, num_devices", [(3, 2), (5, 2), (5, 4), (6, 4), (9, 4), (13, 4)])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_agents_that_do_not_divide(num_agents, num_devices, chunk_size):
    numbers, key = jnp.arange(num_agents), jax.random.key(0)
    expected = plain(jax.jit(lambda xs: jax.vmap(each, (None, 0))(key, xs))(numbers))
    mesh = make_mesh(num_devices)
    found = jax.jit(lambda xs: agent_map(each, key, (xs,), chunk_size=chunk_size, mesh=mesh))(numbers)
    jax.tree.map(np.testing.assert_array_equal, plain(found), expected)


def test_sums_over_agents_on_several_devices():
    # One leaf beyond 1 MiB, several small ones of two types, and one without elements.
    shapes = {"large": (600, 500), "matrix": (3, 2), "scalar": (), "empty": (0, 4)}

    def terms(common, number):
        values = {name: jnp.full(shape, number, jnp.float32) for name, shape in shapes.items()}
        return (), (values, {"count": number, "counts": jnp.stack([number, 2 * number])})

    def add(common, total, rows, valid):
        return tree.add(total, tree.weighted_sum(rows, valid))

    numbers = jnp.arange(1, 9)
    fold = Fold(jax.eval_shape(lambda: terms(None, numbers[0])[1]), add)
    run = jax.jit(lambda xs: agent_map(terms, (), (xs,), chunk_size=1, mesh=make_mesh(4), fold=fold))
    values, counts = run(numbers)[1]
    jax.tree.map(np.testing.assert_array_equal, values, {name: np.full(shape, 36.0) for name, shape in shapes.items()})
    jax.tree.map(np.testing.assert_array_equal, counts, {"count": 36, "counts": [36, 72]})
    assert values["large"].dtype == jnp.float32 and counts["count"].dtype == jnp.int32


@pytest.mark.parametrize("num_devices", [1, 2])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 6, 7])
def test_agents_that_do_not_fill_their_chunks_count_once(chunk_size, num_devices):
    def one(common, number):
        kept = {"square": number**2, "row": jnp.full((3,), number), "key": jax.random.key(number)}
        return kept, jnp.asarray(common * number)

    fold = Fold(
        jax.ShapeDtypeStruct((), jnp.int32), lambda _, total, terms, valid: total + jnp.sum(jnp.where(valid, terms, 0))
    )
    layout = {"chunk_size": chunk_size, "mesh": make_mesh(num_devices)}
    numbers = jnp.arange(3, 10)
    kept, total = jax.jit(lambda xs: agent_map(one, 10, (xs,), fold=fold, **layout))(numbers)
    stacked, terms = jax.jit(lambda xs: agent_map(one, 10, (xs,), **layout))(numbers)
    keys = jax.vmap(jax.random.key)(numbers)
    expected = plain({"square": numbers**2, "row": np.tile(numbers[:, None], 3), "key": keys})
    for found in (kept, stacked):
        jax.tree.map(np.testing.assert_array_equal, plain(found), expected)
    np.testing.assert_array_equal(terms, 10 * numbers)
    assert total == 10 * numbers.sum()


@pytest.mark.parametrize("num_rows", [8, 6])  # shared out over four devices, and held by each of them
def test_chosen_rows_arrive_bit_for_bit(num_rows):
    mesh = make_mesh(4)
    with jax.enable_x64(True):
        state, _ = jax.vmap(each, in_axes=(None, 0))(jax.random.key(0), jnp.arange(num_rows))
        noise = state["large"]
        state["strange"] = jnp.tile(jnp.float32([-0.0, jnp.nan, -jnp.inf, 1e-42]), (num_rows, 1))
        state["large"] = jnp.where(noise > 1, jnp.float32(-0.0), jnp.where(noise < -1, jnp.float32(1e-42), noise))
        state["half"] = state["half"].at[:, 0].set(-0.0)
        state["double"] = noise[:, 2].astype(jnp.float64) / 3
        state["long"] = jnp.arange(num_rows) - 2**40
        state["wave"] = jnp.exp(1j * state["double"])
        state["flags"] = jnp.tile(noise > 0, 2**9)
        state["longs"] = jnp.tile(state["long"][:, None], 2**17)
        state["nibbles"] = jnp.tile(jnp.int4([-8, 0, 7]), (num_rows, 1))
        index = jnp.int32([num_rows - 1, 0, 3])
        found = jax.jit(lambda state, index: take_rows(state, index, mesh))(state, index)
        expected = tree.take(state, index)
        assert state["double"].dtype == jnp.float64 and state["long"].dtype == jnp.int64
        jax.tree.map(assert_same_bits, plain(found), plain(expected))


def test_nothing_is_chosen_from_nothing():
    assert take_rows((), jnp.int32([0]), make_mesh(2)) == ()


def assert_same_bits(x, y):
    assert (x.dtype, x.shape) == (y.dtype, y.shape)
    assert x.tobytes() == y.tobytes()
