"""A grid of configurations: which fields, and which numbers inside their expressions, take which values."""

import ast
import dataclasses
import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ._config import ExperimentConfig


class Point(NamedTuple):
    """One place on the grid."""

    values: dict[str, Any]  # by key
    config: ExperimentConfig
    label: str  # fit for a folder


def points(config: ExperimentConfig, over: Mapping[str, Sequence[Any]]) -> list[Point]:
    """All combinations, the last key varying fastest.

    Args:
        config: what they have in common.
        over: key -> values. A key is a field such as "round.aggregator", or leads on into its expression:
            "learner.optimizer.learning_rate", "round.transforms.0.max_norm". An argument that the expression gives by
            its place has a number in place of a name: "round.transforms.0.0" in clip(1.0).

    Raises:
        ValueError: there is nothing to vary, a key leads nowhere, or a value does not fit; names the key.

    Example:
        >>> [p.label for p in points(ExperimentConfig(), {"learner.optimizer.learning_rate": [0.1, 0.2]})]
        ['000-learning_rate=0.1', '001-learning_rate=0.2']
    """
    if not over:
        raise ValueError("over must name at least one key, as in learner.optimizer.learning_rate=[1e-3, 1e-2]")
    for key, values in over.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"over: {key} must have a list of values, got {values!r}")
    over = {key: _numbers(values) for key, values in over.items()}
    found = []
    for number, chosen in enumerate(itertools.product(*over.values())):
        values = dict(zip(over, chosen, strict=True))
        changed = config
        for key, value in values.items():
            changed = _changed(changed, key, value)
        shown = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
        label = f"{number:03d}-{re.sub(r'[^A-Za-z0-9=.,_+-]', '_', shown)[:80].strip('_')}"
        found.append(Point(values, changed.replace(name=f"{config.name} {shown}"), label))
    return found


def _numbers(values: Sequence[Any]) -> Sequence[Any]:
    """Integers among other numbers become such numbers too: one program serves them all."""
    if all(type(value) in (int, float) for value in values) and float in map(type, values):
        return [float(value) for value in values]
    return values


def read_over(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Reads "KEY=[VALUE, ...]", the list as in TOML.

    Raises:
        ValueError: a text is no such thing; shows it.
    """
    over: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        try:
            read = tomllib.loads(f"x = {values}")["x"] if equals else None
        except tomllib.TOMLDecodeError:
            read = None
        if not isinstance(read, list):
            raise ValueError(
                f"--over must be KEY=[VALUE, ...], got {text!r}; as in "
                "--over 'learner.optimizer.learning_rate=[1e-3, 1e-2]' or --over 'round.aggregator=[\"mean()\"]'"
            )
        if key in over:
            raise ValueError(f"--over names {key} twice")
        over[key.strip()] = read
    return over


def _changed(config: ExperimentConfig, key: str, value: Any) -> ExperimentConfig:
    """The configuration with another value at a key."""
    section, rest = "", key.split(".")
    part: Any = config
    if dataclasses.is_dataclass(getattr(config, rest[0], None)) and len(rest) > 1:
        section, part, rest = rest[0], getattr(config, rest[0]), rest[1:]
    name, *inside = rest
    if name not in {field.name for field in dataclasses.fields(part)}:
        raise ValueError(f"over: {key}: there is no field {name!r}; there are {', '.join(_names(part))}")
    if inside:
        value = _inside(getattr(part, name), inside, value, key)
    try:
        return config.replace(**({section: {name: value}} if section else {name: value}))
    except ValueError as error:
        raise ValueError(f"over: {key} = {value!r}: {error}") from error


def _names(part: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(part)]


def _inside(field: Any, path: Sequence[str], value: Any, key: str) -> Any:
    """An expression, or a tuple of them, with another argument at the end of a path of names and numbers."""
    if isinstance(field, tuple):
        if not (path[0].isdigit() and int(path[0]) < len(field)):
            raise ValueError(f"over: {key}: {path[0]!r} must be the number of one of {len(field)} entries, from 0")
        number = int(path[0])
        if len(path) == 1:
            return (*field[:number], value, *field[number + 1 :])
        return (*field[:number], _inside(field[number], path[1:], value, key), *field[number + 1 :])
    if not isinstance(field, str):
        raise ValueError(f"over: {key}: {field!r} has nothing inside")
    tree = ast.parse(field, mode="eval").body
    call = ast.Call(tree, [], []) if isinstance(tree, ast.Name) else tree
    node = call
    for name in path[:-1]:
        node = _argument(node, name, key)
    _set(node, path[-1], ast.parse(repr(value), mode="eval").body, key)
    return ast.unparse(ast.fix_missing_locations(call))


def _argument(node: ast.expr, name: str, key: str) -> ast.expr:
    if isinstance(node, ast.Call):
        if name.isdigit() and int(name) < len(node.args):
            return node.args[int(name)]
        for keyword in node.keywords:
            if keyword.arg == name:
                return keyword.value
    raise ValueError(f"over: {key}: {ast.unparse(node)} has no argument {name}")


def _set(node: ast.expr, name: str, value: ast.expr, key: str) -> None:
    if not isinstance(node, ast.Call):
        raise ValueError(f"over: {key}: {ast.unparse(node)} takes no arguments")
    if name.isdigit():
        if int(name) >= len(node.args):
            raise ValueError(f"over: {key}: {ast.unparse(node)} has no argument number {name}")
        node.args[int(name)] = value
        return
    for keyword in node.keywords:
        if keyword.arg == name:
            keyword.value = value
            return
    node.keywords.append(ast.keyword(name, value))
