"""What travels between agents and their meeting places, and what says who acts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import tree


PyTree = Any
Message = Any


class Cohort(NamedTuple):
    """Who acts this round. Its size M is static, so the cost of a round follows M, not N."""

    # i32[M] distinct agent ids; None = everyone, in order: M = N, or more where devices do not divide N. Slots from N
    # on are nobody's, and never active
    index: jax.Array | None  # pyright: ignore[reportIncompatibleMethodOverride]
    active: jax.Array  # bool[M] False = padding slot: that agent does not move
    weight: jax.Array  # f32[M] >= 0
    work: jax.Array | None  # i32[M] local steps each may do this round; None = as many as the learner wants
    time: jax.Array  # f32[] virtual time at which the round closes [s]
    # i32[M] how often each has acted before, where that is not the number of rounds; random numbers follow from it
    turn: jax.Array | None = None
    # f32[M] when each began and ended its job [s], where the rule knows; None: all of them from close to close
    start: jax.Array | None = None
    finish: jax.Array | None = None
    # bool[M] who began and was not ready in time: nothing of that agent arrives, and it stays as it was; None: nobody
    late: jax.Array | None = None

    def ids(self) -> jax.Array:
        """i32[M] agent ids."""
        return jnp.arange(self.active.shape[0], dtype=jnp.int32) if self.index is None else self.index

    def padded(self, num_rows: int) -> "Cohort":
        """Everyone, and up to `num_rows` slots of nobody, which never act; chosen agents stay as they are."""
        missing = num_rows - self.active.shape[0]
        if self.index is not None or not missing:
            return self
        return jax.tree.map(lambda x: jnp.pad(x, (0, missing)) if jnp.ndim(x) else x, self)

    def take(self, stacked: PyTree) -> PyTree:
        """The acting agents' slices: leaves [N, ...] -> [M, ...]."""
        return tree.pad(stacked, self.active.shape[0]) if self.index is None else tree.take(stacked, self.index)

    def put(self, stacked: PyTree, new: PyTree) -> PyTree:
        """Writes the acting agents' slices back: leaves [N, ...], [M, ...] -> [N, ...]."""
        if self.index is None:
            return jax.tree.map(lambda x, y: y if len(x) == len(y) else y[: len(x)], stacked, new)
        return jax.tree.map(lambda x, y: x.at[self.index].set(y, unique_indices=True), stacked, new)


class Header(NamedTuple):
    """What a message says about itself; never transformed."""

    staleness: jax.Array  # i32[] versions that its meeting place has gone on since the agent pulled the model
    num_steps: jax.Array  # i32[] local steps done
    num_samples: jax.Array  # f32[] environment steps behind the message
    variance: jax.Array  # f32[] E|x - E x|^2 of the message x as its learner made it; NaN = not estimated
    returns: Any = float("nan")  # f32[] mean return of the episodes that ended; NaN = none did


class Marks(NamedTuple):
    """Numbers that travel beside a message; where messages are averaged, so are they, with the same weights."""

    scale: Any = 1.0  # f[] what the payload has been multiplied by on its way, such as a discount of staleness
    note: Any = 0.0  # f[] what the learner adds that no transform may change, such as a momentum


class Envelope(NamedTuple):
    """One agent's message under way, or M of them stacked."""

    payload: Message
    weight: jax.Array  # f32[] compares messages (its number of samples, say); 0 = lost or refused
    bits: jax.Array  # f32[] uplink size [bit]
    header: Header
    marks: Marks

    def resized(self, payload: Message, bits: Any, previous: Any) -> "Envelope":
        """With another payload, of `bits` instead of `previous` [bit], however often it is transmitted."""
        return self._replace(payload=payload, bits=jnp.round(self.bits / max(previous, 1) * bits))


def seal(
    payload: Message, *, weight: Any = 1.0, num_steps: Any = 1, num_samples: Any = 1.0, variance: Any = jnp.nan,
    returns: Any = jnp.nan, note: Any = None,
) -> Envelope:  # fmt: skip
    """Wraps one agent's message; its size is that of the raw arrays, and of the note, until a transform shrinks it."""
    header = Header(
        jnp.int32(0),
        jnp.asarray(num_steps, jnp.int32),
        jnp.asarray(num_samples, jnp.float32),
        jnp.asarray(variance, jnp.result_type(float)),
        jnp.asarray(returns, jnp.result_type(float)),
    )
    one = jnp.ones((), jnp.result_type(float))
    marks = Marks(one, 0 * one if note is None else jnp.asarray(note, one.dtype))
    bits = jnp.float32(tree.num_bits((payload, () if note is None else marks.note)))
    return Envelope(payload, jnp.asarray(weight, jnp.float32), bits, header, marks)


class Total(NamedTuple):
    """What a linear aggregator has added up."""

    payload: Message  # sum of w x
    weight: jax.Array  # f32[] sum of w
    # i32[] messages with w > 0
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    marks: Marks  # sums of w times each


class Received(NamedTuple):
    """How much arrived at a meeting place."""

    weight: jax.Array  # f32[] sum of the weights
    # i32[] messages
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    share: jax.Array  # f32[] messages / agents that may meet here
    marks: Marks = Marks()  # weighted means


class Job(NamedTuple):
    """What an agent is expected to do and to send between two meetings; NaN = its learner does not say."""

    env_steps: float
    gradients: float
    num_local_steps: int  # parts that the two can be split into
    uplink_bits: float
    downlink_bits: float


UNKNOWN_JOB = Job(float("nan"), float("nan"), 1, float("nan"), float("nan"))


def add_up(stack: Message, weight: jax.Array, marks: Marks) -> Total:
    """The weighted sum of a stack of messages; weights f32[M], marks f[M]."""
    count = jnp.sum(weight > 0, dtype=jnp.int32)
    payload, marks = tree.weighted_sum((stack, marks), weight)
    return Total(payload, jnp.sum(weight), count, marks)


class Mail(NamedTuple):
    """The messages of a round on their way to the meeting places; only `Node.digest` opens it."""

    envelopes: Envelope | None  # the stack [M, ...], or None when the sums were streamed
    totals: Total | None  # per meeting place [K, ...], or None when the stack was built
    address: jax.Array  # i32[M] meeting place of each message

    def to(self, place: Any) -> "Mail":
        """The part of the mail that one meeting place receives."""
        if self.totals is not None:
            return self._replace(totals=tree.take(self.totals, place))
        envelopes = self.envelopes
        assert envelopes is not None
        weight = jnp.where(self.address == place, envelopes.weight, 0.0)
        return self._replace(envelopes=envelopes._replace(weight=weight))
