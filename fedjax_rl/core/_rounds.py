"""Several rounds of one structure, for one compiled program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import tree
from ._component import component, static
from ._round import Round


@component
class Rounds:
    """Rounds that differ in numbers only; build it with `stack_rounds`. What is the same in all is kept once."""

    common: tuple[Any, ...]  # leaves that all rounds share
    own: tuple[jax.Array, ...]  # [G, ...] the others
    differs: tuple[bool, ...] = static()  # for each leaf
    structure: Any = static()
    num_rounds: int = static()  # G

    def at(self, index: jax.Array | int) -> Round:
        """The round with this number."""
        common, own = iter(self.common), iter(tree.take(self.own, index))
        return jax.tree.unflatten(self.structure, [next(own if d else common) for d in self.differs])


def stack_rounds(rounds: Sequence[Round]) -> Rounds:
    """Stacks rounds for `run(..., num_seeds=G K)`: state s then runs in round s // K.

    Args:
        rounds: G rounds that differ in numbers only, such as learning rates.

    Raises:
        ValueError: there is none, or their structures or shapes differ; those need programs of their own.
        TypeError: something is no round.

    Example:
        >>> rounds = stack_rounds([make(learning_rate) for learning_rate in (1e-3, 1e-2)])  # doctest: +SKIP
        >>> keys = jax.random.split(jax.random.key(0), 2 * 8)  # doctest: +SKIP
        >>> states, history = run(rounds, init_seeds(rounds, keys), 100, num_seeds=16)  # doctest: +SKIP
    """
    if not rounds:
        raise ValueError("rounds must not be empty")
    for r in rounds:
        if not isinstance(r, Round):
            raise TypeError(f"rounds must come from make_round, got {type(r).__name__}")
    leaves = [jax.tree.leaves(r) for r in rounds]
    if len({_form(r) for r in rounds}) > 1:
        raise ValueError("rounds must differ in numbers only; run those of another structure in a program of their own")
    columns = list(zip(*leaves, strict=True))
    differs = tuple(not all(_same(x, column[0]) for x in column) for column in columns)
    own = tuple(jnp.stack([jnp.asarray(x) for x in c]) for c, d in zip(columns, differs, strict=True) if d)
    common = tuple(c[0] for c, d in zip(columns, differs, strict=True) if not d)
    return Rounds(common, own, differs, jax.tree.structure(rounds[0]), len(rounds))


def same_program(one: Round | Rounds, other: Round | Rounds) -> bool:
    """Whether two rounds, or two stacks of rounds, differ in numbers only, so that one program serves both."""
    return _form(one) == _form(other)


def _form(round_: Round | Rounds) -> Any:
    leaves, structure = jax.tree.flatten(round_)
    return structure, tuple((np.shape(x), jnp.result_type(x)) for x in leaves)


def _same(x: Any, y: Any) -> bool:
    return x is y or bool(np.array_equal(x, y, equal_nan=True))
