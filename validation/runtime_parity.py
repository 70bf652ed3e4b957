"""Any runtime against the goldens, through the interface that all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reference.errors import UserError
from reference.kept import NOTHING_KEPT, Kept
from reference.prompt import PromptTokenizer
from validation.component_parity import measure_embed_tokens, measure_vision_encoder
from validation.decoder_parity import compare_rows
from validation.decoder_routes import Rows
from validation.end_to_end_parity import measure_generations, measure_task
from validation.goldens import Goldens, about_first_images
from validation.measurement import Measurement
from validation.progress import Progress, Steps
from validation.runtimes.base import Floats, Runtime
from validation.runtimes.checked import CheckedRuntime
from validation.runtimes.remembering import RememberingRuntime
from validation.tally import Tally
from validation.task import ALL_QUESTIONS
from validation.tensor_parity import Comparison, Tolerance, Where

COMPONENTS = ("vision_encoder", "embed_tokens", "decoder")


@dataclass(frozen=True, kw_only=True)
class RuntimeParity:
    """How a runtime is measured.

    Attributes:
        target, variant: under which the measurements are filed.
        tolerance: for the smallest passing tolerances.
        dequantized: what the reference with the same quantized weights returned; None where
            nothing is quantized.
        max_questions: of the goldens' task questions, the first so many.
        max_images: of the goldens' images, the first so many; None for all.
    """

    target: str
    variant: str
    tolerance: Tolerance
    dequantized: Goldens | None = None
    max_questions: int = ALL_QUESTIONS
    max_images: int | None = None


def measure_runtime(
    config: RuntimeParity,
    *,
    goldens: Goldens,
    runtime: Runtime,
    tokenizer: PromptTokenizer,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> tuple[Measurement, ...]:
    """Every component alone on golden inputs, then the whole from pixels to tokens.

    Components that fail give failed structural measurements. Where weights are quantized every
    component is measured once more as `<component>_conversion`, against the reference with the
    same quantized weights.

    Args:
        config: what is measured.
        goldens: what the reference returned.
        runtime: what is compared with it.
        tokenizer: turns answers into text.
        progress: told of every comparison.
        kept: the runtime's features of images and logits.

    Raises:
        GoldenError: the goldens are damaged.
    """
    goldens, dequantized = _fewer(config, goldens), config.dequantized
    if dequantized is not None:
        dequantized = _fewer(config, dequantized)
    index = goldens.index
    scenes = {question.scene_id for question in index.questions}
    references = [goldens] if dequantized is None else [goldens, dequantized]
    # An image's features are kept, so only the first reference waits for them.
    num_parts = len(references) * (len(index.image_ids) + 1) + len(index.cases)
    steps = Steps(progress, num_parts + len(index.cases) + len(scenes))
    comparison = Comparison(goldens=goldens, tolerance=config.tolerance, steps=steps)
    checked = CheckedRuntime(RememberingRuntime(runtime, kept), goldens.shape)
    tallies, features = _measure_components(config, comparison, references, checked)
    (whole,) = _tallies(config, runtime, ["end_to_end"])
    measure_generations(comparison, checked, whole, features)
    not_run = measure_task(
        comparison, checked, whole, tokenizer, max_questions=config.max_questions
    )
    steps.end()
    measured = [each for tally in (*tallies, whole) for each in tally.measurements()]
    return (*measured, *not_run)


def _fewer(config: RuntimeParity, goldens: Goldens) -> Goldens:
    return goldens if config.max_images is None else about_first_images(goldens, config.max_images)


def _tallies(config: RuntimeParity, runtime: Runtime, components: Sequence[str]) -> list[Tally]:
    return [
        Tally(
            target=config.target,
            variant=config.variant,
            component=name,
            executor=runtime.executor,
            executed_by_core_ml=runtime.executed_by_core_ml,
        )
        for name in components
    ]


def _measure_components(
    config: RuntimeParity,
    comparison: Comparison,
    references: Sequence[Goldens],
    runtime: Runtime,
) -> tuple[list[Tally], dict[str, Floats]]:
    """The tallies of all components and references, and the features by image id."""
    tallies: list[Tally] = []
    decoders: list[tuple[Comparison, Tally]] = []
    features: dict[str, Floats] = {}
    for reference, suffix in zip(references, ("", "_conversion"), strict=False):
        against = replace(comparison, goldens=reference)
        parts = _tallies(config, runtime, [f"{name}{suffix}" for name in COMPONENTS])
        vision, embedding, decoder = parts
        comparable = measure_vision_encoder(against, runtime, vision, batched=True)
        features = features or comparable  # those that the goldens could be compared with
        measure_embed_tokens(against, runtime, embedding)
        decoders.append((against, decoder))
        tallies += parts
    _measure_decoder(decoders, runtime)
    return tallies, features


def _measure_decoder(references: Sequence[tuple[Comparison, Tally]], runtime: Runtime) -> None:
    """Golden embeddings of prompt and answer -> logits, all positions in one pass.

    All references have the same embeddings, so what one call returns is compared with each.
    """
    first, _ = references[0]
    for case in first.goldens.index.cases:
        first.steps.begin(f"decoder, {case.id}")
        embeds = first.goldens.inputs_embeds(case)
        where = Where(case=case.id, route="one pass")
        try:
            logits = runtime.logits(embeds[None])[0]
        except UserError as error:
            for _, tally in references:
                tally.structure((error.message,), case=str(where))
            continue
        rows = Rows(first=len(embeds) - len(logits), logits=logits)
        for comparison, tally in references:
            tally.structure((), case=str(where))
            compare_rows(comparison, tally, where, case=case, rows=rows)
