"""Triggers and periods against loops, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import aggregators, make_round, run, transforms
from fedjax_rl.core import tree
from tests.oracles import triggers as oracle
from tests.probes.quadratic import Descent, Targets
from tests.transforms.test_lazy import Listed, Lossy


N, D, ROUNDS, ETA = 5, 3, 24, 0.3
pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(name="targets")
def make_targets():
    return np.random.default_rng(0).normal(size=(N, D)) * np.arange(1, N + 1)[:, None]


def play(targets, *ways, cohorts=None, num_rounds=ROUNDS):
    kwargs = {} if cohorts is None else {"participation": Listed(jnp.asarray(cohorts))}
    round_ = make_round(
        Targets(jnp.asarray(targets)), Descent(ETA), aggregators.mean(), num_agents=N, transforms=ways, **kwargs
    )
    state = tree.strong(round_.init(jax.random.key(0)))
    state, history = run(round_, state, num_rounds)
    return np.asarray(round_.policies(state, jnp.arange(1))[0]), history


def table(loss, seed=3):
    generator = np.random.default_rng(seed)
    return generator.random((N, ROUNDS)) >= loss


CASES = [
    (transforms.threshold_trigger(0.7), lambda: oracle.Threshold(0.7)),
    (transforms.threshold_trigger(0.7, of="change"), lambda: oracle.Change(0.7)),
    (transforms.threshold_trigger(1.5, unsent="accumulate"), lambda: oracle.Accumulating(1.5)),
    (transforms.increasing_period(1, 1.4, 5), lambda: oracle.Period(1, 1.4, 5)),
    (transforms.increasing_period(2, 1.0), lambda: oracle.Period(2, 1.0, np.inf)),
]


@pytest.mark.parametrize(("way", "rule"), CASES, ids=["message", "change", "accumulate", "growing", "fixed"])
@pytest.mark.parametrize("loss", [0.0, 0.4])
@pytest.mark.parametrize("size", [N, 3])
def test_against_a_loop(targets, way, rule, loss, size):
    generator = np.random.default_rng(5)
    cohorts = [sorted(generator.permutation(N)[:size].tolist()) for _ in range(ROUNDS)]
    arrives = table(loss)
    expected, told = oracle.play(targets, ETA, [rule() for _ in range(N)], cohorts, arrives)
    theta, history = play(targets, way, Lossy(jnp.asarray(arrives)), cohorts=cohorts)
    np.testing.assert_allclose(theta, expected, rtol=1e-9)
    assert history["messages_delivered"].tolist() == [d for _, d in told]
    assert history["uplink_bits"].tolist() == [64 * D * s for s, _ in told]
    np.testing.assert_allclose(history["silent_share"], [1 - s / size for s, _ in told], rtol=1e-6)
    assert 0 < sum(s for s, _ in told) < size * ROUNDS


@pytest.mark.parametrize("size", [N, 3])
def test_only_the_largest_messages_are_sent(targets, size):
    generator = np.random.default_rng(5)
    cohorts = [generator.permutation(N)[:size].tolist() for _ in range(ROUNDS)]
    theta, history = play(targets, transforms.top_change(2), cohorts=cohorts)
    expected = np.zeros(D)
    for cohort in cohorts:
        x = {m: -ETA * (expected - targets[m]) for m in cohort}
        best = sorted(cohort, key=lambda m, x=x: (-np.linalg.norm(x[m]), m))[:2]
        expected = expected + np.mean([x[m] for m in best], 0)
    np.testing.assert_allclose(theta, expected, rtol=1e-9)
    assert history["uplink_bits"].tolist() == [64 * D * 2] * ROUNDS
    assert history["messages_delivered"].tolist() == [2] * ROUNDS
    assert history["messages_lost"].tolist() == [0] * ROUNDS
    np.testing.assert_allclose(history["silent_share"], 1 - 2 / size, rtol=1e-6)


def test_equal_messages_are_told_apart_by_their_agents_not_by_their_slots():
    targets = np.ones((N, D))
    targets[:, 0] = [1, -1, -1, 1, 1]  # equal norms from the origin, other directions
    models = [play(targets, transforms.top_change(1), cohorts=[c], num_rounds=1)[0] for c in ([3, 1, 4], [4, 3, 1])]
    np.testing.assert_array_equal(*models)
    np.testing.assert_allclose(models[0], ETA * targets[1])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "way", [transforms.threshold_trigger(2.0), transforms.increasing_period(2, 1), transforms.top_change(2)]
)
def test_silence_is_free_and_messages_cost_their_compressed_size(targets, way, last):
    compress = transforms.quantize(8)
    _, history = play(targets, *((compress, way) if last else (way, compress)), num_rounds=4)
    assert (history["silent_share"] > 0).any()
    np.testing.assert_array_equal(history["uplink_bits"], history["messages_delivered"] * (D * 8 + 32))
    np.testing.assert_array_equal(history["messages_delivered"] + N * history["silent_share"], N)


@pytest.mark.parametrize("last", [False, True])
def test_every_attempt_sends_the_compressed_message(targets, last):
    ways = transforms.erasure(0.5, attempts=3), transforms.quantize(8)
    bits = play(targets, *(ways[::-1] if last else ways), num_rounds=6)[1]["uplink_bits"]
    assert (bits % (D * 8 + 32) == 0).all()
    assert N * (D * 8 + 32) < bits.max() <= 3 * N * (D * 8 + 32)


def test_silence_of_all_leaves_the_model(targets):
    theta, history = play(targets, transforms.threshold_trigger(1e6))
    np.testing.assert_array_equal(theta, 0)
    assert history["silent_share"].tolist() == [1.0] * ROUNDS
    assert history["uplink_bits"].sum() == history["messages_lost"].sum() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.threshold_trigger(-1.0), r"norm must lie in \[0, inf\), got -1\.0"),
        (lambda: transforms.threshold_trigger(1.0, of="size"), "of must be one of 'message', 'change', got 'size'"),
        (lambda: transforms.threshold_trigger(1.0, unsent="keep"), "unsent must be one of"),
        (lambda: transforms.threshold_trigger(1.0, "change", "accumulate"), "unsent must be 'drop' with of='change'"),
        (lambda: transforms.top_change(0), "num_messages must be an integer >= 1, got 0"),
        (lambda: transforms.increasing_period(0.5), r"first must lie in \[1, inf\), got 0\.5"),
        (lambda: transforms.increasing_period(1, 0.9), r"growth must lie in \[1, inf\), got 0\.9"),
        (lambda: transforms.increasing_period(largest=0), r"largest must lie in \[1, inf\), got 0"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
