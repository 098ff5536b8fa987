"use strict";
// A state is {visitor, isKnown, history}; each change is an entry of the browser's history, so that Back takes it back.
// Ids reach the page as text only, never as markup.

const byId = (id) => document.getElementById(id);
const SHOWN = 60;
let mostHistory = 0;
let hasTimelines = false;
let asked = 0;
let taken = 0;

function make(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

function button(text, click, className = "") {
  const made = make("button", text, { type: "button", className });
  made.addEventListener("click", click);
  return made;
}

async function ask(what, question) {
  const response = await fetch(`/api/${what}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question),
  });
  const told = await response.json();
  if (!response.ok) throw new Error(told.error);
  return told;
}

// What goes wrong is told on the page, in the words of the server.
async function telling(action) {
  try {
    byId("error").textContent = "";
    await action();
  } catch (error) {
    byId("error").textContent = error.message;
  }
}

const state = () => history.state || { visitor: "", isKnown: false, history: [] };

function go(next) {
  next.history = next.history.slice(-mostHistory);
  history.pushState(next, "");
  return show();
}

function describe(item) {
  const told = item.category === null ? [] : [`category ${item.category}`];
  if (item.is_available === false) told.push("not available");
  return told.join(", ");
}

function modelList(model) {
  const card = make("div", "", { className: "model" });
  card.append(make("h3", model.name), make("span", `${model.milliseconds.toFixed(1)} ms`, { className: "small" }));
  if (!model.items.length) card.append(make("p", "Nothing is left to show.", { className: "muted" }));
  const list = make("ol", "");
  model.items.forEach((item, place) => {
    const row = make("li", "");
    const name = make("div", "");
    const add = button(item.id, () => addItem(item.id), "item");
    add.title = "add to the history";
    name.append(add, make("div", describe(item), { className: "small" }));
    const like = button("similar", () => telling(() => showSimilar(item.id)), "like");
    like.setAttribute("aria-label", `similar to ${item.id}`);
    row.append(make("span", place + 1), name, make("span", item.score.toFixed(3), { className: "number" }), like);
    list.append(row);
  });
  card.append(list);
  return card;
}

const addItem = (id) => telling(() => go({ ...state(), history: [...state().history, id] }));

function showHistory({ history: items }) {
  byId("count").textContent = `History: ${items.length.toLocaleString("en")} item${items.length === 1 ? "" : "s"}${
    items.length > 1 ? ", latest first" : ""}`;
  const latest = items.map((id, place) => [id, place]).slice(-SHOWN).reverse();
  byId("history").replaceChildren(...latest.map(([id, place]) => {
    const entry = make("li", "");
    const remove = button(`${id} ×`, () => telling(() => {
      const left = state().history;
      return go({ ...state(), history: [...left.slice(0, place), ...left.slice(place + 1)] });
    }));
    remove.setAttribute("aria-label", `remove ${id}`);
    entry.append(remove);
    return entry;
  }));
  if (items.length > SHOWN) byId("history").append(make("li", `and ${items.length - SHOWN} earlier`));
}

function showVisitor({ visitor, isKnown }) {
  const without = hasTimelines ? "" : " Timelines are not part of an export: --data DATASET shows them.";
  byId("visitor").value = visitor;
  byId("known").textContent = !visitor ? "" : isKnown ? `A known visitor.${without}`
    : "Unknown: answered by the history alone, and without one by what is popular.";
}

async function show() {
  const now = state();
  const mine = ++asked;
  showVisitor(now);
  showHistory(now);
  const told = await ask("recommend", {
    visitor: now.visitor, history: now.history, k: byId("k").valueAsNumber || 0,
    hide_seen: byId("hide_seen").checked, only_available: byId("only_available").checked,
  });
  if (mine !== asked) return;  // a later question is on its way
  byId("models").replaceChildren(...told.models.map(modelList));
  byId("unknown").textContent = told.num_unknown
    ? `${told.num_unknown} unknown to every model, and left out: ${told.unknown.slice(0, 5).join(", ")}` : "";
  byId("models").dataset.shown = mine;
}

async function takeVisitor(id) {
  const mine = ++taken;
  const told = await ask("visitor", { visitor: id });
  if (mine === taken) await go({ visitor: id, isKnown: told.is_known, history: told.history });
}

async function showSimilar(id) {
  const told = await ask("similar", { item: id, k: byId("k").valueAsNumber || 0 });
  byId("similar").hidden = false;
  byId("similar-title").textContent = `Similar to ${id}${told.is_known ? "" : " (unknown: popular items)"}`;
  byId("similar-models").replaceChildren(...told.models.map(modelList));
  byId("similar-title").focus();
}

async function suggest() {
  const items = await ask("search", { text: byId("item").value.trim() });
  byId("found").replaceChildren(...items.slice(0, 12).map((item) => {
    const entry = make("li", "");
    const add = button(item.id, () => addItem(item.id));
    add.title = describe(item);
    entry.append(add);
    return entry;
  }));
}

async function start() {
  const told = await ask("overview", {});
  mostHistory = told.most_history;
  hasTimelines = told.has_timelines;
  byId("overview").textContent =
    `${told.items.toLocaleString("en")} items, ${told.visitors.toLocaleString("en")} known visitors`;
  if (!told.has_catalogue) {
    byId("only_available").disabled = true;
    byId("available-label").title = "an export does not know it: start the demo with --data DATASET";
  }
  byId("examples").append(make("span", "Frequent:", { className: "small" }),
    ...told.examples.map((id) => button(id, () => telling(() => takeVisitor(id)))));
  await suggest();
  await show();
}

byId("visitor-form").addEventListener("submit", (event) => {
  event.preventDefault();
  telling(() => takeVisitor(byId("visitor").value.trim()));
});
byId("item-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("item").value.trim();
  byId("item").value = "";
  telling(async () => { if (id) await addItem(id); await suggest(); });
});
byId("item").addEventListener("input", () => telling(suggest));
byId("clear").addEventListener("click", () => telling(() => takeVisitor("")));
byId("close").addEventListener("click", () => { byId("similar").hidden = true; });
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("change", () => telling(show));
window.addEventListener("popstate", () => { taken++; telling(show); });  // Back also takes back a visitor on its way
telling(start);
