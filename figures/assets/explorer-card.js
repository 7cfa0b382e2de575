// The particle's card.

function drawCard() {
  const row = state.kept;
  $("card-hint").hidden = row !== null;
  $("card-body").hidden = row === null;
  if (row === null) return;
  $("card-id").textContent = meta.ids[row];
  $("card-file").textContent = fileOf(row) ?? "";
  const bar = scaleBar(row);
  showCrop($("card-crop"), row);
  $("bar").hidden = !bar || absent.has(row);
  if (bar) {
    $("bar-line").style.width = bar.share * 100 + "%";
    $("bar-text").textContent = bar.text;
  }
  drawRedrawn(row);
  drawFacts(row);
  $("card-reasons").replaceChildren(...reasonsOf(row).map(text => make("li", {text})));
  drawMark(row);
  if ($("scalars").open) drawScalars(row);
  if ($("ranks").open) drawRanks(row);
  if ($("neighbors").open) drawNeighbors(row);
}

function drawRedrawn(row) {
  const found = redrawn.filter(({at}) => at.has(row));
  $("redrawn").replaceChildren(...found.map(({latent, at, crops: sheets}) => {
    const canvas = make("canvas", {class: "crop", role: "img", "aria-label": "reconstruction by " + latent});
    draw(canvas, sheets, at.get(row));
    return make("figure", {}, canvas, make("figcaption", {text: latent}));
  }));
  $("redrawn-note").textContent = absent.has(row) ? "The store holds no crop of this particle."
    : found.length ? "Reconstructions" : "No reconstruction of this particle was kept" + (redrawn.length ? "." : ": no autoencoder run did.");
}

function drawFacts(row) {
  const facts = [];
  for (const key of ["rank", "score", "p_value", "known_as_strange", "found_in", "size_um", "bag", "top_cm", "bottom_cm", "repeat"]) {
    const column = numbers.get(key);
    if (!column || column.values[row] !== column.values[row]) continue;
    const whole = {rank: meta.total, found_in: Object.keys(meta.latents).length}[key];
    const of = whole ? " of " + whole.toLocaleString("en") : "";
    facts.push([column.name, written(column, column.values[row]) + of]);
  }
  for (const column of names.values())
    if (column.latent === null || column.latent === state.latent)
      facts.push([column.name, column.names[column.codes[row]].replace(/^cluster /, "")]);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {text: name}), make("dd", {text: value})]));
}

// Each scalar, and what share of all particles lies below it.
function drawScalars(row) {
  const lines = [...numbers.values()].filter(column => column.group === "scalars").map(column => {
    const value = column.values[row], share = percentile(column, value);
    const bar = make("span", {class: "track"}, make("i", {class: Math.abs(share - 0.5) > 0.475 ? "far" : ""}));
    bar.firstChild.style.left = 100 * share + "%";
    const place = value === value ? Math.round(100 * share) + " %" : "";
    return make("tr", {}, make("th", {scope: "row", text: column.name, title: column.name}),
      make("td", {text: quantity(value, column.unit)}), make("td", {}, value === value ? bar : ""),
      make("td", {text: place}));
  });
  $("scalars-body").replaceChildren(...lines);
  $("scalars-none").hidden = lines.length > 0;
}

// Every score's own rank: from the share that is less strange, or from the values that are shown.
function drawRanks(row) {
  const lines = [...numbers.values()].filter(column => ["rarities", "scores"].includes(column.group));
  const place = column => column.group === "rarities"
    ? Math.round((1 - column.values[row]) * meta.total + 0.5)
    : Math.round((1 - percentile(column, column.values[row])) * column.sorted.length + 0.5);
  const found = lines.filter(column => column.values[row] === column.values[row])
    .map(column => [column, place(column)]).sort((a, b) => a[1] - b[1]);
  $("ranks-body").replaceChildren(...found.map(([column, at]) => {
    const bar = make("span", {class: "track"}, make("i", {class: at <= 0.05 * meta.total ? "far" : ""}));
    bar.firstChild.style.left = 100 * (1 - (at - 0.5) / meta.total) + "%";
    return make("tr", {}, make("th", {scope: "row", text: column.name}), make("td", {text: number(at)}),
      make("td", {}, bar), make("td", {text: "top " + number(100 * at / meta.total, 2) + " %"}));
  }));
  $("ranks-none").hidden = found.length > 0;
}

function drawNeighbors(row) {
  const parts = Object.keys(meta.neighbors).map(latent => {
    const rows = neighborsOf(latent, row);
    const list = make("div", {class: "thumbs"}, ...rows.map(other => thumb(other, "near")));
    return make("div", {}, make("h4", {text: latent}), rows.length ? list : make("p", {class: "faint",
      text: "This particle has no vector in this latent."}));
  });
  if (!parts.length) parts.push(make("p", {class: "faint", text: "No run's vectors were at hand when this was made."}));
  $("neighbors-body").replaceChildren(...parts);
}

function thumb(row, className = "") {
  const mark = marks.get(meta.ids[row]);
  const known = rank && rank[row] === rank[row] ? number(rank[row]) : null;
  const button = make("button", {type: "button", class: "thumb " + className, "aria-label": spoken(row),
    title: meta.ids[row], "data-row": row,
    onclick: () => { keep(row); showTab("card"); }}, cropCanvas(row, ""));
  button.firstChild.setAttribute("aria-hidden", "true");
  if (known) button.append(make("b", {text: known}));
  if (mark?.star) button.append(make("em", {text: "\u2605"}));
  return button;
}

function startCard() {
  for (const name of ["scalars", "ranks", "neighbors"]) $(name).addEventListener("toggle", drawCard);
  $("card-previous").onclick = () => step(-1);
  $("card-next").onclick = () => step(1);
  on("kept view", drawCard);
  on("marks", () => { if (state.kept !== null) drawMark(state.kept); });
}
