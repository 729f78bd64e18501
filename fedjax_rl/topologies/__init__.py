"""Where models live, and who meets whom."""

from ..core import Star as Star
from ..core import star as star
from ._isolated import Isolated as Isolated
from ._isolated import isolated as isolated
