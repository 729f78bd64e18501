"""What to share under different rewards: the critic, the statistics, and whose samples count.

Carts with their own set-points earn different rewards for the same behaviour.

    python experiments/critics.py [--seeds 20] [--rounds 24] [--out runs/critics]
"""

from _variants import arguments, study

from fedjax_rl.training import preset


WHOLE = {"episodes": "fresh", "num_envs": 1, "num_steps": 500}


def main() -> None:
    options = arguments("critics", __doc__, rounds=24)
    base = preset("cartpole").replace(
        num_agents=20,
        num_seeds=options.seeds,
        num_rounds=options.rounds,
        world={"family": "cartpole_family('packer-r', set_point=(-1.0, 1.0))"},
        evaluation={"every": 2, "final_episodes": 20, "success": (), "unseen_agents": 0},
    )
    variants = {
        "all shared": {},
        "actor shared, own critics": {"learner": {"wrappers": ("aggregate_only(('actor',))",)}},
        "critic shared, own actors": {"learner": {"wrappers": ("aggregate_only(('critic',))",)}},
        "whole episodes": {"rollout": WHOLE},  # now messages differ in their samples
        "whole episodes, weights by samples": {"rollout": WHOLE, "learner": {"weight": "samples"}},
        "observations normalised": {"policy": {"normalize_observations": True}},
        "rewards normalised": {"policy": {"normalize_rewards": True}},
        "both normalised": {"policy": {"normalize_observations": True, "normalize_rewards": True}},
        "both normalised, own statistics": {
            "policy": {"normalize_observations": True, "normalize_rewards": True},
            "learner": {"statistics": "local"},
        },
        "nothing shared": {"round": {"topology": "isolated()"}},
    }
    study({label: base.replace(**changes) for label, changes in variants.items()}, options)


if __name__ == "__main__":
    main()
