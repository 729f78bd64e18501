"""The replay buffer: what it holds, what it gives, and that nobody copies it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.core import agent_map, tree
from fedjax_rl.rl import init_replay
from tests.hlo import made_anew


def rows(first, count):
    """Rows that know their number."""
    number = jnp.arange(first, first + count)
    return {"x": number[:, None] * jnp.ones((1, 2)), "n": number}


def empty(capacity):
    return init_replay({"x": jnp.zeros(2), "n": jnp.int32(0)}, capacity)


def test_it_holds_the_last_rows():
    replay, capacity, block = empty(12), 12, 4
    for i in range(8):
        replay = jax.jit(lambda replay, new: replay.add(new))(replay, rows(i * block, block))
        seen = np.arange((i + 1) * block)
        held = np.sort(np.asarray(replay.rows["n"])[: int(replay.size)])
        np.testing.assert_array_equal(held, seen[-capacity:])
        np.testing.assert_array_equal(replay.rows["x"][:, 0], replay.rows["n"])
        assert (int(replay.size), int(replay.cursor)) == (min(len(seen), capacity), len(seen) % capacity)
        assert replay.rows["n"].dtype == jnp.int32


@pytest.mark.parametrize("filled", [4, 8, 12, 20])
def test_samples_are_uniform_over_what_is_filled(filled):
    # n = 20000 draws of k = min(filled, 12) rows: chi^2 with k - 1 <= 11 degrees of freedom exceeds 40 with
    # probability 4e-5 at most.
    replay = empty(12)
    for i in range(filled // 4):
        replay = replay.add(rows(100 + 4 * i, 4))
    drawn = np.asarray(replay.sample(jax.random.key(filled), 20_000)["n"])
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, np.sort(np.asarray(replay.rows["n"])[: int(replay.size)]))
    expected = 20_000 / len(values)
    assert ((counts - expected) ** 2 / expected).sum() < 40


def test_an_empty_buffer_gives_zeros():
    drawn = empty(4).sample(jax.random.key(0), 3)
    assert not np.asarray(drawn["x"]).any()


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="capacity must be an integer >= 1, got 0"):
        empty(0)
    with pytest.raises(ValueError, match="capacity must be a multiple of the 5 rows of a block, got 12; use 15"):
        empty(12).add(rows(0, 5))


CAPACITY, BLOCK, STEPS, AGENTS = 1028, 4, 7, 6


def compiled(chunk_size, keep_old=False):
    """Agents that each write and draw in a loop over local steps."""

    def agent(common, key, replay):
        def step(replay, key):
            new = replay.add({"x": jax.random.normal(key, (BLOCK, 2)), "n": jnp.arange(BLOCK)})
            if keep_old:
                new = tree.where(jax.random.bernoulli(key), new, replay)
            return new, jnp.sum(new.sample(key, 32)["x"])

        return jax.lax.scan(step, replay, jax.random.split(key, STEPS))

    def run(keys, replays):
        return agent_map(agent, (), (keys, replays), chunk_size=chunk_size)

    keys = jax.random.split(jax.random.key(0), AGENTS)
    replays = tree.replicate(empty(CAPACITY), AGENTS)
    return jax.jit(run, donate_argnums=1).lower(keys, replays).compile().as_text()


@pytest.mark.parametrize("chunk_size", [None, 3, 1])
def test_no_step_copies_the_buffer(chunk_size):
    bad, writes = made_anew(compiled(chunk_size), STEPS, CAPACITY)
    assert bad == []
    assert writes == 2  # one per leaf


def test_a_copy_would_be_seen():
    # Several agents at a time: for one alone the compiler may turn the choice into one of the rows that are written.
    assert made_anew(compiled(None, keep_old=True), STEPS, CAPACITY)[0]
