"""Small experiments and a hand-made policy that several tests of training share."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs import CartPole, CartPoleParams
from fedjax_rl.policies import Categorical, Policy, mlp_policy
from fedjax_rl.training import ExperimentConfig


TINY = ExperimentConfig(name="tiny", num_agents=5, num_rounds=9, devices=1, seed=3).replace(
    world={"family": "cartpole_family('packer-r', max_steps_in_episode=40)"},
    policy={"hidden_sizes": (8,)},
    rollout={"num_envs": 2, "num_steps": 16},
    learner={"objective": "ppo()", "optimizer": "adam(0.01)", "num_epochs": 2, "optimizer_state": "keep"},
    evaluation={"every": 4, "episodes": 10, "unseen_agents": 5, "final_episodes": 2, "success": (20.0, 30.0)},
    checkpoint={"every_seconds": 0.0},
)

# Push to the side that the pole leans and falls to, and a little to where the cart is, so that it comes back.
BALANCING = np.array([0.1, 0.3, 1.0, 0.5])


def linear_policy() -> Policy:
    """A policy without hidden layers, in a CartPole."""
    return mlp_policy(CartPole(), hidden_sizes=())


def controller(weights: Any) -> dict:
    """Parameters of `linear_policy` that push right where weights . observation > 0; weights [4] or [A, 4]."""
    weights = np.asarray(weights)
    lead = weights.shape[:-1]
    return {
        "params": {
            "actor": {"kernel": jnp.asarray(np.stack([-weights, weights], -1) * 100.0), "bias": jnp.zeros((*lead, 2))},
            "critic": {"kernel": jnp.zeros((*lead, 4, 1)), "bias": jnp.zeros((*lead, 1))},
        }
    }


class Probing(Policy):
    """Balances whichever way the motor is wired: pushes once, looks where the cart went, and believes that.

    It remembers speed, push and belief, or (`stacked`) reads the last step off an observation of two frames.
    """

    def __init__(self, stacked: bool) -> None:
        self.has_memory_of_its_own = not stacked

    @property
    def has_memory(self) -> bool:
        return self.has_memory_of_its_own

    def init(self, key: Any) -> dict:
        return {"params": {"weights": jnp.asarray(BALANCING)}}

    def initial_memory(self, shape: tuple[int, ...]) -> tuple[Any, ...]:
        return (jnp.zeros((*shape, 2)),) if self.has_memory else ()

    def apply(self, params: Any, observation: Any) -> tuple[Any, Any]:
        push = observation[..., 9] - observation[..., 8]  # 0 at the beginning
        return self._act(params, observation[..., :4], observation[..., 5], push)[1:]

    def step(self, params: Any, memory: Any, observation: Any) -> tuple[Any, Any, Any]:
        if not self.has_memory:
            return memory, *self.apply(params, observation)
        ((speed, push),) = (jnp.moveaxis(m, -1, 0) for m in memory)
        push, *acts = self._act(params, observation, speed, push)
        return (jnp.stack([observation[..., 1], push], -1),), *acts

    def _act(self, params: Any, observation: Any, speed: Any, push: Any) -> tuple[Any, Any, Any]:
        belief = jnp.where(push * (observation[..., 1] - speed) < 0, -1.0, 1.0)
        wanted = belief * (observation @ params["params"]["weights"])
        right = jnp.where(wanted > 0, 1.0, -1.0)
        return right, Categorical(100 * jnp.stack([-right, right], -1)), jnp.zeros(right.shape)

    def noise(self, key: Any, shape: tuple[int, ...]) -> Any:
        return jnp.zeros(shape)

    def architecture(self) -> dict[str, Any]:
        return {"kind": "probing"}


def physics(**columns: Any) -> CartPoleParams:
    """The physics of several agents, nominal but for the given columns."""
    count = max(len(column) for column in columns.values())
    nominal = CartPoleParams()._asdict()
    full = {name: jnp.asarray(np.broadcast_to(columns.get(name, value), (count,))) for name, value in nominal.items()}
    return CartPoleParams(**full)
