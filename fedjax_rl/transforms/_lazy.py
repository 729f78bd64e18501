"""LAPG: an agent uploads only when its gradient has changed by more than the model has moved."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core import (
    Envelope,
    Received,
    Total,
    Transform,
    TransformState,
    check,
    check_count,
    check_range,
    component,
    is_concrete,
    static,
    tree,
)


PyTree = Any


class Innovation(NamedTuple):
    """What travels: how the agent's part of the receiver's sums changes."""

    gradient: PyTree  # w g - (w g of the last upload)
    weight: jax.Array  # f[] w - (w of the last upload); the whole of w tells a first upload


class LazyMemory(NamedTuple):
    """What an agent remembers."""

    gradient: PyTree  # g of its last upload; 0 before the first
    weight: jax.Array  # f[] w of its last upload; 0 before the first
    params: PyTree  # the model it downloaded last, in the structure of its message
    downloads: jax.Array  # i32[] rounds it took part in
    moved: jax.Array  # f[D] |theta^{k+1-d} - theta^{k-d}|^2, the latest first


class LazySums(NamedTuple):
    """What the receiver keeps: the last gradients of all agents that have ever reached it."""

    gradient: PyTree  # sum_m w_m g_m
    weight: jax.Array  # f[] sum_m w_m


@component
class Lazy(Transform):
    """Sends gradient innovations, or nothing; build it with `lazy`."""

    step_size: Any
    xi: Any  # f[] or f[D]
    variance_factor: Any
    num_past: int = static()

    delivers = False
    needs_sum = True
    always_releases = True
    needs_gradient = True
    needs_whole = True
    silences = True

    @property
    def needs_variance(self) -> bool:
        return not is_concrete(self.variance_factor) or bool(self.variance_factor > 0)

    def init(self, message: PyTree) -> TransformState:
        return TransformState(node=LazySums(tree.zeros_like(message), jnp.zeros(())))

    def init_agent(self, agent: jax.Array, message: PyTree) -> LazyMemory:
        zero = tree.zeros_like(message)
        return LazyMemory(zero, jnp.zeros(()), zero, jnp.int32(0), jnp.zeros(self.num_past))

    def encode(
        self, key: jax.Array, agent: LazyMemory, envelope: Envelope, download: PyTree
    ) -> tuple[LazyMemory, Envelope]:
        gradient = envelope.payload
        params = _like(gradient, download)
        # What is behind an agent that has just come is unknown to it, and counts as no movement.
        step = jnp.where(agent.downloads > 0, _square(tree.subtract(params, agent.params)), 0)
        moved = jnp.concatenate([step[None].astype(agent.moved.dtype), agent.moved[:-1]])
        innovation = tree.subtract(gradient, agent.gradient)
        noise = jnp.where(self.variance_factor > 0, self.variance_factor * envelope.header.variance, 0)
        threshold = jnp.sum(self.xi * moved) / self.step_size**2 + noise
        sends = (agent.weight == 0) | (_square(innovation) >= threshold)
        sends &= envelope.weight > 0
        weight = envelope.weight.astype(agent.weight.dtype)
        change = Innovation(
            jax.tree.map(lambda g, h: _cast(weight, g) * g - _cast(agent.weight, g) * h, gradient, agent.gradient),
            weight - agent.weight,
        )
        quiet = ~sends & (envelope.weight > 0)
        sent = envelope.resized(change, tree.num_bits(change), tree.num_bits(gradient))
        memory = LazyMemory(
            tree.where(sends, gradient, agent.gradient),
            jnp.where(sends, weight, agent.weight),
            params,
            agent.downloads + 1,
            moved,
        )
        return memory, sent._replace(
            payload=tree.where(sends, change, tree.zeros_like(change)),
            weight=sends.astype(jnp.float32),  # the sums hold the weights already
            bits=jnp.where(quiet, 0, sent.bits),
        )

    def decode(
        self, key: jax.Array, node: LazySums, total: Total, received: Received
    ) -> tuple[LazySums, Total]:  # fmt: skip
        sums = LazySums(tree.add(node.gradient, total.payload.gradient), node.weight + total.payload.weight)
        return sums, total._replace(payload=sums.gradient, weight=sums.weight)

    def settle(self, before: LazyMemory, after: LazyMemory, delivered: jax.Array) -> LazyMemory:
        # What has been seen of the model has been seen, whether or not anything was said about it.
        return after._replace(
            gradient=tree.where(delivered, after.gradient, before.gradient),
            weight=jnp.where(delivered, after.weight, before.weight),
        )


def _like(message: PyTree, download: PyTree) -> PyTree:
    """The downloaded parameters in the structure of the gradient."""
    leaves, structure = jax.tree.flatten(message)
    params = jax.tree.leaves(download)
    if [x.shape for x in leaves] != [jnp.shape(x) for x in params]:
        raise ValueError(
            "transforms before lazy must leave the shapes of a gradient as they are: lazy compares gradients with "
            "movements of the model; put lazy first"
        )
    return jax.tree.unflatten(structure, params)


def _square(x: PyTree) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(x)), start=jnp.zeros(()))


def _cast(x: jax.Array, like: jax.Array) -> jax.Array:
    return x.astype(like.dtype)


def lazy(step_size: float, num_past: int = 10, xi: Any = None, variance_factor: float = 6.0) -> Transform:
    r"""LAPG: lazily aggregated policy gradients, for the mean of the agents' losses.

    An agent uploads the innovation delta_m = g_m - (its last uploaded gradient) if

        |delta_m|^2 >= (1/alpha^2) sum_{d=1..D} xi_d |theta^{k+1-d} - theta^{k-d}|^2 + c sigma_m^2

    or if it has never reached the server, and is silent otherwise: no bits. The server adds the innovations to what it
    has, G <- G + sum_m delta_m, and passes on the mean G over all agents whose gradient is in it, absent and silent
    ones too. So every round moves the model, and with xi = 0 and c = 0 it is FedPG. sigma_m^2 is the variance of the
    uploaded gradient (a mean over N trajectories), which `local_training(..., measure_variance=True)` estimates. A
    gradient counts as uploaded when it is delivered. An agent that was absent measures the movement from the last model
    it has seen. Messages weighted by w_m enter as w_m g_m, and G is divided by the sum of the w_m; a message carries
    how its weight changes, one number. Cohort weights must be 1. In single precision G is a running sum and drifts by
    rounding; where finite messages overflow in that sum, it no longer holds what agents believe it does.

    Args:
        step_size: alpha > 0 of the server's step on the mean gradient.
        num_past: D, past movements of the model that an agent remembers (numbers, not models).
        xi: weights >= 0 of the movements, one number or D, the latest first; None: 1/D.
        variance_factor: c >= 0; 0 needs no variance.

    Raises:
        ValueError: a value is wrong; by `make_round`: the learner uploads no gradients or does not tell their variance.

    Reference: Chen, Zhang, Giannakis and Basar, "Communication-efficient policy gradient methods for distributed
        reinforcement learning", TCNS 9(2), 2022, algorithm 2 and condition (15), with alpha = M alpha_sum.
    """
    check_range("step_size", step_size, 0, open_low=True, open_high=True)
    check_count("num_past", num_past)
    check_range("variance_factor", variance_factor, 0, open_high=True)
    xi = 1 / num_past if xi is None else xi

    def good(x: Any) -> bool:
        x = np.asarray(x, float)
        return x.shape in ((), (num_past,)) and bool((np.isfinite(x) & (x >= 0)).all())

    check("xi", xi, good, f"must be one number >= 0 or num_past = {num_past} of them")
    return Lazy(step_size, jnp.asarray(xi), variance_factor, int(num_past))
