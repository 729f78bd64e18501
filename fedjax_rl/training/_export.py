"""A trained policy as one plain file: the parameters by name, and the architecture that reads them."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..policies import Policy, policy_from_architecture
from ._folder import write_atomically


FORMAT = "fedjax_rl.policy.1"
_SEPARATOR = "/"
_META = "__meta__"


def save_policy(path: str | Path, policy: Policy, params: Any, *, num_agents: int | None = None) -> Path:
    """Writes a policy to a `.npz` or `.safetensors` file.

    The arrays are called by their path ("params/Dense_0/kernel"). The metadata, a JSON text (in a `.npz` file the
    entry "__meta__"), holds the format, the architecture and `num_agents`.

    Args:
        path: the file; its ending chooses the format.
        policy: what the parameters belong to.
        params: nested dictionaries of arrays, of one model, or of one model per agent with a leading axis.
        num_agents: the length of that leading axis, None for one model.

    Raises:
        ValueError: another ending, or parameters that are no nested dictionaries.
    """
    path = Path(path)
    arrays = {_name(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(params)}
    if num_agents is not None and any(array.shape[:1] != (num_agents,) for array in arrays.values()):
        raise ValueError(f"every parameter needs a leading axis of num_agents = {num_agents}")
    meta = json.dumps({"format": FORMAT, "architecture": policy.architecture(), "num_agents": num_agents})
    if path.suffix == ".npz":
        contents: dict[str, Any] = {_META: np.array(meta), **arrays}
        write_atomically(path, lambda file: np.savez(file, **contents), "wb")
    elif path.suffix == ".safetensors":
        content = _safetensors().save({name: np.ascontiguousarray(x) for name, x in arrays.items()}, {_META: meta})
        write_atomically(path, lambda file: file.write(content), "wb")
    else:
        raise ValueError(f"path must end in .npz or .safetensors, got {str(path)!r}")
    return path


def load_policy(path: str | Path) -> tuple[Policy, Any]:
    """Reads what `save_policy` wrote.

    Returns:
        The policy and its parameters (with a leading axis of agents where the file holds one model per agent).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such policy.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no policy file {path}")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not a policy file: {error}") from None
        meta = str(arrays.pop(_META, ""))
    elif path.suffix == ".safetensors":
        content = path.read_bytes()
        try:
            arrays = dict(_safetensors().load(content))
        except Exception as error:  # the library has an exception type of its own
            raise ValueError(f"{path} is not a policy file: {error}") from None
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        meta = header.get("__metadata__", {}).get(_META, "")
    else:
        raise ValueError(f"path must end in .npz or .safetensors, got {str(path)!r}")
    try:
        described = json.loads(meta)
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']!r} is not known")
        policy = policy_from_architecture(described["architecture"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a policy file of this package: {error}") from None
    return policy, _nested(arrays)


def _name(keys: tuple[Any, ...]) -> str:
    names = [key.key for key in keys if isinstance(key, jax.tree_util.DictKey)]
    if len(names) != len(keys) or not names or any(_SEPARATOR in str(name) for name in names):
        raise ValueError(f"params must be nested dictionaries, got an entry {jax.tree_util.keystr(keys)!r}")
    return _SEPARATOR.join(map(str, names))


def _nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split(_SEPARATOR)
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = jax.numpy.asarray(array)
    return tree


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ValueError("a .safetensors file needs the package safetensors; install it, or use .npz") from None
    return safetensors.numpy
