// The curve above the task stream: the number of tasks that wait for an engine.

/**
 * Draw the curve between two heights, scaled to the largest number in sight. Returns that number; 0 if it is unknown.
 *
 * The hub has one number per second for the last minutes.
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
