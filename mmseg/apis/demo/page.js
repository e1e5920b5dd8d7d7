// Leads through the page: system, video, objects, result.

import { Painter } from "/painter.js";

const $ = (id) => document.getElementById(id);
const POLL = 400; // milliseconds between two looks at a job
let state = null;
let model = null; // what the chosen system asks for
let video = null;
let job = null;
let painter = null;

class Refused extends Error {
  constructor(parts) {
    super(parts.found);
    this.parts = parts;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { "X-Requested-With": "mmseg-demo" } });
  } catch {
    throw new Refused({ found: "The demo does not answer.", action: "look whether tools/demo.py still runs" });
  }
  const content = await answer.json();
  if (!answer.ok) throw new Refused(content);
  return content;
}

const post = (path, body) => ask(path, { method: "POST", body });

function tell(id, error) {
  const box = $(id);
  box.replaceChildren();
  box.hidden = !error;
  if (!error) return;
  const parts = error.parts ?? { found: String(error) };
  const found = document.createElement("strong");
  found.textContent = parts.found;
  box.append(found);
  for (const [name, text] of [["Expected", parts.expected], ["What to do", parts.action]]) {
    if (!text) continue;
    const line = document.createElement("p");
    const label = document.createElement("span");
    label.textContent = `${name}: `;
    line.append(label, text);
    box.append(line);
  }
}

const bytes = (n) => (n < 1e6 ? `${Math.max(1, Math.round(n / 1e3))} kB` : `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} MB`);
const time = (s) => (s < 60 ? `${Math.max(1, Math.round(s))} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`);

// ---------------------------------------------------------------- system

function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

function fillChoices() {
  const groups = new Map();
  for (const name of state.configs) {
    const group = name.includes("/") ? name.slice(0, name.indexOf("/")) : "other";
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(name);
  }
  $("config").append(option(state.inside, "the one inside of the checkpoint"));
  for (const [group, names] of groups) {
    const element = document.createElement("optgroup");
    element.label = group;
    for (const name of names) element.append(option(name, name.replace(/\.py$/, "").slice(name.indexOf("/") + 1)));
    $("config").append(element);
  }
  $("checkpoint").append(...state.checkpoints.map((name) => option(name, name)));
  $("checkpoint").append(option(state.untrained, "none: untrained, to try the page"));
  if (!state.checkpoints.length && state.configs.length) $("config").value = state.configs[0];
  $("flow").append(...state.flows.map((name) => option(name, name)));
  if (state.flows.includes("dis")) $("flow").value = "dis";
}

async function describe() {
  const [config, checkpoint] = [$("config").value, $("checkpoint").value];
  model = null;
  tell("model-error", null);
  $("model").textContent = "";
  update();
  try {
    const answer = await post("/api/describe", JSON.stringify({ config, checkpoint }));
    if (config !== $("config").value || checkpoint !== $("checkpoint").value) return;
    if (answer.error) throw new Refused(answer.error);
    model = answer;
    const does = [
      model.objects && "follows objects that you mark in the first frame",
      model.classes && `labels each pixel with one of ${model.classes} classes`,
      model.flow && "looks at optical flow",
    ];
    $("model").textContent = `${model.model}: ${does.filter(Boolean).join(", ")}`;
  } catch (error) {
    tell("model-error", error);
  }
  update();
}

// ---------------------------------------------------------------- video

async function takeVideo(getting) {
  const before = [video, $("video").textContent];
  tell("video-error", null);
  video = null;
  $("video").textContent = "Looking at the video …";
  update();
  try {
    const taken = await getting;
    const picture = new Image();
    picture.src = `/api/videos/${taken.key}/first.png`;
    await picture.decode();
    let ids = null;
    if (taken.marked) ids = new Uint8Array(await (await fetch(`/api/videos/${taken.key}/mask`)).arrayBuffer());
    video = taken;
    painter.show(picture, ids);
    $("first").src = picture.src;
    if (!busy()) job = null;
    const facts = [`${taken.name}: ${taken.width}x${taken.height}`];
    if (taken.length) facts.push(`${taken.length} frames`);
    if (taken.fps) facts.push(`${Number(taken.fps.toFixed(2))} per second`);
    if (state.max_frames && !(taken.length <= state.max_frames)) facts.push(`the first ${state.max_frames} are used`);
    $("video").textContent = facts.join(", ");
  } catch (error) {
    [video, $("video").textContent] = before; // it is still there
    tell("video-error", error);
  }
  $("upload").hidden = true;
  update();
}

function send(file) {
  if (file.size > state.max_upload) {
    const found = `${file.name} has ${bytes(file.size)}`;
    return Promise.reject(new Refused({ found, expected: `${bytes(state.max_upload)} at most`, action: "cut the video" }));
  }
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how far it is
    request.open("POST", `/api/videos?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("X-Requested-With", "mmseg-demo");
    request.upload.onprogress = (event) => {
      $("upload").hidden = false;
      $("upload").value = event.loaded / event.total;
    };
    request.onload = () => {
      let content;
      try {
        content = JSON.parse(request.responseText);
      } catch {
        content = { found: `The demo answers with ${request.status}.` };
      }
      request.status === 200 ? resolve(content) : reject(new Refused(content));
    };
    request.onerror = () => reject(new Refused({ found: "The upload was broken off.", action: "try again" }));
    request.send(file);
  });
}

// ---------------------------------------------------------------- objects

function fillObjects() {
  state.colours.forEach((colour, index) => {
    const button = document.createElement("button");
    const patch = document.createElement("canvas"); // style attributes are not allowed here
    patch.width = patch.height = 1;
    const context = patch.getContext("2d");
    context.fillStyle = `rgb(${colour.join()})`;
    context.fillRect(0, 0, 1, 1);
    button.type = "button";
    button.dataset.id = index + 1;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", index === 0);
    button.append(patch, String(index + 1));
    button.onclick = () => check(button, () => {
      painter.id = index + 1;
      if (painter.tool === "eraser") document.querySelector('[data-tool="brush"]').click();
    });
    $("ids").append(button);
  });
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.onclick = () => check(button, () => {
      painter.tool = button.dataset.tool;
      $("size-name").textContent = painter.tool === "click" ? "Colours alike" : "Brush size";
    });
  }
  $("size").oninput = () => (painter.size = Number($("size").value));
  $("undo").onclick = () => painter.undo();
  $("clear").onclick = () => painter.clear();
}

function check(button, then) {
  for (const other of button.parentElement.children) other.setAttribute("aria-checked", other === button);
  then();
}

// ---------------------------------------------------------------- result

const busy = () => job && !["done", "failed", "cancelled"].includes(job.state);

function update() {
  const objects = Boolean(model?.objects && video);
  $("objects").hidden = !objects;
  if (job === null && video) showOnly(objects ? "empty" : "preview"); // the first frame is shown already, to be painted on
  $("last-step").textContent = objects ? 4 : 3;
  $("flow-label").hidden = !model?.flow;
  let missing = "";
  if (!model) missing = "Choose a system.";
  else if (!video) missing = "Choose a video, or take the sample.";
  else if (objects && !painter.isMarked) missing = "Mark at least one object in the first frame.";
  $("missing").textContent = busy() ? "" : missing;
  $("run").disabled = Boolean(missing) || busy();
}

async function run(event) {
  event.preventDefault();
  showOnly("progress");
  $("phase").textContent = "Sending …";
  $("detail").textContent = "";
  $("result").scrollIntoView({ behavior: "smooth", block: "nearest" });
  const settings = {
    video: video.key,
    config: $("config").value,
    checkpoint: $("checkpoint").value,
    opacity: $("opacity").value / 100,
    legend: $("legend").checked ? 1 : 0,
    beside: $("beside").checked ? 1 : 0,
  };
  if (model.flow) settings.flow = $("flow").value;
  await follow(post(`/api/jobs?${new URLSearchParams(settings)}`, model.objects ? painter.ids : ""));
}

// Show a job until it has ended. Its key stands in the address, so that it is still there when the page is loaded again.
async function follow(asking) {
  try {
    job = await asking;
    history.replaceState(null, "", `#${job.key}`);
    show();
    while (busy()) {
      await new Promise((resolve) => setTimeout(resolve, POLL));
      job = await ask(`/api/jobs/${job.key}`);
      show();
    }
  } catch (error) {
    job = { state: "failed", error: error.parts };
    history.replaceState(null, "", "/");
    showOnly();
    tell("job-error", error);
  }
  update();
}

// Of what may stand in the place for results, these.
function showOnly(...ids) {
  for (const id of ["preview", "empty", "cancelled", "progress", "job-error", "shown", "files"]) $(id).hidden = !ids.includes(id);
}

function show() {
  update();
  const { state: phase, done, total, before, rate } = job;
  if (phase === "waiting") $("phase").textContent = before ? `${before} before you in the queue` : "Next in the queue";
  if (phase === "loading") $("phase").textContent = "Loading the model …";
  if (phase === "running") $("phase").textContent = `Frame ${done}${total ? ` of ${total}` : ""}`;
  if (phase === "running" && total) Object.assign($("bar"), { max: total, value: done });
  else $("bar").removeAttribute("value");
  const left = phase === "running" && rate && total ? `, about ${time((total - done) / rate)} left` : "";
  $("detail").textContent = rate && phase === "running" ? `${rate.toFixed(1)} frames per second${left}` : "";
  if (phase === "cancelled") showOnly("cancelled");
  if (phase === "failed") {
    showOnly();
    tell("job-error", new Refused(job.error));
  }
  if (phase === "done") showFiles();
}

function showFiles() {
  const address = (name) => `/api/jobs/${job.key}/files/${encodeURIComponent(name)}`;
  const names = Object.keys(job.files);
  const film = names.find((name) => /\.(mp4|webm)$/.test(name));
  showOnly("shown", "files");
  $("player").hidden = !film;
  if (film) {
    $("player").src = address(film);
    $("player").play().catch(() => {}); // some browsers want a click first
  }
  const seconds = Math.max(job.seconds, 0.01);
  $("caption").textContent = `${job.done} frames in ${time(job.seconds)}, ${(job.done / seconds).toFixed(1)} per second`;
  const words = { json: "areas and boxes", zip: "everything, with label maps" };
  $("files").replaceChildren(...names.map((name) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    const note = document.createElement("small");
    link.href = `${address(name)}?download`;
    link.download = name;
    note.textContent = `${words[name.split(".").pop()] ?? "overlay"}, ${bytes(job.files[name])}`;
    link.append(name, note);
    item.append(link);
    return item;
  }));
}

// ---------------------------------------------------------------- start

async function start() {
  try {
    state = await ask("/api/state");
  } catch (error) {
    tell("model-error", error);
    return;
  }
  $("about").textContent = `version ${state.version}, computes on ${state.device}`;
  $("limit").textContent = `, up to ${bytes(state.max_upload)}`;
  painter = new Painter($("canvas"), state.colours, update);
  fillChoices();
  fillObjects();
  $("config").onchange = $("checkpoint").onchange = describe;
  $("choose").onclick = () => $("file").click();
  $("file").onchange = () => {
    if ($("file").files.length) takeVideo(send($("file").files[0]));
    $("file").value = "";
  };
  $("sample").onclick = () => takeVideo(post("/api/sample"));
  const drop = $("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) takeVideo(send(event.dataTransfer.files[0]));
    });
  }
  $("opacity").oninput = () => ($("opacity-value").textContent = `${$("opacity").value} %`);
  $("form").onsubmit = run;
  $("cancel").onclick = () => post(`/api/jobs/${job.key}/cancel`).catch(() => {});
  await describe();
  if (location.hash) await follow(ask(`/api/jobs/${location.hash.slice(1)}`));
}

start();
