"""Distributions against scipy, quadrature and counting."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from fedjax_rl.policies import Categorical, DiagonalGaussian, SquashedGaussian


SIZES = (1, 2, 3, 7, 40)  # 40 actions take another way than few


def normal(mean: Any, std: Any) -> Any:
    return scipy.stats.norm(mean, std)


def logits_of(size, seed=0, rows=5):
    return jnp.asarray(2 * np.random.default_rng(seed).normal(size=(rows, size)))


# ------------------------------------------------------------------ categorical


@pytest.mark.parametrize("size", SIZES)
def test_categorical_equals_scipy(x64, size):
    p, q = logits_of(size, 1), logits_of(size, 2)
    probs, others = scipy.special.softmax(p, -1), scipy.special.softmax(q, -1)
    distribution = Categorical(p)
    for k in range(size):
        action = jnp.full(5, k, jnp.int32)
        np.testing.assert_allclose(distribution.log_prob(action), np.log(probs[:, k]), atol=1e-12)
    np.testing.assert_allclose(distribution.entropy(), scipy.stats.entropy(probs, axis=-1), atol=1e-12)
    np.testing.assert_allclose(distribution.kl(Categorical(q)), scipy.stats.entropy(probs, others, axis=-1), atol=1e-12)
    np.testing.assert_array_equal(distribution.mode(), probs.argmax(-1))
    assert distribution.mode().dtype == jnp.int32


@pytest.mark.parametrize("size", SIZES)
def test_categorical_is_the_inverse_of_the_cumulative_distribution(x64, size):
    # On a grid of n equidistant u every action owns an interval of length p_k, so its share is p_k to within 1 / n.
    n = 20_000
    row = logits_of(size)[0]
    action = Categorical(jnp.broadcast_to(row, (n, size))).sample((jnp.arange(n) + 0.5) / n)
    assert action.dtype == jnp.int32 and (jnp.diff(action) >= 0).all()
    np.testing.assert_allclose(np.bincount(action, minlength=size) / n, scipy.special.softmax(row), atol=1.01 / n)


@pytest.mark.parametrize("size", [2, 3, 40])
def test_categorical_sampled_with_random_numbers(size):
    # n = 20 000; chi-square against softmax, expected counts >= 5 (the rest merged); false alarm with probability 1e-6.
    n = 20_000
    row = logits_of(size, rows=1)[0]
    expected = n * scipy.special.softmax(np.asarray(row, np.float64))
    u = jax.random.uniform(jax.random.key(1), (n,))
    counts = np.bincount(Categorical(jnp.broadcast_to(row, (n, size))).sample(u), minlength=size)
    rare = expected < 5
    pairs = [(*counts[~rare], counts[rare].sum()), (*expected[~rare], expected[rare].sum())]
    if not expected[rare].sum():
        pairs = [counts, expected]
    statistic = np.sum((np.array(pairs[0]) - pairs[1]) ** 2 / np.array(pairs[1]))
    assert statistic < scipy.stats.chi2.isf(1e-6, len(pairs[0]) - 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("size", [2, 3, 5, 33, 40])
def test_categorical_never_draws_what_is_impossible(x64, dtype, size):
    generator = np.random.default_rng(size)
    n = 5_000
    logits = generator.normal(size=(n, size)) * generator.choice([0.1, 3.0, 30.0], (n, 1))
    logits[generator.uniform(size=(n, size)) < 0.5] = -np.inf
    keep = generator.integers(0, size, n)
    logits[np.arange(n), keep] = generator.normal(size=n)
    logits = jnp.asarray(logits, dtype)
    below_one = 1 - jnp.finfo(dtype).epsneg
    impossible = np.asarray(jnp.isneginf(logits))
    for u in (0.0, jnp.finfo(dtype).tiny, 0.5, below_one, generator.uniform(size=n)):
        action = jax.jit(Categorical.sample)(Categorical(logits), jnp.broadcast_to(jnp.asarray(u, dtype), (n,)))
        assert action.min() >= 0 and action.max() < size
        assert not impossible[np.arange(n), action].any()


def test_categorical_of_many_actions_whose_sums_are_taken_in_parallel(monkeypatch):
    # Parallel partial sums, as on a GPU, rise by rounding errors where the weight is zero: aim at exactly those places.
    monkeypatch.setattr(jnp, "cumsum", lambda x, axis: jax.lax.associative_scan(jnp.add, x, axis=axis))
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(400, 100)).astype(np.float32)
    logits[:, 1::2] = -np.inf
    weights = jnp.exp(logits - logits.max(-1, keepdims=True)).T
    sums = np.asarray(jax.jit(lambda w: jnp.cumsum(w, 0))(weights)).T
    assert (sums[:, 1::2] > sums[:, 0::2]).any()
    sample = jax.jit(jax.vmap(Categorical.sample, (None, 0)))
    middle = (sums[:, 1:99:2] + sums[:, 0:98:2]) / 2 / sums[:, -1:]
    u = np.concatenate([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(1))], 1).T
    action = np.asarray(sample(Categorical(jnp.asarray(logits)), jnp.asarray(u)))
    assert (action % 2 == 0).all()


def test_categorical_with_forbidden_actions_has_finite_numbers_and_gradients():
    logits = jnp.array([[-jnp.inf, 0.5, 0.1], [-jnp.inf, 3.0, -jnp.inf]])

    def numbers(logits):
        p, q = Categorical(logits), Categorical(jnp.where(jnp.isneginf(logits), logits, 2 * logits))
        return jnp.stack([p.log_prob(jnp.array([1, 1])), p.entropy(), p.kl(q)])

    value, gradient = numbers(logits), jax.grad(lambda x: numbers(x).sum())(logits)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    np.testing.assert_allclose(value[:, 1], 0, atol=1e-7)  # one action is left: certain, entropy 0
    allowed = Categorical(logits[:1, 1:])
    np.testing.assert_allclose(value[1, 0], allowed.entropy()[0], rtol=1e-6)
    assert Categorical(jnp.zeros((1, 3))).kl(Categorical(logits[:1])) == jnp.inf
    assert Categorical(logits[:1]).log_prob(jnp.array([0])) == -jnp.inf


def test_categorical_gradient_of_the_log_probability(x64):
    logits = logits_of(3)

    def chosen(logits):
        return Categorical(logits).log_prob(jnp.array([0, 1, 2, 1, 0])).sum()

    expected = np.eye(3)[[0, 1, 2, 1, 0]] - scipy.special.softmax(logits, -1)  # e_a - p
    np.testing.assert_allclose(jax.grad(chosen)(logits), expected, atol=1e-12)


# ------------------------------------------------------------------ Gaussian

MEAN, LOG_STD = np.array([[0.3, -1.0], [2.0, 0.0]]), np.array([[-0.5, 0.4], [0.1, -1.0]])
MEAN2, LOG_STD2 = np.array([[0.1, -0.5], [1.0, 0.2]]), np.array([[0.0, 0.4], [-0.3, 0.5]])


def gaussian(mean=MEAN, log_std=LOG_STD):
    return DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_std))


def test_gaussian_equals_scipy(x64):
    law = normal(MEAN, np.exp(LOG_STD))
    noise = jnp.array([[0.5, -1.5], [2.0, 0.0]])
    action, log_prob = gaussian().sample_and_log_prob(noise)
    np.testing.assert_allclose(action, MEAN + np.exp(LOG_STD) * noise, atol=1e-14)
    np.testing.assert_array_equal(action, gaussian().sample(noise))
    np.testing.assert_allclose(log_prob, law.logpdf(action).sum(-1), atol=1e-12)
    np.testing.assert_allclose(gaussian().log_prob(action), log_prob, atol=1e-12)
    np.testing.assert_allclose(gaussian().entropy(), law.entropy().sum(-1), atol=1e-12)
    np.testing.assert_array_equal(gaussian().mode(), MEAN)


def test_gaussian_kl_by_quadrature(x64):
    z = np.linspace(-14, 14, 20_001)
    expected = np.zeros(2)
    for b in range(2):
        for d in range(2):
            p = normal(MEAN[b, d], np.exp(LOG_STD[b, d]))
            q = normal(MEAN2[b, d], np.exp(LOG_STD2[b, d]))
            expected[b] += np.trapezoid(p.pdf(z) * (p.logpdf(z) - q.logpdf(z)), z)
    np.testing.assert_allclose(gaussian().kl(gaussian(MEAN2, LOG_STD2)), expected, rtol=1e-9)
    np.testing.assert_array_equal(gaussian().kl(gaussian()), 0)


def test_gaussian_kl_of_near_neighbours_does_not_cancel():
    # log s' / s = e: KL = e^2 + O(e^3). In float32 (exp(2 e) - 1) / 2 - e would be wrong by up to 3e-8, a few per cent.
    e = jnp.linspace(0.5e-3, 1.5e-3, 50, dtype=jnp.float32)[:, None]
    near, far = DiagonalGaussian(jnp.zeros_like(e), jnp.zeros_like(e)), DiagonalGaussian(jnp.zeros_like(e), e)
    np.testing.assert_allclose(near.kl(far), e[:, 0] ** 2, rtol=5e-3)


# ------------------------------------------------------------------ squashed

LOW, HIGH = (-2.0, 0.0), (3.0, 0.5)


def squashed(mean=MEAN, log_std=LOG_STD, low=LOW, high=HIGH, dtype=None):
    return SquashedGaussian(jnp.asarray(mean, dtype), jnp.asarray(log_std, dtype), low, high)


def one_dimensional(mean, log_std):
    return squashed(np.array([mean]), np.array([log_std]), (-2.0,), (3.0,))


def log_density(distribution, actions):
    return np.asarray(jax.vmap(distribution.log_prob)(jnp.asarray(actions)[:, None]))


def actions_and_slope(num=200_001, width=18.0):
    """A grid that is even in z, where nothing is singular: a(z) = 0.5 + 2.5 tanh(z) and da / dz."""
    z = np.linspace(-width, width, num)
    return 0.5 + 2.5 * np.tanh(z), 2.5 / np.cosh(z) ** 2, z


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5)])
def test_squashed_density_integrates_to_one(x64, mean, log_std):
    # Quadrature in the action itself, where the tails beyond |z| = 8 hold less than 1e-4 of the mass of the widest law.
    action, slope, z = actions_and_slope(width=8.0)
    density = np.exp(log_density(one_dimensional(mean, log_std), action))
    np.testing.assert_allclose(np.trapezoid(density * slope, z), 1, atol=1e-4)
    inside = (action > -1.9) & (action < 2.9)
    mass = np.trapezoid(density[inside], action[inside])  # plain, in a
    law = normal(mean, np.exp(log_std))
    ends = np.arctanh((action[inside][[0, -1]] - 0.5) / 2.5)
    np.testing.assert_allclose(mass, np.diff(law.cdf(ends))[0], atol=1e-6)


def test_squashed_log_prob_is_the_change_of_variables(x64):
    noise = jnp.array([[0.5, -1.5], [2.0, 0.0]])
    action, log_prob = squashed().sample_and_log_prob(noise)
    z = MEAN + np.exp(LOG_STD) * np.asarray(noise)
    half = (np.array(HIGH) - LOW) / 2
    np.testing.assert_allclose(action, (np.array(HIGH) + LOW) / 2 + half * np.tanh(z), atol=1e-12)
    naive = (normal(MEAN, np.exp(LOG_STD)).logpdf(z) - np.log(half * (1 - np.tanh(z) ** 2))).sum(-1)
    np.testing.assert_allclose(log_prob, naive, atol=1e-9)
    np.testing.assert_allclose(squashed().log_prob(action), log_prob, atol=1e-9)
    np.testing.assert_array_equal(squashed().sample(noise), action)
    np.testing.assert_array_equal(squashed().mode(), squashed().sample(jnp.zeros((2, 2))))
    for d in range(2):
        assert (action[:, d] > LOW[d]).all() and (action[:, d] < HIGH[d]).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_squashed_stays_finite_where_the_action_saturates(x64, dtype):
    distribution = SquashedGaussian(jnp.array([30.0], dtype), jnp.zeros(1, dtype), (-1.0,), (1.0,))
    action, log_prob = distribution.sample_and_log_prob(jnp.zeros(1, dtype))
    assert action == 1
    # log N(0) - log(1 - tanh(30)^2) = -log(2 pi) / 2 - 2 (log 2 - 30)
    np.testing.assert_allclose(log_prob, -0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 30), rtol=1e-6)
    near = SquashedGaussian(jnp.zeros(1, dtype), jnp.zeros(1, dtype), (-1.0,), (1.0,))
    for end in (-1.0, 1.0):

        def f(mean, end=end):
            return SquashedGaussian(mean, near.log_std, (-1.0,), (1.0,)).log_prob(jnp.array([end], dtype))

        value, gradient = jax.value_and_grad(f)(near.mean)
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all() and value < 0


def test_squashed_ratio_of_one_action_is_that_of_the_gaussians():
    action, _ = squashed(dtype=jnp.float32).sample_and_log_prob(jnp.array([[0.5, -1.5], [2.0, 0.0]], jnp.float32))
    a, b = (squashed(*p, dtype=jnp.float32) for p in ((MEAN, LOG_STD), (MEAN2, LOG_STD2)))
    z = np.arctanh((np.asarray(action, np.float64) - (np.array(HIGH) + LOW) / 2) / ((np.array(HIGH) - LOW) / 2))
    expected = sum(
        sign * normal(mean, np.exp(log_std)).logpdf(z).sum(-1)
        for sign, mean, log_std in ((1, MEAN, LOG_STD), (-1, MEAN2, LOG_STD2))
    )
    np.testing.assert_allclose(a.log_prob(action) - b.log_prob(action), expected, rtol=1e-3, atol=1e-4)


def test_squashed_samples_follow_the_law():
    # n = 20 000; Kolmogorov-Smirnov against Phi((artanh(y) - m) / s); false alarm with probability 1e-6.
    n = 20_000
    distribution = one_dimensional(0.4, 0.2)
    action = jax.vmap(distribution.sample)(jax.random.normal(jax.random.key(2), (n, 1)))[:, 0]

    def cumulative(a):
        return normal(0.4, math.exp(0.2)).cdf(np.arctanh(np.clip((a - 0.5) / 2.5, -1 + 1e-12, 1 - 1e-12)))

    assert scipy.stats.kstest(np.asarray(action, np.float64), cumulative).pvalue > 1e-6


def test_squashed_kl_by_quadrature_in_the_actions(x64):
    p, q = one_dimensional(0.3, -0.5), one_dimensional(-0.2, 0.1)
    action, slope, z = actions_and_slope(width=10.0)
    log_p, log_q = (log_density(d, action) for d in (p, q))
    expected = np.trapezoid(np.exp(log_p) * (log_p - log_q) * slope, z)
    np.testing.assert_allclose(p.kl(q), expected, rtol=1e-6)


def test_squashed_entropy_is_that_before_squashing_and_bounds_the_other(x64):
    distribution = one_dimensional(0.3, -0.5)
    np.testing.assert_allclose(distribution.entropy(), normal(0.3, math.exp(-0.5)).entropy(), atol=1e-12)
    action, slope, z = actions_and_slope(width=10.0)
    log_p = log_density(distribution, action)
    after = -np.trapezoid(np.exp(log_p) * log_p * slope, z)
    assert after < distribution.entropy() + math.log(2.5)


@pytest.mark.parametrize(
    ("make", "noise"),
    [
        (lambda x: Categorical(x), (6,)),
        (lambda x: DiagonalGaussian(x, 0.1 * x), (6, 3)),
        (lambda x: SquashedGaussian(x, 0.1 * x, (-1.0,) * 3, (2.0,) * 3), (6, 3)),
    ],
    ids=["categorical", "gaussian", "squashed"],
)
def test_a_batch_equals_its_elements(make, noise):
    x, u = logits_of(3, rows=6).astype(jnp.float32), jax.random.uniform(jax.random.key(3), noise)
    distribution = make(x)

    def numbers(distribution, u):
        action = distribution.sample(u)
        return action, distribution.log_prob(action), distribution.entropy(), distribution.kl(distribution)

    batch = jax.jit(numbers)(distribution, u)
    elements = jax.jit(jax.vmap(numbers))(distribution, u)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), elements, batch)
    alone = jax.tree.map(lambda x: x[2], distribution)
    action = batch[0]
    np.testing.assert_allclose(alone.log_prob(action[2]), batch[1][2], rtol=1e-5)
