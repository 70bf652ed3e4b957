// The page: an image and a question go to the worker, what it says comes onto the screen.

const byId = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const settings = await (await fetch("settings.json")).json();

let ready = false;
let busy = false;
let picture = null; // ImageBitmap

byId("name").textContent = settings.name;
byId("what").textContent =
  `${settings.variant}, running in this browser. The image stays on this machine.`;
document.title = `${settings.name} in this browser`;

worker.onmessage = ({ data }) => handlers[data.type](data);
worker.onerror = (event) => fail(event.message ?? "the worker could not be started");
worker.postMessage({ type: "load", settings });

const handlers = {
  progress({ loaded }) {
    byId("progress").value = Math.min(loaded / settings.size_bytes, 1);
    byId("status").textContent =
      `Loading ${megabytes(Math.min(loaded, settings.size_bytes))} of ` +
      `${megabytes(settings.size_bytes)} MB`;
  },
  starting() {
    byId("progress").removeAttribute("value");
    byId("status").textContent = "Preparing the model";
  },
  ready({ load_s, threads }) {
    ready = true;
    byId("progress").hidden = true;
    const with_threads = threads === 1 ? "1 thread" : `${threads} threads`;
    byId("status").textContent = `Ready, loaded in ${load_s.toFixed(1)} s; ${with_threads}`;
    update();
  },
  first({ first_s }) {
    byId("figures").hidden = false;
    byId("first").textContent = `${first_s.toFixed(2)} s`;
  },
  text({ piece }) {
    byId("answer").append(piece);
  },
  count({ tokens, rate }) {
    byId("count").textContent = tokens;
    if (rate !== null) byId("rate").textContent = `${rate.toFixed(1)} tokens/s`;
  },
  done() {
    busy = false;
    byId("answer").dataset.state = "done";
    update();
  },
  error({ message }) {
    fail(message);
  },
};

byId("file").addEventListener("change", () => take(byId("file").files[0]));
byId("form").addEventListener("submit", ask);
byId("stop").addEventListener("click", () => worker.postMessage({ type: "stop" }));

const drop = byId("drop");
for (const name of ["dragover", "drop"]) {
  // Beside the field, too: a browser would leave the page and show the image.
  addEventListener(name, (event) => event.preventDefault());
}
drop.addEventListener("dragover", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  drop.classList.remove("over");
  take(event.dataTransfer.files[0]);
});

async function take(file) {
  if (!file) return;
  tell("");
  try {
    // As Pillow reads it: turned as the camera says, its colours not converted.
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
    picture = await createImageBitmap(file, options);
  } catch {
    picture = null;
    byId("preview").hidden = true;
    byId("file-hint").textContent = "Drag an image here, or choose a file";
    tell(`${file.name} is not an image that this browser can read.`);
    update();
    return;
  }
  URL.revokeObjectURL(byId("preview").src);
  byId("preview").src = URL.createObjectURL(file);
  byId("preview").hidden = false;
  byId("file-hint").textContent = `${file.name}, ${picture.width} × ${picture.height}`;
  update();
}

function ask(event) {
  event.preventDefault();
  if (!ready || busy || !picture) return;
  tell("");
  busy = true;
  byId("answer").replaceChildren();
  byId("answer").dataset.state = "busy";
  byId("first").textContent = byId("rate").textContent = "–";
  byId("count").textContent = "0";
  const { pixels, size } = fitted(picture);
  const question = byId("question").value;
  worker.postMessage({ type: "ask", pixels, size, question }, [pixels.buffer]);
  update();
}

// A square as the bundle's manifest says. transformers.js would always crop.
function fitted(image) {
  const size = settings.image_size;
  const fit = settings.fit === "pad" ? Math.max : Math.min;
  const scale = size / fit(image.width, image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "black";
  context.fillRect(0, 0, size, size);
  context.drawImage(image, (size - width) / 2, (size - height) / 2, width, height);
  return { pixels: context.getImageData(0, 0, size, size).data, size };
}

function update() {
  byId("ask").disabled = !ready || busy || !picture;
  byId("stop").hidden = !busy;
}

function fail(message) {
  busy = false;
  byId("answer").dataset.state = "failed";
  if (!ready) byId("loading").hidden = true;
  tell(message);
  update();
}

function tell(message) {
  byId("error").textContent = message;
  byId("error").hidden = !message;
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0);
}
