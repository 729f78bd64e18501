"""The best policy that all agents share, deterministic or stochastic."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_rl.core import check_count, check_key, check_range, linalg

from ._control import policy_iteration
from ._evaluation import _resolvent
from ._federation import averaged_mdp
from ._lifted import lifted, require_float64
from ._policy_gradient import averaged_return


_ENTRIES_AT_A_TIME = 2**21  # of the matrices that are solved together
_SUFFICIENT_INCREASE = 1e-4


class SharedPolicy(NamedTuple):
    """A policy for all agents and its worth to them on average."""

    policy: jax.Array  # f[S, A]
    value: jax.Array  # f[] (1 / N) sum_c J_c
    # f[] max over policies pi' of <dJ/dpi, pi' - pi>: zero at a stationary point; nan where nothing was climbed
    stationarity: jax.Array


def best_deterministic_policy(
    kernel: jax.Array, reward: jax.Array, initial: jax.Array, discount: Any, *, max_policies: int = 2**22
) -> SharedPolicy:
    """argmax (1 / N) sum_c J_c over the A^S deterministic policies, by trying all of them.

    Among agents with different kernels no dynamic programming finds it: the problem is that of a controller without
    memory for a hidden type, which is NP-hard in general. Policies are tried in blocks, so memory does not grow with
    their number.

    Args:
        kernel: `f[N, S, A, S]` P_c(s' | s, a).
        reward: `f[N, S, A]`, or `f[S, A]` for a common reward.
        initial: `f[N, S]` law of s_0, or `f[S]` for a common one.
        discount: gamma in [0, 1).
        max_policies: more are refused.

    Returns:
        The first of the best policies, in the order of their actions read as a number, state 0 first.

    Raises:
        ValueError: there are more than `max_policies` policies.

    Reference: Littman, "Memoryless policies: theoretical limitations and practical results", 1994 (the hardness).
    """
    check_count("max_policies", max_policies)
    num_agents, num_states, num_actions, _ = jnp.shape(kernel)
    total = num_actions**num_states
    if total > min(max_policies, 2**31 - 1):
        raise ValueError(
            f"max_policies must be at least {num_actions}^{num_states} = {total}, got {max_policies}; "
            "raise it if you can wait, or use best_stochastic_policy"
        )
    places = jnp.asarray([num_actions**k for k in reversed(range(num_states))], jnp.int32)
    dtype = jnp.result_type(float, kernel, reward)

    def policy_at(index: jax.Array) -> jax.Array:
        return jax.nn.one_hot(index // places % num_actions, num_actions, dtype=dtype)

    size = min(total, max(1, _ENTRIES_AT_A_TIME // (num_agents * num_states**2)))

    def try_block(best: tuple[jax.Array, jax.Array], block: jax.Array) -> tuple[Any, None]:
        index = jnp.minimum(block * size + jnp.arange(size, dtype=jnp.int32), total - 1)
        values = averaged_return(kernel, reward, jax.vmap(policy_at)(index), initial, discount)
        first = jnp.argmax(values)
        better = values[first] > best[0]
        return (jnp.where(better, values[first], best[0]), jnp.where(better, index[first], best[1])), None

    averaged_return(kernel, reward, policy_at(jnp.int32(0)), initial, discount)  # checks what the loop cannot see
    start = (jnp.asarray(-jnp.inf, dtype), jnp.int32(0))
    (value, index), _ = lax.scan(try_block, start, jnp.arange(-(-total // size), dtype=jnp.int32))
    return SharedPolicy(policy_at(index), value, jnp.asarray(jnp.nan, dtype))


def best_stochastic_policy(
    key: jax.Array, kernel: jax.Array, reward: jax.Array, initial: jax.Array, discount: Any, *, num_starts: int = 8,
    num_iterations: int = 1000, tolerance: float = 1e-9,
) -> SharedPolicy:  # fmt: skip
    """A local maximum of (1 / N) sum_c J_c over stationary stochastic policies: the best of several ascents.

        pi(. | s) <- Proj(pi(. | s) + alpha sum_c d_c(s) Q_c(s, .) / sum_c d_c(s)),

    the exact gradient divided by how often a state is visited, projected on the simplex, with a step length that is
    halved until the value increases enough and doubled after that. For one agent and a large alpha it is policy
    iteration. Unlike the logits of a softmax, this reaches deterministic rows in finitely many steps.
    The first starts are the uniform policy and the optimal one of the averaged MDP, so that the result is never worse
    than that; the others are uniformly random. The objective has several local maxima in general: more starts can only
    help, and the global maximum is not certain.

    Args:
        key: of the random starts.
        kernel: `f[N, S, A, S]` P_c(s' | s, a).
        reward: `f[N, S, A]`, or `f[S, A]` for a common reward.
        initial: `f[N, S]` law of s_0, or `f[S]` for a common one.
        discount: gamma in [0, 1).
        num_starts: at least 2.
        num_iterations: gradients per start.
        tolerance: an ascent ends when its `stationarity` is below, in the units of the value.

    Returns:
        The best policy found.

    Raises:
        ValueError: not in float64, or a number is out of range.

    Reference: Agarwal et al., "On the theory of policy gradient methods", 2021, section 4 (projected ascent in the
        direct parametrisation); Bertsekas, "Nonlinear programming", 3rd edition, 2016, section 3.3 (search along the
        projection arc).
    """
    check_key(key)
    check_count("num_starts", num_starts, 2)
    check_count("num_iterations", num_iterations)
    check_range("tolerance", tolerance, low=0.0)
    require_float64("best_stochastic_policy", kernel=kernel, reward=reward)
    num_agents, num_states, num_actions, _ = jnp.shape(kernel)
    dtype = jnp.result_type(float, kernel, reward)
    reward = jnp.broadcast_to(jnp.asarray(reward, dtype), (num_agents, num_states, num_actions))
    initial = jnp.broadcast_to(jnp.asarray(initial, dtype), (num_agents, num_states))
    uniform = jnp.full((1, num_states, num_actions), 1 / num_actions, dtype)
    compromise = policy_iteration(*averaged_mdp(kernel, reward), discount).policy[None]
    random = jax.random.dirichlet(key, jnp.ones(num_actions, dtype), (num_starts - 2, num_states), dtype)
    found = _climb(
        jnp.concatenate([uniform, compromise, random]), kernel, reward, initial, discount,
        num_iterations=num_iterations, tolerance=tolerance,
    )  # fmt: skip
    best = jnp.argmax(found[1])
    return SharedPolicy(*(part[best] for part in found))


@lifted("(a)->(a)")
def project_on_simplex(rows: jax.Array) -> jax.Array:
    """The nearest probability vectors: max(x - tau, 0) with the tau for which they sum to one.

    Args:
        rows: `f[..., A]`.

    Returns:
        `f[..., A]`.

    Reference: Held, Wolfe, Crowder, "Validation of subgradient optimization", 1974.
    """
    falling = -jnp.sort(-rows)
    excess = (jnp.cumsum(falling) - 1) / jnp.arange(1, len(rows) + 1, dtype=rows.dtype)
    # The largest k whose k-th entry stays positive; the first one always does.
    return jnp.maximum(rows - excess[jnp.sum(falling > excess) - 1], 0)


@lifted("(s,a),(n,s,a,s),(n,s,a),(n,s),()->(s,a),(),()")
def _climb(
    policy: jax.Array, kernel: jax.Array, reward: jax.Array, initial: jax.Array, discount: Any, *,
    num_iterations: int, tolerance: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    unit = jnp.finfo(policy.dtype).eps

    def of_agent(
        policy: jax.Array, kernel: jax.Array, reward: jax.Array, initial: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """J_c, dJ_c/dpi and how often states are visited, from one factorisation."""
        resolvent = _resolvent(kernel, policy, discount)
        values = linalg.solve(resolvent, jnp.sum(policy * reward, -1))
        visits = linalg.solve(resolvent.T, initial)
        worth = reward + discount * jnp.einsum("sat,t->sa", kernel, values)
        return initial @ values, visits[:, None] * worth, visits

    def look(policy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        found = jax.vmap(of_agent, (None, 0, 0, 0))(policy, kernel, reward, initial)
        return jax.tree.map(lambda part: jnp.mean(part, 0), found)

    def step(carry: Any) -> Any:
        policy, (value, slope, visits), length, count = carry
        direction = slope / jnp.maximum(visits, jnp.finfo(policy.dtype).tiny)[:, None]
        candidate = project_on_simplex(policy + length * direction)
        seen = look(candidate)
        enough = seen[0] >= value + _SUFFICIENT_INCREASE * jnp.sum(slope * (candidate - policy))
        kept = jax.tree.map(
            lambda new, old: jnp.where(enough, new, old), (candidate, seen), (policy, (value, slope, visits))
        )
        return *kept, jnp.where(enough, 2 * length, length / 2), count + 1

    def gap(policy: jax.Array, slope: jax.Array) -> jax.Array:
        return jnp.sum(jnp.max(slope, -1) - jnp.sum(slope * policy, -1))

    def onward(carry: Any) -> jax.Array:
        policy, (value, slope, _), length, count = carry
        # With a step this short, no increase can be told from rounding any more.
        alive = length * jnp.max(jnp.abs(slope)) > unit * (1 + jnp.abs(value)) * 1e-3
        return (gap(policy, slope) > tolerance) & (count < num_iterations) & alive

    start = (policy, look(policy), 1 - discount, jnp.int32(0))
    policy, (value, slope, _), _, _ = lax.while_loop(onward, step, start)
    return policy, value, gap(policy, slope)
