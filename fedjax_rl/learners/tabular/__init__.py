"""Learners of finite MDPs and linear value functions, whose limits are known exactly."""

from ._federated_td import federated_td as federated_td
from ._federated_td import scafflsa as scafflsa
from ._td import TD as TD
from ._td import TDState as TDState
from ._td import td as td
