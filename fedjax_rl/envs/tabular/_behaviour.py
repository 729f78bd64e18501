"""Agents that see their MDP through a policy they did not choose."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_rl.core import EnvFamily, check, component, is_concrete, static

from .._environment import EnvironmentWrapper
from ._checks import TOLERANCE
from ._derived import DerivedFamily
from ._drawn import floating
from ._mdp import TabularMDP


class BehaviourParams(NamedTuple):
    """One discounted finite MDP and how its agent acts while it collects data; a leading axis holds agents."""

    kernel: Any  # f[S, A, S] P(s' | s, a)
    reward: Any  # f[S, A] expected reward
    initial: Any  # f[S] law of the first state
    behaviour: Any  # f[S, A] pi_b(a | s)
    max_steps_in_episode: Any = 100  # i[]


@dataclasses.dataclass(frozen=True)
class BehaviourMDP(EnvironmentWrapper):
    """A finite MDP whose physics tells how data are collected; build it with `behaviour_family`."""

    env: TabularMDP

    @property
    def num_states(self) -> int:
        """S."""
        return self.env.num_states

    @property
    def num_transitions(self) -> int:
        """Of the MDP: how an agent acts adds none."""
        return self.env.num_transitions

    @property
    def default_params(self) -> BehaviourParams:
        """The nominal MDP and uniform behaviour."""
        nominal = self.env.default_params
        uniform = np.full(nominal.reward.shape, 1 / self.num_actions)
        return BehaviourParams(nominal.kernel, nominal.reward, nominal.initial, uniform, nominal.max_steps_in_episode)


@component
class BehaviourFamily(DerivedFamily):
    """Another family's agents with behaviour policies; build it with `behaviour_family`.

    Args:
        env: the environment.
        original: the other family.
        behaviour: f[K, S, A].
    """

    env: Any = static()
    original: EnvFamily
    behaviour: Any

    def change(self, key: jax.Array, physics: Any) -> BehaviourParams:
        del key
        policies = floating(self.behaviour)
        own = policies[np.arange(physics.kernel.shape[0]) % policies.shape[0]]
        return BehaviourParams(physics.kernel, physics.reward, physics.initial, own, physics.max_steps_in_episode)


def behaviour_family(family: EnvFamily, behaviour: Any) -> BehaviourFamily:
    """Agents in the same worlds who collect data in different ways: none may see all of its MDP, and all together do.

    Agent c acts by pi_b = behaviour[c mod K] while it learns off-policy; nothing else of its MDP changes. Learners for
    which an agent's chain must follow the policy that they evaluate or improve refuse such a family.

    Args:
        family: a family of tabular MDPs.
        behaviour: f[K, S, A] policies.

    Raises:
        ValueError: the family is not one of discounted tabular MDPs, or the policies are none.

    Example:
        >>> one_action_each = np.eye(4)[:, None, :].repeat(5, 1)
        >>> family = behaviour_family(mixture_family(num_states=5, num_actions=4), one_action_each)
        >>> family.sample(jax.random.key(0), 8).behaviour.shape
        (8, 5, 4)
    """
    if not isinstance(family.env, TabularMDP):
        raise ValueError(f"family must be one of discounted tabular MDPs, got {family.env.name}")
    if is_concrete(behaviour):
        policies, shape = np.asarray(behaviour), (family.env.num_states, family.env.num_actions)
        if policies.ndim != 3 or policies.shape[1:] != shape or len(policies) == 0:
            raise ValueError(f"behaviour must have shape [K, {shape[0]}, {shape[1]}], got {list(policies.shape)}")
        good = np.all(policies >= 0) and np.all(abs(policies.sum(-1) - 1) <= TOLERANCE)
        check("behaviour", policies, lambda _: good, "must hold probabilities whose rows sum to one")
    return BehaviourFamily(BehaviourMDP(family.env), family, behaviour)
