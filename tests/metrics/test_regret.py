"""Regret against sums written out."""

import numpy as np
import pytest

from fedjax_rl.metrics import cumulative_regret, social_regret


def test_sums_written_out() -> None:
    generator = np.random.default_rng(0)
    values, optimum = generator.uniform(size=(2, 3, 5)), generator.uniform(1, 2, size=(2, 3))
    regret = cumulative_regret(values, optimum)
    social = social_regret(values, optimum)
    for t in range(5):
        for k in range(3):
            losses = [sum(optimum[c, k] - values[c, k, i] for i in range(t + 1)) for c in range(2)]
            np.testing.assert_allclose(regret[:, k, t], losses)
            np.testing.assert_allclose(social[k, t], sum(losses) / 2)


def test_playing_the_optimum_costs_nothing_and_one_mistake_costs_once() -> None:
    assert cumulative_regret(np.full(4, 3.0), 3.0).tolist() == [0.0] * 4
    assert cumulative_regret(np.asarray([3.0, 2.5, 3.0]), 3.0).tolist() == [0.0, 0.5, 0.5]


def test_agents_may_do_better_than_with_the_common_policy() -> None:
    values = np.asarray([[2.0, 2.0], [0.0, 0.0]])
    assert social_regret(values, np.asarray([1.0, 1.0])).tolist() == [0.0, 0.0]
    assert social_regret(values, np.asarray([2.0, 1.0])).tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: cumulative_regret(np.ones((2, 3)), np.ones(3)), r"optimum must have the shape \(2,\) .* got \(3,\)"),
        (lambda: cumulative_regret(np.float64(1.0), 1.0), "optimum must have the shape"),
        (lambda: cumulative_regret(np.asarray([1.0, np.nan]), 1.0), "values must be finite, got nan"),
        (lambda: cumulative_regret(np.ones(2), np.inf), "optimum must be finite, got inf"),
        (lambda: cumulative_regret(np.asarray([1.0, 2.0]), 1.5), r"optimum must be at least every value, got 2.0 at"),
        (lambda: social_regret(np.ones(3), np.float64(1.0)), r"values must have the axes \[M, \.\.\., T\]"),
    ],
)
def test_bad_input(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
