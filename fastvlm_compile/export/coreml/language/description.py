"""`language.json`: what a runtime has to know of the decoder's packages, and nothing else.

```
{
  "schema": 1,
  "precision": "float16",
  "context_length": 2048,      promised to the user: prompt and answer together
  "cache_length": 2048,        S: position + rows of a call must not exceed it
  "prefill_chunk": 64,         T
  "hidden_size": 896, "vocab_size": 151936,
  "num_layers": 24, "num_kv_heads": 2, "head_dim": 64,
  "chunks": [                  in the order of execution
    {
      "package": "decoder_1_of_2.mlpackage",
      "layers": {"first": 0, "count": 12},        or null
      "vocabulary": {"first": 0, "count": 151936} or null,
      "cache": [{"name": "key_cache", "updated": null, "dtype": "float16", "shape": [...]}, ...],
      "functions": {"prefill": {"length": 64, "inputs": [...], "outputs": [...]}, "decode": {...}}
    }, ...
  ]
}
```

`updated` is null for a cache that is the package's state, else the output that continues the input
of this name. What the inputs and outputs mean: `interface.py`.
"""

import dataclasses
import json
from pathlib import Path

from fastvlm_compile.export.coreml.language.interface import (
    DECODE,
    PREFILL,
    FunctionName,
    Tensor,
    cache,
    interface,
    updated_name,
)
from fastvlm_compile.export.coreml.language.plan import Chunk, DecoderConfig, Span, package_name

FILE = "language.json"
SCHEMA = 1


def write_description(config: DecoderConfig, chunks: tuple[Chunk, ...], out: Path) -> Path:
    """Write `language.json` into the folder of the packages."""
    text = config.text
    content = {
        "schema": SCHEMA,
        "precision": config.precision,
        "context_length": config.context_length,
        "cache_length": config.cache_length,
        "prefill_chunk": config.prefill_chunk,
        "hidden_size": text.hidden_size,
        "vocab_size": text.vocab_size,
        "num_layers": text.num_hidden_layers,
        "num_kv_heads": text.num_key_value_heads,
        "head_dim": text.head_dim,
        "chunks": [_chunk(chunk, config, len(chunks)) for chunk in chunks],
    }
    path = out / FILE
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _chunk(chunk: Chunk, config: DecoderConfig, num_chunks: int) -> dict[str, object]:
    return {
        "package": package_name(chunk, num_chunks),
        "layers": _span(chunk.layers),
        "vocabulary": _span(chunk.vocabulary),
        "cache": [
            {
                "name": tensor.name,
                "updated": None if config.stateful else updated_name(tensor.name),
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
            }
            for tensor in cache(chunk, config)
        ],
        "functions": {name: _function(chunk, config, name) for name in (PREFILL, DECODE)},
    }


def _function(chunk: Chunk, config: DecoderConfig, name: FunctionName) -> dict[str, object]:
    promised = interface(chunk, config, name)
    return {
        "length": promised.length,
        "inputs": [_tensor(tensor) for tensor in promised.inputs],
        "outputs": [_tensor(tensor) for tensor in promised.outputs],
    }


def _tensor(tensor: Tensor) -> dict[str, object]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _span(span: Span | None) -> dict[str, int] | None:
    return None if span is None else dataclasses.asdict(span)
