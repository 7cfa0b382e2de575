// Marks: a star and a label of the user's own for each particle, kept in this browser by the set's fingerprint.

const MARKS_KEY = "nunatak-explorer:" + meta.fingerprint;
const LONGEST_LABEL = 200;
const SLOTS = 9;

const stored = (() => {
  try { return JSON.parse(localStorage.getItem(MARKS_KEY)) ?? {}; } catch { return {}; }
})();
const plainLabel = text => String(text ?? "").replace(/\s+/g, " ").trim().slice(0, LONGEST_LABEL);
const marks = new Map();
for (const [id, mark] of Object.entries(stored.marks ?? {}))
  if (mark?.star || mark?.label) marks.set(id, {star: Boolean(mark.star), label: plainLabel(mark.label)});
const recent = (Array.isArray(stored.recent) ? stored.recent : []).map(plainLabel).filter(Boolean).slice(0, SLOTS);

function storeMarks() {
  try {
    localStorage.setItem(MARKS_KEY, JSON.stringify({marks: Object.fromEntries(marks), recent}));
    $("marks-kept").textContent = "Kept in this browser; export them to use them elsewhere.";
  } catch {
    $("marks-kept").textContent = "This browser keeps nothing for pages from a disk: export before you close it.";
  }
}

function setMarks(rows, change) {
  for (const row of rows) {
    const id = meta.ids[row], mark = {star: false, label: "", ...marks.get(id), ...change};
    if (mark.star || mark.label) marks.set(id, mark); else marks.delete(id);
  }
  storeMarks();
  emit("marks");
}

function star(row) {
  if (row === null) return say("choose a particle first");
  const starred = !marks.get(meta.ids[row])?.star;
  setMarks([row], {star: starred});
  say(starred ? "starred" : "star removed");
}

// A label keeps its number as long as it can, so that fingers can learn it.
function remember(label) {
  if (!label || recent.includes(label)) return;
  if (recent.length < SLOTS) recent.push(label); else recent.splice(0, 1, label);
}

function setLabel(rows, text) {
  const label = plainLabel(text);
  remember(label);
  setMarks(rows, {label});
  say(label ? "labeled " + label : "label removed");
}

function drawMark(row) {
  const mark = marks.get(meta.ids[row]);
  $("star").setAttribute("aria-pressed", String(Boolean(mark?.star)));
  $("star").textContent = mark?.star ? "\u2605 starred" : "\u2606 star";
  if (document.activeElement !== $("label")) $("label").value = mark?.label ?? "";
  $("recent").replaceChildren(...recent.map((label, i) => make("button", {type: "button", title: label,
    onclick: () => setLabel([row], label)}, make("kbd", {text: i + 1}), make("span", {text: label}))));
}

function drawMarks() {
  const found = [...marks].map(([id, mark]) => [id, mark, rowOf.get(id)]);
  const here = found.filter(([, , row]) => row !== undefined);
  $("marks-count").textContent = count(here.length) + " marked"
    + (found.length > here.length ? ", " + (found.length - here.length) + " more that are not on this page" : "");
  $("tab-marks").textContent = here.length ? "Marks (" + here.length + ")" : "Marks";
  $("export-marked").disabled = $("clear-marks").disabled = found.length === 0;
  $("selection-text").textContent = state.selection ? count(state.selection.length) + " selected"
    : count(shownRows().length) + " shown, nothing selected";
  $("star-selection").disabled = $("label-selection").disabled = !state.selection;
  $("marks-list").replaceChildren(...here.slice(0, 300).map(([id, mark, row]) => make("li", {}, thumb(row),
    make("span", {class: "id", text: id}), make("span", {text: mark.label}))));
}

// --- CSV

const csvField = value => /[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value;

// Marks of particles that are not on this page keep their label, and nothing else is known of them.
function csv(rows, elsewhere = []) {
  const columns = ["rank", "score", "p_value", "size_um"].filter(key => numbers.has(key)).map(key => numbers.get(key));
  const words = [...names.values()].filter(column => column.latent === null);
  const header = ["particle_id", "star", "label", ...columns.map(c => c.key), ...words.map(c => c.key), "reasons"];
  const known = value => value === value ? String(Number(value.toPrecision(7))) : "";
  const lines = Array.from(rows, row => {
    const mark = marks.get(meta.ids[row]);
    return [meta.ids[row], mark?.star ? "1" : "0", mark?.label ?? "", ...columns.map(c => known(c.values[row])),
      ...words.map(c => c.colors[c.codes[row]] === meta.grey ? "" : c.names[c.codes[row]]), reasonsOf(row).join("; ")];
  });
  for (const id of elsewhere) {
    const mark = marks.get(id);
    lines.push([id, mark.star ? "1" : "0", mark.label, ...header.slice(3).map(() => "")]);
  }
  return [header, ...lines].map(line => line.map(csvField).join(",")).join("\n") + "\n";
}

function save(name, text) {
  const link = make("a", {download: name, href: URL.createObjectURL(new Blob([text], {type: "text/csv"}))});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Rows of fields, as RFC 4180 has them: a quoted field may hold commas, quotes and line ends.
function readCsv(text) {
  const rows = [[]];
  const pattern = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/gy;
  for (let found; pattern.lastIndex < text.length && (found = pattern.exec(text));) {
    rows.at(-1).push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
    if (found[3] !== ",") rows.push([]);
  }
  return rows.filter(row => row.length > 1);
}

async function load(file) {
  const [header, ...lines] = readCsv(await file.text());
  const [id, starred, label] = ["particle_id", "star", "label"].map(name => header?.indexOf(name) ?? -1);
  if (id < 0 || (starred < 0 && label < 0))
    return say(file.name + ": no columns particle_id, star, label; load a file exported here");
  for (const line of lines) {
    const mark = {star: ["1", "true", "True"].includes(line[starred]), label: plainLabel(line[label])};
    if (line[id] && (mark.star || mark.label)) { marks.set(line[id], mark); remember(mark.label); }
  }
  storeMarks();
  emit("marks");
  return say(lines.length + " marks loaded");
}

function startMarks() {
  $("star").onclick = () => star(state.kept);
  $("label").maxLength = LONGEST_LABEL;
  $("label").onkeydown = event => { if (event.key === "Enter") { $("label").onchange(); $("label").blur(); } };
  $("label").onchange = () => {
    if (state.kept !== null && plainLabel($("label").value) !== (marks.get(meta.ids[state.kept])?.label ?? ""))
      setLabel([state.kept], $("label").value);
  };
  $("export-marked").onclick = () =>
    save("marks.csv", csv(ranking.filter(row => marks.has(meta.ids[row])),
      [...marks.keys()].filter(id => !rowOf.has(id))));
  $("export-shown").onclick = () => save("selection.csv", csv(shownRows()));
  $("star-selection").onclick = () => setMarks(state.selection, {star: true});
  $("label-selection").onclick = () => setLabel(state.selection, $("selection-label").value);
  $("load-marks").onchange = event => {
    if (event.target.files[0]) load(event.target.files[0]).finally(() => { event.target.value = ""; });
  };
  $("clear-marks").onclick = () => {
    if (!confirm("Remove all marks on this set?")) return;
    marks.clear();
    storeMarks();
    emit("marks");
  };
  on("marks selection filter", drawMarks);
  storeMarks();
  drawMarks();
}
