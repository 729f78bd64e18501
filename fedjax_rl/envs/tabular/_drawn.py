"""What families of finite MDPs share."""

import abc
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import EnvFamily, check_count


Params = TypeVar("Params")


class DrawnFamily(EnvFamily):
    """Agents whose physics is drawn one by one: a function of the key and the agent's number only.

    What all agents have in common (a centre, features, layouts) is drawn from a seed when the family is built and kept
    in its fields, in NumPy's double precision, so that a learner or a theorem may know it and so that it is the same at
    either precision of JAX. The key decides on what is the agents' own.
    """

    @abc.abstractmethod
    def draw(self, key: jax.Array, agent: jax.Array) -> Any:
        """The physics of one agent.

        Args:
            key: of all agents; fold the agent's number in.
            agent: i32[] its number.
        """

    def sample(self, key: jax.Array, num_agents: int) -> Any:
        return jax.vmap(self.draw, (None, 0))(key, jnp.arange(num_agents, dtype=jnp.int32))


def floating(x: Any) -> jax.Array:
    """The array in the default floating type (f32, or f64 where 64 bits are enabled)."""
    return jnp.asarray(x, jnp.result_type(float))


def integer(x: Any) -> jax.Array:
    """The array in the default integer type."""
    return jnp.asarray(x, jnp.result_type(int))


def generator(seed: int) -> np.random.Generator:
    """The random numbers behind what agents have in common."""
    check_count("seed", seed, 0)
    return np.random.default_rng(int(seed))


def random_rows(rng: np.random.Generator, shape: tuple[int, ...], law: str) -> np.ndarray:
    """Probability vectors f64[*shape]: Dirichlet(1, ..., 1) ("dirichlet") or normalised uniform numbers ("uniform")."""
    weight = rng.exponential(size=shape) if law == "dirichlet" else rng.uniform(size=shape)
    return weight / weight.sum(-1, keepdims=True)


def random_support(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> np.ndarray:
    """0/1 f64[*shape] with `count` ones in each row, every set of places equally likely."""
    return (rng.uniform(size=shape).argsort(-1).argsort(-1) < count).astype(np.float64)
