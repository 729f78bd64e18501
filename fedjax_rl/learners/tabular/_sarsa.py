"""SARSA with linear action values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...core import Sum, check, check_count, check_range, component, static
from ...envs import TabularParams, inverse_cdf
from .._objective import Collected, Objective
from ._checks import check_finite, check_tabular, check_vector


PyTree = Any


class SarsaRows(NamedTuple):
    """What SARSA learns from: s, a, r, s', a'."""

    state: jax.Array  # i32[T]
    action: jax.Array  # i32[T]
    reward: jax.Array  # f[T]
    next_state: jax.Array  # i32[T]
    next_action: jax.Array  # i32[T]


class SarsaState(NamedTuple):
    """Where the agent's chain is."""

    state: jax.Array  # i32[]
    action: jax.Array  # i32[] drawn, but not yet taken


@component
class Sarsa(Objective):
    """On-policy control with linear action values; build it with `sarsa`."""

    features: Any
    discount: Any
    temperature: Any
    initial: Any
    num_samples: int = static()

    @property
    def batch_size(self) -> int:
        return self.num_samples

    @property
    def ordered(self) -> bool:
        return True

    def check(self, env: Any, physics: PyTree) -> None:
        check_tabular(env, physics, "sarsa", *jnp.shape(self.features)[:2])

    def init(self, key: jax.Array, env: Any) -> jax.Array:
        return self._floating(self.initial)

    def init_local(self, key: jax.Array, env: Any, physics: TabularParams, params: jax.Array) -> SarsaState:
        uniform = jax.random.uniform(key, (2,))
        state = inverse_cdf(uniform[0], jnp.asarray(physics.initial))
        return SarsaState(state, self._act(params, state, uniform[1]))

    def collect(
        self, key: jax.Array, env: Any, physics: TabularParams, params: jax.Array, state: SarsaState
    ) -> Collected:  # fmt: skip
        kernel, reward = jnp.asarray(physics.kernel), self._floating(physics.reward)

        def step(at: SarsaState, uniform: jax.Array) -> tuple[SarsaState, SarsaRows]:
            following = inverse_cdf(uniform[0], kernel[at.state, at.action])
            after = SarsaState(following, self._act(params, following, uniform[1]))
            return after, SarsaRows(at.state, at.action, reward[at.state, at.action], *after)

        uniform = jax.random.uniform(key, (self.num_samples, 2))
        if self.num_samples == 1:  # a loop of one turn is a loop
            after, row = step(state, uniform[0])
            rows = jax.tree.map(lambda x: x[None], row)
        else:
            after, rows = jax.lax.scan(step, state, uniform)
        steps = jnp.int32(self.num_samples)
        return Collected(rows, after, steps.astype(jnp.float32), {"env_steps": Sum(steps)})

    def loss(
        self, key: jax.Array, params: jax.Array, state: SarsaState, batch: SarsaRows
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        theta = jax.lax.stop_gradient(params)
        features = self._floating(self.features)
        here, there = features[batch.state, batch.action], features[batch.next_state, batch.next_action]
        # Sums of products, not `@`: of many small agents those are one loop, and products one call each.
        error = batch.reward + jnp.sum((self._floating(self.discount) * there - here) * theta[None], -1)
        direction = jnp.mean(here * error[:, None], 0)
        return -jnp.sum(direction * params), {}

    # ------------------------------------------------------------ parts

    def _floating(self, x: Any) -> jax.Array:
        """An array of the dtype of the parameters."""
        return jnp.asarray(x, jnp.result_type(float, self.features, self.initial))

    def _act(self, params: jax.Array, state: jax.Array, uniform: jax.Array) -> jax.Array:
        """i32[] an action of the softmax policy."""
        values = jnp.sum(self._floating(self.features)[state] * params[None], -1)
        return inverse_cdf(uniform, jax.nn.softmax(values / self._floating(self.temperature)))


def sarsa(
    features: Any, discount: Any, temperature: Any = 1.0, *, num_samples: int = 1, initial: Any = None
) -> Objective:
    r"""SARSA with linear action values and a softmax policy: learns the values of the policy that these values make.

        a ~ pi_theta(. | s) ~ exp(phi(s, a)^T theta / temperature),   s' ~ P(. | s, a),   a' ~ pi_theta(. | s')
        theta <- theta + eta phi(s, a) (r + gamma phi(s', a')^T theta - phi(s, a)^T theta)

    Every agent follows one chain of its own, which starts from the MDP's first states and is never reset. As its data
    depend on theta, H local steps are num_local_steps=H of `local_training`, each with a collect of its own. FedSARSA
    is that with plain SGD and weight="uniform".

    Args:
        features: phi f[S, A, d], common to all agents; np.eye(S * A).reshape(S, A, S * A) is a table.
        discount: gamma in [0, 1).
        temperature: > 0 of the softmax policy; the lower, the greedier.
        num_samples: steps of one `collect`, under the parameters at its beginning; a local step averages them.
        initial: f[d] first parameters; None: zeros.

    Raises:
        ValueError: a value or a shape is wrong.

    Reference: Rummery and Niranjan, "On-line Q-learning using connectionist systems", 1994; Zhang, Wang, Mitra,
        Anderson, "Finite-time analysis of on-policy heterogeneous federated reinforcement learning", ICLR 2024
        (FedSARSA).
    """
    if np.ndim(features) != 3 or 0 in np.shape(features):
        raise ValueError(
            f"features must have shape [S, A, d], got {list(np.shape(features))}; a table is "
            "np.eye(S * A).reshape(S, A, S * A)"
        )
    check_finite("features", features)
    check_range("discount", discount, 0, 1, open_high=True)
    check("temperature", temperature, lambda v: 0 < float(v) < float("inf"), "must be positive")
    check_count("num_samples", num_samples)
    if initial is None:
        initial = jnp.zeros(jnp.shape(features)[2], jnp.result_type(float, features))
    check_vector("initial", initial, jnp.shape(features)[2])
    return Sarsa(features, discount, temperature, initial, num_samples)
