"""A mixed policy on disk: what was measured, what was chosen, what it was expected to cost."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.scheme import SchemeError
from fastvlm_compile.quantize.scheme_json import scheme_from_json, scheme_to_json
from reference.errors import UserError

if TYPE_CHECKING:
    from fastvlm_compile.quantize.mixed import MixedPolicy

POLICY = "policy.json"
SCHEMA = 1


def write_policy(folder: Path, policy: "MixedPolicy") -> None:
    """Write `policy.json`."""
    tensors = {
        name: {
            "scheme": scheme_to_json(choice.scheme),
            "method": choice.method,
            "candidates": [
                {
                    "scheme": scheme_to_json(each.scheme),
                    "kl_mean": each.kl_mean,
                    "size_bytes": each.size_bytes,
                }
                for each in policy.sensitivities[name]
            ],
        }
        for name, choice in sorted(policy.choices.items())
    }
    content = {
        "schema": SCHEMA,
        "bits_per_weight": policy.bits_per_weight,
        "predicted_kl": policy.predicted_kl,
        "measured_kl": policy.measured_kl,
        "tensors": tensors,
    }
    (folder / POLICY).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_choices(folder: Path) -> dict[str, Choice]:
    """What `policy.json` chose, by canonical name.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / POLICY
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): Choice(scheme=scheme_from_json(each["scheme"]), method=each["method"])
            for name, each in content["tensors"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SchemeError) as error:
        raise UserError(
            f"{path}: not a policy: {error!r}", hint="build again: the stage makes it anew"
        ) from None
