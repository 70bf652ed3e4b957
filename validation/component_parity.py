"""Vision encoder and embedding of any runtime against the goldens."""

from collections.abc import Callable
from functools import partial

import numpy as np

from reference.errors import UserError
from validation.runtimes.base import Floats, Runtime
from validation.tally import Tally
from validation.tensor_parity import Comparison, Where, add_tensor


def measure_vision_encoder(
    comparison: Comparison, runtime: Runtime, tally: Tally, *, batched: bool
) -> dict[str, Floats]:
    """Golden pixels -> projected features, one image at a time and two at once.

    Args:
        comparison: the goldens.
        runtime: what computes.
        tally: of the component `vision_encoder`.
        batched: whether two images may be given at once.

    Returns:
        The candidate's features [T, H] by image id, for the end-to-end comparison; images whose
        features break their contract are missing.
    """
    goldens = comparison.goldens
    found: dict[str, Floats] = {}
    for image_id in goldens.index.image_ids:
        comparison.steps.begin(f"vision encoder, {image_id}")
        pixels = goldens.pixel_values(image_id)[None]
        expected = goldens.image_features(image_id)[None]
        features = compare_output(
            comparison,
            tally,
            Where(case=image_id),
            expected={"image_features": expected},
            run=partial(runtime.encode_image, pixels),
        )
        if features is not None:
            found[image_id] = features[0]
    pair = goldens.index.image_ids[:2]
    if batched and len(pair) == 2:
        pixels = np.stack([goldens.pixel_values(image_id) for image_id in pair])
        expected = np.stack([goldens.image_features(image_id) for image_id in pair])
        compare_output(
            comparison,
            tally,
            Where(case=" + ".join(pair), route="batch of two"),
            expected={"image_features": expected},
            run=partial(runtime.encode_image, pixels),
        )
    return found


def measure_embed_tokens(comparison: Comparison, runtime: Runtime, tally: Tally) -> None:
    """Rows of the embedding table, in one sequence and folded into a batch of two.

    Args:
        comparison: the goldens.
        runtime: what computes.
        tally: of the component `embed_tokens`.
    """
    comparison.steps.begin("embedding")
    goldens = comparison.goldens
    ids, rows = goldens.array("embedding/ids"), goldens.array("embedding/rows")
    for route, batch_size in (("", 1), ("batch of two", 2)):
        length = len(ids) // batch_size
        count = batch_size * length
        compare_output(
            comparison,
            tally,
            Where(case="table", route=route),
            expected={"inputs_embeds": rows[:count].reshape(batch_size, length, -1)},
            run=partial(runtime.embed, ids[:count].reshape(batch_size, length)),
        )


def compare_output(
    comparison: Comparison,
    tally: Tally,
    where: Where,
    *,
    expected: dict[str, Floats],
    run: Callable[[], Floats],
) -> Floats | None:
    """Runs and compares the one tensor in `expected`.

    Returns:
        The candidate's tensor; None when it could not be run or compared, which is then a
        structural problem in the tally.
    """
    ((name, reference),) = expected.items()
    try:
        candidate = run()
    except UserError as error:
        tally.structure((error.message,), case=str(where))
        return None
    comparable = add_tensor(
        tally, name, reference, candidate, where=where, tolerance=comparison.tolerance
    )
    return candidate if comparable else None
