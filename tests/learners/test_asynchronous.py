"""AFedPG and FedAsync against event-driven loops, arrival by arrival, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, make_round, participation, rl, run, topologies
from fedjax_rl.core import Cohort, Marks, Received, Transform, component, tree
from fedjax_rl.learners import (
    afedpg,
    afedpg_schedules,
    aggregate_only,
    control_variates,
    fed_async,
    local_training,
    normalized_averaging,
    optimizer,
    server_optimizer,
)
from tests.oracles import asynchronous_learners as oracle
from tests.probes.rows import RowsFamily, RowsObjective, RowsPhysics


N, S, D = 4, 6, 3
TIMES = np.array([1.0, 1.7, 2.9, 6.1])
pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(name="data")
def make_data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(N, S, D)), generator.normal(size=D)


def ascent(data):
    """grad J_i = mean_i - theta."""
    return lambda i, theta: data[0][i].mean(0) - theta


def family(data, agents=N):
    rows = jnp.asarray(data[0][:agents])
    return RowsFamily(RowsPhysics(rows, jnp.full(agents, float(S))))


def arrive(data, make_learner, order, scale=lambda staleness: 1.0):
    """The learner under a queue of events; the message is discounted as a topology would."""
    learner = make_learner(RowsObjective(jnp.asarray(data[1])))
    env, physics = RowsFamily.env, family(data).physics
    key = jax.random.key(0)
    shared = learner.init_shared(key, env)
    held = [(learner.broadcast(shared), 0) for _ in range(N)]
    local = [learner.init_local(key, env, jax.tree.map(lambda x, i=i: x[i], physics), shared) for i in range(N)]

    @jax.jit
    def one(shared, download, physics, local, factor):
        local, envelope, _ = learner.update(key, env, physics, download, local, None)
        payload = jax.tree.map(lambda x: factor * x, envelope.payload)
        received = Received(jnp.float32(1), jnp.int32(1), jnp.float32(1 / N), Marks(factor, envelope.marks.note))
        return learner.merge(key, env, shared, payload, received), local

    models = []
    for k, i in enumerate(order):
        download, version = held[i]
        mine = jax.tree.map(lambda x, i=i: x[i], physics)
        shared, local[i] = one(shared, download, mine, local[i], jnp.asarray(scale(k - version)))
        held[i] = (learner.broadcast(shared), k + 1)
        models.append(np.asarray(shared.params["theta"]))
    return models


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("convergence", [None, "stationary", "global"])
def test_afedpg_arrival_by_arrival(data, lookahead, convergence):
    order = oracle.arrivals(TIMES, 40)
    assert len(set(order)) == N
    numbers = {"step_size": 0.1, "momentum": 0.3} if convergence is None else afedpg_schedules(0.5, convergence)
    exponents = {None: (0, 0), "stationary": (5 / 7, 4 / 7), "global": (1, 4 / 5)}[convergence]
    eta_0, alpha_0 = (0.1, 0.3) if convergence is None else (0.5, 1.0)
    models = arrive(data, lambda o: afedpg(o, lookahead=lookahead, **numbers), order)
    expected = oracle.afedpg(
        ascent(data),
        data[1],
        N,
        order,
        lambda k: eta_0 * (k + 1) ** -exponents[0],
        lambda k: alpha_0 * (k + 1) ** -exponents[1],
        lookahead=lookahead,
    )
    np.testing.assert_allclose(models, expected, rtol=1e-9, atol=1e-12)


def test_a_discount_shortens_the_gradient_and_leaves_the_momentum(data):
    order, discount = oracle.arrivals(TIMES, 20), lambda staleness: (1 + staleness) ** -0.5
    models = arrive(data, lambda o: afedpg(o, 0.1, 0.3), order, discount)
    version, seen = [0] * N, []
    for k, i in enumerate(order):
        seen.append(discount(k - version[i]))
        version[i] = k + 1
    factors = iter(seen)
    expected = oracle.afedpg(
        lambda i, theta: next(factors) * ascent(data)(i, theta), data[1], N, order, lambda k: 0.1, lambda k: 0.3,
        lookahead=True,
    )  # fmt: skip
    np.testing.assert_allclose(models, expected, rtol=1e-9, atol=1e-12)


def play(data, learner, num_rounds, agents=N, **kwargs):
    round_ = make_round(family(data, agents), learner, aggregators.mean(), num_agents=agents, **kwargs)
    state, history = run(round_, round_.init(jax.random.key(0)), num_rounds)
    return np.asarray(round_.policies(state, jnp.arange(agents))["theta"][0]), history, state


def test_one_agent_is_n_pg_igt(data):
    theta, _, state = play(data, afedpg(RowsObjective(jnp.asarray(data[1])), 0.05, 0.2), 30, agents=1)
    expected = oracle.n_pg_igt(lambda x: ascent(data)(0, x), data[1], 0.05, 0.2, 30)
    np.testing.assert_allclose(theta, expected, rtol=1e-9)
    assert int(state.places.public.shared.version) == 30


def test_a_momentum_of_one_is_the_normalised_policy_gradient(data):
    theta, history, _ = play(data, afedpg(RowsObjective(jnp.asarray(data[1])), 0.05, 1.0), 10)
    expected = data[1]
    for _ in range(10):
        g = np.mean([ascent(data)(i, expected) for i in range(N)], 0)
        expected = expected + 0.05 * g / np.linalg.norm(g)
    np.testing.assert_allclose(theta, expected, rtol=1e-9)
    assert history["uplink_bits"].tolist() == [N * 64 * (D + 1)] * 10  # the gradient and its momentum


def test_a_zero_gradient_moves_nothing(data):
    rows = np.zeros((N, S, D))
    theta, history, _ = play((rows, np.zeros(D)), afedpg(RowsObjective(jnp.zeros(D)), 0.05, 0.5), 3)
    np.testing.assert_array_equal(theta, 0)
    assert history["nonfinite_merges"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("weight", "by_count"), [("steps", True), ("samples", True), ("uniform", False)])
def test_several_gradients_at_one_point(data, weight, by_count):
    counts = np.random.default_rng(1).integers(0, 4, size=(8, N))
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    assert (counts == 0).any() and (counts == 3).any()

    class Race(participation.Everyone):
        def sample(self, key, state, num_agents):
            state, cohort = super().sample(key, state, num_agents)
            return state, cohort._replace(work=jnp.asarray(counts)[state.astype(int) - 1])

    component(Race)
    objective = RowsObjective(jnp.asarray(data[1]))
    theta, history, _ = play(
        data, afedpg(objective, 0.1, 0.3, num_local_steps=3, weight=weight), 8, participation=Race()
    )
    expected = oracle.nigt_rounds(ascent(data), data[1], list(counts), 0.1, 0.3, by_count=by_count)
    np.testing.assert_allclose(theta, expected, rtol=1e-9)
    assert history["messages_delivered"].tolist() == (counts > 0).sum(1).tolist()


def test_fedsgd_with_several_gradients_is_fedsgd_where_all_are_equal(data):
    objective = RowsObjective(jnp.asarray(data[1]))
    results = [
        play(data, local_training(objective, optax.adam(0.1), upload="gradient", num_local_steps=k), 4)[0]
        for k in (1, 3)
    ]
    np.testing.assert_allclose(*results, rtol=1e-12)


DISCOUNTS = {
    "constant": lambda d: 1.0,
    "hinge": lambda d: 1.0 if d <= 2 else 1 / (10 * (d - 2)),
    "polynomial": lambda d: (d + 1) ** -0.5,
}


@pytest.mark.parametrize("name", list(DISCOUNTS))
def test_fed_async_arrival_by_arrival(data, name):
    order = oracle.arrivals(TIMES, 40)
    models = arrive(
        data, lambda o: fed_async(local_training(o, optax.sgd(0.2), num_local_steps=3), 0.6), order, DISCOUNTS[name]
    )

    def train(i, theta):
        mean = data[0][i].mean(0)
        return mean + 0.8**3 * (theta - mean)

    expected = oracle.fed_async(train, data[1], N, order, 0.6, DISCOUNTS[name])
    np.testing.assert_allclose(models, expected, rtol=1e-9, atol=1e-12)


def test_fed_async_with_full_mixing_and_no_delay_is_fedavg(data):
    plain = local_training(RowsObjective(jnp.asarray(data[1])), optax.adam(0.1), num_local_steps=3)
    for agents in (1, N):  # mean of the models = model + mean of the movements
        fedavg, mixed = play(data, plain, 5, agents)[0], play(data, fed_async(plain, 1.0), 5, agents)[0]
        np.testing.assert_allclose(mixed, fedavg, rtol=1e-9)


@component
class Batches(participation.Everyone):
    """The agents of a list arrive, so many at once; rows end where one of them would come back."""

    index: jax.Array  # i32[R, B]
    active: jax.Array  # bool[R, B]

    def sample(self, key, state, num_agents):
        row = state.astype(int)
        index, active = self.index[row], self.active[row]
        return state + 1, Cohort(index, active, jnp.ones(active.shape, jnp.float32), None, state)


def in_batches(order, size):
    """Rows of at most `size` distinct agents, filled up by those who are not in it."""
    rows = [[]]
    for i in order:
        if len(rows[-1]) == size or i in rows[-1]:
            rows.append([])
        rows[-1].append(i)
    index = [row + [i for i in range(N) if i not in row][: size - len(row)] for row in rows]
    active = [[k < len(row) for k in range(size)] for row in rows]
    return Batches(jnp.asarray(index, jnp.int32), jnp.asarray(active)), len(rows)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", ["afedpg", "vanilla", "fed_async"])
def test_arrivals_in_a_round(data, name, size):
    order = oracle.arrivals(TIMES, 30)
    objective = RowsObjective(jnp.asarray(data[1]))
    discount = topologies.polynomial(0.5) if name == "fed_async" else None
    if name == "fed_async":
        learner = fed_async(local_training(objective, optax.sgd(0.2), num_local_steps=3), 0.6)
        expected = oracle.fed_async(
            lambda i, x: data[0][i].mean(0) + 0.8**3 * (x - data[0][i].mean(0)), data[1], N, order, 0.6,
            DISCOUNTS["polynomial"],
        )  # fmt: skip
    else:
        learner = afedpg(objective, **afedpg_schedules(0.5), lookahead=name == "afedpg")
        expected = oracle.afedpg(
            ascent(data), data[1], N, order, lambda k: 0.5 * (k + 1) ** (-5 / 7), lambda k: (k + 1) ** (-4 / 7),
            lookahead=name == "afedpg",
        )  # fmt: skip
    cohorts, num_rounds = in_batches(order, size)
    theta, history, _ = play(
        data, learner, num_rounds, participation=cohorts,
        topology=topologies.sequential(topologies.snapshot(topologies.star(), discount)),
    )  # fmt: skip
    assert history["messages_delivered"].sum() == len(order)
    assert history["staleness_max"].max() > N
    np.testing.assert_allclose(theta, expected[-1], rtol=1e-9)


@component
class Thousandth(Transform):
    """A message a thousand times shorter."""

    def encode(self, key, agent, envelope, download):
        return agent, envelope._replace(payload=tree.scale(1e-3, envelope.payload))


def test_no_transform_changes_the_momentum(data):
    # Normalised steps do not depend on the length of the gradients, so only the momentum could be hurt.
    learner = afedpg(RowsObjective(jnp.asarray(data[1])), 0.1, 0.3)
    plain, short = (play(data, learner, 5, transforms=ways)[0] for ways in ((), (Thousandth(),)))
    np.testing.assert_allclose(short, plain, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda o: make_round_of(fed_async(local_training(o, optax.sgd(0.1))), aggregators.mean(expected=1)),
            r"aggregator must be mean\(\) without expected with FedAsync, got Mean: what arrives is a place",
        ),
        (lambda o: aggregate_only(fed_async(local_training(o, optax.sgd(0.1))), ("a",)), "learner must be local_train"),
        (lambda o: afedpg_schedules(-1.0), r"step_size must lie in \(0, inf\), got -1\.0"),
        (lambda o: afedpg(optax.sgd(1.0), 0.1, 0.1), "objective must be an Objective"),
        (lambda o: afedpg(o, -0.1, 0.1), r"step_size must lie in \(0, inf\), got -0\.1"),
        (lambda o: afedpg(o, 0.1, 0.0), r"momentum must lie in \(0, 1\], got 0\.0"),
        (lambda o: afedpg(o, 0.1, rl.power_decay(1.5, 0.5)), r"momentum must lie in \(0, 1\], got 1\.5"),
        (lambda o: afedpg(o, 0.1, 0.5, lookahead=1), "lookahead must be True or False"),
        (lambda o: afedpg(o, 0.1, 0.5, num_local_steps=0), "num_local_steps must be an integer >= 1"),
        (lambda o: afedpg_schedules(0.1, "local"), "convergence must be one of 'stationary', 'global', got 'local'"),
        (lambda o: rl.power_decay(0.1, -1.0), r"exponent must lie in \[0, inf\)"),
        (lambda o: fed_async(o), "learner must be local_training"),
        (lambda o: fed_async(local_training(o, optax.sgd(0.1), upload="gradient")), "movement of its parameters alone"),
        (
            lambda o: fed_async(
                local_training(o, optimizer(optax.sgd, learning_rate=0.1), corrections=(normalized_averaging(),))
            ),
            "corrections must leave the merge alone with fed_async, got NormalizedAveraging",
        ),
        (
            lambda o: fed_async(local_training(o, optax.sgd(0.1), corrections=(control_variates(),), weight="uniform")),
            "got ControlVariates",
        ),
        (lambda o: fed_async(local_training(o, optax.sgd(0.1)), 0.0), r"mixing must lie in \(0, 1\], got 0\.0"),
        (lambda o: make_round_of(server_optimizer(afedpg(o, 0.1, 0.5), optax.sgd(1.0))), "must keep its model"),
    ],
)
def test_bad_input_is_refused(data, make, message):
    with pytest.raises(ValueError, match=message):
        make(RowsObjective(data[1]))


def make_round_of(learner, aggregator=None):
    zeros = RowsPhysics(jnp.zeros((1, S, D)), jnp.ones(1))
    return make_round(RowsFamily(zeros), learner, aggregator or aggregators.mean(), num_agents=1)
