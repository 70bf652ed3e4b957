"""The clauses about `fastvithd.mlpackage`, held against small programs with the real ports."""

from pathlib import Path

import pytest

from validation.consumers.apple_app import package_clauses
from validation.runtimes.core_ml_vision import quiet

SIDE, CHANNELS = 1024, 3072


def save_package(
    path: Path,
    *,
    side: int = SIDE,
    channels: int = CHANNELS,
    image: str = "images",
    features: str = "image_features",
    half: bool = False,
) -> Path:
    """Pooled pixels, repeated: the ports of the tower without its weights."""
    with quiet():
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb  # noqa: N813
        from coremltools.converters.mil.mil import types

        def body(x):  # type: ignore[no-untyped-def]
            pooled = mb.avg_pool(x=x, kernel_sizes=[64, 64], strides=[64, 64], pad_type="valid")
            rows = mb.reshape(x=pooled, shape=[1, 3, (side // 64) ** 2])
            rows = mb.transpose(x=rows, perm=[0, 2, 1])
            return mb.tile(x=rows, reps=[1, 1, channels // 3], name=features)

        body.__code__ = body.__code__.replace(co_varnames=(image, *body.__code__.co_varnames[1:]))
        pixels = mb.TensorSpec(shape=(1, 3, side, side), dtype=types.fp32)
        program = mb.program(input_specs=[pixels])(body)
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
        spec = model.get_spec()
        if half:
            array = spec.description.output[0].type.multiArrayType
            array.dataType = type(array).FLOAT16
        ct.models.utils.save_spec(spec, str(path), weights_dir=model.weights_dir)
    return path


def test_the_ports_that_the_app_calls_have_no_problems(tmp_path: Path) -> None:
    assert package_clauses(save_package(tmp_path / "fastvithd.mlpackage")) == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"side": 512}, "images float32[1, 3, 1024, 1024], found images float32[1, 3, 512, 512]"),
        ({"channels": 768}, "found image_features float32[1, 256, 768]"),
        ({"image": "image"}, "images float32[1, 3, 1024, 1024]: expected, found none"),
        ({"features": "features"}, "image_features float32[1, 256, 3072]: expected, found none"),
        ({"half": True}, "found image_features float16[1, 256, 3072]"),
    ],
)
def test_another_port_is_told(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    package = save_package(tmp_path / "fastvithd.mlpackage", **changes)  # type: ignore[arg-type]
    told = package_clauses(package)
    assert any(expected in problem for problem in told), told


def test_a_damaged_package_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "fastvithd.mlpackage").mkdir()
    (told,) = package_clauses(tmp_path / "fastvithd.mlpackage")
    assert str(tmp_path) not in told
    assert "Manifest.json" in told
