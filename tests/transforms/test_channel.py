"""What quantisation and erasures do to messages, on average and at most."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_round, run, transforms
from fedjax_rl.core import seal
from tests.probes.quadratic import Descent, Targets


def quantized(payload, bits, key):
    return transforms.quantize(bits).encode(key, (), seal(payload), None)[1]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantisation_is_unbiased_and_near(bits, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=50))
    scale = float(jnp.max(jnp.abs(x))) / (2 ** (bits - 1) - 1)
    draws = jax.vmap(lambda key: quantized(x, bits, key).payload)(jax.random.split(jax.random.key(1), 4000))
    assert float(jnp.max(jnp.abs(draws - x[None]))) < scale
    # 50 means of 4000 terms, each within (0, s): 5 standard errors of at most s/2/sqrt(4000); false alarm < 3e-5.
    np.testing.assert_allclose(draws.mean(0), x, atol=5 * scale / 2 / 4000**0.5)
    # The exact variance of a Bernoulli rounding.
    fraction = np.asarray(x / scale) % 1
    np.testing.assert_allclose(draws.var(0), scale**2 * fraction * (1 - fraction), atol=0.1 * scale**2 / 4)


def test_quantised_messages_fit_into_the_bits_they_are_charged_for():
    payload = {"w": jax.random.normal(jax.random.key(0), (6, 4)), "b": jnp.zeros(5), "n": jnp.arange(3)}
    envelope = quantized(payload, 5, jax.random.key(1))
    integers = [np.round(np.asarray(envelope.payload["w"]) / (np.abs(envelope.payload["w"]).max() / 15)), np.zeros(5)]
    assert all(np.abs(x).max() <= 15 for x in integers)  # five bits, one of them the sign
    np.testing.assert_array_equal(envelope.payload["n"], payload["n"])
    assert int(envelope.bits) == 5 * (24 + 5) + 2 * 32 + 3 * 32


def test_erased_messages_neither_arrive_nor_commit_but_were_sent():
    num_agents = 2000
    targets = jnp.ones((num_agents, 3))
    step = Descent(0.5)
    for aggregator, factor in ((aggregators.mean(), 1.0), (aggregators.mean(expected=num_agents), 0.75)):
        round_ = make_round(
            Targets(targets), step, aggregator, num_agents=num_agents, transforms=(transforms.erasure(0.25),)
        )
        state, history = run(round_, round_.init(jax.random.key(0)), 1)
        # Share that arrives: 2000 Bernoulli draws, 5 standard errors of .0097; false alarm < 1e-6.
        model = round_.policies(state, jnp.arange(1))
        np.testing.assert_allclose(model, 0.5 * factor, atol=0.5 * 0.049 if factor < 1 else 1e-6)
        assert history["uplink_bits"].tolist() == [32 * 3 * num_agents]


def test_nothing_is_lost_on_a_perfect_link():
    round_ = make_round(Targets(jnp.ones((4, 3))), Descent(0.5), aggregators.mean(4.0), num_agents=4)
    lossy = make_round(
        Targets(jnp.ones((4, 3))), Descent(0.5), aggregators.mean(), num_agents=4, transforms=(transforms.erasure(0.0),)
    )
    models = [r.policies(run(r, r.init(jax.random.key(0)), 3)[0], jnp.arange(4)) for r in (round_, lossy)]
    np.testing.assert_allclose(*models, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.quantize(1), r"bits must be an integer >= 2, got 1"),
        (lambda: transforms.quantize(25), r"bits must be at most 24, got 25"),
        (lambda: transforms.erasure(1.0), r"probability must lie in \[0, 1\), got 1\.0"),
        (lambda: aggregators.mean(0), r"expected must lie in \(0, inf\), got 0"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
