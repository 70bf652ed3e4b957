"""Equal ingredients give one key; every difference gives another, and has words."""

import dataclasses

import pytest
from toy_stages import TextConfig

from fastvlm_compile.code_digest import CodeReader
from fastvlm_compile.errors import ToolError
from fastvlm_compile.key import Ingredients, ToolVersions, differences, gather
from fastvlm_compile.stage import Stage

STAGE = Stage(
    name="onnx.toy",
    function="toy_stages:write",
    config=TextConfig(text="a"),
    inputs={"weights": "the.weights"},
    tools=("click",),
)
OLD = Ingredients(
    stage="onnx.toy",
    function="toy_stages:write",
    config={"text": '"a"', "size": "1"},
    inputs={"weights": "d1"},
    code={"m1": "x", "m2": "y", "m3": "z", "m4": "w"},
    tools={"onnx": "1.0"},
)

CHANGES: dict[str, tuple[dict[str, object], str]] = {
    "config": ({"config": {"text": '"b"', "size": "1"}}, 'recipe key say.text: "a" -> "b"'),
    "config without a recipe key": (
        {"config": {"text": '"a"', "size": "2"}},
        "config size: 1 -> 2",
    ),
    "input": ({"inputs": {"weights": "d2"}}, "input the.weights changed"),
    "code": ({"code": {"m1": "!", "m2": "y", "m3": "z", "m4": "w"}}, "code of m1 changed"),
    "more code": ({"code": {}}, "code of m1, m2, m3 and 1 more changed"),
    "tool": ({"tools": {"onnx": "1.1"}}, "tool onnx 1.0 -> 1.1"),
    "new tool": ({"tools": {"onnx": "1.0", "numpy": "2"}}, "tool numpy none -> 2"),
    "function": ({"function": "toy_stages:join"}, "the stage itself was defined anew"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_gives_another_key_and_is_told(name: str) -> None:
    change, words = CHANGES[name]
    new = dataclasses.replace(OLD, **change)  # type: ignore[arg-type]
    assert new.key != OLD.key
    told = differences(OLD, new, stage=STAGE, recipe_keys={"text": "say.text"})
    assert told == (words,)


def test_equal_ingredients_give_one_key_in_any_order() -> None:
    turned = dataclasses.replace(OLD, code=dict(reversed(OLD.code.items())))
    assert turned.key == OLD.key
    assert differences(OLD, turned, stage=STAGE, recipe_keys={}) == ()
    assert len(OLD.key) == 64


def test_ingredients_are_gathered_from_config_code_inputs_and_tools() -> None:
    code = CodeReader(packages=("toy_stages",))
    found = gather(STAGE, input_digests={"weights": "d"}, code=code, tools=ToolVersions())
    assert found.config == {"text": '"a"'}
    assert found.inputs == {"weights": "d"}
    assert set(found.code) == {"toy_stages"}
    assert set(found.tools) == {"click", "python"}


def test_a_missing_tool_is_told_with_its_stage() -> None:
    stage = dataclasses.replace(STAGE, tools=("no-such-distribution",))
    with pytest.raises(ToolError, match=r"^the stage onnx\.toy needs no-such-distribution, which"):
        ToolVersions().of(stage)
