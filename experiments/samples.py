"""Do more agents need fewer samples each? AFedPG with 1, 2, 4 and 8 agents, every arrival a step of the server.

All play the same world, and however many they are they make equally many arrivals together; the slowest agent takes
four times as long as the fastest. The paper says that samples per agent to a threshold fall 4.5 times from 1 to 8.

    python experiments/samples.py [--seeds 20] [--out runs/samples]
"""

import numpy as np
from _clocks import ASYNCHRONOUS, WORLDS, carts, slowness, system
from _variants import arguments, study


PENDULUM = {
    "world": {"family": "gymnax_family('Pendulum-v1', spread=0.0)"},
    "policy": {"hidden_sizes": (32, 32), "shared_trunk": False}
    | {"normalize_observations": True, "normalize_rewards": True},
    "rollout": {"num_envs": 8, "num_steps": 200, "episodes": "fresh"},
    "learner": {
        "objective": "actor_critic(normalization='advantages', entropy_cost=0.0, discount=0.9, gae_lambda=0.9)",
        "algorithm": "afedpg(step_size=0.01, momentum=0.1)",
    },
}  # fmt: skip
THRESHOLDS = {"cartpole": (400.0,), "pendulum": (-300.0,)}


def main() -> None:
    options = arguments("samples", __doc__, cart_arrivals=320, pendulum_arrivals=5000)
    variants, groups = {}, {name: [] for name in THRESHOLDS}
    for num_agents in (1, 2, 4, 8):
        meeting = {
            "topology": ASYNCHRONOUS,
            "participation": f"first_arrivals({system('4')}, batch={num_agents})",
        }
        per_round = np.sum(1 / slowness(num_agents, "4"))  # a batch closes before the fastest agent returns
        carts_rounds, rounds = (round(n / per_round) for n in (options.cart_arrivals, options.pendulum_arrivals))
        cart = carts(
            f"cart-{num_agents}", num_agents, options.seeds, carts_rounds, world={"family": WORLDS["like"]},
            learner={"algorithm": "afedpg(step_size=0.05, momentum=0.1)"}, round=meeting,
        ).replace(evaluation={"every": max(1, round(carts_rounds / 80))})  # fmt: skip
        pendulum = cart.replace(
            name=f"pendulum-{num_agents}", num_rounds=rounds, **PENDULUM,
            evaluation={"every": max(1, round(rounds / 80))},
        )  # fmt: skip
        for name, config in (("cartpole", cart), ("pendulum", pendulum)):
            label = f"{name}, N = {num_agents}"
            variants[label] = config
            groups[name].append(label)
    study(variants, options, thresholds=THRESHOLDS, groups=groups, totals=("messages_delivered",))


if __name__ == "__main__":
    main()
