"""Many messages become one."""

from ._mean import Mean as Mean
from ._mean import mean as mean
from ._median import Median as Median
from ._median import median as median
from ._trimmed_mean import TrimmedMean as TrimmedMean
from ._trimmed_mean import trimmed_mean as trimmed_mean
