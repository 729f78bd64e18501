"""Learners of finite MDPs and linear value functions, whose limits are known exactly."""

from ._federated_td import federated_td as federated_td
from ._federated_td import scafflsa as scafflsa
from ._pf_lsa import PFLSA as PFLSA
from ._pf_lsa import pf_lsa as pf_lsa
from ._sarsa import Sarsa as Sarsa
from ._sarsa import sarsa as sarsa
from ._td import TD as TD
from ._td import TDState as TDState
from ._td import td as td
