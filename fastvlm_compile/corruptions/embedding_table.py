"""The quantized `embedding.safetensors` of the Core ML form: drafts, faults, and reading it."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_compile.corruptions.artifacts import NotTheSameError
from fastvlm_compile.corruptions.fault import Context, Fault
from fastvlm_compile.corruptions.safetensors_draft import Arrays, SafetensorsDraft, raw
from fastvlm_compile.corruptions.stored import Draft, StoredTensor
from fastvlm_compile.export.coreml.compress.embedding import METADATA, check_table
from fastvlm_compile.quantize.tensor import Floats
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS
from validation.runtimes.embedding_table import TENSOR, EmbeddingTable


def table_draft(path: Path, quantized: QuantizedWeights) -> SafetensorsDraft:
    """The table's arrays, open for changes."""
    bits = quantized.entries[EMBED_TOKENS].scheme.bits

    def find(arrays: Arrays, header: dict[str, Any]) -> Mapping[str, StoredTensor]:
        del header
        nothing = np.empty((0, 0), dtype=np.float16)
        parts = {name.removeprefix(f"{TENSOR}."): array for name, array in arrays.items()}
        scales = parts.get("scales", nothing)
        stored = StoredTensor(
            label=EMBED_TOKENS,
            names=(EMBED_TOKENS,),
            bits=bits,
            codes=raw(parts["codes"]),
            scales=scales.reshape(len(scales), -1) if scales.size else nothing,
            zero_points=raw(parts.get("zero_points", nothing)),
            tables=parts.get("tables", nothing),
        )
        return {EMBED_TOKENS: stored}

    return SafetensorsDraft(path, find)


def table_faults(draft: Draft, file: str) -> Iterable[Fault]:
    """Of what the header says of the table."""
    said = json.loads(draft.program["__metadata__"][METADATA])
    for key, new in (("block_size", 16), ("group_size", 4), ("bits", 8), ("symmetric", False)):
        if said.get(key, new) != new:
            yield Fault(kind="header of the table", file=file, where=key, change=_saying(key, new))


def check_rows(path: Path, quantized: QuantizedWeights) -> None:
    """Every row, by the reader of the runtimes.

    Raises:
        UserError: it is no table, or not the one that was quantized.
    """
    table, tensor = EmbeddingTable(path), quantized.read(EMBED_TOKENS)
    if table.shape != tensor.shape:
        raise NotTheSameError(f"{path.name}: the table is {table.shape}, not {tensor.shape}")
    check_table(path, tensor)


def rows_of(path: Path) -> Floats:
    """All rows."""
    table = EmbeddingTable(path)
    return table.look_up(np.arange(table.shape[0]))


def _saying(key: str, new: object) -> Callable[[Draft, Context], str]:
    def change(draft: Draft, context: Context) -> str:
        del context
        said = json.loads(draft.program["__metadata__"][METADATA])
        draft.program["__metadata__"][METADATA] = json.dumps(said | {key: new})
        return f"{said[key]} -> {new}"

    return change
