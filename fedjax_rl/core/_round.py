"""One federated round, composed of six roles once, in Python, before tracing."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh

from . import _metrics as reports
from . import tree
from ._agent_map import Fold, agent_map, num_rows, place, take_rows
from ._compile import jit
from ._component import check_key, component, static
from ._messages import Cohort, Envelope, Job, Mail, Received, Total, add_up
from ._random import quick
from ._roles import Aggregator, EnvFamily, Learner, Node, NodeState, Participation, Places, Topology, Transform


PyTree = Any


class RoundState(NamedTuple):
    """Everything a run carries from round to round.

    Of N agents there are R rows: R = N, or on D <= N devices the next multiple of D, so that each device holds its own
    agents only. Rows from N on belong to nobody; `Round.without_padding` leaves them out.
    """

    key: jax.Array
    round: jax.Array  # i32[]
    physics: PyTree  # [R, ...]
    local: PyTree  # [R, ...]
    memory: tuple[PyTree, ...]  # the transforms' agent memories, [R, ...] each
    wire: tuple[PyTree, ...]
    places: Places
    who: PyTree


@component
class Round:
    """A round is a component too: its numbers are leaves, so a changed learning rate never recompiles.

    Build it with `make_round`.
    """

    family: EnvFamily
    learner: Learner
    aggregator: Aggregator
    transforms: tuple[Transform, ...]
    topology: Topology
    participation: Participation
    num_agents: int = static()
    chunk_size: int | None = static(default=None)
    mesh: Mesh | None = static(default=None)

    @property
    def env(self) -> Any:
        """The environment all agents share the code of."""
        return self.family.env

    @property
    def streams(self) -> bool:
        """Whether messages are summed chunk by chunk, so that the stack of M messages is never built."""
        summable = self.aggregator.linear and self.topology.num_places is not None
        return summable and not any(t.exchanges for t in self.transforms)

    @property
    def node(self) -> Node:
        """What every meeting place does."""
        return Node(self._digest, self.learner.broadcast, self.aggregator.linear)

    @property
    def per_agent_models(self) -> bool:
        """Whether different agents act with different parameters."""
        return self.topology.per_agent_models or self.learner.personal

    @property
    def num_rows(self) -> int:
        """R, of what agents carry: N, or the next multiple of the number of devices."""
        return num_rows(self.num_agents, self.mesh)

    # ------------------------------------------------------------ the three functions

    def init(self, key: jax.Array) -> RoundState:
        """The state before the first round; `key` is a typed key, `jax.random.key(seed)`."""
        check_key(key)
        return _first_state(self, key)

    def step(self, state: RoundState) -> tuple[RoundState, dict[str, jax.Array]]:
        """One round: the cohort acts, its messages travel, the meeting places digest them."""
        return _step(self, state)

    def _one_round(self, state: RoundState) -> tuple[RoundState, dict[str, jax.Array]]:
        """What `step` compiles."""
        _, _, k_wire, k_node = _keys(state.key, state.round)
        who, chosen = self.next_cohort(state)
        cohort = chosen.padded(self.num_rows)
        if cohort.turn is not None:
            k_node = _keys(state.key, jnp.int32(0))[3]  # merges are told apart by their number
        common, xs = _inputs(self, state, cohort)
        before = xs[-1]
        traced, spec, changes = _trace(common, tree.take(xs, 0))
        num_places = self.topology.num_places or 1
        fold = None
        if self.streams:
            first = Total(
                tree.zeros_like(spec[0].payload), jnp.float32(0), jnp.int32(0), tree.zeros_like(spec[0].marks)
            )
            fold = Fold(tree.replicate(first, num_places), _add_to_places)

        def one_agent(common: PyTree, *x: PyTree) -> tuple[PyTree, PyTree]:
            (after, metrics), sent = traced(common, *x)
            return (
                [leaf for leaf, changed in zip(jax.tree.leaves(after), changes, strict=True) if changed],
                tree.pack(metrics),
            ), sent

        (changed, packed), sent = agent_map(
            one_agent,
            common,
            xs,
            chunk_size=self.chunk_size,
            mesh=self.mesh,
            everywhere=cohort.index is not None,
            fold=fold,
        )
        local, memory = _replace_leaves(before, changed, changes)
        metrics = packed.unpack()
        wire = state.wire
        if self.streams:
            mail = Mail(None, sent._replace(payload=sent.payload.unpack()), cohort.ids())
        else:
            envelopes, address = sent
            wire, envelopes = self._exchange(k_wire, wire, cohort, envelopes)
            if self._settles_late:
                after = (local, memory)
                local, memory = jax.vmap(self._settle)(before, after, cohort.active & (envelopes.weight > 0))
            envelopes = self.topology.arrive(state.places, cohort, envelopes)
            present = cohort.active
            for absent in ("agents_dropped", "nonfinite_messages"):
                if absent in metrics:
                    present &= metrics[absent].total == 0
            metrics |= jax.vmap(self._arrivals)(present, envelopes)
            mail = Mail(envelopes, None, address)
        reduced = reports.reduce(metrics)
        pushing = cohort
        if self.topology.stale:
            # Never so; but where versions are written after they were read, the compiler need not copy all N of them.
            never = (reduced["staleness_max"] < 0) | (reduced["staleness_mean"] < 0)
            pushing = cohort._replace(active=cohort.active & ~never)
        places = self.topology.push(k_node, self.node, state.places, pushing, mail)
        seen = metrics if chosen is cohort else tree.take(metrics, slice(self.num_agents))
        who = self.participation.observe(who, chosen, seen)
        new = RoundState(
            state.key,
            state.round + 1,
            state.physics,
            cohort.put(state.local, local),
            cohort.put(state.memory, memory),
            wire,
            places,
            who,
        )
        reduced["nonfinite_merges"] = _refused(places, cohort) - _refused(state.places, cohort)
        reduced |= self.topology.report(state.places, places)
        reduced |= self.participation.report(state.who, who)
        return self._pin(tree.strong(new)), {**reduced, "virtual_time": cohort.time}

    def next_cohort(self, state: RoundState) -> tuple[PyTree, Cohort]:
        """Who acts in the next round, and the carried state of the rule after it has drawn them."""
        k_who = _keys(state.key, state.round)[0]
        return self.participation.sample(k_who, state.who, self.num_agents)

    def policies(self, state: RoundState, index: jax.Array) -> PyTree:
        """The parameters that the agents `index` i32[K] act with, leaves [K, ...]."""

        def one(common: PyTree, agent: jax.Array, own: PyTree, local: PyTree) -> tuple[PyTree, None]:
            round_, public = common
            shared = round_.topology.model(Places(public, own), agent)
            return round_.learner.policy(shared, local), None

        xs = (index, *tree.take((state.places.own, state.local), index))
        return agent_map(one, (self, state.places.public), xs, chunk_size=self.chunk_size)[0]

    def without_padding(self, state: RoundState) -> RoundState:
        """The state with the rows of the N agents alone, whatever the number of devices."""
        return self._map_rows(state, lambda rows: tree.take(rows, slice(self.num_agents)))

    def with_padding(self, state: RoundState) -> RoundState:
        """A state of R rows whose rows of nobody hold anything, with the first agent's in their place, as at first."""
        real = jnp.arange(self.num_rows) < self.num_agents

        def fill(rows: PyTree) -> PyTree:  # cut and put together again, they would travel
            return jax.tree.map(lambda x: tree.where(real, x, jnp.broadcast_to(x[:1], x.shape)), rows)

        return self._map_rows(state, fill)

    # ------------------------------------------------------------ parts

    def _map_rows(self, state: RoundState, change: Callable[[PyTree], PyTree]) -> RoundState:
        """The state with what agents carry changed, if there is padding."""
        if self.num_rows == self.num_agents:
            return state
        physics, local, memory, own = change((state.physics, state.local, state.memory, state.places.own))
        return state._replace(physics=physics, local=local, memory=memory, places=state.places._replace(own=own))

    def _pin(self, state: RoundState) -> RoundState:
        """The state where it belongs on the mesh."""
        per_agent = (state.physics, state.local, state.memory, state.places.own)
        physics, local, memory, own = place(per_agent, self.mesh)
        common = (state.key, state.round, state.wire, state.places.public, state.who)
        key, round_, wire, public, who = place(common, self.mesh, per_agent=False)
        return RoundState(key, round_, physics, local, memory, wire, Places(public, own), who)

    @property
    def _settles_late(self) -> bool:
        return any(t.exchanges for t in self.transforms)

    def _settle(self, before: PyTree, after: PyTree, delivered: jax.Array) -> PyTree:
        """Commits one agent's local state and memories."""
        local = self.learner.settle(before[0], after[0], delivered)
        memory = [t.settle(b, a, delivered) for t, b, a in zip(self.transforms, before[1], after[1], strict=True)]
        return local, tuple(memory)

    def _arrivals(self, active: jax.Array, envelope: Envelope) -> dict[str, reports.Metric]:
        """What became of one agent's message."""
        delivered = active & (envelope.weight > 0)
        found: dict[str, reports.Metric] = {
            "uplink_bits": reports.Sum(envelope.bits),
            "messages_delivered": reports.Sum(delivered.astype(jnp.int32)),
            # Who has nothing to say sends nothing, and nothing of it can get lost.
            "messages_lost": reports.Sum((active & ~delivered & (envelope.bits > 0)).astype(jnp.int32)),
        }
        if any(t.silences for t in self.transforms):
            silent = active & ~delivered & (envelope.bits == 0)
            found["silent_share"] = reports.Mean(silent.astype(jnp.float32), active.astype(jnp.float32))
        if self.topology.stale:
            staleness = jnp.where(delivered, envelope.header.staleness, 0)
            found["staleness_mean"] = reports.Mean(staleness.astype(jnp.float32), delivered.astype(jnp.float32))
            found["staleness_max"] = reports.Max(staleness)
        return found

    def message_specs(self, shared: PyTree, physics: PyTree, local: PyTree) -> list[PyTree]:
        """The message as the learner makes it and as each transform leaves it, as `ShapeDtypeStruct`s."""

        def chain(key: jax.Array) -> list[PyTree]:
            download = self.learner.broadcast(shared)
            _, envelope, _ = self.learner.update(key, self.env, physics, download, local, None)
            payloads = [envelope.payload]
            for t in self.transforms:
                memory = t.init_agent(jnp.int32(0), tree.zeros_like(envelope.payload))
                _, envelope = t.encode(key, memory, envelope, download)
                payloads.append(envelope.payload)
            return payloads

        return jax.eval_shape(chain, jax.random.key(0))

    def _exchange(self, key: jax.Array, wire: tuple, cohort: Any, envelopes: Envelope) -> tuple[tuple, Envelope]:
        states = list(wire)
        for i, t in enumerate(self.transforms):
            states[i], envelopes = t.exchange(jax.random.fold_in(key, i), states[i], cohort, envelopes)
        return tuple(states), envelopes

    def _digest(
        self, key: jax.Array, state: NodeState, mail: Mail, population: int | None = None
    ) -> NodeState:  # fmt: skip
        """A meeting place digests its mail; nothing received, nothing merged."""
        key = jax.random.fold_in(key, state.version + state.refused)
        k_aggregate, k_merge, k_decode = jax.random.split(key, 3)
        aggregator_state, decoders = state.aggregator, list(state.decoders)

        def decode(total: Total) -> Total:
            for i in reversed(range(len(self.transforms))):  # the receiver undoes the last stage first
                k_stage = jax.random.fold_in(k_decode, i)
                decoders[i], total = self.transforms[i].decode(k_stage, decoders[i], total, received)
            return total

        if mail.totals is not None:
            total = mail.totals
        else:
            assert mail.envelopes is not None
            weight = mail.envelopes.weight
            marks = mail.envelopes.marks
            if self.aggregator.linear:
                total = add_up(mail.envelopes.payload, weight, marks)
            else:
                aggregator_state, message = self.aggregator.apply(
                    k_aggregate, aggregator_state, mail.envelopes.payload, weight
                )
                count = jnp.sum(weight > 0, dtype=jnp.int32)
                total = Total(message, jnp.sum(weight), count, tree.weighted_sum(marks, weight))
        share = total.count / (population or self.num_agents)
        divisor = jnp.where(total.weight > 0, total.weight, 1.0)
        marks = jax.tree.map(lambda x: x / divisor.astype(x.dtype), total.marks)
        received = Received(total.weight, total.count, share, marks)
        total = decode(total)
        message = total.payload
        if self.aggregator.linear:
            aggregator_state, message = self.aggregator.finish(k_aggregate, aggregator_state, total)
        shared = self.learner.merge(k_merge, self.env, state.shared, message, received)
        new = NodeState(shared, aggregator_state, tuple(decoders), state.refused, state.version + 1)
        # Finite messages may still overflow in their sum or in the server's step.
        finite = tree.all_finite(new)
        something = (received.count > 0) | any(t.always_releases for t in self.transforms)
        kept = tree.where(something & finite, new, state)
        # Agents have been told that their messages arrived: what receivers remember of them stays, if it can.
        sums = tree.where(something & tree.all_finite(new.decoders), new.decoders, state.decoders)
        return kept._replace(decoders=sums, refused=state.refused + (something & ~finite))


_step = jax.jit(Round._one_round, inline=True)  # a program of its own only where it is not part of one


@jit(once=True)  # op by op it would take three times as long
def _first_state(round_: Round, key: jax.Array) -> RoundState:
    """The state before the first round."""
    k_run, k_physics, k_shared, k_local, k_who = jax.random.split(key, 5)
    physics = tree.pad(round_.family.sample(k_physics, round_.num_agents), round_.num_rows)
    shared = round_.learner.init_shared(k_shared, round_.env)
    agents = jnp.arange(round_.num_rows, dtype=jnp.int32)

    def first_local(common: PyTree, agent: jax.Array, physics: PyTree) -> tuple[PyTree, None]:
        round_, key, shared = common
        return round_.learner.init_local(jax.random.fold_in(key, agent), round_.env, physics, shared), None

    local, _ = agent_map(
        first_local, (round_, k_local, shared), (agents, physics), chunk_size=round_.chunk_size, mesh=round_.mesh
    )
    messages = round_.message_specs(shared, tree.take(physics, 0), tree.take(local, 0))
    zeros = [tree.zeros_like(message) for message in messages]
    states = [t.init(zero) for t, zero in zip(round_.transforms, zeros, strict=False)]
    memory = tuple(
        jax.vmap(t.init_agent, (0, None))(agents, zero) for t, zero in zip(round_.transforms, zeros, strict=False)
    )
    zero = jnp.int32(0)
    root = NodeState(shared, round_.aggregator.init(zeros[-1]), tuple(s.node for s in states), zero, zero)
    who = round_.participation.init(
        k_who, round_.num_agents, expected_job(round_.learner, round_.env, messages[-1], shared)
    )
    cohort = jax.eval_shape(lambda key, who: round_.participation.sample(key, who, round_.num_agents)[1], key, who)
    node = round_.node._replace(num_slots=cohort.active.shape[0])
    places = round_.topology.init(node, root, zeros[-1], round_.num_agents)
    places = places._replace(own=tree.pad(places.own, round_.num_rows))
    wire = tuple(s.wire for s in states)
    state = RoundState(k_run, jnp.int32(0), physics, local, memory, wire, places, who)
    return round_._pin(tree.copy(state))  # `run` donates the state: no buffer may belong to anything else


def _keys(key: jax.Array, round_: jax.Array) -> jax.Array:
    """Of who acts, of the agents, of the wire, of the meeting places."""
    return jax.random.split(jax.random.fold_in(key, round_), 4)


def expected_job(learner: Learner, env: Any, message: PyTree, shared: PyTree) -> Job:
    """What an agent is expected to do and to send in a round."""
    download = jax.eval_shape(learner.broadcast, shared)
    return Job(*learner.job(env), float(tree.num_bits(message)), float(tree.num_bits(download)))


def _one_agent(
    common: PyTree, slot: PyTree, physics: PyTree, own: PyTree, before: PyTree
) -> tuple[tuple[PyTree, PyTree], tuple[Envelope, jax.Array]]:
    """What one agent does in a round: download, learn, encode, send. A non-finite agent stays as it was."""
    round_, key, public = common
    agent, active, weight, work, turn, late = slot
    key = key if turn is None else _keys(key, turn)[1]
    key = jax.random.fold_in(key, agent)  # a function of the agent, never of its slot
    places = Places(public, own)
    download = round_.topology.pull(round_.node, places, agent)
    local, envelope, metrics = round_.learner.update(
        quick(jax.random.fold_in(key, 0)), round_.env, physics, download, before[0], work
    )
    finite = tree.all_finite(envelope.payload) & jnp.isfinite(envelope.weight)
    envelope = envelope._replace(bits=jnp.where(envelope.weight == 0, 0, envelope.bits))  # there is nothing to send
    memory = list(before[1])
    for i, t in enumerate(round_.transforms):
        memory[i], envelope = t.encode(jax.random.fold_in(key, 1 + i), memory[i], envelope, download)
    if round_.transforms:
        finite &= tree.all_finite(envelope.payload) & jnp.isfinite(envelope.weight)
    if round_.streams:
        envelope = envelope._replace(payload=tree.pack(envelope.payload))
    present = active
    for i, t in enumerate(round_.transforms):
        if t.drops:
            present &= t.stays(jax.random.fold_in(jax.random.fold_in(key, 1 + i), 1))
    sent = present & finite
    heard = sent & round_.topology.hears(places, agent)
    pulled = jnp.asarray(round_.learner.downlink_bits(round_.env, download, before[0]), jnp.float32)
    uplink, downlink = round_.topology.charge(places, agent, envelope.bits, pulled)
    envelope = envelope._replace(
        payload=tree.where(sent, envelope.payload, tree.zeros_like(envelope.payload)),
        weight=jnp.where(heard, envelope.weight * weight, 0.0).astype(jnp.float32),
        bits=jnp.where(present, uplink, 0.0).astype(jnp.float32),
        header=envelope.header._replace(staleness=round_.topology.staleness(places, agent)),
    )
    after = tree.where(sent, (local, tuple(memory)), before)
    if not round_._settles_late:
        after = round_._settle(before, after, sent & (envelope.weight > 0))
    begins = active if late is None else active | late
    metrics = {name: reports.mask(reports.as_metric(value), sent) for name, value in metrics.items()}
    metrics |= {
        "downlink_bits": reports.Sum(jnp.where(begins, downlink, 0.0)),
        "nonfinite_messages": reports.Sum((present & ~finite).astype(jnp.int32)),
        "agent_updates": reports.Sum(begins.astype(jnp.int32)),
        **round_._arrivals(sent, envelope),
    }
    if late is not None or any(t.drops for t in round_.transforms):
        metrics["agents_dropped"] = reports.Sum((begins & ~present).astype(jnp.int32))
    return (after, metrics), (envelope, round_.topology.address(places, agent))


def _inputs(round_: Round, state: RoundState, cohort: Cohort) -> tuple[PyTree, PyTree]:
    """What `_one_agent` gets: what all share, and leaves [M, ...] of what each has."""
    slots = (cohort.ids(), cohort.active, cohort.weight, cohort.work, cohort.turn, cohort.late)
    carried = (state.physics, state.places.own, (state.local, state.memory))
    each = carried if cohort.index is None else take_rows(carried, cohort.index, round_.mesh)
    key = _keys(state.key, state.round)[1] if cohort.turn is None else state.key
    return (round_, key, state.places.public), (slots, *each)


def trace_one_agent(round_: Round) -> Any:
    """The jaxpr of one agent's round, from shapes alone."""

    def inputs(key: jax.Array) -> PyTree:
        state = round_.init(key)
        common, xs = _inputs(round_, state, round_.next_cohort(state)[1].padded(round_.num_rows))
        return common, tree.take(xs, 0)

    common, x = jax.eval_shape(inputs, jax.random.key(0))
    return jax.make_jaxpr(_one_agent)(common, *x)


def _trace(common: PyTree, x: PyTree) -> tuple[Callable[..., Any], PyTree, list[bool]]:
    """One agent's round, traced once for all places of the program where agents act.

    Data that an agent only reads (tables, cumulative laws) need not be written back, agent by agent, in every round.

    Returns:
        `_one_agent`, not to be traced again; what an agent sends, as `ShapeDtypeStruct`s; which leaves of what it keeps
        may change at all.
    """

    def anywhere(x: Any) -> jax.ShapeDtypeStruct:  # on whatever devices
        like = jax.typeof(x)
        return jax.ShapeDtypeStruct(like.shape, like.dtype, weak_type=like.weak_type)

    jaxpr, out = jax.make_jaxpr(_one_agent, return_shape=True)(*jax.tree.map(anywhere, (common, *x)))
    kept = len(jax.tree.leaves(x[-1]))
    given, returned = jaxpr.jaxpr.invars[-kept:], jaxpr.jaxpr.outvars[:kept]
    changes = [before is not after for before, after in zip(given, returned, strict=True)] if kept else []

    def traced(*args: PyTree) -> PyTree:
        return jax.tree.unflatten(jax.tree.structure(out), jaxpr_as_fun(jaxpr)(*jax.tree.leaves(args)))

    return traced, out[1], changes


def _replace_leaves(old: PyTree, new: list, changes: list[bool]) -> PyTree:
    """The old tree with the leaves that changed."""
    leaves, structure = jax.tree.flatten(old)
    rest = iter(new)
    return jax.tree.unflatten(structure, [next(rest) if c else x for x, c in zip(leaves, changes, strict=True)])


def _refused(places: Places, cohort: Any) -> jax.Array:
    """i32[]: merges that the meeting places which a cohort reaches have refused since the start."""
    reached = places._replace(own=cohort.take(places.own))
    nodes = jax.tree.leaves(reached, is_leaf=lambda x: isinstance(x, NodeState))
    return sum((jnp.sum(n.refused) for n in nodes if isinstance(n, NodeState)), start=jnp.int32(0))


def _add_to_places(common: PyTree, total: Total, terms: tuple[Envelope, jax.Array], valid: jax.Array) -> Total:
    """Adds a chunk of messages to the sums of their meeting places."""
    envelopes, address = terms
    weight = jnp.where(valid, envelopes.weight, 0.0)
    num_places = total.weight.shape[0]
    if num_places == 1:
        part = tree.replicate(add_up(envelopes.payload, weight, envelopes.marks), 1)
    else:
        here = address[None] == jnp.arange(num_places)[:, None]
        weights = jnp.where(here, weight[None], 0.0)
        part = jax.vmap(lambda w: add_up(envelopes.payload, w, envelopes.marks))(weights)
    return tree.add(total, part)
