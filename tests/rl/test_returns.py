"""Returns, advantages and V-trace against plain sums, for every way an episode can end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.rl import (
    discounted_returns,
    generalized_advantages,
    importance_ratios,
    n_step_returns,
    vtrace,
)
from tests.oracles import trajectories as oracle
from tests.rl.trajectories import T, arguments, columns, every_ending


ENDS = ("terminated", "truncated", "final_value", "last_value")
RETURNS = ("reward", *ENDS)
VALUED = ("reward", "value", *ENDS)
RATIOS = (*VALUED, "ratio")
EXACT: Any = {"atol": 1e-12, "rtol": 0}


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_discounted_returns_equal_the_oracle(x64, discount):
    data = every_ending()
    got = jax.jit(discounted_returns)(**arguments(data, RETURNS), discount=discount)
    expected = [oracle.discounted_return(*row) for row in columns(data, RETURNS, discount)]
    np.testing.assert_allclose(got, np.stack(expected, 1), **EXACT)


@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.9, 0.8), (0.9, 0.0), (1.0, 1.0), (0.0, 0.5)])
def test_generalized_advantages_equal_the_oracle(x64, discount, gae_lambda):
    data = every_ending(1)
    got = jax.jit(generalized_advantages)(**arguments(data, VALUED), discount=discount, gae_lambda=gae_lambda)
    expected = [oracle.advantage(*row) for row in columns(data, VALUED, discount, gae_lambda)]
    np.testing.assert_allclose(got.advantage, np.stack(expected, 1), **EXACT)
    np.testing.assert_allclose(got.target, got.advantage + data["value"], **EXACT)


@pytest.mark.parametrize("num_steps", [1, 2, 3, T, T + 3])
def test_n_step_returns_equal_the_oracle(x64, num_steps):
    data = every_ending(2)
    got = n_step_returns(**arguments(data, VALUED), discount=0.9, num_steps=num_steps)
    expected = [oracle.n_step_return(*row) for row in columns(data, VALUED, 0.9, num_steps)]
    np.testing.assert_allclose(got, np.stack(expected, 1), **EXACT)


@pytest.mark.parametrize("clips", [(1.0, 1.0, 1.0), (1.5, 0.7, 2.0)])
@pytest.mark.parametrize("trace_lambda", [1.0, 0.6, 0.0])
def test_vtrace_equals_the_oracle(x64, clips, trace_lambda):
    data = every_ending(3)
    limits = dict(zip(("clip_target", "clip_trace", "clip_gradient"), clips, strict=True))
    got = jax.jit(vtrace)(**arguments(data, RATIOS), discount=0.9, trace_lambda=trace_lambda, **limits)
    rows = [oracle.v_trace(*row) for row in columns(data, RATIOS, 0.9, trace_lambda, *clips)]
    np.testing.assert_allclose(got.target, np.stack([row[0] for row in rows], 1), **EXACT)
    np.testing.assert_allclose(got.advantage, np.stack([row[1] for row in rows], 1), **EXACT)


def test_special_cases_agree(x64):
    data = every_ending(4)
    valued, ones = arguments(data, VALUED), jnp.ones_like(data["value"])
    valued["discount"] = 0.9
    monte_carlo = discounted_returns(**arguments(data, RETURNS), discount=0.9)
    one_step = n_step_returns(**valued, num_steps=1)
    np.testing.assert_allclose(generalized_advantages(**valued, gae_lambda=1.0).target, monte_carlo, **EXACT)
    np.testing.assert_allclose(generalized_advantages(**valued, gae_lambda=0.0).target, one_step, **EXACT)
    np.testing.assert_allclose(n_step_returns(**valued, num_steps=T), monte_carlo, **EXACT)
    on_policy = vtrace(**valued, ratio=ones)
    np.testing.assert_allclose(on_policy.target, monte_carlo, **EXACT)
    np.testing.assert_allclose(on_policy.advantage, monte_carlo - data["value"], **EXACT)
    np.testing.assert_allclose(vtrace(**valued, ratio=ones, trace_lambda=0.0).target, one_step, **EXACT)


def test_a_truncated_step_is_bootstrapped_and_a_terminated_one_is_not():
    # Two steps of reward 1, gamma = 1/2, V = 8 everywhere. Second step: goes on, truncated, terminated.
    flags = jnp.array([[False, False, False], [False, True, False]])
    ends = jnp.array([[False, False, False], [False, False, True]])
    reward, eight = jnp.ones((2, 3)), jnp.full((2, 3), 8.0)
    final_value, last_value = jnp.full((2, 3), 4.0), jnp.full(3, 2.0)
    got = discounted_returns(reward, ends, flags, final_value, last_value, 0.5)
    # 1 + 2/2 = 2, 1 + 4/2 = 3, 1; one step earlier 1 + 2/2, 1 + 3/2, 1 + 1/2.
    np.testing.assert_array_equal(got, [[2.0, 2.5, 1.5], [2.0, 3.0, 1.0]])
    advantage, target = generalized_advantages(reward, eight, ends, flags, final_value, last_value, 0.5, 0.5)
    # delta_1 = (2, 3, 1) - 8; delta_0 = 1 + 8/2 - 8 = -3; A_0 = -3 + delta_1 / 4.
    np.testing.assert_array_equal(advantage, [[-4.5, -4.25, -4.75], [-6.0, -5.0, -7.0]])
    np.testing.assert_array_equal(target, advantage + 8)


def test_an_end_shields_from_what_follows_even_if_it_is_not_finite():
    ends = jnp.array([True, False])
    none = jnp.zeros(2, bool)
    zero, nan = jnp.zeros(2), jnp.float32(jnp.nan)
    got = discounted_returns(jnp.array([1.0, 2.0]), ends, none, zero, nan, 0.9)
    assert got[0] == 1 and jnp.isnan(got[1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_floating_type_follows_the_inputs(x64, dtype):
    def cast(names):
        arrays = arguments(every_ending(5), names)
        return {name: x.astype(dtype) if x.dtype == float else x for name, x in arrays.items()}

    out = [
        discounted_returns(**cast(RETURNS), discount=0.9),
        *generalized_advantages(**cast(VALUED), discount=0.9, gae_lambda=0.8),
        n_step_returns(**cast(VALUED), discount=0.9, num_steps=2),
        *vtrace(**cast(RATIOS), discount=0.9),
    ]
    assert {(x.dtype, x.weak_type) for x in out} == {(jnp.dtype(dtype), False)}


def test_one_trajectory_without_further_axes_and_vmap():
    valued = arguments(every_ending(6), VALUED)

    @jax.jit
    def advantage(valued):
        return generalized_advantages(**valued, discount=0.9, gae_lambda=0.8).advantage

    together = advantage(valued)
    mapped = jax.vmap(advantage, -1, -1)(valued)
    alone = advantage({name: x[..., 7] for name, x in valued.items()})
    np.testing.assert_allclose(mapped, together, rtol=1e-6)
    np.testing.assert_allclose(alone, together[:, 7], rtol=1e-6)


def test_importance_ratios():
    ratio = importance_ratios(jnp.log(jnp.array([0.2, 0.9])), jnp.log(jnp.array([0.4, 0.3])))
    np.testing.assert_allclose(ratio, [0.5, 3.0], rtol=1e-6)
    clipped = importance_ratios(jnp.log(jnp.array([0.2, 0.9])), jnp.log(jnp.array([0.4, 0.3])), clip=1.5)
    np.testing.assert_allclose(clipped, [0.5, 1.5], rtol=1e-6)


def test_no_gradient_flows_through_vtrace():
    arrays = arguments(every_ending(7), RATIOS)
    finite = {name: jnp.nan_to_num(x) for name, x in arrays.items() if name != "value"}

    def total(value):
        return sum(x.sum() for x in vtrace(value=value, **finite, discount=0.9))

    assert not jax.grad(total)(arrays["value"]).any()


def test_n_step_returns_refuse_no_steps():
    with pytest.raises(ValueError, match="num_steps must be an integer >= 1, got 0"):
        n_step_returns(**arguments(every_ending(8), VALUED), discount=0.9, num_steps=0)
