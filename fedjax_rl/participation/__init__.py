"""Who acts, and when."""

from ..core import Everyone as Everyone
from ..core import everyone as everyone
from ._uniform_cohort import UniformCohort as UniformCohort
from ._uniform_cohort import sample_distinct as sample_distinct
from ._uniform_cohort import uniform_cohort as uniform_cohort
