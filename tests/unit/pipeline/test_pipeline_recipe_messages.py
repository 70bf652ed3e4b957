"""Every mistake in a recipe is told with its place, what was found and what was expected."""

from pathlib import Path

import pytest

from fastvlm_compile.errors import RecipeError
from fastvlm_compile.recipe_file import load_recipe
from validation.measurement import METRICS

RECIPE = """\
schema: 1
name: small
checkpoint:
  path: somewhere
image:
  size: 128
  fit: pad
  position: before
context_length: 256
goldens:
  scenes: 1
  photographs: 0
  prompts: [Describe it.]
  max_new_tokens: 4
  task_questions: 0
targets:
  onnx: {variants: [fp32], logits: last, opset: 21}
  coreml: {precisions: [float16], ship: [float16]}
gates:
  - target: onnx
    variant: fp32
    component: decoder
    metric: kl_max
    max: 1e-6
    why: rounding
"""

# name -> (text to replace, replacement, the message, the hint); `F` stands for the file.
MISTAKES = {
    "unknown key": (
        "  fit: pad",
        "  fti: pad",
        "F:7:3: unknown key `fti` in image",
        "did you mean `fit`? known: size, fit, position",
    ),
    "unknown key at the top": (
        "context_length",
        "contextlength",
        "F:9:1: unknown key `contextlength`",
        "did you mean `context_length`? known: schema, name, extend, device, license, checkpoint, "
        "image, context_length, goldens, quantization, targets, gates",
    ),
    "a key like no other": (
        "name: small",
        "zzz: 1",
        "F:2:1: unknown key `zzz`",
        "known: schema, name, extend, device, license, checkpoint, image, context_length, goldens, "
        "quantization, targets, gates",
    ),
    "missing key": (
        "  size: 128\n",
        "",
        "F:6:3: the key `image.size` is missing",
        "expected a multiple of 64",
    ),
    "missing mapping": (
        "checkpoint:\n  path: somewhere\n",
        "",
        "F:1:1: the key `checkpoint` is missing",
        "expected a mapping with the keys path, base, hub, revision, released, synthetic",
    ),
    "duplicate key": (
        "  fit: pad",
        "  fit: pad\n  fit: crop",
        "F:8:3: the key `fit` is given twice, first in line 7",
        "",
    ),
    "text for a number": (
        "context_length: 256",
        "context_length: many",
        'F:9:17: context_length: found the text "many", expected a whole number',
        "",
    ),
    "number with a point for a whole one": (
        "context_length: 256",
        "context_length: 256.0",
        "F:9:17: context_length: found the number 256.0, expected a whole number",
        "",
    ),
    "number out of range": (
        "context_length: 256",
        "context_length: 0",
        "F:9:17: context_length: found the number 0, expected a whole number above 0",
        "",
    ),
    "number for a text": (
        "[Describe it.]",
        "[1]",
        "F:13:13: goldens.prompts[0]: found the number 1, expected a text",
        "put it in quotes",
    ),
    "size that is no multiple": (
        "size: 128",
        "size: 100",
        "F:6:9: image.size: found the number 100, expected a multiple of 64",
        "",
    ),
    "mistyped choice": (
        "fit: pad",
        "fit: pda",
        'F:7:8: image.fit: found the text "pda", expected one of pad, crop',
        "did you mean `pad`?",
    ),
    "choice of another type": (
        "fit: pad",
        "fit: true",
        "F:7:8: image.fit: found the boolean true, expected one of pad, crop",
        "",
    ),
    "list for a mapping": (
        "image:\n  size: 128\n  fit: pad\n  position: before",
        "image: [128]",
        "F:5:8: image: found a list, expected a mapping",
        "",
    ),
    "text for a list": (
        "[Describe it.]",
        "Describe it.",
        'F:13:12: goldens.prompts: found the text "Describe it.", expected a list',
        "",
    ),
    "nothing for a value": (
        "context_length: 256",
        "context_length:",
        "F:9:16: context_length: found nothing, expected a whole number",
        "",
    ),
    "no schema": ("schema: 1\n", "", "F:1:1: the key `schema` is missing", "write `schema: 1`"),
    "another schema": (
        "schema: 1",
        "schema: 2",
        "F:1:9: schema: this program reads schema 1 only",
        "use the version of fastvlm-compile that the recipe was written for",
    ),
    "two checkpoints": (
        "  path: somewhere",
        "  path: somewhere\n  synthetic: {size: 7b, seed: 0, layout: apple}",
        "F:4:3: checkpoint: found path and synthetic, expected exactly one of path, hub, released, "
        "synthetic",
        "",
    ),
    "no checkpoint": (
        "checkpoint:\n  path: somewhere",
        "checkpoint: {}",
        "F:3:13: checkpoint: found none, expected exactly one of path, hub, released, synthetic",
        "",
    ),
    "hub without revision": (
        "path: somewhere",
        "hub: apple/FastVLM-0.5B",
        "F:4:3: checkpoint: `hub` and `revision` are given together or not at all",
        "",
    ),
    "a name that is a path": (
        "name: small",
        "name: ../small",
        'F:2:7: name: found the text "../small", expected a name of a-z, 0-9, dot, dash and '
        "underscore",
        "",
    ),
    "no target": (
        "  onnx: {variants: [fp32], logits: last, opset: 21}\n"
        "  coreml: {precisions: [float16], ship: [float16]}\n",
        "  onnx: null\n",
        "F:16:1: targets: found none, expected at least one",
        "",
    ),
    "no variant": (
        "variants: [fp32]",
        "variants: []",
        "F:17:10: targets.onnx.variants: found an empty list",
        "",
    ),
    "shipping what is not built": (
        "ship: [float16]",
        "ship: [float32]",
        "F:18:42: targets.coreml.ship: float32 is not built",
        "built: float16",
    ),
    "shipping the same twice": (
        "ship: [float16]",
        "ship: [float16, float16]",
        "F:18:35: targets.coreml.ship: a name is given twice",
        "",
    ),
    "a chunk that no device takes": (
        "ship: [float16]}",
        "ship: [], language: {prefill_chunk: 48, max_chunk_mb: 1}}",
        "F:18:71: targets.coreml.language.prefill_chunk: found the number 48, expected a multiple "
        "or a divisor of 32, at least 2",
        "",
    ),
    "a chunk that the context cannot hold": (
        "ship: [float16]}",
        "ship: [], language: {prefill_chunk: 512, max_chunk_mb: 1}}",
        "F:18:56: targets.coreml.language.prefill_chunk: 512 positions do not fit into the "
        "context_length, 256",
        "",
    ),
    "a further size that is no multiple": (
        "ship: [float16]}",
        "ship: [], image_sizes: [512, 300]}",
        "F:18:64: targets.coreml.image_sizes[1]: found the number 300, expected a multiple of 64 "
        "from 256 to 1024",
        "",
    ),
    "a further size given twice": (
        "ship: [float16]}",
        "ship: [], image_sizes: [320, 512, 320]}",
        "F:18:69: targets.coreml.image_sizes[2]: 320 is given twice",
        "",
    ),
    "a further size whose tokens fill the context": (
        "ship: [float16]}",
        "ship: [], image_sizes: [1024]}",
        "F:18:59: targets.coreml.image_sizes[0]: the 256 tokens of 1024 pixels leave no room in "
        "the context_length, 256",
        "",
    ),
    "a context that nothing fills": (
        "prompts: [Describe it.]",
        "prompts: []\n  fill_context: true",
        "F:14:3: goldens.fill_context: there is no text to fill the context with",
        "give at least one text in goldens.prompts",
    ),
    "gate of a part that is not built": (
        "target: onnx\n    variant: fp32",
        "target: coreml\n    variant: float16",
        "F:22:5: gates[0].component: there is no `decoder` of coreml float16 in this recipe",
        "known: vision, vision_precision",
    ),
    "gate of an unknown target": (
        "target: onnx",
        "target: onxx",
        "F:20:5: gates[0].target: unknown target `onxx`",
        "did you mean `onnx`? known: reference, onnx, mlx, coreml",
    ),
    "gate of a variant that is not built": (
        "variant: fp32",
        "variant: fp16",
        "F:21:5: gates[0].variant: the targets do not build `fp16` of onnx",
        "built: fp32",
    ),
    "gate of an unknown component": (
        "component: decoder",
        "component: decodr",
        "F:22:5: gates[0].component: there is no `decodr` of onnx fp32 in this recipe",
        "did you mean `decoder`? known: vision_encoder, embed_tokens, decoder, end_to_end",
    ),
    "gate of an unknown metric": (
        "metric: kl_max",
        "metric: kl",
        "F:20:5: gates[0]: gate onnx.fp32.decoder: unknown metric 'kl'; known: "
        f"{', '.join(METRICS)}",
        "",
    ),
    "gate without a threshold": (
        "    max: 1e-6\n",
        "",
        "F:20:5: gates[0]: gate onnx.fp32.decoder: kl_max needs exactly one of max and min",
        "",
    ),
    "gate with two thresholds": (
        "    max: 1e-6\n",
        "    max: 1e-6\n    min: 0\n",
        "F:20:5: gates[0]: gate onnx.fp32.decoder: kl_max needs exactly one of max and min",
        "",
    ),
    "gate that cannot fail": (
        "max: 1e-6",
        "min: 1e-6",
        "F:20:5: gates[0]: gate onnx.fp32.decoder: kl_max is better when lower: use max, not min",
        "",
    ),
    "gate that is no number": (
        "max: 1e-6",
        "max: .nan",
        "F:24:10: gates[0].max: found the number nan, expected a number",
        "",
    ),
    "gate without a reason": (
        "    why: rounding\n",
        "",
        "F:20:5: the key `gates[0].why` is missing",
        "expected a text",
    ),
    "gate with an empty reason": (
        "why: rounding",
        'why: " "',
        "F:25:5: gates[0].why: found nothing, expected the reason for this threshold",
        "",
    ),
    "alias": (
        "name: small",
        "name: &n small\nextend: *n",
        "F:3:9: found the alias *n; write the value out",
        "",
    ),
    "tag": (
        "name: small",
        "name: !!python/name:os.system small",
        "F:2:7: found the tag python/name:os.system; tags have no meaning here",
        "",
    ),
    "no YAML": (
        "name: small",
        "name: [small",
        "F:3:11: this is no YAML: expected ',' or ']', but got ':', while parsing a flow sequence",
        "",
    ),
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("F")


def test_the_recipe_that_the_mistakes_are_made_in_is_good(file: Path) -> None:
    file.write_text(RECIPE)
    recipe = load_recipe(file)
    assert recipe.name == "small"
    assert recipe.gates[0].max == 1e-6


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_place_finding_and_expectation(file: Path, name: str) -> None:
    old, new, message, hint = MISTAKES[name]
    assert RECIPE.count(old) >= 1
    file.write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.exit_code == 2


def test_a_further_size_that_is_served_anyway_is_told(file: Path) -> None:
    sizes = "ship: [float16], image_sizes: [512]"
    file.write_text(RECIPE.replace("ship: [float16]", sizes).replace("size: 128", "size: 512"))
    told = r"^F:18:66: targets\.coreml\.image_sizes\[0\]: 512 is the image\.size"
    with pytest.raises(RecipeError, match=told):
        load_recipe(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "F:1:1: found an empty file, expected a mapping"),
        (b"- 1\n", "F:1:1: found a list, expected a mapping"),
        (b"\xff\xfe\x00", "F: this is no UTF-8 text: invalid start byte"),
        (
            b"a: 1\n---\nb: 2\n",
            "F:2:1: this is no YAML: expected a single document in the stream, "
            "but found another document",
        ),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert caught.value.message == message


def test_a_missing_recipe_is_told_by_its_name(file: Path) -> None:
    with pytest.raises(RecipeError, match=r"^F: cannot be read: No such file or directory$"):
        load_recipe(file)
