"""Agents whose MDPs are mixtures of a common one and their own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check, check_choice, check_count, check_range, component, static

from .._environment import Environment
from ._checks import check_world
from ._drawn import DrawnFamily, floating, generator, integer, random_rows, random_support
from ._episodic import EpisodicMDP, EpisodicParams
from ._mdp import TabularMDP, TabularParams, branching_of


@component
class MixtureFamily(DrawnFamily):
    """P_c = (1 - eps_P) P_0 + eps_P Q_c and r_c = (1 - eps_r) r_0 + eps_r u_c; see `mixture_family`.

    Args:
        env: `TabularMDP`, or `EpisodicMDP` with a leading axis H in kernel and reward.
        common: P_0, r_0, the reset law and the time limit.
        support: f[..., S, A, S] where Q_c may have mass; all states are one-valued where it may have it anywhere.
        density: share of the support that Q_c keeps, drawn by agent; None: all of it.
        eps_p: weight of an agent's own kernel.
        eps_r: weight of its own rewards, uniform on [0, 1].
        branching: number of successors of Q_c, drawn by agent; None: the whole support.
        seed: of Q_c and u_c where there are types, which are then common knowledge and not drawn from the key.
        num_types: number of different Q_c and u_c, which agents take in turn; None: each agent has its own.
        law: of the rows of Q_c.
    """

    env: Environment = static()
    common: Any
    support: Any
    density: Any
    eps_p: Any
    eps_r: Any
    seed: Any = 0
    branching: int | None = static(default=None)
    num_types: int | None = static(default=None)
    law: str = static(default="dirichlet")

    def draw(self, key: jax.Array, agent: jax.Array) -> Any:
        if self.num_types is not None:
            key, agent = jax.random.key(self.seed), agent % self.num_types
        k_kernel, k_reward = jax.random.split(jax.random.fold_in(key, agent))
        kernel, reward = floating(self.common.kernel), floating(self.common.reward)
        own = self._own_kernel(k_kernel, kernel.shape, kernel.dtype)
        own_reward = jax.random.uniform(k_reward, reward.shape, reward.dtype)
        return self.common._replace(
            kernel=(1 - floating(self.eps_p)) * kernel + floating(self.eps_p) * own,
            reward=(1 - floating(self.eps_r)) * reward + floating(self.eps_r) * own_reward,
            initial=floating(self.common.initial),
            max_steps_in_episode=integer(self.common.max_steps_in_episode),
        )

    def _own_kernel(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """Q_c, f[..., S, A, S]."""
        k_weight, k_place, k_keep = jax.random.split(key, 3)
        support = jnp.broadcast_to(floating(self.support), shape)
        place = jnp.where(support > 0, jax.random.uniform(k_place, shape, dtype), 2)
        rank = jnp.argsort(jnp.argsort(place, axis=-1), axis=-1)  # the support comes first, in random order
        if self.branching is not None:
            support = jnp.where(rank < self.branching, support, 0)
        if self.density is not None:
            kept = jax.random.uniform(k_keep, shape, dtype) < floating(self.density)
            none_kept = jnp.logical_not(jnp.any(kept & (support > 0), axis=-1, keepdims=True))
            support = jnp.where(kept | (none_kept & (rank == 0)), support, 0)
        tiny = jnp.finfo(dtype).tiny  # no row may be zero
        if self.law == "dirichlet":
            weight = jax.random.exponential(k_weight, shape, dtype)
        else:
            weight = jax.random.uniform(k_weight, shape, dtype)
        weight = support * jnp.maximum(weight, tiny)
        return weight / jnp.sum(weight, axis=-1, keepdims=True)


def mixture_family(
    num_states: int = 5,
    num_actions: int = 4,
    *,
    eps_p: Any = 0.1,
    eps_r: Any = 0.0,
    num_types: int | None = None,
    branching: int | None = None,
    common: TabularParams | EpisodicParams | None = None,
    max_steps_in_episode: int = 100,
    seed: int = 0,
) -> MixtureFamily:
    """Agents whose kernels and rewards are mixtures of common and own ones: the distance from equality is a knob.

        P_c = (1 - eps_P) P_0 + eps_P Q_c,   r_c = (1 - eps_r) r_0 + eps_r u_c

    The rows of P_0 and Q_c are Dirichlet(1, ..., 1), on all states or on `branching` random ones; r_0 and u_c are
    uniform on [0, 1]; the first state is uniform. Two agents differ by at most eps_P in total variation in every state
    and action, and by at most eps_r in reward. P_0 and r_0 are drawn from the seed and lie in the family's `common`.

    Args:
        num_states: S.
        num_actions: A.
        eps_p: in [0, 1].
        eps_r: in [0, 1].
        num_types: K: agents c, c + K, ... are the same (2 in the published experiment); None: all differ.
        branching: successors of each state and action; None: all S.
        common: a centre of your own, whose sizes replace `num_states` and `num_actions`: `TabularParams`, or
            `EpisodicParams` for a finite horizon.
        max_steps_in_episode: time limit [steps]; 20 in the published experiment. A centre of your own has its own.
        seed: of the centre and of the types.

    Raises:
        ValueError: a value is out of its range, or the centre is no MDP.

    Reference:
        Labbi et al., "Federated softmax policy gradient", AISTATS 2026, and its code (S = 5, A = 4, two types).
    """
    check_range("eps_p", eps_p, 0.0, 1.0)
    check_range("eps_r", eps_r, 0.0, 1.0)
    if num_types is not None:
        check_count("num_types", num_types)
    if common is None:
        rng = generator(seed)
        common = _random_world(rng, num_states, num_actions, branching, max_steps_in_episode)
    elif not isinstance(common, (TabularParams, EpisodicParams)):
        raise ValueError(f"common must be TabularParams or EpisodicParams, got {type(common).__name__}")
    else:
        check_world("common", common)
    if branching is not None:
        check_count("branching", branching)
        states = np.shape(common.reward)[-2]
        check("branching", branching, lambda v: v <= states, f"must be at most S = {states}")
    env = _environment(common, branching)
    return MixtureFamily(env, common, 1.0, None, eps_p, eps_r, seed, branching, num_types)


def _random_world(
    rng: np.random.Generator, num_states: int, num_actions: int, branching: int | None, max_steps: int
) -> TabularParams:
    """A random MDP with Dirichlet rows on all states or on some, uniform rewards and a uniform reset."""
    check_count("num_states", num_states)
    check_count("num_actions", num_actions)
    check_count("max_steps_in_episode", max_steps)
    shape = (num_states, num_actions, num_states)
    kernel = random_rows(rng, shape, "dirichlet")
    if branching is not None:
        kernel = kernel * random_support(rng, shape, branching)
        kernel = kernel / kernel.sum(-1, keepdims=True)
    return TabularParams(kernel, rng.uniform(size=shape[:2]), np.full(num_states, 1 / num_states), max_steps)


def _environment(common: Any, branching: int | None = None) -> TabularMDP | EpisodicMDP:
    """The environment of the sizes of a world; the mixtures' successors are its own and `branching` others."""
    shape = np.shape(common.reward)
    if isinstance(common, EpisodicParams):
        return EpisodicMDP(*shape)
    states, actions = shape
    own = branching_of(common.kernel)
    if branching is None or own is None or own + branching >= states:
        return TabularMDP(states, actions)
    return TabularMDP(states, actions, own + branching)


def random_mdp_family(
    num_states: int = 5,
    num_actions: int = 5,
    *,
    eps_p: Any = 0.2,
    support: str = "full",
    sparsity: Any = 0.2,
    max_steps_in_episode: int = 100,
    seed: int = 0,
) -> MixtureFamily:
    """Random MDPs around a centre, with the same rewards for all agents.

        P_c = (1 - eps_P) P_0 + eps_P U_c,   r uniform on [0, 1]

    The rows of P_0 and U_c are normalised uniform numbers. With discount 0.9, the published sets are eps_P in
    {0, 0.2, ..., 1} with disjoint supports (where the first agent is P_0 itself), and sparse U_c with eps_P = 1.

    Args:
        num_states: S.
        num_actions: A.
        eps_p: in [0, 1].
        support: where U_c has mass: "full": everywhere; "disjoint": on the states that P_0 does not lead to, each of
            which is drawn with probability 1/2, so that two rows are at distance eps_P from the centre exactly;
            "sparse": each state with probability `sparsity`, at least one.
        sparsity: in (0, 1], for "sparse" only.
        max_steps_in_episode: time limit [steps].
        seed: of P_0, the rewards and the disjoint support.

    Raises:
        ValueError: a value is out of its range.

    Reference:
        Jin et al., "Federated reinforcement learning with environment heterogeneity", AISTATS 2022, and its code.
    """
    check_range("eps_p", eps_p, 0.0, 1.0)
    check_choice("support", support, ("full", "disjoint", "sparse"))
    check_range("sparsity", sparsity, 0.0, 1.0, open_low=True)
    rng = generator(seed)
    common = _random_world(rng, num_states, num_actions, None, max_steps_in_episode)
    kernel = random_rows(rng, common.kernel.shape, "uniform")
    mask: Any = 1.0
    if support == "disjoint":
        check_count("num_states", num_states, 2, remedy='support="disjoint" needs a state on either side')
        inside = _some_but_not_all(rng, kernel.shape)
        kernel = kernel * inside / (kernel * inside).sum(-1, keepdims=True)
        mask = 1 - inside
    density = sparsity if support == "sparse" else None
    common = common._replace(kernel=kernel)
    return MixtureFamily(_environment(common), common, mask, density, eps_p, 0.0, law="uniform")


def _some_but_not_all(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """0/1 f64[*shape]: fair coins, one of them turned where a row is all heads or all tails."""
    coins = (rng.uniform(size=shape) < 0.5).astype(np.float64)
    turned = random_support(rng, shape, 1)
    total = coins.sum(-1, keepdims=True)
    return np.where((total == 0) | (total == shape[-1]), np.abs(coins - turned), coins)


def synthetic_family(
    num_states: int = 5, num_actions: int = 5, horizon: int = 4, *, eps_p: Any = 0.0, seed: int = 0
) -> MixtureFamily:
    """Finite-horizon MDPs, inhomogeneous in time, around a common one with the same rewards for all agents.

        P_{c,h} = (1 - eps_P) P_h + eps_P Q_{c,h},   h = 0, ..., H - 1

    All rows are Dirichlet(1, ..., 1), rewards uniform on [0, 1], the first state is uniform. Regret is measured on the
    common MDP, the family's `common`. Published: eps_P in {0} and 10^-3, ..., 10^-0.5.

    Args:
        num_states: S.
        num_actions: A.
        horizon: H [steps].
        eps_p: in [0, 1].
        seed: of the common MDP.

    Raises:
        ValueError: a value is out of its range.

    Reference: Labbi et al., "Federated UCBVI", AISTATS 2025, and its code.
    """
    for name, value in (("num_states", num_states), ("num_actions", num_actions), ("horizon", horizon)):
        check_count(name, value)
    rng = generator(seed)
    shape = (horizon, num_states, num_actions)
    kernel = random_rows(rng, (*shape, num_states), "dirichlet")
    common = EpisodicParams(kernel, rng.uniform(size=shape), np.full(num_states, 1 / num_states), horizon)
    return mixture_family(eps_p=eps_p, common=common)
