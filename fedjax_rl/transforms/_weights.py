"""How much a message counts: by what its header says, or by how it agrees with the others."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import (
    Cohort,
    Envelope,
    Transform,
    check_choice,
    check_count,
    check_flag,
    check_range,
    component,
    static,
    tree,
)
from ._triggers import keep_best


@component
class InverseVariance(Transform):
    """w / sigma^2; build it with `inverse_variance`."""

    smallest: Any

    lossless = True
    reweighs = True

    @property
    def needs_variance(self) -> bool:
        return True

    def encode(self, key: jax.Array, agent: Any, envelope: Envelope, download: Any) -> tuple[Any, Envelope]:
        weight = envelope.weight / jnp.maximum(envelope.header.variance, self.smallest)
        return agent, envelope._replace(weight=weight.astype(jnp.float32))


@component
class ReturnWeights(Transform):
    """w R or w / R; build it with `return_weights`."""

    offset: Any
    smallest: Any
    inverse: bool = static()

    lossless = True
    compares = True
    reweighs = True

    @property
    def needs_returns(self) -> bool:
        return True

    def exchange(self, key: jax.Array, wire: Any, cohort: Cohort, envelopes: Envelope) -> tuple[Any, Envelope]:
        returns = envelopes.header.returns
        known = ~jnp.isnan(returns) & (envelopes.weight > 0)
        score = jnp.maximum(jnp.where(known, returns, 0) - self.offset, self.smallest)
        score = jnp.where(known, 1 / score if self.inverse else score, 0)
        count = jnp.sum(known)
        typical = jnp.where(count > 0, jnp.sum(score) / jnp.maximum(count, 1), 1)
        factor = jnp.where(known, score, typical) / typical  # of mean one: normalised
        return wire, envelopes._replace(weight=(envelopes.weight * factor).astype(jnp.float32))


@component
class CosineWeights(Transform):
    """w max(0, cos(x, mean)); build it with `cosine_weights`."""

    lossless = True
    compares = True
    reweighs = True
    delivers = False

    def exchange(self, key: jax.Array, wire: Any, cohort: Cohort, envelopes: Envelope) -> tuple[Any, Envelope]:
        weight = envelopes.weight
        mean = tree.weighted_sum(envelopes.payload, weight)  # its length does not matter

        def cosine(x: Any) -> jax.Array:
            inner = sum((jnp.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (x, mean)), strict=True)), start=0.0)
            lengths = tree.norm(x) * tree.norm(mean)
            return jnp.where(lengths > 0, inner / jnp.where(lengths > 0, lengths, 1), 0)

        factor = jnp.maximum(jax.vmap(cosine)(envelopes.payload), 0)
        return wire, envelopes._replace(weight=(weight * factor).astype(jnp.float32))


@component
class Aligned(Transform):
    """Merges what moves along with the others; build it with `aligned`."""

    num_messages: int = static()

    lossless = True
    compares = True
    delivers = False

    def exchange(self, key: jax.Array, wire: Any, cohort: Cohort, envelopes: Envelope) -> tuple[Any, Envelope]:
        share = (envelopes.weight > 0) / jnp.maximum(jnp.sum(envelopes.weight > 0), 1)
        mean = tree.weighted_sum(envelopes.payload, share)
        score = jax.vmap(lambda x: tree.norm(x) - tree.norm(tree.subtract(x, mean)))(envelopes.payload)
        kept = keep_best(self.num_messages, score, cohort, envelopes)
        return wire, kept._replace(bits=envelopes.bits)  # it was sent: the server compares the messages themselves


@component
class Prioritized(Transform):
    """Lets the best messages through; build it with `prioritized`."""

    num_messages: int = static()
    by: str = static()

    lossless = True
    compares = True
    delivers = False
    silences = True

    @property
    def needs_variance(self) -> bool:
        return self.by == "variance"

    @property
    def needs_returns(self) -> bool:
        return self.by == "returns"

    def exchange(self, key: jax.Array, wire: Any, cohort: Cohort, envelopes: Envelope) -> tuple[Any, Envelope]:
        header = envelopes.header
        scores = {"returns": header.returns, "samples": header.num_samples, "variance": -header.variance}
        return wire, keep_best(self.num_messages, scores[self.by], cohort, envelopes)


def inverse_variance(smallest: float = 1e-12) -> Transform:
    """Weighs messages by the inverse of their variance: of unbiased estimates of one quantity the best combination.

    w_m <- w_m / max(sigma_m^2, smallest), for `local_training(..., weight="uniform", measure_variance=True)`.

    Args:
        smallest: variance > 0 below which all count alike.

    Raises:
        ValueError: by `make_round`: the learner does not tell the variance.
    """
    check_range("smallest", smallest, 0, open_low=True, open_high=True)
    return InverseVariance(smallest)


def return_weights(inverse: bool = False, offset: float = 0.0, smallest: float = 1e-3) -> Transform:
    """Weighs messages by the agents' returns, or by their inverse, normalised over the cohort.

    w_m <- w_m f_m / mean(f), f_m = max(return_m - offset, smallest), or its inverse. The return lets the good lead; its
    inverse lets the weak catch up. It is the mean return of the episodes that ended in this round; where none did, f_m
    is the mean of the others. Use weight="uniform" in the learner, and an offset below all returns where these may be
    negative. Needs the stack of messages. By speed or reliability instead: `participation.resource_weights`.

    Args:
        inverse: True for the inverse.
        offset: subtracted from the returns.
        smallest: least value > 0 of what is left.

    Raises:
        ValueError: a value is wrong; by `make_round`: the learner does not tell returns.
    """
    check_flag("inverse", inverse)
    check_range("offset", offset, open_low=True, open_high=True)
    check_range("smallest", smallest, 0, open_low=True, open_high=True)
    return ReturnWeights(offset, smallest, inverse)


def cosine_weights() -> Transform:
    """Weighs messages by their agreement with the mean: w_m <- w_m max(0, cos(x_m, sum_j w_j x_j)).

    Messages that point away from the mean are refused, as if they were lost. Needs the stack of messages.
    """
    return CosineWeights()


def aligned(num_messages: int) -> Transform:
    """Merges only the m messages of a round that agree best with their mean: those of the largest |x_i| - |x_i - xbar|.

    The rule by which FedPOHCS selects agents whose world is like the others'. There x_i is the advantage weighted by
    the visits of agent i's states, the gradient in the direct parametrisation, and agents are asked for it before they
    act; here it is the message itself, so all of the cohort act and upload, and those passed over count as lost. Needs
    the stack of messages.

    Args:
        num_messages: m >= 1. With fewer messages all are merged.

    Reference: Xie and Song, "Client selection for federated policy optimization with environment heterogeneity", JMLR
        2025, and its code (6 of 18 candidates).
    """
    check_count("num_messages", num_messages)
    return Aligned(int(num_messages))


def prioritized(num_messages: int, by: str = "returns") -> Transform:
    """Of all messages of a round only the m best are sent; the others' agents are as if nothing was delivered.

    Single numbers by which they are compared are not charged. Needs the stack of messages; for the largest messages see
    `top_change`.

    Args:
        num_messages: m >= 1. With fewer messages all are sent.
        by: "returns", the highest mean return of episodes that ended in this round; "samples", the most environment
            steps; "variance", the least variance. Unknown numbers come last, ties go to the smaller id.

    Raises:
        ValueError: a value is wrong; by `make_round`: the learner does not tell what they are compared by.
    """
    check_count("num_messages", num_messages)
    check_choice("by", by, ("returns", "samples", "variance"))
    return Prioritized(int(num_messages), by)
