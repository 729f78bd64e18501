"""Chunk sizes that nobody chose."""

import jax
import jax.numpy as jnp
import optax
import pytest

from fedjax_rl import aggregators, envs, learners, make_round, policies
from fedjax_rl.core import _chunks
from fedjax_rl.core._chunks import peak_bytes
from fedjax_rl.core._round import trace_one_agent


def made(num_envs=8, hidden_sizes=(8,), num_agents=1000, **kwargs):
    family = envs.cartpole_family("packer-r")
    policy = policies.mlp_policy(family.env, hidden_sizes=hidden_sizes)
    objective = learners.actor_critic(policy, num_envs=num_envs, num_steps=10)
    learner = learners.local_training(objective, optax.adam(1e-3))
    return make_round(family, learner, aggregators.mean(), num_agents=num_agents, **kwargs)


def test_what_is_alive_at_a_time():
    x = jnp.zeros(1000, jnp.float32)
    assert peak_bytes(jax.make_jaxpr(lambda x: jnp.sin(x))(x)) == 8000
    assert peak_bytes(jax.make_jaxpr(lambda x: jnp.sin(jnp.sin(jnp.sin(x))))(x)) == 8000
    assert peak_bytes(jax.make_jaxpr(lambda x: jnp.sin(jnp.sin(x)) * x)(x)) == 12_000


def test_a_loop_needs_its_results_and_one_turn():
    def turn(carry, _):
        return carry, jnp.sin(jnp.sin(carry))  # 4000 carried, two of 4000 alive in the turn, and the turn's copy

    scanned = jax.make_jaxpr(lambda x: jax.lax.scan(turn, x, None, length=50)[1])(jnp.zeros(1000, jnp.float32))
    results = 50 * 4000
    assert results + 4000 <= peak_bytes(scanned) <= results + 5 * 4000


def test_estimates_bound_what_the_compiler_needs():
    # As written a program needs more than compiled: between one and a few times as much.
    round_ = made(num_envs=4, hidden_sizes=(64, 64), num_agents=1)
    state = round_.init(jax.random.key(0))
    compiled = jax.jit(round_.step).lower(state).compile().memory_analysis()
    estimate = peak_bytes(trace_one_agent(round_))
    assert 0.5 * compiled.temp_size_in_bytes < estimate < 20 * compiled.temp_size_in_bytes


def test_caches_decide_on_a_cpu():
    assert made().chunk_size == 50
    assert made(num_envs=1).chunk_size > made(num_envs=100).chunk_size
    assert made(num_envs=1000).chunk_size == 1
    assert made(hidden_sizes=(1024, 1024)).chunk_size < 5
    assert made(num_agents=7).chunk_size == 7
    assert made(chunk_size=3).chunk_size == 3
    assert made(chunk_size=None).chunk_size is None
    with pytest.raises(ValueError, match="chunk_size must be an integer >= 1, got 'many'"):
        made(chunk_size="many")


@pytest.mark.parametrize(
    ("caches", "expected"),
    [
        ([("32K", "1"), ("1024K", "1"), ("32768K", "3")], 16),
        ([("1024K", "1"), ("16384K", "ff,00000000")], 2),
        ([("335544K", "3")], 32),  # of a whole socket
        ([("two", "1")], 16),
        ([("32768K", "0")], 16),
        ([], 16),
    ],
)
def test_a_cores_share_of_the_caches(tmp_path, monkeypatch, caches, expected):
    for number, (size, cores) in enumerate(caches):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(size + "\n")
        (tmp_path / f"index{number}" / "shared_cpu_map").write_text(cores + "\n")
    monkeypatch.setattr(_chunks, "_CACHES", tmp_path)
    assert _chunks.cache_bytes() == expected * 2**20
    few = made(hidden_sizes=(512, 512)).chunk_size
    assert few == max(1, expected * 2**20 // (3 * 4 * (5 * 512 + 513 * 512 + 513 * 3)))


def test_memory_decides_on_an_accelerator(monkeypatch):
    round_ = made(num_agents=100_000)
    monkeypatch.setattr(_chunks.jax, "default_backend", lambda: "gpu")
    trace = trace_one_agent(round_)
    memory = 1000 * peak_bytes(trace)
    assert _chunks.automatic_chunk_size(round_, lambda: trace, lambda: memory) == 500
