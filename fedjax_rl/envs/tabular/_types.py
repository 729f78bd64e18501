"""Agents of a few given types, and the two smallest families in which one policy cannot serve all of them."""

from typing import Any

import jax
import numpy as np

from fedjax_rl.core import check, check_count, component, static

from .._environment import Environment
from ._drawn import DrawnFamily, floating, integer
from ._mdp import TabularMDP, TabularParams, branching_of


@component
class TypesFamily(DrawnFamily):
    """Agents c, c + K, c + 2K, ... have the c-th of K given MDPs; nothing is drawn.

    Args:
        env: the environment.
        types: the MDPs, leaves [K, ...].
    """

    env: Environment = static()
    types: Any

    def draw(self, key: jax.Array, agent: jax.Array) -> Any:
        del key
        kernel, reward, initial = (floating(x) for x in (self.types.kernel, self.types.reward, self.types.initial))
        limit = integer(self.types.max_steps_in_episode)
        which = agent % kernel.shape[0]
        return self.types._replace(
            kernel=kernel[which], reward=reward[which], initial=initial[which], max_steps_in_episode=limit[which]
        )


def conflict_family(num_actions: int = 4, max_steps_in_episode: int = 100) -> TypesFamily:
    """The smallest conflict: what leads one half of the agents to the reward keeps the other half away from it.

    There are two states. In state 0, where episodes start, even agents reach state 1 by the second half of the actions
    and odd agents by the first half; all other actions stay. State 1 is absorbing and pays 1 a step. A policy that
    takes the good half of an agent's actions with probability p in state 0 has the value

        V(p) = p gamma / ((1 - gamma) (1 - (1 - p) gamma))

    for that agent, and V(1 - p) for those of the other type. At gamma = 0.99 every deterministic common policy has the
    mean value (V(0) + V(1)) / 2 = 49.50, and the one with p = 1/2 has 98.02. Own policies have 99.

    Args:
        num_actions: A, even.
        max_steps_in_episode: time limit [steps].

    Raises:
        ValueError: A is odd or not positive.

    Reference:
        The core of the counter-example of Labbi et al., "Federated softmax policy gradient", AISTATS 2026, theorem 3.1.
    """
    check_count("num_actions", num_actions, 2)
    check("num_actions", num_actions, lambda v: v % 2 == 0, "must be even", "half of the actions are good for a type")
    check_count("max_steps_in_episode", max_steps_in_episode)
    second = np.arange(num_actions) >= num_actions // 2
    kernel, reward = np.zeros((2, 2, num_actions, 2)), np.zeros((2, 2, num_actions))
    for which, good in enumerate((second, ~second)):
        kernel[which, 0, :, 1], kernel[which, 0, :, 0] = good, ~good
    kernel[:, 1, :, 1] = 1
    reward[:, 1] = 1
    return _types(kernel, reward, np.array([1.0, 0.0]), max_steps_in_episode)


# Of seven states: successors by action with their probabilities in tenths, rewards in twentieths. From 3, 4, 5 and 6
# it is a long way to state 0.
_SUCCESSORS = {
    3: ({3: 8, 4: 2}, {3: 7, 4: 2, 5: 1}, {3: 2, 4: 8}, {3: 9, 4: 1}),
    4: ({3: 6, 4: 2, 5: 2}, {3: 5, 4: 2, 5: 2, 6: 1}, {3: 6, 4: 2, 5: 1, 6: 1}, {3: 1, 5: 9}),
    5: ({3: 1, 4: 4, 5: 5}, {4: 5, 5: 4, 6: 1}, {3: 4, 5: 3, 6: 3}, {4: 1, 5: 1, 6: 8}),
    6: ({3: 5, 4: 3, 6: 2}, {4: 1, 5: 8, 6: 1}, {3: 2, 4: 2, 5: 2, 6: 4}, {0: 9, 6: 1}),
}
_REWARDS = {1: (20,) * 4, 2: (20,) * 4, 3: (2, 4, 0, 0), 4: (1, 1, 2, 0), 5: (2, 2, 0, 0), 6: (2, 4, 1, 0)}
_RESETS = (0.05, 0.05, 0.05, 0.3, 0.3, 0.2, 0.05)


def seven_state_family(initial: str = "uniform", max_steps_in_episode: int = 100) -> TypesFamily:
    """Seven states and four actions, two types of agents that differ in state 0 only, where they want the opposite.

    States 1 and 2 absorb and pay 1 a step. In state 0 even agents reach state 1 by actions 2 and 3, odd ones state 2 by
    actions 0 and 1, and the other actions stay (eps_P = 1, eps_r = 0). The way from 3, 4, 5, 6 to 0 pays little. At
    gamma = 0.99 and from uniform starts the best own policies have the mean value 97.558, the best deterministic common
    policy has 63.065 and the best stochastic one 96.87.

    Args:
        initial: law of the first state: "uniform", from which the published values are, or "published", which the
            published code samples from: (1, 1, 1, 6, 6, 4, 1) / 20. Their code mixes the two up.
        max_steps_in_episode: time limit [steps]; published: 20.

    Raises:
        ValueError: an unknown law, or no positive time limit.

    Reference: Labbi et al., "Federated softmax policy gradient", AISTATS 2026, experiment 3, and its code.
    """
    check("initial", initial, lambda v: v in ("uniform", "published"), "must be one of 'uniform', 'published'")
    check_count("max_steps_in_episode", max_steps_in_episode)
    kernel, reward = np.zeros((2, 7, 4, 7)), np.zeros((2, 7, 4))
    kernel[0, 0, (0, 1, 2, 3), (0, 0, 1, 1)] = 1
    kernel[1, 0, (0, 1, 2, 3), (2, 2, 0, 0)] = 1
    for absorbing in (1, 2):
        kernel[:, absorbing, :, absorbing] = 1
    for state, actions in _SUCCESSORS.items():
        for action, successors in enumerate(actions):
            for successor, tenths in successors.items():
                kernel[:, state, action, successor] = tenths / 10
    for state, twentieths in _REWARDS.items():
        reward[:, state] = np.array(twentieths) / 20
    law = np.full(7, 1 / 7) if initial == "uniform" else np.array(_RESETS)
    return _types(kernel, reward, law, max_steps_in_episode)


def _types(kernel: np.ndarray, reward: np.ndarray, initial: np.ndarray, max_steps: int) -> TypesFamily:
    """The family of K MDPs that start alike."""
    count, states, actions = reward.shape
    params = TabularParams(kernel, reward, np.broadcast_to(initial, (count, states)), np.full(count, max_steps))
    return TypesFamily(TabularMDP(states, actions, branching_of(kernel)), params)
