"""mlx-vlm, which takes the folders `mlx/<variant>`; on Linux with mlx's CPU build.

Its FastVLM has the depths and widths of the real FastViTHD as constants, so a scaled-down tower
cannot be loaded. What it is asked goes the whole way: its own preprocessing, its chat template,
its loop.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from validation.answer import splice
from validation.consumers.comparing import judged
from validation.consumers.driving import DriverError, drive, python_driver
from validation.consumers.following import follow
from validation.consumers.golden_cases import ConsumerCases, write_cases
from validation.consumers.outcome import Environment, Outcome, not_installed, not_run, not_supported
from validation.golden_file import open_goldens
from validation.goldens import Goldens

NAME = "mlx-vlm"
ENVIRONMENT = "venv-mlx-vlm"

_REAL_CHANNELS = 3072
_TIMEOUT_S = 1800.0
"""Reference BLAS, which mlx brings on Linux: over a minute an image, more on a busy machine."""

_FLOAT = "fp16"
"""The checkpoint's own precision: every token must be the reference's."""
_NEAR_TIE = 0.05
"""Standard deviations of the logits by which a quantized folder's token may be below the best one
that float32 arithmetic on the same integers gives: mlx-vlm computes text in float16, and random
weights have near ties. A wrong scale or group takes tokens that are several below."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def check(bundle: Path, environment: Environment) -> tuple[Outcome, ...]:
    """Asks mlx-vlm one golden question about an image and one of text alone, of every variant.

    Args:
        bundle: with goldens.
        environment: `venv-mlx-vlm` in it.

    Raises:
        GoldenError: the bundle's goldens are missing or damaged.
    """
    folders = sorted(path.parent for path in (bundle / "mlx").glob("*/config.json"))
    goldens = open_goldens(bundle / "goldens")
    names = tuple(f"mlx.{folder.name}" for folder in folders)
    if not folders:
        return not_run(NAME, ("mlx",), "the bundle has no MLX folder; targets.mlx makes them")
    if (found := goldens.shape.vision_channels) != _REAL_CHANNELS:
        reason = f"its tower has {_REAL_CHANNELS} channels as a constant, this one {found}"
        return not_supported(NAME, names, reason)
    interpreter = environment.python(ENVIRONMENT)
    if not interpreter.exists():
        return not_installed(NAME, names, interpreter)
    with tempfile.TemporaryDirectory() as made:
        cases = write_cases(bundle, Path(made), num_scenes=1)
        return tuple(_asked(folder, cases, goldens, interpreter) for folder in folders)


def _asked(folder: Path, cases: ConsumerCases, goldens: Goldens, interpreter: Path) -> Outcome:
    variant = f"mlx.{folder.name}"
    driver = python_driver(interpreter, "mlx_vlm_generate.py")
    command = (*driver, str(folder), str(cases.file))
    try:
        document = drive(command, timeout_s=_TIMEOUT_S, variables=_OFFLINE)
    except DriverError as error:
        return Outcome(
            consumer=NAME, version="", variant=variant, status="disagreed", detail=str(error)
        )
    version, prompts, answers = (document.get(key) for key in ("version", "prompts", "answers"))
    assert isinstance(prompts, dict), "the driver's own form"
    assert isinstance(answers, dict), "the driver's own form"
    for case in cases.cases:
        if (prompt := prompts.get(case.id)) != case.prompt:
            return Outcome(
                consumer=NAME,
                version=str(version),
                variant=variant,
                status="disagreed",
                detail=f"{case.id}: its chat template makes another prompt: {prompt!r}",
            )
    if folder.name != _FLOAT:
        return _followed(folder, cases, goldens, answers, version=str(version))
    outcome = judged(cases, answers, consumer=NAME, version=str(version), variant=variant)
    return replace(outcome, detail=f"{outcome.detail}; tokens compared with the reference's")


def _followed(
    folder: Path,
    cases: ConsumerCases,
    goldens: Goldens,
    answers: Mapping[str, Sequence[int]],
    *,
    version: str,
) -> Outcome:
    """Every token against the logits that the folder's integers give in float32 in its place.

    A few bits may turn any token of a random model, so the float reference's answers would tell
    nothing. The logits come from our own loader, which the build's gates hold to the reference with
    the same weights; the tower is not quantized, so the goldens' features stand for it.
    """
    from validation.runtimes.mlx_runtime import open_mlx

    runtime = open_mlx(folder)
    by_id = {case.id: case for case in goldens.index.cases}
    found = []
    for asked in cases.cases:
        case = by_id[asked.id]
        images = [
            runtime.project(goldens.vision_features(name)[None])[0] for name in case.image_ids
        ]
        embeds = splice(runtime, goldens.prompt_ids(case), np.stack(images) if images else None)
        found.append(
            follow(
                runtime.session(embeds),
                answers.get(asked.id, ()),
                max_new_tokens=goldens.contract.max_new_tokens,
                eos_token_ids=goldens.contract.eos_token_ids,
            )
        )
    worst = max(each.worst_gap for each in found)
    total, best = sum(each.num_tokens for each in found), sum(each.num_best for each in found)
    return Outcome(
        consumer=NAME,
        version=version,
        variant=f"mlx.{folder.name}",
        status="agreed" if worst <= _NEAR_TIE else "disagreed",
        detail=(
            f"{best} of {total} tokens are the best by float32 arithmetic on the same integers, "
            f"the others at most {worst:.3f} standard deviations of the logits below "
            f"(at most {_NEAR_TIE} asked)"
        ),
    )
