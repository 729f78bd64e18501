"""One agent between two meetings: objective x optimizer x corrections."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..core import (
    Envelope,
    Learner,
    Mean,
    Metrics,
    Need,
    Received,
    as_metric,
    check_choice,
    check_count,
    check_flag,
    component,
    few_agents_at_a_time,
    permutation,
    seal,
    static,
    tree,
)
from ..rl import greatest, masked_mean
from ._correction import Context, Correction, Merging
from ._objective import Objective
from ._optimizer import Optimizer, as_optimizer


PyTree = Any


class Shared(NamedTuple):
    """What a meeting place keeps, and what agents download."""

    params: PyTree
    statistics: PyTree  # the objective's running sums where they are federated; else ()
    optimizer: PyTree  # the optimiser's state where it is averaged, or where the meeting place steps; else ()
    corrections: tuple[PyTree, ...]

    def with_params(self, params: PyTree) -> "Shared":
        """The same server with another model."""
        return self._replace(params=params)


class Local(NamedTuple):
    """What an agent keeps to itself."""

    objective: PyTree
    statistics: PyTree  # its own running sums where they are local; else ()
    optimizer: PyTree  # its own optimiser's state where it is kept; else ()
    corrections: tuple[PyTree, ...]


class Message(NamedTuple):
    """What an agent uploads."""

    params: PyTree  # trained parameters minus downloaded ones, or the gradient
    statistics: PyTree  # what this round added to the running sums
    optimizer: PyTree  # difference of the optimiser's state where it is averaged; else ()
    corrections: tuple[PyTree, ...]


class _Training(NamedTuple):
    """What moves during local training."""

    params: PyTree
    statistics: PyTree
    optimizer: PyTree
    objective: PyTree
    corrections: tuple[PyTree, ...]


@component
class LocalTraining(Learner):
    """Local steps on an objective; build it with `local_training`."""

    objective: Objective
    optimizer: Optimizer
    corrections: tuple[Correction, ...]
    num_local_steps: int = static()
    num_epochs: int = static()
    num_minibatches: int = static()
    upload: str = static()
    weight: str = static()
    optimizer_state: str = static()
    statistics: str = static()
    measure_kl: bool = static()
    measure_variance: bool = static(default=False)

    @property
    def personal(self) -> bool:
        return self.statistics == "local"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset().union(*(c.needs for c in self.corrections))

    @property
    def num_envs(self) -> int:
        return self.objective.num_envs

    def uploads_gradient(self, env: Any) -> bool:
        alone = self.personal or not jax.tree.leaves(self.objective.init_statistics(env))
        return self.upload == "gradient" and alone and not any(c.has_server_variable for c in self.corrections)

    @property
    def measures_variance(self) -> bool:
        return self.measure_variance

    @property
    def tells_returns(self) -> bool:
        return self.objective.tells_returns

    def check(self, env: Any, physics: PyTree) -> None:
        self.objective.check(env, physics)
        if not self.personal and self.weight != "uniform" and jax.tree.leaves(self.objective.init_statistics(env)):
            raise ValueError(
                f"weight must be 'uniform' with federated running statistics, got {self.weight!r}: they are sums over "
                "samples already and would count the samples twice"
            )

    def job(self, env: Any) -> tuple[float, float, int]:
        steps = self.objective.env_steps
        env_steps = float("nan") if steps is None else float(steps * self.num_local_steps)
        return env_steps, float(self.num_steps), self.num_local_steps

    def init_shared(self, key: jax.Array, env: Any) -> Shared:
        params = self.objective.init(key, env)
        at_server = self.upload == "gradient" or self.optimizer_state == "average"
        optimizer = self.optimizer.build().init(params) if at_server else ()
        statistics = () if self.personal else self.objective.init_statistics(env)
        return Shared(params, statistics, optimizer, tuple(c.init_shared(params) for c in self.corrections))

    def init_local(self, key: jax.Array, env: Any, physics: PyTree, shared: Shared) -> Local:
        optimizer = self.local_rule.init(shared.params) if self.optimizer_state == "keep" else ()
        corrections = tuple(c.init_local(shared.params) for c in self.corrections)
        statistics = self.objective.init_statistics(env) if self.personal else ()
        return Local(self.objective.init_local(key, env, physics, shared.params), statistics, optimizer, corrections)

    def broadcast(self, shared: Shared) -> Shared:
        return shared if self.optimizer_state == "average" else shared._replace(optimizer=())

    def update(
        self, key: jax.Array, env: Any, physics: PyTree, download: Shared, local: Local, work: jax.Array | None
    ) -> tuple[Local, Envelope, Metrics]:
        if work is not None:
            self._check_work()
        start = {
            "reset": lambda: self.local_rule.init(download.params),
            "keep": lambda: local.optimizer,
            "average": lambda: download.optimizer,
        }
        optimizer = () if self.upload == "gradient" else start[self.optimizer_state]()
        memories = tuple(
            c.begin(download.params, shared, own)
            for c, shared, own in zip(self.corrections, download.corrections, local.corrections, strict=True)
        )
        known = local.statistics if self.personal else download.statistics
        training = _Training(download.params, known, optimizer, local.objective, memories)

        def local_step(training: _Training, step: Any) -> tuple[_Training, PyTree]:
            after, report = self._local_step(jax.random.fold_in(key, step), env, physics, download, training)
            if work is not None:
                after, report = tree.where(step < work, (after, report), (training, tree.zeros_like(report)))
            return after, report

        if self.num_local_steps == 1:  # without a loop the parameters stay shared between agents while they play
            training, report = local_step(training, 0)
        else:
            training, reports = jax.lax.scan(local_step, tree.strong(training), jnp.arange(self.num_local_steps))
            report = jax.tree.map(lambda x: jnp.sum(x, 0), reports)
        found, num_samples, num_steps, metrics = report
        variance = jnp.nan
        if self.upload == "gradient":
            moved, spread = found
            taken = jnp.maximum(num_steps, 1)
            if self.num_local_steps > 1:
                moved = tree.scale(1 / taken, moved)
            if self.measure_variance:
                variance = spread / taken**2
                metrics["gradient_variance"] = as_metric(variance)
        else:
            moved = tree.subtract(tree.pack(training.params), tree.pack(download.params)).unpack()
            metrics["drift"] = Mean(tree.norm(moved), jnp.ones(()))
        averaged = self.optimizer_state == "average"
        kept, extras = [], []
        for c, memory, shared in zip(self.corrections, training.corrections, download.corrections, strict=True):
            own, moved, extra = c.message(memory, shared, moved, num_steps)
            kept.append(own)
            extras.append(extra)
        optimizer = _difference(training.optimizer, download.optimizer) if averaged else ()
        added = () if self.personal else tree.subtract(training.statistics, known)
        payload = Message(moved, added, optimizer, tuple(extras))
        new_local = Local(
            training.objective,
            training.statistics if self.personal else (),
            training.optimizer if self.optimizer_state == "keep" else (),
            tuple(kept),
        )
        weights = {"samples": num_samples, "steps": num_steps, "uniform": 1.0}
        weight = weights[self.weight]
        if self.upload == "gradient" and work is not None:  # who has taken no gradient has none to send
            weight = jnp.where(num_steps > 0, weight, 0)
        ended = metrics.get("train_return_mean")
        envelope = seal(
            payload, weight=weight, num_steps=num_steps, num_samples=num_samples, variance=variance,
            returns=ended.total / ended.count if isinstance(ended, Mean) else jnp.nan,
        )  # fmt: skip
        return new_local, envelope, metrics

    def settle(self, before: Local, after: Local, delivered: jax.Array) -> Local:
        corrections = [
            c.settle(b, a, delivered)
            for c, b, a in zip(self.corrections, before.corrections, after.corrections, strict=True)
        ]
        return after._replace(corrections=tuple(corrections))

    def merge(self, key: jax.Array, env: Any, shared: Shared, message: Message, received: Received) -> Shared:
        moved, optimizer = message.params, shared.optimizer
        merging = Merging(shared.params, received, self.num_steps, self.learning_rate)
        corrections = []
        for c, own, extra in zip(self.corrections, shared.corrections, message.corrections, strict=True):
            own, moved = c.merge(own, extra, moved, merging)
            corrections.append(own)
        if self.upload == "gradient":
            moved, optimizer = self.optimizer.build().update(moved, optimizer, shared.params)
        elif self.optimizer_state == "average":
            optimizer = _moved(optimizer, message.optimizer, self.num_steps)
        params = optax.apply_updates(shared.params, moved)
        return Shared(params, tree.add(shared.statistics, message.statistics), optimizer, tuple(corrections))

    def policy(self, shared: Shared, local: Local) -> PyTree:
        return self.objective.complete(shared.params, local.statistics if self.personal else shared.statistics)

    def parts(self, params: PyTree) -> PyTree:
        """The name of the part that every leaf belongs to."""
        return self.objective.parts(params)

    @property
    def num_steps(self) -> int:
        """Gradient steps of a whole round of an agent."""
        return self.num_local_steps * self.num_epochs * self.num_minibatches

    @property
    def local_rule(self) -> optax.GradientTransformation:
        """What an agent steps by; moments that travel keep the shape of the model, for transforms that look at it."""
        return self.optimizer.build(flat=self.optimizer_state != "average")

    @property
    def learning_rate(self) -> Any:
        """eta where a local step is theta - eta g; None with any other optimiser."""
        numbers, settings = self.optimizer.hyperparameters, self.optimizer.settings
        plain = self.optimizer.factory is optax.sgd and set(numbers) == {"learning_rate"} and not settings
        return numbers["learning_rate"] if plain else None

    # ------------------------------------------------------------ parts

    def _check_work(self) -> None:
        """Raises where agents that take fewer steps than others would spoil what the server keeps."""
        names = [type(c).__name__ for c in self.corrections if c.needs_all_steps]
        names += ["optimizer_state='average'"] if self.optimizer_state == "average" else []
        if names:
            raise ValueError(
                f"participation must let every agent take all its local steps with {', '.join(names)}; use "
                "normalized_averaging, proximal or control_variates where work differs"
            )

    def _local_step(
        self, key: jax.Array, env: Any, physics: PyTree, download: Shared, training: _Training
    ) -> tuple[_Training, PyTree]:
        """Collects once, then descends."""
        k_collect, k_fit, k_behaviour = jax.random.split(key, 3)
        behaviour = training.params
        for i, (c, own, shared) in enumerate(
            zip(self.corrections, training.corrections, download.corrections, strict=True)
        ):
            behaviour = c.behaviour(jax.random.fold_in(k_behaviour, i), behaviour, download.params, shared, own)
        acting = self.objective.complete(behaviour, training.statistics)
        collected = self.objective.collect(k_collect, env, physics, acting, training.objective)
        statistics = tree.add(training.statistics, collected.statistics)
        training = training._replace(objective=collected.state)
        group = _agents_per_gradient(collected.batch, training.params, self.num_minibatches)
        fit = few_agents_at_a_time(_fit, group)
        (params, optimizer, corrections), gradient, report = fit(
            self, k_fit, training, download.params, behaviour, download.corrections, collected.batch
        )
        params, report = params.unpack(), report.unpack()
        corrections = tuple(
            c.after_step(params, download.params, memory, self.objective, collected.batch)
            for c, memory in zip(self.corrections, corrections, strict=True)
        )
        objective = self.objective.after_step(params, collected.state, collected.batch)
        metrics = {name: as_metric(value) for name, value in collected.metrics.items()} | report
        if self.measure_kl:
            there, mask = self.objective.distribution(download.params, collected.batch)
            here, _ = self.objective.distribution(params, collected.batch)
            metrics["kl_to_global"] = as_metric(masked_mean(there.kl(here), mask))
        num_steps = jnp.int32(self.num_epochs * self.num_minibatches)
        return (
            _Training(params, statistics, optimizer, objective, corrections),
            (gradient, collected.num_samples, num_steps, metrics),
        )


def _fit(
    learner: LocalTraining,
    key: jax.Array,
    training: _Training,
    anchor: PyTree,
    behaviour: PyTree,
    shared: PyTree,
    batch: PyTree,
) -> tuple[PyTree, PyTree, PyTree]:
    """Epochs x minibatches of gradient steps on one batch of one agent.

    Returns:
        (params, optimiser state, corrections' memories), the gradient where that is what is uploaded, metrics; params
        and metrics are packed.
    """
    size = jax.tree.leaves(batch)[0].shape[0]

    def gradient_step(carry: PyTree, key: jax.Array, rows: PyTree) -> tuple[PyTree, PyTree]:
        params, optimizer, memories = carry
        k_loss, k_correction = jax.random.split(key)

        def loss_at(params: PyTree, batch: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
            return learner.objective.loss(k_loss, params, training.objective, batch)

        def gradient_at(params: PyTree, batch: PyTree) -> tuple[PyTree, dict[str, jax.Array]]:
            blocks = learner.objective.by_block(batch) if learner.num_minibatches == 1 else None
            return jax.grad(loss_at, has_aux=True)(params, batch) if blocks is None else _sum(loss_at, params, *blocks)

        gradient, report = gradient_at(params, rows)
        memories = list(memories)
        for i, c in enumerate(learner.corrections):
            context = Context(
                learner.objective, training.objective, lambda p, b: loss_at(p, b)[0],
                lambda p, b: gradient_at(p, b)[0],
                params, anchor, behaviour, rows, shared[i], memories[i], learner.learning_rate,
            )  # fmt: skip
            gradient, memories[i] = c.gradient(jax.random.fold_in(k_correction, i), gradient, context)
        report = tree.pack({name: as_metric(value) for name, value in report.items()})
        if learner.upload == "gradient":
            spread = _variance(learner.objective, lambda p, b: loss_at(p, b)[0], params, rows, learner.measure_variance)
            return (params, optimizer, tuple(memories)), ((gradient, spread), report)
        updates, optimizer = learner.local_rule.update(gradient, optimizer, params)
        return (optax.apply_updates(params, updates), optimizer, tuple(memories)), ((), report)

    def epoch(carry: PyTree, epoch: jax.Array) -> tuple[PyTree, PyTree]:
        k_shuffle, k_step = jax.random.split(jax.random.fold_in(key, epoch))
        number = jnp.arange(learner.num_minibatches)

        def in_order(carry: PyTree, slot: PyTree) -> tuple[PyTree, PyTree]:
            index, rows = slot
            return gradient_step(carry, jax.random.fold_in(k_step, index), rows)

        if learner.objective.ordered:
            parts = jax.tree.map(lambda x: x.reshape(learner.num_minibatches, -1, *x.shape[1:]), batch)
            return jax.lax.scan(in_order, carry, (number, parts))

        def shuffled(carry: PyTree, slot: PyTree) -> tuple[PyTree, PyTree]:
            index, rows = slot
            return in_order(carry, (index, tree.take(batch, rows)))

        order = permutation(k_shuffle, size).reshape(learner.num_minibatches, -1)
        return jax.lax.scan(shuffled, carry, (number, order))

    def whole(carry: PyTree, epoch: jax.Array) -> tuple[PyTree, PyTree]:
        return gradient_step(carry, jax.random.fold_in(key, epoch), batch)

    carry = (training.params, training.optimizer, training.corrections)
    if learner.num_epochs == learner.num_minibatches == 1:
        (params, *rest), (gradient, report) = whole(carry, jnp.int32(0))
    else:
        one_epoch = whole if learner.num_minibatches == 1 else epoch
        (params, *rest), (gradient, report) = jax.lax.scan(
            one_epoch, tree.strong(carry), jnp.arange(learner.num_epochs)
        )
        steps = (0,) if learner.num_minibatches == 1 else (0, 1)
        report = jax.tree.map(lambda x: jnp.sum(x, steps), report)
    return (tree.pack(params), *rest), gradient, report


def _sum(
    loss_at: Callable[..., Any], params: PyTree, block: Callable[[jax.Array], PyTree], share: jax.Array
) -> tuple[PyTree, PyTree]:
    """sum_k share_k (gradient, report) of block k, up to the last block in which any agent has a share."""

    def add_block(number: jax.Array, total: PyTree) -> PyTree:
        part = jax.grad(loss_at, has_aux=True)(params, block(number))
        return tree.add(total, tree.scale(share[number], part))

    like = jax.eval_shape(lambda: jax.grad(loss_at, has_aux=True)(params, block(jnp.int32(0))))
    live = greatest(jnp.where(share > 0, jnp.arange(1, len(share) + 1), 0))
    return jax.lax.fori_loop(0, live, add_block, tree.zeros_like(like))


def _variance(objective: Objective, loss_at: Any, params: PyTree, batch: PyTree, measure: bool) -> Any:
    """E|g - E g|^2 of the gradient g = sum_e c_e of E independent trajectories: E / (E - 1) sum_e |c_e - mean c|^2."""
    if not measure:
        return ()
    pieces, share = objective.by_trajectory(batch)
    terms = jax.vmap(lambda piece, s: tree.scale(s, jax.grad(loss_at)(params, piece)))(pieces, share)
    num = share.shape[0]
    spread = sum(jnp.sum(jnp.square(x - jnp.mean(x, 0, keepdims=True))) for x in jax.tree.leaves(terms))
    return num / (num - 1) * spread


def _agents_per_gradient(batch: PyTree, params: PyTree, num_minibatches: int) -> int:
    """Agents whose gradients are taken together.

    One, where an agent has enough rows to fill the matrix units by itself: a batch of matrix products is slower than
    one product after the other. With fewer rows, as many as keep one hidden layer's activations near 1.5 MB.
    """
    rows = max(x.size // x.shape[-1] if x.ndim > 1 else x.size for x in jax.tree.leaves(batch))
    rows = max(1, rows // num_minibatches)
    if rows >= 128:
        return 1
    width = max((x.shape[-1] for x in jax.tree.leaves(params) if x.ndim), default=1)
    return max(1, int(1.5e6 / (4 * rows * width)))


def _difference(new: PyTree, old: PyTree) -> PyTree:
    """new - old of the moments. Step counters do not travel: everybody knows how many steps a round has."""

    def subtract(x: jax.Array, y: jax.Array) -> jax.Array | None:
        return x - y if jnp.issubdtype(x.dtype, jnp.inexact) else None

    return jax.tree.map(subtract, new, old)


def _moved(old: PyTree, difference: PyTree, num_steps: int) -> PyTree:
    """old + difference; counters count the steps of a whole round."""

    def move(d: jax.Array | None, x: jax.Array) -> jax.Array:
        return x + jnp.asarray(num_steps, x.dtype) if d is None else x + d

    return jax.tree.map(move, difference, old, is_leaf=lambda d: d is None)


def local_training(
    objective: Objective,
    optimizer: Optimizer | optax.GradientTransformation,
    *,
    num_local_steps: int = 1,
    num_epochs: int = 1,
    num_minibatches: int = 1,
    corrections: tuple[Correction, ...] = (),
    upload: str = "delta",
    weight: str = "samples",
    optimizer_state: str = "reset",
    statistics: str = "federated",
    measure_kl: bool = False,
    measure_variance: bool = False,
) -> LocalTraining:
    """The gradient learner: FedAvg with any objective, optimiser and corrections.

    A local step collects once and then takes epochs x minibatches gradient steps. FedAvg is upload="delta": the
    meeting place adds the average of theta_k - theta. FedSGD is upload="gradient": agents upload the mean of
    `num_local_steps` gradients, all taken at the model they downloaded, and the optimiser steps at the meeting place.

    Args:
        objective: the local RL algorithm, such as `ppo(policy)`.
        optimizer: `optimizer(optax.adam, learning_rate=1e-3)`, or `optax.adam(1e-3)` itself.
        num_local_steps: collects per round.
        num_epochs: passes over a batch.
        num_minibatches: parts of a pass; must divide the rows of a batch: num_envs x num_steps, or num_envs with a
            policy that has a memory, or batch_size with a replay.
        corrections: what changes the local gradient, in order, such as `(proximal(0.1),)`.
        upload: "delta" or "gradient".
        weight: "samples" weighs a message by its environment steps (in CartPole these grow with the return, so it
            favours agents that are already good), "steps" by its gradient steps; "uniform" weighs all alike. With
            upload="gradient" an agent whose work was no gradient at all sends nothing.
        optimizer_state: "reset" every round, "keep" with the agent (also where its message is lost: it has taken the
            steps), or "average" with the parameters.
        statistics: running sums of the objective (a normalising policy's moments): "federated" adds up what all agents
            saw, as part of the message; "local" leaves each agent its own, and agents then act differently.
        measure_kl: report `kl_to_global`, mean_s KL(pi_downloaded || pi_trained) after each local step; costs two
            evaluations of the policy.
        measure_variance: estimate the variance of the uploaded gradient from those of single trajectories, or of single
            environments where episodes go on; for lazy uploads and weights. Costs another gradient, and the memory of
            one gradient per trajectory. Reported as `gradient_variance`.

    Raises:
        ValueError: a value is wrong, or the options exclude each other.

    Reference: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS
        2017, algorithm 1 (FedAvg and FedSGD).
    """
    if not isinstance(objective, Objective):
        raise ValueError(f"objective must be an Objective, got {objective!r}; for example ppo(mlp_policy(family.env))")
    counts = {"num_local_steps": num_local_steps, "num_epochs": num_epochs, "num_minibatches": num_minibatches}
    for name, count in counts.items():
        check_count(name, count)
    check_choice("upload", upload, ("delta", "gradient"))
    check_choice("weight", weight, ("samples", "steps", "uniform"))
    check_choice("optimizer_state", optimizer_state, ("reset", "keep", "average"))
    check_choice("statistics", statistics, ("federated", "local"))
    for name, flag in {"measure_kl": measure_kl, "measure_variance": measure_variance}.items():
        check_flag(name, flag)
    if not isinstance(corrections, tuple | list):
        raise ValueError(f"corrections must be a tuple of corrections, got {corrections!r}; write (correction,)")
    for i, c in enumerate(corrections):
        if not isinstance(c, Correction):
            raise ValueError(f"corrections[{i}] must be a Correction, got {c!r}; for example proximal(0.1)")
    training = LocalTraining(
        objective, as_optimizer(optimizer), tuple(corrections), num_local_steps, num_epochs, num_minibatches,
        upload, weight, optimizer_state, statistics, measure_kl, measure_variance,
    )  # fmt: skip
    _check_together(training)
    return training


def _check_together(training: LocalTraining) -> None:
    """Raises where options exclude each other."""
    objective = training.objective
    if training.measure_kl and not objective.has_distribution:
        raise ValueError(f"measure_kl must be False for {type(objective).__name__}, which has no action distribution")
    if training.measure_variance:
        _check_variance(training)
    if training.upload == "gradient":
        if training.num_epochs * training.num_minibatches != 1:
            raise ValueError(
                f"upload='gradient' takes one gradient per local step, got num_epochs={training.num_epochs}, "
                f"num_minibatches={training.num_minibatches}; set them to 1 or use upload='delta'"
            )
        if training.optimizer_state != "reset":
            raise ValueError(
                f"optimizer_state must be 'reset' with upload='gradient', got {training.optimizer_state!r}: "
                "the optimiser lives at the meeting place and keeps its state there"
            )
    if objective.batch_size is not None and objective.batch_size % training.num_minibatches:
        raise ValueError(
            f"num_minibatches must divide the {objective.batch_size} rows of a batch (steps; environments with a "
            f"memory), got {training.num_minibatches}"
        )
    reading = [type(c).__name__ for c in training.corrections if c.reads_movement]
    if len(reading) > 1:
        raise ValueError(f"corrections must not have more than one that reads the movement, got {', '.join(reading)}")
    for correction in training.corrections:
        correction.check(training)


def _check_variance(training: LocalTraining) -> None:
    """Raises where the variance of a message cannot be estimated."""
    if training.upload != "gradient":
        raise ValueError(f"upload must be 'gradient' with measure_variance=True, got {training.upload!r}")
    if training.corrections:
        names = ", ".join(type(c).__name__ for c in training.corrections)
        raise ValueError(f"corrections must be empty with measure_variance=True, got {names}: they change what varies")
    if (training.objective.num_trajectories or 0) < 2:
        raise ValueError(
            f"objective must collect at least two trajectories with measure_variance=True, got "
            f"{type(training.objective).__name__} with {training.objective.num_trajectories}; raise num_envs"
        )
