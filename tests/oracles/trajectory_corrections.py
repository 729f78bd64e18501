"""Variance-reduced and natural policy gradients of a softmax policy that is linear in the state, as loops.

All in the papers' frame: ASCENT, with g(tau|theta) = sum_t R_t grad log pi(a_t|s_t). A trajectory is a list of
(s, a, R); `batch(i, n)` is the list of trajectories that agent i reads in its n-th local step.
"""

from collections.abc import Callable

import numpy as np


Batch = Callable[[int, int], list]


def probabilities(theta: np.ndarray, s: np.ndarray) -> np.ndarray:
    z = np.exp(s @ theta - (s @ theta).max())
    return z / z.sum()


def log_p(tau: list, theta: np.ndarray) -> float:
    """log p(tau|theta), but for the dynamics, which cancel in every ratio."""
    return sum(np.log(probabilities(theta, s)[a]) for s, a, _ in tau)


def score(theta: np.ndarray, s: np.ndarray, a: int) -> np.ndarray:
    """grad log pi(a|s) = s (e_a - p)^T."""
    return np.outer(s, np.eye(theta.shape[1])[a] - probabilities(theta, s))


def g(tau: list, theta: np.ndarray) -> np.ndarray:
    """The gradient estimate of one trajectory."""
    return sum(R * score(theta, s, a) for s, a, R in tau)


def B(tau: list, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The Hessian times v: (grad log p . v) g + grad^2 Phi v, grad^2 log pi v = -s ((diag p - p p^T) v^T s)^T."""
    slope = sum(np.sum(score(theta, s, a) * v) for s, a, _ in tau)
    curved = np.zeros_like(theta)
    for s, _, R in tau:
        p = probabilities(theta, s)
        curved -= R * np.outer(s, (np.diag(p) - np.outer(p, p)) @ (v.T @ s))
    return slope * g(tau, theta) + curved


def ratio(tau: list, above: np.ndarray, below: np.ndarray) -> float:
    """p(tau|above) / p(tau|below)."""
    return np.exp(log_p(tau, above) - log_p(tau, below))


def momentum(
    batch: Batch, theta: np.ndarray, N: int, *, rounds: int, K: int, eta: float, beta: float, lam: float,
    hessian: Callable[[int, int, int], float] | None = None, limit: float = np.inf,
) -> np.ndarray:  # fmt: skip
    """Wang et al. (2024): FedSVRPG-M (algorithm 1), or with hessian(r, i, k) = a FedHAPG-M (algorithm 2)."""
    previous, u = theta, np.zeros_like(theta)
    for r in range(rounds):
        moves = []
        for i in range(N):
            here = theta.copy()
            for k in range(K):
                taus = batch(i, r * K + k)
                way, terms = here - previous, []
                for tau in taus:
                    if hessian is None:
                        w = min(ratio(tau, previous, here), limit)
                        terms.append(
                            beta * g(tau, here) + (1 - beta) * (u + g(tau, here) - w * g(tau, previous))
                        )  # fmt: skip
                    else:
                        a = hessian(r, i, k)
                        between = a * here + (1 - a) * previous
                        w = min(ratio(tau, here, between), limit)
                        terms.append(beta * w * g(tau, here) + (1 - beta) * (u + B(tau, between, way)))
                here = here + eta * np.mean(terms, axis=0)
            moves.append(here - theta)
        u = np.mean(moves, axis=0) / (eta * K)
        previous, theta = theta, theta + lam * u
    return theta


def svrpg(batch: Batch, theta: np.ndarray, N: int, *, rounds: int, K: int, eta: float, limit: float) -> np.ndarray:
    """Papini et al. (2018) with many agents: mu at the snapshot, then K steps on v = mu + g - w g_snapshot.

    Both phases read batches: the n-th local step of an agent reads batch n.
    """
    n = 0
    for _ in range(rounds):
        mu = np.mean([np.mean([g(t, theta) for t in batch(i, n + k)], 0) for i in range(N) for k in range(K)], 0)
        n += K
        ends = []
        for i in range(N):
            here = theta.copy()
            for k in range(K):
                v = [
                    mu + g(t, here) - min(ratio(t, theta, here), limit) * g(t, theta) for t in batch(i, n + k)
                ]  # fmt: skip
                here = here + eta * np.mean(v, axis=0)
            ends.append(here)
        n += K
        theta = np.mean(ends, axis=0)
    return theta


def off_policy(
    batch: Batch, theta: np.ndarray, N: int, *, rounds: int, K: int, epochs: int, eta: float, level: str, limit: float,
    behaviour: str,
) -> np.ndarray:  # fmt: skip
    """FedAvg on policy gradients weighed by min(limit, ratio), at the level of a step or of a trajectory.

    behaviour "own": what collects is the agent's model at the beginning of a local step; "global": the downloaded one.
    """
    n = 0
    for _ in range(rounds):
        ends = []
        for i in range(N):
            here = theta.copy()
            for k in range(K):
                mu = here.copy() if behaviour == "own" else theta
                for _ in range(epochs):
                    terms = []
                    for tau in batch(i, n + k):
                        if level == "trajectory":
                            terms.append(min(ratio(tau, here, mu), limit) * g(tau, here))
                        else:
                            terms.append(sum(min(ratio([x], here, mu), limit) * g([x], here) for x in tau))
                    here = here + eta * np.mean(terms, axis=0)
            ends.append(here)
        n += K
        theta = np.mean(ends, axis=0)
    return theta


def fisher(taus: list, theta: np.ndarray) -> np.ndarray:
    """mean_s (s s^T) x (diag p - p p^T), for theta in rows."""
    states = [s for tau in taus for s, _, _ in tau]
    F = np.zeros((theta.size, theta.size))
    for s in states:
        p = probabilities(theta, s)
        F += np.kron(np.outer(s, s), np.diag(p) - np.outer(p, p)) / len(states)
    return F


def natural(
    batch: Batch, theta: np.ndarray, N: int, *, rounds: int, K: int, eta: float, damping: float, delta: float | None
) -> np.ndarray:
    """Kakade (2001) by a dense solve; with delta Schulman et al. (2015), appendix C, without line search."""
    for r in range(rounds):
        ends = []
        for i in range(N):
            here = theta.copy()
            for k in range(K):
                taus = batch(i, r * K + k)
                A = fisher(taus, here) + damping * np.eye(theta.size)
                x = np.linalg.solve(A, np.mean([g(t, here) for t in taus], axis=0).ravel())
                if delta is not None:
                    x = np.sqrt(2 * delta / (x @ A @ x)) * x
                here = here + eta * x.reshape(theta.shape)
            ends.append(here)
        theta = np.mean(ends, axis=0)
    return theta


def fedkl(
    batch: Batch, theta: np.ndarray, N: int, *, rounds: int, K: int, eta: float, sigma: float, root: bool,
    target: float | None,
) -> tuple[np.ndarray, list[float]]:  # fmt: skip
    """Xie and Song (2022): gradient of the return minus sigma mean_s D(pi_global || pi); sigma adapts per agent."""
    sigma = [sigma] * N

    def apart(there: np.ndarray, here: np.ndarray, s: np.ndarray) -> float:
        q, p = probabilities(there, s), probabilities(here, s)
        kl = np.sum(q * (np.log(q) - np.log(p)))
        return np.sqrt(max(kl, 0) + 1e-12) if root else kl

    for r in range(rounds):
        ends = []
        for i in range(N):
            here = theta.copy()
            for k in range(K):
                taus = batch(i, r * K + k)
                states, pull = [s for tau in taus for s, _, _ in tau], np.zeros_like(theta)
                for s in states:
                    p, q = probabilities(here, s), probabilities(theta, s)
                    pull += np.outer(s, p - q) * (0.5 / apart(theta, here, s) if root else 1) / len(states)
                here = here + eta * (np.mean([g(t, here) for t in taus], axis=0) - sigma[i] * pull)
            if target is not None:  # what was trained decides, at the states of the last step
                far = np.mean([apart(theta, here, s) for s in states])
                sigma[i] *= 1.5 if far > 1.5 * target else 1 / 1.5 if far < target / 1.5 else 1
            ends.append(here)
        theta = np.mean(ends, axis=0)
    return theta, sigma
