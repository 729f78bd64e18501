"""Summaries of evaluation returns over agents and episodes."""

import numpy as np


# CartPole-v0 counted as solved at 195 (of 200), CartPole-v1 at 475 (of 500).
SUCCESS_THRESHOLDS = (195.0, 475.0)


def return_statistics(
    returns: np.ndarray, lengths: np.ndarray | None = None, thresholds: tuple[float, ...] = SUCCESS_THRESHOLDS
) -> dict[str, float]:
    """What a table or a log line says about returns.

    Args:
        returns: f32[A, K] undiscounted returns, A agents x K episodes.
        lengths: i32[A, K] episode lengths [steps].
        thresholds: an episode succeeds where its return reaches the threshold.

    Returns:
        return_mean, return_std (over all episodes), return_min (worst agent's mean), return_worst_decile (mean of the
        worst tenth of the agents, at least one), return_stderr (of the mean, with agents as the independent units where
        there are several), success_rate_<threshold>, and episode_length.
    """
    returns = np.asarray(returns, np.float64)
    per_agent = returns.mean(1)
    worst = np.sort(per_agent)[: max(1, len(per_agent) // 10)]
    units = per_agent if len(per_agent) > 1 else returns.ravel()
    spread = units.std(ddof=1) / np.sqrt(len(units)) if len(units) > 1 else float("nan")
    report = {
        "return_mean": returns.mean(),
        "return_std": returns.std(),
        "return_stderr": spread,
        "return_min": per_agent.min(),
        "return_worst_decile": worst.mean(),
    }
    report |= {f"success_rate_{threshold:g}": np.mean(returns >= threshold) for threshold in thresholds}
    if lengths is not None:
        report["episode_length"] = np.mean(lengths)
    return {name: float(value) for name, value in report.items()}


def rounds_to_threshold(values: np.ndarray, threshold: float, *, for_good: bool = False) -> int | None:
    """The first round (counted from 1) whose value reaches the threshold; None: never.

    Args:
        values: f32[R] one value per round.
        threshold: to be reached.
        for_good: the first round from which no later value falls below.
    """
    reached = np.asarray(values) >= threshold
    if for_good:
        reached = np.logical_and.accumulate(reached[::-1])[::-1]
    return int(np.argmax(reached)) + 1 if reached.any() else None
