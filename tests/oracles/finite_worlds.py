"""Finite MDPs by loops, as the papers define them, and exact values: NumPy only."""

import itertools

import numpy as np


def value(P, r, pi, gamma):
    """V^pi = (I - gamma P^pi)^-1 r^pi; P [S, A, S], r [S, A], pi [S, A]."""
    P_pi, r_pi = np.einsum("sa,sat->st", pi, P), np.einsum("sa,sa->s", pi, r)
    return np.linalg.solve(np.eye(len(P_pi)) - gamma * P_pi, r_pi)


def optimal_value(P, r, gamma):
    """V* by policy iteration."""
    pi = np.zeros(len(P), int)
    while True:
        V = value(P, r, np.eye(P.shape[1])[pi], gamma)
        Q = r + gamma * P @ V
        better = np.where(Q.max(1) > Q[np.arange(len(P)), pi] + 1e-12, Q.argmax(1), pi)
        if np.array_equal(better, pi):
            return V
        pi = better


def finite_horizon_value(P, r, H):
    """max over policies of E sum_{h < H} r, from every state."""
    V = np.zeros(len(P))
    for _ in range(H):
        V = (r + P @ V).max(1)
    return V


def best_deterministic(kernels, rewards, rho, gamma):
    """max over the A^S deterministic policies of the mean over agents of rho V^pi."""
    S, A = rewards.shape[1:]
    best = -np.inf
    every = np.array(list(itertools.product(range(A), repeat=S)))
    for start in range(0, len(every), 4096):
        a = every[start : start + 4096]  # [B, S]
        total = 0
        for P, r in zip(kernels, rewards, strict=True):
            P_pi, r_pi = P[np.arange(S), a], r[np.arange(S), a]
            total = total + np.linalg.solve(np.eye(S) - gamma * P_pi, r_pi[..., None])[..., 0] @ rho
        best = max(best, total.max() / len(kernels))
    return best


def rooms_3x3(success):
    """The 3x3 grid with a wall in the middle: left, right, up, down in a dictionary, 8 states by row and column."""
    cells = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    to = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
    P = {name: np.zeros((8, 8)) for name in to}
    for s, (i, j) in enumerate(cells):
        around = {name: (i + di, j + dj) for name, (di, dj) in to.items() if (i + di, j + dj) in cells}
        for name in to:
            if name not in around:
                P[name][s, s] = 1
                continue
            for other, cell in around.items():
                if other == name:
                    P[name][s, cells.index(cell)] = success if len(around) > 1 else 1
                else:
                    P[name][s, cells.index(cell)] = (1 - success) / (len(around) - 1)
    return P, cells


def windy_cliff(X, Y, theta):
    """Kernel and rewards by (x, y) from the lower left, actions up, down, left, right."""
    moves = {"up": (0, 1), "down": (0, -1), "left": (-1, 0), "right": (1, 0)}
    P = {name: np.zeros((X, Y, X, Y)) for name in moves}
    r = np.full((X, Y), -1.0)
    r[1 : X - 1, 0], r[X - 1, 0] = -100, 100
    for x, y in itertools.product(range(X), range(Y)):
        for name, (dx, dy) in moves.items():
            if y == 0 and x > 0:
                P[name][x, y, 0, 0] = 1
                continue
            hit = (min(max(x + dx, 0), X - 1), min(max(y + dy, 0), Y - 1))
            down = (x, max(y - 1, 0))
            P[name][x, y][hit] += 1 - theta / 3
            P[name][x, y][down] += theta / 3
    return P, r


def maze(rng, n):
    """Depth first search by recursion over the cells of even row and column; True where one can walk."""
    free = np.zeros((n, n), bool)

    def visit(i, j):
        free[i, j] = True
        for di, dj in rng.permutation([(0, 2), (2, 0), (0, -2), (-2, 0)]):
            k, m = i + di, j + dj
            if 0 <= k < n and 0 <= m < n and not free[k, m]:
                free[(i + k) // 2, (j + m) // 2] = True
                visit(k, m)

    visit(0, 0)
    free[n - 1, n - 2] = free[n - 2, n - 1] = True
    return free


def quantile(p, u):
    """The least k with u < p_0 + ... + p_k."""
    total = 0.0
    for k, share in enumerate(p):
        total += share
        if u < total:
            return k
    return max(k for k, share in enumerate(p) if share > 0)
