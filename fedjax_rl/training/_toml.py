"""TOML to nested frozen dataclasses and back, strictly: every error names the file, the line and the key."""

import dataclasses
import functools
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from ._expressions import choices


T = TypeVar("T")

_NAMES = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


class ConfigError(ValueError):
    """A configuration that cannot be used; `key` is the dotted path of the entry at fault."""

    def __init__(self, key: str, message: str):
        super().__init__(f"{key} {message}" if key else message)
        self.key, self.message = key, message


def loads(kind: type[T], text: str, source: str = "") -> T:
    """Reads a dataclass from TOML text.

    Args:
        kind: the dataclass; its fields may be numbers, strings, booleans, literals, tuples, unions and dataclasses.
        text: the TOML document; absent keys keep the field's default.
        source: the name of the file, for messages.

    Raises:
        ValueError: the text is no TOML, holds an unknown key, or a value of another type or out of range.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source or 'configuration'}: not valid TOML: {error}") from None
    try:
        return from_dict(kind, table)
    except ConfigError as error:
        line = _line_of(text, error.key)
        where = ", ".join([part for part in (source, f"line {line}" if line else "") if part])
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def load(kind: type[T], path: str | Path) -> T:
    """Reads a dataclass from a TOML file; see `loads`."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no configuration file {path}") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from None
    return loads(kind, text, str(path))


def dumps(value: Any, header: str = "") -> str:
    """Writes a dataclass as TOML that reads back equal; fields that are None are left out."""
    lines = "".join(f"# {line}\n" for line in header.splitlines())
    text = tomli_w.dumps(to_dict(value), multiline_strings=False)
    # Short lists on one line; a raw line break is always structure, since strings write theirs as an escape.
    text = re.sub(r"\[\n((?:    [^\n]{1,40},\n){1,8})\]", lambda match: f"[{_joined(match[1])}]", text)
    return (lines + "\n" if lines else "") + text


def _joined(entries: str) -> str:
    return ", ".join(line.strip().removesuffix(",") for line in entries.splitlines())


def to_dict(value: Any) -> dict[str, Any]:
    """Turns a dataclass into nested dictionaries of TOML values, simple values before tables."""

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item):
            return to_dict(item)
        return [plain(x) for x in item] if isinstance(item, tuple) else item

    pairs = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    pairs.sort(key=lambda pair: dataclasses.is_dataclass(pair[1]))
    return {name: plain(item) for name, item in pairs if item is not None}


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """Returns the resolved type of each field of a dataclass."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def from_dict(kind: type[T], table: Mapping[str, Any], path: str = "") -> T:
    """Builds a dataclass from nested dictionaries.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value that the dataclass refuses.
    """
    known = field_types(kind)
    values = {}
    for key, value in table.items():
        here = f"{path}.{key}" if path else key
        if key not in known:
            section = f"[{path}]" if path else "the top level"
            raise ConfigError(here, "is not a known key" + choices(key, known, f"keys of {section}"))
        values[key] = _convert(known[key], value, here)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}.{error.key}" if path else error.key, error.message) from None


def _convert(kind: Any, value: Any, path: str) -> Any:
    """Checks one value against a type; integers pass as floats, lists become tuples."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(path, f"must be a table [{path}], got {_shown(value)}")
        return from_dict(kind, value, path)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        for option in get_args(kind):
            try:
                return _convert(option, value, path)
            except ConfigError:
                continue
        raise ConfigError(path, f"must be {describe(kind)}, got {_shown(value)}")
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
            return value
        raise ConfigError(path, f"must be {describe(kind)}, got {_shown(value)}")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(path, f"must be {describe(kind)}, got {_shown(value)}")
        return tuple(_convert(get_args(kind)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ConfigError(path, f"must be {describe(kind)}, got {_shown(value)}")
    return value


def describe(kind: Any) -> str:
    """Returns what a type expects, in words: `int | Literal["auto"]` is "an integer or 'auto'"."""
    if kind in _NAMES:
        return _NAMES[kind]
    origin, args = get_origin(kind), [option for option in get_args(kind) if option is not type(None)]
    if origin is tuple:
        return f"a list, each entry {describe(args[0])}"
    if origin is Literal:
        return " or ".join(repr(choice) for choice in args)
    return " or ".join(describe(option) for option in args)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) < 80 else text[:77] + '...'} ({type(value).__name__})"


def _line_of(text: str, key: str) -> int | None:
    """Finds the line that sets a dotted key, or the header of its table; None where neither is found."""
    key = re.sub(r"\[\d+\]$", "", key)
    table, best = "", None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([\w\-.\s\"']+?)\s*\]", line):
            table = re.sub(r"[\s\"']", "", header[1])
            if table == key:
                return number
            if key.startswith(f"{table}."):
                best = number
        elif entry := re.match(r"\s*([\w\-.\"']+)\s*=", line):
            name = re.sub(r"[\"']", "", entry[1])
            if (f"{table}.{name}" if table else name) == key:
                return number
    return best
