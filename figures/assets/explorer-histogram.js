// How a column of numbers is distributed: the selection against all.

const BINS = 40;

function histogram(column, rows, logarithmic) {
  const {sorted} = column;
  if (!sorted.length) return null;
  let low = sorted[bound(sorted, quantile(sorted, 0.002), false)], high = quantile(sorted, 0.998);
  const usesLog = logarithmic && quantile(sorted, 0.002) > 0;
  const scale = usesLog ? Math.log : value => value;
  [low, high] = [scale(low), scale(high)];
  if (!(high > low)) [low, high] = [low - 0.5, low + 0.5];
  const binsOf = values => {
    const bins = new Float64Array(BINS);
    let n = 0;
    for (const value of values) {
      if (value !== value || (usesLog && value <= 0)) continue;
      bins[Math.min(BINS - 1, Math.max(0, Math.floor((scale(value) - low) / (high - low) * BINS)))]++;
      n++;
    }
    return {shares: bins.map(bin => n ? bin / n : 0), n};
  };
  const chosen = Float32Array.from(rows, row => column.values[row]).filter(value => value === value).sort();
  return {all: binsOf(column.values), chosen: binsOf(chosen), usesLog, low: usesLog ? Math.exp(low) : low,
    high: usesLog ? Math.exp(high) : high, medians: [quantile(sorted, 0.5), quantile(chosen, 0.5)]};
}

const quantile = (sorted, share) => sorted.length ? sorted[Math.round(share * (sorted.length - 1))] : NaN;

function drawHistogram(rows) {
  const column = numbers.get($("histogram-of").value), canvas = $("histogram");
  if (!column) return;
  const found = histogram(column, rows, $("histogram-log").checked);
  const width = canvas.clientWidth || 360, height = 96, zoom = devicePixelRatio || 1;
  canvas.width = width * zoom;
  canvas.height = height * zoom;
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(zoom, zoom);
  if (!found) return;
  const most = Math.max(...found.all.shares, ...(state.selection ? found.chosen.shares : [])) || 1;
  const step = width / BINS, top = share => height - 1 - share / most * (height - 6);
  pen.fillStyle = style.getPropertyValue("--bulk");
  found.all.shares.forEach((share, i) => pen.fillRect(i * step, top(share), step - 1, height - top(share)));
  if (state.selection) {
    pen.fillStyle = style.getPropertyValue("--accent");
    pen.globalAlpha = 0.62;
    found.chosen.shares.forEach((share, i) => pen.fillRect(i * step + step * 0.2, top(share), step * 0.6,
      height - top(share)));
    pen.globalAlpha = 1;
  }
  pen.strokeStyle = style.getPropertyValue("--faint");
  pen.strokeRect(0, height - 0.5, width, 0);
  $("histogram-low").textContent = quantity(found.low, column.unit);
  $("histogram-high").textContent = quantity(found.high, column.unit);
  const [all, chosen] = found.medians.map(value => quantity(value, column.unit));
  const text = "median " + all + " of all" + (state.selection ? ", " + chosen + " of the selection" : "");
  $("histogram-text").textContent = text;
  canvas.setAttribute("aria-label", "histogram of " + column.name + ": " + text);
}
