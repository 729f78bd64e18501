"""Networks and action distributions; they know no algorithm."""

from ._distributions import Categorical as Categorical
from ._distributions import DiagonalGaussian as DiagonalGaussian
from ._distributions import Distribution as Distribution
from ._distributions import SquashedGaussian as SquashedGaussian
from ._mlp import ACTIVATIONS as ACTIVATIONS
from ._mlp import dense_stack as dense_stack
from ._networks import ActorCritic as ActorCritic
from ._policy import MLPPolicy as MLPPolicy
from ._policy import Policy as Policy
from ._policy import mlp_policy as mlp_policy
from ._policy import policy_from_architecture as policy_from_architecture
