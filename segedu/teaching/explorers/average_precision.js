// A ranked list of detections, its precision-recall curve, and the point of a score threshold (chapter 13).

// Twelve detections by descending score; the last one is yours and can be moved through the list.
const SCORES = [0.96, 0.91, 0.88, 0.83, 0.74, 0.69, 0.61, 0.52, 0.44, 0.35, 0.22];
const HITS = [true, true, false, true, true, false, true, false, true, false, true]; // true positives
const NUM_TARGET = 10; // ground-truth objects
const COUNT = SCORES.length + 1;

export const controls = [
  { name: "threshold", label: "score threshold", min: 0, max: 1, step: 0.01, value: 0.5 },
  { name: "score", label: "score of your detection", min: 0.01, max: 0.99, step: 0.01, value: 0.13 },
  { name: "correct", label: "yours is a true positive", value: false },
];

// All detections, the most confident first. Equal scores keep their order, as in COCO.
function ranked({ score, correct }) {
  const list = SCORES.map((each, k) => ({ score: each, hit: HITS[k], yours: false }));
  return [...list, { score, hit: correct, yours: true }].sort((a, b) => b.score - a.score);
}

// Precision and recall after each detection.
function precision_recall_curve(hits) {
  let true_positive = 0;
  const precision = [], recall = [];
  hits.forEach((hit, k) => {
    true_positive += hit ? 1 : 0;
    precision.push(true_positive / (k + 1));
    recall.push(true_positive / NUM_TARGET);
  });
  return { precision, recall };
}

// The mean, over some recalls, of the best precision at that recall or above; 0 where a recall is not reached.
function mean_precision_at(envelope, recall, thresholds) {
  const best = thresholds.map((threshold) => {
    const reached = recall.findIndex((value) => value >= threshold);
    return reached < 0 ? 0 : envelope[reached];
  });
  return best.reduce((sum, value) => sum + value, 0) / thresholds.length;
}

export function compute(values) {
  const list = ranked(values), { precision, recall } = precision_recall_curve(list.map(({ hit }) => hit));
  const envelope = precision.map((_, k) => Math.max(...precision.slice(k))); // the best precision at that point or later
  const area = envelope.reduce((sum, value, k) => sum + (recall[k] - (k ? recall[k - 1] : 0)) * value, 0);
  const ap_11 = mean_precision_at(envelope, recall, Array.from({ length: 11 }, (_, i) => i / 10));
  const ap_101 = mean_precision_at(envelope, recall, Array.from({ length: 101 }, (_, i) => i * 0.01)); // rounded as COCO's are
  const kept = list.filter(({ score }) => score >= values.threshold), true_positive = kept.filter(({ hit }) => hit).length;
  const counts = {
    true_positive, false_positive: kept.length - true_positive, false_negative: NUM_TARGET - true_positive,
    precision: kept.length ? true_positive / kept.length : 1, recall: true_positive / NUM_TARGET,
  };
  return { precision, recall, envelope, area, ap_11, ap_101, counts };
}

function draw_scores(panel, { colours }, values, set) {
  ranked(values).forEach(({ score, hit, yours }, k) => {
    const kept = score >= values.threshold, style = { stroke: hit ? colours.blue : colours.red, dash: hit ? undefined : "5 3",
      opacity: kept ? 1 : 0.4 };
    panel.box(k + 0.62, 0, k + 1.38, score, { ...style, fill: hit ? colours.blue : "none" });
    panel.text(k + 1, 0, hit ? "TP" : "FP", { dy: -6, size: 11, halo: true });
    if (!yours) return;
    panel.text(k + 1, score, "yours", { dy: -14, size: 12, weight: 600, halo: true });
    panel.handle("score", k + 1, score, { label: "score of your detection", step: 0.01, on_move: (x, y) => set({ score: y }) });
  });
  panel.line([[0, values.threshold], [COUNT + 1, values.threshold]], { stroke: colours.ink, dash: "7 4" });
  panel.handle("threshold", 0.45, values.threshold, { label: "threshold", step: 0.01, on_move: (x, y) => set({ threshold: y }) });
}

function draw_curve(panel, { colours }, { precision, recall, envelope, counts }) {
  const steps = envelope.flatMap((value, k) => [[k ? recall[k - 1] : 0, value], [recall[k], value]]);
  panel.line([[0, 0], ...steps, [recall[COUNT - 1], 0]], { fill: colours.sky, opacity: 0.3 }, true);
  panel.line(steps, { stroke: colours.sky, width: 3 });
  panel.line(recall.map((value, k) => [value, precision[k]]), { stroke: colours.muted, dash: "4 3", width: 1.5 });
  recall.forEach((value, k) => panel.circle(value, precision[k], 3, { fill: colours.ink }));
  panel.line([[recall[COUNT - 1], 0], [recall[COUNT - 1], 1.05]], { stroke: colours.muted, dash: "2 3", width: 1 });
  if (counts.true_positive + counts.false_positive > 0) {
    panel.circle(counts.recall, counts.precision, 8, { stroke: colours.purple, width: 3, fill: colours.paper, opacity: 0.9 });
    panel.circle(counts.recall, counts.precision, 2.5, { fill: colours.purple });
  }
}

export function draw(figure, values, result, set) {
  const { colours } = figure, { counts } = result;
  const scores = figure.panel("scores", {
    width: 324, height: 300, xlim: [0.2, COUNT + 0.6], ylim: [0, 1.1], xlabel: "detection, by descending score", ylabel: "score",
    title: `TP ${counts.true_positive}, FP ${counts.false_positive}, FN ${counts.false_negative} of ${NUM_TARGET} objects`,
  });
  draw_scores(scores, figure, values, set);
  const kept = counts.true_positive + counts.false_positive;
  const curve = figure.panel("curve", {
    width: 324, height: 300, xlim: [-0.03, 1.03], ylim: [0, 1.05], xlabel: "recall", ylabel: "precision",
    title: kept ? `Precision ${counts.precision.toFixed(3)}, recall ${counts.recall.toFixed(1)}` : "The threshold keeps no detection",
  });
  draw_curve(curve, figure, result);
  figure.legend([
    ["true positive", { fill: colours.blue }], ["false positive", { stroke: colours.red, dash: "5 3" }],
    ["threshold", { stroke: colours.ink, dash: "7 4" }], ["point of the threshold (circle)", { stroke: colours.purple }],
    [`envelope: area ${result.area.toFixed(4)}, 11 points ${result.ap_11.toFixed(4)}, 101 points ${result.ap_101.toFixed(4)}`,
      { stroke: colours.sky }],
  ]);
}

export function describe(values, { counts, area }) {
  const kept = counts.true_positive + counts.false_positive, where = ranked(values).findIndex(({ yours }) => yours) + 1;
  const point = kept ? `precision ${counts.precision.toFixed(3)}, recall ${counts.recall.toFixed(1)}` : "no precision, because it keeps nothing";
  return `A threshold of ${values.threshold} keeps ${kept} of ${COUNT} detections: ${counts.true_positive} true and ${counts.false_positive} ` +
    `false positives, ${point}. ` +
    `Your detection, ${values.correct ? "a true" : "a false"} positive, has rank ${where}. Over all thresholds, the area under the envelope is ` +
    `${area.toFixed(4)}.`;
}
