"""Learners of finite MDPs and linear value functions, whose limits are known exactly."""

from ._federated_td import federated_td as federated_td
from ._federated_td import scafflsa as scafflsa
from ._fedpg import b_rs_fedpg as b_rs_fedpg
from ._fedpg import rs_fedpg as rs_fedpg
from ._fedpg import s_fedpg as s_fedpg
from ._projection import Projection as Projection
from ._projection import projection as projection
from ._softmax_policies import bits_probabilities as bits_probabilities
from ._softmax_policies import softmax_probabilities as softmax_probabilities
from ._softmax_policy_gradient import ExactPolicyGradient as ExactPolicyGradient
from ._softmax_policy_gradient import SampledPolicyGradient as SampledPolicyGradient
from ._softmax_policy_gradient import softmax_policy_gradient as softmax_policy_gradient
from ._td import TD as TD
from ._td import TDState as TDState
from ._td import td as td
from ._tracking_npg import TrackingNPG as TrackingNPG
from ._tracking_npg import tracking_npg as tracking_npg
