"""Federated reinforcement learning in JAX: one jitted round, thousands of heterogeneous agents."""

from .core import init_seeds as init_seeds
from .core import make_mesh as make_mesh
from .core import make_round as make_round
from .core import run as run
from .core import stack_rounds as stack_rounds


__version__ = "0.1.0"
