"""How long agents work and how long their messages travel: data on the agent axis."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Job, check, check_count, check_range, component, is_concrete


_LARGEST_SPREAD = 5  # of the logarithm of a time; from there on single precision takes the smallest for nothing


class Link(NamedTuple):
    """Both ways between an agent and its meeting place, each value a number or f[N]."""

    uplink: Any  # [bit/s], infinity = free
    downlink: Any  # [bit/s]
    latency: Any  # [s] before each of the two transfers


@component
class System:
    """What an agent's job costs in virtual time; build it with a preset such as `ratio_system`, or `fixed_system`.

    A job of agent i that is its u-th takes

        z_iu (s_i + e_i env_steps + g_i gradients) work / num_local_steps + 2 latency_i + sum of bits / rate_i

    seconds, where log z_iu ~ N(-jitter_i^2 / 2, jitter_i^2) has mean 1 and is a function of the key, the agent and u.
    """

    seconds_per_job: Any  # f[N] s_i, whatever the job is
    seconds_per_env_step: Any  # f[N] e_i
    seconds_per_gradient: Any  # f[N] g_i
    uplink: Any  # f[N] [bit/s]
    downlink: Any  # f[N] [bit/s]
    latency: Any  # f[N] [s]
    jitter: Any  # f[N]

    @property
    def num_agents(self) -> int:
        """N."""
        return np.shape(self.latency)[0]

    @property
    def costs(self) -> tuple[tuple[str, str, Any], ...]:
        """What is paid for: the field of the system, the field of the job, and whether somebody pays, bool[N]."""
        return (
            ("seconds_per_env_step", "env_steps", self.seconds_per_env_step > 0),
            ("seconds_per_gradient", "gradients", self.seconds_per_gradient > 0),
            ("uplink", "uplink_bits", self.uplink < np.inf),
            ("downlink", "downlink_bits", self.downlink < np.inf),
        )

    def check(self, num_agents: int, job: Job) -> None:
        """Raises `ValueError` when it does not fit that many agents, or when a job would take NaN or no seconds."""
        if self.num_agents != num_agents:
            raise ValueError(
                f"system must describe num_agents = {num_agents} agents, got {self.num_agents}; "
                "give its preset the same num_agents"
            )
        for name, field, paid in self.costs:
            if is_concrete(paid) and np.any(paid) and not np.isfinite(getattr(job, field)):
                raise ValueError(
                    f"system needs to know {field} of a job for its {name}, got {getattr(job, field)}: the learner "
                    "does not declare it; use fixed_system(seconds), which gives the seconds per job"
                )
        if is_concrete(self):
            seconds = np.asarray(self.expected(jnp.arange(num_agents), job))
            agent = int(np.argmin(seconds))
            if not seconds[agent] > 0:
                raise ValueError(
                    f"system must let every job take time, got {seconds[agent]} s for agent {agent}; "
                    "raise seconds_per_env_step, seconds_per_gradient or seconds_per_job"
                )

    def check_deadline(self, num_agents: int, job: Job, deadline: Any) -> None:
        """Raises `ValueError` when no agent is expected to be ready by then."""
        if is_concrete((self, deadline)):
            fastest = float(np.min(self.expected(jnp.arange(num_agents), job)))
            if fastest > deadline:
                raise ValueError(f"deadline must be at least {fastest:g} s, the fastest job, got {deadline}")

    @property
    def has_links(self) -> bool:
        """Whether messages take time to travel, as far as that is known."""
        links = self.uplink, self.downlink, self.latency
        return is_concrete(links) and bool(np.any(np.asarray(links[:2]) < np.inf) or np.any(np.asarray(links[2]) > 0))

    def computing(self, agents: jax.Array, job: Job) -> jax.Array:
        """f[M]: expected seconds that a whole job of each agent takes to compute."""
        by_step, by_gradient = (jnp.asarray(x)[agents] for x in (self.seconds_per_env_step, self.seconds_per_gradient))
        # An unknown amount of what costs nothing takes no time.
        steps = jnp.where(by_step > 0, by_step * job.env_steps, 0)
        gradients = jnp.where(by_gradient > 0, by_gradient * job.gradients, 0)
        return jnp.asarray(self.seconds_per_job)[agents] + steps + gradients

    def travelling(self, agents: jax.Array, job: Job) -> jax.Array:
        """f[M]: seconds that both transfers of each agent take."""
        up, down = (jnp.asarray(x)[agents] for x in (self.uplink, self.downlink))
        transfers = jnp.where(up < jnp.inf, job.uplink_bits / up, 0) + jnp.where(
            down < jnp.inf, job.downlink_bits / down, 0
        )
        return 2 * jnp.asarray(self.latency)[agents] + transfers

    def expected(self, agents: jax.Array, job: Job, work: jax.Array | None = None) -> jax.Array:
        """f[M]: seconds of each agent's job on average; `work` i32[M] of its local steps, None: all."""
        share = 1 if work is None else work / job.num_local_steps
        return self.computing(agents, job) * share + self.travelling(agents, job)

    def luck(self, key: jax.Array, agents: jax.Array, turns: jax.Array) -> jax.Array:
        """f[M]: the random factor z >= 0 of the time to compute, mean 1."""

        def normal(agent: jax.Array, turn: jax.Array) -> jax.Array:
            return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, agent), turn))

        sigma = jnp.asarray(self.jitter)[agents]
        return jnp.exp(sigma * jax.vmap(normal)(agents, turns) - sigma**2 / 2)

    def seconds(
        self, key: jax.Array, agents: jax.Array, turns: jax.Array, job: Job, work: jax.Array | None = None
    ) -> jax.Array:
        """f[M]: how long each agent's job takes [s], a pure function of (key, agent, turn).

        Args:
            key: of the system's randomness in this run.
            agents: i32[M].
            turns: i32[M] how many jobs each has had before.
            job: what a whole job is.
            work: i32[M] local steps each does of it; None: all.
        """
        share = 1 if work is None else work / job.num_local_steps
        computing = self.computing(agents, job) * self.luck(key, agents, turns)
        return computing * share + self.travelling(agents, job)


def check_system(system: Any) -> None:
    """Raises `ValueError` unless it is a system."""
    if not isinstance(system, System):
        raise ValueError(f"system must be a System, got {system!r}; for example ratio_system(num_agents, 4.0)")


def arrays(job: Job) -> Job:
    """The job as arrays, for a carried state."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), job)


def _make(slowness: Any, per_job: Any, per_env_step: Any, per_gradient: Any, jitter: Any) -> System:
    """A system without links whose agent i takes `slowness[i]` times as long as the base, f[N]."""
    numbers = {
        "seconds_per_job": per_job,
        "seconds_per_env_step": per_env_step,
        "seconds_per_gradient": per_gradient,
        "jitter": jitter,
    }
    check("jitter", jitter, lambda v: np.all(np.asarray(v) <= _LARGEST_SPREAD), f"must be at most {_LARGEST_SPREAD}")
    for name in ("seconds_per_job", "seconds_per_env_step", "seconds_per_gradient"):
        check(name, numbers[name], lambda v: np.ndim(v) == 0, "must be one number", "fixed_system takes one per agent")
    for name, value in numbers.items():
        check(name, value, lambda v: np.all(np.isfinite(v)) and np.all(np.asarray(v) >= 0), "must be finite and >= 0")
    check(
        "jitter", jitter, lambda v: np.shape(v) in ((), np.shape(slowness)),
        f"must be a number or f[{np.shape(slowness)[0]}]",
    )  # fmt: skip
    zero, one = np.zeros(np.shape(slowness)), np.ones(np.shape(slowness))
    return System(
        per_job * slowness, per_env_step * slowness, per_gradient * slowness,
        one * np.inf, one * np.inf, zero, zero + jitter,
    )  # fmt: skip


def fixed_system(seconds: Any, jitter: Any = 0.0) -> System:
    """Every job of agent i takes the same seconds, whatever the learner does in it.

    Args:
        seconds: f[N] > 0 [s].
        jitter: sigma of the log-normal factor of each job, a number or f[N].
    """

    def good(v: Any) -> bool:
        return np.ndim(v) == 1 and np.size(v) > 0 and bool(np.all(np.isfinite(v)) and np.all(np.asarray(v) > 0))

    check("seconds", seconds, good, "must be f[N], one positive number of seconds per agent")
    slowness = np.asarray(seconds, float) if is_concrete(seconds) else jnp.asarray(seconds)
    return _make(slowness, 1.0, 0.0, 0.0, jitter)


def uniform_system(
    num_agents: int, *, seconds_per_env_step: float = 1e-3, seconds_per_gradient: float = 0.0,
    seconds_per_job: float = 0.0, jitter: float = 0.0,
) -> System:  # fmt: skip
    """All agents are equally fast.

    Args:
        num_agents: N.
        seconds_per_env_step: [s]
        seconds_per_gradient: [s]
        seconds_per_job: [s] on top of the two, whatever the job is.
        jitter: sigma of the log-normal factor of each job.
    """
    check_count("num_agents", num_agents)
    return _make(np.ones(num_agents), seconds_per_job, seconds_per_env_step, seconds_per_gradient, jitter)


def ratio_system(
    num_agents: int, ratio: float, *, seconds_per_env_step: float = 1e-3, seconds_per_gradient: float = 0.0,
    seconds_per_job: float = 0.0, jitter: float = 0.0,
) -> System:  # fmt: skip
    """The slowest agent takes t_max / t_min = ratio times as long as the fastest; the others lie linearly between.

    h_i = 1 + (ratio - 1) i / (N - 1) for i = 0 ... N - 1: agent 0 is the fastest, and the times (not the speeds) are
    equally spaced. Published comparisons use the ratios 1, 2, 4, 10, 20 and 100.

    Args:
        num_agents: N.
        ratio: t_max / t_min >= 1.
        seconds_per_env_step: of the fastest agent [s].
        seconds_per_gradient: of the fastest agent [s].
        seconds_per_job: of the fastest agent [s], on top of the two, whatever the job is.
        jitter: sigma of the log-normal factor of each job.
    """
    check_count("num_agents", num_agents)
    check_range("ratio", ratio, 1, np.inf, open_high=True)
    slowness = 1 + (ratio - 1) * np.arange(num_agents) / max(num_agents - 1, 1)
    return _make(slowness, seconds_per_job, seconds_per_env_step, seconds_per_gradient, jitter)


def sqrt_system(
    num_agents: int, *, seconds_per_env_step: float = 1e-3, seconds_per_gradient: float = 0.0,
    seconds_per_job: float = 0.0, jitter: float = 0.0,
) -> System:  # fmt: skip
    """Agent i = 1 ... N takes h_i = sqrt(i) times as long as the first.

    Args:
        num_agents: N.
        seconds_per_env_step: of the first agent [s].
        seconds_per_gradient: of the first agent [s].
        seconds_per_job: of the first agent [s], on top of the two, whatever the job is.
        jitter: sigma of the log-normal factor of each job.

    Reference: Tyurin, Spiridonov and Rudenko, arXiv 2509.24305, ICLR 2026 (experiments).
    """
    check_count("num_agents", num_agents)
    slowness = np.sqrt(np.arange(1, num_agents + 1))
    return _make(slowness, seconds_per_job, seconds_per_env_step, seconds_per_gradient, jitter)


def log_normal_system(
    num_agents: int, sigma: float, seed: int = 0, *, seconds_per_env_step: float = 1e-3,
    seconds_per_gradient: float = 0.0, seconds_per_job: float = 0.0, jitter: float = 0.0,
) -> System:  # fmt: skip
    """Agent i takes h_i = exp(sigma z_i), z_i ~ N(0, 1), times as long as the median; few are very slow.

    The speeds are drawn once and stay; agent i's does not depend on N.

    Args:
        num_agents: N.
        sigma: spread of the logarithm, >= 0.
        seed: of the speeds.
        seconds_per_env_step: of the median agent [s].
        seconds_per_gradient: of the median agent [s].
        seconds_per_job: of the median agent [s], on top of the two, whatever the job is.
        jitter: sigma of the log-normal factor of each job.
    """
    check_count("num_agents", num_agents)
    check_range("sigma", sigma, 0, _LARGEST_SPREAD)
    check_count("seed", seed, 0)
    slowness = np.exp(sigma * np.random.default_rng(seed).standard_normal(num_agents))
    return _make(slowness, seconds_per_job, seconds_per_env_step, seconds_per_gradient, jitter)
