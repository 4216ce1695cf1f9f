# %% [markdown] name="goals"
# # Lab 4: Metrics I, pixels and boxes
#
# A metric is the number by which two results are compared. Choose it badly and a model that answers
# "background" everywhere wins. In this lab you write six of them, each in a few lines.
#
# **After this lab you can**
#
# - count a confusion matrix, and read every pixel metric off it;
# - say why accuracy misleads, and what a mean IoU is a mean of;
# - compare boxes by IoU and GIoU, and say where each has no gradient;
# - measure outlines where areas hide the error.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises. **Before**: the pages of
# [chapter 4](../course/04-metrics/index.md).
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.
#
# Your functions may call other libraries, but not functions that are the exercise itself, such as
# `torchvision.ops.box_iou`: checks and grading hide them
# ([which ones](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One scene, one prediction
#
# Four classes: background, circle, square, triangle. The "prediction" is the truth with typical faults: everything
# has moved by a pixel or two, one shape is missed, one is called by another name.

# %% name="scene" role="show"
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.viz import compare, show


def predict(scene, seed):
    """The truth with faults: one shape missed, one renamed, all of it moved."""
    rng = np.random.default_rng(seed)
    preds, label_map = scene["semantic"].clone(), scene["label_map"]
    order = rng.permutation(len(scene["labels"])) + 1
    preds[label_map == order[0]] = 0
    preds[label_map == order[-1]] = preds[label_map == order[-1]] % 3 + 1
    down, right = rng.integers(1, 3, 2)
    moved = torch.zeros_like(preds)
    moved[down:, right:] = preds[:-down, :-right]
    return moved


scene = draw_shapes(seed=38, size=(80, 80), count=(4, 5))
target, preds = scene["semantic"], predict(scene, seed=1)
alt = "A scene of coloured shapes, its truth, a prediction with faults, and the errors in three patterns."
show(compare(scene["image"], target, preds), alt=alt)

# %% [markdown] name="matrix_idea"
# ## 1. The confusion matrix
#
# **Idea.** Every pixel has a true class $i$ and a predicted class $j$. Count the pairs. Rows are the truth, columns
# the prediction, so right pixels lie on the diagonal. Nothing about *where* a pixel lies is kept. That is the price.
#
# **Formula.** $M_{ij} = \#\{\text{pixels with truth } i \text{ and prediction } j\}$. Pixels whose truth is the
# ignored label (often 255: nobody could say what it is) are not counted, whatever is predicted there.
#
# **By hand.** Six pixels, two classes:
#
# | truth | 0 | 0 | 0 | 1 | 1 | 255 |
# |---|---|---|---|---|---|---|
# | prediction | 0 | 0 | 1 | 1 | 0 | 1 |
#
# The matrix is $\begin{pmatrix} 2 & 1 \\ 1 & 1 \end{pmatrix}$: five pixels, because the last is ignored. Two zeros
# stayed zero, one zero became one, and so on.
#
# A loop over pixels is right, and slow. Faster: give each pair its own number and count how often each number occurs.


# %% name="confusion_matrix" role="solution"
def confusion_matrix(preds, target, num_classes, ignore_index=None):
    """Count the pixels of each (true class, predicted class).

    preds:        int64 tensor of any shape, predicted classes 0 to num_classes - 1
    target:       int64 tensor of the same shape, true classes
    num_classes:  K
    ignore_index: pixels whose target has this value are not counted; None: all count.
                  It may be 255, or one of the classes.

    Returns a (K, K) tensor of integers: rows truth, columns prediction. It has K rows and columns
    even if a class occurs nowhere. Do not change the arguments.
    """
    ### BEGIN SOLUTION: leave out the ignored pixels, then count the pairs (truth, prediction)
    if ignore_index is not None:
        counted = target != ignore_index
        preds, target = preds[counted], target[counted]
    pair = target.flatten() * num_classes + preds.flatten()
    return torch.bincount(pair, minlength=num_classes**2).reshape(num_classes, num_classes)
    ### END SOLUTION


# %% name="check_confusion_matrix" role="check"
check(confusion_matrix)

# %% [markdown] name="matrix_figure_text"
# The matrix of the scene above. Which row shows the missed shape, and which the renamed one?

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
ax.set(xlabel="prediction", ylabel="truth", title="pixels")
show(fig, alt=f"Confusion matrix of four classes as a grid of counts: {matrix.tolist()}.")

# %% [markdown] name="overlap_idea"
# ## 2. IoU and Dice
#
# **Idea.** Take one class, or a mask. What do prediction and truth share, compared with what either covers?
#
# **Formula.** With TP the pixels in both masks, FP those only predicted, FN those only true:
#
# $$J = \frac{TP}{TP + FP + FN} \qquad D = \frac{2\,TP}{2\,TP + FP + FN} = \frac{2J}{1 + J}$$
#
# True negatives, the background that both leave out, are in neither. So a larger image does not make you better.
#
# **By hand.** Masks of 4 and 6 pixels share 1 pixel. The union has $4 + 6 - 1 = 9$ pixels: $J = 1/9$. The areas sum
# to 10: $D = 2/10$. And $2 \cdot \tfrac19 / (1 + \tfrac19) = 0.2$.
#
# **Two empty masks** agree perfectly. Here both values are 1 then. If only one is empty, both are 0.


# %% name="iou_dice" role="solution"
def iou_dice(preds, target):
    """IoU and Dice of two masks.

    preds:  bool tensor (H, W), the predicted mask
    target: bool tensor (H, W), the true mask

    Returns the tuple (iou, dice), two numbers from 0 to 1. Both masks empty: (1, 1).
    """
    ### BEGIN SOLUTION: intersection, union and sum of areas, and the case of two empty masks
    inter = (preds & target).sum().item()
    areas = preds.sum().item() + target.sum().item()
    if areas == 0:
        return 1.0, 1.0
    return inter / (areas - inter), 2 * inter / areas
    ### END SOLUTION


# %% name="check_iou_dice" role="check"
check(iou_dice)

# %% [markdown] name="overlap_figure_text"
# Two discs slide apart. Each step gives one point of the curve $D = 2J/(1+J)$: Dice is never the smaller number, and
# both rank two images in the same order. (Their averages over images need not.) A paper that reports Dice looks
# better than one that reports IoU of the same masks.

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
axes[0].plot(j, d, "o", color="#D55E00", label="the discs")
axes[0].set(xlabel="IoU (J)", ylabel="Dice (D)", aspect="equal")
axes[0].legend()
axes[1].plot(range(0, 44, 4), j, "s-", color="#E69F00", label="IoU")
axes[1].plot(range(0, 44, 4), d, "o--", color="#009E73", label="Dice")
axes[1].set(xlabel="shift (pixels); both discs have radius 20", ylabel="value")
axes[1].legend()
show(
    fig,
    alt="Left: Dice against IoU, a curve above the diagonal with the points on it. Right: both fall with the shift.",
)

# %% [markdown] name="mean_idea"
# ## 3. The mean IoU of a data set
#
# **Idea.** Classes are averaged, not pixels: a rare class weighs as much as a frequent one. But first the counts of
# *all* images are added. The mean of the images' own values is another number, in which a small or easy image
# weighs as much as any other.
#
# **Formula.** Add the confusion matrices of the images to one matrix $M$. For class $k$
#
# $$J_k = \frac{M_{kk}}{\sum_j M_{kj} + \sum_i M_{ik} - M_{kk}}$$
#
# and the mean IoU is the mean of $J_k$ over the classes that occur. A class that is neither in the truth nor in the
# prediction has 0/0: it is left out, from the sum and from the number of classes. A class that is predicted but never
# true has IoU 0, and counts.
#
# **By hand.** Two images, classes 0 and 1:
# $\begin{pmatrix} 8 & 0 \\ 0 & 0 \end{pmatrix}$ and $\begin{pmatrix} 1 & 1 \\ 1 & 1 \end{pmatrix}$.
# Together $\begin{pmatrix} 9 & 1 \\ 1 & 1 \end{pmatrix}$: $J_0 = 9/11$, $J_1 = 1/3$, mean $19/33 = 0.576$. Image by
# image: $1$ (only class 0 occurs) and $1/3$, mean $0.667$.


# %% name="miou" role="solution"
def miou(matrices):
    """Mean IoU of a data set.

    matrices: int64 tensor (B, K, K), one confusion matrix for each image, rows truth

    Returns one number: the mean over the classes that occur (in the truth or in the prediction of
    any image) of the IoU of all images together. Nothing counted at all: float("nan").
    """
    ### BEGIN SOLUTION: add the matrices, one IoU a class, mean over the classes whose union is not 0
    total = matrices.sum(dim=0).double()
    inter = total.diagonal()
    union = total.sum(dim=0) + total.sum(dim=1) - inter
    present = union > 0
    return (inter[present] / union[present]).mean().item()
    ### END SOLUTION


# %% name="check_miou" role="check"
check(miou)

# %% [markdown] name="mean_figure_text"
# **Why not accuracy?** One small shape on a large background, three predictions. Pixel accuracy is the share of
# pixels that are right. Look at what it says about the second picture.

# %% name="accuracy_figure" role="show"
small = draw_shapes(seed=3, size=(80, 120), count=1)
truth = small["semantic"]
moved = torch.roll(truth, shifts=(4, 4), dims=(0, 1))
answers = {"moved by 4 pixels": moved, "all background": torch.zeros_like(truth), "right": truth}
fig, axes = plt.subplots(1, 4, figsize=(11, 2.4), layout="constrained")
axes[0].imshow(small["image"].permute(1, 2, 0))
axes[0].set_title("image", fontsize=9)
said, count_pairs, mean_iou = [], use(confusion_matrix), use(miou)
for ax, (name, answer) in zip(axes[1:], answers.items(), strict=True):
    counts = torch.as_tensor(count_pairs(answer, truth, 4))
    accuracy, mean = counts.diagonal().sum() / counts.sum(), float(mean_iou(counts[None]))
    ax.imshow(answer, cmap="cividis", vmin=0, vmax=3, interpolation="nearest")
    ax.contour(truth > 0, levels=[0.5], colors="white", linestyles=":")
    ax.set_title(f"{name}\naccuracy {accuracy:.3f}, mean IoU {mean:.3f}", fontsize=9)
    said.append(f"{name}: accuracy {accuracy:.3f}, mean IoU {mean:.3f}")
for ax in axes:
    ax.set_axis_off()
show(fig, alt=f"A small shape and three predictions, the truth dotted. {'; '.join(said)}.")

# %% [markdown] name="dataset_figure_text"
# **Of all images together, or image by image?** Forty scenes with the faults of the first picture. The bars are the
# images' own mean IoU, sorted. The two lines are the two answers to "what is the mean IoU?". Say which one you report.

# %% name="dataset_figure" role="show"
scenes = [draw_shapes(seed=(4, i), size=(48, 64), count=(2, 6)) for i in range(40)]
pairs = [(predict(s, seed=i), s["semantic"]) for i, s in enumerate(scenes)]
matrices = torch.stack([torch.as_tensor(count_pairs(*pair, 4)) for pair in pairs])
own = sorted(float(mean_iou(m[None])) for m in matrices)
together, mean_of_images = float(mean_iou(matrices)), float(np.mean(own))
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.bar(range(40), own, color="#56B4E9", label="one image")
ax.axhline(together, color="black", label=f"all counts together: {together:.3f}")
ax.axhline(mean_of_images, color="#D55E00", ls="--", label=f"mean of the images: {mean_of_images:.3f}")
ax.set(xlabel="image, sorted", ylabel="mean IoU", ylim=(0, 1.05))
ax.legend(loc="upper left")
alt = (
    f"Mean IoU of 40 images as bars; all counts together give {together:.3f}, the mean of images {mean_of_images:.3f}."
)
show(fig, alt=alt)

# %% [markdown] name="boxes_idea"
# ## 4. IoU of boxes
#
# **Picture.** In both panels the dashed box is one pixel off in each coordinate. The distance of the numbers, an
# L$_p$ error, is the same. The overlap is not.

# %% name="boxes_picture" role="show"
from matplotlib.patches import Rectangle

fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for ax, side in zip(axes, (3, 15), strict=True):
    for shift, colour, style in ((0, "black", "-"), (1, "#0072B2", "--")):
        ax.add_patch(Rectangle((2 + shift, 2 + shift), side, side, fill=False, ec=colour, ls=style, lw=2))
    shared = (side - 1) ** 2
    ax.set(xlim=(0, 20), ylim=(20, 0), aspect="equal")
    ax.set_title(f"sides of {side}: L1 error 4, IoU {shared}/{2 * side**2 - shared}", fontsize=10)
alt = "Two pairs of boxes, small and large, each one pixel apart in x and y: the large pair overlaps far more."
show(fig, alt=alt)

# %% [markdown] name="boxes_formula"
# **Idea.** A box is a mask with four numbers: $(x_1, y_1, x_2, y_2)$. Its IoU needs no pixels. Coordinates are
# continuous: a box from 0 to 2 is 2 wide.
#
# **Formula.** The intersection reaches from the larger $x_1$ to the smaller $x_2$. Its width is
# $\max(0, \min(x_2, x_2') - \max(x_1, x_1'))$, its height likewise. The union is $A + A' - I$.
#
# **By hand (the homework).** A box of 2 by 2 at $(0, 0, 2, 2)$ and one of 2 by 3 at $(1, 1, 3, 4)$. They share a
# square of 1 by 1. Union: $4 + 6 - 1 = 9$. IoU: $1/9$.
#
# Detectors compare every prediction with every true box. So the function takes two *sets* and returns a table. With
# shapes (N, 1, 4) and (1, M, 4) broadcasting does it without a loop.


# %% name="box_iou" role="solution"
def box_iou(boxes1, boxes2):
    """IoU of every box of one set with every box of another.

    boxes1: float tensor (N, 4), each (x1, y1, x2, y2) with x1 < x2 and y1 < y2; N may be 0
    boxes2: float tensor (M, 4), likewise

    Returns a float tensor (N, M). Coordinates are continuous, so a box is x2 - x1 wide.
    """
    ### BEGIN SOLUTION: intersection of all pairs by broadcasting, then their union
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
# True boxes of the first scene (solid) and predicted ones (dashed: moved and resized, in another order, one lost).
# The table says who belongs to whom. Chapter 13 builds average precision on it.

# %% name="boxes_figure" role="show"
rng = np.random.default_rng(3)
true_boxes = scene["boxes"]
noise = torch.from_numpy(rng.uniform(-4, 4, (len(true_boxes), 4))).float()
found = (true_boxes + noise)[rng.permutation(len(true_boxes))][1:]
table = torch.as_tensor(use(box_iou)(found, true_boxes))
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
axes[0].imshow(scene["image"].permute(1, 2, 0), alpha=0.6)
for letter, boxes, style, colour in (("t", true_boxes, "-", "black"), ("p", found, "--", "#0072B2")):
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        axes[0].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=1.8))
        axes[0].text(x1 if letter == "t" else x2, y1, f"{letter}{i}", color=colour, fontsize=9)
axes[0].set_axis_off()
axes[1].imshow(table, cmap="cividis", vmin=0, vmax=1)
for (i, k), value in np.ndenumerate(table.numpy()):
    axes[1].text(k, i, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.5 else "white")
axes[1].set_xticks(range(len(true_boxes)), [f"t{k}" for k in range(len(true_boxes))])
axes[1].set_yticks(range(len(found)), [f"p{i}" for i in range(len(found))])
axes[1].set(xlabel="true box", ylabel="predicted box", title="IoU")
best = [round(value, 2) for value in table.max(1).values.tolist()]
show(fig, alt=f"Boxes on the scene and the table of their IoU; the largest in each row: {best}.")

# %% [markdown] name="giou_idea"
# ## 5. Generalised IoU
#
# **Idea.** Boxes that do not overlap have IoU 0, near or far. A network that is trained on $1 - \text{IoU}$ gets no
# gradient there and never learns where to go. One cure: an L$_p$ loss plus $(1 - \text{IoU})$. Another: look at the
# smallest box around both, and subtract the share of it that is empty. (DETR uses both: L1 and this measure.)
#
# **Formula.** With $C$ the area of the enclosing box and $U$ the union,
#
# $$\text{GIoU} = \text{IoU} - \frac{C - U}{C}$$
#
# It lies between $-1$ (far apart) and $1$ (equal). The paper defines it for convex shapes of any kind; this closed form
# is for axis-aligned boxes.
#
# **By hand.** The boxes of the homework lie in a box of 3 by 4: $C = 12$, $U = 9$, so
# $\text{GIoU} = \tfrac19 - \tfrac3{12} = -\tfrac5{36} = -0.139$. Negative, although they overlap.


# %% name="giou" role="solution"
def giou(boxes1, boxes2):
    """Generalised IoU of every box of one set with every box of another.

    boxes1: float tensor (N, 4), each (x1, y1, x2, y2) with x1 < x2 and y1 < y2
    boxes2: float tensor (M, 4), likewise

    Returns a float tensor (N, M) of values from -1 to 1.
    """
    ### BEGIN SOLUTION: IoU of all pairs, minus the share of the enclosing box that neither box covers
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
# Now let a box walk. From the same start it climbs the IoU, or the GIoU, by its numerical gradient. With IoU it does
# not move at all. With GIoU it first grows until it covers the other box, then shrinks onto it.

# %% name="giou_figure" role="show"
goal = torch.tensor([[4.0, 4.0, 12.0, 10.0]], dtype=torch.float64)


def climb(measure, steps=400, rate=12.0, h=0.01):
    """Gradient ascent with shrinking steps. The gradient comes from differences, so any function will do."""
    box, path = torch.tensor([[22.0, 12.0, 30.0, 20.0]], dtype=torch.float64), []
    for k in range(steps):
        path.append([*box[0].tolist(), float(measure(box, goal)[0][0])])
        up, down = (torch.as_tensor(measure(box + s * h * torch.eye(4), goal)) for s in (1, -1))
        box = box + rate * (1 - k / steps) * (up - down).reshape(1, 4) / (2 * h)
    return np.array(path)


fig, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
for ax, name, measure in ((axes[0], "IoU", use(box_iou)), (axes[1], "GIoU", use(giou))):
    path = climb(measure)
    ax.add_patch(Rectangle((4, 4), 8, 6, fill=False, lw=2.5))
    for k in (0, 20, 60, 120, 399) if name == "GIoU" else (0,):
        x1, y1, x2, y2, _ = path[k]
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="#D55E00", ls="--"))
        ax.text(x2 + 0.3, y2, k if name == "GIoU" else "all steps", color="#D55E00", fontsize=8)
    ax.set(xlim=(0, 37), ylim=(24, 0), aspect="equal", title=f"climbing {name}")
    colour, style = {"IoU": ("#E69F00", "-"), "GIoU": ("#CC79A7", "--")}[name]
    axes[2].plot(path[:, 4], style, color=colour, label=f"{name}, last {path[-1, 4]:.2f}")
axes[2].set(xlabel="step", ylabel="the measure itself")
axes[2].legend()
show(fig, alt="Climbing IoU the box stays where it is; climbing GIoU it grows towards the goal and ends on it.")

# %% [markdown] name="boundary_idea"
# ## 6. Boundary F1
#
# **Idea.** Inside a large object nearly all pixels are easy. An outline that is three pixels off costs it little IoU.
# If the outline matters (a surgeon, a cut-out), compare outlines.
#
# **Formula.** The *boundary* of a mask is its pixels that have a pixel outside the mask above, below, left or right of
# them. Beyond the border of the image nothing is known, so it makes no boundary.
#
# - Precision $P$: the share of predicted boundary pixels at most `tolerance` pixels, in a straight line, from a true one.
# - Recall $R$: the share of true boundary pixels at most that far from a predicted one.
# - $F_1 = 2PR/(P + R)$, and 0 if both are 0.
#
# **By hand.** Two squares of 2 by 2 pixels, one column apart. All four pixels of each are boundary. With tolerance 0
# half of them meet: $P = R = F_1 = 1/2$. With tolerance 1 all do: $F_1 = 1$.
#
# Useful: `scipy.ndimage.binary_erosion(mask, border_value=1)` takes one layer of pixels off a mask, but none at the
# border of the image. `scipy.ndimage.distance_transform_edt(a)` is the distance of each pixel to the nearest pixel where
# `a` is 0.


# %% name="boundary_f1" role="solution"
from scipy.ndimage import binary_erosion, distance_transform_edt


def boundary_f1(preds, target, tolerance):
    """F1 of the boundary pixels of two masks.

    preds:     bool tensor (H, W), the predicted mask
    target:    bool tensor (H, W), the true mask
    tolerance: a radius in pixels, at least 0; a distance equal to it still counts

    Returns a number from 0 to 1. Neither mask has a boundary (empty, or filling the image): 1.
    Only one has a boundary: 0.
    """
    ### BEGIN SOLUTION: the two boundaries, precision and recall by distances, and the empty cases
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
# Two predictions with nearly the same IoU: one is a little too small all round, the other has a piece bitten out.
# The IoU cannot tell them apart. Boundary F1 against the tolerance can.

# %% name="boundary_figure" role="show"
y, x = torch.meshgrid(torch.arange(90), torch.arange(90), indexing="ij")
disc = (y - 45) ** 2 + (x - 45) ** 2 < 36**2
thin = (y - 45) ** 2 + (x - 45) ** 2 < 33**2
bitten = disc & ~((y - 45) ** 2 + (x - 76) ** 2 < 18.25**2)
fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
said, overlap, outline_score = [], use(iou_dice), use(boundary_f1)
for ax, name, mask, style in ((axes[0], "too small", thin, "o-"), (axes[1], "bitten", bitten, "s--")):
    value = float(overlap(mask, disc)[0])
    ax.imshow(mask, cmap="Greys", vmax=2)
    ax.contour(disc, levels=[0.5], colors="#D55E00")
    ax.set_title(f"{name}: IoU {value:.3f}", fontsize=10)
    ax.set_axis_off()
    scores = [float(outline_score(mask, disc, t)) for t in range(7)]
    axes[2].plot(range(7), scores, style, label=name)
    said.append(f"{name}: IoU {value:.3f}, F1 at 0 to 6 pixels {np.round(scores, 2).tolist()}")
axes[2].set(xlabel="tolerance (pixels)", ylabel="boundary F1", ylim=(0, 1.05))
axes[2].legend()
show(fig, alt=f"Two faulty discs and their boundary F1 by tolerance. {'; '.join(said)}.")

# %% [markdown] name="widget_text"
# ## Move a box
#
# Move and resize the dashed box. Watch the arrows: they are the gradients by its two corners. While its centre is in
# the hatched zone, IoU has no arrow. Then put the box inside the fixed one: what happens to IoU and GIoU, and why?

# %% name="boxes_widget" role="widget"
from segedu.teaching.widgets.metrics import explorer

explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# Metrics run over whole data sets: Cityscapes has two million pixels in one image. This cell counts random labels with
# the confusion matrix above, on the CPU and, if there is one, on the GPU.

# %% name="scale" role="train"
import time

from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
BATCHES, SHAPE = {"cpu": (10, (4, 256, 256)), "gpu": (50, (8, 1024, 1024))}[SCALE]
count_pairs = use(confusion_matrix)


def speed(device, batches):
    """Million pixels a second; drawing the labels is not timed."""
    generator = torch.Generator(device).manual_seed(0)
    pixels, seconds = 0, 0.0
    for _ in tqdm(range(batches), desc=f"counting on {device}"):
        labels = torch.randint(0, 19, (2, *SHAPE), generator=generator, device=device)
        start = time.perf_counter()
        pixels += int(torch.as_tensor(count_pairs(*labels, 19)).sum())  # int() waits for the GPU
        seconds += time.perf_counter() - start
    return pixels / seconds / 1e6


print(f"CPU: {speed('cpu', BATCHES if SCALE == 'cpu' else 2):.0f} million pixels of 19 classes a second")
if SCALE == "gpu":
    try:
        print(f"GPU: {speed('cuda', BATCHES):.0f} million pixels of 19 classes a second")
    except (RuntimeError, TypeError) as error:  # a numpy solution is right, but stays on the CPU
        print(f"Your function runs on the CPU only: {type(error).__name__}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** A model answers "background" everywhere. The background has 97 % of the pixels; there is one other class.
# Pixel accuracy? Mean IoU?
#
# <details><summary>Answer</summary>
# Accuracy 0.97. The background's IoU is 97/100, the other's 0/3: mean 0.485.
# </details>
#
# **2.** Find the slip: "Dice and IoU rank images in the same order, so they rank models in the same order."
#
# <details><summary>Answer</summary>
# For a single pair of masks yes: D = 2J/(1+J) grows with J. Averages over images may differ. Model A with J = 0.5
# and 0.5 has mean Dice 0.667; model B with J = 0.1 and 0.91 has the larger mean IoU, 0.505, but mean Dice 0.567.
# </details>
#
# **3.** A class is in no image of the test set, but your model predicts it on 12 pixels. Which IoU has it, and does
# it count in the mean?
#
# <details><summary>Answer</summary>
# 0/12 = 0, and it counts. Only a class in neither truth nor prediction is left out.
# </details>
#
# **4.** A small box lies wholly inside a large one. Compare IoU and GIoU.
#
# <details><summary>Answer</summary>
# They are equal: the enclosing box is the large box, and so is the union; nothing is empty.
# </details>
#
# **5.** Why does the loss L1 + (1 - IoU) train where 1 - IoU alone does not?
#
# <details><summary>Answer</summary>
# L1 pulls the four numbers towards the goal at any distance. IoU makes the size of an error relative to the box.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 4](../course/04-metrics/index.md), with the reading list.
# - Lab 6 trains a U-Net and reports the mean IoU that you wrote.
# - Chapter 7 turns these metrics into losses; chapter 13 builds average precision and panoptic quality on box and
#   mask IoU.
