// What the page was given: `meta`, and columns of numbers that are decoded when first asked for.

const $ = id => document.getElementById(id);
const fromFolder = Boolean(window.explorerChunks);
const meta = fromFolder ? window.explorerChunks.data : JSON.parse($("data").textContent);
const N = meta.ids.length;
const rowOf = new Map(meta.ids.map((id, row) => [id, row]));
const TYPES = {f4: Float32Array, u2: Uint16Array, u4: Uint32Array};
const NOBODY = {u2: 0xFFFF, u4: 0xFFFFFFFF};

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

// The text of an element or of a chunk; it is let go, because what is made of it is kept.
function taken(key) {
  if (fromFolder) {
    const text = window.explorerChunks[key];
    delete window.explorerChunks[key];
    return text;
  }
  const element = $(key), text = element.textContent;
  element.remove();
  return text;
}

const decoded = new Map();
function array(place) {
  if (!decoded.has(place.chunk))
    decoded.set(place.chunk, new TYPES[place.type](bytesOf(taken(place.chunk)).buffer));
  return decoded.get(place.chunk);
}

// Columns by key. `values` and `codes` are decoded, and `sorted` is sorted, on first use.
function lazily(object, name, make) {
  Object.defineProperty(object, name, {configurable: true, get() {
    const value = make();
    Object.defineProperty(object, name, {value});
    return value;
  }});
}
const numbers = new Map(), names = new Map();
for (const column of meta.numbers) {
  lazily(column, "values", () => array(column));
  lazily(column, "sorted", () => Float32Array.from(column.values.filter(value => value === value)).sort());
  numbers.set(column.key, column);
}
for (const column of meta.names) {
  lazily(column, "codes", () => array(column));
  lazily(column, "counts", () => {
    const counts = new Array(column.names.length).fill(0);
    for (const code of column.codes) counts[code]++;
    return counts;
  });
  names.set(column.key, column);
}

const rank = numbers.has("rank") ? numbers.get("rank").values : null;
const ranking = Int32Array.from({length: N}, (_, row) => row);
if (rank) {
  const place = row => rank[row] === rank[row] ? rank[row] : Infinity;
  ranking.sort((a, b) => place(a) - place(b) || a - b);
}
const shuffled = array(meta.order);

// Share of all particles whose value is lower, ties counted half: 0 to 1.
function percentile(column, value) {
  const {sorted} = column;
  const below = bound(sorted, value, false), upTo = bound(sorted, value, true);
  return sorted.length ? (below + upTo) / 2 / sorted.length : NaN;
}
function bound(sorted, value, after) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value || (after && sorted[middle] === value)) low = middle + 1; else high = middle;
  }
  return low;
}

function reasonsOf(row) {
  const {width, type, texts} = meta.reasons, codes = array(meta.reasons), found = [];
  for (let i = row * width; i < (row + 1) * width; i++) if (codes[i] !== NOBODY[type]) found.push(texts[codes[i]]);
  return found;
}

// The file of the source that a particle is from, or null.
function fileOf(row) {
  if (!meta.files) return null;
  const code = array(meta.files)[row];
  return code === NOBODY[meta.files.type] ? null : meta.files.names[code];
}

function neighborsOf(latent, row) {
  const place = meta.neighbors[latent], rows = array(place);
  return Array.from(rows.subarray(row * place.k, (row + 1) * place.k)).filter(other => other !== NOBODY[place.type]);
}

function number(value, digits = 3) {
  if (value === null || value === undefined || value !== value) return "\u2013";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e7)) return value.toExponential(digits - 1);
  return Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(Math.abs(value) + 1))))).toLocaleString("en");
}
// Numbers that are names (of bags, of repeats) have no thousands.
const written = (column, value) => column.whole ? (value === value ? String(value) : "\u2013") : quantity(value, column.unit);
const quantity = (value, unit) => value === value && unit ? number(value) + "\u00a0" + unit : number(value);
const count = (n, noun = "particle") => n.toLocaleString("en") + " " + noun + (n === 1 ? "" : "s");

// An element with text, attributes and children; text is never read as markup.
function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}
