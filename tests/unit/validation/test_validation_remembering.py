"""Images and logits that were computed before a kill are not computed again."""

from pathlib import Path

import numpy as np

from fastvlm_compile.kept import KeptWork
from validation.runtimes.base import Floats
from validation.runtimes.remembering import RememberingRuntime


class Counting:
    """Computes something of its own, and counts how often."""

    executor = "counting"
    executed_by_core_ml = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def encode_image(self, pixel_values: Floats) -> Floats:
        self.calls.append("image")
        return pixel_values.mean(axis=1).astype(np.float32)

    def logits(self, inputs_embeds: Floats) -> Floats:
        self.calls.append("logits")
        return (2 * inputs_embeds).transpose(0, 2, 1)


def test_a_second_runtime_finds_what_the_first_has_kept(tmp_path: Path) -> None:
    kept = KeptWork(folder=tmp_path, worth_s=0)
    given = np.random.default_rng(0).standard_normal((1, 3, 4)).astype(np.float32)
    first, second = Counting(), Counting()
    for inner in (first, second):
        runtime = RememberingRuntime(inner, kept)  # type: ignore[arg-type]
        assert np.array_equal(runtime.encode_image(given), first.encode_image(given))
        assert np.array_equal(runtime.logits(given), first.logits(given))
    assert second.calls == []
    other = RememberingRuntime(second, kept)  # type: ignore[arg-type]
    assert np.array_equal(other.logits(given + 1), first.logits(given + 1))
    assert second.calls == ["logits"]


def test_without_anything_kept_an_image_is_encoded_once() -> None:
    inner = Counting()
    runtime = RememberingRuntime(inner)  # type: ignore[arg-type]
    pixels = np.zeros((1, 3, 4, 4), dtype=np.float32)
    runtime.encode_image(pixels)
    runtime.encode_image(pixels)
    runtime.logits(pixels[0])
    runtime.logits(pixels[0])
    assert inner.calls == ["image", "logits", "logits"]
