"""Deep Q-learning."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core import check_range, component, static
from ..policies import epsilon_greedy, q_policy
from ..rl import check_schedule, huber_loss, masked_mean, ramp, value_at
from ._objective import Collected, Objective
from ._off_policy import OffPolicy, OffPolicyState, Practice, Transition, check_targets, practice


PyTree = Any


@component
class DQN(OffPolicy):
    """Q-learning from memory with a slow copy of the network; build it with `dqn`."""

    play: Practice
    discount: Any
    target_rate: Any
    target_period: Any
    epsilon: Any
    huber: Any
    double: bool = static()

    def tracked(self, params: PyTree) -> PyTree:
        return params

    def act(self, params: PyTree, observation: jax.Array, noise: jax.Array, count: jax.Array) -> jax.Array:
        values = self.play.policy.q_values(params, observation)
        return epsilon_greedy(values, value_at(self.epsilon, count)).sample(noise)

    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: OffPolicyState) -> Collected:
        collected = super().collect(key, env, physics, params, state)
        epsilon = jnp.asarray(value_at(self.epsilon, state.count), jnp.result_type(float))
        return collected._replace(metrics={**collected.metrics, "epsilon": epsilon})

    def loss(
        self, key: jax.Array, params: PyTree, state: OffPolicyState, batch: Transition
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        q_values = self.play.policy.q_values
        values = q_values(params, batch.observation)
        slow = q_values(state.target, batch.next_observation)
        chooser = q_values(params, batch.next_observation) if self.double else slow
        target = self.bootstrapped(batch, _at(slow, jnp.argmax(chooser, -1)))
        value = _at(values, batch.action)
        loss = huber_loss(value, target, batch.mask, self.huber)
        return loss, {"value_loss": loss, "q_mean": masked_mean(value, batch.mask)}


def _at(values: jax.Array, action: jax.Array) -> jax.Array:
    """values[s, action[s]], f32[S]."""
    return jnp.take_along_axis(values, action[:, None], -1)[:, 0]


def dqn(
    env: Any,
    *,
    num_envs: int = 8,
    num_steps: int = 4,
    discount: float = 0.99,
    capacity: int = 10_000,
    batch_size: int = 64,
    learning_starts: int = 500,
    epsilon: Any = ramp(1.0, 0.05, 500),
    target_rate: float = 1.0,
    target_period: int = 50,
    double: bool = False,
    huber: float = math.inf,
    episodes: str = "continue",
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    initialization: str = "orthogonal",
) -> Objective:
    """DQN: Q-learning with a replay buffer and a target network, both the agent's own.

    A local step plays epsilon-greedily, writes to the buffer and draws a batch from it. The loss is
    mean(h(y - Q(s, a))) with h of Huber and y = r + gamma (1 - terminated) max_a' Q'(s', a'), where Q' is the slow
    copy; with `double` its value at argmax_a' Q(s', a'). Several gradient steps in a local step are `num_epochs` and
    `num_minibatches` of `local_training`, which repeat or split the batch; an adaptive optimiser's memory should be
    kept (optimizer_state="keep").

    Args:
        env: the environment, with discrete actions; the network is `q_policy(env, ...)`.
        num_envs: environments (E) of one agent.
        num_steps: steps (T) of each per local step.
        discount: gamma in [0, 1].
        capacity: transitions an agent remembers; rounded up to whole blocks of num_envs x num_steps.
        batch_size: transitions drawn per local step.
        learning_starts: transitions in the buffer before anything is learned.
        epsilon: share of random actions; a number or a schedule over local steps such as `ramp(1.0, 0.05, 500)`.
        target_rate: share of the network that its slow copy takes over; 1 copies it.
        target_period: local steps between two movements of the slow copy.
        double: choose the next action by the network itself, value it by the slow copy.
        huber: error beyond which the loss is linear; infinity: half the squared error. 1 is the paper's; once errors
            exceed it, rows vote with their signs only, and the few that terminate may be overruled until Q diverges.
        episodes: "continue" keeps environments from local step to local step; "fresh" plays one new episode each.
        hidden_sizes: widths of the hidden layers.
        activation: of the hidden layers.
        initialization: "orthogonal" or "uniform".

    Reference: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015, algorithm 1; van
        Hasselt et al., "Deep reinforcement learning with double Q-learning", AAAI 2016, the target of double DQN.
    """
    check_targets(discount, target_rate, target_period)
    check_schedule("epsilon", epsilon, 0, 1)
    check_range("huber", huber, 0, open_low=True)
    policy = q_policy(env, hidden_sizes, activation, initialization=initialization)
    play = practice(policy, num_envs, num_steps, capacity, batch_size, learning_starts, episodes)
    return DQN(play, discount, target_rate, target_period, epsilon, huber, bool(double))


def double_dqn(env: Any, **arguments: Any) -> Objective:
    """Double DQN: `dqn` with the next action chosen by the network and valued by its slow copy.

    Args:
        env: the environment.
        **arguments: the others of `dqn`: num_envs, num_steps, discount, capacity, batch_size, learning_starts, epsilon,
            target_rate, target_period, huber, episodes, hidden_sizes, activation, initialization.

    Reference: van Hasselt et al., "Deep reinforcement learning with double Q-learning", AAAI 2016.
    """
    return dqn(env, double=True, **arguments)


# The configuration gives arguments by their names, so they must show.
double_dqn.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
    [parameter for name, parameter in inspect.signature(dqn).parameters.items() if name != "double"]
)
