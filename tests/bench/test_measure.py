"""Benchmarks: what they measure, and the lines they write."""

import dataclasses
import json
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from bench import __main__ as command
from bench._measure import Effort, in_process_of_its_own, measure
from bench._plain_ppo import plain_ppo
from bench._plot import plot
from bench._setting import Measurement, Setting, read
from bench._suites import SUITES
from bench._variants import our_flat
from bench._work import forward_flop, gradient_flop


TINY = Setting(
    "round", num_agents=3, num_envs=2, num_steps=5, hidden_sizes=(8,), chunk_size=2, num_devices=2, matmul_size=64
)
SHORT = Effort(min_calls=3, min_seconds=0.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command appends for `TINY`; every test below reads it, for a process of its own takes seconds."""
    out = tmp_path_factory.mktemp("bench") / "new" / "lines.jsonl"
    shape = ["agents=3", "envs=2", "steps=5", "hidden=8", "chunk=2", "devices=2", "matmul-size=64"]
    assert command.main(["throughput", *(f"--{option}" for option in shape), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def measurement(file: Path) -> Measurement:
    (measurement,) = read([file])
    return measurement


def test_measurement_of_a_round(measurement: Measurement) -> None:
    m = measurement
    assert m.setting == TINY
    assert len(m.seconds_all) >= 5
    assert m.seconds == statistics.median(m.seconds_all)
    assert m.env_steps_per_second is not None and m.flop_per_step is not None
    assert m.env_steps_per_second == pytest.approx(3 * 2 * 5 / m.seconds)
    assert m.agent_updates_per_second == pytest.approx(3 / m.seconds)
    assert m.flop_per_step == pytest.approx(forward_flop(TINY) + gradient_flop(TINY))
    assert m.share_of_bound == pytest.approx(m.env_steps_per_second * m.flop_per_step / (m.matmul_gflops * 1e9))
    assert m.compile_seconds > 0.01
    assert 50 < m.compile_rss_mb <= m.peak_rss_mb < 2000


def test_ppo_is_held_against_a_plain_loop() -> None:
    setting = dataclasses.replace(TINY, work="ppo", num_steps=6)
    m = measure(setting, SHORT)
    assert m.over_reference is not None and 0.01 < m.over_reference < 100
    assert m.flop_per_step == pytest.approx(2 * (forward_flop(setting, 1) + 4 * gradient_flop(setting, 1)))
    plain = plain_ppo(setting)
    assert plain.env_steps == 3 * 2 * 6
    plain.call()


@pytest.mark.parametrize("work", ["lsa", "lsa_double"])
def test_federated_td_is_held_against_a_numpy_loop(work: str) -> None:
    setting = Setting(work, num_agents=4, num_steps=6, rounds_per_call=2, num_devices=2, matmul_size=64)
    m = measure(setting, SHORT)
    assert m.over_reference is not None and 0.01 < m.over_reference < 10_000
    assert m.env_steps_per_second == pytest.approx(2 * 4 * 6 / m.seconds)
    assert Measurement.from_json(m.to_json()) == m


def test_memory_is_that_of_the_process_alone(measurement: Measurement) -> None:
    # This process grows by 1 GB; a child that inherits the maximum of its parent would report it.
    ballast = bytearray(1_000_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    again = in_process_of_its_own(dataclasses.replace(TINY, work="matmul"), SHORT)
    assert again.peak_rss_mb < measurement.peak_rss_mb + 200


def test_line_round_trips(measurement: Measurement) -> None:
    line = measurement.to_json()
    assert "\n" not in line
    assert Measurement.from_json(line) == measurement


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": "1"}, "seconds must be"),
        ({"seconds": None}, "seconds must be"),
        ({"num_cores": 2.5}, "num_cores must be"),
        ({"surprise": 1}, "unknown fields .'surprise'"),
        ({"setting": {"work": "round"}}, "Setting lacks"),
        ({"flags": {"XLA_FLAGS": 1}}, "flags must be"),
    ],
)
def test_schema_is_enforced(measurement: Measurement, change: dict, message: str, tmp_path: Path) -> None:
    file = tmp_path / "damaged.jsonl"
    file.write_text(measurement.to_json() + "\n" + json.dumps(dataclasses.asdict(measurement) | change) + "\n")
    with pytest.raises(ValueError, match=f"damaged.jsonl, line 2: .*{message}"):
        read([file])


def test_not_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text("speed: high\n")
    with pytest.raises(ValueError, match="line 1"):
        read([file])


@pytest.mark.parametrize(
    "work", ["matmul", "fma", "copy", "gymnax_random", "gymnax_policy", "network", "gradient", "rollout"]
)
def test_other_works_are_measured(work: str) -> None:
    m = measure(dataclasses.replace(TINY, work=work, num_envs=4, num_steps=32), SHORT)
    assert Measurement.from_json(m.to_json()) == m
    assert m.agent_updates_per_second is None
    assert (m.env_steps_per_second is None) is (work in ("matmul", "fma", "copy"))
    assert (m.machine_rate is None) is (m.env_steps_per_second is not None)
    assert (m.share_of_bound is None) is (work in ("matmul", "fma", "copy", "gymnax_random"))
    assert m.matmul_gflops > 0


def test_gradients_that_a_round_would_take_together_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 128"):
        dataclasses.replace(TINY, work="gradient")


def test_too_many_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="num_devices must be at most 4, got 5"):
        measure(dataclasses.replace(TINY, num_devices=5), SHORT)


def test_failure_of_the_process_is_told() -> None:
    with pytest.raises(RuntimeError, match="num_envs must be a multiple of num_devices=2, got 3"):
        in_process_of_its_own(dataclasses.replace(TINY, work="gymnax_random", num_envs=3), SHORT)


def test_flop_count_of_the_benchmark_network() -> None:
    # By hand: 2 (4*64 + 64*64 + 64*2) to act; three times that less 2*4*64 for the gradient.
    setting = Setting("round", hidden_sizes=(64, 64))
    assert forward_flop(setting) == 8960
    assert gradient_flop(setting) == 26368


@pytest.mark.parametrize("name", sorted(SUITES))
def test_suites_hold_distinct_settings(name: str) -> None:
    settings = list(SUITES[name](2))
    assert len(set(settings)) == len(settings)
    alone = [s for s in settings if s.work in ("arrivals", "cohort")]  # on one device: see `our_arrivals`, `our_cohort`
    assert {s.num_devices for s in alone} <= {1}
    assert sum(s.num_devices != 2 for s in settings if s not in alone) == (name == "scaling")


def test_scaling_goes_from_one_agent_to_a_hundred_thousand() -> None:
    settings = list(SUITES["scaling"](1))
    numbers = {s.num_agents for s in settings}
    assert (min(numbers), max(numbers)) == (1, 100_000)
    assert {s.work for s in settings} == {"round", "processes"}


def test_plot_command(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "picture.png"
    assert command.main(["plot", str(file), "--out", str(out)]) == 0
    assert out.stat().st_size > 10_000


def test_nothing_to_plot_is_told(measurement: Measurement, tmp_path: Path) -> None:
    matmul = dataclasses.replace(measurement, setting=Setting("matmul"), env_steps_per_second=None)
    with pytest.raises(ValueError, match="run throughput or scaling first"):
        plot([matmul], tmp_path / "x.png", {})


def test_ratios_are_drawn(measurement: Measurement, tmp_path: Path) -> None:
    names = {"ppo": "a plain loop"}
    ppo = [dataclasses.replace(TINY, work="ppo", num_agents=n) for n in (1, 2000)]
    ratios = [
        dataclasses.replace(measurement, setting=s, over_reference=r) for s, r in zip(ppo, (0.9, 80.0), strict=True)
    ]
    plot(ratios, tmp_path / "bars.png", names)  # alone
    plot([*ratios, measurement], tmp_path / "both.png", names)
    few, all_ = (plt.imread(tmp_path / name).shape for name in ("bars.png", "both.png"))
    assert few[1] == all_[1] and few[0] < all_[0]


def test_rounds_of_few_are_held_against_a_thousand() -> None:
    setting = dataclasses.replace(TINY, work="flat", num_agents=10, rounds_per_call=250, chunk_size=None)
    thousand = our_flat(setting).reference
    assert thousand is not None
    assert thousand().agent_updates == 2000  # whole rounds, no more steps than 250 rounds of 10 agents have


def test_arrivals_are_held_against_cohorts() -> None:
    setting = Setting("arrivals", num_agents=70, num_envs=1, num_steps=4, rounds_per_call=2, matmul_size=64)
    m = measure(setting, SHORT)
    assert m.over_reference is not None and 0.01 < m.over_reference < 100
    assert m.agent_updates_per_second is not None
    updates = m.agent_updates_per_second * m.seconds
    assert 2 < round(updates) <= 2 * 64 and m.env_steps_per_second == pytest.approx(updates * 4 / m.seconds)
