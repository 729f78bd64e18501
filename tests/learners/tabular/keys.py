"""Which random numbers an agent has: the key of a run folds round, agent, purpose and local step."""

import jax

from fedjax_rl.core import quick


def update_key(key, round_index, agent):
    """Of one agent's update in one round; `key` is that of the state."""
    k_agent = jax.random.split(jax.random.fold_in(key, round_index), 4)[1]
    return quick(jax.random.fold_in(jax.random.fold_in(k_agent, agent), 0))


def collect_key(key, round_index, agent, step=0):
    """Of what is collected in one local step of `local_training`."""
    return jax.random.split(jax.random.fold_in(update_key(key, round_index, agent), step), 3)[0]
