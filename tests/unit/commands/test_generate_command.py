"""`generate` answers from a bundle alone, as the reference does from the checkpoint."""

import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from fastvlm_compile.bundle.ask import Question, ask
from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.cli import run
from reference.generation import GenerationSettings
from reference.preprocess import load_image, preprocess
from reference.prompt import ImagePosition, build_prompt, encode_prompt, load_tokenizer
from validation.runtimes import onnxruntime_runtime
from validation.runtimes.onnx_graph import OnnxGraph

Capture = pytest.CaptureFixture[str]
Pictures = tuple[Path, Path]
Fit = Literal["pad", "crop"]

IMAGE_SIZE = 128
NUM_TOKENS = 12
PROMPT = "What is in the image?"
FITS: tuple[Fit, ...] = ("pad", "crop")
POSITIONS: tuple[ImagePosition, ...] = ("before", "after")


def generate(bundle: Path, *options: object, prompt: str = PROMPT) -> int:
    limit = ("--max-new-tokens", NUM_TOKENS)
    command = ("generate", bundle, "--prompt", prompt, *limit, *options)
    return run([str(word) for word in command])


def answered(capsys: Capture, bundle: Path, *options: object, **prompt: str) -> dict[str, Any]:
    assert generate(bundle, *options, "--json", **prompt) == 0
    told = capsys.readouterr()
    assert not told.err
    return json.loads(told.out)


def test_the_answer_goes_to_stdout_and_the_times_to_stderr(
    whole_bundle: Path, pictures: Pictures, capsys: Capture
) -> None:
    assert generate(whole_bundle, "--image", pictures[0]) == 0
    told = capsys.readouterr()
    reply = answered(capsys, whole_bundle, "--image", pictures[0])
    assert told.out == reply["answer"] + "\n"
    assert told.err.startswith(f"{len(reply['token_ids'])} tokens")
    assert "time to first token " in told.err
    assert " tokens/s" in told.err
    assert "onnxruntime 1." in told.err


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1), ()])
def test_the_tokens_are_those_of_the_reference_from_the_checkpoint(
    runtime: str,
    which: tuple[int, ...],
    whole_bundle: Path,
    random_checkpoint: Path,
    pictures: Pictures,
) -> None:
    images = tuple(pictures[index] for index in which)
    question = Question(prompt=PROMPT, images=images, max_new_tokens=NUM_TOKENS)
    reply = ask(whole_bundle, question, runtime="torch" if runtime == "torch" else "onnxruntime")
    expected = reference_tokens(random_checkpoint, images)
    assert reply.generation.token_ids == expected
    assert reply.executor.startswith(runtime)


@pytest.mark.parametrize("which", [(), (0,), (0, 1)])
def test_the_tower_is_gone_before_the_decoder_is_there(
    which: tuple[int, ...],
    whole_bundle: Path,
    pictures: Pictures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[str, weakref.ref[OnnxGraph]]] = []
    with_decoder: list[str] = []

    class Watched(OnnxGraph):
        def __init__(self, path: Path, **options: Any) -> None:
            if path.name.startswith("decoder"):
                with_decoder.extend(name for name, graph in opened if graph() is not None)
            super().__init__(path, **options)
            opened.append((path.name, weakref.ref(self)))

    monkeypatch.setattr(onnxruntime_runtime, "OnnxGraph", Watched)
    images = tuple(pictures[index] for index in which)
    ask(whole_bundle, Question(prompt=PROMPT, images=images, max_new_tokens=2))
    assert with_decoder == ["embed_tokens.onnx"]
    tower = ["vision_encoder.onnx"] if which else []
    names = [name for name, _ in opened]
    assert names == ["embed_tokens.onnx", *tower, "decoder_model_merged.onnx"]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("fit", FITS)
def test_the_fit_and_the_image_position_are_those_of_the_bundle(
    fit: Fit,
    position: ImagePosition,
    bundle: Path,
    random_checkpoint: Path,
    pictures: Pictures,
) -> None:
    manifest = read_manifest(bundle)
    contract = replace(manifest.contract, fit=fit, image_position=position)
    (bundle / "manifest.json").write_bytes(replace(manifest, contract=contract).to_bytes())
    for images in (pictures[:1], pictures):
        reply = ask(bundle, Question(prompt=PROMPT, images=images, max_new_tokens=NUM_TOKENS))
        expected = reference_tokens(random_checkpoint, images, fit=fit, position=position)
        assert reply.generation.token_ids == expected


def test_another_fit_or_image_position_would_give_another_answer(
    random_checkpoint: Path, pictures: Pictures
) -> None:
    answers = {
        reference_tokens(random_checkpoint, pictures[:1], fit=fit, position=position)
        for fit in FITS
        for position in POSITIONS
    }
    assert len(answers) == 4


def reference_tokens(
    checkpoint: Path,
    images: tuple[Path, ...],
    *,
    fit: Fit = "pad",
    position: ImagePosition = "before",
) -> tuple[int, ...]:
    import torch

    from reference.loading import load

    tokenizer = load_tokenizer(checkpoint)
    prompt = build_prompt(PROMPT, num_images=len(images), image_position=position)
    ids = encode_prompt(prompt, tokenizer)
    pixels = [preprocess(load_image(path), size=IMAGE_SIZE, fit=fit) for path in images]
    settings = GenerationSettings(
        max_new_tokens=NUM_TOKENS,
        eos_token_ids=(tokenizer.token_id("<|im_end|>") or 0,),
        vocab_limit=tokenizer.vocab_size,
    )
    model = load(checkpoint)
    pixel_values = torch.from_numpy(np.stack(pixels)) if pixels else None
    return model.generate(torch.from_numpy(ids)[None], pixel_values, settings=settings).token_ids


def test_onnxruntime_answers_without_ever_importing_torch(
    whole_bundle: Path, pictures: Pictures
) -> None:
    heavy = ("torch", "transformers", "onnx", "coremltools", "skimage", "onnx_ir")
    script = f"""
import sys
from fastvlm_compile.cli import run
code = run({["generate", str(whole_bundle), "--image", str(pictures[0]), "--prompt", "a"]!r})
print("imported", [name for name in {heavy!r} if name in sys.modules], code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "imported [] 0"


def test_the_order_of_images_reaches_the_model(whole_bundle: Path, pictures: Pictures) -> None:
    def first_logits(images: tuple[Path, ...]) -> tuple[int, ...]:
        question = Question(prompt=PROMPT, images=images, max_new_tokens=NUM_TOKENS)
        return ask(whole_bundle, question).generation.token_ids

    one, other = pictures
    answers = {first_logits(images) for images in ((one, other), (other, one), (one,), ())}
    assert len(answers) >= 3  # a random model may answer two of them alike


def test_json_tells_the_answer_its_tokens_and_its_times(
    whole_bundle: Path, pictures: Pictures, capsys: Capture
) -> None:
    reply = answered(capsys, whole_bundle, "--image", pictures[0], "--image", pictures[1])
    assert load_tokenizer(whole_bundle).decode(reply["token_ids"]) == reply["answer"]
    assert reply["finish_reason"] in ("eos", "length")
    assert reply["time_to_first_token_s"] > 0
    prompt = encode_prompt(build_prompt(PROMPT, num_images=2), load_tokenizer(whole_bundle))
    assert reply["prompt_positions"] == len(prompt) + 2 * 3  # each image takes four positions


def test_streamed_pieces_add_up_to_the_answer(whole_bundle: Path, pictures: Pictures) -> None:
    pieces: list[str] = []
    question = Question(prompt=PROMPT, images=pictures[:1], max_new_tokens=40, temperature=2.0)
    reply = ask(whole_bundle, question, on_text=pieces.append)
    assert "".join(pieces) == reply.text
    assert len(pieces) > 1


def test_sampling_is_repeatable_and_the_seed_matters(whole_bundle: Path, capsys: Capture) -> None:
    def sample(seed: int) -> list[int]:
        options = ("--temperature", 3.0, "--top-p", 0.9, "--seed", seed)
        return answered(capsys, whole_bundle, *options)["token_ids"]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_beam_search_is_one_option_away(whole_bundle: Path, capsys: Capture) -> None:
    reply = answered(capsys, whole_bundle, "--num-beams", 3)
    torch = answered(capsys, whole_bundle, "--num-beams", 3, "--runtime", "torch")
    assert reply["token_ids"] == torch["token_ids"]


def refused(capsys: Capture, bundle: Path, *options: object, **prompt: str) -> str:
    assert generate(bundle, *options, **prompt) == 2
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith("error: ")
    return told.err


def test_mistakes_of_the_caller_are_told_in_words(
    whole_bundle: Path, pictures: Pictures, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "notes.jpg").write_text("not an image")
    for options, words in {
        ("--image", tmp_path / "absent.png"): "absent.png does not exist",
        ("--image", tmp_path / "notes.jpg"): "notes.jpg is not an image",
        ("--variant", "q4"): "no variant 'q4' of the target onnx\nhint: known: fp32",
        ("--runtime", "ml_program"): "built without the target coreml, and --runtime ml_program "
        "needs all of it\nhint: runtimes that this bundle serves: onnxruntime, torch",
        ("--temperature", -1): "temperature must be a number from 0 on",
        ("--top-p", 0): "top_p must be above 0 and at most 1",
        ("--num-beams", 2, "--temperature", 1): "exclude each other",
        ("--max-new-tokens", 0): "max_new_tokens must be at least 1",
    }.items():
        assert words in refused(capsys, whole_bundle, *options)
    smuggled = refused(capsys, whole_bundle, "--image", pictures[0], prompt="<image> <image>")
    assert "holds <image> 2 times; images given: 1" in smuggled
    assert "the context has 256" in refused(capsys, whole_bundle, prompt="why? " * 200)


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path, capsys: Capture) -> None:
    assert "there is no such bundle" in refused(capsys, tmp_path / "absent")
    assert "this is not a bundle" in refused(capsys, tmp_path)


def test_a_damaged_bundle_is_told_with_the_command_that_lists_the_damage(
    bundle: Path, capsys: Capture
) -> None:
    graph = bundle / "onnx" / "embed_tokens.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    told = refused(capsys, bundle)
    assert "embed_tokens.onnx: the file was changed" in told
    assert f"hint: `fastvlm-compile verify {bundle}`" in told
    graph.unlink()
    assert "embed_tokens.onnx: the file is missing" in refused(capsys, bundle)
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"pad"', b'"crop"'))
    assert "damaged" in refused(capsys, bundle)


def test_a_runtime_that_is_not_installed_is_told(
    whole_bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "validation.runtimes.torch_runtime", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    told = refused(capsys, whole_bundle, "--runtime", "torch")
    assert "needs torch, which is not installed\nhint: `fastvlm-compile doctor`" in told
