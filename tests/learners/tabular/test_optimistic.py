"""Fed-UCBVI and FedQ against loops over agents and places, and what their protocols promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, participation, run, theory, topologies, transforms
from fedjax_rl.core import tree
from tests.learners.tabular.keys import update_key
from tests.oracles import tabular_optimism as oracles


M, T, H, S, A = 3, 400, 3, 2, 2
_GENERATOR = np.random.default_rng(0)
COMMON = envs.EpisodicParams(
    _GENERATOR.dirichlet(np.ones(S), (H, S, A)), _GENERATOR.uniform(size=(H, S, A)), np.full(S, 1 / S), H
)


def make(learner, num_agents=M, eps=0.5, aggregator=None, **kwargs):
    """Agents whose kernels and rewards differ unless eps = 0."""
    family = envs.mixture_family(eps_p=eps, eps_r=eps, common=COMMON)
    return make_round(family, learner, aggregator or aggregators.mean(), num_agents=num_agents, **kwargs)


@jax.jit
def step(round_, state):
    return round_.step(state)


@jax.jit
def _episode(key, physics, policy):
    return envs.episodes(key, physics, policy, 1, H)


def player(state):
    """What agent c sees in tick t by a policy, with the random numbers of the round."""

    def play(t, c, pi):
        seen = _episode(update_key(state.key, t, c), tree.take(state.physics, c), jax.nn.one_hot(pi, A))
        return tuple(np.asarray(x)[0].tolist() for x in seen)

    return play


def places(state):
    return state.places.public.shared


UCBVI = [
    ("mixture", "practical", 0.0, 1.0),
    ("mixture", "practical", 0.1, 4e-4),  # beyond 9 visits of 3 agents the common estimate is trusted
    ("local", "practical", 0.0, 1.0),
    ("global", "practical", 0.0, 1.0),
    ("global", "theoretical", 0.1, 1.0),
]


@pytest.mark.parametrize(("trigger", "bonus", "eps_p", "trust"), UCBVI)
def test_fed_ucbvi_against_agents_that_upload_step_by_step(x64, trigger, bonus, eps_p, trust):
    numbers = {"trigger": trigger, "bonus": bonus, "delta": 0.1, "trust": trust}
    num_episodes = 4000 if bonus == "practical" else 2  # few, so that the logarithm leaves the cap H
    round_ = make(learners.fed_ucbvi(num_episodes, eps_p=eps_p, **numbers))
    state = round_.init(jax.random.key(2))
    expected = oracles.fed_ucbvi(player(state), M, num_episodes, H, S, A, ep=eps_p, ticks=120, **numbers)
    for want in expected:
        state, metrics = step(round_, state)
        shared = places(state)
        np.testing.assert_allclose(shared.action_values, want["Q"], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(shared.plan.action, want["pi"])
        np.testing.assert_array_equal(shared.plan.visits, want["N"])
        assert int(shared.plan.num_communications) == want["synced"]
        assert int(metrics["raised"]) == want["raised"]
    assert 3 <= want["synced"] < 120
    assert np.any(want["Q"] < H)


def test_triggers_differ(x64):
    # The same numbers, three programs' worth of flags; a mixture that trusts always or never is one of the others.
    counts = []
    for trigger, trust in (("local", 1.0), ("global", 1.0), ("mixture", 0.0), ("mixture", 1e9)):
        round_ = make(learners.fed_ucbvi(T, trigger=trigger, trust=trust))
        _, history = run(round_, round_.init(jax.random.key(0)), T)
        counts.append(history["communications"])
    assert not np.array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[1], counts[2])
    np.testing.assert_array_equal(counts[0], counts[3])


def test_one_agent_is_ucbvi_with_doubling(x64):
    for trigger in ("mixture", "local", "global"):
        round_ = make(learners.fed_ucbvi(T, trigger=trigger), num_agents=1)
        state = round_.init(jax.random.key(2))
        for want in oracles.ucbvi_with_doubling(player(state), H, S, A, 100):
            state, _ = step(round_, state)
            np.testing.assert_allclose(places(state).action_values, want, rtol=1e-9, atol=1e-9)


def test_isolated_agents_are_alone(x64):
    # M is the number of agents that meet, not of those in the run.
    alone, isolated = (
        make(learners.fed_ucbvi(T, trigger="global"), num_agents=1),
        make(learners.fed_ucbvi(T, trigger="global"), num_agents=2, topology=topologies.isolated()),
    )
    one, two = alone.init(jax.random.key(3)), isolated.init(jax.random.key(3))
    for _ in range(50):
        one, two = step(alone, one)[0], step(isolated, two)[0]
    np.testing.assert_allclose(alone.policies(one, jnp.arange(1))[0], isolated.policies(two, jnp.arange(2))[0])
    np.testing.assert_array_equal(one.local.since[0], two.local.since[0])
    assert int(places(one).plan.num_communications) > 5


@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
def test_fed_q_against_one_visit_after_the_other(x64, bonus):
    numbers = {"bonus": bonus, "scale": 0.02, "delta": 0.1}
    round_ = make(learners.fed_q(T, **numbers))
    state = round_.init(jax.random.key(4))

    def uniform(t, i):
        k_node = jax.random.split(jax.random.fold_in(key, t), 4)[3]
        k_merge = jax.random.split(jax.random.fold_in(k_node, t), 3)[1]  # every tick is a merge
        return np.asarray(jax.random.uniform(jax.random.fold_in(k_merge, i), (H, S, A)))

    key = state.key
    expected = oracles.fed_q(player(state), uniform, M, T, H, S, A, ticks=150, **numbers)
    for want in expected:
        state, _ = step(round_, state)
        shared = places(state)
        np.testing.assert_allclose(shared.action_values, want["Q"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(shared.values, want["V"], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(shared.plan.action, want["pi"])
        np.testing.assert_array_equal(shared.plan.visits, want["N"])
        assert int(shared.plan.num_communications) == want["synced"]
    # Both ways to aggregate were needed, and rounds of several episodes.
    assert np.any(want["N"] >= 2 * 2 * M * H * (H + 1))
    assert want["synced"] < 140


def test_fed_q_never_exceeds_its_threshold():
    round_ = make(learners.fed_q(T, scale=0.02), eps=0.0)
    state = round_.init(jax.random.key(5))
    longest = 0
    for _ in range(T):
        plan = places(state).plan
        state, _ = step(round_, state)
        since = np.asarray(state.local.since)
        assert np.all(since <= np.maximum(1, np.asarray(plan.visits) // (M * H * (H + 1))))
        longest = max(longest, since.max())
    assert longest > 1


@pytest.mark.parametrize("trigger", ["local", "global"])
def test_fed_ucbvi_never_more_than_doubles(trigger):
    round_ = make(learners.fed_ucbvi(T, trigger=trigger), eps=0.0)
    state = round_.init(jax.random.key(6))
    for _ in range(100):
        plan = places(state).plan
        state, _ = step(round_, state)
        before, since = np.asarray(state.local.before), np.asarray(state.local.since)
        if trigger == "local":
            assert np.all(since <= np.maximum(before, 1))
        else:  # one visit more than what doubles is the most that M (own visits) can overshoot
            assert np.all(M * since <= np.maximum(np.asarray(plan.visits), 1) + M - 1)


def test_theoretical_bonuses_are_optimistic(x64):
    # 2 000 ticks of 3 equal agents: Q_h >= Q*_h everywhere, which fails with probability 10^-6 at most.
    optimum = theory.backward_induction(COMMON.kernel, COMMON.reward)

    def record(round_, state):
        values = places(state).action_values
        return {"gap": jnp.min(values - optimum.action_values), "least": jnp.min(values)}

    round_ = make(learners.fed_ucbvi(20_000, bonus="theoretical", delta=1e-6), eps=0.0)
    _, history = run(round_, round_.init(jax.random.key(7)), 2000, record=record)
    assert history["gap"].min() >= 0
    assert history["least"][-1] < H - 1  # and it says more than Q <= H


@pytest.mark.parametrize("learner", [learners.fed_ucbvi(T), learners.fed_q(T), learners.fed_q(T, bonus="bernstein")])
def test_bits_are_those_of_the_protocol(learner):
    round_ = make(learner)
    _, history = run(round_, round_.init(jax.random.key(8)), 60)
    known = history["communications"]
    met = np.diff(known, prepend=0)
    assert set(met) == {0, 1}
    places_, visited = H * S * A, H * S
    up, down = {
        "FedUCBVI": (4 * 32 * places_, 32 * (2 * visited + places_)),
        "FedQ": (32 * visited * (3 if getattr(learner, "bonus", "") == "bernstein" else 2), 3 * 32 * visited),
    }[type(learner).__name__]
    np.testing.assert_array_equal(history["uplink_bits"], M * up * met + history["raised"])
    np.testing.assert_array_equal(history["downlink_bits"], M * down * met)
    # The synchronisation of a tick is known in the next one.
    np.testing.assert_array_equal(met[1:] > 0, history["raised"][:-1] > 0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: learners.fed_ucbvi(0), "num_episodes must be at least 1, got 0"),
        (lambda: learners.fed_ucbvi(T, trigger="both"), "trigger must be one of"),
        (lambda: learners.fed_ucbvi(T, bonus="bernstein"), "bonus must be one of"),
        (lambda: learners.fed_ucbvi(T, eps_p=1.5), r"eps_p must lie in \[0, 1\], got 1.5"),
        (lambda: learners.fed_ucbvi(T, delta=1.0), r"delta must lie in \(0, 1\), got 1.0"),
        (lambda: learners.fed_ucbvi(T, trust=-1.0), r"trust must lie in \[0"),
        (lambda: learners.fed_q(T, scale=-1.0), r"scale must lie in \[0"),
        (lambda: learners.fed_q(T, bonus="practical"), "bonus must be one of"),
        (lambda: make(learners.fed_q(T), participation=participation.uniform_cohort(2)), r"must be everyone\(\)"),
        (
            lambda: make(learners.fed_q(T), aggregator=aggregators.median()),
            r"aggregator must be mean\(\) with FedQ, got Median: .* the sum",
        ),
        (
            lambda: make(learners.fed_q(T), aggregator=aggregators.mean(expected=M)),
            r"aggregator must be mean\(\) with FedQ",
        ),
        (
            lambda: make(learners.fed_ucbvi(T), transforms=(transforms.erasure(0.1), transforms.clip(1.0))),
            r"transforms\[1\] must leave messages as they are with FedUCBVI, got Clip",
        ),
        (lambda: make(learners.fed_q(T), topology=topologies.gossip(topologies.ring(M))), r"star\(\) or isolated\(\)"),
        (
            lambda: make_round(envs.mixture_family(), learners.fed_q(T), aggregators.mean(), num_agents=2),
            "family must be one of episodic MDPs .* take synthetic_family or episodic_family",
        ),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()
