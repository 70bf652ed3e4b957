// Asks a bundle questions with transformers.js, from disk alone.
//
//   node transformers_js.mjs NODE_MODULES BUNDLE CASES_JSON DTYPE
//
// DTYPE is a name ("fp32"), a JSON object of names, or "default" for what config.json says.
// Prints {version, answers: {id: [token]}, texts: {id: text}} as the last line.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

async function main(nodeModules, bundle, casesFile, dtype) {
  const require = createRequire(path.join(path.resolve(nodeModules), "from-here.js"));
  const found = pathToFileURL(require.resolve("@huggingface/transformers"));
  const { AutoProcessor, LlavaQwen2ForCausalLM, RawImage, env } = await import(found.href);
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(path.resolve(bundle)) + path.sep;
  env.useFSCache = false;
  globalThis.fetch = () => Promise.reject(new Error("something was asked of the network"));

  const name = path.basename(path.resolve(bundle));
  const options = dtype === "default" ? {} : { dtype: dtype[0] === "{" ? JSON.parse(dtype) : dtype };
  const processor = await AutoProcessor.from_pretrained(name);
  const model = await LlavaQwen2ForCausalLM.from_pretrained(name, options);
  const asked = JSON.parse(await readFile(casesFile, "utf-8"));
  const answers = {};
  const texts = {};
  for (const each of asked.cases) {
    const text = rendered(processor, each);
    const file = each.image && path.join(path.dirname(casesFile), each.image);
    const inputs = file ? await processor(await RawImage.read(file), text) : processor.tokenizer(text);
    const limits = { max_new_tokens: asked.max_new_tokens, do_sample: false };
    const output = await model.generate({ ...inputs, ...limits });
    answers[each.id] = output.tolist()[0].slice(inputs.input_ids.dims[1]).map(Number);
    texts[each.id] = processor.tokenizer.decode(answers[each.id], { skip_special_tokens: true });
  }
  return { version: env.version, answers, texts };
}

/** The prompt as the bundle's chat template makes it; it must be the reference's. */
function rendered(processor, each) {
  const content = [{ type: "text", text: each.question }];
  if (each.image) content.push({ type: "image" });
  const messages = [{ role: "user", content }];
  const text = processor.apply_chat_template(messages, { add_generation_prompt: true });
  if (text !== each.prompt) {
    throw new Error(`${each.id}: the chat template makes ${JSON.stringify(text)}`);
  }
  return text;
}

// Also where transformers.js awaits a missing file and nobody awaits that.
process.on("unhandledRejection", (error) => {
  console.error(String(error.message ?? error).replaceAll(/\s+/g, " "));
  process.exit(1);
});
console.log(JSON.stringify(await main(...process.argv.slice(2))));
