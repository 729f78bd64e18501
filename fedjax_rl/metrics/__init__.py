"""What is said about a run; functions of NumPy arrays, on the host."""

from ._intervals import bootstrap_interval as bootstrap_interval
from ._returns import SUCCESS_THRESHOLDS as SUCCESS_THRESHOLDS
from ._returns import return_statistics as return_statistics
from ._returns import rounds_to_threshold as rounds_to_threshold
