"""Blocks are found where the convention has them, run as it says, and their failures are told."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from usage_blocks import Block, BlockError, blocks_of, run_block

from validation.consumers.outcome import Environment

OWN_BIN = Path(sys.executable).parent
PAGE = """
<!-- consumer: coremltools -->
```python
print("a")
print("b")
```

```sh
echo unmarked
```
<!-- consumer: transformers.js in a browser, serves -->
```sh
serve
```
"""
BLOCK = Block(page="p", consumer="coremltools", serves=False, language="sh", text="echo")


def _run(folder: Path, **changes: object) -> str:
    environment = Environment(root=folder / "environments")
    return run_block(replace(BLOCK, **changes), folder, environment, OWN_BIN)


def test_marked_blocks_are_found_and_no_others() -> None:
    first, second = blocks_of("p", PAGE)
    assert (first.consumer, first.language, first.text) == (
        "coremltools",
        "python",
        'print("a")\nprint("b")',
    )
    assert (second.consumer, second.serves) == ("transformers.js in a browser", True)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<!-- consumer: nobody -->\n```sh\nls\n```\n", "no consumer is called 'nobody'"),
        ("<!-- consumer: coremltools -->\ntext\n", "no fence of python, js, sh follows"),
        ("<!-- consumer: coremltools -->\n```ruby\nls\n```\n", "no fence of python, js, sh"),
    ],
)
def test_a_marker_without_its_block_is_a_mistake(page: str, words: str) -> None:
    with pytest.raises(BlockError, match=words):
        blocks_of("p", page)


def test_a_block_runs_in_its_folder_and_its_last_line_is_the_answer(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_text("here")
    script = "print('loading')\nprint(open('photo.png').read())\nprint()"
    assert _run(tmp_path, language="python", text=script) == "here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo nothing good >&2\nfalse\necho after", "exit code 1\nnothing good"),
        ("true", "it printed nothing"),
    ],
)
def test_a_block_that_fails_or_answers_nothing_is_told(
    text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BlockError, match=words):
        _run(tmp_path, text=text)


def test_a_missing_environment_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match=r"venv-genai is not installed: run `make consumers-env`"):
        _run(tmp_path, consumer="onnxruntime-genai")


def test_what_serves_is_asked_and_then_interrupted(tmp_path: Path) -> None:
    script = (
        "import http.server\n"
        "handler = http.server.SimpleHTTPRequestHandler\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print(f'http://127.0.0.1:{server.server_port}/', flush=True)\n"
        "server.serve_forever()\n"
    )
    (tmp_path / "serve.py").write_text(script)
    address = _run(tmp_path, serves=True, text="exec python serve.py")
    assert address.startswith("http://127.0.0.1:")
    with pytest.raises(BlockError, match="ended with code 1"):
        _run(tmp_path, serves=True, text="false")
