"""Two agents, each with a single optimum, whose average has several."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check_range


class CounterExample(NamedTuple):
    """A federation, and the policies that depend on one number."""

    kernel: jax.Array  # f[N, 4, 2, 4]
    reward: jax.Array  # f[4, 2]
    initial: jax.Array  # f[4]
    discount: Any
    entropy_weight: Any

    def logits(self, theta: Any) -> jax.Array:
        """f[4, 2]: action 1 in state 0 with probability sigmoid(theta); uniform after that, and at the end certain."""
        rest = jnp.asarray([[0.0, 0.0], [0.0, 0.0], [0.0, -1e4]], self.reward.dtype)  # exp(-1e4) is zero
        return jnp.concatenate([jnp.stack([jnp.zeros_like(theta), theta])[None].astype(rest.dtype), rest])


def average_without_lojasiewicz(
    success: Any = ((0.0, 1.0), (0.99, 0.01)), discount: Any = 0.999, entropy_weight: Any = 1.0
) -> CounterExample:
    """Agents that leave state 0 by different actions, so that gradient ascent on their average can stop too early.

    In state 0, agent c leaves with probability p_c by action 0 and q_c by action 1, and stays otherwise. State 1 pays 1
    and leads to state 2, that to state 3, which is absorbing. With s = sigmoid(theta) the chance of action 1 in state
    0, uniform actions in states 1 and 2, a certain one in state 3, and f_c = p_c + (q_c - p_c) s,

        J_c = (lambda H(s) + gamma f_c (1 + lambda log 2 + gamma lambda log 2)) / (1 - gamma (1 - f_c)).

    Each J_c has one stationary point. The average of the two has three with the default numbers: the maximum at theta
    = -4.872 (4.867), a minimum at 0.040 (3.766), and another maximum at 3.028 (4.126), at which every ascent that
    starts to the right of the minimum ends. So no Lojasiewicz inequality holds for the average.

    Args:
        success: N pairs (p_c, q_c) in [0, 1].
        discount: gamma in [0, 1).
        entropy_weight: lambda > 0, or a maximum would lie at infinity.

    Returns:
        The federation and its policies.

    Raises:
        ValueError: a number is out of range.

    Reference: Labbi et al., "On global convergence rates for federated softmax policy gradient under heterogeneous
        environments", 2026 (the example of the average objective without the inequality).
    """
    if np.ndim(success) != 2 or np.shape(success)[1] != 2:
        raise ValueError(
            f"success must be pairs, one for each agent, got {success!r}; such as ((0.0, 1.0), (0.99, 0.01))"
        )
    for index, pair in enumerate(success):
        for place, chance in enumerate(pair):
            check_range(f"success[{index}][{place}]", chance, low=0.0, high=1.0)
    check_range("discount", discount, low=0.0, high=1.0, open_high=True)
    check_range("entropy_weight", entropy_weight, low=0.0, open_low=True)
    leave = jnp.asarray(success, jnp.result_type(float))
    onward = jnp.asarray([[0.0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]], leave.dtype)
    kernel = jnp.zeros((len(leave), 4, 2, 4), leave.dtype)
    kernel = kernel.at[:, 0, :, 0].set(1 - leave).at[:, 0, :, 1].set(leave).at[:, 1:].set(onward[None, :, None])
    reward = jnp.zeros((4, 2), leave.dtype).at[1].set(1)
    return CounterExample(kernel, reward, jnp.eye(4, dtype=leave.dtype)[0], discount, entropy_weight)
