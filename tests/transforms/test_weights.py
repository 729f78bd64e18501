"""Weights of messages against their formulas; all of them with nobody there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_round, run, topologies, transforms
from fedjax_rl.core import Transform, component, seal
from tests.probes.quadratic import Descent, Targets


N, D = 6, 3
RETURNS = np.array([20.0, np.nan, 10.0, 50.0, 40.0, np.nan])
VARIANCES = np.array([0.5, 1.0, 2.0, 4.0, 0.25, 8.0])
SAMPLES = np.array([5.0, 8.0, 1.0, 9.0, 9.0, 2.0])


@component
class Told(Descent):
    """Tells returns, variances and samples; agent k's target carries k in its last number."""

    present: jax.Array = None

    @property
    def measures_variance(self):
        return True

    @property
    def tells_returns(self):
        return True

    def update(self, key, env, physics, download, local, work):
        k = physics[-1].astype(int)
        local, envelope, metrics = super().update(key, env, physics[:-1], download, local, work)
        tell = [jnp.asarray(x, jnp.float32)[k] for x in (VARIANCES, RETURNS, SAMPLES)]
        sealed = seal(envelope.payload, weight=self.present[k], variance=tell[0], returns=tell[1], num_samples=tell[2])
        return local, sealed, metrics


@pytest.fixture(name="targets")
def make_targets():
    return np.random.default_rng(1).normal(size=(N, D))


def play(targets, way, present):
    family = Targets(jnp.asarray(np.concatenate([targets, np.arange(N)[:, None]], 1), jnp.float32))
    learner = Told(0.5, present=jnp.asarray(present, jnp.float32))
    round_ = make_round(family, learner, aggregators.mean(), num_agents=N, transforms=(way,))
    state, history = run(round_, round_.init(jax.random.key(0)), 1)
    return np.asarray(round_.policies(state, jnp.arange(1))[0]), history


def by_returns(returns, inverse=False, offset=0.0):
    f = np.maximum(returns - offset, 1e-3)
    f = 1 / f if inverse else f
    return np.where(np.isnan(f), np.nanmean(f) if (~np.isnan(f)).any() else 1.0, f)


def best(score, num):
    order = sorted(range(N), key=lambda k: (-np.inf if not np.isnan(score[k]) else np.inf, -np.nan_to_num(score[k]), k))
    return np.isin(np.arange(N), [k for k in order if not np.isnan(score[k])][:num]).astype(float)


def cosines(x, present):
    mean = (x * present[:, None]).sum(0)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(mean)
    return np.maximum(x @ mean / np.where(lengths > 0, lengths, 1), 0)


def alignment(x, present):
    away = x - (x * present[:, None]).sum(0) / max(present.sum(), 1)
    return np.where(present, np.linalg.norm(x, axis=1) - np.linalg.norm(away, axis=1), np.nan)


WAYS = {
    "inverse_variance": (transforms.inverse_variance(), lambda x, there: 1 / VARIANCES),
    "flat_variance": (transforms.inverse_variance(100.0), lambda x, there: np.ones(N)),
    "returns": (transforms.return_weights(), lambda x, there: by_returns(np.where(there, RETURNS, np.nan))),
    "inverse_returns": (
        transforms.return_weights(inverse=True, offset=-5.0),
        lambda x, there: by_returns(np.where(there, RETURNS, np.nan), True, -5.0),
    ),
    "cosine": (transforms.cosine_weights(), cosines),
    "aligned": (transforms.aligned(2), lambda x, there: best(alignment(x, there), 2)),
    "prioritized_returns": (transforms.prioritized(2), lambda x, there: best(np.where(there, RETURNS, np.nan), 2)),
    "prioritized_samples": (
        transforms.prioritized(1, "samples"),
        lambda x, there: best(np.where(there, SAMPLES, np.nan), 1),
    ),
    "prioritized_variance": (
        transforms.prioritized(3, "variance"),
        lambda x, there: best(np.where(there, -VARIANCES, np.nan), 3),
    ),
}
PRESENCE = {"all": np.ones(N), "some": np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0]), "nobody": np.zeros(N)}


@pytest.mark.parametrize("who", list(PRESENCE))
@pytest.mark.parametrize("name", list(WAYS))
def test_weighted_mean(targets, name, who):
    way, weights = WAYS[name]
    present = PRESENCE[who]
    theta, history = play(targets, way, present)
    assert history["nonfinite_merges"].tolist() == history["nonfinite_messages"].tolist() == [0]
    if not present.any():
        np.testing.assert_array_equal(theta, 0)  # nobody there: the model stays
        assert history["messages_delivered"].tolist() == [0]
        return
    x = 0.5 * targets
    w = weights(x, present) * present
    np.testing.assert_allclose(theta, (w[:, None] * x).sum(0) / w.sum(), rtol=1e-5)
    assert history["messages_delivered"].tolist() == [(w > 0).sum()]


def test_weights_that_nobody_has_told_are_equal(targets):
    # No episode has ended anywhere: the mean of none is taken as one.
    present = np.array([0, 1, 0, 0, 0, 1.0])
    theta, _ = play(targets, transforms.return_weights(), present)
    np.testing.assert_allclose(theta, 0.25 * (targets[1] + targets[5]), rtol=1e-5)


@pytest.mark.parametrize("aggregator", [aggregators.mean(), aggregators.mean(4.0), aggregators.median()])
def test_the_mean_over_nobody_leaves_the_model(targets, aggregator):
    @component
    class Nobody(Transform):
        def encode(self, key, agent, envelope, download):
            return agent, envelope._replace(weight=jnp.float32(0))

    round_ = make_round(
        Targets(jnp.asarray(targets)), Descent(0.5), aggregator, num_agents=N, transforms=(Nobody(),)
    )  # fmt: skip
    state, history = run(round_, round_.init(jax.random.key(0)), 2)
    np.testing.assert_array_equal(round_.policies(state, jnp.arange(1)), 0)
    assert history["nonfinite_merges"].tolist() == [0, 0]


def of_descent(way, topology=None):
    family = Targets(jnp.ones((2, 3)))
    return make_round(family, Descent(0.5), aggregators.mean(), num_agents=2, transforms=(way,), topology=topology)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.inverse_variance(0.0), r"smallest must lie in \(0, inf\), got 0\.0"),
        (lambda: transforms.return_weights(inverse=1), "inverse must be True or False, got 1"),
        (lambda: transforms.return_weights(smallest=0.0), r"smallest must lie in \(0, inf\)"),
        (lambda: transforms.aligned(0), "num_messages must be an integer >= 1"),
        (lambda: transforms.prioritized(0), "num_messages must be an integer >= 1"),
        (lambda: transforms.prioritized(2, "loss"), "by must be one of 'returns', 'samples', 'variance', got 'loss'"),
        (
            lambda: make_round(
                Targets(jnp.ones((2, 3))), Descent(0.5), aggregators.mean(), num_agents=2,
                transforms=(transforms.inverse_variance(),),
            ),
            "learner must estimate the variance of its messages",
        ),
        (lambda: of_descent(transforms.prioritized(1, "variance")), "learner must estimate the variance"),
        (lambda: of_descent(transforms.prioritized(1)), "learner must tell the returns .* Prioritized reads them"),
        (lambda: of_descent(transforms.return_weights()), "learner must tell the returns of its episodes"),
        *(
            (
                lambda way=way: of_descent(way, topologies.sequential(topologies.snapshot(topologies.star()))),
                "must not compare the messages of a round with Sequential",
            )
            for way in (transforms.top_change(1), transforms.cosine_weights(), transforms.aligned(1))
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
