"""Reading back what was written: the folder must hold the integers that were quantized."""

from pathlib import Path

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.mlx.names import MlxLayout, to_mlx
from fastvlm_compile.export.mlx.read import read_mlx
from fastvlm_compile.quantize.tensor import same_tensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights


def check_mlx_integers(folder: Path, quantized: QuantizedWeights, layout: MlxLayout) -> None:
    """Compare every quantized tensor of a folder with its original.

    Raises:
        ExportError: one is missing or one too many, or a code, scale or zero point differs.
        MlxFileError: the folder cannot be read.
    """
    written = read_mlx(folder)
    expected = {
        stored: name for name in quantized.entries if (stored := to_mlx(name, layout)) is not None
    }
    if strange := sorted(set(written.quantized) ^ expected.keys()):
        raise ExportError(f"{folder.name}: missing or too many: {', '.join(strange[:5])}")
    for stored, name in expected.items():
        if not same_tensor(written.read(stored), quantized.read(name)):
            raise ExportError(f"{folder.name}: {stored} is not what was quantized")
