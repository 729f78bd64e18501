"""What a local RL algorithm is: data it collects and a loss on them."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax

from ..core import Metrics


PyTree = Any


class Collected(NamedTuple):
    """What one `collect` brings home."""

    batch: PyTree  # leaves [S, ...], one row per sample; the rows are what minibatches split
    state: PyTree  # the objective's next state
    num_samples: jax.Array  # f32[] environment steps behind the batch
    metrics: Metrics
    statistics: PyTree = ()  # to be added to the running statistics


def check_world(policy: Any, num_envs: int, env: Any, physics: PyTree) -> None:
    """Raises unless a policy fits an environment, and as many environments are played as an agent pools worlds."""
    policy.check(env)
    worlds = None if env.physics_axis is None else jax.tree.leaves(physics)[0].shape[0]
    if worlds not in (None, num_envs):
        raise ValueError(f"num_envs must be {worlds}, the pooled worlds of an agent, got {num_envs}")


class Objective(abc.ABC):
    """One local RL algorithm for ONE agent; one file each."""

    tells_returns: ClassVar[bool] = False  # True: its metrics have `train_return_mean`

    @property
    def policy(self) -> Any:
        """The `Policy` that acts with these parameters when they are evaluated."""
        raise NotImplementedError(f"{type(self).__name__} has no policy")

    @property
    def batch_size(self) -> int | None:
        """Rows of a batch where they are known beforehand; minibatches must divide them."""
        return None

    @property
    def env_steps(self) -> int | None:
        """Environment steps of one `collect` where they are known beforehand; at most so many where episodes end."""
        return self.batch_size

    @property
    def num_envs(self) -> int:
        """Environments that one agent plays side by side."""
        return 1

    @property
    def ordered(self) -> bool:
        """Whether minibatches are consecutive rows, not shuffled ones: steps along a chain, or independent rows."""
        return False

    def check(self, env: Any, physics: PyTree) -> None:
        """Raises `ValueError` where it cannot play this environment; `physics` of one agent, shapes only."""
        del env, physics

    @abc.abstractmethod
    def init(self, key: jax.Array, env: Any) -> PyTree:
        """Parameters."""

    def init_statistics(self, env: Any) -> PyTree:
        """Running sums that nobody descends but everybody may share (moments of observations); () where none."""
        del env
        return ()

    def complete(self, params: PyTree, statistics: PyTree) -> PyTree:
        """What an agent acts with: parameters and what the statistics make of them."""
        del statistics
        return params

    @abc.abstractmethod
    def init_local(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree) -> PyTree:
        """State that stays with the agent: environments, replay, target network; `params` are the first model."""

    @abc.abstractmethod
    def collect(self, key: jax.Array, env: Any, physics: PyTree, params: PyTree, state: PyTree) -> Collected:
        """Acts in the agent's environments; `params` are completed by the statistics."""

    @abc.abstractmethod
    def loss(
        self, key: jax.Array, params: PyTree, state: PyTree, batch: PyTree
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss to descend, f32[], and what to report."""

    def after_step(self, params: PyTree, state: PyTree, batch: PyTree) -> PyTree:
        """After a local step on `batch`: target networks, adaptive penalties."""
        del params, batch
        return state

    def by_block(self, batch: PyTree) -> tuple[Callable[[jax.Array], PyTree], jax.Array] | None:
        """Block number -> block of rows, and shares f[K]: loss(batch) = sum_k share_k loss(block(k)).

        Real rows come first: where episodes end early the last blocks are empty, and nobody need look at them. None:
        not worth it.
        """
        del batch
        return None

    # ------------------------------------------------------------ what corrections ask for

    @property
    def has_distribution(self) -> bool:
        """Whether it acts with a distribution that `distribution` tells."""
        return type(self).distribution is not Objective.distribution

    @property
    def has_policy_gradient(self) -> bool:
        """Whether `reweigh` can weigh the rows of a batch."""
        return type(self).reweigh is not Objective.reweigh

    @property
    def uses_ratios(self) -> bool:
        """Whether the loss itself weighs rows by the ratio to the behaviour policy."""
        return False

    @property
    def whole_trajectories(self) -> bool:
        """Whether a batch is made of whole trajectories, so that `trajectory_ratio` has a meaning."""
        return False

    @property
    def is_table(self) -> bool:
        """Whether every parameter is an entry that steps towards targets of its own, so that `visits` counts them."""
        return type(self).visits is not Objective.visits

    def visits(self, params: PyTree, batch: PyTree) -> PyTree:
        """v like `params`: of an entry x, the loss of this batch keeps the share 1 - eta v in one step of SGD."""
        raise NotImplementedError(f"{type(self).__name__} is not a table")

    def parts(self, params: PyTree) -> PyTree:
        """The name of the part that every leaf belongs to: "actor", "critic", "trunk" (of both), ..."""
        return jax.tree.map(lambda _: "actor", params)

    def distribution(self, params: PyTree, batch: PyTree) -> tuple[Any, jax.Array | None]:
        """The action distributions [S] at the states of a batch, and the mask bool[S] of the real ones (None: all)."""
        raise NotImplementedError(f"{type(self).__name__} has no action distribution")

    def log_prob(self, params: PyTree, batch: PyTree) -> jax.Array:
        """log pi(a|s) of a batch's actions, f32[S]; 0 where a row is not real."""
        raise NotImplementedError(f"{type(self).__name__} has no action distribution")

    @property
    def num_trajectories(self) -> int | None:
        """How many independent trajectories a batch can be split into by `by_trajectory`; None: it cannot."""
        return None

    def by_trajectory(self, batch: PyTree) -> tuple[PyTree, jax.Array]:
        """A batch for each trajectory, leaves [E, ...], and shares f[E]: loss(batch) = sum_e share_e loss(batch_e)."""
        raise NotImplementedError(f"{type(self).__name__} does not split its batches")

    def over_trajectories(self, batch: PyTree, x: jax.Array) -> jax.Array:
        """The sum of x f32[S] over the trajectory that a row belongs to, f32[S]."""
        raise NotImplementedError(f"{type(self).__name__} does not collect whole trajectories")

    def reweigh(self, batch: PyTree, weight: jax.Array) -> PyTree:
        """The batch with each row's policy gradient multiplied by weight f32[S]."""
        raise NotImplementedError(f"{type(self).__name__} has no policy gradient to weigh")
