"""FedLSA and SCAFFLSA for TD(lambda), as loops over rounds, agents and local steps on given transitions."""

import numpy as np


def fed_lsa(samples, phi, gamma, eta, theta, lam=0.0, scafflsa=False):
    """samples[t][c] = (s[H], r[H], s'[H]); with a trace the agent's transitions follow one another.

    Returns theta_t of every round f[T, d] and xi_t f[T, N, d].
    """
    num_agents, size = len(samples[0]), phi.shape[1]
    xi, z = np.zeros((num_agents, size)), np.zeros((num_agents, size))
    path, controls = [], []
    for agents in samples:
        ends = []
        for c, (s, r, following) in enumerate(agents):
            local = theta.copy()
            for h in range(len(s)):
                z[c] = gamma * lam * z[c] + phi[s[h]]
                matrix, vector = np.outer(z[c], phi[s[h]] - gamma * phi[following[h]]), z[c] * r[h]
                local = local - eta * (matrix @ local - vector - xi[c])
            ends.append(local)
        theta = np.mean(ends, 0)
        if scafflsa:
            xi = xi + (theta - np.array(ends)) / (eta * len(s))
        path.append(theta)
        controls.append(xi)
    return np.array(path), np.array(controls)
