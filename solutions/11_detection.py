# %% [markdown] name="title"
# # Lab 11: Boxes, from sliding windows to Faster R-CNN
#
# Where is an object, and what is it? In this chapter, a detector predicts a box and a class for each object. It starts
# from thousands of fixed boxes that cover the image. A network predicts which of these boxes contain an object and how
# each box should be shifted and scaled. Finally, the detector removes duplicates. You write these steps, and at the end
# you train a small Faster R-CNN that uses them.
#
# **Time**: 80 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 11](../course/11-detection/index.md), which you can read first or alongside this lab;
# selective search from chapter 2; and lab 4 for the IoU. The mathematics is logarithms and exponentials.
#
# Run the cells from top to bottom. Until a function of yours passes its check, later cells use the library's version of
# it, so the notebook always runs to its end.
#
# Your functions may call other libraries, but not functions that are the exercise itself, such as
# `torchvision.ops.nms`: checks and grading hide them ([which ones](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - generate anchors for an image, and state which objects they cover;
# - encode a box as four deltas relative to an anchor, and decode deltas again;
# - decide which anchors are matched with an object, which are background, and which are ignored;
# - remove duplicate detections by non-maximum suppression;
# - merge the levels of a feature pyramid, and choose the level of a box;
# - explain which repeated computation Fast R-CNN and Faster R-CNN avoid, and train a small Faster R-CNN.
#
# How would you find the objects in the following image? The oldest method slides windows over the image and classifies
# each window as object or background. A later method groups similar pixels and classifies only the bounding boxes of
# these groups. This is **selective search** from chapter 2, and its boxes are called **proposals**.

# %% name="picture" role="show"
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.ops.boxes import box_iou
from segedu.unsupervised.selective_search import FAST, selective_search
from segedu.viz import palette, show


def draw_boxes(ax, boxes, colour="#D55E00", **style):
    """Draw boxes (N, 4) in image coordinates, in which the first pixel extends from 0 to 1."""
    for left, top, right, bottom in torch.as_tensor(boxes).tolist():
        ax.add_patch(plt.Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, **style))


def draw_image(ax, image, title, **style):
    height, width = image.shape[-2:]
    ax.imshow(image.permute(1, 2, 0).clip(0, 1), extent=(0, width, height, 0), **style)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)


scene = draw_shapes(4, size=(128, 128), count=(5, 7))
image, gt_boxes, labels = (scene[key].as_subclass(torch.Tensor) for key in ("image", "boxes", "labels"))
windows = []
for side in (32, 40, 48):
    left, top = torch.cartesian_prod(*[torch.arange(0, 128 - side + 1, 4)] * 2).T
    windows.append(torch.stack([left, top, left + side, top + side], dim=1).float())
windows, proposals = torch.cat(windows), selective_search(image, FAST)
print(f"Possible boxes with integer coordinates: {(128 * 129 // 2) ** 2:,}")
fig, axes = plt.subplots(1, 3, figsize=(8.7, 3.4), layout="constrained")
draw_image(axes[0], image, f"{len(gt_boxes)} objects")
draw_boxes(axes[0], gt_boxes, linewidth=2)
for ax, name, boxes in zip(axes[1:], ("windows of three sizes", "proposals"), (windows, proposals)):
    covered = int((box_iou(gt_boxes, boxes).amax(dim=1) >= 0.5).sum())
    draw_image(ax, image, f"{len(boxes)} {name}:\n{covered} objects covered", alpha=0.6)
    draw_boxes(ax, boxes[:: 1 + len(boxes) // 100], "#0072B2", linewidth=0.6)  # draw about 100 of them
show(
    fig,
    alt=f"{len(gt_boxes)} objects with their ground-truth boxes; some of {len(windows)} windows; some of "
    f"{len(proposals)} proposals.",
)

# %% [markdown] name="picture_after"
# An object counts as covered if at least one box has an IoU of at least 1/2 with it. Compare the number of boxes: there
# are many windows, although they are only squares of three sizes. There are far fewer proposals, but the grouping takes
# time, and it cannot learn what an object is.
#
# **Faster R-CNN** returns to a grid of windows and calls them **anchors**. A single network classifies all anchors at
# once and predicts how to shift and scale each of them. Therefore the anchors do not need to fit the objects exactly.
# An anchor only has to be near an object.

# %% [markdown] name="make_anchors_idea"
# ## 1. Anchors (3 points)
#
# **Idea.** Each cell of a feature map corresponds to a square of `stride` x `stride` pixels of the image. Several boxes
# of different sizes and aspect ratios are centred on each cell. These boxes are the anchors. They are the same for all
# images.
#
# **Formula.** The cell in row $i$ and column $j$ has its centre at
#
# $$ \begin{aligned}
#    x &= (j + \tfrac12) \cdot \text{stride}, \\
#    y &= (i + \tfrac12) \cdot \text{stride} .
#    \end{aligned} $$
#
# An anchor of size $s$ and aspect ratio $r$ has the area $s^2$ and $h / w = r$, so
#
# $$ w = s / \sqrt r, \qquad h = s \sqrt r . $$
#
# **Worked example.** Let the stride be 8, the size 4 and the aspect ratio 4. Then $w = 4/2 = 2$ and
# $h = 4 \cdot 2 = 8$. The cell in row 0 and column 1 has its centre at (12, 4), so the anchor is (11, 0, 13, 8). In
# this lab, the aspect ratio is height over width, and the centre of the anchor is the centre of the cell. Other
# implementations use other conventions: torchvision centres anchors on the upper left corner of the cell.


# %% name="make_anchors" role="solution"
def make_anchors(shape, stride, sizes, ratios):
    """Centre anchors on every cell of a feature map: one anchor per ratio and size.

    Each cell covers a square of `stride` x `stride` pixels of the image, and the first square begins at (0, 0). An
    anchor of size s and aspect ratio r has the area s * s, and its height is r times its width. It may extend beyond
    the image. Nothing is rounded.

    shape:  (H, W) of the feature map.
    stride: distance between neighbouring cells, in pixels of the image.
    sizes:  S sizes in pixels.
    ratios: R aspect ratios, height over width.

    Returns (H * W * R * S, 4) floats (x1, y1, x2, y2). The cells are listed row by row. The anchors of one cell are
    listed ratio by ratio, and the anchors of one ratio size by size. Ratios and sizes keep the order of the arguments.

    Example: make_anchors((1, 2), 8, [2], [1, 4]) is
    [[3, 3, 5, 5], [3.5, 2, 4.5, 6], [11, 3, 13, 5], [11.5, 2, 12.5, 6]].
    """
    ### BEGIN SOLUTION: compute half the sides of one cell's anchors and the centres of all cells, then the corners
    size = torch.tensor(sizes, dtype=torch.float64)
    root = torch.tensor(ratios, dtype=torch.float64).sqrt()[:, None]
    half = torch.stack([size / root, size * root], dim=2).reshape(1, -1, 2) / 2
    rows, columns = [(torch.arange(count) + 0.5) * stride for count in shape]
    centre = torch.stack([columns.repeat(len(rows)), rows.repeat_interleave(len(columns))], dim=1)[:, None]
    return torch.cat([centre - half, centre + half], dim=2).reshape(-1, 4)
    ### END SOLUTION


# %% name="check_make_anchors" role="check"
check(make_anchors)

# %% [markdown] name="make_anchors_after"
# The left panel shows your six anchors of one cell, and the centres of all cells. The right panel shows, for the
# objects of 20 scenes, the fraction whose best anchor has at least a given IoU. A finer grid covers more objects. But
# no grid fits the objects well: almost no object has an anchor with an IoU of 0.9. Therefore the network has to shift
# and scale the anchors.

# %% name="make_anchors_figure" role="show"
place_anchors = use(make_anchors)
boxes_of_scenes = [draw_shapes((26, i), size=(128, 128))["boxes"].as_subclass(torch.Tensor) for i in range(20)]
fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained", width_ratios=(1, 1.2))
draw_image(axes[0], image, "stride 16: 8 x 8 cells, 6 anchors each", alpha=0.8)
x, y = torch.meshgrid(*[torch.arange(8, 128, 16)] * 2, indexing="xy")
axes[0].plot(x.flatten(), y.flatten(), ".", color="white", markeredgecolor="#1b1b1b", markersize=6)
all_anchors = {
    stride: torch.as_tensor(place_anchors((128 // stride,) * 2, stride, [32.0, 48.0], [0.5, 1.0, 2.0]))
    for stride in (32, 16, 8)
}
draw_boxes(axes[0], all_anchors[16].reshape(8, 8, 6, 4)[4, 3], linewidth=1.5)
thresholds = torch.linspace(0.3, 1, 29)
for (stride, boxes), colour, marker in zip(all_anchors.items(), ("#D55E00", "#009E73", "#0072B2"), "s^o"):
    best = torch.cat([box_iou(objects, boxes.float()).amax(dim=1) for objects in boxes_of_scenes])
    covered = (best[:, None] >= thresholds).double().mean(dim=0)
    axes[1].plot(
        thresholds, covered, color=colour, marker=marker, markevery=4, label=f"stride {stride}: {len(boxes)} anchors"
    )
axes[1].set(xlabel="IoU at least", ylabel="fraction of objects with such an anchor", ylim=(-0.02, 1.02))
axes[1].legend()
show(
    fig,
    alt="The anchors of one cell on a scene; the fraction of objects that anchors cover, which falls as the IoU grows.",
)

# %% [markdown] name="encode_decode_idea"
# ## 2. Deltas between an anchor and a box (4 points)
#
# **Idea.** An anchor lies near an object. The network predicts how to shift and scale the anchor, by four values that
# are called **deltas**. If deltas were measured in pixels, they would be large for large objects and small for small
# objects, and an error of one pixel would be serious only for a small object. Therefore shifts are measured in units of
# the anchor's sides. Changes of size are the logarithm of a factor, so that twice as wide and half as wide are equally
# far from 0.
#
# **Formula.** Let the box have the centre $x, y$ and the sides $w, h$, and let the anchor have the centre $x_a, y_a$
# and the sides $w_a, h_a$. The deltas are
#
# $$ t_x = \frac{x - x_a}{w_a}, \quad t_y = \frac{y - y_a}{h_a}, $$
#
# $$ t_w = \log \frac{w}{w_a}, \quad t_h = \log \frac{h}{h_a} . $$
#
# To decode deltas, solve these equations for the box: $x = x_a + t_x w_a$, and so on.
#
# **Worked example.** The anchor (0, 0, 4, 2) has its centre at (2, 1) and the sides 4 and 2. The box (1, 0, 9, 2) has
# its centre at (5, 1) and the sides 8 and 2. The deltas of the box are $t = (3/4,\ 0,\ \log 2 = 0.69,\ 0)$. In the
# other direction, the deltas $(0,\ 0.5,\ 0,\ -0.69)$ of the same anchor give the centre (2, 2) and the sides 4 and 1,
# which is the box (0, 1.5, 4, 2.5).


# %% name="encode_decode" role="solution"
def encode_decode(boxes, anchors, deltas):
    """Encode each box relative to its anchor, and decode deltas that a network predicted for the same anchors.

    boxes:   (N, 4) floats (x1, y1, x2, y2).
    anchors: (N, 4) floats (x1, y1, x2, y2). Anchor n belongs to row n of the boxes and to row n of the deltas.
    deltas:  (N, 4) floats (tx, ty, tw, th) to decode. They are not the deltas of the boxes.

    Returns two tensors: the deltas (tx, ty, tw, th) of the boxes, (N, 4), by the formula above with the natural
    logarithm; and the boxes (x1, y1, x2, y2) that are decoded from the argument `deltas`, (N, 4). N may be 0: then both
    tensors have the shape (0, 4). The arguments are not changed in place.

    Example: boxes [[1, 0, 5, 2]], anchors [[0, 0, 4, 2]] and deltas [[0, 0, 0, 0]] give [[0.25, 0, 0, 0]] and
    [[0, 0, 4, 2]].
    """
    ### BEGIN SOLUTION: compute centres and sides, encode the boxes by the formula, decode the deltas by its inverse
    sides, anchor_sides = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    centres, anchor_centres = boxes[:, :2] + sides / 2, anchors[:, :2] + anchor_sides / 2
    encoded = torch.cat([(centres - anchor_centres) / anchor_sides, torch.log(sides / anchor_sides)], dim=1)
    decoded_centres = anchor_centres + deltas[:, :2] * anchor_sides
    half = torch.exp(deltas[:, 2:]) * anchor_sides / 2
    return encoded, torch.cat([decoded_centres - half, decoded_centres + half], dim=1)
    ### END SOLUTION


# %% name="check_encode_decode" role="check"
check(encode_decode)

# %% [markdown] name="encode_decode_after"
# The left panel shows the box of an object (solid) and the best anchor of stride 32 for it (dashed). The middle panel
# shows the box and the anchor at twice the size: the shift in pixels doubles, but the deltas stay the same. The right
# panel shows twelve boxes that are decoded from small random deltas relative to this anchor. If the network predicts
# the deltas (0, 0, 0, 0), the decoded box is the anchor itself.

# %% name="encode_decode_figure" role="show"
box_coder = use(encode_decode)
row = int((gt_boxes[:, :2] + gt_boxes[:, 2:] - 128).norm(dim=1).argmin())  # the most central object
coarse = all_anchors[32].float()
anchor = coarse[box_iou(gt_boxes, coarse)[row].argmax()][None]
fig, axes = plt.subplots(1, 3, figsize=(8.7, 3.5), layout="constrained")
for ax, scale in zip(axes, (1, 2)):
    upsampled = torch.nn.functional.interpolate(image[None], scale_factor=scale, mode="nearest")[0]
    box, scaled_anchor = gt_boxes[row, None] * scale, anchor * scale
    deltas = torch.as_tensor(box_coder(box, scaled_anchor, torch.zeros(1, 4))[0])
    shift = ((box[:, :2] + box[:, 2:] - scaled_anchor[:, :2] - scaled_anchor[:, 2:]) / 2)[0].tolist()
    delta_text = ", ".join(f"{delta:.2f}" for delta in deltas[0].tolist())
    draw_image(ax, upsampled, f"shift of {shift[0]:.1f} and {shift[1]:.1f} pixels\ndeltas {delta_text}", alpha=0.8)
    draw_boxes(ax, box, "#0072B2", linewidth=2)
    draw_boxes(ax, scaled_anchor, linestyle="--", linewidth=2)
    ax.set(xlim=(0, 128 * scale), ylim=(128 * scale, 0), xticks=[0, 128 * scale], yticks=[0, 128 * scale])
random_deltas = 0.2 * torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
draw_image(axes[2], image, "random deltas,\nstandard deviation 0.2", alpha=0.8)
draw_boxes(
    axes[2],
    torch.as_tensor(box_coder(anchor.expand(12, 4), anchor.expand(12, 4), random_deltas)[1]),
    "#0072B2",
    linewidth=0.8,
)
draw_boxes(axes[2], anchor, linestyle="--", linewidth=2)
show(
    fig,
    alt=f"An object (solid) and its anchor (dashed), at two scales with the same deltas, {delta_text}; boxes of random "
    "deltas around the anchor.",
)

# %% [markdown] name="assign_targets_idea"
# ## 3. Which anchors are objects? (4 points)
#
# **Idea.** For training, each anchor needs a target. An anchor that overlaps an object well is *matched* with this
# object. An anchor that hardly overlaps any object is background. For an anchor that contains only a part of an object,
# neither target is quite right, so the loss ignores this anchor.
#
# **Rule.** The rule follows the Faster R-CNN paper, in which `low` is 0.3 and `high` is 0.7. Where the paper is not
# explicit, this lab makes a choice. The best object of an anchor is the object with which it has the largest IoU, and
# this IoU is the best IoU of the anchor.
#
# 1. An anchor whose best IoU is at least `high` is positive: it is matched with its best object.
# 2. An anchor whose best IoU is below `low` is background, -1.
# 3. Any other anchor is ignored, -2.
# 4. An object may have no anchor with an IoU of at least `high`, and then the network would never learn this object.
#    Therefore, for *each object*, the anchor that has the largest IoU with this object is positive too, however small
#    this IoU is. If several anchors share the largest IoU, all of them are positive. Such an anchor is matched with
#    *its own* best object, as in step 1, and this may be a different object. If the largest IoU of an object is 0, step
#    4 makes no anchor positive for this object.
#
# **Worked example.**
#
# | IoU | anchor a | anchor b | anchor c | anchor d | anchor e |
# |---|---|---|---|---|---|
# | object 0 | 0.8 | 0.5 | 0.1 | 0 | 0.1 |
# | object 1 | 0 | 0.2 | 0.6 | 0.2 | 0 |
# | object 2 | 0.4 | 0 | 0 | 0.1 | 0.1 |
# | **result** | 0 | -2 | 1 | -1 | -1 |
#
# The best IoU of anchor c is below 0.7, but no anchor has a larger IoU with object 1, so step 4 makes anchor c
# positive. For object 2, anchor a has the largest IoU. Anchor a is therefore positive by step 1 and by step 4, but it
# has a larger IoU with object 0, so it is matched with object 0. No anchor is matched with object 2.


# %% name="assign_targets" role="solution"
def assign_targets(iou, low, high):
    """Match each anchor with an object, given the IoU of every object with every anchor, by the rule above.

    The best object of an anchor is the object with which it has the largest IoU. If several objects share this IoU, the
    best object is the first of them.

    iou:  (N, A) floats. Row n belongs to an object, column a to an anchor. N may be 0; A is at least 1.
    low:  an anchor whose best IoU is below `low` is background, unless step 4 makes it positive.
    high: at least `low`; an anchor whose best IoU equals `high` is positive.

    Returns (A,) integers: for a positive anchor the row of its object, -1 for background, -2 for ignored. Without
    objects, all of them are -1.

    Example: assign_targets(torch.tensor([[0.1, 0.4, 0.6]]), 0.3, 0.7) is [-1, -2, 0].
    """
    ### BEGIN SOLUTION: return -1 without objects; apply both thresholds per column, then step 4 to each row
    if len(iou) == 0:
        return torch.full((iou.shape[1],), -1)
    best_iou, best_object = iou.max(dim=0)
    matched_idxs = torch.where(best_iou >= high, best_object, -2)
    matched_idxs[best_iou < low] = -1
    largest = iou.max(dim=1, keepdim=True).values
    forced = ((iou == largest) & (largest > 0)).any(dim=0)
    matched_idxs[forced] = best_object[forced]
    return matched_idxs
    ### END SOLUTION


# %% name="check_assign_targets" role="check"
check(assign_targets)

# %% [markdown] name="assign_targets_after"
# The figure shows your result for the anchors of stride 8. The left panel shows the positive anchors in the colour of
# their object, and the ground-truth boxes (dashed). The right panel has one marker per cell. A cell is marked as object
# if at least one of its six anchors is matched with an object; otherwise as ignored if at least one anchor is ignored;
# otherwise as background.
#
# The counts in the legend are anchors, not cells. About one anchor in a hundred is positive. If all anchors
# contributed to the loss, a network that always predicts "background" would be correct almost everywhere. Therefore the
# loss uses a small random sample of anchors, of which at most half are positive.

# %% name="assign_targets_figure" role="show"
assign, boxes = use(assign_targets), all_anchors[8].float()
matched_idxs = torch.as_tensor(assign(box_iou(gt_boxes, boxes), 0.3, 0.7))
fig, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
draw_image(axes[0], image, f"{int((matched_idxs >= 0).sum())} positive anchors", alpha=0.7)
for row, (box, colour) in enumerate(zip(gt_boxes, palette(len(gt_boxes)))):
    draw_boxes(axes[0], boxes[matched_idxs == row], colour, linewidth=1.3)
    draw_boxes(axes[0], box[None], "#1b1b1b", linewidth=1.5, linestyle="--")
draw_image(axes[1], image, f"{len(matched_idxs)} anchors in 16 x 16 cells", alpha=0.5)
cells = matched_idxs.reshape(256, 6)
cells = torch.where((cells >= 0).any(dim=1), 0, torch.where((cells == -2).any(dim=1), -2, -1)).reshape(16, 16)
groups = ((0, "object", "#0072B2", "o"), (-2, "ignored", "#E69F00", "x"), (-1, "background", "#5a5a5a", "."))
for value, name, colour, marker in groups:
    i, j = torch.nonzero(cells == value).T
    count = int((matched_idxs >= 0).sum() if value == 0 else (matched_idxs == value).sum())
    axes[1].plot(8 * j + 4, 8 * i + 4, marker, color=colour, label=f"{name}: {count}", linestyle="none")
fig.legend(loc="outside lower center", ncols=3)
counts = ", ".join(text.get_text() for text in fig.legends[0].get_texts())
show(
    fig, alt=f"Positive anchors lie on objects, ignored ones around them, background ones elsewhere: {counts} anchors."
)

# %% [markdown] name="widget_text"
# ## Move the thresholds
#
# The scene contains a small triangle in front of a large one. The slider "lowest IoU of an object" sets `high`, and the
# check box "force the best anchors (rule 4)" switches step 4 on and off. Drag the circle in the left panel to see the
# anchors of another location. The second panel shows all positive anchors and, at each object, how many it has. Without
# step 4, how low must the threshold be until every object has a positive anchor? What changes if there is only one size
# and one ratio, and what changes with a finer grid? Why can an object still have no anchor with step 4, and what is the
# disadvantage of this step?

# %% name="widget" role="widget"
from segedu.teaching.widgets.anchors import explorer

explorer()

# %% [markdown] name="nms_idea"
# ## 4. One object, many boxes (3 points)
#
# **Idea.** Many anchors lie near one object, and the network predicts a box from each of them. To remove the
# duplicates, go through the detections in descending order of their scores. If a detection has not been removed, keep
# it, and remove all later detections of its class that overlap it too much. This algorithm is **non-maximum
# suppression**, or NMS. It is applied to each class separately, so that the detection of a rider does not remove that
# of the horse.
#
# **Worked example.** The threshold is 0.5. There are four detections: A, B and C are circles with the scores 0.9, 0.8
# and 0.7, and D is a square with the score 0.6.
#
# | IoU | A | B | C | D |
# |---|---|---|---|---|
# | A | 1 | 0.6 | 0.3 | 0.7 |
# | B | 0.6 | 1 | 0.6 | 0.5 |
# | C | 0.3 | 0.6 | 1 | 0.4 |
#
# A is kept. B has an IoU of 0.6 with A, so it is removed. C has an IoU of 0.6 with B, but B is removed and therefore
# removes no others. C has an IoU of 0.3 with A, so it is kept. D has an IoU of 0.7 with A but belongs to another class,
# so it is kept. The result is A, C, D.


# %% name="nms" role="solution"
from segedu.ops.boxes import box_iou


def nms(boxes, scores, labels, iou_threshold):
    """Remove every detection that overlaps a kept detection of its class with a higher score too much.

    Go through the detections in descending order of their scores. Of two detections with equal scores, the one with the
    lower index comes first. A detection is removed if its IoU with a detection of the same class that was kept before
    is above `iou_threshold`. A removed detection removes no others. You may use `box_iou(boxes1, boxes2)`.

    boxes:  (N, 4) floats (x1, y1, x2, y2). No coordinate is negative, and every box has a positive area. N may be 0.
    scores: (N,) floats.
    labels: (N,) integers, the class of each detection.
    iou_threshold: in [0, 1].

    Returns (K,) integers: the indices of the kept detections of all classes together, in descending order of their
    scores. The arguments are not changed in place.
    """
    ### BEGIN SOLUTION: mark pairs that overlap too much, then compare in order of scores with the kept detections
    removes = (box_iou(boxes, boxes) > iou_threshold) & (labels[:, None] == labels[None])
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not removes[i, kept].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)
    ### END SOLUTION


# %% name="check_nms" role="check"
check(nms)

# %% [markdown] name="nms_after"
# To imitate the predictions of a network, we generate eight boxes per object, which are shifted and scaled by small
# random deltas. The score of a box is its IoU with the object, plus a little noise. Circles have solid boxes, squares
# dashed ones, and triangles dotted ones. With a suitable threshold, about one box per object is kept. If the threshold
# is too low, an object can lose all its boxes to an overlapping object of the same class. If the threshold is too high,
# objects keep several boxes. No threshold suits all scenes, which is the main weakness of non-maximum suppression.

# %% name="nms_figure" role="show"
suppress = use(nms)
random = torch.Generator().manual_seed(1)
repeated_boxes, repeated_labels = gt_boxes.repeat_interleave(8, dim=0), labels.repeat_interleave(8)
noisy_boxes = (
    torch.as_tensor(
        box_coder(repeated_boxes, repeated_boxes, 0.1 * torch.randn(len(repeated_boxes), 4, generator=random))[1]
    )
    .float()
    .clamp(0, 128)
)
iou = box_iou(noisy_boxes, repeated_boxes).diagonal()
scores = iou + 0.03 * torch.randn(len(iou), generator=random)
panels = {f"{len(noisy_boxes)} boxes": torch.arange(len(noisy_boxes))}
for threshold in (0.8, 0.5, 0.1):
    kept = torch.as_tensor(suppress(noisy_boxes, scores, repeated_labels, threshold))
    remaining = (torch.arange(len(gt_boxes)).repeat_interleave(8)[kept]).unique()
    panels[f"IoU {threshold}: {len(kept)} kept, {len(remaining)} objects"] = kept
fig, axes = plt.subplots(2, 2, figsize=(7, 7.4), layout="constrained")
for ax, (title, kept) in zip(axes.flat, panels.items()):
    draw_image(ax, image, title, alpha=0.7)
    for label, line in ((1, "-"), (2, "--"), (3, ":")):
        draw_boxes(ax, noisy_boxes[kept][repeated_labels[kept] == label], "#1b1b1b", linestyle=line, linewidth=1.4)
show(fig, alt=f"Boxes before and after suppression, {len(gt_boxes)} objects: " + "; ".join(panels) + ".")

# %% [markdown] name="widget_nms_text"
# ## Suppress step by step
#
# The explorer shows the same algorithm, one kept box at a time; the slider "number of steps" sets how many boxes have
# been kept. Here, all boxes belong to one class. One of them is yours: you can drag it, and change its score. First
# leave your box where it is, and set the number of steps to 20, so that the algorithm runs to its end. At which
# thresholds does the small triangle, around x 47 and y 46, lose all its boxes, and why? From which threshold on does
# the algorithm keep more boxes than there are objects? Is there a threshold between these values? Then move your box,
# and raise its score until it is kept first. Which boxes does it remove?

# %% name="widget_nms" role="widget"
from segedu.teaching.widgets.anchors import nms_explorer

nms_explorer()

# %% [markdown] name="family_text"
# ## R-CNN, Fast R-CNN, Faster R-CNN
#
# The three papers appeared within two years. Each of them asks the same question: which computation is repeated
# unnecessarily?
#
# | | proposals | features of a proposal | in one word |
# |---|---|---|---|
# | **R-CNN** (2014) | selective search | each proposal is cropped, warped and processed separately | crop |
# | **Fast R-CNN** (2015) | selective search | the image is processed once; proposals are pooled from it | pool |
# | **Faster R-CNN** (2015) | a small network on these features classifies anchors | as in Fast R-CNN | share |
#
# The next cell measures the time of all three on one image with one small network. The network is untrained, because
# the time hardly depends on its weights. In the papers, the network is a VGG16 on a GPU, and the times differ by larger
# factors. For one image, R-CNN needs 47 s to process its crops (Fast R-CNN, table 4). Fast R-CNN needs 1.83 s, of which
# selective search, on a CPU, takes 1.51 s. The network that replaces selective search takes 0.01 s (Faster R-CNN,
# table 5).

# %% name="family" role="show"
from time import perf_counter

from segedu.backbones.vgg import VGG
from segedu.ops.roi_align import roi_align
from segedu.ops.warp_boxes import warp_boxes

torch.manual_seed(0)
backbone = VGG(((16,), (32,), (64,))).eval()
rpn_head = torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 6 * 5, 1))
rows, start = {}, 0.0


def lap():
    """Milliseconds since the last call."""
    global start
    now, before = perf_counter(), start
    start = now
    return 1000 * (now - before)


with torch.no_grad():
    backbone(image[None]), lap()
    proposals = selective_search(image, FAST)
    search_time = lap()
    crops = warp_boxes(image, proposals, 64, 4, (0.5, 0.5, 0.5))
    _ = [backbone(part) for part in crops.split(16)]
    rows["R-CNN"] = (search_time, lap())
    features = backbone(image[None])[-1]
    roi_align(features, [proposals], 7, 1 / 8, aligned=True)
    rows["Fast R-CNN"] = (search_time, lap())
    features, _ = backbone(image[None])[-1], lap()
    rpn_outputs = rpn_head(features)[0].permute(1, 2, 0).reshape(-1, 5)
    best = rpn_outputs[:, 0].topk(len(proposals)).indices
    decoded = torch.as_tensor(box_coder(boxes[best], boxes[best], rpn_outputs[best, 1:])[1]).float().clamp(0, 128)
    kept = torch.as_tensor(suppress(decoded, rpn_outputs[best, 0], torch.ones_like(best), 0.7))
    proposal_time = lap()
    features = backbone(image[None])[-1]
    roi_align(features, [decoded[kept]], 7, 1 / 8, aligned=True)
    rows["Faster R-CNN"] = (proposal_time, lap())

# %% name="family_figure" role="show"
fig, ax = plt.subplots(figsize=(9, 2.4), layout="constrained")
names = list(rows)[::-1]
first, second = (np.array([rows[name][part] for name in names]) for part in (0, 1))
ax.barh(names, first, color="#E69F00", edgecolor="#1b1b1b", hatch="///", label="proposals")
ax.barh(names, second, left=first, color="#0072B2", edgecolor="#1b1b1b", label="features of all proposals")
for name, a, b in zip(names, first, second):
    ax.text(a + b, name, f"  {a:.0f} + {b:.0f} ms", va="center")
ax.set(xlabel=f"milliseconds for one image, at most {len(proposals)} proposals", xlim=(0, 1.2 * max(first + second)))
ax.legend(loc="lower right")
summary = "; ".join(f"{name} {a:.0f} and {b:.0f}" for name, (a, b) in rows.items())
show(fig, alt=f"Milliseconds for proposals and for their features: {summary}.")

# %% [markdown] name="fpn_merge_idea"
# ## 5. A pyramid of features (3 points)
#
# **Idea.** The fine features of a backbone are precise in position: each of them depends on a small part of the image.
# The coarse features are semantically stronger: each of them depends on a large part of the image. To detect a small
# object, you need both precise positions and strong semantics. Therefore start at the coarsest level, upsample its
# features, and add them to the next finer level. This is the **feature pyramid network**, FPN.
#
# **Steps.** A 1x1 convolution brings the features $C_l$ of each level to $D$ channels. At the coarsest level, the
# result is the merged map. At the other levels, from coarse to fine,
#
# $$ \begin{aligned}
#    M_l &= \text{conv}_{1 \times 1}(C_l) + \text{upsample}(M_{l + 1}), \\
#    P_l &= \text{conv}_{3 \times 3}(M_l) .
#    \end{aligned} $$
#
# Upsample by nearest neighbour to the size of the finer level: pixel `(i, j)` gets the value of pixel
# `(i // 2, j // 2)`. If a side of the finer level is odd, the factor is slightly less than 2, and the last row or
# column of the coarse map is used only once. (In torch, use `mode="nearest"`; `"nearest-exact"` selects other pixels in
# this case.) The merged map $M_l$ is upsampled for the next finer level, and the maps $P_l$ of all levels are returned.
#
# **Worked example.** Two levels have one row and one channel, and the convolutions do not change their input. The fine
# level is 1, 2, 3, and the coarse level is 10, 20. The coarse level, upsampled to three pixels by nearest neighbour, is
# 10, 10, 20. The sum is 11, 12, 23.


# %% name="fpn_merge" role="solution"
def fpn_merge(features, lateral, smooth):
    """Merge the feature maps of a backbone from the coarsest to the finest, as in a feature pyramid network.

    1. A 1x1 convolution brings each level to D channels.
    2. The coarsest of these maps is the merged map of its level. Each merged map is upsampled to the size of the next
       finer level by nearest neighbour (pixel (i, j) gets the value of (i // 2, j // 2)) and added to the map of that
       level. The sum is the merged map of that level, and is upsampled in the same way.
    3. A 3x3 convolution with zero padding is applied to each merged map. Its results are returned; they are not
       upsampled.

    There is no bias and no ReLU.

    features: L maps (B, C_l, H_l, W_l), from fine to coarse. Each level has half the height and width of the previous
              one, rounded up.
    lateral:  L weights (D, C_l, 1, 1) of the 1x1 convolutions.
    smooth:   L weights (D, D, 3, 3) of the 3x3 convolutions.

    Returns a list of L maps (B, D, H_l, W_l), from fine to coarse. The arguments are not changed in place.
    """
    ### BEGIN SOLUTION: apply the 1x1 convolutions, upsample and add from coarse to fine, apply the 3x3 convolutions
    from torch.nn.functional import conv2d, interpolate

    merged = [conv2d(x, weight) for x, weight in zip(features, lateral)]
    for l in reversed(range(len(merged) - 1)):
        merged[l] = merged[l] + interpolate(merged[l + 1], size=merged[l].shape[-2:], mode="nearest")
    return [conv2d(x, weight, padding=1) for x, weight in zip(merged, smooth)]
    ### END SOLUTION


# %% name="check_fpn_merge" role="check"
check(fpn_merge)

# %% [markdown] name="fpn_merge_after"
# The figure merges two constructed levels, with a level of zeros between them. The fine level shows the positions of
# edges. The coarse level shows only where squares are, in cells of 16 x 16 pixels. Your function combines both levels
# at the fine resolution, in two channels. The product of the two channels marks the edges of squares.

# %% name="fpn_merge_figure" role="show"
merge = use(fpn_merge)
grey = image.mean(dim=0)
edges = torch.nn.functional.avg_pool2d(torch.stack(torch.gradient(grey)).norm(dim=0)[None, None].double(), 4)
squares = torch.nn.functional.avg_pool2d((scene["semantic"] == 2).double()[None, None], 16)
zero_level = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
to_first, to_second = torch.eye(2, dtype=torch.float64)[:, :, None, None, None]
identity = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
identity[[0, 1], [0, 1], 1, 1] = 1.0  # a 3x3 convolution that changes nothing
levels = merge([edges, zero_level, squares], [to_first, to_first, to_second], [identity] * 3)
fine = torch.as_tensor(levels[0])[0].detach()
panels = {"fine, 32 x 32: edges": edges[0, 0], "coarse, 8 x 8: squares": squares[0, 0]}
panels |= {"merged, 32 x 32: squares": fine[1], "merged: edges times squares": fine[0] * fine[1]}
fig, axes = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
image_ax, *map_axes, empty_ax = axes.flat
empty_ax.set_axis_off()
draw_image(image_ax, image, "image")
for ax, (title, panel) in zip(map_axes, panels.items()):
    ax.imshow(panel, cmap="cividis", extent=(0, 128, 128, 0))
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
show(
    fig,
    alt="An image; its edges on a fine map; blurred squares on a coarse map; the squares on the fine map after "
    "merging; their product, which shows the edges of squares only.",
)

# %% [markdown] name="level_assign_idea"
# ## 6. Which level? (3 points)
#
# **Idea.** With a pyramid, the features of each proposal are pooled from **one** level. On a fine level, a large box
# would cover too many cells, each of which describes only a detail. On a coarse level, a small box would cover less
# than one cell. Therefore large boxes belong to coarse levels. If the sides of a box double, its level increases by 1.
#
# **Formula.** A box as large as the images on which the backbone was pretrained, 224 x 224 pixels, belongs to level
# $k_0 = 4$, which has the stride 16:
#
# $$ k = \left\lfloor k_0 + \log_2 \frac{\sqrt{w h}}{224} \right\rfloor . $$
#
# Then $k$ is clamped to the levels that exist, which are 2 to 5 in the paper. The stride of level $k$ is $2^k$.
#
# **Worked example.** For a box of 112 x 448 pixels, the square root of the area is 224, so the level is 4. For 100 x
# 100, $4 + \log_2(100/224) = 2.84$, so the level is 2. For 1000 x 1000, the value is $6.16$. There is no level above 5,
# so the level is 5.


# %% name="level_assign" role="solution"
def level_assign(boxes, k0, canonical, lowest, highest):
    """Choose the pyramid level of each box by its area: coarse levels for large boxes, fine levels for small ones.

    With w and h the sides of a box, in pixels, the level is k = floor(k0 + log2(sqrt(w * h) / canonical)), clamped to
    the range from `lowest` to `highest`. A box without area belongs to the lowest level.

    boxes:     (N, 4) floats (x1, y1, x2, y2). N may be 0.
    k0:        level of a box of `canonical` x `canonical` pixels; 4 in the paper.
    canonical: side of the images on which the backbone was trained; 224 in the paper.
    lowest:    the finest level; 2 in the paper.
    highest:   the coarsest level, at least `lowest`; 5 in the paper.

    Returns (N,) integers.
    """
    ### BEGIN SOLUTION: take the root of the area and its logarithm, round down, clamp, and convert to integers
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    level = k0 + torch.log2(torch.sqrt(w * h) / canonical)
    return torch.floor(level).clamp(lowest, highest).long()
    ### END SOLUTION


# %% name="check_level_assign" role="check"
check(level_assign)

# %% [markdown] name="level_assign_after"
# The left panel shows the levels of the paper's pyramid. The right panel shows the two levels of the network that you
# train next. If the square root of a box's area is at least 40 pixels, the box belongs to level 3. (On a CPU, the
# training images have half the side of this image, and the limit is 20 pixels.)

# %% name="level_assign_figure" role="show"
level_of = use(level_assign)
sides = torch.logspace(1, 11, 400, base=2)
squares = torch.stack([torch.zeros(400), torch.zeros(400), sides, sides], dim=1)
box_levels = torch.as_tensor(level_of(gt_boxes, 3, 40.0, 2, 3))
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained", width_ratios=(1.4, 1))
axes[0].plot(
    sides, torch.as_tensor(level_of(squares, 4, 224, 2, 5)), drawstyle="steps-post", color="#0072B2", linewidth=2
)
axes[0].set_xscale("log", base=2)
axes[0].set(xlabel="square root of the area of a box, in pixels", ylabel="level", yticks=[2, 3, 4, 5])
axes[0].set_title("k0 = 4 at 224 pixels", fontsize=10)
axes[0].set_xticks([28, 56, 112, 224, 448, 896], ["28", "56", "112", "224", "448", "896"])
axes[0].grid(axis="x", linestyle=":")
draw_image(axes[1], image, "k0 = 3 at 40 pixels: level 2 dashed, 3 solid", alpha=0.7)
draw_boxes(axes[1], gt_boxes[box_levels == 2], linestyle="--", linewidth=2)
draw_boxes(axes[1], gt_boxes[box_levels == 3], "#0072B2", linewidth=2)
show(
    fig,
    alt="A step function: the level rises by 1 at 112, 224 and 448 pixels. A scene in which "
    f"{int((box_levels == 2).sum())} of {len(gt_boxes)} objects belong to level 2.",
)

# %% [markdown] name="train_text"
# ## Faster R-CNN from your functions
#
# Only the network is missing now. It has two stages that use the same pyramid:
#
# 1. The **region proposal network** is a small convolutional network that is applied to each level. For each anchor, it
#    predicts one objectness logit and four deltas. The anchors with the highest objectness are decoded, and the boxes
#    that remain after non-maximum suppression are the proposals.
# 2. The **head** processes the features of each proposal, pooled from its level. It predicts the class of the proposal,
#    and four more deltas for each class.
#
# Your functions place and match the anchors, encode and decode boxes, suppress duplicates, merge the pyramid and choose
# the level of a proposal. The library provides the layers, and RoIAlign, which pools the features and which you write
# in lab 14.
#
# On a CPU the images are synthetic. If a GPU is available, the following cells use a larger network, and it learns to
# detect red cells, white cells and platelets in the blood smears of
# [BCCD](https://github.com/Shenggan/BCCD_Dataset) (MIT). The cell downloads the images once (8 MB), and prints licence
# and citation. If the folder that `SEGEDU_DATA` names contains `bccd`, it is used instead. Without an internet
# connection, the images are synthetic, and larger than on a CPU.

# %% name="parts" role="train"
from segedu.backbones.vgg import VGG
from segedu.datasets.shapes import CLASSES, Shapes
from segedu.detection.fast_rcnn import BoxPredictor, TwoLayerHead
from segedu.ops.boxes import box_iou, clip_boxes
from segedu.ops.roi_align import roi_align
from torch import nn

F = torch.nn.functional
LEVELS, RATIOS = (2, 3), (0.5, 1.0, 2.0)  # a level has the stride 2 ** level
place_anchors, box_coder, assign, suppress = use(make_anchors), use(encode_decode), use(assign_targets), use(nms)
merge, level_of = use(fpn_merge), use(level_assign)

# %% name="trial" role="train"
from time import process_time

from segedu.teaching.exercises import lab11_detection as library

try:  # a correct function may not use torch for every step, or may fail on shapes other than the check's
    ones = [torch.ones(1, 1, side, side, requires_grad=True) for side in (4, 1, 3)]
    torch.autograd.grad(sum(level.sum() for level in merge(*([one] for one in ones))), ones)
except Exception as error:
    print(f"(No gradient through your fpn_merge: {type(error).__name__}. The training uses the library's.)")
    merge = library.fpn_merge.reference


def in_time(function, exercise, seconds, *args):
    """Return your function, or the library's if one call takes so long that thousands of calls would take minutes."""
    start = process_time()
    function(*args)
    if process_time() - start <= seconds:
        return function
    print(f"(Your {exercise.name} is too slow for thousands of calls. The training uses the library's.)")
    return exercise.reference


sample_boxes = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0.0, 1.0, 1.0])
assign = in_time(assign, library.assign_targets, 0.02, torch.rand(5, 1920), 0.3, 0.7)
box_coder = in_time(box_coder, library.encode_decode, 0.01, sample_boxes, sample_boxes, torch.zeros(60, 4))
suppress = in_time(suppress, library.nms, 0.01, sample_boxes, sample_boxes[:, 0], torch.ones(60).long(), 0.9)


# %% name="net" role="train"
class SmallFasterRCNN(nn.Module):
    """A narrow VGG, a pyramid of two levels, a region proposal network with 6 anchors per cell, and a head."""

    def __init__(self, widths, channels, hidden):
        super().__init__()
        self.backbone = VGG(widths, batch_norm=True)
        sides = [(C, 1) for C in self.backbone.channels[1:]] + [(channels, 3) for _ in LEVELS]
        weights = [nn.init.kaiming_uniform_(torch.empty(channels, C, k, k), a=1) for C, k in sides]
        self.lateral, self.smooth = nn.ParameterList(weights[:2]), nn.ParameterList(weights[2:])
        self.rpn_conv, self.rpn_predictor = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, 6 * 5, 1)
        nn.init.normal_(self.rpn_predictor.weight, std=0.01)  # at the start, all deltas are near 0
        self.box_head, self.box_predictor = TwoLayerHead(channels, 5, hidden), BoxPredictor(hidden, len(CLASSES))

    def forward(self, images):
        """The pyramid, and one objectness logit and four deltas per anchor, (B, A, 5)."""
        pyramid = merge(self.backbone(images)[1:], list(self.lateral), list(self.smooth))
        rpn_outputs = [self.rpn_predictor(self.rpn_conv(level).relu()).permute(0, 2, 3, 1) for level in pyramid]
        return pyramid, torch.cat([level.reshape(len(images), -1, 5) for level in rpn_outputs], dim=1)

    def second_stage(self, pyramid, proposals, levels=LEVELS):
        """Class logits (P, K) and deltas (P, K, 4) of the proposals of all images, pooled from the level of each."""
        box_levels = [torch.as_tensor(level_of(boxes, 3, 20.0 * unit, *levels)) for boxes in proposals]
        pooled, indices = [], []
        for level, features in zip(LEVELS, pyramid):
            level_boxes = [boxes[k == level].to(features) for boxes, k in zip(proposals, box_levels)]
            pooled.append(roi_align(features, level_boxes, 5, 0.5**level, sampling_ratio=2, aligned=True))
            indices.append(torch.nonzero(torch.cat(box_levels) == level)[:, 0])
        return self.box_predictor(self.box_head(torch.cat(pooled)[torch.cat(indices).argsort()]))


# %% [markdown] name="propose_text"
# The next two cells convert the outputs of the region proposal network to proposals, and compute the losses of both
# stages. Duplicates are suppressed at each level separately, so the level is passed to your function in place of the
# class. Each stage samples a few boxes, some of them positive. Its loss has two parts: the classification of the boxes
# (object or background in the first stage, the class in the second), and the regression of the deltas of the positive
# boxes.
# The paper samples 256 anchors per image; 64 are enough here.

# %% name="propose" role="train"
REG_WEIGHTS = torch.tensor([10.0, 10.0, 5.0, 5.0])  # weights of the head's deltas in the loss
COUNT = 60  # anchors per image that become boxes before non-maximum suppression


def encode(boxes, reference_boxes):
    return torch.as_tensor(box_coder(boxes, reference_boxes, torch.zeros_like(reference_boxes))[0]).float()


def decode(deltas, reference_boxes):
    boxes = torch.as_tensor(box_coder(reference_boxes, reference_boxes, deltas.clamp(max=4.0))[1]).float()
    return clip_boxes(boxes, (size, size))


@torch.no_grad()
def propose(rpn_outputs, moved=True):
    """Decode the COUNT anchors with the highest objectness per image; return the boxes that NMS keeps, best first."""
    proposals = []
    for outputs in rpn_outputs.cpu():
        best = outputs[:, 0].topk(COUNT).indices
        boxes = decode(outputs[best, 1:] if moved else torch.zeros(COUNT, 4), anchors[best])
        large = (boxes[:, 2:] - boxes[:, :2] > 1).all(dim=1)
        boxes, best = boxes[large], best[large]
        kept = suppress(boxes, outputs[best, 0], level_of_anchor[best], 0.7)
        proposals.append(boxes[torch.as_tensor(kept).long()])
    return proposals


def sample(matched_idxs, count, positive_fraction):
    """Sample at most `count` boxes: up to `positive_fraction * count` positive ones, the others background."""
    order = torch.randperm(len(matched_idxs))
    objects = order[matched_idxs[order] >= 0][: int(positive_fraction * count)]
    return objects, order[matched_idxs[order] == -1][: count - len(objects)]


def smooth_l1(deltas, target_deltas, count):
    """Smooth L1 loss: quadratic for small errors, linear for large ones."""
    return F.smooth_l1_loss(deltas, torch.cat(target_deltas).to(deltas), beta=1 / 9, reduction="sum") / count


# %% name="losses" role="train"
def rpn_loss(rpn_outputs, examples):
    """Loss of the first stage: objectness of 64 anchors per image, and deltas of the positive ones."""
    logits, labels, deltas, target_deltas = [], [], [], []
    for outputs, (boxes, _, matched_idxs) in zip(rpn_outputs, examples):
        objects, background = sample(matched_idxs, 64, 0.5)
        logits.append(outputs[torch.cat([objects, background]), 0])
        labels.append(torch.cat([torch.ones(len(objects)), torch.zeros(len(background))]))
        deltas.append(outputs[objects, 1:])
        target_deltas.append(encode(boxes[matched_idxs[objects]], anchors[objects]))
    logits, labels = torch.cat(logits), torch.cat(labels).to(rpn_outputs)
    return F.binary_cross_entropy_with_logits(logits, labels) + smooth_l1(torch.cat(deltas), target_deltas, len(labels))


def head_loss(pyramid, rpn_outputs, examples):
    """Loss of the second stage: classes of 32 proposals per image, ground-truth boxes included, and positive deltas."""
    sampled, classes, target_deltas = [], [], []
    for proposals, (boxes, labels, _) in zip(propose(rpn_outputs.detach()), examples):
        proposals = torch.cat([proposals, boxes])
        matched_idxs = torch.as_tensor(assign(box_iou(boxes, proposals), 0.5, 0.5))
        objects, background = sample(matched_idxs, 32, 0.25)
        sampled.append(proposals[torch.cat([objects, background])])
        classes.append(torch.cat([labels[matched_idxs[objects]], torch.zeros_like(background)]))
        target_deltas.append(REG_WEIGHTS * encode(boxes[matched_idxs[objects]], proposals[objects]))
    logits, deltas = net.second_stage(pyramid, sampled)
    classes = torch.cat(classes).to(logits.device)
    objects = torch.nonzero(classes)[:, 0]
    return F.cross_entropy(logits, classes) + smooth_l1(deltas[objects, classes[objects]], target_deltas, len(classes))


# %% name="data" role="train"
from segedu.datasets.real_folder import real_folder
from segedu.recipes.real_samples import BLOOD_CELL_CLASSES, blood_cells
from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
small, large = ((16,), (32,), (64,)), ((32, 32), (64, 64), (128, 128))
folder = real_folder("bccd") if SCALE == "gpu" else None
scales = {"cpu": (64, 1024, small, 32, 128, 400, 8), "gpu": (128, 4096, large, 128, 512, 1500, 16)}
size, length, widths, channels, hidden, iterations, batch = scales[SCALE]
if folder:  # blood cells: about 12 per image, and the sides of their boxes are about 15, 40 and 75 pixels
    size, length, CLASSES, COUNT = 192, 205, BLOOD_CELL_CLASSES, 150
device, unit = "cuda" if SCALE == "gpu" else "cpu", size / 64
if SCALE == "cpu":
    torch.set_num_threads(1)  # more threads do not speed up such a small network
sizes = {2: [15, 40], 3: [40, 75]} if folder else {2: [13 * unit, 19 * unit], 3: [19 * unit, 27 * unit]}
level_anchors = [torch.as_tensor(place_anchors((size // 2**k,) * 2, 2**k, sizes[k], RATIOS)).float() for k in LEVELS]
level_of_anchor = torch.cat([torch.full((len(boxes),), k) for k, boxes in zip(LEVELS, level_anchors)])
anchors = torch.cat(level_anchors)


def get_data(count, seed):
    """Images (B, 3, H, W); the boxes, labels and matched anchors of each image; the scenes."""
    shapes = Shapes(count, seed, (size, size))
    scenes = [
        {key: value.as_subclass(torch.Tensor) for key, value in scene.items()}
        for scene in (blood_cells(folder, seed == 1, size, count) if folder else tqdm(shapes, "images", leave=False))
    ]
    examples = []  # the anchors are fixed, so they are matched only once per image
    for scene in tqdm(scenes, "assign", leave=False):
        matched_idxs = torch.as_tensor(assign(box_iou(scene["boxes"], anchors), 0.3, 0.7))
        examples.append((scene["boxes"], scene["labels"], matched_idxs))
    return torch.stack([scene["image"] for scene in scenes]), examples, scenes


images, examples, scenes = get_data(length, 0)
new_images, new_examples, _ = get_data(64, 1)
print(f"{len(anchors)} anchors on images of {size} x {size}, scale {SCALE}")

# %% name="train" role="train"
from segedu.training import train_steps

torch.manual_seed(0)
net = SmallFasterRCNN(widths, channels, hidden).to(device)
optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=iterations, pct_start=0.1)
batch_indices = torch.randint(len(images), (iterations, batch), generator=torch.Generator().manual_seed(0))
loader = ((images[indices], indices.tolist()) for indices in batch_indices)


def total_loss(outputs, indices):
    pyramid, rpn_outputs = outputs
    batch_examples = [examples[i] for i in indices]
    return rpn_loss(rpn_outputs, batch_examples) + head_loss(pyramid, rpn_outputs, batch_examples)


bar = tqdm(train_steps(net, loader, total_loss, optimizer, scheduler=schedule, clip_norm=1.0), "train", iterations)
for loss in bar:
    bar.set_postfix(loss=f"{loss:.3f}")

# %% [markdown] name="score_text"
# Now we convert proposals to detections. Each proposal gives one detection for each class whose score is above 0.05,
# with the box of that class. Then your `nms` is applied to all detections of an image. We measure **AP50**, COCO's
# average precision at an IoU threshold of 0.5 (chapter 13), and COCO's AP, the mean over IoU thresholds from 0.5 to
# 0.95.
#
# The first row of the table needs no trained network. It smooths the image, applies Otsu's threshold, and takes the
# bounding box of each connected component. The class is the one whose components fill a similar fraction of their
# boxes, or for blood cells, the class whose boxes have a similar size. For each of the last three rows, one part of
# *your* detector is removed: non-maximum suppression of the detections, the deltas of the first stage, or the fine
# level of the pyramid. Guess before you run the cell: which part matters most?

# %% name="score" role="train"
from segedu.metrics.coco import CocoEvaluation
from segedu.recipes.otsu_sizes import OtsuSizes
from segedu.recipes.shapes import OtsuComponents


@torch.no_grad()
def detect(images, nms_threshold=0.5, moved=True, levels=LEVELS):
    """Boxes, labels and scores of each image, in descending order of scores."""
    pyramid, rpn_outputs = net(images.to(device))
    proposals = propose(rpn_outputs, moved=moved)
    counts = [len(boxes) for boxes in proposals]
    logits, deltas = (part.cpu() for part in net.second_stage(pyramid, proposals, levels))
    predictions = []
    for boxes, scores, image_deltas in zip(proposals, logits.softmax(dim=1).split(counts), deltas.split(counts)):
        row, label = torch.nonzero(scores[:, 1:] > 0.05, as_tuple=True)
        label = label + 1  # 0 is background
        boxes, scores = decode(image_deltas[row, label] / REG_WEIGHTS, boxes[row]), scores[row, label]
        kept = torch.as_tensor(suppress(boxes, scores, label, nms_threshold)).long()
        predictions.append({"boxes": boxes[kept], "labels": label[kept], "scores": scores[kept]})
    return predictions


def precision(predictions):
    evaluation = CocoEvaluation()
    for detections, (boxes, labels, _) in zip(predictions, new_examples):
        evaluation.update(detections, {"boxes": boxes, "labels": labels})
    results = evaluation.compute()
    return results["AP50"], results["AP"]


net.eval()
ablations = {"Faster R-CNN": {}, "without final NMS": {"nms_threshold": 1.0}, "anchors as proposals": {"moved": False}}
ablations["all pooled from coarse level"] = {"levels": (3, 3)}
all_predictions = {
    name: sum((detect(p, **change) for p in new_images.split(16)), []) for name, change in ablations.items()
}
predictions = all_predictions["Faster R-CNN"]
known = scenes[:64] if folder else [(scene["image"], scene) for scene in scenes[:64]]
baseline = (OtsuSizes if folder else OtsuComponents)(known, len(CLASSES))
rows = {"Gaussian, Otsu, components": precision(baseline(new_images))}
rows |= {name: precision(detections) for name, detections in all_predictions.items()}
print(f"{'on ' + str(len(new_images)) + ' new images, scale ' + SCALE:<36}{'AP50':>6}{'AP':>7}")
for name, (ap50, ap) in rows.items():
    print(f"{name:<36}{ap50:>6.2f}{ap:>7.2f}")

# %% [markdown] name="score_after"
# A single run proves little. With three random seeds on a CPU, we measured an AP50 of 0.87, 0.88 and 0.90, and about
# 0.40 without the final non-maximum suppression. These are results on synthetic images; on blood smears we have run the
# cells only on a CPU, for a few iterations. It may surprise you that using the anchors themselves as proposals lowers
# AP50 so little. The reason is that the head also predicts deltas. Compare the column AP as well, which requires boxes
# that fit tightly.
#
# How well does such a detector work on photographs? Torchvision's Faster R-CNN, a ResNet-50 with a feature pyramid, has
# an AP of 37.0 on COCO val2017 (box AP in per cent; torchvision's documentation of
# `FasterRCNN_ResNet50_FPN_Weights.COCO_V1`). COCO has 80 classes in photographs. Compare this value with the AP of
# other detectors on COCO, and not with ours on three classes of synthetic shapes.
#
# The next figure shows one new image at each step of the detector.

# %% name="walk" role="train"
index = 0
with torch.no_grad():
    rpn_outputs = net(new_images[index : index + 1].to(device))[1]
best = rpn_outputs[0, :, 0].cpu().topk(60).indices
panels = {
    "best anchors": anchors[best],
    "decoded": decode(rpn_outputs[0].cpu()[best, 1:], anchors[best]),
    "suppressed: proposals": propose(rpn_outputs)[0],
    "detections": predictions[index]["boxes"][predictions[index]["scores"] > 0.5],
}
fig, axes = plt.subplots(2, 2, figsize=(7, 7.4), layout="constrained")
for ax, (title, boxes) in zip(axes.flat, panels.items()):
    draw_image(ax, new_images[index], f"{title}: {len(boxes)}", alpha=0.7)
    draw_boxes(ax, boxes, "#1b1b1b", linewidth=0.8 if title != "detections" else 2)
for box, label, score in zip(*(predictions[index][key] for key in ("boxes", "labels", "scores"))):
    if score > 0.5:
        style = {"fontsize": 8, "va": "top", "bbox": {"fc": "white", "pad": 1, "lw": 0}}
        axes[1, 1].text(box[0] + 1, box[1] + 1, f"{CLASSES[int(label)]} {score:.2f}", **style)
summary = "; ".join(f"{title} {len(boxes)}" for title, boxes in panels.items())
show(
    fig,
    alt=f"One image at each step of the detector, with the number of boxes: {summary}. There are "
    f"{len(new_examples[index][0])} objects.",
)

# %% [markdown] name="failures_text"
# ## Where the detector fails
#
# The figure shows the three new images with the most errors. A dashed box is a missed object: no detection with a score
# above 1/2 has the correct class and an IoU of at least 1/2 with this object. A dotted box is a false positive: a
# detection with a score above 1/2 that matches no object. Its predicted class is written in the box. Which errors are
# errors of the box, and which are errors of the class? Which objects are missed completely? Where do shapes occlude
# each other?

# %% name="failures" role="train"
errors = []
for detections, (boxes, labels, _) in zip(predictions, new_examples):
    confident = detections["scores"] > 0.5
    iou = box_iou(boxes, detections["boxes"][confident])
    correct = (iou >= 0.5) & (labels[:, None] == detections["labels"][confident])
    false = ~correct.any(dim=0)
    errors.append((boxes[~correct.any(dim=1)], *(detections[key][confident][false] for key in ("boxes", "labels"))))
worst = sorted(range(len(errors)), key=lambda i: -len(errors[i][0]) - len(errors[i][1]))[:3]
fig, axes = plt.subplots(1, 3, figsize=(8.7, 3.3), layout="constrained")
titles = [f"{len(errors[i][0])} of {len(new_examples[i][0])} missed, {len(errors[i][1])} false" for i in worst]
for ax, i, title in zip(axes, worst, titles):
    draw_image(ax, new_images[i], title, alpha=0.8)
    draw_boxes(ax, errors[i][0], "#0072B2", linestyle="--", linewidth=2.2)
    draw_boxes(ax, errors[i][1], linestyle=":", linewidth=2.2)
    for box, label in zip(*errors[i][1:]):
        ax.text(*(box[:2] + 1), CLASSES[int(label)], fontsize=8, va="top", bbox={"fc": "white", "pad": 1, "lw": 0})
show(
    fig,
    alt="The three new images with the most errors, missed objects dashed and false positives dotted: "
    + "; ".join(titles)
    + ".",
)

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Why are anchors with an IoU of 0.5 neither object nor background?
#
# <details><summary>Answer</summary>
#
# Such an anchor contains a large part of an object, but does not fit it. If the anchor were labelled object, the
# network would learn that a part of an object is enough. If the anchor were labelled background, the network would
# learn that a part of an object is background. The loss ignores these anchors, so the network may predict anything for
# them.
#
# </details>
#
# **2.** Find the error: "Faster R-CNN is faster than Fast R-CNN because its classifier is smaller."
#
# <details><summary>Answer</summary>
#
# The head is the same. The proposals of Faster R-CNN take almost no time, because a small network computes them from
# features that are needed anyway. Selective search took most of the time of Fast R-CNN.
#
# </details>
#
# **3.** An anchor is (10, 10, 30, 20). Which box has the deltas (0.5, 0, log 2, 0)?
#
# <details><summary>Answer</summary>
#
# The centre (20, 15) is shifted by half of the width 20, to (30, 15). The width is 40 and the height 10, so the box is
# (10, 10, 50, 20).
#
# </details>
#
# **4.** Two people stand so close that their boxes have an IoU of 0.6. The network detects both of them with exact
# boxes. What does non-maximum suppression with a threshold of 0.5 do?
#
# <details><summary>Answer</summary>
#
# It removes the detection with the lower score. A higher threshold would keep both, but also duplicates elsewhere.
# Chapter 12 shows an alternative without suppression: the network is trained with a one-to-one matching of predictions
# and objects.
#
# </details>
#
# **5.** To which levels of the paper's pyramid do boxes of 60 x 60, 300 x 300 and 20 x 2000 pixels belong?
#
# <details><summary>Answer</summary>
#
# For the first box, $4 + \log_2(60/224) = 2.1$, so level 2. For the second, the value is $4.4$, so level 4. For the
# third, the square root of the area is 200 and the value is $3.8$, so level 3.
#
# </details>
#
# **6.** Find the error: "FPN concatenates the levels, so that the finest one holds all features."
#
# <details><summary>Answer</summary>
#
# FPN adds the levels, after 1x1 convolutions have brought all of them to the same number of channels. In addition, FPN
# passes features only from coarse to fine; only the backbone goes from fine to coarse.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 11](../course/11-detection/index.md) explain the three detectors with their papers, and which
#   computation each of them avoids.
# - Change one parameter in the data cell: make the anchors of both levels too large, with
#   `sizes = {2: [40 * unit, 60 * unit], 3: [40 * unit, 60 * unit]}`. How far does AP50 fall, and which step of the
#   detector causes it?
# - In `rpn_loss`, call `sample(matched_idxs, 64, 1.0)` instead of `sample(matched_idxs, 64, 0.5)`, or use all anchors
#   in the loss. What does the network propose then?
# - With an internet connection, `segedu.weights.load("fasterrcnn_resnet50_fpn")` loads torchvision's detector, which
#   you can try on your photographs.
# - The detectors of chapter 12 have no second stage. Chapter 14 adds a mask to each box.
#
# Before you hand in this notebook, save it, and run `segedu check labs/11_detection.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
