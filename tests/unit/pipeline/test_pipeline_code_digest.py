"""A stage's key changes with every file of ours that it uses, and with no other."""

import sys
from pathlib import Path

import pytest

from fastvlm_compile.code_digest import CodeReader

FILES = {
    "__init__.py": "def __getattr__(name):\n    from codetoy import lazy_door\n    return 1\n",
    "stage.py": (
        "from typing import TYPE_CHECKING\n"
        "import json\n"
        "from codetoy.deep import leaf\n"
        "if TYPE_CHECKING:\n    from codetoy import only_types\n"
        "def f():\n"
        "    if True:\n"
        "        from .lazy import thing\n"
        "    try:\n        import codetoy.guarded\n"
        "    except ImportError:\n        import codetoy.fallback\n"
    ),
    "deep/__init__.py": "",
    "deep/leaf.py": "from .. import sibling\n",
    "deep/table.json": "{}",
    "deep/data/words.txt": "words",
    "sibling.py": "from codetoy.stage import f\n",
    "lazy.py": "thing = 1\n",
    "guarded.py": "",
    "fallback.py": "",
    "only_types.py": "",
    "lazy_door.py": "",
    "stranger.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "codetoy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "codetoy"


def _digests(module: str = "codetoy.stage") -> dict[str, str]:
    return dict(CodeReader(packages=("codetoy",)).digests(module))


def test_everything_that_can_be_imported_is_found_and_nothing_is_imported(package: Path) -> None:
    assert set(_digests()) == {
        "codetoy",
        "codetoy.stage",
        "codetoy.deep",
        "codetoy.deep.leaf",
        "codetoy.deep/table.json",
        "codetoy.deep/data/words.txt",
        "codetoy.sibling",
        "codetoy.lazy",
        "codetoy.guarded",
        "codetoy.fallback",
    }
    assert not [name for name in sys.modules if name.startswith("codetoy")]


@pytest.mark.parametrize("name", ["stage.py", "deep/leaf.py", "lazy.py", "deep/data/words.txt"])
def test_a_change_of_a_reached_file_shows(package: Path, name: str) -> None:
    before = _digests()
    (package / name).write_text((package / name).read_text() + "\n")
    after = _digests()
    assert len([key for key in before if before[key] != after[key]]) == 1


@pytest.mark.parametrize("name", ["stranger.py", "only_types.py", "lazy_door.py"])
def test_a_change_of_a_file_that_is_not_reached_does_not(package: Path, name: str) -> None:
    before = _digests()
    (package / name).write_text("changed = 1\n")
    assert _digests() == before


def test_a_package_without_init_is_read_as_well(package: Path) -> None:
    (package / "__init__.py").unlink()
    assert "codetoy.deep.leaf" in _digests()


def test_a_stage_that_does_not_exist_is_an_error(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"no module codetoy\.nothing"):
        _digests("codetoy.nothing")


def test_the_stages_of_the_project_do_not_depend_on_the_pipeline() -> None:
    """Else every change of a message would build everything anew."""
    reader = CodeReader()
    names = ("pipeline", "runner", "cli", "plan", "recipe", "store", "console")
    pipeline = {f"fastvlm_compile.{name}" for name in names}
    for name in ("checkpoint", "coreml", "coreml_language", "golden", "onnx", "parity"):
        reached = reader.digests(f"fastvlm_compile.stages.{name}")
        assert not pipeline & reached.keys()
