"""Which stages of several plans are one: the first build makes it, the others find it."""

import hashlib

from fastvlm_compile.key import canonical_json
from fastvlm_compile.stage import Plan
from fastvlm_compile.structure import to_plain


def origins(plan: Plan) -> dict[str, str]:
    """By source or stage, a digest of all that leads to it; alike where the store has one entry.

    Unlike a key it is known before anything is built. Sources count as alike by their folder.
    """
    found = {each.name: _digest(["source", str(each.path.resolve())]) for each in plan.sources}
    for stage in plan.stages:
        inputs = {role: found[name] for role, name in stage.inputs.items()}
        found[stage.name] = _digest([stage.name, stage.function, to_plain(stage.config), inputs])
    return found


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
