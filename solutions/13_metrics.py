# %% [markdown] name="goals"
# # Lab 13: Metrics II, average precision and panoptic quality
#
# A detector answers with a ranked list, not with a map. How good is the list? In this lab you build the two numbers
# that papers on detection and panoptic segmentation report, from the matching of single boxes to the mean of means.
#
# **After this lab you can**
#
# - match detections to objects as COCO does it, duplicates and crowds included;
# - draw a curve of precision and recall, and turn it into one number by three conventions;
# - say what COCO's "AP" averages over, and what it leaves out;
# - compute panoptic quality by hand and in code, and prove why its matching needs no algorithm.
#
# **Time**: 70 minutes. **Points**: 20, in six exercises. **Before**: the pages of
# [chapter 13](../course/13-metrics/index.md); IoU of boxes, from lab 4.
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.
#
# Your functions may call other libraries, but not functions that are the exercise itself, such as
# `pycocotools.cocoeval.COCOeval`: checks and grading hide them
# ([which ones](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One image, a ranked list
#
# Five true shapes, and what a detector says: boxes with a score. It has seen one shape twice, invented two, and missed
# one. Which boxes are right? And if you may keep only those above some score, which score?

# %% name="scene" role="show"
from matplotlib.patches import Rectangle

from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.ops.boxes import box_iou
from segedu.viz import show


def detect(scene, seed):
    """Boxes, classes and scores with typical faults: loose, doubled, missed and invented ones."""
    rng = np.random.default_rng(seed)
    true, labels = scene["boxes"].numpy(), scene["labels"].numpy()
    keep = np.concatenate([np.flatnonzero(rng.random(len(true)) < 0.85), np.flatnonzero(rng.random(len(true)) < 0.3)])
    side = (true[keep, 2:] - true[keep, :2]).repeat(2, axis=1).reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1, 4)
    boxes = true[keep] + rng.normal(0, 0.07, (len(keep), 4)) * side
    corner = rng.uniform((0, 0), (90, 60), (2, 2))
    boxes = np.concatenate([boxes, np.concatenate([corner, corner + rng.uniform(10, 20, (2, 2))], axis=1)])
    boxes = boxes.clip(0, (109, 79, 109, 79))
    labels = np.concatenate([labels[keep], rng.integers(1, 4, 2)])
    scores = np.concatenate([rng.beta(4, 2, len(keep)), rng.beta(2, 3, 2)])
    found = {"boxes": boxes, "scores": scores}
    return {k: torch.from_numpy(v).float() for k, v in found.items()} | {"labels": torch.from_numpy(labels)}


scene = draw_shapes(seed=30, size=(80, 110), count=5)
found = detect(scene, seed=55)


def draw_boxes(ax, boxes, words, side="left", **style):
    """Boxes with a word each, at their left or right side."""
    white = {"fc": "white", "alpha": 0.8, "lw": 0, "pad": 0.8}
    for i, ((x1, y1, x2, y2), word) in enumerate(zip(boxes.tolist(), words, strict=True)):
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=2, **style))
        x = x1 + 1 if side == "left" else x2 - 1
        ax.text(x, y1 + (y2 - y1) * (0.3 + 0.2 * (i % 3)), word, fontsize=8, bbox=white, ha=side)


fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for ax, title in zip(axes, ("true objects", "detections and their scores"), strict=True):
    ax.imshow(scene["image"].permute(1, 2, 0))
    ax.set_title(title)
    ax.set_axis_off()
draw_boxes(axes[0], scene["boxes"], range(len(scene["boxes"])), ec="black")
draw_boxes(axes[1], found["boxes"], [f"{s:.2f}" for s in found["scores"]], ec="#0072B2", ls="--")
show(fig, alt=f"Shapes with {len(scene['boxes'])} true boxes; beside them {len(found['boxes'])} detected boxes.")

# %% [markdown] name="match_idea"
# ## 1. Matching: who found what
#
# **Idea.** One class, one image, one IoU threshold. The detections choose one after the other, the most confident
# first. Each takes, of the objects that are still free, the one with the largest IoU, if that is at least the
# threshold. It is then a true positive. Who gets none is a false positive. So a second box on the same object is
# wrong: the detector should have known.
#
# **Crowds.** Sometimes a whole crowd is outlined as one region. It is no object to be found. A detection that gets no
# real object, but has enough IoU with a crowd, is *not counted*: neither right nor wrong. A crowd is never taken.
#
# **By hand.** Threshold 0.5, objects a and b, and a crowd c:
#
# | score | a | b | c | outcome |
# |---|---|---|---|---|
# | 0.9 | **0.7** | 0.6 | 0 | takes a: 1 |
# | 0.8 | 0.9 | **0.5** | 0 | a is taken, b is enough: 1 |
# | 0.6 | 0.8 | 0.4 | 0 | nothing is left: 0 |
# | 0.3 | 0 | 0 | **0.9** | on the crowd: -1 |
#
# The second had the best overlap of all with a. It came too late.


# %% name="match_detections" role="solution"
def match_detections(iou, scores, iscrowd, iou_threshold):
    """Is each detection of an image right, wrong, or not counted?

    iou:           float tensor (P, N), IoU of each detection with each true object; P or N may be 0
    scores:        float tensor (P,), no two equal, in any order
    iscrowd:       bool tensor (N,), which of the objects are crowds
    iou_threshold: an IoU of at least this is enough

    Returns an int64 tensor (P,), in the order of the rows: 1 true positive, 0 false positive,
    -1 not counted. No two IoUs that are enough are equal. Do not change the arguments.
    """
    ### BEGIN SOLUTION: by falling score; first the free real objects, then the crowds
    outcome = torch.zeros(len(scores), dtype=torch.int64)
    free = ~iscrowd
    for p in torch.argsort(scores, descending=True).tolist():
        enough = iou[p] >= iou_threshold
        real = torch.nonzero(enough & free)[:, 0]
        if len(real):
            free[real[iou[p, real].argmax()]] = False
            outcome[p] = 1
        elif (enough & iscrowd).any():
            outcome[p] = -1
    return outcome
    ### END SOLUTION


# %% name="check_match_detections" role="check"
check(match_detections)

# %% [markdown] name="match_figure_text"
# The same detections at two IoU thresholds. One triangle was seen twice: which of its boxes is right? And why is the
# most confident box of all false on the right?

# %% name="match_figure" role="show"
fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
table = box_iou(found["boxes"], scene["boxes"])
nobody, said = torch.zeros(len(scene["boxes"]), dtype=torch.bool), []
for ax, threshold in zip(axes, (0.5, 0.8), strict=True):
    outcome = torch.as_tensor(use(match_detections)(table, found["scores"], nobody, threshold))
    ax.imshow(scene["image"].permute(1, 2, 0), alpha=0.6)
    for value, colour, style, side in ((1, "#0072B2", "-", "left"), (0, "#D55E00", "--", "right")):
        chosen = outcome == value
        words = [f"{'right' if value else 'false'} {s:.2f}" for s in found["scores"][chosen]]
        draw_boxes(ax, found["boxes"][chosen], words, side, ec=colour, ls=style)
    said.append(f"{int((outcome == 1).sum())} right and {int((outcome == 0).sum())} false at IoU {threshold}")
    ax.set_title(said[-1])
    ax.set_axis_off()
show(fig, alt=f"Detections, right ones solid and false ones dashed: {'; '.join(said)}.")

# %% [markdown] name="curve_idea"
# ## 2. Precision and recall along the ranking
#
# **Idea.** A threshold on the score keeps the top of the list. Put it low: you find nearly all objects, with much
# rubbish. Put it high: what you keep is right, and you miss a lot. A metric should not depend on one choice. So walk
# down the list, and note both after every detection.
#
# **Formula.** Rank the detections of *all images together*. After the first $k$ of them, with $TP_k$ right ones,
#
# $$P_k = \frac{TP_k}{k} \qquad R_k = \frac{TP_k}{\text{number of true objects}}$$
#
# Recall never falls. Precision jumps up at each hit and sinks at each miss.
#
# **By hand.** Three objects; ranked detections: hit, miss, hit. Precision $1, \tfrac12, \tfrac23$; recall
# $\tfrac13, \tfrac13, \tfrac23$. The third object is never found, so recall ends at $\tfrac23$.
#
# **Details that change the number.** Equal scores keep the order in which they are given. A class without a true
# object has recall 0/0: NaN.


# %% name="pr_curve" role="solution"
def pr_curve(scores, matched, num_target):
    """Precision and recall after each detection of a data set.

    scores:     float tensor (P,), detections of one class, image after image; P may be 0
    matched:    bool tensor (P,), which of them are true positives
    num_target: how many true objects there are in all images; if 0, recall is NaN

    Returns (precision, recall), two float tensors (P,), the most confident detection first.
    Equal scores keep the order in which they are given.
    """
    ### BEGIN SOLUTION: a stable sort by falling score, then cumulative sums
    order = torch.argsort(scores, descending=True, stable=True)
    found = matched[order].double().cumsum(dim=0)
    ranks = torch.arange(1, len(scores) + 1, device=scores.device)
    return found / ranks, found / num_target
    ### END SOLUTION


# %% name="check_pr_curve" role="check"
check(pr_curve)

# %% [markdown] name="curve_figure_text"
# Sixty images, all shapes as one class, at three IoU thresholds. Nobody retrained the detector: only the question got
# harder.

# %% name="curve_figure" role="show"
scenes = [draw_shapes(seed=(13, i), size=(80, 110), count=(3, 7)) for i in range(60)]
lists = [detect(s, seed=i) for i, s in enumerate(scenes)]
match, curve_of = use(match_detections), use(pr_curve)


def ranked(threshold, kind=None):
    """Scores, hits and the number of objects of all images, of one class or of all as one."""
    scores, hits, count = [], [], 0
    for s, d in zip(scenes, lists, strict=True):
        mine, true = (torch.ones_like(x["labels"]).bool() if kind is None else x["labels"] == kind for x in (d, s))
        iou, crowd = box_iou(d["boxes"][mine], s["boxes"][true]), torch.zeros(int(true.sum()), dtype=torch.bool)
        hits.append(torch.as_tensor(match(iou, d["scores"][mine], crowd, threshold)) == 1)
        scores.append(d["scores"][mine])
        count += int(true.sum())
    return torch.cat(scores), torch.cat(hits), count


fig, ax = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
for threshold, style in ((0.5, "-"), (0.75, "--"), (0.9, ":")):
    precision, recall = (torch.as_tensor(x) for x in curve_of(*ranked(threshold)))
    ax.plot(recall, precision, style, lw=2, label=f"IoU at least {threshold}, recall ends at {recall[-1]:.2f}")
ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.05))
ax.legend()
show(fig, alt="Three saw-toothed curves of precision over recall; the larger the IoU asked for, the lower and shorter.")

# %% [markdown] name="ap_idea"
# ## 3. Average precision, three times
#
# **Idea.** The area under the curve rewards a list whose top is right. But the curve is jagged, so all conventions
# first take its *envelope*: at each recall the best precision there **or at a larger recall**. Then they differ.
#
# | name here | used by | the number |
# |---|---|---|
# | `"11-point"` | VOC until 2009 | mean of the envelope at recall 0, 0.1, ... 1 |
# | `"area"` | VOC from 2010 | area under the envelope: step in recall times envelope, summed |
# | `"101-point"` | COCO | mean of the envelope at recall 0, 0.01, ... 1 |
#
# A recall that was never reached counts 0.
#
# **By hand.** The curve from above: envelope 1 up to recall $\tfrac13$, then $\tfrac23$ up to recall $\tfrac23$, then 0.
#
# - 11 points: four of them (0 to 0.3) give 1, three (0.4 to 0.6) give $\tfrac23$: $6/11 = 0.5455$.
# - area: $\tfrac13 \cdot 1 + \tfrac13 \cdot \tfrac23 = 5/9 = 0.5556$.
# - 101 points: $(34 + 33 \cdot \tfrac23)/101 = 0.5545$.
#
# The same three detections, three numbers. A table that mixes them compares nothing.
#
# **Floats.** `0.1 * 3` is larger than `3 / 10`. In the cases of the check every recall is either exactly a threshold or
# far from one.


# %% name="ap_interp" role="solution"
def ap_interp(precision, recall, convention):
    """Average precision of a curve, by one of three conventions.

    precision:  float64 tensor (P,) after each detection; P may be 0
    recall:     float64 tensor (P,), never falling
    convention: "11-point", "area" or "101-point"

    Returns one number from 0 to 1; no detection: 0.
    """
    ### BEGIN SOLUTION: the envelope from the right, then the area or the mean over recalls
    envelope = precision.flip(0)
    if len(precision):
        envelope = envelope.cummax(dim=0).values
    envelope = envelope.flip(0)
    zero = precision.new_zeros(1)
    if convention == "area":
        return (torch.diff(recall, prepend=zero) * envelope).sum().item()
    count = 11 if convention == "11-point" else 101
    thresholds = torch.arange(count, dtype=torch.float64, device=recall.device) / (count - 1)
    first = torch.searchsorted(recall, thresholds)  # the first point that reaches it, or the zero behind the last
    return torch.cat([envelope, zero])[first].mean().item()
    ### END SOLUTION


# %% name="check_ap_interp" role="check"
check(ap_interp)

# %% [markdown] name="ap_figure_text"
# **The same detections, three APs.** A short list, so that the difference can be seen: dots are the recalls at which
# a convention looks.

# %% name="ap_figure" role="show"
hits = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0, 1, 0]).bool()
precision, recall = (torch.as_tensor(x).double() for x in curve_of(torch.arange(10, 0, -1.0), hits, 7))
steps = [(2 / 7, 1), (3 / 7, 3 / 4), (4 / 7, 4 / 7), (5 / 7, 5 / 9), (1, 0)]  # the envelope of this list, by hand
x, y = [0, *(r for r, _ in steps)], [1, *(p for _, p in steps)]
fig, axes = plt.subplots(1, 3, figsize=(12, 3.2), sharey=True, layout="constrained")
said = []
for ax, convention, count in zip(axes, ("11-point", "area", "101-point"), (11, 0, 101), strict=True):
    value = float(use(ap_interp)(precision, recall, convention))
    ax.plot(recall, precision, "o-", color="#999999", ms=4, lw=1)
    ax.step(x, y, where="pre", color="#0072B2", lw=2)
    at = np.arange(count) / max(1, count - 1)
    looked = [next(p for r, p in steps if t <= r) for t in at]
    ax.plot(at, looked, "o", color="#D55E00", ms=7 if count == 11 else 2.5)
    if not count:
        ax.fill_between(x, y, step="pre", color="#D55E00", alpha=0.3)
    ax.set(title=f"{convention}: {value:.4f}", xlabel="recall", xlim=(-0.02, 1.02), ylim=(0, 1.05))
    said.append(f"{convention} {value:.4f}")
axes[0].set_ylabel("precision")
show(fig, alt=f"One curve with its envelope, summarised three times: {', '.join(said)}.")

# %% [markdown] name="map_idea"
# ## 4. COCO's mean of means
#
# **Idea.** COCO's "AP" is already a mean: over classes, and over ten IoU thresholds 0.50, 0.55, ... 0.95. A box that is
# only roughly right passes some thresholds and fails others.
#
# **Formula.** With $K'$ the classes that have an object that counts,
# $\text{AP} = \frac{1}{10\,|K'|} \sum_{k \in K'} \sum_{t} \text{AP}_{k,t}$, each by 101 points.
#
# The rules behind AP$_S$, AP$_M$, AP$_L$ and AR$_1$, AR$_{10}$, AR$_{100}$:
#
# - *Area ranges go by the true objects.* An object outside of the range need not be found. A detection that took it is
#   not counted. A detection that took nothing is not counted if its own area is outside.
# - *maxDets*: of each class, an image may keep so many detections, its most confident ones.
# - *A class without an object that counts has no AP.* It is left out of the mean. (pycocotools writes -1 for it.)
#
# **By hand.** Class 1: one object, found by the best detection up to IoU 0.7, so AP is 1 at five thresholds and 0 at
# five: 0.5. Class 2: one object, never found: 0. Class 3: no object, two false detections: left out. AP = 0.25.
#
# The matching is done for you: `matched` says, for each threshold, which object a detection took.


# %% name="map_coco" role="solution"
def map_coco(classes, area_range, max_dets):
    """COCO's mean average precision over classes and ten IoU thresholds.

    classes:    one dict for each class, with tensors of its P detections in all images, in any order,
                "scores" (P,) float64, no two equal; "ranks" (P,) int64, place in the own image, 0 is
                the most confident; "areas" (P,) float64; "matched" (10, P) int64, for each IoU threshold
                the index of the object that was taken, or -1;
                and of its N objects, "target_areas" (N,) float64; P and N may be 0
    area_range: (smallest, largest) area of the objects that count, both included
    max_dets:   how many detections of a class count in an image

    Returns one number; float("nan") if no class has an object that counts. AP is by 101 points.
    """
    ### BEGIN SOLUTION: for each class with an object in range, for each threshold: who counts, curve, AP
    low, high = area_range
    values = []
    for c in classes:
        counts = (c["target_areas"] >= low) & (c["target_areas"] <= high)
        if not counts.any():
            continue
        kept = torch.nonzero(c["ranks"] < max_dets)[:, 0]
        kept = kept[torch.argsort(c["scores"][kept], descending=True)]
        inside = (c["areas"][kept] >= low) & (c["areas"][kept] <= high)
        for matched in c["matched"][:, kept]:
            counted = torch.where(matched >= 0, counts[matched], inside)
            found = (matched[counted] >= 0).double().cumsum(dim=0)
            precision = found / torch.arange(1, len(found) + 1)
            best = [precision[found / counts.sum() >= t] for t in torch.arange(101).double() / 100]
            values.append(sum(float(p.max()) for p in best if len(p)) / 101)
    return sum(values) / len(values) if values else float("nan")
    ### END SOLUTION


# %% name="check_map_coco" role="check"
check(map_coco)

# %% [markdown] name="map_figure_text"
# The detector of above, class by class and threshold by threshold. "AP50" is the first column, "AP" the mean of all.

# %% name="map_figure" role="show"
average, thresholds = use(ap_interp), [0.5 + 0.05 * i for i in range(10)]
table = np.zeros((3, 10))
for k in range(3):
    for t, threshold in enumerate(thresholds):
        curve = [torch.as_tensor(x).double() for x in curve_of(*ranked(threshold, kind=k + 1))]
        table[k, t] = float(average(*curve, "101-point"))
fig, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
ax.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for (k, t), value in np.ndenumerate(table):
    ax.text(t, k, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.5 else "white")
ax.set_xticks(range(10), [f"{t:.2f}" for t in thresholds])
ax.set_yticks(range(3), CLASSES[1:])
ax.set(
    xlabel="IoU threshold", title=f"AP50 {table[:, 0].mean():.3f}, AP75 {table[:, 5].mean():.3f}, AP {table.mean():.3f}"
)
show(fig, alt=f"AP of three classes at ten IoU thresholds, falling from left to right; the mean is {table.mean():.3f}.")

# %% [markdown] name="pq_idea"
# ## 5. Panoptic quality
#
# **Idea.** A panoptic segmentation gives every pixel a class and, for things, an object. Mean IoU does not see objects;
# AP wants scores, lets segments overlap, and does not see stuff. PQ treats both alike: each class is a set of segments.
#
# **Formula.** A predicted and a true segment of the same class match if their IoU is **above** 1/2. For each class
#
# $$\text{PQ} = \frac{\sum_{TP} \text{IoU}}{|TP| + \frac12 |FP| + \frac12 |FN|}
# = \underbrace{\frac{\sum_{TP} \text{IoU}}{|TP|}}_{\text{SQ}} \cdot
# \underbrace{\frac{|TP|}{|TP| + \frac12 |FP| + \frac12 |FN|}}_{\text{RQ}}$$
#
# - *Void*, id 0 of the truth: nobody knows what is there. Those pixels are taken out of every union. A predicted
#   segment without a match is no FP if more than half of its pixels are void.
# - No match in a class: SQ would be 0/0. Then PQ = SQ = RQ = 0, and the class counts.
# - All three are computed for each class, then averaged over the classes with TP + FP + FN > 0.

# %% [markdown] name="pq_homework"
# **Homework.** A road (class 0) and two cars (class 1) on 4 x 8 pixels; the hatched column is void. Compute PQ, SQ and
# RQ of both classes on paper, then the means. Is mean PQ the product of mean SQ and mean RQ?

# %% name="pq_homework_figure" role="show"
rows = ["11111110 12222110 12222330 11111330", "11111111 12221111 12221131 11111131"]
target, preds = (torch.tensor([[int(i) for i in row] for row in side.split()]) for side in rows)
shades = np.array([[1, 1, 1], [0.85, 0.85, 0.85], [0.34, 0.71, 0.91], [0.9, 0.62, 0]])
fig, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
for ax, ids, title in zip(axes, (target, preds), ("truth", "prediction"), strict=True):
    ax.imshow(shades[ids])
    for (y, x), i in np.ndenumerate(ids.numpy()):
        ax.text(x, y, i if i else "void", ha="center", va="center", fontsize=9)
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec="#777777", hatch="" if i else "////"))
    ax.set_title(f"{title}: 1 is road, 2 and 3 are cars", fontsize=10)
    ax.set_axis_off()
show(fig, alt=f"Two grids of segment ids. Truth {target.tolist()}, 0 is void; prediction {preds.tolist()}.")

# %% [markdown] name="pq_homework_answer"
# <details><summary>Answer</summary>
#
# Road: 16 true pixels, all of them found. The prediction has 24, of which 4 are void and 4 are really car. Union
# without void: 20. IoU 16/20 = 4/5: TP, no FP, no FN. PQ = SQ = 4/5, RQ = 1.
#
# Car 2: 6 of 8 pixels, IoU 3/4: TP. Car 3: 2 of 4 pixels, IoU exactly 1/2: **no** match, one FP and one FN.
# SQ = 3/4, RQ = 1/(1 + 1/2 + 1/2) = 1/2, PQ = 3/8.
#
# Means: PQ = (4/5 + 3/8)/2 = 0.5875, SQ = 0.775, RQ = 0.75. The product of the last two is 0.58125, not PQ.
# </details>


# %% name="pq" role="solution"
def pq(preds, pred_classes, target, target_classes):
    """Panoptic, segmentation and recognition quality of one image.

    preds:          int64 tensor (H, W), ids of the predicted segments; 0: no answer
    pred_classes:   int64 tensor (1 + P,), the class of each id; entry 0 stands for no segment (-1)
    target:         int64 tensor (H, W), ids of the true segments; 0: void
    target_classes: int64 tensor (1 + N,), likewise

    Every id from 1 on occurs in its map. Returns (pq, sq, rq), three floats: means over the classes
    with TP + FP + FN > 0. If there is no such class, all three are float("nan").
    """
    ### BEGIN SOLUTION: overlaps of all pairs, IoU without void, matches above 1/2, then class by class
    P, N = len(pred_classes), len(target_classes)
    overlap = torch.bincount((target * P + preds).flatten(), minlength=N * P).reshape(N, P).double()
    void, area = overlap[0], overlap.sum(dim=0)
    iou = overlap / (overlap.sum(dim=1, keepdim=True) + area - overlap - void)
    match = (iou > 0.5) & (target_classes[:, None] == pred_classes)
    match[0], match[:, 0] = False, False
    false = ~match.any(dim=0) & (void <= area / 2)
    rows = []
    for k in torch.unique(torch.cat([pred_classes[1:], target_classes[1:]])):
        mine, true = pred_classes == k, target_classes == k
        tp = match[true].sum().item()
        wrong = false[mine].sum().item() + true.sum().item() - tp
        if tp + wrong > 0:
            sq = iou[match & true[:, None]].mean().item() if tp else 0.0
            rq = tp / (tp + wrong / 2)
            rows.append((sq * rq, sq, rq))
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True)) if rows else (float("nan"),) * 3
    ### END SOLUTION


# %% name="check_pq" role="check"
check(pq)

# %% [markdown] name="pq_figure_text"
# A street, and three faults: all of it predicted two pixels too far to the right; two things of one class taken for
# one; a thing missed. Mean IoU of the same maps stands beside PQ. Which fault does mean IoU not see?

# %% name="pq_figure" role="show"
from segedu.datasets.street import draw_street
from segedu.metrics.semantic import mean_iou
from segedu.viz import palette

street = draw_street(seed=0)
truth, info = street["panoptic_seg"].long(), street["segments_info"]
kinds = torch.tensor([-1] + [segment["category_id"] for segment in sorted(info, key=lambda s: s["id"])])
things = [s["id"] for s in info if s["isthing"]]
common = torch.mode(kinds[things]).values
large = sorted((i for i in things if kinds[i] == common), key=lambda i: -(truth == i).sum())
ground = max((s["id"] for s in info if not s["isthing"]), key=lambda i: (truth == i).sum())
faults = {"two pixels off": torch.roll(truth, 2, dims=1)}
for name, new in (("two things as one", large[0]), ("a thing missed", ground)):
    faults[name] = torch.where(truth == large[1], new, truth)


def renumbered(ids):
    """Ids from 1 on without gaps, and the class of each."""
    present = torch.unique(ids[ids > 0])
    place = torch.zeros(len(kinds), dtype=torch.int64)
    place[present] = torch.arange(len(present)) + 1
    return place[ids], torch.cat([kinds[:1], kinds[present]])


# %% name="pq_faults" role="show"
colours = np.concatenate([[[0, 0, 0]], palette(len(kinds) - 1)])
fig, axes = plt.subplots(1, 4, figsize=(13, 2.7), layout="constrained")
axes[0].imshow(colours[truth])
axes[0].set_title("truth, one colour a segment,\nblack is void", fontsize=9)
semantic, said = torch.where(truth > 0, kinds[truth], 255), []
for ax, (name, ids) in zip(axes[1:], faults.items(), strict=True):
    quality = float(use(pq)(*renumbered(ids), *renumbered(truth))[0])
    answer = torch.where(ids > 0, kinds[ids], kinds[ground])
    said.append(f"{name}: PQ {quality:.3f}, mean IoU {mean_iou(answer, semantic, 10, 255):.3f}")
    ax.imshow(colours[ids])
    ax.contour(ids == large[1 if name == "two pixels off" else 0], levels=[0.5], colors="white", linewidths=1)
    ax.set_title(said[-1].replace(": ", "\n"), fontsize=9)
for ax in axes:
    ax.set_axis_off()
show(fig, alt=f"The segments of a street and three faulty predictions. {'; '.join(said)}.")

# %% [markdown] name="unique_idea"
# ## 6. Why one half?
#
# **Idea.** Above 1/2, PQ needs no matching algorithm: a segment cannot have two partners. Below, it can.
#
# **Proof.** Let the true segment $g$ have IoU above 1/2 with the predicted segments $p$ and $q$, which share no pixel.
#
# 1. $|p \cap g| > \tfrac12 |p \cup g| \ge \tfrac12 |g|$, and likewise $|q \cap g| > \tfrac12 |g|$.
# 2. $p \cap g$ and $q \cap g$ have no common pixel, so together they hold more than $|g|$ pixels of $g$.
#
# That is impossible. Exchange the roles of truth and prediction, and no predicted segment has two partners either.
#
# The proof needs three things: IoU *above* 1/2, segments that do *not overlap*, and nothing else. Take one away and it
# falls. Show it: for a threshold below 1/2, give a true segment and two predicted ones of the same class that would
# both match.


# %% name="pq_unique" role="solution"
def pq_unique(iou_threshold):
    """A true segment with two partners, if there can be one.

    iou_threshold: a number between 0 and 1

    Returns (target, preds, classes): target a bool array (H, W), preds a bool array (2, H, W) of
    two segments that share no pixel, classes three ints, of the target and of the two, all equal.
    Each segment has at least one pixel, and both IoUs are larger than iou_threshold. H and W are yours.
    If there is no such example for this threshold, returns None.
    """
    ### BEGIN SOLUTION: None from one half on; below, one target cut into two parts that are large enough
    if iou_threshold >= 0.5:
        return None
    target = torch.ones(1, 2, dtype=torch.bool)
    preds = torch.tensor([[[True, False]], [[False, True]]])
    return target, preds, [1, 1, 1]
    ### END SOLUTION


# %% name="check_pq_unique" role="check"
check(pq_unique)

# %% [markdown] name="unique_figure_text"
# Your example for a threshold of 0.4. With PQ's own threshold neither of the two would count.

# %% name="unique_figure" role="show"
target, parts, classes = use(pq_unique)(0.4)
target, parts = np.asarray(target).astype(bool), np.asarray(parts).astype(bool)
fig, axes = plt.subplots(1, 3, figsize=(8, 2.2), layout="constrained")
said = []
for ax, mask, name in zip(axes, (target, *parts), ("true", "predicted", "predicted"), strict=True):
    overlap = (mask & target).sum() / (mask | target).sum()
    ax.imshow(mask, cmap="cividis", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    said.append(name if mask is target else f"{name}, IoU {overlap:.3f}")
    ax.set_title(said[-1], fontsize=10)
show(fig, alt=f"A true segment and two predicted ones of it, without a common pixel: {', '.join(said)}.")

# %% [markdown] name="widget_text"
# ## Move a threshold, break a segment
#
# First move the threshold along the scores. Which points of the curve belong to no envelope, and would you ever want
# to work there? The area does not move: it belongs to the whole list.

# %% name="ranking_widget" role="widget"
from segedu.teaching.widgets.ranking import explorer

explorer()

# %% [markdown] name="panoptic_widget_text"
# Then break car 1, merge cars 2 and 3, move car 3. Find the column where a broken car is lost. Which of SQ and RQ
# falls when a car is only drawn badly, which when it is lost?

# %% name="panoptic_widget" role="widget"
from segedu.teaching.widgets.ranking import panoptic_explorer

panoptic_explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# A prediction set like the one above, but large: true boxes, loose copies of them with a score, and false ones. It is
# ranked and averaged at the ten thresholds with *your* curve and *your* AP, on the CPU and, if there is one, on the GPU.

# %% name="scale" role="train"
import time

from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
COUNT = {"cpu": 200_000, "gpu": 10_000_000}[SCALE]


def prediction_set(count, device):
    """IoU of each detection with its own object (0 for a false one), and scores that know a little of it."""
    generator = torch.Generator(device).manual_seed(0)
    size = 10 + 90 * torch.rand(count, 2, generator=generator, device=device, dtype=torch.float64)
    noise = 0.08 * torch.randn(count, 4, generator=generator, device=device, dtype=torch.float64)
    noise = noise * size.repeat(1, 2)
    low, high = noise[:, :2].clamp(min=0), size + noise[:, 2:].clamp(max=0)
    inter, area = (high - low).clamp(min=0).prod(1), (size + noise[:, 2:] - noise[:, :2]).clamp(min=0).prod(1)
    iou = torch.where(torch.arange(count, device=device) % 4 > 0, inter / (size.prod(1) + area - inter), 0.0)
    return iou, iou + 0.3 * torch.randn(count, generator=generator, device=device, dtype=torch.float64)


def evaluate(count, device):
    """COCO's mean over thresholds for one class, and detections a second; making them is not timed."""
    iou, scores = prediction_set(count, device)
    start, values = time.perf_counter(), []
    for threshold in tqdm([0.5 + 0.05 * i for i in range(10)], desc=f"thresholds on {device}"):
        curve = [torch.as_tensor(x).double() for x in use(pr_curve)(scores, iou >= threshold, count)]
        values.append(float(use(ap_interp)(*curve, "101-point")))  # float() waits for the GPU
    speed = 10 * count / (time.perf_counter() - start) / 1e6
    return f"{device}: AP {np.mean(values):.4f} of {count:,} detections, {speed:.1f} million ranked a second"


# %% name="scale_run" role="train"
print(evaluate(COUNT, "cpu"))
if SCALE == "gpu":
    try:
        print(evaluate(COUNT, "cuda"))
    except (RuntimeError, TypeError) as error:  # a solution in numpy is right, but stays on the CPU
        print(f"Your functions run on the CPU only: {type(error).__name__}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the slip: "Our detector has 41.2 mAP; the 2015 paper had 70.0 mAP on VOC. We are far behind."
#
# <details><summary>Answer</summary>
# "mAP" without a definition. VOC's is at IoU 0.5 with 11 points or the area; COCO's is the mean over ten IoU
# thresholds with 101 points. They are different questions, on different images.
# </details>
#
# **2.** You delete all detections with a score below 0.3 before the evaluation. Can AP rise?
#
# <details><summary>Answer</summary>
# No. The points of the curve before the cut stay, those after it are lost: it can stay or fall. So detectors are
# evaluated with a very low threshold, and used with another.
# </details>
#
# **3.** Find the slip: "PQ is the mean of SQ times RQ over all segments that overlap by at least one half."
#
# <details><summary>Answer</summary>
# Two: the IoU must be *above* one half, and everything is counted class by class. SQ and RQ are not computed for single
# segments. And three words are missing: void is taken out of the unions, and a class without a match has PQ 0.
# </details>
#
# **4.** A model finds every car, each with IoU 0.6. Another finds 60 % of the cars perfectly and invents none. PQ?
#
# <details><summary>Answer</summary>
# The first: SQ 0.6, RQ 1, PQ 0.6. The second: SQ 1, RQ 0.6/(0.6 + 0.2) = 0.75, PQ 0.75. Missing costs only one half.
# </details>
#
# **5.** All scores of a detector are divided by 2. What happens to AP, and what to precision at threshold 0.5?
#
# <details><summary>Answer</summary>
# AP sees only the order: it stays. Above 0.5 fewer are left, so that point moves. AP does not say whether scores are
# probabilities.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 13](../course/13-metrics/index.md), with the reading list, and
#   [where libraries disagree](../course/13-metrics/choosing.md).
# - `segedu.metrics.coco` evaluates whole data sets, boxes and masks; `segedu.metrics.panoptic` adds up many images.
# - Chapters 11 and 12 build detectors to rank; chapter 15 merges segments, and is judged by PQ.
