# %% [markdown] name="title"
# # Lab 16: Prompts, masks and volumes
#
# This lab has two halves. In the first half you work with SAM, a network that segments the object on which you click.
# You encode clicks as vectors, write the loss of a network that predicts three masks per click, measure how stable a
# mask is, and assign the labels of a detector's boxes to masks. In the second half you work with synthetic CT volumes
# from several scanners. You resample them to one spacing, plan a U-Net for them by rules, and train it.
#
# **Time**: 90 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 16](../course/16-promptable/index.md), which you can read first or alongside this lab. The
# two halves are independent, so you can begin with either. The first half (exercises 1 to 4) builds on the detectors
# and transformers of chapters 11, 12 and 15. The second half (exercises 5 and 6) builds on the U-Net and the losses of
# chapters 6 and 7. The mathematics is sines and cosines, sigmoids, and linear interpolation.
#
# Run the cells from top to bottom. As long as one of your functions has not passed its check, later cells use the
# library's version of it, so the notebook always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - encode clicks as vectors that a network can process;
# - train a network for ambiguous prompts, which have several correct masks;
# - distinguish stable masks from unstable ones without ground truth;
# - make labelled masks from masks without labels and boxes without masks;
# - resample images and labels of volumes to another spacing, without creating false classes;
# - plan a U-Net for volumes, and train it on synthetic CT.
#
# The figure shows what SAM predicts for **one click**. The network is a small SAM, which was trained on synthetic
# scenes and predicts no classes. For a click it predicts three masks, and for each mask an estimate of its IoU with the
# object that was meant. The last panel shows the prediction for a box: a box is hardly ambiguous, so one mask is
# enough. Compare the three masks of the click: which objects does each of them contain?

# %% name="asking" role="show"
import torch.nn.functional as F
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.ops.masks import boxes_from_masks
from segedu.weights import load
from segedu.viz import gallery, overlay, show
from segedu.weights.own.shapes_sam import readings

BLUE, ORANGE = "#0072B2", "#D55E00"
sam = load("shapes_sam")


@torch.no_grad()
def predict_masks(embedding, size, model=sam, **prompts):
    """Predict M masks for each of N prompts: logits (N, M, H, W), above 0 in the mask, and predicted IoUs (N, M)."""
    outputs = model.decode(embedding, size, **prompts)
    side = outputs["image_size"]  # of the square that SAM processes; the image is in its upper left corner
    h, w = (round(side * n / max(size)) for n in size)
    logits = outputs["mask_logits"][0] - outputs["mask_threshold"]  # the threshold of SAM is 0, of our small SAM -0.8
    square = F.interpolate(logits, (side, side), mode="bilinear")[..., :h, :w]
    return F.interpolate(square, size, mode="bilinear"), outputs["iou_scores"][0]


def clicks(points):
    """N prompts of one foreground click each."""
    points = torch.as_tensor(points, dtype=torch.float32)[None, :, None]
    return {"point_coords": points, "point_labels": torch.ones(points.shape[:-1])}


def draw_click(ax, point, colour=BLUE, marker="o"):
    ax.plot(*point, marker, color=colour, markersize=9, markeredgecolor="white", markeredgewidth=1.5)


# %% name="picture" role="show"
scene = draw_shapes((16, 4), size=(96, 96))
image, size, click = scene["image"].as_subclass(torch.Tensor), (96, 96), (55.0, 63.0)
objects, clumps = readings(scene)  # a click may mean an object, or a clump of objects that touch
meanings = [next(m for m in masks if m[int(click[1]), int(click[0])]) for masks in (objects, clumps)]
with torch.no_grad():
    embedding = sam.encode(image[None])  # the slow part, once per image
logits, predicted_ious = predict_masks(embedding, size, **clicks([click]))
box = boxes_from_masks(meanings[0][None])[None]
box_logits, box_iou = predict_masks(embedding, size, boxes=box, multimask_output=False)
titles = [
    "one click",
    *(f"mask {m + 1}: predicted IoU {predicted_ious[0, m]:.2f}" for m in range(3)),
    f"a box: predicted IoU {box_iou[0, 0]:.2f}",
]
fig = gallery([image] * 5, [None, *(logits[0] > 0), box_logits[0, 0] > 0], titles=titles, columns=3, width=2.6)
fig.tight_layout(pad=0.4, h_pad=1)
for ax in fig.axes[:4]:
    draw_click(ax, click)
pixels = ", ".join(str(int(mask.sum())) for mask in logits[0] > 0)
show(
    fig, alt=f"A scene with a click on one shape. {'; '.join(titles[1:])}. The masks of the click have {pixels} pixels."
)

# %% [markdown] name="prompt_encode_idea"
# ## 1. Encode a click as a vector (3 points)
#
# **Idea.** SAM's decoder is a transformer, so it needs each click as a vector. The two coordinates (x, y) alone would
# be a poor vector: those of neighbouring pixels hardly differ, and dot products of coordinates do not measure
# distance. Therefore a position is encoded by the values of many **sines and cosines** with different frequencies. Two
# positions have similar encodings only if they are close. To this positional encoding, SAM adds a learnt vector for
# the label of the click, foreground or background. If the list of clicks needs a fixed length, it is filled with
# padding points, which have no position.
#
# **Formula.** SAM resizes the image of $H \times W$ pixels by the factor $s = S / \max(H, W)$, and pads it to a square
# of $S \times S$ pixels. Let $G$ be a matrix of $2 \times F$ frequencies, which were sampled once at random and are
# never trained. Then
#
# $$ u = 2 \, \frac{s \cdot (x, y) + \tfrac12}{S} - 1 $$
#
# $$ v = \bigl[ \sin(2 \pi\, u G), \; \cos(2 \pi\, u G) \bigr] + e $$
#
# where $e$ is one of three learnt vectors: for background ("not this"), for foreground ("this"), or for padding. For a
# padding point, $v = e$.
#
# **Worked example.** An image is 8 pixels wide and 4 pixels high, and $S = 4$, so $s = 1/2$. The click (5, 1) becomes
# (2.5, 0.5), and with the half pixel (3, 1). Divided by 4, this is (0.75, 0.25), so $u = (0.5, -0.5)$. Let $G$ have
# the columns (1, 0) and (0, 1). The angles are $\pi$ and $-\pi$. Both sines are 0 and both cosines are -1, so
# $v = (0, 0, -1, -1) + e$.


# %% name="prompt_encode" role="solution"
def prompt_encode(point_coords, point_labels, image_size, side, frequencies, embeddings):
    """Compute one embedding per click, as SAM's prompt encoder does.

    SAM resizes the image so that its longer side has `side` pixels, and pads it to a square of side x side, with the
    image in the upper left corner.

    1. Multiply a point by side / longer side of the image. Add half a pixel to x and y, because an integer coordinate
       is the centre of a pixel. Divide by `side`: the coordinates are now relative to the square, from 0 to 1.
    2. Map them to 2 * relative - 1, from -1 to 1. The row (x, y) of these coordinates times `frequencies`, times 2 pi,
       is a row of F angles. The positional encoding consists of their F sines, followed by their F cosines.
    3. Add a learnt vector for the label of the click: row 0 of `embeddings` for label 0 (background, "not this"), and
       row 1 for label 1 (foreground, "this"). Label -1 marks a padding point: its embedding is row 2 alone, without a
       positional encoding.

    point_coords: (P, 2) floats, (x, y) in pixels of the image. P may be 0.
    point_labels: (P,) integers, 1, 0 or -1.
    image_size:   (H, W) of the image in pixels.
    side:         side of the square in pixels.
    frequencies:  (2, F) floats, random and fixed.
    embeddings:   (3, 2 F) floats.

    Returns (P, 2 F) floats.

    Example: the middle of the square, and padding. sin(0) = 0 and cos(0) = 1.
    With coords = torch.tensor([[1.5, 1.5], [0., 0.]]), labels = torch.tensor([1, -1]) and
    rows = torch.tensor([[0., 0.], [3., 5.], [7., 7.]])
    prompt_encode(coords, labels, (4, 4), 4, torch.ones(2, 1), rows) is [[3., 6.], [7., 7.]].
    """
    ### BEGIN SOLUTION: compute relative coordinates, angles, sines and cosines (0 for padding); add each label's row
    relative = (point_coords * side / max(image_size) + 0.5) / side
    angles = 2 * torch.pi * (2 * relative - 1) @ frequencies
    position = torch.cat([angles.sin(), angles.cos()], dim=1)
    return position * (point_labels >= 0)[:, None] + embeddings[point_labels]  # -1 is the last row
    ### END SOLUTION


# %% name="check_prompt_encode" role="check"
check(prompt_encode)

# %% [markdown] name="prompt_encode_after"
# What does the positional encoding represent? The two panels in the upper row show the similarity of your encoding of a
# click with your encodings of all other locations, for two clicks. Bright locations have a similar encoding. For the
# two panels in the lower row, **your** vectors are the input of SAM's decoder: first one foreground click (blue) and a
# padding point, then also a second click, which is a background click (orange). The panels show the decoder's fourth
# mask, which is meant for prompts that leave little ambiguity. With one click, the mask covers more than the circle and
# less than the clump of objects that touch. The second click resolves the ambiguity.

# %% name="prompt_encode_figure" role="show"
encode, prompt_encoder = use(prompt_encode), sam.prompt_encoder
frequencies = prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
layers = [prompt_encoder.point_embeddings[0], prompt_encoder.point_embeddings[1], prompt_encoder.not_a_point_embed]
learnt = torch.cat([layer.weight for layer in layers]).detach()
second = (38.0, 46.0)


def vectors(points, labels, embeddings):
    """Encode points with your function: (P, 2 F)."""
    points, labels = torch.tensor(points, dtype=torch.float32), torch.tensor(labels)
    return torch.as_tensor(encode(points, labels, size, sam.image_size, frequencies, embeddings)).float()


locations = [(float(x), float(y)) for y in range(0, 96, 2) for x in range(0, 96, 2)]
encodings = vectors(locations, [1] * len(locations), 0 * learnt)
masks = []
for points, labels in (([click, (0.0, 0.0)], [1, -1]), ([click, second, (0.0, 0.0)], [1, 0, -1])):
    sparse = vectors(points, labels, learnt)[None, None]  # one image, one prompt
    with torch.no_grad():
        dense = prompt_encoder.embed_masks(None)[None]
        mask_logits, _ = sam.mask_decoder(embedding, prompt_encoder.dense_positions(), sparse, dense)
    masks.append(F.interpolate(mask_logits[0], size, mode="bilinear")[0, 0] > sam.mask_threshold)
fig, axes = plt.subplots(2, 2, figsize=(7, 7.4), layout="constrained")
axes = axes.flatten()
for ax, point, title in zip(axes, (click, second), ("similarity to the first click", "similarity to the second click")):
    similarity = encodings @ vectors([point], [1], 0 * learnt)[0]
    ax.imshow(similarity.reshape(48, 48), cmap="cividis", extent=(-0.5, 95.5, 95.5, -0.5))
    ax.set_title(title, fontsize=10)
for ax, mask, title in zip(axes[2:], masks, ("one click", "with a background click")):
    ax.imshow(overlay(image, mask))
    ax.set_title(f"{title}: {int(mask.sum())} pixels", fontsize=10)
for ax, points in zip(axes, ([click], [second], [click], [click, second])):
    ax.set(xticks=[], yticks=[])
    for point in points:
        draw_click(ax, point, *(() if point == click else (ORANGE, "X")))
show(
    fig,
    alt="Two similarity maps, each brightest around its click; SAM's mask for the first click, with "
    f"{int(masks[0].sum())} pixels, and its mask for both clicks, with {int(masks[1].sum())} pixels.",
)

# %% [markdown] name="best_of_three_idea"
# ## 2. The loss of the best of three masks (3 points)
#
# **Idea.** Suppose you click on a circle that touches a square. Do you mean the circle, or the clump of both? Both
# readings are valid, so the click is ambiguous. A network that predicts a single mask learns a compromise, which may
# fit neither reading. SAM therefore predicts **three** masks, and only the best of them is trained. Over time, each
# mask specialises in a different reading. At inference there is no ground truth, so the network cannot know which of
# its masks is best. SAM therefore also predicts the **IoU** of each mask with the target, and all three predicted IoUs
# are trained.
#
# **Formula.** With $p$ the sigmoids of a mask's logits and $y$ the target, the loss of a mask is
# $\ell_m = 20\, f_m + d_m$, where
#
# $$ f_m = \operatorname{mean} \; \alpha\, (p - y)^2 \, \mathrm{BCE}(p, y) $$
#
# $$ d_m = 1 - \frac{2 \sum p\, y + 1}{\sum p + \sum y + 1} $$
#
# with $\alpha = 1/4$ where $y = 1$, and $\alpha = 3/4$ where $y = 0$. The mean and the sums are over the pixels. With
# images $b$, masks $m$ and predicted IoUs $g$, the loss is
#
# $$ L = \operatorname{mean}_b \, \min_m \, \ell_{bm} + L_g $$
#
# $$ L_g = \operatorname{mean}_{b, m} \, (g_{bm} - \mathrm{IoU}_{bm})^2 . $$
#
# **Worked example.** There are two images and two masks. The losses of the masks are 0.9 and 0.2 in the first image,
# and 0.4 and 0.7 in the second. The smallest losses are 0.2 and 0.4, and their mean is 0.3. (If you first average the
# loss of each mask over the images, you get 0.65 and 0.45, and a minimum of 0.45. This would choose one mask for all
# images.) In both images, the predicted IoUs are 0.5 and 0.6 and the actual IoUs are 0.5 and 0.8, so
# $L_g = (0 + 0.04) / 2 = 0.02$. The total loss is 0.32.


# %% name="best_of_three" role="solution"
def best_of_three(mask_logits, iou_pred, targets):
    """Compute SAM's loss. SAM predicts M masks, because a click is ambiguous, and only the best mask is trained.

    Mask m of image b has the loss 20 focal + dice. Here p is the sigmoid of its logits, y is 1 inside the target and 0
    outside, and s is the sum over the pixels:

    - focal: the mean over the pixels of -1/4 (1 - p)^2 log p inside the target, -3/4 p^2 log(1 - p) outside;
    - dice: 1 - (2 s(p y) + 1) / (s(p) + s(y) + 1).

    For each image only the mask with the smallest loss counts. Compute the mean of these losses over the images.

    The network also predicts the IoU of each of its masks. Add the mean, over all masks of all images, of
    (predicted IoU - IoU)^2. The IoU compares the pixels whose logit is above 0 with the target. It is 1 if both are
    empty. No gradient flows through the IoU.

    mask_logits: (B, M, H, W) floats; SAM has M = 3. They may be so far from 0 that a sigmoid is exactly 0 or 1.
    iou_pred:    (B, M) floats, the predicted IoUs.
    targets:     (B, H, W) bool.

    Returns a scalar tensor, with gradients with respect to mask_logits and iou_pred.

    Example: one mask of one pixel with p = 1/2. Focal is 1/16 log 2, dice is 1 - 2 / 2.5, and the predicted IoU, 0, is
    right.
    best_of_three(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), torch.ones(1, 1, 1).bool()) is 1.0664.
    """
    ### BEGIN SOLUTION: compute focal and Dice loss per mask, the minimum per image, and the error of predicted IoUs
    y = targets[:, None].to(mask_logits).expand_as(mask_logits)
    p = mask_logits.sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(mask_logits, y, reduction="none")
    focal = ((0.75 - 0.5 * y) * (p - y) ** 2 * entropy).mean(dim=(2, 3))
    dice = 1 - (2 * (p * y).sum(dim=(2, 3)) + 1) / (p.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + 1)
    mask, target = mask_logits > 0, y > 0
    intersection, union = (mask & target).sum(dim=(2, 3)), (mask | target).sum(dim=(2, 3))
    iou = torch.where(union == 0, 1.0, intersection / union.clamp(min=1))
    return (20 * focal + dice).amin(dim=1).mean() + ((iou_pred - iou) ** 2).mean()
    ### END SOLUTION


# %% name="check_best_of_three" role="check"
check(best_of_three)

# %% [markdown] name="best_of_three_after"
# The next cell minimises your loss for the click of the first figure. It trains the masks directly instead of a
# network: each pixel of each mask is a parameter, and gradient descent on your loss changes it. In one half of the
# training examples the click means the object, in the other half its whole clump. The upper row shows both readings,
# and the result of training a single mask for both. The lower row shows the result of training three masks. Grey
# values are probabilities between 0 and 1. Which reading does each of the three masks fit, and what is its predicted
# IoU? A mask that was never the best keeps its initial values, but its predicted IoU was trained.
#
# Then change `manual_seed(0)` to `manual_seed(1)` and run the cell again. Now one mask is best for **both** readings
# from the start. Only this mask is trained, so it becomes a compromise. A real network is trained with many clicks on
# many images, so its masks usually specialise, but this failure can occur.


# %% name="best_of_three_figure" role="show"
compute_loss = use(best_of_three)
targets = torch.stack(meanings)[:, ::2, ::2]  # the two readings of the click
results = {}
for count in (1, 3):
    coarse = torch.randn(1, count, 3, 3, generator=torch.Generator().manual_seed(0))
    masks = F.interpolate(3 * coarse, targets.shape[1:], mode="bicubic").requires_grad_()
    iou_pred = torch.full((1, count), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([masks, iou_pred], lr=0.1)
    for _ in range(150):
        loss = compute_loss(masks.expand(2, -1, -1, -1), iou_pred.expand(2, -1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    results[count] = masks.detach()[0].sigmoid(), iou_pred.detach()[0], float(loss.detach())
panels, titles = [*targets.float()], ["first reading", "second reading"]
for count, (probabilities, iou_pred, _) in results.items():
    panels += list(probabilities)
    names = ["single mask"] if count == 1 else [f"mask {m + 1} of {count}" for m in range(count)]
    titles += [f"{name}: predicted IoU {iou:.2f}" for name, iou in zip(names, iou_pred)]
show(
    gallery(panels, titles=titles, columns=3, width=2.6),
    alt="Two readings of a click; a single mask, which is grey where the readings differ; and three masks. "
    f"{'; '.join(titles[2:])}. The loss is {results[1][2]:.2f} with one mask and {results[3][2]:.2f} with three.",
)

# %% [markdown] name="widget_text"
# ## Click
#
# The next cell runs the small SAM. Click on the image. The widget then shows SAM's four masks beside it: the fourth
# mask, which is meant for clear prompts, and the three masks for a single click. Below each mask are its predicted IoU
# and its IoU with the object, or with the clump of touching objects, whichever is larger. The mask that SAM chooses has
# a frame. Find a click for which the mask with the highest predicted IoU is not the best of the three. Find a click for
# which all three masks are nearly the same. What does the network predict if you click on the background? Then add a
# background click, with Shift or after you have pressed *Not this*, and drag a box around an object. Which mask does SAM
# choose now, and why? *Undo* and *Clear* remove prompts. The list offers two other scenes.

# %% name="widget" role="widget"
from segedu.teaching.widgets.prompts import explorer

explorer()

# %% [markdown] name="stability_score_idea"
# ## 3. Is a mask stable? (3 points)
#
# **Idea.** Without any prompt from a user, SAM can be prompted with a grid of clicks, to segment everything in an
# image. Only good masks should be kept, but without ground truth you cannot measure which masks are good. SAM uses two
# scores instead. The first is the predicted IoU. The second, the stability, is computed from the logits: if the edge
# of a mask is sharp, the mask hardly changes if the threshold changes. If the edge is blurred, the mask grows or
# shrinks.
#
# **Formula.** Let $\ell$ be the logits of the mask, $t$ the threshold (SAM's is 0) and $\delta$ an offset (SAM's is 1).
# With $\#$ the number of pixels,
#
# $$ \text{stability} = \frac{\#\{\ell > t + \delta\}}{\#\{\ell > t - \delta\}} . $$
#
# The mask of the higher threshold lies within that of the lower threshold, so this ratio is the IoU of the two masks.
# If the mask of the lower threshold is empty, the score is 0.
#
# **Worked example.** Of the logits 3, 1.5, 0.4, -0.7, -2, two are above 1 and four are above -1, so the stability is
# 2/4 = 0.5. The logits 6, 4, 3, -3, -6 give the same mask of three pixels at the threshold 0, but their stability is
# 3/3 = 1.


# %% name="stability_score" role="solution"
def stability_score(mask_logits, mask_threshold, offset):
    """Measure how little each mask changes with its threshold. SAM keeps only stable masks in automatic segmentation.

    Threshold each map of logits twice: above mask_threshold + offset, and above mask_threshold - offset. The score is
    the IoU of these two masks. The first mask lies within the second, so the IoU is a ratio of two pixel counts. A
    logit that equals a threshold is not above it. If the second mask is empty too, the score is 0.

    mask_logits:    (N, H, W) floats. N may be 0.
    mask_threshold: a number; SAM's is 0.
    offset:         a number above 0; SAM's is 1.

    Returns (N,) floats from 0 to 1.

    Example: one pixel is above 1, and two are above -1.
    stability_score(torch.tensor([[[5.0, 0.5, -5.0]]]), 0.0, 1.0) is [0.5].
    """
    ### BEGIN SOLUTION: count the pixels of both masks, and divide; the ratio is 0 if both masks are empty
    inner = (mask_logits > mask_threshold + offset).sum(dim=(1, 2))
    outer = (mask_logits > mask_threshold - offset).sum(dim=(1, 2))
    return inner / outer.clamp(min=1)
    ### END SOLUTION


# %% name="check_stability_score" role="check"
check(stability_score)

# %% [markdown] name="stability_score_after"
# The figure shows the result for one scene and 16 x 16 clicks, which give 768 masks. Each dot is a mask, with its
# predicted IoU and your stability score. The darker a dot, the higher the mask's actual IoU with an object or a clump.
# Masks to the right of the vertical orange line and above the horizontal one are candidates. Of candidates that are
# nearly the same, non-maximum suppression keeps the one with the highest predicted IoU. The two panels in the lower row
# show the probabilities of two masks with a predicted IoU above 0.6: the least stable and the most stable of them. Are
# the dark dots in the upper right corner?


# %% name="everything" role="show"
from segedu.ops.nms import nms

stability_of, MIN_PREDICTED_IOU, MIN_STABILITY = use(stability_score), 0.4, 0.5


def everything(picture, side):
    """Prompt SAM with side x side clicks: logits (N, H, W), predicted IoUs and stability (N,), and indices to keep."""
    height, width = picture.shape[1:]
    at = (np.arange(side) + 0.5) / side
    grid = [(x * width, y * height) for y in at for x in at]
    with torch.no_grad():
        embedding = sam.encode(picture[None])
    batches = [grid[i : i + 64] for i in range(0, len(grid), 64)]
    parts = [predict_masks(embedding, (height, width), **clicks(batch)) for batch in batches]
    logits, predicted_ious = (torch.cat(part).flatten(0, 1) for part in zip(*parts))
    stability = torch.as_tensor(stability_of(logits, 0.0, 1.0))
    good = ((predicted_ious > MIN_PREDICTED_IOU) & (stability >= MIN_STABILITY)).nonzero()[:, 0]
    keep = good[nms(boxes_from_masks(logits[good] > 0), predicted_ious[good], 0.7)]
    return logits, predicted_ious, stability, keep


def ious(masks, others):
    """IoU of each mask (N, H, W) with each of the others (M, H, W): (N, M)."""
    one, other = masks.flatten(1).float(), others.flatten(1).float()
    intersection = one @ other.T
    return intersection / (one.sum(1)[:, None] + other.sum(1) - intersection).clamp(min=1)


# %% name="stability_score_figure" role="show"
drawing = draw_shapes((16, 21), size=(64, 64))
picture = drawing["image"].as_subclass(torch.Tensor)
all_logits, predicted, stability, keep = everything(picture, 16)
actual = ious(all_logits > 0, torch.cat(readings(drawing))).amax(1)
fig, axes = plt.subplots(2, 2, figsize=(7.4, 7.2), layout="constrained")
axes = axes.flatten()
dots = axes[0].scatter(predicted, stability, c=actual, s=9, cmap="Blues", vmin=-0.3, vmax=1)
axes[0].axvline(MIN_PREDICTED_IOU, color=ORANGE)
axes[0].axhline(MIN_STABILITY, color=ORANGE)
axes[0].set(xlabel="predicted IoU", ylabel="stability", xlim=(0, 1), ylim=(0, 1.02))
axes[1].imshow(overlay(picture, all_logits[keep] > 0))
least = torch.where(predicted > 0.6, stability, 2.0).argmin()  # among masks with a high predicted IoU
most = torch.where(predicted > 0.6, stability, -1.0).argmax()
for ax, i, word in zip(axes[2:], (int(least), int(most)), ("unstable", "stable")):
    ax.imshow((all_logits[i] + sam.mask_threshold).sigmoid(), cmap="cividis", vmin=0, vmax=1)
    ax.set_title(f"{word} ({stability[i]:.2f}), actual IoU {actual[i]:.2f}", fontsize=10)
axes[1].set_title(f"{len(keep)} of {len(all_logits)} masks are kept", fontsize=10)
for ax in axes[1:]:
    ax.set(xticks=[], yticks=[])
passed = (predicted > MIN_PREDICTED_IOU) & (stability >= MIN_STABILITY)
alt = (
    f"Predicted IoU and stability of all masks. Their mean actual IoU is {actual.mean():.2f}, and that of the "
    f"{int(passed.sum())} masks above both lines is {actual[passed].mean():.2f}. "
)
show(fig, alt=f"{alt}The scene with the {len(keep)} masks that are kept. A mask with a blurred edge and a sharp one.")

# %% [markdown] name="label_by_detector_idea"
# ## 4. Masks without labels, boxes without masks (3 points)
#
# **Idea.** SAM's masks have no class labels. A detector predicts labelled boxes but no masks. Together they give
# labelled masks, although no masks with class labels were used in training. There are two ways to combine SAM and a
# detector. The first way uses the boxes as prompts for SAM. In the second way, which you write, SAM segments
# everything, and then each detection takes the mask that fits its box best. A mask belongs to one object only, so no
# two detections may take the same mask. The most confident detection chooses first.
#
# **Formula.** Let $R$ be the set of pixels whose centres are in the box, and $M$ the set of pixels of a mask. Then
#
# $$ \mathrm{IoU} = \frac{|M \cap R|}{|M \cup R|} . $$
#
# In order of decreasing score, each detection takes the mask with the largest IoU among those that are not taken yet,
# but only if this IoU is at least the threshold. Compare the **pixels of the mask** with the box, not two boxes: a
# thin diagonal mask can have the same bounding box as a mask that fills the box.
#
# **Worked example.** There are two masks and two detections. The box of "circle" (score 0.9) has 8 pixels. Mask A has
# 6 of them and no others, so its IoU is 6/8 = 0.75. Mask B has all 8 and 8 more, so its IoU is 8/16 = 0.5. The box of
# "square" (score 0.6) has 8 pixels too. A has 4 of them and 2 outside: 4/10 = 0.4. B has 3 of them and 13 outside:
# 3/21 = 0.14. "Circle" chooses first and takes A. With a threshold of 0.3, "square" takes no mask, because A is taken
# and the IoU of B is below the threshold.


# %% name="label_by_detector" role="solution"
def label_by_detector(masks, boxes, labels, scores, iou_threshold):
    """Give SAM's masks the labels of a detector's boxes.

    The pixels of a box are those whose centre is inside. The centre of row y and column x is (x + 0.5, y + 0.5), and

        x1 <= x + 0.5 < x2   and   y1 <= y + 0.5 < y2

    A mask and a box are compared by the IoU of their pixels, which is 0 if both are empty. The detections choose in
    order of decreasing score. Of detections with equal scores, the first in the list chooses first. Among the masks
    that are not taken yet, each detection takes the one that has the largest IoU with its box, if this IoU is at least
    `iou_threshold`; otherwise it takes no mask. Of masks with equal IoUs, it takes the first.

    masks:         (M, H, W) bool, without labels. M may be 0.
    boxes:         (N, 4) floats (x1, y1, x2, y2) in pixels. N may be 0.
    labels:        (N,) integers, the classes of the boxes.
    scores:        (N,) floats.
    iou_threshold: above 0.

    Returns three tensors. For each detection that takes a mask, in order of decreasing score: (R,) integers, the index
    of the mask; (R,) integers, its label; and (R,) floats, its score.

    Example: the second mask fills the box. With masks = torch.tensor([[[1, 0, 0, 0]], [[0, 0, 1, 1]]]).bool() and
    box = torch.tensor([[2.0, 0.0, 4.0, 1.0]])
    label_by_detector(masks, box, torch.tensor([7]), torch.tensor([0.9]), 0.5) is ([1], [7], [0.9]).
    """
    ### BEGIN SOLUTION: compute the pixels of each box and all IoUs, then let one detection after the other choose
    y, x = (torch.arange(n) + 0.5 for n in masks.shape[1:])
    x1, y1, x2, y2 = boxes.T[..., None]  # (N, 1) each
    filled = ((y1 <= y) & (y < y2))[:, :, None] & ((x1 <= x) & (x < x2))[:, None, :]
    one, other = filled.flatten(1).double(), masks.flatten(1).double()
    both = one @ other.T
    overlap = both / (one.sum(1)[:, None] + other.sum(1) - both).clamp(min=1)  # (N, M)
    taken, chose = [], []
    for n in scores.argsort(descending=True, stable=True).tolist():
        free = overlap[n].clone()
        free[taken] = -1.0
        if len(free) and free.max() >= iou_threshold:
            taken.append(int(free.argmax()))
            chose.append(n)
    return torch.tensor(taken, dtype=torch.int64), labels[chose], scores[chose]
    ### END SOLUTION


# %% name="check_label_by_detector" role="check"
check(label_by_detector)

# %% [markdown] name="label_by_detector_after"
# The masks that were kept are now combined with the boxes of the small DETR of chapter 12. A triangle fills only half
# of its box, so the IoU threshold has to be low; it is 0.3. The next cells compare both ways. The table counts, on
# eight new scenes, the objects for which there is a mask of the correct class with an IoU of at least 0.5. Which way
# segments more objects, and which one needs fewer prompts?

# %% name="two_ways" role="show"
from segedu.ops.boxes import cxcywh_to_xyxy

detr, assign_labels = load("shapes_detr"), use(label_by_detector)


@torch.no_grad()
def detect(picture, min_score=0.5):
    """The boxes of DETR, their labels and scores: (N, 4), (N,), (N,)."""
    outputs = detr(picture[None])
    scores, labels = outputs["class_logits"][0].softmax(-1)[:, :-1].max(-1)  # the last one is "no object"
    keep = scores >= min_score
    return (cxcywh_to_xyxy(outputs["boxes"][0]) * 64)[keep], labels[keep], scores[keep]


def two_ways(picture, side):
    """Masks and their labels, computed in both ways: segment everything, then label; and boxes as prompts."""
    boxes, labels, scores = detect(picture)
    logits, _, _, keep = everything(picture, side)
    masks = logits[keep] > 0
    taken, mask_labels, _ = (torch.as_tensor(part) for part in assign_labels(masks, boxes, labels, scores, 0.3))
    with torch.no_grad():
        embedding = sam.encode(picture[None])
    prompted, _ = predict_masks(embedding, (64, 64), boxes=boxes[None], multimask_output=False)
    return {
        "everything, then labels": (masks[taken.long()], mask_labels),
        "boxes as prompts": (prompted[:, 0] > 0, labels),
    }


def count_segmented(masks, labels, scene):
    """Number of objects in a scene for which there is a mask of their class with an IoU of at least 0.5."""
    fits = (ious(scene["masks"], masks) >= 0.5) & (scene["labels"][:, None] == labels)
    return int(fits.any(dim=1).sum())


# %% name="label_by_detector_figure" role="show"
boxes, box_labels, scores = detect(picture)
shown = {
    f"{len(keep)} masks": (all_logits[keep] > 0, None),
    f"{len(boxes)} boxes": (None, box_labels),
    **two_ways(picture, 16),
}
fig = gallery([picture] * 4, [masks for masks, _ in shown.values()], titles=list(shown), columns=2, width=3.5)
for ax, (masks, labels) in zip(fig.axes, shown.values()):
    ax.set(xlim=(-0.5, 63.5), ylim=(63.5, -0.5))
    extents, written = boxes if masks is None else boxes_from_masks(masks), []
    for (x1, y1, x2, y2), label in zip(extents.tolist(), [] if labels is None else labels):
        if masks is None:
            ax.fill([x1, x2, x2, x1], [y1, y1, y2, y2], fill=False, edgecolor=BLUE, linewidth=2)
        style = {"fontsize": 8, "color": "white", "bbox": {"facecolor": "#1b1b1b", "pad": 1}}
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        while any(abs(x - other_x) < 11 and abs(y - other_y) < 4 for other_x, other_y in written):
            y += 1  # so that no name covers another one
        written.append((x, y))
        ax.text(x, y, CLASSES[int(label)], ha="center", va="center", **style)
names = ", ".join(CLASSES[int(label)] for label in shown["everything, then labels"][1])
show(
    fig, alt=f"Masks without labels; labelled boxes; masks with your labels ({names}); masks predicted from the boxes."
)

# %% name="two_ways_table" role="show"
new = [draw_shapes((1604, i), size=(64, 64)) for i in range(8)]
results = [two_ways(scene["image"].as_subclass(torch.Tensor), 12) for scene in new]
total = sum(len(scene["labels"]) for scene in new)
for way, prompts in (("everything, then labels", 12 * 12), ("boxes as prompts", "one per box")):
    count = sum(count_segmented(*result[way], scene) for result, scene in zip(results, new))
    print(f"{way:24} {count} of {total} objects segmented; prompts per image: {prompts}")

# %% [markdown] name="annotate_text"
# ## Label images yourself
#
# The course has a small annotation tool. You click, SAM predicts a mask, and you can keep it, undo steps, and save the
# result in a format for COCO or CVAT, with the last line of the cell. Here the tool starts with your labelled masks.
# Are some of them wrong? Remove a wrong mask in the list below the image, and replace it: a click is a foreground
# point, a click with Shift is a background point, and dragging draws a box. This part is not graded.

# %% name="annotate" role="widget"
from segedu.teaching.widgets.annotate import open_tool

your_masks = dict(zip(("masks", "labels"), shown["everything, then labels"]))
work = open_tool({"scene.png": picture}, list(CLASSES), sam, {"scene.png": your_masks})
# later, in another cell: work.save("scene.json")

# %% [markdown] name="resample_spacing_idea"
# ## 5. Resample volumes to one spacing (4 points)
#
# The second half of the lab begins here. A CT scan is an array of voxels, and the distances between voxels differ from
# scanner to scanner. A convolution processes voxels, not millimetres: the same liver may be 20 voxels long in one scan
# and 60 in another. Therefore all volumes are first resampled to one **spacing**, the distance in millimetres between
# neighbouring voxels along each axis.
#
# **Idea.** Intensities are quantities: halfway between 0 and 100 lies 50. So images are interpolated linearly. Labels
# are **names**: between spine (5) and background (0), there is no spleen (3). So each new
# voxel gets the label of the nearest old voxel. There is one exception for images. If slices are far apart, the outline
# of an organ changes from slice to slice, and the mean of two slices would show two faint outlines. Along such a thick
# axis, new voxels of images also get the value of the nearest old voxel.
#
# **Formula.** The axes are resampled one after the other. With $n$ voxels of spacing $s$, and the new spacing $s'$,
#
# $$ n' = \operatorname{round}(n\, s / s') $$
#
# $$ x_i = \bigl(i + \tfrac12\bigr) \frac{n}{n'} - \tfrac12 $$
#
# Here $x_i$ is the position of the centre of new voxel $i$, measured in old voxels, and 0 is the centre of the first
# old voxel. Both grids cover the same extent in millimetres. Before the first centre and after the last one, the value
# stays constant. The axis with the coarsest spacing is thick if this spacing is **more than 3 times** the finest one.
#
# **Worked example.** Four voxels of 3 mm have the values 10, 20, 30, 40, and the new spacing is 2 mm. The voxels cover
# 12 mm, so there are 6 new voxels. $x_0 = 0.5 \cdot 4/6 - 0.5 = -0.17$ lies before the first centre, so the
# value is 10. $x_1 = 1.5 \cdot 4/6 - 0.5 = 0.5$, so the value is 15. $x_2 = 1.17$, so the value is 21.7. The other
# values are 28.3, 35 and 40.


# %% name="resample_spacing" role="solution"
def resample_spacing(volume, spacing, new_spacing, is_labels):
    """Resample a volume to another spacing.

    The new size of an axis is size * spacing / new_spacing, rounded to the nearest integer, at least 1. Both grids
    cover the same extent: the centre of new voxel i lies at (i + 0.5) * size / new_size - 0.5 in old voxels. Images are
    interpolated linearly along each axis; beyond the first and the last centre the value stays constant. Labels are
    those of the nearest voxel; in the check, no new centre lies halfway between two old ones. If the coarsest of the
    three old spacings is more than 3 times the finest one, images also take the nearest voxel along the coarsest axis.

    volume:      (D, H, W) array, floats, or integers for labels.
    spacing:     mm between neighbouring voxels along D, H, W.
    new_spacing: the same after resampling.
    is_labels:   whether the volume holds labels.

    Returns an array (D', H', W'), floats for an image, integers for labels.

    Example: resample_spacing(np.array([[[10., 20., 30., 40.]]]), [1, 1, 3], [1, 1, 2], False) is
    [[[10., 15., 21.67, 28.33, 35., 40.]]].
    """
    ### BEGIN SOLUTION: find the thick axis; for each axis compute size and positions, take the nearest or interpolate
    thick = int(np.argmax(spacing)) if max(spacing) / min(spacing) > 3 else None
    out = np.asarray(volume) if is_labels else np.asarray(volume, dtype=float)
    for axis, n in enumerate(volume.shape):
        size = max(round(n * spacing[axis] / new_spacing[axis]), 1)
        position = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        if is_labels or axis == thick:
            out = out.take(np.floor(position + 0.5).astype(int), axis)
        else:
            low = np.floor(position).astype(int)
            weight = (position - low).reshape([-1 if a == axis else 1 for a in range(3)])
            out = (1 - weight) * out.take(low, axis) + weight * out.take(np.minimum(low + 1, n - 1), axis)
    return out
    ### END SOLUTION


# %% name="check_resample_spacing" role="check"
check(resample_spacing)

# %% [markdown] name="resample_spacing_after"
# The figure shows a synthetic patient from the front. The head is at the top, and the patient's right side is on the
# left. The slices are 12 mm apart, and your function resamples them to 3 mm. The first panel shows the scan with its
# labels, and the second panel the resampled image. The third panel adds the labels, resampled as names. In the fourth
# panel, the labels were interpolated as if they were quantities, and rounded. Notice the seams between organs: they
# have labels of organs that are not there.


# %% name="resample_spacing_figure" role="show"
from segedu.datasets import volume as ct
from segedu.teaching.widgets.volume import apply_window, extract_slice

resample, fine = use(resample_spacing), [3.0, 5.5, 5.5]
patient = ct.draw_volume((16, 3), (24, 48, 64), (12, 5.5, 5.5), tumours=0)
hu, organs, spacing = patient["hu"].numpy(), patient["semantic"].numpy(), list(patient["spacing"])
resampled = {
    "hu": np.asarray(resample(hu, spacing, fine, False)),
    "semantic": np.asarray(resample(organs, spacing, fine, True)),
    "spacing": fine,
}
interpolated = np.rint(resample(organs.astype(float), spacing, fine, False)).astype(int)
views = {
    "12 mm": (patient, patient["semantic"]),
    "3 mm, image": (resampled, None),
    "3 mm, labels as names": (resampled, resampled["semantic"]),
    "labels as quantities": (resampled, interpolated),
}
fig, axes = plt.subplots(2, 2, figsize=(6, 5), layout="constrained")
for ax, (title, (volume, labels)) in zip(axes.flat, views.items()):
    labels = resampled["semantic"] * 0 if labels is None else labels
    section = extract_slice({**volume, "semantic": labels}, "coronal", 60)
    ax.imshow(
        overlay(apply_window(section.hu, 40, 400), section.labels), aspect=section.aspect, interpolation="nearest"
    )
    ax.set(title=title, xticks=[], yticks=[])
counts = [int((labels == 3).sum()) for labels in (resampled["semantic"], interpolated)]
show(
    fig,
    alt="Four coronal slices of an abdomen: with thick slices; resampled; with coloured organs; and with false organs "
    f"along the seams. The spleen has {counts[0]} voxels as a name and {counts[1]} as a quantity.",
)

# %% [markdown] name="slices_text"
# The next cell is a slice viewer for such a volume, with three directions. Find the spleen. Which features identify
# it, if its intensity does not?

# %% name="slices" role="widget"
from segedu.teaching.widgets.volume import explorer as slices

slices()

# %% [markdown] name="plan_unet_idea"
# ## 6. Plan a U-Net from measurements (4 points)
#
# **Idea.** nnU-Net is not a new network. It is a set of rules that plan a plain U-Net from measurements of the data.
# The rules of this exercise are a shorter version of nnU-Net's rules. A 3 x 3 x 3 kernel should cover about the same
# number of millimetres along all axes. Therefore a thick axis is not halved at first: it **waits** until the spacings
# of the other axes are nearly as coarse. An axis with few voxels is not halved at all.
#
# **Formula.** For a patch of about $V$ voxels, with the median spacing $s$ and the median shape $n$, the size of the
# patch along axis $a$ is
#
# $$ p_a = \min\Bigl(\operatorname{round} \frac{(V s_1 s_2 s_3)^{1/3}}{s_a}, \; n_a\Bigr) . $$
#
# Then the poolings are chosen, level after level. Consider the axes with **at least 8** voxels left. Halve those of
# them whose spacing is **less than twice** the finest spacing among these axes. Stop if there is no axis to halve, or
# if there is only one axis to halve and it has fewer than 12 voxels. Finally, if an axis is pooled $k$ times, its size
# in the patch is rounded up to a multiple of $2^k$. Otherwise the feature maps of decoder and encoder would differ in
# size.
#
# **Worked example.** The spacing is 4, 1, 1 mm, and the patch has 16 x 30 x 30 voxels. The first pooling halves only
# the last two axes, because 4 is not less than 2. This gives 16 x 15 x 15 voxels of 4, 2, 2 mm. The second pooling
# does the same, because 4 is not less than 4. This gives 16 x 8 x 8 voxels (halves are rounded up) of 4, 4, 4 mm. The
# third pooling halves all axes and gives 8 x 4 x 4 voxels. Now only the first axis has at least 8 voxels, and a single
# axis needs 12, so the poolings end. The strides are (1, 2, 2), (1, 2, 2), (2, 2, 2). The axes of the patch must be
# multiples of 2, 8 and 8, so the patch is enlarged to 16 x 32 x 32.


# %% name="plan_unet" role="solution"
def plan_unet(shapes, spacings, voxels):
    """Plan a U-Net for volumes.

    - Spacing: the median of each axis, in mm.
    - Median shape: compute the shape of every volume at the median spacing (size * spacing / median spacing, rounded to
      the nearest integer, at least 1), then the median of each axis.
    - Patch: a block of about `voxels` voxels that covers the same millimetres along every axis. Therefore axis a has
      (voxels * product of spacings) ** (1/3) / spacing_a voxels, rounded to the nearest integer, and at most those of
      the median shape.
    - Poolings, level after level: of the axes with at least 8 voxels left, halve (rounding up) those whose spacing is
      less than twice the finest spacing among these axes. Halving doubles the spacing of an axis. Stop if there is no
      axis to halve, or if there is only one axis to halve and it has fewer than 12 voxels.
    - Last, round the size of the patch along each axis up to a multiple of 2 ** (number of poolings of this axis).

    shapes:   (N, 3) array, voxels of each training volume, N odd.
    spacings: (N, 3) array, mm.
    voxels:   approximate number of voxels that fit into memory.

    Returns a dict of `spacing`, three floats; `patch`, three ints; and `strides`, for each pooling three values, 2
    where it halves the axis and 1 elsewhere, from the first pooling to the last.

    Example: plan_unet(np.array([[16, 30, 30]]), np.array([[4., 1., 1.]]), 10**6) is {"spacing": [4.0, 1.0, 1.0],
    "patch": [16, 32, 32], "strides": [[1, 2, 2], [1, 2, 2], [2, 2, 2]]}.
    """
    ### BEGIN SOLUTION: compute the medians and the patch, choose the poolings in a loop, round the patch up
    spacing = np.median(spacings, axis=0)
    shape = np.median(np.maximum(np.round(shapes * (spacings / spacing)), 1), axis=0)
    side = (voxels * spacing.prod()) ** (1 / 3)
    patch = [min(round(side / step), int(n)) for step, n in zip(spacing, shape)]
    size, distance, strides = list(patch), spacing.tolist(), []
    while True:
        large = [axis for axis in range(3) if size[axis] >= 8]
        halved = [axis for axis in large if distance[axis] < 2 * min(distance[a] for a in large)]
        if not halved or len(halved) == 1 and size[halved[0]] < 12:
            break
        strides.append([2 if axis in halved else 1 for axis in range(3)])
        for axis in halved:
            size[axis], distance[axis] = (size[axis] + 1) // 2, 2 * distance[axis]
    steps = [2 ** sum(row[axis] == 2 for row in strides) for axis in range(3)]
    patch = [-(-n // step) * step for n, step in zip(patch, steps)]
    return {"spacing": spacing.tolist(), "patch": patch, "strides": strides}
    ### END SOLUTION


# %% name="check_plan_unet" role="check"
check(plan_unet)

# %% [markdown] name="plan_unet_after"
# The figure shows your plans for three data sets. Each line shows the spacing of one axis at each level, and the
# numbers are the voxels that are left along this axis. (The width is planned like the height, so it is not
# shown.) Notice that the depth is not halved at first if the slices are thick.

# %% name="plan_unet_figure" role="show"
plan_for = use(plan_unet)
data_sets = {
    "brain": ((138, 170, 140), (1.0, 1.0, 1.0)),
    "prostate": ((24, 320, 320), (3.0, 0.6, 0.6)),
    "abdomen": ((100, 512, 512), (5.0, 0.8, 0.8)),
}
fig, axes = plt.subplots(1, 3, figsize=(9.4, 3.8), layout="constrained", sharey=True)
plans = []
for ax, (name, (shape, distance)) in zip(axes, data_sets.items()):
    plan = plan_for(np.array([shape] * 3), np.array([distance] * 3), 112**3)
    steps = np.cumprod([[1, 1, 1], *plan["strides"]], axis=0)
    mm, left = np.array(plan["spacing"]) * steps, np.array(plan["patch"]) // steps
    for axis, colour, label in ((0, ORANGE, "depth"), (1, BLUE, "height")):
        line = {"marker": "o", "linewidth": 2} if axis else {"marker": "s", "linewidth": 5, "alpha": 0.6}
        ax.plot(mm[:, axis], color=colour, label=label, **line)  # the wide line stays visible below the other one
        for level, number in enumerate(left[:, axis]):
            above = (mm[level, 0] >= mm[level, 1]) == (axis == 0)  # no line passes through a number
            offset, where = (
                ((-4, 5), {"va": "bottom", "ha": "right"}) if above else ((4, -4), {"va": "top", "ha": "left"})
            )
            style = {"color": colour, "fontsize": 9, "textcoords": "offset points", **where}
            ax.annotate(str(number), (level, mm[level, axis]), offset, **style)
    size_of = " x ".join(map(str, plan["patch"]))
    plans.append(f"{name}: patch {size_of}, poolings {np.log2(steps[-1]).astype(int).tolist()}")
    ax.set_yscale("log", base=2)
    ax.margins(y=0.15)
    ax.set(xlabel="level", xticks=range(len(steps)), xlim=(-0.9, len(steps) - 0.2))
    ax.set_title(f"{name}: patch\n{size_of}", fontsize=11)
axes[0].set_ylabel("spacing in mm")
axes[0].legend()
show(
    fig,
    alt=f"Spacing at each level for three data sets; that of a thick axis is constant at first. {'; '.join(plans)}.",
)

# %% [markdown] name="train_text"
# ## Train a planned U-Net
#
# The next cells train a 3D U-Net to segment lungs, liver, spleen, kidneys and spine in synthetic patients. The scans
# come from three scanners, each with its own shape and spacing. Your `plan_unet` determines the spacing and the
# poolings. Your `resample_spacing` resamples every scan and its labels to this spacing; at CPU scale, every volume
# then has 32 x 32 x 32 voxels. The network is a [3D U-Net](../course/16-promptable/unet3d.md) with the planned
# strides. Intensity alone does not determine the organ: gas in the bowel is as dark as the lung, and the heart is as
# bright as the spleen. So the network also has to use position and shape.
#
# The baseline uses only the position. It is an **atlas**, which predicts at each voxel the organ that most training
# patients have there.
#
# On a GPU, the network learns to segment the anterior and the posterior part of the hippocampus in real MR volumes, of
# the [Medical Segmentation Decathlon](http://medicaldecathlon.com) (28 MB, CC BY-SA 4.0; the cell downloads them once
# and prints the citation). All of them have a spacing of 1 mm, but their shapes differ. Therefore every volume is
# padded or cropped to the shape of the planned patch. If the folder that `SEGEDU_DATA` names contains `hippocampus`, it
# is used instead. Without an internet connection, the network learns from synthetic CT scans, which are finer than on a
# CPU.

# %% name="data" role="train"
import time

from segedu.datasets.real_folder import real_folder
from segedu.recipes.real_samples import HIPPOCAMPUS_CLASSES, hippocampi, stack_volumes
from segedu.teaching.exercises.lab16_promptable import exercises
from tqdm.auto import tqdm

ORGANS, WEIGHTS = ct.CLASSES[:6], [0.3, 0.6, 1.0, 6.0, 3.0, 2.0]  # without tumours; weights of the cross-entropy
SCANNERS = (((32, 32, 32), (9, 8.25, 11)), ((24, 48, 64), (12, 5.5, 5.5)), ((48, 24, 22), (6, 11, 16)))


def affordable(function, *arguments, longest=0.3):
    """Your function if a call takes at most `longest` seconds; else the library's, so that the training begins soon."""
    mine, start = use(function), time.process_time()
    mine(*arguments)
    if (spent := time.process_time() - start) <= longest:
        return mine
    print(
        f"(Your {function.__name__} takes {spent:.1f} seconds per call. It may be correct, but this training uses the "
        "library's function.)"
    )
    return next(exercise.reference for exercise in exercises if exercise.name == function.__name__)


def scan(count, seed, finer):
    """MR volumes if there is a folder. Else render patients, with the three scanners in turn."""
    if folder:
        return hippocampi(folder, seed == 17, count)
    patients = []
    for i in tqdm(range(count), "scan", unit="patient"):
        shape, distance = SCANNERS[i % 3]
        shape, distance = [finer * n for n in shape], [mm / finer for mm in distance]
        patients.append(ct.draw_volume((seed, i), tuple(shape), tuple(distance), tumours=0))
    return patients


# %% name="prepare" role="train"
def prepare(patients, spacing, shape):
    """Resample all patients to one spacing: images (N, C, D, H, W), 2 windows of CT or 1 channel of MR, and labels."""
    scans, labels = [], []
    for patient in patients:
        old_new = list(patient["spacing"]), list(spacing)
        scans.append(torch.as_tensor(np.asarray(resample(patient[kind].numpy(), *old_new, False))).float())
        labels.append(torch.as_tensor(np.asarray(resample(patient["semantic"].numpy(), *old_new, True))).long())
    if kind == "mr":
        return (stack_volumes(scans, shape)[:, None] - 0.4) / 0.2, stack_volumes(labels, shape)
    hu = torch.stack(scans)
    soft_tissue, full_range = (hu.clamp(-160, 240) - 40) / 150, (hu.clamp(-1000, 400) + 300) / 500
    return torch.stack([soft_tissue, full_range], dim=1), torch.stack(labels)


# %% [markdown] name="loss_text"
# The loss is a cross-entropy with larger weights for rare organs, plus one minus the mean Dice of the organs. For
# augmentation, a small random constant is added to the intensities of each volume in each iteration.


# %% name="organ_loss" role="train"
def organ_loss(logits, target):
    """Weighted cross-entropy, plus one minus the mean Dice of the organs."""
    weights = torch.tensor(WEIGHTS, device=logits.device)
    p, y = logits.softmax(dim=1), F.one_hot(target, len(ORGANS)).movedim(-1, 1)
    intersection, areas = (p * y).sum((0, 2, 3, 4)), (p + y).sum((0, 2, 3, 4))
    return F.cross_entropy(logits, target, weight=weights) + 1 - ((2 * intersection + 1) / (areas + 1))[1:].mean()


# %% name="train" role="train"
from segedu.semantic.unet3d import UNet3D
from segedu.training import train_steps

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
folder = real_folder("hippocampus") if SCALE == "gpu" else None
finer, count, new_count, width, steps = {"cpu": (1, 21, 9, 8, 280), "gpu": (2, 63, 15, 16, 1500)}[SCALE]
kind, channels = ("mr", 1) if folder else ("hu", 2)
if folder:
    count, new_count, width = 95, 45, 32
    ORGANS, WEIGHTS = HIPPOCAMPUS_CLASSES, [0.3, 1.0, 1.0]
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # more threads hardly speed up such a small network
patients, new_patients = scan(count, 16, finer), scan(new_count, 17, finer)
first, wide = patients[0], patients[1]
resample = affordable(resample_spacing, wide[kind].numpy(), list(wide["spacing"]), list(first["spacing"]), False)
shapes, spacings = (
    np.array(rows) for rows in zip(*[(patient[kind].shape, patient["spacing"]) for patient in patients])
)
plan = use(plan_unet)(shapes, spacings, (40 * finer) ** 3)
(volumes, labels), (new_volumes, new_labels) = (
    prepare(group, plan["spacing"], plan["patch"]) for group in (patients, new_patients)
)
print("plan:", plan, "\nvolumes:", tuple(volumes.shape))

torch.manual_seed(0)
widths = [(width * 2**level,) * 2 for level in range(1 + len(plan["strides"]))]
net = UNet3D(channels, len(ORGANS), widths, strides=[(1, 1, 1), *map(tuple, plan["strides"])], padding=True).to(device)

optimizer = torch.optim.AdamW(net.parameters(), lr=6e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps, pct_start=0.1)
chance = torch.Generator().manual_seed(0)
picks = (torch.randint(len(volumes), (2,), generator=chance) for _ in range(steps))
loader = ((volumes[pick] + 0.1 * torch.randn(2, 1, 1, 1, 1, generator=chance), labels[pick]) for pick in picks)
bar = tqdm(train_steps(net, loader, organ_loss, optimizer, scheduler=schedule, clip_norm=1.0), "train", steps)
for loss in bar:
    bar.set_postfix(loss=f"{loss:.3f}")

# %% name="measure" role="train"
atlas = F.one_hot(labels, len(ORGANS)).sum(dim=0).argmax(dim=-1)
net.eval()
with torch.no_grad():
    predictions = torch.cat([net(volume[None].to(device)).argmax(dim=1).cpu() for volume in new_volumes])


def dice(prediction, target, organ):
    """Dice of one organ in one patient."""
    p, y = prediction == organ, target == organ
    return float(2 * (p & y).sum() / (p.sum() + y.sum()).clamp(min=1))


table = {}
for name, segmentations in (("atlas", atlas.expand_as(new_labels)), ("3D U-Net", predictions)):
    table[name] = [[dice(p, y, k) for k in range(1, len(ORGANS))] for p, y in zip(segmentations, new_labels)]
header = "".join(f"{organ:>10}" for organ in (*ORGANS[1:], "mean"))
print(f"{'Dice':10}{header}   on {len(new_labels)} new patients")
for name, rows in table.items():
    means = np.mean(rows, axis=0)
    print(f"{name:10}" + "".join(f"{value:10.3f}" for value in (*means, means.mean())))

# %% [markdown] name="train_after"
# The atlas is a serious baseline: bodies are similar, and the lungs are in nearly the same position in all patients.
# Where is position not enough? Look at the columns of spleen and kidneys. These organs are small, and their position
# varies between patients. An error of one voxel along the outline lowers the Dice of a small organ more than that of a
# large organ. So compare the two rows within a column, but not the columns with each other.
#
# The synthetic patients only show that the parts of the pipeline work together: spacing, plan, strides, loss and
# metric. None of these results has a medical meaning. In one run on a CPU, on synthetic patients, we measured a mean
# Dice of 0.85 for the 3D U-Net and of 0.67 for the atlas. On MR volumes we have run the cells only on a CPU, for a few
# iterations. The [page of results](../course/results.md) lists the library's 3D U-Net on larger volumes.

# %% name="train_figure" role="train"
by_patient = np.mean(table["3D U-Net"], axis=1)
fig, axes = plt.subplots(2, 4, figsize=(9.4, 5), layout="constrained")
for row, i, word in zip(axes, (int(by_patient.argmax()), int(by_patient.argmin())), ("best", "worst")):
    sources = {"ground truth": new_labels[i], "prediction": predictions[i]}
    hu = 80 * new_volumes[i, 0] if kind == "mr" else 500 * new_volumes[i, 1] - 300  # shown from -160 to 240
    views = [(source, view) for view in ("axial", "coronal") for source in sources]
    for ax, (source, view) in zip(row, views):
        section = extract_slice({"hu": hu, "semantic": sources[source], "spacing": plan["spacing"]}, view, 55)
        ax.imshow(
            overlay(apply_window(section.hu, 40, 400), section.labels), aspect=section.aspect, interpolation="nearest"
        )
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{source}, {view}", fontsize=10)
    row[0].set_ylabel(f"{word}: Dice {by_patient[i]:.2f}")
show(
    fig,
    alt="Axial and coronal slices of two new patients, each with the ground truth beside the prediction. "
    f"The mean Dice is {by_patient.max():.2f} for the best patient and {by_patient.min():.2f} for the worst.",
)

# %% [markdown] name="own_text"
# ## SAM on a photograph of your own
#
# Enter the path of a photograph in the cell, and the position of your click. With a GPU, the original SAM with ViT-B
# predicts the masks. Its weights (375 MB) are downloaded from the authors' address the first time. Without a GPU or
# without an internet connection, the cell uses the small SAM, which was trained on synthetic scenes only. Try the small
# SAM on a photograph: its masks show that zero-shot transfer depends on the training data. Without a path, the cell
# uses a synthetic street.

# %% name="own" role="train"
from PIL import Image
from segedu.datasets.street import draw_street
from segedu.weights import WeightsError

PHOTO, CLICK = "", (0.23, 0.67)  # a path; the click relative to width and height, from 0 to 1
if PHOTO:
    colours = np.array(Image.open(PHOTO).convert("RGB"))
    photo = torch.from_numpy(colours).permute(2, 0, 1) / 255
else:
    photo = draw_street((16, 8), size=(64, 96))["image"].as_subclass(torch.Tensor)
model, model_name = sam, "the small SAM"
if SCALE == "gpu":
    try:
        model, model_name = load("sam_vit_b"), "SAM, ViT-B"
    except WeightsError as error:
        print(f"(ViT-B is not available, so the small SAM is used: {error})")
model, (height, width_of) = model.to(device), photo.shape[1:]
point = (CLICK[0] * (width_of - 1), CLICK[1] * (height - 1))
with torch.no_grad():
    photo_embedding = model.encode(photo[None].to(device))
prompts = {key: value.to(device) for key, value in clicks([point]).items()}
outputs = predict_masks(photo_embedding, (height, width_of), model, **prompts)
mask_logits, predicted_ious = (output.cpu() for output in outputs)
titles = ["your click", *(f"mask {m + 1}: predicted IoU {predicted_ious[0, m]:.2f}" for m in range(3))]
fig = gallery([photo] * 4, [None, *(mask_logits[0] > 0)], titles=titles, columns=2, width=3.5)
for ax in fig.axes[:4]:
    draw_click(ax, point)
show(fig, alt=f"An image with a click, and three masks predicted by {model_name}. {'; '.join(titles[1:])}.")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the error: "The user moved the click, so the image had to be encoded again."
#
# <details><summary>Answer</summary>
#
# The image embedding does not depend on the click. Only the prompt encoder and the mask decoder run again. This is why
# your cells encoded an image once and then used a grid of clicks on it.
#
# </details>
#
# **2.** Why are the frequencies of the prompt encoder never trained, but saved with the weights?
#
# <details><summary>Answer</summary>
#
# The frequencies were sampled once, and all other weights were trained with them. With other frequencies, the encoding
# of every click would mean nothing to these weights.
#
# </details>
#
# **3.** Find the error: "In training, the mask with the highest predicted IoU is trained, because this is the mask that
# the user sees."
#
# <details><summary>Answer</summary>
#
# The mask with the smallest loss is trained. At first the predicted IoUs are meaningless. If they decided which mask is
# trained, a mask that is chosen by chance could be the only one that is ever trained. The predicted IoU selects the
# mask only at inference, where there is no ground truth.
#
# </details>
#
# **4.** A mask has a stability of 1, and its actual IoU is 0.1. How is this possible?
#
# <details><summary>Answer</summary>
#
# A sharp edge is not always the edge of the object: a shadow or a stripe on a shirt has a sharp edge too. Stability
# does not measure whether a mask fits an object.
#
# </details>
#
# **5.** A detector detects one object twice, with scores of 0.9 and 0.6. SAM predicts one mask of this object, and one
# of its neighbour. What does your `label_by_detector` do with a low threshold?
#
# <details><summary>Answer</summary>
#
# The first detection takes the mask of the object. The second one takes the mask of the neighbour, if its IoU with the
# box reaches the threshold, so the neighbour may get a wrong label. A higher threshold prevents this, and so does
# non-maximum suppression of the detections.
#
# </details>
#
# **6.** A volume has 100 slices, 5 mm apart, and pixels of 1 mm. After resampling to 1 mm it has 500 slices. Does it
# contain more information than before?
#
# <details><summary>Answer</summary>
#
# No. The ratio of the spacings is 5, which is more than 3, so each new slice is a copy of the nearest old slice, and
# 400 of the 500 slices are duplicates. The labels of these slices are copies too, so a Dice computed on them is not the
# Dice on the slices that were annotated. Therefore predictions are resampled back to the spacing of the scan before
# they are evaluated.
#
# </details>
#
# **7.** Find the error: "The volume has 24 slices, 5 mm apart, and pixels of 1 mm. All three axes are pooled five
# times, so that the network has a large receptive field."
#
# <details><summary>Answer</summary>
#
# After three poolings, only 3 of the 24 slices are left, so the depth cannot be pooled five times. Moreover, if all
# axes are pooled equally, a 3 x 3 x 3 kernel of the first level covers 3 mm within a slice but 15 mm in depth, and
# this ratio is the same at every level. The kernels then combine features that are far apart in depth. The thick axis
# should wait.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - Read [the pages of chapter 16](../course/16-promptable/index.md): SAM, the annotation loop, volumes, and nnU-Net.
# - SAM's own thresholds are 0.88 for the predicted IoU and 0.95 for the stability. Ours are 0.4 and 0.5, because the
#   network is small. Change `MIN_STABILITY` to 0.8, and then to 0. How many masks are kept, and how many objects are
#   segmented?
# - Change the training in the figure of exercise 2 so that the click means the object in nine of ten examples. What are
#   the predicted IoUs now?
# - Use `plan_unet` for volumes of your own. Which axis waits?
# - **The capstone.** You have now worked with data, losses, networks, metrics and labels. Choose a problem of your own
#   and solve it, from the images to a report: see [the capstone's notebook](capstone.ipynb) and [its
#   requirements](../course/capstone.md).
#
# Before you hand in this notebook, save it, and run `segedu check labs/16_promptable.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
