"""From a description back to the policy."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..core import check_choice
from ._box_policy import BoxPolicy, validated_box
from ._gru_policy import GRUPolicy
from ._mixture import MixturePolicy, mixture_policy
from ._normalized import NormalizedPolicy, normalized_policy
from ._policy import MLPPolicy, Policy, validated
from ._q_policy import QPolicy, validated_q


def _mixture(fields: Mapping[str, Any]) -> Policy:
    return mixture_policy(policy_from_architecture(fields["policy"]), fields["num_models"])


def _normalized(fields: Mapping[str, Any]) -> Policy:
    inside = policy_from_architecture(fields["inner"])
    return normalized_policy(inside, **{name: fields[name] for name in ("observations", "rewards", "limit")})


_KINDS: dict[str, tuple[type[Any], Callable[[Mapping[str, Any]], Policy]]] = {
    "mlp": (MLPPolicy, partial(validated, MLPPolicy)),
    "gru": (GRUPolicy, GRUPolicy.from_fields),
    "q": (QPolicy, validated_q),
    "box": (BoxPolicy, validated_box),
    "mixture": (MixturePolicy, _mixture),
    "normalized": (NormalizedPolicy, _normalized),
}


def policy_from_architecture(architecture: Mapping[str, Any]) -> Policy:
    """The policy that `Policy.architecture` described.

    Raises:
        ValueError: the description is of an unknown kind, has unknown or missing entries, or a wrong value.
    """
    fields = dict(architecture)
    kind = fields.pop("kind", None)
    check_choice("architecture['kind']", kind, tuple(_KINDS))
    policy, build = _KINDS[str(kind)]
    known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(policy)}
    if unknown := fields.keys() - known.keys():
        raise ValueError(f"architecture has the unknown entries {sorted(unknown)}; known are {sorted(known)}")
    if missing := {name for name, required in known.items() if required} - fields.keys():
        raise ValueError(f"architecture lacks the entries {sorted(missing)}")
    return build(fields)
