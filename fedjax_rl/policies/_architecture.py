"""From a description back to the policy."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..core import check_choice
from ._box_policy import BoxPolicy, validated_box
from ._policy import MLPPolicy, Policy, validated_mlp
from ._q_policy import QPolicy, validated_q


_KINDS: dict[str, tuple[type[Any], Callable[[Mapping[str, Any]], Policy]]] = {
    "mlp": (MLPPolicy, validated_mlp),
    "q": (QPolicy, validated_q),
    "box": (BoxPolicy, validated_box),
}


def policy_from_architecture(architecture: Mapping[str, Any]) -> Policy:
    """The policy that `Policy.architecture` described.

    Raises:
        ValueError: the description is of an unknown kind, has unknown or missing entries, or a wrong value.
    """
    fields = dict(architecture)
    kind = fields.pop("kind", None)
    check_choice("architecture['kind']", kind, tuple(_KINDS))
    policy, validated = _KINDS[str(kind)]
    known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(policy)}
    if unknown := fields.keys() - known.keys():
        raise ValueError(f"architecture has the unknown entries {sorted(unknown)}; known are {sorted(known)}")
    if missing := {name for name, required in known.items() if required} - fields.keys():
        raise ValueError(f"architecture lacks the entries {sorted(missing)}")
    return validated(fields)
