"""How one agent learns between two meetings, and how a meeting place digests what it uploads."""

from ._actor_critic import ActorCritic as ActorCritic
from ._actor_critic import actor_critic as actor_critic
from ._correction import Context as Context
from ._correction import Correction as Correction
from ._correction import Trained as Trained
from ._local_training import LocalTraining as LocalTraining
from ._local_training import local_training as local_training
from ._objective import Collected as Collected
from ._objective import Objective as Objective
from ._on_policy import Batch as Batch
from ._on_policy import OnPolicy as OnPolicy
from ._on_policy import Play as Play
from ._on_policy import agents_per_chunk as agents_per_chunk
from ._optimizer import Optimizer as Optimizer
from ._optimizer import optimizer as optimizer
from ._ppo import PPO as PPO
from ._ppo import ppo as ppo
from ._proximal import Proximal as Proximal
from ._proximal import proximal as proximal
from ._reinforce import Reinforce as Reinforce
from ._reinforce import reinforce as reinforce
from ._server_optimizer import ServerOptimizer as ServerOptimizer
from ._server_optimizer import server_optimizer as server_optimizer
