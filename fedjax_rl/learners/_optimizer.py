"""Optax optimisers whose numbers are leaves."""

from collections.abc import Callable
from typing import Any

import optax

from ..core import check_range, component, is_concrete, static


@component
class Optimizer:
    """An optax factory and its hyper-parameters; a sweep over them is a `vmap`, a changed value never recompiles."""

    hyperparameters: dict[str, Any]
    factory: Callable[..., optax.GradientTransformation] = static()

    def build(self) -> optax.GradientTransformation:
        """The transformation itself, inside the trace."""
        return self.factory(**self.hyperparameters)


def optimizer(
    factory: Callable[..., optax.GradientTransformation] | optax.GradientTransformation, **hyperparameters: Any
) -> Optimizer:
    """Describes an optimiser.

    Args:
        factory: an optax factory such as `optax.adam`. A ready transformation (`optax.adam(1e-3)`) is accepted too;
            its numbers are then structure: changing them recompiles.
        **hyperparameters: the factory's arguments, by name; numbers become leaves.

    Raises:
        ValueError: the factory does not take these arguments.

    Example:
        >>> optimizer(optax.adam, learning_rate=1e-3).hyperparameters
        {'learning_rate': 0.001}
    """
    if isinstance(factory, optax.GradientTransformation):
        if hyperparameters:
            raise ValueError(f"a ready optax transformation takes no further arguments, got {sorted(hyperparameters)}")
        return Optimizer({}, _Constant(factory))
    if not callable(factory):
        raise ValueError(f"optimizer must be an optax factory or transformation, got {factory!r}; try optax.adam")
    if isinstance(hyperparameters.get("learning_rate"), int | float | str):
        check_range("learning_rate", hyperparameters["learning_rate"], 0, open_high=True)
    if is_concrete(hyperparameters):
        name = getattr(factory, "__name__", repr(factory))
        try:
            built = factory(**hyperparameters)
        except TypeError as error:
            raise ValueError(f"optax.{name} does not accept these arguments: {error}") from error
        if not isinstance(built, optax.GradientTransformation):
            raise ValueError(f"{name} must build an optax gradient transformation, got {built!r}")
    return Optimizer(dict(hyperparameters), factory)


def as_optimizer(value: Any) -> Optimizer:
    """Accepts what `optimizer` returns, a ready optax transformation, or an optax factory without arguments."""
    return value if isinstance(value, Optimizer) else optimizer(value)


class _Constant:
    """A factory that returns one ready transformation; compared by its identity, so reuse the object."""

    def __init__(self, transformation: optax.GradientTransformation):
        self.transformation = transformation

    def __call__(self) -> optax.GradientTransformation:
        return self.transformation

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and self.transformation == other.transformation

    def __hash__(self) -> int:
        return hash(self.transformation)
