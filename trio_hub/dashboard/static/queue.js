// Above the task stream: how many tasks wait for an engine, over the same time.

/**
 * Draw it between two heights, as high as the most that waited in sight; returns that number, 0 if it is not known.
 *
 * The hub tells one number a second, of the last minutes.
 */
export function drawQueue(pen, timeline, now, top, bottom) {
  const { series, from, to, palette } = timeline;
  if (!series) return 0;
  const { t, queued, waiting } = series;
  let [first, last] = [0, t.length];
  while (first + 1 < last && t[first + 1] < from) first++;
  while (last > first && t[last - 1] > to) last--;
  let most = 0;
  for (let i = first; i < last; i++) most = Math.max(most, queued[i] + waiting[i]);
  pen.fillStyle = palette.grid;
  pen.fillRect(0, bottom, timeline.width, 1);
  if (!most) return 0;
  pen.beginPath();
  pen.moveTo(timeline.x(t[first]), bottom);
  for (let i = first; i < last; i++) {
    const y = bottom - ((bottom - top) * (queued[i] + waiting[i])) / most;
    pen.lineTo(timeline.x(t[i]), y);
    pen.lineTo(timeline.x(i + 1 < t.length ? t[i + 1] : now), y);
  }
  pen.lineTo(timeline.x(last < t.length ? t[last] : now), bottom);
  pen.closePath();
  pen.globalAlpha = 0.45;
  pen.fillStyle = palette.muted;
  pen.fill();
  pen.globalAlpha = 1;
  return most;
}
