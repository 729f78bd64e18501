"""Components by name: `"trimmed_mean(0.1)"` in a config becomes the component, without ever evaluating code.

The text is parsed into a syntax tree, and only calls of registered names with literal arguments are accepted: numbers,
strings, booleans, None, tuples, lists, dictionaries and nested calls. Everything else is refused before anything runs.
"""

import ast
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


MAX_LENGTH = 2000  # longer texts are no component names, and deep nesting would exhaust the parser


class Call(NamedTuple):
    """A parsed component expression: a name, positional and named arguments (literals or nested calls)."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


def choices(name: str, names: Iterable[str], label: str) -> str:
    """Returns "; did you mean X? <label>: X, Y, Z", without the question where no name is close to the given one."""
    names = list(names)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return (f"; did you mean {close[0]}? " if close else "; ") + f"{label}: {', '.join(names)}"


def parse(text: str) -> Call:
    """Parses `name(literal, key=literal, other=nested(0.5))`; a bare `name` is a call without arguments.

    Args:
        text: the expression.

    Returns:
        The parsed call; lists become tuples.

    Raises:
        ValueError: the text is no such expression; nothing in it has been executed.

    Example:
        >>> parse("clip(1.0)")
        Call(name='clip', args=(1.0,), kwargs={})
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'expected a component such as "mean()", got {text!r}')
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a component may have at most {MAX_LENGTH} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _top(tree)
    except SyntaxError as error:
        raise ValueError(f"{text!r} is not a component: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"{text[:40]!r}... is not a component: nested too deeply") from None


def _top(node: ast.expr) -> Call:
    if isinstance(node, ast.Name):
        return Call(node.id)
    if isinstance(node, ast.Call):
        return _call(node)
    raise SyntaxError(f"expected name(...), found {ast.unparse(node)}")


def _call(node: ast.Call) -> Call:
    if not isinstance(node.func, ast.Name):
        raise SyntaxError(f"only a registered name can be called, not {ast.unparse(node.func)}")
    kwargs = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise SyntaxError("** is not allowed, write the arguments out")
        if keyword.arg in kwargs:
            raise SyntaxError(f"{keyword.arg} is given twice")
        kwargs[keyword.arg] = _value(keyword.value)
    return Call(node.func.id, tuple(_value(argument) for argument in node.args), kwargs)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
            return -value if isinstance(node.op, ast.USub) else value
        case ast.Tuple() | ast.List():
            return tuple(_value(item) for item in node.elts)
        case ast.Dict() if all(key is not None for key in node.keys):
            return {_key(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
        case ast.Name(id="inf" | "nan"):
            return float(node.id)
        case ast.Call():
            return _call(node)
    raise SyntaxError(f"{ast.unparse(node)} is neither a literal nor a component; allowed are numbers, strings, "
                      "True, False, None, tuples, lists, dictionaries and name(...)")  # fmt: skip


def _key(node: ast.expr | None) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
        return node.value
    raise SyntaxError("the keys of a dictionary must be strings or integers")


def signature_of(name: str, factory: Callable[..., Any], given: Iterable[str] = ()) -> str:
    """Returns "name(a, b=1)": no annotations, and no arguments that the configuration gives."""
    return f"{name}{_bare_signature(factory, given)}"


def _bare_signature(factory: Callable[..., Any], given: Iterable[str]) -> inspect.Signature:
    given = set(given)
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.name not in given
    ]
    return inspect.Signature(parameters)


def instantiate(
    call: Call, factory: Callable[..., Any], given: Mapping[str, Any], resolve: Callable[[Call], Any]
) -> Any:
    """Calls a factory with the arguments of a parsed call.

    Args:
        call: the parsed expression.
        factory: what its name stands for.
        given: arguments that the configuration supplies, by parameter name (the policy, the number of agents); those
            that the factory has no parameter for are left out.
        resolve: turns a nested call into a value.

    Raises:
        ValueError: the arguments do not fit the signature, or the factory refuses their values.
    """
    parameters = inspect.signature(factory).parameters
    given = {name: value for name, value in given.items() if name in parameters}
    twice = sorted(set(given) & set(call.kwargs))
    if twice:
        raise ValueError(f"{call.name}: {', '.join(twice)} is set by the configuration, not in the expression")

    def value(item: Any) -> Any:
        if isinstance(item, Call):
            return resolve(item)
        if isinstance(item, tuple):
            return tuple(value(x) for x in item)
        return {key: value(x) for key, x in item.items()} if isinstance(item, dict) else item

    shown = signature_of(call.name, factory, given)
    try:
        bound = _bare_signature(factory, given).bind(*call.args, **call.kwargs)
    except TypeError as error:
        raise ValueError(f"{call.name}: {error}; the signature is {shown}") from None
    arguments = {name: value(item) for name, item in bound.arguments.items()}
    args, kwargs = [], {}
    positional = True  # a parameter after one that was left to its default must be passed by name
    for parameter in parameters.values():
        source = given if parameter.name in given else arguments
        if parameter.name not in source:
            positional = positional and parameter.kind is parameter.VAR_POSITIONAL
        elif parameter.kind is parameter.VAR_POSITIONAL:
            args.extend(source[parameter.name])
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update(source[parameter.name])
        elif positional and parameter.kind is not parameter.KEYWORD_ONLY:
            args.append(source[parameter.name])
        else:
            kwargs[parameter.name] = source[parameter.name]
    try:
        return factory(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"{call.name}: {error}; the signature is {shown}") from error
