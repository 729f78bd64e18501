"""Return against virtual time: what waiting for slow agents costs, and who makes up for not waiting.

Eight agents whose speeds differ by 1 to 20 times learn for the same virtual time, in like and in unlike worlds. Every
method has the step size that a pilot of other seeds chose (`--pilot`). "Synchronous FedPG" is AFedPG's own step, with
normalised momentum and lookahead, at the mean of everybody's gradients, so that only the waiting differs; "synchronous
FedPG (sgd)" is the plain one.

    python experiments/waiting.py [--seeds 20] [--out runs/waiting] [--pilot]
"""

import sys

import _pilot
from _clocks import WORLDS
from _methods import METHODS, variant
from _variants import arguments, study


def main() -> None:
    if "--pilot" in sys.argv:
        sys.argv.remove("--pilot")
        return _pilot.main()
    options = arguments("waiting", __doc__, agents=8, gradients=300)
    variants, groups = {}, {}
    for world in WORLDS:
        for kind in ("1", "2", "4", "10", "20", "sqrt"):
            for method in METHODS:
                label = f"{method}, {kind}, {world}"
                groups.setdefault(f"{world}-{kind}", []).append(label)
                variants[label] = variant(method, kind, world, options.agents, options.gradients, options.seeds)
    study(variants, options, thresholds=(400.0,), groups=groups)
    return None


if __name__ == "__main__":
    main()
