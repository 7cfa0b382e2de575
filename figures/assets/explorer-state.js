// What the user has chosen, and who wants to know when it changes.

const state = {
  latent: null, map: null, color: null, tool: "pan",
  kept: null,              // row of the particle on the card
  selection: null,         // sorted rows of a lasso or box; null where there is none
  hidden: new Map(),       // key of a column of names -> names that are hidden
  ranges: new Map(),       // key of a column of numbers -> [lowest, highest]
  onlyStarred: false, onlyLabel: "",
};
const visible = new Uint8Array(N).fill(1);
const chosen = new Uint8Array(N);  // 1 for the rows of the selection
const listeners = {};

function on(events, listener) {
  for (const event of events.split(" ")) (listeners[event] ??= []).push(listener);
}
function emit(event) {
  for (const listener of listeners[event] ?? []) listener();
}

function say(text) {
  $("live").textContent = text;
}

// Filters: a particle is shown if no filter hides it; one without a value is hidden by every range over it.
function filter() {
  visible.fill(1);
  for (const [key, gone] of state.hidden) {
    const {codes, names: words} = names.get(key), hides = words.map(name => gone.has(name));
    for (let row = 0; row < N; row++) if (hides[codes[row]]) visible[row] = 0;
  }
  for (const [key, [low, high]] of state.ranges) {
    const {values} = numbers.get(key);
    for (let row = 0; row < N; row++) if (!(values[row] >= low && values[row] <= high)) visible[row] = 0;
  }
  if (state.onlyStarred || state.onlyLabel)
    for (let row = 0; row < N; row++) {
      const mark = marks.get(meta.ids[row]);
      if (!mark || (state.onlyStarred && !mark.star) || (state.onlyLabel && mark.label !== state.onlyLabel))
        visible[row] = 0;
    }
  emit("filter");
}

function toggleName(key, name) {
  const gone = state.hidden.get(key) ?? new Set();
  if (!gone.delete(name)) gone.add(name);
  if (gone.size) state.hidden.set(key, gone); else state.hidden.delete(key);
  filter();
}

function clearFilters() {
  state.hidden.clear();
  state.ranges.clear();
  state.onlyStarred = false;
  state.onlyLabel = "";
  filter();
}

const filtered = () => state.hidden.size + state.ranges.size + state.onlyStarred + (state.onlyLabel ? 1 : 0);

function select(rows) {
  state.selection = rows && rows.length ? Int32Array.from(rows).sort() : null;
  chosen.fill(0);
  for (const row of state.selection ?? []) chosen[row] = 1;
  emit("selection");
  say(state.selection ? count(state.selection.length) + " selected" : "nothing selected");
}

// Rows that the gallery and the arrows walk through: the selection, else all, without what filters hide.
function shownRows() {
  return ranking.filter(row => visible[row] && (!state.selection || chosen[row]));
}

function keep(row, {link = true, quiet = false} = {}) {
  state.kept = row;
  emit("kept");
  if (link) history.replaceState(null, "", row === null ? "#" : "#id=" + encodeURIComponent(meta.ids[row]));
  if (row !== null && !quiet) say(spoken(row));
}

function spoken(row) {
  const parts = [meta.ids[row]];
  if (rank && rank[row] === rank[row]) parts.unshift("rank " + number(rank[row]));
  const size = numbers.get("size_um");
  if (size && size.values[row] === size.values[row]) parts.push(quantity(size.values[row], size.unit));
  const mark = marks.get(meta.ids[row]);
  if (mark?.star) parts.push("starred");
  if (mark?.label) parts.push("labeled " + mark.label);
  return [...parts, ...reasonsOf(row).slice(0, 2)].join(", ");
}

function step(by) {
  const rows = shownRows();
  if (!rows.length) return say("no particle is shown");
  const at = rows.indexOf(state.kept);
  keep(rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))]);
}
