"""Off-policy losses as loops over the rows of a batch, in the papers' notation, for linear networks.

A network is {"kernel": [in, out], "bias": [out]}; a batch is a dict of arrays with leading axis S.
"""

import copy

import numpy as np


def linear(net: dict, x: np.ndarray) -> np.ndarray:
    """W^T x + b."""
    return net["kernel"].T @ x + net["bias"]


def huber(e: float, c: float) -> float:
    """Half a square near 0, a line beyond c."""
    return 0.5 * e**2 if abs(e) <= c else c * (abs(e) - 0.5 * c)


def mean(terms: list[float]) -> float:
    return sum(terms) / max(len(terms), 1)


def real(B: dict) -> list[int]:
    return [i for i in range(len(B["r"])) if B["real"][i]]


def dqn_loss(theta, theta_slow, B, gamma, double, c, y_theta=None) -> float:
    """Mnih et al. (2015), algorithm 1, and van Hasselt et al. (2016), eq. 4; y is computed at y_theta, not moved."""
    y_theta = theta if y_theta is None else y_theta
    terms = []
    for i in real(B):
        slow = linear(theta_slow, B["s2"][i])
        best = int(np.argmax(linear(y_theta, B["s2"][i]))) if double else int(np.argmax(slow))
        y = B["r"][i] + (0.0 if B["terminal"][i] else gamma * slow[best])
        terms.append(huber(y - linear(theta, B["s"][i])[B["a"][i]], c))
    return mean(terms)


def critic(net, s, a) -> float:
    """Q(s, a) of a linear critic that sees the action scaled to [-1, 1] behind the observation."""
    return float(linear(net, np.concatenate([s, a]))[0])


def ddpg_losses(theta, slow, B, gamma, half) -> dict:
    """Lillicrap et al. (2016), algorithm 1: functions of the part of theta that each loss moves."""

    def mu(actor, s):
        return np.tanh(linear(actor, s))

    def J_critic(critics):
        terms = []
        for i in real(B):
            a2 = mu(slow["actor"], B["s2"][i])
            q2 = min(critic(q, B["s2"][i], a2) for q in slow["critic"].values())
            y = B["r"][i] + gamma * (1 - B["terminal"][i]) * q2
            terms.append(sum((critic(q, B["s"][i], B["a"][i] / half) - y) ** 2 for q in critics.values()))
        return mean(terms)

    def J_actor(actor):
        return -mean([critic(theta["critic"]["q_0"], B["s"][i], mu(actor, B["s"][i])) for i in real(B)])

    return {"critic": J_critic, "actor": J_actor}


def squashed(actor, s, noise) -> tuple[np.ndarray, float]:
    """a = tanh(u), u ~ N(mu, sigma), and log pi(a|s): Haarnoja et al. (2018), eq. 26."""
    mu, log_sigma = np.split(linear(actor, s), 2)
    sigma = np.exp(log_sigma)
    u = mu + sigma * noise
    log_N = -0.5 * ((u - mu) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    return np.tanh(u), float(np.sum(log_N - np.log(1 - np.tanh(u) ** 2)))


def sac_losses(theta, slow, B, gamma, half, H, eps_now, eps_next) -> dict:
    """Haarnoja et al. (2018), eq. 5 (critics), 7 (actor) and 18 (temperature); slow = the target critics."""
    alpha = np.exp(theta["log_alpha"])

    def J_critic(critics):
        terms = []
        for i in real(B):
            a2, log_pi = squashed(theta["actor"], B["s2"][i], eps_next[i])
            V = min(critic(q, B["s2"][i], a2) for q in slow.values()) - alpha * log_pi
            y = B["r"][i] + (0.0 if B["terminal"][i] else gamma * V)
            terms.append(sum(0.5 * (critic(q, B["s"][i], B["a"][i] / half) - y) ** 2 for q in critics.values()))
        return mean(terms)

    def J_actor(actor):
        terms = []
        for i in real(B):
            a, log_pi = squashed(actor, B["s"][i], eps_now[i])
            terms.append(alpha * log_pi - min(critic(q, B["s"][i], a) for q in theta["critic"].values()))
        return mean(terms)

    def J_alpha(log_alpha):
        log_pi = [squashed(theta["actor"], B["s"][i], eps_now[i])[1] for i in real(B)]
        return mean([-float(np.exp(log_alpha)) * (lp + H) for lp in log_pi])

    return {"critic": J_critic, "actor": J_actor, "log_alpha": J_alpha}


def slope(f, part, h=1e-6):
    """Central differences of f at a nested dictionary of arrays."""
    if not isinstance(part, dict):
        return _slope_array(f, part, h)
    out = {}
    for name in part:

        def at(value, name=name):
            return f({**part, name: value})

        out[name] = slope(at, part[name], h)
    return out


def _slope_array(f, x, h):
    x = np.asarray(x, float)
    out = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        up, down = copy.deepcopy(x), copy.deepcopy(x)
        up[index] += h
        down[index] -= h
        out[index] = (f(up) - f(down)) / (2 * h)
    return out


def combine(f, *trees):
    """f leaf by leaf on nested dictionaries."""
    if isinstance(trees[0], dict):
        return {name: combine(f, *(t[name] for t in trees)) for name in trees[0]}
    return f(*(np.asarray(t, float) for t in trees))


def epsilon_greedy(q: np.ndarray, epsilon: float, u: float) -> int:
    """The action at u of the cumulative distribution (1 - epsilon) [a = argmax q] + epsilon / A."""
    p = np.full(len(q), epsilon / len(q))
    p[int(np.argmax(q))] += 1 - epsilon
    total = 0.0
    for a in range(len(q)):
        total += p[a]
        if u < total:
            return a
    return len(q) - 1
