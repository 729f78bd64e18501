"""Who is chosen: laws of the random rules, and what the others read off the reports."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_rl import aggregators, make_round, participation, run, topologies
from fedjax_rl.core import Cohort, Job, Mean
from tests.probes.quadratic import Descent, Targets


JOB = Job(env_steps=800.0, gradients=4.0, num_local_steps=8, uplink_bits=1e5, downlink_bits=1e5)


def drawn(rule, num_agents, n):
    """bool[n, N] who acts in n independent first rounds."""
    state = rule.init(jax.random.key(0), num_agents, JOB)

    def one(key):
        cohort = rule.sample(key, state, num_agents)[1]
        return jnp.zeros(num_agents, bool).at[cohort.ids()].set(cohort.active)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), n)))


def chi_square(counts, expected):
    """Pearson's statistic stays below its quantile with a false alarm of 1e-6."""
    assert np.sum((counts - expected) ** 2 / expected) < scipy.stats.chi2.isf(1e-6, len(counts) - 1)


def test_poisson_cohorts_are_independent_agents():
    n, q = 20_000, 0.3
    acts = drawn(participation.poisson_cohort(q, 4), 4, n)
    counts = np.bincount(acts @ (1 << np.arange(4)), minlength=16)
    ones = np.array([bin(s).count("1") for s in range(16)])
    chi_square(counts, n * q**ones * (1 - q) ** (4 - ones))


def test_poisson_overflow_is_counted_and_reported():
    rule = participation.poisson_cohort(1.0, 2)
    round_ = make_round(Targets(jnp.ones((5, 3))), Descent(0.5), aggregators.mean(), num_agents=5, participation=rule)
    _, history = run(round_, round_.init(jax.random.key(0)), 3)
    assert history["agents_left_out"].tolist() == [3, 3, 3]
    assert history["agent_updates"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("resource", [False, True])
def test_weighted_cohorts_draw_without_replacement(resource):
    n, w = 20_000, np.array([1.0, 2.0, 3.0, 4.0])
    system = participation.fixed_system(1 / w)
    acts = drawn(participation.resource_cohort(system, 2) if resource else participation.weighted_cohort(w, 2), 4, n)
    pairs = list(itertools.combinations(range(4), 2))
    p = w / w.sum()
    law = np.array([p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) for i, j in pairs])
    counts = np.array([np.sum(acts[:, i] & acts[:, j]) for i, j in pairs])
    chi_square(counts, n * law)


def test_agents_of_weight_zero_never_act():
    assert not drawn(participation.weighted_cohort([0.0, 1.0, 1e-6], 2), 3, 200)[:, 0].any()


def test_the_deadline_is_met_by_expectation():
    system = participation.fixed_system([1.0, 5.0, 2.0, 3.0], jitter=1.0)
    acts = drawn(participation.deadline_cohort(system, 3, 2.5), 4, 500)
    assert not acts[:, [1, 3]].any()
    # Each of the others is among three of four candidates with probability 3/4; six standard errors, n = 500.
    assert (np.abs(acts[:, [0, 2]].mean(0) - 0.75) < 6 * math.sqrt(0.1875 / 500)).all()


@pytest.mark.parametrize(("by", "sign"), [("loss", 1), ("return", -1), ("distance", 1)])
def test_power_of_choice_takes_the_worst_report_and_strangers_first(by, sign):
    name = {"loss": "value_loss", "return": "train_return_mean"}.get(by, by)
    rule = participation.power_of_choice(2, 6, by)
    state, value = rule.init(jax.random.key(0), 6, JOB), np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.0])
    known: dict[int, float] = {}
    for r in range(8):
        state, cohort = rule.sample(jax.random.key(r), state, 6)
        index = cohort.ids()
        score = {i: known.get(i, np.inf) for i in range(6)}
        assert sorted((score[int(i)] for i in index), reverse=True) == sorted(score.values(), reverse=True)[:2]
        count = jnp.asarray([2.0, 0.0 if r == 4 else 4.0])  # an agent without a report keeps its last one
        state = rule.observe(state, cohort, {name: Mean(jnp.asarray(value)[index] * count, count)})
        known |= {int(i): sign * value[int(i)] for i, c in zip(index, count, strict=True) if c > 0}
        value += np.array([-1.0, 0.5, -2, 0, 1, 0.25])


def test_power_of_choice_in_a_round_and_without_its_metric():
    def make(by):
        return make_round(
            Targets(jnp.diag(jnp.arange(1.0, 5))), Descent(0.1, num_parameters=4), aggregators.mean(), num_agents=4,
            participation=participation.power_of_choice(1, 4, by),
        )  # fmt: skip

    round_ = make("distance")
    state, seen = round_.init(jax.random.key(0)), []
    for _ in range(5):
        seen.append(int(round_.next_cohort(state)[1].ids()[0]))
        state = round_.step(state)[0]
    assert sorted(seen[:4]) == [0, 1, 2, 3]
    assert seen[4] == 3  # the farthest target
    with pytest.raises(ValueError, match=r"by must name a metric .*'value_loss'; there are .*'distance'"):
        run(make("loss"), make("loss").init(jax.random.key(0)), 1)


def test_agents_rest_while_they_make_no_progress():
    rule = participation.performance_triggered(participation.everyone(), 1.0, patience=2)
    state = rule.init(jax.random.key(0), 3, JOB)
    # Returns in the rounds an agent acts in: always better; never; small improvements that add up.
    returns = [iter([1.0, 2, 3, 4, 5, 6, 7]), iter([1.0, 1, 1, 1, 1]), iter([0.0, 0.6, 1.2, 1.8])]
    acts = []
    for r in range(7):
        state, cohort = rule.sample(jax.random.key(r), state, 3)
        acts.append(np.asarray(cohort.active).astype(int).tolist())
        count = cohort.active.astype(jnp.float32)
        value = jnp.asarray([next(returns[i]) if acts[-1][i] else 0.0 for i in range(3)])
        state = rule.observe(state, cohort, {"train_return_mean": Mean(value * count, count)})
    assert list(map(list, zip(*acts, strict=True))) == [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
    ]


@pytest.mark.parametrize(("up", "down", "size"), [(0.3, 0.1, 400), (0.9, 0.8, 400), (0.3, 0.1, 100)])
def test_availability_is_the_markov_chain(up, down, size):
    inner = participation.everyone() if size == 400 else participation.uniform_cohort(size)
    rule = participation.availability(inner, up, down)
    num, rounds = 400, 60
    state = rule.init(jax.random.key(0), num, JOB)
    keys = jax.random.split(jax.random.key(1), rounds)
    _, cohorts = jax.lax.scan(lambda s, k: rule.sample(k, s, num), state, keys)
    last: dict[int, tuple[int, bool]] = {}
    seen: dict[tuple[int, bool], list[bool]] = {}
    index = np.tile(np.arange(num), (rounds, 1)) if cohorts.index is None else np.asarray(cohorts.index)
    for r in range(rounds):
        for i, x in zip(index[r].tolist(), np.asarray(cohorts.active[r]).tolist(), strict=True):
            if i in last:
                seen.setdefault((r - last[i][0], last[i][1]), []).append(x)
            last[i] = (r, x)
    share = np.linalg.matrix_power(np.array([[1 - up, up], [down, 1 - down]]), 500)[0, 1]
    step = np.array([[1 - up, up], [down, 1 - down]])
    tested = 0
    for (k, was), values in seen.items():
        n, p = len(values), np.linalg.matrix_power(step, k)[int(was), 1]
        if n * min(p, 1 - p) > 30:  # six standard errors of n independent steps; false alarm below 1e-7 in all
            assert abs(np.mean(values) - p) < 6 * math.sqrt(p * (1 - p) / n)
            tested += 1
    assert tested >= (2 if size == 400 else 8)
    # Stationary from the start: the first round, n = size.
    assert abs(np.mean(cohorts.active[0]) - share) < 6 * math.sqrt(share * (1 - share) / size)


def test_who_opts_out_never_acts():
    acts = drawn(participation.opt_out(participation.uniform_cohort(3), (1, 3)), 5, 200)
    assert not acts[:, [1, 3]].any()
    assert acts[:, [0, 2, 4]].any(0).all()


def test_wrappers_pass_reports_and_observations_on():
    inner = participation.power_of_choice(2, 3, "loss")
    rule = participation.opt_out(inner, (0,))
    assert rule.observes
    assert not participation.opt_out(participation.everyone(), (0,)).observes
    state, cohort = rule.sample(jax.random.key(0), rule.init(jax.random.key(0), 3, JOB), 3)
    assert isinstance(cohort, Cohort)
    after = rule.observe(state, cohort, {"value_loss": Mean(jnp.ones(2), jnp.ones(2))})
    active = np.asarray(cohort.active)
    assert np.isfinite(np.asarray(after.inner.score)[np.asarray(cohort.index)[active]]).all()
    overflow = participation.opt_out(participation.poisson_cohort(1.0, 1), ())
    before = overflow.init(jax.random.key(0), 3, JOB)
    after = overflow.sample(jax.random.key(0), before, 3)[0]
    assert int(overflow.report(before, after)["agents_left_out"]) == 2


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: p.poisson_cohort(0.0, 3), "rate must lie"),
        (lambda p: p.poisson_cohort(0.5, 5).check(4, JOB), "cap must not exceed"),
        (lambda p: p.weighted_cohort([1.0, -1.0], 1), "weights must be finite"),
        (lambda p: p.weighted_cohort([1.0, 0.0], 2).check(2, JOB), "size must be at most the number of positive"),
        (lambda p: p.weighted_cohort([1.0, 1.0], 2).check(3, JOB), r"weights must be f\[3\]"),
        (lambda p: p.resource_cohort(p.uniform_system(3), 4).check(3, JOB), "size must not exceed"),
        (lambda p: p.deadline_cohort(p.fixed_system([1.0, 2.0]), 1, 0.5).check(2, JOB), "at least 1 s, the fastest"),
        (lambda p: p.power_of_choice(3, 2), "candidates must be"),
        (lambda p: p.power_of_choice(3, 5).check(4, JOB), "candidates must not exceed"),
        (lambda p: p.power_of_choice(3, 5, 1), "by must be a name"),
        (lambda p: p.performance_triggered(p.everyone(), -1.0), "improvement must lie"),
        (lambda p: p.performance_triggered(p.everyone(), 1.0, 0), "patience must be"),
        (lambda p: p.availability(p.everyone(), 0.0, 0.5), "up must lie"),
        (lambda p: p.opt_out(p.everyone(), (-1,)), "agents must be a tuple of ids"),
        (lambda p: p.opt_out(p.everyone(), (4,)).check(4, JOB), "ids below num_agents = 4, got 4"),
    ],
)
def test_bad_input_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make(participation)


def test_two_chains_around_each_other_are_independent():
    rule = participation.availability(participation.availability(participation.everyone(), 0.5, 0.5), 0.5, 0.5)
    acts = drawn(rule, 4000, 1)
    assert abs(acts.mean() - 0.25) < 6 * math.sqrt(0.25 * 0.75 / 4000)


def test_ties_of_a_budget_are_broken_by_lot():
    acts = drawn(participation.allocated_work(participation.everyone(), 5), 10, 2000)
    assert (acts.sum(1) == 5).all()
    chi_square(acts.sum(0), np.full(10, 1000.0))  # negatively dependent, so the statistic is smaller than chi square


@pytest.mark.parametrize("inverse", [False, True])
def test_resource_weights_are_normalised_over_those_who_act(inverse):
    inner = participation.opt_out(participation.everyone(), (0,))
    system = participation.fixed_system(1 / np.array([9.0, 1.0, 2.0, 3.0]))
    expected = np.array([1.0, 2.0, 3.0]) ** (-1 if inverse else 1)
    for resources in (np.array([9.0, 1.0, 2.0, 3.0]), system):
        rule = participation.resource_weights(inner, resources, inverse)
        cohort = rule.sample(jax.random.key(0), rule.init(jax.random.key(0), 4, JOB), 4)[1]
        np.testing.assert_allclose(cohort.weight[1:], expected / expected.mean(), rtol=1e-6)


SYSTEM = participation.fixed_system(np.arange(1.0, 5.0))
CLOCKS = {
    "Timed": participation.timed(participation.everyone(), SYSTEM),
    "FirstArrivals": participation.first_arrivals(SYSTEM, 2),
    "GradientRace": participation.gradient_race(SYSTEM, 4, most=1),
}
AROUND = {
    "availability": lambda rule: participation.availability(rule, 0.5, 0.5),
    "opt_out": lambda rule: participation.opt_out(rule, (0,)),
    "performance_triggered": lambda rule: participation.performance_triggered(rule, 0.1),
    "proportional_work": lambda rule: participation.proportional_work(rule, SYSTEM),
    "allocated_work": lambda rule: participation.allocated_work(rule, 4),
    "timed": lambda rule: participation.timed(rule, SYSTEM),
}


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("clock", CLOCKS)
def test_nothing_changes_a_cohort_behind_its_clock(name, clock):
    with pytest.raises(ValueError, match=f"rule must not keep time already with {name}, got {clock}"):
        AROUND[name](CLOCKS[clock])
    with pytest.raises(ValueError, match="rule must be a rule of participation, got 'everyone'"):
        AROUND[name]("everyone")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: participation.timed(participation.everyone(), 3.0), "system must be a System, got 3.0"),
        (lambda: participation.first_arrivals([1.0, 2.0], 2), r"system must be a System, got \[1.0, 2.0\]"),
        (lambda: participation.gradient_race(None, 2), "system must be a System, got None"),
        (lambda: participation.resource_cohort(1.0, 2), "system must be a System"),
        (lambda: participation.with_link(SYSTEM, 3.0), "link must be a Link, got 3.0"),
        (lambda: participation.fixed_system([]), "seconds must be f"),
        (lambda: participation.fixed_system([1.0], jitter=20.0), "jitter must be at most 5"),
        (lambda: participation.log_normal_system(4, 6.0), r"sigma must lie in \[0, 5\]"),
        (
            lambda: participation.uniform_system(4, seconds_per_env_step=np.ones(2)),  # pyright: ignore[reportArgumentType]
            "seconds_per_env_step must be one number",
        ),
        (
            lambda: participation.resource_weights(participation.everyone(), -np.ones(2)),
            r"resources must be f\[N\] > 0",
        ),
        (lambda: of(participation.resource_weights(participation.everyone(), np.ones(3))), r"resources must be f\[4\]"),
        (lambda: of(participation.opt_out(participation.everyone(), range(4))), "must leave somebody who acts"),
        (lambda: of(participation.timed(participation.everyone(), SYSTEM, 0.5)), "deadline must be at least 1 s"),
        *(
            (
                lambda topology=topology: of(
                    participation.timed(
                        participation.everyone(), participation.with_link(SYSTEM, participation.edge_link())
                    ),
                    topology,
                ),
                "participation must have a system without links with",
            )
            for topology in (
                topologies.isolated(),
                topologies.periodic(period=2),
                topologies.gossip(topologies.ring(4)),
            )
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def of(rule, topology=None):
    return make_round(
        Targets(jnp.ones((4, 3))), Descent(0.5), aggregators.mean(), num_agents=4, participation=rule, topology=topology
    )


def test_who_misses_the_deadline_is_told():
    round_ = of(participation.timed(participation.everyone(), SYSTEM, deadline=2.5))
    _, history = run(round_, round_.init(jax.random.key(0)), 3)
    assert history["agent_updates"].tolist() == [4] * 3
    assert history["agents_dropped"].tolist() == [2] * 3
    assert history["messages_delivered"].tolist() == [2] * 3
    assert history["downlink_bits"].tolist() == [4 * 3 * 32] * 3
    assert history["uplink_bits"].tolist() == [2 * 3 * 32] * 3
    assert history["virtual_time"].tolist() == [2.5, 5.0, 7.5]
