"""Proof that the graphs for onnxruntime-genai compute what the bundle's other graphs do.

Both comparisons are of bits: what is added to a graph moves values and computes none.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastvlm_compile.export.errors import ExportError

NUM_SEQUENCES, LENGTH = 2, 24
"""Of the comparison: more than one sequence, as the batch must not be frozen either."""

NUM_IMAGES = 2

PLACES = ((0, 3), (0, 4), (0, 5), (1, 0), (1, LENGTH - 1))
"""Sequence and position of each image token: the first and the last position, and neighbours."""

Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]


def check_embedding(path: Path, plain: Path, *, image_token_id: int) -> None:
    """Hold `embedding` against `embed_tokens`, with rows, without and with rows that do not fit.

    Raises:
        ExportError: a value differs, or a number of rows other than that of the image tokens
            passes without an error.
    """
    random = np.random.default_rng(0)
    # Ids from 0 to the image token's: they are in every vocabulary that has one.
    ids = random.integers(0, image_token_id, (NUM_SEQUENCES, LENGTH), dtype=np.int64)
    (embeds,) = _run(plain, {"input_ids": ids})
    width = embeds.shape[-1]
    none = np.zeros((0, width), dtype=np.float32)
    _check_same(path, embeds, {"input_ids": ids, "image_features": none})
    sequences, positions = (np.array(each) for each in zip(*PLACES, strict=True))
    rows = random.standard_normal((len(PLACES), width)).astype(np.float32)
    with_images = ids.copy()
    with_images[sequences, positions] = image_token_id
    (expected,) = _run(plain, {"input_ids": with_images})
    expected[sequences, positions] = rows
    _check_same(path, expected, {"input_ids": with_images, "image_features": rows})
    try:
        _run(path, {"input_ids": with_images, "image_features": rows[1:]})
    except _refusals():
        return
    raise ExportError(f"{path.name}: takes {len(rows) - 1} rows for {len(rows)} image tokens")


def check_vision(path: Path, plain: Path, *, image_size: int) -> None:
    """Hold `vision` against `vision_encoder`, for images whose number must not be frozen.

    Raises:
        ExportError: a value differs.
    """
    shape = (NUM_IMAGES, 3, image_size, image_size)
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    (features,) = _run(plain, {"pixel_values": pixels})
    rows = features.reshape(-1, features.shape[-1])
    _check_same(path, rows, {"pixel_values": pixels})


def _check_same(path: Path, expected: npt.NDArray[np.float32], feeds: dict[str, Array]) -> None:
    given = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
    try:
        (found,) = _run(path, feeds)
    except _refusals() as error:
        raise ExportError(f"{path.name}: refuses {given}") from error
    if found.shape != expected.shape or found.tobytes() != expected.tobytes():
        raise ExportError(f"{path.name}: other values than the graph it was made from, for {given}")


def _run(path: Path, feeds: dict[str, Array]) -> list[npt.NDArray[np.float32]]:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4  # the refusal that is asked for is no news
    session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs: list[npt.NDArray[np.float32]] = session.run(None, feeds)
    return outputs


def _refusals() -> tuple[type[Exception], ...]:
    """What onnxruntime may raise over values that do not fit; they have no common base class."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    return (Fail, InvalidArgument, RuntimeException)
