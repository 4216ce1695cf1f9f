# %% [markdown] name="goals"
# # Lab 4: Metrics I, pixels and boxes
#
# A metric measures how well a prediction agrees with the ground truth, so that you can compare models. The choice of
# the metric matters: with an unsuitable metric, a model that predicts "background" at every pixel can get the best
# score. In this lab you implement the confusion matrix and six metrics, each with a few lines of code.
#
# **After this lab you can**
#
# - compute a confusion matrix, and derive pixel metrics such as accuracy and mean IoU from it;
# - explain why accuracy can be misleading, and what a mean IoU averages over;
# - compare boxes by IoU and GIoU, and explain for which pairs of boxes IoU has no gradient and GIoU has one;
# - evaluate outlines, whose errors hardly change a metric that compares areas.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 4](../course/04-metrics/index.md), broadcasting in NumPy or PyTorch, and gradients for
# the text about exercise 5. You do not need an earlier lab.
#
# Run the cells from top to bottom. Until your function for an exercise passes its check, later cells use the library's
# function instead, so the notebook always runs to its end.
#
# Your functions may call other libraries. They may not call a ready-made solution of an exercise, such as
# `torchvision.ops.box_iou`: such functions are not available during checks and grading
# ([full list](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One scene, one prediction
#
# The next figure shows a synthetic scene with four classes (background, circle, square, triangle), its ground truth,
# and a prediction. The prediction does not come from a network. It is the ground truth with typical errors: everything
# is shifted by one or two pixels, one shape is missing, and one shape has the wrong class. In the last panel,
# correct foreground is green, missed foreground is blue, and foreground with a wrong position or a wrong class is
# orange. The metrics of this lab measure such errors.

# %% name="scene" role="show"
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.viz import compare, show


def predict(scene, seed):
    """Return the ground truth with errors: one shape missing, one with the wrong class, everything shifted."""
    rng = np.random.default_rng(seed)
    preds, label_map = scene["semantic"].clone(), scene["label_map"]
    order = rng.permutation(len(scene["labels"])) + 1
    preds[label_map == order[0]] = 0
    preds[label_map == order[-1]] = preds[label_map == order[-1]] % 3 + 1
    down, right = rng.integers(1, 3, 2)
    shifted = torch.zeros_like(preds)
    shifted[down:, right:] = preds[:-down, :-right]
    return shifted


scene = draw_shapes(seed=38, size=(80, 80), count=(4, 5))
target, preds = scene["semantic"], predict(scene, seed=1)
alt = "A scene of coloured shapes, its ground truth, a prediction with errors, and the errors in three patterns."
show(compare(scene["image"], target, preds, width=1.8), alt=alt)

# %% [markdown] name="matrix_idea"
# ## 1. The confusion matrix (4 points)
#
# **Idea.** Every pixel has a ground-truth class $i$ and a predicted class $j$. The confusion matrix counts how often
# each pair of classes occurs. Its rows are the ground truth and its columns the prediction, so the correct pixels are
# on the diagonal. The matrix does not record *where* in the image an error occurs.
#
# **Formula.** $M_{ij}$ is the number of pixels whose ground-truth class is $i$ and whose predicted class is $j$.
# Pixels whose target is the ignore index (often 255, for pixels that no annotator could label) are not counted,
# whatever the prediction is.
#
# **Worked example.** Six pixels and two classes:
#
# | target | 0 | 0 | 0 | 1 | 1 | 255 |
# |---|---|---|---|---|---|---|
# | prediction | 0 | 0 | 1 | 1 | 0 | 1 |
#
# The matrix is $\begin{pmatrix} 2 & 1 \\ 1 & 1 \end{pmatrix}$. Its entries add up to five, because the last pixel is
# ignored. The first row shows that two pixels of class 0 are predicted as 0, and one pixel of class 0 is predicted
# as 1.
#
# A loop over all pixels gives the correct result, but it is slow. It is faster to encode each pair $(i, j)$ as one
# integer and to count how often each integer occurs.


# %% name="confusion_matrix" role="solution"
def confusion_matrix(preds, target, num_classes, ignore_index=None):
    """Count the pixels of each pair (ground-truth class, predicted class).

    preds:        int64 tensor of any shape, the predicted classes, 0 to num_classes - 1
    target:       int64 tensor of the same shape, the ground-truth classes
    num_classes:  the number of classes K
    ignore_index: pixels whose target has this value are not counted. It may be 255, or one of the
                  classes. If it is None, all pixels count.

    Returns a (K, K) tensor of integers. Rows are the ground truth, columns are the prediction. The
    matrix has K rows and K columns even if a class does not occur at all. Do not change the arguments.
    """
    ### BEGIN SOLUTION: leave out the ignored pixels, then count the pairs (ground truth, prediction)
    if ignore_index is not None:
        counted = target != ignore_index
        preds, target = preds[counted], target[counted]
    pair = target.flatten() * num_classes + preds.flatten()
    return torch.bincount(pair, minlength=num_classes**2).reshape(num_classes, num_classes)
    ### END SOLUTION


# %% name="check_confusion_matrix" role="check"
check(confusion_matrix)

# %% [markdown] name="matrix_figure_text"
# The next figure shows the confusion matrix of the scene above. Which entry contains the missing shape? Which entry
# contains the shape with the wrong class?

# %% name="matrix_figure" role="show"
matrix = torch.as_tensor(use(confusion_matrix)(preds, target, 4))
fig, ax = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
ax.imshow(torch.log1p(matrix.float()), cmap="cividis")
for i in range(4):
    for j in range(4):
        light = matrix[i, j] < 100
        ax.text(j, i, int(matrix[i, j]), ha="center", va="center", color="white" if light else "black")
ax.set_xticks(range(4), CLASSES, rotation=20)
ax.set_yticks(range(4), CLASSES)
ax.set(xlabel="prediction", ylabel="ground truth", title="number of pixels")
show(fig, alt=f"Confusion matrix of four classes, with the ground truth in rows: {matrix.tolist()}.")

# %% [markdown] name="overlap_idea"
# ## 2. IoU and Dice (3 points)
#
# **Idea.** How well do a predicted mask and a ground-truth mask agree? Both metrics of this exercise divide the area
# that the two masks share: IoU (intersection over union) by the area of their union, and Dice by the mean of their
# areas.
#
# **Formula.** Let TP be the number of pixels in both masks (true positives), FP the number of pixels only in the
# prediction (false positives), and FN the number of pixels only in the ground truth (false negatives). The IoU, also
# called the Jaccard index, is $J$, and the Dice coefficient is $D$:
#
# $$J = \frac{TP}{TP + FP + FN} \qquad D = \frac{2\,TP}{2\,TP + FP + FN} = \frac{2J}{1 + J}$$
#
# True negatives, the pixels in neither mask, do not occur in the formulas. Additional background around the object
# therefore changes neither of the two metrics.
#
# **Worked example.** Masks of 4 and 6 pixels share 1 pixel. The union has $4 + 6 - 1 = 9$ pixels, so $J = 1/9$. The
# sum of the areas is 10, so $D = 2/10$. The conversion gives the same: $2 \cdot \tfrac19 / (1 + \tfrac19) = 0.2$.
#
# **Empty masks.** Two empty masks agree perfectly, so in this case both values are defined as 1. If only one mask is
# empty, both values are 0.


# %% name="iou_dice" role="solution"
def iou_dice(preds, target):
    """Compute IoU and Dice of two masks.

    preds:  bool tensor (H, W), the predicted mask
    target: bool tensor (H, W), the ground-truth mask

    Returns the tuple (iou, dice), two numbers from 0 to 1. If both masks are empty, returns (1, 1).
    """
    ### BEGIN SOLUTION: compute the intersection and the sum of the areas; handle two empty masks separately
    inter = (preds & target).sum().item()
    areas = preds.sum().item() + target.sum().item()
    if areas == 0:
        return 1.0, 1.0
    return inter / (areas - inter), 2 * inter / areas
    ### END SOLUTION


# %% name="check_iou_dice" role="check"
check(iou_dice)

# %% [markdown] name="overlap_figure_text"
# The next figure compares a disc with a copy of it that is shifted to the right. On the left, each shift gives one
# point, and all points lie on the curve $D = 2J/(1+J)$. On the right, both metrics decrease as the shift grows. Dice is
# never smaller than IoU, and both metrics rank two predictions of one image in the same order. Their means over several
# images can rank two models differently, however. Note also that a paper that reports Dice seems to have better results
# than a paper that reports the IoU of the same masks.

# %% name="overlap_figure" role="show"
y, x = torch.meshgrid(torch.arange(60), torch.arange(100), indexing="ij")
fixed = (y - 30) ** 2 + (x - 35) ** 2 < 20**2
overlap = use(iou_dice)
points = [overlap((y - 30) ** 2 + (x - 35 - s) ** 2 < 20**2, fixed) for s in range(0, 44, 4)]
j, d = np.array(points).T
curve = np.linspace(0, 1, 101)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
axes[0].plot(curve, 2 * curve / (1 + curve), color="#0072B2", label="D = 2J / (1 + J)")
axes[0].plot(curve, curve, ":", color="#666666", label="D = J")
axes[0].plot(j, d, "o", color="#D55E00", label="two discs")
axes[0].set(xlabel="IoU (J)", ylabel="Dice (D)", aspect="equal")
axes[0].legend()
axes[1].plot(range(0, 44, 4), j, "s-", color="#E69F00", label="IoU")
axes[1].plot(range(0, 44, 4), d, "o--", color="#009E73", label="Dice")
axes[1].set(xlabel="shift (pixels); both discs have radius 20", ylabel="value")
axes[1].legend()
show(
    fig,
    alt="Left: Dice against IoU, a curve above the diagonal; the points of the two discs lie on the curve. "
    "Right: IoU and Dice decrease as the shift between the discs grows.",
)

# %% [markdown] name="mean_idea"
# ## 3. The mean IoU of a data set (4 points)
#
# **Idea.** The mean IoU averages over classes and not over pixels, so that a rare class has the same weight as a
# frequent one. The counts of *all* images are added before the division. The mean of the IoUs of single images is a
# different metric, in which an image with only a few pixels of a class has the same weight as an image full of that
# class.
#
# **Formula.** Add the confusion matrices of all images to one matrix $M$. For class $k$
#
# $$J_k = \frac{M_{kk}}{\sum_j M_{kj} + \sum_i M_{ik} - M_{kk}}$$
#
# and the mean IoU is the mean of $J_k$ over the classes that occur. For a class that occurs neither in the
# ground truth nor in the prediction, $J_k$ is 0/0. Such a class is excluded, both from the sum and from the number of
# classes. A class that is predicted but does not occur in the ground truth has IoU 0, and it counts.
#
# **Worked example.** Two images with the classes 0 and 1 have the matrices
# $\begin{pmatrix} 8 & 0 \\ 0 & 0 \end{pmatrix}$ and $\begin{pmatrix} 1 & 1 \\ 1 & 1 \end{pmatrix}$. Their sum is
# $\begin{pmatrix} 9 & 1 \\ 1 & 1 \end{pmatrix}$, so $J_0 = 9/11$, $J_1 = 1/3$, and the mean IoU is $19/33 = 0.576$. If
# you compute the mean IoU of each image instead, you get $1$ for the first image, in which only class 0 occurs, and
# $1/3$ for the second image. The mean of these two values is $0.667$.


# %% name="miou" role="solution"
def miou(matrices):
    """Compute the mean IoU of a data set.

    matrices: int64 tensor (B, K, K), one confusion matrix per image; rows are the ground truth

    Returns one number: the mean of the IoUs of the classes, computed from the counts of all images
    together. The mean includes the classes that occur in the ground truth or in the prediction of any
    image. If nothing is counted at all, returns float("nan").
    """
    ### BEGIN SOLUTION: add the matrices; compute the IoU per class; average the classes with a non-zero union
    total = matrices.sum(dim=0).double()
    inter = total.diagonal()
    union = total.sum(dim=0) + total.sum(dim=1) - inter
    present = union > 0
    return (inter[present] / union[present]).mean().item()
    ### END SOLUTION


# %% name="check_miou" role="check"
check(miou)

# %% [markdown] name="mean_figure_text"
# **Why not accuracy?** Pixel accuracy is the fraction of correctly classified pixels. The next figure shows a small
# shape on a large background, and three predictions. Compare the accuracy and the mean IoU of the prediction that is
# all background.

# %% name="accuracy_figure" role="show"
small = draw_shapes(seed=3, size=(80, 120), count=1)
small_target = small["semantic"]
shifted = torch.roll(small_target, shifts=(4, 4), dims=(0, 1))
predictions = {
    "shifted by 4 pixels": shifted,
    "all background": torch.zeros_like(small_target),
    "correct": small_target,
}
fig, axes = plt.subplots(2, 2, figsize=(7, 5.4), layout="constrained")
axes = axes.ravel()
axes[0].imshow(small["image"].permute(1, 2, 0))
axes[0].set_title("image", fontsize=9)
summary, count_pairs, mean_iou = [], use(confusion_matrix), use(miou)
for ax, (name, prediction) in zip(axes[1:], predictions.items(), strict=True):
    counts = torch.as_tensor(count_pairs(prediction, small_target, 4))
    accuracy, mean = counts.diagonal().sum() / counts.sum(), float(mean_iou(counts[None]))
    ax.imshow(prediction, cmap="cividis", vmin=0, vmax=3, interpolation="nearest")
    ax.contour(small_target > 0, levels=[0.5], colors="white", linestyles=":")
    ax.set_title(f"{name}\naccuracy {accuracy:.3f}, mean IoU {mean:.3f}", fontsize=9)
    summary.append(f"{name}: accuracy {accuracy:.3f}, mean IoU {mean:.3f}")
for ax in axes:
    ax.set_axis_off()
show(
    fig,
    alt=f"A small shape and three predictions; the ground-truth outline is dotted. {'; '.join(summary)}.",
)

# %% [markdown] name="dataset_figure_text"
# **Counts of all images, or mean over images?** The next figure uses forty scenes with the same types of errors as in
# the first figure. The bars show the mean IoU of each image, in ascending order. The two lines show two values that
# are both called "the mean IoU": one from the counts of all images together, and one as the mean over the images.
# Always state which of the two you report.

# %% name="dataset_figure" role="show"
scenes = [draw_shapes(seed=(4, i), size=(48, 64), count=(2, 6)) for i in range(40)]
pairs = [(predict(s, seed=i), s["semantic"]) for i, s in enumerate(scenes)]
matrices = torch.stack([torch.as_tensor(count_pairs(*pair, 4)) for pair in pairs])
image_ious = sorted(float(mean_iou(m[None])) for m in matrices)
dataset_iou, mean_of_images = float(mean_iou(matrices)), float(np.mean(image_ious))
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.bar(range(40), image_ious, color="#56B4E9", label="one image")
ax.axhline(dataset_iou, color="black", label=f"counts of all images together: {dataset_iou:.3f}")
ax.axhline(mean_of_images, color="#D55E00", ls="--", label=f"mean over images: {mean_of_images:.3f}")
ax.set(xlabel="image, in ascending order of its mean IoU", ylabel="mean IoU", ylim=(0, 1.05))
ax.legend(loc="upper left")
alt = (
    f"Mean IoU of 40 images as bars. The counts of all images together give {dataset_iou:.3f}, "
    f"the mean over images is {mean_of_images:.3f}."
)
show(fig, alt=alt)

# %% [markdown] name="boxes_idea"
# ## 4. IoU of boxes (4 points)
#
# **Picture.** Why measure the overlap of two boxes, and not the distance between their coordinates? In both panels of
# the next figure, the dashed box is shifted by one pixel in $x$ and in $y$. The distance between the coordinates, an
# $L_p$ error, is the same in both panels. The overlap differs: the small boxes share a much smaller fraction of their
# area.

# %% name="boxes_picture" role="show"
from matplotlib.patches import Rectangle

fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for ax, side in zip(axes, (3, 15), strict=True):
    for shift, colour, style in ((0, "black", "-"), (1, "#0072B2", "--")):
        ax.add_patch(Rectangle((2 + shift, 2 + shift), side, side, fill=False, ec=colour, ls=style, lw=2))
    shared = (side - 1) ** 2
    ax.set(xlim=(0, 20), ylim=(20, 0), aspect="equal")
    ax.set_title(f"sides of {side}: L1 error 4, IoU {shared}/{2 * side**2 - shared}", fontsize=10)
alt = "Two pairs of boxes, small and large, each shifted by one pixel in x and y: the large pair overlaps far more."
show(fig, alt=alt)

# %% [markdown] name="boxes_formula"
# **Idea.** A box is a mask that is described by four numbers, $(x_1, y_1, x_2, y_2)$, so you can compute the IoU of
# two boxes without counting pixels. Coordinates are continuous: a box from 0 to 2 is 2 wide.
#
# **Formula.** The intersection reaches from the larger $x_1$ to the smaller $x_2$. Its width is
# $\max(0, \min(x_2, x_2') - \max(x_1, x_1'))$, and its height follows in the same way from $y_1$ and $y_2$. If $I$ is
# the area of the intersection, and $A$ and $A'$ are the areas of the boxes, the union is $A + A' - I$.
#
# **Worked example (the homework of the chapter).** One box is 2 wide and 2 high, $(0, 0, 2, 2)$. The other is 2 wide
# and 3 high, $(1, 1, 3, 4)$. Their intersection is a square of 1 by 1. The union is $4 + 6 - 1 = 9$, and the IoU is
# $1/9$.
#
# An object detector compares every prediction with every ground-truth box. Your function therefore takes two *sets* of
# boxes and returns a matrix. If you give the sets the shapes (N, 1, 4) and (1, M, 4), broadcasting compares all pairs
# without a loop.


# %% name="box_iou" role="solution"
def box_iou(boxes1, boxes2):
    """Compute the IoU of every box of one set with every box of another.

    boxes1: float tensor (N, 4), each box (x1, y1, x2, y2) with x1 < x2 and y1 < y2; N may be 0
    boxes2: float tensor (M, 4), boxes in the same format

    Returns a float tensor (N, M): rows belong to boxes1, columns to boxes2. Coordinates are
    continuous, so the width of a box is x2 - x1.
    """
    ### BEGIN SOLUTION: compute the intersections of all pairs by broadcasting, then their unions
    low = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(dim=2)
    area1 = (boxes1[:, 2:] - boxes1[:, :2]).prod(dim=1)
    area2 = (boxes2[:, 2:] - boxes2[:, :2]).prod(dim=1)
    union = area1[:, None] + area2[None, :] - inter
    return inter / union
    ### END SOLUTION


# %% name="check_box_iou" role="check"
check(box_iou)

# %% [markdown] name="boxes_figure_text"
# The next figure shows the ground-truth boxes of the first scene (solid, g0, g1, ...) and predicted boxes (dashed, p0,
# p1, ...). The predicted boxes are shifted and resized, they are in a different order, and one is missing. The matrix
# of IoUs shows which prediction belongs to which ground-truth box. Chapter 13 computes average precision from such a
# matrix.

# %% name="boxes_figure" role="show"
rng = np.random.default_rng(3)
gt_boxes = scene["boxes"]
noise = torch.from_numpy(rng.uniform(-4, 4, (len(gt_boxes), 4))).float()
pred_boxes = (gt_boxes + noise)[rng.permutation(len(gt_boxes))][1:]
ious = torch.as_tensor(use(box_iou)(pred_boxes, gt_boxes))
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
axes[0].imshow(scene["image"].permute(1, 2, 0), alpha=0.4)
for letter, boxes, style, colour in (("g", gt_boxes, "-", "black"), ("p", pred_boxes, "--", "#0072B2")):
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        axes[0].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=1.8))
        # a ground-truth box has its label at its top left corner, a predicted box at its bottom right corner
        corner = (x1, y1) if letter == "g" else (min(x2, scene["image"].shape[2]), y2)
        patch = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colour}
        axes[0].text(*corner, f"{letter}{i}", color=colour, ha="center", va="center", bbox=patch)
axes[0].set_axis_off()
axes[1].imshow(ious, cmap="cividis", vmin=0, vmax=1)
for (i, k), value in np.ndenumerate(ious.numpy()):
    axes[1].text(k, i, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.5 else "white")
axes[1].set_xticks(range(len(gt_boxes)), [f"g{k}" for k in range(len(gt_boxes))])
axes[1].set_yticks(range(len(pred_boxes)), [f"p{i}" for i in range(len(pred_boxes))])
axes[1].set(xlabel="ground-truth box", ylabel="predicted box", title="IoU")
best = [round(value, 2) for value in ious.max(1).values.tolist()]
show(fig, alt=f"Boxes on the scene, and the matrix of their IoUs; the largest IoU of each predicted box: {best}.")

# %% [markdown] name="giou_idea"
# ## 5. Generalised IoU (3 points)
#
# **Idea.** Boxes that do not overlap have IoU 0, whether they are near or far apart. The loss $1 - \text{IoU}$ is then
# constant, so its gradient is 0, and the network does not learn in which direction to move the box. One remedy is to
# add an $L_p$ loss to $1 - \text{IoU}$. Another remedy is generalised IoU (GIoU), which subtracts a penalty from the
# IoU: the fraction of the smallest enclosing box that neither box covers. (DETR combines both ideas: its box
# loss is a weighted sum of an L1 loss and a GIoU loss.)
#
# **Formula.** With the area $C$ of the smallest box that encloses both boxes, and the area $U$ of their union,
#
# $$\text{GIoU} = \text{IoU} - \frac{C - U}{C}$$
#
# GIoU is 1 for equal boxes, and it approaches $-1$ for boxes that are far apart. Rezatofighi et al. (2019) define GIoU
# for arbitrary convex shapes. For axis-aligned boxes, $C$ and $U$ follow directly from the coordinates.
#
# **Worked example.** The smallest box around the boxes of the homework is 3 wide and 4 high, so $C = 12$ and $U = 9$,
# and $\text{GIoU} = \tfrac19 - \tfrac3{12} = -\tfrac5{36} = -0.139$. GIoU is negative here, although the boxes
# overlap.


# %% name="giou" role="solution"
def giou(boxes1, boxes2):
    """Compute the generalised IoU of every box of one set with every box of another.

    boxes1: float tensor (N, 4), each box (x1, y1, x2, y2) with x1 < x2 and y1 < y2
    boxes2: float tensor (M, 4), boxes in the same format

    Returns a float tensor (N, M) with values from -1 to 1: rows belong to boxes1, columns to boxes2.
    """
    ### BEGIN SOLUTION: subtract from the IoU the fraction of the enclosing box that neither box covers
    a, b = boxes1[:, None], boxes2[None]
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(dim=-1)
    inter = sides.prod(dim=-1)
    union = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - inter
    return inter / union - (hull - union) / hull
    ### END SOLUTION


# %% name="check_giou" role="check"
check(giou)

# %% [markdown] name="giou_figure_text"
# In the next figure, gradient ascent on IoU (left) and on GIoU (right) changes the coordinates of a dashed box, from
# the same start. The solid box is the goal, and the numbers at the dashed boxes count the steps. The lower panel shows
# IoU and GIoU against the step. With IoU, the gradient is 0, so the box does not move at all. With GIoU, the box first
# grows until it covers the goal, and then shrinks until it matches the goal.

# %% name="giou_figure" role="show"
goal = torch.tensor([[4.0, 4.0, 12.0, 10.0]], dtype=torch.float64)


def climb(measure, steps=400, rate=12.0, h=0.01):
    """Maximise a measure by gradient ascent with a decreasing step size; the gradient is a central difference."""
    box, path = torch.tensor([[22.0, 12.0, 30.0, 20.0]], dtype=torch.float64), []
    for k in range(steps):
        path.append([*box[0].tolist(), float(measure(box, goal)[0][0])])
        up, down = (torch.as_tensor(measure(box + s * h * torch.eye(4), goal)) for s in (1, -1))
        box = box + rate * (1 - k / steps) * (up - down).reshape(1, 4) / (2 * h)
    return np.array(path)


fig, axes = plt.subplot_mosaic([["IoU", "GIoU"], ["plot", "plot"]], figsize=(8, 5.8), layout="constrained")
for ax, name, measure in ((axes["IoU"], "IoU", use(box_iou)), (axes["GIoU"], "GIoU", use(giou))):
    path = climb(measure)
    ax.add_patch(Rectangle((4, 4), 8, 6, fill=False, lw=2.5))
    for k in (0, 20, 60, 140, 399) if name == "GIoU" else (0,):  # no edge crosses the number of another box
        x1, y1, x2, y2, _ = path[k]
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="#D55E00", ls="--"))
        ax.text(x2 + 0.3, y2, k if name == "GIoU" else "all steps", color="#D55E00")
    ax.set(xlim=(0, 37), ylim=(24, 0), aspect="equal", title=f"gradient ascent on {name}")
    colour, style = {"IoU": ("#E69F00", "-"), "GIoU": ("#CC79A7", "--")}[name]
    axes["plot"].plot(path[:, 4], style, color=colour, label=f"{name}, final value {path[-1, 4]:.2f}")
axes["plot"].set(xlabel="step", ylabel="IoU or GIoU")
axes["plot"].legend()
show(
    fig,
    alt="Gradient ascent on IoU does not move the box. "
    "With GIoU, the box grows until it covers the goal, and finally matches it.",
)

# %% [markdown] name="boundary_idea"
# ## 6. Boundary F1 (2 points)
#
# **Idea.** Most pixels of a large object are in its interior and easy to predict. An outline that is wrong by three
# pixels therefore hardly changes its IoU. In some applications the outline is what matters, for example in surgery, or
# when you crop an object out of a photograph. Boundary F1 compares only the outlines.
#
# **Formula.** The *boundary* of a mask consists of those pixels of the mask of which at least one neighbour (above,
# below, left or right) is a pixel of the image outside the mask. How the mask continues beyond the border of the image
# is unknown, so the border of the image itself creates no boundary.
#
# - Precision $P$ is the fraction of predicted boundary pixels whose Euclidean distance to the nearest ground-truth
#   boundary pixel is at most `tolerance`.
# - Recall $R$ is the fraction of ground-truth boundary pixels whose Euclidean distance to the nearest predicted
#   boundary pixel is at most `tolerance`.
# - $F_1 = 2PR/(P + R)$, and $F_1 = 0$ if $P$ and $R$ are both 0.
#
# **Worked example.** Take two squares of 2 by 2 pixels, of which the second is shifted by one column. All four pixels
# of each square are boundary pixels. With tolerance 0, half of them are correct: $P = R = F_1 = 1/2$. With tolerance
# 1, all of them are correct: $F_1 = 1$.
#
# Two functions are useful. `scipy.ndimage.binary_erosion(mask, border_value=1)` removes exactly this boundary from a
# mask. `scipy.ndimage.distance_transform_edt(a)` computes the distance of each pixel to the nearest pixel where `a` is
# 0.


# %% name="boundary_f1" role="solution"
from scipy.ndimage import binary_erosion, distance_transform_edt


def boundary_f1(preds, target, tolerance):
    """Compute the F1 score of the boundary pixels of two masks.

    preds:     bool tensor (H, W), the predicted mask
    target:    bool tensor (H, W), the ground-truth mask
    tolerance: a distance in pixels, at least 0; a boundary pixel at exactly this distance still counts as correct

    Returns a number from 0 to 1. A mask has no boundary if it is empty or fills the image. If neither
    mask has a boundary, returns 1. If only one mask has a boundary, returns 0.
    """
    ### BEGIN SOLUTION: find both boundaries; handle masks without one; compute precision, recall and F1
    edges = []
    for mask in (preds.numpy(), target.numpy()):
        edges.append(mask & ~binary_erosion(mask, border_value=1))
    pred, true = edges
    if not pred.any() or not true.any():
        return 1.0 if pred.any() == true.any() else 0.0
    p = (distance_transform_edt(~true)[pred] <= tolerance).mean()
    r = (distance_transform_edt(~pred)[true] <= tolerance).mean()
    return float(2 * p * r / (p + r)) if p + r > 0 else 0.0
    ### END SOLUTION


# %% name="check_boundary_f1" role="check"
check(boundary_f1)

# %% [markdown] name="boundary_figure_text"
# The next figure shows two predictions of a disc, whose ground-truth outline is orange. One prediction is too small on
# all sides, and a piece is missing in the other. Their IoUs are nearly equal, so IoU does not distinguish these two
# errors. The curves of boundary F1 against the tolerance distinguish them.

# %% name="boundary_figure" role="show"
y, x = torch.meshgrid(torch.arange(90), torch.arange(90), indexing="ij")
disc = (y - 45) ** 2 + (x - 45) ** 2 < 36**2
thin = (y - 45) ** 2 + (x - 45) ** 2 < 33**2
bitten = disc & ~((y - 45) ** 2 + (x - 76) ** 2 < 18.25**2)
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
summary, overlap, outline_score = [], use(iou_dice), use(boundary_f1)
for ax, name, mask, style in ((axes[0], "too small", thin, "o-"), (axes[1], "piece missing", bitten, "s--")):
    value = float(overlap(mask, disc)[0])
    ax.imshow(mask, cmap="Greys", vmax=2)
    ax.contour(disc, levels=[0.5], colors="#D55E00")
    ax.set_title(f"{name}: IoU {value:.3f}", fontsize=10)
    ax.set_axis_off()
    scores = [float(outline_score(mask, disc, t)) for t in range(7)]
    axes[2].plot(range(7), scores, style, label=name)
    summary.append(f"{name}: IoU {value:.3f}, F1 at 0 to 6 pixels {np.round(scores, 2).tolist()}")
axes[2].set(xlabel="tolerance (pixels)", ylabel="boundary F1", ylim=(0, 1.05))
axes[2].legend()
show(fig, alt=f"Two incorrect discs, and their boundary F1 against the tolerance. {'; '.join(summary)}.")

# %% [markdown] name="widget_text"
# ## Move a box
#
# Drag the dashed box by the circle in its centre, and resize it by the circle at its corner, or use the sliders. The
# arrows show the gradients of IoU and GIoU with respect to two of its corners. At first the boxes do not overlap: IoU
# has no arrow, and its curve on the right is flat. Then make the dashed box smaller than the fixed box, place it inside
# the fixed box, and move it without leaving the fixed box. How do IoU and GIoU change, and why?

# %% name="boxes_widget" role="widget"
from segedu.teaching.widgets.metrics import explorer

explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# Metrics are computed over whole data sets, and a single image of Cityscapes has two million pixels. The next cell
# measures how fast your `confusion_matrix` counts random labels on the CPU and, if a GPU is available, on the GPU.

# %% name="scale" role="train"
import time

from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
BATCHES, SHAPE = {"cpu": (10, (4, 256, 256)), "gpu": (50, (8, 1024, 1024))}[SCALE]
count_pairs = use(confusion_matrix)


def speed(device, batches):
    """Return the throughput in million pixels per second. Generating the labels is not timed."""
    generator = torch.Generator(device).manual_seed(0)
    pixels, seconds = 0, 0.0
    for _ in tqdm(range(batches), desc=f"counting on {device}"):
        labels = torch.randint(0, 19, (2, *SHAPE), generator=generator, device=device)
        start = time.perf_counter()
        pixels += int(torch.as_tensor(count_pairs(*labels, 19)).sum())  # int() waits for the GPU
        seconds += time.perf_counter() - start
    return pixels / seconds / 1e6


print(f"CPU: {speed('cpu', BATCHES if SCALE == 'cpu' else 2):.0f} million pixels per second, with 19 classes")
if SCALE == "gpu":
    try:
        print(f"GPU: {speed('cuda', BATCHES):.0f} million pixels per second, with 19 classes")
    except (RuntimeError, TypeError) as error:  # a NumPy solution is correct, but runs on the CPU only
        print(f"Your function runs on the CPU only: {type(error).__name__}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** A model predicts "background" at every pixel. There is one other class, and 97 % of the pixels are background.
# What are the pixel accuracy and the mean IoU?
#
# <details><summary>Answer</summary>
#
# The accuracy is 0.97. The IoU of the background is 97/100, and the IoU of the other class is 0/3, so the mean IoU is
# 0.485.
#
# </details>
#
# **2.** Find the error: "Dice and IoU rank images in the same order, so they rank models in the same order."
#
# <details><summary>Answer</summary>
#
# The first part is true, because D = 2J/(1+J) increases with J. The conclusion is wrong, because models are ranked by
# a mean over images. Model A with J = 0.5 on both of two images has the mean IoU 0.5 and the mean Dice 0.667. Model B
# with J = 0.1 and 0.91 has the larger mean IoU, 0.505, but the smaller mean Dice, 0.567.
#
# </details>
#
# **3.** A class occurs in no image of the test set, but your model predicts it at 12 pixels. What is its IoU, and does
# it count in the mean?
#
# <details><summary>Answer</summary>
#
# Its IoU is 0/12 = 0, and it counts. Only a class that occurs neither in the ground truth nor in the prediction is
# excluded.
#
# </details>
#
# **4.** A small box lies completely inside a large box. Compare their IoU with their GIoU.
#
# <details><summary>Answer</summary>
#
# They are equal. Both the enclosing box and the union are the large box, so no part of the enclosing box is uncovered.
#
# </details>
#
# **5.** Why can a network learn from the loss L1 + (1 - IoU), but not from 1 - IoU alone, when the boxes do not
# overlap?
#
# <details><summary>Answer</summary>
#
# L1 has a non-zero gradient at any distance, and this gradient moves the four coordinates towards the goal. As soon as
# the boxes overlap, the IoU term measures the error relative to the size of the boxes.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 4](../course/04-metrics/index.md) contain the reading list.
# - Lab 6 trains a U-Net and reports the mean IoU that you implemented.
# - Chapter 7 converts these metrics to losses. Chapter 13 builds average precision and panoptic quality on the IoU of
#   boxes and masks.
#
# Before you hand in this notebook, save it, and run `segedu check labs/04_metrics.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
