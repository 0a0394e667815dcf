// The page: a photograph or the camera goes in, and what the model sees is drawn over it.

import { Network, backends } from "./network.js";

const element = (id) => document.getElementById(id);
const [picture, overlay] = [element("picture"), element("overlay")];
const RECENT = 20; // Frames that the frames per second are counted over.
const MOST_CLASSES = 5; // Classes that are listed for a classifier.

let network;
let camera = null;

async function start(backend) {
  const available = await backends();
  const chosen = available.includes(backend) ? backend : available[0];
  element("backend").replaceChildren(...available.map((name) => new Option(name, name, false, name === chosen)));
  say(`loading the model for ${chosen} ...`);
  network = await Network.load(chosen, navigator.hardwareConcurrency);
  const [height, width] = network.card.input_size;
  await network.run(network.normalize(new Uint8Array(3 * height * width))); // The first run takes far longer.
  document.title = `${network.card.name}, ${network.card.task}`;
  element("title").textContent = document.title;
  say("drop a photograph here, or start the camera");
  for (const control of document.querySelectorAll("input, button")) control.disabled = false;
}

function say(text) {
  element("status").textContent = text;
}

// Runs the model on a picture or a frame of a video, and draws the result.
async function show(source, width, height) {
  picture.width = width;
  picture.height = height;
  const context = picture.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  const began = performance.now();
  const values = network.prepare(context.getImageData(0, 0, width, height));
  const prepared = performance.now();
  const logits = await network.run(values);
  const ended = performance.now();
  const spans = { pre: prepared - began, network: ended - prepared, post: 0 };
  if (network.card.task === "classification") listClasses(logits.data);
  else {
    const labels = network.labels(logits);
    spans.post = performance.now() - ended;
    drawLabels(labels);
  }
  return spans;
}

// Draws a class map [H, W] in the colours of the classes, as large as the picture.
function drawLabels(labels) {
  const { input_size: [height, width], palette, class_names: names } = network.card;
  overlay.width = width;
  overlay.height = height;
  const image = new ImageData(width, height);
  const counts = new Array(names.length).fill(0);
  for (let i = 0; i < labels.length; i++) {
    image.data.set(palette[labels[i]], 4 * i);
    image.data[4 * i + 3] = 255;
    counts[labels[i]]++;
  }
  overlay.getContext("2d").putImageData(image, 0, 0);
  const found = counts.map((count, k) => [count / labels.length, k]).filter(([share]) => share > 0);
  found.sort(([a], [b]) => b - a);
  legend(found.map(([share, k]) => [names[k], share, `rgb(${palette[k]})`]));
}

function listClasses(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  const order = [...powers.keys()].sort((a, b) => powers[b] - powers[a]).slice(0, MOST_CLASSES);
  legend(order.map((k) => [network.card.class_names[k], powers[k] / sum, "transparent"]));
}

// Lists names with their shares and colours.
function legend(entries) {
  const items = entries.map(([name, share, colour]) => {
    const item = document.createElement("li");
    const swatch = document.createElement("i");
    swatch.style.background = colour;
    item.append(swatch, `${name} ${(100 * share).toFixed(1)} %`);
    return item;
  });
  element("legend").replaceChildren(...items);
}

function described({ pre, network: run, post }) {
  const [before, during, after] = [pre, run, post].map((span) => span.toFixed(1));
  const labels = network.card.task === "classification" ? "" : `, labels ${after} ms`;
  return `preparation ${before} ms, network ${during} ms (${network.backend})${labels}`;
}

async function showFile(file) {
  stopCamera();
  try {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const times = await show(bitmap, bitmap.width, bitmap.height);
    say(`${file.name}: ${described(times)}`);
  } catch (error) {
    say(`${file.name} cannot be shown: ${error.message}`);
  }
}

function startOrSay(backend) {
  start(backend).catch((error) => say(`the model cannot run: ${error.message}`));
}

async function startCamera() {
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say(`no camera: ${error.message}`); // Browsers have cameras on https and localhost only.
    return;
  }
  try {
    await showCamera();
  } catch (error) {
    stopCamera();
    say(`the camera cannot be shown: ${error.message}`);
  }
}

async function showCamera() {
  const video = document.createElement("video");
  Object.assign(video, { srcObject: camera, muted: true, playsInline: true });
  await video.play();
  element("camera").textContent = "stop the camera";
  const ends = [];
  while (camera) {
    const times = await show(video, video.videoWidth, video.videoHeight);
    ends.push(performance.now());
    if (ends.length > RECENT) ends.shift();
    const rate = (1000 * (ends.length - 1)) / (ends.at(-1) - ends[0]);
    const speed = ends.length > 1 ? `, ${rate.toFixed(1)} frames per second` : "";
    say(described(times) + speed);
    await new Promise(requestAnimationFrame); // Lets the browser draw.
  }
}

function stopCamera() {
  for (const track of camera?.getTracks() ?? []) track.stop();
  camera = null;
  element("camera").textContent = "start the camera";
}

element("file").addEventListener("change", (event) => event.target.files[0] && showFile(event.target.files[0]));
element("camera").addEventListener("click", () => (camera ? stopCamera() : startCamera()));
element("opacity").addEventListener("input", (event) => (overlay.style.opacity = event.target.value));
element("backend").addEventListener("change", (event) => startOrSay(event.target.value));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (network && file) showFile(file);
});

startOrSay(new URLSearchParams(location.search).get("backend"));
