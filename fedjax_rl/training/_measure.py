"""Evaluations of a run: its own agents after a round, all of them at the end, and agents it has never seen."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..core import EnvFamily, fetch, where_held
from ..envs import FleetFamily, physics_table
from ._build import Experiment
from ._evaluate import Evaluation, evaluate, models_of, spread
from ._folder import plain


MAX_FINAL_EPISODES = 20_000  # of all agents together, but at least one of each
_EVALUATION = 0x6576616C  # folded into a run's key, so that evaluations share no random number with training
_UNSEEN = 0x756E7365


class Measured(NamedTuple):
    """An evaluation, and who played."""

    evaluation: Evaluation
    agents: np.ndarray  # i32[A] numbers of the agents (of the unseen agents, when they are)
    physics: Any  # leaves [A, ...]
    params: Any  # what they played with: leaves [A, ...] where every agent has a model of its own


class Evaluator:
    """Evaluates the states of one experiment.

    Args:
        experiment: what is trained.
        salt: another one gives other episodes; 0 belongs to the run itself.
        first_row: where its seeds begin in the stacked states; None: the state is of one seed.
    """

    def __init__(self, experiment: Experiment, salt: int = 0, first_row: int | None = None):
        self.experiment, self._salt, self._first_row = experiment, salt, first_row
        self.config = experiment.config

    def after_round(self, state: Any, seed: int, num_rounds: int) -> Measured:
        """The evaluation of metrics.jsonl: some agents at even strides, few episodes each.

        Args:
            state: the state, or the stacked states of all seeds.
            seed: the number of the seed, counted from 0.
            num_rounds: rounds done; the random numbers follow from it.
        """
        settings = self.config.evaluation
        worlds, _ = self._worlds(state, seed)
        index, episodes = spread(_length(worlds), settings.max_agents, settings.episodes)
        return self._training(state, seed, self._key(seed, num_rounds), index, episodes)

    def all_agents(self, state: Any, seed: int, num_rounds: int) -> Measured:
        """Every agent, `final_episodes` episodes each (fewer when there are thousands of agents)."""
        worlds, _ = self._worlds(state, seed)
        index, episodes = spread(_length(worlds), _length(worlds), 1)
        episodes = min(self.config.evaluation.final_episodes, max(1, MAX_FINAL_EPISODES // len(index)))
        return self._training(state, seed, jax.random.fold_in(self._key(seed, num_rounds), 1), index, episodes)

    def unseen(self, state: Any, seed: int, num_rounds: int, num_episodes: int | None = None) -> Measured | None:
        """Agents of the same family that never took part; None where none are wanted or the family has none.

        Where every agent has a model of its own, unseen agent j plays with the model of agent j mod N.

        Args:
            state: the state, or the stacked states of all seeds.
            seed: the number of the seed, counted from 0.
            num_rounds: rounds done.
            num_episodes: at least so many episodes of all together; None: `final_episodes` of each.
        """
        family, count = self.experiment.family.base, self.config.evaluation.unseen_agents
        if family.num_unseen is not None:
            count = min(count, family.num_unseen)
        if count == 0:
            return None
        key = jax.random.fold_in(self._key(seed, num_rounds), _UNSEEN)
        agents, episodes = spread(count, count, num_episodes or 1)
        if num_episodes is None:
            episodes = min(self.config.evaluation.final_episodes, max(1, MAX_FINAL_EPISODES // count))
        # The agents themselves do not follow from the round, so that evaluations of a run can be compared.
        k_physics = jax.random.fold_in(jax.random.key(self.config.seed + seed), _UNSEEN)
        params = self._models(state, seed, agents % self.experiment.round.num_agents)
        return self._play(key, params, _unseen_physics(family, k_physics, count), agents, episodes)

    def _training(self, state: Any, seed: int, key: jax.Array, index: np.ndarray, episodes: int) -> Measured:
        worlds, owner = self._worlds(state, seed)
        params = self._models(state, seed, owner[index])
        return self._play(key, params, jax.tree.map(lambda x: x[index], worlds), index, episodes)

    def _play(self, key: jax.Array, params: Any, physics: Any, agents: np.ndarray, episodes: int) -> Measured:
        experiment = self.experiment
        result = evaluate(
            key,
            experiment.family.base.env,
            experiment.policy,
            params,
            physics,
            episodes,
            per_agent=experiment.round.per_agent_models,
            greedy=self.config.evaluation.greedy,
            ids=agents,
            mesh=experiment.mesh,
        )
        return Measured(result, agents, physics, params)

    def _worlds(self, state: Any, seed: int) -> tuple[Any, np.ndarray]:
        """The single worlds [W, ...] of all agents, and the agent each belongs to: an agent may pool several."""
        physics = fetch(state.physics)  # slices of what several devices hold would make them wait in turns
        num_agents = self.experiment.round.num_agents
        if self._first_row is not None:
            row = self._first_row + seed
            physics = jax.tree.map(lambda x: x[row], physics)
        worlds = self.experiment.family.worlds(jax.tree.map(lambda x: x[:num_agents], physics))
        return worlds, np.arange(_length(worlds)) * num_agents // _length(worlds)

    def _models(self, state: Any, seed: int, index: np.ndarray) -> Any:
        agents, mesh = jnp.asarray(index, jnp.int32), self.experiment.mesh
        if self._first_row is None:
            return jax.block_until_ready(models_of(self.experiment.round, state, agents))
        row = self._first_row + seed
        held, row = where_held(state, row) if jax.process_count() == 1 else (state, row)
        models = models_of(self.experiment.round, held, agents, jnp.int32(row))
        return models if mesh is None else jax.device_put(models, NamedSharding(mesh, P()))

    def _key(self, seed: int, num_rounds: int) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(self.config.seed + seed), _EVALUATION)
        return jax.random.fold_in(jax.random.fold_in(key, num_rounds), self._salt)

    def models(self, state: Any, seed: int) -> Any:
        """The parameters of the policy that a run exports: one model, or one per agent with leaves [N, ...]."""
        models = self._models(state, seed, np.arange(self.experiment.round.num_agents))
        return models if jax.process_count() == 1 else fetch(models)


@functools.partial(jax.jit, static_argnames="num_agents")  # a hundredth of the time; a third of the first call's
def _unseen_physics(family: EnvFamily, key: jax.Array, num_agents: int) -> Any:
    return family.sample_unseen(key, num_agents)


def agent_rows(measured: Measured, family: EnvFamily, *, seed: int, split: str) -> list[dict[str, Any]]:
    """The rows of agents.csv: each agent's physics by name, and its episodes; of a fleet also the agents' names."""
    columns = physics_table(measured.physics)
    returns, lengths = (np.asarray(x, np.float32) for x in measured.evaluation)  # seven digits are plenty in a table
    names: tuple[str, ...] = ()
    if isinstance(family.base, FleetFamily):
        names = family.base.labels if split == "training" else family.base.unseen_labels
    return [
        {"seed": seed, "split": split, "agent": int(agent)}
        | ({"label": names[agent]} if names else {})
        | {name: column[i] for name, column in columns.items()}
        | {
            "episodes": returns.shape[1],
            "return_mean": returns[i].mean(),
            "return_std": returns[i].std(),
            "length_mean": lengths[i].mean(),
        }
        for i, agent in enumerate(measured.agents)
    ]


def agent_returns(row: Mapping[str, Any], measured: Measured) -> dict[str, Any]:
    """A line of agents.jsonl: the mean return of each evaluated agent, and the counts of its line of metrics.jsonl."""
    returns = measured.evaluation.returns
    counts = {name: row[name] for name in ("seed", "round", "env_steps", "uplink_bits_total")}
    # Seven digits, as in agents.csv.
    means = plain(returns.mean(1).astype(np.float32))
    return counts | {"episodes_each": returns.shape[1], "agents": measured.agents.tolist(), "return_mean": means}


def _length(stacked: Any) -> int:
    return jax.tree.leaves(stacked)[0].shape[0]
