// The model, beside the page's own thread so that the page stays alive while it computes.

import {
  AutoProcessor,
  InterruptableStoppingCriteria,
  LlavaQwen2ForCausalLM,
  RawImage,
  TextStreamer,
  env,
} from "./assets/transformers.min.js";

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = new URL("./", import.meta.url).pathname;
// Another bundle may be served at this address tomorrow.
env.useBrowserCache = false;
env.useWasmCache = false;

const stopping = new InterruptableStoppingCriteria();
let settings;
let processor;
let model;

onmessage = async ({ data }) => {
  try {
    if (data.type === "load") await load(data.settings);
    else if (data.type === "ask") await answer(data);
    else stopping.interrupt();
  } catch (error) {
    postMessage({ type: "error", message: String(error?.message ?? error) });
  }
};

// Where transformers.js awaits a missing file and nobody awaits that.
addEventListener("unhandledrejection", ({ reason }) => {
  postMessage({ type: "error", message: String(reason?.message ?? reason) });
});

async function load(given) {
  settings = given;
  env.backends.onnx.wasm.wasmPaths = {
    mjs: new URL(settings.wasm.mjs, import.meta.url).href,
    wasm: new URL(settings.wasm.wasm, import.meta.url).href,
  };
  const started = performance.now();
  const loaded = new Map();
  const progress_callback = (event) => {
    if (event.status !== "progress" || !event.file.startsWith("onnx/")) return;
    loaded.set(event.file, event.loaded);
    const total = [...loaded.values()].reduce((sum, bytes) => sum + bytes, 0);
    postMessage(total < settings.size_bytes ? { type: "progress", loaded: total } : { type: "starting" });
  };
  processor = await AutoProcessor.from_pretrained("model");
  model = await LlavaQwen2ForCausalLM.from_pretrained("model", {
    device: "wasm",
    dtype: settings.dtype,
    progress_callback,
    ...(settings.shared_data.length ? { session_options: { externalData: sharedData() } } : {}),
  });
  const load_s = (performance.now() - started) / 1000;
  postMessage({ type: "ready", load_s, threads: env.backends.onnx.wasm.numThreads ?? 1 });
}

// A tied embedding reads the decoder's file of weights; transformers.js looks for its own.
function sharedData() {
  return settings.shared_data.map((name) => ({ path: name, data: `onnx/${name}` }));
}

async function answer({ pixels, size, question }) {
  const started = performance.now();
  stopping.reset();
  const content = [{ type: "image" }, { type: "text", text: question }];
  const text = processor.apply_chat_template([{ role: "user", content }], {
    add_generation_prompt: true,
  });
  const image = new RawImage(pixels, size, size, 4).rgb();
  const inputs = await processor(image, text);
  const room = settings.context_length - inputs.input_ids.dims[1];
  if (room < 1) throw new Error(`The question is too long: ${settings.context_length} tokens fit.`);
  let tokens = 0;
  let first;
  const streamer = new TextStreamer(processor.tokenizer, {
    skip_prompt: true,
    callback_function: (piece) => piece && postMessage({ type: "text", piece }),
    token_callback_function: () => {
      const now = performance.now();
      tokens += 1;
      first ??= now;
      if (tokens === 1) postMessage({ type: "first", first_s: (first - started) / 1000 });
      const rate = tokens > 1 ? ((tokens - 1) * 1000) / (now - first) : null;
      postMessage({ type: "count", tokens, rate });
    },
  });
  await model.generate({
    ...inputs,
    max_new_tokens: Math.min(settings.max_new_tokens, room),
    do_sample: false,
    streamer,
    stopping_criteria: stopping,
  });
  postMessage({ type: "done" });
}
