"""Federated against centralised against isolated: environment steps per agent until the carts stand.

Equal carts and different ones (`packer-r`), 1 to 50 agents, everyone or a fifth of them in each round.

    python experiments/baselines.py [--seeds 20] [--rounds 20] [--out runs/baselines]
"""

from _variants import arguments, study

from fedjax_rl.training import preset


def main() -> None:
    options = arguments("baselines", __doc__, rounds=20)
    variants, groups = {}, {}
    for family in ("nominal", "packer-r"):
        for num_agents in (1, 2, 5, 10, 50):
            base = preset("cartpole").replace(
                num_seeds=options.seeds,
                num_rounds=options.rounds,
                num_agents=num_agents,
                world={"family": f"cartpole_family('{family}')"},
                evaluation={"every": 1, "final_episodes": 20, "success": (475.0,), "unseen_agents": 0},
            )
            where = f"{family}, N={num_agents}"
            variants[f"federated, {where}"] = base
            if num_agents == 1:
                continue  # all four are the same
            variants[f"isolated, {where}"] = base.replace(round={"topology": "isolated()"})
            variants[f"centralised, {where}"] = base.replace(
                num_agents=1,
                world={"family": f"pooled(cartpole_family('{family}'), copies=4)"},
                rollout={"num_envs": 4 * num_agents},
            )
            if num_agents >= 5:
                cohort = f"uniform_cohort({num_agents // 5})"
                variants[f"federated 20 %, {where}"] = base.replace(round={"participation": cohort})
            labels = [label for label in variants if label.endswith(where)]
            groups[where.replace(", ", "-")] = [f"federated, {family}, N=1", *labels]
    study(variants, options, thresholds=(475.0,), groups=groups)


if __name__ == "__main__":
    main()
