"""Updating a slice in place is invisible: every result and state is as if it had been copied."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_program_building import TARGETS, Function, Program, ct, mb, save, types

from validation.runtimes.ml_program.executable import Executable, load
from validation.runtimes.ml_program.plan import Compute

SHAPE = (4, 6)


def states_spec(*names: str) -> dict[str, Any]:
    return {name: mb.state_tensor_placeholder(shape=SHAPE, dtype=types.fp16) for name in names}


def saved(function: Function, path: Path) -> Executable:
    program = Program()
    program.add_function("main", function)
    # Without passes: some of coremltools' fail on states that are written twice.
    return load(save(program, path, passes=ct.PassPipeline.EMPTY))


def update(x: Any, row: int, value: Any) -> Any:
    return mb.slice_update(
        x=x, update=value, begin=[row, 0], end=[row + 1, SHAPE[1]], stride=[1, 1]
    )


def in_place(package: Executable) -> list[bool]:
    return [
        step.in_place
        for step in package._plan.block.steps
        if isinstance(step, Compute) and step.operation.kind == "slice_update"
    ]


def row_spec() -> dict[str, Any]:
    return {"row": mb.placeholder(shape=(1, SHAPE[1]), dtype=types.fp16)}


def test_an_update_that_becomes_the_state_is_done_in_place(tmp_path: Path) -> None:
    with Function({**row_spec(), **states_spec("s")}, TARGETS[8]) as function:
        old = mb.read_state(input=function.inputs["s"])
        new = update(old, 1, function.inputs["row"])
        now = mb.coreml_update_state(state=function.inputs["s"], value=new)
        function.set_outputs([mb.add(x=now, y=np.float16(1), name="y")])
    assert in_place(saved(function, tmp_path / "p.mlpackage")) == [True]


def test_an_update_of_a_value_that_is_used_again_is_a_copy(tmp_path: Path) -> None:
    with Function({**row_spec(), **states_spec("s")}, TARGETS[8]) as function:
        old = mb.read_state(input=function.inputs["s"])
        view = mb.transpose(x=old, perm=[1, 0])
        new = update(old, 1, function.inputs["row"])
        mb.coreml_update_state(state=function.inputs["s"], value=new)
        function.set_outputs([mb.relu(x=view, name="y")])
    assert in_place(saved(function, tmp_path / "p.mlpackage")) == [False]


def test_an_update_that_never_reaches_the_state_is_a_copy(tmp_path: Path) -> None:
    with Function({**row_spec(), **states_spec("s")}, TARGETS[8]) as function:
        old = mb.read_state(input=function.inputs["s"])
        function.set_outputs([mb.relu(x=update(old, 1, function.inputs["row"]), name="y")])
    package = saved(function, tmp_path / "p.mlpackage")
    assert in_place(package) == [False]
    state = package.make_state()
    package.run({"row": np.ones((1, 6), np.float16)}, state=state)
    assert not state.read("s").any()


def test_inputs_are_never_written_to(tmp_path: Path) -> None:
    specs = {"x": mb.placeholder(shape=SHAPE, dtype=types.fp16), **row_spec()}
    with Function(specs, TARGETS[8]) as function:
        new = update(function.inputs["x"], 1, function.inputs["row"])
        function.set_outputs([mb.relu(x=new, name="y")])
    package = saved(function, tmp_path / "p.mlpackage")
    assert in_place(package) == [False]


def random_function(rng: np.random.Generator) -> Function:
    """Reads, writes, views, sums and updates in any order over two states."""
    with Function({**row_spec(), **states_spec("s", "t")}, TARGETS[8]) as function:
        states = [function.inputs["s"], function.inputs["t"]]
        row = function.inputs["row"]
        values = [mb.read_state(input=state) for state in states]
        for _ in range(12):
            chosen = values[rng.integers(len(values))]
            state = states[rng.integers(2)]
            match rng.integers(6):
                case 0:
                    values.append(mb.read_state(input=state))
                case 1 | 2:
                    values.append(update(chosen, int(rng.integers(SHAPE[0])), row))
                case 3:
                    values.append(mb.coreml_update_state(state=state, value=chosen))
                case 4:
                    turned = mb.transpose(x=chosen, perm=[1, 0])
                    values.append(mb.transpose(x=turned, perm=[1, 0]))
                case 5:
                    values.append(mb.add(x=chosen, y=np.float16(1)))
        for state in states:  # coremltools does not save a program that leaves a state alone
            mb.coreml_update_state(state=state, value=values[rng.integers(len(values))])
        picked = rng.choice(len(values), 2, replace=False)
        function.set_outputs([mb.relu(x=values[i], name=f"y{n}") for n, i in enumerate(picked)])
    return function


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_give_the_same_with_and_without_updates_in_place(
    seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    package = saved(random_function(rng), tmp_path / "p.mlpackage")
    fast, slow = package.make_state(), package.make_state()
    for _ in range(3):
        row = {"row": rng.standard_normal((1, 6)).astype(np.float16)}
        left = package.run(row, state=fast)
        right = package.run(row, state=slow, keep=package.value_names)  # copies everything
        assert all(np.array_equal(left[name], right[name]) for name in left)
        assert all(np.array_equal(fast.read(name), slow.read(name)) for name in ("s", "t"))
