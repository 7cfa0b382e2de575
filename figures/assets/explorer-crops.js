// Crops: cut out of their sheets, which are decoded when first needed.

const absent = new Set(meta.absent);

function sheetsOf(sprite, urlOf) {
  const loaded = new Map();
  return {sprite, image(sheet) {
    if (!loaded.has(sheet)) {
      const image = new Image();
      image.src = urlOf(sheet);
      loaded.set(sheet, image.decode().then(() => image, () => null));
    }
    return loaded.get(sheet);
  }};
}

function blobUrl(text, type) {
  return URL.createObjectURL(new Blob([bytesOf(text)], {type}));
}

const crops = sheetsOf(meta.sprite, sheet => fromFolder
  ? "sheets/" + String(sheet).padStart(4, "0") + "." + meta.sprite.suffix
  : blobUrl(taken("sheet-" + sheet), meta.sprite.type));
const redrawn = Object.entries(meta.redrawn).map(([latent, {rows, sprite, sheets}]) => ({
  latent, at: new Map(rows.map((row, place) => [row, place])),
  crops: sheetsOf(sprite, sheet => blobUrl(sheets[sheet], sprite.type)),
}));

// A canvas with one crop at its own resolution; its look on the page is a matter of style.
function cropCanvas(row, className) {
  const canvas = make("canvas", {class: "crop " + className, role: "img"});
  showCrop(canvas, row);
  return canvas;
}

function showCrop(canvas, row) {
  canvas.setAttribute("aria-label", "crop of " + meta.ids[row]);
  return draw(canvas, crops, row, absent.has(row));
}

async function draw(canvas, sheets, place, none = false) {
  const {side, cell, across} = sheets.sprite;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  canvas.place = place;
  canvas.dataset.drawn = "";
  const image = none ? null : await sheets.image(Math.floor(place / across ** 2));
  if (canvas.place !== place) return;  // another crop was asked for meanwhile
  pen.clearRect(0, 0, side, side);
  if (image) {
    const at = place % across ** 2;
    pen.drawImage(image, at % across * cell, Math.floor(at / across) * cell, side, side, 0, 0, side, side);
  } else {
    canvas.setAttribute("aria-label", "no crop of " + meta.ids[place] + " in the store");
    canvas.classList.add("none");
  }
  canvas.classList.toggle("none", !image);
  canvas.dataset.drawn = place;
}

// The longest of 1, 2, 5 x 10^k that takes at most 42 % of the crop, as a share of it; null without a scale.
function scaleBar(row) {
  const perPx = meta.um_per_px ? array(meta.um_per_px)[row] : NaN;
  if (!(perPx > 0)) return null;
  const whole = perPx * meta.sprite.side, most = 0.42 * whole, decade = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map(step => step * decade).find(length => length <= most * (1 + 1e-9));
  return {share: length / whole, text: Number(length.toPrecision(2)) + "\u00a0\u00b5m"};
}
