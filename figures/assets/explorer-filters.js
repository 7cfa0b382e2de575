// What to see: latent, map, color with its legend, and filters.

const isMark = key => key === "mark:label" || key === "mark:star";

// A column of names, the user's own marks included.
function namesColumn(key) {
  if (!isMark(key)) return names.get(key) ?? null;
  const words = key === "mark:star" ? ["starred"] : [...new Set([...marks.values()].map(mark => mark.label))]
    .filter(Boolean).sort();
  const at = new Map(words.map((word, code) => [word, code])), codes = new Uint16Array(N).fill(words.length);
  for (const [id, mark] of marks) {
    const word = key === "mark:star" ? (mark.star ? "starred" : "") : mark.label;
    if (rowOf.has(id) && at.has(word)) codes[rowOf.get(id)] = at.get(word);
  }
  const counts = [...words, ""].map((_, code) => codes.reduce((n, found) => n + (found === code), 0));
  return {key, name: "marks", names: [...words, "unmarked"], codes, counts,
    colors: [...words.map((_, code) => HUES[code % HUES.length]), meta.grey]};
}
const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#d9c91e"];

// --- view

function fill(select, entries, wanted) {
  select.replaceChildren(...entries.map(([value, name, there]) => {
    const option = new Option(there ? name : name + " \u2013 not there", value);
    option.disabled = !there;
    return option;
  }));
  const first = entries.find(([, , there]) => there);
  const chosen = entries.find(([value, , there]) => there && value === wanted) ?? first;
  if (chosen) select.value = chosen[0]; else select.selectedIndex = -1;
  return chosen ? chosen[0] : null;
}

function drawChoices() {
  const lacking = new Set(meta.missing.map(entry => entry.name));
  const latents = Object.entries(meta.latents).map(([name, found]) => [name, name, Object.keys(found).length > 0]);
  for (const name of ["classifier", "ae", "vae", "planar-vae"])
    if (lacking.has(name) && !(name in meta.latents)) latents.push([name, name, false]);
  state.latent = fill($("latent"), latents, state.latent);
  state.map = fill($("method"), ["UMAP", "t-SNE"].map(name => [name, name, name in maps()]), state.map);
  const colors = [...names.values()].filter(column => column.latent === null).map(c => ["Class and place", c.key, c.name]);
  colors.push(...[...names.values()].filter(c => c.latent === state.latent).map(c => ["Clusters", c.key, c.name]));
  colors.push(...numberEntries().filter(([, key]) => key !== "rank"), ["Marks", "mark:star", "stars"],
    ["Marks", "mark:label", "labels"]);
  $("color").value = state.color;
  groups($("color"), colors);
  for (const name of ["consensus score", "p-value", "predicted class", "scalars"])
    if (lacking.has(name)) {
      const option = new Option(name + " \u2013 not there", "");
      option.disabled = true;
      $("color").append(option);
    }
  const preferred = [state.color, "predicted", "class", state.latent + ":hdbscan", "score"];
  state.color = preferred.find(key => colors.some(([, other]) => other === key)) ?? colors[0][1];
  $("color").value = state.color;
}

function drawLegend() {
  const byName = namesColumn(state.color), column = numbers.get(state.color), colors = look();
  const label = $("color").selectedOptions[0]?.textContent ?? "";
  $("legend-head").textContent = label;
  if (byName) {
    $("legend").replaceChildren(...byName.names.map((name, code) => {
      const dot = make("i");
      dot.style.background = onPage(byName.colors[code], colors);
      const gone = state.hidden.get(byName.key)?.has(name) ?? false;
      return make("button", {type: "button", "aria-pressed": String(!gone), title: name + ": show or hide",
        disabled: isMark(byName.key), onclick: () => toggleName(byName.key, name)},
      dot, make("span", {text: name}), make("b", {text: byName.counts[code].toLocaleString("en")}));
    }));
    return;
  }
  $("legend").replaceChildren();
  if (!column) return;
  const bar = make("div", {class: "scale"}), ends = [column.low, column.high];
  if (column.reversed) ends.reverse();
  bar.style.background = "linear-gradient(to right, " + ramp(colors.dark).join(", ") + ")";
  const note = [column.group === "rarities" ? "share of the core that is less strange" : "",
    column.log ? "logarithmic" : "", ["p_value", "known_as_strange"].includes(column.key) ? "small is strange" : ""].filter(Boolean).join("; ");
  $("legend").append(bar, make("div", {class: "ends"}, make("span", {text: quantity(ends[0], column.unit)}),
    make("span", {text: quantity(ends[1], column.unit)})), make("p", {class: "faint", text: note}));
}

function drawMissing() {
  $("missing").hidden = meta.missing.length === 0;
  $("missing-head").textContent = "Not in this file: " + meta.missing.length;
  $("missing-body").replaceChildren(...meta.missing.map(({name, why, command}) => make("li", {},
    make("b", {text: name}), make("span", {text: ": " + why + (command ? "; make it with" : "")}),
    command ? make("code", {text: command}) : null)));
}

// --- filters

function drawFilters() {
  const open = new Set([...$("filter-names").querySelectorAll("details[open]")].map(part => part.dataset.key));
  $("filter-names").replaceChildren(...[...names.values()]
    .filter(column => column.latent === null || column.latent === state.latent || state.hidden.has(column.key))
    .map(column => namesFilter(column, open.has(column.key))));
  $("filter-ranges").replaceChildren(...rangeKeys().map(rangeFilter));
  groups($("range-more"), numberEntries().filter(([, key]) => !rangeKeys().includes(key)));
  $("only-starred").checked = state.onlyStarred;
  const labels = [...new Set([...marks.values()].map(mark => mark.label).filter(Boolean))].sort();
  $("only-label").replaceChildren(new Option("any or none", ""), ...labels.map(label => new Option(label, label)));
  $("only-label").value = state.onlyLabel;
  const shown = visible.reduce((n, is) => n + is, 0);
  $("filter-count").textContent = shown.toLocaleString("en") + " of " + N.toLocaleString("en") + " shown";
  $("clear-filters").disabled = !filtered();
  $("tab-filters").textContent = filtered() ? "Filters (" + filtered() + ")" : "Filters";
}

const extraRanges = [];
const rangeKeys = () => ["size_um", "bag", "top_cm", "p_value", ...extraRanges].filter(key => numbers.has(key));

function namesFilter(column, open) {
  const gone = state.hidden.get(column.key) ?? new Set();
  const title = column.name + (column.latent ? " (" + column.latent + ")" : "");
  const body = column.names.slice(0, 200).map((name, code) => {
    const box = make("input", {type: "checkbox", checked: !gone.has(name), onchange: () => toggleName(column.key, name)});
    return make("label", {title: name}, box, make("span", {text: name}),
      make("small", {text: column.counts[code].toLocaleString("en")}));
  });
  const only = shows => make("button", {type: "button", text: shows ? "all" : "none", onclick: () => {
    if (shows) state.hidden.delete(column.key); else state.hidden.set(column.key, new Set(column.names));
    filter();
  }});
  return make("details", {open: open || gone.size > 0, "data-key": column.key},
    make("summary", {text: title + (gone.size ? ": " + gone.size + " hidden" : "")}),
    make("div", {class: "row"}, only(true), only(false)), make("div", {class: "checks"}, ...body));
}

function rangeFilter(key) {
  const column = numbers.get(key), [low, high] = state.ranges.get(key) ?? [-Infinity, Infinity];
  const ends = [quantile(column.sorted, 0), quantile(column.sorted, 1)];
  const field = (value, end, name) => make("input", {type: "number", step: "any", value: Number.isFinite(value) ? value : "",
    placeholder: column.whole ? String(end) : number(end), "aria-label": name + " " + column.name, "data-key": key, onchange: changed});
  const from = field(low, ends[0], "lowest"), to = field(high, ends[1], "highest");
  function changed() {
    const given = [from.value === "" ? -Infinity : Number(from.value), to.value === "" ? Infinity : Number(to.value)];
    if (given.some(Number.isFinite)) state.ranges.set(key, given); else state.ranges.delete(key);
    filter();
  }
  return make("div", {class: "range"}, make("span", {text: column.name + (column.unit ? ", " + column.unit : "")}),
    from, make("span", {text: "to"}), to);
}

function startFilters() {
  drawChoices();
  drawMissing();
  const choose = (select, key) => { $(select).onchange = () => {
    state[key] = $(select).value;
    drawChoices();
    emit("view");
  }; };
  choose("latent", "latent");
  choose("method", "map");
  choose("color", "color");
  $("range-add").onclick = () => { extraRanges.push($("range-more").value); drawFilters(); };
  $("clear-filters").onclick = clearFilters;
  $("only-starred").onchange = event => { state.onlyStarred = event.target.checked; filter(); };
  $("only-label").onchange = event => { state.onlyLabel = event.target.value; filter(); };
  $("select-shown").onclick = () => { showTab("gallery"); select(ranking.filter(row => visible[row])); };
  on("view filter marks theme", drawLegend);
  on("view filter", drawFilters);
  on("marks", () => { if (state.onlyStarred || state.onlyLabel) filter(); else drawFilters(); });
  drawLegend();
  drawFilters();
}
