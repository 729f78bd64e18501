"""Agents that speak only when they have something to say, or when it is time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core import Cohort, Envelope, Transform, check_choice, check_count, check_range, component, static, tree


PyTree = Any


class TriggerMemory(NamedTuple):
    """What an agent remembers."""

    held: PyTree  # what it has not sent, or what it sent last; () where neither matters
    quiet: jax.Array  # bool[] it chose to be silent in the last round


@component
class ThresholdTrigger(Transform):
    """Sends what is large enough; build it with `threshold_trigger`."""

    norm: Any
    of: str = static()
    unsent: str = static()

    delivers = False
    silences = True

    def init_agent(self, agent: jax.Array, message: PyTree) -> TriggerMemory:
        keeps = self.of == "change" or self.unsent == "accumulate"
        return TriggerMemory(tree.zeros_like(message) if keeps else (), jnp.bool_(False))

    def encode(
        self, key: jax.Array, agent: TriggerMemory, envelope: Envelope, download: PyTree
    ) -> tuple[TriggerMemory, Envelope]:
        message, held = envelope.payload, agent.held
        if self.unsent == "accumulate":
            message = tree.add(message, held)
        size = tree.norm(tree.subtract(message, held) if self.of == "change" else message)
        sends = (size >= self.norm) & (envelope.weight > 0)
        if self.of == "change":
            held = tree.where(sends, message, held)
        elif self.unsent == "accumulate":
            held = tree.where(sends, tree.zeros_like(message), message)
        return _speak(TriggerMemory(held, ~sends), sends, envelope._replace(payload=message))

    def settle(self, before: TriggerMemory, after: TriggerMemory, delivered: jax.Array) -> TriggerMemory:
        return tree.where(delivered | after.quiet, after, before)


class PeriodMemory(NamedTuple):
    """What an agent has gathered since it last spoke."""

    total: PyTree  # sum of w x
    weight: jax.Array  # f[] sum of w
    waited: jax.Array  # i32[] rounds since
    gap: jax.Array  # f[] rounds from then to the next time
    bits: jax.Array  # f32[] size of a message, known once there was one
    quiet: jax.Array  # bool[] it was silent in the last round


@component
class IncreasingPeriod(Transform):
    """Speaks at growing intervals; build it with `increasing_period`."""

    first: Any
    growth: Any
    largest: Any

    delivers = False
    silences = True

    def init_agent(self, agent: jax.Array, message: PyTree) -> PeriodMemory:
        gap = jnp.minimum(jnp.asarray(self.first, jnp.result_type(float)), self.largest)
        return PeriodMemory(
            tree.zeros_like(message), jnp.zeros(()), jnp.int32(0), gap, jnp.float32(0), jnp.bool_(False)
        )

    def encode(
        self, key: jax.Array, agent: PeriodMemory, envelope: Envelope, download: PyTree
    ) -> tuple[PeriodMemory, Envelope]:
        now = envelope.weight.astype(agent.weight.dtype)
        total = jax.tree.map(lambda t, x: t + now.astype(x.dtype) * x, agent.total, envelope.payload)
        weight, waited = agent.weight + now, agent.waited + 1
        due = waited >= jnp.floor(agent.gap)
        sends = due & (weight > 0)
        message = tree.scale(1 / jnp.where(weight > 0, weight, 1), total)
        gap = jnp.minimum(agent.gap * self.growth, self.largest)
        bits = jnp.maximum(agent.bits, envelope.bits)
        gathered = PeriodMemory(total, weight, waited, agent.gap, bits, ~sends)
        fresh = PeriodMemory(tree.zeros_like(total), jnp.zeros_like(weight), jnp.int32(0), gap, bits, ~sends)
        memory = tree.where(sends, fresh, gathered)
        sent = envelope._replace(payload=message, weight=weight.astype(jnp.float32), bits=bits)
        return _speak(memory, sends, sent)

    def settle(self, before: PeriodMemory, after: PeriodMemory, delivered: jax.Array) -> PeriodMemory:
        return tree.where(delivered | after.quiet, after, before)


def _speak(memory: PyTree, sends: jax.Array, envelope: Envelope) -> tuple[PyTree, Envelope]:
    """The envelope, or silence."""
    return memory, envelope._replace(
        payload=tree.where(sends, envelope.payload, tree.zeros_like(envelope.payload)),
        weight=jnp.where(sends, envelope.weight, 0.0).astype(jnp.float32),
        bits=jnp.where(sends, envelope.bits, 0.0),
    )


@component
class TopChange(Transform):
    """Lets the largest messages of a cohort through; build it with `top_change`."""

    num_messages: int = static()

    compares = True
    delivers = False
    silences = True

    def exchange(self, key: jax.Array, wire: Any, cohort: Cohort, envelopes: Envelope) -> tuple[Any, Envelope]:
        return wire, keep_best(self.num_messages, jax.vmap(tree.norm)(envelopes.payload), cohort, envelopes)


def keep_best(num: int, score: jax.Array, cohort: Cohort, envelopes: Envelope) -> Envelope:
    """Silences all but the `num` messages of the highest score f[M]; ties go to the smaller id, NaN comes last."""
    present = envelopes.weight > 0
    score = jnp.where(present & ~jnp.isnan(score), score, -jnp.inf)
    order = jnp.lexsort((cohort.ids(), -score, ~present))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]), unique_indices=True)
    speaks = present & (rank < num)
    return envelopes._replace(
        weight=jnp.where(speaks, envelopes.weight, 0.0), bits=jnp.where(present & ~speaks, 0.0, envelopes.bits)
    )


def threshold_trigger(norm: float, of: str = "message", unsent: str = "drop") -> Transform:
    """An agent sends its message x only where |x| >= c, or where x differs enough from what it sent last.

    Silent agents take no part in the mean of the round: the others' messages are averaged as if they were absent.

    Args:
        norm: c >= 0, Euclidean over all leaves; 0 sends always.
        of: "message": |x| >= c; "change": |x - x_last| >= c, x_last what was delivered last (0 at first).
        unsent: "drop": what is not sent is lost; "accumulate": it is added to the next message, x + e >= c is the rule
            and e <- x + e where it is not sent, e <- 0 where it is delivered. Only with of="message".

    Reference: Lin et al., "Deep gradient compression", ICLR 2018 (accumulation); Astroem and Bernhardsson, "Comparison
        of Riemann and Lebesgue sampling for first order stochastic systems", CDC 2002 (send on change).
    """
    check_range("norm", norm, 0, open_high=True)
    check_choice("of", of, ("message", "change"))
    check_choice("unsent", unsent, ("drop", "accumulate"))
    if of == "change" and unsent == "accumulate":
        raise ValueError(
            "unsent must be 'drop' with of='change', got 'accumulate': a sum of messages does not succeed one"
        )
    return ThresholdTrigger(norm, of, unsent)


def top_change(num_messages: int) -> Transform:
    """Of all messages of a round only the m largest are sent; the others' agents are as if nothing was delivered.

    The server must learn all norms first; these single numbers are not charged. Needs the stack of messages.

    Args:
        num_messages: m >= 1. With fewer messages all are sent.
    """
    check_count("num_messages", num_messages)
    return TopChange(int(num_messages))


def increasing_period(first: float = 1, growth: float = 1.1, largest: float = float("inf")) -> Transform:
    """Agents upload in rounds at growing gaps and gather their messages in between.

    Gap j is floor(min(first growth^j, largest)) rounds in which the agent acts. Then it sends the weighted mean of its
    messages since it last spoke, with the sum of their weights. While everybody is silent the model stands still, so
    that this is one message from so many more samples at one point: growing batches. (Local training that goes on over
    growing periods is `Cohort.work`: local steps within a round.) A lost message is tried again in the next round,
    without what that round had added. All agents of full participation speak together.

    Args:
        first: rounds of the first gap, >= 1.
        growth: factor from gap to gap, >= 1; 1 is a fixed period.
        largest: longest gap.
    """
    check_range("first", first, 1, open_high=True)
    check_range("growth", growth, 1, open_high=True)
    check_range("largest", largest, 1)
    return IncreasingPeriod(first, growth, largest)
