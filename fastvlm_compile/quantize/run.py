"""Quantizes a checkpoint: one tensor, or one decoder layer with its inputs, in memory at a time.

Tensors are taken in the order in which they are computed with: vision tower, projector, embedding,
decoder layers, head. Where inputs are gathered, each part sees what those before it give when they
are quantized. An embedding that is also the head comes last, judged by the head's inputs.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fastvlm_compile.checkpoint.describe import digest_tensors
from fastvlm_compile.progress import Progress, silent
from fastvlm_compile.quantize.bench import Bench
from fastvlm_compile.quantize.calibration import Calibration
from fastvlm_compile.quantize.choice import Choice, uses_inputs
from fastvlm_compile.quantize.layers import kept_inputs, quantize_decoder
from fastvlm_compile.quantize.ledger import Ledger
from fastvlm_compile.quantize.methods import ChoiceError, check_choice, is_observed
from fastvlm_compile.quantize.prompt_embeds import prompt_embeds
from fastvlm_compile.quantize.weights_file import QuantizedWeights, open_quantized
from reference.checkpoint.names import LM_HEAD, VISION_PREFIX
from reference.errors import CheckpointError
from reference.kept import NOTHING_KEPT, Kept

if TYPE_CHECKING:
    from reference.checkpoint.tensors import Checkpoint


@torch.inference_mode()
def quantize_checkpoint(
    checkpoint: "Checkpoint",
    choices: Mapping[str, Choice],
    calibration: Calibration | None,
    out: Path,
    progress: Progress,
    *,
    kept: Kept = NOTHING_KEPT,
) -> QuantizedWeights:
    """Quantize the chosen tensors of a checkpoint into the directory of `weights_file`.

    What an interrupted run left is taken as far as it was made from the same tensors, choices and
    calibration inputs: tensors in `out`, or what it kept. Inputs of linear layers are gathered only
    if a choice asks for them (`choice.uses_inputs`); then `search` weighs by them, too.

    Args:
        checkpoint: its tensors are memory-mapped and read one at a time.
        choices: by canonical name. One for `lm_head.weight` does not count where the head is the
            embedding, which is quantized once, by its own choice.
        calibration: None if no choice asks for inputs.
        out: an empty directory, or one that an interrupted run left.
        progress: told of every tensor, and of images and layers in between.
        kept: the tensors that are finished, and what the next layer is given.

    Raises:
        ChoiceError, SchemeError: a tensor cannot be quantized as chosen; nothing was written.
        CheckpointError: a choice names a tensor that the checkpoint does not have.
        UserError: a method refuses the values of a tensor.
    """
    chosen = _checked(checkpoint, choices)
    observed = _observed(checkpoint, chosen, calibration)
    ledger = Ledger(kept.workplace(out))
    bench = Bench(
        checkpoint,
        choices=chosen,
        observed=observed,
        ledger=ledger,
        contexts=_contexts(checkpoint, chosen, observed, calibration),
        progress=progress,
    )
    for name in chosen:
        if name.startswith(VISION_PREFIX):
            bench.quantize(name)
    if calibration is not None and bench.pending():
        given = kept_inputs(bench, kept)
        if given is None:
            given = 0, prompt_embeds(bench, calibration, kept)
        quantize_decoder(bench, *given, kept)
    for name in chosen:
        bench.quantize(name)
    ledger.finish(out)
    bench.tell("done")
    return open_quantized(out)


def _checked(checkpoint: "Checkpoint", choices: Mapping[str, Choice]) -> dict[str, Choice]:
    """What will be done, in the checkpoint's order."""
    unknown = sorted(choices.keys() - checkpoint.tensors.keys())
    if unknown:
        raise CheckpointError(
            f"{checkpoint.path}: there is no tensor {', '.join(unknown[:5])} to quantize"
        )
    chosen = {name: choices[name] for name in checkpoint.tensors if name in choices}
    if checkpoint.tied:
        chosen.pop(LM_HEAD, None)  # a file may hold the shared tensor twice
    for name, choice in chosen.items():
        check_choice(name, checkpoint.tensors[name].shape, choice)
    return chosen


def _observed(
    checkpoint: "Checkpoint", chosen: Mapping[str, Choice], calibration: Calibration | None
) -> frozenset[str]:
    """The tensors whose inputs will be gathered: all that can be, or none."""
    if calibration is None:
        for name, choice in chosen.items():
            if choice.method == "gptq":
                raise ChoiceError(
                    f"{name}: gptq needs calibration inputs, and none are given",
                    hint="give them, or choose the method search",
                )
        return frozenset()
    shapes = {name: checkpoint.tensors[name].shape for name in chosen}
    seen = [name for name in chosen if is_observed(name, shapes[name], tied=checkpoint.tied)]
    return frozenset(seen) if any(uses_inputs(chosen[name]) for name in seen) else frozenset()


def _contexts(
    checkpoint: "Checkpoint",
    chosen: Mapping[str, Choice],
    observed: frozenset[str],
    calibration: Calibration | None,
) -> dict[str, str]:
    """What the codes of each tensor depend on beside its choice: a digest for each."""
    if calibration is None:
        return dict.fromkeys(chosen, digest_tensors(checkpoint, silent, chosen))
    alone = digest_tensors(checkpoint, silent)
    choices = sorted(chosen.items(), key=lambda item: item[0])
    everything = f"{alone} {choices!r} {calibration.digest}"
    stream = hashlib.sha256(everything.encode()).hexdigest()
    return {name: stream if name in observed else alone for name in chosen}
