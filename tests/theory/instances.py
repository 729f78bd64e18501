"""Random problems for the tests of `theory`; all of them NumPy arrays in float64."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


DATA = Path(__file__).parents[1] / "data"


class Instances(NamedTuple):
    """K MDPs with everything that may be asked about them."""

    kernel: np.ndarray  # [K, S, A, S]
    reward: np.ndarray  # [K, S, A]
    policy: np.ndarray  # [K, S, A]
    initial: np.ndarray  # [K, S]
    features: np.ndarray  # [K, S, d]
    discount: np.ndarray  # [K] in [0.5, 0.95]


def random_mdps(count: int, seed: int = 0, num_states: int = 6, num_actions: int = 3, size: int = 4) -> Instances:
    rng = np.random.default_rng(seed)
    S, A = num_states, num_actions
    return Instances(
        rng.dirichlet(np.full(S, 0.5), (count, S, A)),
        rng.uniform(-1, 1, (count, S, A)),
        rng.dirichlet(np.ones(A), (count, S)),
        rng.dirichlet(np.ones(S), count),
        rng.normal(size=(count, S, size)),
        rng.uniform(0.5, 0.95, count),
    )


class Mixture(NamedTuple):
    """Kernels (1 - e) P_0 + e Q_c and everything that agents have in common."""

    common: np.ndarray  # [S, A, S]
    own: np.ndarray  # [N, S, A, S]
    reward: np.ndarray  # [S, A] in [0, 1]
    policy: np.ndarray  # [S, A]
    features: np.ndarray  # [S, d]

    def kernel(self, share: float) -> np.ndarray:
        return (1 - share) * self.common[None] + share * self.own


def mixture(num_agents: int, num_states: int, num_actions: int, size: int = 4, seed: int = 0) -> Mixture:
    rng = np.random.default_rng(seed)
    S, A = num_states, num_actions
    return Mixture(
        rng.dirichlet(np.ones(S), (S, A)),
        rng.dirichlet(np.ones(S), (num_agents, S, A)),
        rng.uniform(size=(S, A)),
        rng.dirichlet(np.ones(A), S),
        rng.uniform(size=(S, size)),
    )


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
