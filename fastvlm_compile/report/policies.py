"""What the search behind a variant `mixed` chose and expected, read from its `policy.json`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvlm_compile.plan_quantize import policy_of
from fastvlm_compile.quantize.policy_file import POLICY
from fastvlm_compile.quantize.scheme import SchemeError, describe
from fastvlm_compile.quantize.scheme_json import scheme_from_json
from fastvlm_compile.verdict import Artifact
from reference.errors import UserError
from validation.quantized_variants import QuantizedVariant


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One way in which tensors may be stored.

    Attributes:
        scheme: in words.
        num_tensors: for which it was chosen.
        predicted_kl: the sum of what each of these costs alone, nats a position.
        uniform_kl: the same sum over all tensors; NaN where it was not tried on every one.
    """

    scheme: str
    num_tensors: int
    predicted_kl: float
    uniform_kl: float


@dataclass(frozen=True, kw_only=True)
class PolicySummary:
    """A policy in short.

    Attributes:
        target, variant: that it was made for.
        quantization: under which the reference with these weights is measured.
        bits_per_weight: of the target's bytes over all its tensors.
        predicted_kl: sum over all tensors of what each costs alone, nats a position.
        measured_kl: all of them at once, on the same prompts and with the same rounding.
        stored: from small to large, those that nothing was chosen for as well.
    """

    target: str
    variant: str
    quantization: str
    bits_per_weight: float
    predicted_kl: float
    measured_kl: float
    stored: tuple[Stored, ...]


def policy_summaries(
    quantized: Sequence[QuantizedVariant], artifacts: Mapping[str, Artifact]
) -> tuple[PolicySummary, ...]:
    """The policies of a build, one for each `mixed`.

    Raises:
        UserError: a policy is missing or damaged.
    """
    return tuple(
        read_summary(artifacts[policy_of(each.target)].folder, each)
        for each in quantized
        if each.variant == "mixed"
    )


def read_summary(folder: Path, variant: QuantizedVariant) -> PolicySummary:
    """One policy in short.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / POLICY
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return PolicySummary(
            target=variant.target,
            variant=variant.variant,
            quantization=variant.quantization,
            bits_per_weight=float(content["bits_per_weight"]),
            predicted_kl=float(content["predicted_kl"]),
            measured_kl=float(content["measured_kl"]),
            stored=_stored(list(content["tensors"].values())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SchemeError) as error:
        raise UserError(
            f"{path}: not a policy: {error!r}", hint="build again: the stage makes it anew"
        ) from None


def _stored(tensors: Sequence[Mapping[str, Any]]) -> tuple[Stored, ...]:
    chosen = [describe(scheme_from_json(tensor["scheme"])) for tensor in tensors]
    losses = [
        {describe(scheme_from_json(c["scheme"])): float(c["kl_mean"]) for c in tensor["candidates"]}
        for tensor in tensors
    ]
    schemes = dict.fromkeys(scheme for each in losses for scheme in each)
    return tuple(
        Stored(
            scheme=scheme,
            num_tensors=chosen.count(scheme),
            predicted_kl=sum(
                each[name] for name, each in zip(chosen, losses, strict=True) if name == scheme
            ),
            uniform_kl=sum(each.get(scheme, math.nan) for each in losses),
        )
        for scheme in schemes
    )
