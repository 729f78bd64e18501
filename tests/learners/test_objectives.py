"""The on-policy objectives against loops that share no code with them: advantages, loss and gradient, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, policies, rl
from tests.oracles import policy_gradient as oracle
from tests.oracles import trajectories


pytestmark = pytest.mark.usefixtures("x64")
GAMMA, LAMBDA, E, T = 0.97, 0.9, 3, 30


def setting(factory, **kwargs):
    """One collect of an objective with a linear softmax policy on carts whose horizon truncates some episodes."""
    family = envs.cartpole_family("packer-r", max_steps_in_episode=11)
    policy = policies.mlp_policy(family.env, hidden_sizes=(), shared_trunk=False)
    objective = factory(policy, num_envs=E, num_steps=T, discount=GAMMA, **kwargs)
    physics = jax.tree.map(lambda x: x[0], family.sample(jax.random.key(1), 1))
    params = jax.tree.map(lambda x: x + 0.3, objective.init(jax.random.key(2), family.env))
    state = objective.init_local(jax.random.key(3), family.env, physics, params)
    arguments = (jax.random.key(4), family.env, physics, params, state)
    trajectory, values, _, _ = jax.jit(objective.play.__call__, static_argnums=1)(*arguments[:-1], state.rollout)
    return objective, jax.jit(objective.collect, static_argnums=1)(*arguments), params, trajectory, values


def theta_of(params):
    return jax.tree.map(np.asarray, params["params"])


def grid(batch):
    """Rows [S, ...] back to [T, E, ...]."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(T, E, *x.shape[1:]), batch)


def check_gradient(objective, params, batch, oracle_loss, extra=()):
    """Loss and gradient against the oracle and its central differences."""
    state = learners.PlayState((), jnp.int32(0), extra)
    moved = jax.tree.map(lambda x: x + 0.05, params)  # off the behaviour policy, so that ratios are not all one
    loss, _ = objective.loss(jax.random.key(0), moved, state, batch)
    np.testing.assert_allclose(loss, oracle_loss(theta_of(moved)), rtol=1e-9)
    gradient = jax.grad(lambda p: objective.loss(jax.random.key(0), p, state, batch)[0])(moved)
    for head in ("actor", "critic"):
        for name in ("kernel", "bias"):
            for index in np.ndindex(*moved["params"][head][name].shape):
                ends = []
                for sign in (1, -1):
                    theta = jax.tree.map(np.array, theta_of(moved))
                    theta[head][name][index] += sign * 1e-6
                    ends.append(oracle_loss(theta))
                slope = (ends[0] - ends[1]) / 2e-6
                np.testing.assert_allclose(gradient["params"][head][name][index], slope, rtol=1e-5, atol=1e-7)


def oracle_advantages(trajectory, values, gae_lambda, bootstrap=True):
    t = jax.tree.map(np.asarray, trajectory)
    final = np.asarray(values.final_value) if bootstrap else np.zeros((T, E))
    return oracle.gae(
        t.reward, np.asarray(values.value), t.terminated, t.truncated, final, np.asarray(values.last_value), t.mask,
        GAMMA, gae_lambda,
    )  # fmt: skip


@pytest.mark.parametrize("normalization", ["none", "advantages", "returns"])
@pytest.mark.parametrize("bootstrap", [True, False])
def test_actor_critic(normalization, bootstrap):
    objective, collected, params, trajectory, values = setting(
        learners.actor_critic, gae_lambda=LAMBDA, normalization=normalization, bootstrap_on_truncation=bootstrap
    )
    assert bool(jnp.any(trajectory.truncated & ~trajectory.terminated))
    assert bool(jnp.any(trajectory.terminated))
    cut = np.asarray(trajectory.truncated & ~trajectory.terminated)
    last = np.asarray(trajectory.final_observation)
    final = np.array([[oracle.forward(theta_of(params), s)[1] for s in row] for row in last])
    if bootstrap:
        np.testing.assert_allclose(values.final_value, np.where(cut, final, 0), rtol=1e-9)
    advantage, target = oracle_advantages(trajectory, values, LAMBDA, bootstrap)
    mask = np.asarray(trajectory.mask)
    if normalization == "advantages":
        advantage = oracle.whiten(advantage, mask)
    elif normalization == "returns":
        target = oracle.whiten(target, mask)
        advantage = target - np.asarray(values.value)
    batch = grid(collected.batch)
    np.testing.assert_allclose(batch.advantage, advantage, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(batch.target, target, rtol=1e-7, atol=1e-9)
    if normalization == "none":
        check_gradient(
            objective, params, collected.batch,
            lambda theta: oracle.a2c_loss(theta, batch.observation, batch.action, advantage, target, mask, 0.5, 0.01),
        )  # fmt: skip


def test_ppo():
    objective, collected, params, trajectory, values = setting(learners.ppo, gae_lambda=LAMBDA, entropy_cost=0.02)
    advantage, target = oracle_advantages(trajectory, values, LAMBDA)
    mask = np.asarray(trajectory.mask)
    advantage = oracle.whiten(advantage, mask)
    batch = grid(collected.batch)
    np.testing.assert_allclose(batch.advantage, advantage, rtol=1e-7, atol=1e-9)
    check_gradient(
        objective, params, collected.batch,
        lambda theta: oracle.ppo_loss(
            theta, batch.observation, batch.action, batch.log_prob, advantage, target, mask, 0.2, 0.5, 0.02
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("surrogate", "beta"), [("kl", 0.7), ("ratio", 0.0)])
def test_ppo_without_clipping(surrogate, beta):
    objective, collected, params, trajectory, values = setting(
        learners.ppo, gae_lambda=LAMBDA, entropy_cost=0.02, surrogate=surrogate, kl_cost=0.3
    )
    advantage, target = oracle_advantages(trajectory, values, LAMBDA)
    mask = np.asarray(trajectory.mask)
    advantage = oracle.whiten(advantage, mask)
    batch = grid(collected.batch)
    check_gradient(
        objective, params, collected.batch,
        lambda theta: oracle.penalized_loss(
            theta, batch.observation, batch.action, batch.log_prob, advantage, target, mask, beta, 0.5, 0.02
        ),
        extra=jnp.asarray(beta) if surrogate == "kl" else (),  # the agent's own price, whatever the first was
    )  # fmt: skip


@pytest.mark.parametrize("episodes", ["fresh"])
def test_the_penalty_of_ppo_adapts(episodes):
    objective, collected, params, trajectory, _ = setting(
        learners.ppo, surrogate="kl", kl_cost=0.3, kl_target=0.01, episodes=episodes
    )
    physics = jax.tree.map(lambda x: x[0], envs.cartpole_family("packer-r").sample(jax.random.key(1), 1))
    first = objective.init_local(jax.random.key(3), envs.cartpole_family("packer-r").env, physics, params)
    assert first.extra == 0.3
    batch, mask = grid(collected.batch), np.asarray(trajectory.mask)
    seen = set()
    for shift in (0.0, 0.2, 0.24, 0.27, 0.3, 0.33, 1.0):
        moved = jax.tree.map(lambda x, shift=shift: x.at[..., 0].add(shift), params)  # one logit of two
        divergences = []
        for k in zip(*np.nonzero(mask), strict=True):
            log_pi = oracle.log_softmax(oracle.forward(theta_of(moved), batch.observation[k])[0])
            log_rho = log_pi[batch.action[k]] - batch.log_prob[k]
            divergences.append(np.exp(log_rho) - 1 - log_rho)
        d = np.mean(divergences)
        factor = 1.5 if d > 1.5 * 0.01 else 1 / 1.5 if d < 0.01 / 1.5 else 1.0
        after = objective.after_step(moved, first, collected.batch)
        np.testing.assert_allclose(after.extra, 0.3 * factor, rtol=1e-12)
        assert int(after.count) == 1
        seen.add(factor)
    assert len(seen) == 3


def test_prices_stay_within_their_limits():
    for cost, distance, expected in [(15.0, 1.0, 20.0), (1.2e-6, 0.0, 1e-6), (4.0, 0.1, 4.0), (0.0, 1.0, 1e-6)]:
        np.testing.assert_allclose(rl.adapted(jnp.asarray(cost), jnp.asarray(distance), 0.1, 20.0), expected)


@pytest.mark.parametrize("n", [1, 3, 100])
@pytest.mark.parametrize("bootstrap", [True, False])
def test_actor_critic_with_n_step_returns(n, bootstrap):
    objective, collected, params, trajectory, values = setting(
        learners.actor_critic, num_steps_ahead=n, bootstrap_on_truncation=bootstrap
    )
    t, v = jax.tree.map(np.asarray, (trajectory, values))
    final = v.final_value if bootstrap else np.zeros((T, E))
    target = np.stack(
        [
            trajectories.n_step_return(
                t.reward[:, e], v.value[:, e], t.terminated[:, e], t.truncated[:, e], final[:, e], v.last_value[e],
                GAMMA, n,
            )
            for e in range(E)
        ],
        1,
    )  # fmt: skip
    batch = grid(collected.batch)
    np.testing.assert_allclose(batch.target, target, rtol=1e-9)
    np.testing.assert_allclose(batch.advantage, target - v.value, rtol=1e-7, atol=1e-9)
    if n == 3 and bootstrap:
        check_gradient(
            objective, params, collected.batch,
            lambda theta: oracle.a2c_loss(
                theta, batch.observation, batch.action, target - v.value, target, t.mask, 0.5, 0.01
            ),
        )  # fmt: skip


@pytest.mark.parametrize(("bootstrap", "episodes"), [(True, "continue"), (False, "fresh")])
def test_actor_critic_with_residual_gradients(bootstrap, episodes):
    objective, collected, params, trajectory, values = setting(
        learners.actor_critic, residual_gradient=True, gae_lambda=LAMBDA, bootstrap_on_truncation=bootstrap,
        episodes=episodes, value_cost=0.8,
    )  # fmt: skip
    advantage, _ = oracle_advantages(trajectory, values, LAMBDA, bootstrap)
    t = jax.tree.map(np.asarray, trajectory)
    goes_on = ~t.terminated if bootstrap else ~(t.terminated | t.truncated)
    check_gradient(
        objective, params, collected.batch,
        lambda theta: oracle.residual_loss(
            theta, t.observation, t.action, advantage, t.reward, t.final_observation, goes_on, t.mask, GAMMA, 0.8, 0.01
        ),
    )  # fmt: skip


def test_a_ramp_is_a_straight_line():
    line = rl.ramp(0.5, 0.1, 4)
    values = [float(line(jnp.int32(n))) for n in (0, 1, 2, 4, 9)]
    np.testing.assert_allclose(values, [0.5, 0.4, 0.3, 0.1, 0.1], rtol=1e-6)
    assert rl.value_at(0.3, jnp.int32(7)) == 0.3
    # Costs follow the local steps of the agent.
    objective, collected, params, _, _ = setting(
        learners.actor_critic, entropy_cost=line, value_cost=rl.ramp(0.0, 1.0, 2)
    )
    losses = []
    for n in (0, 1, 2, 3):
        state = learners.PlayState((), jnp.int32(n))
        loss, parts = objective.loss(jax.random.key(0), params, state, collected.batch)
        losses.append(float(loss))
        price, weight = 0.5 - 0.1 * n, min(n / 2, 1.0)
        expected = parts["policy_loss"] + weight * parts["value_loss"] - price * parts["entropy"]
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert len(set(losses)) == 4


@pytest.mark.parametrize("returns", ["to_go", "total"])
@pytest.mark.parametrize("baseline", ["none", "average", "value"])
@pytest.mark.parametrize("normalize_by", ["steps", "episodes"])
def test_reinforce(returns, baseline, normalize_by):
    objective, collected, params, trajectory, values = setting(
        learners.reinforce, returns=returns, baseline=baseline, normalize_by=normalize_by, value_cost=0.0
    )
    t = jax.tree.map(np.asarray, trajectory)
    to_go = oracle.rewards_to_go(t.reward, t.terminated | t.truncated, GAMMA)
    score = to_go.copy() if returns == "to_go" else np.tile(to_go[:1], (T, 1))
    if baseline == "average":
        for step in range(T):
            if t.mask[step].any():
                score[step] -= score[step][t.mask[step]].mean()
    elif baseline == "value":
        score -= np.asarray(values.value)
    divisor = t.mask.sum() if normalize_by == "steps" else E
    batch = grid(collected.batch)
    assert not t.mask.all()  # fresh episodes: each ended before T
    check_gradient(
        objective, params, collected.batch,
        lambda theta: oracle.reinforce_loss(theta, batch.observation, batch.action, score, t.mask, divisor),
    )  # fmt: skip


@pytest.mark.parametrize("episodes", ["continue", "fresh"])
def test_reports_count_what_was_played(episodes):
    _, collected, _, trajectory, _ = setting(learners.actor_critic, episodes=episodes)
    ended = np.asarray(trajectory.terminated | trajectory.truncated)
    metrics = collected.metrics
    assert int(metrics["env_steps"].total) == int(np.asarray(trajectory.mask).sum()) == float(collected.num_samples)
    assert int(metrics["episodes"].total) == ended.sum()
    # CartPole pays one per step, so the return of a finished episode is its length.
    assert float(metrics["train_return_mean"].total) == float(metrics["episode_length"].total)
    if episodes == "fresh":
        assert ended.sum() == E
        assert float(metrics["episode_length"].total) == int(np.asarray(trajectory.mask).sum())
    else:
        assert int(np.asarray(trajectory.mask).sum()) == T * E
        assert collected.state.rollout.episode_length.shape == (E,)


@pytest.mark.parametrize(
    ("factory", "kwargs", "message"),
    [
        (learners.ppo, {"clip": 0.0}, r"clip must lie in \(0, inf\), got 0.0"),
        (learners.ppo, {"discount": 1.1}, r"discount must lie in \[0, 1\], got 1.1"),
        (learners.ppo, {"num_envs": 0}, "num_envs must be an integer >= 1"),
        (learners.actor_critic, {"normalization": "batch"}, "normalization must be one of"),
        (learners.actor_critic, {"gae_lambda": -0.1}, "gae_lambda must lie"),
        (learners.reinforce, {"num_envs": 1}, "baseline must not be 'average' with num_envs=1"),
        (learners.reinforce, {"baseline": "critic"}, "baseline must be one of 'none', 'average', 'value'"),
        (learners.actor_critic, {"num_steps_ahead": 0}, "num_steps_ahead must be an integer >= 1, got 0; 1 is the"),
        (
            learners.actor_critic,
            {"residual_gradient": True, "normalization": "returns"},
            "normalization must not be 'returns' with residual_gradient=True: .*use 'advantages' or 'none'",
        ),
        (
            learners.actor_critic,
            {"entropy_cost": rl.ramp(0.1, -0.1, 5)},
            r"entropy_cost must lie in \[0, inf\), got -0.1",
        ),
        (learners.a2c, {"value_cost": -1.0}, r"value_cost must lie in \[0, inf\), got -1.0"),
        (learners.ppo, {"surrogate": "trpo"}, "surrogate must be one of 'clip', 'kl', 'ratio', got 'trpo'"),
        (learners.ppo, {"kl_cost": 0.0}, r"kl_cost must lie in \(0, inf\), got 0.0"),
        (learners.ppo, {"kl_target": -1.0}, r"kl_target must lie in \(0, inf\), got -1.0"),
        (learners.reinforce, {"episodes": "new"}, "episodes must be one of 'continue', 'fresh'"),
    ],
)
def test_bad_input_is_refused(factory, kwargs, message):
    policy = policies.mlp_policy(envs.cartpole_family().env)
    with pytest.raises(ValueError, match=message):
        factory(policy, **kwargs)


def test_a_policy_is_needed():
    with pytest.raises(ValueError, match=r"policy must be a Policy, got 'mlp'; build one with mlp_policy"):
        learners.ppo("mlp")


def test_minibatches_must_divide_the_batch():
    policy = policies.mlp_policy(envs.cartpole_family().env)
    with pytest.raises(ValueError, match="num_minibatches must divide the 30 rows"):
        learners.local_training(
            learners.ppo(policy, num_envs=3, num_steps=10), learners.optimizer(optax.sgd, learning_rate=0.1),
            num_minibatches=4,
        )  # fmt: skip


def test_policies_must_fit_the_family():
    discrete, continuous = envs.cartpole_family(), envs.cartpole_family(continuous=True)
    for family, other in ((discrete, continuous), (continuous, discrete)):
        learner = learners.local_training(learners.ppo(policies.mlp_policy(other.env)), optax.sgd(0.1))
        with pytest.raises(ValueError, match=r"policy must fit .*: observations of shape \(4,\) and"):
            make_round(family, learner, aggregators.mean(), num_agents=2)
    pool = envs.pooled(discrete, 3)
    learner = learners.local_training(learners.ppo(policies.mlp_policy(pool.env), num_envs=2), optax.sgd(0.1))
    with pytest.raises(ValueError, match="num_envs must be 3, the pooled worlds of an agent, got 2"):
        make_round(pool, learner, aggregators.mean(), num_agents=1)


def test_total_returns_need_fresh_episodes():
    policy = policies.mlp_policy(envs.cartpole_family().env)
    with pytest.raises(ValueError, match="episodes must be 'fresh' with returns='total', got 'continue'"):
        learners.reinforce(policy, returns="total", episodes="continue")


@pytest.mark.parametrize("value", ["0.9", True])
def test_texts_and_flags_are_no_numbers(value):
    policy = policies.mlp_policy(envs.cartpole_family().env)
    with pytest.raises(ValueError, match="discount must lie in"):
        learners.ppo(policy, discount=value)
    with pytest.raises(ValueError, match="normalize_advantages must be True or False, got 'false'"):
        learners.ppo(policy, normalize_advantages="false")


@pytest.mark.parametrize("num_steps", [7, 45])
@pytest.mark.parametrize(
    "make", [learners.reinforce, learners.actor_critic, learners.ppo], ids=["reinforce", "actor_critic", "ppo"]
)
def test_the_loss_of_whole_episodes_adds_up_over_blocks(x64, make, num_steps):
    # Episodes of about twenty steps: blocks at the end are empty, and 7 and 45 do not divide into 20.
    family = envs.cartpole_family("packer-r")
    policy = policies.mlp_policy(family.env, hidden_sizes=(4,))
    objective = make(policy, num_envs=3, num_steps=num_steps, episodes="fresh")
    assert objective.additive
    params = objective.init(jax.random.key(0), family.env)
    physics = jax.tree.map(lambda x: x[0], family.sample(jax.random.key(1), 1))
    state = objective.init_local(jax.random.key(2), family.env, physics, params)
    collected = objective.collect(jax.random.key(3), family.env, physics, params, state)

    def gradient(batch):
        loss = jax.value_and_grad(lambda p: objective.loss(jax.random.key(4), p, collected.state, batch)[0])
        return loss(params)

    block, share = objective.by_block(collected.batch)
    parts = [gradient(block(jnp.int32(k))) for k in range(len(share))]
    total = jax.tree.map(lambda *xs: sum(s * x for s, x in zip(share, xs, strict=True)), *parts)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), total, gradient(collected.batch))
    np.testing.assert_allclose(np.sum(share), 1)
    # Real rows come first, so that no block but the last real one has others.
    size = block(jnp.int32(0)).mask.size
    assert size == 16  # whole vectors, and no fewer rows than a twentieth of all
    assert np.count_nonzero(share) == -(-int(collected.batch.mask.sum()) // size)
