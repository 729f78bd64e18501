"""Where models live, and who meets whom."""

from ..core import Star as Star
from ..core import star as star
from ._gossip import Gossip as Gossip
from ._gossip import gossip as gossip
from ._graphs import Graph as Graph
from ._graphs import complete as complete
from ._graphs import erdos_renyi as erdos_renyi
from ._graphs import graph_from_matrix as graph_from_matrix
from ._graphs import ring as ring
from ._isolated import Isolated as Isolated
from ._isolated import isolated as isolated
