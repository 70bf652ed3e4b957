"""What the demo's server serves: a table of addresses, made once, and nothing beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastvlm_compile.bundle.layout import shipped_of
from fastvlm_compile.bundle.manifest import Manifest, read_manifest
from fastvlm_compile.demo.assets import WASM, WASM_MJS, find_assets
from fastvlm_compile.errors import BundleError
from validation.consumers.dtypes import GRAPHS, dtypes_of

MAX_NEW_TOKENS = 256
_PAGE = ("index.html", "demo.css", "demo.js", "worker.js")
# What they are called in transformers.js.
_ALIASES = {"q8": "int8", "q4": "int4"}
_FEWEST_BITS_FIRST = ("int4", "int8", "fp16", "fp32")
# A graph that keeps its weights elsewhere is smaller than this.
_BARE_GRAPH_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Site:
    """Address -> file or content. An address that is not in it does not exist."""

    variant: str
    files: Mapping[str, Path]
    contents: Mapping[str, bytes]


def make_site(bundle: Path, *, variant: str = "", assets: Path | None = None) -> Site:
    """The page, the bundle's files that it needs, and transformers.js.

    Args:
        bundle: folder of a bundle.
        variant: of its ONNX graphs, such as `int4` or `q4`; empty for that of the fewest bits.
        assets: a `node_modules` folder.

    Raises:
        BundleError: it is damaged, or has no such variant for transformers.js.
        ToolError: transformers.js is not installed.
    """
    manifest = read_manifest(bundle)
    usable = {
        each.variant: (each, dtypes)
        for each in shipped_of(manifest.variants, "onnx")
        if (dtypes := dtypes_of(each.files)) is not None
    }
    name = _chosen(bundle, tuple(usable), variant)
    chosen, dtypes = usable[name]
    root = [file.path for file in manifest.files if "/" not in file.path]
    graphs = [path for path in chosen.files if PurePosixPath(path).name.startswith(GRAPHS)]
    served = {path: bundle / path for path in (*root, *graphs)}
    for path in served.values():
        if not path.is_file():
            raise BundleError(f"{path}: the file is missing", hint="`fastvlm-compile verify` it")
    page = Path(__file__).parent
    files = {f"/{each}": page / each for each in _PAGE}
    files["/"] = page / "index.html"
    files |= {f"/model/{path}": file for path, file in served.items()}
    files |= {f"/assets/{asset}": file for asset, file in find_assets(assets).items()}
    settings = _settings(manifest, name, graphs, dtypes, bundle)
    return Site(
        variant=name,
        files=files,
        contents={"/settings.json": json.dumps(settings, indent=1).encode()},
    )


def _chosen(bundle: Path, usable: tuple[str, ...], variant: str) -> str:
    if not usable:
        raise BundleError(
            f"{bundle}: no ONNX variant that transformers.js has a name for",
            hint=f"build it with one of {', '.join(_FEWEST_BITS_FIRST)} under targets.onnx",
        )
    wanted = _ALIASES.get(variant, variant) or next(
        name for name in _FEWEST_BITS_FIRST if name in usable
    )
    if wanted not in usable:
        raise BundleError(
            f"{bundle}: no variant {variant!r} that a browser can load",
            hint=f"known: {', '.join(usable)}",
        )
    return wanted


def _settings(
    manifest: Manifest,
    variant: str,
    graphs: Sequence[str],
    dtypes: Mapping[str, str],
    bundle: Path,
) -> dict[str, object]:
    contract = manifest.contract
    return {
        "name": manifest.name,
        "variant": variant,
        "dtype": dtypes,
        "fit": contract.fit,
        "image_size": contract.image_size,
        "context_length": contract.context_length,
        "max_new_tokens": MAX_NEW_TOKENS,
        "size_bytes": sum((bundle / path).stat().st_size for path in graphs),
        "shared_data": _shared_data(graphs, bundle),
        "wasm": {
            "mjs": f"assets/{PurePosixPath(WASM_MJS).name}",
            "wasm": f"assets/{PurePosixPath(WASM).name}",
        },
    }


def _shared_data(graphs: Sequence[str], bundle: Path) -> list[str]:
    """The decoder's files of weights that the embedding's graph names, being tied to it."""
    _, embedding, decoder = GRAPHS
    names = [PurePosixPath(path).name for path in graphs]
    graph = next(name for name in names if name.startswith(embedding) and name.endswith(".onnx"))
    path = bundle / "onnx" / graph
    if path.stat().st_size > _BARE_GRAPH_BYTES:
        return []
    content = path.read_bytes()
    data = sorted(name for name in names if name.startswith(decoder) and ".onnx_data" in name)
    return [name for name in data if name.encode() in content]
