"""Who should act when agents' speeds differ much: return against virtual time by rule of selection.

Every rule gets the same virtual time, and about as many agents act in a round. The speeds are one draw, the same for
all seeds: the intervals do not say how the outcome depends on the speeds.

    python experiments/selection.py [--seeds 20] [--out runs/selection]
"""

import jax
import numpy as np
from _clocks import SECONDS, carts
from _variants import arguments, study

from fedjax_rl.training import build


SIGMA, SEED = 1.0, 0
CRITIC = "actor_critic(normalization='advantages', entropy_cost=0.0)"  # whose loss tells where it errs
SYSTEM = f"log_normal_system(sigma={SIGMA}, seed={SEED}, seconds_per_env_step={SECONDS})"
RULES = {
    "everyone": "timed(everyone(), {system})",
    "uniform": "timed(uniform_cohort({size}), {system})",
    "power of choice, by loss": "timed(power_of_choice({size}, {candidates}, by='loss'), {system})",
    "power of choice, by return": "timed(power_of_choice({size}, {candidates}, by='return'), {system})",
    "resource-aware": "timed(resource_cohort({system}, {size}), {system})",
    # Half of twice as many candidates are ready in the median time.
    "deadline": "timed(deadline_cohort({system}, {candidates}, {deadline:g}), {system})",
}


def seconds_of(rule: str, agents: int, num_rounds: int = 200) -> float:
    """What a round takes on average, by the rule's clock alone."""
    round_ = build(carts("clock", agents, 1, 1, round={"participation": rule})).round
    who, key = round_.init(jax.random.key(SEED)).who, jax.random.key(SEED + 1)
    ends = jax.lax.scan(lambda s, k: _tick(round_, s, k), who, jax.random.split(key, num_rounds))[1]
    return float(ends[-1]) / num_rounds


def _tick(round_, who, key):
    who, cohort = round_.participation.sample(key, who, round_.num_agents)
    return who, cohort.time


def main() -> None:
    options = arguments("selection", __doc__, agents=40, cohort=8, seconds=600)
    times = 4 * 500 * SECONDS * np.exp(SIGMA * np.random.default_rng(SEED).standard_normal(options.agents))
    given = {"system": SYSTEM, "size": options.cohort, "candidates": 2 * options.cohort, "deadline": np.median(times)}
    learner, variants = {"objective": CRITIC, "optimizer": "adam(learning_rate=0.01)"}, {}
    for label, rule in RULES.items():
        meeting = {"participation": rule.format(**given)}
        rounds = max(2, round(options.seconds / seconds_of(meeting["participation"], options.agents)))
        variants[label] = carts(label, options.agents, options.seeds, rounds, learner=learner, round=meeting)
    study(variants, options, thresholds=(400.0,), totals=("messages_delivered",))


if __name__ == "__main__":
    main()
