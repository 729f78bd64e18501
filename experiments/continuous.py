"""Continuous control: PPO, SAC and DDPG on Pendulum and on a cart pushed by a continuous force, 1 to 100 agents.

python experiments/continuous.py [--seeds 20] [--local-steps 4000] [--agents 10] [--out runs/continuous]
"""

from _variants import arguments, study

from fedjax_rl.training import ExperimentConfig


WORLDS = {
    "Pendulum": "gymnax_family('Pendulum-v1')",
    "continuous cart": "cartpole_family('nominal', continuous=True)",
}
REPLAY = "capacity=20000, batch_size=256, learning_starts=500"
LEARNERS = {
    "PPO": {"objective": "ppo(discount=0.95)", "optimizer": "adam(learning_rate=0.003)"},
    "SAC": {"objective": f"sac({REPLAY}, target_rate=0.02)", "optimizer": "adam(learning_rate=0.001)"},
    "DDPG": {"objective": f"ddpg({REPLAY}, target_rate=0.02)", "optimizer": "adam(learning_rate=0.001)"},
}


def main() -> None:
    options = arguments("continuous", __doc__, local_steps=4000, agents=10)
    for world, family in WORLDS.items():
        variants = {}
        for method, learner in LEARNERS.items():
            on_policy = method == "PPO"
            for num_agents in (1, options.agents):
                # The same environment steps: long rollouts and many passes, or one step and one batch at a time.
                rollout = {"num_envs": 4, "num_steps": 200 if on_policy else 1}
                passes = {"num_epochs": 10, "num_minibatches": 8} if on_policy else {"num_local_steps": 50}
                variants[f"{method}, N={num_agents}"] = ExperimentConfig().replace(
                    name=f"{method}-{num_agents}",
                    num_agents=num_agents,
                    num_seeds=options.seeds,
                    num_rounds=options.local_steps // (200 if on_policy else 50),
                    world={"family": family},
                    policy={"shared_trunk": False},
                    rollout=rollout,
                    learner=learner | passes | {"optimizer_state": "keep"},
                    evaluation={"every": 4 if on_policy else 16, "success": (), "unseen_agents": 0},
                )
        study(variants, options.out / world.replace(" ", "-"))


if __name__ == "__main__":
    main()
