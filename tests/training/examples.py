"""Small experiments and a hand-made policy that several tests of training share."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs import CartPole, CartPoleParams
from fedjax_rl.policies import Policy, mlp_policy
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


def physics(**columns: Any) -> CartPoleParams:
    """The physics of several agents, nominal but for the given columns."""
    count = max(len(column) for column in columns.values())
    nominal = CartPoleParams()._asdict()
    full = {name: jnp.asarray(np.broadcast_to(columns.get(name, value), (count,))) for name, value in nominal.items()}
    return CartPoleParams(**full)
