"""A question about images, answered from a bundle alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvlm_compile.bundle.layout import (
    TARGETS,
    RuntimeName,
    answering,
    runtimes_of,
    shipped_of,
)
from fastvlm_compile.bundle.manifest import InputContract, Manifest, read_manifest
from fastvlm_compile.bundle.opening import open_runtime
from fastvlm_compile.errors import BundleError
from reference.config import load_config
from reference.decoding import Generation, GenerationSettings
from reference.preprocess import load_image, preprocess
from reference.prompt import PromptTokenizer, build_prompt, encode_prompt, load_tokenizer
from reference.tokenizer import incremental_text
from validation.answer import answer
from validation.runtimes.base import Floats

OnText = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and how the answer is to be chosen."""

    prompt: str
    images: tuple[Path, ...]
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    num_beams: int = 1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer and how it came about."""

    text: str
    generation: Generation
    executor: str
    load_time_s: float
    """For opening the model, which the time to first token leaves out."""
    num_prompt_positions: int
    """Of the context, images included."""


def ask(
    bundle: Path,
    question: Question,
    *,
    runtime: RuntimeName = "onnxruntime",
    variant: str = "",
    on_text: OnText | None = None,
) -> Reply:
    """Answers a question; with onnxruntime PyTorch is never imported.

    Args:
        bundle: folder of a bundle.
        question: what is asked.
        runtime: what computes.
        variant: of the runtime's target, such as `fp32`; empty for the first that is there.
        on_text: called with each piece of the answer as soon as it is certain.

    Raises:
        BundleError: the bundle is damaged or does not hold the runtime's target or the variant.
        ToolError, CoreMLUnavailableError: the runtime is not installed, or is none of this system.
        ImageError, PromptError, GenerationError: the question cannot be answered.
    """
    manifest = read_manifest(bundle)
    contract = manifest.contract
    variant = _chosen(bundle, manifest, runtime, variant)
    _check_sizes(bundle, manifest)
    config = load_config(bundle)
    tokenizer = load_tokenizer(bundle)
    settings = GenerationSettings(
        max_new_tokens=question.max_new_tokens,
        temperature=question.temperature,
        top_p=question.top_p,
        num_beams=question.num_beams,
        seed=question.seed,
        eos_token_ids=config.eos_token_ids,
        vocab_limit=min(tokenizer.vocab_size, config.text.vocab_size),
    )
    prompt = build_prompt(
        question.prompt,
        image_position=contract.image_position,
        num_images=len(question.images),
    )
    input_ids = encode_prompt(prompt, tokenizer, num_images=len(question.images))
    pixel_values = _pixels(question.images, contract)
    started = time.perf_counter()
    opened = open_runtime(bundle, manifest, runtime, variant, images=pixel_values is not None)
    load_time_s = time.perf_counter() - started

    def after_images() -> None:
        nonlocal load_time_s
        started = time.perf_counter()
        opened.after_images()
        load_time_s += time.perf_counter() - started

    stream = _Stream(tokenizer, on_text)
    generation = answer(
        opened.runtime,
        input_ids,
        pixel_values,
        settings,
        context_length=contract.context_length,
        on_token=stream.token,
        after_images=after_images,
    )
    return Reply(
        text=stream.finish(),
        generation=generation,
        executor=opened.runtime.executor,
        load_time_s=load_time_s,
        num_prompt_positions=len(input_ids)
        + len(question.images) * (contract.tokens_per_image - 1),
    )


class _Stream:
    """Turns tokens into the text that may be shown."""

    def __init__(self, tokenizer: PromptTokenizer, on_text: OnText | None) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._ids: list[int] = []
        self._shown = ""

    def token(self, token_id: int) -> None:
        self._ids.append(token_id)
        self._show(incremental_text(self._tokenizer, self._ids, self._shown))

    def finish(self) -> str:
        """Shows what was held back; the whole text."""
        text = self._tokenizer.decode(self._ids)
        self._show(text[len(self._shown) :])
        return text

    def _show(self, piece: str) -> None:
        self._shown += piece
        if piece and self._on_text is not None:
            self._on_text(piece)


def _chosen(bundle: Path, manifest: Manifest, runtime: RuntimeName, variant: str) -> str:
    variants = [entry.variant for entry in answering(manifest.variants, runtime)]
    if not variants:
        target = TARGETS[runtime]
        missing = f"built without the target {target}"
        if shipped_of(manifest.variants, target):
            missing = f"of the target {target} it holds the vision tower alone"
        usable = ", ".join(runtimes_of(manifest.variants))
        raise BundleError(
            f"{bundle}: {missing}, and --runtime {runtime} needs all of it",
            hint=f"runtimes that this bundle serves: {usable or 'none'}",
        )
    if variant and variant not in variants:
        raise BundleError(
            f"{bundle}: no variant {variant!r} of the target {TARGETS[runtime]}",
            hint=f"known: {', '.join(variants)}",
        )
    return variant or variants[0]


def _check_sizes(bundle: Path, manifest: Manifest) -> None:
    """What costs nothing to see before a damaged file ends in a runtime's own words."""
    for file in manifest.files:
        path = bundle / file.path
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            state = "was changed" if path.is_file() else "is missing"
            raise BundleError(
                f"{path}: the file {state}",
                hint=f"`fastvlm-compile verify {bundle}` lists all that is wrong",
            )


def _pixels(images: tuple[Path, ...], contract: InputContract) -> Floats | None:
    if not images:
        return None
    size, fit = contract.image_size, contract.fit
    return np.stack([preprocess(load_image(path), size=size, fit=fit) for path in images])
