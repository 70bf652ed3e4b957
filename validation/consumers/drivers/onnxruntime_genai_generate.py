"""Asks onnxruntime-genai: onnxruntime_genai_generate.py BUNDLE CASES_JSON GRAPHS_JSON.

GRAPHS_JSON maps `vision`, `embedding` and `decoder` to files of the bundle; an empty object leaves
those that `genai_config.json` names. The last line of stdout is a JSON object: `version`, and
`answers` by case.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from PIL import Image


def main(bundle: Path, cases_file: Path, graphs: dict[str, str]) -> dict[str, object]:
    """Answers every case, greedily."""
    og.disable_telemetry_events()
    asked = json.loads(cases_file.read_text(encoding="utf-8"))
    written = json.loads((bundle / "genai_config.json").read_text(encoding="utf-8"))["model"]
    contract = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["contract"]
    config = og.Config(str(bundle))
    changes = {part: {"filename": name} for part, name in graphs.items()}
    config.overlay(json.dumps({"model": changes}))
    model = og.Model(config)
    tokenizer = og.Tokenizer(model)
    answers: dict[str, list[int]] = {}
    for case in asked["cases"]:
        text_ids = np.asarray(tokenizer.encode(case["prompt"]), dtype=np.int32)
        is_image = text_ids == written["image_token_id"]
        num_rows = contract["image"]["tokens"]
        ids = np.repeat(text_ids, np.where(is_image, num_rows, 1))
        inputs = og.NamedTensors()
        inputs["input_ids"] = ids[None]
        if case["image"]:
            # As large as the tower's input, so that nothing is left to resize.
            image = np.asarray(Image.open(cases_file.parent / case["image"]).convert("RGB"))
            pixels = (image.transpose(2, 0, 1)[None] * (1 / 255)).astype(np.float32)
            inputs["pixel_values"] = np.ascontiguousarray(pixels)
            inputs["num_image_tokens"] = np.array([num_rows], dtype=np.int64)
        params = og.GeneratorParams(model)
        longest = min(len(ids) + asked["max_new_tokens"], contract["context_length"])
        params.set_search_options(do_sample=False, max_length=longest)
        generator = og.Generator(model, params)
        generator.set_inputs(inputs)
        tokens: list[int] = []
        while not generator.is_done():
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        answers[case["id"]] = tokens
    return {"version": og.__version__, "answers": answers}


if __name__ == "__main__":
    document = main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
    sys.stdout.write(f"{json.dumps(document)}\n")
