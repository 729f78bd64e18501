"""Corrections against loops in the papers' notation, in float64: on quadratic rows, and on logged trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, learners, make_round, run
from fedjax_rl.core import component, quick
from fedjax_rl.learners import local_training, optimizer
from tests.oracles import federated_corrections as oracle
from tests.oracles import trajectory_corrections as paper
from tests.probes.logged import LoggedFamily, LoggedObjective, Logs
from tests.probes.rows import RowsFamily, RowsObjective, RowsPhysics
from tests.probes.traffic import Losing, Rotating, Working, lost, rotating


N, S, D, ROUNDS, STEPS, ETA = 4, 6, 3, 4, 3, 0.1
WORTH = np.array([1.0, 2.0, 3.0, 10.0])
SCALE = np.array([[0.5, 1.0, 2.0], [1.0, 1.0, 1.0], [3.0, 0.2, 1.0], [1.0, 2.0, 0.1]])  # curvatures differ by agent
pytestmark = pytest.mark.usefixtures("x64")


class Curved(RowsObjective):
    """mean_s sum_d c_d (theta_d - row_sd)^2 / 2, whose curvature c is the agent's first row."""

    def loss(self, key, params, state, batch):
        curvature, rows = batch[0], batch[1:]
        distance = jnp.mean(jnp.sum(curvature[None] * (params["theta"][None] - rows) ** 2, -1)) / 2
        return distance, {"distance": distance}


component(Curved)


@pytest.fixture(name="rows")
def make_rows():
    generator = np.random.default_rng(0)
    return generator.normal(size=(N, S, D)), generator.normal(size=D)


def play(rows, correction, *, eta=ETA, sgd=None, num_rounds=ROUNDS, weight="uniform", steps=STEPS, **kwargs):
    """The model after some rounds on the rows."""
    values, first = rows
    physics = RowsPhysics(jnp.asarray(np.concatenate([SCALE[:, None], values], 1)), jnp.asarray(WORTH))
    learner = local_training(
        Curved(jnp.asarray(first)), sgd or optimizer(optax.sgd, learning_rate=eta), num_local_steps=steps,
        corrections=correction, weight=weight,
    )  # fmt: skip
    round_ = make_round(RowsFamily(physics), learner, aggregators.mean(), num_agents=N, **kwargs)
    # Round by round: one compilation serves any number.
    state, _ = run(round_, round_.init(jax.random.key(0)), num_rounds, rounds_per_call=1)
    return np.asarray(round_.policies(state, jnp.arange(1))["theta"][0])


def gradient(rows):
    return lambda i, y: SCALE[i] * (y - rows[0][i].mean(0))


ARRIVALS = {
    "all": ({}, lambda r: list(range(N))),
    "partial": ({"participation": Rotating(size=2)}, lambda r: rotating(r, 2, N)),
    "cohort of three": ({"participation": Rotating(size=3)}, lambda r: rotating(r, 3, N)),
    "lost": ({"transforms": (Losing(),)}, lambda r: [k for k in range(N) if not lost(r, k)]),
}
WHO = pytest.mark.parametrize("who", ARRIVALS)


@WHO
def test_scaffold(rows, who):
    kwargs, cohort = ARRIVALS[who]
    theta = play(rows, (learners.control_variates(),), **kwargs)
    for option in ("mean", "II"):
        expected = oracle.scaffold(
            gradient(rows), rows[1], N, rounds=ROUNDS, K=STEPS, eta=ETA, cohort=cohort, option=option
        )
        np.testing.assert_allclose(theta, expected, rtol=1e-6)


def test_scaffold_with_momentum_keeps_the_mean_of_uncorrected_gradients(rows):
    theta = play(rows, (learners.control_variates(),), sgd=optimizer(optax.sgd, learning_rate=ETA, momentum=0.5))

    def step(y, g, v):
        v = g + 0.5 * (0 if v is None else v)
        return y - ETA * v, v

    expected = oracle.scaffold(
        gradient(rows), rows[1], N, rounds=ROUNDS, K=STEPS, eta=ETA, cohort=ARRIVALS["all"][1], option="mean", step=step
    )
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 2.0])
@WHO
def test_feddyn(rows, who, alpha):
    kwargs, cohort = ARRIVALS[who]
    theta = play(rows, (learners.dynamic_regularization(alpha),), **kwargs)
    expected = oracle.feddyn(gradient(rows), rows[1], N, rounds=ROUNDS, K=STEPS, eta=ETA, alpha=alpha, cohort=cohort)
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize("make", [learners.control_variates, lambda: learners.dynamic_regularization(1.0)])
def test_local_steps_stop_drifting(rows, make):
    # FedAvg's fixed point with many local steps is not the optimum of the sum; these corrections reach it.
    optimum = (SCALE * rows[0].mean(1)).sum(0) / SCALE.sum(0)
    kwargs = {"eta": 0.1, "steps": 10, "num_rounds": 300}
    assert np.linalg.norm(play(rows, (), **kwargs) - optimum) > 0.05
    np.testing.assert_allclose(play(rows, (make(),), **kwargs), optimum, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.6])
@pytest.mark.parametrize("lite", [False, True])
def test_mime(rows, lite, beta):
    make = learners.mime_lite if lite else learners.mime
    theta = play(rows, (make(beta),), num_rounds=ROUNDS if lite else 2 * ROUNDS)
    expected = oracle.mime(gradient(rows), rows[1], N, rounds=ROUNDS, K=STEPS, eta=ETA, beta=beta, lite=lite)
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


def test_mime_moves_in_every_other_round(rows):
    after = [play(rows, (learners.mime(0.5),), num_rounds=n) for n in range(1, 5)]
    np.testing.assert_array_equal(after[0], rows[1])
    assert np.linalg.norm(after[1] - after[0]) > 1e-3
    np.testing.assert_array_equal(after[2], after[1])
    assert np.linalg.norm(after[3] - after[2]) > 1e-3


@pytest.mark.parametrize("weight", ["uniform", "samples"])
@pytest.mark.parametrize("work", [[1, 2, 3, 5], [0, 4, 4, 1]])
def test_fednova_with_uneven_work(rows, work, weight):
    theta = play(
        rows, (learners.normalized_averaging(),), weight=weight, steps=5,
        participation=Working(jnp.asarray(work, jnp.int32)),
    )  # fmt: skip
    # What an agent's data are worth grows with its local steps: every collect brings WORTH samples.
    n = np.ones(N) if weight == "uniform" else WORTH * np.minimum(work, 5)
    expected = oracle.fednova(gradient(rows), rows[1], n, rounds=ROUNDS, tau=work, eta=ETA)
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


def test_clip_gradient(rows):
    moved = play(rows, (learners.clip_gradient(0.01),), steps=1, num_rounds=1) - rows[1]
    g = [gradient(rows)(i, rows[1]) for i in range(N)]
    expected = -ETA * np.mean([min(1, 0.01 / np.linalg.norm(x)) * x for x in g], axis=0)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    long = play(rows, (learners.clip_gradient(1e6),), steps=1)  # longer than any gradient: nothing changes
    np.testing.assert_allclose(long, play(rows, (), steps=1), rtol=1e-12)


# ---------------------------------------------------------------- logged trajectories


AGENTS, LOGS, T, E, FEATURES, ACTIONS = 3, 5, 4, 2, 2, 3
RATE = 0.4


@pytest.fixture(name="logs", scope="module")
def make_logs():
    generator = np.random.default_rng(1)
    shape = (AGENTS, LOGS, T, E)
    return (
        generator.normal(size=(*shape, FEATURES)),
        generator.integers(0, ACTIONS, size=shape),
        generator.normal(size=shape),
        generator.normal(size=(FEATURES, ACTIONS)),
    )


def learn(logs, correction, *, eta=RATE, steps=2, num_rounds=3, num_epochs=1, server=None, kind=LoggedObjective):
    """The model after some rounds on the logs, the last state and the round."""
    observation, action, score, first = logs
    family = LoggedFamily(
        Logs(jnp.asarray(observation), jnp.asarray(action, jnp.int32), jnp.asarray(score))
    )  # fmt: skip
    learner = local_training(
        kind(jnp.asarray(first), E), optimizer(optax.sgd, learning_rate=eta), num_local_steps=steps,
        num_epochs=num_epochs, corrections=correction, weight="uniform",
    )  # fmt: skip
    if server is not None:
        learner = learners.server_optimizer(learner, optimizer(optax.sgd, learning_rate=server))
    round_ = make_round(family, learner, aggregators.mean(), num_agents=AGENTS)
    start = round_.init(jax.random.key(5))
    key = jax.random.clone(start.key)
    state, _ = run(round_, start, num_rounds, rounds_per_call=1)
    return np.asarray(round_.policies(state, jnp.arange(1))["theta"][0]), state, key


def batches(logs):
    """batch(i, n): the trajectories (s, a, R) of agent i's n-th local step."""
    observation, action, score, _ = logs

    def batch(i, n):
        n %= LOGS
        return [[(observation[i, n, t, e], action[i, n, t, e], score[i, n, t, e]) for t in range(T)] for e in range(E)]

    return batch


@pytest.mark.parametrize(("beta", "limit"), [(0.2, np.inf), (0.2, 0.9), (1.0, np.inf)])
@pytest.mark.parametrize("server", [None, 0.5])
def test_fedsvrpg_m(logs, beta, limit, server):
    theta, _, _ = learn(logs, (learners.svrpg_momentum(beta, limit),), server=server)
    expected = paper.momentum(
        batches(logs), logs[3], AGENTS, rounds=3, K=2, eta=RATE, beta=beta, lam=RATE * 2 * (server or 1), limit=limit
    )
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize(("beta", "limit"), [(0.2, np.inf), (0.5, 0.9), (1.0, np.inf)])
def test_fedhapg_m(logs, beta, limit):
    theta, _, key = learn(logs, (learners.hapg_momentum(beta, limit),))

    def mixing(r, i, k):
        """a ~ U(0, 1) from the key of the round, the agent and its local step."""
        k_agents = jax.random.split(jax.random.fold_in(key, r), 4)[1]
        k_step = jax.random.fold_in(quick(jax.random.fold_in(jax.random.fold_in(k_agents, i), 0)), k)
        return float(jax.random.uniform(jax.random.fold_in(jax.random.split(k_step, 3)[2], 0)))

    expected = paper.momentum(
        batches(logs), logs[3], AGENTS, rounds=3, K=2, eta=RATE, beta=beta, lam=RATE * 2, hessian=mixing, limit=limit
    )
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize("limit", [np.inf, 0.9])
def test_svrpg(logs, limit):
    theta, _, _ = learn(logs, (learners.svrpg(limit),), num_rounds=6)
    expected = paper.svrpg(batches(logs), logs[3], AGENTS, rounds=3, K=2, eta=RATE, limit=limit)
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize("limit", [np.inf, 1.01])
def test_importance_weighting_of_old_steps(logs, limit):
    theta, _, _ = learn(logs, (learners.importance_weighting(limit),), num_epochs=3)
    expected = paper.off_policy(
        batches(logs), logs[3], AGENTS, rounds=3, K=2, epochs=3, eta=RATE, level="step", limit=limit, behaviour="own"
    )
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize("limit", [np.inf, 1.01])
def test_importance_weighting_of_the_global_models_trajectories(logs, limit):
    corrections = (learners.mixed_behaviour(1.0), learners.importance_weighting(limit, "trajectory"))
    theta, _, _ = learn(logs, corrections, steps=3)
    expected = paper.off_policy(
        batches(logs), logs[3], AGENTS, rounds=3, K=3, epochs=1, eta=RATE, level="trajectory", limit=limit,
        behaviour="global",
    )  # fmt: skip
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize("delta", [None, 0.02])
def test_natural_gradient(logs, delta):
    correction = learners.natural_gradient(delta, damping=0.1, num_iterations=FEATURES * ACTIONS)
    theta, _, _ = learn(logs, (correction,))
    expected = paper.natural(
        batches(logs), logs[3], AGENTS, rounds=3, K=2, eta=RATE, damping=0.1, delta=delta
    )  # fmt: skip
    np.testing.assert_allclose(theta, expected, rtol=1e-6)


@pytest.mark.parametrize("distance", ["kl", "sqrt_kl"])
@pytest.mark.parametrize("target", [None, 0.03])
def test_kl_to_global(logs, distance, target):
    theta, state, _ = learn(logs, (learners.kl_to_global(0.7, distance, target),), steps=3)
    expected, sigma = paper.fedkl(
        batches(logs), logs[3], AGENTS, rounds=3, K=3, eta=RATE, sigma=0.7, root=distance == "sqrt_kl", target=target
    )
    np.testing.assert_allclose(theta, expected, rtol=1e-6)
    np.testing.assert_allclose(state.local.corrections[0].cost, sigma, rtol=1e-6)
    if target is not None:
        assert not np.allclose(sigma, 0.7)


# ---------------------------------------------------------------- what is refused


LOGGED = LoggedObjective(np.zeros((2, 3)), 2)
SGD = optimizer(optax.sgd, learning_rate=0.1)
PLAIN = [
    ("mime", lambda: learners.mime(0.5)),
    ("mime_lite", lambda: learners.mime_lite(0.5)),
    ("svrpg", learners.svrpg),
    ("svrpg_momentum", learners.svrpg_momentum),
    ("hapg_momentum", learners.hapg_momentum),
    ("normalized_averaging", learners.normalized_averaging),
]
UNIFORM = [
    *PLAIN[:-1],
    ("control_variates", learners.control_variates),
    ("dynamic_regularization", lambda: learners.dynamic_regularization(1.0)),
]
MOVING = [*PLAIN[3:], UNIFORM[-1]]
WHOLE = [
    *PLAIN[2:5],
    ("natural_gradient", learners.natural_gradient),
    (r"importance_weighting\(level='trajectory'\)", lambda: learners.importance_weighting(level="trajectory")),
]
TRAJECTORIES = [WHOLE[i] for i in (0, 1, 2, 4)]


class Values(RowsObjective):
    """Without a policy that could be asked for probabilities."""


class Short(LoggedObjective):
    """Pieces of trajectories."""

    whole_trajectories = False


class Weighed(LoggedObjective):
    """Whose loss has the ratio in it."""

    uses_ratios = True


def refuse(message, corrections, objective=LOGGED, sgd=SGD, **kwargs):
    with pytest.raises(ValueError, match=message):
        local_training(objective, sgd, corrections=corrections, **{"weight": "uniform"} | kwargs)


@pytest.mark.parametrize(("name", "make"), UNIFORM)
def test_uniform_weights_are_asked_for(name, make):
    refuse(f"weight must be 'uniform' with {name}, got 'samples': its server variable is a mean", (make(),),
           weight="samples")  # fmt: skip


@pytest.mark.parametrize(("name", "make"), PLAIN)
@pytest.mark.parametrize("sgd", [optax.sgd(0.1), optimizer(optax.sgd, learning_rate=0.1, momentum=0.9)])
def test_plain_sgd_is_asked_for(name, make, sgd):
    refuse(f"optimizer must be plain SGD with {name}, .*optimizer\\(optax.sgd, learning_rate=0.1\\)", (make(),),
           sgd=sgd)  # fmt: skip


@pytest.mark.parametrize(("name", "make"), MOVING)
def test_movement_is_asked_for(name, make):
    refuse(f"upload must be 'delta' with {name}, got 'gradient'", (make(),), upload="gradient")


@pytest.mark.parametrize(("name", "make"), WHOLE)
@pytest.mark.parametrize("kwargs", [{"num_epochs": 2}, {"num_minibatches": 2}])
def test_whole_batches_are_asked_for(name, make, kwargs):
    got = f"{kwargs.get('num_epochs', 1)} and {kwargs.get('num_minibatches', 1)}"
    refuse(f"num_epochs and num_minibatches must be 1 with {name}, got {got}: .*num_local_steps", (make(),), **kwargs)


@pytest.mark.parametrize(("name", "make"), TRAJECTORIES)
def test_whole_trajectories_are_asked_for(name, make):
    refuse(f"objective must collect whole trajectories with {name}, got Short; use episodes='fresh'", (make(),),
           Short(np.zeros((2, 3)), 2))  # fmt: skip


@pytest.mark.parametrize(("name", "make"), [*TRAJECTORIES[:3], ("importance_weighting", learners.importance_weighting)])
def test_ratios_are_taken_once(name, make):
    refuse(f"objective must not weigh by ratios itself with {name}, got Weighed", (make(),),
           Weighed(np.zeros((2, 3)), 2))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("natural_gradient", learners.natural_gradient),
        ("kl_to_global", lambda: learners.kl_to_global(1.0)),
        ("importance_weighting", learners.importance_weighting),
        ("mixed_behaviour", lambda: learners.mixed_behaviour(0.5)),
    ],
)
def test_a_distribution_is_asked_for(name, make):
    refuse(f"objective must have a stochastic policy with {name}, got Values", (make(),), Values(np.zeros(2)))


@pytest.mark.parametrize(
    ("name", "make"),
    [("importance_weighting", learners.importance_weighting), ("hapg_momentum", learners.hapg_momentum)],
)
def test_what_begins_with_its_own_gradient_comes_first(name, make):
    refuse(f"corrections must put {name} before Proximal", (learners.proximal(0.1), make()))
    local_training(LOGGED, SGD, corrections=(make(), learners.proximal(0.1)), weight="uniform")


def test_the_behaviour_of_hapg_is_its_own():
    corrections = (learners.hapg_momentum(), learners.mixed_behaviour(0.5))
    refuse("corrections must leave the behaviour to hapg_momentum, got MixedBehaviour beside it", corrections)


@pytest.mark.parametrize(("name", "make"), [MOVING[0], MOVING[1], MOVING[3]])
def test_normalized_averaging_hides_the_movement(name, make):
    pair = (make(), learners.normalized_averaging())
    for corrections in (pair, pair[::-1]):
        refuse(f"must not join normalized_averaging and {type(pair[0]).__name__}", corrections)


@pytest.mark.parametrize(
    ("factory", "kwargs", "message"),
    [
        (learners.dynamic_regularization, {"strength": 0.0}, r"strength must lie in \(0, inf\), got 0.0"),
        (learners.mime, {"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        (learners.mime_lite, {"momentum": -0.1}, r"momentum must lie in \[0, 1\), got -0.1"),
        (learners.svrpg, {"max_ratio": 0.0}, r"max_ratio must lie in \(0, inf"),
        (learners.svrpg_momentum, {"beta": 0.0}, r"beta must lie in \(0, 1\], got 0.0"),
        (learners.svrpg_momentum, {"max_ratio": -1.0}, r"max_ratio must lie in \(0, inf"),
        (learners.hapg_momentum, {"beta": 1.5}, r"beta must lie in \(0, 1\], got 1.5"),
        (learners.hapg_momentum, {"max_ratio": 0}, r"max_ratio must lie in \(0, inf"),
        (learners.natural_gradient, {"max_kl": 0.0}, r"max_kl must lie in \(0, inf\), got 0.0"),
        (learners.natural_gradient, {"damping": -1.0}, r"damping must lie in \[0, inf\), got -1.0"),
        (learners.natural_gradient, {"critic_scale": -1.0}, r"critic_scale must lie in \[0, inf\)"),
        (learners.natural_gradient, {"num_iterations": 0}, "num_iterations must be an integer >= 1, got 0"),
        (learners.natural_gradient, {"num_backtracks": -1, "max_kl": 1.0}, "num_backtracks must be an integer >= 0"),
        (learners.natural_gradient, {"num_backtracks": 5}, "num_backtracks must be 0 without max_kl, got 5; give"),
        (learners.kl_to_global, {"cost": -1.0}, r"cost must lie in \[0, inf\), got -1.0"),
        (learners.kl_to_global, {"cost": 1.0, "distance": "tv"}, "distance must be one of 'kl', 'sqrt_kl', got 'tv'"),
        (learners.kl_to_global, {"cost": 1.0, "target": 0.0}, r"target must lie in \(0, inf\), got 0.0"),
        (learners.importance_weighting, {"max_ratio": 0.0}, r"max_ratio must lie in \(0, inf"),
        (learners.importance_weighting, {"level": "row"}, "level must be one of 'step', 'trajectory', got 'row'"),
        (learners.mixed_behaviour, {"probability": 1.1}, r"probability must lie in \[0, 1\], got 1.1"),
        (learners.clip_gradient, {"max_norm": 0.0}, r"max_norm must lie in \(0, inf\), got 0.0"),
    ],
)
def test_bad_input_is_refused(factory, kwargs, message):
    with pytest.raises(ValueError, match=message):
        factory(**kwargs)


@pytest.mark.parametrize(
    ("name", "make"), [("svrpg_momentum", learners.svrpg_momentum), ("mime", learners.mime), ("svrpg", learners.svrpg)]
)
def test_what_subtracts_a_gradient_of_its_own_comes_first(name, make):
    refuse(f"corrections must put {name} before ClipGradient", (learners.clip_gradient(1.0), make()))
    local_training(LOGGED, SGD, corrections=(make(), learners.clip_gradient(1.0)), weight="uniform")


@pytest.mark.parametrize(("name", "make"), [("mime", learners.mime), ("svrpg", learners.svrpg)])
def test_a_model_that_rests_is_not_moved_by_others(name, make):
    resting = local_training(LOGGED, SGD, corrections=(make(),), weight="uniform")
    with pytest.raises(ValueError, match="move the model in every round with server_optimizer, got Mime"):
        learners.server_optimizer(resting, optax.sgd(1.0))
    pair = (make(), learners.dynamic_regularization(1.0))
    refuse(f"corrections must not join {name} and DynamicRegularization", pair)


def test_two_that_read_the_movement_are_refused():
    pair = (learners.svrpg_momentum(), learners.dynamic_regularization(1.0))
    refuse("more than one that reads the movement, got SVRPGMomentum, DynamicRegularization", pair)


@pytest.mark.parametrize(
    ("name", "make", "kwargs"),
    [
        ("Mime", learners.mime, {}),
        ("MimeLite", lambda: learners.mime_lite(0.5), {}),
        ("SVRPGMomentum", learners.svrpg_momentum, {}),
        ("optimizer_state='average'", None, {"optimizer_state": "average"}),
    ],
)
def test_unequal_work_is_refused_where_it_would_spoil_the_server(logs, name, make, kwargs):
    family = LoggedFamily(Logs(*(jnp.asarray(x) for x in logs[:3])))
    corrections = () if make is None else (make(),)
    learner = local_training(LOGGED, SGD, corrections=corrections, weight="uniform", num_local_steps=2, **kwargs)
    working = Working(jnp.arange(AGENTS))
    with pytest.raises(ValueError, match=f"take all its local steps with {name}"):
        round_ = make_round(family, learner, aggregators.mean(), num_agents=AGENTS, participation=working)
        run(round_, round_.init(jax.random.key(0)), 1)


@component
class WithCritic(LoggedObjective):
    """A part of the loss that no trajectory weighs."""

    def loss(self, key, params, state, batch):
        loss, report = super().loss(key, params, state, batch)
        return loss + jnp.sum(jnp.square(params["theta"] - 1)), report


@pytest.mark.parametrize("make", [learners.svrpg_momentum, learners.hapg_momentum])
def test_momentum_treats_the_critic_as_the_actor(logs, make):
    # At the first step theta = theta_{r-1} and u = 0, so everything, critic included, moves beta times as far.
    moved = []
    for corrections in ((), (make(0.25),)):
        theta, _, _ = learn(logs, corrections, steps=1, num_rounds=1, kind=WithCritic)
        moved.append(theta - logs[3])
    np.testing.assert_allclose(moved[1], 0.25 * moved[0], rtol=1e-6)
