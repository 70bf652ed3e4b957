"""`push`: what arrives at a hub is the bundle; what goes wrong is told."""

import json
import socket
import sys
from pathlib import Path

import pytest
from hub_server import Hub

from fastvlm_compile.cli import run

Capture = pytest.CaptureFixture[str]
NUM_LARGE = 3


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def told(capsys: Capture) -> str:
    """The last error on stderr, with its hint."""
    return "error: " + capsys.readouterr().err.rpartition("error: ")[2]


class TestArrived:
    def test_every_file_arrives_byte_for_byte_in_one_commit(
        self, hub: Hub, bundle: Path, capsys: Capture
    ) -> None:
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 0
        assert content_of(bundle) == {k: v for k, v in hub.files.items() if k != ".gitattributes"}
        assert hub.messages == ["Upload tiny"]
        assert hub.objects_received == NUM_LARGE
        assert not hub.private
        out, err = capsys.readouterr()
        assert out.endswith(f"/me/tiny/commit/{1:040x}\n")
        assert "8 files" in err

    def test_a_second_push_sends_nothing(self, hub: Hub, bundle: Path, capsys: Capture) -> None:
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 0
        assert run(["push", str(bundle), "--repo", "me/tiny", "--json"]) == 0
        assert hub.objects_received == NUM_LARGE
        assert len(hub.messages) == 1
        assert not json.loads(capsys.readouterr().out.partition("\n")[2])["changed"]

    def test_a_push_that_was_cut_off_goes_on(self, hub: Hub, bundle: Path, capsys: Capture) -> None:
        hub.refuse["commit"] = 403
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 1
        assert "may not write there (403): because of the test" in " ".join(told(capsys).split())
        assert set(hub.files) == {".gitattributes"}
        hub.refuse.clear()
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 0
        assert hub.objects_received == NUM_LARGE

    def test_options_name_the_branch_the_message_and_the_privacy(
        self, hub: Hub, bundle: Path
    ) -> None:
        options = ["--revision", "dev", "--message", "first", "--private"]
        assert run(["push", str(bundle), "--repo", "me/tiny", *options]) == 0
        assert hub.private
        assert hub.messages == ["first"]
        assert set(hub.branches["dev"]) == {*content_of(bundle), ".gitattributes"}
        assert set(hub.files) == {".gitattributes"}

    def test_files_of_others_are_left_alone_and_told(
        self, hub: Hub, bundle: Path, capsys: Capture
    ) -> None:
        hub.exists = True
        hub.branches["main"] = {"old.bin": b"old"}
        hub.commits.append("0" * 40)
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 0
        assert "1 files there that are not of this bundle: old.bin" in capsys.readouterr().err
        assert hub.files["old.bin"] == b"old"


class TestNothingSent:
    def test_a_dry_run_lists_the_files_without_network_and_token(
        self, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        monkeypatch.setattr(socket, "socket", None)
        assert run(["push", str(bundle), "--repo", "me/tiny", "--dry-run"]) == 0
        *lines, total = capsys.readouterr().out.splitlines()
        assert {line.split()[-1] for line in lines} == set(content_of(bundle))
        assert "  102.4 kB  onnx/decoder_model_merged.onnx_data" in "  " + "\n  ".join(lines)
        assert total.endswith("8 files in all, to me/tiny")
        assert run(["push", str(bundle), "--repo", "me/tiny", "--dry-run", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        sizes = {file["path"]: file["size_bytes"] for file in listed["files"]}
        assert sizes == {path: len(content) for path, content in content_of(bundle).items()}
        assert listed["size_bytes"] == sum(sizes.values())

    def test_a_broken_bundle_is_refused(self, hub: Hub, bundle: Path, capsys: Capture) -> None:
        (bundle / "config.json").write_bytes(b"{ \n")
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 1
        assert "1 problem found, nothing was uploaded: changed: config.json" in told(capsys)
        assert not hub.exists

    def test_a_public_repository_is_not_written_to_as_a_private_one(
        self, hub: Hub, bundle: Path, capsys: Capture
    ) -> None:
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 0
        assert run(["push", str(bundle), "--repo", "me/tiny", "--private"]) == 1
        assert "is there already and is public; nothing was uploaded" in told(capsys)

    @pytest.mark.parametrize("repo", ["tiny", "me/tiny/more", "me/", "/tiny", "me/ti ny"])
    def test_a_wrong_name_is_a_mistake_of_the_caller(
        self, repo: str, bundle: Path, capsys: Capture
    ) -> None:
        assert run(["push", str(bundle), "--repo", repo]) == 2
        assert "is not OWNER/NAME" in capsys.readouterr().err

    def test_a_name_that_hubs_do_not_allow_is_one_too(
        self, hub: Hub, bundle: Path, capsys: Capture
    ) -> None:
        assert run(["push", str(bundle), "--repo", "me/ti--ny"]) == 2
        assert "me/ti--ny: this is no name of a repository" in told(capsys)

    def test_an_address_without_its_protocol_is_one_too(
        self, bundle: Path, capsys: Capture
    ) -> None:
        assert run(["push", str(bundle), "--repo", "me/tiny", "--endpoint", "hub.local"]) == 2
        assert "it starts with http:// or https://" in capsys.readouterr().err


class TestRefused:
    def test_no_token(
        self, hub: Hub, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 2
        assert told(capsys).startswith("error: there is no token of the hub\nhint: `hf auth login`")

    def test_no_huggingface_hub(
        self, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 2
        assert "hint: pip install 'fastvlm-compile[hub]'" in told(capsys)

    def test_a_token_that_the_hub_does_not_know(
        self, hub: Hub, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 1
        said = told(capsys)
        assert "does not know the token (401)" in said
        assert "hf_of_nobody" not in said

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (403, "the token may not write there (403)"),
            (404, "there is no such owner or repository (404)"),
            (500, "answered 500: "),
        ],
    )
    def test_a_refusal_of_the_repository(
        self, status: int, words: str, hub: Hub, bundle: Path, capsys: Capture
    ) -> None:
        hub.refuse["create"] = status
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 1
        said = told(capsys)
        assert words in said
        assert "hint: " in said

    def test_a_refusal_of_a_large_file(self, hub: Hub, bundle: Path, capsys: Capture) -> None:
        hub.refuse["object"] = 400
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 1
        assert "answered 400: " in told(capsys)
        assert set(hub.files) == {".gitattributes"}

    def test_nobody_listens(self, hub: Hub, bundle: Path, capsys: Capture) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{held.getsockname()[1]}"
            command = ["push", str(bundle), "--repo", "me/tiny", "--endpoint", address]
            assert run(command) == 1
        assert f"me/tiny: the upload to {address} failed: " in told(capsys)

    def test_a_file_that_the_repository_ignores_is_missed(
        self, hub: Hub, bundle: Path, capsys: Capture
    ) -> None:
        hub.ignored = "goldens/scene/image.png"
        assert run(["push", str(bundle), "--repo", "me/tiny"]) == 1
        assert "goldens/scene/image.png is missing from the repository" in told(capsys)
