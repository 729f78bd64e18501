"""What local steps cost when agents want different things, and what corrections buy back.

Carts with their own places to stand (set-points) share one policy. From 1 to 64 local steps between two meetings, the
same number of environment steps in all: fewer messages, more drift.

    python experiments/drift.py [--seeds 20] [--out runs/drift]
"""

from _variants import arguments, study

from fedjax_rl.training import ExperimentConfig


LEARNING_RATE = 0.5
# FedDyn's alpha is what makes its memory a mean gradient: 1 / (learning rate x local steps).
CORRECTIONS = {
    "FedAvg": (),
    "FedProx": ("proximal(0.1)",),
    "SCAFFOLD": ("control_variates()",),
    "FedDyn": ("dynamic_regularization({alpha})",),
    "MIME": ("mime(0.0)",),
}


def main() -> None:
    options = arguments("drift", __doc__, local_steps_in_all=512)
    variants, groups = {}, {}
    for steps in (1, 4, 16, 64):
        for method, corrections in CORRECTIONS.items():
            exchanges = 2 if method == "MIME" else 1  # MIME's model moves in every other round
            groups.setdefault(f"local-steps-{steps}", ["FedAvg, 1"] * (steps > 1)).append(f"{method}, {steps}")
            rounds = options.local_steps_in_all // steps
            variants[f"{method}, {steps}"] = ExperimentConfig().replace(
                name=f"drift-{method}-{steps}",
                num_agents=10,
                num_seeds=options.seeds,
                num_rounds=rounds * exchanges,
                world={"family": "cartpole_family('packer-r', set_point=(-1.0, 1.0), max_steps_in_episode=200)"},
                policy={"hidden_sizes": (32, 32), "shared_trunk": False},
                rollout={"num_envs": 4, "num_steps": 50},
                learner={
                    "objective": "actor_critic(normalization='advantages', value_cost=0.05, entropy_cost=0.0)",
                    "optimizer": f"sgd(learning_rate={LEARNING_RATE})",
                    "num_local_steps": steps,
                    "corrections": tuple(c.format(alpha=1 / (LEARNING_RATE * steps)) for c in corrections),
                    "optimizer_state": "reset",
                },
                evaluation={"every": max(1, rounds * exchanges // 16), "success": (), "unseen_agents": 0},
            )
    study(variants, options, thresholds=(90.0,), groups=groups)


if __name__ == "__main__":
    main()
