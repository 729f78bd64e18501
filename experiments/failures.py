"""What failures cost: agents that vanish in the middle of a round, messages that get lost, a server that fails.

AFedPG's steps have the same length whatever arrives, which hides a part of the cost; so plain policy gradients (sgd)
meet one failure of each kind too.

    python experiments/failures.py [--seeds 20] [--out runs/failures]
"""

from _clocks import carts
from _variants import arguments, study


NORMALISED = {"algorithm": "afedpg(step_size=0.05, momentum=0.1)"}
PLAIN = {"algorithm": "local_training()", "optimizer": "sgd(learning_rate=0.2)", "upload": "gradient"}
# How the round differs; those of `PLAIN_TOO` are met by plain policy gradients as well.
FAILURES = {
    "dropouts": {f"dropout {p:g}": {"transforms": (f"dropout({p})",)} for p in (0.1, 0.3, 0.5)},
    "lost messages": {
        "loss 0.3": {"transforms": ("erasure(0.3)",)},
        "loss 0.3, 3 attempts": {"transforms": ("erasure(0.3, attempts=3)",)},
        "bursts, 0.3 on average": {"transforms": ("gilbert_elliott(0.05, 0.117)",)},
    },
    "server failures": {
        f"failure {p:g}, replica every {period}": {"topology": f"failover(star(), {p}, {period}, 2)"}
        for p, period in ((0.05, 1), (0.05, 10), (0.15, 10))
    },
}
PLAIN_TOO = ("nothing fails", "dropout 0.5", "loss 0.3", "failure 0.15, replica every 10")
LEARNERS = {"": NORMALISED, ", sgd": PLAIN}
TOTALS = ("messages_lost", "nonfinite_messages", "nonfinite_merges")
OWN_TOTALS = {"dropouts": ("agents_dropped",), "server failures": ("failures", "lost_rounds")}


def main() -> None:
    options = arguments("failures", __doc__, agents=16, rounds=100)
    variants, groups, totals = {}, {}, {}
    for group, kinds in FAILURES.items():
        for suffix, learner in LEARNERS.items():
            for failure, meeting in {"nothing fails": {}, **kinds}.items():
                if suffix and failure not in PLAIN_TOO:
                    continue
                label, name = failure + suffix, group.replace(" ", "-") + suffix.replace(", ", "-")
                groups.setdefault(name, []).append(label)
                totals[name] = (*TOTALS, *OWN_TOTALS.get(group, ()))
                variants[label] = carts(
                    label, options.agents, options.seeds, options.rounds, learner=learner, round=meeting
                )
    study(variants, options, thresholds=(400.0,), groups=groups, totals=totals)


if __name__ == "__main__":
    main()
