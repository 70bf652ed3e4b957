"""Sensitivities and mixed policies on disk: what was measured, what was chosen, what it costs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.scheme import SchemeError
from fastvlm_compile.quantize.scheme_json import scheme_from_json, scheme_to_json
from reference.errors import UserError

if TYPE_CHECKING:
    from fastvlm_compile.quantize.mixed import MixedPolicy
    from fastvlm_compile.quantize.sensitivity import Sensitivities, Sensitivity

POLICY = "policy.json"
SENSITIVITIES = "sensitivities.json"
SCHEMA = 1

T = TypeVar("T")


def write_sensitivities(folder: Path, sensitivities: "Sensitivities") -> None:
    """Write `sensitivities.json`."""
    tensors = {name: _measured(each) for name, each in sorted(sensitivities.items())}
    _write(folder / SENSITIVITIES, {"tensors": tensors})


def read_sensitivities(folder: Path) -> "Sensitivities":
    """What `write_sensitivities` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    from fastvlm_compile.quantize.sensitivity import Candidate, Sensitivity

    def parse(content: dict[str, Any]) -> "Sensitivities":
        return {
            str(name): Sensitivity(
                shape=tuple(int(size) for size in each["shape"]),
                candidates=tuple(
                    Candidate(scheme=scheme_from_json(c["scheme"]), kl_mean=float(c["kl_mean"]))
                    for c in each["candidates"]
                ),
            )
            for name, each in content["tensors"].items()
        }

    return _read(folder / SENSITIVITIES, parse)


def write_policy(folder: Path, policy: "MixedPolicy") -> None:
    """Write `policy.json`."""
    tensors = {
        name: {
            "scheme": scheme_to_json(choice.scheme),
            "method": choice.method,
            **_measured(policy.sensitivities[name]),
        }
        for name, choice in sorted(policy.choices.items())
    }
    content = {
        "bits_per_weight": policy.bits_per_weight,
        "predicted_kl": policy.predicted_kl,
        "measured_kl": policy.measured_kl,
        "tensors": tensors,
    }
    _write(folder / POLICY, content)


def read_choices(folder: Path) -> dict[str, Choice]:
    """What `policy.json` chose, by canonical name.

    Raises:
        UserError: it is missing or damaged.
    """

    def parse(content: dict[str, Any]) -> dict[str, Choice]:
        return {
            str(name): Choice(scheme=scheme_from_json(each["scheme"]), method=each["method"])
            for name, each in content["tensors"].items()
        }

    return _read(folder / POLICY, parse)


def _measured(sensitivity: "Sensitivity") -> dict[str, object]:
    return {
        "shape": list(sensitivity.shape),
        "candidates": [
            {"scheme": scheme_to_json(each.scheme), "kl_mean": each.kl_mean}
            for each in sensitivity.candidates
        ],
    }


def _write(path: Path, content: dict[str, object]) -> None:
    text = json.dumps({"schema": SCHEMA, **content}, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")


def _read(path: Path, parse: Callable[[dict[str, Any]], T]) -> T:
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SchemeError) as error:
        raise UserError(
            f"{path}: damaged: {error!r}", hint="build again: the stage makes it anew"
        ) from None
