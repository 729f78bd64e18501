"""Which step size each method of waiting.py gets: the return at the end of short runs with seeds of their own.

python experiments/waiting.py --pilot [--seeds 4] [--gradients 240]
"""

import json

from _methods import METHODS, variant
from _variants import arguments

from fedjax_rl.training import train


SEED = 1000  # the experiment's seeds begin at 0
STEPS = {
    "AFedPG": (0.007, 0.02, 0.05, 0.15),
    "synchronous FedPG": (0.05, 0.15, 0.5),
    "synchronous FedPG (sgd)": (0.2, 0.6, 2.0),
    "vanilla asynchronous": (0.007, 0.02, 0.05, 0.15),
    "A3C": (0.0007, 0.002, 0.005, 0.015),
    "FedAsync": (0.003, 0.01, 0.03, 0.1),
    "FedBuff": (0.003, 0.01, 0.03, 0.1),
    "Rennala": (0.05, 0.15, 0.5),
    "Malenia": (0.05, 0.15, 0.5),
}


def main() -> None:
    options = arguments("pilot", __doc__, seeds=4, agents=8, gradients=240)
    found = {}
    for method in METHODS:
        for step in STEPS[method]:
            config = variant(method, "4", "unlike", options.agents, options.gradients, options.seeds, step)
            result = train(config.replace(seed=SEED), progress=False)
            found.setdefault(method, {})[f"{step:g}"] = result.summary["training_agents"]["return_mean"]
            seconds, rounds = result.summary["seconds"], config.num_rounds
            print(
                f"{method}, {step:g}: {found[method][f'{step:g}']:.1f} ({rounds} rounds, {seconds:.0f} s)", flush=True
            )
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "pilot.json").write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
