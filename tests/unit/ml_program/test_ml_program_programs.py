"""Programs with images, scalars, control flow and shapes that depend on values; the watch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ml_program_building import TARGETS, ct, mb, save, types

from validation.runtimes.ml_program.errors import InputError
from validation.runtimes.ml_program.executable import load
from validation.runtimes.ml_program.interface import drawn
from validation.runtimes.ml_program.watch import Watch


def test_the_watch_times_every_op_and_sees_overflow(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(4,), dtype=types.fp16)], opset_version=TARGETS[8])
    def program(x: Any) -> Any:
        large = mb.mul(x=x, y=np.float16(300), name="large")
        square = mb.mul(x=large, y=large, name="square")
        return mb.sub(x=square, y=square, name="difference")

    package = load(save(program, tmp_path / "big.mlpackage", precision=ct.precision.FLOAT16))
    x = {"x": np.array([0.1, 0.5, 0.65, 1.0], np.float16)}
    watch = Watch()
    package.run(x, watch=watch)
    assert [record.output for record in watch.records] == list(package.value_names)
    assert not watch.non_finite
    assert [record.output for record in watch.near_overflow] == ["square"]
    assert watch.near_overflow[0].max_abs == pytest.approx(90000)
    assert all(record.seconds >= 0 for record in watch.records)

    watch = Watch()
    package.run(x, rounding="fp16", watch=watch)
    assert [(r.output, r.num_non_finite) for r in watch.non_finite] == [
        ("square", 1),
        ("difference", 1),
    ]
    watch = Watch(ignore=frozenset(("square", "difference")))
    package.run(x, rounding="fp16", watch=watch)
    assert not watch.non_finite


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_images_are_bytes_in_rgb_order(layout: str, tmp_path: Path) -> None:
    gray = layout == "GRAYSCALE"
    shape = (1, 1 if gray else 3, 4, 6)
    package = save(
        torch.jit.trace(torch.nn.Hardtanh(0.0, 200.0), torch.zeros(shape)),
        tmp_path / "image.mlpackage",
        inputs=[ct.ImageType("image", shape, color_layout=getattr(ct.colorlayout, layout))],
    )
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 6) if gray else (4, 6, 3), dtype=np.uint8)
    (found,) = load(package).run({"image": pixels}).values()
    planes = pixels[None] if gray else pixels.transpose(2, 0, 1)
    wanted = planes[::-1] if layout == "BGR" else planes
    assert np.array_equal(found[0], wanted.clip(0, 200).astype(np.float32))
    with pytest.raises(InputError, match="image 'image' is float32"):
        load(package).run({"image": pixels.astype(np.float32)})


def test_scalars_go_in_as_one_element_and_come_out_without_dimensions(tmp_path: Path) -> None:
    @mb.program(input_specs=[mb.TensorSpec(shape=(3,))], opset_version=TARGETS[8])
    def program(x: Any) -> Any:
        return mb.reduce_sum(x=x, name="total")

    package = load(save(program, tmp_path / "scalar.mlpackage"))
    found = package.run({"x": np.array([1, 2, 4], np.float32)})["total"]
    assert found.shape == ()
    assert found == 7


def test_control_flow_takes_the_right_branch_and_loops_to_the_end(tmp_path: Path) -> None:
    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1,)), mb.TensorSpec(shape=(2,))],
        opset_version=TARGETS[7],
    )
    def program(limit: Any, x: Any) -> Any:
        bound = mb.squeeze(x=limit)
        chosen = mb.cond(
            pred=mb.greater(x=bound, y=10.0),
            _true_fn=lambda: mb.mul(x=x, y=2.0),
            _false_fn=lambda: mb.add(x=x, y=100.0),
            name="chosen",
        )
        count, doubled = mb.while_loop(
            _cond=lambda i, y: mb.less(x=i, y=bound),
            _body=lambda i, y: (mb.add(x=i, y=1.0), mb.mul(x=y, y=2.0)),
            loop_vars=(0.0, x),
            name="loop",
        )
        return chosen, mb.identity(x=count, name="count"), mb.identity(x=doubled, name="doubled")

    package = load(save(program, tmp_path / "flow.mlpackage", opset=7))
    x = np.array([1, 3], np.float32)
    found = package.run({"limit": np.array([4], np.float32), "x": x})
    assert found["chosen"].tolist() == [101, 103]
    assert found["count"] == 4
    assert found["doubled"].tolist() == [16, 48]
    assert package.run({"limit": np.array([11], np.float32), "x": x})["chosen"].tolist() == [2, 6]
    assert package.run({"limit": np.array([0], np.float32), "x": x})["doubled"].tolist() == [1, 3]


def test_ranges_and_fills_may_depend_on_the_input(tmp_path: Path) -> None:
    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1,), dtype=types.int32)], opset_version=TARGETS[8]
    )
    def program(end: Any) -> Any:
        last = mb.squeeze(x=end)
        return (
            mb.range_1d(start=np.int32(1), end=last, step=np.int32(3), name="rising"),
            mb.range_1d(start=last, end=np.int32(0), step=np.int32(-2), name="falling"),
            mb.fill(shape=end, value=np.float32(0.5), name="filled"),
            mb.one_hot(indices=end, one_hot_vector_size=last, name="hot"),
        )

    package = load(save(program, tmp_path / "range.mlpackage", passes=ct.PassPipeline.EMPTY))
    found = package.run({"end": np.array([9], np.int32)})
    assert found["rising"].tolist() == [1, 4, 7]
    assert found["falling"].tolist() == [9, 7, 5, 3, 1]
    assert found["filled"].tolist() == [0.5] * 9
    assert found["hot"].tolist() == [[0] * 9]


def test_reshape_like_takes_parts_of_other_shapes(tmp_path: Path) -> None:
    specs = [mb.TensorSpec(shape=shape) for shape in ((6, 20), (2, 3, 4), (1, 4, 5))]

    @mb.program(input_specs=specs, opset_version=TARGETS[8])
    def program(x: Any, first: Any, second: Any) -> Any:
        return mb.reshape_like(
            x=x,
            ref_tensors=(first, second),
            begins=(0, 1),
            ends=(2, 0),
            end_masks=(False, True),
            name="y",
        )

    package = load(save(program, tmp_path / "like.mlpackage"))
    inputs = drawn(package.function, seed=0)
    assert np.array_equal(package.run(inputs)["y"], inputs["x"].reshape(2, 3, 4, 5))
