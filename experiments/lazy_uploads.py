"""LAPG against full communication: uploads to the same return, where agents want the same and where they do not.

A threshold is about 80 % of what full communication reached in the end of a trial with two seeds.

    python experiments/lazy_uploads.py [--seeds 20] [--out runs/lazy_uploads]
"""

from _clocks import carts
from _variants import arguments, study


WORLDS = {
    "like rewards": "cartpole_family('packer-r')",
    "unlike rewards": "cartpole_family('packer-r', set_point=(-1.0, 1.0))",
}
THRESHOLDS = {"like-rewards": (400.0,), "unlike-rewards": (250.0,)}
STEP = 0.2
# D = 10 past steps as published; the variance of the gradient as published (6), smaller, and not at all.
UPLOADS = {
    "all": (),
    "LAPG, 6 variances": (f"lazy({STEP}, 10)",),
    "LAPG, 1 variance": (f"lazy({STEP}, 10, variance_factor=1.0)",),
    "LAPG, no variance": (f"lazy({STEP}, 10, variance_factor=0.0)",),
}


def main() -> None:
    options = arguments("lazy_uploads", __doc__, agents=10, rounds=200)
    variants, groups = {}, {}
    for world, family in WORLDS.items():
        for name, transforms in UPLOADS.items():
            label = f"{name}, {world}"
            groups.setdefault(world.replace(" ", "-"), []).append(label)
            variants[label] = carts(
                label,
                options.agents,
                options.seeds,
                options.rounds,
                world={"family": family},
                learner={
                    "algorithm": "local_training(measure_variance=True)",
                    "optimizer": f"sgd(learning_rate={STEP})",
                    "upload": "gradient",
                },
                round={"transforms": transforms},
            )
    told = {"prices": ("messages_delivered",), "means": ("silent_share",)}
    study(variants, options, thresholds=THRESHOLDS, groups=groups, **told)


if __name__ == "__main__":
    main()
