"""Six roles become a round, or a sentence that says why they cannot."""

import dataclasses
import inspect
import os
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from . import tree
from ._chunks import automatic_chunk_size
from ._component import check_count
from ._messages import UNKNOWN_JOB, Job
from ._neutral import Everyone, Star
from ._processes import least
from ._roles import Aggregator, EnvFamily, Learner, Need, Participation, Topology, Transform
from ._round import Round, expected_job, trace_one_agent


PyTree = Any


def make_round(
    family: EnvFamily,
    learner: Learner,
    aggregator: Aggregator,
    *,
    num_agents: int,
    transforms: tuple[Transform, ...] = (),
    topology: Topology | None = None,
    participation: Participation | None = None,
    chunk_size: int | Literal["auto"] | None = "auto",
    mesh: Mesh | None = None,
) -> Round:
    """Composes a federated round.

    Args:
        family: the worlds.
        learner: one agent between two meetings.
        aggregator: many messages become one.
        num_agents: N.
        transforms: what happens to a message on its way, in order.
        topology: where models live; None: one server (`star()`).
        participation: who acts; None: everyone.
        chunk_size: agents per `vmap`; "auto": as many as caches or an accelerator's memory take; None: all at once.
            The result does not depend on it.
        mesh: devices along an axis named "agents"; None: one device.

    Returns:
        A `Round`: `init(key)`, `step(state)`, `policies(state, index)`.

    Raises:
        ValueError: a value is wrong or the combination cannot work; the text says which and what to do.

    Example:
        >>> import jax, optax
        >>> from fedjax_rl import aggregators, envs, learners, make_round, policies, run
        >>> family = envs.cartpole_family("packer-r")
        >>> learner = learners.local_training(
        ...     learners.actor_critic(policies.mlp_policy(family.env), num_envs=2, num_steps=8), optax.adam(1e-3))
        >>> round_ = make_round(family, learner, aggregators.mean(), num_agents=3)
        >>> state, history = run(round_, round_.init(jax.random.key(0)), num_rounds=2)
        >>> history["env_steps"].tolist()
        [48, 48]
    """
    check_count("num_agents", num_agents)
    if chunk_size not in (None, "auto"):
        check_count("chunk_size", chunk_size, remedy="use None for all agents at once, or 'auto'")
    topology = Star() if topology is None else topology
    participation = Everyone() if participation is None else participation
    _check_roles(family, learner, aggregator, transforms, topology, participation)
    if mesh is not None and "agents" not in mesh.shape:
        raise ValueError(f"mesh must have an axis named 'agents', got axes {tuple(mesh.shape)}; see make_mesh")
    if family.num_agents not in (None, num_agents):
        raise ValueError(
            f"num_agents must be {family.num_agents}, the number of training agents this family fixes, got {num_agents}"
        )
    sampled = jax.eval_shape(lambda key: family.sample(key, num_agents), jax.random.key(0))
    physics = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), sampled)
    learner.check(family.env, physics)
    size = None if chunk_size == "auto" else chunk_size
    round_ = Round(family, learner, aggregator, tuple(transforms), topology, participation, num_agents, size, mesh)
    if chunk_size == "auto":
        size = automatic_chunk_size(round_, lambda: trace_one_agent(round_), lambda: memory_bytes(None))
        round_ = dataclasses.replace(round_, chunk_size=size)
    _check(topology, "topology", num_agents)
    payload, job = None, UNKNOWN_JOB
    if participation.needs_job or not round_.streams:  # what travels is found by tracing the learner, which takes time
        payload, job = _message_and_job(round_)
    _check(participation, "participation", num_agents, job)
    cohort = _first_cohort(round_, job)
    _check_needs(round_)
    if payload is not None:
        _check_stack(round_, payload, round_.num_rows if cohort.index is None else cohort.active.shape[0])
    return round_


def _check(part: Topology | Participation, role: str, *facts: Any) -> None:
    """Asks a part whether it can work with so many agents; its answer says whose argument is wrong."""
    try:
        part.check(*facts)
    except ValueError as error:
        raise ValueError(f"{role} ({type(part).__name__}): {error}") from error


def _check_needs(round_: Round) -> None:
    """Refuses what the learner, or a transform, cannot work with."""
    needs, name = round_.learner.needs, type(round_.learner).__name__
    for i, t in enumerate(round_.transforms):
        if t.needs_sum and not round_.aggregator.linear:
            raise ValueError(
                f"aggregator must be linear with transforms[{i}], got {type(round_.aggregator).__name__}: the receiver "
                f"of {type(t).__name__} works on the sum of the messages; use mean()"
            )
        if t.needs_gradient and not round_.learner.uploads_gradient(round_.env):
            raise ValueError(
                f"learner must upload gradients alone with transforms[{i}], got {name}: {type(t).__name__} keeps "
                "and compares the messages of different rounds; use local_training(..., upload='gradient')"
            )
        if t.needs_variance and not round_.learner.measures_variance:
            raise ValueError(
                f"learner must estimate the variance of its messages with transforms[{i}], got {name}: "
                f"{type(t).__name__} reads it; use local_training(..., measure_variance=True), or do without it"
            )
        if t.needs_returns and not round_.learner.tells_returns:
            raise ValueError(
                f"learner must tell the returns of its episodes with transforms[{i}], got {name}: "
                f"{type(t).__name__} reads them; use local_training with an objective that plays"
            )
        if t.compares and round_.topology.one_by_one:
            raise ValueError(
                f"transforms[{i}] must not compare the messages of a round with {type(round_.topology).__name__}, got "
                f"{type(t).__name__}: they are merged as if each had come alone"
            )
        for j, other in enumerate(round_.transforms):
            # What acts on the wire does so after all agents have encoded, wherever it stands.
            touches = other.reweighs if other.exchanges else j > i and (other.reweighs or not other.lossless)
            if t.needs_whole and j != i and touches:
                remedy = "leave it out" if other.exchanges else "put it before"
                raise ValueError(
                    f"transforms[{j}] must leave messages and weights as they are with transforms[{i}], got "
                    f"{type(other).__name__}: both ends of {type(t).__name__} remember what was sent; {remedy}"
                )
        if t.always_releases and not round_.topology.synchronous:
            raise ValueError(
                f"topology must merge every round's messages at once with transforms[{i}], got "
                f"{type(round_.topology).__name__}: {type(t).__name__} moves the model once per round, silence included"
            )
        if not (t.delivers or round_.topology.carries_messages):
            raise ValueError(
                f"transforms[{i}] must not lose messages with {type(round_.topology).__name__}, got "
                f"{type(t).__name__}: an agent's message is its own step there and does not travel"
            )
        if Need.WHOLE in needs and not t.lossless:
            raise ValueError(_unmet(f"transforms[{i}] must leave messages as they are", name, t, Need.WHOLE))
        if Need.EVERYONE in needs and t.drops:
            raise ValueError(_unmet(f"transforms[{i}] must not let agents vanish", name, t, Need.EVERYONE))
        if Need.DELIVERY in needs and not t.delivers:
            raise ValueError(_unmet(f"transforms[{i}] must not lose messages", name, t, Need.DELIVERY))
    topology = round_.topology
    if needs & {Need.EVERYONE, Need.FRESH} and not topology.synchronous:
        need = Need.EVERYONE if Need.EVERYONE in needs else Need.FRESH
        raise ValueError(_unmet("topology must merge every round's messages at once", name, topology, need))
    if Need.WHOLE in needs and not topology.lossless:
        raise ValueError(_unmet("topology must leave messages as they are", name, topology, Need.WHOLE))
    if Need.DELIVERY in needs and not topology.delivers:
        raise ValueError(_unmet("topology must not lose messages", name, topology, Need.DELIVERY))
    if Need.EVERYONE in needs and not round_.participation.complete:
        raise ValueError(_unmet("participation must be everyone()", name, round_.participation, Need.EVERYONE))
    if round_.participation.charges_transfers and not topology.carries_messages:
        raise ValueError(
            f"participation must have a system without links with {type(topology).__name__}, got "
            f"{type(round_.participation).__name__}: what travels there is not one message up and down in every round"
        )
    if Need.SUM in needs and not round_.aggregator.recovers_sum:
        raise ValueError(_unmet("aggregator must be mean()", name, round_.aggregator, Need.SUM))
    if Need.AVERAGE in needs and not round_.aggregator.averages:
        raise ValueError(_unmet("aggregator must be mean() without expected", name, round_.aggregator, Need.AVERAGE))
    if Need.UNMIXED in needs and topology.mixes_models:
        raise ValueError(_unmet("topology must be star() or isolated()", name, topology, Need.UNMIXED))


def _unmet(what: str, learner: str, value: Any, need: Need) -> str:
    return f"{what} with {learner}, got {type(value).__name__}: {need.value}"


def _message_and_job(round_: Round) -> tuple[PyTree, Job]:
    """What travels in the end, as `ShapeDtypeStruct`s, and what an agent is expected to do."""

    def specs(key: jax.Array) -> tuple[list[PyTree], PyTree]:
        physics = tree.take(round_.family.sample(key, round_.num_agents), 0)
        shared = round_.learner.init_shared(key, round_.env)
        local = round_.learner.init_local(key, round_.env, physics, shared)
        return [tree.zeros_like(spec) for spec in round_.message_specs(shared, physics, local)], shared

    messages, shared = jax.eval_shape(specs, jax.random.key(0))
    return messages[-1], expected_job(round_.learner, round_.env, messages[-1], shared)


def _first_cohort(round_: Round, job: Job) -> Any:
    """Shapes of a cohort."""

    def sample(key: jax.Array) -> Any:
        who = round_.participation.init(key, round_.num_agents, job)
        return round_.participation.sample(key, who, round_.num_agents)[1]

    return jax.eval_shape(sample, jax.random.key(0))


def _check_roles(
    family: Any, learner: Any, aggregator: Any, transforms: Any, topology: Any, participation: Any
) -> None:
    roles = {
        "family": (family, EnvFamily),
        "learner": (learner, Learner),
        "aggregator": (aggregator, Aggregator),
        "topology": (topology, Topology),
        "participation": (participation, Participation),
    }
    if not isinstance(transforms, tuple | list):
        raise ValueError(f"transforms must be a tuple of transforms, got {transforms!r}; write (transform,)")
    roles |= {f"transforms[{i}]": (t, Transform) for i, t in enumerate(transforms)}
    for name, (value, role) in roles.items():
        _check_role(name, value, role)


def _check_role(name: str, value: Any, role: type) -> None:
    if isinstance(value, role):
        return
    kind = role.__name__
    if inspect.isfunction(value):
        raise ValueError(
            f"{name} must be {_a(kind)}, got the function {value.__name__}; call it: {value.__name__}(...)"
        )
    raise ValueError(f"{name} must be {_a(kind)}, got {value!r}")


def _a(noun: str) -> str:
    return ("an " if noun[0] in "AEIOU" else "a ") + noun


def _check_stack(round_: Round, payload: PyTree, num_slots: int) -> None:
    """Refuses a run whose stack of messages cannot fit into memory."""
    if round_.streams:
        return
    needed = tree.num_bits(payload) // 8 * num_slots
    available = memory_bytes(round_.mesh)
    if needed > available:
        raise ValueError(
            f"{type(round_.aggregator).__name__} with {type(round_.topology).__name__} needs the stack of all "
            f"messages: {num_slots} x {tree.num_bits(payload) // 8:,} bytes = {needed / 2**30:.1f} GiB, and "
            f"{available / 2**30:.1f} GiB are there; use a linear aggregator such as mean(), or a smaller cohort"
        )


def memory_bytes(mesh: Mesh | None) -> int:
    """Memory of all devices of a mesh [bytes]: the accelerators' own, or the host's, which all CPU devices share."""
    stats = jax.local_devices()[0].memory_stats()  # one process cannot ask the devices of another
    if stats and "bytes_limit" in stats:
        return least(int(stats["bytes_limit"])) * (1 if mesh is None else mesh.size)
    return least(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
