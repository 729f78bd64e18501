"""From the configuration to the round: what each key becomes, and what is refused, with the key at fault."""

from pathlib import Path
from typing import Any

import optax
import pytest

from fedjax_rl import aggregators, envs, learners, participation, policies, topologies, transforms
from fedjax_rl.training import ExperimentConfig, build
from fedjax_rl.training._build import OPTIMIZER_PARTS, OPTIMIZERS, build_optimizer
from tests.training.examples import TINY


def test_every_key_arrives() -> None:
    config = TINY.replace(
        chunk_size=3,
        policy={"hidden_sizes": (7,), "activation": "relu", "shared_trunk": False},
        rollout={"num_envs": 4, "num_steps": 6, "episodes": "fresh"},
        learner={
            "objective": "actor_critic(discount=0.5, entropy_cost=0.25)",
            "optimizer": "sgd(0.125, momentum=0.5)",
            "num_local_steps": 2,
            "num_epochs": 3,
            "num_minibatches": 4,
            "corrections": ("proximal(0.375)",),
            "weight": "uniform",
            "optimizer_state": "average",
        },
        round={
            "aggregator": "trimmed_mean(0.1)",
            "transforms": ("clip(2.0)", "from_optax(scale(0.5))"),
            "topology": "isolated",
            "participation": "uniform_cohort(3)",
        },
    )
    built = build(config)
    policy = built.policy.architecture()
    assert (policy["hidden_sizes"], policy["activation"], policy["shared_trunk"]) == ([7], "relu", False)
    learner = built.learner
    assert isinstance(learner, learners.LocalTraining)
    assert (learner.num_local_steps, learner.num_epochs, learner.num_minibatches) == (2, 3, 4)
    assert (learner.weight, learner.optimizer_state, learner.upload) == ("uniform", "average", "delta")
    assert learner.corrections == (learners.proximal(0.375),)
    assert learner.optimizer == learners.optimizer(optax.sgd, learning_rate=0.125, momentum=0.5)
    assert learner.objective == learners.actor_critic(
        built.policy, num_envs=4, num_steps=6, episodes="fresh", discount=0.5, entropy_cost=0.25
    )
    round_ = built.round
    assert (round_.num_agents, round_.chunk_size) == (5, 3)
    assert round_.aggregator == aggregators.trimmed_mean(0.1)
    assert round_.transforms[0] == transforms.clip(2.0)
    assert len(round_.transforms) == 2
    assert round_.topology == topologies.isolated()
    assert round_.participation == participation.uniform_cohort(3)


def test_a_policy_that_remembers() -> None:
    config = TINY.replace(
        policy={"kind": "gru", "memory_size": 6, "hidden_sizes": (7,), "shared_trunk": False},
        world={"family": "stacked_family(cartpole_family('jin'), num_frames=2)"},
        rollout={"num_envs": 6},
        learner={"num_minibatches": 3},
    )
    built = build(config)
    assert built.family.env == envs.stacked(envs.CartPole(), 2, True)
    assert built.policy == policies.gru_policy(built.family.env, (7,), 6, shared_trunk=False)
    assert ExperimentConfig.from_toml(config.to_toml()) == config
    with pytest.raises(ValueError, match="num_minibatches must divide"):
        build(config.replace(learner={"num_minibatches": 4}))
    with pytest.raises(ValueError, match=r"policy\.memory_size must be at least 1, got 0"):
        config.replace(policy={"memory_size": 0})
    with pytest.raises(ValueError, match=r"policy\.kind must be 'mlp' or 'gru'"):
        config.replace(policy={"kind": "lstm"})


def test_a_server_optimizer_wraps_the_learner() -> None:
    learner = build(TINY.replace(learner={"server_optimizer": "yogi(0.01)"})).learner
    assert isinstance(learner, learners.ServerOptimizer)
    assert learner.optimizer == learners.optimizer(optax.yogi, learning_rate=0.01)


def test_another_algorithm_takes_what_it_has_use_for() -> None:
    config = ExperimentConfig().replace(policy=TINY.policy)
    built = build(config.replace(learner={"algorithm": "fed_npg_admm(max_kl=0.5)"}))
    assert built.learner == learners.fed_npg_admm(build(config).learner.objective, max_kl=0.5)
    for changes, ignored in (({"num_local_steps": 3}, "num_local_steps"), ({"upload": "gradient"}, "upload")):
        with pytest.raises(ValueError, match=rf"learner\.algorithm: fed_npg takes no {ignored}; leave the default"):
            build(config.replace(learner={"algorithm": "fed_npg()", **changes}))


def test_wrappers_wrap_in_order() -> None:
    changes = {"server_optimizer": "sgd(1.0)", "wrappers": ("aggregate_only(('actor',))",)}
    split = {"shared_trunk": False}
    learner = build(TINY.replace(learner=changes, policy=split)).learner
    assert isinstance(learner, learners.AggregateOnly)
    assert isinstance(learner.learner, learners.ServerOptimizer)
    assert isinstance(learner.learner.learner, learners.LocalTraining)
    with pytest.raises(ValueError, match=r"learner\.wrappers\[0\]: 'agregate_only'.*did you mean aggregate_only"):
        build(TINY.replace(learner={"wrappers": ("agregate_only(('actor',))",)}, policy=split))


def test_a_policy_that_normalises() -> None:
    config = TINY.replace(policy={"normalize_rewards": True}, learner={"statistics": "local"})
    built = build(config)
    plain = build(TINY).policy
    assert built.policy == policies.normalized_policy(plain, observations=False, rewards=True)
    assert isinstance(built.learner, learners.LocalTraining)
    assert built.learner.statistics == "local"
    with pytest.raises(ValueError, match=r"policy\.normalize_rewards: dqn has a network of its own"):
        build(config.replace(learner={"objective": "dqn()", "num_epochs": 1}))


def test_a_round_that_its_counters_cannot_hold_is_refused() -> None:
    build(TINY.replace(num_agents=2**19, rollout={"num_envs": 32, "num_steps": 127}))
    with pytest.raises(ValueError, match="fewer than 2\\^31 environment steps, got 2,147,483,648"):
        build(TINY.replace(num_agents=2**19, rollout={"num_envs": 32, "num_steps": 128}))


def test_pooled_worlds_take_their_number_from_the_rollout() -> None:
    config = TINY.replace(
        num_agents="auto", world={"family": "pooled(cartpole_family('jin'))"}, rollout={"num_envs": 6}
    )
    built = build(config)
    assert built.config.num_agents == 1
    assert isinstance(built.family, envs.PooledFamily)
    assert built.family.num_envs == 6


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "fleet.csv"
    path.write_text("half_length,masspole\n" + "".join(f"{0.3 + i / 50},{0.1}\n" for i in range(10)))
    return f"fleet_family('{path}')"


def test_a_table_fixes_the_number_of_agents(table: str) -> None:
    config = TINY.replace(num_agents="auto", world={"family": table})
    assert build(config).config.num_agents == 8
    assert build(config.replace(num_agents=8)).round.num_agents == 8
    with pytest.raises(ValueError, match=r"num_agents: the family has 8 training agents .* got 10; give --agents 8"):
        build(config.replace(num_agents=10))
    with pytest.raises(ValueError, match="num_agents: 'auto' needs a family with one row per agent"):
        build(TINY.replace(num_agents="auto"))


def test_devices_are_shared_by_agents_or_by_seeds() -> None:
    one, two = build(TINY), build(TINY.replace(devices=2))
    assert one.mesh is None
    assert one.round.mesh is None
    assert two.round.mesh is two.mesh is not None
    seeds = build(TINY.replace(devices=2, num_seeds=3))
    assert seeds.round.mesh is None
    assert seeds.mesh is not None
    assert build(TINY.replace(num_agents=1, devices="auto")).mesh is None
    with pytest.raises(ValueError, match=r"devices: num_devices must be at most \d+"):
        build(TINY.replace(devices=999))


def test_the_chunk_follows_the_work() -> None:
    assert build(TINY.replace(chunk_size="none")).round.chunk_size is None
    small = build(TINY.replace(rollout={"num_envs": 1})).round.chunk_size
    large = build(TINY.replace(rollout={"num_envs": 100}, policy={"hidden_sizes": (512, 512)})).round.chunk_size
    assert small is not None
    assert large is not None
    assert small > large >= 1


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"world": {"family": "cartpol_family()"}}, ["world.family", "did you mean cartpole_family?"]),
        ({"world": {"family": "cartpole_family('packer')"}}, ["world.family: physics_set", "'packer-r'"]),
        ({"world": {"family": "cartpole_family(half_lenght=(1, 2))"}}, ["world.family", "half_lenght"]),
        ({"world": {"family": "fleet_family('no.csv')"}}, ["world.family", "no.csv"]),
        ({"policy": {"activation": "tnah"}}, ["policy: activation", "'tnah'"]),
        ({"policy": {"squash": True}}, ["policy: squash"]),
        ({"learner": {"objective": "pppo()"}}, ["learner.objective", "did you mean ppo?", "objectives: reinforce"]),
        ({"learner": {"objective": "mean()"}}, ["learner.objective: 'mean' is not registered"]),
        ({"learner": {"objective": "ppo(clipp=0.1)"}}, ["learner.objective: ppo", "clipp", "ppo(*, discount=0.99"]),
        ({"learner": {"objective": "ppo(clip=-0.1)"}}, ["learner.objective: clip must lie in (0, inf), got -0.1"]),
        ({"learner": {"objective": "ppo(num_envs=3)"}}, ["num_envs is set by the configuration"]),
        ({"learner": {"optimizer": "adma(0.1)"}}, ["learner.optimizer: 'adma'", "did you mean"]),
        ({"learner": {"optimizer": "adam(0.1, 1, 2, 3, 4, 5, 6, 7, 8, 9)"}}, ["adam(learning_rate, b1=0.9"]),
        ({"learner": {"optimizer": "adam(lr=0.1)"}}, ["learner.optimizer: adam", "adam(learning_rate"]),
        ({"learner": {"optimizer": "chain(os())"}}, ["'os' cannot stand in an optimiser"]),
        ({"learner": {"server_optimizer": "sdg(1.0)"}}, ["learner.server_optimizer", "did you mean sgd?"]),
        ({"learner": {"num_minibatches": 5}}, ["learner.algorithm: num_minibatches"]),
        ({"learner": {"corrections": ("proximal(-1)",)}}, ["learner.corrections[0]: "]),
        ({"round": {"transforms": ("clip(1)", "clp(1)")}}, ["round.transforms[1]: 'clp'", "did you mean clip?"]),
        ({"round": {"aggregator": "trimmed_mean(0.9)"}}, ["round.aggregator: trim"]),
        (
            {"round": {"participation": "uniform_cohort(6)"}},
            ["participation (UniformCohort): size", "num_agents = 5, got 6"],
        ),
        ({"round": {"topology": "ring()"}}, ["round.topology: 'ring' is not registered", "topologies: star"]),
    ],
)
def test_an_error_names_the_key(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        build(TINY.replace(**changes))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_built(name: str) -> None:
    text = {"adafactor": "adafactor(0.1)", "noisy_sgd": "noisy_sgd(0.1)"}.get(name, f"{name}(learning_rate=0.1)")
    assert isinstance(build_optimizer("x", text).build(), optax.GradientTransformation)


def test_optimizers_compose() -> None:
    assert all(hasattr(optax, name) for name in OPTIMIZER_PARTS)
    composed = build_optimizer("x", "chain(clip_by_global_norm(0.5), adam(cosine_decay_schedule(0.1, decay_steps=10)))")
    assert isinstance(composed.build(), optax.GradientTransformation)
    scheduled = build_optimizer("x", "sgd(linear_schedule(0.1, 0.0, 100))")
    assert dict(scheduled.settings)["learning_rate"](50) == pytest.approx(0.05)


def test_the_defaults_can_be_built() -> None:
    assert build(ExperimentConfig()).round.num_agents == 100
