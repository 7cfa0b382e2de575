"""The explorer's page: markup, look and behavior; `explorer.py` puts the data in.

Data reaches the page as JSON only and is shown with textContent only: no id or label can become markup.
"""

CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)
"""Forbids all requests to the network; plotly's WebGL compiles its drawing functions, hence unsafe-eval."""

STYLE = """
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; color: #1f1f1f; background: #fff;
  font: 14px/1.4 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 18px; padding: 10px 18px;
  border-bottom: 1px solid #dcdcdc; }
h1 { font-size: 17px; margin: 0 auto 0 0; }
label { color: #555; white-space: nowrap; }
select, input { font: inherit; color: inherit; background: #fff; border: 1px solid #bdbdbd;
  border-radius: 5px; padding: 3px 7px; margin-left: 5px; max-width: 200px; }
input.missing { border-color: #d55e00; background: #fdf1ea; }
main { flex: 1; display: flex; min-height: 0; }
#map { flex: 1; min-width: 0; }
aside { width: 372px; flex: none; padding: 14px 16px; border-left: 1px solid #dcdcdc; overflow-y: scroll; }
section { margin-bottom: 16px; }
h2 { font-size: 13px; margin: 0 0 6px; }
#card { min-height: 292px; }
#both { display: flex; gap: 12px; align-items: flex-start; }
#card.empty > :not(#hint) { display: none; }
#card:not(.empty) > #hint { display: none; }
#hint, .faint { color: #6a6a6a; }
.crop { flex: none; background-repeat: no-repeat; image-rendering: pixelated; }
#crop { border: 1px solid #9a9a9a; }
#id { font: 12px/1.35 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; margin: 0 0 8px; }
dl { flex: 1; display: grid; grid-template-columns: auto 1fr; gap: 0 10px; margin: 0; font-size: 12px; }
dt { color: #6a6a6a; }
dd { margin: 0; overflow-wrap: anywhere; }
#reasons { margin: 8px 0 0; padding-left: 17px; font-size: 13px; }
#legend { font-size: 13px; }
#legend button { display: flex; width: 100%; align-items: center; gap: 8px; padding: 1px 2px; border: 0;
  background: none; font: inherit; color: inherit; text-align: left; cursor: pointer; border-radius: 4px; }
#legend button:hover { background: #f1f1f1; }
#legend button[aria-pressed=false] { opacity: .35; }
#legend i { flex: none; width: 11px; height: 11px; border-radius: 50%; }
#legend span { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
#legend .bar { height: 12px; border-radius: 3px; }
#legend .ends { display: flex; justify-content: space-between; color: #555; }
#strangest { display: flex; flex-wrap: wrap; gap: 4px; }
#strangest button { padding: 0; border: 1px solid #9a9a9a; background: none; cursor: pointer;
  position: relative; }
#strangest button:hover, #strangest button:focus-visible { outline: 2px solid #0072b2; }
#strangest b { position: absolute; left: 0; top: 0; padding: 0 3px; font-size: 10px; line-height: 14px;
  color: #fff; background: rgb(31 31 31 / .85); }
#follow { position: fixed; z-index: 9; pointer-events: none; border: 2px solid #fff; display: none;
  box-shadow: 0 1px 6px rgb(0 0 0 / .45); }
"""

BODY = """
<header>
  <h1>__TITLE__</h1>
  <label>Latent<select id="latent"></select></label>
  <label>Map<select id="method"></select></label>
  <label>Color<select id="color"></select></label>
  <label>Find<input id="find" type="search" placeholder="particle id" spellcheck="false"></label>
</header>
<main>
  <div id="map"></div>
  <aside>
    <section id="card" class="empty">
      <div id="hint">Move over a dot to see its particle; click to keep it here and to get a link to it.
        Drag to move the map, scroll to zoom.</div>
      <div id="id"></div>
      <div id="both"><div id="crop" class="crop"></div><dl id="facts"></dl></div>
      <ul id="reasons"></ul>
    </section>
    <section><h2 id="legend-head"></h2><div id="legend"></div></section>
    <section id="top"><h2>Strangest first</h2><div id="strangest"></div></section>
  </aside>
</main>
<div id="follow" class="crop"></div>
"""

SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const N = data.ids.length, rowOf = new Map(data.ids.map((id, row) => [id, row]));
const hasGl = !!document.createElement("canvas").getContext("webgl");
let kept = null, hidden = new Set();

function options(select, names) {
  const before = select.value;
  select.replaceChildren(...names.map(name => new Option(name, name)));
  if (names.includes(before)) select.value = before;
}
const latent = () => data.latents[$("latent").value] || {maps: {}, colors: {}};
const colors = () => ({...data.colors, ...latent().colors});
const place = () => latent().maps[$("method").value] || {x: [], y: []};
const number = value => value === null ? "\\u2013" : String(Number(value.toPrecision(3)));

function showCrop(element, row, zoom) {
  const {side, columns, rows} = data.sprite, at = row % (columns * rows);
  const sheet = Math.floor(row / (columns * rows));
  element.className = "crop sheet-" + sheet;
  element.style.width = element.style.height = side * zoom + "px";
  element.style.backgroundSize = columns * side * zoom + "px auto";
  element.style.backgroundPosition =
    -(at % columns) * side * zoom + "px " + -Math.floor(at / columns) * side * zoom + "px";
}

function element(tag, text, name) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function showCard(row) {
  $("card").className = row === null ? "empty" : "";
  if (row === null) return;
  const zoom = Math.max(1, Math.round(150 / data.sprite.side));
  showCrop($("crop"), row, zoom);
  $("id").textContent = data.ids[row];
  const facts = [["rank", data.rank[row] === null ? null : data.rank[row] + " of " + N.toLocaleString("en")],
    ["score", data.score[row] === null ? null : number(data.score[row])],
    ["size", data.size[row] === null ? null : number(data.size[row]) + " \\u00b5m"]];
  for (const [name, scale] of Object.entries(colors()))
    if (scale.names) facts.push([name, scale.names[scale.codes[row]]]);
  $("facts").replaceChildren(...facts.filter(([, value]) => value !== null)
    .flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  $("reasons").replaceChildren(...data.reasons[row].map(reason => element("li", reason)));
}

function traces() {
  const {x, y} = place(), scale = colors()[$("color").value];
  const type = hasGl ? "scattergl" : "scatter", size = Math.min(8, Math.max(2.5, 420 / Math.sqrt(N)));
  const onMap = row => x[row] !== null && x[row] !== undefined;
  const trace = (rows, marker) => ({type, mode: "markers", hoverinfo: "none", customdata: rows,
    x: rows.map(row => x[row]), y: rows.map(row => y[row]),
    marker: {size, opacity: 0.8, line: {width: 0}, ...marker}});
  const all = data.order.filter(onMap);
  if (!scale) return [trace(all, {color: data.grey})];
  if (!scale.names) {
    const known = all.filter(row => scale.values[row] !== null);
    known.sort((a, b) => scale.values[a] - scale.values[b]);  // the strange on top
    return [trace(all.filter(row => scale.values[row] === null), {color: data.grey, opacity: 0.5}),
      trace(known, {color: known.map(row => scale.values[row]), colorscale: data.ramp,
        cmin: scale.low, cmax: scale.high})];
  }
  const parts = scale.names.map(() => []);
  for (const row of all) parts[scale.codes[row]].push(row);
  const grey = code => scale.colors[code] === data.grey;
  const order = scale.names.map((_, code) => code);
  order.sort((a, b) => grey(b) - grey(a));  // grey below all others
  return order.filter(code => !hidden.has(scale.names[code]))
    .map(code => trace(parts[code], {color: scale.colors[code], opacity: grey(code) ? 0.5 : 0.8}));
}

function ring() {
  const {x, y} = place(), here = kept !== null && x[kept] !== null && x[kept] !== undefined;
  return {type: hasGl ? "scattergl" : "scatter", mode: "markers", hoverinfo: "skip",
    x: here ? [x[kept]] : [], y: here ? [y[kept]] : [],
    marker: {symbol: "circle-open", size: 18, color: "#1f1f1f", line: {width: 2.5}}};
}

function draw() {
  const axis = {visible: false, zeroline: false, showgrid: false};
  const layout = {margin: {l: 8, r: 8, t: 8, b: 8}, showlegend: false, dragmode: "pan", hovermode: "closest",
    hoverdistance: 12, paper_bgcolor: "#fff", plot_bgcolor: "#fff", xaxis: axis,
    yaxis: {...axis, scaleanchor: "x", scaleratio: 1}, uirevision: $("latent").value + $("method").value};
  Plotly.react("map", [...traces(), ring()], layout, {displaylogo: false, scrollZoom: true, responsive: true,
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]]});
}

function drawLegend() {
  const scale = colors()[$("color").value];
  $("legend-head").textContent = $("color").value;
  $("legend").replaceChildren();
  if (!scale) return;
  if (!scale.names) {
    const bar = element("div", "", "bar"), ends = element("div", "", "ends");
    const ramp = data.ramp.map(([, color]) => color).join(", ");
    bar.style.background = "linear-gradient(to right, " + ramp + ")";
    ends.append(element("span", number(scale.low)), element("b", number(scale.high)));
    $("legend").append(bar, ends);
    return;
  }
  const counts = scale.names.map(() => 0);
  for (const code of scale.codes) counts[code] += 1;
  scale.names.forEach((name, code) => {
    const button = document.createElement("button"), dot = document.createElement("i");
    dot.style.background = scale.colors[code];
    button.append(dot, element("span", name), element("b", counts[code].toLocaleString("en")));
    button.title = "show or hide";
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    button.onclick = () => {
      hidden.has(name) ? hidden.delete(name) : hidden.add(name);
      drawLegend();
      draw();
    };
    $("legend").append(button);
  });
}

function keep(row, link = true) {
  kept = row;
  showCard(row);
  draw();
  if (link) history.replaceState(null, "", row === null ? "#" : "#id=" + encodeURIComponent(data.ids[row]));
}

function fromLink() {
  if (!location.hash.startsWith("#id=")) return;
  try {
    const row = rowOf.get(decodeURIComponent(location.hash.slice(4)));
    if (row !== undefined) keep(row, false);
  } catch { /* a broken link names no particle */ }
}

function start() {
  options($("latent"), Object.keys(data.latents));
  const changed = () => {
    options($("method"), Object.keys(latent().maps));
    options($("color"), Object.keys(colors()));
    hidden = new Set();
    drawLegend();
    draw();
    showCard(kept);
  };
  for (const id of ["latent", "method", "color"]) $(id).onchange = changed;
  changed();
  const ranked = data.rank.map((rank, row) => [rank, row]).filter(([rank]) => rank !== null);
  ranked.sort((a, b) => a[0] - b[0]);
  for (const [rank, row] of ranked.slice(0, data.shown)) {
    const button = document.createElement("button"), crop = document.createElement("div");
    showCrop(crop, row, 1);
    button.title = data.ids[row];
    button.append(crop, element("b", String(rank)));
    button.onclick = () => keep(row);
    $("strangest").append(button);
  }
  $("top").hidden = ranked.length === 0;
  $("find").oninput = event => {
    const given = event.target.value.trim(), text = given.toLowerCase();
    const row = rowOf.get(given) ?? data.ids.findIndex(id => id.toLowerCase().includes(text));
    event.target.classList.toggle("missing", text !== "" && row < 0);
    if (text !== "" && row >= 0) keep(row);
  };
  $("map").on("plotly_hover", event => {
    const row = event.points[0].customdata, follow = $("follow"), side = data.sprite.side * 2;
    showCard(row);
    showCrop(follow, row, 2);
    const {clientX, clientY} = event.event;
    follow.style.left = (clientX + 18 + side > innerWidth - 382 ? clientX - side - 22 : clientX + 18) + "px";
    follow.style.top = Math.max(4, Math.min(clientY + 18, innerHeight - side - 8)) + "px";
    follow.style.display = "block";
  });
  $("map").on("plotly_unhover", () => { $("follow").style.display = "none"; showCard(kept); });
  $("map").on("plotly_click", event => keep(event.points[0].customdata));
  addEventListener("hashchange", fromLink);
  fromLink();
}
start();
"""
