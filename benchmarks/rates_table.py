"""Which features memory and time of each kind of stage follow from, beside a base, and priors.

A prior is what the code lets one expect of a rate: how many copies of a tensor there are, how fast
two cores are. It stands until outcomes of models that are large enough say more.
"""

from collections.abc import Mapping

Priors = Mapping[str, float]

_RUNS: Priors = {"vision_tflop": 15.0, "language_tflop": 15.0, "steps_tb": 300.0}
_COREML_RUNS: Priors = {"vision_tflop": 25.0, "language_tflop": 25.0, "steps_tb": 600.0}
_FEW_COPIES: Priors = {"tensor_gb": 1.0}
_GRAPH: Priors = {"output_gb": 5.0}
_PACKAGE: Priors = {"output_gb": 40.0}
_DECODER: Priors = {"converted_gb": 70.0, "output_gb": 10.0}
_CALIBRATED: Priors = {"chosen_gb": 2.0, "image_gb": 3.0, "moments_gb": 3.0}
_RUN_MEMORY: Priors = {"input_gb": 1.0, "image_gb": 5.0}

MEMORY: Mapping[str, Priors] = {
    "checkpoint:synthesize": {"tensor_gb": 0.1},
    "merge:merge": {"tensor_gb": 2.0},
    "checkpoint:inspect": {"output_gb": 5.0},
    "checkpoint:torch_weights": {},
    "golden:golden": {"held_gb": 1.0, "image_gb": 5.0},
    "quantize:calibration": {"output_gb": 2.0},
    "quantize:quantize": {"chosen_gb": 2.0},
    "quantize:quantize.calibrated": _CALIBRATED,
    "mixed:sensitivity": {"held_gb": 1.0, "tensor_gb": 2.0, "image_gb": 5.0},
    "mixed:policy": {"held_gb": 1.0, "image_gb": 5.0},
    "mixed:quantize": _CALIBRATED,
    "onnx:vision_encoder": {"tower_gb": 4.0},
    "onnx:embed_tokens": _FEW_COPIES,
    "onnx:decoder_model_merged": _FEW_COPIES,
    "onnx_variants:vision_half": {"tower_gb": 3.0},
    "onnx_variants:vision_int8": {"tower_gb": 3.0, "image_gb": 5.0},
    "onnx_variants:language_half": _FEW_COPIES,
    "onnx_variants:language": _FEW_COPIES,
    "onnx_genai:graphs": {"input_gb": 1.0},
    "coreml:vision.float16": {"tower_gb": 2.5},
    "coreml:vision.float32": {"tower_gb": 1.5},
    "coreml_language:projector.float16": {"output_gb": 10.0},
    "coreml_language:projector.float32": {"output_gb": 5.0},
    "coreml_language:embedding.float16": _FEW_COPIES,
    "coreml_language:embedding.float32": _FEW_COPIES,
    "coreml_language:decoder.float16": {"chunk_gb": 2.0, "tensor_gb": 0.7},
    "coreml_language:decoder.float32": {"chunk_gb": 2.0, "tensor_gb": 0.7},
    "coreml_compressed:compress.vision": {"tower_gb": 1.0},
    "coreml_compressed:compress.projector": {"output_gb": 5.0},
    "coreml_compressed:compress.embedding": _FEW_COPIES,
    "coreml_compressed:compress.decoder": {"chunk_gb": 1.0, "tensor_gb": 0.5},
    "mlx:export": _FEW_COPIES,
    "mlx:export.quantized": _FEW_COPIES,
    "parity:reference": {"held_gb": 1.0, "image_gb": 10.0},
    "parity:onnx": {"image_gb": 5.0},
    "parity:onnx.quantized": {"input_gb": 1.2, "image_gb": 5.0},
    "parity:onnx.float16": {"input_gb": 2.4, "image_gb": 5.0},
    "parity:coreml.float16": {"chunk_gb": 3.0, "image_gb": 10.0},
    "parity:coreml.float32": {"chunk_gb": 3.0, "image_gb": 10.0},
    "parity:coreml.float16.compressed": {"chunk_gb": 3.0, "image_gb": 10.0},
    "parity:mlx": _RUN_MEMORY,
}
"""10^9 bytes for a unit of each feature."""

TIME: Mapping[str, Priors] = {
    "checkpoint:synthesize": {"output_gb": 15.0},
    "merge:merge": {"stored_gb": 5.0},
    "checkpoint:inspect": {"stored_gb": 1.0},
    "checkpoint:torch_weights": {"output_gb": 1.5},
    "golden:golden": {**_RUNS, "stored_gb": 3.0},
    "quantize:calibration": {"output_gb": 10.0},
    "quantize:quantize": {"search_g": 60.0, "clustering_g": 600.0},
    "quantize:quantize.calibrated": {"gptq_g": 300.0, "search_g": 60.0, **_RUNS},
    "mixed:sensitivity": {"trials_tflop": 15.0, "vision_tflop": 15.0},
    "mixed:policy": {"trials_tflop": 15.0, "vision_tflop": 15.0, "language_gb": 30.0},
    "mixed:quantize": {"gptq_g": 300.0, "clustering_g": 600.0, **_RUNS},
    "onnx:vision_encoder": {"output_gb": 25.0},
    "onnx:embed_tokens": _GRAPH,
    "onnx:decoder_model_merged": _GRAPH,
    "onnx_variants:vision_half": _GRAPH,
    "onnx_variants:vision_int8": {**_GRAPH, "vision_tflop": 15.0},
    "onnx_variants:language_half": _GRAPH,
    "onnx_variants:language": {"output_gb": 10.0},
    "onnx_genai:graphs": {"input_gb": 2.0},
    "coreml:vision.float16": _PACKAGE,
    "coreml:vision.float32": _PACKAGE,
    "coreml_language:projector.float16": _PACKAGE,
    "coreml_language:projector.float32": _PACKAGE,
    "coreml_language:embedding.float16": _GRAPH,
    "coreml_language:embedding.float32": _GRAPH,
    "coreml_language:decoder.float16": _DECODER,
    "coreml_language:decoder.float32": _DECODER,
    "coreml_compressed:compress.vision": {"output_gb": 60.0},
    "coreml_compressed:compress.projector": {"output_gb": 60.0},
    "coreml_compressed:compress.embedding": {"output_gb": 20.0},
    "coreml_compressed:compress.decoder": {"output_gb": 60.0, "input_gb": 5.0},
    "mlx:export": {"output_gb": 8.0},
    "mlx:export.quantized": {"output_gb": 8.0},
    "parity:reference": {**_RUNS, "stored_gb": 5.0},
    "parity:onnx": {**_RUNS, "input_gb": 2.0},
    "parity:onnx.quantized": {**_RUNS, "input_gb": 2.0, "widened_gb": 50.0},
    "parity:onnx.float16": {**_RUNS, "input_gb": 4.0},
    "parity:coreml.float16": _COREML_RUNS,
    "parity:coreml.float32": _COREML_RUNS,
    "parity:coreml.float16.compressed": _COREML_RUNS,
    "parity:mlx": {"vision_tflop": 300.0, "language_tflop": 100.0, "steps_tb": 1000.0},
}
"""Seconds for a unit of each feature."""
