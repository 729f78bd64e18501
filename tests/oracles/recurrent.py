"""A recurrent actor-critic as loops over time and units, in the notation of Cho et al. (2014), and its PPO loss."""

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def gru(theta: dict, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """One step of one unit of H cells, gate by gate."""
    H = len(h)
    W, b, U, c = (theta[name] for name in ("input_kernel", "input_bias", "memory_kernel", "memory_bias"))
    gate = [slice(k * H, (k + 1) * H) for k in range(3)]
    r = sigmoid(x @ W[:, gate[0]] + b[gate[0]] + h @ U[:, gate[0]])
    z = sigmoid(x @ W[:, gate[1]] + b[gate[1]] + h @ U[:, gate[1]])
    n = np.tanh(x @ W[:, gate[2]] + b[gate[2]] + r * (h @ U[:, gate[2]] + c))
    return (1 - z) * n + z * h


def step(theta: dict, memories: list, s: np.ndarray) -> tuple[list, np.ndarray, float]:
    """Memories after one step of one environment, logits and V."""
    names = ["trunk"] if len(memories) == 1 else ["actor_trunk", "critic_trunk"]
    after = []
    for name, h in zip(names, memories, strict=True):
        x, k = s, 0
        while f"{name}_{k}" in theta:
            x = np.tanh(x @ theta[f"{name}_{k}"]["kernel"] + theta[f"{name}_{k}"]["bias"])
            k += 1
        after.append(gru(theta[f"{name}_memory"], x, h))
    actor, critic = theta["actor"], theta["critic"]
    logits = after[0] @ actor["kernel"] + actor["bias"]
    return after, logits, float((after[-1] @ critic["kernel"] + critic["bias"])[0])


def play(theta: dict, memories: list, s: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, list]:
    """Logits [T, E, A], V [T, E] and the memories after every step [T][E], from memories [E, H] before the first."""
    T, E = starts.shape
    logits, v, kept = [], np.zeros((T, E)), []
    now = [[h[e] for h in memories] for e in range(E)]
    for t in range(T):
        row = []
        for e in range(E):
            if starts[t, e]:
                now[e] = [np.zeros_like(h) for h in now[e]]
            now[e], z, v[t, e] = step(theta, now[e], s[t, e])
            row.append(z)
        logits.append(row)
        kept.append(list(now))
    return np.array(logits), v, kept


def ppo_loss(theta, memories, s, starts, a, log_mu, A, target, clip, c_v, c_e) -> float:
    """Schulman et al. (2017), eq. 7 and 9, through time; arrays are [T, E, ...]."""
    logits, v, _ = play(theta, memories, s, starts)
    z = logits - logits.max(-1, keepdims=True)
    log_pi = z - np.log(np.exp(z).sum(-1, keepdims=True))
    rho = np.exp(np.take_along_axis(log_pi, a[..., None], -1)[..., 0] - log_mu)
    surrogate = np.minimum(rho * A, np.clip(rho, 1 - clip, 1 + clip) * A)
    entropy = -np.sum(np.exp(log_pi) * log_pi, -1)
    return float(np.mean(-surrogate + c_v * (v - target) ** 2 - c_e * entropy))
