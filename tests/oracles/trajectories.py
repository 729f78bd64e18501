"""Returns, advantages and V-trace of one environment as sums over what follows each step, not as recursions."""

import numpy as np


def successor(t: int, v: list, z: list, c: list, b: list, last: float) -> float:
    """What follows step t: nothing after a termination (z), b_t after a truncation (c), else V(s_{t+1})."""
    if z[t]:
        return 0.0
    if c[t]:
        return b[t]
    return v[t + 1] if t + 1 < len(v) else last


def discounted_return(r: list, z: list, c: list, b: list, last: float, gamma: float) -> np.ndarray:
    """G_t = sum_k gamma^k r_{t+k} up to the end, and what the end is worth."""
    out = []
    for t in range(len(r)):
        g, k = 0.0, 0
        while True:
            g += gamma**k * r[t + k]
            k += 1
            if z[t + k - 1]:
                break
            if c[t + k - 1]:
                g += gamma**k * b[t + k - 1]
                break
            if t + k == len(r):
                g += gamma**k * last
                break
        out.append(g)
    return np.array(out)


def n_step_return(r: list, v: list, z: list, c: list, b: list, last: float, gamma: float, n: int) -> np.ndarray:
    """G_{t:t+n} of Sutton and Barto (7.1)."""
    out = []
    for t in range(len(r)):
        g = 0.0
        for k in range(n):
            g += gamma**k * r[t + k]
            final = k + 1 == n or z[t + k] or c[t + k] or t + k + 1 == len(r)
            if final:
                g += gamma ** (k + 1) * successor(t + k, v, z, c, b, last)
                break
        out.append(g)
    return np.array(out)


def advantage(r: list, v: list, z: list, c: list, b: list, last: float, gamma: float, lam: float) -> np.ndarray:
    """A_t = sum_k (gamma lambda)^k delta_{t+k} within the episode (Schulman et al., equation 16)."""
    out = []
    for t in range(len(r)):
        a = 0.0
        for k in range(len(r) - t):
            delta = r[t + k] + gamma * successor(t + k, v, z, c, b, last) - v[t + k]
            a += (gamma * lam) ** k * delta
            if z[t + k] or c[t + k]:
                break
        out.append(a)
    return np.array(out)


def v_trace(
    r: list, v: list, z: list, c: list, b: list, last: float, rho: list, gamma: float, lam: float,
    rho_bar: float, c_bar: float, pg_bar: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Espeholt et al., equation 1: v_t = V_t + sum_k gamma^k (prod_{i<k} c_i) rho_k delta_k; and the advantage."""
    target = []
    for t in range(len(r)):
        total, product = v[t], 1.0
        for k in range(len(r) - t):
            s = t + k
            delta = min(rho_bar, rho[s]) * (r[s] + gamma * successor(s, v, z, c, b, last) - v[s])
            total += gamma**k * product * delta
            if z[s] or c[s]:
                break
            product *= lam * min(c_bar, rho[s])
        target.append(total)
    gain = [min(pg_bar, rho[t]) * (r[t] + gamma * successor(t, target, z, c, b, last) - v[t]) for t in range(len(r))]
    return np.array(target), np.array(gain)
