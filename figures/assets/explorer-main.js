// Put together.

function fromLink() {
  if (!location.hash.startsWith("#id=")) return;
  try {
    const row = rowOf.get(decodeURIComponent(location.hash.slice(4)));
    if (row !== undefined) keep(row, {link: false});
  } catch { /* a broken link names no particle */ }
}

function describe() {
  $("summary").textContent = meta.total > N
    ? N.toLocaleString("en") + " of " + count(meta.total) + ": the strangest " + Math.floor(N / 2).toLocaleString("en")
      + " and a random sample of the others"
    : count(N);
  $("about").textContent = "Crops: " + meta.sprite.side + " px, " + meta.sprite.kind
    + ". Numbers: 32-bit floats, nothing quantized further. Percentiles are among the particles on this page; ranks of "
    + "scores are among all " + meta.total.toLocaleString("en") + " of the core.";
}

startKeys();
startFilters();
startMarks();
startGallery();
startCard();
startMap();
describe();
drawCard();
showTab("card");
fromLink();
if (state.kept === null && N) keep(ranking[0], {link: false, quiet: true});
addEventListener("hashchange", fromLink);
document.documentElement.dataset.ready = "1";
