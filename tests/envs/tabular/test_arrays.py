"""MDPs brought along as arrays: files, shapes, and what is wrong with bad ones."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import EpisodicMDP, TabularMDP, family_from_arrays, stacked_family


KEY = jax.random.key(0)
DATA = Path(__file__).parents[2] / "data"
RNG = np.random.default_rng(0)
KERNEL, REWARD = RNG.dirichlet(np.ones(3), (4, 3, 2)), RNG.normal(size=(4, 3, 2))


def given(**changes):
    """Four agents, three states, two actions, with some arrays changed; None leaves one out."""
    arrays = {"kernel": KERNEL, "reward": REWARD, **changes}
    return {name: array for name, array in arrays.items() if array is not None}


def at(array, index, number):
    """The array with one number changed."""
    array = array.copy()
    array[index] = number
    return array


def test_arrays_are_kept_as_they_are(x64):
    family = family_from_arrays(given(gamma=0.9), max_steps_in_episode=17)
    assert family.env == TabularMDP(3, 2)
    assert (family.num_agents, family.num_unseen, family.discount) == (4, 0, 0.9)
    for physics in (family.sample(KEY, 4), jax.jit(lambda f: f.sample(KEY, 4))(family)):
        np.testing.assert_array_equal(physics.kernel, KERNEL)
        np.testing.assert_array_equal(physics.reward, REWARD)
        np.testing.assert_allclose(physics.initial, 1 / 3)
        np.testing.assert_array_equal(physics.max_steps_in_episode, [17] * 4)
    assert family_from_arrays(given()).discount is None


@pytest.mark.parametrize("initial", [np.array([0.0, 0.25, 0.75]), np.eye(3)[[0, 1, 2, 0]]])
def test_initial_law_of_all_or_of_each(initial):
    physics = family_from_arrays(given(initial=initial)).sample(KEY, 4)
    np.testing.assert_array_equal(physics.initial, np.broadcast_to(initial, (4, 3)))


def test_a_file_is_read(tmp_path):
    path = tmp_path / "worlds.npz"
    np.savez(path, **given(gamma=0.95))
    for source in (path, str(path)):
        physics = family_from_arrays(source).sample(KEY, 4)
        np.testing.assert_array_equal(physics.kernel, KERNEL.astype(np.float32))
        assert physics.kernel.dtype == jnp.float32


def test_published_files():
    family = family_from_arrays(DATA / "conflicting_mdp_7x4.npz")
    assert (family.env, family.num_agents, family.discount) == (TabularMDP(7, 4, branching=4), 2, 0.99)
    with np.load(DATA / "scafflsa_garnet_heterogeneous_n100.npz") as file:
        chains = {"kernel": file["kernel"][:, :, None], "reward": file["reward"][:, :, None], "gamma": 0.95}
        assert family_from_arrays(chains).env == TabularMDP(30, 1, branching=2)
        with pytest.raises(ValueError, match=r"'features' is none of kernel, reward, initial, gamma"):
            family_from_arrays({**chains, "features": file["features"]})


def test_finite_horizon():
    kernel, reward = RNG.dirichlet(np.ones(3), (2, 5, 3, 2)), RNG.normal(size=(2, 5, 3, 2))
    family = family_from_arrays({"kernel": kernel, "reward": reward})
    assert family.env == EpisodicMDP(5, 3, 2)
    physics = family.sample(KEY, 2)
    np.testing.assert_array_equal(physics.max_steps_in_episode, [5, 5])
    assert physics.kernel.shape == (2, 5, 3, 2, 3)


def test_stacked():
    family = stacked_family(family_from_arrays(given()), 2)
    assert family.env.observation_space().shape == (2 * 3 + 2,)
    assert family.sample(KEY, 4).kernel.shape == (4, 3, 2, 3)


BAD = [
    (given(kernel=None), "kernel is missing, there are reward"),
    (given(reward=None), "reward is missing, there are kernel"),
    ({}, "kernel is missing, there are no arrays"),
    (given(rewards=REWARD), "'rewards' is none of kernel, reward, initial, gamma"),
    (given(kernel=KERNEL[0]), r"kernel must have shape \[N, S, A, S\] or \[N, H, S, A, S\], got \[3, 2, 3\]; one MDP"),
    (given(kernel=KERNEL[..., :2]), r"kernel must have shape \[..., S, A, S\], got \[4, 3, 2, 2\]"),
    (given(kernel=KERNEL[:0], reward=REWARD[:0]), r"kernel must hold an MDP, got shape \[0, 3, 2, 3\]"),
    (given(reward=REWARD[:, :, 0]), r"reward must have shape \[4, 3, 2\], .* got \[4, 3\]; give the mean"),
    (given(initial=np.ones(2) / 2), r"initial must have shape \[3\] or \[4, 3\], got \[2\]"),
    (given(kernel=at(KERNEL, (2, 1, 0), 0.5)), r"kernel\[2, 1, 0\] must sum to one, but sums to 1.5 \(1 such\)"),
    (
        given(kernel=at(KERNEL, (3, 0, 1), (-0.5, 1, 0.5))),
        r"kernel\[3, 0, 1, 0\] must be a probability, but is -0.5 \(1 such\)",
    ),
    (given(kernel=at(KERNEL, (0, 0, 0, 0), np.nan)), r"kernel\[0, 0, 0, 0\] must be finite, but is nan \(1 such\)"),
    (given(reward=at(REWARD, (1, 2, 0), np.inf)), r"reward\[1, 2, 0\] must be finite, but is inf"),
    (given(initial=np.array([0.5, 0.5, 0.5])), r"initial must sum to one, but sums to 1.5"),
    (given(initial=np.array([1.5, -0.5, 0.0])), r"initial\[1\] must be a probability, but is -0.5"),
    (given(reward=REWARD.astype(complex)), "reward must hold real numbers, got complex128"),
    (given(gamma=1.5), r"gamma must be one number in \[0, 1\]"),
    (given(gamma=np.array([0.9, 0.9])), r"gamma must be one number in \[0, 1\]"),
    (7, "path_or_arrays must be the path of an npz file or a mapping, got int"),
]


@pytest.mark.parametrize(("source", "words"), BAD)
def test_refusals(source, words):
    with pytest.raises(ValueError, match=words):
        family_from_arrays(source)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        family_from_arrays(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("kernel")
    np.save(tmp_path / "one.npy", KERNEL)
    np.savez(tmp_path / "objects.npz", kernel=np.array([None]), reward=REWARD)
    for name in ("text.npz", "one.npy", "objects.npz"):
        with pytest.raises(ValueError, match=f"{name}: not an npz file of arrays"):
            family_from_arrays(tmp_path / name)
    np.savez(tmp_path / "rows.npz", **given(kernel=at(KERNEL, (2, 1, 0), 0.5)))
    with pytest.raises(ValueError, match=r"rows.npz: kernel\[2, 1, 0\] must sum to one"):
        family_from_arrays(tmp_path / "rows.npz")


def test_numbers_of_agents_are_checked():
    family = family_from_arrays(given())
    with pytest.raises(ValueError, match="num_agents must be 4, the number of MDPs given, got 5"):
        family.sample(KEY, 5)
    with pytest.raises(ValueError, match="leave none unseen"):
        family.sample_unseen(KEY, 1)
    with pytest.raises(ValueError, match="max_steps_in_episode must be an integer >= 1, got 0"):
        family_from_arrays(given(), max_steps_in_episode=0)
