"""Garnets: random MDPs in which every state has few successors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check, check_choice, check_count, check_range, component, static

from ._drawn import DrawnFamily, floating, generator, integer, random_rows, random_support
from ._mdp import TabularMDP, TabularParams


@component
class GarnetFamily(DrawnFamily):
    """Noisy copies of one or several Garnets; build it with `garnet_family`.

    Args:
        env: the environment.
        support: f[K, S, A, S] 1 at the successors, 0 elsewhere; agent c has support c mod K.
        reward: f[K, S] reward by state, before the noise.
        features: f[S, p] phi, for linear value functions; every row sums to one.
        policy: f[S, A] pi, the common policy to be evaluated.
        kernel_noise: h: each successor's weight is 1 + U(0, h), normalised.
        reward_noise: an agent's reward is that of its Garnet plus U(0, this).
        max_steps: time limit [steps].
    """

    env: TabularMDP = static()
    support: Any
    reward: Any
    features: Any
    policy: Any
    kernel_noise: Any
    reward_noise: Any
    max_steps: Any

    def draw(self, key: jax.Array, agent: jax.Array) -> TabularParams:
        k_kernel, k_reward = jax.random.split(jax.random.fold_in(key, agent))
        support, reward = floating(self.support), floating(self.reward)
        which = agent % support.shape[0]
        weight = 1 + floating(self.kernel_noise) * jax.random.uniform(k_kernel, support.shape[1:], support.dtype)
        weight = support[which] * weight
        noise = floating(self.reward_noise) * jax.random.uniform(k_reward, reward.shape[1:], reward.dtype)
        by_state = reward[which] + noise
        states, actions = support.shape[1:3]
        return TabularParams(
            weight / jnp.sum(weight, axis=-1, keepdims=True),
            jnp.broadcast_to(by_state[:, None], (states, actions)),
            jnp.full((states,), 1 / states, support.dtype),
            integer(self.max_steps),
        )


def garnet_family(
    regime: str = "homogeneous",
    num_states: int = 30,
    num_actions: int = 2,
    branching: int = 2,
    num_features: int = 8,
    *,
    kernel_noise: Any = 0.02,
    reward_noise: Any = None,
    max_steps_in_episode: int = 100,
    seed: int = 0,
) -> GarnetFamily:
    """The Garnets on which federated TD learning was measured, with their features and their common policy.

        P_c(s'|s,a) ~ 1{s' in B_c(s,a)} (1 + U(0, h)),   |B_c(s,a)| = b;   r_c(s) = r(s) + U(0, h_r), r(s) ~ U(0, 1)

    In the homogeneous regime all agents share the successors B and the reward r up to noise (eps_P < h / (2 + h) for
    b = 2, eps_r < h_r). In the heterogeneous one even and odd agents have successors of their own (eps_P = 1 as soon as
    two of them differ altogether) and rewards of opposite sign, without noise.

    Evaluating one policy on linear features needs both, so they belong to the family: `family.features` is phi f[S, p],
    uniform with rows normalised to one, and `family.policy` is pi f[S, A], uniform on A - 1 random actions of each
    state (so deterministic for A = 2). Hand them to the learner and to the theory; physics says nothing about them.
    The published discount is 0.95, with 10 or 100 agents and samples i.i.d. from the stationary law.

    Args:
        regime: "homogeneous" or "heterogeneous".
        num_states: S.
        num_actions: A.
        branching: b, successors of each state and action.
        num_features: p.
        kernel_noise: h.
        reward_noise: h_r; None: h in the homogeneous regime and 0 in the heterogeneous one, as published.
        max_steps_in_episode: time limit [steps] where it is played in episodes; the first state is uniform.
        seed: of successors, rewards, features and policy.

    Raises:
        ValueError: a value is out of its range.

    Reference:
        Mangold et al., "SCAFFLSA: Taming heterogeneity in federated linear stochastic approximation and TD learning",
        NeurIPS 2024, section 6, and its code; Archibald et al., "On the generation of Markov decision processes", 1995.
    """
    check_choice("regime", regime, ("homogeneous", "heterogeneous"))
    counts = {"num_states": num_states, "num_actions": num_actions, "branching": branching}
    counts |= {"num_features": num_features, "max_steps_in_episode": max_steps_in_episode}
    for name, value in counts.items():
        check_count(name, value)
    check("branching", branching, lambda v: v <= num_states, f"must be at most num_states = {num_states}")
    heterogeneous = regime == "heterogeneous"
    if reward_noise is None:
        reward_noise = 0.0 if heterogeneous else kernel_noise
    check_range("kernel_noise", kernel_noise, 0.0)
    check_range("reward_noise", reward_noise, 0.0)

    rng = generator(seed)
    signs = np.array([[1.0], [-1.0]]) if heterogeneous else np.ones((1, 1))
    support = random_support(rng, (len(signs), num_states, num_actions, num_states), branching)
    reward = signs * rng.uniform(size=num_states)
    features = random_rows(rng, (num_states, num_features), "uniform")
    policy = random_support(rng, (num_states, num_actions), max(num_actions - 1, 1))
    policy = policy / policy.sum(-1, keepdims=True)
    env = TabularMDP(num_states, num_actions, branching)
    return GarnetFamily(env, support, reward, features, policy, kernel_noise, reward_noise, max_steps_in_episode)
