"""Lazily aggregated policy gradients against a loop, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, policies, run, topologies, transforms
from fedjax_rl.core import Cohort, Participation, Transform, component, tree
from fedjax_rl.learners import local_training
from fedjax_rl.learners._wrapper import Wrapper
from tests.oracles.lazy import lapg
from tests.probes.rows import RowsFamily, RowsObjective, RowsPhysics


N, S, D, ROUNDS, ALPHA = 5, 6, 3, 30, 0.3
pytestmark = pytest.mark.usefixtures("x64")


@component
class Curved(RowsObjective):
    """mean_s sum_j h_sj (theta_j - t_sj)^2 / 2; a row is (t, h), and a trajectory of its own."""

    def loss(self, key, params, state, batch):
        target, curvature = jnp.split(batch, 2, axis=-1)
        return jnp.mean(jnp.sum(curvature * (params["theta"][None] - target) ** 2, -1)) / 2, {}

    @property
    def num_trajectories(self):
        return S

    def by_trajectory(self, batch):
        return batch[:, None], jnp.full(S, 1 / S)


@component
class Listed(Participation):
    """The cohorts of a list, one after the other."""

    cohorts: jax.Array  # i32[R, M]

    def init(self, key, num_agents, job):
        return jnp.int32(0)

    def sample(self, key, state, num_agents):
        index = self.cohorts[state]
        ones = jnp.ones(index.shape)
        time = jnp.float32(state)
        return state + 1, Cohort(index.astype(jnp.int32), ones > 0, ones.astype(jnp.float32), None, time)


@component
class Lossy(Transform):
    """Loses what a table says; counts the rounds in which its agent acts."""

    arrives: jax.Array  # bool[N, R]
    lossless = True
    delivers = False

    def init_agent(self, agent, message):
        return agent, jnp.int32(0)

    def encode(self, key, agent, envelope, download):
        there = self.arrives[agent[0], agent[1]]
        return (agent[0], agent[1] + 1), envelope._replace(weight=jnp.where(there, envelope.weight, 0))

    def settle(self, before, after, delivered):
        return after


@pytest.fixture(name="data")
def make_data():
    generator = np.random.default_rng(0)
    targets = np.arange(N)[:, None, None] / 2 + generator.normal(size=(N, S, D))
    rows = np.concatenate([targets, generator.uniform(0.2, 2, size=(N, S, D))], -1)
    return rows, np.array([1.0, 2.0, 3.0, 10.0, 4.0]), generator.normal(size=D)


def learner_of(data, **kwargs):
    objective = Curved(jnp.asarray(data[2]))
    return local_training(objective, optax.sgd(ALPHA), upload="gradient", **kwargs)


def play(data, learner, ways, num_rounds=ROUNDS, **kwargs):
    family = RowsFamily(RowsPhysics(jnp.asarray(data[0]), jnp.asarray(data[1])))
    round_ = make_round(family, learner, aggregators.mean(), num_agents=N, transforms=ways, **kwargs)
    state, history = run(round_, round_.init(jax.random.key(0)), num_rounds)
    return np.asarray(round_.policies(state, jnp.arange(1))["theta"][0]), history


def gradients(data, m, theta):
    target, curvature = np.split(data[0][m], 2, axis=-1)
    return curvature * (theta - target)


@pytest.mark.parametrize("weight", ["uniform", "samples"])
@pytest.mark.parametrize(("size", "loss"), [(N, 0.0), (3, 0.0), (N, 0.4), (3, 0.4)])
@pytest.mark.parametrize(("xi", "c"), [(None, 0.0), ((0.3, 0.2, 0.0, 0.1), 0.02)])
def test_algorithm_two(data, weight, size, loss, xi, c):
    generator = np.random.default_rng(7)
    cohorts = [sorted(generator.permutation(N)[:size].tolist()) for _ in range(ROUNDS)]
    arrives = generator.random((N, ROUNDS)) >= loss
    weights = np.full(4, 0.25) if xi is None else np.array(xi)
    turns = {(k, m): sum(m in cohort for cohort in cohorts[:k]) for k in range(ROUNDS) for m in range(N)}

    def sigma2(m, theta):
        g = gradients(data, m, theta)
        return ((g - g.mean(0)) ** 2).sum() / (S - 1) / S

    w = data[1] if weight == "samples" else np.ones(N)
    expected, uploads = lapg(
        lambda m, theta: gradients(data, m, theta).mean(0),
        data[2],
        w,
        alpha=ALPHA,
        xi=weights,
        c=c,
        sigma2=sigma2,
        cohorts=cohorts,
        arrives=lambda k, m: bool(arrives[m, turns[k, m]]),
    )
    ways = (transforms.lazy(ALPHA, num_past=4, xi=xi, variance_factor=c), Lossy(jnp.asarray(arrives)))
    theta, history = play(
        data, learner_of(data, weight=weight, measure_variance=c > 0), ways, participation=Listed(jnp.asarray(cohorts))
    )
    np.testing.assert_allclose(theta, expected, rtol=1e-9)
    sent = [len(m) for m in uploads]
    assert history["uplink_bits"].tolist() == [64 * (D + 1) * n for n in sent]
    np.testing.assert_allclose(history["silent_share"], [1 - n / size for n in sent], rtol=1e-6)
    delivered = [sum(arrives[m, turns[k, m]] for m in M_k) for k, M_k in enumerate(uploads)]
    assert history["messages_delivered"].tolist() == delivered
    assert history["messages_lost"].tolist() == [n - d for n, d in zip(sent, delivered, strict=True)]
    assert 0 < sum(sent) < size * ROUNDS - 20  # some speak, and many are silent


def test_without_a_threshold_it_is_fedpg(data):
    for weight in ("uniform", "samples"):
        plain, told = play(data, learner_of(data, weight=weight), ())
        eager, history = play(
            data, learner_of(data, weight=weight), (transforms.lazy(ALPHA, xi=0.0, variance_factor=0.0),)
        )
        np.testing.assert_allclose(eager, plain, rtol=1e-12)
        assert history["silent_share"].tolist() == [0.0] * ROUNDS
        assert (history["uplink_bits"] - told["uplink_bits"]).tolist() == [64 * N] * ROUNDS


def test_lost_uploads_are_sent_again(data):
    # Everything is lost in the first round: nobody is in the mean, and the model rests until the second.
    arrives = jnp.arange(ROUNDS)[None].repeat(N, 0) > 0
    theta, history = play(data, learner_of(data, weight="uniform"), (
        transforms.lazy(ALPHA, xi=0.0, variance_factor=0.0), Lossy(arrives)), num_rounds=2)  # fmt: skip
    g = np.mean([gradients(data, m, data[2]).mean(0) for m in range(N)], 0)
    np.testing.assert_allclose(theta, data[2] - ALPHA * g, rtol=1e-12)
    assert history["messages_lost"].tolist() == [N, 0]


@pytest.mark.parametrize("episodes", ["fresh", "continue"])
def test_the_variance_is_that_of_the_trajectories(episodes):
    family = envs.cartpole_family("packer-r", max_steps_in_episode=12, theta_threshold=0.06)
    policy = policies.mlp_policy(family.env, hidden_sizes=(4,))
    objective = learners.actor_critic(policy, num_envs=5, num_steps=8, episodes=episodes)
    key, physics = jax.random.key(3), tree.take(family.sample(jax.random.key(1), 1), 0)
    params = objective.init(key, family.env)
    state = objective.init_local(key, family.env, physics, params)
    batch = objective.collect(key, family.env, physics, params, state).batch
    pieces, share = objective.by_trajectory(batch)

    def flat(batch):
        gradient = jax.grad(lambda p: objective.loss(key, p, state, batch)[0])(params)
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])

    # Trajectory by trajectory, by hand: rows are steps x environments.
    terms = np.array(
        [share[e] * flat(jax.tree.map(lambda x, e=e: x.reshape(8, 5, *x.shape[1:])[:, e], batch)) for e in range(5)]
    )
    np.testing.assert_allclose(terms.sum(0), flat(batch), rtol=1e-6, atol=1e-9)
    assert jax.tree.leaves(pieces)[0].shape[0] == 5
    learner = local_training(objective, optax.sgd(0.1), upload="gradient", measure_variance=True)
    shared = learner.init_shared(key, family.env)
    local = learner.init_local(key, family.env, physics, shared)
    envelope = learner.update(key, family.env, physics, learner.broadcast(shared), local, None)[1]
    assert float(envelope.header.variance) > 0
    from fedjax_rl.learners._local_training import _variance

    found = _variance(objective, lambda p, b: objective.loss(key, p, state, b)[0], params, batch, True)
    np.testing.assert_allclose(found, 5 / 4 * ((terms - terms.mean(0)) ** 2).sum(), rtol=1e-6)


def test_the_variance_of_a_mean_of_gradients(data):
    variances = []
    for steps in (1, 4):
        learner = learner_of(data, measure_variance=True, num_local_steps=steps)
        variances.append(play(data, learner, (), num_rounds=1)[1]["gradient_variance"][0])
    np.testing.assert_allclose(variances[1], variances[0] / 4, rtol=1e-9)
    g = [gradients(data, m, data[2]) for m in range(N)]
    expected = np.mean([((x - x.mean(0)) ** 2).sum() / (S - 1) / S for x in g])
    np.testing.assert_allclose(variances[0], expected, rtol=1e-9)


@component
class Stumbling(Wrapper):
    """A server whose step fails now and then."""

    learner: Any

    def merge(self, key, env, shared, message, received):
        factor = jnp.where(jax.random.uniform(key) < 0.5, jnp.nan, 1)
        return self.learner.merge(key, env, shared, tree.scale(factor, message), received)


def test_the_sum_outlives_a_refused_merge(data):
    family = RowsFamily(RowsPhysics(jnp.asarray(data[0]), jnp.asarray(data[1])))
    lapg = transforms.lazy(0.1, num_past=3, variance_factor=0.0)
    round_ = make_round(family, Stumbling(learner_of(data)), aggregators.mean(), num_agents=N, transforms=(lapg,))
    state, history = run(round_, round_.init(jax.random.key(0)), 12)
    assert 0 < history["nonfinite_merges"].sum() < 12
    (memory,), (sums,) = state.memory, state.places.public.decoders
    weighted = jax.tree.map(lambda g: jnp.tensordot(memory.weight, g, 1), memory.gradient)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), sums.gradient, weighted)


def test_an_agent_that_a_trigger_has_silenced_pays_nothing(data):
    ways = transforms.increasing_period(2, 1), transforms.lazy(0.1, variance_factor=0.0)
    history = play(data, learner_of(data), ways, num_rounds=4)[1]
    np.testing.assert_array_equal(history["messages_lost"], 0)
    np.testing.assert_array_equal(history["uplink_bits"][::2], 0)
    assert history["uplink_bits"][1] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: transforms.lazy(0.1, xi="a"), "xi must be one number >= 0"),
        (lambda d: transforms.lazy(0.1, xi=np.inf), "xi must be one number >= 0"),
        (lambda d: transforms.lazy(0.0), r"step_size must lie in \(0, inf\), got 0\.0"),
        (lambda d: transforms.lazy(0.1, num_past=0), "num_past must be an integer >= 1"),
        (lambda d: transforms.lazy(0.1, variance_factor=-1.0), r"variance_factor must lie in \[0, inf\)"),
        (lambda d: transforms.lazy(0.1, xi=(0.1, 0.2)), "xi must be one number >= 0 or num_past = 10 of them"),
        (lambda d: transforms.lazy(0.1, xi=-0.1), "xi must be one number >= 0"),
        (
            lambda d: play(d, learner_of(d), (transforms.lazy(0.1),)),
            r"must estimate the variance of its messages with transforms\[0\], got LocalTraining: Lazy reads it",
        ),
        (
            lambda d: play(d, local_training(Curved(d[2]), optax.sgd(0.1)), (transforms.lazy(1, variance_factor=0.0),)),
            r"must upload gradients alone with transforms\[0\], got LocalTraining: Lazy keeps",
        ),
        (
            lambda d: play(d, learners.afedpg(Curved(d[2]), 0.1, 0.5), (transforms.lazy(0.1, variance_factor=0.0),)),
            "must upload gradients alone",
        ),
        (
            lambda d: play(d, learner_of(d), (transforms.lazy(0.1, variance_factor=0.0), transforms.quantize(8))),
            r"transforms\[1\] must leave messages and weights as they are with transforms\[0\], got Quantize",
        ),
        (
            lambda d: play(d, learner_of(d), (transforms.lazy(0.1, variance_factor=0.0), transforms.cosine_weights())),
            r"transforms\[1\] .* got CosineWeights: .*; leave it out",
        ),
        (
            lambda d: play(d, learner_of(d), (transforms.cosine_weights(), transforms.lazy(0.1, variance_factor=0.0))),
            r"transforms\[0\] .* got CosineWeights: .*; leave it out",
        ),
        (
            lambda d: make_round(
                RowsFamily(RowsPhysics(jnp.asarray(d[0]), jnp.asarray(d[1]))), learner_of(d), aggregators.median(),
                num_agents=N, transforms=(transforms.lazy(0.1, variance_factor=0.0),),
            ),
            "aggregator must be linear",
        ),
        (
            lambda d: play(
                d, learner_of(d), (transforms.lazy(0.1, variance_factor=0.0),), topology=topologies.isolated()
            ),
            r"transforms\[0\] must not lose messages with Isolated, got Lazy",
        ),
        (
            lambda d: play(
                d, learner_of(d), (transforms.lazy(0.1, variance_factor=0.0),),
                topology=topologies.sequential(topologies.star()),
            ),
            r"must merge every round's messages at once with transforms\[0\], got Sequential: Lazy moves the model",
        ),
        (
            lambda d: local_training(RowsObjective(d[2]), optax.sgd(0.1), upload="gradient", measure_variance=True),
            "at least two trajectories",
        ),
        (lambda d: local_training(Curved(d[2]), optax.sgd(0.1), measure_variance=True), "upload must be 'gradient'"),
        (
            lambda d: learner_of(d, corrections=(learners.clip_gradient(1.0),), measure_variance=True),
            "corrections must be empty with measure_variance=True, got ClipGradient",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused(data, make, message):
    with pytest.raises(ValueError, match=message):
        make(data)
