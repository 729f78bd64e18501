"""Optax optimisers whose numbers are leaves."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from ..core import check_range, component, is_concrete, static


# Rules that treat every number alike, wherever it stands. (Plain SGD does too, and remembers nothing to be laid out.)
_ELEMENTWISE = (
    optax.adagrad, optax.adam, optax.adamw, optax.amsgrad, optax.lion, optax.nadam, optax.nadamw, optax.radam,
    optax.rmsprop, optax.yogi,
)  # fmt: skip


@component
class Optimizer:
    """An optax factory and its hyper-parameters; a sweep over them is a `vmap`, a changed value never recompiles."""

    hyperparameters: dict[str, Any]  # numbers
    factory: Callable[..., optax.GradientTransformation] = static()
    settings: tuple[tuple[str, Any], ...] = static(default=())  # what is no number: schedules, masks, flags

    def build(self, *, flat: bool = False) -> optax.GradientTransformation:
        """The transformation itself, inside the trace.

        Args:
            flat: keep the moments of a whole model as one vector where that changes nothing, for a rule that treats
                every number alike (no mask, no arrays as hyper-parameters): a step then is a few kernels, and not
                three for each leaf.
        """
        rule = self.factory(**self.hyperparameters, **dict(self.settings))
        numbers = all(jnp.ndim(value) == 0 for value in self.hyperparameters.values())
        alike = self.factory in _ELEMENTWISE and numbers and "mask" not in dict(self.settings)
        return optax.flatten(rule) if flat and alike else rule


def optimizer(
    factory: Callable[..., optax.GradientTransformation] | optax.GradientTransformation, **hyperparameters: Any
) -> Optimizer:
    """Describes an optimiser.

    Args:
        factory: an optax factory such as `optax.adam`. A ready transformation (`optax.adam(1e-3)`) is accepted too;
            its numbers are then structure: changing them recompiles.
        **hyperparameters: the factory's arguments, by name; numbers become leaves. A schedule in place of a number
            counts the steps in the optimiser's state: of one round where a learner resets it.

    Raises:
        ValueError: the factory does not take these arguments, or one of them is neither a number nor hashable.

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
    numbers = {name: value for name, value in hyperparameters.items() if _is_number(value)}
    settings = tuple((name, value) for name, value in hyperparameters.items() if name not in numbers)
    for name, value in settings:
        try:
            hash(value)
        except TypeError as error:
            raise ValueError(
                f"{name} must be hashable, for it is part of what is compiled, got {value!r}; optax takes a function "
                "that makes it, such as lambda params: {...}, and a transformation with all its arguments given"
            ) from error
    return Optimizer(numbers, factory, settings)


def _is_number(value: Any) -> bool:
    """Whether it is a number or an array of them, possibly traced; flags decide on the structure and are none."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or hasattr(value, "dtype")):
        return False
    return jnp.issubdtype(jnp.result_type(value), jnp.number)


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
