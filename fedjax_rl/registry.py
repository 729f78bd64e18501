"""One table per role: name -> factory. A line here makes a component usable by name and buys its conformance tests."""

import difflib
import importlib
from collections.abc import Callable
from typing import Any


ROLES: dict[str, dict[str, str]] = {
    "families": {
        "cartpole_family": "envs:cartpole_family",
        "gymnax_family": "envs:gymnax_family",
        "fleet_family": "envs:fleet_family",
        "pooled": "envs:pooled",
        "stacked_family": "envs:stacked_family",
        "garnet_family": "envs:garnet_family",
        "mixture_family": "envs:mixture_family",
        "random_mdp_family": "envs:random_mdp_family",
        "synthetic_family": "envs:synthetic_family",
        "conflict_family": "envs:conflict_family",
        "seven_state_family": "envs:seven_state_family",
        "grid_world_family": "envs:grid_world_family",
        "frozen_lake_family": "envs:frozen_lake_family",
        "windy_cliff_family": "envs:windy_cliff_family",
        "maze_family": "envs:maze_family",
        "family_from_arrays": "envs:family_from_arrays",
        "relabelled_family": "envs:relabelled_family",
        "behaviour_family": "envs:behaviour_family",
        "episodic_family": "envs:episodic_family",
    },
    "objectives": {
        "reinforce": "learners:reinforce",
        "actor_critic": "learners:actor_critic",
        "a2c": "learners:a2c",
        "ppo": "learners:ppo",
        "dqn": "learners:dqn",
        "double_dqn": "learners:double_dqn",
        "ddpg": "learners:ddpg",
        "sac": "learners:sac",
        "td": "learners:td",
        "q_learning": "learners:q_learning",
        "policy_ascent": "learners:policy_ascent",
        "softmax_policy_gradient": "learners:softmax_policy_gradient",
        "sarsa": "learners:sarsa",
    },
    "learners": {
        "local_training": "learners:local_training",
        "server_optimizer": "learners:server_optimizer",
        "aggregate_only": "learners:aggregate_only",
        "afedpg": "learners:afedpg",
        "fed_async": "learners:fed_async",
        "fed_npg": "learners:fed_npg",
        "fed_npg_admm": "learners:fed_npg_admm",
        "federated_td": "learners:federated_td",
        "scafflsa": "learners:scafflsa",
        "federated_q": "learners:federated_q",
        "qavg": "learners:qavg",
        "soft_pavg": "learners:soft_pavg",
        "proj_pavg": "learners:proj_pavg",
        "fed_ucbvi": "learners:fed_ucbvi",
        "fed_q": "learners:fed_q",
        "s_fedpg": "learners:s_fedpg",
        "rs_fedpg": "learners:rs_fedpg",
        "b_rs_fedpg": "learners:b_rs_fedpg",
        "tracking_npg": "learners:tracking_npg",
        "pf_lsa": "learners:pf_lsa",
    },
    "corrections": {
        "proximal": "learners:proximal",
        "kl_to_global": "learners:kl_to_global",
        "control_variates": "learners:control_variates",
        "dynamic_regularization": "learners:dynamic_regularization",
        "mime": "learners:mime",
        "mime_lite": "learners:mime_lite",
        "normalized_averaging": "learners:normalized_averaging",
        "svrpg": "learners:svrpg",
        "svrpg_momentum": "learners:svrpg_momentum",
        "hapg_momentum": "learners:hapg_momentum",
        "natural_gradient": "learners:natural_gradient",
        "importance_weighting": "learners:importance_weighting",
        "mixed_behaviour": "learners:mixed_behaviour",
        "clip_gradient": "learners:clip_gradient",
        "importance_averaging": "learners:importance_averaging",
        "projection": "learners:projection",
    },
    "schedules": {
        "ramp": "rl:ramp",
        "power_decay": "rl:power_decay",
    },
    "aggregators": {
        "mean": "aggregators:mean",
        "median": "aggregators:median",
        "trimmed_mean": "aggregators:trimmed_mean",
    },
    "transforms": {
        "clip": "transforms:clip",
        "quantize": "transforms:quantize",
        "erasure": "transforms:erasure",
        "from_optax": "transforms:from_optax",
        "gilbert_elliott": "transforms:gilbert_elliott",
        "dropout": "transforms:dropout",
        "lazy": "transforms:lazy",
        "threshold_trigger": "transforms:threshold_trigger",
        "top_change": "transforms:top_change",
        "increasing_period": "transforms:increasing_period",
        "inverse_variance": "transforms:inverse_variance",
        "return_weights": "transforms:return_weights",
        "cosine_weights": "transforms:cosine_weights",
        "aligned": "transforms:aligned",
        "prioritized": "transforms:prioritized",
    },
    "topologies": {
        "star": "topologies:star",
        "gossip": "topologies:gossip",
        "isolated": "topologies:isolated",
        "sequential": "topologies:sequential",
        "snapshot": "topologies:snapshot",
        "asynchronous": "topologies:asynchronous",
        "delayed": "topologies:delayed",
        "buffered": "topologies:buffered",
        "periodic": "topologies:periodic",
        "failover": "topologies:failover",
    },
    "discounts": {
        "constant": "topologies:constant",
        "hinge": "topologies:hinge",
        "polynomial": "topologies:polynomial",
    },
    "graphs": {
        "ring": "topologies:ring",
        "complete": "topologies:complete",
        "erdos_renyi": "topologies:erdos_renyi",
        "graph_from_matrix": "topologies:graph_from_matrix",
    },
    "participation": {
        "everyone": "participation:everyone",
        "uniform_cohort": "participation:uniform_cohort",
        "first_arrivals": "participation:first_arrivals",
        "timed": "participation:timed",
        "gradient_race": "participation:gradient_race",
        "proportional_work": "participation:proportional_work",
        "allocated_work": "participation:allocated_work",
        "poisson_cohort": "participation:poisson_cohort",
        "weighted_cohort": "participation:weighted_cohort",
        "power_of_choice": "participation:power_of_choice",
        "deadline_cohort": "participation:deadline_cohort",
        "resource_cohort": "participation:resource_cohort",
        "resource_weights": "participation:resource_weights",
        "availability": "participation:availability",
        "opt_out": "participation:opt_out",
        "performance_triggered": "participation:performance_triggered",
    },
    "systems": {
        "fixed_system": "participation:fixed_system",
        "uniform_system": "participation:uniform_system",
        "ratio_system": "participation:ratio_system",
        "sqrt_system": "participation:sqrt_system",
        "log_normal_system": "participation:log_normal_system",
        "with_link": "participation:with_link",
    },
    "links": {
        "link": "participation:link",
        "edge_link": "participation:edge_link",
        "cloud_link": "participation:cloud_link",
    },
}


def names(role: str) -> tuple[str, ...]:
    """The names of a role's components."""
    return tuple(_look_up(ROLES, role, "role"))


def get(role: str, name: str) -> Callable[..., Any]:
    """The factory of a component; its module is loaded now.

    Raises:
        ValueError: there is no such role or name; the text lists what there is.
    """
    module, attribute = _look_up(_look_up(ROLES, role, "role"), name, f"name in {role}").split(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


def summary(role: str, name: str) -> str:
    """The first line of a factory's docstring."""
    return (get(role, name).__doc__ or "").strip().split("\n")[0]


def _look_up(table: dict[str, Any], name: str, what: str) -> Any:
    if name in table:
        return table[name]
    close = difflib.get_close_matches(str(name), table, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {what}: {name!r}; there are {', '.join(table)}{hint}")
