"""Topologies whose agents act at different times, event by event against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_round, run, topologies
from fedjax_rl.core import quick
from tests.oracles import asynchrony
from tests.probes.arrivals import arrivals, batches
from tests.probes.quadratic import Descent, Targets
from tests.probes.traffic import Losing, lost


NUM_AGENTS, SEED, STEP, NOISE = 7, 5, 0.3, 0.5
TARGETS = np.random.default_rng(0).normal(size=(NUM_AGENTS, 3))
# Agent 0 is fast and agent 6 comes once.
EVENTS = [int(i) for i in np.random.default_rng(1).choice(6, 40, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])] + [6, 0, 1, 0, 6]
STAR = topologies.star()
DISCOUNTS = [
    (None, lambda d: 1.0),
    (topologies.constant(), lambda d: 1.0),
    (topologies.polynomial(0.5), lambda d: (1 + d) ** -0.5),
    (topologies.hinge(2.0, 3), lambda d: 1.0 if d <= 3 else 1 / (1 + 2 * (d - 3))),
]
pytestmark = pytest.mark.usefixtures("x64")


def noise(agent, turn):
    """What the probe draws when an agent acts for the n-th time."""
    k_agents = jax.random.split(jax.random.fold_in(run_key(), turn), 4)[1]
    key = quick(jax.random.fold_in(jax.random.fold_in(k_agents, agent), 0))
    return NOISE * np.asarray(jax.random.normal(key, (3,), jnp.float64))


def run_key():
    return jax.random.split(jax.random.key(SEED), 5)[0]


def play(topology, participation=None, *, num_rounds=None, aggregator=None, **options):
    """The server's model after each round, and the metrics."""
    round_ = make_round(
        Targets(jnp.asarray(TARGETS)), Descent(STEP, NOISE), aggregator or aggregators.mean(), num_agents=NUM_AGENTS,
        topology=topology, participation=participation, **options,
    )  # fmt: skip
    num_rounds = num_rounds or participation.num_rounds
    _, history = run(round_, round_.init(jax.random.key(SEED)), num_rounds, record=model_of_agent_0)
    return history["model"], history


def model_of_agent_0(round_, state):
    return {"model": round_.policies(state, jnp.arange(1))[0]}


def close(x, y):
    np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("discount", "s"), DISCOUNTS)
def test_agents_work_with_the_model_they_departed_with(batch, discount, s):
    topology = topologies.sequential(topologies.snapshot(STAR, discount))
    models, history = play(topology, arrivals(EVENTS, batch, NUM_AGENTS))
    expected, staleness = asynchrony.arrive_one_by_one(TARGETS, EVENTS, STEP, noise, discount=s)
    sizes = [len(piece) for piece in batches(EVENTS, batch)]
    ends = np.cumsum(sizes)
    close(models, expected[ends - 1])
    pieces = np.split(np.array(staleness), ends[:-1])
    np.testing.assert_array_equal(history["staleness_max"], [max(p) for p in pieces])
    np.testing.assert_allclose(history["staleness_mean"], [np.mean(p) for p in pieces], rtol=1e-6)
    assert max(staleness) > 10


@pytest.mark.parametrize(("discount", "s"), DISCOUNTS)
@pytest.mark.parametrize("make", [topologies.snapshot, lambda inner, s: topologies.asynchronous(inner, 99, s)])
def test_a_batch_may_be_merged_as_one(make, discount, s):
    models, _ = play(make(STAR, discount), arrivals(EVENTS, 4, NUM_AGENTS))
    close(models, asynchrony.arrive_in_batches(TARGETS, batches(EVENTS, 4), STEP, noise, discount=s))


@pytest.mark.parametrize("bound", [0, 1, 3, 50])
def test_staleness_is_bounded_by_calling_agents(bound):
    topology = topologies.sequential(topologies.asynchronous(STAR, bound, topologies.polynomial(0.5)))
    models, history = play(topology, arrivals(EVENTS, 1, NUM_AGENTS))
    expected, staleness = asynchrony.arrive_one_by_one(
        TARGETS, EVENTS, STEP, noise, discount=lambda d: (1 + d) ** -0.5, bound=bound
    )
    close(models, expected)
    np.testing.assert_array_equal(history["staleness_max"], staleness)
    models, _ = play(topologies.asynchronous(STAR, bound), arrivals(EVENTS, 4, NUM_AGENTS))
    close(models, asynchrony.arrive_in_batches(TARGETS, batches(EVENTS, 4), STEP, noise, bound=bound))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("capacity", [1, 3, 10])
@pytest.mark.parametrize(("aggregator", "merge"), [(aggregators.mean(), np.mean), (aggregators.median(), np.median)])
def test_fedbuff_merges_as_many_as_its_buffer_holds(capacity, batch, aggregator, merge):
    topology = topologies.sequential(
        topologies.snapshot(topologies.buffered(STAR, capacity), topologies.polynomial(0.5))
    )
    models, history = play(topology, arrivals(EVENTS, batch, NUM_AGENTS), aggregator=aggregator)
    expected, staleness = asynchrony.arrive_one_by_one(
        TARGETS, EVENTS, STEP, noise, discount=lambda d: (1 + d) ** -0.5, capacity=capacity, merge=merge
    )
    ends = np.cumsum([len(piece) for piece in batches(EVENTS, batch)])
    close(models, expected[ends - 1])
    np.testing.assert_array_equal(
        history["staleness_max"], [max(p) for p in np.split(np.array(staleness), ends[:-1])]
    )  # fmt: skip


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_lost_messages_make_no_versions_and_agents_depart_anew(capacity, batch):
    topology = topologies.sequential(topologies.snapshot(topologies.buffered(STAR, capacity)))
    models, history = play(topology, arrivals(EVENTS, batch, NUM_AGENTS), transforms=(Losing(),))
    expected, staleness = asynchrony.arrive_one_by_one(TARGETS, EVENTS, STEP, noise, capacity=capacity, lost=lost)
    ends = np.cumsum([len(piece) for piece in batches(EVENTS, batch)])
    close(models, expected[ends - 1])
    assert history["messages_delivered"].sum() == len(staleness) < len(EVENTS)
    assert history["messages_lost"].sum() == len(EVENTS) - len(staleness)
    assert np.nansum(history["staleness_mean"] * history["messages_delivered"]) == pytest.approx(sum(staleness))


@pytest.mark.parametrize(("aggregator", "merge"), [(aggregators.mean(), np.mean), (aggregators.median(), np.median)])
def test_rounds_that_fill_the_buffer_are_part_of_the_merge(aggregator, merge):
    # Seven messages a round: at least 10 are there after every second round.
    models, _ = play(topologies.buffered(STAR, 10), num_rounds=5, aggregator=aggregator)
    x, expected = np.zeros(3), []
    for t in range(5):
        expected.append(x)
        if t % 2 == 1:
            x = expected[-1] = x + merge(
                [-STEP * (x - TARGETS[i] + noise(i, u)) for u in (t - 1, t) for i in range(NUM_AGENTS)], axis=0
            )
    close(models, expected)


@pytest.mark.parametrize("delays", [[0] * 7, [2] * 7, [0, 1, 2, 3, 4, 0, 6]])
def test_delayed_agents_step_from_old_models(delays):
    models, history = play(topologies.delayed(STAR, delays), num_rounds=12)
    close(models, asynchrony.always_late(TARGETS, delays, STEP, noise, 12))
    np.testing.assert_array_equal(history["staleness_max"], np.minimum(np.arange(12), max(delays)))


@pytest.mark.parametrize(("sync_period", "outage"), [(1, 0), (3, 0), (4, 2), (50, 1)])
def test_a_replica_takes_over_where_the_server_fails(sync_period, outage):
    topology = topologies.failover(STAR, 0.25, sync_period, outage)
    models, history = play(topology, num_rounds=30)

    def strikes(n):
        """Read off the run: whether the server failed after n rounds; what follows from it is computed."""
        return None if n > 30 else history["failures"][n - 1] == 1

    assert history["failures"].sum() >= 2
    expected, reports = asynchrony.fail_over(TARGETS, STEP, noise, strikes, sync_period, outage)
    close(models, expected)
    for name, column in zip(("failures", "lost_rounds", "messages_lost"), zip(*reports, strict=True), strict=True):
        np.testing.assert_array_equal(history[name], column)
    # What arrives nowhere is sent all the same; nothing can be received where there is no server.
    away = history["messages_lost"] > 0
    assert (history["uplink_bits"] == 64 * 3 * NUM_AGENTS).all()
    np.testing.assert_array_equal(history["downlink_bits"], np.where(away, 0, 64 * 3 * NUM_AGENTS))


def test_the_server_fails_as_often_as_it_should():
    # 2000 rounds with p = 0.1: the share has a standard deviation of 0.0067; beyond 5 of them with probability 6e-7.
    _, history = play(topologies.failover(STAR, 0.1, 5, 0), num_rounds=2000)
    assert abs(history["failures"].mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 2000)


@pytest.mark.parametrize("topology", [STAR, topologies.sequential(topologies.snapshot(STAR)), "fedbuff"])
def test_a_server_that_never_fails_is_the_server(topology):
    if topology == "fedbuff":
        topology = topologies.sequential(topologies.snapshot(topologies.buffered(STAR, 3), topologies.polynomial()))
    rule = arrivals(EVENTS, 4, NUM_AGENTS)
    models, history = play(topologies.failover(topology, 0.0, 3, 2), rule)
    expected, plain = play(topology, rule)
    np.testing.assert_array_equal(models, expected)
    for name in plain:
        np.testing.assert_array_equal(history[name], plain[name])
    assert not history["failures"].any()
    assert not history["lost_rounds"].any()


def test_after_a_failure_agents_keep_the_models_they_departed_with():
    # The server always fails, and nothing but the first model is ever kept: each batch starts from it again.
    topology = topologies.failover(topologies.sequential(topologies.snapshot(STAR)), 1.0, 1000, 0)
    models, history = play(topology, arrivals(EVENTS, 1, NUM_AGENTS))
    np.testing.assert_array_equal(models, np.zeros_like(models))
    assert (history["lost_rounds"] == 1).all()
    assert (history["staleness_max"] == 0).all()
    assert history["distance"].max() != history["distance"].min()


@pytest.mark.parametrize("period", [1, 3, 5])
def test_models_meet_every_few_rounds(period):
    models, history = play(topologies.periodic(STAR, period), num_rounds=11)
    x, expected = np.zeros((NUM_AGENTS, 3)), []
    for t in range(11):
        x = x - STEP * (x - TARGETS + np.array([noise(i, t) for i in range(NUM_AGENTS)]))
        if (t + 1) % period == 0:
            x = np.broadcast_to(x.mean(0), x.shape)
        expected.append(x[0])
    close(models, expected)
    bits = np.where(np.arange(1, 12) % period == 0, 64 * 3 * NUM_AGENTS, 0)
    np.testing.assert_array_equal(history["uplink_bits"], bits)
    np.testing.assert_array_equal(history["downlink_bits"], bits)


def test_neighbours_meet_every_few_rounds():
    graph = topologies.ring(NUM_AGENTS)
    models, history = play(topologies.periodic(topologies.gossip(graph), 2), num_rounds=6)
    x, expected = np.zeros((NUM_AGENTS, 3)), []
    for t in range(6):
        x = x - STEP * (x - TARGETS + np.array([noise(i, t) for i in range(NUM_AGENTS)]))
        x = graph.matrix() @ x if t % 2 else x
        expected.append(x[0])
    close(models, expected)
    assert history["uplink_bits"].tolist() == [0, 64 * 3 * 2 * NUM_AGENTS] * 3


def test_who_is_absent_when_models_meet_is_neither_heard_nor_changed():
    events = [0, 1, 2, 3, 4, 5, 0, 1, 2, 6, 5, 4]
    round_ = make_round(
        Targets(jnp.asarray(TARGETS)), Descent(STEP, NOISE), aggregators.mean(), num_agents=NUM_AGENTS,
        topology=topologies.periodic(STAR, 2), participation=arrivals(events, 4, NUM_AGENTS),
    )  # fmt: skip
    state, _ = run(round_, round_.init(jax.random.key(SEED)), 3)
    x, turn = np.zeros((NUM_AGENTS, 3)), [0] * NUM_AGENTS
    for t, piece in enumerate(batches(events, 4)[:3]):
        for i in piece:
            x[i] -= STEP * (x[i] - TARGETS[i] + noise(i, turn[i]))
            turn[i] += 1
        if t == 1:
            x[piece] = x[piece].mean(0)
    close(round_.policies(state, jnp.arange(NUM_AGENTS)), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: topologies.sequential("star"), r"inner must be a Topology, got 'star'"),
        (lambda: topologies.sequential(topologies.gossip(topologies.ring(7))), r"one at a time .* got Gossip"),
        (lambda: topologies.sequential(topologies.failover(STAR, 0.1)), r"one at a time .* got Failover"),
        (lambda: topologies.sequential(topologies.snapshot(topologies.delayed(STAR, [1]))), r"got Snapshot"),
        (lambda: topologies.snapshot(STAR, 0.5), r"discount must be a Discount or None, got 0\.5"),
        (lambda: topologies.asynchronous(STAR, 3, "hinge"), r"discount must be a Discount or None"),
        (lambda: topologies.asynchronous(STAR, -1), r"max_staleness must be an integer >= 0, got -1"),
        (lambda: topologies.asynchronous(topologies.sequential(STAR), 1), r"one server .* got Sequential"),
        (lambda: topologies.asynchronous(topologies.isolated(), 1), r"one server .* got Isolated"),
        (lambda: topologies.delayed(STAR, [0, -1]), r"delays must be counts, got \[0, -1\]"),
        (lambda: topologies.delayed(STAR, [0.5]), r"delays must be counts"),
        (lambda: topologies.delayed(STAR, 3), r"delays must be a list of one number per agent, got 3"),
        (
            lambda: play(topologies.delayed(STAR, [0, 1]), num_rounds=1),
            r"delays must be 7 numbers, one per agent, got 2",
        ),
        (lambda: topologies.buffered(STAR, 0), r"capacity must be an integer >= 1, got 0"),
        (lambda: topologies.buffered(topologies.snapshot(STAR), 2), r"one server .* with buffered, got Snapshot"),
        (lambda: topologies.periodic(topologies.snapshot(STAR)), r"how models are averaged .* got Snapshot"),
        (lambda: topologies.periodic(STAR, 0), r"period must be an integer >= 1, got 0"),
        (lambda: topologies.failover(topologies.isolated(), 0.1), r"server that can fail .* got Isolated"),
        (
            lambda: topologies.failover(topologies.sequential(topologies.asynchronous(STAR, 2)), 0.1),
            "departed with under failover, got Asynchronous",
        ),
        (
            lambda: topologies.failover(topologies.delayed(STAR, (0, 1)), 0.1),
            "departed with under failover, got Delayed",
        ),
        (lambda: topologies.failover(STAR, 1.5), r"failure must lie in \[0, 1\], got 1\.5"),
        (lambda: topologies.failover(STAR, 0.5, 0), r"sync_period must be an integer >= 1"),
        (lambda: topologies.failover(STAR, 0.5, 1, -1), r"outage must be an integer >= 0"),
        (lambda: topologies.hinge(-1.0), r"slope must lie in \[0, inf\), got -1\.0"),
        (lambda: topologies.hinge(1.0, -1), r"threshold must lie in \[0, inf\)"),
        (lambda: topologies.polynomial(-0.5), r"exponent must lie in \[0, inf\)"),
        (
            lambda: play(topologies.periodic(STAR), num_rounds=1, transforms=(Losing(),)),
            r"must not lose messages with Periodic",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
