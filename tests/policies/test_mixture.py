"""The mixture of policies against its definition, and its distillation into one network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from fedjax_rl import envs, learners, policies


K, S = 3, 5
DISCRETE = policies.mlp_policy(envs.cartpole_family().env, hidden_sizes=(8,))
CONTINUOUS = policies.mlp_policy(envs.cartpole_family(continuous=True).env, hidden_sizes=(8,))


def models(policy):
    """K models far enough from each other to disagree."""
    params = policies.mixture_policy(policy, K).init(jax.random.key(0))
    return jax.tree.map(lambda x: 3 * x + jax.random.normal(jax.random.key(x.size), x.shape), params)


def observations(num=S):
    return jax.random.normal(jax.random.key(1), (num, 4))


def test_probabilities_are_averaged_not_parameters():
    mixture, params = policies.mixture_policy(DISCRETE, K), models(DISCRETE)
    distribution, value = mixture.apply(params, observations())
    each = [DISCRETE.apply(jax.tree.map(lambda x, k=k: x[k], params), observations()) for k in range(K)]
    expected = np.mean([jax.nn.softmax(d.logits) for d, _ in each], 0)
    np.testing.assert_allclose(jax.nn.softmax(distribution.logits), expected, rtol=1e-5)
    np.testing.assert_allclose(value, np.mean([v for _, v in each], 0), rtol=1e-5)
    averaged = DISCRETE.apply(jax.tree.map(lambda x: x.mean(0), params), observations())[0]
    assert not np.allclose(jax.nn.softmax(averaged.logits), expected, atol=1e-2)


def test_density_of_a_mixture_of_gaussians():
    distribution, _ = policies.mixture_policy(CONTINUOUS, K).apply(models(CONTINUOUS), observations())
    components = distribution.components
    action = jnp.linspace(-2, 2, S)[:, None]
    expected = np.mean(
        [
            scipy.stats.norm.pdf(action[:, 0], components.mean[k, :, 0], np.exp(components.log_std[k, :, 0]))
            for k in range(K)
        ],
        0,
    )
    np.testing.assert_allclose(distribution.log_prob(action), np.log(expected), rtol=1e-4)
    grid = jnp.linspace(-60, 60, 40001)  # it integrates to one
    density = jnp.exp(jax.vmap(lambda a: distribution.log_prob(jnp.full((S, 1), a)))(grid))
    np.testing.assert_allclose(jnp.sum(density, 0) * (grid[1] - grid[0]), 1, rtol=1e-3)
    with pytest.raises(NotImplementedError, match="no entropy in closed form"):
        distribution.entropy()


def test_samples_of_a_mixture_of_gaussians_have_its_distribution():
    # n = 20 000 samples; Kolmogorov-Smirnov at level 1e-6 is the false-alarm probability.
    num = 20_000
    mixture, params = policies.mixture_policy(CONTINUOUS, K), models(CONTINUOUS)
    one = jnp.broadcast_to(observations(1), (num, 4))
    distribution, _ = mixture.apply(params, one)
    drawn = np.asarray(distribution.sample(mixture.noise(jax.random.key(2), (num,))))[:, 0]
    mean, std = (
        np.asarray(x)[:, 0, 0] for x in (distribution.components.mean, jnp.exp(distribution.components.log_std))
    )

    def cdf(x):
        return np.mean([scipy.stats.norm.cdf(x, mean[k], std[k]) for k in range(K)], 0)

    assert scipy.stats.kstest(drawn, cdf).pvalue > 1e-6


@pytest.mark.parametrize("policy", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_distillation_lowers_the_divergence(policy):
    mixture, params = policies.mixture_policy(policy, K), models(policy)
    seen = observations(256)
    start = jax.tree.map(lambda x: x.mean(0), params)
    after = learners.distill(
        jax.random.key(3), mixture, params, policy, start, seen, optax.adam(1e-2), num_steps=300, batch_size=64
    )
    action = mixture.apply(params, seen)[0].sample(mixture.noise(jax.random.key(4), (256,)))

    def likelihood(params):
        return float(jnp.mean(policy.apply(params, seen)[0].log_prob(action)))

    assert after.loss.shape == (300,)
    assert likelihood(after.params) > likelihood(start) + 0.05


def test_distillation_leaves_what_the_student_has_seen():
    student = policies.normalized_policy(DISCRETE)
    rows = 3 + observations(50)
    start = student.complete(
        jax.tree.map(lambda x: x[0], models(DISCRETE)), student.observe(rows, rows[:, 0], jnp.ones(50, bool))
    )
    after = learners.distill(
        jax.random.key(3), DISCRETE, jax.tree.map(lambda x: x[1], models(DISCRETE)), student, start, observations(64),
        optax.adam(1e-2), num_steps=20, batch_size=32,
    )  # fmt: skip
    assert set(after.params) == set(start)
    for name in start:
        same = jax.tree.leaves(jax.tree.map(jnp.array_equal, start[name], after.params[name]))
        assert not any(same) if name == "network" else all(same)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="num_models must be an integer >= 1, got 0"):
        policies.mixture_policy(DISCRETE, 0)
    with pytest.raises(ValueError, match="policy must have no memory"):
        policies.mixture_policy(policies.gru_policy(envs.cartpole_family().env), 2)
    with pytest.raises(ValueError, match="policy must be a Policy, got 'mlp'"):
        policies.mixture_policy("mlp", 2)
    with pytest.raises(ValueError, match=r"observations must be \[S, d\]"):
        learners.distill(
            jax.random.key(0), DISCRETE, DISCRETE.init(jax.random.key(0)), DISCRETE,
            DISCRETE.init(jax.random.key(0)), jnp.zeros((0, 4)), optax.sgd(0.1),
        )  # fmt: skip
