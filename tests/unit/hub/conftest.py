"""A small whole bundle, a hub on 127.0.0.1, and a token for it."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from hub_server import TOKEN, Handler, Hub
from huggingface_hub import constants

from fastvlm_compile.bundle.manifest import MANIFEST_NAME, InputContract, Manifest, Provenance
from fastvlm_compile.tree_digest import StatMemo, read_tree


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Reached as huggingface_hub's own hub, over the protocol that needs no other server."""
    state = Hub()
    handler = type("HandlerOfTest", (Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", state.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Large files, small ones and an empty one, in folders."""
    folder = tmp_path / "tiny"
    for name, content in {
        "README.md": b"---\nlicense: other\n---\n# tiny\n",
        "config.json": b"{}\n",
        "empty.txt": b"",
        "goldens/scene/image.png": bytes(range(200)),
        "onnx/decoder_model_merged.onnx": b"\x08\x0adecoder" * 30,
        "onnx/decoder_model_merged.onnx_data": bytes(range(256)) * 400,
        "torch/model.safetensors": bytes(reversed(range(256))) * 200,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    contract = InputContract(
        image_size=128, fit="pad", image_position="before", context_length=64, tokens_per_image=4
    )
    manifest = Manifest(
        name="tiny",
        contract=contract,
        variants=(),
        provenance=Provenance(checkpoint_digest="0", source_revision="0", tools={}, recipe=""),
        files=read_tree(folder, StatMemo(), hidden=True).files,
    )
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return folder
