"""Which settings each command measures."""

import dataclasses
from collections.abc import Iterator

from fedjax_rl.training import preset, preset_names

from ._setting import Setting


LSA_CHUNK = 500
ROUND = Setting("round", num_agents=1000, num_envs=8, num_steps=200)


def limit(num_devices: int) -> Iterator[Setting]:
    """What this machine can do at best, with products and with the policy's network, and what its users have today."""
    for work in ("matmul", "fma", "copy"):
        yield Setting(work, num_devices=num_devices)
    for num_agents in (100, 1000):
        for work in ("network", "gradient"):
            yield dataclasses.replace(ROUND, work=work, num_agents=num_agents, num_devices=num_devices)
    for work in ("gymnax_random", "gymnax_policy"):
        for num_envs in (256, 4096, 65536):
            yield Setting(work, num_envs=num_envs, num_devices=num_devices)


def throughput(num_devices: int) -> Iterator[Setting]:
    """Acting alone and the full round, over the shapes that load the machine differently."""
    for work in ("rollout", "round"):
        for shape in (
            {"num_agents": 10, "rounds_per_call": 100 if work == "round" else 1},
            {"num_agents": 100, "rounds_per_call": 10 if work == "round" else 1},
            {"num_agents": 1000},
            {"num_agents": 10_000},
            {"num_agents": 10_000, "num_envs": 1},
            {"num_agents": 100_000, "num_envs": 1, "num_steps": 50, "hidden_sizes": (16, 16)},
            {"num_agents": 100, "hidden_sizes": (128, 128)},
        ):
            yield dataclasses.replace(ROUND, work=work, num_devices=num_devices, **shape)
    yield dataclasses.replace(ROUND, num_agents=100, num_local_steps=4, num_devices=num_devices)


def ppo(num_devices: int) -> Iterator[Setting]:
    """Full rounds of PPO, 4 epochs x 4 minibatches: one large agent, and the same environments spread over 256."""
    for num_agents, num_envs in ((1, 2048), (256, 8)):
        yield Setting("ppo", num_agents, num_envs, num_steps=128, num_devices=num_devices)


def lsa(num_devices: int) -> Iterator[Setting]:
    """Rounds of federated TD learning, 100 local steps of one sample, held against NumPy loops: tuned, and plain."""
    for work in ("lsa", "lsa_double"):
        for num_agents in (1000, 10_000, 100_000):
            rounds = 200_000 // num_agents  # as many local steps for all, and enough that the call does not count
            yield Setting(
                work, num_agents, num_steps=100, chunk_size=LSA_CHUNK, rounds_per_call=rounds, num_devices=num_devices
            )


def arrivals(num_devices: int) -> Iterator[Setting]:
    """Asynchronous rounds, held against cohorts of as many agents: the cost of an arrival is to be flat in N."""
    del num_devices
    for num_agents in (100, 1000, 10_000, 100_000):
        yield Setting("arrivals", num_agents, num_envs=8, num_steps=100, rounds_per_call=5)


def scaling(num_devices: int) -> Iterator[Setting]:
    """The full round from one agent to a hundred thousand: 8 environments each as far as that is quick, and one.

    And a hundred agents with more environments, fewer and more steps, other widths, and on one device; and two
    processes with a device each against one with two.
    """
    for num_envs, largest in ((8, 10_000), (1, 100_000)):
        for num_agents in (1, 10, 100, 1000, 10_000, 100_000):
            if num_agents <= largest:
                # Enough rounds per call that the call itself does not count.
                rounds = max(1, 1_600_000 // (num_agents * num_envs * 200))
                yield dataclasses.replace(
                    ROUND,
                    num_agents=num_agents,
                    num_envs=num_envs,
                    rounds_per_call=rounds,
                    num_devices=num_devices,
                )
    hundred = dataclasses.replace(ROUND, num_agents=100, rounds_per_call=5, num_devices=num_devices)
    for shape in (
        {"num_envs": 64},
        {"num_steps": 25},
        {"num_steps": 1600},
        {"hidden_sizes": (16, 16)},
        {"hidden_sizes": (256, 256)},
    ):
        yield dataclasses.replace(hundred, **shape)
    if num_devices > 1:
        yield dataclasses.replace(hundred, num_devices=1)
    for num_agents in (100, 1000):
        # As many agent updates per call: a call of processes is two messages to them.
        rounds = 1000 // num_agents
        yield dataclasses.replace(ROUND, work="processes", num_agents=num_agents, rounds_per_call=rounds, num_devices=2)


def flat(num_devices: int) -> Iterator[Setting]:
    """Rounds of few and of many agents in turns with rounds of a thousand: a step is to cost the same."""
    for num_agents, num_envs in ((100, 8), (10_000, 8), (100, 1), (10_000, 1), (100_000, 1)):
        rounds = max(1, 1_600_000 // (num_agents * num_envs * 200))
        yield Setting("flat", num_agents, num_envs, num_steps=200, rounds_per_call=rounds, num_devices=num_devices)


def parts(num_devices: int) -> Iterator[Setting]:
    """What the parts of a round cost: acting, the optimiser, what messages and the aggregator may do besides."""
    for work in ("acting", "sgd", "noisy", "trimmed"):
        yield dataclasses.replace(ROUND, work=work, num_devices=num_devices)


def memory(num_devices: int) -> Iterator[Setting]:
    """A million agents, all of them and a thousand at a time; the cost of a cohort is to follow its size."""
    million = dataclasses.replace(
        ROUND, num_agents=1_000_000, num_envs=1, num_steps=50, hidden_sizes=(16, 16), num_devices=num_devices
    )
    yield million
    for num_agents in (1000, 100_000, 1_000_000):
        # On one device: see `our_cohort`.
        yield dataclasses.replace(million, work="cohort", num_agents=num_agents, rounds_per_call=20, num_devices=1)


def compilation(num_devices: int) -> Iterator[Setting]:
    """Every preset, and rounds of few and of many agents: the time is not to follow the number."""
    for name in preset_names():
        yield Setting("preset", int(preset(name).num_agents), variant=name, num_devices=num_devices)
    for num_agents in (10, 10_000):
        yield dataclasses.replace(ROUND, num_agents=num_agents, num_steps=10, num_devices=num_devices)


def peers(num_devices: int, num_agents: int = 1000) -> Iterator[Setting]:
    """What users run today: an agent of stable-baselines3, clients of Flower, a tutorial's clients, gymnax.

    Args:
        num_devices: for the library; peers take what they can use.
        num_agents: of the large federations; Flower takes some 15 ms for each and round, the tutorial 40.
    """
    for agents in (1, 256):
        yield Setting("peer_sb3", agents, num_envs=8, num_steps=128, rounds_per_call=10, num_devices=num_devices)
    yield Setting("peer_flower", num_agents, num_envs=1, num_steps=200, num_devices=num_devices)
    tutorial = Setting(
        "peer_torch_tutorial", 5, num_envs=10, num_steps=500, hidden_sizes=(128, 128), num_devices=num_devices
    )
    yield dataclasses.replace(tutorial, rounds_per_call=50)  # the whole training
    # The first round alone, whose episodes are the shortest: later ones take the peer longer, and the library not.
    yield dataclasses.replace(tutorial, num_agents=num_agents)
    for agents in (512, 8192):
        yield Setting("peer_gymnax", agents, num_envs=8, num_steps=200, num_devices=num_devices)


SUITES = {
    "limit": limit,
    "throughput": throughput,
    "round": parts,
    "ppo": ppo,
    "lsa": lsa,
    "arrivals": arrivals,
    "scaling": scaling,
    "flat": flat,
    "memory": memory,
    "compile": compilation,
}
