"""Networks and action distributions; they know no algorithm."""

from ._architecture import policy_from_architecture as policy_from_architecture
from ._distributions import Categorical as Categorical
from ._distributions import DiagonalGaussian as DiagonalGaussian
from ._distributions import Distribution as Distribution
from ._distributions import SquashedGaussian as SquashedGaussian
from ._gru import gru_step as gru_step
from ._gru import gru_unroll as gru_unroll
from ._gru_policy import GRUPolicy as GRUPolicy
from ._gru_policy import gru_policy as gru_policy
from ._mlp import ACTIVATIONS as ACTIVATIONS
from ._mlp import dense_stack as dense_stack
from ._networks import ActorCritic as ActorCritic
from ._policy import Memory as Memory
from ._policy import MLPPolicy as MLPPolicy
from ._policy import NetworkPolicy as NetworkPolicy
from ._policy import Policy as Policy
from ._policy import mlp_policy as mlp_policy
