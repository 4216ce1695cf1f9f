# %% [markdown] name="title"
# # Lab 14: Top-down instance segmentation
#
# A detector predicts the box and the class of each object. In this lab it also predicts **which pixels** belong to the
# object. You extract the features of a box without rounding, compute the targets of a mask head, write its loss, and
# train a small Mask R-CNN with your functions. You also write the central part of three other methods, and apply these
# parts to the outputs of a trained network: masks as combinations of prototypes (YOLACT), a small network for each
# object (CondInst), and non-maximum suppression in one step (SOLOv2).
#
# **Time**: 90 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 14](../course/14-top-down/index.md), which you can read first or alongside this lab;
# Faster R-CNN, RoIPool and non-maximum suppression from chapter 11. The mathematics is bilinear interpolation, products
# of matrices, the sigmoid and cross-entropy.
#
# Run the cells from top to bottom. As long as one of your functions has not passed its check, later cells use the
# library's version of it, so the notebook always runs to its end.
#
# Your functions may call other libraries. They may not call a function that already solves the exercise, such as
# `torchvision.ops.roi_align`: the checks and the grader hide such functions ([list](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## Goals
#
# After this lab you can
#
# - extract the features of a box from a feature map without rounding, and explain what rounding costs;
# - compute the target of a mask head, and a loss in which classes do not compete;
# - train a Mask R-CNN, and determine whether its boxes or its masks limit its accuracy;
# - combine prototypes into masks;
# - apply a network whose weights are predicted by another network;
# - lower the scores of duplicate detections without a loop.
#
# The figure below shows why boxes and masks are both useful. The left panel shows the class map of a scene. If objects
# of the same class touch each other, the class map merges them into one region. The middle panel shows boxes: they
# separate the objects, but they also contain pixels of other objects and of the background. The right panel shows
# masks, which separate the objects and contain no other pixels. **Top-down** means that a method first predicts the
# boxes, and then the pixels of the object in each box.

# %% name="picture" role="show"
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.viz import gallery, palette, show


def draw_boxes(ax, boxes, colours=None, **style):
    """Draw the outlines of boxes (N, 4), each in its own colour."""
    colours = palette(len(boxes)) if colours is None else colours
    for (x1, y1, x2, y2), colour in zip(torch.as_tensor(boxes).tolist(), colours):
        corners = [x1 - 0.5, x2 - 0.5, x2 - 0.5, x1 - 0.5], [y1 - 0.5, y1 - 0.5, y2 - 0.5, y2 - 0.5]
        ax.fill(*corners, fill=False, edgecolor=colour, **{"linewidth": 2, **style})


scene = draw_shapes(8)
image, boxes, labels, masks = (scene[key] for key in ("image", "boxes", "labels", "masks"))
names = [CLASSES[label] for label in labels]
titles = ["classes", f"{len(boxes)} boxes", f"{len(masks)} masks"]
fig = gallery([image] * 3, [scene["semantic"], None, masks], titles=titles, columns=3, width=3)
draw_boxes(fig.axes[1], boxes)
show(fig, alt=f"A scene with {', '.join(names)}: its class map, its boxes, which overlap, and its masks, which do not.")

# %% [markdown] name="roi_align_idea"
# ## 1. RoIAlign: features of a box without rounding (5 points)
#
# **Idea.** A head needs the same number of values from every box, large or small: a grid of h x w bins. In chapter 11,
# RoIPool extracted these values from the feature map. But a cell of the map covers 8 or 16 pixels, and RoIPool rounds
# the box to whole cells, so it moves each edge by up to 4 or 8 pixels. This does not matter much for the decision that
# the object is a square, but a mask that is shifted by 4 pixels is a bad mask. **RoIAlign** rounds nothing. It
# interpolates the map between the centres of its cells.
#
# **Formula.** Multiplied by `spatial_scale`, the box lies on the feature map. Along y it begins at $y_1$ and has the
# height $H_b$. With $h$ bins along y and $S$ points per bin along each axis, the points lie at the centres of $h\,S$
# equal parts:
#
# $$ \begin{aligned}
#    y_k &= y_1 + \frac{k + \tfrac12}{h\,S} \, H_b, \\
#    k &= 0, \dots, h S - 1,
#    \end{aligned} $$
#
# and along x in the same way with $w$. The map is sampled at each point by bilinear interpolation. The value of the
# cell in row $r$ belongs to the **centre** of the cell, $r + \tfrac12$. So along y the cell has the weight
#
# $$ \max\bigl(0,\; 1 - |\,y_k - (r + \tfrac12)\,|\bigr) $$
#
# and the weight of a cell is the product of its weights along y and along x. (This holds between the centres of cells.
# The docstring states the rule for points beyond the outermost centres.) The output of a bin is the mean of its
# $S \times S$ samples.
#
# **Worked example.** A map has one row with the values 0, 1, 2, 3. A box extends from x = 1.5 to 3.5 and is divided
# into two bins with one point each. The points are at 2.0 and 3.0. The centre of cell 1 is at 1.5 and that of cell 2
# at 2.5, so at 2.0 both cells have the weight 1/2, and the sample is 1.5. At 3.0, the sample is 2.5. If you place the
# centre of cell r at r instead of r + 1/2, the samples are 2 and 3. This is an error of half a cell, or 4 pixels at a
# stride of 8.


# %% name="roi_align" role="solution"
def roi_align(features, boxes, output_size, spatial_scale, samples):
    """Extract h x w features from a feature map for each box, without rounding anything.

    A box is given in pixels of the image. Multiplied by `spatial_scale`, it lies on the feature map. There, divide it
    into h x w bins of equal size, and each bin into samples x samples parts of equal size. Sample the map at the centre
    of each part. The output of a bin is the mean of its samples.

    The value of the cell in row y and column x belongs to the centre of that cell, the point (x + 0.5, y + 0.5).
    Between the centres of four cells, interpolate bilinearly. Beyond the outermost centres, the value of the outermost
    row or column continues for exactly one more cell, up to a distance of 1 from these centres. At a point further
    outside, the sample is 0.

    features:      (C, H, W) floats.
    boxes:         (N, 4) floats, xyxy in pixels of the image. A box may extend beyond the map, and N may be 0.
    output_size:   (h, w), the numbers of rows and columns of bins.
    spatial_scale: cells per pixel of the image, such as 1/4.
    samples:       number of points per bin along each axis.

    Returns (N, C, h, w) floats.

    Example: with row = torch.tensor([[[0., 1., 2., 3.]]]) and boxes = torch.tensor([[1.5, 0., 3.5, 1.]])
    roi_align(row, boxes, (1, 2), 1.0, 1) is [[[[1.5, 2.5]]]].
    """
    ### BEGIN SOLUTION: compute the weight of each cell in each bin along y and x, then the weighted sums of the map
    x1, y1, x2, y2 = (boxes * spatial_scale - 0.5).T[..., None]  # now the centres of cells are integers

    def weights(low, high, bins, cells):
        parts = bins * samples
        points = low + (high - low) * (torch.arange(parts) + 0.5) / parts  # (N, parts)
        inside = (points >= -1) & (points <= cells)
        distance = (points.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
        weight = (1 - distance).clamp(min=0) * inside[..., None]
        return weight.unflatten(1, (bins, samples)).mean(dim=2)  # (N, bins, cells)

    rows = weights(y1, y2, output_size[0], features.shape[1])
    columns = weights(x1, x2, output_size[1], features.shape[2])
    return torch.einsum("nhy,cyx,nwx->nchw", rows, features, columns)
    ### END SOLUTION


# %% name="check_roi_align" role="check"
check(roi_align)

# %% [markdown] name="roi_align_after"
# The figure shows your function on four objects. In the first row, its input is the image itself, and each box is
# divided into 28 x 28 bins, so every object fills its crop. In the other two rows, the input is a coarse map with a
# stride of 8, similar to the feature map of a backbone: each cell is the mean colour of 8 x 8 pixels. On this map an
# object is only 2 to 4 cells wide. RoIPool and RoIAlign extract 7 x 7 bins from the same boxes. Compare the blocks of
# RoIPool with the gradual changes of RoIAlign.

# %% name="roi_align_figure" role="show"
from segedu.ops.roi_pool import roi_pool

chosen = [1, 3, 4, 5]
coarse = torch.nn.functional.avg_pool2d(image, 8)
align = use(roi_align)
views = {
    "image, 28 x 28": torch.as_tensor(align(image, boxes[chosen], (28, 28), 1.0, 2)),
    "RoIPool, stride 8": roi_pool(coarse[None], [boxes[chosen]], 7, 1 / 8),
    "RoIAlign, stride 8": torch.as_tensor(align(coarse, boxes[chosen], (7, 7), 1 / 8, 2)),
}
crops = [crop.clamp(0, 1) for row in views.values() for crop in row]
titles = [f"{names[i]}: {name}" for name in views for i in chosen]
show(
    gallery(crops, titles=titles, columns=4, width=2.1),
    alt="Four objects in three rows: sharp crops of the image; by RoIPool, blocks of cells; by RoIAlign, soft values.",
)

# %% [markdown] name="widget_text"
# ## Move the box
#
# Drag the box, or move it with the arrow keys or the sliders in steps of 0.1 pixels. The two tables show the value of
# each bin and, below it, how much the value changes if the box moves another 0.3 pixels to the right. Compare RoIPool
# and RoIAlign. How far can you move the box before the output of RoIPool changes at all? By how much does the output
# change then? What does this mean for a network that has to learn where an edge is?

# %% name="widget" role="widget"
from segedu.teaching.widgets.roi import explorer

explorer()

# %% [markdown] name="mask_target_idea"
# ## 2. The target of the mask head (3 points)
#
# **Idea.** The input of the mask head is a grid of features that covers the box of a proposal, and its output is a
# grid that covers the same box: M x M bins, 28 x 28 in the paper. Its target must cover the same box too. The target
# is therefore the ground-truth mask, **cropped to the box of the proposal** and not to that of the object. In a
# proposal that is too large, the mask is small. In a proposal that is shifted, a part of the mask is missing.
#
# **Formula.** The target is computed with RoIAlign, applied to the mask, with one point per bin. The value of a pixel
# is 1 on the object and 0 elsewhere, and it belongs to the centre of the pixel. Let $m(x, y)$ be the mask,
# interpolated at $(x, y)$. Then
#
# $$ \begin{aligned}
#    t_{ij} &= \bigl[\, m(x_j, y_i) \ge \tfrac12 \,\bigr], \\
#    x_j &= x_1 + \frac{j + \tfrac12}{M} (x_2 - x_1)
#    \end{aligned} $$
#
# and $y_i$ in the same way. First interpolate the values 0 and 1, then compare the result with one half. In the other
# order there would be nothing left to interpolate.
#
# **Worked example.** A row of a mask is 1, 1, 0, 0. A box extends from 1 to 3, and M = 4. The points are at 1.25,
# 1.75, 2.25 and 2.75, and the interpolated values are 1, 0.75, 0.25 and 0. The target is True, True, False, False.


# %% name="mask_target" role="solution"
def mask_target(masks, boxes, matches, size):
    """Sample the mask of each proposal's object on a grid of size x size bins that fills the proposal's box.

    Divide the box into size x size bins of equal size, without rounding. Sample the mask at the centre of each bin by
    bilinear interpolation. The value of the pixel in row y and column x (1 on the object, 0 elsewhere) belongs to the
    centre of that pixel, the point (x + 0.5, y + 0.5). The target is True where the sampled value is at least 1/2.
    Between the border of the image and the outermost pixel centres, use the value of the outermost row or column.

    masks:   (N, H, W) bool, one per object.
    boxes:   (P, 4) floats, xyxy in pixels: the proposals, within the image. P may be 0.
    matches: (P,) integers: the object of each proposal, a row of `masks`.
    size:    M, number of bins along each axis.

    Returns (P, M, M) bool.

    Example: with masks = torch.tensor([[[True, True, False, False]] * 2]) and boxes = torch.tensor([[1., 0., 3., 2.]])
    mask_target(masks, boxes, torch.tensor([0]), 2) is [[[True, False], [True, False]]].
    """
    ### BEGIN SOLUTION: compute the weight of each pixel at each point along y and x, sum, and compare with 1/2
    x1, y1, x2, y2 = (boxes - 0.5).T[..., None]  # now the centres of pixels are integers
    centres = (torch.arange(size) + 0.5) / size

    def weights(low, high, pixels):
        points = (low + (high - low) * centres).clamp(0, pixels - 1)  # (P, M)
        return (1 - (points[..., None] - torch.arange(pixels)).abs()).clamp(min=0)

    rows, columns = weights(y1, y2, masks.shape[1]), weights(x1, x2, masks.shape[2])
    return torch.einsum("phy,pyx,pwx->phw", rows, masks[matches].float(), columns) >= 0.5
    ### END SOLUTION


# %% name="check_mask_target" role="check"
check(mask_target)

# %% [markdown] name="mask_target_after"
# The first panel of the figure shows three proposals for one object, and the lower row shows their targets. The
# frame of each target has the colour of its proposal. Notice how the object becomes smaller in the proposal that is too
# large, and is cut off in the shifted proposal. The upper right panel helps to choose M. For all objects of ten scenes, your
# function computes targets in the objects' own boxes, and the targets are resized and pasted into the image again. The
# bars show the mean IoU of the results with the ground-truth masks. This is the IoU of a head that predicts its targets
# exactly.

# %% name="mask_target_figure" role="show"
from segedu.ops.masks import paste_masks

target_of, number = use(mask_target), 4
shifts = torch.tensor([[0.0, 0, 0, 0], [-6, -6, 6, 6], [6, 5, 6, 5]])
proposals = (boxes[number] + shifts).clamp(0, 64)
proposal_targets = torch.as_tensor(target_of(masks, proposals, torch.full((3,), number), 28))
scenes, mean_iou = [draw_shapes((8, i)) for i in range(10)], {}
for size in (7, 14, 28):
    overlaps = []
    for one in scenes:
        sampled = torch.as_tensor(target_of(one["masks"], one["boxes"], torch.arange(len(one["boxes"])), size))
        pasted = paste_masks(sampled.float(), one["boxes"], (64, 64)) > 0.5
        overlaps += ((pasted & one["masks"]).sum((1, 2)) / (pasted | one["masks"]).sum((1, 2))).tolist()
    mean_iou[size] = np.mean(overlaps)
fig, places = plt.subplot_mosaic("ABB;CDE", figsize=(7.6, 5.3), layout="constrained")
axes = [places[letter] for letter in "ACDEB"]
axes[0].imshow(image.permute(1, 2, 0))
draw_boxes(axes[0], proposals)
axes[0].set(title="three proposals", xticks=[], yticks=[])
for ax, target, colour, title in zip(axes[1:], proposal_targets, palette(3), ("exact box", "too large", "shifted")):
    ax.imshow(target, cmap="Greys_r")
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set(color=colour, linewidth=4)
axes[4].bar([f"{size} x {size}" for size in mean_iou], mean_iou.values(), color="#0072B2")
axes[4].bar_label(axes[4].containers[0], fmt="%.3f")
axes[4].set(title="IoU of pasted targets", ylim=(0.7, 1.05))
show(
    fig,
    alt="Three proposals for one object, and their targets: the whole object, a small object, a part of the object. "
    "IoU of targets that are pasted into the image: "
    + ", ".join(f"{value:.3f} at {size}" for size, value in mean_iou.items()),
)

# %% [markdown] name="mask_loss_idea"
# ## 3. The mask loss (3 points)
#
# **Idea.** The mask head predicts one mask **per class**, and the box head decides which of them is used. Therefore
# the classes do not need to compete for pixels. If the ground-truth class of a proposal is triangle, only the triangle
# channel is compared with the target, with a sigmoid at each pixel. The other channels do not contribute to the loss.
# If the sigmoids are replaced with a softmax over the classes, the mask AP falls by 5.5 points (table 2b of the paper).
#
# **Formula.** Let $p$ run over the positive proposals, and let $c_p$ be the ground-truth class of proposal $p$. At the
# pixel $(i, j)$, let $t$ be the target, and let $s = \sigma(z_{p,c_p})$ be the sigmoid of the logit in channel $c_p$.
# Then
#
# $$ \begin{aligned}
#    L &= \operatorname{mean}_{p,i,j} \; \ell, \\
#    \ell &= -\bigl( t \log s + (1 - t) \log (1 - s) \bigr)
#    \end{aligned} $$
#
# A proposal of class 0 is background. It has no object and therefore no mask, and does not contribute. Without any
# positive proposal the loss is 0, and `loss.backward()` must still work, so this 0 has to be computed from the logits.
#
# **Worked example.** At one pixel, the logits of three classes are 5, 0 and 7, and the target is 1. If the
# ground-truth class is 1, the loss is $-\log \sigma(0) = \log 2 = 0.69$. The logit 7 of class 2 does not contribute.
#
# **Large logits.** In 32-bit floating point, $\sigma(-200)$ is rounded to 0, and $\log 0$ is minus infinity, although
# the loss by the formula is 200. `binary_cross_entropy_with_logits` computes the loss without this error.


# %% name="mask_loss" role="solution"
def mask_loss(logits, labels, targets):
    """Compare the mask that is predicted for each proposal's ground-truth class with its target, pixel by pixel.

    The mask head predicts one mask per class, and the classes do not compete: for a proposal with label c, the loss is
    the binary cross-entropy of the sigmoid of channel c. The other channels do not contribute.

        loss = mean over all pixels of all positive proposals of  -(t log s + (1 - t) log(1 - s)),  s = sigmoid(logit)

    A proposal with label 0 is background. It has no object, its target has no meaning, and it does not contribute.
    Without a positive proposal the loss is 0. Its gradient with respect to the logits is then 0 too: compute this 0
    from the logits, because otherwise `loss.backward()` would fail. The loss must also be correct for logits with large
    absolute values, such as 200 and -200.

    logits:  (P, K, M, M) floats; channel c belongs to class c. Channel 0 is never used.
    labels:  (P,) integers from 0 to K - 1, the ground-truth classes.
    targets: (P, M, M) floats, 1 on the object and 0 elsewhere.

    Returns a tensor with one value and a gradient.
    """
    ### BEGIN SOLUTION: select the class channel of each positive proposal, then use binary cross-entropy with logits
    positive = labels.nonzero()[:, 0]
    if len(positive) == 0:
        return logits.sum() * 0
    own = logits[positive, labels[positive]]
    return torch.nn.functional.binary_cross_entropy_with_logits(own, targets[positive])
    ### END SOLUTION


# %% name="check_mask_loss" role="check"
check(mask_loss)

# %% [markdown] name="mask_loss_after"
# In which direction does your loss change the logits? In the figure, all logits are 0, and the ground-truth class of
# the object is triangle. The panels show the negative gradient of the loss with respect to each channel. A step of
# gradient descent increases the logits of bright pixels and decreases those of dark pixels. At grey pixels the gradient
# is 0. Notice which channels are completely grey.

# %% name="mask_loss_figure" role="show"
number = 4  # the triangle of the figure above
target = torch.as_tensor(target_of(masks, boxes[[number]], torch.tensor([number]), 28)).float()
logits = torch.zeros(1, len(CLASSES), 28, 28, requires_grad=True)
use(mask_loss)(logits, labels[[number]], target).backward()
descent = -logits.grad[0]
fig = gallery((0.4 * descent / descent.abs().max() + 0.5), titles=[f"channel {k}: {c}" for k, c in enumerate(CLASSES)])
show(
    fig,
    alt="Four channels. Background, circle and square are grey. The channel of the triangle shows a bright object.",
)

# %% [markdown] name="yolact_masks_idea"
# ## 4. Masks from prototypes (3 points)
#
# **Idea.** YOLACT needs neither RoIAlign nor a mask head for each box. It computes $k$ **prototypes** once for the
# whole image: maps that do not belong to a particular object. In addition to its class and box, each detection has $k$
# **coefficients**, the weights of the prototypes in its mask. A prototype may also be subtracted. Therefore a tanh
# maps the coefficients to values between -1 and 1.
#
# **Formula.** Let $P$ be the prototypes, with one row per pixel, and $C$ the coefficients, with one row per object.
# Then
#
# $$ M = \sigma\bigl(P \tanh(C)^{\mathsf T}\bigr), $$
#
# one product of matrices for all objects. The prototypes also show other objects, so each mask is cropped to its box.
# A pixel is in the box if its centre is: $x_1 \le x + \tfrac12 < x_2$, and the same along y. Outside the box, the mask
# is 0. Crop the mask **after** the sigmoid.
#
# **Worked example.** At one pixel, the values of two prototypes are 2 and 1. The coefficients of an object after the
# tanh are 0.5 and -1. The sum is $1 - 1 = 0$, and the mask is $\sigma(0) = 1/2$. Another object has the coefficients 1
# and 0.5, so its mask is $\sigma(2.5) = 0.92$. The prototypes are the same, but the masks differ.


# %% name="yolact_masks" role="solution"
def yolact_masks(prototypes, coefficients, boxes):
    """Combine prototypes, which all instances share, into the mask of each instance, and crop it to its box.

    A tanh maps the coefficients of an instance to values from -1 to 1, so that an instance can also subtract a
    prototype. The mask is the sigmoid of the sum of the prototypes times these values. In the paper this is
    sigmoid(P C^T), with one row of P per pixel and one row of C per instance. Outside its box a mask is 0. A pixel is
    in the box if its centre is. The centre of the pixel in row y and column x is the point (x + 0.5, y + 0.5), so the
    condition is

        x1 <= x + 0.5 < x2   and   y1 <= y + 0.5 < y2

    prototypes:   (H, W, k) floats.
    coefficients: (N, k) floats, the output of the network before tanh. N may be 0.
    boxes:        (N, 4) floats, xyxy in pixels of the prototypes.

    Returns (N, H, W) floats from 0 to 1, before any threshold.

    Example: one prototype and one instance. The box contains the second and the third pixel.
    yolact_masks(torch.zeros(1, 4, 1), torch.ones(1, 1), torch.tensor([[1., 0., 3., 1.]])) is [[[0., 0.5, 0.5, 0.]]].
    """
    ### BEGIN SOLUTION: apply tanh, sum over the prototypes, apply the sigmoid, and crop by the centres of the pixels
    logits = torch.einsum("hwk,nk->nhw", prototypes, coefficients.tanh())
    y, x = (torch.arange(length) + 0.5 for length in prototypes.shape[:2])
    x1, y1, x2, y2 = boxes.T[..., None]  # (N, 1) each
    rows, columns = (y1 <= y) & (y < y2), (x1 <= x) & (x < x2)
    return logits.sigmoid() * (rows[:, :, None] & columns[:, None, :])
    ### END SOLUTION


# %% name="check_yolact_masks" role="check"
check(yolact_masks)

# %% [markdown] name="yolact_after"
# Now you combine the prototypes of a trained network. This small YOLACT was trained on other scenes of this kind and
# is part of the library. It outputs class scores, boxes, coefficients and prototypes. Your function computes the masks
# of the 40 most confident detections, the candidates. The figure first shows the prototypes. No loss prescribes what a
# prototype shows. Look for one that is bright on circles, one that is bright on the ground, and one that shows
# outlines.

# %% name="yolact_net" role="show"
from segedu.ops.anchors import decode_boxes
from segedu.weights import load

with torch.no_grad():
    outputs = load("shapes_yolact")(image[None])
prototypes = outputs["prototypes"][0].movedim(0, -1)  # (h, w, k)
pred_scores, pred_labels = outputs["class_logits"][0].softmax(-1)[:, 1:].max(dim=-1)
best = pred_scores.argsort(descending=True)[:40]
pred_scores, pred_labels = pred_scores[best], pred_labels[best] + 1
pred_boxes = decode_boxes(outputs["deltas"][0, best], outputs["anchors"][best], (10, 10, 5, 5))
# the network outputs the coefficients after the tanh, but your function expects them before it
coefficients = outputs["coefficients"][0, best].clamp(-0.9999, 0.9999).atanh()
proto_scale = prototypes.shape[0] / image.shape[1]  # the prototypes have a lower resolution than the image
pred_masks = torch.as_tensor(use(yolact_masks)(prototypes, coefficients, pred_boxes * proto_scale))

panels = prototypes.movedim(-1, 0) / prototypes.amax((0, 1)).clamp(min=1e-6)[:, None, None]
fig = gallery([image, *panels], titles=["image", *(f"prototype {i}" for i in range(len(panels)))], columns=6, width=1.5)
fig.set_size_inches(9, 5.5)
fig.tight_layout(pad=0.4, h_pad=1)
show(
    fig,
    alt=f"A scene and its {len(panels)} prototypes. They are bright on objects, edges or the ground.",
)

# %% [markdown] name="yolact_figure_text"
# The next figure shows two detections of different classes, one per row. The bars are their coefficients: the weights
# of the same prototypes. The third panel shows the mask before cropping. Other objects are visible in it, mostly
# objects of the same class. The last panel shows the cropped mask. Are there prototypes whose coefficients have
# opposite signs in the two rows?

# %% name="yolact_figure" role="show"
whole = torch.tensor([[0.0, 0.0, *prototypes.shape[1::-1]]])
other = next(i for i in range(1, 40) if pred_labels[i] != pred_labels[0])
fig, axes = plt.subplots(2, 4, figsize=(9.5, 4.2), layout="constrained", width_ratios=[1, 1.8, 1, 1])
for row, i in zip(axes, (0, other)):
    uncropped = torch.as_tensor(use(yolact_masks)(prototypes, coefficients[[i]], whole))[0]
    row[0].imshow(image.permute(1, 2, 0))
    draw_boxes(row[0], pred_boxes[[i]], ["#D55E00"])
    row[1].bar(range(len(panels)), coefficients[i].tanh(), color="#0072B2")
    row[1].axhline(0, color="#1b1b1b", linewidth=0.8)
    titles = [f"{CLASSES[pred_labels[i]]}, score {pred_scores[i]:.2f}", "coefficients", "before cropping", "mask"]
    for ax, mask in zip(row[2:], (uncropped, pred_masks[i])):
        ax.imshow(mask, cmap="cividis", vmin=0, vmax=1)
    for ax, title in zip(row, titles):
        ax.set_title(title)
    for ax in row[[0, 2, 3]]:
        ax.set(xticks=[], yticks=[])
show(
    fig,
    alt="Two detections: the box, coefficients above and below 0, the mask before cropping with traces of other "
    "objects, and the cropped mask.",
)

# %% [markdown] name="dynamic_conv_idea"
# ## 5. Dynamic convolutions (4 points)
#
# **Idea.** CondInst needs neither RoIAlign nor cropping. All objects share the same features, but each object has **a
# network of its own**: three 1 x 1 convolutions, which are so small that their parameters are a short vector. The
# detector predicts this vector for each object that it detects. In the paper, the vector has 169 values.
#
# How can a network of 1 x 1 convolutions separate two circles that look the same? It needs to know **where its object
# is**. For this purpose, two more channels are placed before the features. At each cell, they contain the offset from
# the centre $(x, y)$ of the cell to the location $(x_n, y_n)$ of the object, in units of $u$ cells: $(x_n - x) / u$ and
# $(y_n - y) / u$.
#
# **Formula.** With $C$ features and $h$ hidden channels, the three layers have $(C + 2) h$, $h h$ and $h$ weights, and
# $h$, $h$ and 1 biases. The vector contains first all weights, layer by layer, then all biases, layer by layer. For
# $C = 8$ and $h = 8$ its length is
#
# $$ 80 + 64 + 8 + 8 + 8 + 1 = 169 . $$
#
# **Worked example.** With $C = 1$ and $h = 1$, there are 3 + 1 + 1 weights and 3 biases, 8 parameters in total. The
# vector 1, 0, 2 | 1 | 1 | 0 | 0 | 3 has the following meaning. The weights of the first layer are 1 for the offset
# along x, 0 for the offset along y, and 2 for the feature. The other two layers have the weight 1. The biases are 0, 0
# and 3. The object is at x = 0.5, and the unit is $u = 1$. Cell 0 has its centre at x = 0.5 and the feature 1. The
# first layer computes $1 \cdot 0 + 2 \cdot 1 = 2$, which both ReLUs leave unchanged. With the bias 3, the output is
# 2 + 3 = 5. Cell 1 has its centre at x = 1.5 and the feature 2. The first layer computes
# $1 \cdot (-1) + 2 \cdot 2 = 3$, and the output is 3 + 3 = 6.


# %% name="dynamic_conv" role="solution"
def dynamic_conv(features, parameters, locations, unit, hidden):
    """Apply a network of three 1x1 convolutions for each instance, with the instance's own weights, as in CondInst.

    The input of each network has C + 2 channels. The first two are the coordinates of the instance relative to each
    cell: (x_n - x) / unit and (y_n - y) / unit for the instance at (x_n, y_n) and the cell with the centre (x, y). The
    centre of the cell in row i and column j is (x, y) = (j + 0.5, i + 0.5). The C features follow; they are the same
    for all instances.

    The three convolutions have `hidden`, `hidden` and 1 output channels. A ReLU follows the first and the second
    convolution, but not the third. The parameters of an instance are in this order: the weights of the first, the
    second and the third convolution, then the biases of the first, the second and the third. Each weight is a matrix
    (output channels, input channels), flattened row by row as in torch.

    features:   (C, H, W) floats.
    parameters: (N, n) floats, n = (C + 2) * hidden + hidden * hidden + hidden + hidden + hidden + 1.
    locations:  (N, 2) floats, x_n and y_n of each instance, in cells. N may be 0.
    unit:       the number of cells that correspond to a relative coordinate of 1.
    hidden:     number of channels between the convolutions.

    Returns (N, H, W) floats: the mask logits of each instance, before a sigmoid.
    """
    ### BEGIN SOLUTION: split the parameters, put the coordinates before the features, and apply the three layers
    height, width = features.shape[1:]
    shapes = [(hidden, len(features) + 2), (hidden, hidden), (1, hidden)]
    sizes = [o * i for o, i in shapes] + [o for o, _ in shapes]
    pieces = parameters.split(sizes, dim=1)
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    dx = (locations[:, 0, None, None] - x).expand(-1, height, width) / unit
    dy = (locations[:, 1, None, None] - y[:, None]).expand(-1, height, width) / unit
    coordinates = torch.stack([dx, dy], dim=1)
    maps = torch.cat([coordinates, features.expand(len(locations), -1, -1, -1)], dim=1)
    for layer, shape in enumerate(shapes):
        weight, bias = pieces[layer].unflatten(1, shape), pieces[3 + layer]
        maps = torch.einsum("noi,nihw->nohw", weight, maps.relu() if layer else maps) + bias[:, :, None, None]
    return maps[:, 0]
    ### END SOLUTION


# %% name="check_dynamic_conv" role="check"
check(dynamic_conv)

# %% [markdown] name="dynamic_conv_after"
# What can such a small network represent? In the next experiment, gradient descent fits the parameters for each object
# of the scene, through your function, with the prototypes above as features. The parameters are fitted to the
# ground-truth mask itself, so the result estimates an upper bound. (In CondInst, a convolution predicts the parameters
# from the image alone.) We do this twice: with the two coordinate channels, and with a unit so large that these
# channels are almost 0 everywhere. In the second case the network can only use the appearance of an object, and the
# little that the prototypes contain about positions. Which objects have worse masks without coordinates?
#
# Before that, the next cell tests your function. For such an experiment the result of your function must have a
# gradient, and the function must be fast enough to be called often. The training at the end of the lab has the same
# requirements for three other functions of yours.

# %% name="trainable" role="show"
import time
from functools import partial

from segedu.teaching.exercises.lab14_top_down import exercises

library = {exercise.name: exercise.reference for exercise in exercises}


def trainable(function, arguments, longest=0.03):
    """Return your function, or the library's if yours is slow or has no gradient. It runs on the arguments' device."""

    def on_device(one, *given):
        with torch.device(arguments[0].device):
            return one(*given)

    own = use(function)
    try:
        for _ in range(2):  # the first call may include start-up time
            start = time.perf_counter()
            result = on_device(own, *arguments)
            if result.dtype != torch.bool:
                result.sum().backward()
            spent = time.perf_counter() - start
        why = f"takes {spent:.2f} seconds per call" if spent > longest else None
    except Exception as error:
        why = f"gives no gradient here ({type(error).__name__})"
    if why:
        print(f"(Your {function.__name__} {why}. It may be correct, but this training uses the library's.)")
    return partial(on_device, library[function.__name__] if why else own)


# %% name="dynamic_conv_figure" role="show"
F, hidden = torch.nn.functional, 8
features = prototypes.movedim(-1, 0) / prototypes.max()
gt_masks = F.interpolate(masks[None].float(), features.shape[1:], mode="area")[0]
locations = proto_scale * (boxes[:, :2] + boxes[:, 2:]) / 2
count = (len(features) + 2) * hidden + hidden**2 + 3 * hidden + 1
example = torch.ones(len(masks), count, requires_grad=True)
apply_nets = trainable(dynamic_conv, (features, example, locations, 8.0, hidden))
fitted = {}
for name, unit in (("with coordinates", 8.0), ("without", 1e6)):
    start = 0.3 * torch.randn(len(masks), count, generator=torch.Generator().manual_seed(0))
    rows = start.requires_grad_()
    optimizer = torch.optim.Adam([rows], lr=0.03)
    for _ in range(300):
        loss = F.binary_cross_entropy_with_logits(apply_nets(features, rows, locations, unit, hidden), gt_masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fitted[name] = (
        F.interpolate(apply_nets(features, rows, locations, unit, hidden)[None], (64, 64), mode="bilinear")[0] > 0
    )
overlap = {name: ((m & masks).sum((1, 2)) / (m | masks).sum((1, 2))).mean() for name, m in fitted.items()}
titles = ["ground truth", *(f"{name}: mean IoU {value:.2f}" for name, value in overlap.items())]
fig = gallery([image] * 3, [masks, *fitted.values()], titles=titles, columns=3, numbers=True, width=2.4)
show(
    fig,
    alt=f"The ground-truth masks of a scene, and masks of networks with {count} parameters per object. "
    f"{'; '.join(titles[1:])}.",
)

# %% [markdown] name="matrix_nms_idea"
# ## 6. Matrix NMS (2 points)
#
# **Idea.** The 40 candidates of YOLACT belong to only a few objects, so most of them are duplicates. Ordinary
# non-maximum suppression processes them in a loop, one after the other. SOLOv2 computes the matrix of all IoUs and
# **lowers** the scores in one step. Call a mask *better* than another if its score is higher. The larger the IoU of a
# mask with a better mask of its class, the more its score is lowered. No mask is removed. Afterwards, a threshold on
# the lowered scores removes the duplicates.
#
# One problem remains. In ordinary non-maximum suppression, a mask that was itself suppressed cannot suppress others.
# Accordingly, a mask that overlaps a better mask should lower the scores of others less. How much less depends on its
# largest IoU with a better mask.
#
# **Formula.** Let $u_{ij}$ be the IoU of the masks $i$ and $j$, and $f(u) = e^{-\sigma u^2}$. Let $i$ run over the
# masks that are better than mask $j$, and let $w_i = \max_k u_{ki}$ over the masks $k$ that are better than $i$. If no
# mask is better than $i$, then $w_i = 0$. All scores are lowered at the same time:
#
# $$ s_j \leftarrow s_j \cdot \min_i \frac{f(u_{ij})}{f(w_i)} . $$
#
# The best mask keeps its score. The IoU of masks of different classes counts as 0. This form of $f$ is that of the
# authors' code, with $\sigma = 2$. Their paper has $e^{-u^2 / \sigma}$.
#
# **Worked example.** Let $\sigma = 2$. Three masks A, B and C of one class have the scores 0.9, 0.8 and 0.7. B has 10
# pixels; A consists of 6 of them, and C of 3 others. So the IoU of A and B is 0.6, that of B and C is 0.3, and that of
# A and C is 0. The factor for B is $e^{-2 \cdot 0.36} = 0.49$, and its score becomes $0.8 \cdot 0.49 = 0.39$. For C,
# mask A gives $e^0 = 1$, and mask B gives $e^{-2 \cdot 0.09} / e^{-2 \cdot 0.36} = 0.84 / 0.49$, which is above 1. The
# smallest value is 1, so C keeps its score of 0.7. The reason is that the IoU of B and A is larger than that of C and
# B.


# %% name="matrix_nms" role="solution"
def matrix_nms(masks, labels, scores, sigma):
    """Lower the score of each mask that overlaps better masks of its class, as in SOLOv2.

    With f(iou) = exp(-sigma * iou^2), the score of mask j is multiplied by

        the smallest of  f(iou_ij) / f(worst_i)  over all better masks i,  where
        worst_i = the largest iou_ki  over all masks k that are better than i.

    A mask i that itself overlaps a better mask has a large worst_i, and lowers other scores less. "Better" means a
    higher score. The IoU of two masks of different classes counts as 0, and so does that of two empty masks. If no mask
    is better than i, worst_i is 0. The best mask keeps its score.

    masks:  (N, H, W) bool. N may be 0.
    labels: (N,) integers.
    scores: (N,) floats, in any order; no two are equal.
    sigma:  strength of the decay, above 0.

    Returns (N,) floats: the lowered scores, in the order of the arguments. No mask is removed.

    Example: two equal masks. The score of the second is multiplied by exp(-2) = 0.135.
    matrix_nms(torch.ones(2, 2, 2).bool(), torch.tensor([1, 1]), torch.tensor([0.9, 0.8]), 2.0) is [0.9, 0.1083].
    """
    ### BEGIN SOLUTION: compute the IoUs with better masks of the same class, the largest per mask, and the least ratio
    if len(scores) == 0:
        return scores
    pixels = masks.flatten(1).float()
    both, area = pixels @ pixels.T, pixels.sum(dim=1)
    overlap = both / (area[:, None] + area - both).clamp(min=1)
    overlap = overlap * (labels[:, None] == labels) * (scores[:, None] > scores)  # row i is better than column j
    worst = overlap.amax(dim=0)
    ratios = torch.exp(-sigma * (overlap**2 - worst[:, None] ** 2))
    return scores * ratios.amin(dim=0).clamp(max=1)
    ### END SOLUTION


# %% name="check_matrix_nms" role="check"
check(matrix_nms)

# %% [markdown] name="matrix_nms_after"
# Together, your `yolact_masks` and `matrix_nms` convert the outputs of a network to objects. YOLACT's own suppression,
# Fast NMS, compares boxes. Yours compares masks. The left panel of the figure shows the outlines of all candidates,
# and the right panel the outlines of those that are kept. In the middle panel, dots are the original scores and crosses
# the lowered scores. The candidates whose lowered score is above the line are kept. Compare their number with the
# number of objects.


# %% name="matrix_nms_figure" role="show"
def in_image(probabilities):
    """Resize masks (N, h, w) from 0 to 1 to the size of the image, and return bool masks."""
    return F.interpolate(probabilities[None], image.shape[1:], mode="bilinear")[0] > 0.5


candidates = in_image(pred_masks)
lowered = torch.as_tensor(use(matrix_nms)(candidates, pred_labels, pred_scores, 2.0))
keep = lowered > 0.3
fig, axes = plt.subplots(1, 3, figsize=(9.5, 3.1), layout="constrained", width_ratios=[1, 1.5, 1])
for ax, selected in ((axes[0], torch.ones_like(keep)), (axes[2], keep)):
    ax.imshow(image.permute(1, 2, 0))
    for mask, colour in zip(candidates[selected], palette(int(selected.sum()))):
        if mask.any() and not mask.all():
            ax.contour(mask, levels=[0.5], colors=[colour], linewidths=1.5)
    ax.set(title=f"{int(selected.sum())} masks, {len(masks)} objects", xticks=[], yticks=[])
axes[1].plot(pred_scores, "o", color="#0072B2", label="score of the network")
axes[1].plot(lowered, "x", color="#D55E00", label="after Matrix NMS")
axes[1].axhline(0.3, color="#1b1b1b", linewidth=0.8)
axes[1].set(xlabel="candidate, by descending score", ylim=(0, 1.02))
axes[1].legend()
show(
    fig,
    alt=f"Outlines of {len(keep)} candidates. Matrix NMS lowers most of their scores to below 0.3. Outlines of the "
    f"{keep.sum()} candidates that are kept.",
)

# %% [markdown] name="train_text"
# ## A small Mask R-CNN
#
# Now you train a network from random weights. It learns to propose regions, to classify them, to predict box deltas
# and to predict masks, all at the same time. It is the Faster R-CNN of chapter 11 with **your** `roi_align`, and with
# a mask head of four layers beside its box head.
#
# Read `forward` in the cell below. A proposal is positive if its IoU with an object is at least one half, and your
# `mask_target` computes the target of the mask head for it. `align`, `make_targets` and `compute_loss` are your three
# functions, after the training cell has tested them as above.
#
# For comparison, the network has a **second mask head** with the same layers and the same proposals, whose features
# are extracted with RoIPool. The gradient of this second head does not reach the backbone (`detach`), so of the two
# mask heads, only the first one trains the backbone. The comparison therefore has two differences: the extraction of
# the features, and the fact that the backbone is trained for the first head only.

# %% name="head" role="train"
nn = torch.nn


def mask_head(channels, num_classes):
    """Predict one mask per class from pooled features, at twice their resolution."""
    same = [layer for _ in range(2) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())]
    finer = [nn.ConvTranspose2d(channels, channels, 2, 2), nn.ReLU(), nn.Conv2d(channels, num_classes, 1)]
    return nn.Sequential(*same, *finer)


# %% name="network" role="train"
from segedu.backbones.fpn import FPN, PoolLevel
from segedu.backbones.vgg import VGG
from segedu.detection.fast_rcnn import TwoLayerHead
from segedu.detection.faster_rcnn import RPN, FasterRCNN, faster_rcnn_loss, postprocess
from segedu.layers.proposals import Sampling
from segedu.ops.boxes import box_iou


class SmallMaskRCNN(FasterRCNN):
    """Faster R-CNN on one level of stride 8, with two mask heads: one on RoIAlign, one on RoIPool."""

    def __init__(self, num_classes, width, roi, scale):
        backbone = FPN(VGG(((width,), (2 * width,), (4 * width,) * 2), batch_norm=True), 3 * width, (2,), PoolLevel())
        sides = [tuple(scale * side for side in level) for level in ((12, 17, 24), (20, 28, 34))]  # of the anchors
        parts = {"rpn": RPN(3 * width, sides), "head": TwoLayerHead(3 * width, size=5, hidden=8 * width)}
        super().__init__(backbone, num_classes, **parts, sampling=Sampling(64), max_proposals=(60, 40))
        self.roi = roi
        self.heads = nn.ModuleDict({name: mask_head(3 * width, num_classes) for name in ("RoIAlign", "RoIPool")})

    def pool(self, features, boxes, size):  # called for the box head and for the mask head
        each = zip(features[0], boxes)
        return torch.cat([align(one, own, (size, size), 1 / 8, 2) for one, own in each])

    def mask_logits(self, features, boxes):
        pooled = {"RoIAlign": self.pool(features, boxes, self.roi)}
        pooled["RoIPool"] = roi_pool(features[0].detach(), boxes, self.roi, 1 / 8)
        return {name: self.heads[name](values) for name, values in pooled.items()}

    def forward(self, batch):
        targets = batch["targets"]
        outputs = super().forward(batch["images"], targets=targets)
        overlaps = [box_iou(target["boxes"], own).max(dim=0) for own, target in zip(outputs["proposals"], targets)]
        matched = [(overlap.values >= 0.5, overlap.indices) for overlap in overlaps]
        boxes = [own[positive] for own, (positive, _) in zip(outputs["proposals"], matched)]
        logits, rows = self.mask_logits(outputs["features"], boxes), [match[positive] for positive, match in matched]
        mask_targets = [make_targets(t["masks"], own, row, 2 * self.roi) for t, own, row in zip(targets, boxes, rows)]
        mask_labels = torch.cat([target["labels"][row] for target, row in zip(targets, rows)])
        return outputs | {"mask_logits": logits, "labels": mask_labels, "mask_targets": torch.cat(mask_targets).float()}


# %% [markdown] name="learn_text"
# The loss is the loss of chapter 11 for proposals and boxes, plus your `mask_loss` for each of the two mask heads. At
# inference, the order is different: first the network detects boxes, then the mask head is applied to each detected
# box, the channel of the predicted class is selected, and the mask is pasted into the image.


# %% name="learn" role="train"
def total_loss(outputs, targets):
    """The loss of proposals and boxes as in chapter 11, plus the loss of both mask heads."""
    masks = [
        compute_loss(logits, outputs["labels"], outputs["mask_targets"]) for logits in outputs["mask_logits"].values()
    ]
    return faster_rcnn_loss(outputs, targets)["loss"] + sum(masks)


def paste(logits, detections, size):
    """Select the channel of each detection's class, and paste it into a bool mask of the image's size."""
    own = logits[torch.arange(len(logits), device=logits.device), detections["labels"]].sigmoid()
    return {**detections, "masks": paste_masks(own, detections["boxes"], size) > 0.5}


@torch.no_grad()
def detect(net, images, instances=None):
    """Detections of each mask head, name -> list of dicts. `instances` replace the boxes, labels and scores."""
    net.eval()
    detections = {name: [] for name in net.heads}
    for i, one in enumerate(images.to(device)):
        outputs = FasterRCNN.forward(net, one[None])
        objects = postprocess(outputs)[0] if instances is None else {k: v.to(device) for k, v in instances[i].items()}
        for name, logits in net.mask_logits(outputs["features"], [objects["boxes"]]).items():
            pasted = paste(logits, objects, images.shape[-2:])
            detections[name].append({key: value.cpu() for key, value in pasted.items()})
    return detections


# %% [markdown] name="data_text"
# On a CPU, the network is trained on new scenes of the same kind. On a GPU, it learns to segment people in the
# photographs of [Penn-Fudan](https://www.cis.upenn.edu/~jshi/ped_html/): 170 photographs of streets, with a mask per
# person. They are resized to squares. The backbone is then a ResNet-18 that was trained on ImageNet; its last strides
# are replaced by dilations, so it also has stride 8. The cell downloads 54 MB of photographs and 45 MiB of weights
# once, and prints licence and citation. The authors reserve all rights to the photographs, so do not distribute them.
# If the folder that `SEGEDU_DATA` names contains `pennfudan`, it is used instead. Without an internet connection, the
# network is trained on synthetic scenes, which are larger than on a CPU.

# %% name="data" role="train"
from segedu.datasets.real_folder import real_folder
from segedu.recipes.real_samples import PEDESTRIAN_CLASSES, pedestrians
from segedu.weights.offline import load_or_random
from tqdm.auto import tqdm


def get_data(length, seed, size):
    """Images (B, 3, H, W), and a dict of boxes, labels and masks per image."""
    if folder:
        samples = pedestrians(folder, seed == 1, size, length)
    else:
        samples = [draw_shapes((seed, i), (size, size)) for i in tqdm(range(length), "scenes", unit="scene")]
    objects = [{key: sample[key] for key in ("boxes", "labels", "masks")} for sample in samples]
    return torch.stack([sample["image"] for sample in samples]), objects


# %% name="train" role="train"
from segedu.training import train_steps

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
folder = real_folder("pennfudan") if SCALE == "gpu" else None
scales = {"cpu": (64, 768, 48, 16, 7, 240, 8), "gpu": (128, 2048, 200, 48, 14, 2000, 16)}
size, length, new, width, roi, steps, batch = scales[SCALE] if not folder else (256, 130, 40, 48, 14, 1200, 8)
classes, rate = (PEDESTRIAN_CLASSES, 5e-4) if folder else (CLASSES, 3e-3)
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # more threads do not speed up such a small network
(images, objects), (new_images, new_objects) = get_data(length, 0, size), get_data(new, 1, size)

torch.manual_seed(0)
net = SmallMaskRCNN(len(classes), width, roi, size / 64)
if folder:
    net.backbone = FPN(load_or_random("resnet18", output_stride=8), 3 * width, (4,), PoolLevel())
net = net.to(device, memory_format=torch.channels_last)
maps = torch.rand(3 * width, size // 8, size // 8, device=device, requires_grad=True)
zeros = torch.zeros(40, dtype=torch.long, device=device)
repeated, of_first = objects[0]["boxes"].to(device)[zeros], objects[0]["masks"].to(device)
logits = torch.zeros(40, len(classes), 2 * roi, 2 * roi, device=device, requires_grad=True)
align = trainable(roi_align, (maps, repeated, (5, 5), 1 / 8, 2))
make_targets = trainable(mask_target, (of_first, repeated, zeros, 2 * roi))
compute_loss = trainable(mask_loss, (logits, zeros + 1, logits.detach()[:, 0]))

optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
picks = torch.randint(len(images), (steps, batch), generator=torch.Generator().manual_seed(0))
batches = ((images[pick], [objects[i] for i in pick]) for pick in picks)
loader = (({"images": part, "targets": targets}, targets) for part, targets in batches)
bar = tqdm(train_steps(net, loader, total_loss, optimizer, scheduler=schedule, clip_norm=1.0), "train", steps)
for loss in bar:
    bar.set_postfix(loss=f"{loss:.3f}")

# %% name="measure" role="train"
from segedu.metrics.coco import CocoEvaluation
from segedu.recipes.shapes import OtsuComponents


def measure(detections):
    """COCO's average precision of masks: at an IoU of 0.5, at 0.75, and the mean over ten thresholds."""
    evaluation = CocoEvaluation("segm")
    for preds, target in zip(detections, new_objects):
        evaluation.update(preds, target)
    metrics = evaluation.compute()
    return [metrics[key] for key in ("AP50", "AP75", "AP")]


def filled(one):
    """Masks that fill their boxes, as if the mask head predicted 1 everywhere."""
    full = torch.ones(len(one["boxes"]), 14, 14)
    return {**one, "masks": paste_masks(full, one["boxes"], (size, size)) > 0.5}


gt_instances = [
    {**{key: one[key] for key in ("boxes", "labels")}, "scores": torch.ones(len(one["boxes"]))} for one in new_objects
]
predicted, with_gt_boxes = detect(net, new_images), detect(net, new_images, gt_instances)
plain = OtsuComponents(list(zip(images, objects))[:100], len(classes))
rows = {"Otsu, components": measure(plain(new_images))}
for boxes_of, detections in (("", predicted), (", GT boxes", with_gt_boxes)):
    rows[f"filled{boxes_of}"] = measure([filled(one) for one in detections["RoIAlign"]])
    rows |= {f"{name}{boxes_of}": measure(masks) for name, masks in detections.items()}
if size == 64 and not folder:  # the library's small network was trained on such scenes, for more iterations
    with torch.no_grad():
        outputs = load("shapes_mask_rcnn")(new_images)
    each = zip(outputs["mask_logits"].split([len(one["boxes"]) for one in outputs["instances"]]), outputs["instances"])
    rows["library's network"] = measure([paste(logits, one, new_images.shape[-2:]) for logits, one in each])
print(f"{'mask AP at IoU':<24}{'0.5':>7}{'0.75':>7}{'mean':>7}   on {len(new_images)} new images, scale {SCALE}")
for name, metrics in rows.items():
    print(f"{name:<24}" + "".join(f"{number:>7.3f}" for number in metrics))

# %% [markdown] name="train_after"
# Compare your network with two baselines. The first row of the table has no network: threshold, connected components,
# and the class of the most similar shape. The row "filled" has your network's boxes, with masks that **fill** the
# whole box, as if the mask head predicted 1 everywhere. At an IoU of 0.5 this baseline is not bad at all, because an
# object covers most of its box. A high AP at an IoU of 0.5 is therefore weak evidence for good masks.
#
# Then compare RoIAlign and RoIPool. At an IoU of 0.5 they are nearly equal, because a few wrong pixels along the
# outline do not matter. At 0.75 the effect of rounding is visible. In the paper (table 2c, one level of stride 16),
# the mask AP with RoIAlign is 3.4 points higher than with RoIPool, and 5.1 points higher at 0.75. There, each of the
# two networks was trained separately. Here, only the mask head with RoIAlign trains the backbone.
#
# The rows "GT boxes" use the ground-truth boxes and classes instead of predicted ones, so all remaining errors are
# errors of the masks. What limits your network at an IoU of 0.5, the boxes or the masks? What limits it at 0.75? The
# last row is the library's network of the same kind, which was trained for five times as many iterations, with
# twice as many scenes per iteration.
#
# A single run is weak evidence. Your results differ from ours by some hundredths even with the same seed, because sums
# that are computed in a different order are rounded differently, and training amplifies such small differences. With
# three seeds on a CPU, we measured:
#
# | mask AP | filled boxes | RoIAlign | RoIPool |
# |---|---|---|---|
# | at IoU 0.5 | 0.61, 0.51, 0.53 | 0.75, 0.74, 0.75 | 0.71, 0.70, 0.71 |
# | at IoU 0.75 | 0.04, 0.06, 0.05 | 0.37, 0.41, 0.32 | 0.18, 0.22, 0.19 |
# | ground-truth boxes, at 0.5 | 0.75, 0.73, 0.77 | 0.89, 0.90, 0.88 | 0.92, 0.92, 0.90 |
# | ground-truth boxes, at 0.75 | 0.27, 0.20, 0.22 | 0.48, 0.48, 0.45 | 0.32, 0.25, 0.28 |
#
# Notice the third row: with boxes that fit, and an IoU threshold that coarse masks can reach, rounding does no harm,
# and the head with RoIPool is even slightly better. On photographs, with masks of 28 x 28, we have run the cells only
# on a CPU, for a few iterations and without the weights of ImageNet.
#
# All results in the table are for small networks and synthetic scenes. On the photographs of COCO, torchvision's
# `maskrcnn_resnet50_fpn` reaches a mask AP of 34.6 and a box AP of 37.9, according to
# [its page of weights](https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.detection.maskrcnn_resnet50_fpn.html).


# %% name="train_figure" role="train"
def painted(preds, least=0.3):
    """A label map of the detections with a score of at least `least`, the most confident on top."""
    label_map = torch.zeros(preds["masks"].shape[1:], dtype=torch.long)
    keep = (preds["scores"] >= least).nonzero().flatten().tolist()
    for number, i in reversed(list(enumerate(keep, 1))):
        label_map[preds["masks"][i]] = number
    return label_map


pictures, maps, titles = [], [], []
for i in (0, 2):
    pictures += [new_images[i]] * 3
    maps += [new_objects[i]["masks"], *(painted(detections[i]) for detections in predicted.values())]
    titles += [f"ground truth: {len(new_objects[i]['boxes'])} objects", *predicted]
show(
    gallery(pictures, maps, titles=titles, columns=3, width=3),
    alt="Two new images: the ground-truth masks, the masks predicted with RoIAlign, and coarser ones with RoIPool.",
)

# %% [markdown] name="failures_text"
# ## Failures
#
# The figure shows the three new images in which the smallest fraction of the objects is detected (correct class, score
# at least 0.3, IoU at least 0.5). Find the reason for each missed object: is it hidden by another object, is it cut
# off by the image border, is its class wrong, do two objects share one box, or is the mask bad although the box is
# good?


# %% name="failures" role="train"
def num_detected(preds, target):
    """Number of objects with a detected mask of their class, an IoU of at least 0.5 and a score of at least 0.3."""
    pixels, target_pixels = preds["masks"].flatten(1).float(), target["masks"].flatten(1).float()
    both = target_pixels @ pixels.T
    overlap = both / (target_pixels.sum(1)[:, None] + pixels.sum(1) - both).clamp(min=1)
    correct = (overlap >= 0.5) & (target["labels"][:, None] == preds["labels"]) & (preds["scores"] >= 0.3)
    return int(correct.any(dim=1).sum())


detections = predicted["RoIAlign"]
counts = [(num_detected(preds, target), len(target["labels"])) for preds, target in zip(detections, new_objects)]
worst = sorted(range(len(counts)), key=lambda i: counts[i][0] / counts[i][1])[:3]
pictures = [new_images[i] for i in worst for _ in range(3)]
maps = [picture for i in worst for picture in (None, new_objects[i]["masks"], painted(detections[i]))]
titles = [text for i in worst for text in (f"image {i}", "ground truth", f"{counts[i][0]} of {counts[i][1]} detected")]
show(
    gallery(pictures, maps, titles=titles, numbers=True, columns=3, width=2.4),
    alt="The three new images with the smallest fraction of detected objects: image, ground truth and detections. "
    + "; ".join(titles[2::3])
    + ".",
)

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the error: "RoIAlign is RoIPool with the average instead of the maximum."
#
# <details><summary>Answer</summary>
#
# The essential difference is the rounding. According to the paper, the maximum and the average work equally well in
# RoIAlign. What matters is that neither the box nor its bins nor the points are rounded to whole cells.
#
# </details>
#
# **2.** A box is moved by 2 pixels, and the stride is 16. By how much does the box move on the feature map, and how
# does the output of RoIPool change?
#
# <details><summary>Answer</summary>
#
# The box moves by 1/8 of a cell. The output of RoIPool does not change, unless the movement changes the cell to which
# an edge of the box is rounded. Then the rounded edge moves by a whole cell, which is 16 pixels.
#
# </details>
#
# **3.** Find the error: "In training, the mask head predicts masks in the ground-truth boxes."
#
# <details><summary>Answer</summary>
#
# It predicts masks in the proposals whose IoU with an object is at least one half. The target is the ground-truth
# mask, cropped to the proposal. At inference, the boxes are predictions and not exact either.
#
# </details>
#
# **4.** Why does the mask head have a channel per class, instead of one channel for all classes?
#
# <details><summary>Answer</summary>
#
# The classes then do not need to compete, and the head can learn separate shapes for people and for cars. But the
# paper reports that one channel for all classes is nearly as good (29.7 against 30.3 mask AP). What matters is that
# there is no softmax over the classes.
#
# </details>
#
# **5.** Two objects that look the same are side by side. Which of the four methods Mask R-CNN, YOLACT, CondInst and
# SOLOv2 can separate them, and by what?
#
# <details><summary>Answer</summary>
#
# All of them. Mask R-CNN separates them by the box whose features it extracts. YOLACT separates them by the box to
# which it crops the mask, and by prototypes that depend on the position. CondInst uses the two coordinate channels.
# SOLOv2 predicts a different kernel for each cell of its grid, and its features contain coordinates.
#
# </details>
#
# **6.** Three masks have the same class; A has the highest score and C the lowest. The IoU of A and B is above the
# threshold, that of B and C too, and that of A and C is below it. Ordinary non-maximum suppression keeps A and C. What
# would Matrix NMS do without its denominator $f(w_i)$?
#
# <details><summary>Answer</summary>
#
# It would lower the score of C because of B, although B itself is a duplicate of A. The denominator reduces the effect
# of B, because B overlaps a better mask.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - Read [the pages of chapter 14](../course/14-top-down/index.md): the five methods with their papers, and the cost of
#   each.
# - Add an error of half a cell: `right = align`, then
#   `align = lambda maps, boxes, *rest: right(maps, boxes + 4, *rest)`. First do it in a new cell after the training,
#   and run the table again. Then do it in the training cell, below its three lines with `trainable`. Which of the two
#   lowers the AP more, and why?
# - Change `max_proposals=(60, 40)` in `SmallMaskRCNN`. How many proposals does a scene with seven objects need?
# - Call `matrix_nms` with a sigma of 0.5, and of 8. Which duplicates remain?
# - `segedu train mask_rcnn --data shapes` trains the library's network. Replace `mask_rcnn` with `yolact`, `condinst`
#   or `solov2` to train the others. The [results page](../course/results.md) lists the results of all of them.
#
# Before you hand in this notebook, save it, and run `segedu check labs/14_top_down.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
