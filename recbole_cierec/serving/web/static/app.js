"use strict";
// The page. Whatever comes from data is set as text, never as markup.

const at = (id) => document.getElementById(id);
const CHIPS = 4;
let models = [];

function make(tag, options = {}, ...children) {
  const { text, className, ...rest } = options;
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  for (const [name, value] of Object.entries(rest)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw new Error("The server does not answer; is it still running?");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(`${body.error}. ${body.hint}`);
  return body;
}

const send = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function say(error) {
  at("problem").hidden = !error;
  at("problem").textContent = error ? error.message : "";
}

// Runs only the newest of several calls: an answer that comes late is dropped.
function newest(out, work) {
  let last = 0;
  return async (...words) => {
    const mine = ++last;
    out.classList.add("busy");
    try {
      const show = await work(...words);
      if (mine === last) { say(null); show(); }
    } catch (error) {
      if (mine === last) say(error);
    } finally {
      if (mine === last) out.classList.remove("busy");
    }
  };
}

// ------------------------------------------------------------------------------- items

const amount = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const score = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(4));

function picture(item, model) {
  const frame = make("span", { className: "frame" });
  if (!item.picture) { frame.textContent = "no picture"; return frame; }
  const address = `/api/picture/${encodeURIComponent(item.item)}?model=${encodeURIComponent(model)}`;
  const words = item.labels.slice(0, 6).join(", ");
  const image = make("img", { src: address, alt: item.title || words || `Item ${item.item}`, loading: "lazy" });
  image.addEventListener("error", () => frame.replaceChildren("no picture"));
  frame.append(image);
  return frame;
}

function chips(item, most = CHIPS) {
  const words = item.labels;
  if (!words.length) return null;
  const row = make("span", { className: "chips" });
  words.slice(0, most).forEach((word, k) => row.append(make("span", { className: "chip", text: word, title: item.annotations[k] })));
  const rest = words.slice(most);
  if (rest.length) row.append(make("span", { className: "chip", text: `+${rest.length}`, title: rest.join(", ") }));
  return row;
}

function card(item, model, both) {
  const name = item.title || item.item;
  const value = item.score !== undefined && make("span", { className: "score", text: score(item.score), title: "score" });
  const body = make("span", { className: "body" });
  if (item.title) body.append(make("span", { className: "name", text: name }), make("span", { className: "line quiet" }, make("span", { text: item.item }), value));
  else body.append(make("span", { className: "line" }, make("span", { className: "name", text: name }), value));
  const row = chips(item);
  if (row) body.append(row);
  return make(
    "button",
    { className: "card", type: "button", click: () => openNear(item, model) },
    picture(item, model),
    item.rank && make("span", { className: "rank", text: item.rank }),
    both && make("span", { className: "both", text: "in both" }),
    body,
  );
}

function cards(items, model, className = "cards", common = new Set()) {
  const list = make(className === "cards" ? "ol" : "ul", { className });
  for (const item of items) list.append(make("li", {}, card(item, model, common.has(item.item))));
  return list;
}

function head(title, more, level = "h2") {
  return make("div", { className: "head" }, make(level, { text: title }), more && make("span", { className: "quiet", text: more }));
}

// ------------------------------------------------------------------------------- users

const NOTES = {
  shared: "This user has no training interaction: the list is the model's one for all such users.",
  popular: "The model knows nothing of this user: the list has the most popular items, and the scores are their training interactions.",
};

const chosen = () => {
  const value = at("models").value;
  return value === "*" ? models.slice(0, 2) : models.filter((model) => model.name === value);
};

const showUser = newest(at("user-out"), async (user) => {
  const body = { users: [user], topk: Number(at("topk").value), with_seen: at("seen").checked, history: true };
  const answers = await Promise.all(chosen().map((model) => send("/api/recommend", { ...body, model: model.name })));
  return () => drawUser(user, answers.map((answer) => ({ model: answer.model, ...answer.lists[0] })));
});

function drawUser(user, lists) {
  const out = at("user-out");
  const history = lists.find((list) => list.history.length) || lists[0];
  const parts = [];
  if (history.history.length) {
    const all = history.history_total > history.history.length ? `newest ${history.history.length} of ${history.history_total}` : amount(history.history_total, "item");
    parts.push(make("section", { className: "part" }, head("History", `${user}: ${all} of training and validation, newest first`), cards(history.history, history.model, "strip")));
  }
  const names = lists.map((list) => new Set(list.items.map((item) => item.item)));
  const common = lists.length > 1 ? new Set([...names[0]].filter((name) => names[1].has(name))) : new Set();
  const columns = make("div", { className: lists.length > 1 ? "columns two part" : "columns part" });
  for (const list of lists) {
    const more = lists.length > 1 ? `${common.size} of ${list.items.length} in both lists` : `for ${user}`;
    columns.append(make("section", {},
      head(lists.length > 1 ? list.model : "Recommended", more),
      list.list !== "personal" && make("p", { className: "note spaced", text: NOTES[list.list] }),
      cards(list.items, list.model, "cards", common)));
  }
  out.replaceChildren(...parts, columns);
}

async function findUsers(prefix, limit) {
  const found = await ask(`/api/users?limit=${limit}&prefix=${encodeURIComponent(prefix)}&model=${encodeURIComponent(models[0].name)}`);
  return found;
}

function combobox() {
  const input = at("user"), list = at("found");
  let current = -1, last = 0;
  const close = () => { list.hidden = true; current = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
  const options = () => [...list.querySelectorAll("[role=option]")];
  const pick = (user) => { input.value = user; last++; close(); go(user); };
  const mark = (number) => {
    const all = options();
    if (!all.length) return;
    current = (number + all.length) % all.length;
    all.forEach((node, k) => node.setAttribute("aria-selected", String(k === current)));
    all[current].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", all[current].id);
  };
  const fill = async () => {
    const mine = ++last;
    let found;
    try { found = await findUsers(input.value.trim(), 12); } catch (error) { say(error); return; }
    if (mine !== last) return;
    const nodes = found.users.map((user, k) => {
      const node = make("li", { role: "option", id: `found-${k}`, "aria-selected": "false", text: user });
      node.addEventListener("mousedown", (event) => { event.preventDefault(); pick(user); });
      return node;
    });
    const rest = found.total - found.users.length;
    if (rest > 0) nodes.push(make("li", { className: "more", text: `and ${rest.toLocaleString("en")} more`, "aria-hidden": "true" }));
    if (!found.total) nodes.push(make("li", { className: "more", text: "no such user; Enter shows what a new one gets", "aria-hidden": "true" }));
    list.replaceChildren(...nodes);
    list.hidden = false;
    current = -1;
    input.setAttribute("aria-expanded", "true");
  };
  input.addEventListener("input", fill);
  input.addEventListener("focus", () => { input.select(); fill(); });
  input.addEventListener("blur", () => { last++; close(); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) fill();
      else mark(current + (event.key === "ArrowDown" ? 1 : current < 0 ? 0 : -1));
    } else if (event.key === "Escape") close();
  });
  at("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const option = options()[current];
    const user = !list.hidden && option ? option.textContent : input.value.trim();
    if (user) pick(user);
  });
}

// The user is in the address, so that a list can be bookmarked and "back" works.
function go(user) {
  const address = `#user=${encodeURIComponent(user)}`;
  if (location.hash === address) route();
  else location.hash = address;
}

function route() {
  const match = /^#user=(.+)$/.exec(location.hash);
  let user = "";
  try { user = match ? decodeURIComponent(match[1]) : ""; } catch (error) { user = ""; }
  if (location.hash === "#new") { tab("item"); return; }
  tab("user");
  if (user) { at("user").value = user; showUser(user); }
}

async function welcome() {
  const found = await findUsers("", 6);
  const row = make("div", { className: "chips" });
  for (const user of found.users) row.append(make("button", { type: "button", className: "start", text: user, click: () => go(user) }));
  at("user-out").replaceChildren(make("div", { className: "empty" }, make("p", { text: "Choose a user to see their history and what is recommended to them." }), row));
}

// ---------------------------------------------------------------------------- new item

function offered() {
  const input = at("picture"), preview = at("preview"), drop = at("drop");
  const show = () => {
    const file = input.files[0];
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.hidden = !file;
    at("drop-text").hidden = Boolean(file);
    if (file) { preview.src = URL.createObjectURL(file); preview.alt = `The new item: ${file.name}`; }
    else preview.removeAttribute("src");
  };
  input.addEventListener("change", () => { show(); if (input.files[0]) showItem(); });
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  // The browser would open a picture that misses the field.
  for (const kind of ["dragover", "drop"]) {
    window.addEventListener(kind, (event) => { if (event.target !== input) event.preventDefault(); });
  }
  at("item-form").addEventListener("submit", (event) => { event.preventDefault(); showItem(); });
  at("item-form").addEventListener("reset", () => { setTimeout(show); at("item-out").replaceChildren(); say(null); });
}

const showItem = newest(at("item-out"), async () => {
  const takers = chosen().filter((model) => model.new_items.length);
  if (!takers.length) throw new Error("The model does not score items by their content. Serve one that does: docs/models/index.md names them.");
  const file = at("picture").files[0], words = at("words").value.trim().split(/\s+/).join(" ");
  if (!file && !words) throw new Error("Nothing is given yet. Drop a picture, or type annotations.");
  const answers = await Promise.all(takers.map((model) => {
    const form = new FormData();
    if (file) form.append("picture", file);
    form.append("annotations", words);
    form.append("model", model.name);
    form.append("topk", takers.length > 1 ? "8" : "20");
    return ask("/api/new_item", { method: "POST", body: form });
  }));
  return () => at("item-out").replaceChildren(drawItem(answers));
});

function drawItem(answers) {
  const columns = make("div", { className: answers.length > 1 ? "columns two part" : "columns part" });
  for (const answer of answers) {
    const people = make("ol", { className: "people" });
    for (const one of answer.users) {
      people.append(make("li", {}, make("button", { type: "button", click: () => go(one.user) },
        make("span", { className: "place", text: one.rank }), make("span", { className: "id", text: one.user }), make("span", { className: "quiet", text: score(one.score) }))));
    }
    const by = answer.nearest_by === "annotations" ? "by common annotations" : "by picture";
    columns.append(make("section", {},
      answers.length > 1 && head(answer.model, `reads ${answer.reads.join(" and ")}`),
      answer.ignored.length > 0 && make("p", { className: "note spaced", text: `Not known or not read, and ignored: ${answer.ignored.join(", ")}` }),
      make("div", { className: "result" },
        make("div", {}, head("Who would like it", "highest scores", "h3"), people),
        make("div", {}, head("Nearest known items", by, "h3"), cards(answer.nearest, answer.model)))));
  }
  return columns;
}

// ----------------------------------------------------------------------- similar items

let nearOf = null;

const showNear = newest(at("near-out"), async (item, model, by) => {
  const query = new URLSearchParams({ item: item.item, by, topk: "12", model });
  let found, error;
  try { found = await ask(`/api/similar?${query}`); } catch (problem) { error = problem; }
  return () => at("near-out").replaceChildren(
    error ? make("p", { className: "note", text: error.message }) : cards(found.items, model));
});

function openNear(item, model) {
  nearOf = [item, model];
  const words = make("div", {}, make("p", { className: "name", text: item.title || item.item }), make("p", { className: "quiet", text: item.title ? item.item : model }), chips(item, 12));
  at("near-of").replaceChildren(make("div", { className: "of" }, picture(item, model), words));
  if (!at("near").open) { at("near-out").replaceChildren(); at("near").showModal(); }
  at("near").scrollTop = 0;
  const pressed = at("near-kinds").querySelector("[aria-pressed=true]");
  showNear(item, model, pressed.dataset.by);
}

function nearDialog() {
  at("near-close").addEventListener("click", () => at("near").close());
  at("near").addEventListener("click", (event) => { if (event.target === at("near")) at("near").close(); });
  for (const button of at("near-kinds").children) {
    button.addEventListener("click", () => {
      for (const other of at("near-kinds").children) other.setAttribute("aria-pressed", String(other === button));
      showNear(...nearOf, button.dataset.by);
    });
  }
}

// -------------------------------------------------------------------------------- start

function tab(name) {
  for (const other of ["user", "item"]) {
    const on = other === name;
    at(`tab-${other}`).setAttribute("aria-selected", String(on));
    at(`tab-${other}`).tabIndex = on ? 0 : -1;
    at(`view-${other}`).hidden = !on;
  }
}

function tabs() {
  const choose = (name) => { say(null); location.hash = name === "item" ? "#new" : at("user").value ? `#user=${encodeURIComponent(at("user").value)}` : "#"; };
  for (const [name, other] of [["user", "item"], ["item", "user"]]) {
    at(`tab-${name}`).addEventListener("click", () => choose(name));
    at(`tab-${name}`).addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") { choose(other); at(`tab-${other}`).focus(); }
    });
  }
}

function describeModels() {
  const [first] = models;
  const same = models.every((model) => model.dataset === first.dataset);
  at("about").textContent = `${models.map((model) => model.name).join(", ")} on ${same ? first.dataset : "several data sets"} · ${amount(first.users, "user")} · ${amount(first.items, "item")}`;
  const select = at("models");
  if (models.length > 1) select.append(make("option", { value: "*", text: `${models[0].name} and ${models[1].name}` }));
  for (const model of models) select.append(make("option", { value: model.name, text: model.name }));
  document.querySelector(".models-field").hidden = models.length < 2;
  at("reads").textContent = models.map((model) =>
    model.new_items.length ? `${model.name} scores new items by ${model.new_items.join(" and ")}.` : `${model.name} does not score new items.`).join(" ");
}

async function start() {
  try {
    models = (await ask("/api/models")).models;
    describeModels();
    combobox(); offered(); nearDialog(); tabs();
    for (const id of ["topk", "models", "seen"]) at(id).addEventListener("change", route);
    window.addEventListener("hashchange", route);
    await welcome();
    route();
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    say(error);
  }
}

start();
