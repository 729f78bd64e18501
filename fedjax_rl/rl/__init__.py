"""Numerics on one agent's trajectory: playing, returns, advantages, losses, masks, running statistics."""

from ._branch import run_if_any as run_if_any
from ._losses import approximate_kl as approximate_kl
from ._losses import clipped_surrogate_loss as clipped_surrogate_loss
from ._losses import clipped_value_loss as clipped_value_loss
from ._losses import entropy_bonus as entropy_bonus
from ._losses import entropy_loss as entropy_loss
from ._losses import policy_gradient_loss as policy_gradient_loss
from ._losses import value_loss as value_loss
from ._masks import episode_mask as episode_mask
from ._masks import masked_mean as masked_mean
from ._masks import masked_std as masked_std
from ._masks import normalize as normalize
from ._returns import Advantages as Advantages
from ._returns import discounted_returns as discounted_returns
from ._returns import generalized_advantages as generalized_advantages
from ._returns import n_step_returns as n_step_returns
from ._rollout import Playable as Playable
from ._rollout import RolloutState as RolloutState
from ._rollout import Trajectory as Trajectory
from ._rollout import init_rollout as init_rollout
from ._rollout import rollout as rollout
from ._statistics import RunningStatistics as RunningStatistics
from ._statistics import running_statistics as running_statistics
from ._vtrace import VTrace as VTrace
from ._vtrace import importance_ratios as importance_ratios
from ._vtrace import vtrace as vtrace
