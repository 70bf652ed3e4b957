"""Elements of few bits, read from packed bytes."""

import numpy as np
import pytest

from validation.runtimes.ml_program import bits as reading
from validation.runtimes.ml_program.bits import unpack


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 63, 64, 65, 200])
def test_unpacking_gives_what_was_packed_across_all_borders(
    monkeypatch: pytest.MonkeyPatch, width: int, count: int
) -> None:
    monkeypatch.setattr(reading, "_GROUPS_AT_ONCE", 2)
    monkeypatch.setattr(reading, "_BYTES_AT_ONCE", 8)
    rng = np.random.default_rng(width)
    elements = rng.integers(0, 2**width, count, dtype=np.uint8)
    number = sum(int(value) << (width * place) for place, value in enumerate(elements))
    packed = number.to_bytes((width * count + 7) // 8, "little")
    behind = np.frombuffer(packed + b"\xff", dtype=np.uint8)  # of the next blob
    found = unpack(behind[: len(packed)], width, count)
    assert found.dtype == np.uint8
    assert np.array_equal(found, elements)
