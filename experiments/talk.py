"""One cart against ten: does federation shorten the way to 240 of 250?

A talk showed this with one seed each and no word on the algorithm: 1 cart stays above 240 from episode 350 or so,
10 carts from 165. Here: 20 seeds each, actor-critic, one episode per agent and round, intervals over seeds.

    python experiments/talk.py [--seeds 20] [--out runs/talk]
"""

import argparse
import json
from pathlib import Path

import numpy as np

from fedjax_rl.metrics import bootstrap_interval, rounds_to_threshold
from fedjax_rl.training import plot_returns, preset, train, use_all_cores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("runs/talk"))
    arguments = parser.parse_args()
    use_all_cores()
    runs, table = [], {}
    for num_agents in (1, 10):
        config = preset("talk").replace(
            num_agents=num_agents, num_seeds=arguments.seeds, num_rounds=arguments.rounds, name=f"talk-{num_agents}"
        )
        result = train(config, out=arguments.out / f"carts-{num_agents}", overwrite=True)
        label = f"{num_agents} cart{'s' if num_agents > 1 else ''}"
        runs.append((label, result.history))
        table[label] = summary(result, config)
        print(label, json.dumps(table[label]))
    (arguments.out / "talk.json").write_text(json.dumps(table, indent=2))
    plot_returns(runs, arguments.out / "talk.png", title="Horizon 250, one episode per agent and round")


def summary(result, config) -> dict:
    """From which round (= episode of each agent) every seed stays at 240 or above, and for how many seeds it does."""
    rounds = result.values("return_mean")[0]
    curves = np.stack([result.values("return_mean", config.seed + k)[1] for k in range(config.num_seeds)])
    stays = [rounds_to_threshold(curve, 240.0, for_good=True) for curve in curves]
    first = np.array([rounds[index - 1] if index else np.nan for index in stays])
    low, high = bootstrap_interval(curves[:, -1:])
    censored = np.where(np.isnan(first), np.inf, first)
    return {
        "seeds": config.num_seeds,
        "seeds_that_stay_above_240": int(np.isfinite(first).sum()),
        "stays_above_240_from_episode": {
            f"quantile_{q:g}": float(v) if np.isfinite(v := np.quantile(censored, q, method="higher")) else None
            for q in (0.25, 0.5, 0.75)
        },
        "mean_over_seeds_stays_above_240_from_episode": int(rounds[index - 1])
        if (index := rounds_to_threshold(curves.mean(0), 240.0, for_good=True))
        else None,
        "last_return": {"mean": float(curves[:, -1].mean()), "interval": [float(low[0]), float(high[0])]},
    }


if __name__ == "__main__":
    main()
