"""Learners of finite MDPs and linear value functions, whose limits are known exactly."""

from ._fed_q import FedQ as FedQ
from ._fed_q import fed_q as fed_q
from ._fed_ucbvi import FedUCBVI as FedUCBVI
from ._fed_ucbvi import fed_ucbvi as fed_ucbvi
from ._federated_q import federated_q as federated_q
from ._federated_q import qavg as qavg
from ._federated_td import federated_td as federated_td
from ._federated_td import scafflsa as scafflsa
from ._importance_averaging import ImportanceAveraging as ImportanceAveraging
from ._importance_averaging import importance_averaging as importance_averaging
from ._policy_ascent import PolicyAscent as PolicyAscent
from ._policy_ascent import policy_ascent as policy_ascent
from ._policy_ascent import projected_sgd as projected_sgd
from ._policy_averaging import proj_pavg as proj_pavg
from ._policy_averaging import soft_pavg as soft_pavg
from ._q_learning import QLearning as QLearning
from ._q_learning import q_learning as q_learning
from ._td import TD as TD
from ._td import TDState as TDState
from ._td import td as td
