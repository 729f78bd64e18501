"""What every transform owes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import transforms
from fedjax_rl.core import Cohort, Transform, seal, tree
from tests.conformance.examples import TRANSFORMS, every, label


TRANSFORM = pytest.mark.parametrize("pair", every(TRANSFORMS), ids=label)


def message(scale: float = 1.0):
    keys = jax.random.split(jax.random.key(5), 2)
    return {"w": scale * jax.random.normal(keys[0], (6, 4)), "b": scale * jax.random.normal(keys[1], (4,))}


def encode(transform, payload, memory=None):
    if memory is None:
        memory = transform.init_agent(jnp.int32(0), tree.zeros_like(payload))
    return transform.encode(jax.random.key(0), memory, seal(payload), tree.scale(0.1, payload))


def close(x, y, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 1e-6} | tolerance)), x, y)


@TRANSFORM
def test_identity_at_the_neutral_parameter(pair):
    if pair[1] is None:
        pytest.skip("has no neutral parameter")
    close(encode(pair[1], message())[1].payload, message())


@TRANSFORM
def test_jit_equals_eager_and_state_is_a_fixed_point(pair):
    transform = pair[0]
    traces = []

    @jax.jit
    def jitted(transform, payload, memory):
        traces.append(1)
        return encode(transform, payload, memory)

    memory = tree.strong(transform.init_agent(jnp.int32(0), tree.zeros_like(message())))
    for i in range(10):
        out_memory, envelope = jitted(transform, message(1.0 + i), memory)
        expected_memory, expected = encode(transform, message(1.0 + i), memory)
        close((out_memory, envelope.payload), (expected_memory, expected.payload), rtol=1e-5, atol=1e-7)
        memory = out_memory
    assert len(traces) == 1


@TRANSFORM
def test_bits_are_those_of_the_packed_message(pair):
    envelope = encode(pair[0], message())[1]
    leaves = jax.tree.leaves(envelope.payload)
    if isinstance(pair[0], transforms.Quantize):  # integers of so many bits and a scale for each leaf
        packed = sum(x.size * pair[0].bits + 32 for x in leaves)
    else:
        packed = sum(np.asarray(x).nbytes for x in leaves) * 8
    assert int(envelope.bits) == packed


@TRANSFORM
@pytest.mark.parametrize("scale", [0.0, 1e18, 1e30])
def test_finite_for_zero_and_huge_messages(pair, scale):
    transform = pair[0]
    if scale == 1e30 and type(transform).__name__ == "FromOptax":
        pytest.skip("optax's own norm overflows; the round masks and counts such a message")
    out = encode(transform, message(scale))[1].payload
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(out))


@TRANSFORM
def test_memory_commits_on_delivery_only(pair):
    transform = pair[0]
    if type(transform).settle is not Transform.settle:
        pytest.skip("says itself what it remembers of a message that was not delivered")
    before = tree.strong(transform.init_agent(jnp.int32(0), tree.zeros_like(message())))
    after = encode(transform, message(), before)[0]
    close(transform.settle(before, after, jnp.bool_(False)), before)
    close(transform.settle(before, after, jnp.bool_(True)), after)


@TRANSFORM
def test_keeps_the_dtype(pair, x64):
    payload = jax.tree.map(lambda x: x.astype(jnp.float64), message())
    assert {x.dtype for x in jax.tree.leaves(encode(pair[0], payload)[1].payload)} == {jnp.dtype(jnp.float64)}


@TRANSFORM
def test_lossless_where_it_says_so(pair):
    if pair[0].lossless:
        out = encode(pair[0], message(100.0))[1].payload
        jax.tree.map(np.testing.assert_array_equal, out, message(100.0))


def exchange(transform, present):
    """Four messages on the wire, of which some are there."""
    payloads = jax.vmap(lambda scale: message(scale))(jnp.asarray([1.0, -2.0, 3.0, 4.0]))
    num = jnp.arange(4, dtype=jnp.float32)
    envelopes = jax.vmap(lambda x, w, k: seal(x, weight=w, returns=k, num_samples=k, variance=1 + k))(
        payloads, jnp.asarray(present, jnp.float32), num
    )
    cohort = Cohort(None, jnp.asarray(present) > 0, jnp.ones(4), None, jnp.float32(1))
    wire = transform.init(tree.zeros_like(message())).wire
    return envelopes, transform.exchange(jax.random.key(1), wire, cohort, envelopes)[1]


@TRANSFORM
@pytest.mark.parametrize("present", [(1, 1, 1, 1), (1, 0, 2, 0), (0, 0, 0, 0)])
def test_the_wire_brings_nobody_back(pair, present):
    transform = pair[0]
    before, after = exchange(transform, present)
    assert bool((jnp.isfinite(after.weight) & (after.weight >= 0)).all())
    assert not bool(((before.weight == 0) & (after.weight > 0)).any())
    assert bool((after.bits <= before.bits).all())
    if transform.delivers:
        np.testing.assert_array_equal(after.weight > 0, before.weight > 0)
    if not transform.reweighs:
        np.testing.assert_array_equal(after.weight, jnp.where(after.weight > 0, before.weight, 0))
    if transform.lossless:
        jax.tree.map(np.testing.assert_array_equal, after.payload, before.payload)
    close(after, jax.jit(lambda: exchange(transform, present)[1])())


@TRANSFORM
def test_the_wire_changes_nothing_at_the_neutral_parameter(pair):
    if pair[1] is None:
        pytest.skip("has no neutral parameter")
    before, after = exchange(pair[1], (1, 0, 2, 1))
    close(after, before)
