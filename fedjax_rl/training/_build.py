"""From a configuration to the objects it names: family, policy, learner, round, devices."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from .. import registry
from ..core import EnvFamily, Learner, Round, make_mesh, make_round
from ..envs import Environment
from ..learners import Objective, optimizer, server_optimizer
from ..policies import Policy, gru_policy, mlp_policy, normalized_policy
from ._config import ExperimentConfig, LearnerConfig, PolicyConfig
from ._expressions import Call, choices, instantiate, parse


OPTIMIZERS = (
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad",
    "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "radam", "rmsprop", "sgd",
    "sign_sgd", "sm3", "yogi",
)  # fmt: skip
# May stand inside an optimiser: chain(clip_by_global_norm(0.5), adam(0.001)), sgd(cosine_decay_schedule(0.1, 500)),
# from_optax(scale(0.5)).
OPTIMIZER_PARTS = (
    "chain", "clip", "clip_by_global_norm", "adaptive_grad_clip", "add_decayed_weights", "scale",
    "zero_nans", "constant_schedule", "cosine_decay_schedule", "exponential_decay", "linear_schedule",
    "polynomial_schedule", "warmup_cosine_decay_schedule",
)  # fmt: skip


def optimizer_summaries() -> dict[str, str]:
    """The names of the optimisers, each with the first line of its documentation in optax."""
    return {name: (getattr(optax, name).__doc__ or "").strip().split("\n")[0] for name in OPTIMIZERS}


class Experiment(NamedTuple):
    """What a configuration stands for."""

    config: ExperimentConfig  # with the number of agents filled in
    family: EnvFamily
    policy: Policy
    learner: Learner
    round: Round
    mesh: Mesh | None  # shares the rows when there are several, else it is the round's own


def build(config: ExperimentConfig, num_runs: int | None = None) -> Experiment:
    """Composes the experiment of a configuration.

    Args:
        config: the configuration.
        num_runs: those that go on side by side, seeds and experiments; None: as many as there are seeds. The devices
            share the agents of a single one, else they share the runs.

    Raises:
        ValueError: a component is unknown, an argument is wrong or the combination cannot work; the text names the
            key of the configuration.
    """
    family = component("world.family", "families", config.world.family, {"num_envs": config.rollout.num_envs})
    config = _with_agents(config, family)
    _check_counters(config)
    num_agents = int(config.num_agents)
    objective = build_objective(config, family.env)
    policy = objective.policy
    learner = build_learner(config, objective)
    given = {"num_agents": num_agents, "family": family, "env": family.env, "learner": learner}
    meeting = config.round
    num_runs = num_runs or config.num_seeds
    mesh = _at("devices", lambda: make_mesh(_num_devices(config, num_runs)))
    parts: dict[str, Any] = {
        "transforms": tuple(
            component(f"round.transforms[{i}]", "transforms", text, given) for i, text in enumerate(meeting.transforms)
        ),
        "topology": component("round.topology", "topologies", meeting.topology, given),
        "participation": component("round.participation", "participation", meeting.participation, given),
    }
    aggregator = component("round.aggregator", "aggregators", meeting.aggregator, given)
    round_ = make_round(
        family,
        learner,
        aggregator,
        num_agents=num_agents,
        chunk_size=None if config.chunk_size == "none" else config.chunk_size,
        mesh=mesh if num_runs == 1 else None,
        **parts,
    )
    return Experiment(config, family, policy, learner, round_, mesh)


def build_objective(config: ExperimentConfig, env: Environment) -> Objective:
    """Composes the objective of a configuration: one that takes a `policy` gets the section's actor-critic network, one
    that takes `env` makes its own network from it and from the section's widths and functions.

    Raises:
        ValueError: as `build`.
    """
    section, rollout = config.policy, config.rollout
    network = {
        "hidden_sizes": section.hidden_sizes,
        "activation": section.activation,
        "initialization": section.initialization,
    }
    given: dict[str, Any] = {
        "env": env,
        "policy": _at("policy", lambda: build_policy(section, env)),
        **network,
        "num_envs": rollout.num_envs,
        "num_steps": rollout.num_steps,
        "episodes": rollout.episodes,
        "num_agents": config.num_agents,
    }
    objective = component("learner.objective", "objectives", config.learner.objective, given)
    wanted = [n for n in ("normalize_observations", "normalize_rewards") if getattr(section, n)]
    wanted += ["kind='gru'"] if section.kind == "gru" else []
    if wanted and objective.policy != given["policy"]:
        raise ValueError(f"policy.{wanted[0]}: {parse(config.learner.objective).name} has a network of its own")
    return objective


def build_policy(section: PolicyConfig, env: Environment) -> Policy:
    """The actor-critic network of a configuration.

    Raises:
        ValueError: a value is wrong, or the environment's spaces are not flat.
    """
    fields = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    kind, memory_size = fields.pop("kind"), fields.pop("memory_size")
    fields = {name: value for name, value in fields.items() if not name.startswith("normalize_")}
    policy = gru_policy(env, memory_size=memory_size, **fields) if kind == "gru" else mlp_policy(env, **fields)
    if section.normalize_observations or section.normalize_rewards:
        return normalized_policy(
            policy, observations=section.normalize_observations, rewards=section.normalize_rewards
        )  # fmt: skip
    return policy


def build_learner(config: ExperimentConfig, objective: Objective) -> Learner:
    """Composes the learner of a configuration.

    Raises:
        ValueError: as `build`.
    """
    section = config.learner
    given: dict[str, Any] = {"num_envs": config.rollout.num_envs, "num_agents": config.num_agents}
    fields = ("num_local_steps", "num_epochs", "num_minibatches", "upload", "weight", "optimizer_state", "statistics")
    given |= {name: getattr(section, name) for name in (*fields, "measure_kl")}
    given |= {"policy": objective.policy, "objective": objective}
    given["optimizer"] = build_optimizer("learner.optimizer", section.optimizer)
    given["corrections"] = tuple(
        component(f"learner.corrections[{i}]", "corrections", text, given) for i, text in enumerate(section.corrections)
    )
    learner: Learner = component("learner.algorithm", "learners", section.algorithm, given)
    _refuse_ignored(section, (*fields, "measure_kl", "optimizer", "corrections"))
    if section.server_optimizer is not None:
        learner = server_optimizer(learner, build_optimizer("learner.server_optimizer", section.server_optimizer))
    for i, text in enumerate(section.wrappers):
        learner = component(f"learner.wrappers[{i}]", "learners", text, {"learner": learner})
    return learner


def _refuse_ignored(section: LearnerConfig, names: Iterable[str]) -> None:
    """Raises where a setting was changed that the algorithm has no use for."""
    name = parse(section.algorithm).name
    known = inspect.signature(registry.get("learners", name)).parameters
    default = LearnerConfig()
    ignored = [n for n in names if n not in known and getattr(section, n) != getattr(default, n)]
    if ignored:
        shown = ", ".join(f"{n}={getattr(default, n)!r}" for n in ignored)
        raise ValueError(f"learner.algorithm: {name} takes no {', '.join(ignored)}; leave the default: {shown}")


def component(key: str, role: str, text: str, given: Mapping[str, Any] | None = None) -> Any:
    """Builds one component from its expression.

    Args:
        key: where the expression stands in the configuration, for messages.
        role: the role in the registry.
        text: the expression.
        given: arguments the configuration supplies by parameter name.

    Raises:
        ValueError: the name is not registered for the role, or the arguments do not fit.
    """
    return _at(key, lambda: _build_call(parse(text), role, given or {}))


def build_optimizer(key: str, text: str) -> Any:
    """Builds an optimiser from an optax name with its numbers, which stay leaves; `chain(...)` is built as it is.

    Raises:
        ValueError: the name is none of `OPTIMIZERS`, or the arguments do not fit.
    """

    def make() -> Any:
        call = parse(text)
        if call.name == "chain":
            return optimizer(_optax_call(call))
        if call.name not in OPTIMIZERS:
            names = [*OPTIMIZERS, "chain"]
            raise ValueError(f"{call.name!r} is not an optimiser{choices(call.name, names, 'optimisers')}")
        factory = getattr(optax, call.name)
        names = list(inspect.signature(factory).parameters)
        if len(call.args) > len(names):
            return instantiate(call, factory, {}, _optax_call)  # raises, and shows the signature
        named = Call(call.name, (), {**dict(zip(names, call.args, strict=False)), **call.kwargs})
        instantiate(named, factory, {}, _optax_call)
        values = {name: _optax_call(v) if isinstance(v, Call) else v for name, v in named.kwargs.items()}
        return optimizer(factory, **values)

    return _at(key, make)


def _optax_call(call: Call) -> Any:
    if call.name not in (*OPTIMIZERS, *OPTIMIZER_PARTS):
        known = choices(call.name, (*OPTIMIZERS, *OPTIMIZER_PARTS), "known")
        raise ValueError(f"{call.name!r} cannot stand in an optimiser{known}")
    return instantiate(call, getattr(optax, call.name), {}, _optax_call)


def _build_call(call: Call, role: str, given: Mapping[str, Any]) -> Any:
    names = registry.names(role)
    if call.name not in names:
        raise ValueError(f"{call.name!r} is not registered{choices(call.name, names, role)}")
    factory = registry.get(role, call.name)

    def nested(inner: Call) -> Any:
        """A nested call may belong to any role; its own role comes first."""
        for other in (role, *(r for r in registry.ROLES if r != role)):
            if inner.name in registry.names(other):
                # A schedule's num_steps is the length of its ramp, not that of a rollout.
                return _build_call(inner, other, {} if other == "schedules" else given)
        if inner.name in (*OPTIMIZERS, *OPTIMIZER_PARTS):
            return _optax_call(inner)
        known = [*(name for other in registry.ROLES for name in registry.names(other)), *OPTIMIZERS, *OPTIMIZER_PARTS]
        raise ValueError(f"{inner.name!r} is not registered{choices(inner.name, known, 'known')}")

    return instantiate(call, factory, given, nested)


def _at(key: str, make: Callable[[], Any]) -> Any:
    """Runs a part of the composition; an error names the key of the configuration that it belongs to."""
    try:
        return make()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{key}: {error}") from error
    except (ValueError, ImportError) as error:  # a component may need a package that is not installed
        raise ValueError(f"{key}: {error}") from error


# Families that read a file, and the argument that names it.
_FILES = {"fleet_family": "path", "family_from_arrays": "path_or_arrays"}


def tables(text: str) -> list[str]:
    """The files that the expression of a family reads."""

    def walk(call: Call) -> list[str]:
        items = [*call.args, *call.kwargs.values()]
        inside = [path for item in items if isinstance(item, Call) for path in walk(item)]
        if call.name not in _FILES:
            return inside
        return [str(call.kwargs.get(_FILES[call.name], call.args[0] if call.args else "")), *inside]

    return walk(parse(text))


def _check_counters(config: ExperimentConfig) -> None:
    """Raises where a round has more environment steps than its 32-bit sums hold."""
    steps = int(config.num_agents) * config.rollout.num_envs * config.rollout.num_steps * config.learner.num_local_steps
    if steps >= 2**31:
        raise ValueError(
            f"rollout: a round must have fewer than 2^31 environment steps, got {steps:,}; take more rounds of fewer"
        )


def _with_agents(config: ExperimentConfig, family: EnvFamily) -> ExperimentConfig:
    fixed = family.num_agents
    if config.num_agents == "auto":
        if fixed is None:
            raise ValueError("num_agents: 'auto' needs a family with one row per agent; give a number")
        return config.replace(num_agents=fixed)
    if fixed is not None and fixed != config.num_agents:
        raise ValueError(
            f"num_agents: the family has {fixed} training agents (a table's other rows stay unseen), got "
            f"{config.num_agents}; give --agents {fixed} or --agents auto"
        )
    return config


def _num_devices(config: ExperimentConfig, num_runs: int) -> int:
    """Devices to use: never more than there is work for, but all of several processes."""
    work = int(config.num_agents) if num_runs == 1 else num_runs
    if config.devices != "auto":
        return int(config.devices)
    if jax.process_count() > 1:
        return len(jax.devices())
    return max(1, min(len(jax.devices()), work))
