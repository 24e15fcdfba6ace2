// The page: questions in, project out. What they are and what comes of them is up to render.py in the worker.
import hljs from "./highlight/core.js";

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const multi = new Set(data.form.filter((entry) => entry.multiselect).map((entry) => entry.name));
let given = fromLink();
let shown = { form: data.form, changed: {}, commands: data.commands };
let files = new Map();
let gone = [];
let open = "README.md";
let tool = "copier";

// --- the link: answers in the fragment, which no server gets ---

function fromLink() {
  const answers = {};
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (data.form.some((entry) => entry.name === name)) {
      answers[name] = multi.has(name) ? value.split(",").filter(Boolean) : value;
    }
  }
  return answers;
}

function toLink() {
  const answers = Object.entries(given).map(([name, value]) => [name, String(value)]);
  const fragment = new URLSearchParams(answers).toString();
  history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
}

// --- the worker: one request at a time, the newest wins ---

const settings = encodeURIComponent(JSON.stringify({ packed: data.packed, source: data.source, commit: data.commit }));
const worker = new Worker(`${data.assets}/worker.js?settings=${settings}`, { type: "module" });
const asked = new Map();
let last = 0;
let busy = false;
let waiting = false;

function request(want) {
  last += 1;
  worker.postMessage({ id: last, want, given });
  return new Promise((resolve, reject) => asked.set(last, { resolve, reject }));
}

worker.onmessage = ({ data: told }) => {
  if ("progress" in told) $("progress").value = told.progress;
  else if (!told.id) fault(told.fault);
  else if (told.fault) asked.get(told.id).reject(told.fault);
  else asked.get(told.id).resolve(told);
  asked.delete(told.id);
};
worker.onerror = (event) => fault(event.message);

function fault(text) {
  $("loading").hidden = true;
  $("status").textContent = `The preview could not be made (${text}). The command makes the same project.`;
}

async function refresh() {
  toLink();
  if (busy) {
    waiting = true;
    return;
  }
  busy = true;
  try {
    do {
      waiting = false;
      document.body.dataset.state = "busy";
      show(await request("project"));
    } while (waiting);
    document.body.dataset.state = "ready";
  } catch (error) {
    fault(error);
  }
  busy = false;
}

// --- the form ---

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== "") made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const typing = new Map();

function answer(name, value) {
  given = { ...given, [name]: value };
  refresh();
}

function answerAll(answers) {
  for (const timer of typing.values()) clearTimeout(timer);
  given = answers;
  refresh();
}

function question(entry) {
  const { name } = entry;
  const error = element("p", { class: "error", id: `${name}-error` });
  if (!entry.choices.length) {
    const input = element("input", {
      id: name, name, placeholder: entry.placeholder, autocomplete: "off", spellcheck: "false", "aria-describedby": error.id,
    });
    input.addEventListener("input", () => {
      clearTimeout(typing.get(name));
      typing.set(name, setTimeout(() => answer(name, input.value), 300));
    });
    return element("div", { class: "question", "data-name": name }, element("label", { for: name }, entry.help), input, error);
  }
  const rows = entry.choices.map(({ value, label }) => {
    const id = `${name}-${value}`;
    const box = element("input", { type: entry.multiselect ? "checkbox" : "radio", id, name, value, "aria-describedby": `${id}-reason` });
    box.addEventListener("change", () => {
      const picked = [...document.querySelectorAll(`[name="${name}"]:checked`)].map((each) => each.value);
      answer(name, entry.multiselect ? picked : value);
    });
    const [short, ...rest] = label.split(": ");
    const text = element("label", { for: id }, element("b", {}, short), rest.length ? ` ${rest.join(": ")}` : "");
    return element("div", { class: "choice" }, box, text, element("span", { class: "reason", id: `${id}-reason` }));
  });
  return element("fieldset", { class: "question", "data-name": name }, element("legend", {}, entry.help), ...rows, error);
}

function showForm() {
  for (const entry of shown.form) {
    const { name, value, choices, multiselect } = entry;
    const box = document.querySelector(`[data-name="${name}"]`);
    box.hidden = !entry.shown;
    box.classList.toggle("changed", name in shown.changed);
    $(`${name}-error`).textContent = entry.error;
    for (const choice of choices) {
      const input = $(`${name}-${choice.value}`);
      input.disabled = Boolean(choice.reason);
      input.checked = multiselect ? value.includes(choice.value) : value === choice.value;
      $(`${name}-${choice.value}-reason`).textContent = choice.reason;
    }
    const field = $(name);
    if (!choices.length && field !== document.activeElement) field.value = value;
    (field ?? box).toggleAttribute("data-refused", Boolean(entry.error));
    if (field) field.setAttribute("aria-invalid", String(Boolean(entry.error)));
  }
}

for (const entry of data.form) $("questions").append(question(entry));
for (const [name, row] of Object.entries(data.presets)) {
  const button = element("button", { type: "button", "data-preset": name }, element("b", {}, row.title), element("span", {}, row.about));
  button.addEventListener("click", () => answerAll(structuredClone(row.answers)));
  $("presets").append(button);
}
$("form").addEventListener("submit", (event) => event.preventDefault());

// --- the project ---

function show(found) {
  shown = { ...shown, ...found };
  $("loading").hidden = true;
  $("next").hidden = true;
  $("refusal").textContent = found.refusal;
  $("download").disabled = Boolean(found.refusal);
  showForm();
  showPresets();
  if (found.refusal) return;
  files = new Map(found.files.map((file) => [file.name, file]));
  gone = found.gone;
  if (!files.has(open)) open = "README.md";
  showCommand();
  showTree();
  showFile();
  const count = (state) => found.files.filter((file) => file.state === state).length;
  const news = [[count("new"), "new"], [count("changed"), "changed"], [gone.length, "gone"]].filter(([number]) => number);
  $("status").textContent = `${files.size} files` + (news.length ? `: ${news.map((pair) => pair.join(" ")).join(", ")}` : "");
}

function showPresets() {
  const same = (answers) => JSON.stringify(Object.entries(answers).sort()) === JSON.stringify(Object.entries(shown.changed).sort());
  for (const button of $("presets").children) button.setAttribute("aria-pressed", String(same(data.presets[button.dataset.preset].answers)));
}

function showCommand() {
  $("command").textContent = shown.commands[tool];
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
}

function folders(names) {
  const top = { folders: new Map(), files: [] };
  for (const name of names) {
    const parts = name.split("/");
    const file = parts.pop();
    let at = top;
    for (const part of parts) {
      if (!at.folders.has(part)) at.folders.set(part, { folders: new Map(), files: [] });
      at = at.folders.get(part);
    }
    at.files.push([file, name]);
  }
  return top;
}

function list(folder, path = "") {
  const rows = [];
  for (const [part, inner] of [...folder.folders].sort()) {
    const inside = list(inner, `${path}${part}/`);
    const marked = inside.querySelector("[data-state]") ? " •" : "";
    const summary = element("summary", {}, `${part}/`, element("span", { class: "mark", "aria-hidden": "true" }, marked));
    const box = element("details", { open: !closed.has(`${path}${part}`) }, summary, inside);
    box.addEventListener("toggle", () => closed[box.open ? "delete" : "add"](`${path}${part}`));
    rows.push(element("li", {}, box));
  }
  for (const [file, name] of folder.files.sort()) {
    const state = files.get(name)?.state ?? "gone";
    const mark = state ? element("span", { class: "mark" }, state) : "";
    const button = element("button", { type: "button", "data-file": name, "data-state": state, "aria-current": name === open && "true", disabled: state === "gone" }, file, mark);
    rows.push(element("li", {}, button));
  }
  return element("ul", {}, ...rows);
}
const closed = new Set();

function showTree() {
  const focused = document.activeElement?.dataset?.file;
  $("tree").replaceChildren(list(folders([...files.keys(), ...gone])));
  if (focused) $("tree").querySelector(`[data-file="${CSS.escape(focused)}"]`)?.focus();
}

$("tree").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-file]");
  if (!button) return;
  open = button.dataset.file;
  for (const each of $("tree").querySelectorAll("[data-file]")) each.toggleAttribute("aria-current", false);
  button.setAttribute("aria-current", "true");
  showFile();
});

// --- a file, its lines coloured one by one so that each can be marked ---

const LANGUAGE = [
  [/\.py$/, "python"], [/\.ya?ml$/, "yaml"], [/\.json$/, "json"], [/\.md$/, "markdown"], [/\.toml$|\.cfg$|\.ini$/, "ini"],
  [/(^|\/)Makefile$/, "makefile"], [/(^|\/)Dockerfile$/, "dockerfile"], [/\.sh$|\.env/, "bash"],
];
const learnt = new Map();

async function colours(name, text) {
  const language = LANGUAGE.find(([pattern]) => pattern.test(name))?.[1];
  if (!language) return null;
  if (!learnt.has(language)) {
    learnt.set(language, import(`./highlight/${language}.js`).then((module) => hljs.registerLanguage(language, module.default)));
  }
  await learnt.get(language);
  const spans = []; // a comment or a string may go over several lines: close it at the end of each, open it on the next
  return hljs.highlight(text, { language }).value.split("\n").map((line) => {
    const start = spans.join("");
    for (const [tag] of line.matchAll(/<span[^>]*>|<\/span>/g)) tag === "</span>" ? spans.pop() : spans.push(tag);
    return start + line + "</span>".repeat(spans.length);
  });
}

async function showFile() {
  const file = files.get(open);
  const lines = await colours(file.name, file.text).catch(() => null);
  if (files.get(open) !== file) return; // another one since
  const added = new Set(file.added);
  const rows = file.text.split("\n").map((text, number) => {
    const row = element("span", { class: added.has(number) ? "line added" : "line" });
    if (lines) row.innerHTML = lines[number]; // as escaped by highlight.js
    else row.textContent = text;
    row.append("\n");
    return row;
  });
  if (file.text.endsWith("\n")) rows.pop();
  $("file-name").textContent = `${file.name}${file.executable ? " (executable)" : ""}`;
  const told = { new: "New since the last answer", changed: `${file.added.length} lines new, ${file.removed} gone since the last answer` };
  $("file-change").textContent = told[file.state] ?? "";
  $("file").replaceChildren(...rows);
  $("file").scrollTop = 0;
}

// --- taking it home ---

async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed to copy";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

$("copy").addEventListener("click", () => copy($("copy"), $("command").textContent));
$("share").addEventListener("click", () => copy($("share"), location.href));
$("reset").addEventListener("click", () => answerAll({}));
for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => { tool = button.dataset.tool; showCommand(); });
}
$("download").addEventListener("click", async () => {
  const { bytes } = await request("zip");
  const address = URL.createObjectURL(new Blob([bytes], { type: "application/zip" }));
  element("a", { href: address, download: `${shown.folder}.zip` }).click();
  URL.revokeObjectURL(address);
  $("next").hidden = false;
  $("next").textContent = `Next: unpack it, then in ${shown.folder}: git init -b main && git add --all && git commit -m "Create the project", and make dev`;
});
window.addEventListener("hashchange", () => answerAll(fromLink()));

showForm();
showPresets();
showCommand();
refresh();
