"""Physics parameters as data: names, admissible values, and tables of them."""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Rule(NamedTuple):
    """Which numbers a physics parameter may take."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False  # whether `low` itself is excluded
    values: tuple[float, ...] = ()  # when given, only these
    integer: bool = False
    remedy: str = ""

    def requirement(self) -> str:
        """What a value must satisfy, as in "must be > 0"."""
        if self.values:
            return "must be one of " + ", ".join(f"{value:g}" for value in self.values)
        kind = "an integer " if self.integer else ""
        if self.high < math.inf:
            return f"must be {kind}in {'(' if self.open_low else '['}{self.low:g}, {self.high:.6g}]"
        if self.low > -math.inf:
            return f"must be {kind}{'>' if self.open_low else '>='} {self.low:g}"
        return "must be an integer" if self.integer else "must be a finite number"

    def admits(self, value: float) -> bool:
        """Whether a number satisfies the rule; NaN and infinity never do."""
        if not math.isfinite(value) or (self.integer and value != round(value)):
            return False
        if self.values:
            return value in self.values
        return (value > self.low if self.open_low else value >= self.low) and value <= self.high


POSITIVE = Rule(low=0.0, open_low=True)


def names_of(params: Any) -> tuple[str, ...]:
    """Field names of a NamedTuple or dataclass of parameters."""
    if hasattr(params, "_fields"):
        return tuple(params._fields)
    return tuple(field.name for field in dataclasses.fields(params))


def replace(params: Any, **changes: Any) -> Any:
    """The parameters with some fields changed."""
    return params._replace(**changes) if hasattr(params, "_fields") else dataclasses.replace(params, **changes)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the likeliest known one, and all of them."""
    known = list(known)
    by_fold = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_fold, n=1, cutoff=0.5)
    hint = f"did you mean {by_fold[close[0]]!r}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


def stack_of(value: Any, num_agents: int) -> jax.Array:
    """One parameter for every agent, [N, ...]."""
    array = jnp.asarray(value, jnp.result_type(value))
    return jnp.broadcast_to(array, (num_agents, *array.shape))


def physics_table(physics: Any) -> dict[str, np.ndarray]:
    """Columns of a table of agents: the parameters that are one number for each agent.

    Args:
        physics: leaves [N, ...] as `family.sample` gives them; of a pooled family, `family.worlds` of that.

    Returns:
        name -> array [N] of floating or integer type, in the order of the fields; flags and arrays are left out.
    """
    columns = {name: np.asarray(getattr(physics, name)) for name in names_of(physics)}
    return {name: column for name, column in columns.items() if column.ndim == 1 and column.dtype.kind in "fiu"}
