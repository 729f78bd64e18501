"""What the project files promise: versions that agree, a complete lock, a clean wheel, code of readable size."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("fedjax_rl", "bench", "experiments", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
PYTHONS = ("3.11", "3.12", "3.13")


def locked(python: str) -> dict[str, str]:
    """The pins of the development lock that hold for a Python on Linux."""
    pins = {}
    for line in (ROOT / "requirements-dev.lock").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{line} is not a pin"
        if requirement.marker is None or holds(requirement.marker, python):
            pins[canonicalize_name(requirement.name)] = pin.version
    return pins


def holds(marker: Marker, python: str, extra: str = "") -> bool:
    environment = {"python_version": python, "sys_platform": "linux", "platform_system": "Linux", "extra": extra}
    return marker.evaluate(environment)


def test_version_is_the_newest_of_the_changelog() -> None:
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"] == importlib.metadata.version("fedjax_rl")


def test_extras_exist() -> None:
    assert {"cuda", "log", "parquet", "bench", "dev"} <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_holds_every_declared_dependency(python: str) -> None:
    assert python in SpecifierSet(PROJECT["requires-python"])
    extras = PROJECT["optional-dependencies"]
    declared = [Requirement(line) for key in ("log", "parquet", "bench", "dev") for line in extras[key]]
    declared += [Requirement(line) for line in PROJECT["dependencies"]]
    pins = locked(python)
    for requirement in declared:
        name = canonicalize_name(requirement.name)
        if name == canonicalize_name(PROJECT["name"]):  # an extra that names other extras
            continue
        assert name in pins, f"{requirement} is not locked for Python {python}"
        assert pins[name] in requirement.specifier, f"{requirement} excludes the locked {pins[name]}"


def test_lock_is_closed_under_requirements() -> None:
    # `make` installs the lock without resolving, so a package that is missing there is missing for good.
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = locked(python)
    for name in pins:
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or holds(requirement.marker, python):
                assert canonicalize_name(requirement.name) in pins, f"{name} needs {line}, which is not locked"


def test_lock_names_no_index() -> None:
    text = (ROOT / "requirements-dev.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text, re.MULTILINE)  # no option such as --index-url


def test_command_is_installed() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="fedjax-rl")
    assert callable(entry.load())


def test_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {name.split("/")[0] for name in names}
    assert folders == {"fedjax_rl", f"fedjax_rl-{PROJECT['version']}.dist-info"}
    presets = {f"fedjax_rl/training/presets/{path.name}" for path in ROOT.glob("fedjax_rl/training/presets/*.toml")}
    assert presets
    assert presets <= names


@pytest.mark.parametrize("file", SOURCES)
def test_code_is_of_readable_size(file: str) -> None:
    source = (ROOT / file).read_text()
    assert len(source.splitlines()) <= 600
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{file}:{node.lineno} {node.name} has {length} lines"


def test_the_worked_example_of_contributing_is_a_good_aggregator() -> None:
    code = (ROOT / "CONTRIBUTING.md").read_text().split("```python\n")[1].split("```")[0]
    space: dict = {"__package__": "fedjax_rl.aggregators", "__name__": "fedjax_rl.aggregators._geometric_median"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), space)
    rule = space["geometric_median"](100)
    rows = jnp.asarray([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [1.0, 1.0], [1.0, 1.0]])
    for scale in (1.0, 1e30):
        _, found = rule.apply(jax.random.key(0), (), {"x": scale * rows}, jnp.ones(5))
        np.testing.assert_allclose(found["x"], [scale, scale], rtol=1e-3)  # two of five lie there: a vertex minimum
