"""What a consumer of a bundle's ONNX graphs must answer, variant by variant.

float32 graphs must say what the reference says. What fewer bits cost is a matter of the bundle's
gates and not of a consumer, which must say what onnxruntime says here from the same files.
"""

import json
from dataclasses import replace
from pathlib import Path

from reference.tokenizer import load_tokenizer
from validation.answer import answer
from validation.consumers.golden_cases import ConsumerCase, ConsumerCases
from validation.golden_file import open_goldens
from validation.runtimes.onnxruntime_runtime import GraphPaths, OnnxRuntime

GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")


def onnx_files(bundle: Path) -> dict[str, tuple[str, ...]]:
    """Each ONNX variant that the bundle holds -> its files, by the manifest.

    Raises:
        OSError, ValueError, KeyError: there is no manifest, or it is damaged.
    """
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return {
        entry["variant"]: tuple(entry["files"])
        for entry in manifest["variants"]
        if entry["target"] == "onnx" and entry["files"]
    }


def graph_paths(bundle: Path, files: tuple[str, ...]) -> GraphPaths:
    """The three graphs among the files of a variant."""
    found = {
        graph: next(
            bundle / name
            for name in files
            if name.startswith(f"onnx/{graph}") and name.endswith(".onnx")
        )
        for graph in GRAPHS
    }
    return GraphPaths(**found)


def expected_cases(
    bundle: Path, cases: ConsumerCases, variant: str, files: tuple[str, ...]
) -> ConsumerCases:
    """The cases with the answers that a variant must give.

    Raises:
        GoldenError, GraphError, PromptError, GenerationError: the bundle cannot answer.
    """
    if variant == "fp32":
        return cases
    goldens = open_goldens(bundle / "goldens")
    by_id = {case.id: case for case in goldens.index.cases}
    tokenizer = load_tokenizer(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    runtime = OnnxRuntime(graph_paths(bundle, files))

    def answered(case: ConsumerCase) -> ConsumerCase:
        golden = by_id[case.id]
        pixels = [goldens.pixel_values(image)[None] for image in golden.image_ids]
        generation = answer(
            runtime,
            goldens.prompt_ids(golden),
            pixels[0] if pixels else None,
            cases.contract.greedy(),
            context_length=manifest["contract"]["context_length"],
        )
        text = tokenizer.decode(generation.token_ids)
        return replace(case, token_ids=tuple(generation.token_ids), answer=text)

    return replace(cases, cases=tuple(answered(case) for case in cases.cases))


def compared_with(variant: str) -> str:
    """Whose answers `expected_cases` has, for an outcome's detail."""
    return "the reference's" if variant == "fp32" else "those of onnxruntime on the same graphs"
