"""Local training against plain loops: FedAvg, FedSGD, FedProx, FedOpt, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from fedjax_rl import aggregators, make_round, participation, run, topologies, transforms
from fedjax_rl.core import component
from fedjax_rl.learners import local_training, optimizer, proximal, server_optimizer
from fedjax_rl.learners._optimizer import _ELEMENTWISE as ELEMENTWISE
from tests.oracles import fedavg as oracle
from tests.probes.rows import RowsFamily, RowsObjective, RowsPhysics


K, S, D, ROUNDS = 4, 6, 3, 3
SHAPES = {"vector": (2,), "matrix": (3, 2), "number": ()}
pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(name="data")
def make_data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(K, S, D)), np.array([1.0, 2.0, 3.0, 10.0]), generator.normal(size=D)


def play(data, make_learner, *, num_rounds=ROUNDS, **kwargs):
    rows, worth, first = data
    family = RowsFamily(RowsPhysics(jnp.asarray(rows), jnp.asarray(worth)))
    learner = make_learner(RowsObjective(jnp.asarray(first)))
    round_ = make_round(family, learner, aggregators.mean(), num_agents=K, **kwargs)
    state, history = run(round_, round_.init(jax.random.key(0)), num_rounds)
    return round_.policies(state, jnp.arange(K))["theta"], history


def only_matrices(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def gradient(data):
    return lambda k, w: w - data[0][k].mean(0)


@pytest.mark.parametrize("weight", ["samples", "uniform"])
@pytest.mark.parametrize("steps", [1, 5])
def test_fedavg_with_sgd(data, weight, steps):
    theta, history = play(data, lambda o: local_training(o, optax.sgd(0.1), num_local_steps=steps, weight=weight))
    n = data[1] if weight == "samples" else np.ones(K)
    expected = oracle.fedavg(gradient(data), data[2], n, rounds=ROUNDS, E=steps, make_local=lambda: oracle.SGD(0.1))
    np.testing.assert_allclose(theta[0], expected, rtol=1e-6)
    first_drift = [
        np.linalg.norm((1 - 0.9**steps) * (data[2] - data[0][k].mean(0))) for k in range(K)
    ]  # theta_k - theta after `steps` steps of w <- w - 0.1 (w - mean_k)
    np.testing.assert_allclose(history["drift"][0], np.mean(first_drift), rtol=1e-6)


@pytest.mark.parametrize("kind", ["reset", "keep"])
def test_local_adam_state(data, kind):
    theta, _ = play(
        data, lambda o: local_training(o, optax.adam(0.1), num_local_steps=2, optimizer_state=kind, weight="uniform")
    )
    keep = kind == "keep"
    expected = oracle.fedavg(
        gradient(data),
        data[2],
        np.ones(K),
        rounds=ROUNDS,
        E=2,
        make_local=lambda: oracle.Adam(0.1),
        keep=keep,
    )
    np.testing.assert_allclose(theta[0], expected, rtol=1e-6)


def test_averaged_adam_state_is_the_mean_of_the_agents_states(data):
    theta, _ = play(
        data,
        lambda o: local_training(o, optax.adam(0.1), num_local_steps=2, optimizer_state="average", weight="uniform"),
    )
    server, expected = oracle.Adam(0.1), data[2]
    for _ in range(ROUNDS):
        ends = []
        for k in range(K):
            local = oracle.Adam(0.1)
            local.m, local.v, local.t = server.m, server.v, server.t
            w = expected
            for _ in range(2):
                w = local.step(w, gradient(data)(k, w))
            ends.append((w, local.m, local.v))
        expected, server.m, server.v = (np.mean([e[i] for e in ends], axis=0) for i in range(3))
        server.t += 2
    np.testing.assert_allclose(theta[0], expected, rtol=1e-6)


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_fedprox(data, mu):
    theta, _ = play(data, lambda o: local_training(o, optax.sgd(0.1), num_local_steps=4, corrections=(proximal(mu),)))
    expected = oracle.fedavg(
        gradient(data), data[2], data[1], rounds=ROUNDS, E=4, make_local=lambda: oracle.SGD(0.1), mu=mu
    )
    np.testing.assert_allclose(theta[0], expected, rtol=1e-6)


def test_fedprox_zero_is_fedavg_exactly(data):
    plain, _ = play(data, lambda o: local_training(o, optax.sgd(0.1), num_local_steps=4))
    zero, _ = play(data, lambda o: local_training(o, optax.sgd(0.1), num_local_steps=4, corrections=(proximal(0.0),)))
    np.testing.assert_array_equal(plain, zero)


@pytest.mark.parametrize(
    ("server", "expected_server"), [(optax.adam(0.1), oracle.Adam(0.1)), (optax.yogi(0.1), oracle.Yogi(0.1))]
)
def test_fedopt(data, server, expected_server):
    theta, _ = play(data, lambda o: server_optimizer(local_training(o, optax.sgd(0.1), num_local_steps=3), server))
    expected = oracle.fedavg(
        gradient(data),
        data[2],
        data[1],
        rounds=ROUNDS,
        E=3,
        make_local=lambda: oracle.SGD(0.1),
        server=expected_server,
    )
    np.testing.assert_allclose(theta[0], expected, rtol=1e-6)


def test_server_sgd_of_one_is_the_plain_merge(data):
    plain, _ = play(data, lambda o: local_training(o, optax.sgd(0.1), num_local_steps=3))
    server, _ = play(
        data, lambda o: server_optimizer(local_training(o, optax.sgd(0.1), num_local_steps=3), optax.sgd(1.0))
    )
    np.testing.assert_allclose(plain, server, rtol=1e-12)


@pytest.mark.parametrize(
    ("server", "expected_server"), [(optax.sgd(0.3), oracle.SGD(0.3)), (optax.adam(0.1), oracle.Adam(0.1))]
)
def test_fedsgd(data, server, expected_server):
    theta, history = play(data, lambda o: local_training(o, server, upload="gradient"))
    expected = oracle.fedsgd(gradient(data), data[2], data[1], rounds=ROUNDS, server=expected_server)
    np.testing.assert_allclose(theta[0], expected, rtol=1e-6)
    assert "drift" not in history


def test_minibatches_visit_every_row_once_per_epoch(data):
    # With tiny steps the order does not matter and the sum of all row gradients remains: theta moves by
    # -eta sum over epochs and minibatches of the minibatch means = -eta epochs minibatches (theta - mean).
    eta = 1e-9
    theta, _ = play(
        data,
        lambda o: local_training(o, optax.sgd(eta), num_epochs=2, num_minibatches=3, weight="uniform"),
        num_rounds=1,
    )
    expected = -eta * 2 * 3 * (data[2] - data[0].mean((0, 1)))
    np.testing.assert_allclose((theta[0] - data[2]), expected, rtol=1e-5)


def test_every_agent_shuffles_its_rows_in_every_epoch():
    # Steps of size 1 on minibatches of one row end at the last row. The last rows of the first and of the second epoch
    # are any two of the six, equally often: 35 degrees of freedom, a false alarm of 1e-6.
    agents = 2048
    rows = jnp.broadcast_to(jnp.arange(float(S))[:, None], (agents, S, 1))
    family = RowsFamily(RowsPhysics(rows, jnp.ones(agents)))

    def last_rows(num_epochs):
        learner = local_training(
            RowsObjective(jnp.zeros(1)), optax.sgd(1.0), num_epochs=num_epochs, num_minibatches=S, weight="uniform"
        )
        round_ = make_round(family, learner, aggregators.mean(), num_agents=agents, topology=topologies.isolated())
        state, _ = run(round_, round_.init(jax.random.key(0)), 1)
        return np.asarray(round_.policies(state, jnp.arange(agents))["theta"][:, 0])

    pairs = S * last_rows(1) + last_rows(2)
    counts = np.bincount(pairs.astype(int), minlength=S * S)
    np.testing.assert_array_equal(pairs, pairs.astype(int))
    assert scipy.stats.chisquare(counts).pvalue > 1e-6


def test_epochs_without_minibatches_are_plain_steps(data):
    epochs, _ = play(data, lambda o: local_training(o, optax.sgd(0.1), num_epochs=4))
    steps, _ = play(data, lambda o: local_training(o, optax.sgd(0.1), num_local_steps=4))
    # The rows do not change between collects, but four collects of n samples weigh 4 n.
    np.testing.assert_allclose(epochs, steps, rtol=1e-12)


def test_work_limits_the_local_steps(data):
    class Limited(participation.Everyone):
        def sample(self, key, state, num_agents):
            state, cohort = super().sample(key, state, num_agents)
            return state, cohort._replace(work=jnp.arange(num_agents))

    component(Limited)
    theta, _ = play(
        data,
        lambda o: local_training(o, optax.sgd(0.1), num_local_steps=3, weight="uniform"),
        topology=topologies.isolated(),
        participation=Limited(),
        num_rounds=1,
    )
    for k in range(K):
        mean = data[0][k].mean(0)
        np.testing.assert_allclose(theta[k], mean + 0.9 ** min(k, 3) * (data[2] - mean), rtol=1e-6)


def test_isolated_agents_descend_their_own_loss(data):
    theta, _ = play(data, lambda o: local_training(o, optax.sgd(0.5)), topology=topologies.isolated(), num_rounds=60)
    np.testing.assert_allclose(theta, data[0].mean(1), rtol=1e-9)


def test_hyperparameters_of_an_optimizer_are_leaves():
    described = optimizer(optax.adam, learning_rate=0.1, b1=0.8, nesterov=True)
    assert jax.tree.leaves(described) == [0.8, 0.1]


def test_what_an_optimizer_is_compiled_with_can_be_compared():
    with pytest.raises(ValueError, match=r"mask must be hashable, .* got {'head': False}"):
        optimizer(optax.adamw, learning_rate=0.1, mask={"head": False})
    with pytest.raises(ValueError, match="mask must be hashable"):
        optimizer(optax.adamw, learning_rate=0.1, mask=(True, [False]))
    masked = optimizer(optax.adamw, learning_rate=0.1, mask=only_matrices)
    assert isinstance(masked.build(), optax.GradientTransformation)


@pytest.mark.parametrize("factory", ELEMENTWISE, ids=lambda f: getattr(f, "__name__", "partial"))
def test_moments_as_one_vector_change_nothing(factory):
    generator = np.random.default_rng(1)
    params = {name: jnp.asarray(generator.normal(size=shape)) for name, shape in SHAPES.items()}
    rule = optimizer(factory, learning_rate=0.1)
    found = []
    for flat in (False, True):
        step, values, generator = rule.build(flat=flat), params, np.random.default_rng(2)
        state = step.init(values)
        for _ in range(4):
            gradient = jax.tree.map(lambda x: jnp.asarray(generator.normal(size=x.shape)), values)  # noqa: B023
            updates, state = step.update(gradient, state, values)
            values = optax.apply_updates(values, updates)
        found.append(values)
        moments = {x.shape for x in jax.tree.leaves(state) if x.ndim}
        assert moments == ({(2 + 6 + 1,)} if flat else {(2,), (3, 2)})
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), *found)
    assert np.all(np.asarray(found[0]["matrix"]) != params["matrix"])


@pytest.mark.parametrize("state", ["reset", "keep", "average"])
def test_only_moments_that_stay_with_an_agent_are_one_vector(state):
    learner = local_training(
        RowsObjective(np.zeros(2)), optimizer(optax.adam, learning_rate=0.1), optimizer_state=state
    )
    moments = learner.local_rule.init({"a": jnp.zeros((2, 3)), "b": jnp.zeros(4)})
    assert len(jax.tree.leaves(moments)) == (5 if state == "average" else 3)  # a count, and two moments of each leaf


@pytest.mark.parametrize("state", ["reset", "keep", "average"])
def test_agents_keep_no_moments_that_nobody_reads(data, state):
    rows, worth, first = data
    family = RowsFamily(RowsPhysics(jnp.asarray(rows), jnp.asarray(worth)))
    learner = local_training(RowsObjective(jnp.asarray(first)), optax.adam(0.1), optimizer_state=state)
    round_ = make_round(family, learner, aggregators.mean(), num_agents=K)
    kept = jax.tree.leaves(round_.init(jax.random.key(0)).local)
    assert len(kept) == (3 if state == "keep" else 0) and all(leaf.shape[0] == K for leaf in kept)


def test_rules_that_look_at_leaves_are_not_flattened():
    masked = optimizer(optax.adamw, learning_rate=0.1, weight_decay=0.5, mask=only_matrices)
    rates = optimizer(optax.adam, learning_rate=jnp.array([0.1, 0.2, 0.3]))
    for rule in (masked, rates, optimizer(optax.lamb, learning_rate=0.1), optimizer(optax.adam(0.1))):
        assert len(jax.tree.leaves(rule.build(flat=True).init({"a": jnp.zeros((2, 3)), "b": jnp.zeros(4)}))) >= 5


@pytest.mark.parametrize("state", ["reset", "keep"])
def test_a_schedule_counts_the_steps_of_the_optimizers_state(data, state):
    rates = optax.piecewise_constant_schedule(0.5, {1: 0.5, 2: 0.0})  # 0.5, 0.25, then 0
    sgd = optimizer(optax.sgd, learning_rate=rates, nesterov=False)
    theta, _ = play(data, lambda o: local_training(o, sgd, num_local_steps=2, optimizer_state=state), num_rounds=3)
    rounds_that_move = 3 if state == "reset" else 1
    mean = np.average(data[0].mean(1), axis=0, weights=data[1])
    expected = mean + (0.5 * 0.75) ** rounds_that_move * (data[2] - mean)
    np.testing.assert_allclose(theta[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_local_steps": 0}, "num_local_steps must be an integer >= 1, got 0"),
        ({"num_epochs": 1.5}, "num_epochs must be an integer >= 1, got 1.5"),
        ({"upload": "weights"}, "upload must be one of 'delta', 'gradient', got 'weights'"),
        ({"weight": "size"}, "weight must be one of"),
        ({"optimizer_state": "share"}, "optimizer_state must be one of"),
        ({"corrections": (optax.sgd(1.0),)}, r"corrections\[0\] must be a Correction"),
        ({"upload": "gradient", "num_epochs": 2}, "takes one gradient per local step"),
        (
            {"upload": "gradient", "corrections": (proximal(0.1),)},
            "upload must be 'delta' with proximal, got 'gradient'",
        ),
        ({"corrections": proximal(0.1)}, r"corrections must be a tuple of corrections, .* write \(correction,\)"),
        ({"upload": "gradient", "optimizer_state": "keep"}, "must be 'reset' with upload='gradient'"),
    ],
)
def test_bad_input_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        local_training(RowsObjective(np.zeros(2)), optax.sgd(0.1), **kwargs)


def test_bad_optimizers_are_refused():
    with pytest.raises(ValueError, match=r"optax.adam does not accept these arguments.*'rate'"):
        optimizer(optax.adam, rate=0.1)
    with pytest.raises(ValueError, match="must be an optax factory"):
        local_training(RowsObjective(np.zeros(2)), 0.1)
    with pytest.raises(ValueError, match=r"strength must lie in \[0, inf\)"):
        proximal(-1.0)


def test_step_counters_do_not_travel(data):
    # A transform that scales messages must not scale how often Adam has stepped.
    rows, worth, first = data
    family = RowsFamily(RowsPhysics(jnp.asarray(rows), jnp.asarray(worth)))
    learner = local_training(
        RowsObjective(jnp.asarray(first)), optax.adam(0.1), num_local_steps=4, optimizer_state="average"
    )
    round_ = make_round(family, learner, aggregators.mean(), num_agents=K, transforms=(transforms.clip(1e-3),))
    state, history = run(round_, round_.init(jax.random.key(0)), 3)
    counts = [int(x) for x in jax.tree.leaves(state.places.public.shared.optimizer) if x.dtype == jnp.int32]
    assert counts == [12]
    assert history["uplink_bits"][0] == K * 64 * 3 * D


def test_a_server_optimizer_is_not_wrapped_twice(data):
    learner = server_optimizer(local_training(RowsObjective(data[2]), optax.sgd(0.1)), optax.adam(0.1))
    with pytest.raises(ValueError, match="must not be a server_optimizer already"):
        server_optimizer(learner, optax.sgd(1.0))
