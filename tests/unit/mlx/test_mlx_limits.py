"""What MLX cannot hold is refused from schemes and shapes, by the tensor's name."""

import subprocess
import sys

import pytest

from fastvlm_compile.export.mlx.limits import (
    MlxUnsupportedError,
    check_mlx_layout,
    check_mlx_scheme,
)
from fastvlm_compile.quantize.scheme import Affine, Palette, Quantized, Shape

INT4 = Affine(bits=4, block_size=64, symmetric=True)
INT8 = Affine(bits=8, block_size=64, symmetric=True)
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PROJECTOR = "model.mm_projector.0.weight"
QUERY = "model.layers.0.self_attn.q_proj.weight"
KERNEL = "model.vision_tower.vision_tower.model.conv_exp.se.reduce.weight"
SHAPES: dict[str, Shape] = {
    EMBED: (512, 128),
    HEAD: (512, 128),
    QUERY: (128, 128),
    PROJECTOR: (128, 256),
    "model.norm.weight": (128,),
    KERNEL: (16, 256, 1, 1),
}
IN_APP = (EMBED, HEAD, QUERY, PROJECTOR)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_whole_groups_of_32_64_and_128_are_held(bits: int, block: int, symmetric: bool) -> None:
    scheme = Affine(bits=4 if bits == 4 else 8, block_size=block, symmetric=symmetric)
    check_mlx_scheme("a", scheme, (6, 256))


@pytest.mark.parametrize(
    ("scheme", "shape", "message"),
    [
        (Affine(bits=4, block_size=16, symmetric=True), (8, 64), "cannot hold int4 block 16"),
        (Affine(bits=8, block_size=0, symmetric=True), (8, 64), "cannot hold int8 per channel"),
        (Palette(bits=4, group_size=8), (8, 64), "cannot hold lut4 group 8"),
        (INT4, (8, 96), "groups of 64 do not divide its 96 input channels"),
        (INT8, (8, 64, 1, 1), "no quantized convolution"),
        (Affine(bits=4, block_size=32, symmetric=True), (3, 32), "96 weights are no multiple"),
    ],
)
def test_what_mlx_cannot_hold_is_refused_by_name(
    scheme: Quantized, shape: Shape, message: str
) -> None:
    with pytest.raises(MlxUnsupportedError, match=message) as caught:
        check_mlx_scheme("model.some.weight", scheme, shape)
    assert caught.value.message.startswith("model.some.weight: ")
    assert caught.value.hint


def test_the_app_holds_one_scheme_for_all_its_matrices() -> None:
    check_mlx_layout("apple_app", dict.fromkeys(IN_APP, INT4), SHAPES, tied=False)


def test_the_app_refuses_two_schemes() -> None:
    schemes = dict.fromkeys(IN_APP, INT4) | {PROJECTOR: INT8}
    with pytest.raises(MlxUnsupportedError, match=PROJECTOR):
        check_mlx_layout("apple_app", schemes, SHAPES, tied=False)
    check_mlx_layout("mlx_vlm", schemes, SHAPES, tied=False)


def test_the_app_refuses_a_matrix_that_is_left_out() -> None:
    schemes = {name: INT4 for name in IN_APP if name != QUERY}
    with pytest.raises(MlxUnsupportedError, match=f"{QUERY}: is not quantized"):
        check_mlx_layout("apple_app", schemes, SHAPES, tied=False)
    check_mlx_layout("mlx_vlm", schemes, SHAPES, tied=False)


def test_a_tied_head_need_not_be_quantized() -> None:
    schemes = {name: INT4 for name in IN_APP if name != HEAD}
    check_mlx_layout("apple_app", schemes, SHAPES, tied=True)
    with pytest.raises(MlxUnsupportedError, match=HEAD):
        check_mlx_layout("apple_app", schemes, SHAPES, tied=False)


def test_a_quantized_tower_matters_only_where_the_tower_is() -> None:
    schemes: dict[str, Quantized] = dict.fromkeys(IN_APP, INT4)
    schemes[KERNEL] = Affine(bits=8, block_size=0, symmetric=True)
    check_mlx_layout("apple_app", schemes, SHAPES, tied=False)
    with pytest.raises(MlxUnsupportedError, match=KERNEL):
        check_mlx_layout("mlx_vlm", schemes, SHAPES, tied=False)


def test_the_check_loads_no_heavy_library() -> None:
    code = (
        "import sys, fastvlm_compile.export.mlx.limits;"
        "sys.exit(sorted({'mlx', 'mlx_lm', 'torch', 'numba'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
