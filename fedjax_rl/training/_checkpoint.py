"""Checkpoints: the state of a run and its host counters, written so that a crash leaves the previous one whole."""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


class Checkpoints:
    """The checkpoints of one run in a folder; the last `keep` are kept.

    Args:
        path: the folder.
        keep: how many checkpoints to keep.
        content: what of a state counts; the rest is layout, such as rows that fill up devices, and may be of other
            shapes where the state is read again.
    """

    def __init__(self, path: str | Path, *, keep: int = 2, content: Callable[[Any], Any] = lambda state: state):
        # Imported here: it takes a second, and `fedjax-rl list` does without.
        import orbax.checkpoint as ocp

        self.path, self._content = Path(path).absolute(), content
        self._ocp = ocp
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        with _quiet():
            self._manager = ocp.CheckpointManager(self.path, options=self._options, item_names=("state", "counters"))

    def save(self, num_rounds: int, state: Any, counters: Mapping[str, Any]) -> None:
        """Saves the state after so many rounds; does nothing if that checkpoint exists.

        Args:
            num_rounds: rounds done.
            state: a pytree of arrays, typed keys among them.
            counters: JSON values: what the host counts, and what the state belongs to.

        Raises:
            OSError: it could not be written; the checkpoints before it are as they were.
        """
        if num_rounds in self._manager.all_steps():
            return
        items = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave({name: _numbers(x) for name, x in _flat(state).items()}),
            counters=self._ocp.args.JsonSave({"counters": dict(counters), "leaves": self._described(state)}),
        )
        try:
            with _quiet():
                self._manager.save(num_rounds, args=items)
                self._manager.wait_until_finished()
        except Exception as error:  # a full disk is an OSError here and a ValueError of the array store there
            self._drop_unfinished()
            last = self.latest
            kept = f"the one after round {last} is intact" if last is not None else "there is no earlier one"
            reason = " ".join(str(error).split())
            raise OSError(
                f"could not save the checkpoint of round {num_rounds} in {self.path} ({reason[:200]}); {kept}. "
                "Is the disk full?"
            ) from error

    @property
    def latest(self) -> int | None:
        """Rounds done at the last checkpoint; None where there is none."""
        return self._manager.latest_step()

    def counters(self) -> dict[str, Any]:
        """Reads the host counters of the last checkpoint without its state.

        Raises:
            ValueError: there is no checkpoint, or it cannot be read.
        """
        return self._restore(counters=self._ocp.args.JsonRestore())["counters"]["counters"]

    def restore(self, like: Any) -> Any:
        """Reads the state of the last checkpoint.

        Args:
            like: a pytree of arrays or `ShapeDtypeStruct`s with the structure, shapes, dtypes and shardings wanted.

        Returns:
            The state; rows that were not saved are zero.

        Raises:
            ValueError: there is no checkpoint, it cannot be read, or it belongs to another configuration.
        """
        self._check(like)
        default = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or default)
            for name, x in ((name, _numbers(x)) for name, x in _flat(like).items())
        }
        # Not strict: the content has the right shapes, as has just been checked, and the rest may have others.
        flat = self._restore(state=self._ocp.args.StandardRestore(abstract, strict=False))["state"]
        leaves = [_as_saved(flat[name], x) for name, x in _flat(like).items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def close(self) -> None:
        """Releases the folder."""
        self._manager.close()

    def _restore(self, **args: Any) -> Any:
        if self.latest is None:
            raise ValueError(f"there is no checkpoint in {self.path}")
        try:
            with _quiet():
                return self._manager.restore(self.latest, args=self._ocp.args.Composite(**args))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"the checkpoint of round {self.latest} in {self.path} cannot be read: {reason[:300]}"
            ) from error

    def _check(self, like: Any) -> None:
        """Tells a foreign checkpoint by the description of its leaves, before anything is read."""
        foreign = f"the checkpoint in {self.path} belongs to another configuration, or another version wrote it"
        saved, wanted = (
            self._restore(counters=self._ocp.args.JsonRestore())["counters"]["leaves"],
            self._described(like),
        )
        for name in sorted(set(saved) ^ set(wanted)):
            raise ValueError(f"{foreign}: {name} is only {'there' if name in saved else 'here'}")
        for name, leaf in wanted.items():
            if saved[name] != leaf:
                raise ValueError(f"{foreign}: {name} is {saved[name]} there and {leaf} here")

    def _described(self, state: Any) -> dict[str, str]:
        """The leaves of the content by name, as "float32[3, 4]", or "key<fry> uint32[3, 2]"."""

        def described(leaf: Any) -> str:
            numbers = _numbers(leaf)
            return (f"{leaf.dtype} " if _is_key(leaf) else "") + f"{numbers.dtype}{list(numbers.shape)}"

        return {name: described(leaf) for name, leaf in _flat(jax.eval_shape(self._content, state)).items()}

    def _drop_unfinished(self) -> None:
        for path in self.path.glob("*orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)
        with _quiet():
            self._manager.reload()


def _flat(state: Any) -> dict[str, Any]:
    """A flat dictionary of the leaves by their number and path: what a checkpoint holds does not depend on classes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {f"{i:04d}{jax.tree_util.keystr(path)}".replace("/", "|"): leaf for i, (path, leaf) in enumerate(leaves)}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> Any:
    """A leaf as it is saved: of typed keys the numbers, which can be read with more or fewer rows."""
    if not _is_key(leaf):
        return leaf
    if isinstance(leaf, jax.Array):
        return jax.random.key_data(leaf)
    numbers = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(numbers.shape, numbers.dtype, sharding=getattr(leaf, "sharding", None))


def _as_saved(numbers: Any, like: Any) -> Any:
    """The leaf whose numbers these are."""
    if not _is_key(like):
        return numbers
    kinds: list[Any] = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(numbers, impl=kinds[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the checkpoint library's warnings and log lines, which no user of ours can act on."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
