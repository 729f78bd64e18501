"""Links between agents and their meeting place."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..core import check, check_range, is_concrete
from ._system import Link, System, check_system


def link(uplink: Any = np.inf, downlink: Any = np.inf, latency: Any = 0.0) -> Link:
    """Rates and latency of agents' links.

    Args:
        uplink: from the agent, a number or f[N] > 0 [bit/s]; infinity: transfers take no time.
        downlink: to the agent [bit/s].
        latency: before each of the two transfers of a job, a number or f[N] >= 0 [s].
    """
    for name, value in (("uplink", uplink), ("downlink", downlink)):
        check(name, value, lambda v: np.all(np.asarray(v) > 0), "must be > 0 [bit/s]")
    check("latency", latency, lambda v: np.all(np.isfinite(v)) and np.all(np.asarray(v) >= 0), "must be >= 0 [s]")
    return Link(uplink, downlink, latency)


def edge_link(slowdown: float = 1.0) -> Link:
    """A server in the neighbourhood: 100 Mbit/s each way and 5 ms. Round figures, not measurements.

    Args:
        slowdown: divides the rates and multiplies the latency.
    """
    check_range("slowdown", slowdown, 0, np.inf, open_low=True, open_high=True)
    return Link(1e8 / slowdown, 1e8 / slowdown, 5e-3 * slowdown)


def cloud_link(slowdown: float = 1.0) -> Link:
    """A data centre over a home's access line: 10 Mbit/s up, 50 Mbit/s down and 50 ms. Round figures, not measurements.

    Args:
        slowdown: divides the rates and multiplies the latency.
    """
    check_range("slowdown", slowdown, 0, np.inf, open_low=True, open_high=True)
    return Link(1e7 / slowdown, 5e7 / slowdown, 5e-2 * slowdown)


def with_link(system: System, link: Link) -> System:
    """The same agents, whose messages take time to travel.

    Args:
        system: how fast agents compute.
        link: how fast their messages travel, the same for all or f[N].

    Raises:
        ValueError: not a system or no link, or a part of the link has another shape than [] or [N].
    """
    check_system(system)
    if not isinstance(link, Link):
        raise ValueError(f"link must be a Link, got {link!r}; for example edge_link()")
    num_agents = system.num_agents
    fields = {}
    for name, value in link._asdict().items():
        if np.shape(value) not in ((), (num_agents,)):
            raise ValueError(f"{name} must be a number or f[{num_agents}], got shape {np.shape(value)}")
        library = np if is_concrete(value) else jnp
        fields[name] = library.broadcast_to(library.asarray(value, dtype=float), (num_agents,))
    return dataclasses.replace(system, **fields)
