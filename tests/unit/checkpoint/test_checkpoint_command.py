"""`fastvlm-compile checkpoint ...` as a user types it."""

import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from fastvlm_compile.cli import run


def test_inspect_prints_a_table_and_json(random_checkpoint, capsys) -> None:
    assert run(["checkpoint", "inspect", str(random_checkpoint)]) == 0
    out = capsys.readouterr().out
    assert "layout        apple" in out
    assert "image         128 pixels, 4 tokens" in out
    assert "problem" not in out
    assert run(["checkpoint", "inspect", str(random_checkpoint), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is True
    assert found["problems"] == []
    assert found["parameters"]["total"] > found["parameters"]["language"]


def test_inspect_exits_1_for_an_unusable_checkpoint_and_2_for_none(
    make_checkpoint, tmp_path, capsys
) -> None:
    directory = make_checkpoint()
    path = directory / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path)
    assert run(["checkpoint", "inspect", str(directory)]) == 1
    captured = capsys.readouterr()
    assert "problem       missing: model.norm.weight" in captured.out
    assert "cannot be used" in captured.err
    assert run(["checkpoint", "inspect", str(directory), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["usable"] is False
    assert run(["checkpoint", "inspect", str(tmp_path / "nowhere")]) == 2
    assert "no such checkpoint directory" in capsys.readouterr().err


def test_a_harmless_problem_is_a_note(make_checkpoint, capsys) -> None:
    directory = make_checkpoint()
    (directory / "adapter_config.json").write_text("{}")
    assert run(["checkpoint", "inspect", str(directory)]) == 0
    assert "note          a LoRA adapter" in capsys.readouterr().out


def test_convert_writes_the_other_layout_once(random_checkpoint, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    command = ["checkpoint", "convert", str(random_checkpoint), str(out), "--to", "transformers"]
    assert run(command) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"wrote {out}" in captured.err
    assert json.loads((out / "config.json").read_text())["model_type"] == "fast_vlm"
    assert run(command) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*command, "--force"]) == 0


def test_converting_onto_itself_is_refused(make_checkpoint, capsys) -> None:
    directory = make_checkpoint()
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    for force in ([], ["--force"]):
        command = ["checkpoint", "convert", str(directory), str(directory), "--to", "apple"]
        assert run([*command, *force]) == 2
    assert before == {path.name: path.read_bytes() for path in directory.iterdir()}
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_size_lists_the_known_ones(tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run(["checkpoint", "synthesize", "--size", "3b", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "'3b'" in told
    assert "0.5b, 1.5b, 7b" in told
    assert not out.exists()


def test_synthesize_asks_for_a_free_folder_and_room_first(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "mine").write_text("mine")
    command = ["checkpoint", "synthesize", "--size", "7b", "--out", str(tmp_path)]
    assert run(command) == 2
    assert "not empty" in capsys.readouterr().err
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert run([*command[:-1], str(tmp_path / "out")]) == 2
    assert "GB are needed, 1.0 GB are free" in capsys.readouterr().err


def test_synthesize_publishes_a_checkpoint(tiny_config, tmp_path, capsys, monkeypatch) -> None:
    import fastvlm_compile.checkpoint.synthesize as module

    monkeypatch.setattr(module, "plan_size", lambda size, layout: module.plan(tiny_config, layout))
    out = tmp_path / "out"
    command = ["checkpoint", "synthesize", "--size", "0.5b", "--seed", "3", "--out", str(out)]
    assert run(command) == 0
    assert f"wrote {out}" in capsys.readouterr().err
    assert run(["checkpoint", "inspect", str(out), "--deep"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("command", [[], ["synthesize"], ["inspect"], ["convert"]])
def test_help_imports_nothing_heavy(command) -> None:
    code = (
        "import sys\n"
        "from fastvlm_compile.cli import run\n"
        f"assert run(['checkpoint', *{command!r}, '--help']) == 0\n"
        "heavy = {'numpy', 'torch', 'safetensors', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
