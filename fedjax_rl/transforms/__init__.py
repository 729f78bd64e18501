"""What happens to a message on its way."""

from ._clip import Clip as Clip
from ._clip import clip as clip
from ._from_optax import FromOptax as FromOptax
from ._from_optax import from_optax as from_optax
