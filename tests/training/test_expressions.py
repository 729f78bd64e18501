"""Component expressions: what they may say, and that nothing else is ever run."""

from typing import Any

import pytest

from fedjax_rl.training._expressions import Call, choices, instantiate, parse


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("star", Call("star")),
        ("star()", Call("star")),
        ("  mean( )  ", Call("mean")),
        ("clip(1.0)", Call("clip", (1.0,))),
        ("f(-1, +2, 1e-3, True, None, 'a')", Call("f", (-1, 2, 1e-3, True, None, "a"))),
        ("f(x=(0.25, 0.75), y=[1, [2]])", Call("f", (), {"x": (0.25, 0.75), "y": (1, (2,))})),
        ("f(spread={'g': (5, 15), 2: 'b'})", Call("f", (), {"spread": {"g": (5, 15), 2: "b"}})),
        ("g(f(1), h=k(x=2))", Call("g", (Call("f", (1,)),), {"h": Call("k", (), {"x": 2})})),
    ],
)
def test_what_an_expression_may_say(text: str, call: Call) -> None:
    assert parse(text) == call


def test_infinity_is_a_number() -> None:
    assert parse("clip(inf)").args == (float("inf"),)
    assert parse("clip(-1e400)").args == (float("-inf"),)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {path}')",
        "open('{path}', 'w')()",
        "f(__import__('os').system('touch {path}'))",
        "f([open('{path}', 'w') for _ in (1,)])",
        "f((lambda: open('{path}', 'w'))())",
        "f(x := 1)",
        "f(*(1, 2))",
        "f(**{{'a': 1}})",
        "f(a.b)",
        "f(name)",
        "f(1 + 1)",
        "f(9 ** 9 ** 9)",
        "f('a' 'b' * 10)",
        "f(f'{{1}}')",
        "f(b'x')",
        "f(1j)",
        "f(...)",
        "f({{1, 2}})",
        "f({{**{{}}}})",
        "f(x)[0]",
        "(f)(1)(2)",
        "f(1); g(2)",
        "f(1)\ng(2)",
        "import os",
        "f(await g())",
        "f(yield)",
        "1",
        "'f'",
        "f(",
        "f(1",
        "f(x=1, x=2)",
        "",
        "   ",
        "\0",
        "f(" * 600 + ")" * 600,
        "f(" + "-" * 1500 + "1)",
        "f(" + "1," * 1500 + ")",
    ],
)
def test_nothing_else_is_accepted_and_nothing_runs(text: str, tmp_path) -> None:
    path = tmp_path / "executed"
    with pytest.raises(ValueError):
        parse(text.format(path=path))
    assert not path.exists()


def test_a_registered_name_is_not_looked_up_anywhere_else() -> None:
    """`eval`, `exec` and `open` parse as names; building refuses them because no role has them."""
    from fedjax_rl.training._build import component

    for text in ("eval('1')", "exec('x')", "open('f')", "print(1)", "__import__('os')", "mean(eval('1'))"):
        with pytest.raises(ValueError, match=r"x: '\w+' is not registered"):
            component("x", "aggregators", text) if "mean" not in text else component("x", "transforms", text)
    with pytest.raises(ValueError, match=r"x: 'eval' is not registered"):
        component("x", "aggregators", "trimmed_mean(eval('0.1'))")


def example(first: int, second: float = 2.0, *rest: int, key: str = "k", **others: Any) -> tuple:
    return first, second, rest, key, others


def no_nesting(call: Call) -> Any:
    return f"<{call.name}>"


@pytest.mark.parametrize(
    ("text", "given", "result"),
    [
        ("f(1)", {}, (1, 2.0, (), "k", {})),
        ("f(1, 3.0, 4, 5, key='q', z=6)", {}, (1, 3.0, (4, 5), "q", {"z": 6})),
        ("f(second=9)", {"first": 7}, (7, 9, (), "k", {})),
        ("f(9)", {"first": 7, "unknown": 1}, (7, 9, (), "k", {})),
        ("f()", {"first": 7, "key": "g"}, (7, 2.0, (), "g", {})),
        ("f(g(1), x=(h(2), 3), y={'a': h()})", {}, ("<g>", 2.0, (), "k", {"x": ("<h>", 3), "y": {"a": "<h>"}})),
    ],
)
def test_arguments_meet_the_signature(text: str, given: dict, result: tuple) -> None:
    assert instantiate(parse(text), example, given, no_nesting) == result


@pytest.mark.parametrize(
    ("text", "given", "parts"),
    [
        ("f()", {}, ["missing a required argument: 'first'", "f(first, second=2.0, *rest, key='k', **others)"]),
        ("f(1, first=2)", {}, ["multiple values"]),
        ("f(first=1)", {"first": 2}, ["first is set by the configuration"]),
    ],
)
def test_wrong_arguments_show_the_signature(text: str, given: dict, parts: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        instantiate(parse(text), example, given, no_nesting)
    for part in parts:
        assert part in str(error.value)


def test_a_factory_that_chokes_on_a_value_shows_its_signature() -> None:
    def double(x: float) -> float:
        return x + x + 1.0

    with pytest.raises(ValueError, match=r"f: .*the signature is f\(x\)"):
        instantiate(parse("f('a')"), double, {}, no_nesting)


def test_the_nearest_name_is_suggested() -> None:
    assert choices("trimed_mean", ["mean", "trimmed_mean"], "aggregators") == (
        "; did you mean trimmed_mean? aggregators: mean, trimmed_mean"
    )
    assert choices("xyz", ["mean"], "aggregators") == "; aggregators: mean"
