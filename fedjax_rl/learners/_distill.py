"""One network learns what another policy does."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..core import check_count, tree
from ..policies import NormalizedPolicy, Policy
from ._optimizer import Optimizer, as_optimizer


PyTree = Any


class Distilled(NamedTuple):
    """What distillation returns."""

    params: PyTree  # the student's
    loss: jax.Array  # f32[num_steps]


def distill(
    key: jax.Array,
    teacher: Policy,
    teacher_params: PyTree,
    student: Policy,
    student_params: PyTree,
    observations: jax.Array,
    optimizer: Optimizer | optax.GradientTransformation,
    *,
    num_steps: int = 500,
    batch_size: int = 256,
) -> Distilled:
    r"""Trains a student to act like a teacher, for example like the mixture of all agents' policies.

    Descends -E_{s, a ~ teacher}[log pi_student(a|s)] + E_s[(V_student - V_teacher)^2] / 2, whose first term is
    KL(teacher || student) up to a constant; with finite actions it is that divergence itself. Jit it, or call it as is.

    Args:
        key: of batches and of the teacher's actions.
        teacher: the policy to imitate, such as `mixture_policy(policy, K)`.
        teacher_params: its parameters.
        student: the policy that learns.
        student_params: where it starts; the mean of the agents' parameters is a good place.
        observations: `f32[S, d]` states that matter, such as those of the agents' last rollouts.
        optimizer: of the student.
        num_steps: gradient steps.
        batch_size: states per step, drawn with replacement.

    Reference: Lin et al., "Ensemble distillation for robust model fusion in federated learning", NeurIPS 2020.
    """
    check_count("num_steps", num_steps)
    check_count("batch_size", batch_size)
    if observations.ndim < 2 or observations.shape[0] == 0:
        raise ValueError(f"observations must be [S, d] with S >= 1, got shape {observations.shape}")
    rule = as_optimizer(optimizer).build()

    normalizes = isinstance(student, NormalizedPolicy)  # what it has seen is counted, not trained

    def whole(trained: PyTree) -> PyTree:
        return {**student_params, "network": trained} if normalizes else trained

    def loss(trained: PyTree, key: jax.Array, rows: jax.Array) -> jax.Array:
        wanted, wanted_value = teacher.apply(teacher_params, rows)
        found, value = student.apply(whole(trained), rows)
        try:
            apart = jnp.mean(wanted.kl(found))
        except NotImplementedError:  # a mixture of densities has no divergence: by its own actions
            action = jax.lax.stop_gradient(wanted.sample(teacher.noise(key, rows.shape[:1])))
            apart = -jnp.mean(found.log_prob(action))
        return apart + jnp.mean(jnp.square(value - wanted_value)) / 2

    def step(carry: tuple[PyTree, PyTree], number: jax.Array) -> tuple[tuple[PyTree, PyTree], jax.Array]:
        params, moments = carry
        k_rows, k_action = jax.random.split(jax.random.fold_in(key, number))
        rows = observations[jax.random.randint(k_rows, (batch_size,), 0, observations.shape[0])]
        value, gradient = jax.value_and_grad(loss)(params, k_action, rows)
        updates, moments = rule.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    trained = student_params["network"] if normalizes else student_params
    start = tree.strong((trained, rule.init(trained)))
    (params, _), losses = jax.lax.scan(step, start, jnp.arange(num_steps))
    return Distilled(whole(params), losses)
