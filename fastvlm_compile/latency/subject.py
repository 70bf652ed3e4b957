"""A variant opened to be timed: its parts as functions, and the bytes that they read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvlm_compile.bundle.manifest import Manifest
from fastvlm_compile.bundle.opening import graphs_of, packages_of
from fastvlm_compile.errors import ToolError
from fastvlm_compile.latency.request import Job
from reference.decoding import Session
from validation.runtimes.base import Floats, Ids


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Bytes that a run of each part reads, 0 where nothing tells."""

    vision: int
    projector: int
    """0 where it is part of the tower's graph, which then counts it."""
    decoder: int
    cache_item: int
    """Of one number of the KV cache."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is timed."""

    executor: str
    vision: Callable[[Floats], Floats]
    """[1, 3, S, S] -> features, which `project` takes."""
    project: Callable[[Floats], Floats] | None
    """-> [1, T, H]; None where `vision` gives that already."""
    embed: Callable[[Ids], Floats]
    session: Callable[[Floats], Session]
    weights: Callable[[], Weights]
    """Called after the timing: it may read files."""

    def encode_image(self, pixels: Floats) -> Floats:
        """[1, 3, S, S] -> [1, T, H]."""
        features = self.vision(pixels)
        return features if self.project is None else self.project(features)


def open_subject(bundle: Path, manifest: Manifest, job: Job, threads: int) -> Subject:
    """Opens all parts of a variant.

    Raises:
        ToolError: the runtime is not installed.
        UserError: a file is damaged, or the runtime cannot run here.
    """
    try:
        match job.runtime:
            case "onnxruntime":
                return _onnx(bundle, job.variant, threads)
            case "torch" | "torch-compiled":
                return _torch(bundle / "torch", threads, compiled=job.runtime == "torch-compiled")
            case "mlx":
                return _mlx(bundle / "mlx" / job.variant)
            case "coreml":
                return _core_ml(bundle, manifest, job)
    except ModuleNotFoundError as error:
        raise ToolError(
            f"--runtime {job.runtime} needs {error.name}, which is not installed",
            hint="`fastvlm-compile doctor` tells what is missing and how to get it",
        ) from error


def _onnx(bundle: Path, variant: str, threads: int) -> Subject:
    from validation.runtimes.onnxruntime_runtime import OnnxRuntime

    paths = graphs_of(bundle, variant)
    opened = OnnxRuntime(paths, threads=threads)
    _ = opened.vision_graph, opened.embed_graph
    cache = next(iter(opened.decoder.empty_cache(1).values()))

    def weights() -> Weights:
        from validation.latency.graph_bytes import weight_bytes

        try:
            vision, decoder = (
                weight_bytes(path) for path in (paths.vision_encoder, paths.decoder_model_merged)
            )
        except ModuleNotFoundError:  # `onnx` reads graphs; timing them needs onnxruntime alone
            vision = decoder = 0
        return Weights(vision=vision, projector=0, decoder=decoder, cache_item=cache.itemsize)

    return Subject(
        executor=opened.executor,
        vision=opened.encode_image,
        project=None,
        embed=opened.embed,
        session=opened.session,
        weights=weights,
    )


def _torch(folder: Path, threads: int, *, compiled: bool) -> Subject:
    import torch

    from reference.loading import load
    from validation.runtimes.torch_runtime import TorchRuntime

    torch.set_num_threads(threads)
    model = load(folder)
    language = model.language
    sizes = Weights(
        vision=_parameter_bytes(model.vision),
        projector=_parameter_bytes(model.projector),
        decoder=_parameter_bytes(language.layers) + _parameter_bytes(language.lm_head),
        cache_item=4,
    )
    if compiled:
        model.vision.compile(dynamic=False)
        model.language.compile(dynamic=True)
    runtime = TorchRuntime(model)

    @torch.inference_mode()
    def vision(pixels: Floats) -> Floats:
        return _floats(model.vision_tower(torch.from_numpy(pixels)).numpy())

    @torch.inference_mode()
    def project(features: Floats) -> Floats:
        return _floats(model.project(torch.from_numpy(features)).numpy())

    return Subject(
        executor=runtime.executor.replace("(CPU", "(CPU, compiled")
        if compiled
        else runtime.executor,
        vision=vision,
        project=project,
        embed=runtime.embed,
        session=runtime.session,
        weights=lambda: sizes,
    )


def _mlx(folder: Path) -> Subject:
    from mlx.utils import tree_flatten

    from validation.runtimes.mlx_model import WholeModel, load_mlx
    from validation.runtimes.mlx_runtime import MlxRuntime

    # As a device computes: scales, biases and activations in float16.
    model = load_mlx(folder, "float16")
    runtime = MlxRuntime(model)

    def size_of(module: object) -> int:
        return sum(array.nbytes for _, array in tree_flatten(module.parameters()))  # type: ignore[attr-defined]  # mlx has no types

    def weights() -> Weights:
        modules, language = model.modules, model.language
        tied = language.args.tie_word_embeddings
        table = 0 if tied else size_of(language.model.embed_tokens)
        tower = size_of(modules.vision_tower) if isinstance(modules, WholeModel) else 0
        whole = size_of(modules)
        return Weights(
            vision=tower,
            projector=max(0, whole - tower - size_of(language)),
            decoder=size_of(language) - table,
            cache_item=2,
        )

    return Subject(
        executor=runtime.executor,
        vision=runtime.vision_features,
        project=runtime.project,
        embed=runtime.embed,
        session=runtime.session,
        weights=weights,
    )


def _core_ml(bundle: Path, manifest: Manifest, job: Job) -> Subject:
    from validation.runtimes.coreml_runtime import CoreMLRuntime

    paths = packages_of(bundle, manifest, job.variant)
    opened = CoreMLRuntime(paths, compute_units=job.units)
    _ = opened.vision, opened.projector, opened.table, opened.decoder

    def weights() -> Weights:
        return Weights(
            vision=_blob_bytes(paths.vision),
            projector=_blob_bytes(paths.projector),
            decoder=sum(_blob_bytes(paths.language / c.package) for c in opened.layout.chunks),
            cache_item=2,
        )

    return Subject(
        executor=opened.executor,
        vision=opened.vision_features,
        project=opened.project,
        embed=opened.embed,
        session=opened.session,
        weights=weights,
    )


def _parameter_bytes(module: object) -> int:
    from torch import nn

    assert isinstance(module, nn.Module)
    return sum(each.numel() * each.element_size() for each in module.parameters())


def _blob_bytes(package: Path) -> int:
    """Of the weights of a package; its functions share them."""
    return sum(file.stat().st_size for file in package.rglob("weight.bin"))


def _floats(array: np.ndarray) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float32)
