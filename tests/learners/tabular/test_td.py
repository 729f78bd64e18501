"""Federated TD learning: against a loop, against exact limits, and what must hold on the way there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, run, theory
from fedjax_rl.learners.tabular._linear import stationary_law
from tests.learners.tabular.keys import collect_key
from tests.oracles import tabular_td as oracle


GAMMA, ETA, H, N = 0.9, 0.1, 5, 4
FAMILY = envs.garnet_family("heterogeneous", 6, 3, 2, 3)
FEATURES, POLICY = FAMILY.features, FAMILY.policy
x64 = pytest.mark.usefixtures("x64")


def record(round_, state):
    controls = state.local.corrections
    return {"theta": state.places.public.shared.params} | ({"control": controls[0]} if controls else {})


def start(learner, num_agents=N, family=FAMILY, **kwargs):
    round_ = make_round(family, learner, aggregators.mean(), num_agents=num_agents, **kwargs)
    state = round_.init(jax.random.key(0))
    return round_, state, jax.tree.map(np.array, state.physics)


def exact(physics, **kwargs):
    """A_c, b_c and theta*."""
    law = theory.stationary_distribution(theory.policy_chain(physics.kernel, POLICY))
    system = theory.td_system(FEATURES, physics.kernel, physics.reward, POLICY, law, GAMMA, **kwargs)
    return *system, theory.federated_fixed_point(*system)


class Spy:
    """The rows that every agent draws in every round, by playing the rounds agent by agent."""

    def __init__(self, round_, state, num_rounds):
        self.rows = []
        objective, local = round_.learner.objective, state.local.objective
        collect = jax.jit(objective.collect, static_argnums=1)
        for t in range(num_rounds):
            collected = []
            for c in range(round_.num_agents):
                physics, own = (jax.tree.map(lambda x, c=c: x[c], part) for part in (state.physics, local))
                theta = jnp.zeros(FEATURES.shape[1])
                collected.append(collect(collect_key(state.key, t, c), round_.env, physics, theta, own))
            local = jax.tree.map(lambda *xs: jnp.stack(xs), *(c.state for c in collected))
            self.rows.append([jax.tree.map(np.asarray, c.batch) for c in collected])


@x64
@pytest.mark.parametrize("name", ["federated_td", "scafflsa"])
@pytest.mark.parametrize(("sampling", "lam"), [("iid", 0.0), ("generative", 0.0), ("markov", 0.0), ("markov", 0.7)])
def test_three_rounds_equal_the_loop(name, sampling, lam):
    make = getattr(learners, name)
    initial = np.array([0.3, -0.2, 0.5])
    learner = make(
        FEATURES, POLICY, GAMMA, step_size=ETA, num_local_steps=H, sampling=sampling, trace=lam, initial=initial
    )
    round_, state, physics = start(learner)
    samples = [[(x.state, x.reward, x.next_state) for x in agents] for agents in Spy(round_, state, 3).rows]
    for agents in samples:
        for c, (s, r, following) in enumerate(agents):  # they are transitions of the agent's own MDP
            likely = np.einsum("sa,sat->st", POLICY, physics.kernel[c])
            assert np.all(likely[s, following] > 0)
            np.testing.assert_allclose(r, physics.reward[c, s, 0], rtol=1e-12)  # the same for every action
            if sampling == "markov":
                np.testing.assert_array_equal(following[:-1], s[1:])
    if sampling == "markov":  # the chain and its trace go on from round to round
        for c in range(N):
            assert [agents[c][2][-1] for agents in samples[:-1]] == [agents[c][0][0] for agents in samples[1:]]
    path, controls = oracle.fed_lsa(samples, FEATURES, GAMMA, ETA, initial, lam, name == "scafflsa")
    _, history = run(round_, state, 3, record=record)
    np.testing.assert_allclose(history["theta"], path, rtol=0, atol=1e-9)
    if name == "scafflsa":
        xi = history["control"] - history["control"].mean(1, keepdims=True)  # c_c - c, and c is the mean of the c_c
        np.testing.assert_allclose(xi, controls, rtol=0, atol=1e-9)


@x64
@pytest.mark.parametrize("name", ["federated_td", "scafflsa"])
@pytest.mark.parametrize("num_local_steps", [1, 7])
def test_without_noise_the_limits_are_exact(name, num_local_steps):
    learner = getattr(learners, name)(
        FEATURES, POLICY, GAMMA, step_size=0.5, num_local_steps=num_local_steps, sampling="exact"
    )
    round_, state, physics = start(learner)
    matrix, vector, optimum = exact(physics)
    state, _ = run(round_, state, 4000 // num_local_steps, rounds_per_call=4000)
    error = state.places.public.shared.params - optimum
    if name == "scafflsa":
        np.testing.assert_allclose(error, 0, atol=1e-12)
        xi = state.local.corrections[0] - jnp.mean(state.local.corrections[0], 0, keepdims=True)
        np.testing.assert_allclose(xi, theory.scafflsa_control_variates(matrix, vector), atol=1e-12)
    else:
        bias = theory.fed_lsa_bias(matrix, vector, 0.5, num_local_steps=num_local_steps)
        assert (np.abs(bias).max() < 1e-12) == (num_local_steps == 1)
        np.testing.assert_allclose(error, bias, atol=1e-12)


@x64
def test_exact_traces_tend_to_the_fixed_point_of_their_own():
    learner = learners.federated_td(FEATURES, POLICY, GAMMA, step_size=0.3, sampling="exact", trace=0.6)
    round_, state, physics = start(learner)
    *_, optimum = exact(physics, trace_decay=0.6)
    assert np.abs(optimum - exact(physics)[2]).max() > 0.01
    state, _ = run(round_, state, 3000, rounds_per_call=3000)
    np.testing.assert_allclose(state.places.public.shared.params, optimum, atol=1e-12)


@x64
def test_a_given_law_weighs_the_states():
    law = np.arange(1.0, 7.0) / 21
    learner = learners.federated_td(FEATURES, POLICY, GAMMA, step_size=0.3, sampling="exact", law=law)
    _, state, physics = start(learner)
    expected = theory.td_system(FEATURES, physics.kernel, physics.reward, POLICY, np.tile(law, (N, 1)), GAMMA)
    for mine, theirs in zip(state.local.objective.system, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-14)


@x64
def test_control_variates_sum_to_zero_and_one_local_step_needs_none():
    paths = []
    for name in ("federated_td", "scafflsa"):
        learner = getattr(learners, name)(FEATURES, POLICY, GAMMA, step_size=ETA)
        paths.append(run(*start(learner)[:2], 30, record=record)[1])
    np.testing.assert_allclose(paths[0]["theta"], paths[1]["theta"], rtol=0, atol=1e-13)

    def record_sum(round_, state):
        own, mean = state.local.corrections[0], state.places.public.shared.corrections[0]
        return {"sum": jnp.sum(own - mean[None], 0), "size": jnp.abs(own).max()}

    learner = learners.scafflsa(FEATURES, POLICY, GAMMA, step_size=ETA, num_local_steps=H)
    _, history = run(*start(learner)[:2], 30, record=record_sum)
    assert history["size"][-1] > 0.1
    np.testing.assert_allclose(history["sum"], 0, atol=1e-13)


@x64
@pytest.mark.parametrize("sampling", ["iid", "generative"])
def test_the_mean_direction_is_that_of_the_exact_system(sampling):
    # n = 2^18 rows of one agent. A coordinate of the direction at theta = 0 is phi_i r, of size at most 1, so the mean
    # of n is off by more than 5.5 / sqrt(n) * 1 / 2 = 0.0054 with probability < 4e-8 (a variance is at most 1 / 4
    # of a range of length 1, and phi_i r lies in one such range), and for three coordinates in two cases < 3e-7.
    kwargs = {"law": np.full(6, 1 / 6)} if sampling == "generative" else {}
    one_step = {}
    for how in (sampling, "exact"):
        learner = learners.federated_td(
            FEATURES, POLICY, GAMMA, step_size=1.0, batch_size=2**18 if how == sampling else 1, sampling=how, **kwargs
        )
        state, _ = run(*start(learner, 1)[:2], 1)
        one_step[how] = np.asarray(state.places.public.shared.params)
    np.testing.assert_allclose(one_step[sampling], one_step["exact"], rtol=0, atol=0.0054)


def test_single_precision_draws_what_double_precision_draws():
    rows = []
    for double in (False, True):
        jax.config.update("jax_enable_x64", double)
        try:
            round_, state, _ = start(learners.federated_td(FEATURES, POLICY, GAMMA, step_size=ETA, num_local_steps=99))
            assert state.places.public.shared.params.dtype == (np.float64 if double else np.float32)
            rows.append(Spy(round_, state, 1).rows[0])
        finally:
            jax.config.update("jax_enable_x64", False)
    same = [np.mean(a.state == b.state) for a, b in zip(*rows, strict=True)]
    assert min(same) > 0.95  # the physics is drawn anew, so laws differ by roundings of the noise in the kernel


@x64
@pytest.mark.parametrize(
    ("chain", "law"),
    [
        ([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]], [0, 0, 1]),  # transient states first
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], [1 / 3] * 3),  # periodic
        ([[0, 1, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]], [1 / 3, 2 / 3, 0]),
        ([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]], [np.nan] * 3),  # two closed classes
    ],
)
def test_stationary_laws_of_reducible_chains(chain, law):
    np.testing.assert_allclose(jax.jit(stationary_law)(jnp.array(chain, float)), law, atol=1e-15)


def test_stationary_laws_are_accurate_in_single_precision():
    # A chain that hardly ever leaves its first state: subtractions would lose the small probability.
    leak = 1e-9
    chain = np.array([[1 - leak, leak], [0.5, 0.5]])
    law = np.array([0.5, leak]) / (0.5 + leak)
    np.testing.assert_allclose(jax.jit(stationary_law)(jnp.asarray(chain, jnp.float32)), law, rtol=1e-6)


def test_an_agent_without_a_single_stationary_law_is_reported():
    # In state 0 the first half of the actions stays for even agents, whose state 1 is absorbing too.
    policy = np.array([[0.5, 0.5, 0, 0], [0.25] * 4])
    for sampling, reported in (("exact", 1), ("iid", 1), ("generative", 0), ("markov", 0)):
        learner = learners.federated_td(np.eye(2), policy, GAMMA, step_size=ETA, sampling=sampling)
        _, history = run(*start(learner, 2, envs.conflict_family())[:2], 1)
        assert history["nonfinite_messages"] == reported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones(6)}, r"features must have shape \[S, d\], got shape \[6\]"),
        ({"features": np.full((6, 2), np.nan)}, "features must be finite"),
        ({"policy": POLICY[:5]}, "policy must have as many rows as features, 6, got 5"),
        ({"policy": POLICY * 2}, "policy must be probabilities"),
        ({"discount": 1.0}, "discount must lie in"),
        ({"num_samples": 0}, "num_samples must be an integer >= 1"),
        ({"sampling": "offline"}, "sampling must be one of"),
        ({"trace": 0.5}, "trace must be 0 with sampling='iid'"),
        ({"trace": 1.5, "sampling": "markov"}, "trace must lie in"),
        ({"law": np.ones(6) / 6}, "sampling must be 'generative' or 'exact' with a law"),
        ({"law": np.ones(5) / 5, "sampling": "exact"}, r"law must have shape \[6\], got \[5\]"),
        ({"law": np.ones(6) / 6, "sampling": "exact", "trace": 0.5}, "law must be None with a trace"),
        ({"initial": np.zeros(4)}, r"initial must have shape \[3\], got \[4\]"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        learners.td(**({"features": FEATURES, "policy": POLICY, "discount": GAMMA} | change))


def test_lists_are_arrays():
    learner = learners.federated_td(np.eye(2).tolist(), [[0.25] * 4] * 2, GAMMA, step_size=ETA, sampling="exact")
    same = learners.federated_td(np.eye(2), np.full((2, 4), 0.25), GAMMA, step_size=ETA, sampling="exact")
    first, second = (run(*start(x, 2, envs.conflict_family())[:2], 2)[0].places.public.shared for x in (learner, same))
    np.testing.assert_array_equal(first.params, second.params)


def test_worlds_that_do_not_fit_are_refused():
    learner = learners.federated_td(FEATURES, POLICY, GAMMA, step_size=ETA)
    for family, message in (
        (envs.garnet_family("heterogeneous", 5, 3, 2, 3), "features must have as many rows as the MDP has states, 5"),
        (envs.garnet_family("heterogeneous", 6, 2, 2, 3), "policy must have as many columns as the MDP has actions, 2"),
        (envs.cartpole_family("packer-r"), "family must be of discounted finite MDPs with td"),
        (envs.episodic_family(FAMILY, 3), "family must be of discounted finite MDPs with td"),
    ):
        with pytest.raises(ValueError, match=message):
            make_round(family, learner, aggregators.mean(), num_agents=2)
    with pytest.raises(ValueError, match="step_size must lie in"):
        learners.federated_td(FEATURES, POLICY, GAMMA, step_size=-1)
    large = learners.td(np.ones((1100, 1)), np.ones((1100, 1)), GAMMA)
    with pytest.raises(ValueError, match="sampling must be 'markov' or 'exact' with 1210000 transitions"):
        large.check(envs.TabularMDP(1100, 1), envs.TabularParams(np.ones((1100, 1, 1100)), None, None))
    large.check(envs.TabularMDP(1100, 1, branching=900), envs.TabularParams(np.ones((1100, 1, 1100)), None, None))


@x64
@pytest.mark.parametrize("sampling", ["iid", "generative"])
def test_tables_of_possible_transitions_draw_the_same_law(sampling):
    """Frequencies of a table of all transitions, and of tables of the possible ones, against the law itself."""
    objective = learners.td(FEATURES, POLICY, GAMMA, num_samples=2**16, sampling=sampling)
    physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(0), 1))
    counts = []
    for branching in (None, 2, 4):
        env = envs.TabularMDP(6, 3, branching)
        state = objective.init_local(jax.random.key(0), env, physics, jnp.zeros(3))
        assert state.table.shape == ({None: 128, 2: 64, 4: 128}[branching],)
        batch = objective.collect(jax.random.key(1), env, physics, jnp.zeros(3), state).batch
        counts.append(np.bincount(np.asarray(batch.state) * 6 + batch.next_state, minlength=36))
        assert np.all(np.isfinite(batch.reward))
    chain = np.einsum("sa,sat->st", POLICY, physics.kernel)
    law = theory.stationary_distribution(chain) if sampling == "iid" else np.full(6, 1 / 6)
    expected = (law[:, None] * chain).reshape(-1)
    for count in counts:  # multinomial: five standard errors, of 36 cells and 6 tables: false alarm below 2e-4
        np.testing.assert_array_less(abs(count / 2**16 - expected), 5 * np.sqrt(expected / 2**16) + 1e-12)


def test_more_successors_than_the_environment_tells_are_seen():
    physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(0), 1))
    objective = learners.td(FEATURES, POLICY, GAMMA)
    env = envs.TabularMDP(6, 3, branching=1)
    state = objective.init_local(jax.random.key(0), env, physics, jnp.zeros(3))
    assert np.isnan(objective.collect(jax.random.key(1), env, physics, jnp.zeros(3), state).batch.reward).all()


def test_an_environment_need_not_know_how_far_it_branches():
    """Then every successor is taken for possible."""

    class Bare:
        name, num_states, num_actions = "bare", 6, 3

    physics = jax.tree.map(lambda x: x[0], FAMILY.sample(jax.random.key(0), 1))
    objective = learners.td(FEATURES, POLICY, GAMMA)
    objective.check(Bare(), physics)
    assert objective.init_local(jax.random.key(0), Bare(), physics, jnp.zeros(3)).table.shape == (128,)
