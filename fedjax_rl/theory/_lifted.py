"""Functions of one finite MDP, lifted to any leading axes, with the checks they share."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check, is_concrete


Function = TypeVar("Function", bound=Callable[..., Any])

# Arguments of these names are laws: their last axis is nonnegative and sums to one.
_LAWS = ("kernel", "chain", "policy", "initial", "law")
# Scalars of these names lie in [0, 1).
_FRACTIONS = {
    "discount": "an undiscounted problem has a horizon: see backward_induction",
    "trace_decay": "trace_decay = 1 is least squares on returns, not a TD fixed point",
}
_POSITIVE = ("step_size",)
_NONNEGATIVE = ("transition_gap", "reward_gap", "reward_range")


def lifted(
    signature: str, *, precise: bool = False, exists: tuple[str, str] | None = None
) -> Callable[[Function], Function]:
    """Makes a function written for one MDP work on any leading axes, which broadcast, and checks its arguments.

    Positional parameters are arrays, keyword-only ones are structure (static). The signature gives the axes of one MDP
    as `numpy.vectorize` does, "(s,a,s),(s,a),()->(s)". The letter n stands for the agents: an argument that lacks this
    axis is the same for all of them. Integers become floats, and all arguments take their common dtype.

    Args:
        signature: axes of the arguments and of the results.
        precise: float32 is refused, because the result is a small difference or an ill-conditioned solution.
        exists: the argument and the requirement without which there is no result. The function returns NaN then;
            outside of a trace this raises.
    """
    cores = [tuple(filter(None, part.split(","))) for part in signature.split("->")[0][1:-1].split("),(")]

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function)
        names = [p.name for p in parameters.parameters.values() if p.kind is not p.KEYWORD_ONLY]
        axes = dict(zip(names, cores, strict=True))

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = parameters.bind(*args, **kwargs)
            bound.apply_defaults()
            structure = {name: value for name, value in bound.arguments.items() if name not in axes}
            arrays = {name: bound.arguments[name] for name in names}
            if precise:
                require_float64(function.__name__.lstrip("_"), **arrays)
            dtype = jnp.result_type(float, *jax.tree.leaves(arrays))
            arrays = {name: jnp.asarray(value, dtype) for name, value in arrays.items()}
            arrays = _with_agents(arrays, axes)
            _check_shapes(arrays, axes)
            for name, value in arrays.items():
                _check_values(name, value)
            leading = max(value.ndim - len(axes[name]) for name, value in arrays.items())
            aligned = [_with_leading_axes(value, leading + len(axes[name])) for name, value in arrays.items()]
            found = jnp.vectorize(functools.partial(function, **structure), signature=signature)(*aligned)
            if exists is not None:
                _check_existence(found, signature.split("->")[1].count(",") + 1, *exists)
            return found

        return wrapper  # type: ignore[return-value]

    return decorate


def require_float64(function: str, **arrays: Any) -> None:
    """Raises unless the computation would be done in float64.

    Raises:
        ValueError: JAX's 64-bit mode is off, or all arrays are float32.
    """
    if not jax.config.read("jax_enable_x64"):
        raise ValueError(
            f"{function} needs float64, got jax_enable_x64=False; call jax.config.update('jax_enable_x64', True) first"
        )
    dtype = jnp.result_type(float, *jax.tree.leaves(arrays))
    if dtype != jnp.float64:
        raise ValueError(f"{function} needs float64, got {', '.join(arrays)} of dtype {dtype}; convert the arrays")


def check_law(name: str, value: Any) -> None:
    """Raises unless the last axis is nonnegative and sums to one; the text names the first bad index.

    Args:
        name: of the argument.
        value: f[..., K]; tracers are not looked at.

    Raises:
        ValueError: an entry is negative or not finite, or a row does not sum to one.
    """
    if not is_concrete(value):
        return
    rows = np.asarray(value)
    slack = 1e-8 if rows.dtype == np.float64 else 1e-4  # a sum of many float32 numbers
    for bad, requirement in (
        (~np.isfinite(rows), "must be finite"),
        (rows < 0, "must be nonnegative"),
    ):
        if bad.any():
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(f"{name}{list(index)} {requirement}, got {rows[index]!r}; it is a probability")
    sums = rows.sum(-1)
    wrong = np.abs(sums - 1) > slack
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{name}{list(index)} must sum to one, got {sums[index]!r}; divide each row by its sum")


def _with_agents(arrays: dict[str, jax.Array], axes: Mapping[str, tuple[str, ...]]) -> dict[str, jax.Array]:
    """Repeats what is common to all agents."""
    sizes = [
        value.shape[value.ndim - len(axes[name])]
        for name, value in arrays.items()
        if axes[name][:1] == ("n",) and value.ndim >= len(axes[name])
    ]
    if not sizes:
        return arrays

    def repeated(name: str, value: jax.Array) -> jax.Array:
        common = axes[name][:1] == ("n",) and value.ndim == len(axes[name]) - 1
        return jnp.broadcast_to(value, (sizes[0], *value.shape)) if common else value

    return {name: repeated(name, value) for name, value in arrays.items()}


def _with_leading_axes(value: jax.Array, num_axes: int) -> jax.Array:
    """Broadcasting by rank is refused where the package is strict about it, so axes of length one are made here."""
    return value.reshape((1,) * (num_axes - value.ndim) + value.shape)


def _check_shapes(arrays: Mapping[str, jax.Array], axes: Mapping[str, tuple[str, ...]]) -> None:
    """Raises where an array has too few axes, or where two arrays disagree about one."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, value in arrays.items():
        core = axes[name]
        wanted = f"f[..., {', '.join(letter.upper() for letter in core)}]" if core else "a number per MDP"
        if value.ndim < len(core):
            raise ValueError(f"{name} must be {wanted}, got shape {value.shape}; see the docstring for its axes")
        for letter, size in zip(core, value.shape[value.ndim - len(core) :], strict=True):
            known, other = sizes.setdefault(letter, (size, name))
            if size != known:
                raise ValueError(
                    f"{name} must be {wanted} with {letter.upper()} = {known} as in {other}, got shape {value.shape}; "
                    "all arguments describe the same MDPs"
                )


def _check_existence(found: Any, num_axes: int, name: str, requirement: str) -> None:
    """Raises where a result of finite arguments is NaN; it has `num_axes` axes for each MDP."""
    if not is_concrete(found):
        return
    missing = np.isnan(np.asarray(found))
    if missing.any():
        index = [int(i) for i in np.argwhere(missing)[0][: missing.ndim - num_axes]]
        raise ValueError(f"{name}{index or ''} {requirement}")


def _check_values(name: str, value: jax.Array) -> None:
    if name in _LAWS:
        check_law(name, value)
        return
    if not is_concrete(value):
        return
    found = np.asarray(value)
    shown = found.item() if found.size == 1 else found
    if name in _FRACTIONS:
        check(name, shown, lambda _: ((found >= 0) & (found < 1)).all(), "must lie in [0, 1)", _FRACTIONS[name])
    elif name in _POSITIVE:
        check(name, shown, lambda _: (np.isfinite(found) & (found > 0)).all(), "must be positive and finite")
    elif name in _NONNEGATIVE:
        check(name, shown, lambda _: (np.isfinite(found) & (found >= 0)).all(), "must be nonnegative and finite")
    elif name != "logits" and not np.isfinite(found).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        raise ValueError(f"{name}{list(index)} must be finite, got {found[index]!r}; look for a division by zero")
