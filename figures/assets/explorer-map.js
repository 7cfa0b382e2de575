// The map: one WebGL dot a particle.

const hasGl = Boolean(document.createElement("canvas").getContext("webgl"));
let drawnRows = [];  // for each trace the rows of its dots

const maps = () => meta.latents[state.latent] ?? {};
function place() {
  const axes = maps()[state.map];
  return axes ? {x: array(axes.x), y: array(axes.y)} : null;
}

// The look of the page, read from its style, so that the map follows light and dark.
function look() {
  const style = getComputedStyle(document.documentElement), read = name => style.getPropertyValue(name).trim();
  return {ink: read("--ink"), grey: read("--noise"), dark: read("--dark") === "1"};
}

// Dark hues would vanish on a dark page: those are mixed with white there.
function onPage(color, {dark, grey}) {
  if (color === meta.grey) return grey;
  const [r, g, b] = [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16));
  const bright = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
  if (!dark || bright > 0.42) return color;
  const mix = (0.5 - bright) / (1 - bright);
  return "rgb(" + [r, g, b].map(part => Math.round(part + (255 - part) * mix)).join(",") + ")";
}

// Strange is dark on a light page and bright on a dark one: what is far from the background stands out.
const ramp = dark => dark ? [...meta.ramp].reverse() : meta.ramp;

// 0 to 1 along the color scale of a column; NaN where there is no value.
function shade(column, value) {
  let [low, high] = [column.low, column.high];
  if (column.log) [low, high, value] = [Math.log(low), Math.log(high), Math.log(Math.max(value, low))];
  const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return column.reversed ? 1 - share : share;
}

const dotSize = () => Math.min(8, Math.max(2.5, 330 / Math.sqrt(N))) * (innerWidth > 1700 ? 1.3 : 1);

function trace(rows, x, y, marker) {
  const dots = {
    type: hasGl ? "scattergl" : "scatter", mode: "markers", hoverinfo: "none",
    x: Float32Array.from(rows, row => x[row]), y: Float32Array.from(rows, row => y[row]),
    marker: {size: dotSize(), opacity: 0.85, line: {width: 0}, ...marker},
  };
  if (state.selection) {
    dots.selectedpoints = [];
    rows.forEach((row, i) => { if (chosen[row]) dots.selectedpoints.push(i); });
    dots.unselected = {marker: {opacity: 0.12}};
  }
  drawnRows.push(rows);
  return dots;
}

function traces(x, y, colors) {
  drawnRows = [];
  const rows = shuffled.filter(row => visible[row] && x[row] === x[row]);
  const byName = namesColumn(state.color), column = numbers.get(state.color);
  if (byName) {
    const parts = byName.names.map(() => []);
    for (const row of rows) parts[byName.codes[row]].push(row);
    const order = parts.map((_, code) => code).filter(code => parts[code].length);
    const grey = code => byName.colors[code] === meta.grey;
    order.sort((a, b) => grey(b) - grey(a));  // grey below all others
    return order.map(code => trace(parts[code], x, y,
      {color: onPage(byName.colors[code], colors), opacity: grey(code) ? 0.5 : 0.85}));
  }
  if (!column) return [trace(rows, x, y, {color: colors.grey})];
  const {values} = column, known = rows.filter(row => values[row] === values[row]);
  const shades = Float32Array.from({length: N}, (_, row) => shade(column, values[row]));
  known.sort((a, b) => shades[a] - shades[b]);  // the strange on top
  return [trace(rows.filter(row => values[row] !== values[row]), x, y, {color: colors.grey, opacity: 0.5}),
    trace(known, x, y, {color: Float32Array.from(known, row => shades[row]), cmin: 0, cmax: 1,
      colorscale: ramp(colors.dark).map((color, i, all) => [i / (all.length - 1), color])})];
}

// Stars and the ring around the particle on the card lie above plotly's dots: moving them must not redraw those.
const STAR = "M0,-8.5 2.1,-2.9 8.1,-2.6 3.4,1.1 5,6.9 0,3.6 -5,6.9 -3.4,1.1 -8.1,-2.6 -2.1,-2.9Z";
function drawOverlay() {
  const at = place(), {xaxis, yaxis} = $("map")._fullLayout ?? {}, found = [];
  const spot = row => {
    const x = xaxis.d2p(at.x[row]), y = yaxis.d2p(at.y[row]);
    const inside = x >= 0 && y >= 0 && x <= xaxis._length && y <= yaxis._length;
    return inside ? "translate(" + (x + xaxis._offset) + "," + (y + yaxis._offset) + ")" : null;
  };
  const add = (row, tag, given) => {
    const shape = document.createElementNS("http:/" + "/www.w3.org/2000/svg", tag), transform = spot(row);
    if (!transform) return;
    for (const [name, value] of Object.entries({...given, transform})) shape.setAttribute(name, value);
    found.push(shape);
  };
  if (at && xaxis) {
    for (const [id, mark] of marks) {
      const row = rowOf.get(id);
      if (mark.star && row !== undefined && visible[row]) add(row, "path", {d: STAR, class: "star"});
    }
    if (state.kept !== null) {
      add(state.kept, "circle", {r: dotSize() / 2 + 6, class: "halo"});
      add(state.kept, "circle", {r: dotSize() / 2 + 6, class: "ring"});
    }
  }
  $("overlay").replaceChildren(...found);
}

function drawMap() {
  const at = place(), colors = look();
  $("nomap").hidden = Boolean(at) && N > 0;
  $("nomap").textContent = N ? "There is no map to show; what is missing, and the command that makes it, "
    + "stands on the left." : "There are no particles.";
  const {x, y} = at ?? {x: [], y: []};
  const data = at ? traces(x, y, colors) : [];
  const axis = {visible: false, zeroline: false, showgrid: false};
  return Plotly.react("map", data, {
    margin: {l: 8, r: 8, t: 8, b: 8}, showlegend: false, dragmode: state.tool, hovermode: "closest",
    hoverdistance: 12, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, selections: [],
    yaxis: {...axis, scaleanchor: "x", scaleratio: 1}, uirevision: state.latent + state.map,
    newselection: {line: {color: colors.ink, width: 1.5}}, activeselection: {fillcolor: "rgba(0,0,0,0)"},
  }, {displayModeBar: false, scrollZoom: true, responsive: true, doubleClick: false});
}

const rowAt = point => drawnRows[point.curveNumber]?.[point.pointNumber];

function hover(event) {
  const row = rowAt(event.points[0]), follow = $("follow");
  if (row === undefined) return;
  const facts = [rank && rank[row] === rank[row] ? "rank " + number(rank[row]) : null];
  const size = numbers.get("size_um"), byName = namesColumn(state.color), column = numbers.get(state.color);
  if (size && size.values[row] === size.values[row]) facts.push(quantity(size.values[row], size.unit));
  if (byName) facts.push(byName.names[byName.codes[row]]);
  if (column && !["rank", "size_um"].includes(column.key))
    facts.push(column.name + " " + written(column, column.values[row]));
  showCrop($("follow-crop"), row);
  $("follow-id").textContent = meta.ids[row];
  $("follow-facts").textContent = facts.filter(Boolean).join(" \u00b7 ");
  $("follow-reasons").replaceChildren(...reasonsOf(row).slice(0, 3).map(text => make("li", {text})));
  follow.dataset.row = row;
  follow.hidden = false;
  const {clientX, clientY} = event.event, box = follow.getBoundingClientRect();
  const right = clientX + 18 + box.width > $("panel").getBoundingClientRect().left;
  follow.style.left = Math.max(4, right ? clientX - box.width - 18 : clientX + 18) + "px";
  follow.style.top = Math.max(4, Math.min(clientY + 14, innerHeight - box.height - 8)) + "px";
}

function startMap() {
  drawMap();
  const map = $("map");
  map.on("plotly_hover", hover);
  map.on("plotly_unhover", () => { $("follow").hidden = true; });
  map.on("plotly_click", event => {
    const row = rowAt(event.points[0]);
    if (row !== undefined) { showTab("card"); keep(row); }
  });
  map.on("plotly_selected", event => {
    $("follow").hidden = true;
    if (!event) return;  // a plain click
    const rows = event.points.map(rowAt).filter(row => row !== undefined);
    if (rows.length) showTab("gallery");
    select(rows);
  });
  map.on("plotly_doubleclick", () => select(null));
  for (const event of ["plotly_afterplot", "plotly_relayout", "plotly_relayouting"]) map.on(event, drawOverlay);
  on("view filter selection theme", drawMap);
  on("kept marks", drawOverlay);
  on("marks", () => { if (isMark(state.color)) drawMap(); });
}
