"""What is measured (`Setting`) and what comes out of it (`Measurement`): one JSON object per line."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any


WORKS = (
    "matmul", "fma", "copy", "gymnax_random", "gymnax_policy", "network", "gradient", "rollout", "round", "ppo", "lsa",
    "lsa_double", "arrivals", "acting", "sgd", "noisy", "trimmed", "flat", "cohort", "processes", "preset",
    "peer_sb3", "peer_flower", "peer_torch_tutorial", "peer_gymnax",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Setting:
    """Everything that a figure depends on and that we choose; runs are comparable where it is equal."""

    work: str  # one of WORKS
    num_agents: int = 1  # N
    num_envs: int = 1  # E per agent; the whole batch for gymnax
    num_steps: int = 200  # T
    hidden_sizes: tuple[int, ...] = (64, 64)
    num_local_steps: int = 1
    chunk_size: int | None = None  # agents per vmap on one device; None: as the library chooses
    rounds_per_call: int = 1
    num_devices: int = 1
    matmul_size: int = 2048  # side of the square matrices that measure the machine beside the work
    variant: str = ""  # the name of a preset

    def __post_init__(self) -> None:
        if self.work not in WORKS:
            raise ValueError(f"work must be one of {', '.join(WORKS)}, got {self.work!r}")
        if self.work == "gradient" and self.num_envs * self.num_steps < 128:
            raise ValueError(
                "num_envs x num_steps must be at least 128 for the work gradient (rounds take the gradients of several "
                f"agents with less together), got {self.num_envs} x {self.num_steps}"
            )

    @property
    def label(self) -> str:
        """Short name for tables and plots, without the size that `scaling` varies."""
        if self.work == "matmul":
            return f"matmul {self.matmul_size}"
        if self.unit:
            return self.work
        if self.work.startswith("lsa"):
            return f"{self.work}, {self.num_steps} local steps"
        if self.work == "preset":
            return f"preset {self.variant}"
        if self.work == "arrivals":
            return f"arrivals, {self.num_envs} x {self.num_steps} steps"
        net = "" if self.work == "gymnax_random" else " " + "-".join(map(str, self.hidden_sizes))
        local = f", {self.num_local_steps} local steps" if self.num_local_steps > 1 else ""
        shape = f"{self.num_steps}" if self.work.startswith("gymnax") else f"{self.num_envs} x {self.num_steps}"
        return f"{self.work}{net}, {shape} steps{local}"

    @property
    def unit(self) -> str:
        """What the rate of the machine itself is counted in; empty for works that act or learn."""
        return {"matmul": "GFLOP/s", "fma": "GFLOP/s", "copy": "GB/s"}.get(self.work, "")

    @property
    def size(self) -> int:
        """The size that `scaling` varies: agents, or environments of gymnax."""
        return self.num_envs if self.work.startswith("gymnax") else self.num_agents


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One line of a file of measurements."""

    setting: Setting
    flags: dict[str, str]  # environment variables that change the compiler or the number format
    time: str  # when, UTC, ISO 8601
    git_revision: str  # with "-dirty" where files differ from it
    machine: str  # operating system and architecture
    cpu_model: str
    num_cores: int  # logical ones this process may use
    num_physical_cores: int | None
    device: str  # kind of the devices the work ran on
    versions: dict[str, str]  # python, jax, jaxlib, numpy, gymnax, fedjax_rl; with "peer " ahead, those of a peer
    compile_seconds: float  # tracing and compiling the call that is timed
    seconds: float  # median over the calls
    seconds_all: tuple[float, ...]  # every call after the warm-up
    env_steps_per_second: float | None
    agent_updates_per_second: float | None
    machine_rate: float | None  # in the setting's unit, of works that measure the machine itself
    peak_rss_mb: float  # of this process alone, compilation included, before the matmul of the same run [MB = 1e6 B]
    compile_rss_mb: float  # the same after compiling, before the first call: what the compiler itself needs [MB]
    peak_device_mb: float | None  # where the device counts it
    matmul_gflops: float  # median over calls between those of the work
    flop_per_step: float | None  # of the network: acting, and the gradient in a round
    share_of_bound: float | None  # env_steps_per_second over what matmul_gflops would allow
    over_reference: float | None  # speed over that of the same work done plainly, median over pairs of calls in turns

    def to_json(self) -> str:
        """One line, without the line break."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Measurement":
        """Reads a line.

        Raises:
            ValueError: it is no JSON object, lacks a field, or a field has the wrong type.
        """
        fields = _checked(Measurement, json.loads(text))
        return Measurement(**{**fields, "setting": Setting(**_checked(Setting, fields["setting"]))})


def append(path: Path, measurement: Measurement) -> None:
    """Adds a line to a file of measurements."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(measurement.to_json() + "\n")


def read(paths: Iterable[Path]) -> list[Measurement]:
    """Reads files of measurements.

    Raises:
        ValueError: a line is damaged; names the file and the line.
        OSError: a file cannot be read.
    """
    found = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                found.append(Measurement.from_json(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def _checked(kind: type, fields: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON gave them, lists as tuples; raises `ValueError` on another schema."""
    if not isinstance(fields, dict):
        raise ValueError(f"must be a JSON object, got {fields!r}")
    types_ = typing.get_type_hints(kind)
    if fields.keys() != types_.keys():
        missing, unknown = sorted(types_.keys() - fields.keys()), sorted(fields.keys() - types_.keys())
        raise ValueError(f"{kind.__name__} lacks the fields {missing} and has the unknown fields {unknown}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    for name, value in values.items():
        if not _is_a(value, types_[name]):
            raise ValueError(f"{name} must be {types_[name]}, got {value!r}")
    return values


def _is_a(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return any(_is_a(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(item, arguments[1]) for item in value.values())
    if kind is Setting:
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind or (kind is types.NoneType and value is None)
