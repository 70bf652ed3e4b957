"""onnxruntime's quantizers as the benchmark reads them, and ours beside them."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from fastvlm_compile.quantize.affine import round_to_nearest, search
from fastvlm_compile.quantize.scheme import Affine

METHODS = [
    ("DEFAULT", True),
    ("DEFAULT", False),
    ("RTN", True),
    ("RTN", False),
    ("k_quant", False),
    ("HQQ", False),
]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # benchmarks are not installed
    return import_module("benchmarks.onnxruntime_int4")


@pytest.fixture
def int4_quality(theirs: ModuleType) -> ModuleType:
    return import_module("benchmarks.int4_quality")


def made_up(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 0.02).astype(np.float32)


def squared_error(weight: np.ndarray, found: np.ndarray) -> float:
    return float(((weight - found).astype(np.float64) ** 2).sum())


@pytest.mark.parametrize(("method", "symmetric"), METHODS)
def test_their_node_is_read_as_onnxruntime_runs_it(
    theirs: ModuleType, method: str, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    original = theirs.read_node

    def keep(model: object) -> object:
        models.append(model)
        return original(model)

    monkeypatch.setattr(theirs, "read_node", keep)
    weight = made_up(24, 64)
    made = theirs.quantize(weight, method, block_size=32, symmetric=symmetric)
    (model,) = models
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.eye(64, dtype=np.float32)})
    assert np.abs(found.T - made.weight).max() < 1e-6
    assert np.abs(found.T - weight).max() > 1e-4  # not simply the weight
    scales = next(t for t in model.graph.initializer if "scale" in t.name)
    values = numpy_helper.to_array(scales)
    scales.CopyFrom(numpy_helper.from_array(np.roll(values, 1), scales.name))
    assert np.abs(theirs.read_node(model).weight - made.weight).max() > 1e-4


@pytest.mark.parametrize(("method", "symmetric"), METHODS)
def test_search_errs_less_at_the_same_bytes(
    theirs: ModuleType, int4_quality: ModuleType, method: str, symmetric: bool
) -> None:
    weight = made_up(64, 128)
    scheme = Affine(bits=4, block_size=32, symmetric=symmetric)
    made = theirs.quantize(weight, method, block_size=32, symmetric=symmetric)
    ours = search(weight, scheme)
    if method == "HQQ":  # its zero points are float32: more bytes
        assert int4_quality.node_bytes(ours) < made.size_bytes
        return
    assert int4_quality.node_bytes(ours) == made.size_bytes
    error = squared_error(weight, made.weight)
    assert squared_error(weight, ours.dequantize()) < 0.93 * error
    if method == "DEFAULT":  # rounding to nearest is the same in both
        plain = squared_error(weight, round_to_nearest(weight, scheme).dequantize())
        assert 0.99 < plain / error < 1.01


def test_an_odd_number_of_blocks_stops_theirs_and_not_ours(
    theirs: ModuleType, int4_quality: ModuleType
) -> None:
    weight = made_up(4, 96)
    for method in ("RTN", "k_quant"):
        with pytest.raises(theirs.QuantizerFailedError, match="cannot reshape"):
            theirs.quantize(made_up(3, 96), method, block_size=32, symmetric=False)
    made = theirs.quantize(weight, "DEFAULT", block_size=32, symmetric=False)
    ours = search(weight, Affine(bits=4, block_size=32, symmetric=False))
    assert int4_quality.node_bytes(ours) == made.size_bytes
    assert squared_error(weight, ours.dequantize()) < squared_error(weight, made.weight)
