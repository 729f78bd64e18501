"""Federated TD learning as a NumPy loop over local steps: what rounds of it are held against."""

from typing import Any

import numpy as np

from ._setting import Setting
from ._work import Work


DISCOUNT, STEP_SIZE = 0.95, 0.1


def plain_lsa(setting: Setting, kernel: Any, reward: Any, features: Any, policy: Any) -> Work:
    """FedLSA of `num_agents` agents and `num_steps` local steps, all agents at once in every statement.

    Written as NumPy users write it who mind the time: single precision, all random numbers of a round at once,
    cumulative laws made beforehand, draws by comparison with them, directions as vectors and not as matrices.

    Args:
        setting: its `num_agents` and `num_steps`.
        kernel: f[N, S, A, S] P_c(s' | s, a).
        reward: f[N, S] r_c(s).
        features: f[S, d].
        policy: f[S, A].
    """
    chain = np.einsum("nsat,sa->nst", np.asarray(kernel, np.float64), np.asarray(policy, np.float64))
    num_states = chain.shape[1]
    law = np.linalg.solve(np.eye(num_states) - chain.swapaxes(1, 2) + 1, np.ones((len(chain), num_states, 1)))[..., 0]
    cumulative_law = np.cumsum(law, -1).astype(np.float32)
    cumulative_chain = np.cumsum(chain, -1).astype(np.float32)
    reward, phi = np.asarray(reward, np.float32), np.asarray(features, np.float32)
    agents, last = np.arange(len(chain)), num_states - 1
    discount, step_size = np.float32(DISCOUNT), np.float32(STEP_SIZE)
    generator = np.random.default_rng(0)
    theta = np.zeros(phi.shape[1], np.float32)

    def call() -> None:
        nonlocal theta
        uniform = generator.random((setting.num_steps, 2, len(chain)), dtype=np.float32)
        local = np.repeat(theta[None], len(chain), 0)
        for for_state, for_next in uniform:
            state = np.minimum((for_state[:, None] >= cumulative_law).sum(1), last)
            following = np.minimum((for_next[:, None] >= cumulative_chain[agents, state]).sum(1), last)
            here = phi[state]
            error = reward[agents, state] + np.einsum("nd,nd->n", discount * phi[following] - here, local)
            local += (step_size * error)[:, None] * here
        theta = local.mean(0)

    return Work(call, 0.0, 0.0, setting.num_agents * setting.num_steps, setting.num_agents)
