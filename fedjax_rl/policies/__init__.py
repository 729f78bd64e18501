"""Networks and action distributions; they know no algorithm."""

from ._architecture import policy_from_architecture as policy_from_architecture
from ._box_policy import BoxPolicy as BoxPolicy
from ._box_policy import box_policy as box_policy
from ._box_policy import least as least
from ._deterministic import Deterministic as Deterministic
from ._distributions import Categorical as Categorical
from ._distributions import DiagonalGaussian as DiagonalGaussian
from ._distributions import Distribution as Distribution
from ._distributions import SquashedGaussian as SquashedGaussian
from ._mixture import Mixture as Mixture
from ._mixture import MixturePolicy as MixturePolicy
from ._mixture import mixture_policy as mixture_policy
from ._mlp import ACTIVATIONS as ACTIVATIONS
from ._mlp import dense_stack as dense_stack
from ._networks import ActorCritic as ActorCritic
from ._normalized import Moments as Moments
from ._normalized import NormalizedPolicy as NormalizedPolicy
from ._normalized import normalized_policy as normalized_policy
from ._networks import Perceptron as Perceptron
from ._policy import MLPPolicy as MLPPolicy
from ._policy import Policy as Policy
from ._policy import mlp_policy as mlp_policy
from ._q_policy import QPolicy as QPolicy
from ._q_policy import epsilon_greedy as epsilon_greedy
from ._q_policy import q_policy as q_policy
