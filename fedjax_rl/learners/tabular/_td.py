"""Temporal-difference learning of linear value functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core import check, check_choice, check_count, check_range, component, is_concrete, static
from ...envs import TabularParams, inverse_cdf, markov_transitions
from .._objective import Collected, Objective
from ._alias import alias_table, draw, possible
from ._checks import as_array, check_features, check_law, check_policy, check_vector
from ._linear import policy_chain, stationary_law, td_system
from ._rows import LinearObjective, along, collected, first_parameters
from ._worlds import check_finite_mdp, check_on_policy, check_sizes, num_transitions


PyTree = Any
SAMPLINGS = ("iid", "markov", "generative", "exact")
_MOST_TRANSITIONS = 2**20  # of a table; each then has 4096 of the 2^32 words on average


class Rows(NamedTuple):
    """Transitions, which move theta by z (r + gamma phi(s')^T theta - phi(s)^T theta)."""

    state: jax.Array  # i32[T]
    next_state: jax.Array  # i32[T]
    reward: jax.Array  # f[T]
    trace: PyTree = ()  # f[T, d] z where there is an eligibility trace; else it is phi(s)


class TDState(NamedTuple):
    """What an agent keeps; () where its way of sampling does not need it."""

    table: PyTree = ()  # u32[m] of which transitions (s, a, s') are drawn
    support: PyTree = ()  # u32[K] numbers of these transitions where they are not all; else ()
    flaw: PyTree = ()  # f[] 0, or NaN where there is no single law to draw from; on every reward, so that it is seen
    system: PyTree = ()  # (A f[d, d], b f[d])
    position: PyTree = ()  # i32[] where the chain is
    trace: PyTree = ()  # f[d] eligibility before the next step


@component
class TD(LinearObjective):
    """Policy evaluation with linear values; build it with `td`."""

    features: Any
    target_policy: Any
    discount: Any
    trace: Any
    law: Any
    initial: Any
    num_samples: int = static()
    sampling: str = static()

    def check(self, env: Any, physics: PyTree) -> None:
        num_states, num_actions = jnp.shape(self.target_policy)
        check_finite_mdp(env, physics, "td")
        check_sizes(env, "policy", num_states, num_actions)
        if self.sampling in ("iid", "markov") or (self.sampling == "exact" and self.law is None):
            remedy = (
                "use sampling='generative', or 'exact' with a law, where states are given and actions follow policy"
            )
            check_on_policy(physics, f"td and sampling={self.sampling!r}", remedy)
        size = num_transitions(env)
        if self.sampling in ("iid", "generative") and size > _MOST_TRANSITIONS:
            raise ValueError(
                f"sampling must be 'markov' or 'exact' with {size} transitions, got {self.sampling!r}, "
                f"whose table may have {_MOST_TRANSITIONS}; an environment that knows its `branching` counts those only"
            )

    def init_local(self, key: jax.Array, env: Any, physics: TabularParams, params: jax.Array) -> TDState:
        policy = self.floating(self.target_policy)
        if self.sampling == "markov":
            position = inverse_cdf(jax.random.uniform(key, ()), jnp.asarray(physics.initial))
            return TDState(position=position, trace=jnp.zeros_like(self.floating(self.initial)))
        if self.law is not None:
            law = self.floating(self.law)
        elif self.sampling == "generative":
            law = jnp.full(policy.shape[:1], 1 / len(policy), policy.dtype)
        else:
            law = stationary_law(policy_chain(physics, policy))
        if self.sampling == "exact":
            features = self.floating(self.features)
            return TDState(system=td_system(features, physics, policy, law, self.discount, self.trace))
        joint = jnp.ravel(law[:, None, None] * policy[:, :, None] * jnp.asarray(physics.kernel))
        flaw = 0 * jnp.sum(law)
        if num_transitions(env) == joint.size:
            return TDState(table=alias_table(joint), flaw=flaw)
        support, probabilities, left_out = possible(joint, num_transitions(env))
        return TDState(alias_table(probabilities), support, jnp.where(left_out, jnp.nan, flaw))

    def collect(
        self, key: jax.Array, env: Any, physics: TabularParams, params: jax.Array, state: TDState
    ) -> Collected:  # fmt: skip
        if self.sampling == "exact":
            batch = jnp.zeros((self.num_samples,), params.dtype)  # rows without content: the loss knows the system
            return collected(batch, state, self.num_samples, exact=True)
        if self.sampling == "markov":
            policy = self.floating(self.target_policy)
            position, seen = markov_transitions(key, physics, policy, state.position, self.num_samples)
            last, trace = self._eligibility(state.trace, seen.state)
            state = state._replace(position=position, trace=last)
            rows = Rows(seen.state, seen.next_state, self.floating(seen.reward), trace)
        else:
            num_states, num_actions = jnp.shape(self.target_policy)
            outcome = draw(jax.random.bits(key, (self.num_samples,), jnp.uint32), state.table)  # one word a transition
            outcome = outcome if isinstance(state.support, tuple) else state.support[outcome]
            pair = outcome // num_states  # unsigned, where a division is a product
            reward = self.floating(physics.reward).reshape(-1)[pair] + state.flaw
            here, there = (x.astype(jnp.int32) for x in (pair // num_actions, outcome % num_states))
            rows = Rows(here, there, reward)
        return collected(rows, state, self.num_samples)

    def loss(
        self, key: jax.Array, params: jax.Array, state: TDState, batch: PyTree
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        theta = jax.lax.stop_gradient(params)
        if self.sampling == "exact":
            matrix, vector = state.system
            direction = vector.astype(theta.dtype) - jnp.sum(matrix.astype(theta.dtype) * theta[None], -1)
        else:
            features = self.floating(self.features)
            here = features[batch.state]  # looked up only here: eight numbers a row would be written and read again
            trace = batch.trace if self.sampling == "markov" else here
            direction = self.mean_direction(theta, here, features[batch.next_state], batch.reward, trace)
        return along(direction, params)

    # ------------------------------------------------------------ parts

    def _eligibility(self, trace: jax.Array, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        """z_t = gamma lambda z_{t-1} + phi(s_t): the last one f[d], and all of them f[T, d]."""
        decay = self.floating(self.discount * self.trace)

        def step(trace: jax.Array, here: jax.Array) -> tuple[jax.Array, jax.Array]:
            trace = decay * trace + here
            return trace, trace

        return jax.lax.scan(step, trace, self.floating(self.features)[states])


def td(
    features: Any,
    policy: Any,
    discount: Any,
    *,
    num_samples: int = 1,
    sampling: str = "iid",
    law: Any = None,
    trace: Any = 0.0,
    initial: Any = None,
) -> Objective:
    r"""TD(lambda) with linear values: evaluates a given policy on a finite MDP.

        theta <- theta + eta z (r + gamma phi(s')^T theta - phi(s)^T theta),    z = phi(s) or the eligibility trace

    The direction is not the gradient of a function of theta: the loss is -<direction, theta> with the direction held
    fixed. What is drawn does not depend on theta. So one `collect` draws many rows, which are used in their order, and
    H local steps of one row each are num_samples=H and num_minibatches=H; `federated_td` says it for you.

    Where an agent acts by another policy (`behaviour_family`), the transitions of its chain would evaluate that one,
    and from its states TD with the policy in question may diverge. So such worlds fit where states are given and only
    the policy in question acts: "generative", or "exact" with a law.

    Args:
        features: phi f[S, d], common to all agents.
        policy: pi f[S, A], the policy to be evaluated.
        discount: gamma in [0, 1).
        num_samples: rows of one `collect`.
        sampling: "iid" draws every state from the stationary law mu_c of the agent's own chain, which must have a
            single one (else its messages are non-finite, masked and counted); "generative" from `law`; "markov" follows
            the agent's chain, which starts from the MDP's first states and is never reset; "exact" steps along the mean
            direction b_c - A_c theta, without noise.
        law: f[S] of the states; None: uniform for "generative", mu_c for "exact". Given for these two only.
        trace: lambda in [0, 1], z <- gamma lambda z + phi(s) along the chain; 0 unless "markov" or "exact".
        initial: f[d] first parameters; None: zeros.

    Raises:
        ValueError: a value or a shape is wrong, or the options exclude each other.

    Reference: Sutton, "Learning to predict by the methods of temporal differences", 1988; Mangold et al., "SCAFFLSA:
        taming heterogeneity in federated linear stochastic approximation and TD learning", NeurIPS 2024,
        arXiv:2402.04114.
    """
    features, policy = as_array(features), as_array(policy)
    check_features(features)
    check_policy(policy, jnp.shape(features)[0])
    check_range("discount", discount, 0, 1, open_high=True)
    check_count("num_samples", num_samples)
    check_choice("sampling", sampling, SAMPLINGS)
    check_range("trace", trace, 0, 1)
    if sampling in ("iid", "generative") and not (is_concrete(trace) and trace == 0):
        raise ValueError(
            f"trace must be 0 with sampling={sampling!r}, whose states do not follow one another, got {trace!r}; use "
            "sampling='markov' or 'exact'"
        )
    if law is not None:
        check(
            "sampling", sampling, lambda v: v in ("generative", "exact"), "must be 'generative' or 'exact' with a law"
        )
        check_vector("law", law, jnp.shape(features)[0])
        check_law("law", law)
        if not (is_concrete(trace) and trace == 0):
            raise ValueError("law must be None with a trace, which belongs to the stationary law of a chain")
    initial = first_parameters(initial, features)
    return TD(features, policy, discount, trace, law, initial, num_samples, sampling)
