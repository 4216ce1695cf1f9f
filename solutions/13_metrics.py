# %% [markdown] name="goals"
# # Lab 13: Metrics II, average precision and panoptic quality
#
# The output of a detector is not a map but a list of boxes, ranked by their scores. How good is this list? Papers on
# detection report the average precision (AP), and papers on panoptic segmentation report the panoptic quality (PQ).
# In this lab you write both metrics, from the matching of single boxes to the mean over classes and thresholds.
#
# **After this lab you can**
#
# - match detections to objects as COCO does, including duplicates and crowds;
# - compute a curve of precision and recall, and summarise it in one number by three conventions;
# - state what COCO's "AP" averages over, and what it does not measure;
# - compute panoptic quality on paper and in code, and prove that its matching is unique.
#
# **Time**: 70 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: the pages of [chapter 13](../course/13-metrics/index.md), and the IoU of boxes from lab 4. The
# mathematics is fractions, means and sums.
#
# Run the cells from top to bottom. As long as one of your functions has not passed its check, later cells use the
# library's version of it, so the notebook always runs to its end.
#
# Your functions may call other libraries. They may not call a function that already solves the exercise, such as
# `pycocotools.cocoeval.COCOeval`: the checks and the grader hide such functions ([list](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One image, a ranked list
#
# To evaluate a detector, you compare its boxes with the ground truth. The left panel of the figure shows the
# ground-truth boxes of five shapes, and the right panel shows the output of a simulated detector: boxes with their
# scores. It has detected one shape twice, predicted two boxes where there is no object, and missed one shape. Which
# boxes are correct? And if you keep only the boxes above some score, which score do you choose?

# %% name="scene" role="show"
from matplotlib.patches import Rectangle

from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.ops.boxes import box_iou
from segedu.viz import show


def detect(scene, seed):
    """Simulate a detector with typical errors: inaccurate boxes, duplicates, missed objects and false positives."""
    rng = np.random.default_rng(seed)
    gt, labels = scene["boxes"].numpy(), scene["labels"].numpy()
    keep = np.concatenate([np.flatnonzero(rng.random(len(gt)) < 0.85), np.flatnonzero(rng.random(len(gt)) < 0.3)])
    side = (gt[keep, 2:] - gt[keep, :2]).repeat(2, axis=1).reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1, 4)
    boxes = gt[keep] + rng.normal(0, 0.07, (len(keep), 4)) * side
    corner = rng.uniform((0, 0), (90, 60), (2, 2))
    boxes = np.concatenate([boxes, np.concatenate([corner, corner + rng.uniform(10, 20, (2, 2))], axis=1)])
    boxes = boxes.clip(0, (109, 79, 109, 79))
    labels = np.concatenate([labels[keep], rng.integers(1, 4, 2)])
    scores = np.concatenate([rng.beta(4, 2, len(keep)), rng.beta(2, 3, 2)])
    detections = {"boxes": boxes, "scores": scores}
    return {k: torch.from_numpy(v).float() for k, v in detections.items()} | {"labels": torch.from_numpy(labels)}


def draw_boxes(ax, boxes, texts, side="left", **style):
    """Draw boxes, each with a text at its left or right side, at a height at which it covers no other text."""
    white = {"fc": "white", "alpha": 0.8, "lw": 0, "pad": 0.8}
    for (x1, y1, x2, y2), text in zip(boxes.tolist(), texts, strict=True):
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=2, **style))
        half = 0.9 * len(str(text)) + 1  # half of the width of the text, in pixels of the image
        x, heights = (x1 + half if side == "left" else x2 - half), [y1 + k * (y2 - y1) / 8 for k in (2, 4, 6, 1, 7)]
        written = [other.get_position() for other in ax.texts]
        free = [y for y in heights if all(abs(x - a) > 2 * half or abs(y - b) > 5 for a, b in written)]
        ax.text(x, (free or heights)[0], text, fontsize=8, bbox=white, ha="center", va="center")


# %% name="scene_figure" role="show"
scene = draw_shapes(seed=30, size=(80, 110), count=5)
detections = detect(scene, seed=55)
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
for ax, title in zip(axes, ("ground truth", "detections and their scores"), strict=True):
    ax.imshow(scene["image"].permute(1, 2, 0))
    ax.set_title(title)
    ax.set_axis_off()
draw_boxes(axes[0], scene["boxes"], range(len(scene["boxes"])), ec="black")
draw_boxes(axes[1], detections["boxes"], [f"{s:.2f}" for s in detections["scores"]], ec="#0072B2", ls="--")
counts = len(scene["boxes"]), len(detections["boxes"])
show(fig, alt=f"{counts[0]} shapes with their ground-truth boxes, and {counts[1]} detected boxes.")

# %% [markdown] name="match_idea"
# ## 1. Matching detections to objects (4 points)
#
# **Idea.** Consider one class, one image and one IoU threshold. Before you can count correct detections, you have to
# decide which detection belongs to which object. Go through the detections in order of decreasing score. Among the
# objects that are still free and whose IoU with the detection is at least the threshold, the detection is matched with
# the one that has the largest IoU. A matched detection is a true positive. A detection without a match is a false
# positive. An object can be matched only once, so a second box on the same object is an error.
#
# **Crowds.** In some annotations, a whole crowd is outlined as one region. A crowd is not an object that a detector
# has to detect. If a detection has no match among the real objects, but its IoU with a crowd is at least the
# threshold, the detection is *not counted*: it is neither a true nor a false positive. A crowd always stays free, so it
# can prevent any number of detections from being counted. (In COCO, the IoU with a crowd is the intersection divided by
# the area of the detection alone. In this exercise, the IoUs are given.)
#
# **Worked example.** The IoU threshold is 0.5. There are two objects, a and b, and a crowd c. The columns a, b and c
# are the IoUs of each detection:
#
# | score | a | b | c | outcome |
# |---|---|---|---|---|
# | 0.9 | **0.7** | 0.6 | 0 | matches a: 1 |
# | 0.8 | 0.9 | **0.5** | 0 | a is taken, the IoU with b is at least 0.5: matches b: 1 |
# | 0.6 | 0.8 | 0.4 | 0 | a is taken, the IoU with b is below 0.5: 0 |
# | 0.3 | 0 | 0 | **0.9** | matches no object, but overlaps the crowd: -1 |
#
# The second detection has the largest IoU with a, but the first detection has a higher score and is matched before it.


# %% name="match_detections" role="solution"
def match_detections(iou, scores, iscrowd, iou_threshold):
    """Decide whether each detection of an image is a true positive, a false positive, or not counted.

    iou:           float tensor (P, N), IoU of each detection with each ground-truth object; P or N may be 0
    scores:        float tensor (P,), no two equal, in any order
    iscrowd:       bool tensor (N,), True for the objects that are crowds
    iou_threshold: the smallest IoU that is sufficient for a match

    Returns an int64 tensor (P,), in the order of the rows of iou: 1 for a true positive, 0 for a false positive,
    -1 for a detection that is not counted. No detection has two equal IoUs that are at least iou_threshold. Do not
    change the arguments.
    """
    ### BEGIN SOLUTION: go through the detections by descending score; try free objects first, then crowds
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
# The figure shows the same detections at two IoU thresholds. Solid blue boxes are true positives (TP) and dashed
# vermilion boxes are false positives (FP); the numbers are their scores. One triangle was detected twice. Which of its
# two boxes is the true positive? And why is the most confident box of all a false positive at the higher threshold?

# %% name="match_figure" role="show"
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
table = box_iou(detections["boxes"], scene["boxes"])
no_crowds, summaries = torch.zeros(len(scene["boxes"]), dtype=torch.bool), []
for ax, threshold in zip(axes, (0.5, 0.8), strict=True):
    outcome = torch.as_tensor(use(match_detections)(table, detections["scores"], no_crowds, threshold))
    ax.imshow(scene["image"].permute(1, 2, 0), alpha=0.6)
    for value, colour, style, side in ((1, "#0072B2", "-", "left"), (0, "#D55E00", "--", "right")):
        chosen = outcome == value
        texts = [f"{'TP' if value else 'FP'} {s:.2f}" for s in detections["scores"][chosen]]
        draw_boxes(ax, detections["boxes"][chosen], texts, side, ec=colour, ls=style)
    summaries.append(f"IoU threshold {threshold}: {int((outcome == 1).sum())} TP, {int((outcome == 0).sum())} FP")
    ax.set_title(summaries[-1])
    ax.set_axis_off()
show(fig, alt=f"Detections; true positives are solid and false positives are dashed. {'; '.join(summaries)}.")

# %% [markdown] name="curve_idea"
# ## 2. The precision-recall curve (3 points)
#
# **Idea.** A threshold on the score keeps only the top of the list. With a low threshold you detect nearly all
# objects, but you also keep many false positives. With a high threshold nearly all remaining detections are correct,
# but you miss many objects. A metric should not depend on one choice of this threshold. Therefore we go through the
# list from the top, and compute precision and recall after every detection.
#
# **Formula.** Sort the detections of *all images together* by decreasing score. Let $TP_k$ be the number of true
# positives among the first $k$ detections. Then
#
# $$P_k = \frac{TP_k}{k}$$
#
# $$R_k = \frac{TP_k}{\text{number of ground-truth objects}}$$
#
# Recall never falls along the list. Precision rises at each true positive (unless it is 1 already) and falls at each
# false positive (unless it is 0 already).
#
# **Worked example.** There are three objects. The ranked list is: true positive, false positive, true positive.
# Precision is $1, \tfrac12, \tfrac23$, and recall is $\tfrac13, \tfrac13, \tfrac23$. The third object is never
# detected, so recall ends at $\tfrac23$.
#
# **Details that change the result.** Detections with equal scores keep the order in which they are given. The recall
# of a class without a ground-truth object is 0/0, which is NaN.


# %% name="pr_curve" role="solution"
def pr_curve(scores, matched, num_target):
    """Compute precision and recall after each detection of a data set.

    scores:     float tensor (P,), detections of one class, image after image; P may be 0
    matched:    bool tensor (P,), True for the true positives
    num_target: number of ground-truth objects in all images; if it is 0, recall is NaN

    Returns (precision, recall), two float tensors (P,), the most confident detection first.
    Detections with equal scores keep the order in which they are given.
    """
    ### BEGIN SOLUTION: sort by descending score with a stable sort, then compute cumulative sums
    order = torch.argsort(scores, descending=True, stable=True)
    true_positives = matched[order].double().cumsum(dim=0)
    ranks = torch.arange(1, len(scores) + 1, device=scores.device)
    return true_positives / ranks, true_positives / num_target
    ### END SOLUTION


# %% name="check_pr_curve" role="check"
check(pr_curve)

# %% [markdown] name="curve_figure_text"
# The figure shows the curves of the simulated detector on sixty images, with all shapes as one class, at three IoU
# thresholds. The detections are the same for all three curves. Only the IoU that a match requires differs. Notice that
# a higher IoU threshold lowers both the precision and the largest recall, because fewer boxes are true positives.

# %% name="curve_figure" role="show"
scenes = [draw_shapes(seed=(13, i), size=(80, 110), count=(3, 7)) for i in range(60)]
lists = [detect(s, seed=i) for i, s in enumerate(scenes)]
match, curve_of = use(match_detections), use(pr_curve)


def ranked(threshold, label=None):
    """Scores, matches and the number of objects of all images, for one class or for all classes as one."""
    scores, matched, count = [], [], 0
    for s, d in zip(scenes, lists, strict=True):
        pred, gt = (torch.ones_like(x["labels"]).bool() if label is None else x["labels"] == label for x in (d, s))
        iou, crowd = box_iou(d["boxes"][pred], s["boxes"][gt]), torch.zeros(int(gt.sum()), dtype=torch.bool)
        matched.append(torch.as_tensor(match(iou, d["scores"][pred], crowd, threshold)) == 1)
        scores.append(d["scores"][pred])
        count += int(gt.sum())
    return torch.cat(scores), torch.cat(matched), count


fig, ax = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
for threshold, style in ((0.5, "-"), (0.75, "--"), (0.9, ":")):
    precision, recall = (torch.as_tensor(x) for x in curve_of(*ranked(threshold)))
    ax.plot(recall, precision, style, lw=2, label=f"IoU at least {threshold}, recall ends at {recall[-1]:.2f}")
ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.05))
ax.legend()
show(
    fig,
    alt="Three saw-toothed curves of precision over recall. A larger IoU threshold makes the curve lower and shorter.",
)

# %% [markdown] name="ap_idea"
# ## 3. Average precision by three conventions (4 points)
#
# **Idea.** The area under the curve summarises the whole list in one number. It is large if the top of the list is
# correct. But the curve has the shape of a saw blade, so all conventions first replace it by its *envelope* (the
# interpolated precision): at each recall, the highest precision at this recall **or at a larger one**. The conventions
# differ in how they average the envelope.
#
# | name in this lab | used by | definition |
# |---|---|---|
# | `"11-point"` | VOC until 2009 | mean of the envelope at the recalls 0, 0.1, ... 1 |
# | `"area"` | VOC from 2010 | area under the envelope: sum of (increase in recall times envelope at its end) |
# | `"101-point"` | COCO | mean of the envelope at the recalls 0, 0.01, ... 1 |
#
# At a recall that the detector does not reach, the envelope is 0.
#
# **Worked example.** Take the curve of the previous example. Its envelope is 1 up to recall $\tfrac13$, then
# $\tfrac23$ up to recall $\tfrac23$, then 0.
#
# - 11 points: at four recalls (0 to 0.3) the envelope is 1, at three recalls (0.4 to 0.6) it is $\tfrac23$. The mean
#   is $6/11 = 0.5455$.
# - area: $\tfrac13 \cdot 1 + \tfrac13 \cdot \tfrac23 = 5/9 = 0.5556$.
# - 101 points: $(34 + 33 \cdot \tfrac23)/101 = 0.5545$.
#
# The same three detections have three different values of AP. Values that were computed by different conventions cannot
# be compared.
#
# **Floating point.** In floating point, `0.1 * 3` is larger than `3 / 10`. In the cases of the check, every recall is
# either exactly equal to one of the points or clearly different from all of them.


# %% name="ap_interp" role="solution"
def ap_interp(precision, recall, convention):
    """Compute the average precision of a curve by one of three conventions.

    precision:  float64 tensor (P,), precision after each detection; P may be 0
    recall:     float64 tensor (P,), recall after each detection, never decreasing
    convention: "11-point", "area" or "101-point"

    Returns one float from 0 to 1. Without detections, it is 0.
    """
    ### BEGIN SOLUTION: compute the envelope from the right, then the area under it or its mean over recalls
    envelope = precision.flip(0)
    if len(precision):
        envelope = envelope.cummax(dim=0).values
    envelope = envelope.flip(0)
    zero = precision.new_zeros(1)
    if convention == "area":
        return (torch.diff(recall, prepend=zero) * envelope).sum().item()
    count = 11 if convention == "11-point" else 101
    thresholds = torch.arange(count, dtype=torch.float64, device=recall.device) / (count - 1)
    first = torch.searchsorted(recall, thresholds)  # the first point with this recall, or the zero after the last
    return torch.cat([envelope, zero])[first].mean().item()
    ### END SOLUTION


# %% name="check_ap_interp" role="check"
check(ap_interp)

# %% [markdown] name="ap_figure_text"
# The figure shows **the same detections and three values of AP**. The list is short, so that the differences are
# visible. The curve is grey and its envelope is blue. The vermilion dots are the values of the envelope that a
# convention averages, and the vermilion area is the area under the envelope. Compare the three values in the titles.

# %% name="ap_figure" role="show"
matched = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0, 1, 0]).bool()
precision, recall = (torch.as_tensor(x).double() for x in curve_of(torch.arange(10, 0, -1.0), matched, 7))
steps = [(2 / 7, 1), (3 / 7, 3 / 4), (4 / 7, 4 / 7), (5 / 7, 5 / 9), (1, 0)]  # (recall, precision) of the envelope
x, y = [0, *(r for r, _ in steps)], [1, *(p for _, p in steps)]
fig, axes = plt.subplots(1, 3, figsize=(9.3, 3), sharey=True, layout="constrained")
summaries = []
for ax, convention, count in zip(axes, ("11-point", "area", "101-point"), (11, 0, 101), strict=True):
    value = float(use(ap_interp)(precision, recall, convention))
    ax.plot(recall, precision, "o-", color="#999999", ms=4, lw=1)
    ax.step(x, y, where="pre", color="#0072B2", lw=2)
    recalls = np.arange(count) / max(1, count - 1)
    sampled = [next(p for r, p in steps if t <= r) for t in recalls]
    ax.plot(recalls, sampled, "o", color="#D55E00", ms=7 if count == 11 else 2.5)
    if not count:
        ax.fill_between(x, y, step="pre", color="#D55E00", alpha=0.3)
    ax.set(title=f"{convention}: {value:.4f}", xlabel="recall", xlim=(-0.02, 1.02), ylim=(0, 1.05))
    summaries.append(f"{convention} {value:.4f}")
axes[0].set_ylabel("precision")
show(fig, alt=f"One curve with its envelope, averaged by three conventions: {', '.join(summaries)}.")

# %% [markdown] name="map_idea"
# ## 4. COCO's mean average precision (3 points)
#
# **Idea.** At an IoU threshold of 0.5, a box that fits an object only roughly counts as much as a box that fits
# exactly. COCO's "AP" is therefore already a mean: over the classes, and over the ten IoU thresholds 0.50, 0.55, ...
# 0.95. A box that fits only roughly is a true positive at the low thresholds and a false positive at the high ones.
#
# **Formula.** Let $K'$ be the set of classes that have at least one ground-truth object that counts (see the first rule
# below). Then
# $\text{AP} = \frac{1}{10\,|K'|} \sum_{k \in K'} \sum_{t} \text{AP}_{k,t}$, where each $\text{AP}_{k,t}$ is computed by
# 101 points.
#
# AP and its variants AP$_S$, AP$_M$, AP$_L$, AR$_1$, AR$_{10}$ and AR$_{100}$ follow three rules:
#
# - *An area range selects ground-truth objects.* An object outside the range does not count: it does not have to be
#   detected, and a detection that is matched with it is not counted. A detection without a match is not counted if its
#   own area is outside the range.
# - *maxDets* limits the number of detections that each image keeps for each class. The most confident ones are kept.
# - *A class without an object that counts has no AP.* It is excluded from the mean. (In pycocotools, its AP is -1.)
#
# **Worked example.** Class 1 has one object. The most confident detection of this class matches the object up to an IoU
# threshold of 0.7, so its AP is 1 at five thresholds and 0 at the other five. The mean is 0.5. Class 2 has one object
# that is never detected, so its AP is 0. Class 3 has no object, but two false positives, so it is excluded. The result
# is AP = (0.5 + 0) / 2 = 0.25.
#
# You do not have to write the matching again: `matched` gives, for each threshold, the object with which each
# detection is matched.


# %% name="map_coco" role="solution"
def map_coco(classes, area_range, max_dets):
    """Compute COCO's mean average precision over classes and ten IoU thresholds.

    classes:    one dict per class. It has four tensors for the P detections of the class in all images, in any order:
                "scores" (P,) float64, no two equal; "ranks" (P,) int64, the rank of each detection among those of this
                class in its own image, 0 for the most confident one; "areas" (P,) float64, the areas of the detections;
                "matched" (10, P) int64, for each IoU threshold the index of the object that the detection is matched
                with, or -1 without a match. It has one tensor for the N ground-truth objects of the class:
                "target_areas" (N,) float64. P and N may be 0
    area_range: (smallest, largest) area that counts, both included
    max_dets:   number of detections of one class that count in one image

    Returns one float, with each AP computed by 101 points; float("nan") if no class has an object that counts.
    """
    ### BEGIN SOLUTION: for each class with an object in range and each threshold, select what counts and compute the AP
    low, high = area_range
    values = []
    for c in classes:
        counts = (c["target_areas"] >= low) & (c["target_areas"] <= high)
        if not counts.any():
            continue
        keep = torch.nonzero(c["ranks"] < max_dets)[:, 0]
        keep = keep[torch.argsort(c["scores"][keep], descending=True)]
        inside = (c["areas"][keep] >= low) & (c["areas"][keep] <= high)
        for matched in c["matched"][:, keep]:
            counted = torch.where(matched >= 0, counts[matched], inside)
            true_positives = (matched[counted] >= 0).double().cumsum(dim=0)
            precision = true_positives / torch.arange(1, len(true_positives) + 1)
            best = [precision[true_positives / counts.sum() >= t] for t in torch.arange(101).double() / 100]
            values.append(sum(float(p.max()) for p in best if len(p)) / 101)
    return sum(values) / len(values) if values else float("nan")
    ### END SOLUTION


# %% name="check_map_coco" role="check"
check(map_coco)

# %% [markdown] name="map_figure_text"
# The figure shows the AP of the simulated detector for each class (rows) and each IoU threshold (columns). The mean of
# the first column is "AP50", and the mean of all values is "AP". Notice how far AP is below AP50, because the boxes of
# this detector are inaccurate.

# %% name="map_figure" role="show"
average, thresholds = use(ap_interp), [0.5 + 0.05 * i for i in range(10)]
table = np.zeros((3, 10))
for k in range(3):
    for t, threshold in enumerate(thresholds):
        curve = [torch.as_tensor(x).double() for x in curve_of(*ranked(threshold, label=k + 1))]
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
show(
    fig, alt=f"AP of three classes at ten IoU thresholds. It falls from left to right; the mean is {table.mean():.3f}."
)

# %% [markdown] name="pq_idea"
# ## 5. Panoptic quality (4 points)
#
# **Idea.** A panoptic segmentation assigns a class to every pixel. A pixel of a *thing* (a countable object such as a
# car) is also assigned to one object. A pixel of *stuff* (such as road and sky) has a class only. The metrics so far
# evaluate only a part of this. Mean IoU counts pixels and ignores objects. AP needs scores, allows segments to overlap,
# and is not defined for stuff. PQ evaluates things and stuff in the same way, as segments that have a class.
#
# **Formula.** A predicted and a ground-truth segment of the same class match if their IoU is **above** 1/2. For each
# class
#
# $$\begin{aligned}
# \text{PQ} &= \frac{\sum_{TP} \text{IoU}}{|TP| + \frac12 |FP| + \frac12 |FN|} \\
# &= \underbrace{\frac{\sum_{TP} \text{IoU}}{|TP|}}_{\text{SQ}} \cdot
# \underbrace{\frac{|TP|}{|TP| + \frac12 |FP| + \frac12 |FN|}}_{\text{RQ}}
# \end{aligned}$$
#
# The segmentation quality SQ is the mean IoU of the matched pairs, and the recognition quality RQ is the F1 score of
# the segments. Three rules do not appear in the formula:
#
# - *Void*, id 0 of the ground truth, means that the content of these pixels is unknown. They are removed from every
#   union. A predicted segment without a match is not a false positive if more than half of its pixels are void.
# - If a class has false positives or false negatives but no match, SQ would be 0/0. Then PQ = SQ = RQ = 0, and the
#   class counts in the means.
# - PQ, SQ and RQ are computed for each class, and then averaged over the classes with TP + FP + FN > 0.

# %% [markdown] name="pq_homework"
# **Homework.** The figure shows a road (class 0) and two cars (class 1) on 4 x 8 pixels. The hatched column is void.
# Compute PQ, SQ and RQ of both classes on paper, then the means. Is the mean PQ equal to the product of the mean SQ
# and the mean RQ?

# %% name="pq_homework_figure" role="show"
rows = ["11111110 12222110 12222330 11111330", "11111111 12221111 12221131 11111131"]
target, preds = (torch.tensor([[int(i) for i in row] for row in side.split()]) for side in rows)
shades = np.array([[1, 1, 1], [0.85, 0.85, 0.85], [0.34, 0.71, 0.91], [0.9, 0.62, 0]])
fig, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
for ax, ids, title in zip(axes, (target, preds), ("ground truth", "prediction"), strict=True):
    ax.imshow(shades[ids])
    for (y, x), i in np.ndenumerate(ids.numpy()):
        ax.text(x, y, i if i else "void", ha="center", va="center", fontsize=9)
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec="#777777", hatch="" if i else "////"))
    ax.set_title(f"{title}: 1 is road, 2 and 3 are cars", fontsize=10)
    ax.set_axis_off()
show(fig, alt=f"Two grids of segment ids. Ground truth {target.tolist()}, 0 is void; prediction {preds.tolist()}.")

# %% [markdown] name="pq_homework_answer"
# <details><summary>Answer</summary>
#
# Road: the ground truth has 16 pixels, and all of them are predicted as road. The predicted segment has 24 pixels, of
# which 4 are void and 4 are car in the ground truth. The union without void has 20 pixels, so the IoU is 16/20 = 4/5:
# one TP, no FP, no FN. PQ = SQ = 4/5, RQ = 1.
#
# Car 2: 6 of its 8 pixels are predicted, so the IoU is 3/4: a TP. Car 3: 2 of its 4 pixels are predicted, so the IoU
# is exactly 1/2, which is **not** a match: one FP and one FN. SQ = 3/4, RQ = 1/(1 + 1/2 + 1/2) = 1/2, PQ = 3/8.
#
# Means: PQ = (4/5 + 3/8)/2 = 0.5875, SQ = 0.775, RQ = 0.75. The product of the last two is 0.58125, which is not the
# mean PQ.
#
# </details>


# %% name="pq" role="solution"
def pq(preds, pred_classes, target, target_classes):
    """Compute panoptic quality, segmentation quality and recognition quality of one image.

    preds:          int64 tensor (H, W), ids of the predicted segments; 0 where no segment is predicted
    pred_classes:   int64 tensor (1 + P,), the class of each id; entry 0 is -1 and belongs to no segment
    target:         int64 tensor (H, W), ids of the ground-truth segments; 0 is void
    target_classes: int64 tensor (1 + N,), the class of each id, in the same form as pred_classes

    Every id from 1 to P occurs in preds, and every id from 1 to N occurs in target.

    Returns (pq, sq, rq), three floats: means over the classes with TP + FP + FN > 0. If there is no such class, all
    three are float("nan").
    """
    ### BEGIN SOLUTION: intersect all pairs, compute IoUs without void, match above 1/2, then count for each class
    P, N = len(pred_classes), len(target_classes)
    overlap = torch.bincount((target * P + preds).flatten(), minlength=N * P).reshape(N, P).double()
    void, area = overlap[0], overlap.sum(dim=0)
    iou = overlap / (overlap.sum(dim=1, keepdim=True) + area - overlap - void)
    match = (iou > 0.5) & (target_classes[:, None] == pred_classes)
    match[0], match[:, 0] = False, False
    false_positive = ~match.any(dim=0) & (void <= area / 2)
    rows = []
    for k in torch.unique(torch.cat([pred_classes[1:], target_classes[1:]])):
        of_pred, of_target = pred_classes == k, target_classes == k
        tp = match[of_target].sum().item()
        errors = false_positive[of_pred].sum().item() + of_target.sum().item() - tp
        if tp + errors > 0:
            sq = iou[match & of_target[:, None]].mean().item() if tp else 0.0
            rq = tp / (tp + errors / 2)
            rows.append((sq * rq, sq, rq))
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True)) if rows else (float("nan"),) * 3
    ### END SOLUTION


# %% name="check_pq" role="check"
check(pq)

# %% [markdown] name="pq_figure_text"
# The next figure shows the ground truth of a synthetic street and three predictions, each with one fault: all segments
# are shifted by two pixels to the right; two things of one class are merged into one; one thing is missed. White
# outlines mark, in this order, a shifted thing, the merged thing, and a thing of the same class that is not missed.
# The titles give the PQ and the mean IoU of each prediction. Which fault does mean IoU not detect?

# %% name="pq_figure" role="show"
from segedu.datasets.street import draw_street
from segedu.metrics.semantic import mean_iou
from segedu.viz import palette

street = draw_street(seed=0)
gt_ids, info = street["panoptic_seg"].long(), street["segments_info"]
segment_classes = torch.tensor([-1] + [segment["category_id"] for segment in sorted(info, key=lambda s: s["id"])])
things = [s["id"] for s in info if s["isthing"]]
common = torch.mode(segment_classes[things]).values
large = sorted((i for i in things if segment_classes[i] == common), key=lambda i: -(gt_ids == i).sum())
ground = max((s["id"] for s in info if not s["isthing"]), key=lambda i: (gt_ids == i).sum())
faults = {"shifted by two pixels": torch.roll(gt_ids, 2, dims=1)}
for name, new in (("two things merged", large[0]), ("one thing missed", ground)):
    faults[name] = torch.where(gt_ids == large[1], new, gt_ids)


def renumbered(ids):
    """Renumber ids from 1 on without gaps, and return the class of each."""
    present = torch.unique(ids[ids > 0])
    new_ids = torch.zeros(len(segment_classes), dtype=torch.int64)
    new_ids[present] = torch.arange(len(present)) + 1
    return new_ids[ids], torch.cat([segment_classes[:1], segment_classes[present]])


# %% name="pq_faults" role="show"
colours = np.concatenate([[[0, 0, 0]], palette(len(segment_classes) - 1)])
fig, axes = plt.subplots(2, 2, figsize=(7.4, 5.4), layout="constrained")
axes = axes.flatten()
axes[0].imshow(colours[gt_ids])
axes[0].set_title("ground truth, one colour\nper segment, void is black", fontsize=10)
semantic_target, summaries = torch.where(gt_ids > 0, segment_classes[gt_ids], 255), []
for ax, (name, ids) in zip(axes[1:], faults.items(), strict=True):
    quality = float(use(pq)(*renumbered(ids), *renumbered(gt_ids))[0])
    semantic_preds = torch.where(ids > 0, segment_classes[ids], segment_classes[ground])
    summaries.append(f"{name}: PQ {quality:.3f}, mean IoU {mean_iou(semantic_preds, semantic_target, 10, 255):.3f}")
    ax.imshow(colours[ids])
    ax.contour(ids == large[1 if name == "shifted by two pixels" else 0], levels=[0.5], colors="white", linewidths=1)
    ax.set_title(summaries[-1].replace(": ", "\n"), fontsize=10)
for ax in axes:
    ax.set_axis_off()
show(fig, alt=f"The segments of a street and three faulty predictions. {'; '.join(summaries)}.")

# %% [markdown] name="unique_idea"
# ## 6. Why one half? (2 points)
#
# **Idea.** If a match requires an IoU above 1/2, PQ needs no matching algorithm, because no segment can match two
# others. With a threshold below 1/2, a segment can match two others.
#
# **Proof.** Suppose that a ground-truth segment $g$ has an IoU above 1/2 with both of the predicted segments $p$ and
# $q$, which share no pixel.
#
# 1. $|p \cap g| > \tfrac12 |p \cup g| \ge \tfrac12 |g|$, and likewise $|q \cap g| > \tfrac12 |g|$.
# 2. $p \cap g$ and $q \cap g$ share no pixel, so together they have more than $|g|$ pixels, all of them in $g$.
#
# That is impossible. If you exchange the roles of ground truth and prediction, the same proof shows that no predicted
# segment matches two ground-truth segments.
#
# The proof needs two conditions: an IoU *above* 1/2, and segments that do *not overlap*. If one of these conditions is
# dropped, the statement is false. In this exercise you show this for the first condition: for a threshold below 1/2,
# construct a ground-truth segment and two predicted segments of the same class that would both match it.


# %% name="pq_unique" role="solution"
def pq_unique(iou_threshold):
    """Construct a ground-truth segment and two predicted segments that both match it, if there is such an example.

    iou_threshold: a number between 0 and 1

    Returns (target, preds, classes): target is a bool array (H, W), the ground-truth segment; preds is a bool array
    (2, H, W), two predicted segments that share no pixel; classes are three ints, the classes of the target and of the
    two predicted segments, all equal. Each segment has at least one pixel, and the IoU of each predicted segment with
    the target is larger than iou_threshold. You choose H and W.
    If there is no such example for this threshold, return None.
    """
    ### BEGIN SOLUTION: return None from one half on; below it, split one target into two parts that are large enough
    if iou_threshold >= 0.5:
        return None
    target = torch.ones(1, 2, dtype=torch.bool)
    preds = torch.tensor([[[True, False]], [[False, True]]])
    return target, preds, [1, 1, 1]
    ### END SOLUTION


# %% name="check_pq_unique" role="check"
check(pq_unique)

# %% [markdown] name="unique_figure_text"
# The figure shows your example for a threshold of 0.4. Compare the IoUs with 0.5: with the threshold of PQ, at most one
# of the two predicted segments could match.

# %% name="unique_figure" role="show"
target, parts, classes = use(pq_unique)(0.4)
target, parts = np.asarray(target).astype(bool), np.asarray(parts).astype(bool)
fig, axes = plt.subplots(1, 3, figsize=(8, 2.2), layout="constrained")
summaries = []
for ax, mask, name in zip(axes, (target, *parts), ("ground truth", "predicted", "predicted"), strict=True):
    overlap = (mask & target).sum() / (mask | target).sum()
    ax.imshow(mask, cmap="cividis", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    summaries.append(name if mask is target else f"{name}, IoU {overlap:.3f}")
    ax.set_title(summaries[-1], fontsize=10)
show(fig, alt=f"A ground-truth segment and two predicted segments that share no pixel: {', '.join(summaries)}.")

# %% [markdown] name="widget_text"
# ## Move a threshold, split a segment
#
# In the first explorer, drag the threshold along the scores. Which points of the curve lie below the envelope, and is
# there a reason to choose a threshold at one of them? The area does not change, because it belongs to the whole list
# and not to one threshold. It does change if you move the detection that is yours: drag its score. At which rank does a
# false positive not lower the area at all, and how much does a true positive add at the same rank?

# %% name="ranking_widget" role="widget"
from segedu.teaching.widgets.ranking import explorer

explorer()

# %% [markdown] name="panoptic_widget_text"
# In the second explorer, split car 1, merge cars 2 and 3, and shift car 3, by dragging it or with the sliders. After
# which column must car 1 be split so that neither of its two parts matches it? Which of SQ and RQ falls if a car is
# segmented inaccurately but still matched, and which one falls if a car is not matched?

# %% name="panoptic_widget" role="widget"
from segedu.teaching.widgets.ranking import panoptic_explorer

panoptic_explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# The next cells evaluate a large set of simulated detections: inaccurate copies of ground-truth boxes with a score,
# and false positives. At each of the ten IoU thresholds, *your* `pr_curve` sorts the detections and *your* `ap_interp`
# computes the AP, on the CPU and, if there is one, on the GPU.

# %% name="scale" role="train"
import time

from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
COUNT = {"cpu": 200_000, "gpu": 10_000_000}[SCALE]


def prediction_set(count, device):
    """IoU of each detection with its own object (0 for a false positive), and scores that are correlated with it."""
    generator = torch.Generator(device).manual_seed(0)
    size = 10 + 90 * torch.rand(count, 2, generator=generator, device=device, dtype=torch.float64)
    noise = 0.08 * torch.randn(count, 4, generator=generator, device=device, dtype=torch.float64)
    noise = noise * size.repeat(1, 2)
    low, high = noise[:, :2].clamp(min=0), size + noise[:, 2:].clamp(max=0)
    inter, area = (high - low).clamp(min=0).prod(1), (size + noise[:, 2:] - noise[:, :2]).clamp(min=0).prod(1)
    iou = torch.where(torch.arange(count, device=device) % 4 > 0, inter / (size.prod(1) + area - inter), 0.0)
    return iou, iou + 0.3 * torch.randn(count, generator=generator, device=device, dtype=torch.float64)


def evaluate(count, device):
    """Mean AP over the ten thresholds for one class, and the speed; creating the detections is not timed."""
    iou, scores = prediction_set(count, device)
    start, values = time.perf_counter(), []
    for threshold in tqdm([0.5 + 0.05 * i for i in range(10)], desc=f"thresholds on {device}"):
        curve = [torch.as_tensor(x).double() for x in use(pr_curve)(scores, iou >= threshold, count)]
        values.append(float(use(ap_interp)(*curve, "101-point")))  # float() waits for the GPU
    speed = 10 * count / (time.perf_counter() - start) / 1e6
    return f"{device}: AP {np.mean(values):.4f} of {count:,} detections, {speed:.1f} million ranked per second"


# %% name="scale_run" role="train"
print(evaluate(COUNT, "cpu"))
if SCALE == "gpu":
    try:
        print(evaluate(COUNT, "cuda"))
    except (RuntimeError, TypeError) as error:  # a solution in numpy is correct, but runs on the CPU only
        print(f"Your functions run on the CPU only: {type(error).__name__}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the error: "Our detector has 41.2 mAP; the 2015 paper had 70.0 mAP on VOC. We are far behind."
#
# <details><summary>Answer</summary>
#
# The definition of "mAP" is missing. VOC's mAP uses one IoU threshold, 0.5, and 11 points or the area. COCO's is the
# mean over ten IoU thresholds with 101 points. The two numbers measure different things, on different images.
#
# </details>
#
# **2.** You delete all detections with a score below 0.3 before the evaluation. Can AP rise?
#
# <details><summary>Answer</summary>
#
# No. The points of the curve that belong to scores above the threshold stay the same, and the others are lost, so AP
# stays the same or falls. For this reason, detectors are evaluated with a very low score threshold, and used with a
# higher one.
#
# </details>
#
# **3.** Find the error: "PQ is the mean of SQ times RQ over all segments that overlap by at least one half."
#
# <details><summary>Answer</summary>
#
# There are two errors. The IoU must be *above* one half. And SQ and RQ are not computed for single segments but for
# each class, so the mean is over classes. In addition, two rules are missing: void is removed from the unions, and a
# class without a match has PQ 0.
#
# </details>
#
# **4.** A model detects every car, each with an IoU of 0.6. Another model detects 60 % of the cars with an IoU of 1.
# Neither has false positives. What is the PQ of each?
#
# <details><summary>Answer</summary>
#
# The first model has SQ 0.6, RQ 1 and PQ 0.6. The second has SQ 1, RQ 0.6/(0.6 + 0.2) = 0.75 and PQ 0.75. A missed
# object counts only one half in the denominator.
#
# </details>
#
# **5.** All scores of a detector are divided by 2. What happens to AP, and what happens to the precision at a score
# threshold of 0.5?
#
# <details><summary>Answer</summary>
#
# AP depends only on the order of the detections, so it does not change. Fewer detections have a score above 0.5, so
# the precision at this threshold can change. AP does not measure whether scores are good estimates of probabilities.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - Read [the pages of chapter 13](../course/13-metrics/index.md), their reading list, and [where libraries
#   disagree](../course/13-metrics/choosing.md).
# - `segedu.metrics.coco` evaluates whole data sets, with boxes and masks. `segedu.metrics.panoptic` computes PQ over
#   many images.
# - In chapters 11 and 12 you build detectors that output such ranked lists. Chapter 15 builds panoptic models, which
#   are evaluated with PQ.
#
# Before you hand in this notebook, save it, and run `segedu check labs/13_metrics.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
