"""Policies from their descriptions."""

from collections.abc import Mapping
from typing import Any

from ..core import check_choice
from ._gru_policy import GRUPolicy
from ._policy import MLPPolicy, NetworkPolicy


_KINDS: dict[str, type[NetworkPolicy]] = {cls.kind: cls for cls in (MLPPolicy, GRUPolicy)}


def policy_from_architecture(architecture: Mapping[str, Any]) -> NetworkPolicy:
    """The policy that `Policy.architecture` described.

    Raises:
        ValueError: the description is of another kind, has unknown or missing entries, or a wrong value.
    """
    fields = dict(architecture)
    kind = fields.pop("kind", None)
    check_choice("architecture['kind']", kind, tuple(_KINDS))
    return _KINDS[str(kind)].from_fields(fields)
