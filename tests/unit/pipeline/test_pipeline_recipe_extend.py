"""`extend` merges mappings and replaces the rest; a place is in the file that holds the key."""

from pathlib import Path

import pytest

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.yaml_source import MappingNode, ScalarNode, SequenceNode, load_tree


def _plain(node: object) -> object:
    match node:
        case MappingNode():
            return {key: _plain(entry.node) for key, entry in node.entries.items()}
        case SequenceNode():
            return [_plain(item) for item in node.items]
        case ScalarNode():
            return node.value
    raise AssertionError(node)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared").mkdir()
    return Path()


def test_mappings_are_merged_deep_and_lists_replaced(folder: Path) -> None:
    (folder / "shared" / "base.yaml").write_text("a: {x: 1, y: {z: 2}}\nb: [1, 2]\nc: 3\n")
    (folder / "top.yaml").write_text("extend: shared/base.yaml\na: {y: {w: 5}}\nb: [9]\nd: 4\n")
    assert _plain(load_tree(folder / "top.yaml")) == {
        "a": {"x": 1, "y": {"z": 2, "w": 5}},
        "b": [9],
        "c": 3,
        "extend": "shared/base.yaml",
        "d": 4,
    }


def test_null_takes_an_inherited_key_away(folder: Path) -> None:
    (folder / "base.yaml").write_text("a: {x: 1, y: 2}\n")
    (folder / "top.yaml").write_text("extend: base.yaml\na: {x: null}\n")
    assert _plain(load_tree(folder / "top.yaml")) == {"a": {"y": 2}, "extend": "base.yaml"}


def test_bases_are_looked_for_beside_the_file_that_names_them(folder: Path) -> None:
    (folder / "shared" / "base.yaml").write_text("extend: root.yaml\na: 1\n")
    (folder / "shared" / "root.yaml").write_text("b: 2\n")
    (folder / "top.yaml").write_text("extend: shared/base.yaml\n")
    assert _plain(load_tree(folder / "top.yaml")) == {
        "b": 2,
        "a": 1,
        "extend": "shared/base.yaml",
    }


def test_a_place_is_in_the_file_that_holds_the_key(folder: Path) -> None:
    (folder / "shared" / "base.yaml").write_text("# a comment\na:\n    x: 1\n")
    (folder / "top.yaml").write_text("extend: shared/base.yaml\na:\n  y: 2\n")
    inner = load_tree(folder / "top.yaml").entries["a"].node
    assert isinstance(inner, MappingNode)
    assert str(inner.entries["x"].place) == "shared/base.yaml:3:5"
    assert str(inner.entries["y"].place) == "top.yaml:3:3"


def test_a_circle_is_an_error_that_shows_it(folder: Path) -> None:
    (folder / "a.yaml").write_text("extend: b.yaml\n")
    (folder / "b.yaml").write_text("x: 1\nextend: shared/../a.yaml\n")
    with pytest.raises(RecipeError) as caught:
        load_tree(folder / "a.yaml")
    assert caught.value.message == (
        "b.yaml:2:9: extend goes round in a circle: a.yaml -> b.yaml -> a.yaml"
    )


def test_a_missing_base_is_told_where_it_is_named(folder: Path) -> None:
    (folder / "top.yaml").write_text("x: 1\nextend: nowhere.yaml\n")
    with pytest.raises(RecipeError) as caught:
        load_tree(folder / "top.yaml")
    assert caught.value.message == "top.yaml:2:9: extend: there is no file nowhere.yaml"


def test_scalars_follow_the_core_rules_of_yaml_1_2(folder: Path) -> None:
    text = (
        "[1e-4, .5, 10, -3, +4, 010, true, no, on, null, ~, '1', \"true\", 1:30, 2001-01-01, .inf]"
    )
    (folder / "top.yaml").write_text(f"a: {text}\n")
    tree = _plain(load_tree(folder / "top.yaml"))
    assert tree == {
        "a": [
            1e-4,
            0.5,
            10,
            -3,
            4,
            10,
            True,
            "no",
            "on",
            None,
            None,
            "1",
            "true",
            "1:30",
            "2001-01-01",
            float("inf"),
        ]
    }
