"""What Apple's app would compute from its folder, computed here: by our executor and by mlx.

The package is run op by op as an ML Program, the language model and the projector by mlx on the
CPU. Both are held to the goldens, and quantized weights also to what the reference returns with the
same weights: so a wrong scale, a wrong order of packed codes or a wrong name shows as a number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reference.generation import generate
from validation.answer import splice
from validation.consumers.apple_app_files import PACKAGE
from validation.consumers.comparing import agreement
from validation.goldens import GoldenCase, Goldens
from validation.metrics import structural_problems, tensor_metrics
from validation.runtimes.core_ml_vision import IMAGE_FEATURES, IMAGES
from validation.substituted_goldens import projected

if TYPE_CHECKING:
    from validation.runtimes.mlx_runtime import MlxRuntime

Arrays = Mapping[str, np.ndarray]

MAX_TOWER_L2 = 2.0e-2
"""float16 weights in float32 arithmetic were seen at 1.5e-3; compressed ones may lose more, but a
wrong tensor is above 1e-1."""
MAX_MLX_L2 = 1.0e-4
"""float32 arithmetic on the very same weights; a wrong scale or code is above 1e-2."""
MAX_ROW_ERROR = 0.0
"""Rows of the embedding are looked up: nothing is computed but `scale * code + bias`."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was compared.

    Attributes:
        problems: bounds that were missed; empty if all held.
        summary: one line with the numbers.
    """

    problems: tuple[str, ...]
    summary: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A distance and its bound."""

    what: str
    value: float
    bound: float


def measure_folder(folder: Path, goldens: Goldens, quantized: Arrays) -> Measured:
    """Executes a folder on golden inputs.

    Args:
        folder: `apple_app`, without problems of its own.
        goldens: the bundle's.
        quantized: what the reference with the same quantized weights returned, by the goldens'
            names; empty where nothing is quantized. Then the answers must be the reference's,
            token for token; with fewer bits they are only told.

    Raises:
        UserError: the package or the weights cannot be executed.
    """
    from validation.runtimes.ml_program_runtime import executed_program
    from validation.runtimes.mlx_runtime import open_mlx

    tower = executed_program(folder / PACKAGE, rounding="none")
    runtime = open_mlx(folder)
    cases = _asked(goldens)
    names = dict.fromkeys(name for case in cases for name in case.image_ids)
    features = {
        name: np.asarray(tower({IMAGES: goldens.pixel_values(name)[None]})[IMAGE_FEATURES])
        for name in names
    }
    rows = (*_tower_rows(goldens, features), *_mlx_rows(runtime, goldens, quantized, tuple(names)))
    shares = [_share(runtime, goldens, case, features) for case in cases]
    mean = sum(shares) / len(shares)
    problems = [
        f"{row.what}: {row.value:.2g}, at most {row.bound:.2g} allowed"
        for row in rows
        if not row.value <= row.bound
    ]
    if not quantized and not mean >= 1.0:
        problems.append(f"{mean:.1%} of the answers' tokens are the reference's, all are asked")
    worst = {row.what: max(r.value for r in rows if r.what == row.what) for row in rows}
    told = ", ".join(f"{what} {value:.1e}" for what, value in worst.items())
    return Measured(
        problems=tuple(problems),
        summary=f"{told} (relative l2; rows: largest difference); {mean:.1%} of "
        f"{len(cases)} answers' tokens as the float32 reference's",
    )


def _asked(goldens: Goldens) -> tuple[GoldenCase, ...]:
    """One about an image and one about none: what one tower pass can answer."""
    generated = [case for case in goldens.index.cases if case.generated]
    about_one = [case for case in generated if len(case.image_ids) == 1]
    text = [case for case in generated if not case.image_ids]
    return (*about_one[:1], *text[:1])


def _tower_rows(goldens: Goldens, features: dict[str, np.ndarray]) -> Iterator[_Row]:
    for name, found in features.items():
        expected = goldens.vision_features(name)[None]
        yield _row("package", expected, found, bound=MAX_TOWER_L2)


def _mlx_rows(
    runtime: "MlxRuntime", goldens: Goldens, quantized: Arrays, names: tuple[str, ...]
) -> Iterator[_Row]:
    """Embedding, projector and decoder, each on golden inputs."""
    ids = goldens.array("embedding/ids")
    expected = quantized.get("embedding/rows")
    expected = goldens.array("embedding/rows") if expected is None else expected
    difference = np.abs(runtime.embed(ids[None])[0] - expected).max()
    yield _Row(what="embedding rows", value=float(difference), bound=MAX_ROW_ERROR)
    for name in names:
        found = runtime.project(goldens.vision_features(name)[None])[0]
        wanted = quantized.get(projected(name))
        wanted = goldens.image_features(name) if wanted is None else wanted
        yield _row("projector", wanted, found, bound=MAX_MLX_L2)
    for case in _asked(goldens):
        logits = runtime.logits(goldens.inputs_embeds(case)[None])[0][case.first_logit :]
        wanted = quantized.get(f"cases/{case.id}/logits")
        wanted = goldens.logits(case) if wanted is None else wanted
        yield _row("decoder", wanted, logits, bound=MAX_MLX_L2)


def _share(
    runtime: "MlxRuntime", goldens: Goldens, case: GoldenCase, features: dict[str, np.ndarray]
) -> float:
    """Share of a greedy answer's tokens, from the package's features on."""
    images = [runtime.project(features[name])[0] for name in case.image_ids]
    embeds = splice(runtime, goldens.prompt_ids(case), np.stack(images) if images else None)
    found = generate(runtime.session(embeds), goldens.contract.greedy()).token_ids
    return agreement(case.token_ids, found)


def _row(what: str, expected: np.ndarray, found: np.ndarray, *, bound: float) -> _Row:
    if structural_problems({what: expected}, {what: found}):
        return _Row(what=what, value=float("nan"), bound=bound)
    return _Row(what=what, value=tensor_metrics(expected, found).relative_l2, bound=bound)
