"""The configuration of an experiment: nested frozen dataclasses that read like the sentence `make_round(...)`."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from . import _toml
from ._expressions import choices, parse
from ._toml import ConfigError


PRESETS = Path(__file__).parent / "presets"


def _at_least(section: Any, minimum: float, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not isinstance(value, str) and value is not None and not (value >= minimum and math.isfinite(value)):
            raise ConfigError(name, f"must be at least {minimum}, got {value!r}")


def _components(section: Any, *names: str) -> None:
    """Checks the form of component expressions; their names and arguments are checked when they are built."""
    for name in names:
        value = getattr(section, name)
        for text in value if isinstance(value, tuple) else (value,) if value is not None else ():
            try:
                parse(text)
            except ValueError as error:
                raise ConfigError(name, f"is wrong: {error}") from None


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """The worlds the agents live in."""

    family: str = "cartpole_family('packer-r')"
    """The family of environments: one physics for each agent."""

    def __post_init__(self) -> None:
        _components(self, "family")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """The network: multilayer perceptrons, for actor and critic or for action values, as the objective needs."""

    kind: Literal["mlp", "gru"] = "mlp"
    """mlp: acts on what it sees; gru: remembers the episode, for worlds whose physics does not show."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""
    memory_size: int = 64
    """Cells of the memory of kind gru."""
    activation: str = "tanh"
    """Activation function of the hidden layers."""
    shared_trunk: bool = True
    """Whether actor and critic share the hidden layers."""
    initialization: Literal["orthogonal", "uniform"] = "orthogonal"
    """How parameters begin: orthogonal with a small actor's head, or uniform as in PyTorch's linear layers."""
    squash: bool = False
    """Continuous actions: squash the Gaussian into the action box with tanh."""
    normalize_observations: bool = False
    """Whether the network reads observations minus their running mean, over their running standard deviation."""
    normalize_rewards: bool = False
    """Whether learning sees rewards divided by the running standard deviation of the returns."""
    initial_log_std: float = 0.0
    """Continuous actions: initial logarithm of the standard deviation."""

    def __post_init__(self) -> None:
        if not all(size >= 1 for size in self.hidden_sizes):
            raise ConfigError("hidden_sizes", f"must be positive, got {list(self.hidden_sizes)}")
        _at_least(self, 1, "memory_size")


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """What one agent plays for one local step."""

    num_envs: int = 8
    """Environments that one agent plays at a time."""
    num_steps: int = 128
    """Steps of each environment."""
    episodes: Literal["continue", "fresh"] = "continue"
    """continue: environments go on where they stopped; fresh: each plays one new episode, cut at num_steps."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_envs", "num_steps")


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """What one agent does between two meetings."""

    objective: str = "ppo()"
    """The local reinforcement learning algorithm."""
    optimizer: str = "adam(learning_rate=0.001)"
    """The local optimiser: an optax name with its numbers."""
    num_local_steps: int = 1
    """Rollouts, each followed by its gradient steps, in one round."""
    num_epochs: int = 1
    """Passes over the data of a rollout."""
    num_minibatches: int = 1
    """Gradient steps in a pass."""
    corrections: tuple[str, ...] = ()
    """Corrections of local training, such as proximal(0.1)."""
    upload: Literal["delta", "gradient"] = "delta"
    """What is sent: the change of the parameters or a gradient."""
    weight: Literal["samples", "steps", "uniform"] = "uniform"
    """Whether messages count by their number of samples or alike."""
    optimizer_state: Literal["reset", "keep", "average"] = "keep"
    """What happens to the local optimiser's memory between rounds."""
    statistics: Literal["federated", "local"] = "federated"
    """Running statistics of a normalising policy: added up over all agents, or each agent's own."""
    measure_kl: bool = False
    """Report the divergence of the trained from the downloaded policy."""
    algorithm: str = "local_training()"
    """The learner; the settings above are its arguments where it takes them."""
    wrappers: tuple[str, ...] = ()
    """What changes the learner, in order, such as aggregate_only(('actor',))."""
    server_optimizer: str | None = None
    """An optimiser that turns the aggregate into the server's step (adam: FedAdam, yogi: FedYogi)."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_local_steps", "num_epochs", "num_minibatches")
        _components(self, "objective", "optimizer", "corrections", "algorithm", "wrappers", "server_optimizer")


@dataclasses.dataclass(frozen=True)
class RoundConfig:
    """How the agents meet."""

    aggregator: str = "mean()"
    """How many messages become one."""
    transforms: tuple[str, ...] = ()
    """What happens to a message on its way, in order."""
    topology: str = "star()"
    """Where models live and who meets whom."""
    participation: str = "everyone()"
    """Who acts, and when."""

    def __post_init__(self) -> None:
        _components(self, "aggregator", "transforms", "topology", "participation")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Episodes that are only played to measure."""

    every: int = 10
    """Rounds between two evaluations; 0: only after the last round."""
    episodes: int = 100
    """At least so many episodes in an evaluation, spread evenly over the agents."""
    max_agents: int = 1000
    """At most so many agents play in an evaluation, evenly strided."""
    per_agent_every: int = 0
    """Evaluations between two whose returns are kept agent by agent (agents.jsonl); 1: all; 0: none."""
    unseen_agents: int = 100
    """Agents that never took part, for the final evaluation."""
    final_episodes: int = 10
    """Episodes of each agent in the final evaluation."""
    greedy: bool = False
    """Play the most likely action instead of a sampled one."""
    success: tuple[float, ...] = (195.0, 475.0)
    """An episode succeeds when its return reaches the threshold; `success_rate` refers to the last one."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "every", "per_agent_every", "unseen_agents")
        _at_least(self, 1, "episodes", "max_agents", "final_episodes")


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """What is written while training."""

    every: int = 1
    """Rounds between two lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "every")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What is kept to go on later."""

    every_rounds: int = 0
    """Rounds between two checkpoints; 0: by time only. The end of a run is always saved."""
    every_seconds: float = 60.0
    """Seconds between two checkpoints; 0: by rounds only."""
    keep: int = 2
    """How many checkpoints are kept."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "every_rounds", "every_seconds")
        _at_least(self, 1, "keep")


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """An experiment: N agents, each in its own world, learn one round after the other.

    Example:
        >>> config = preset("cartpole")
        >>> config = config.replace(num_agents=64, round={"aggregator": "trimmed_mean(0.1)"})
    """

    name: str = "experiment"
    """Name of the experiment; the run folder is called after it."""
    description: str = ""
    """One line that says what it shows."""
    seed: int = 0
    """Everything random follows from it."""
    num_seeds: int = 1
    """So many seeds (seed, seed + 1, ...) are trained side by side."""
    num_agents: int | Literal["auto"] = 100
    """Number of agents; auto: one for each row of a fleet table."""
    num_rounds: int = 100
    """Rounds of communication."""
    chunk_size: int | Literal["auto", "none"] = "auto"
    """Agents worked on at a time: a matter of speed and memory, not of results."""
    devices: int | Literal["auto"] = "auto"
    """Devices that share the agents; auto: all of them."""
    world: WorldConfig = WorldConfig()
    policy: PolicyConfig = PolicyConfig()
    rollout: RolloutConfig = RolloutConfig()
    learner: LearnerConfig = LearnerConfig()
    round: RoundConfig = RoundConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_seeds", "num_agents", "num_rounds", "chunk_size", "devices")
        _at_least(self, 0, "seed")
        if self.seed >= 2**31 - self.num_seeds:
            raise ConfigError("seed", f"must be below 2147483648, got {self.seed}")

    def replace(self, **changes: Any) -> "ExperimentConfig":
        """Returns a copy with other values; a section takes a dictionary of its changed fields.

        Raises:
            ValueError: an unknown field or a bad value.
        """
        table = _toml.to_dict(self)
        for name, value in changes.items():
            if isinstance(value, dict) and isinstance(table.get(name), dict):
                value = {**table[name], **value}
            elif dataclasses.is_dataclass(value):
                value = _toml.to_dict(value)
            table[name] = value
        drop_none = {
            name: {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
            for name, value in table.items()
        }
        return _toml.from_dict(ExperimentConfig, drop_none)

    def to_toml(self, header: str = "") -> str:
        """Returns the configuration as TOML text, with every field; it reads back equal."""
        return _toml.dumps(self, header)

    @staticmethod
    def from_toml(text: str, source: str = "") -> "ExperimentConfig":
        """Reads a configuration from TOML text; absent keys keep their defaults.

        Raises:
            ValueError: with the line and the key at fault.
        """
        return _toml.loads(ExperimentConfig, text, source)

    @staticmethod
    def load(path: str | Path) -> "ExperimentConfig":
        """Reads a configuration from a TOML file; see `from_toml`."""
        return _toml.load(ExperimentConfig, path)

    def differences(self, other: "ExperimentConfig") -> dict[str, tuple[Any, Any]]:
        """Returns the dotted names of the fields that differ, each with the two values."""

        def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
            items: dict[str, Any] = {}
            for name, value in table.items():
                items |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
            return items

        mine, theirs = flat(_toml.to_dict(self)), flat(_toml.to_dict(other))
        names = [*mine, *(name for name in theirs if name not in mine)]
        return {name: (mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)}


def preset_names() -> tuple[str, ...]:
    """Returns the names of the presets in the package."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def preset(name: str) -> ExperimentConfig:
    """Returns a preset of the package by name.

    Raises:
        ValueError: there is no such preset; the message lists those there are.
    """
    if name not in preset_names():
        raise ValueError(f"there is no preset {name!r}{choices(name, preset_names(), 'presets')}")
    return ExperimentConfig.load(PRESETS / f"{name}.toml")
