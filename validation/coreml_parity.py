"""Core ML packages: their contract everywhere, their numbers where something executes them.

Errors are kept apart. Conversion: the FLOAT32 packages against the reference (`vision`,
`projector`, `decoder` of the variant float32). Precision: the FLOAT16 packages against the FLOAT32
ones under the same executor (`vision_precision`, ...). And the total: FLOAT16 against the
reference (`vision`, ... of the variant float16).
"""

from collections.abc import Callable
from dataclasses import dataclass

from reference.kept import NOTHING_KEPT, Kept
from reference.prompt import PromptTokenizer
from validation.component_parity import measure_embed_tokens
from validation.coreml_components import (
    features_of,
    foresee,
    measure_decoder,
    measure_projector,
    measure_vision,
)
from validation.coreml_contract import package_problems
from validation.coreml_run import NOTHING_EXECUTED, Run, nothing_executed
from validation.end_to_end_parity import measure_generations, measure_task
from validation.goldens import Goldens
from validation.measurement import Measurement
from validation.package_outputs import NoOutputs, PackageOutputs
from validation.progress import Progress, Steps
from validation.runtimes.checked import CheckedRuntime
from validation.runtimes.core_ml_executor import (
    NotRunnable,
    Opened,
    Packages,
    open_packages,
)
from validation.runtimes.core_ml_vision import describe_package
from validation.substituted_goldens import SubstitutedGoldens, projected
from validation.tally import Tally
from validation.task import ALL_QUESTIONS
from validation.tensor_parity import Comparison, Tolerance

NO_SIBLING = NoOutputs(reason="the float32 packages are not there to compare with")


@dataclass(frozen=True, kw_only=True)
class CoreMLParity:
    """How packages are measured.

    Attributes:
        tolerance: for the smallest passing tolerances.
        sibling: what the float32 packages returned, or for compressed packages the reference with
            the same quantized weights; used for float16 arithmetic only.
        max_questions: of the goldens' task questions, the first so many.
        executor: finds what runs the packages.
    """

    tolerance: Tolerance
    sibling: PackageOutputs | NoOutputs = NO_SIBLING
    max_questions: int = ALL_QUESTIONS
    executor: Callable[[Packages], Opened | NotRunnable] = open_packages


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came out, filed under the packages' precision as the variant.

    Attributes:
        measurements: of every component; those that could not be made say why.
        outputs: what the packages returned, for a comparison with it; None where nothing ran.
    """

    measurements: tuple[Measurement, ...]
    outputs: PackageOutputs | None


def measure_coreml(
    config: CoreMLParity,
    *,
    goldens: Goldens,
    packages: Packages,
    tokenizer: PromptTokenizer,
    progress: Progress,
    kept: Kept = NOTHING_KEPT,
) -> Measured:
    """Checks the declared contract, then every package alone, then the whole from pixels to tokens.

    Args:
        config: tolerances, executor, and what to compare with.
        goldens: what the reference returned.
        packages: the tower, or the whole model.
        tokenizer: turns answers into text.
        progress: told of everything that is run.
        kept: what came out of each package of the decoder.

    Raises:
        PackageUnreadableError, PackagesMissingError, LanguageLayoutError: a part is missing or
            damaged.
        GoldenError: the goldens are damaged.
    """
    index = goldens.index
    problems = package_problems(
        describe_package(packages.vision), goldens.shape, further_sizes=index.image_sizes
    )
    opened = config.executor(packages)
    if isinstance(opened, NotRunnable):
        return _only_described(packages, problems, opened.reason)
    run = Run(packages=packages, opened=opened, sibling=config.sibling)
    run.tally("vision").structure(problems, case="package")
    steps = Steps(progress, _num_steps(goldens, packages))
    comparison = Comparison(goldens=goldens, tolerance=config.tolerance, steps=steps)
    features = measure_vision(comparison, opened.vision, run.component("vision"))
    not_asked: tuple[Measurement, ...] = ()
    if opened.whole is None:
        run.look_inside()
    else:
        measure_projector(comparison, opened.whole, run.component("projector"))
        measure_embed_tokens(comparison, opened.whole, run.tally("embedding"))
        end_to_end = run.tally("end_to_end")
        asked = {name: rows for name, rows in features.items() if name in index.image_ids}
        embeds = features_of(opened.whole, asked, end_to_end)
        foresee(comparison, opened.whole, embeds, kept)
        measure_decoder(comparison, opened.whole, run.component("decoder"))
        run.look_inside()  # before the many questions: looking takes time
        checked = CheckedRuntime(opened.whole, goldens.shape)
        measure_generations(comparison, checked, end_to_end, embeds)
        not_asked = measure_task(
            comparison, checked, end_to_end, tokenizer, max_questions=config.max_questions
        )
    steps.end()
    return Measured(measurements=(*run.measurements(), *not_asked), outputs=run.result())


def dequantized_outputs(goldens: SubstitutedGoldens) -> PackageOutputs:
    """What the reference with quantized weights returned, by the names of package outputs."""
    index = goldens.index
    images = (*index.image_ids, *(image.id for image in index.sized_images))
    arrays = {f"vision/{name}": goldens.vision_features(name)[None] for name in images}
    arrays |= {f"projector/{name}": goldens.array(projected(name))[None] for name in images}
    arrays |= {f"decoder/{case.id}": goldens.logits(case) for case in index.cases}
    return PackageOutputs(
        executor="torch, quantized weights", executed_by_core_ml=False, arrays=arrays
    )


def _only_described(packages: Packages, problems: tuple[str, ...], reason: str) -> Measured:
    contract = Tally(
        target="coreml",
        variant=packages.variant,
        component="vision",
        executor=NOTHING_EXECUTED,
    )
    contract.structure(problems, case="package")
    not_run = nothing_executed(packages, reason)
    return Measured(measurements=(*contract.measurements(), *not_run), outputs=None)


def _num_steps(goldens: Goldens, packages: Packages) -> int:
    index = goldens.index
    num_images = len(index.all_image_ids)
    if packages.whole is None:
        return num_images
    scenes = {question.scene_id for question in index.questions}
    return 2 * num_images + 2 + 2 * len(index.cases) + len(scenes)
