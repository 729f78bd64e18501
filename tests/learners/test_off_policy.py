"""DQN, DDPG and SAC: losses, steps and slow copies against loops in float64; memory; worlds with known answers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, registry
from fedjax_rl.core import agent_map, tree
from fedjax_rl.rl import ramp
from tests.hlo import made_anew
from tests.oracles import q_learning as oracle
from tests.probes.two_states import Arms, TwoStates


GAMMA, RATE, STEP, H = 0.9, 0.25, 0.05, -0.7
# Time limits cut some episodes, falling poles end others.
DISCRETE = envs.cartpole_family("packer-r", max_steps_in_episode=7, theta_threshold=0.08)
CONTINUOUS = envs.cartpole_family("packer-r", max_steps_in_episode=7, theta_threshold=0.08, continuous=True)
PLAY = {"num_envs": 3, "num_steps": 8, "capacity": 72, "batch_size": 40, "learning_starts": 0}
LINEAR = {"hidden_sizes": (), "discount": GAMMA, "target_rate": RATE}


def first(objective, family):
    """One agent's physics, parameters far from symmetric, and state."""
    physics = tree.take(family.sample(jax.random.key(1), 1), 0)
    params = objective.init(jax.random.key(2), family.env)
    leaves, treedef = jax.tree.flatten(params)
    generator = np.random.default_rng(0)
    leaves = [x + 0.3 * jnp.asarray(generator.normal(size=x.shape)).astype(x.dtype) for x in leaves]
    params = jax.tree.unflatten(treedef, leaves)
    return physics, params, objective.init_local(jax.random.key(3), family.env, physics, params)


def plain(params):
    """As NumPy; one level less where there is one head only."""
    if isinstance(params, dict):
        return plain(params["head"]) if set(params) == {"head"} else {k: plain(v) for k, v in params.items()}
    return np.asarray(params)


def arrays(batch):
    names = {"s": "observation", "a": "action", "r": "reward", "terminal": "terminated", "s2": "next_observation"}
    return {k: np.asarray(getattr(batch, v)) for k, v in names.items()} | {"real": np.asarray(batch.mask)}


def descend(objective, family, losses_of, slow_of, num_steps=3):
    """Steps of plain SGD by the objective and by the oracle's slopes, each with a slow copy that follows.

    Args:
        losses_of: (theta, slow, batch, key of the loss) -> {part: function of that part}.
        slow_of: theta -> what the slow copy copies.
    """
    physics, params, state = first(objective, family)
    theta = plain(params)
    slow = slow_of(theta)
    ends = np.zeros(2)
    collect = jax.jit(objective.collect, static_argnums=1)
    gradient_of = jax.jit(jax.value_and_grad(lambda p, k, s, b: objective.loss(k, p, s, b)[0]))
    for i in range(num_steps):
        key, k_loss = jax.random.split(jax.random.fold_in(jax.random.key(5), i))
        collected = collect(key, family.env, physics, params, state)
        batch = arrays(collected.batch)
        ends += [batch["terminal"].sum(), (~batch["terminal"]).sum()]
        losses = losses_of(theta, slow, batch, k_loss)
        loss, gradient = gradient_of(params, k_loss, collected.state, collected.batch)
        np.testing.assert_allclose(loss, sum(f(theta[part]) for part, f in losses.items()), rtol=1e-9)
        slopes = {part: oracle.slope(f, theta[part]) for part, f in losses.items()}
        oracle.combine(lambda g, d: np.testing.assert_allclose(g, d, rtol=1e-5, atol=1e-7), plain(gradient), slopes)
        theta = oracle.combine(lambda x, d: x - STEP * d, theta, slopes)
        slow = oracle.combine(lambda old, new: (1 - RATE) * old + RATE * new, slow, slow_of(theta))
        params = jax.tree.map(lambda x, g: x - STEP * g, params, gradient)
        state = objective.after_step(params, collected.state, collected.batch)
        oracle.combine(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8), plain(params), theta)
        oracle.combine(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8), plain(state.target), slow)
        assert all(x.dtype == jnp.float64 for x in jax.tree.leaves((params, state.target)))
    assert ends.all()  # both kinds of rows were seen


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("huber", [0.3, math.inf])
def test_dqn(double, huber):
    make = learners.double_dqn if double else learners.dqn
    objective = make(DISCRETE.env, **PLAY, **LINEAR, huber=huber, epsilon=0.5, target_period=1)
    assert objective.double == double

    def losses(theta, slow, batch, key):
        def loss(net):
            nets = (net, slow["params"], batch, GAMMA, double, huber)
            return oracle.dqn_loss(*nets, y_theta=theta["params"])

        return {"params": loss}

    descend(objective, DISCRETE, losses, lambda theta: theta)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_critics", [1, 2])
def test_ddpg(num_critics):
    objective = learners.ddpg(CONTINUOUS.env, **PLAY, **LINEAR, num_critics=num_critics, exploration=1.0)
    half = np.ones(1)
    descend(
        objective, CONTINUOUS, lambda theta, slow, batch, key: oracle.ddpg_losses(theta, slow, batch, GAMMA, half),
        lambda theta: theta,
    )  # fmt: skip


@pytest.mark.usefixtures("x64")
def test_sac():
    objective = learners.sac(CONTINUOUS.env, **PLAY, **LINEAR, target_entropy=H, initial_temperature=0.5)

    def losses(theta, slow, batch, key):
        k_now, k_next = jax.random.split(key)
        now, following = (np.asarray(jax.random.normal(k, (40, 1))) for k in (k_now, k_next))
        return oracle.sac_losses(theta, slow, batch, GAMMA, np.ones(1), H, now, following)

    descend(objective, CONTINUOUS, losses, lambda theta: theta["critic"])


# ---------------------------------------------------------------- memory


def test_what_is_remembered_is_what_was_played():
    family = envs.cartpole_family("packer-r", max_steps_in_episode=6, theta_threshold=0.08)
    objective = learners.dqn(family.env, **PLAY, hidden_sizes=(), epsilon=0.5)
    physics, params, state = first(objective, family)
    collected = jax.jit(objective.collect, static_argnums=1)(jax.random.key(0), DISCRETE.env, physics, params, state)
    replay = collected.state.replay
    held = jax.tree.map(lambda x: np.asarray(x)[:24].reshape(8, 3, *x.shape[1:]), replay.rows)
    assert int(replay.size) == 24
    assert held.terminated.any()
    same = np.all(held.next_observation[:-1] == held.observation[1:], -1)
    ended = held.terminated.copy()
    length = np.zeros(3, int)
    for t in range(8):
        length = length + 1
        ended[t] |= length == 6
        length[ended[t]] = 0
    assert (ended & ~held.terminated).any()  # a time limit ends an episode without terminating it
    # What follows is the next observation, except across an end, where it is the last one of the old episode.
    np.testing.assert_array_equal(same, ~ended[:-1])
    assert collected.batch.mask.all()
    assert int(collected.metrics["env_steps"].total) == 24 == float(collected.num_samples)


def test_rows_that_are_not_real_do_not_count():
    objective = learners.dqn(DISCRETE.env, **PLAY, hidden_sizes=(), episodes="fresh")
    physics, params, state = first(objective, DISCRETE)
    collected = jax.jit(objective.collect, static_argnums=1)(jax.random.key(0), DISCRETE.env, physics, params, state)
    assert state.rollout == ()
    real = np.asarray(collected.state.replay.rows.mask)[:24]
    assert 0 < real.sum() < 24
    assert real.sum() == int(collected.metrics["env_steps"].total)
    broken = collected.batch._replace(
        reward=jnp.where(collected.batch.mask, collected.batch.reward, jnp.nan),
        next_observation=jnp.where(collected.batch.mask[:, None], collected.batch.next_observation, jnp.nan),
    )
    for batch in (collected.batch, broken):
        loss, gradient = jax.value_and_grad(lambda p, b=batch: objective.loss(jax.random.key(0), p, state, b)[0])(
            params
        )
        assert math.isfinite(loss)
        assert bool(tree.all_finite(gradient))


def local_training(objective, step_size=0.1, **kwargs):
    return learners.local_training(objective, learners.optimizer(optax.sgd, learning_rate=step_size), **kwargs)


MAKERS = {
    "dqn": (learners.dqn, DISCRETE), "double_dqn": (learners.double_dqn, DISCRETE),
    "ddpg": (learners.ddpg, CONTINUOUS), "sac": (learners.sac, CONTINUOUS),
}  # fmt: skip
every_objective = pytest.mark.parametrize("name", MAKERS)


@every_objective
def test_nothing_is_learned_before_there_is_enough(name):
    make, family = MAKERS[name]
    objective = make(family.env, **{**PLAY, "learning_starts": 48}, hidden_sizes=(4,))
    learner = local_training(objective)
    physics = first(objective, family)[0]
    shared = learner.init_shared(jax.random.key(0), family.env)
    local = learner.init_local(jax.random.key(1), family.env, physics, shared)
    update = jax.jit(learner.update, static_argnums=1)
    moved = []
    for i in range(3):  # 24 rows each
        local, _, metrics = update(jax.random.key(i), family.env, physics, shared, local, None)
        moved.append(float(metrics["drift"].total))
    assert moved[0] == 0
    assert moved[1] > 0
    assert moved[2] > 0
    assert int(local.objective.count) == 3


def test_the_slow_copy_moves_when_it_is_due():
    objective = learners.dqn(DISCRETE.env, **PLAY, hidden_sizes=(), target_period=3)  # target_rate=1 copies
    _, params, state = first(objective, DISCRETE)
    jax.tree.map(np.testing.assert_array_equal, state.target, params)
    other = jax.tree.map(lambda x: x + 1, params)
    for i in range(1, 7):
        new = tree.scale(float(i), other)
        before = state.target
        state = objective.after_step(new, state, None)
        jax.tree.map(np.testing.assert_array_equal, state.target, new if i % 3 == 0 else before)


def test_exploration_follows_its_schedule():
    objective = learners.dqn(DISCRETE.env, **PLAY, hidden_sizes=(), epsilon=ramp(1.0, 0.2, 4))
    physics, params, state = first(objective, DISCRETE)
    generator = np.random.default_rng(0)
    observation = jnp.asarray(generator.normal(size=(50, 4)), jnp.float32)
    noise = jnp.asarray(generator.uniform(size=50), jnp.float32)
    values = np.asarray(objective.policy.q_values(params, observation))
    for count, epsilon in [(0, 1.0), (1, 0.8), (3, 0.4), (4, 0.2), (100, 0.2)]:
        actions = objective.act(params, observation, noise, jnp.int32(count))
        wanted = [oracle.epsilon_greedy(q, epsilon, u) for q, u in zip(values, np.asarray(noise), strict=True)]
        np.testing.assert_array_equal(actions, wanted)
        collected = objective.collect(jax.random.key(0), DISCRETE.env, physics, params, state._replace(count=jnp.int32(count)))  # fmt: skip  # noqa: E501
        np.testing.assert_allclose(collected.metrics["epsilon"], epsilon, rtol=1e-6)


def test_noise_of_exploration_stays_in_the_box():
    objective = learners.ddpg(Arms(), **PLAY, hidden_sizes=(), exploration=0.5)
    params = objective.init(jax.random.key(0), Arms())
    noise = jnp.asarray([[-9.0], [0.0], [0.1], [9.0]])
    actions = np.asarray(objective.act(params, jnp.ones((4, 1)), noise, jnp.int32(0)))[:, 0]
    greedy = float(objective.policy.apply(params, jnp.ones((1,)))[0].mode()[0])
    np.testing.assert_allclose(actions, [-1, greedy, greedy + 0.1 * 0.5 * 2, 3], rtol=1e-6)


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_local_steps_never_copy_the_memory(chunk_size):
    objective = learners.dqn(DISCRETE.env, num_envs=2, num_steps=2, capacity=1028, batch_size=8, hidden_sizes=(4,))
    learner = local_training(objective, num_local_steps=13)
    env, agents = DISCRETE.env, 3

    def one(shared, key, physics, local):
        local, envelope, _ = learner.update(key, env, physics, shared, local, None)
        return local, envelope.payload

    shared = learner.init_shared(jax.random.key(0), env)
    physics = DISCRETE.sample(jax.random.key(1), agents)
    local = jax.vmap(lambda p: learner.init_local(jax.random.key(2), env, p, shared))(physics)
    run = jax.jit(lambda *xs: agent_map(one, shared, xs, chunk_size=chunk_size), donate_argnums=2)
    keys = jax.random.split(jax.random.key(3), agents)
    bad, writes = made_anew(run.lower(keys, physics, local).compile().as_text(), 13, 1028)
    assert bad == []
    assert writes == len(objective_rows(local))


def objective_rows(local):
    return jax.tree.leaves(local.objective.replay.rows)


# ---------------------------------------------------------------- known answers


def trained(objective, env, optimizer, num_steps, params=None):
    """One agent alone."""
    physics = env.default_params
    learner = learners.local_training(objective, optimizer, num_local_steps=num_steps, optimizer_state="keep")

    @jax.jit
    def run(key):
        shared = learner.init_shared(key, env)
        local = learner.init_local(key, env, physics, shared)
        _, envelope, metrics = learner.update(key, env, physics, shared, local, None)
        return tree.add(shared.params, envelope.payload.params), metrics

    return run(jax.random.key(0))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_q_learning_finds_the_values_of_two_states(ends, double):
    # Every episode is cut after 3 steps: were that an end, the values would be lower by 0.5^3 Q and more.
    env = TwoStates(ends)
    objective = learners.dqn(
        env, num_envs=2, num_steps=4, discount=0.5, capacity=400, batch_size=32, learning_starts=8, epsilon=1.0,
        target_rate=0.05, target_period=1, double=double, hidden_sizes=(),
    )  # fmt: skip
    params, _ = trained(objective, env, learners.optimizer(optax.adam, learning_rate=0.03), 1500)
    np.testing.assert_allclose(objective.policy.q_values(params, jnp.eye(2)), env.values(0.5), atol=0.05)


def test_ddpg_finds_the_best_arm():
    env = Arms()
    play = {"num_envs": 4, "num_steps": 2, "capacity": 2000, "batch_size": 64, "learning_starts": 64}
    objective = learners.ddpg(env, **play, hidden_sizes=(32,), activation="tanh", exploration=0.5, target_rate=0.05)
    params, _ = trained(objective, env, learners.optimizer(optax.adam, learning_rate=0.003), 1000)
    distribution, _ = objective.policy.apply(params, jnp.ones((1,)))
    np.testing.assert_allclose(distribution.mode(), [env.best], atol=0.3)


def test_sac_finds_the_best_arm_and_its_entropy():
    env = Arms()
    play = {"num_envs": 4, "num_steps": 2, "capacity": 2000, "batch_size": 64, "learning_starts": 64}
    objective = learners.sac(env, **play, hidden_sizes=(16,), target_rate=0.05, target_entropy=-1.0)
    params, _ = trained(objective, env, learners.optimizer(optax.adam, learning_rate=0.01), 1000)
    distribution, _ = objective.policy.apply(params, jnp.ones((4000, 1)))
    action, log_prob = distribution.sample_and_log_prob(objective.policy.noise(jax.random.key(9), (4000,)))
    assert abs(float(jnp.mean(action)) - env.best) < 0.25
    entropy = -float(jnp.mean(log_prob)) - math.log(2)  # in the box scaled from [-1, 3] to [-1, 1]
    assert abs(entropy + 1.0) < 0.3


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (learners.dqn, {"epsilon": 1.5}, r"epsilon must lie in \[0, 1\], got 1.5"),
        (learners.dqn, {"epsilon": ramp(1.0, -0.1, 3)}, r"epsilon must lie in \[0, 1\], got -0.1"),
        (learners.dqn, {"target_rate": 0.0}, r"target_rate must lie in \(0, 1\], got 0.0; 1 copies"),
        (learners.dqn, {"target_period": 0}, "target_period must be an integer >= 1, got 0"),
        (learners.dqn, {"capacity": 8, "learning_starts": 33}, r"learning_starts must lie in \[0, 32\], got 33"),
        (learners.dqn, {"huber": 0.0}, r"huber must lie in \(0, inf\), got 0.0"),
        (learners.dqn, {"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        (learners.dqn, {"episodes": "new"}, "episodes must be one of 'continue', 'fresh', got 'new'"),
        (learners.double_dqn, {"discount": 2.0}, r"discount must lie in \[0, 1\], got 2.0"),
        (learners.ddpg, {"exploration": -1.0}, r"exploration must lie in \[0, inf\), got -1.0"),
        (learners.sac, {"initial_temperature": 0.0}, r"initial_temperature must lie in \(0, inf\), got 0.0"),
        (learners.sac, {"num_critics": 0}, "num_critics must be an integer >= 1, got 0"),
    ],
)
def test_bad_input_is_refused(make, kwargs, message):
    env = DISCRETE.env if make in (learners.dqn, learners.double_dqn) else CONTINUOUS.env
    with pytest.raises(ValueError, match=message):
        make(env, **kwargs)


def test_the_actions_must_fit():
    with pytest.raises(ValueError, match=r"env must have discrete actions .* use box_policy"):
        learners.dqn(CONTINUOUS.env)
    for make in (learners.sac, learners.ddpg):
        with pytest.raises(ValueError, match="env must have a box of actions, got the discrete ones"):
            make(DISCRETE.env)


@every_objective
def test_the_capacity_is_whole_blocks(name):
    make, family = MAKERS[name]
    objective = registry.get("objectives", name)(family.env, num_envs=3, num_steps=5, capacity=100, learning_starts=5)
    assert objective.play.capacity == 105
    assert type(objective) is type(make(family.env))


def test_the_world_must_be_the_one_the_networks_are_for():
    cart, box = envs.cartpole_family(), envs.cartpole_family(continuous=True)
    for objective, family in (
        (learners.dqn(cart.env), box),
        (learners.sac(box.env), cart),
        (learners.ddpg(box.env), cart),
    ):
        learner = learners.local_training(objective, optax.sgd(0.1))
        with pytest.raises(ValueError, match=r"policy must fit .*: observations of shape"):
            make_round(family, learner, aggregators.mean(), num_agents=2)
