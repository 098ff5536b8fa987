"use strict";
// A state is {visitor, isKnown, history}. Every change is an entry in the browser's history, so that Back undoes it.
// Ids and titles are inserted as text, never as markup.

const byId = (id) => document.getElementById(id);
const MAX_HISTORY_SHOWN = 60;
const titles = new Map();  // by item id, from all answers so far
let maxHistory = 0;
let hasTimelines = false;
let lastRequest = 0;
let lastVisitorRequest = 0;

function make(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

function button(text, click, className = "") {
  const element = make("button", text, { type: "button", className });
  element.addEventListener("click", click);
  return element;
}

async function ask(path, query) {
  const response = await fetch(`/api/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(query),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Runs an action and shows its error, the message of the server, on the page.
async function showErrors(action) {
  try {
    byId("error").textContent = "";
    await action();
  } catch (error) {
    byId("error").textContent = error.message;
  }
}

const state = () => history.state || { visitor: "", isKnown: false, history: [] };

function pushState(next) {
  next.history = next.history.slice(-maxHistory);
  history.pushState(next, "");
  return show();
}

const nameOf = (id) => titles.get(id) || id;

// Adds titles by id and returns whether any is new.
function addTitles(found) {
  const added = Object.entries(found).filter(([id, title]) => title && titles.get(id) !== title);
  added.forEach(([id, title]) => titles.set(id, title));
  return added.length > 0;
}

const addTitlesOf = (items) => addTitles(Object.fromEntries(items.map((item) => [item.id, item.title])));

function describe(item) {
  const parts = item.title ? [item.id] : [];
  if (item.category !== null) parts.push(`category ${item.category}`);
  if (item.is_available === false) parts.push("unavailable in the dataset");
  return parts.join(", ");
}

function modelList(model) {
  addTitlesOf(model.items);
  const card = make("div", "", { className: "model" });
  const facts = `${model.milliseconds.toFixed(1)} ms, ${model.offered.toLocaleString("en")} items on offer`;
  card.append(make("h3", model.name), make("span", facts, { className: "small" }));
  if (!model.items.length) card.append(make("p", "No items to show.", { className: "muted" }));
  const list = make("ol", "");
  model.items.forEach((item, index) => {
    const row = make("li", "");
    const name = make("div", "");
    const add = button(nameOf(item.id), () => addItem(item.id), "item");
    add.title = "Add to the history";
    name.append(add, make("div", describe(item), { className: "small" }));
    const similar = button("similar", () => showErrors(() => showSimilar(item.id)), "like");
    similar.setAttribute("aria-label", `Similar to ${nameOf(item.id)}`);
    row.append(make("span", index + 1), name, make("span", item.score.toFixed(3), { className: "number" }), similar);
    list.append(row);
  });
  card.append(list);
  return card;
}

const addItem = (id) => showErrors(() => pushState({ ...state(), history: [...state().history, id] }));

function showHistory({ history: items }) {
  byId("count").textContent = `History: ${items.length.toLocaleString("en")} item${items.length === 1 ? "" : "s"}${
    items.length > 1 ? ", newest first" : ""}`;
  const latest = items.map((id, index) => [id, index]).slice(-MAX_HISTORY_SHOWN).reverse();
  byId("history").replaceChildren(...latest.map(([id, index]) => {
    const entry = make("li", "");
    const remove = button(`${nameOf(id)} ×`, () => showErrors(() => {
      const before = state().history;
      return pushState({ ...state(), history: [...before.slice(0, index), ...before.slice(index + 1)] });
    }));
    remove.title = titles.has(id) ? id : "";
    remove.setAttribute("aria-label", `Remove ${nameOf(id)}`);
    entry.append(remove);
    return entry;
  }));
  const rest = items.length - latest.length;
  if (rest > 0) byId("history").append(make("li", `and ${rest} earlier`));
}

function showVisitor({ visitor, isKnown }) {
  const hint = hasTimelines ? "" : " To see their history, start the demo with --data DATASET.";
  byId("visitor").value = visitor;
  byId("known").textContent = !visitor ? "" : isKnown ? `Known visitor.${hint}`
    : "Unknown visitor: lists depend on the history alone; without one, they show popular items.";
}

async function show() {
  const current = state();
  const request = ++lastRequest;
  showVisitor(current);
  showHistory(current);
  const answer = await ask("recommend", {
    visitor: current.visitor, history: current.history, k: byId("k").valueAsNumber || 0,
    hide_seen: byId("hide_seen").checked,
  });
  if (request !== lastRequest) return;  // a newer request is under way
  if (addTitles(answer.titles)) showHistory(current);
  byId("models").replaceChildren(...answer.models.map(modelList));
  byId("unknown").textContent = answer.num_unknown
    ? `Ignored items, unknown to all models (${answer.num_unknown}): ${answer.unknown.slice(0, 5).join(", ")}` : "";
  byId("models").dataset.shown = request;
}

async function selectVisitor(id) {
  const request = ++lastVisitorRequest;
  const answer = await ask("visitor", { visitor: id });
  addTitles(answer.titles);
  if (request !== lastVisitorRequest) return;  // a newer request is under way
  await pushState({ visitor: id, isKnown: answer.is_known, history: answer.history });
}

async function showSimilar(id) {
  const answer = await ask("similar", { item: id, k: byId("k").valueAsNumber || 0 });
  byId("similar").hidden = false;
  const note = answer.is_known ? "" : " (unknown item: popular items)";
  byId("similar-title").textContent = `Similar to ${nameOf(id)}${note}`;
  byId("similar-models").replaceChildren(...answer.models.map(modelList));
  byId("similar-title").focus();
}

async function suggest() {
  const items = await ask("search", { text: byId("item").value.trim() });
  addTitlesOf(items);
  byId("found").replaceChildren(...items.slice(0, 12).map((item) => {
    const entry = make("li", "");
    const add = button(nameOf(item.id), () => addItem(item.id));
    add.title = describe(item);
    entry.append(add);
    return entry;
  }));
}

async function start() {
  const overview = await ask("overview", {});
  maxHistory = overview.max_history;
  hasTimelines = overview.has_timelines;
  byId("overview").textContent =
    `${overview.items.toLocaleString("en")} items, ${overview.visitors.toLocaleString("en")} known visitors`;
  byId("examples").append(make("span", "Frequent visitors:", { className: "small" }),
    ...overview.examples.map((id) => button(id, () => showErrors(() => selectVisitor(id)))));
  await suggest();
  await show();
}

byId("visitor-form").addEventListener("submit", (event) => {
  event.preventDefault();
  showErrors(() => selectVisitor(byId("visitor").value.trim()));
});
byId("item-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("item").value.trim();
  byId("item").value = "";
  showErrors(async () => { if (id) await addItem(id); await suggest(); });
});
byId("item").addEventListener("input", () => showErrors(suggest));
byId("clear").addEventListener("click", () => showErrors(() => selectVisitor("")));
byId("close").addEventListener("click", () => { byId("similar").hidden = true; });
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("change", () => showErrors(show));
window.addEventListener("popstate", () => {
  lastVisitorRequest++;  // Back also cancels a request for a visitor
  showErrors(show);
});
showErrors(start);
