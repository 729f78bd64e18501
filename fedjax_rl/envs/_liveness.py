"""Which physics parameters an environment really reads."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from ._environment import Environment
from ._physics import names_of


@functools.cache
def dead_fields(env: Environment) -> frozenset[str]:
    """Physics parameters that can change no observation, reward or end of an episode.

    Walks backwards through the traced reset and step from what an agent can notice; a part of the state counts only if
    it reaches that in a later step. A parameter found dead is dead; one that only looks alive may pass, because a
    nested computation counts as reading all its arguments.
    """
    params = jax.tree.map(jnp.asarray, env.default_params)
    noise = env.reset_noise(jax.random.key(0), ())
    _, state = jax.eval_shape(env.reset_from, noise, params)
    action = env.action_space().sample(jax.random.key(1))

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        observation, new, reward, terminated, _ = env.step_env(jax.random.key(2), state, action, params)
        return new, (observation, reward, terminated, env.is_truncated(new, params))

    def reset(params: Any) -> tuple[Any, Any]:
        observation, new = env.reset_from(noise, params)
        return new, observation

    names = [name for name in names_of(params) for _ in jax.tree.leaves(getattr(params, name))]
    num_state = len(jax.tree.leaves(state))
    alive = [False] * num_state
    while True:
        read = _read(step, (params, state), num_state, alive)
        again = [before or now for before, now in zip(alive, read[len(names) :], strict=True)]
        if again == alive:
            break
        alive = again
    starts = _read(reset, (params,), num_state, alive)
    used = {name for name, *flags in zip(names, read[: len(names)], starts, strict=True) if any(flags)}
    return frozenset(set(names) - used)


def _read(f: Callable[..., Any], args: tuple[Any, ...], num_state: int, state_matters: Sequence[bool]) -> list[bool]:
    """Which leaves of the arguments reach an output that matters; the first `num_state` outputs are the new state."""
    jaxpr = jax.make_jaxpr(f)(*args).jaxpr
    matters = [*state_matters, *[True] * (len(jaxpr.outvars) - num_state)]
    live = {var for var, flag in zip(jaxpr.outvars, matters, strict=True) if flag and not isinstance(var, Literal)}
    for equation in reversed(jaxpr.eqns):
        if any(var in live for var in equation.outvars):
            live.update(var for var in equation.invars if not isinstance(var, Literal))
    return [var in live for var in jaxpr.invars]
