"""At least one instance of every registered component. A registry line without an example here fails the suite."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from fedjax_rl import aggregators, envs, learners, participation, policies, rl, topologies, transforms
from tests.probes.logged import LoggedFamily, LoggedObjective, Logs


AGGREGATORS = {
    "mean": [aggregators.mean()],
    "median": [aggregators.median()],
    "trimmed_mean": [aggregators.trimmed_mean(0.0), aggregators.trimmed_mean(0.2)],
}
# (transform, the same with its neutral parameter or None)
TRANSFORMS = {
    "clip": [(transforms.clip(0.5), transforms.clip(math.inf))],
    "from_optax": [
        (transforms.from_optax(optax.clip_by_global_norm(0.5)), transforms.from_optax(optax.identity())),
        (transforms.from_optax(optax.trace(0.9)), None),
    ],
    "quantize": [(transforms.quantize(8), None)],
    "erasure": [
        (transforms.erasure(0.5), transforms.erasure(0.0)),
        (transforms.erasure(0.0, attempts=3), transforms.erasure(0.0, attempts=3)),
    ],
    "gilbert_elliott": [(transforms.gilbert_elliott(0.3, 0.5), transforms.gilbert_elliott(0.0, 1.0))],
    "dropout": [(transforms.dropout(0.5), transforms.dropout(0.0))],
    "lazy": [(transforms.lazy(0.15, num_past=3, variance_factor=0.0), None)],
    "threshold_trigger": [
        (transforms.threshold_trigger(0.5), transforms.threshold_trigger(0.0)),
        (transforms.threshold_trigger(0.5, of="change"), transforms.threshold_trigger(0.0, of="change")),
        (transforms.threshold_trigger(0.5, unsent="accumulate"), transforms.threshold_trigger(0.0)),
    ],
    "top_change": [(transforms.top_change(2), transforms.top_change(100))],
    "increasing_period": [(transforms.increasing_period(1, 1.5), transforms.increasing_period(1, 1))],
    "inverse_variance": [(transforms.inverse_variance(), None)],
    "return_weights": [(transforms.return_weights(), None), (transforms.return_weights(inverse=True), None)],
    "cosine_weights": [(transforms.cosine_weights(), None)],
    "aligned": [(transforms.aligned(2), transforms.aligned(100))],
    "prioritized": [(transforms.prioritized(2), transforms.prioritized(100))],
}
# Of six agents.
GRAPHS = {
    "ring": [topologies.ring(6)],
    "complete": [topologies.complete(6)],
    "erdos_renyi": [topologies.erdos_renyi(6, 0.6, seed=1)],
    "graph_from_matrix": [topologies.graph_from_matrix(np.eye(6) / 2 + np.roll(np.eye(6), 1, 0) / 2)],
}
DISCOUNTS = {
    "constant": [topologies.constant()],
    "hinge": [topologies.hinge(0.5, 2)],
    "polynomial": [topologies.polynomial(0.5)],
}
_STAR = topologies.star()
TOPOLOGIES = {
    "star": [topologies.star()],
    "isolated": [topologies.isolated()],
    "gossip": [topologies.gossip(graph) for graphs in GRAPHS.values() for graph in graphs],
    "sequential": [topologies.sequential(_STAR), topologies.sequential(topologies.snapshot(_STAR))],
    "snapshot": [
        topologies.snapshot(_STAR),
        *(topologies.snapshot(_STAR, discount) for discounts in DISCOUNTS.values() for discount in discounts),
        topologies.snapshot(topologies.sequential(_STAR)),
        topologies.sequential(topologies.snapshot(topologies.buffered(_STAR, 4), topologies.polynomial())),
    ],
    "asynchronous": [
        topologies.asynchronous(_STAR, 2, topologies.polynomial()),
        topologies.sequential(topologies.asynchronous(_STAR, 3)),
    ],
    "delayed": [topologies.delayed(_STAR, [0, 1, 3, 0, 2, 1])],
    "buffered": [topologies.buffered(_STAR, 10), topologies.sequential(topologies.buffered(_STAR, 4))],
    "periodic": [topologies.periodic(period=3), topologies.periodic(topologies.gossip(GRAPHS["ring"][0]), 2)],
    "failover": [
        topologies.failover(_STAR, 0.3, 2, 1),
        topologies.failover(topologies.sequential(topologies.snapshot(_STAR)), 0.3, 2, 1),
    ],
}
# Poles count as fallen so early that episodes of different lengths fit into a few steps.
CARTPOLE = envs.cartpole_family("packer-r", max_steps_in_episode=5, theta_threshold=0.06)
CONTINUOUS = envs.cartpole_family("packer-r", continuous=True, max_steps_in_episode=5)
_PLAY = {"num_envs": 2, "num_steps": 8}
_REMEMBER = {"capacity": 64, "batch_size": 16, "learning_starts": 16, "hidden_sizes": (8,), **_PLAY}


_CENTRE = envs.TabularParams(np.eye(3)[:, None].repeat(2, 1), np.zeros((3, 2)), np.array([1.0, 0.0, 0.0]), 7)
_DATA = Path(__file__).parents[1] / "data"
# Several of one name, so that what is optional is tried too.
FAMILIES = {
    "cartpole_family": [CARTPOLE, envs.cartpole_family("carl", actuator_polarity=(-1, 1), continuous=True)],
    "gymnax_family": [envs.gymnax_family("Pendulum-v1", spread=0.2)],
    "fleet_family": [envs.fleet_family(_DATA / "fleet.csv", holdout=0.2)],
    "pooled": [envs.pooled(CARTPOLE, 3), envs.pooled(envs.maze_family(), 3)],
    "stacked_family": [envs.stacked_family(CARTPOLE, 3), envs.stacked_family(envs.conflict_family(), 2)],
    "garnet_family": [envs.garnet_family(), envs.garnet_family("heterogeneous", 6, 3, 2, 3)],
    "mixture_family": [
        envs.mixture_family(eps_r=0.2),
        envs.mixture_family(num_types=2, branching=3),
        envs.mixture_family(common=_CENTRE),
    ],
    "random_mdp_family": [
        envs.random_mdp_family(),
        envs.random_mdp_family(support="disjoint"),
        envs.random_mdp_family(support="sparse", eps_p=1.0),
    ],
    "synthetic_family": [envs.synthetic_family(eps_p=0.1)],
    "conflict_family": [envs.conflict_family()],
    "seven_state_family": [envs.seven_state_family(), envs.seven_state_family("published")],
    "grid_world_family": [
        envs.grid_world_family("5x5", goal="random", success=(0.5, 1.0)),
        envs.grid_world_family("3x3", success=0.8, slip="neighbours", at_goal="stay", eps_p=0.1),
        envs.grid_world_family(("S.G/.#./...", "S.G/..#/..."), at_goal="restart"),
    ],
    "frozen_lake_family": [envs.frozen_lake_family(success_rate=(0.3, 0.9)), envs.frozen_lake_family("8x8")],
    "windy_cliff_family": [envs.windy_cliff_family()],
    "maze_family": [envs.maze_family()],
    "family_from_arrays": [
        envs.family_from_arrays(_DATA / "conflicting_mdp_7x4.npz"),
        envs.family_from_arrays({"kernel": np.full((2, 4, 3, 2, 3), 1 / 3), "reward": np.ones((2, 4, 3, 2))}),
    ],
    "relabelled_family": [
        envs.relabelled_family(envs.mixture_family()),
        envs.relabelled_family(envs.synthetic_family(), 1.0, "random"),
    ],
    "behaviour_family": [envs.behaviour_family(envs.mixture_family(3, 2), np.eye(2)[:, None].repeat(3, 1))],
    "episodic_family": [envs.episodic_family(envs.windy_cliff_family(), 6)],
}


def _policy(family: object = CARTPOLE) -> policies.Policy:
    return policies.mlp_policy(family.env, hidden_sizes=(8,))  # type: ignore[attr-defined]


def _gru() -> policies.Policy:
    return policies.gru_policy(CARTPOLE.env, hidden_sizes=(8,), memory_size=4)


# Objectives of finite MDPs have no network that tells what they play.
TABULAR = envs.garnet_family("heterogeneous", 6, 3, 2, 3)
_VALUES = (TABULAR.features, TABULAR.policy, 0.9)
OBJECTIVES = {
    "reinforce": [
        learners.reinforce(_policy(), baseline="none", **_PLAY),  # two short equal episodes would cancel an average
        learners.reinforce(_policy(), baseline="value", **_PLAY),
        learners.reinforce(_gru(), baseline="value", **_PLAY),
    ],
    "actor_critic": [
        learners.actor_critic(_policy(), **_PLAY),
        learners.actor_critic(_policy(), episodes="fresh", normalization="returns", **_PLAY),
    ],
    "a2c": [learners.a2c(_policy(), num_envs=2, num_steps=5)],
    "ppo": [
        learners.ppo(_policy(), **_PLAY),
        learners.ppo(_policy(CONTINUOUS), **_PLAY),
        learners.ppo(_policy(), surrogate="kl", entropy_cost=rl.ramp(0.1, 0.0, 3), **_PLAY),
        learners.ppo(_gru(), **_PLAY),
    ],
    "dqn": [learners.dqn(CARTPOLE.env, episodes="fresh", **_REMEMBER)],
    "double_dqn": [learners.double_dqn(CARTPOLE.env, **_REMEMBER)],
    "ddpg": [learners.ddpg(CONTINUOUS.env, **_REMEMBER)],
    "sac": [learners.sac(CONTINUOUS.env, **_REMEMBER)],
    "td": [
        learners.td(*_VALUES),
        learners.td(*_VALUES, num_samples=4, sampling="markov", trace=0.5),
        learners.td(*_VALUES, sampling="generative"),
        learners.td(*_VALUES, sampling="exact"),
    ],
    "q_learning": [
        learners.q_learning(0.9, num_samples=4, initial=1.0),
        learners.q_learning(0.9, num_samples=8, sampling="asynchronous"),
        learners.q_learning(0.9, sampling="exact"),
    ],
    "policy_ascent": [
        learners.policy_ascent(0.9),
        learners.policy_ascent(0.9, parametrization="direct"),
    ],
    "softmax_policy_gradient": [
        learners.softmax_policy_gradient(0.9, regularization=0.1),
        learners.softmax_policy_gradient(0.9, sampling="episodes", num_episodes=4, horizon=6),
        learners.softmax_policy_gradient(
            0.9, regularization=0.1, parametrization="bits", sampling="episodes", num_episodes=4, horizon=6
        ),
    ],
    "sarsa": [
        learners.sarsa(np.eye(18).reshape(6, 3, 18), 0.9),
        learners.sarsa(np.ones((6, 3, 2)), 0.9, num_samples=3),
        learners.sarsa(np.ones((6, 3, 2)), 0.9, sampling="exact"),
    ],
}
CONFLICT = envs.conflict_family()  # four actions, which are two bits
PLAYED_ON = dict.fromkeys(("td", "sarsa", "q_learning", "policy_ascent"), TABULAR)
PLAYED_ON |= {"softmax_policy_gradient": CONFLICT}
CORRECTIONS = {
    "proximal": [learners.proximal(0.1)],
    "kl_to_global": [learners.kl_to_global(0.1), learners.kl_to_global(0.1, "sqrt_kl", 0.05)],
    "control_variates": [learners.control_variates()],
    "dynamic_regularization": [learners.dynamic_regularization(0.5)],
    "mime": [learners.mime(0.5)],
    "mime_lite": [learners.mime_lite(0.5)],
    "normalized_averaging": [learners.normalized_averaging()],
    "svrpg": [learners.svrpg(2.0)],
    "svrpg_momentum": [learners.svrpg_momentum(0.5)],
    "hapg_momentum": [learners.hapg_momentum(0.5)],
    "natural_gradient": [learners.natural_gradient(), learners.natural_gradient(0.1, num_backtracks=3)],
    "importance_weighting": [
        learners.importance_weighting(2.0),
        learners.importance_weighting(2.0, "trajectory"),
    ],
    "mixed_behaviour": [learners.mixed_behaviour(0.5)],
    "clip_gradient": [learners.clip_gradient(0.5)],
    "importance_averaging": [learners.importance_averaging()],
    "projection": [learners.projection(), learners.projection(10.0)],
}
# These move the model by something else than what one agent was trained by in one round: FedDyn adds what its server
# remembers, MIME and SVRPG stand still in their first round.
MERGES_OTHERWISE = ("dynamic_regularization", "mime", "svrpg")
# What a correction is tried on that only fits some objectives.
TRIED_ON = {"importance_averaging": OBJECTIVES["q_learning"][0]}
# What the others are tried on: it allows all of them, and compiles in no time.
_GENERATOR = np.random.default_rng(0)
LOGGED = LoggedFamily(
    Logs(
        jnp.asarray(_GENERATOR.normal(size=(3, 2, 4, 2, 2)), jnp.float32),
        jnp.asarray(_GENERATOR.integers(0, 3, size=(3, 2, 4, 2)), jnp.int32),
        jnp.asarray(_GENERATOR.normal(size=(3, 2, 4, 2)), jnp.float32),
    )
)


@dataclasses.dataclass(frozen=True)
class Corrected:
    """A learner with one correction, as a function of the step size."""

    correction: learners.Correction
    merges_plainly: bool
    objective: learners.Objective | None = None

    @property
    def family(self) -> object:
        """Only where the objective is another one."""
        if self.objective is None:
            raise AttributeError("family")
        return TABULAR

    def __call__(self, step_size: float) -> learners.LocalTraining:
        objective = self.objective or LoggedObjective(np.full((2, 3), 0.1, np.float32), 2)
        return training(objective, step_size, corrections=(self.correction,), weight="uniform", num_local_steps=2)


def merges_plainly(make: Callable[[float], object]) -> bool:
    """Whether merging one message alone moves the model by what that agent was trained by."""
    return getattr(make, "merges_plainly", True)


def training(objective: learners.Objective, step_size: float = 0.1, **kwargs: object) -> learners.LocalTraining:
    """Local training with plain SGD, whose zero step is a zero difference."""
    sgd = learners.optimizer(optax.sgd, learning_rate=step_size)
    return learners.local_training(objective, sgd, **kwargs)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Natural:
    """Natural gradients of all agents together: their length is a divergence, and not one agent's matter."""

    factory: Callable[..., object]
    merges_plainly: bool = False
    has_step_size: bool = False

    def __call__(self, step_size: float) -> object:
        return self.factory(OBJECTIVES["actor_critic"][0], max_kl=max(step_size, 1e-3))


@dataclasses.dataclass(frozen=True)
class Ahead:
    """Uploads a gradient; the meeting place steps by a given length."""

    options: dict[str, object]
    merges_plainly: bool = False
    has_step_size: bool = False

    def __call__(self, step_size: float) -> object:
        return learners.afedpg(OBJECTIVES["actor_critic"][0], step_size, 0.5, **self.options)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Uploads a model."""

    merges_plainly: bool = False
    has_step_size: bool = False

    def __call__(self, step_size: float) -> object:
        return learners.fed_async(training(OBJECTIVES["actor_critic"][0], step_size), 0.6)


@dataclasses.dataclass(frozen=True)
class ByParts:
    """Uploads a part of what it trains."""

    parts: object
    merges_plainly: bool = False

    def __call__(self, step_size: float) -> object:
        policy = policies.mlp_policy(CARTPOLE.env, hidden_sizes=(8,), shared_trunk=False)
        objective = learners.actor_critic(policy, num_envs=2, num_steps=8)
        return learners.aggregate_only(training(objective, step_size), self.parts)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Plain:
    """Local training on an objective, on a family that it fits."""

    objective: learners.Objective
    name: str

    @property
    def family(self) -> object:
        """Only where the objective's policy does not tell."""
        if self.name not in PLAYED_ON:
            raise AttributeError("family")
        return PLAYED_ON[self.name]

    def __call__(self, step_size: float) -> learners.LocalTraining:
        return training(self.objective, step_size)


@dataclasses.dataclass(frozen=True)
class Tabular:
    """A learner of finite MDPs, as a function of the step size."""

    factory: Callable[..., object]
    arguments: dict[str, object]
    family: object = TABULAR
    merges_plainly: bool = True
    has_step_size: bool = True

    def __call__(self, step_size: float) -> object:
        return self.factory(*_VALUES, step_size=step_size, **self.arguments)


@dataclasses.dataclass(frozen=True)
class Control:
    """A learner that looks for the best policy of finite MDPs, as a function of the step size."""

    factory: Callable[..., object]
    arguments: dict[str, object]
    family: object = TABULAR

    def __call__(self, step_size: float) -> object:
        return self.factory(0.9, step_size, **self.arguments)


@dataclasses.dataclass(frozen=True)
class Optimistic:
    """Counts instead of stepping: what it uploads is no difference of parameters; the number is a probability."""

    factory: Callable[..., object]
    options: tuple[tuple[str, object], ...] = ()
    family: object = dataclasses.field(default_factory=lambda: envs.synthetic_family(3, 2, 2, eps_p=0.1))
    merges_plainly: bool = False
    has_step_size: bool = False

    def __call__(self, step_size: float) -> object:
        return self.factory(100, delta=max(step_size, 1e-3), **dict(self.options))


@dataclasses.dataclass(frozen=True)
class OnConflict:
    """A learner of policies for finite MDPs, as a function of the step size."""

    factory: Callable[..., object]
    arguments: dict[str, object]
    family: object = CONFLICT

    def __call__(self, step_size: float) -> object:
        return self.factory(step_size=step_size, discount=0.9, **self.arguments)


_EPISODES = {"num_local_steps": 2, "num_episodes": 4, "horizon": 6}


def has_step_size(make: Callable[[float], object]) -> bool:
    """Whether the example's number is a step size, which may be zero."""
    return getattr(make, "has_step_size", True)


# As functions of the step size.
LEARNERS = {
    "local_training": [
        *(Plain(o, name) for name, objectives in OBJECTIVES.items() for o in objectives),
        *(
            Corrected(c, name not in MERGES_OTHERWISE, TRIED_ON.get(name))
            for name, cs in CORRECTIONS.items()
            for c in cs
        ),
        lambda s: training(OBJECTIVES["ppo"][0], s, corrections=CORRECTIONS["control_variates"], weight="uniform"),
        lambda s: training(OBJECTIVES["ppo"][0], s, num_local_steps=2, num_epochs=2, num_minibatches=4),
        lambda s: training(OBJECTIVES["ppo"][-1], s, num_local_steps=2, num_epochs=2, num_minibatches=2),
        lambda s: training(OBJECTIVES["actor_critic"][0], s, optimizer_state="average", weight="uniform"),
        lambda s: learners.local_training(
            OBJECTIVES["actor_critic"][0],
            learners.optimizer(optax.adam, learning_rate=s),
            num_local_steps=2,
            optimizer_state="keep",
        ),
    ],
    "server_optimizer": [
        lambda s: learners.server_optimizer(
            training(OBJECTIVES["ppo"][0], s), learners.optimizer(optax.sgd, learning_rate=1.0)
        )
    ],
    "aggregate_only": [ByParts(("actor",)), ByParts(("critic",))],
    "afedpg": [Ahead({}), Ahead({"lookahead": False, "num_local_steps": 2})],
    "fed_async": [Mixed()],
    "fed_npg": [Natural(learners.fed_npg)],
    "fed_npg_admm": [Natural(learners.fed_npg_admm)],
    "federated_td": [Tabular(learners.federated_td, {"num_local_steps": 3})],
    "scafflsa": [Tabular(learners.scafflsa, {"num_local_steps": 3}), Tabular(learners.scafflsa, {"sampling": "exact"})],
    "federated_q": [
        Control(learners.federated_q, {"num_local_steps": 3}),
        Control(learners.federated_q, {"num_local_steps": 8, "sampling": "asynchronous", "averaging": "importance"}),
    ],
    "qavg": [Control(learners.qavg, {"num_local_steps": 2})],
    "soft_pavg": [Control(learners.soft_pavg, {"num_local_steps": 2})],
    "proj_pavg": [Control(learners.proj_pavg, {"num_local_steps": 2})],
    "fed_ucbvi": [
        Optimistic(learners.fed_ucbvi),
        Optimistic(learners.fed_ucbvi, (("trigger", "local"), ("bonus", "theoretical"))),
    ],
    "fed_q": [Optimistic(learners.fed_q), Optimistic(learners.fed_q, (("bonus", "bernstein"),))],
    "s_fedpg": [OnConflict(learners.s_fedpg, _EPISODES)],
    "rs_fedpg": [OnConflict(learners.rs_fedpg, {"num_local_steps": 2, "radius": 9.0, "sampling": "exact"})],
    "b_rs_fedpg": [OnConflict(learners.b_rs_fedpg, _EPISODES)],
    "tracking_npg": [OnConflict(learners.tracking_npg, {"entropy_weight": 0.1})],
    # A message is a direction; the agents step when they know the mean of all.
    "pf_lsa": [Tabular(learners.pf_lsa, {"beta": 0.5}, merges_plainly=False, has_step_size=False)],
}
# Of eight agents.
LINKS = {
    "link": [participation.link(1e6, latency=0.01)],
    "edge_link": [participation.edge_link()],
    "cloud_link": [participation.cloud_link(2.0)],
}
SYSTEMS = {
    "fixed_system": [participation.fixed_system(np.arange(1.0, 9.0)), participation.fixed_system((0.5,) * 8, 0.3)],
    "uniform_system": [participation.uniform_system(8), participation.uniform_system(8, seconds_per_gradient=0.1)],
    "ratio_system": [participation.ratio_system(8, 4), participation.ratio_system(8, 20, jitter=0.5)],
    "sqrt_system": [participation.sqrt_system(8)],
    "log_normal_system": [participation.log_normal_system(8, 1.0, 3)],
    "with_link": [participation.with_link(participation.ratio_system(8, 4), links[0]) for links in LINKS.values()],
}
PARTICIPATION = {
    "everyone": [participation.everyone()],
    "uniform_cohort": [participation.uniform_cohort(3), participation.uniform_cohort(7)],
    "first_arrivals": [
        participation.first_arrivals(SYSTEMS["ratio_system"][1]),
        participation.first_arrivals(SYSTEMS["with_link"][0], batch=5, deadline=2.0),
    ],
    "poisson_cohort": [participation.poisson_cohort(0.4, 4)],
    "weighted_cohort": [participation.weighted_cohort(np.arange(8.0), 3)],
    "power_of_choice": [participation.power_of_choice(2, 5, "return")],
    "deadline_cohort": [participation.deadline_cohort(SYSTEMS["ratio_system"][0], 5, 2.0)],
    "resource_cohort": [participation.resource_cohort(SYSTEMS["ratio_system"][0], 3)],
    "availability": [
        participation.availability(participation.uniform_cohort(4), 0.3, 0.2),
        participation.availability(participation.everyone(), 0.9, 0.8),
    ],
    "resource_weights": [
        participation.resource_weights(participation.uniform_cohort(3), np.arange(1.0, 9.0)),
        participation.resource_weights(participation.everyone(), SYSTEMS["ratio_system"][0], inverse=True),
    ],
    "opt_out": [participation.opt_out(participation.everyone(), (0, 3))],
    "performance_triggered": [participation.performance_triggered(participation.uniform_cohort(3), 0.1, 2)],
    "proportional_work": [participation.proportional_work(participation.uniform_cohort(3), SYSTEMS["ratio_system"][0])],
    "allocated_work": [participation.allocated_work(participation.uniform_cohort(3), 7, "sqrt", np.arange(1.0, 9.0))],
    "timed": [participation.timed(participation.uniform_cohort(3), SYSTEMS["ratio_system"][1], deadline=5.0)],
    "gradient_race": [
        participation.gradient_race(SYSTEMS["ratio_system"][1], 12, most=4),
        participation.gradient_race(SYSTEMS["with_link"][0], 12, "harmonic", 4),
    ],
}


def every(table: dict) -> list:
    """All examples of a role."""
    return [example for examples in table.values() for example in examples]


def label(value: object) -> str:
    """A readable test id, the same in every process: no addresses."""
    return type(value[0] if isinstance(value, tuple) else value).__name__
