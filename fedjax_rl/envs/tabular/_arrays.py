"""Bring your own MDPs: agents whose kernels and rewards are arrays."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fedjax_rl.core import EnvFamily, check_count, component, static

from ._checks import check_world
from ._drawn import floating, integer
from ._episodic import EpisodicMDP, EpisodicParams
from ._mdp import TabularMDP, TabularParams, branching_of


@component
class ArrayFamily(EnvFamily):
    """Agents whose MDPs were given; build it with `family_from_arrays`.

    Args:
        env: `TabularMDP` or `EpisodicMDP`.
        worlds_given: the MDPs, leaves [N, ...].
        discount: gamma as given with the arrays, for learners and theory; None where there was none.
        count: N.
    """

    env: Any = static()
    worlds_given: Any
    discount: float | None = static(default=None)
    count: int = static(default=1)

    @property
    def num_agents(self) -> int:
        return self.count

    @property
    def num_unseen(self) -> int:
        return 0

    def sample(self, key: jax.Array, num_agents: int) -> Any:
        """The given MDPs in their order; nothing is drawn."""
        del key
        if num_agents != self.count:
            raise ValueError(f"num_agents must be {self.count}, the number of MDPs given, got {num_agents}")
        given = self.worlds_given
        kernel, reward, initial = (floating(x) for x in (given.kernel, given.reward, given.initial))
        return given._replace(
            kernel=kernel, reward=reward, initial=initial, max_steps_in_episode=integer(given.max_steps_in_episode)
        )

    def sample_unseen(self, key: jax.Array, num_agents: int) -> Any:
        """There is no law to draw others from."""
        raise ValueError("MDPs given as arrays leave none unseen; evaluate on agents of another family_from_arrays")


def family_from_arrays(path_or_arrays: str | Path | Mapping[str, Any], max_steps_in_episode: int = 100) -> ArrayFamily:
    """Agents whose MDPs are arrays, in memory or in an npz file: one agent for each entry of the first axis.

    | name | shape | |
    |---|---|---|
    | kernel | f[N, S, A, S], or f[N, H, S, A, S] of finite horizon H | P(s'|s,a) |
    | reward | f[N, S, A], or f[N, H, S, A] | expected reward |
    | initial | f[N, S] or f[S]; may be left out: uniform | law of the first state |
    | gamma | f[]; may be left out | becomes the family's `discount` |

    A Markov reward process is an MDP with one action: give it an axis for that, kernel[:, :, None, :].

    Args:
        path_or_arrays: an npz file or a mapping with these names; names besides them are refused.
        max_steps_in_episode: time limit [steps] of discounted MDPs; those of finite horizon end by themselves.

    Raises:
        ValueError: a name is missing or unknown, shapes do not fit, numbers are not finite, probabilities are negative
            or do not sum to one; the text tells the array and the index.
        FileNotFoundError: there is no such file.

    Example:
        >>> kernel = np.full((3, 2, 2, 2), 0.5)
        >>> family_from_arrays({"kernel": kernel, "reward": np.ones((3, 2, 2)), "gamma": 0.9}).num_agents
        3
    """
    check_count("max_steps_in_episode", max_steps_in_episode)
    what, arrays = _read(path_or_arrays)
    missing = [name for name in ("kernel", "reward") if name not in arrays]
    if missing:
        raise ValueError(f"{what}: {missing[0]} is missing, there are {', '.join(arrays) or 'no arrays'}")
    unknown = sorted(set(arrays) - {"kernel", "reward", "initial", "gamma"})
    if unknown:
        raise ValueError(f"{what}: {unknown[0]!r} is none of kernel, reward, initial, gamma; leave it out")
    kernel, reward = arrays["kernel"], arrays["reward"]
    if kernel.ndim not in (4, 5):
        raise ValueError(
            f"{what}: kernel must have shape [N, S, A, S] or [N, H, S, A, S], got {list(kernel.shape)}; "
            "one MDP needs a first axis of length 1, a chain without actions an axis kernel[:, :, None, :]"
        )
    count, states = kernel.shape[0], kernel.shape[-1]
    if kernel.size == 0:
        raise ValueError(f"{what}: kernel must hold an MDP, got shape {list(kernel.shape)}")
    initial = arrays.get("initial", np.full(states, 1 / states))
    if initial.shape not in ((states,), (count, states)):
        raise ValueError(
            f"{what}: initial must have shape [{states}] or [{count}, {states}], got {list(initial.shape)}"
        )
    params = TabularParams(kernel, reward, initial)
    check_world(what, params)
    initial = np.broadcast_to(initial, (count, states))
    discount = _discount(what, arrays.get("gamma"))
    if kernel.ndim == 5:
        limit = np.full(count, kernel.shape[1])
        return ArrayFamily(
            EpisodicMDP(*reward.shape[1:]), EpisodicParams(kernel, reward, initial, limit), discount, count
        )
    params = params._replace(initial=initial, max_steps_in_episode=np.full(count, max_steps_in_episode))
    return ArrayFamily(TabularMDP(states, reward.shape[-1], branching_of(kernel)), params, discount, count)


def _read(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, np.ndarray]]:
    """What to call the arrays in messages, and the arrays."""
    if isinstance(source, Mapping):
        return "path_or_arrays", {name: np.asarray(value) for name, value in source.items()}
    if not isinstance(source, str | Path):
        raise ValueError(f"path_or_arrays must be the path of an npz file or a mapping, got {type(source).__name__}")
    try:
        loaded = np.load(Path(source), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it holds one array without a name; save with np.savez(path, kernel=..., reward=...)")
        with loaded as file:
            return str(source), {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{source}: not an npz file of arrays ({error})") from None


def _discount(what: str, gamma: np.ndarray | None) -> float | None:
    """The discount as a number."""
    if gamma is None:
        return None
    if gamma.shape != () or gamma.dtype.kind not in "fiu" or not 0 <= gamma <= 1:
        raise ValueError(f"{what}: gamma must be one number in [0, 1], got {gamma!r}")
    return float(gamma)
