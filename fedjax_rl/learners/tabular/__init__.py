"""Learners of finite MDPs and linear value functions, whose limits are known exactly."""

from ._fed_q import FedQ as FedQ
from ._fed_q import fed_q as fed_q
from ._fed_ucbvi import FedUCBVI as FedUCBVI
from ._fed_ucbvi import fed_ucbvi as fed_ucbvi
