"""What each device is sent, and why: the presets behind a recipe's key `device`. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DeviceName = Literal["iphone", "mac", "browser", "cpu-server"]


@dataclass(frozen=True, kw_only=True)
class DeviceVariant:
    """One variant that a device is sent."""

    target: Literal["onnx", "coreml", "mlx"]
    variant: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of machine.

    Attributes:
        variants: what it is sent, of what a recipe builds.
        others: why it is not sent the rest.
        apple_app: whether Apple's app runs on it.
        torch: whether the weights themselves are of use on it.
    """

    variants: tuple[DeviceVariant, ...]
    others: str
    apple_app: bool = False
    torch: bool = False


_TOWER = "the tower at full precision on the Neural Engine, which computes in float16 anyway"

DEVICES: Mapping[DeviceName, Device] = {
    "iphone": Device(
        variants=(
            DeviceVariant(target="coreml", variant="float16", why=_TOWER),
            DeviceVariant(
                target="coreml",
                variant="lut4",
                why="tables are what the Neural Engine decompresses itself, at 4 bits a weight",
            ),
            DeviceVariant(
                target="coreml",
                variant="int4",
                why="4 bits with a scale for a block of weights, for the GPU",
            ),
            DeviceVariant(
                target="mlx",
                variant="int4",
                why="what Apple's app loads; an app may use about half of a phone's memory",
            ),
        ),
        others="8 and 16 bits do not leave a phone's memory to other apps; ONNX is slower there",
        apple_app=True,
    ),
    "mac": Device(
        variants=(
            DeviceVariant(target="coreml", variant="float16", why=_TOWER),
            DeviceVariant(
                target="coreml",
                variant="int8",
                why="half of float16 at no visible loss, on the Neural Engine",
            ),
            DeviceVariant(
                target="coreml",
                variant="int4",
                why="4 bits with a scale for a block of weights, for the GPU",
            ),
            DeviceVariant(
                target="mlx", variant="int8", why="on the GPU, half of float16 at no visible loss"
            ),
            DeviceVariant(
                target="mlx",
                variant="int4",
                why="on the GPU: decoding reads every weight, so half the bytes are half the time",
            ),
        ),
        others="tables are for phones, and a Mac's GPU runs MLX faster than ONNX",
        apple_app=True,
    ),
    "browser": Device(
        variants=(
            DeviceVariant(
                target="onnx", variant="fp16", why="for WebGPU: transformers.js calls it fp16"
            ),
            DeviceVariant(
                target="onnx", variant="int8", why="for WebAssembly: transformers.js calls it q8"
            ),
            DeviceVariant(
                target="onnx",
                variant="int4",
                why="the smallest download that transformers.js has a name for, q4",
            ),
        ),
        others="transformers.js has no name for them, or the download is too large for a page",
    ),
    "cpu-server": Device(
        variants=(
            DeviceVariant(
                target="onnx",
                variant="int8",
                why="a quarter of float32 at no visible loss, and what others are compared with",
            ),
            DeviceVariant(
                target="onnx", variant="int4", why="4 bits with a scale for a block of weights"
            ),
            DeviceVariant(
                target="onnx",
                variant="int4-fast",
                why="blocks of 128, which a CPU decodes faster than those of 32",
            ),
            DeviceVariant(
                target="onnx", variant="mixed", why="more bits where they are needed, by measure"
            ),
        ),
        others="a CPU computes in float32, so float16 saves it nothing; Apple's formats need Apple",
    ),
}
