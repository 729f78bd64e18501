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


def pf_lsa(samples, phi, gamma, eta, beta, theta):
    """samples[t][c] = (s[1], r[1], s'[1]); returns theta_c^t after every round f[T, N, d]."""
    own, path = np.repeat(theta[None], len(samples[0]), 0), []
    for agents in samples:
        g = []
        for c, (s, r, following) in enumerate(agents):
            matrix, vector = np.outer(phi[s[0]], phi[s[0]] - gamma * phi[following[0]]), phi[s[0]] * r[0]
            g.append(matrix @ own[c] - vector)
        own = own - eta * beta * np.array(g) - eta * (1 - beta) * np.mean(g, 0)
        path.append(own)
    return np.array(path)


def sarsa(uniform, starts, kernel, reward, phi, gamma, temperature, eta, theta):
    """FedSARSA; uniform f[T, N, H, 2] gives s' and a', and starts f[N, 2] the first s and a; from the uniform law."""

    def quantile(u, law):
        return int(np.sum(u >= np.cumsum(law)))

    def act(u, q):
        return quantile(u, np.exp(q / temperature) / np.exp(q / temperature).sum())

    num_states = len(phi)
    first = [quantile(u, np.full(num_states, 1 / num_states)) for u, _ in starts]
    at = [(s, act(u, phi[s] @ theta)) for s, (_, u) in zip(first, starts, strict=True)]
    path = []
    for agents in uniform:
        ends = []
        for c, steps in enumerate(agents):
            local, (s, a) = theta.copy(), at[c]
            for u, v in steps:
                following = quantile(u, kernel[c, s, a])
                then = act(v, phi[following] @ local)
                error = reward[c, s, a] + gamma * phi[following, then] @ local - phi[s, a] @ local
                local, (s, a) = local + eta * error * phi[s, a], (following, then)
            at[c] = (s, a)
            ends.append(local)
        theta = np.mean(ends, 0)
        path.append(theta)
    return np.array(path)
