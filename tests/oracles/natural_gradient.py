"""FedNPG and its ADMM for softmax policies that are linear in the state, by explicit matrices."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def features(states: np.ndarray) -> np.ndarray:
    """phi(s) = (s, 1): kernel and bias of a linear layer as one matrix [d + 1, A]."""
    return np.concatenate([states, np.ones((len(states), 1))], 1)


def loss_gradient(theta: np.ndarray, states: np.ndarray, actions: np.ndarray, advantages: np.ndarray) -> np.ndarray:
    """Of -mean(log pi(a|s) A)."""
    phi, p = features(states), softmax(features(states) @ theta)
    g = np.zeros_like(theta)
    for s in range(len(states)):
        for a in range(theta.shape[1]):
            g[:, a] -= advantages[s] * ((actions[s] == a) - p[s, a]) * phi[s] / len(states)
    return g


def fisher(theta: np.ndarray, states: np.ndarray) -> np.ndarray:
    """mean_s (phi phi^T) x (diag p - p p^T), over the entries of theta in row-major order."""
    phi, p = features(states), softmax(features(states) @ theta)
    F = np.zeros((theta.size, theta.size))
    for s in range(len(states)):
        F += np.kron(np.outer(phi[s], phi[s]), np.diag(p[s]) - np.outer(p[s], p[s])) / len(states)
    return F


def trust_region_step(theta: np.ndarray, y: np.ndarray, curvature: float, delta: float) -> np.ndarray:
    return theta - np.sqrt(2 * delta / curvature) * y.reshape(theta.shape)


def fed_npg(theta: np.ndarray, g: list[np.ndarray], F: list[np.ndarray], delta: float) -> np.ndarray:
    """y = (mean F)^-1 mean g."""
    mean_F, mean_g = np.mean(F, 0), np.mean(g, 0).ravel()
    y = np.linalg.solve(mean_F, mean_g)
    return trust_region_step(theta, y, y @ mean_F @ y, delta)


def fed_npg_admm(
    theta: np.ndarray, g: list[np.ndarray], F: list[np.ndarray], delta: float, rho: float, exchanges: int
) -> np.ndarray:
    """Boyd et al. (2011), section 7.1, from y = lambda = 0."""
    N, d = len(g), theta.size
    y, own, lam = np.zeros(d), [np.zeros(d)] * N, [np.zeros(d)] * N
    for k in range(exchanges):
        if k > 0:
            lam = [lam[i] + rho * (own[i] - y) for i in range(N)]
        own = [np.linalg.solve(F[i] + rho * np.eye(d), g[i].ravel() - lam[i] + rho * y) for i in range(N)]
        y = np.mean([own[i] + lam[i] / rho for i in range(N)], 0)
    return trust_region_step(theta, y, np.mean([y @ F[i] @ y for i in range(N)]), delta)
