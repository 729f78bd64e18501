"""Components: frozen dataclasses that are pytrees, and the checks their factories make."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.core
import jax.dtypes
import jax.numpy as jnp


T = TypeVar("T")


def static(**kwargs: Any) -> Any:
    """Declares a dataclass field as structure: hashable, compared by value, a change recompiles."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def component(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass registered as a pytree.

    Fields are leaves (numbers, arrays, other components), so a changed value never recompiles and a
    sweep is a `vmap` over the component; fields made by `static()` are structure.

    Example:
        >>> @component
        ... class Scale:
        ...     factor: float
        ...     axis: int = static(default=0)
        >>> jax.tree.leaves(Scale(2.0))
        [2.0]
    """
    # Not `register_dataclass`: to jaxlib 0.10 the structures of dataclasses of different types are equal where their
    # fields are, so that once in some hundred lookups a jitted function takes one component for another.
    made = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(made)  # pyright: ignore[reportArgumentType]
    structure = tuple(f.name for f in fields if f.metadata.get("static"))
    leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in leaves)

    def flatten(x: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(x, name) for name in leaves), (made, *(getattr(x, name) for name in structure))

    def flatten_with_keys(x: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        children, told = flatten(x)
        return tuple(zip(keys, children, strict=True)), told

    def unflatten(told: tuple[Any, ...], children: Any) -> T:
        x = object.__new__(made)
        for name, value in zip((*leaves, *structure), (*children, *told[1:]), strict=True):
            object.__setattr__(x, name, value)
        return x

    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


def is_concrete(value: Any) -> bool:
    """Whether a factory can look at the value: a tracer passes every check."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def check(name: str, value: Any, condition: Callable[[Any], Any], requirement: str, remedy: str = "") -> None:
    """Raises `ValueError("<name> <requirement>, got <value>; <remedy>")` unless a concrete value is good.

    Args:
        name: the argument's name as the caller wrote it.
        value: a number or array; tracers are not looked at.
        condition: tells whether the value is good.
        requirement: what must hold, as in "must lie in [0, 1)".
        remedy: what to do instead, if there is something.
    """
    if not is_concrete(value):
        return
    try:
        good = bool(condition(value))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name} {requirement}, got {value!r}" + (f"; {remedy}" if remedy else ""))


def check_count(name: str, value: Any, minimum: int = 1, remedy: str = "") -> None:
    """Raises unless the value is an integer of at least `minimum` (a Python or NumPy integer, not a bool)."""
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
    check(name, value, lambda v: is_integer and v >= minimum, f"must be an integer >= {minimum}", remedy)


def check_range(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False,
    open_high: bool = False, remedy: str = "",
) -> None:  # fmt: skip
    """Raises unless a concrete scalar lies between the bounds; NaN never does."""
    left, right = ("(" if open_low or low == -math.inf else "["), (")" if open_high or high == math.inf else "]")

    def inside(v: Any) -> bool:
        if isinstance(v, str | bool):
            return False
        v = float(v)
        return (v > low if open_low else v >= low) and (v < high if open_high else v <= high)

    check(name, value, inside, f"must lie in {left}{low:g}, {high:g}{right}", remedy)


def check_key(value: Any) -> None:
    """Raises unless the value is a typed random key, or several."""
    if not (hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"key must be a typed random key, got {value!r}; write jax.random.key(0)")


def check_flag(name: str, value: Any) -> None:
    """Raises unless the value is True or False; the text "false" is neither."""
    check(name, value, lambda v: isinstance(v, bool), "must be True or False")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises unless the value is one of the names."""
    check(name, value, lambda v: v in choices, "must be one of " + ", ".join(map(repr, choices)))
