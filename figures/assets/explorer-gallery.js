// The gallery: the selection, or everything, without what filters hide; sorted as one likes.

const PAGE = 60;
let galleryShown = PAGE;

function sortedRows() {
  const rows = shownRows(), column = numbers.get($("sort").value), up = $("sort-up").getAttribute("aria-pressed") === "true";
  if (!column || column.key === "rank") return up || !column ? rows : rows.reverse();
  const {values} = column, known = rows.filter(row => values[row] === values[row]);
  known.sort((a, b) => values[a] - values[b]);
  if (!up) known.reverse();
  return Int32Array.from([...known, ...rows.filter(row => values[row] !== values[row])]);
}

function drawGallery() {
  if ($("tab-gallery").getAttribute("aria-selected") !== "true") return;
  const rows = sortedRows(), shown = rows.subarray(0, galleryShown);
  const column = numbers.get($("sort").value);
  $("gallery-count").textContent = (state.selection ? "Selection: " : "") + count(rows.length)
    + (state.selection && rows.length < state.selection.length
      ? " (" + (state.selection.length - rows.length) + " hidden by filters)" : "");
  $("thumbs").replaceChildren(...Array.from(shown, row => {
    const button = thumb(row);
    if (column && column.key !== "rank")
      button.append(make("small", {text: written(column, column.values[row])}));
    if (row === state.kept) button.classList.add("kept");
    return button;
  }));
  $("more").hidden = rows.length <= galleryShown;
  $("more").textContent = "Show more (" + (rows.length - shown.length).toLocaleString("en") + " left)";
  $("unselect").hidden = !state.selection;
  drawHistogram(rows);
}

function groups(select, entries) {
  const before = select.value, byGroup = new Map();
  for (const [group, key, name] of entries) {
    if (!byGroup.has(group)) byGroup.set(group, make("optgroup", {label: group}));
    byGroup.get(group).append(new Option(name, key));
  }
  select.replaceChildren(...byGroup.values());
  if (entries.some(([, key]) => key === before)) select.value = before;
}

const GROUP = {ranking: "Ranking", place: "Size and place", scalars: "Scalars", rarities: "Scores: share less strange",
  scores: "Scores"};
const numberEntries = () => ["ranking", "place", "scalars", "rarities", "scores"].flatMap(group =>
  [...numbers.values()].filter(column => column.group === group)
    .map(column => [GROUP[group], column.key, column.name + (column.unit ? ", " + column.unit : "")]));

function startGallery() {
  const entries = numberEntries();
  groups($("sort"), entries);
  if (numbers.has("rank")) $("sort").value = "rank";
  groups($("histogram-of"), entries);
  $("histogram-of").value = ["size_um", "Diameter (ABD)", "score"].find(key => numbers.has(key)) ?? "";
  if (!$("histogram-of").value && entries.length) $("histogram-of").value = entries[0][1];
  $("histogram-part").hidden = $("sort").disabled = entries.length === 0;
  const again = () => { galleryShown = PAGE; drawGallery(); };
  $("sort").onchange = () => {
    $("sort-up").setAttribute("aria-pressed", String(Boolean(numbers.get($("sort").value)?.reversed)));
    again();
  };
  $("sort-up").onclick = () => {
    const up = $("sort-up").getAttribute("aria-pressed") !== "true";
    $("sort-up").setAttribute("aria-pressed", String(up));
    again();
  };
  $("histogram-of").onchange = () => {
    $("histogram-log").checked = Boolean(numbers.get($("histogram-of").value)?.log);
    drawHistogram(sortedRows());
  };
  $("histogram-log").onchange = () => drawHistogram(sortedRows());
  $("histogram-log").checked = Boolean(numbers.get($("histogram-of").value)?.log);
  $("more").onclick = () => { galleryShown += 2 * PAGE; drawGallery(); };
  $("unselect").onclick = () => select(null);
  on("filter selection", again);
  on("tab marks theme", drawGallery);
  on("kept", () => {
    for (const button of $("thumbs").children)
      button.classList.toggle("kept", Number(button.dataset.row) === state.kept);
  });
}
