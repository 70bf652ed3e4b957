"""What Core ML refuses is told with Core ML's reason; coremltools itself only warns."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest

from reference.errors import UserError
from validation.runtimes.core_ml_executor import Packages
from validation.runtimes.coreml_runtime import CoreMLOpener, CoreMLRefusedError
from validation.runtimes.coreml_unit_messages import Opening, read_arrays, write_arrays
from validation.runtimes.coreml_unit_open import tower_unit

pytestmark = pytest.mark.xdist_group("coreml-mac")  # one worker exports the packages once

SIGNATURE = inspect.signature(ct.models.MLModel.__init__)


def test_a_package_that_core_ml_does_not_load_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The words are those of coremltools' `MLModel`, which this test reads as well."""
    source = inspect.getsource(ct.models.MLModel._get_proxy_and_spec)
    assert "You will not be able to run predict() on this Core ML model." in source
    assert " Underlying exception message was: " in source

    def model(*args: object, **kwargs: object) -> None:
        given = SIGNATURE.bind(None, *args, **kwargs).arguments
        assert given["compute_units"] is ct.ComputeUnit.CPU_AND_NE
        warnings.warn(
            "You will not be able to run predict() on this Core ML model."
            " Underlying exception message was: Error compiling model: no such op.",
            RuntimeWarning,
            stacklevel=1,
        )

    monkeypatch.setattr(ct.models, "MLModel", model)
    told = r"a\.mlpackage: Core ML does not load prefill: Error compiling model: no such op\."
    with pytest.raises(CoreMLRefusedError, match=told):
        CoreMLOpener("cpu_and_ne").chunk(Path("a.mlpackage"))


def test_other_warnings_do_not_refuse_a_package(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        def __init__(self, *args: object, **kwargs: object) -> None:
            SIGNATURE.bind(self, *args, **kwargs)
            warnings.warn("something else", RuntimeWarning, stacklevel=1)

        def predict(self, data: dict[str, Any]) -> dict[str, Any]:
            return {"image_features": data["images"]}

    monkeypatch.setattr(ct.models, "MLModel", Model)
    run = CoreMLOpener("all").plain(packages.vision)
    assert (run({"images": np.ones(2)})["image_features"] == 1).all()


def test_the_tower_alone_refuses_what_it_has_not_got() -> None:
    unit = tower_unit("x", lambda: lambda inputs: {}, tuple)
    for ask in (unit.project, unit.session, unit.read_caches):
        with pytest.raises(UserError, match="the vision tower alone"):
            ask(np.zeros(1, dtype=np.float32))


def test_arrays_travel_unchanged_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {"a/b": np.float16([[1, 2]]), "ids": np.int64([3]), "none": np.zeros((0, 4))}
    write_arrays(path, arrays)
    whole = path.read_bytes()
    found = read_arrays(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    assert not path.exists()
    for damaged in (b"", whole[:40], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no arrays"):
            read_arrays(path)


def test_the_real_factory_opens_a_tower_through_coremltools_calls(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for `MLModel` that takes the real one's arguments."""
    from validation.runtimes import coreml_unit_open

    asked: list[dict[str, object]] = []

    class Model:
        def __init__(self, *args: object, **kwargs: object) -> None:
            asked.append(dict(SIGNATURE.bind(self, *args, **kwargs).arguments))

        def predict(self, data: dict[str, Any]) -> dict[str, Any]:
            return {"image_features": data["images"].astype(np.float16)}

    monkeypatch.setattr(ct.models, "MLModel", Model)
    opening = Opening(
        factory=coreml_unit_open.CORE_ML,
        compute_units="cpu_only",
        vision=str(packages.vision),
        projector="",
        embedding="",
        language="",
        search_path=(),
        folder="",
    )
    unit = coreml_unit_open.core_ml(opening)
    assert asked == [], "it is compiled when it is first needed"
    for _ in range(2):
        assert unit.vision_features(np.ones((1, 3), dtype=np.float32)).dtype == np.float32
    assert len(asked) == 1
    assert asked[0]["model"] == str(packages.vision)
    assert asked[0]["compute_units"] is ct.ComputeUnit.CPU_ONLY
    assert unit.executor.endswith("compute units cpu_only)")
