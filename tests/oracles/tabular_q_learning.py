"""Federated Q-learning and policy averaging as loops over agents, states and actions, in the papers' notation."""

import numpy as np


def fed_syn_q(Q, rewards, next_states, *, gamma, eta):
    """Rounds of E synchronous steps of K agents and an equal average.

    rewards [K][S, A]; next_states [rounds][K][E][S, A] are s'(s, a).
    """
    for round_ in next_states:
        tables = []
        for r, samples in zip(rewards, round_, strict=True):
            q = Q.copy()
            for s_next in samples:
                old = q.copy()
                for s, a in np.ndindex(q.shape):
                    q[s, a] = (1 - eta) * old[s, a] + eta * (r[s, a] + gamma * old[s_next[s, a]].max())
            tables.append(q)
        Q = np.mean(tables, axis=0)
    return Q


def fed_asyn_q(Q, transitions, *, gamma, eta, averaging):
    """transitions [rounds][K][tau] of (s, a, r, s'); averaging "equal" or "importance"."""
    for round_ in transitions:
        tables, weights = [], []
        for chain in round_:
            q, N = Q.copy(), np.zeros(Q.shape)
            for s, a, r, s_next in chain:
                q[s, a] += eta * (r + gamma * q[s_next].max() - q[s, a])
                N[s, a] += 1
            tables.append(q)
            weights.append((1 - eta) ** -N if averaging == "importance" else np.ones(Q.shape))
        Q = np.sum([w * q for w, q in zip(weights, tables, strict=True)], 0) / np.sum(weights, 0)
    return Q


def q_avg(Q, P, R, *, gamma, etas, E, rounds):
    """E exact Bellman steps of each agent and an average; step t has the step size etas[t]."""
    for k in range(rounds):
        tables = []
        for P_c, R_c in zip(P, R, strict=True):
            q = Q
            for eta in etas[k * E : (k + 1) * E]:
                q = (1 - eta) * q + eta * (R_c + gamma * P_c @ q.max(-1))
            tables.append(q)
        Q = np.mean(tables, axis=0)
    return Q


def evaluate(pi, P, R, rho, gamma):
    """Q^pi, V^pi and the occupancy d^pi, which sums to one, by iteration and not by solving."""
    S, A = R.shape
    V, d, mass = np.zeros(S), np.zeros(S), (1 - gamma) * rho
    for _ in range(3000):
        V = np.array([sum(pi[s, a] * (R[s, a] + gamma * P[s, a] @ V) for a in range(A)) for s in range(S)])
        d, mass = d + mass, gamma * np.einsum("s,sa,sat->t", mass, pi, P)
    return R + gamma * P @ V, V, d


def nearest_law(y):
    """The projection on the simplex: y - tau, cut at 0, with tau by bisection."""
    low, high = y.min() - 1, y.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(y - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(y - low, 0)


def pavg(theta, P, R, rho, *, gamma, eta, E, rounds, kind):
    """SoftPAvg on logits ("soft") or ProjPAvg on policies ("proj")."""
    for _ in range(rounds):
        tables = []
        for P_c, R_c, rho_c in zip(P, R, rho, strict=True):
            x = theta.copy()
            for _ in range(E):
                pi = np.exp(x) / np.exp(x).sum(-1, keepdims=True) if kind == "soft" else x
                Q, V, d = evaluate(pi, P_c, R_c, rho_c, gamma)
                if kind == "soft":
                    x = x + eta * (Q - V[:, None]) / (1 - gamma)
                else:
                    x = np.array([nearest_law(row) for row in x + eta * d[:, None] * Q / (1 - gamma)])
            tables.append(x)
        theta = np.mean(tables, axis=0)
    return theta
