// Keyboard, tabs, finding by id, light and dark, help.

const TABS = ["card", "gallery", "filters", "marks"];

function showTab(name, focus = false) {
  const before = TABS.find(tab => !$("panel-" + tab).hidden);
  for (const tab of TABS) {
    const button = $("tab-" + tab), here = tab === name;
    button.setAttribute("aria-selected", String(here));
    button.tabIndex = here ? 0 : -1;
    $("panel-" + tab).hidden = !here;
    if (here && focus) button.focus();
  }
  if (before !== name) emit("tab");
}

function startTabs() {
  TABS.forEach((tab, at) => {
    $("tab-" + tab).onclick = () => showTab(tab);
    $("tab-" + tab).onkeydown = event => {
      const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      showTab(TABS[(at + by + TABS.length) % TABS.length], true);
    };
  });
}

function find() {
  const given = $("find").value.trim(), text = given.toLowerCase();
  const row = rowOf.get(given) ?? meta.ids.findIndex(id => id.toLowerCase().includes(text));
  const missing = text !== "" && row < 0;
  $("find").classList.toggle("missing", missing);
  $("find").setAttribute("aria-invalid", String(missing));
  if (missing) say("no particle has this id");
  else if (text !== "") { showTab("card"); keep(row); }
}

function tool(name) {
  state.tool = name;
  for (const button of $("tools").querySelectorAll("[data-tool]"))
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  Plotly.relayout("map", {dragmode: name});
}

const ACTIONS = {
  ArrowRight: () => step(1), ArrowDown: () => step(1), ArrowLeft: () => step(-1), ArrowUp: () => step(-1),
  Home: () => step(-N), End: () => step(N), s: () => star(state.kept),
  l: () => { showTab("card"); $("label").focus(); }, "/": () => $("find").focus(),
  "?": () => $("help").showModal(), g: () => showTab("gallery"), f: () => showTab("filters"), c: () => showTab("card"),
  m: () => showTab("marks"), p: () => tool("pan"), o: () => tool("lasso"), b: () => tool("select"),
  Escape: () => select(null), t: () => theme(look().dark ? "light" : "dark"),
  0: () => { if (state.kept !== null) setLabel([state.kept], ""); },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  const slot = recent[Number(event.key) - 1];
  if (/^[1-9]$/.test(event.key)) {
    if (slot === undefined || state.kept === null) return;
    setLabel([state.kept], slot);
  } else if (Object.hasOwn(ACTIONS, event.key)) ACTIONS[event.key]();
  else return;
  event.preventDefault();
}

// --- light and dark

function theme(name) {
  if (name) document.documentElement.dataset.theme = name; else delete document.documentElement.dataset.theme;
  $("theme").setAttribute("aria-pressed", String(look().dark));
  try {
    if (name) localStorage.setItem("nunatak-explorer-theme", name);
  } catch { /* the system's choice is taken next time */ }
  emit("theme");
}

function startKeys() {
  startTabs();
  let wanted = null;
  try { wanted = localStorage.getItem("nunatak-explorer-theme"); } catch { /* as above */ }
  if (["light", "dark"].includes(wanted)) theme(wanted);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(document.documentElement.dataset.theme));
  $("theme").onclick = () => theme(look().dark ? "light" : "dark");
  $("theme").setAttribute("aria-pressed", String(look().dark));
  $("open-help").onclick = () => $("help").showModal();
  $("close-help").onclick = () => $("help").close();
  $("find").oninput = find;
  for (const button of $("tools").querySelectorAll("[data-tool]")) button.onclick = () => tool(button.dataset.tool);
  $("reset").onclick = () => Plotly.relayout("map", {"xaxis.autorange": true, "yaxis.autorange": true});
  $("image").onclick = () => Plotly.downloadImage("map", {format: "png", scale: 2, filename: "map"});
  document.addEventListener("keydown", onKey);
}
