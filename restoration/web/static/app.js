// The page: what was uploaded, what is shown of it, and what is asked of the program.
import { address, dropped, get, post, Refused, upload } from "/static/api.js";
import { createViewer } from "/static/viewer.js";

const $ = (id) => document.getElementById(id);
const SENT_AT_ONCE = 2;

const state = {
  server: null, // the last answer of /api/state
  cancelled: new Set(), // uploads by their ids
  uploads: [], // {id, name, file, share, line, active, stop, row}
  chosen: "", // key of the picture that is shown
  picked: false, // whether the user chose it
  edits: new Map(), // of each picture: {done: [], undone: [], version}
  rows: new Map(), // of each picture: its row in the list
  shown: "", // what the viewer was given last
  ended: false,
  touched: new Map(), // choices of each picture that are not applied yet
};

// Words

const number = (value) => value.toLocaleString("en");

const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

function duration(seconds) {
  if (seconds < 8) return "a few seconds";
  if (seconds < 90) return `${5 * Math.round(seconds / 5)} seconds`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  return `${Math.round(seconds / 3600)} hours`;
}

function bytes(size) {
  if (size < 1e6) return `${Math.max(1, Math.round(size / 1e3))} kB`;
  return size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(1)} GB`;
}

const kindOf = (picture) => (picture?.is_film ? "film" : "photograph");

// "12 of 240"; without an end where the header of a film does not tell it.
const counted = ([done, all]) =>
  all ? `${number(done)} of ${number(Math.max(done, all))}` : number(done);

const stages = {
  finding: () => "Looking for damage",
  looking: (picture) => `Looking through, frame ${counted(picture.frames)}`,
  finishing: () => "Finishing",
  restoring: (picture) => (picture.is_film ? `Frame ${counted(picture.frames)}` : "Restoring"),
};

const words = {
  reading: () => "Opening",
  waiting: () => "Waiting",
  working: (picture) => (stages[picture.stage] ?? (() => "Restoring"))(picture),
  done: () => "Restored",
  failed: (picture) => (picture.levels.length ? "Not restored" : "Cannot be opened"),
  cancelled: () => "Cancelled",
};

function describe(picture) {
  if (state.server.worker.state === "starting" && picture.state === "waiting") {
    return "Getting ready";
  }
  const said = words[picture.state](picture);
  const left = picture.left;
  return picture.state === "working" && left != null ? `${said}, ${duration(left)} left` : said;
}

// What the page knows

// What is still being sent has a row of its own, in the tab that sends it.
// A file may be there whole before its request is answered: until then its upload stands
// for it, and when that was cancelled it is removed.
const pictures = () =>
  (state.server?.pictures ?? []).filter(
    ({ state: now, upload: id }) =>
      now !== "receiving" &&
      !state.cancelled.has(id) &&
      !state.uploads.some((item) => item.id === id),
  );
const find = (key) => pictures().find((picture) => picture.key === key);
const chosen = () => find(state.chosen);
const busy = (picture) => ["reading", "waiting", "working"].includes(picture.state);

function edits(picture) {
  const version = picture.result?.version ?? 0;
  let found = state.edits.get(picture.key);
  if (!found || found.version !== version) {
    found = { done: [], undone: [], version };
    state.edits.set(picture.key, found);
  }
  return found;
}

// The mask as it stands: one of the picture's masks, and strokes on it.
function currentMask(picture) {
  const { done } = edits(picture);
  let mask = picture.result?.mask ?? -1;
  let strokes = [];
  for (const edit of done) {
    if ("mask" in edit) [mask, strokes] = [edit.mask, []];
    else strokes = [...strokes, edit];
  }
  return { mask, strokes };
}

const corrected = (picture) =>
  edits(picture).done.length > 0 || (picture.result?.corrected ?? false);

// The banner

function tell(line, { reload = false } = {}) {
  const banner = $("banner");
  banner.hidden = !line;
  banner.querySelector("span").textContent = line;
  banner.querySelector("button").hidden = !reload;
  clearTimeout(tell.timer);
  if (line && !reload) tell.timer = setTimeout(() => tell(""), 9000);
}

// Does what may be refused; the reason is shown.
async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    report(error);
    return null;
  }
}

function report(error) {
  if (error instanceof Refused && error.status === 403) {
    tell("The program was started again since this page was opened.", { reload: true });
  } else if (error instanceof Refused) {
    tell(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`);
  } else {
    console.error(error);
    tell("The program does not answer. Start it again, then load this page again.", {
      reload: true,
    });
  }
}

// Asking for news

let missed = 0;

async function refresh() {
  clearTimeout(refresh.timer);
  if (state.ended) return;
  try {
    state.server = await get("/api/state");
    for (const picture of state.server.pictures) {
      if (state.cancelled.has(picture.upload) && picture.state !== "receiving") {
        await post(`/api/pictures/${picture.key}/remove`);
      }
    }
    if (missed) tell("");
    missed = 0;
    render();
  } catch (error) {
    missed += 1;
    if (missed > 1 || error instanceof Refused) report(error);
  }
  const active = !state.server || pictures().some(busy) || state.server.worker.state === "starting";
  refresh.timer = setTimeout(refresh, active ? 500 : 2500);
}

// Uploads

function add(files) {
  const films = new Set(state.server?.film_suffixes ?? []);
  const known = new Set([...(state.server?.suffixes ?? []), ...films]);
  const limits = state.server?.limits ?? { file: Infinity, film: Infinity };
  const ending = (name) => name.slice(name.lastIndexOf(".")).toLowerCase();
  // In a folder much else lies; what was chosen by itself gets its answer.
  const wanted = files.filter(
    ({ file, inside }) =>
      !inside || (known.has(ending(file.name)) && !file.name.startsWith(".")),
  );
  if (files.length && !wanted.length) tell("There are no photographs or films in this folder.");
  for (const { file, path } of wanted) {
    const id = `${Date.now()}-${Math.random()}`;
    const item = { id, name: path, file, share: 0, line: "", active: false, stop: new AbortController() };
    const most = films.has(ending(file.name)) ? limits.film : limits.file;
    if (file.size > most) {
      item.line = `larger than ${bytes(most)}, the most that the page takes`;
    }
    state.uploads.push(item);
  }
  render();
  send();
}

function forget(item) {
  state.uploads = state.uploads.filter((other) => other !== item);
}

async function send() {
  const waiting = state.uploads.filter((item) => !item.active && !item.line);
  const active = state.uploads.filter((item) => item.active).length;
  for (const item of waiting.slice(0, Math.max(0, SENT_AT_ONCE - active))) {
    item.active = true;
    const path = `/api/pictures?name=${encodeURIComponent(item.name)}&upload=${item.id}`;
    upload(path, item.file, (share) => {
      item.share = share;
      renderUploads();
    }, item.stop.signal)
      .then(async () => {
        forget(item);
        await refresh();
      })
      .catch((error) => {
        item.active = false;
        if (error.name === "AbortError") return;
        item.line = error.message;
        if (error.status === 403 || error.status === 0) report(error);
        renderUploads();
      })
      .finally(send);
  }
}

// The list

function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function makeRow(picture) {
  const image = make("img", { alt: "", loading: "lazy", width: 64, height: 64 });
  const name = make("span", { className: "name" });
  const line = make("span", { className: "line" });
  const bar = make("progress", { max: 1 });
  const pick = make(
    "button",
    { type: "button", className: "pick" },
    make("span", { className: "thumb" }, image),
    make("span", { className: "text" }, name, line),
  );
  pick.addEventListener("click", () => choose(picture.key));
  const stop = make("button", { type: "button", className: "stop" }, "×");
  stop.addEventListener("click", () => {
    const now = find(picture.key);
    const cancels = now && ["waiting", "working"].includes(now.state);
    attempt(async () => {
      await post(`/api/pictures/${picture.key}/${cancels ? "cancel" : "remove"}`);
      await refresh();
    });
  });
  const item = make("li", {}, pick, bar, stop);
  return { item, image, name, line, bar, pick, stop };
}

function renderRow(picture) {
  let row = state.rows.get(picture.key);
  if (!row) {
    row = makeRow(picture);
    state.rows.set(picture.key, row);
  }
  const side = picture.result ? `after/${picture.result.version}` : "before/0";
  if (picture.levels.length) {
    const source = address(`/api/pictures/${picture.key}/${side}/small.png`);
    if (row.image.getAttribute("src") !== source) row.image.src = source;
  }
  row.name.textContent = picture.name;
  const failed = picture.state === "failed";
  row.line.textContent = failed ? picture.line.replace(`${picture.name}: `, "") : describe(picture);
  row.pick.title = failed ? picture.line : picture.name;
  row.item.className = picture.state;
  const current = picture.key === state.chosen;
  row.pick.setAttribute("aria-current", current ? "true" : "false");
  const cancels = ["waiting", "working"].includes(picture.state);
  const label = `${cancels ? "Cancel" : "Remove"} ${picture.name}`;
  row.stop.setAttribute("aria-label", label);
  row.stop.title = label;
  row.bar.hidden = picture.state !== "working";
  row.bar.setAttribute("aria-label", `Progress of ${picture.name}`);
  if (picture.stage === "starting" || !picture.share) row.bar.removeAttribute("value");
  else row.bar.value = picture.share;
  return row.item;
}

function makeUploadRow(item) {
  const stop = make("button", { type: "button", className: "stop" }, "×");
  stop.addEventListener("click", () => {
    item.stop.abort();
    state.cancelled.add(item.id);
    forget(item);
    render();
  });
  const line = make("span", { className: "line" });
  const name = make("span", { className: "name" }, item.name.split("/").at(-1));
  const inside = [make("span", { className: "thumb" }), make("span", { className: "text" }, name, line)];
  return { item: make("li", {}, make("div", { className: "pick" }, ...inside), stop), line, stop };
}

function renderUpload(item) {
  item.row ??= makeUploadRow(item);
  const { row } = item;
  row.item.className = item.line ? "failed upload" : "upload";
  row.line.textContent = item.line || (item.active ? `Adding, ${Math.round(100 * item.share)} %` : "Waiting");
  row.stop.title = `${item.line ? "Remove" : "Cancel"} ${item.name}`;
  row.stop.setAttribute("aria-label", row.stop.title);
  return row.item;
}

function place(list, items) {
  items.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  while (list.children.length > items.length) list.lastChild.remove();
}

function renderUploads() {
  place($("strip"), [
    ...pictures().map((picture) => state.rows.get(picture.key)?.item ?? renderRow(picture)),
    ...state.uploads.map(renderUpload),
  ]);
}

// The chosen picture

function choose(key) {
  state.chosen = key;
  state.picked = true;
  setTool("move");
  render();
}

function sources(picture) {
  const { mask } = currentMask(picture);
  const source = (side, number, levels) => ({
    levels,
    url: (level, column, row) =>
      address(`/api/pictures/${picture.key}/${side}/${number}/${level}/${column}/${row}.png`),
  });
  const result = picture.result;
  return {
    size: picture.levels[0],
    before: source("before", 0, picture.levels),
    after: result && source("after", result.version, result.levels),
    damage: mask >= 0 ? source("damage", mask, picture.masks[mask]) : null,
  };
}

function renderViewer(picture) {
  const seen = picture?.levels.length
    ? `${picture.key} ${picture.result?.version ?? 0} ${currentMask(picture).mask}`
    : "";
  if (seen !== state.shown) {
    const same = seen.split(" ")[0] === state.shown.split(" ")[0];
    state.shown = seen;
    viewer.show(seen ? sources(picture) : null, { keep: same && Boolean(seen) });
    $("canvas").setAttribute("aria-label", picture ? `The ${kindOf(picture)} ${picture.name}` : "");
  }
  viewer.set({ strokes: picture ? currentMask(picture).strokes : [] });
  renderMode();
}

const mode = () => document.querySelector("input[name=mode]:checked").value;
const tool = () => document.querySelector("input[name=tool]:checked").value;

function setMode(value) {
  document.querySelector(`input[name=mode][value=${value}]`).checked = true;
  renderMode();
}

function setTool(value) {
  if (value !== "move" && chosen()?.is_film) return; // the brush is for photographs
  document.querySelector(`input[name=tool][value=${value}]`).checked = true;
  if (value !== "move" && chosen()) $("show-damage").checked = true;
  renderMode();
}

function renderMode() {
  const picture = chosen();
  const result = picture?.result;
  const now = result ? mode() : "before";
  viewer.set({
    mode: mode(),
    tool: picture?.levels.length ? tool() : "move",
    damage: $("show-damage").checked && !picture?.is_film,
    brush: brushSize(),
  });
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.disabled = !result && input.value !== "before";
  }
  $("divider").hidden = now !== "slider";
  const tags = { slider: ["Before", "After"], split: ["Before", "After"], before: ["Before", ""], after: ["", "After"], difference: ["What was changed, twice as strong", ""] }[now];
  for (const [side, text] of [["left", tags[0]], ["right", tags[1]]]) {
    const tag = $(`tag-${side}`);
    tag.hidden = !text || !picture?.levels.length;
    tag.textContent = text;
  }
}

// A brush from 2 pixels to a sixth of the picture, in even steps to the eye.
function brushSize() {
  const picture = chosen();
  const largest = picture?.levels.length ? Math.max(...picture.levels[0]) / 6 : 100;
  return Math.round(2 * Math.max(1, largest / 2) ** ($("size").value / 100));
}

function renderWork(picture) {
  const working = picture && busy(picture);
  $("working").hidden = !working;
  if (working) {
    $("working-text").textContent = describe(picture);
    const bar = $("working-bar");
    if (picture.share && picture.stage !== "finishing") bar.value = picture.share;
    else bar.removeAttribute("value");
    $("working-cancel").hidden = picture.state === "reading";
  }
  const failed = picture && picture.state === "failed" ? picture.line : "";
  $("failed").hidden = !failed;
  $("failed").textContent = failed;
  $("failed").classList.toggle("alone", Boolean(picture) && !picture.levels.length);
}

function facts(picture) {
  if (!picture?.levels.length) return "";
  const [width, height] = picture.levels[0];
  const parts = [`${width} × ${height} pixels`];
  if (picture.film) {
    const { frames, rate } = picture.film;
    // The command tells their number of what it restored.
    if (frames && !picture.result) parts.push(count(frames, "frame"));
    if (rate) parts.push(`${Number(rate.toFixed(2))} frames a second, the first is shown`);
    else parts.push("the first frame is shown");
  }
  if (picture.pages > 1) parts.push(`${picture.pages} pages, the first is shown`);
  if (picture.result) {
    parts.push(`saved as ${picture.result.name}, ${bytes(picture.result.bytes)}`);
    // The command's notes name its flags; the page has its own words for them.
    parts.push(...picture.result.notes.map((note) => note.split("; --")[0]));
  }
  return parts.join(" · ");
}

// Settings

function readChoices(picture) {
  if (picture?.is_film) {
    return {
      sensitivity: Number($("sensitivity").value) / 100,
      stabilize: $("stabilize").checked,
      deflicker: $("deflicker").checked,
      denoise: $("denoise").checked,
      deinterlace: $("deinterlace").value,
      codec: $("codec").value,
    };
  }
  return {
    model: $("model").value,
    strength: Number($("strength").value) / 100,
    keep_color: $("keep-color").checked,
    sensitivity: Number($("sensitivity").value) / 100,
    only_damage: $("only-damage").checked,
    negative: $("negative").value,
    ext: $("ext").value,
  };
}

function writeChoices(picture, choices) {
  $("sensitivity").value = Math.round(100 * choices.sensitivity);
  if (picture.is_film) {
    for (const name of ["stabilize", "deflicker", "denoise"]) $(name).checked = choices[name];
    for (const name of ["deinterlace", "codec"]) $(name).value = choices[name];
  } else {
    $("model").value = choices.model;
    $("strength").value = Math.round(100 * choices.strength);
    $("keep-color").checked = choices.keep_color;
    $("ext").value = choices.ext;
    $("only-damage").checked = choices.only_damage;
    $("negative").value = choices.negative;
  }
  writeValues();
}

function writeValues() {
  $("strength-value").textContent = `${$("strength").value} %`;
  const value = Number($("sensitivity").value);
  const words = [[0, "nothing"], [25, "the certain"], [60, "the likely"], [85, "the possible"], [100, "anything"]];
  $("sensitivity-value").textContent = words.find(([most]) => value <= most)[1];
}

const HINTS = {
  finds:
    "Below the photograph, show what was found. Add a scratch that was missed, erase what " +
    "is no damage, and restore with what you marked.",
  marks:
    "Below the photograph, choose Add and paint over cracks, scratches and stains; they are " +
    "filled from what is around them. Then restore with what you marked.",
};

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function renderPanel(picture) {
  const select = $("model");
  const models = state.server.worker.models ?? [];
  if (models.length && select.options.length !== models.length) {
    const rest = models.slice(1).map((name) => make("option", { value: name }, name));
    select.options[0].textContent = `Best (${models[0]})`;
    select.append(...rest);
  }
  if (picture && renderPanel.key !== picture.key) {
    renderPanel.key = picture.key;
    writeChoices(picture, state.touched.get(picture.key) ?? picture.choices);
  }
  const kind = kindOf(picture);
  for (const field of document.querySelectorAll("[data-for]")) {
    field.hidden = field.dataset.for !== kind;
  }
  // Without a network that finds damage, what the user marks is all there is.
  if (state.server.worker.state === "ready") {
    const { finds } = state.server.worker;
    $("found").hidden = !finds && kind === "photograph";
    $("only-damage-label").textContent = `Change only what ${finds ? "is damaged" : "I mark"}`;
    $("show-damage-label").textContent = finds ? "Show damage" : "Show marks";
    $("damage-hint").textContent = finds ? HINTS.finds : HINTS.marks;
  }
  $("interlaced").hidden = !picture?.film?.interlaced;
  $("damage").hidden = $("damage-tools").hidden = kind === "film";
  const ready = picture?.levels.length > 0 && !busy(picture);
  const wanted = readChoices(picture);
  const made = picture?.result?.choices;
  $("again").disabled = !ready || (Boolean(made) && same(wanted, made) && picture.state === "done");
  $("again").textContent = picture?.result ? "Restore again" : "Restore";
  const alike = pictures().filter((other) => kindOf(other) === kind);
  $("apply-all").hidden = alike.length < 2;
  $("apply-all").textContent = alike.length < pictures().length ? `Apply to all ${kind}s` : "Apply to all";
  $("apply-all").disabled = alike.every(
    (other) => !other.levels.length || (other.result && same(wanted, other.result.choices)),
  );
  const save = $("save");
  save.hidden = !picture?.result;
  save.textContent = `Save this ${kind}`;
  if (picture?.result) {
    save.href = address(`/api/pictures/${picture.key}/result`);
    save.setAttribute("download", picture.result.name.split("/").at(-1));
  }
  const { done, undone } = picture ? edits(picture) : { done: [], undone: [] };
  $("undo").disabled = !done.length;
  $("redo").disabled = !undone.length;
  $("brush").classList.toggle("idle", tool() === "move");
  $("afresh").disabled = !picture || !corrected(picture) || !ready;
  $("again-mask").disabled = !done.length || !ready;
  for (const id of ["upload-mask", "save-mask", "size", "show-damage"]) {
    $(id).disabled = !picture?.levels.length;
  }
  for (const input of document.querySelectorAll("input[name=tool]")) {
    input.disabled = !picture?.levels.length;
  }
  $("size-value").textContent = picture?.levels.length ? `${brushSize()} pixels` : "";
}

function render() {
  if (!state.server || state.ended) return;
  const all = pictures();
  if (!find(state.chosen)) state.picked = false;
  if (!state.picked) state.chosen = all[0]?.key ?? "";
  const any = all.length + state.uploads.length > 0;
  $("welcome").hidden = any;
  $("desk").hidden = !any;
  $("add").hidden = !any;
  document.body.classList.toggle("at-work", any);
  for (const key of state.rows.keys()) {
    if (!find(key)) state.rows.delete(key);
  }
  all.forEach(renderRow);
  renderUploads();
  const picture = chosen();
  renderViewer(picture);
  renderWork(picture);
  renderPanel(picture);
  const text = facts(picture);
  if ($("facts").textContent !== text) $("facts").textContent = text;
  const made = all.filter((one) => one.result).length;
  const saved = $("save-all");
  saved.hidden = made < 2;
  saved.href = address("/api/archive");
  const open = all.filter(busy).length;
  const failed = all.filter((one) => one.state === "failed").length;
  const left = all.map((one) => one.left).filter((value) => value != null);
  const kinds = new Set(all.map(kindOf));
  const noun = kinds.size > 1 ? "file" : [...kinds][0];
  const parts = all.length ? [`${made} of ${count(all.length, noun)} restored`] : [];
  if (failed) parts.push(`${failed} failed`);
  if (open && left.length) parts.push(`about ${duration(Math.max(...left))} left`);
  const line = parts.join(", ");
  if ($("status").textContent !== line) $("status").textContent = line;
}

// Asking for work

async function again(picture, { afresh = false } = {}) {
  const values = { choices: readChoices(picture) };
  if (corrected(picture) && !afresh) {
    const { mask, strokes } = currentMask(picture);
    Object.assign(values, { mask, strokes });
  }
  await attempt(async () => {
    await post(`/api/pictures/${picture.key}/restore`, values);
    state.touched.delete(picture.key);
    if (tool() !== "move") setTool("move");
    if (mode() === "before") setMode("slider");
    await refresh();
  });
}

function edit(change) {
  const picture = chosen();
  if (!picture?.levels.length || picture.is_film) return;
  const { done, undone } = edits(picture);
  done.push(change);
  undone.length = 0;
  $("show-damage").checked = true;
  render();
}

function undo() {
  const picture = chosen();
  if (!picture) return;
  const { done, undone } = edits(picture);
  if (done.length) undone.push(done.pop());
  render();
}

function redo() {
  const picture = chosen();
  if (!picture) return;
  const { done, undone } = edits(picture);
  if (undone.length) done.push(undone.pop());
  render();
}

async function saveMask() {
  const picture = chosen();
  await attempt(async () => {
    const answer = await post(`/api/pictures/${picture.key}/mask/save`, currentMask(picture));
    const link = make("a", {
      href: URL.createObjectURL(await answer.blob()),
      download: `${picture.name.split("/").at(-1).replace(/\.\w+$/, "")}_restored_damage.png`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

async function uploadMask(file) {
  const picture = chosen();
  await attempt(async () => {
    const { mask } = await upload(`/api/pictures/${picture.key}/mask`, file);
    await refresh();
    edit({ mask });
  });
}

// Wiring

const viewer = createViewer($("canvas"), {
  zoomed: (scale) => {
    if (!state.ended) $("zoom").textContent = `${Math.round(100 * scale)} %`;
  },
  divided: (at) => {
    const divider = $("divider");
    divider.value = Math.round(100 * at);
    divider.setAttribute("aria-valuetext", `${divider.value} % before, ${100 - divider.value} % after`);
  },
  painted: edit,
});
viewer.setAt(0.5);
window.viewer = viewer; // for the browser test

$("divider").addEventListener("input", (event) => viewer.setAt(event.target.value / 100));
$("zoom-in").addEventListener("click", () => viewer.zoomBy(1.5));
$("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.5));
$("zoom-fit").addEventListener("click", () => viewer.fit());
$("zoom-full").addEventListener("click", () => viewer.zoomTo(1));
$("modes").addEventListener("change", renderMode);
$("brushes").addEventListener("change", () => setTool(tool()));
$("show-damage").addEventListener("change", renderMode);
$("size").addEventListener("input", () => {
  $("size-value").textContent = `${brushSize()} pixels`;
  renderMode();
});
$("choices").addEventListener("input", () => {
  writeValues();
  if (state.chosen) state.touched.set(state.chosen, readChoices(chosen()));
  renderPanel(chosen());
});
$("choices").addEventListener("submit", (event) => {
  event.preventDefault();
  if (chosen()) again(chosen());
});
$("apply-all").addEventListener("click", () =>
  attempt(async () => {
    const film = Boolean(chosen()?.is_film);
    await post("/api/restore", { choices: readChoices(chosen()), film });
    for (const picture of pictures()) {
      if (picture.is_film === film) state.touched.delete(picture.key);
    }
    await refresh();
  }),
);
$("again-mask").addEventListener("click", () => again(chosen()));
$("afresh").addEventListener("click", () => {
  const picture = chosen();
  const { done, undone } = edits(picture);
  done.length = undone.length = 0;
  if (picture.result?.corrected) again(picture, { afresh: true });
  else render();
});
$("undo").addEventListener("click", undo);
$("redo").addEventListener("click", redo);
$("save-mask").addEventListener("click", saveMask);
$("upload-mask").addEventListener("click", () => $("mask-file").click());
$("mask-file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) uploadMask(file);
});
$("working-cancel").addEventListener("click", () =>
  attempt(async () => {
    await post(`/api/pictures/${state.chosen}/cancel`);
    await refresh();
  }),
);

for (const id of ["add", "choose"]) $(id).addEventListener("click", () => $("files").click());
$("choose-folder").addEventListener("click", () => $("folder").click());
for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", (event) => {
    const files = [...event.target.files].map((file) => ({
      file,
      path: file.webkitRelativePath || file.name,
      inside: Boolean(file.webkitRelativePath),
    }));
    event.target.value = "";
    add(files);
  });
}
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) add(files.map((file) => ({ file, path: file.name, inside: false })));
});
let depth = 0;
document.addEventListener("dragenter", (event) => {
  event.preventDefault();
  depth += 1;
  $("drop").hidden = ![...event.dataTransfer.types].includes("Files");
});
document.addEventListener("dragleave", () => {
  depth -= 1;
  if (depth <= 0) $("drop").hidden = true;
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  depth = 0;
  $("drop").hidden = true;
  add(await dropped(event.dataTransfer));
});

window.addEventListener("beforeunload", (event) => {
  if (state.uploads.some((item) => item.active)) event.preventDefault();
});

$("banner").querySelector("button").addEventListener("click", () => location.reload());
$("end").addEventListener("click", async () => {
  const made = pictures().filter((one) => one.result).length;
  const question = made
    ? "Quit? What you have not saved is deleted."
    : "Quit the program?";
  if (!window.confirm(question)) return;
  await attempt(async () => {
    await post("/api/end");
    state.ended = true;
    document.body.className = "over";
    document.querySelector("main").replaceChildren(
      make("section", { id: "welcome" }, make(
        "div",
        { className: "sheet" },
        make("h2", {}, "Ended"),
        make("p", { className: "lead" }, "What was uploaded is deleted; what you saved is yours. You can close this window."),
      )),
    );
    document.querySelector(".actions").replaceChildren();
    $("status").textContent = "";
  });
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("select, input:not([type=checkbox]):not([type=radio])");
  if (event.altKey || typing) return;
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) undo();
    else if (key === "y" || (key === "z" && event.shiftKey)) redo();
    else return;
    event.preventDefault();
    return;
  }
  const modes = ["slider", "split", "before", "after", "difference"];
  const keys = {
    "+": () => viewer.zoomBy(1.5),
    "=": () => viewer.zoomBy(1.5),
    "-": () => viewer.zoomBy(1 / 1.5),
    0: () => viewer.fit(),
    9: () => viewer.zoomTo(1),
    d: () => $("show-damage").click(),
    v: () => setTool("move"),
    b: () => setTool("add"),
    e: () => setTool("erase"),
    "[": () => resize(-5),
    "]": () => resize(5),
  };
  modes.forEach((name, index) => {
    keys[index + 1] = () => setMode(name);
  });
  const act = keys[event.key.toLowerCase()];
  if (act && chosen()) {
    act();
    event.preventDefault();
  }
});

function resize(step) {
  $("size").value = Number($("size").value) + step;
  $("size-value").textContent = `${brushSize()} pixels`;
  renderMode();
}

refresh();
