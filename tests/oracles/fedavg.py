"""FedAvg, FedSGD, FedProx and FedOpt on given gradients, as loops in the papers' notation."""

from collections.abc import Callable

import numpy as np


class SGD:
    """theta <- theta - eta g."""

    def __init__(self, eta: float):
        self.eta = eta

    def step(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        return theta - self.eta * g


class Adam:
    """Kingma and Ba (2015), algorithm 1."""

    def __init__(self, eta: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
        self.eta, self.b1, self.b2, self.eps = eta, b1, b2, eps
        self.m = self.v = 0.0
        self.t = 0

    def step(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        m_hat, v_hat = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        return theta - self.eta * m_hat / (np.sqrt(v_hat) + self.eps)


class Yogi:
    """Reddi et al. (2021), algorithm 2, with optax's bias correction and first values (1e-6 for both moments)."""

    def __init__(self, eta: float, b1: float = 0.9, b2: float = 0.999, tau: float = 1e-3, v0: float = 1e-6):
        self.eta, self.b1, self.b2, self.tau = eta, b1, b2, tau
        self.m, self.v, self.t = v0, v0, 0

    def step(self, theta: np.ndarray, g: np.ndarray) -> np.ndarray:
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.v - (1 - self.b2) * np.sign(self.v - g**2) * g**2
        m_hat, v_hat = self.m / (1 - self.b1**self.t), self.v / (1 - self.b2**self.t)
        return theta - self.eta * m_hat / (np.sqrt(v_hat) + self.tau)


def fedavg(
    gradient: Callable[[int, np.ndarray], np.ndarray],
    theta: np.ndarray,
    n: np.ndarray,
    *,
    rounds: int,
    E: int,
    make_local: Callable[[], object],
    keep: bool = False,
    mu: float = 0.0,
    server: object | None = None,
) -> np.ndarray:
    """K agents, E local steps each, weights n_k / sum n; mu: FedProx; server: FedOpt's optimiser on -(mean - theta)."""
    K = len(n)
    local = [make_local() for _ in range(K)]
    for _ in range(rounds):
        moved = np.zeros_like(theta)
        for k in range(K):
            if not keep:
                local[k] = make_local()
            w = theta.copy()
            for _ in range(E):
                w = local[k].step(w, gradient(k, w) + mu * (w - theta))
            moved += n[k] / n.sum() * (w - theta)
        theta = theta + moved if server is None else server.step(theta, -moved)
    return theta


def fedsgd(
    gradient: Callable[[int, np.ndarray], np.ndarray], theta: np.ndarray, n: np.ndarray, *, rounds: int, server: object
) -> np.ndarray:
    """theta <- server step along the weighted mean gradient."""
    for _ in range(rounds):
        g = sum(n[k] / n.sum() * gradient(k, theta) for k in range(len(n)))
        theta = server.step(theta, g)
    return theta
