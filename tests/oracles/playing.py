"""Plays the counter of tests/rl/counter.py with plain loops."""

import numpy as np


def play(
    terminate_at: np.ndarray, limit: np.ndarray, scale: np.ndarray, actions: np.ndarray, time: np.ndarray,
    label: np.ndarray, labels: np.ndarray, total: np.ndarray, auto_reset: bool,
) -> dict[str, np.ndarray]:  # fmt: skip
    """One agent; `labels[t, e]` marks the episode that starts in environment e after step t.

    Args:
        terminate_at, limit, scale: per environment [E].
        actions: [T, E].
        time, label, total: where the environments stand [E].
        labels: [T, E].
        auto_reset: whether the next episode starts after an end; otherwise the environment stands still.
    """
    num_steps, num_envs = actions.shape
    names = (
        "observation", "action", "reward", "terminated", "truncated", "final_observation", "mask",
        "episode_return", "episode_length",
    )  # fmt: skip
    out = {name: [[None] * num_envs for _ in range(num_steps)] for name in names}
    for e in range(num_envs):
        now, mark, so_far, standing = int(time[e]), float(label[e]), float(total[e]), False
        for t in range(num_steps):
            a = float(actions[t, e])
            before = [float(now), mark]
            reward, z, c = 0.0, False, False
            if not standing:
                now += 1
                reward = float(scale[e]) * now + a
                so_far += reward
                z, c = now >= terminate_at[e], now >= limit[e]
            row = (before, a, reward, z, c, [float(now), mark], not standing, so_far, now)
            for name, entry in zip(names, row, strict=True):
                out[name][t][e] = entry
            if z or c:
                if auto_reset:
                    now, mark, so_far = 0, float(labels[t, e]), 0.0
                else:
                    standing = True
    return {name: np.array(rows) for name, rows in out.items()}
