"""Stage `golden`: golden inputs and what the float32 reference makes of them."""

from collections.abc import Mapping
from pathlib import Path

from fastvlm_compile.progress import Progress
from reference.kept import NOTHING_KEPT, Kept
from validation.golden_plan import GoldenPlan


def golden(
    config: GoldenPlan,
    inputs: Mapping[str, Path],
    out: Path,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """Writes goldens (see `validation.goldens`).

    Args:
        config: what to keep.
        inputs: `weights`, a checkpoint in any layout, and `checkpoint`, the stage whose
            `processor/` holds the tokenizer.
        out: an empty directory.
        progress: told of every image, case and task question.
        kept: what was computed before a kill.
    """
    from reference.budget import RESIDENT_BYTES
    from reference.loading import load
    from reference.prompt import load_tokenizer
    from validation.golden_inputs import golden_inputs
    from validation.golden_run import run_reference

    inputs_to_run = golden_inputs(config)
    tokenizer = load_tokenizer(inputs["checkpoint"] / "processor")
    model = load(inputs["weights"], resident_bytes=RESIDENT_BYTES)
    run_reference(model, tokenizer, inputs_to_run, out, progress, kept=kept)
