"""The policy that remembers."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp

from ..core import check_count
from ._distributions import Distribution
from ._gru import RecurrentActorCritic
from ._policy import Memory, NetworkPolicy, PyTree, spaces_of, validated


@dataclasses.dataclass(frozen=True)
class GRUPolicy(NetworkPolicy):
    """A gated recurrent unit with an actor's and a critic's head; build it with `gru_policy`."""

    kind: ClassVar[str] = "gru"

    memory_size: int = 64

    def __post_init__(self) -> None:
        check_count("memory_size", self.memory_size)

    def init(self, key: jax.Array) -> PyTree:
        """Draws `{"params": {"trunk_0": {"kernel", "bias"}, ..., "trunk_memory": {...}, "actor": {...}, ...}}`.

        `trunk_memory` has `input_kernel`, `input_bias`, `memory_kernel`, `memory_bias`. Separate trunks are called
        `actor_trunk_...` and `critic_trunk_...`; only Gaussians have `log_std`.
        """
        observation = jnp.zeros((self.observation_size,), jnp.result_type(float))
        return self._network.init(key, self.initial_memory(()), observation)

    def apply(self, params: PyTree, observation: jax.Array) -> tuple[Distribution, jax.Array]:
        raise TypeError("a policy with a memory cannot be asked without it; call step or unroll")

    @property
    def has_memory(self) -> bool:
        return True

    def initial_memory(self, shape: tuple[int, ...]) -> Memory:
        zeros = jnp.zeros((*shape, self.memory_size), jnp.result_type(float))
        return (zeros,) if self.shared_trunk else (zeros, zeros)

    def step(self, params: PyTree, memory: Memory, observation: jax.Array) -> tuple[Memory, Distribution, jax.Array]:
        self.check_observation(observation)
        memory, outputs, value, log_std = cast(Any, self._network.apply(params, memory, observation))
        return memory, self.distribution_of(outputs, log_std), value

    def unroll(
        self, params: PyTree, memory: Memory, observation: jax.Array, starts: jax.Array
    ) -> tuple[Distribution, jax.Array]:
        self.check_observation(observation)
        _, outputs, value, log_std = cast(Any, self._network.apply(params, memory, observation, starts))
        return self.distribution_of(outputs, log_std), value

    @property
    def _network(self) -> RecurrentActorCritic:
        return RecurrentActorCritic(
            self.action_size, self.hidden_sizes, self.memory_size, self.activation, self.shared_trunk,
            self.start_of_log_std, self.fast_gradient, self.initialization,
        )  # fmt: skip


def gru_policy(
    env: Any,
    hidden_sizes: Sequence[int] = (64,),
    memory_size: int = 64,
    activation: str = "tanh",
    shared_trunk: bool = True,
    squash: bool = False,
    initial_log_std: float = 0.0,
    *,
    fast_gradient: bool = True,
    initialization: str = "orthogonal",
) -> GRUPolicy:
    """A policy that remembers the episode, for worlds whose physics does not show: layers, a GRU, and two heads.

    On-policy objectives train it by back-propagation through the whole rollout from the memory that it began with;
    minibatches then are made of environments. It sees observations only. What it did itself it sees where the
    environment shows it: `stacked(env, 2, actions=True)`.

    Args:
        env: an environment with a flat observation box and discrete actions or a flat action box.
        hidden_sizes: widths of the hidden layers before the unit; `()`: it reads the observation itself.
        memory_size: cells of the unit.
        activation: "tanh", "relu", "elu", "silu" or "gelu", of the hidden layers.
        shared_trunk: whether actor and critic share the hidden layers and the memory.
        squash: as in `mlp_policy`.
        initial_log_std: as in `mlp_policy`.
        fast_gradient: as in `mlp_policy`.
        initialization: "orthogonal", or "uniform" in +-1 / sqrt(inputs), the unit in +-1 / sqrt(memory_size).

    Raises:
        ValueError: a value is wrong, or the environment's spaces are not flat; the text says which.

    Example:
        >>> policy = gru_policy(env)
        >>> params, memory = policy.init(jax.random.key(0)), policy.initial_memory(())
        >>> memory, distribution, value = policy.step(params, memory, observation)

    Reference: Hausknecht and Stone, "Deep recurrent Q-learning for partially observable MDPs", 2015; Ni, Eysenbach and
        Salakhutdinov, "Recurrent model-free RL can be a strong baseline for many POMDPs", ICML 2022.
    """
    fields = {
        "hidden_sizes": hidden_sizes,
        "memory_size": memory_size,
        "activation": activation,
        "shared_trunk": shared_trunk,
        "initial_log_std": initial_log_std,
        "fast_gradient": fast_gradient,
        "initialization": initialization,
    }
    return validated(GRUPolicy, spaces_of(env, squash) | fields)
