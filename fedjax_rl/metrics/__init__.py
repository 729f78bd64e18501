"""What is said about a run; functions of NumPy arrays, on the host."""

from ._intervals import Estimate as Estimate
from ._intervals import bootstrap_interval as bootstrap_interval
from ._intervals import interquartile_mean as interquartile_mean
from ._intervals import interquartile_mean_interval as interquartile_mean_interval
from ._intervals import paired_difference as paired_difference
from ._intervals import ratio_of_means as ratio_of_means
from ._intervals import unpaired_difference as unpaired_difference
from ._regret import cumulative_regret as cumulative_regret
from ._regret import social_regret as social_regret
from ._returns import SUCCESS_THRESHOLDS as SUCCESS_THRESHOLDS
from ._returns import return_statistics as return_statistics
from ._returns import rounds_to_threshold as rounds_to_threshold
from ._slopes import Slope as Slope
from ._slopes import log_log_slope as log_log_slope
from ._thresholds import TimeToThreshold as TimeToThreshold
from ._thresholds import quantile_interval as quantile_interval
from ._thresholds import share_interval as share_interval
from ._thresholds import threshold_statistics as threshold_statistics
from ._thresholds import time_to_threshold as time_to_threshold
