"""The round on a problem with a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import (
    aggregators,
    init_seeds,
    make_mesh,
    make_round,
    participation,
    run,
    stack_rounds,
    topologies,
    transforms,
)
from fedjax_rl.core import Envelope, Places, Topology, Transform, TransformState, component, tree
from tests.probes.quadratic import Descent, Targets


NUM_AGENTS = 10


@pytest.fixture(name="targets")
def make_targets() -> jax.Array:
    return jax.random.normal(jax.random.key(7), (NUM_AGENTS, 3))


def quadratic(targets: jax.Array, *, noise: float = 0.0, aggregator=None, **kwargs):
    return make_round(
        Targets(targets), Descent(0.5, noise), aggregator or aggregators.mean(), num_agents=targets.shape[0], **kwargs
    )


def played(round_, num_rounds: int = 4):
    return run(round_, round_.init(jax.random.key(0)), num_rounds)


def test_follows_the_closed_form(targets):
    # theta_{r+1} = theta_r + (mean target - theta_r) / 2, so theta_r = (1 - 2^-r) mean target.
    state, history = played(quadratic(targets), 5)
    np.testing.assert_allclose(state.places.public.shared["params"], (1 - 2.0**-5) * targets.mean(0), rtol=1e-5)
    assert history["agent_updates"].tolist() == [NUM_AGENTS] * 5
    assert history["uplink_bits"].tolist() == [32 * 3 * NUM_AGENTS] * 5
    assert history["downlink_bits"].tolist() == [32 * 3 * NUM_AGENTS] * 5
    np.testing.assert_allclose(history["distance"][0], np.linalg.norm(targets, axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize("aggregator", [aggregators.mean(), aggregators.median()])
@pytest.mark.parametrize(("chunk_size", "num_devices"), [(1, 1), (7, 1), (None, 3), (2, 2), (1, 4)])
def test_layout_does_not_matter(targets, aggregator, chunk_size, num_devices):
    expected = played(quadratic(targets, noise=1.0, aggregator=aggregator))
    laid_out = quadratic(targets, noise=1.0, aggregator=aggregator, chunk_size=chunk_size, mesh=make_mesh(num_devices))
    state, history = played(laid_out)
    state = laid_out.without_padding(state)
    np.testing.assert_array_equal(state.local.draw, expected[0].local.draw)  # the same random numbers
    np.testing.assert_allclose(
        state.places.public.shared["params"], expected[0].places.public.shared["params"], rtol=1e-5, atol=1e-6
    )
    for name in history:
        np.testing.assert_allclose(history[name], expected[1][name], rtol=1e-5)


def test_a_nonfinite_agent_is_masked_and_counted(targets):
    broken = targets.at[3].set(jnp.nan).at[5].set(jnp.inf)
    round_ = quadratic(broken, chunk_size=4)
    state, history = played(round_, 3)
    healthy = np.delete(np.asarray(targets), [3, 5], axis=0)
    np.testing.assert_allclose(state.places.public.shared["params"], (1 - 2.0**-3) * healthy.mean(0), rtol=1e-5)
    assert history["nonfinite_messages"].tolist() == [2, 2, 2]
    assert np.isfinite(history["distance"]).all()
    # They stay as they were before the round.
    np.testing.assert_array_equal(state.local.rounds, [3, 3, 3, 0, 3, 0, 3, 3, 3, 3])


def test_nothing_received_nothing_merged(targets):
    round_ = quadratic(jnp.full_like(targets, jnp.nan))
    state, _ = played(round_, 2)
    np.testing.assert_array_equal(state.places.public.shared["params"], np.zeros(3))


def test_roles_count_agents_and_not_the_rows_that_fill_up_devices(targets):
    @component
    class Halves(Topology):
        """Two servers; which one is an agent's follows from the number of agents."""

        num_places = 2
        per_agent_models = True

        def init(self, node, state, message, num_agents):
            return Places(tree.replicate(state, 2), jnp.arange(num_agents) * 2 // num_agents)

        def pull(self, node, places, agent):
            return node.broadcast(self.model(places, agent))

        def model(self, places, agent):
            return tree.take(places.public, places.own).shared

        def address(self, places, agent):
            return places.own

        def push(self, key, node, places, cohort, mail):
            both = [node.digest(key, tree.take(places.public, i), mail.to(i)) for i in range(2)]
            return places._replace(public=jax.tree.map(lambda *x: jnp.stack(x), *both))

    @component
    class Counts(Transform):
        """The wire remembers how often each agent was heard."""

        def init(self, message):
            return TransformState(wire=jnp.zeros(NUM_AGENTS))

        def exchange(self, key, wire, cohort, envelopes):
            return cohort.put(wire, cohort.take(wire) + (envelopes.weight > 0)), envelopes

    for num_devices in (1, 4):
        round_ = quadratic(targets, topology=Halves(), transforms=(Counts(),), mesh=make_mesh(num_devices))
        state, _ = played(round_, 5)
        np.testing.assert_array_equal(state.wire[0], np.full(NUM_AGENTS, 5.0))
        halves = targets.reshape(2, NUM_AGENTS // 2, 3).mean(1)
        np.testing.assert_allclose(state.places.public.shared["params"], (1 - 2.0**-5) * halves, rtol=1e-5)


@pytest.mark.parametrize("aggregator", [aggregators.mean(), aggregators.median()])
@pytest.mark.parametrize("num_devices", [1, 2, 3, 4])  # three divide neither cohort nor agents, four the cohort only
def test_a_cohort_moves_only_its_members(targets, num_devices, aggregator):
    cohort = {"participation": participation.uniform_cohort(4), "noise": 1.0, "aggregator": aggregator}
    spread = quadratic(targets, mesh=make_mesh(num_devices), chunk_size=1, **cohort)
    state, history = played(spread, 6)
    state = spread.without_padding(state)
    expected, _ = played(quadratic(targets, **cohort), 6)  # the same members, with the same random numbers
    np.testing.assert_array_equal(state.local.draw, expected.local.draw)
    params = (s.places.public.shared["params"] for s in (state, expected))
    np.testing.assert_allclose(*params, rtol=1e-5, atol=1e-6)
    assert history["agent_updates"].tolist() == [4] * 6
    assert int(state.local.rounds.sum()) == 24
    assert set(np.asarray(state.local.rounds)) - {0, 6}  # not always the same ones


def test_isolated_agents_reach_their_own_targets(targets):
    round_ = quadratic(targets, topology=topologies.isolated())
    state, _ = played(round_, 20)
    models = round_.policies(state, jnp.arange(NUM_AGENTS))
    np.testing.assert_allclose(models, targets, atol=1e-4)


def test_isolated_with_one_agent_is_the_star(targets):
    one = targets[:1]
    star, _ = played(quadratic(one, noise=0.3))
    alone, _ = played(quadratic(one, noise=0.3, topology=topologies.isolated()))
    np.testing.assert_allclose(alone.places.own.shared["params"][0], star.places.public.shared["params"], rtol=1e-6)


def test_streaming_equals_stacking(targets):
    @component
    class Pass(Transform):
        def exchange(self, key, wire, cohort, envelopes):
            return wire, envelopes

    streamed, stacked = quadratic(targets, noise=1.0), quadratic(targets, noise=1.0, transforms=(Pass(),))
    assert streamed.streams
    assert not stacked.streams
    np.testing.assert_allclose(
        played(streamed)[0].places.public.shared["params"],
        played(stacked)[0].places.public.shared["params"],
        rtol=1e-5,
    )


def test_a_streamed_round_never_holds_the_stack():
    # 64 agents x 1000 parameters; with chunks of 8 no array of 64 000 numbers exists in the compiled program.
    targets = jnp.ones((64, 1))
    learner = Descent(0.5, num_parameters=1000)
    round_ = make_round(Targets(targets), learner, aggregators.mean(), num_agents=64, chunk_size=8)
    state = round_.init(jax.random.key(0))
    text = jax.jit(round_.step).lower(state).as_text()
    assert "8x1000xf32" in text
    assert "64x1000xf32" not in text


def test_a_lost_message_leaves_the_memory_as_it_was(targets):
    @component
    class Counting(Transform):
        """Counts what was delivered; the network loses the messages of even agents."""

        def init_agent(self, agent, message):
            return jnp.int32(0)

        def encode(self, key, agent, envelope, download):
            return agent + 1, envelope

        def exchange(self, key, wire, cohort, envelopes: Envelope):
            return wire, envelopes._replace(weight=jnp.where(cohort.ids() % 2 == 0, 0.0, envelopes.weight))

    state, _ = played(quadratic(targets, transforms=(Counting(),)), 3)
    np.testing.assert_array_equal(state.memory[0], [0, 3] * (NUM_AGENTS // 2))
    np.testing.assert_allclose(
        state.places.public.shared["params"], (1 - 2.0**-3) * np.asarray(targets)[1::2].mean(0), rtol=1e-5
    )


def test_transforms_act_in_order_and_clip_bounds_the_message(targets):
    state, _ = played(quadratic(100 * targets[:1], transforms=(transforms.clip(0.25),)), 2)
    np.testing.assert_allclose(np.linalg.norm(state.places.public.shared["params"]), 0.5, rtol=1e-5)


def test_seeds_in_one_program_equal_single_runs(targets):
    round_ = quadratic(targets, noise=1.0)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    for mesh in (None, make_mesh(2)):
        states = init_seeds(round_, keys, mesh=mesh)
        states, history = run(round_, states, 4, num_seeds=3, mesh=mesh, rounds_per_call=3)
        assert history["distance"].shape == (3, 4)
        for i in range(3):
            alone, expected = run(round_, round_.init(keys[i]), 4)
            np.testing.assert_allclose(history["distance"][i], expected["distance"], rtol=1e-6)
            np.testing.assert_array_equal(states.local.draw[i], alone.local.draw)


def test_stacked_rounds_equal_single_ones(targets):
    def with_step(step_size):
        return make_round(Targets(targets), Descent(step_size, 0.3), aggregators.mean(), num_agents=NUM_AGENTS)

    rounds = [with_step(step_size) for step_size in (0.1, 0.2, 0.4)]
    stacked = stack_rounds(rounds)
    assert len(stacked.own) == 1  # the targets, and what else is the same, are kept once
    keys = jax.vmap(jax.random.key)(jnp.array([0, 1] * 3))
    for mesh in (None, make_mesh(2)):
        _, history = run(stacked, init_seeds(stacked, keys, mesh=mesh), 4, num_seeds=6, mesh=mesh)
        for row in range(6):
            round_ = rounds[row // 2]
            _, alone = run(round_, round_.init(keys[row]), 4)
            np.testing.assert_allclose(history["distance"][row], alone["distance"], rtol=1e-6)
    with pytest.raises(ValueError, match="num_seeds must be a multiple of the 3 stacked rounds, got 4"):
        init_seeds(stacked, keys[:4])
    with pytest.raises(ValueError, match=r"num_seeds must be the number of stacked states, \(6,\), got 3"):
        run(stacked, init_seeds(stacked, keys), 1, num_seeds=3)
    with pytest.raises(ValueError, match="differ in numbers only"):
        stack_rounds([rounds[0], quadratic(targets[:4])])
    with pytest.raises(ValueError, match="must not be empty"):
        stack_rounds([])
    with pytest.raises(TypeError, match="rounds must come from make_round, got dict"):
        stack_rounds([{"learning_rate": 1.0}])


def test_what_is_recorded_after_every_round_joins_the_metrics(targets):
    def models(round_, state):
        return {"models": round_.policies(state, jnp.arange(2)), "after": state.round}

    round_ = make_round(Targets(targets), Descent(0.5, 0.3), aggregators.mean(), num_agents=NUM_AGENTS)
    state, history = run(round_, round_.init(jax.random.key(0)), 5, rounds_per_call=2, record=models)
    assert history["models"].shape == (5, 2, 3)
    np.testing.assert_array_equal(history["after"], np.arange(1, 6))
    np.testing.assert_array_equal(history["models"][-1], round_.policies(state, jnp.arange(2)))
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    _, seeds = run(round_, init_seeds(round_, keys), 5, rounds_per_call=2, num_seeds=3, record=models)
    assert seeds["models"].shape == (3, 5, 2, 3)
    np.testing.assert_array_equal(seeds["models"][0], history["models"])
    with pytest.raises(ValueError, match="record must not return distance, which the metrics have already"):
        run(round_, state, 1, record=lambda round_, state: {"distance": state.round})


def test_the_number_of_rounds_per_call_does_not_matter(targets):
    round_ = quadratic(targets, noise=1.0)
    expected = run(round_, round_.init(jax.random.key(0)), 7)
    state, history = run(round_, round_.init(jax.random.key(0)), 7, rounds_per_call=3)
    np.testing.assert_array_equal(history["distance"], expected[1]["distance"])
    np.testing.assert_array_equal(state.places.public.shared["params"], expected[0].places.public.shared["params"])


@pytest.mark.parametrize(("chunk_size", "num_devices"), [(None, 1), (3, 2)])
def test_an_agent_is_traced_once_and_not_for_a_changed_number(targets, chunk_size, num_devices):
    layout = {"chunk_size": chunk_size, "mesh": make_mesh(num_devices)}
    family, traces = Targets(targets), []

    class Traced(Descent):
        def update(self, *args):
            traces.append(1)
            return super().update(*args)

    component(Traced)
    for step_size in (0.1, 0.2, 0.3):
        round_ = make_round(family, Traced(step_size), aggregators.mean(), num_agents=NUM_AGENTS, **layout)
        state = round_.init(jax.random.key(0))
        before = len(traces)
        for _ in range(3):
            state, _ = run(round_, state, 2)
        assert len(traces) - before == (step_size == 0.1)


def test_the_state_keeps_its_avals(targets):
    round_ = quadratic(targets, transforms=(transforms.clip(1.0),), participation=participation.uniform_cohort(4))
    state = round_.init(jax.random.key(0))
    after = jax.eval_shape(lambda s: round_.step(s)[0], state)

    def aval(x):
        return (x.shape, x.dtype, getattr(x, "weak_type", False))

    assert jax.tree.map(aval, state) == jax.tree.map(aval, after)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_agents": 0}, "num_agents must be an integer >= 1, got 0"),
        ({"chunk_size": 0}, "chunk_size must be an integer >= 1, got 0"),
        ({"aggregator": aggregators.mean}, r"aggregator must be an Aggregator, got the function mean; call it"),
        ({"transforms": transforms.clip(1.0)}, "transforms must be a tuple"),
        ({"transforms": (aggregators.mean(),)}, r"transforms\[0\] must be a Transform"),
        ({"topology": "star"}, "topology must be a Topology, got 'star'"),
        ({"participation": participation.uniform_cohort(11)}, "must not exceed num_agents = 10, got 11"),
    ],
)
def test_bad_input_is_refused(targets, kwargs, message):
    arguments = {"num_agents": NUM_AGENTS, "aggregator": aggregators.mean()} | kwargs
    with pytest.raises(ValueError, match=message):
        make_round(Targets(targets), Descent(0.5), arguments.pop("aggregator"), **arguments)


def test_a_stack_that_cannot_fit_is_refused():
    family = Targets(jnp.zeros((1_000_000, 1)))
    learner = Descent(0.5, num_parameters=10_000_000)
    with pytest.raises(ValueError, match=r"Median with Star needs the stack .* use a linear aggregator"):
        make_round(family, learner, aggregators.median(), num_agents=1_000_000)


def test_a_mesh_needs_the_axis_agents(targets):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    with pytest.raises(ValueError, match="axis named 'agents'"):
        quadratic(targets, mesh=mesh)


def test_seeds_and_a_mesh_inside_exclude_each_other(targets):
    round_ = quadratic(targets, mesh=make_mesh(2))
    states = jax.tree.map(lambda x: jnp.stack([x, x]), round_.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="without a mesh"):
        run(round_, states, 1, num_seeds=2)


def test_a_finite_message_that_overflows_the_sum_is_refused_and_counted():
    # Each message is finite, 8 of them weighted by 64 are not: the server stays where it was.
    class Huge(Descent):
        def update(self, *args):
            local, envelope, metrics = super().update(*args)
            payload = jax.tree.map(lambda x: jnp.full_like(x, 1e37), envelope.payload)
            return local, envelope._replace(payload=payload, weight=jnp.float32(64)), metrics

    component(Huge)
    round_ = make_round(Targets(jnp.ones((8, 3))), Huge(0.1), aggregators.mean(), num_agents=8)
    state, history = run(round_, round_.init(jax.random.key(0)), 2)
    np.testing.assert_array_equal(history["nonfinite_messages"], [0, 0])
    np.testing.assert_array_equal(history["nonfinite_merges"], [1, 1])
    np.testing.assert_array_equal(round_.policies(state, jnp.arange(8)), np.zeros((8, 3)))


def test_isolated_agents_send_nothing():
    round_ = make_round(
        Targets(jnp.ones((4, 3))), Descent(0.1), aggregators.mean(), num_agents=4, topology=topologies.isolated()
    )
    _, history = run(round_, round_.init(jax.random.key(0)), 2)
    assert history["uplink_bits"].sum() == history["downlink_bits"].sum() == 0


def test_keys_and_stacked_states_are_checked():
    round_ = make_round(Targets(jnp.ones((4, 3))), Descent(0.1), aggregators.mean(), num_agents=4)
    with pytest.raises(ValueError, match=r"key must be a typed random key, got 0; write jax.random.key\(0\)"):
        round_.init(0)
    states = init_seeds(round_, jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match="num_seeds must be 2, the number of stacked states"):
        run(round_, states, 1)
