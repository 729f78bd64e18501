"""Local training with corrections on given gradients, as loops in the papers' notation.

`gradient(i, y)` is grad f_i(y); `cohort(r)` the agents S of round r whose messages arrive: a lost message changes
nothing.
"""

from collections.abc import Callable

import numpy as np


Gradient = Callable[[int, np.ndarray], np.ndarray]
Cohort = Callable[[int], list[int]]


def scaffold(
    gradient: Gradient, x: np.ndarray, N: int, *, rounds: int, K: int, eta: float, cohort: Cohort, option: str,
    step: Callable | None = None,
) -> np.ndarray:  # fmt: skip
    """Karimireddy et al. (2020), algorithm 1. option "II" or "mean" (of the uncorrected gradients).

    step(y, direction, state) -> (y, state) is another local optimiser.
    """
    c, c_i = np.zeros_like(x), [np.zeros_like(x) for _ in range(N)]
    for r in range(rounds):
        S, dx, dc = cohort(r), np.zeros_like(x), np.zeros_like(x)
        for i in S:
            y, seen, state = x.copy(), np.zeros_like(x), None
            for _ in range(K):
                g = gradient(i, y)
                seen += g
                if step is None:
                    y = y - eta * (g - c_i[i] + c)
                else:
                    y, state = step(y, g - c_i[i] + c, state)
            c_new = c_i[i] - c + (x - y) / (K * eta) if option == "II" else seen / K
            dx, dc, c_i[i] = dx + (y - x), dc + (c_new - c_i[i]), c_new
        if S:
            x, c = x + dx / len(S), c + dc / N
    return x


def feddyn(
    gradient: Gradient, theta: np.ndarray, N: int, *, rounds: int, K: int, eta: float, alpha: float, cohort: Cohort
) -> np.ndarray:
    """Acar et al. (2021), algorithm 1, with K steps of SGD for the local argmin."""
    h, nabla = np.zeros_like(theta), [np.zeros_like(theta) for _ in range(N)]  # nabla_k = grad L_k(theta_k^{t-1})
    for t in range(rounds):
        P, arrived = cohort(t), []
        for k in P:
            y = theta.copy()
            for _ in range(K):
                y = y - eta * (gradient(k, y) - nabla[k] + alpha * (y - theta))
            nabla[k] = nabla[k] - alpha * (y - theta)
            arrived.append(y)
        if P:
            h = h - alpha / N * sum(y - theta for y in arrived)
            theta = sum(arrived) / len(P) - h / alpha
    return theta


def mime(
    gradient: Gradient, x: np.ndarray, N: int, *, rounds: int, K: int, eta: float, beta: float, lite: bool
) -> np.ndarray:
    """Karimireddy et al. (2020), "Mime", algorithm 1 with the base optimiser SGDm."""
    m = np.zeros_like(x)
    for _ in range(rounds):
        c = sum(gradient(i, x) for i in range(N)) / N
        ends = []
        for i in range(N):
            y = x.copy()
            for _ in range(K):
                g = gradient(i, y) if lite else gradient(i, y) - gradient(i, x) + c
                y = y - eta * ((1 - beta) * g + beta * m)
            ends.append(y)
        x, m = sum(ends) / N, (1 - beta) * c + beta * m
    return x


def fednova(gradient: Gradient, x: np.ndarray, n: np.ndarray, *, rounds: int, tau: list[int], eta: float) -> np.ndarray:
    """Wang et al. (2020), eq. 8: x <- x - tau_eff sum_i p_i eta d_i, d_i = the mean of the tau_i local gradients."""
    p = n / n.sum()
    for _ in range(rounds):
        tau_eff, direction = sum(p[i] * tau[i] for i in range(len(n))), np.zeros_like(x)
        for i in range(len(n)):
            y, G = x.copy(), []
            for _ in range(tau[i]):
                G.append(gradient(i, y))
                y = y - eta * G[-1]
            if G:
                direction += p[i] * np.mean(G, axis=0)
        x = x - tau_eff * eta * direction
    return x
