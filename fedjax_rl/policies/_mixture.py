"""The policy that is the average of several: of what they do, not of their parameters."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_count, component
from ._distributions import Categorical, Distribution
from ._policy import Policy


PyTree = Any


@component
class Mixture(Distribution):
    """p(a) = (1/K) sum_k p_k(a), by drawing a component first.

    Args:
        components: a distribution with leaves `[K, ...]`.
    """

    components: Any

    def sample(self, noise: jax.Array) -> jax.Array:
        """An action of one component.

        Args:
            noise: standard normal `f32[..., D + 1]`; the last entry chooses the component.
        """
        num = self._num
        actions = jax.vmap(lambda c: c.sample(noise[..., :-1]))(self.components)
        chosen = jnp.minimum((jax.scipy.stats.norm.cdf(noise[..., -1]) * num).astype(jnp.int32), num - 1)
        return jnp.take_along_axis(actions, jnp.expand_dims(chosen, (0, actions.ndim - 1)), 0)[0]

    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        action = self.sample(noise)
        return action, self.log_prob(action)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """log((1/K) sum_k p_k(a))."""
        each = jax.vmap(lambda c: c.log_prob(action))(self.components)
        return jax.nn.logsumexp(each, axis=0) - jnp.log(jnp.asarray(self._num, each.dtype))

    def entropy(self) -> jax.Array:
        """Not there: the entropy of a mixture of densities has no closed form."""
        raise NotImplementedError("a mixture of densities has no entropy in closed form; estimate it from log_prob")

    def kl(self, other: Any) -> jax.Array:
        """Not there: neither has the divergence."""
        raise NotImplementedError("a mixture of densities has no divergence in closed form; estimate it from log_prob")

    def mode(self) -> jax.Array:
        """The component's mode at which the mixture is densest."""
        modes = jax.vmap(lambda c: c.mode())(self.components)
        best = jnp.argmax(jax.vmap(self.log_prob)(modes), 0)
        return jnp.take_along_axis(modes, jnp.expand_dims(best, (0, modes.ndim - 1)), 0)[0]

    @property
    def _num(self) -> int:
        return jax.tree.leaves(self.components)[0].shape[0]


@dataclasses.dataclass(frozen=True)
class MixturePolicy(Policy):
    """Acts with one of K models, drawn anew at every step; build it with `mixture_policy`."""

    policy: Policy
    num_models: int

    def init(self, key: jax.Array) -> PyTree:
        """K independent models, leaves `[K, ...]`."""
        return jax.vmap(self.policy.init)(jax.random.split(key, self.num_models))

    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        components, values = jax.vmap(self.policy.apply, (0, None))(params, observation)
        value = jnp.mean(values, 0)
        if isinstance(components, Categorical):  # a mixture of finite distributions is one of them
            return Categorical(jnp.log(jnp.mean(jax.nn.softmax(components.logits, -1), 0))), value
        return Mixture(components), value

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        one = self.policy.noise(key, shape)
        if one.shape == shape:  # one uniform decides about a finite distribution
            return one
        chooser = jax.random.normal(jax.random.fold_in(key, 1), (*shape, 1), one.dtype)
        return jnp.concatenate([one, chooser], -1)

    def parts(self, params: PyTree) -> PyTree:
        return self.policy.parts(params)

    def architecture(self) -> dict[str, Any]:
        return {"kind": "mixture", "policy": self.policy.architecture(), "num_models": self.num_models}


def mixture_policy(policy: Policy, num_models: int) -> MixturePolicy:
    r"""pi(a|s) = (1/K) sum_k pi(a|s; theta_k): the mixture of K agents' policies.

    Not the policy of the averaged parameters: averaging networks and averaging behaviour are different things. Its
    parameters are the agents' own, stacked `[K, ...]`, as `Round.policies(state, index)` returns them. It costs K
    evaluations per step; `learners.distill` turns it into one network.

    Args:
        policy: the architecture of each model.
        num_models: K.
    """
    if not isinstance(policy, Policy):
        raise ValueError(f"policy must be a Policy, got {policy!r}; build one with mlp_policy(family.env)")
    if policy.has_memory:
        raise ValueError(f"policy must have no memory, got {policy!r}: each of the models would need one of its own")
    check_count("num_models", num_models)
    return MixturePolicy(policy, int(num_models))
