"""The function of a package is chosen by the shape of what it is given."""

from pathlib import Path

import numpy as np
import pytest
from test_validation_coreml_parity import write_package

from validation.runtimes.core_ml_vision import describe_package
from validation.runtimes.sized_program import SizedProgram


def with_functions(path: Path, sizes: dict[str, int]) -> Path:
    """A package that holds a specification of several functions and nothing to run."""
    from coremltools.proto import Model_pb2

    write_package(path, functions=tuple(sizes))
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = Model_pb2.Model()
    spec.ParseFromString(file.read_bytes())
    for name, size in sizes.items():
        function = spec.description.functions.add(name=name)
        function.input.extend(spec.description.input)
        function.output.extend(spec.description.output)
        function.input[0].type.multiArrayType.shape[2:] = [size, size]
    spec.description.defaultFunctionName = "main"
    del spec.description.input[:], spec.description.output[:]
    file.write_bytes(spec.SerializeToString())
    return path


@pytest.fixture
def opened() -> list[str | None]:
    """The functions that were opened, in order."""
    return []


def program(package: Path, opened: list[str | None]) -> SizedProgram:
    def open_function(function):
        opened.append(function)
        return lambda inputs: {"ran": np.array(function or "default")}

    return SizedProgram(package, open_function)


def ran(run: SizedProgram, *shape: int) -> str:
    return str(run({"images": np.zeros(shape, dtype=np.float32)})["ran"])


def test_each_shape_runs_its_function_which_is_opened_once(tmp_path, opened):
    package = with_functions(tmp_path / "p.mlpackage", {"main": 128, "size_192": 192})
    run = program(package, opened)
    assert opened == []
    assert [ran(run, 1, 3, size, size) for size in (128, 192, 128, 192)] == [
        "default",
        "size_192",
        "default",
        "size_192",
    ]
    assert opened == [None, "size_192"]


def test_a_shape_that_no_function_has_is_left_to_the_default_one_to_refuse(tmp_path, opened):
    package = with_functions(tmp_path / "p.mlpackage", {"main": 128, "size_192": 192})
    run = program(package, opened)
    assert ran(run, 1, 3, 256, 256) == ran(run, 192, 192) == "default"


def test_a_package_of_one_function_is_run_as_it_is(tmp_path, opened):
    run = program(write_package(tmp_path / "p.mlpackage"), opened)
    assert ran(run, 1, 3, 128, 128) == ran(run, 1, 3, 192, 192) == "default"


def test_all_functions_are_described_and_the_default_is_told(tmp_path):
    found = describe_package(with_functions(tmp_path / "p", {"main": 128, "size_192": 192}))
    assert found.functions == ("main", "size_192")
    assert found.default == "main"
    assert found.signatures["size_192"].inputs[0].dims == (1, 3, 192, 192)
    single = describe_package(write_package(tmp_path / "q"))
    assert (single.default, [*single.signatures]) == ("main", ["main"])
