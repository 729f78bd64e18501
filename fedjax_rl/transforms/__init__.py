"""What happens to a message on its way."""

from ._clip import Clip as Clip
from ._clip import clip as clip
from ._erasure import Erasure as Erasure
from ._erasure import erasure as erasure
from ._from_optax import FromOptax as FromOptax
from ._from_optax import from_optax as from_optax
from ._quantize import Quantize as Quantize
from ._quantize import quantize as quantize
