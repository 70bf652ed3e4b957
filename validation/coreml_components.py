"""The packages one by one on golden inputs: against the reference, and float16 against float32."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np

from reference.errors import UserError
from reference.kept import Kept
from validation.answer import splice
from validation.component_parity import compare_output
from validation.decoder_parity import compare_rows
from validation.decoder_routes import MAX_STEPS, Rows
from validation.goldens import GoldenCase
from validation.runtimes.base import Floats
from validation.runtimes.core_ml_executor import VisionExecutor, WholeModel
from validation.runtimes.packages_runtime import PackagesRuntime
from validation.tally import Tally
from validation.tensor_parity import Comparison, Where, add_logits, add_tensor


@dataclass(frozen=True, kw_only=True)
class Component:
    """One package (or all chunks of the decoder) under measurement.

    Attributes:
        name: "vision", "projector", "decoder".
        total: tally of the comparison with the reference.
        precision: tally of the comparison with the float32 package; None where that is not done.
        sibling: what the float32 packages returned, by name.
        outputs: gets what this package returns, by name.
    """

    name: str
    total: Tally
    precision: Tally | None = None
    sibling: Mapping[str, Floats] = field(default_factory=dict)
    outputs: dict[str, Floats] = field(default_factory=dict)

    def keep(self, where: Where, found: Floats) -> Floats | None:
        """Keeps an output and gives the float32 package's to compare it with, if there is one."""
        key = "/".join(filter(None, (self.name, where.case, where.route)))
        self.outputs[key] = found
        if self.precision is None:
            return None
        if key in self.sibling:
            return self.sibling[key]
        every = self.sibling.get(f"{self.name}/{where.case}")
        if every is not None:  # a reference's rows, whatever the route: the last ones are meant
            return every[-len(found) :]
        self.precision.structure(("there is nothing to compare with",), case=str(where))
        return None


def measure_vision(
    comparison: Comparison, runner: VisionExecutor, component: Component
) -> dict[str, Floats]:
    """Golden pixels -> features before the projector, in every size.

    Returns:
        The candidate's features [1, T, C] by image id; images that failed are missing.
    """
    goldens = comparison.goldens
    return _measure_images(
        comparison,
        component,
        output="image_features",
        expected=goldens.vision_features,
        run=lambda image_id: runner.vision_features(goldens.pixel_values(image_id)[None]),
    )


def measure_projector(comparison: Comparison, runner: WholeModel, component: Component) -> None:
    """The reference's features -> rows for the decoder."""
    goldens = comparison.goldens
    _measure_images(
        comparison,
        component,
        output="image_embeds",
        expected=goldens.image_features,
        run=lambda image_id: runner.project(goldens.vision_features(image_id)[None]),
    )


def _measure_images(
    comparison: Comparison,
    component: Component,
    *,
    output: str,
    expected: Callable[[str], Floats],
    run: Callable[[str], Floats],
) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for image_id in comparison.goldens.index.all_image_ids:
        comparison.steps.begin(f"{component.name} package, {image_id}")
        where = Where(case=image_id)
        candidate = compare_output(
            comparison,
            component.total,
            where,
            expected={output: expected(image_id)[None]},
            run=partial(run, image_id),
        )
        if candidate is None:
            continue
        found[image_id] = candidate
        sibling = component.keep(where, candidate)
        if sibling is not None and component.precision is not None:
            add_tensor(
                component.precision,
                output,
                sibling,
                candidate,
                where=where,
                tolerance=comparison.tolerance,
            )
    return found


def measure_decoder(comparison: Comparison, runner: WholeModel, component: Component) -> None:
    """Golden embeddings of prompt and answer -> logits, in one pass and through the cache.

    "one pass" fills whole prefill chunks and a padded one; "cached" cuts the prompt where no chunk
    ends, and then takes the answer token by token.
    """
    for case in comparison.goldens.index.cases:
        comparison.steps.begin(f"decoder packages, {case.id}")
        embeds = comparison.goldens.inputs_embeds(case)
        for route, bounds in _routes(len(embeds)).items():
            where = Where(case=case.id, route=route)
            pieces = _cut(embeds, bounds)
            try:
                logits = runner.logits_after(pieces)
            except UserError as error:
                component.total.structure((error.message,), case=str(where))
                continue
            component.total.structure((), case=str(where))
            # The first of two pieces of a prompt ends at a place that nobody asks about.
            kept = logits[-max(1, len(pieces) - 1) :]
            rows = Rows(first=len(embeds) - len(kept), logits=kept)
            compare_rows(comparison, component.total, where, case=case, rows=rows)
            _compare_precision(comparison, component, where, case, rows)


def foresee(
    comparison: Comparison,
    runner: WholeModel,
    image_features: Mapping[str, Floats],
    kept: Kept,
) -> None:
    """Run all that `measure_decoder` and the answers will ask for, package by package.

    Answers are foreseen as far as they are the goldens'. Where a sequence cannot be run nothing is
    foreseen: each is run when it is asked for, and the broken one is told there.

    Args:
        comparison: the goldens.
        runner: the packages.
        image_features: what they made of the golden images, [T, H] by id.
        kept: what came out of each package.
    """
    comparison.steps.begin("decoder packages, one by one")
    if not isinstance(runner, PackagesRuntime):
        return
    sequences: list[list[Floats]] = []
    with suppress(UserError):
        for case in comparison.goldens.index.cases:
            embeds = comparison.goldens.inputs_embeds(case)
            sequences += [_cut(embeds, bounds) for bounds in _routes(len(embeds)).values()]
            if case.generated and all(name in image_features for name in case.image_ids):
                sequences.append(_answered(comparison, runner, case, image_features))
        runner.foresee(sequences, kept=kept)


def _answered(
    comparison: Comparison,
    runner: WholeModel,
    case: GoldenCase,
    image_features: Mapping[str, Floats],
) -> list[Floats]:
    """The prompt, and the golden tokens behind which there is another to be chosen."""
    goldens = comparison.goldens
    features = [image_features[name] for name in case.image_ids]
    images = np.stack(features) if features else None
    prompt = splice(runner, goldens.prompt_ids(case), images)[0]
    count = min(len(case.token_ids), goldens.contract.greedy().max_new_tokens - 1)
    tokens = np.array(case.token_ids[:count], dtype=np.int64)
    return [prompt, *(row[None] for row in runner.embed(tokens[None])[0])]


def _cut(embeds: Floats, bounds: tuple[int, ...]) -> list[Floats]:
    return [embeds[begin:end] for begin, end in pairwise(bounds)]


def _routes(length: int) -> dict[str, tuple[int, ...]]:
    """Where to cut N positions into pieces, by the name of the route."""
    prompt = length - min(MAX_STEPS, length - 2)
    steps = range(prompt + 1, length + 1)
    return {"one pass": (0, length), "cached": (0, prompt // 2, prompt, *steps)}


def _compare_precision(
    comparison: Comparison, component: Component, where: Where, case: GoldenCase, rows: Rows
) -> None:
    # The same positions as against the reference, so that the two numbers can be put side by side.
    kept = rows.logits[max(0, case.first_logit - rows.first) :]
    sibling = component.keep(where, kept)
    if sibling is None or component.precision is None:
        return
    add_logits(
        component.precision,
        sibling,
        kept,
        where=where,
        tolerance=comparison.tolerance,
        vocab_limit=comparison.goldens.contract.vocab_limit,
    )


def features_of(
    runner: WholeModel, vision_features: Mapping[str, Floats], tally: Tally
) -> dict[str, Floats]:
    """What this model makes of golden images, [T, H] by id, for its own answers."""
    found = {}
    for image_id, features in vision_features.items():
        try:
            embeds = runner.project(features)
        except UserError as error:
            tally.structure((error.message,), case=image_id)
            continue
        if embeds.ndim == 3 and np.isfinite(embeds).all():
            found[image_id] = embeds[0]
    return found
