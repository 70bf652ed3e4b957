"""Answers a question about images: `python example/answer.py "What is this?" photo.jpg`."""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer


def pixel_values(path: Path, size: int, fit: str) -> np.ndarray:
    """An image in the square that the model was trained to see: float32 [3, size, size], 0..1."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if fit == "pad":  # all of it on a black square; `crop` keeps the middle square alone
        x, y = (max(image.size) - side for side in image.size)
        image = ImageOps.expand(image, (x // 2, y // 2, x - x // 2, y - y // 2))
    width, height = (int(size * side / min(image.size)) for side in image.size)
    x, y = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC).crop((x, y, x + size, y + size))
    return (np.asarray(image).transpose(2, 0, 1) * (1 / 255)).astype(np.float32)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("question")
parser.add_argument("images", nargs="*", type=Path)
parser.add_argument("--variant", default="fp32", help="of the graphs: fp16, int8, int4 ...")
parser.add_argument("--max-new-tokens", type=int, default=256)
asked = parser.parse_args()
bundle = Path(__file__).resolve().parents[1]
manifest, config = (json.loads((bundle / f"{x}.json").read_bytes()) for x in ("manifest", "config"))
contract, image_id = manifest["contract"], config["image_token_index"]
files = {x["variant"]: x["files"] for x in manifest["variants"] if x["target"] == "onnx"}
graphs = sorted(bundle / name for name in files[asked.variant] if name.endswith(".onnx"))
decoder, embed, vision = (onnxruntime.InferenceSession(path) for path in graphs)
tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
prompt = contract["prompt"]["template"]
mark = "<image>\n" if "<image>\n" in prompt else "<image>"  # before or after the question
prompt = prompt.replace(mark, mark * len(asked.images)).replace("{prompt}", asked.question)
ids = np.array(tokenizer.encode(prompt, add_special_tokens=False).ids)
ids = np.repeat(ids, np.where(ids == image_id, contract["image"]["tokens"], 1))
embeds = embed.run(None, {"input_ids": ids[None]})[0]
if asked.images:
    size, fit = contract["image"]["size"], contract["image"]["fit"]
    pixels = np.stack([pixel_values(path, size, fit) for path in asked.images])
    embeds[0, ids == image_id] = np.concatenate(vision.run(None, {"pixel_values": pixels})[0])

ports = [port for port in decoder.get_inputs() if port.name.startswith("past_key_values.")]
feeds = {port.name: np.zeros((1, port.shape[1], 0, port.shape[3]), np.float32) for port in ports}
tokens: list[int] = []
for end in range(len(ids), min(len(ids) + asked.max_new_tokens, contract["context_length"])):
    feeds |= {"inputs_embeds": embeds, "position_ids": np.arange(end - embeds.shape[1], end)[None]}
    logits, *caches = decoder.run(None, {**feeds, "attention_mask": np.ones((1, end), np.int64)})
    tokens.append(int(logits[0, -1, : tokenizer.get_vocab_size()].argmax()))
    if tokens[-1] in np.atleast_1d(config["eos_token_id"]):
        break
    feeds = {port.name: cache for port, cache in zip(ports, caches, strict=True)}
    embeds = embed.run(None, {"input_ids": [[tokens[-1]]]})[0]
print(tokenizer.decode(tokens))
