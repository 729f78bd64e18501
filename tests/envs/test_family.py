"""What physics agents get: laws, keys, ties, pooling, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import (
    CartPole,
    CartPoleParams,
    MountainCarContinuous,
    PooledEnvironment,
    UniformFamily,
    cartpole_family,
    gymnax_family,
    physics_table,
    pooled,
    stacked_family,
    uniform_family,
)


NUM = 20_000
FAMILIES = {
    "nominal": cartpole_family(),
    "carl": cartpole_family("carl"),
    "packer-e": cartpole_family("packer-e", actuator_polarity=(-1, 1), max_steps_in_episode=(100, 200)),
    "pendulum": gymnax_family("Pendulum-v1", spread=0.2),
    "acrobot": gymnax_family("Acrobot-v1", "jin"),
    "stacked": stacked_family(cartpole_family("packer-r", actuator_polarity=(-1, 1)), 3),
}
KEY = jax.random.key(0)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_physics_of_an_agent_depends_on_its_id_only(family):
    many = family.sample(KEY, 12)
    for num_agents in (1, 5):
        few = family.sample(KEY, num_agents)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[: len(b)], b), many, few)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_physics_has_one_leaf_per_parameter_and_agent(family):
    nominal, physics = family.env.default_params, family.sample(KEY, 3)
    assert type(physics) is type(nominal)
    for expected, leaf in zip(jax.tree.leaves(nominal), jax.tree.leaves(physics), strict=True):
        assert leaf.shape == (3, *np.shape(expected))
        assert leaf.dtype == jnp.result_type(expected)
        assert not leaf.weak_type


def test_a_parameter_does_not_depend_on_the_others_that_vary():
    one = cartpole_family(masspole=(0.1, 0.2)).sample(KEY, 10)
    two = cartpole_family(masspole=(0.1, 0.2), gravity=(8, 10), tau=(0.01, 0.02)).sample(KEY, 10)
    np.testing.assert_array_equal(one.masspole, two.masspole)
    assert np.all(two.gravity != 9.8)


def test_parameters_are_independent():
    # n = 20 000: a correlation is normal with variance 1 / n, beyond 5 standard errors with probability 6e-7 each.
    table = physics_table(cartpole_family("carl").sample(KEY, NUM))
    varied = np.stack([table[name] for name in ("masscart", "masspole", "half_length", "force_mag", "tau")])
    correlations = np.corrcoef(varied)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(NUM)


def check_uniform(samples, *intervals):
    """Compares with the law on the union of intervals: F at the ends of the intervals, and uniform between them.

    n = 20 000: Kolmogorov-Smirnov, sup |F_n - F| > 2.8 / sqrt(n) with probability at most 2 exp(-2 * 2.8^2) = 3e-7.
    The extreme 0.1 % at both ends is missed with probability (1 - 0.001)^n = 2e-9.
    """
    samples = np.sort(np.asarray(samples, np.float64))
    lengths = np.array([high - low for low, high in intervals])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    folded = np.full(len(samples), np.nan)
    for (low, high), start in zip(intervals, starts, strict=False):
        inside = (samples >= low - 1e-6) & (samples <= high + 1e-6)
        folded[inside] = start + samples[inside] - low
    assert not np.isnan(folded).any()
    uniform = folded / starts[-1]
    assert np.abs(uniform - np.arange(1, len(uniform) + 1) / len(uniform)).max() < 2.8 / np.sqrt(len(uniform))
    assert uniform.min() < 0.001
    assert uniform.max() > 0.999


@pytest.mark.parametrize(
    ("physics_set", "laws"),
    [
        ("jin", {"half_length": [(0.1, 0.9)]}),
        ("packer-r", {"force_mag": [(5, 15)], "half_length": [(0.25, 0.75)], "masspole": [(0.05, 0.5)]}),
        (
            "packer-e",
            {
                "force_mag": [(1, 5), (15, 20)],
                "half_length": [(0.05, 0.25), (0.75, 1)],
                "masspole": [(0.01, 0.05), (0.5, 1)],
            },
        ),
        (
            "carl",
            {
                "masscart": [(0.1, 10)],
                "masspole": [(0.01, 1)],
                "half_length": [(0.05, 5)],
                "force_mag": [(1, 100)],
                "tau": [(0.002, 0.2)],
            },
        ),
    ],
)
def test_published_cartpole_sets(physics_set, laws):
    table = physics_table(cartpole_family(physics_set).sample(KEY, NUM))
    for name, value in CartPoleParams()._asdict().items():
        if name in laws:
            check_uniform(table[name], *laws[name])
        else:
            np.testing.assert_allclose(table[name], value, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "physics_set", "laws"),
    [
        ("Pendulum-v1", "packer-r", {"m": [(0.75, 1.25)], "l": [(0.75, 1.25)]}),
        ("Pendulum-v1", "packer-e", {"m": [(0.5, 0.75), (1.25, 1.5)], "l": [(0.5, 0.75), (1.25, 1.5)]}),
        ("MountainCar-v0", "packer-r", {"force": [(0.0005, 0.005)], "gravity": [(0.001, 0.005)]}),
        (
            "Acrobot-v1",
            "packer-r",
            {"link_mass_1": [(0.75, 1.25)], "link_length_1": [(0.75, 1.25)], "link_moi": [(0.75, 1.25)]},
        ),
        ("Acrobot-v1", "jin", {"link_length_1": [(0.5, 1.5)]}),
    ],
)
def test_published_gymnax_sets(name, physics_set, laws):
    table = physics_table(gymnax_family(name, physics_set).sample(KEY, NUM))
    nominal = physics_table(gymnax_family(name).sample(KEY, NUM))
    tied = {"link_mass_2": 1.0, "link_com_pos_1": 0.5}
    for field, column in table.items():
        if field in laws:
            check_uniform(column, *laws[field])
        elif field not in tied:
            np.testing.assert_array_equal(column, nominal[field])
    if name == "Acrobot-v1":
        packer = physics_set == "packer-r"
        np.testing.assert_array_equal(table["link_mass_2"], table["link_mass_1"])
        com = nominal["link_com_pos_1"] if packer else 0.5 * table["link_length_1"]
        np.testing.assert_allclose(table["link_com_pos_1"], com, rtol=1e-6)


def test_spread():
    table = physics_table(gymnax_family("acrobot", spread=0.2, link_moi=2.0).sample(KEY, NUM))
    for name in ("link_length_1", "link_mass_1", "link_mass_2"):
        check_uniform(table[name], (0.8, 1.2))
    for name in ("link_com_pos_1", "link_com_pos_2"):
        check_uniform(table[name], (0.4, 0.6))
    np.testing.assert_array_equal(table["link_moi"], 2.0)
    np.testing.assert_array_equal(table["link_length_2"], 1.0)
    np.testing.assert_allclose(table["dt"], 0.2)
    power = physics_table(gymnax_family("MountainCarContinuous", spread=0.5).sample(KEY, NUM))["power"]
    check_uniform(power * 1000, (0.75, 2.25))


def test_a_range_replaces_the_set_and_unties():
    family = gymnax_family("Acrobot-v1", "packer-r", link_mass_2=3.0)
    physics = family.sample(KEY, 5)
    np.testing.assert_array_equal(physics.link_mass_2, 3.0)
    assert np.all(physics.link_mass_1 < 1.25)
    np.testing.assert_array_equal(cartpole_family("packer-r", force_mag=7.0).sample(KEY, 3).force_mag, 7.0)


@pytest.mark.parametrize(("values", "share"), [((-1, 1), 0.5), ((-1, 1, 1, 1), 0.25), ((-1.0,), 1.0), (-1, 1.0)])
def test_actuator_polarity(values, share):
    # n = 20 000: the share of reversed motors is beyond 5 standard errors with probability 6e-7.
    polarity = cartpole_family(actuator_polarity=values).sample(KEY, NUM).actuator_polarity
    assert set(np.unique(polarity)) <= {-1.0, 1.0}
    assert abs(float(jnp.mean(polarity == -1)) - share) <= 5 * np.sqrt(share * (1 - share) / NUM)


def test_integers_take_both_ends():
    # n = 20 000: each of the 4 values has probability 1/4, beyond 5 standard errors with probability 6e-7.
    limits = cartpole_family(max_steps_in_episode=((100, 102), (200, 200))).sample(KEY, NUM).max_steps_in_episode
    assert limits.dtype == jnp.int32
    values, counts = np.unique(limits, return_counts=True)
    assert values.tolist() == [100, 101, 102, 200]
    assert np.abs(counts / NUM - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / NUM)


def test_set_point_switches_the_reward():
    family = cartpole_family("jin", set_point=(-1.5, 1.5), continuous=True)
    assert family.env == CartPole(continuous=True, reward="set_point")
    check_uniform(family.sample(KEY, NUM).set_point, (-1.5, 1.5))
    assert cartpole_family("jin").env == CartPole()


def test_unseen_agents_are_others_of_the_same_law():
    family = cartpole_family("packer-r")
    unseen = family.sample_unseen(KEY, NUM)
    check_uniform(unseen.half_length, (0.25, 0.75))
    assert not set(np.asarray(unseen.half_length[:100]).tolist()) & set(
        np.asarray(family.sample(KEY, 100).half_length).tolist()
    )


def test_bounds_are_leaves():
    traces = []

    @jax.jit
    def sample(family, key):
        traces.append(1)
        return family.sample(key, 4).half_length

    low, high = (sample(cartpole_family(half_length=(c, c + 0.1)), KEY) for c in (0.1, 0.8))
    assert len(traces) == 1
    np.testing.assert_allclose(high - low, 0.7, atol=1e-6)
    # A sweep is a vmap over the component, and tracers pass the checks of the factory.
    swept = jax.vmap(lambda top: cartpole_family(half_length=(0.1, top)).sample(KEY, 4).half_length)(
        jnp.array([0.2, 0.3])
    )
    np.testing.assert_allclose(swept[1] - 0.1, 2 * (swept[0] - 0.1), rtol=1e-5)


def test_double_precision(x64):
    family = cartpole_family("packer-r", gravity=9.81)
    physics = family.sample(KEY, 3)
    assert physics.gravity.dtype == physics.half_length.dtype == jnp.float64
    assert physics.actuator_polarity.dtype == jnp.float64
    np.testing.assert_array_equal(physics.gravity, 9.81)
    np.testing.assert_array_equal(jax.jit(lambda f: f.sample(KEY, 3))(family).gravity, 9.81)


def test_physics_table():
    table = physics_table(gymnax_family("Acrobot-v1").sample(KEY, 3))
    assert "available_torque" not in table  # three numbers an agent
    assert table["link_moi"].shape == (3,)
    assert list(physics_table(cartpole_family().sample(KEY, 2))) == list(CartPoleParams._fields)
    assert "dense_reward" not in physics_table(gymnax_family("PointRobot").sample(KEY, 2))  # a flag


def test_pooled_copies_of_the_same_worlds():
    single = cartpole_family("packer-r")
    physics = pooled(single, 6, copies=2).sample(KEY, 1)
    expected = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), 2)[None], single.sample(KEY, 3))
    jax.tree.map(np.testing.assert_array_equal, physics, expected)
    with pytest.raises(ValueError, match="num_envs must be a multiple of copies=4, got 6"):
        pooled(single, 6, copies=4)
    with pytest.raises(ValueError, match="copies must be an integer >= 1, got 0"):
        pooled(single, 6, copies=0)


def test_pooled():
    single = cartpole_family("packer-r", actuator_polarity=(-1, 1))
    family = pooled(single, 6)
    assert family.num_agents == 1
    assert family.base is single
    assert family.env == PooledEnvironment(CartPole())
    assert family.env.physics_axis == 0 and single.env.physics_axis is None
    physics = family.sample(KEY, 1)
    assert all(leaf.shape == (1, 6) for leaf in jax.tree.leaves(physics))
    # The pooled agent plays the very worlds that six agents would have had.
    jax.tree.map(np.testing.assert_array_equal, family.worlds(physics), single.sample(KEY, 6))
    jax.tree.map(
        np.testing.assert_array_equal, family.worlds(family.sample_unseen(KEY, 1)), single.sample_unseen(KEY, 6)
    )
    assert single.worlds(physics) is physics
    assert physics_table(physics) == {}
    # Every environment steps with its own physics.
    env, state = family.env, single.env.reset(KEY)[1]
    one = jax.tree.map(lambda leaf: leaf[0], physics)
    step = jax.vmap(lambda params: env.step(KEY, state, jnp.int32(1), params)[0])
    assert len(np.unique(np.asarray(step(one)), axis=0)) == 6
    assert env.num_actions == 2 and env.observation_space().shape == (4,)
    np.testing.assert_array_equal(env.reset(KEY)[0], single.env.reset(KEY)[0])


def test_uniform_family_of_an_own_environment():
    family = uniform_family(MountainCarContinuous(), power=(0.001, 0.002), ties=(("gravity", "power", 2.0),))
    assert isinstance(family, UniformFamily)
    physics = family.sample(KEY, 4)
    np.testing.assert_allclose(physics.gravity, 2 * physics.power)


BAD = [
    (lambda: cartpole_family("packer"), ("physics_set", "'packer'", "packer-r")),
    (lambda: cartpole_family(force=(5, 15)), ("force is not a parameter", "did you mean 'force_mag'")),
    (lambda: cartpole_family(length=0.5), ("length is not", "did you mean 'half_length'")),
    (lambda: cartpole_family(masspole=(-0.1, 0.2)), ("masspole must be > 0", "-0.1")),
    (lambda: cartpole_family(half_length=0), ("half_length must be > 0, got 0",)),
    (lambda: cartpole_family(tau=(0.0, 0.1)), ("tau must be > 0",)),
    (lambda: cartpole_family(gravity=float("nan")), ("gravity must be >= 0", "nan")),
    (lambda: cartpole_family(set_point=float("inf")), ("set_point must be a finite number", "inf")),
    (lambda: cartpole_family(half_length=(0.9, 0.1)), ("low <= high", "(0.9, 0.1)")),
    (lambda: cartpole_family(half_length=((0.1, 0.5), (0.4, 0.9))), ("do not overlap",)),
    (lambda: cartpole_family(half_length=((0.1, 0.1), (0.4, 0.9))), ("a point would never be drawn",)),
    (lambda: cartpole_family(half_length=(0.1, 0.2, 0.3)), ("half_length must be a number, (low, high)", "0.3")),
    (lambda: cartpole_family(half_length=()), ("half_length must be a number", "()")),
    (lambda: cartpole_family(half_length="0.5"), ("half_length must be a number", "'0.5'")),
    (lambda: cartpole_family(half_length=None), ("half_length must be a number", "None")),
    (lambda: cartpole_family(half_length=True), ("half_length must be a number", "True")),
    (lambda: cartpole_family(actuator_polarity=(0, 1)), ("actuator_polarity must be one of -1, 1", "got 0")),
    (lambda: cartpole_family(force_mag=(-5, 5)), ("force_mag must be > 0", "actuator_polarity=-1")),
    (lambda: cartpole_family(theta_threshold=12), ("theta_threshold must be in (0, 3.14159]", "radians")),
    (lambda: cartpole_family(max_steps_in_episode=99.5), ("max_steps_in_episode must be an integer >= 1", "99.5")),
    (lambda: cartpole_family(max_steps_in_episode=0), ("max_steps_in_episode must be an integer >= 1",)),
    (lambda: gymnax_family("CartPole-v1"), ("stale", "cartpole_family")),
    (lambda: gymnax_family("Pendulum-v1", "jin"), ("physics_set", "packer-e", "Pendulum-v1")),
    (lambda: gymnax_family("Pendulum-v1", spread=1.0), ("spread must lie in [0, 1)", "1.0")),
    (lambda: gymnax_family("Pendulum-v1", "packer-r", spread=0.1), ("spread must be 0", "packer-r")),
    (lambda: gymnax_family("FourRooms-misc", spread=0.1), ("spread must be 0 for FourRooms-misc", "fail_prob=")),
    (lambda: gymnax_family("FourRooms-misc", fail_prob=(0.5, 1.5)), ("fail_prob must be in [0, 1]", "1.5")),
    (lambda: gymnax_family("PointRobot", dense_reward=1), ("dense_reward must be True or False",)),
    (lambda: gymnax_family("Acrobot", link_length_2=(0.5, 1.5)), ("link_length_2", "renderer", "link_com_pos_2")),
    (lambda: gymnax_family("SimpleBandit", optimal_return=2.0), ("optimal_return", "nothing an agent can notice")),
    (lambda: gymnax_family("Acrobot", available_torque=(-2, 2)), ("available_torque is an array",)),
    (lambda: pooled(cartpole_family()), ("num_envs must be given",)),
    (lambda: pooled(cartpole_family(), 0), ("num_envs must be an integer >= 1",)),
    (lambda: pooled(pooled(cartpole_family(), 3), 2), ("pooled already",)),
    (lambda: pooled(cartpole_family(), 3).sample(KEY, 2), ("num_agents must be 1", "got 2", "num_envs")),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_refusals(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
