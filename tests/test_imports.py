"""The import direction of the package: every file imports strictly lower levels and siblings of its own room."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


PACKAGE = "fedjax_rl"
ROOT = Path(__file__).parents[1] / PACKAGE
ROOMS = (
    ("core",),
    ("envs", "policies", "rl", "privacy"),
    ("learners", "aggregators", "transforms", "topologies", "participation", "theory", "metrics"),
    ("registry",),
    ("training",),
    ("",),  # the package's own __init__, which exports from everywhere
    ("cli", "__main__"),  # the command
)
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def is_module(parts: tuple[str, ...]) -> bool:
    """Whether the dotted name below the package is a file or a folder of it."""
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(file: str, source: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields the line and the module (parts below the package) of every import from the package, lazy ones too."""
    folder = (PACKAGE, *Path(file).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(folder[: len(folder) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            # `from package import x`: x may be a module of its own.
            children = [[*base, alias.name] for alias in node.names]
            names = [child if child[0] == PACKAGE and is_module(tuple(child[1:])) else base for child in children]
        else:
            continue
        for name in names:
            if name[0] == PACKAGE:
                yield node.lineno, tuple(name[1:])


def room_of(file: str) -> str:
    """The room a file belongs to; "" for the package's own __init__."""
    first = Path(file).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def level_of(room: str) -> int:
    """The level of a room, "" for the package itself."""
    if room not in LEVELS:
        raise AssertionError(f"{PACKAGE}/{room} has no level; add it to ROOMS in {Path(__file__).name}")
    return LEVELS[room]


def violations(file: str, source: str) -> list[str]:
    """What a file imports although it may not, one sentence each."""
    room, found = room_of(file), []
    for line, parts in imported(file, source):
        other = parts[0] if parts else ""
        name = ".".join((PACKAGE, *parts))
        if other != room and level_of(other) >= level_of(room):
            found.append(f"{file}:{line} imports {name}, which is not below its own level {level_of(room)}")
        if other != room and any(part.startswith("_") for part in parts[1:]):
            found.append(f"{file}:{line} imports {name}, a private file of another room")
    return found


@pytest.mark.parametrize("file", FILES)
def test_file_imports_lower_levels_only(file: str) -> None:
    assert violations(file, (ROOT / file).read_text()) == []


@pytest.mark.parametrize(
    ("file", "source", "good"),
    [
        ("learners/_ppo.py", "from fedjax_rl.core import component", True),
        ("learners/_ppo.py", "from ._objective import Objective", True),
        ("learners/_ppo.py", "from fedjax_rl import core", True),
        ("learners/_ppo.py", "import jax", True),
        ("__init__.py", "from .core import run as run", True),
        ("cli.py", "from .training import train", True),
        ("cli.py", "from . import __version__", True),
        ("__init__.py", "from .cli import main", False),
        ("learners/_ppo.py", "from fedjax_rl.aggregators import mean", False),
        ("learners/_ppo.py", "from ..aggregators import mean", False),
        ("learners/_ppo.py", "def f():\n    import fedjax_rl.registry", False),
        ("learners/_ppo.py", "from fedjax_rl.core._component import component", False),
        ("learners/_ppo.py", "from fedjax_rl import run", False),
        ("core/_round.py", "from .. import envs", False),
        ("core/_round.py", "import fedjax_rl", False),
        ("envs/_base.py", "from fedjax_rl.rl import rollout", False),
        ("training/_train.py", "from ..cli import main", False),
    ],
)
def test_checker_tells_good_from_bad(file: str, source: str, good: bool) -> None:
    assert (violations(file, source) == []) is good


def test_every_room_has_a_level() -> None:
    for file in FILES:
        level_of(room_of(file))


def python(code: str) -> str:
    """What the code prints in an interpreter of its own."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_package_leaves_slow_libraries_alone() -> None:
    slow = ("gymnax", "gymnasium", "matplotlib", "pandas", "orbax.checkpoint")
    assert all(importlib.util.find_spec(name.split(".")[0]) for name in slow)
    assert python(f"import sys, fedjax_rl; print([m for m in {slow} if m in sys.modules])") == "[]"


def test_gymnax_imports() -> None:
    # gymnax needs six without declaring it.
    assert python("import gymnax; print(hasattr(gymnax, 'make'))") == "True"
