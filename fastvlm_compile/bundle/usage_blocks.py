"""The texts of the card's blocks: code that is run in the bundle's folder, see `usage.py`."""

ONNXRUNTIME = 'python example/answer.py "Describe the image." photo.png'

TRANSFORMERS_JS = """\
import path from "node:path";
import { AutoProcessor, LlavaQwen2ForCausalLM, RawImage, env } from "@huggingface/transformers";

const bundle = path.resolve(".");
env.localModelPath = path.dirname(bundle) + path.sep;
env.allowRemoteModels = false;
const name = path.basename(bundle);
const processor = await AutoProcessor.from_pretrained(name);
const model = await LlavaQwen2ForCausalLM.from_pretrained(name);

const content = [{ type: "text", text: "Describe the image." }, { type: "image" }];
const messages = [{ role: "user", content }];
const prompt = processor.apply_chat_template(messages, { add_generation_prompt: true });
const inputs = await processor(await RawImage.read("photo.png"), prompt);
const output = await model.generate({ ...inputs, max_new_tokens: 64, do_sample: false });
const answer = output.slice(null, [inputs.input_ids.dims[1], null]);
console.log(processor.batch_decode(answer, { skip_special_tokens: true })[0]);
"""

BROWSER = "fastvlm-compile demo . --assets node_modules"

GENAI = """\
import json

import numpy as np
import onnxruntime_genai as og
from PIL import Image, ImageOps

contract = json.load(open("manifest.json"))["contract"]
size, num_rows = contract["image"]["size"], contract["image"]["tokens"]
model = og.Model(".")
tokenizer = og.Tokenizer(model)

image = np.asarray(ImageOps.FIT(Image.open("photo.png").convert("RGB"), (size, size)))
prompt = contract["prompt"]["template"].replace("{prompt}", "Describe the image.")
ids = np.asarray(tokenizer.encode(prompt), np.int32)
image_id = json.load(open("genai_config.json"))["model"]["image_token_id"]
ids = np.repeat(ids, np.where(ids == image_id, num_rows, 1))  # a place for each of the image's rows
pixels = image.transpose(2, 0, 1)[None].astype(np.float32) / 255

inputs = og.NamedTensors()
inputs["input_ids"] = ids[None]
inputs["pixel_values"] = np.ascontiguousarray(pixels)
inputs["num_image_tokens"] = np.array([num_rows], dtype=np.int64)
params = og.GeneratorParams(model)
params.set_search_options(do_sample=False, max_length=len(ids) + 64)
generator = og.Generator(model, params)
generator.set_inputs(inputs)
answer = []
while not generator.is_done():
    generator.generate_next_token()
    answer.append(generator.get_next_tokens()[0])
print(tokenizer.decode(answer))
"""

MLX_VLM = """\
python -m mlx_vlm.generate --model mlx/VARIANT --image photo.png \\
  --prompt "Describe the image." --max-tokens 16 --temperature 0
"""

APPLE_APP = """\
# The app takes its model from there; then build it in Xcode.
mkdir -p ml-fastvlm/app/FastVLM/model
cp -R apple_app/. ml-fastvlm/app/FastVLM/model/
ls ml-fastvlm/app/FastVLM/model
"""

TRANSFORMERS = """\
mkdir checkpoint
cp torch/* TOKENIZER checkpoint/
fastvlm-compile checkpoint convert checkpoint fast_vlm --to transformers
python - <<'END'
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("fast_vlm")
model = AutoModelForImageTextToText.from_pretrained("fast_vlm", dtype="float32")
content = [{"type": "image"}, {"type": "text", "text": "Describe the image."}]
messages = [{"role": "user", "content": content}]
prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
image = Image.open("photo.png").convert("RGB")
inputs = processor(images=image, text=prompt, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
END
"""

COREMLTOOLS = """\
import json
import platform

import coremltools as ct
import numpy as np
from PIL import Image

size = json.load(open("manifest.json"))["contract"]["image"]["size"]
image = Image.open("photo.png").convert("RGB").resize((size, size), Image.BICUBIC)
pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255
tower = ct.models.MLModel("coreml/fastvithd.mlpackage")
if platform.system() == "Darwin":  # only there is a Core ML that computes
    print(tower.predict({"images": pixels})["image_features"].shape)
else:
    print("loaded:", tower.get_spec().WhichOneof("Type"))
"""
