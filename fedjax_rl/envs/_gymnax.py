"""gymnax environments behind our interface."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._environment import Environment
from ._mountain_car import MountainCarContinuous
from ._physics import POSITIVE, Rule, did_you_mean
from ._spaces import Box, Discrete


# Rules where gymnax's own fields have a physical meaning; every other field takes any finite number.
RULES: dict[str, dict[str, Rule]] = {
    "Pendulum-v1": {
        "g": Rule(low=0.0),
        "m": POSITIVE,
        "l": POSITIVE,
        "dt": POSITIVE,
        "max_speed": POSITIVE,
        "max_torque": POSITIVE,
    },
    "Acrobot-v1": {
        "dt": POSITIVE,
        "link_length_1": POSITIVE,
        "link_mass_1": POSITIVE,
        "link_mass_2": POSITIVE,
        "link_com_pos_1": POSITIVE,
        "link_com_pos_2": POSITIVE,
        "link_moi": POSITIVE,
        "max_vel_1": POSITIVE,
        "max_vel_2": POSITIVE,
        "torque_noise_max": Rule(low=0.0),
    },
    "MountainCar-v0": {"force": POSITIVE, "gravity": Rule(low=0.0), "max_speed": POSITIVE},
    "FourRooms-misc": {"fail_prob": Rule(low=0.0, high=1.0)},
    "BernoulliBandit-misc": {"reward_prob": Rule(low=0.0, high=1.0)},
}

REFUSED = {
    "CartPole-v1": "its total_mass and polemass_length go stale when masses or length change, and masscart is never "
    "read; use cartpole_family() or CartPole()",
    "MNISTBandit-bsuite": "it downloads its images when it is built; build it yourself with gymnax.make and wrap it in "
    "GymnaxEnvironment",
}


def _free_ranks() -> Any:
    """gymnax relies on implicit rank promotion, which a user may have forbidden for code of their own."""
    return jax.numpy_rank_promotion("allow")


@dataclasses.dataclass(frozen=True)
class GymnaxEnvironment(Environment):
    """A gymnax environment with our interface.

    Observations become one-dimensional floating arrays: arrays of more axes are flattened, integers cast, categories
    encoded one-hot. Rewards become floating, states strongly typed, so that a scan can carry them. The clock is
    gymnax's own: floating in the bandits of `misc`, MetaMaze, PointRobot and Reacher.

    Args:
        env: the gymnax environment. It is compared by identity, so build it once (see `gymnax_environment`).

    Raises:
        ValueError: for gymnax's CartPole and MountainCarContinuous, whose physics is defective, and for observations
            that are not one array.
    """

    env: Any

    def __post_init__(self) -> None:
        if self.env.name == "CartPole-v1":
            raise ValueError(f"env must not be gymnax's {self.env.name}: {REFUSED[self.env.name]}")
        if self.env.name == "MountainCarContinuous-v0":
            raise ValueError(
                "env must not be gymnax's MountainCarContinuous-v0: its car sticks to the left wall; "
                "use MountainCarContinuous()"
            )
        space = self.env.observation_space(self.env.default_params)
        if not hasattr(space, "shape"):
            raise ValueError(f"env must observe one array, {self.env.name} observes {space!r}")

    @property
    def name(self) -> str:
        return self.env.name

    @property
    def default_params(self) -> Any:
        return self.env.default_params

    @property
    def rules(self) -> Mapping[str, Rule]:
        return {"max_steps_in_episode": Rule(low=1), **RULES.get(self.name, {})}

    def reset_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """keys[*shape]: gymnax draws inside its reset."""
        return jax.random.split(key, shape)

    def reset_from(self, noise: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        with _free_ranks():
            observation, state = self.env.reset_env(noise, params)
        return self._observation(observation), jax.tree.map(_strong, state)

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        with _free_ranks():
            observation, new, reward, terminated, info = self.env.step_env(key, state, action, params)
        new = jax.tree.map(_like, state, new)
        reward = jnp.reshape(_floating(reward), ())
        return self._observation(observation), new, reward, jnp.reshape(terminated, ()), info

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        return self.env.is_truncated(state, params)

    @functools.cached_property
    def _num_categories(self) -> int | None:
        """Number of categories, where an observation is one of them."""
        return getattr(self.env.observation_space(self.env.default_params), "n", None)

    def _observation(self, observation: Any) -> jax.Array:
        if self._num_categories is not None:
            return jax.nn.one_hot(observation, self._num_categories, dtype=jnp.result_type(float))
        return jnp.reshape(_floating(observation), (-1,))

    def observation_space(self, params: Any | None = None) -> Box:
        params = self.default_params if params is None else params
        if self._num_categories is not None:
            return Box(0.0, 1.0, (self._num_categories,))
        space = self.env.observation_space(params)
        # The declared shape is not always that of the observations, so ask the reset.
        with _free_ranks():
            raw, _ = jax.eval_shape(self.env.reset_env, jax.random.key(0), params)
        low, high = (
            bound if np.ndim(bound) == 0 else np.broadcast_to(np.asarray(bound), raw.shape).reshape(-1)
            for bound in (space.low, space.high)
        )
        return Box(low, high, (raw.size,), _floating(jnp.zeros((), raw.dtype)).dtype)

    def action_space(self, params: Any | None = None) -> Box | Discrete:
        space = self.env.action_space(self.default_params if params is None else params)
        return Discrete(int(space.n)) if hasattr(space, "n") else Box(space.low, space.high, tuple(space.shape))


def _strong(x: Any) -> jax.Array:
    """The array without weak type."""
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype)


def _like(old: jax.Array, new: Any) -> jax.Array:
    """The new value of a leaf of the state in the type of the old one."""
    if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        return new
    new = jnp.asarray(new)
    if jnp.issubdtype(new.dtype, jnp.floating) and not jnp.issubdtype(old.dtype, jnp.floating):
        raise TypeError(f"a leaf of the state is {old.dtype} after a reset and {new.dtype} after a step")
    return jax.lax.convert_element_type(new, old.dtype)


def _floating(x: Any) -> jax.Array:
    """The array, cast to the default floating type unless it is floating already."""
    x = _strong(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def gymnax_environment(name: str, **options: Any) -> Environment:
    """A gymnax environment by name, built once: gymnax compares by identity, so a second copy would compile again.

    Args:
        name: "Pendulum-v1" or, without regard to case and version, "pendulum".
        options: arguments of the environment's constructor, such as `size` of DeepSea; hashable.

    Returns:
        The environment; for MountainCarContinuous our own, because gymnax's car sticks to the left wall.

    Raises:
        ValueError: unknown name, gymnax's CartPole (stale physics), MNISTBandit (downloads).
    """
    return _build(_full_name(name), tuple(sorted(options.items())))


@functools.cache
def _build(name: str, options: tuple[tuple[str, Any], ...]) -> Environment:
    import gymnax  # 1.7 s, so only here

    if name in REFUSED:
        raise ValueError(f"name must not be {name!r}: {REFUSED[name]}")
    if name == "MountainCarContinuous-v0":
        return MountainCarContinuous(**dict(options))
    return GymnaxEnvironment(gymnax.make(name, **dict(options))[0])


def _full_name(name: str) -> str:
    """gymnax's name of an environment given with or without its version or suite."""
    import gymnax

    known = {candidate.lower(): candidate for candidate in gymnax.registered_envs}
    stems = {candidate.lower().rsplit("-", 1)[0]: candidate for candidate in gymnax.registered_envs}
    wanted = name.lower().replace("_", "")
    if wanted not in known and wanted not in stems:
        raise ValueError(
            f"name must be a gymnax environment, got {name!r}; {did_you_mean(name, gymnax.registered_envs)}"
        )
    return known.get(wanted) or stems[wanted]
