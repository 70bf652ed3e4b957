"""What a bundle made without care holds: exported as it comes, quantized by a matrix quantizer.

    python -m benchmarks.plain_graphs vision --weights DIR --out FILE.onnx
    python -m benchmarks.plain_graphs q4 --decoder FILE.onnx --out FILE.onnx

`vision` is the reference tower through `torch.onnx.export` with its defaults. `q4` is our float32
decoder of standard ops through onnxruntime's quantizer, with what transformers.js' own script asks
of it: 4 bits, blocks of 32, symmetric, no accuracy level.
"""

import argparse
from pathlib import Path


def main() -> None:
    """Write one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    vision, quantized = commands.add_parser("vision"), commands.add_parser("q4")
    vision.add_argument("--weights", type=Path, required=True)
    quantized.add_argument("--decoder", type=Path, required=True)
    for each in (vision, quantized):
        each.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "vision":
        write_vision(arguments.weights, arguments.out)
    else:
        write_q4(arguments.decoder, arguments.out)


def write_vision(weights: Path, out: Path) -> None:
    """Pixels [1, 3, S, S] to embeddings, tower and projector in one graph."""
    import torch
    from torch import Tensor, nn

    from reference.fastvlm import FastVLM
    from reference.loading import load

    class Encoder(nn.Module):
        def __init__(self, model: FastVLM) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.model.encode_image(pixel_values)

    model = load(weights)
    size = model.config.vision.image_size
    program = torch.onnx.export(
        Encoder(model).eval(),
        (torch.zeros(1, 3, size, size),),
        dynamo=True,
        input_names=["pixel_values"],
        output_names=["image_features"],
        verbose=False,
    )
    assert program is not None, "only the exporter to a file returns None"
    program.save(str(out), external_data=True)


def write_q4(decoder: Path, out: Path) -> None:
    """Every MatMul with a constant becomes MatMulNBits; nothing else changes."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(str(decoder), bits=4, block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out), use_external_data_format=True)


if __name__ == "__main__":
    main()
