"""The decoder in ONNX Runtime's own ops: the encodings of every variant but float32."""

from fastvlm_compile.export.onnx.decoder import DecoderEncoding
from fastvlm_compile.export.onnx.group_query_attention import GroupQueryAttention
from fastvlm_compile.export.onnx.half import HalfLinear
from fastvlm_compile.export.onnx.linear import PlainLinear
from fastvlm_compile.export.onnx.matmul_nbits import AccuracyLevel, NBitsLinear
from fastvlm_compile.export.onnx.quantized_weights import QuantizedReader
from fastvlm_compile.export.onnx.residual import SkipResidual
from fastvlm_compile.export.weight_source import WeightSource
from fastvlm_compile.quantize.weights_file import QuantizedWeights


def float_encoding(source: WeightSource) -> DecoderEncoding:
    """Fused, float32 throughout: what the other two are compared with."""
    return DecoderEncoding(
        source=source,
        linear=PlainLinear(source=source),
        attention=GroupQueryAttention.prepare,
        residual=SkipResidual(),
    )


def half_encoding(source: WeightSource) -> DecoderEncoding:
    """Fused, matrices stored in float16."""
    return DecoderEncoding(
        source=source,
        linear=HalfLinear(source=source),
        attention=GroupQueryAttention.prepare,
        residual=SkipResidual(),
    )


def quantized_encoding(
    source: WeightSource, quantized: QuantizedWeights, *, accuracy_level: AccuracyLevel
) -> DecoderEncoding:
    """Fused, over the integers of `quantized`; query, key and value are one MatMulNBits, and gate
    and up another, wherever their schemes agree: the rows are the same, under each other.
    """
    linear = NBitsLinear(
        source=source,
        quantized=quantized,
        reader=QuantizedReader.of(quantized),
        other=PlainLinear(source=source),
        accuracy_level=accuracy_level,
    )
    return DecoderEncoding(
        source=source,
        linear=linear,
        attention=GroupQueryAttention.prepare,
        residual=SkipResidual(),
        join_attention=linear.join,
        join_mlp=linear.join,
    )
