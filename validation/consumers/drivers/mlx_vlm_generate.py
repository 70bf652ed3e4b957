"""Asks mlx-vlm the questions of a `cases.json`: mlx_vlm_generate.py FOLDER CASES_JSON.

Uses mlx-vlm as its users do: `load`, `apply_chat_template` and `generate`, greedy. The last line
of stdout is a JSON object: `version`, `mlx_version`, and by case `answers` and `prompts`.
"""

import importlib.metadata
import json
import sys
from pathlib import Path


def main(folder: Path, cases_file: Path) -> dict[str, object]:
    """Loads a bundle's `mlx/<variant>` and answers every case."""
    from mlx_vlm import generate, load
    from mlx_vlm.prompt_utils import apply_chat_template

    asked = json.loads(cases_file.read_text(encoding="utf-8"))
    model, processor = load(str(folder))
    answers: dict[str, list[int]] = {}
    prompts: dict[str, str] = {}
    for case in asked["cases"]:
        images = [str(cases_file.parent / case["image"])] if case["image"] else []
        prompt = apply_chat_template(
            processor, model.config, case["question"], num_images=len(images)
        )
        result = generate(
            model,
            processor,
            prompt,
            image=images or None,
            max_tokens=asked["max_new_tokens"],
            temperature=0.0,
        )
        answers[case["id"]] = list(result.token_ids or [])
        prompts[case["id"]] = prompt
    return {
        "version": importlib.metadata.version("mlx-vlm"),
        "mlx_version": importlib.metadata.version("mlx"),
        "answers": answers,
        "prompts": prompts,
    }


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2])))}\n")
