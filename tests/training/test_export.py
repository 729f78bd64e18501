"""Exported policies: the file holds everything that is needed to act."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.envs import CartPole
from fedjax_rl.policies import gru_policy, mlp_policy
from fedjax_rl.training import load_policy, save_policy


ENDINGS = [".npz", ".safetensors"]
POLICY = mlp_policy(CartPole(continuous=True), hidden_sizes=(8, 4), activation="relu", shared_trunk=False, squash=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_policy_comes_back(tmp_path: Path, ending: str) -> None:
    params = POLICY.init(jax.random.key(0))
    path = save_policy(tmp_path / f"policy{ending}", POLICY, params)
    policy, loaded = load_policy(path)
    assert policy == POLICY
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    observation = jnp.ones((3, 4))
    np.testing.assert_array_equal(policy.apply(loaded, observation)[1], POLICY.apply(params, observation)[1])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_policy_with_memory_comes_back(tmp_path: Path, ending: str) -> None:
    remembering = gru_policy(CartPole(), (8,), 4, shared_trunk=False)
    params = remembering.init(jax.random.key(0))
    policy, loaded = load_policy(save_policy(tmp_path / f"policy{ending}", remembering, params))
    assert policy == remembering
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize("ending", ENDINGS)
def test_models_of_many_agents_come_back(tmp_path: Path, ending: str) -> None:
    params = jax.vmap(POLICY.init)(jax.random.split(jax.random.key(0), 5))
    path = save_policy(tmp_path / f"policy{ending}", POLICY, params, num_agents=5)
    jax.tree.map(np.testing.assert_array_equal, load_policy(path)[1], params)
    with pytest.raises(ValueError, match="leading axis of num_agents = 4"):
        save_policy(path, POLICY, params, num_agents=4)


def test_the_arrays_can_be_read_without_this_package(tmp_path: Path) -> None:
    params = POLICY.init(jax.random.key(0))
    with np.load(save_policy(tmp_path / "policy.npz", POLICY, params)) as archive:
        np.testing.assert_array_equal(
            archive["params/actor_trunk_0/kernel"], params["params"]["actor_trunk_0"]["kernel"]
        )
        assert '"activation": "relu"' in str(archive["__meta__"])


def test_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no policy file"):
        load_policy(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz or \.safetensors"):
        save_policy(tmp_path / "policy.pkl", POLICY, POLICY.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="nested dictionaries"):
        save_policy(tmp_path / "policy.npz", POLICY, [jnp.ones(2)])
    for ending in ENDINGS:
        path = tmp_path / f"bad{ending}"
        path.write_bytes(b"nonsense and more nonsense")
        with pytest.raises(ValueError, match="not a policy file"):
            load_policy(path)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="not a policy file of this package"):
        load_policy(tmp_path / "other.npz")


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):
            return (Path(tmp_path / "executed").touch, ())

    np.savez(tmp_path / "attack.npz", __meta__=np.array(Attack(), dtype=object))
    with pytest.raises(ValueError, match="not a policy file"):
        load_policy(tmp_path / "attack.npz")
    assert not (tmp_path / "executed").exists()
