"""Continuous control: PPO, SAC and DDPG on Pendulum and on a cart pushed by a continuous force, 1 to 100 agents.

One agent plays as many steps as the published scores took (100 000 with PPO, 20 000 with a replay); ten agents play
half of that each, and a hundred an eighth, with a quarter of the seeds.

    python experiments/continuous.py [--seeds 20] [--out runs/continuous]
"""

from _variants import arguments, study

from fedjax_rl.training import ExperimentConfig


WORLDS = {
    "Pendulum": ("gymnax_family('Pendulum-v1')", -200.0),
    "continuous cart": ("cartpole_family('nominal', continuous=True)", 475.0),
}
REPLAY = "capacity=20000, batch_size=64, learning_starts=500"
LEARNERS = {
    "PPO": "ppo(discount=0.95)",
    "SAC": f"sac({REPLAY}, target_rate=0.02)",
    "DDPG": f"ddpg({REPLAY}, target_rate=0.01, exploration=0.2, num_critics=2)",
}


def main() -> None:
    options = arguments("continuous", __doc__)
    out = options.out
    for world, (family, threshold) in WORLDS.items():
        variants = {}
        for method, objective in LEARNERS.items():
            on_policy = method == "PPO"
            # Long rollouts and many passes, or one step of each environment and one batch at a time.
            passes = {"num_epochs": 10, "num_minibatches": 8} if on_policy else {"num_local_steps": 50}
            for num_agents, share, fewer in ((1, 1, 1), (10, 2, 1), (100, 8, 4)):
                rounds = (128 if on_policy else 104) // share
                variants[f"{method}, N={num_agents}"] = ExperimentConfig().replace(
                    name=f"{method}-{num_agents}",
                    num_agents=num_agents,
                    num_seeds=max(1, options.seeds // fewer),
                    num_rounds=rounds,
                    world={"family": family},
                    policy={"shared_trunk": False},
                    rollout={"num_envs": 4, "num_steps": 200 if on_policy else 1},
                    learner={"objective": objective, "optimizer": "adam(learning_rate=0.001)"}
                    | {"optimizer_state": "keep"}
                    | passes,
                    evaluation={"every": max(1, rounds // 16), "success": (), "unseen_agents": 0},
                )
        options.out = out / world.replace(" ", "-")
        study(variants, options, thresholds=(threshold,))


if __name__ == "__main__":
    main()
