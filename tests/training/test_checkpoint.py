"""Checkpoints: every leaf comes back bit for bit, foreign and damaged ones are refused, the last ones are kept."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl.training._checkpoint import Checkpoints


class State(NamedTuple):
    key: jax.Array
    tree: dict[str, Any]
    empty: tuple
    round: jax.Array


def state(value: float = 1.0) -> State:
    keys = jax.random.split(jax.random.key(1), 3)
    some = [jnp.arange(4, dtype=jnp.uint8), keys]
    leaves = {"a/b": jnp.full((2, 3), value, jnp.float32), "list": some, "nan": jnp.float32(jnp.nan)}
    return State(jax.random.key(3), leaves, (), jnp.int32(7))


def bits(tree: Any) -> list[bytes]:
    def data(leaf: jax.Array) -> bytes:
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if typed else leaf).tobytes()

    return [data(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for num_rounds in (3, 5, 10):
        checkpoints.save(num_rounds, state(num_rounds), {"env_steps": [2**60], "seconds": 0.25})
    checkpoints.close()
    return tmp_path / "checkpoints"


def test_everything_comes_back(path: Path) -> None:
    checkpoints = Checkpoints(path)
    assert checkpoints.latest == 10
    assert checkpoints.counters() == {"env_steps": [2**60], "seconds": 0.25}
    restored = checkpoints.restore(jax.eval_shape(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state())
    assert bits(restored) == bits(state(10.0))
    assert restored.key.dtype == state().key.dtype


def test_rows_of_nobody_do_not_count(tmp_path: Path) -> None:
    def carried(num_rows: int, value: float = 0.0) -> dict[str, Any]:
        keys = jax.random.split(jax.random.key(1), 3)
        return {"a": jnp.full((num_rows, 2), value), "keys": jnp.concatenate([keys, keys])[:num_rows]}

    def like(num_rows: int) -> Any:
        return jax.eval_shape(lambda: carried(num_rows))

    def content(state: Any) -> Any:
        return jax.tree.map(lambda x: x[:3], state)

    Checkpoints(tmp_path, content=content).save(1, carried(4, 7.0), {})
    checkpoints = Checkpoints(tmp_path, content=content)
    for num_rows in (3, 4, 6):
        restored = checkpoints.restore(like(num_rows))
        assert {len(x) for x in jax.tree.leaves(restored)} == {num_rows}
        assert bits(content(restored)) == bits(carried(3, 7.0))
    with pytest.raises(ValueError, match=r"'a'\] is float32\[3, 2\] there and float32\[2, 2\] here"):
        checkpoints.restore(like(2))
    with pytest.raises(ValueError, match=r"float32\[3, 2\] there and float32\[4, 2\] here"):
        Checkpoints(tmp_path).restore(like(4))


def test_only_the_last_ones_are_kept(path: Path) -> None:
    assert sorted(int(folder.name) for folder in path.iterdir()) == [5, 10]


def test_saving_a_round_twice_changes_nothing(path: Path) -> None:
    checkpoints = Checkpoints(path)
    checkpoints.save(10, state(99.0), {})
    assert bits(checkpoints.restore(state())) == bits(state(10.0))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda s: s._replace(round=jnp.zeros(2, jnp.int32)), r"round is int32\[\] there and int32\[2\] here"),
        (lambda s: s._replace(round=jnp.float32(0)), r"round is int32\[\] there and float32\[\] here"),
        (lambda s: s._replace(empty=(jnp.zeros(2),)), "is only here"),
        (lambda s: s._replace(tree={}), "is only (here|there)"),
    ],
)
def test_a_foreign_checkpoint_is_refused(path: Path, other: Any, difference: str) -> None:
    with pytest.raises(ValueError, match=f"another configuration, or another version wrote it: .*{difference}"):
        Checkpoints(path).restore(other(state()))


def test_no_checkpoint_is_told(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest is None
    with pytest.raises(ValueError, match="there is no checkpoint"):
        checkpoints.restore(state())
    with pytest.raises(ValueError, match="there is no checkpoint"):
        checkpoints.counters()


def test_a_damaged_checkpoint_is_told(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"checkpoint of round 10 .* cannot be read"):
        Checkpoints(path).restore(state())


def test_a_full_disk_leaves_the_last_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(path)

    def full(*args: Any, **kwargs: Any) -> None:
        (path / "12.orbax-checkpoint-tmp-1").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(OSError, match=r"round 12 .*No space left.*round 10 is intact.*disk full"):
        checkpoints.save(12, state(), {})
    assert sorted(folder.name for folder in path.iterdir()) == ["10", "5"]
    assert bits(Checkpoints(path).restore(state())) == bits(state(10.0))
