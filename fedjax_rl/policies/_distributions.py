"""Action distributions: batched pytrees that turn noise into actions."""

import abc
import math
from typing import Any

import jax
import jax.numpy as jnp

from ..core import component, static


class Distribution(abc.ABC):
    """A batch of action distributions, with leaves `[..., size]`.

    Sampling is a function of noise that was drawn before (`Policy.noise`), so a rollout draws all of it at once.
    """

    @abc.abstractmethod
    def sample(self, noise: jax.Array) -> jax.Array:
        """An action for each element of the batch."""

    @abc.abstractmethod
    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`sample` and its log-probability `f32[...]`."""

    @abc.abstractmethod
    def log_prob(self, action: jax.Array) -> jax.Array:
        """log pi(a), `f32[...]`."""

    @abc.abstractmethod
    def entropy(self) -> jax.Array:
        """-E[log pi(a)], `f32[...]` [nat]."""

    @abc.abstractmethod
    def kl(self, other: Any) -> jax.Array:
        """KL(self || other) = E_self[log pi(a) - log pi_other(a)], `f32[...]` [nat], to one of the same class."""

    @abc.abstractmethod
    def mode(self) -> jax.Array:
        """The greedy action."""


@component
class Categorical(Distribution):
    """Chooses k in {0, ..., A - 1} with probability softmax(logits)_k.

    A logit of -inf forbids an action: it is never sampled, and entropy and divergence count it as nothing. Inside,
    actions come first, [A, ...], so that every operation runs along the samples.

    Args:
        logits: `f32[..., A]`.
    """

    logits: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """Inverse of the cumulative distribution, min{k : u < P(a <= k)}, from ONE uniform.

        Args:
            noise: u in [0, 1), `f32[...]`.

        Returns:
            `i32[...]`, never an action of probability zero.
        """
        logits = _leading(self.logits)
        if logits.shape[0] == 2:  # sigmoid(-inf) = 0 and sigmoid(inf) = 1 exactly, and u < 1
            return (noise >= jax.nn.sigmoid(logits[0] - logits[1])).astype(jnp.int32)
        weights = jnp.exp(logits - jnp.max(logits, 0, keepdims=True))
        return _inverse_cdf(weights, noise)

    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        action = self.sample(noise)
        return action, self.log_prob(action)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """log softmax(logits)_a.

        Args:
            action: `i32[...]` in {0, ..., A - 1}.
        """
        log_probs = _log_softmax(_leading(self.logits))
        chosen = jnp.expand_dims(action, 0) == _indices(log_probs)
        return jnp.sum(jnp.where(chosen, log_probs, 0), 0)

    def entropy(self) -> jax.Array:
        """-sum_k p_k log p_k."""
        log_probs = _log_softmax(_leading(self.logits))
        return -jnp.sum(jnp.exp(log_probs) * _finite(log_probs), 0)

    def kl(self, other: Any) -> jax.Array:
        """sum_k p_k (log p_k - log q_k); infinite where q forbids what p does not."""
        log_p, log_q = _log_softmax(_leading(self.logits)), _log_softmax(_leading(other.logits))
        possible = log_p > -jnp.inf
        return jnp.sum(jnp.exp(log_p) * (_finite(log_p) - jnp.where(possible, log_q, 0)), 0)

    def mode(self) -> jax.Array:
        """The most probable action, the first of several, `i32[...]`."""
        return jnp.argmax(self.logits, -1).astype(jnp.int32)


@component
class DiagonalGaussian(Distribution):
    """Independent normal action dimensions, a_i ~ N(mean_i, exp(log_std_i)^2).

    Args:
        mean: `f32[..., D]`.
        log_std: `f32[..., D]`.
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """mean + exp(log_std) noise.

        Args:
            noise: standard normal, `f32[..., D]`.
        """
        return self.mean + jnp.exp(self.log_std) * noise

    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.sample(noise), self._log_density(noise)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """-sum_i [((a_i - mean_i) / std_i)^2 / 2 + log std_i + log(2 pi) / 2]."""
        return self._log_density((action - self.mean) * jnp.exp(-self.log_std))

    def entropy(self) -> jax.Array:
        """sum_i [log std_i + log(2 pi e) / 2]."""
        return _sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e))

    def kl(self, other: Any) -> jax.Array:
        """sum_i [log(s'_i / s_i) + (s_i^2 + (m_i - m'_i)^2) / (2 s'_i^2) - 1/2]."""
        log_ratio = self.log_std - other.log_std
        shift = (self.mean - other.mean) * jnp.exp(-other.log_std)
        # expm1(2 x) / 2 - x instead of (exp(2 x) - 1) / 2 - x: exact where the two nearly agree.
        return _sum(0.5 * jnp.expm1(2 * log_ratio) - log_ratio + 0.5 * shift**2)

    def mode(self) -> jax.Array:
        return self.mean

    def _log_density(self, standardized: jax.Array) -> jax.Array:
        return -_sum(0.5 * standardized**2 + self.log_std + 0.5 * math.log(2 * math.pi))


@component
class SquashedGaussian(Distribution):
    """A diagonal Gaussian squashed into a box: a = center + half_width tanh(z), z ~ N(mean, exp(log_std)^2).

    The density of an action is that of z over the slope of the squashing,

        log pi(a) = log N(z) - sum_i [log half_width_i + log(1 - tanh(z_i)^2)],

    with log(1 - tanh(z)^2) = 2 (log 2 - z - softplus(-2 z)), which is exact however large |z| is.

    Args:
        mean: of z, `f32[..., D]`.
        log_std: of z, `f32[..., D]`.
        low: least action of each dimension (structure).
        high: greatest action of each dimension (structure).

    Reference: Haarnoja et al., "Soft actor-critic algorithms and applications", 2018, appendix C, equation 26.
    """

    mean: jax.Array
    log_std: jax.Array
    low: tuple[float, ...] = static()
    high: tuple[float, ...] = static()

    def sample(self, noise: jax.Array) -> jax.Array:
        """center + half_width tanh(mean + exp(log_std) noise).

        Args:
            noise: standard normal, `f32[..., D]`.
        """
        return self._squash(self._unsquashed.sample(noise))

    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The log-probability comes from z itself, so it is exact where the action has saturated too."""
        z, log_density = self._unsquashed.sample_and_log_prob(noise)
        return self._squash(z), log_density - self._log_slope(z)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """The log-density at z = artanh((a - center) / half_width).

        Next to the ends of the box a rounded action no longer tells z: it is taken to be at least one rounding error
        away from them (|z| <= 8.3 in float32). A ratio of two such log-probabilities of one action is that of the
        Gaussians, the slope cancels; for importance ratios take both from this function.
        """
        center, half = self._box(action)
        edge = 1 - jnp.finfo(action.dtype).eps
        z = jnp.arctanh(jnp.clip((action - center) / half, -edge, edge))
        return self._unsquashed.log_prob(z) - self._log_slope(z)

    def entropy(self) -> jax.Array:
        """The entropy of z, BEFORE squashing: sum_i [log std_i + log(2 pi e) / 2].

        That of the action has no closed form, H(a) = H(z) + E[log slope(z)], where the last term is at most
        sum_i log half_width_i. This one is what an entropy bonus needs: it grows with log_std and does not draw.
        """
        return self._unsquashed.entropy()

    def kl(self, other: Any) -> jax.Array:
        """That of the Gaussians: an invertible map that both share changes no divergence."""
        return self._unsquashed.kl(other._unsquashed)

    def mode(self) -> jax.Array:
        """center + half_width tanh(mean): the median, and the image of the mode of z."""
        return self._squash(self.mean)

    @property
    def _unsquashed(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.log_std)

    def _box(self, like: jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high = (jnp.asarray(bound, like.dtype) for bound in (self.low, self.high))
        shape = (1,) * (like.ndim - 1) + low.shape
        return ((low + high) / 2).reshape(shape), ((high - low) / 2).reshape(shape)

    def _squash(self, z: jax.Array) -> jax.Array:
        center, half = self._box(z)
        return center + half * jnp.tanh(z)

    def _log_slope(self, z: jax.Array) -> jax.Array:
        _, half = self._box(z)
        return _sum(jnp.log(half) + 2 * (math.log(2) - z - jax.nn.softplus(-2 * z)))


def _leading(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -1, 0)


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(_leading(x), 0)


def _indices(x: jax.Array) -> jax.Array:
    """0, 1, ... along the first axis, i32[A, 1, ...]."""
    return jnp.arange(x.shape[0], dtype=jnp.int32).reshape(-1, *[1] * (x.ndim - 1))


def _log_softmax(logits: jax.Array) -> jax.Array:
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, 0, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), 0, keepdims=True))


def _finite(log_probs: jax.Array) -> jax.Array:
    """Zero for log 0, so that 0 log 0 = 0 and so is its gradient."""
    return jnp.where(log_probs > -jnp.inf, log_probs, 0)


def _inverse_cdf(weights: jax.Array, noise: jax.Array) -> jax.Array:
    """min{k : u sum(w) < w_0 + ... + w_k}, never a k with w_k = 0.

    Args:
        weights: `f32[A, ...]` nonnegative with a positive sum; need not be normalised.
        noise: u in [0, 1), `f32[...]`.
    """
    num = weights.shape[0]
    if num > 32:
        cumulative = jnp.cumsum(weights, 0)
        # Partial sums taken in another order need not be monotone: accept only what has weight.
        reached = (cumulative > jnp.expand_dims(noise * cumulative[-1], 0)) & (weights > 0)
        last = num - 1 - jnp.argmax((weights > 0)[::-1], 0)
        return jnp.where(jnp.any(reached, 0), jnp.argmax(reached, 0), last).astype(jnp.int32)
    partial: list[Any] = [weights[0]]
    for k in range(1, num):
        partial.append(partial[-1] + weights[k])
    # k is chosen where partial[k - 1] <= t < partial[k], so w_k > 0. For the last one t < total: u <= 1 - eps / 2, and
    # the product with a total of at least 1 is rounded to the floating number below the total or less.
    threshold = noise * partial[-1]
    return sum(((threshold >= p).astype(jnp.int32) for p in partial[:-1]), jnp.zeros(threshold.shape, jnp.int32))
