"""The four ways to sample transitions: laws, and loops with the same uniform numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import (
    EpisodicParams,
    TabularParams,
    episodes,
    garnet_family,
    generative_transitions,
    iid_transitions,
    inverse_cdf,
    markov_transitions,
    mixture_family,
    synthetic_family,
)
from tests.envs.tabular.laws import check_frequencies
from tests.oracles.finite_worlds import quantile


KEY = jax.random.key(7)
S, A, H = 5, 3, 4
POLICY = np.random.default_rng(0).dirichlet(np.ones(A), S)
LAW = np.random.default_rng(1).dirichlet(np.ones(S))


def world(family=None):
    return jax.tree.map(lambda x: x[0], (family or mixture_family(S, A, branching=3)).sample(KEY, 1))


def split(params):
    return np.asarray(params.kernel, np.float64), np.asarray(params.reward)


def test_iid_transitions_against_a_loop(x64):
    params = world()
    P, r = split(params)
    seen = iid_transitions(KEY, params, jnp.asarray(POLICY), jnp.asarray(LAW), 200)
    for t, u in enumerate(np.asarray(jax.random.uniform(KEY, (200, 3)))):
        s = quantile(LAW, u[0])
        a = quantile(POLICY[s], u[1])
        assert (seen.state[t], seen.action[t], seen.next_state[t]) == (s, a, quantile(P[s, a], u[2]))
        assert seen.reward[t] == r[s, a]


def test_markov_transitions_against_a_loop(x64):
    params = world()
    P, r = split(params)
    last, seen = markov_transitions(KEY, params, jnp.asarray(POLICY), jnp.int32(2), 200)
    s = 2
    for t, u in enumerate(np.asarray(jax.random.uniform(KEY, (200, 2)))):
        a = quantile(POLICY[s], u[0])
        following = quantile(P[s, a], u[1])
        assert (seen.state[t], seen.action[t], seen.next_state[t]) == (s, a, following)
        assert seen.reward[t] == r[s, a]
        s = following
    assert last == s


def test_a_chain_goes_on_where_it_was():
    params = world()
    middle, first = markov_transitions(jax.random.key(1), params, POLICY, jnp.int32(0), 10)
    _, second = markov_transitions(jax.random.key(2), params, POLICY, middle, 10)
    assert first.state[0] == 0
    assert second.state[0] == first.next_state[-1]
    np.testing.assert_array_equal(first.next_state[:-1], first.state[1:])


@pytest.mark.parametrize("finite", [False, True])
@pytest.mark.parametrize("changing", [False, True])
def test_episodes_against_a_loop(x64, finite, changing):
    params = world(synthetic_family(S, A, H) if finite else None)
    P, r = split(params)
    policy = np.random.default_rng(2).dirichlet(np.ones(A), (H, S)) if changing else POLICY
    seen = episodes(KEY, params, jnp.asarray(policy), 30, H)
    assert seen.state.shape == (30, H)
    for e, u in enumerate(np.asarray(jax.random.uniform(KEY, (30, 1 + 2 * H)))):
        s = quantile(np.asarray(params.initial), u[0])
        for h in range(H):
            P_h, r_h = (P[h], r[h]) if finite else (P, r)
            a = quantile(policy[h][s] if changing else policy[s], u[1 + 2 * h])
            following = quantile(P_h[s, a], u[2 + 2 * h])
            assert (seen.state[e, h], seen.action[e, h], seen.next_state[e, h]) == (s, a, following)
            assert seen.reward[e, h] == r_h[s, a]
            s = following


@pytest.mark.parametrize("finite", [False, True])
def test_a_generative_model_visits_every_pair_once(finite):
    params = world(synthetic_family(S, A, H) if finite else None)
    seen = generative_transitions(KEY, params)
    assert seen.next_state.shape == params.reward.shape
    np.testing.assert_array_equal(seen.state, np.broadcast_to(np.arange(S)[:, None], params.reward.shape))
    np.testing.assert_array_equal(seen.action, np.broadcast_to(np.arange(A), params.reward.shape))
    np.testing.assert_array_equal(seen.reward, params.reward)
    drawn = jax.jit(jax.vmap(lambda key: generative_transitions(key, params).next_state))(jax.random.split(KEY, 5000))
    check_frequencies(np.moveaxis(np.asarray(drawn), 0, -1), params.kernel)


def test_iid_transitions_have_their_law():
    params = world()
    seen = iid_transitions(KEY, params, POLICY, LAW, 100_000)
    check_frequencies(seen.state, LAW)
    for s in range(S):
        check_frequencies(seen.action[seen.state == s], POLICY[s])
    for s, a in np.ndindex(S, A):
        check_frequencies(seen.next_state[(seen.state == s) & (seen.action == a)], params.kernel[s, a])


def test_a_chain_visits_states_by_its_stationary_law():
    # The mean of 2000 independent chains after a long time; each frequency is binomial, beyond 5 standard errors with
    # probability 6e-7. The second eigenvalue of this chain is far below 0.9, and 0.9^200 = 7e-10.
    params = world(mixture_family(S, A, eps_p=0.0))
    P, _ = split(params)
    P_pi = np.einsum("sa,sat->st", POLICY, P)
    assert sorted(abs(np.linalg.eigvals(P_pi)))[-2] < 0.9
    mu = np.linalg.matrix_power(P_pi, 200)[0]
    last = jax.jit(jax.vmap(lambda key: markov_transitions(key, params, POLICY, jnp.int32(0), 200)[0]))(
        jax.random.split(KEY, 2000)
    )
    frequency = np.bincount(np.asarray(last), minlength=S) / 2000
    assert np.all(abs(frequency - mu) < 5 * np.sqrt(mu * (1 - mu) / 2000))


def test_samplers_work_under_jit_and_vmap_over_agents():
    family = garnet_family()
    physics = family.sample(KEY, 6)
    law, policy = jnp.full(30, 1 / 30), jnp.asarray(family.policy, jnp.float32)
    keys = jax.random.split(KEY, 6)
    together = jax.jit(jax.vmap(lambda k, p: iid_transitions(k, p, policy, law, 20)))(keys, physics)
    alone = iid_transitions(keys[4], jax.tree.map(lambda x: x[4], physics), policy, law, 20)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[4], y), together, alone)
    kernel = np.asarray(physics.kernel)
    agents = np.arange(6)[:, None]
    assert np.all(kernel[agents, together.state, together.action, together.next_state] > 0)
    first = inverse_cdf(jax.random.uniform(KEY, (6,)), physics.initial)
    assert first.shape == (6,)


def test_refuses_another_horizon():
    params = world(synthetic_family(S, A, H))
    assert isinstance(params, EpisodicParams)
    with pytest.raises(ValueError, match=r"horizon must be that of the MDP and of the policy, \[4\], got 3"):
        episodes(KEY, params, jnp.asarray(POLICY), 2, 3)
    with pytest.raises(ValueError, match=r"\[2\], got 3"):
        episodes(KEY, TabularParams(params.kernel[0], params.reward[0], params.initial), jnp.ones((2, S, A)) / A, 2, 3)
