"""Where transformers.js and its WebAssembly lie on this machine: nothing comes from the network."""

from pathlib import Path

from fastvlm_compile.errors import ToolError

TRANSFORMERS_JS = "@huggingface/transformers/dist/transformers.min.js"
_RUNTIME = "onnxruntime-web/dist/ort-wasm-simd-threaded"
# Not the larger `.asyncify` build that transformers.js takes by default: made for WebGPU, it has no
# CPU kernel of GatherBlockQuantized, which quantized embeddings are.
WASM_MJS, WASM = f"{_RUNTIME}.mjs", f"{_RUNTIME}.wasm"
_INSTALLED_AT = Path(".consumers/node/node_modules")


def find_assets(given: Path | None) -> dict[str, Path]:
    """Name under `/assets/` -> file.

    Args:
        given: a `node_modules` folder; without one, that of `make consumers-env`, here or in the
            checkout that this program runs from.

    Raises:
        ToolError: the packages are not there.
    """
    checkout = Path(__file__).resolve().parents[2]
    folders = [given] if given is not None else [_INSTALLED_AT, checkout / _INSTALLED_AT]
    wanted = (TRANSFORMERS_JS, WASM_MJS, WASM)
    for folder in folders:
        if all((folder / name).is_file() for name in wanted):
            return {Path(name).name: folder / name for name in wanted}
    missing = next(name for name in wanted if not (folders[0] / name).is_file())
    raise ToolError(
        f"{folders[0] / missing} is not there: the demo needs transformers.js and onnxruntime-web",
        hint="`make consumers-env`, or `npm install @huggingface/transformers@4.3.1` somewhere and "
        "--assets <there>/node_modules",
    )
