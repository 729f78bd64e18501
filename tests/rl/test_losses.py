"""Losses and masks on numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import rl


def surrogate(ratio, advantage, **kwargs):
    zeros = jnp.zeros_like(jnp.asarray(ratio))
    return rl.clipped_surrogate_loss(jnp.log(jnp.asarray(ratio)), zeros, jnp.asarray(advantage), **kwargs)


# ratio, advantage, loss = -min(rho A, clip(rho, 0.8, 1.2) A), d loss / d log pi = -rho A or 0 where clipped
SURROGATE = [
    (1.0, 2.0, -2.0, -2.0),
    (1.1, 2.0, -2.2, -2.2),
    (1.5, 2.0, -2.4, 0.0),  # already better than allowed: nothing to gain
    (0.5, 2.0, -1.0, -1.0),  # gone the wrong way: full gradient
    (0.5, -2.0, 1.6, 0.0),  # already less likely than asked for
    (1.5, -2.0, 3.0, 3.0),  # gone the wrong way
    (0.9, -2.0, 1.8, 1.8),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "slope"), SURROGATE)
def test_clipped_surrogate_known_answers(ratio, advantage, loss, slope):
    def f(log_prob):
        return rl.clipped_surrogate_loss(log_prob, jnp.zeros(1), jnp.array([advantage]), clip=0.2)

    value, gradient = jax.value_and_grad(f)(jnp.log(jnp.array([ratio])))
    np.testing.assert_allclose(value, loss, rtol=1e-6)
    np.testing.assert_allclose(gradient, [slope], rtol=1e-6, atol=1e-7)


def test_losses_are_means_over_the_mask():
    mask = jnp.array([True, False, True, False])
    x = jnp.array([1.0, 100.0, 3.0, 100.0])
    y = jnp.array([2.0, 7.0, 5.0, 7.0])
    np.testing.assert_allclose(rl.policy_gradient_loss(x, y, mask), -(1 * 2 + 3 * 5) / 2)
    np.testing.assert_allclose(rl.value_loss(x, y, mask), (1 + 4) / 2)
    np.testing.assert_allclose(rl.entropy_bonus(x, mask), 2.0)
    np.testing.assert_allclose(rl.entropy_loss(x, mask), -2.0)
    np.testing.assert_allclose(rl.policy_gradient_loss(x, y), -(2 + 700 + 15 + 700) / 4)


def test_clipped_value_loss_known_answers():
    # V_old = 0, G = 10, c = 1. V = 0.5: near, (9.5)^2. V = 3: the step beyond 1 earns nothing, (1 - 10)^2 > (3 - 10)^2.
    # V = -3: (-1 - 10)^2 < (-3 - 10)^2, the larger one counts.
    for value, loss, slope in ((0.5, 90.25, -19.0), (3.0, 81.0, 0.0), (-3.0, 169.0, -26.0)):
        got = jax.value_and_grad(lambda v: rl.clipped_value_loss(v, jnp.zeros(1), jnp.full(1, 10.0), clip=1.0))(
            jnp.array([value])
        )
        np.testing.assert_allclose(got[0], loss, rtol=1e-6)
        np.testing.assert_allclose(got[1], [slope], rtol=1e-6, atol=1e-6)


def test_approximate_kl_is_the_divergence_in_expectation():
    p, q = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.2, 0.2, 0.6])
    terms = jax.vmap(lambda new, old: rl.approximate_kl(new[None], old[None]))(jnp.log(q), jnp.log(p))
    assert (terms >= 0).all()
    np.testing.assert_allclose(jnp.sum(p * terms), jnp.sum(p * jnp.log(p / q)), rtol=1e-5)


def test_no_gradient_through_what_is_given():
    x, y = jnp.array([0.1, 0.2]), jnp.array([0.3, -0.4])
    assert not jax.grad(rl.policy_gradient_loss, 1)(x, y).any()
    assert not jax.grad(rl.value_loss, 1)(x, y).any()
    assert not jax.grad(rl.clipped_surrogate_loss, 1)(x, y, y).any()
    assert not jax.grad(rl.clipped_surrogate_loss, 2)(x, y, y).any()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_masked_entries_cannot_spoil_value_or_gradient(bad):
    mask = jnp.array([True, True, False])
    good, poison = jnp.array([0.1, -0.2, 0.3]), jnp.array([0.5, 0.7, bad])
    for loss in (
        lambda x: rl.policy_gradient_loss(x, poison, mask),
        lambda x: rl.value_loss(x, poison, mask),
        lambda x: rl.clipped_surrogate_loss(x, poison, poison, mask),
        lambda x: rl.clipped_value_loss(x, poison, poison, mask),
        lambda x: rl.approximate_kl(x, poison, mask),
    ):
        value, gradient = jax.value_and_grad(loss)(good)
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all() and gradient[2] == 0


def test_nothing_counted_costs_nothing():
    mask = jnp.zeros(3, bool)
    x = jnp.array([1.0, jnp.nan, 2.0])
    for f in (rl.masked_mean, rl.masked_std, rl.entropy_bonus):
        assert f(x, mask) == 0
    np.testing.assert_array_equal(rl.normalize(x, mask), jnp.zeros(3))


def test_masked_moments_equal_those_of_the_kept_entries():
    generator = np.random.default_rng(0)
    x, mask = generator.normal(3, 2, (7, 5)).astype(np.float32), generator.uniform(size=(7, 5)) < 0.6
    spoilt = jnp.where(mask, x, jnp.nan)
    np.testing.assert_allclose(rl.masked_mean(spoilt, jnp.asarray(mask)), x[mask].mean(), rtol=1e-6)
    np.testing.assert_allclose(rl.masked_std(spoilt, jnp.asarray(mask)), x[mask].std(), rtol=1e-6)
    scaled = rl.normalize(spoilt, jnp.asarray(mask))
    np.testing.assert_allclose(np.asarray(scaled)[mask], (x[mask] - x[mask].mean()) / x[mask].std(), atol=1e-5)
    assert not np.asarray(scaled)[~mask].any()
    np.testing.assert_allclose(rl.normalize(jnp.asarray(x)).std(), 1, rtol=1e-5)


def test_normalizing_equal_numbers_gives_zero():
    np.testing.assert_array_equal(rl.normalize(jnp.full(8, 3.0)), jnp.zeros(8))


def test_episode_mask_known_answer():
    ended = jnp.array([[0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    expected = [[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(rl.episode_mask(ended), np.array(expected, bool))
