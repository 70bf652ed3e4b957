"""The second fetch, the killed fetch and the command line."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fetch_server import FILES, RELEASE, left_in, make_archive

from fastvlm_compile.cli import run
from fastvlm_compile.errors import FetchError, OutputError, VerificationError
from fastvlm_compile.fetch.names import RELEASES
from fastvlm_compile.fetch.part import open_part

PART = f"{RELEASE.folder}.zip.part"


def test_what_was_fetched_is_verified_and_not_fetched_again(run_fetch, served) -> None:
    first = run_fetch()
    second = run_fetch()
    assert second.ending == "already there"
    assert second.ledger == first.ledger
    assert len(served.seen) == 1


def test_every_change_of_a_fetched_checkpoint_is_named(run_fetch, tmp_path) -> None:
    run_fetch()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "vocab.json").unlink()
    (tmp_path / "model" / "more").write_text("")
    with pytest.raises(VerificationError) as caught:
        run_fetch()
    assert caught.value.message.splitlines()[1:] == [
        "  vocab.json is missing",
        "  more was added",
        "  config.json was changed",
    ]
    assert run_fetch(replace=True).ending == "fetched"
    assert run_fetch().ending == "already there"


def test_a_changed_archive_names_both_digests_and_is_taken_when_told(
    run_fetch, served, tmp_path
) -> None:
    run_fetch()
    before = hashlib.sha256(served.content).hexdigest()
    served.content = make_archive(FILES | {"vocab.json": b'{"a": 1}'})
    served.etag = '"two"'
    now = hashlib.sha256(served.content).hexdigest()
    with pytest.raises(FetchError) as caught:
        run_fetch(replace=True)
    assert before in caught.value.message
    assert now in caught.value.message
    assert "--accept-changed" in caught.value.hint
    assert (tmp_path / "model" / "vocab.json").read_bytes() == b"{}"
    taken = run_fetch(replace=True, accept_changed=True)
    assert taken.ledger.archive_sha256 == now
    assert served.seen == [None, None, f"bytes={len(served.content)}-"]
    assert (tmp_path / "model" / "vocab.json").read_bytes() == b'{"a": 1}'
    assert left_in(tmp_path) == ["model", "model.fetched.json"]


def test_a_folder_that_was_not_fetched_is_left_alone(run_fetch, served, tmp_path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("")
    for replace in (False, True):
        with pytest.raises(OutputError):
            run_fetch(replace=replace)
    assert left_in(tmp_path / "model") == ["mine"]
    assert served.seen == [], "told before anything is fetched"


def test_a_folder_of_another_release_is_not_taken_for_this_one(run_fetch) -> None:
    run_fetch()
    with pytest.raises(OutputError, match=r"holds 0\.5b-stage3, not 7b-stage2"):
        run_fetch(release=RELEASES["7b-stage2"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 9}'])
def test_a_damaged_ledger_is_told(run_fetch, tmp_path, text) -> None:
    (tmp_path / "model.fetched.json").write_text(text)
    with pytest.raises(FetchError, match="not a ledger"):
        run_fetch()


def test_two_fetches_of_one_archive_do_not_mix(run_fetch, tmp_path) -> None:
    with (
        open_part(tmp_path / PART),
        pytest.raises(FetchError, match="another process fetches this"),
    ):
        run_fetch()


def _command(base_url: str, folder: Path, *more: str) -> list[str]:
    where = ["--to", str(folder), "--base-url", base_url]
    return ["checkpoint", "fetch", "0.5b-stage3", *where, *more]


def test_a_killed_fetch_leaves_only_the_part_and_the_next_one_goes_on(
    served, base_url, tmp_path
) -> None:
    killed = threading.Event()
    served.cut_after = [50_000]
    served.after_request = lambda number: killed.wait(60) and None
    command = [sys.executable, "-m", "fastvlm_compile", *_command(base_url, tmp_path / "model")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ}) as process:
        while not (tmp_path / PART).is_file() or (tmp_path / PART).stat().st_size < 50_000:
            assert process.poll() is None
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGKILL)
    killed.set()
    assert left_in(tmp_path) == [PART, f"{PART}.json"]
    assert run(_command(base_url, tmp_path / "model")) == 0
    assert served.seen == [None, "bytes=50000-"]
    assert left_in(tmp_path) == ["model", "model.fetched.json"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_the_command_tells_in_words_and_in_json(served, base_url, tmp_path, capsys) -> None:
    folder = tmp_path / "deep" / "model"
    assert run(_command(base_url, folder, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ending"] == "fetched"
    assert found["archive_sha256"] == hashlib.sha256(served.content).hexdigest()
    assert set(found["files"]) == set(FILES)
    assert run(_command(base_url, folder)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{folder}\n"
    assert "already there: 3 files verified" in captured.err


def test_the_command_refuses_an_unknown_name_and_lists_the_known_ones(capsys) -> None:
    assert run(["checkpoint", "fetch", "3b-stage3"]) == 2
    assert "'1.5b-stage2'" in capsys.readouterr().err
