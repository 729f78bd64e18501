"""FedSVRPG-M and FedHAPG-M with enough seeds: do more agents help, and does momentum beat plain averaging?

Carts of horizon 100, a small network, ten local steps of five trajectories each. FedSVRPG-M with beta = 1 is plain
averaging; FedHAPG-M with beta = 1 still weighs trajectories of a model in between.

    python experiments/momentum.py [--seeds 30] [--rounds 25] [--out runs/momentum]
"""

from _variants import arguments, study

from fedjax_rl.training import ExperimentConfig


def main() -> None:
    options = arguments("momentum", __doc__, seeds=30, rounds=25)
    variants, groups = {}, {}
    for num_agents in (1, 2, 5, 10, 20):
        for method, correction in (("FedSVRPG-M", "svrpg_momentum"), ("FedHAPG-M", "hapg_momentum")):
            for beta in (1.0, 0.8, 0.2):
                label = f"{method} {beta}, N={num_agents}"
                groups.setdefault(f"N={num_agents}", []).append(label)
                variants[label] = ExperimentConfig().replace(
                    name=f"{method}-{beta}-{num_agents}",
                    num_agents=num_agents,
                    num_seeds=options.seeds,
                    num_rounds=options.rounds,
                    world={"family": "cartpole_family('nominal', max_steps_in_episode=100)"},
                    policy={"hidden_sizes": (8, 8), "shared_trunk": False},
                    rollout={"num_envs": 5, "num_steps": 100, "episodes": "fresh"},
                    learner={
                        "objective": "reinforce(discount=0.995, baseline='average')",
                        "optimizer": "sgd(learning_rate=0.05)",
                        "num_local_steps": 10,
                        "corrections": (f"{correction}(beta={beta}, max_ratio=1.8)",),
                        "optimizer_state": "reset",
                    },
                    evaluation={"every": 1, "success": (95.0,), "unseen_agents": 0},
                )
    study(variants, options, thresholds=(95.0,), groups=groups)


if __name__ == "__main__":
    main()
