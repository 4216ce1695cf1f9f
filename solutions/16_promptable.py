# %% [markdown] name="title"
# # Lab 16: Point at it, and plan for volumes
#
# Two halves. In the first you **ask** a network: you turn clicks into vectors for SAM, write the loss that lets it answer with
# three masks, find out which masks are solid, and give them names with a detector's boxes. In the second you bring CT volumes of
# several scanners to one grid, plan a U-Net for them by rules, and train it.
#
# **Time**: 90 minutes. **Points**: 20, in six exercises. Read [chapter 16](../course/16-promptable/index.md) first, or
# beside this lab. The halves do not need each other: begin with the one you like.
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - turn clicks into vectors that a network understands;
# - train for a question that has several right answers;
# - tell solid masks from shaky ones without any truth;
# - make labelled masks from masks without names and boxes without masks;
# - bring images and labels of volumes to another spacing, and not invent organs;
# - plan a U-Net for volumes, and train it on drawn CT.
#
# Below, **one click** on one scene. The network is a small SAM, which learnt from drawn scenes and knows no classes. It gives three
# masks, and for each a guess how good it is. With a box in place of the click it gives one.

# %% name="asking" role="show"
import torch.nn.functional as F
from segedu.datasets.shapes import CLASSES, draw_shapes
from segedu.ops.masks import boxes_from_masks
from segedu.weights import load
from segedu.viz import gallery, overlay, show
from segedu.weights.own.shapes_sam import readings

BLUE, RED = "#0072B2", "#D55E00"
sam = load("shapes_sam")


@torch.no_grad()
def ask(embedding, size, model=sam, **prompts):
    """Answers to N prompts: logits (N, M, H, W) of the image's pixels, mask above 0, and guesses of their IoU (N, M)."""
    outputs = model.decode(embedding, size, **prompts)
    side = outputs["image_size"]  # of the square that SAM sees; the image is in its upper left corner
    h, w = (round(side * n / max(size)) for n in size)
    above = outputs["mask_logits"][0] - outputs["mask_threshold"]  # SAM cuts at 0, our small one at -0.8
    square = F.interpolate(above, (side, side), mode="bilinear")[..., :h, :w]
    return F.interpolate(square, size, mode="bilinear"), outputs["iou_scores"][0]


def clicks(points):
    """One click each for N answers."""
    points = torch.as_tensor(points, dtype=torch.float32)[None, :, None]
    return {"point_coords": points, "point_labels": torch.ones(points.shape[:-1])}


def draw_click(ax, point, colour=BLUE, marker="o"):
    ax.plot(*point, marker, color=colour, markersize=9, markeredgecolor="white", markeredgewidth=1.5)


# %% name="picture" role="show"
scene = draw_shapes((16, 4), size=(96, 96))
image, size, click = scene["image"].as_subclass(torch.Tensor), (96, 96), (55.0, 63.0)
objects, clumps = readings(scene)  # what a click on this scene may mean
meant = [next(m for m in some if m[int(click[1]), int(click[0])]) for some in (objects, clumps)]
with torch.no_grad():
    embedding = sam.encode(image[None])  # the slow part, once for each image
logits, guesses = ask(embedding, size, **clicks([click]))
boxed, boxed_guess = ask(embedding, size, boxes=boxes_from_masks(meant[0][None])[None], multimask_output=False)
titles = [
    "one click",
    *(f"mask {m + 1}: guess {guesses[0, m]:.2f}" for m in range(3)),
    f"a box: guess {boxed_guess[0, 0]:.2f}",
]
fig = gallery([image] * 5, [None, *(logits[0] > 0), boxed[0, 0] > 0], titles=titles, columns=5, width=2.3)
for ax in fig.axes[:4]:
    draw_click(ax, click)
pixels = ", ".join(str(int(mask.sum())) for mask in logits[0] > 0)
show(fig, alt=f"A scene of shapes with a click on one. {'; '.join(titles[1:])}. The three masks have {pixels} pixels.")

# %% [markdown] name="prompt_encode_idea"
# ## 1. A click becomes a vector (3 points)
#
# **Idea.** The decoder is a transformer, and knows vectors only. Two numbers (x, y) would be a poor vector: neighbours
# and far places look nearly alike. So the place is written as many **waves**: sines and cosines, some slow, some fast. Two places have
# nearly the same waves only if they are near. Then a learnt vector is added: what the click says. A list of clicks is filled up
# with points that say nothing, and these are nowhere.
#
# **Formula.** SAM sees a square of $S \times S$ pixels. With $s = S / \max(H, W)$ and a matrix $G$ of $2 \times F$ numbers, which
# were drawn once and never change,
#
# $$ u = 2 \, \frac{s \cdot (x, y) + \tfrac12}{S} - 1 $$
#
# $$ v = \bigl[ \sin(2 \pi\, u G), \; \cos(2 \pi\, u G) \bigr] + e $$
#
# where $e$ is one of three rows: "not this", "this", "nothing". For "nothing", $v = e$.
#
# **By hand.** An image 8 wide and 4 high, $S = 4$, so $s = 1/2$. The click (5, 1) becomes (2.5, 0.5), with the half pixel
# (3, 1). Divided by 4 that is (0.75, 0.25), and $u = (0.5, -0.5)$. Let $G$ have the columns (1, 0) and (0, 1): half a turn forward
# and half a turn back. Both sines are 0, both cosines -1. So $v = (0, 0, -1, -1) + e$.


# %% name="prompt_encode" role="solution"
def prompt_encode(point_coords, point_labels, image_size, side, frequencies, embeddings):
    """Make a vector of each click, as SAM's prompt encoder does.

    SAM sees the image enlarged or reduced so that its longer side has `side` pixels, in the upper left corner of a
    square of side x side.

    1. A point is multiplied by side / longer side of the image. Half a pixel is added to x and y, since a whole number
       means the middle of a pixel. Divided by `side` they are parts of the square, from 0 to 1.
    2. 2 * part - 1 is from -1 to 1. The row (x, y) of these numbers times `frequencies`, times 2 pi, are F angles. The
       position is F sines, and after them F cosines.
    3. A learnt vector is added that says what the click means: row 0 of `embeddings` for label 0, "not this", and row
       1 for label 1, "this". A label of -1 fills up a list of clicks: such a point has no position, only row 2.

    point_coords: (P, 2) floats, (x, y) in pixels of the image. Perhaps P = 0.
    point_labels: (P,) integers, 1, 0 or -1.
    image_size:   (H, W) of the image in pixels.
    side:         of the square, in pixels.
    frequencies:  (2, F) floats, drawn once at random.
    embeddings:   (3, 2 F) floats.

    Returns (P, 2 F) floats.

    Example: the middle of the square, and a point that is only there to fill up. sin(0) = 0 and cos(0) = 1.
    With coords = torch.tensor([[1.5, 1.5], [0., 0.]]), labels = torch.tensor([1, -1]) and
    rows = torch.tensor([[0., 0.], [3., 5.], [7., 7.]])
    prompt_encode(coords, labels, (4, 4), 4, torch.ones(2, 1), rows) is [[3., 6.], [7., 7.]].
    """
    ### BEGIN SOLUTION: scale, half a pixel, parts, angles; sines and cosines, none for padding; the row of each label
    parts = (point_coords * side / max(image_size) + 0.5) / side
    angles = 2 * torch.pi * (2 * parts - 1) @ frequencies
    position = torch.cat([angles.sin(), angles.cos()], dim=1)
    return position * (point_labels >= 0)[:, None] + embeddings[point_labels]  # -1 is the last row
    ### END SOLUTION


# %% name="check_prompt_encode" role="check"
check(prompt_encode)

# %% [markdown] name="prompt_encode_after"
# What do the waves know? Left, two clicks. Bright is where the waves of a place are like those of the click. Right, **your** vectors
# go straight into SAM's decoder: first one click, and a point to fill up; then a second click, which says "not this". Shown is its
# fourth mask, which is for prompts that leave no doubt. One click leaves some, and the mask lies between circle and clump; the second click decides.

# %% name="prompt_encode_figure" role="show"
encode, asked = use(prompt_encode), sam.prompt_encoder
waves = asked.pe_layer.positional_encoding_gaussian_matrix
kinds = [asked.point_embeddings[0], asked.point_embeddings[1], asked.not_a_point_embed]
kinds = torch.cat([kind.weight for kind in kinds]).detach()
second = (38.0, 46.0)


def vectors(points, labels, embeddings):
    """Your vectors of some points, (P, 2 F)."""
    points, labels = torch.tensor(points, dtype=torch.float32), torch.tensor(labels)
    return torch.as_tensor(encode(points, labels, size, sam.image_size, waves, embeddings)).float()


places = [(float(x), float(y)) for y in range(0, 96, 2) for x in range(0, 96, 2)]
everywhere = vectors(places, [1] * len(places), 0 * kinds)
answers = []
for points, labels in (([click, (0.0, 0.0)], [1, -1]), ([click, second, (0.0, 0.0)], [1, 0, -1])):
    given = vectors(points, labels, kinds)[None, None]  # one image, one answer
    with torch.no_grad():
        found, _ = sam.mask_decoder(embedding, asked.dense_positions(), given, asked.embed_masks(None)[None])
    answers.append(F.interpolate(found[0], size, mode="bilinear")[0, 0] > sam.mask_threshold)
fig, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
for ax, point, title in zip(axes, (click, second), ("waves like those of this click", "and of this one")):
    alike = everywhere @ vectors([point], [1], 0 * kinds)[0]
    ax.imshow(alike.reshape(48, 48), cmap="cividis", extent=(-0.5, 95.5, 95.5, -0.5))
    ax.set_title(title, fontsize=10)
for ax, mask, title in zip(axes[2:], answers, ("your vectors: this", "this, and not that")):
    ax.imshow(overlay(image, mask))
    ax.set_title(f"{title}: {int(mask.sum())} pixels", fontsize=10)
for ax, some in zip(axes, ([click], [second], [click], [click, second])):
    ax.set(xticks=[], yticks=[])
    for point in some:
        draw_click(ax, point, *(() if point == click else (RED, "X")))
show(
    fig,
    alt="Two maps of likeness, each with a bright spot at its click; SAM's mask for one click of "
    f"{int(answers[0].sum())} pixels, and for two of {int(answers[1].sum())}.",
)

# %% [markdown] name="best_of_three_idea"
# ## 2. Three answers, and only the best one learns (3 points)
#
# **Idea.** A click on a circle that touches a square: the circle, or both? Both are right, and nobody says which is meant. A network
# with one answer learns a mixture, which is neither. So SAM has **three**, and only that which was best learns. With
# time each takes over a reading. But when somebody clicks, there is no truth to choose by: so it also learns to **guess** the
# IoU of each, and all three guesses learn.
#
# **Formula.** With $p$ the sigmoids of a mask and $y$ the target, a mask has the loss $\ell_m = 20\, f_m + d_m$,
#
# $$ f_m = \operatorname{mean} \; \alpha\, (p - y)^2 \, \mathrm{BCE}(p, y) $$
#
# $$ d_m = 1 - \frac{2 \sum p\, y + 1}{\sum p + \sum y + 1} $$
#
# with $\alpha = 1/4$ where $y = 1$, and $3/4$ elsewhere. Over images $b$ and masks $m$, with guesses $g$,
#
# $$ L = \operatorname{mean}_b \, \min_m \, \ell_{bm} + L_g $$
#
# $$ L_g = \operatorname{mean}_{b, m} \, (g_{bm} - \mathrm{IoU}_{bm})^2 . $$
#
# **By hand.** Two images, two masks, losses 0.9 and 0.2 for the first, 0.4 and 0.7 for the second. The best are 0.2 and 0.4, their mean is
# 0.3. (The mean of each mask first would be 0.65 and 0.45, and then 0.45: one mask for all images.) Guesses 0.5 and 0.6, true IoUs 0.5
# and 0.8 in both images: $(0 + 0.04) / 2 = 0.02$. Together 0.32.


# %% name="best_of_three" role="solution"
def best_of_three(mask_logits, iou_pred, targets):
    """The loss of SAM's answers: a click may mean several things, so only the best of M masks has to be right.

    Each mask m of image b has the loss 20 focal + dice, where p are the sigmoids of its logits, y is 1 in the target
    and 0 outside, and s is a sum over the pixels:

    - focal: the mean over the pixels of -1/4 (1 - p)^2 log p inside the target, -3/4 p^2 log(1 - p) outside;
    - dice: 1 - (2 s(p y) + 1) / (s(p) + s(y) + 1).

    Of each image the mask with the least loss counts, and the others do not; the mean over the images is taken.

    The network also guesses the IoU of each of its masks. To this is added the mean, over all masks of all images, of
    (guess - IoU)^2. The IoU is that of the pixels whose logit is above 0 with the target, 1 if both are empty; no
    gradient flows through it.

    mask_logits: (B, M, H, W) floats; SAM has M = 3. Perhaps far from 0, where a sigmoid is exactly 0 or 1.
    iou_pred:    (B, M) floats, the guesses.
    targets:     (B, H, W) bool.

    Returns a tensor of one number, with gradients by mask_logits and iou_pred.

    Example: one mask of one pixel, undecided. Focal 1/16 log 2, Dice 1 - 2 / 2.5, and an IoU of 0 that was foreseen.
    best_of_three(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), torch.ones(1, 1, 1).bool()) is 1.0664.
    """
    ### BEGIN SOLUTION: focal loss and Dice of each mask, (B, M); the least of each image; the IoUs, and how far off the guesses are
    y = targets[:, None].to(mask_logits).expand_as(mask_logits)
    p = mask_logits.sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(mask_logits, y, reduction="none")
    focal = ((0.75 - 0.5 * y) * (p - y) ** 2 * entropy).mean(dim=(2, 3))
    dice = 1 - (2 * (p * y).sum(dim=(2, 3)) + 1) / (p.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + 1)
    inside, truth = mask_logits > 0, y > 0
    both, either = (inside & truth).sum(dim=(2, 3)), (inside | truth).sum(dim=(2, 3))
    iou = torch.where(either == 0, 1.0, both / either.clamp(min=1))
    return (20 * focal + dice).amin(dim=1).mean() + ((iou_pred - iou) ** 2).mean()
    ### END SOLUTION


# %% name="check_best_of_three" role="check"
check(best_of_three)

# %% [markdown] name="best_of_three_after"
# The click of the first figure, in a network that can do nothing but learn by heart: its masks are plain numbers, one for each pixel,
# and gradient descent moves them along your loss. Half of the time the click means the object, half of the time its whole clump. Upper row: both
# readings, and one answer for both. Lower row: three answers. Grey is a probability between no and yes. What did each of the three take over, and what is its guess? An
# answer that was never the best is left as it began, but its guess has learnt.
#
# Then change `manual_seed(0)` to 1. One mask is the best for **both** readings from the start, so it alone learns, and stays a mixture. A
# real network sees many clicks on many images, and its masks part ways; but this is where such training fails.


# %% name="best_of_three_figure" role="show"
price = use(best_of_three)
both = torch.stack(meant)[:, ::2, ::2]  # the two readings of the click
learnt = {}
for count in (1, 3):
    rough = torch.randn(1, count, 3, 3, generator=torch.Generator().manual_seed(0))
    masks = F.interpolate(3 * rough, both.shape[1:], mode="bicubic").requires_grad_()
    guess = torch.full((1, count), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([masks, guess], lr=0.1)
    for _ in range(150):
        loss = price(masks.expand(2, -1, -1, -1), guess.expand(2, -1), both)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learnt[count] = masks.detach()[0].sigmoid(), guess.detach()[0], float(loss.detach())
panels, titles = [*both.float()], ["the click may mean this", "or this"]
for count, (drawn, guess, _) in learnt.items():
    panels += list(drawn)
    whose = ["the only answer"] if count == 1 else [f"answer {m + 1} of {count}" for m in range(count)]
    titles += [f"{who}: guess {g:.2f}" for who, g in zip(whose, guess)]
show(
    gallery(panels, titles=titles, columns=3, width=2.6),
    alt=f"Two readings of a click; one answer, grey in the ring between them; three answers. {'; '.join(titles[2:])}. "
    f"Loss {learnt[1][2]:.2f} with one answer and {learnt[3][2]:.2f} with three.",
)

# %% [markdown] name="widget_text"
# ## Click
#
# The small SAM, live. Move the click; try a box, and a second click that says "not this". Find a click for which the mask with the
# highest guess is not the best one. Find one that three masks answer in the same way. And what does it say where nothing is?

# %% name="widget" role="widget"
from segedu.teaching.widgets.prompts import explorer

explorer()

# %% [markdown] name="stability_score_idea"
# ## 3. Is it a solid mask? (3 points)
#
# **Idea.** No prompt at all: ask at a grid of clicks, and keep what is good. But which masks are? There is no truth. SAM
# has two opinions. One is its guess of the IoU. The other asks the logits: a mask with a clear edge hardly changes when
# the threshold does; a shaky one grows and shrinks.
#
# **Formula.** With threshold $t$ (SAM's is 0) and offset $\delta$ (SAM's is 1)
#
# $$ \text{stability} = \frac{\#\{\ell > t + \delta\}}{\#\{\ell > t - \delta\}} . $$
#
# The smaller mask lies in the larger one, so this is their IoU. Where there is nothing at all, it is 0.
#
# **By hand.** The logits 3, 1.5, 0.4, -0.7, -2: above +1 are two, above -1 are four, so 0.5. The logits 6, 4, 3, -3, -6 give the same
# mask of three pixels, and 3 / 3 = 1.


# %% name="stability_score" role="solution"
def stability_score(mask_logits, mask_threshold, offset):
    """Measure how little masks change with their threshold, as SAM does to choose among all that it finds.

    Each map of logits is cut twice: above mask_threshold + offset, and above mask_threshold - offset. The score is the
    IoU of these two masks. The first lies within the second, so the IoU is a ratio of two numbers of pixels. A logit
    that is exactly at a threshold is not above it. Where the second mask is empty too, the score is 0.

    mask_logits:    (N, H, W) floats. Perhaps N = 0.
    mask_threshold: a number; SAM's is 0.
    offset:         a number above 0; SAM's is 1.

    Returns (N,) floats from 0 to 1.

    Example: above 1 is one pixel, above -1 are two.
    stability_score(torch.tensor([[[5.0, 0.5, -5.0]]]), 0.0, 1.0) is [0.5].
    """
    ### BEGIN SOLUTION: the pixels of both masks, and their ratio, which is 0 where both are empty
    inner = (mask_logits > mask_threshold + offset).sum(dim=(1, 2))
    outer = (mask_logits > mask_threshold - offset).sum(dim=(1, 2))
    return inner / outer.clamp(min=1)
    ### END SOLUTION


# %% name="check_stability_score" role="check"
check(stability_score)

# %% [markdown] name="stability_score_after"
# A scene, asked at 16 x 16 clicks: 768 masks. Each dot is one, by its guess and by your stability; the bluer, the higher its true IoU with
# an object or a clump. Masks above both lines stay. Of those that are nearly the same, non-maximum suppression keeps the
# best. On the right are the shakiest mask that SAM itself thinks well of, and the most solid one, as probabilities.


# %% name="everything" role="show"
from segedu.ops.nms import nms

stable, LEAST_GUESS, LEAST_STABILITY = use(stability_score), 0.4, 0.5


def everything(picture, side):
    """Ask at side x side clicks: logits (N, H, W), guesses and stability (N,), and which of them stay."""
    height, width = picture.shape[1:]
    at = (np.arange(side) + 0.5) / side
    grid = [(x * width, y * height) for y in at for x in at]
    with torch.no_grad():
        seen = sam.encode(picture[None])
    parts = [ask(seen, (height, width), **clicks(grid[i : i + 64])) for i in range(0, len(grid), 64)]
    logits, guesses = (torch.cat(part).flatten(0, 1) for part in zip(*parts))
    solid = torch.as_tensor(stable(logits, 0.0, 1.0))
    sure = ((guesses > LEAST_GUESS) & (solid >= LEAST_STABILITY)).nonzero()[:, 0]
    return logits, guesses, solid, sure[nms(boxes_from_masks(logits[sure] > 0), guesses[sure], 0.7)]


def ious(masks, others):
    """IoU of each mask (N, H, W) with each of the others (M, H, W): (N, M)."""
    one, other = masks.flatten(1).float(), others.flatten(1).float()
    shared = one @ other.T
    return shared / (one.sum(1)[:, None] + other.sum(1) - shared).clamp(min=1)


# %% name="stability_score_figure" role="show"
drawing = draw_shapes((16, 21), size=(64, 64))
picture = drawing["image"].as_subclass(torch.Tensor)
many, sure_of, solid, stay = everything(picture, 16)
true = ious(many > 0, torch.cat(readings(drawing))).amax(1)
fig, axes = plt.subplots(1, 4, figsize=(13, 3.3), layout="constrained", width_ratios=[1.5, 1, 1, 1])
dots = axes[0].scatter(sure_of, solid, c=true, s=9, cmap="Blues", vmin=-0.3, vmax=1)
axes[0].axvline(LEAST_GUESS, color=RED)
axes[0].axhline(LEAST_STABILITY, color=RED)
axes[0].set(xlabel="SAM's guess of the IoU", ylabel="stability", xlim=(0, 1), ylim=(0, 1.02))
axes[1].imshow(overlay(picture, many[stay] > 0))
well = torch.where(sure_of > 0.6, solid, 2.0)  # of those that SAM thinks well of
pair = int(well.argmin()), int(torch.where(sure_of > 0.6, solid, -1.0).argmax())
for ax, i, word in zip(axes[2:], pair, ("shaky", "solid")):
    ax.imshow((many[i] + sam.mask_threshold).sigmoid(), cmap="cividis", vmin=0, vmax=1)
    ax.set_title(f"{word}: {solid[i]:.2f}, true IoU {true[i]:.2f}", fontsize=10)
axes[1].set_title(f"{len(stay)} masks stay of {len(many)}", fontsize=10)
for ax in axes[1:]:
    ax.set(xticks=[], yticks=[])
passed = (sure_of > LEAST_GUESS) & (solid >= LEAST_STABILITY)
alt = f"Dots of guess and stability. Mean true IoU of all {true.mean():.2f}, of the {int(passed.sum())} above both lines {true[passed].mean():.2f}."
show(fig, alt=f"{alt} {len(stay)} masks stay on the scene. A blurred and a sharp mask.")

# %% [markdown] name="label_by_detector_idea"
# ## 4. Masks without names, names without masks (3 points)
#
# **Idea.** SAM's masks have no names. A detector has names and boxes, but no masks. Together they make labelled masks, and nobody drew a
# mask of a class. One way: give the boxes to SAM as prompts. The other way, yours: SAM finds masks of everything, and each
# detection takes the one that fits its box. A mask belongs to one object, so what is taken is taken, and the surest detection
# chooses first.
#
# **Formula.** With $R$ the pixels whose centres are in the box, and $M$ those of a mask,
#
# $$ \mathrm{IoU} = \frac{|M \cap R|}{|M \cup R|} . $$
#
# Falling score; the free mask with the largest IoU; only if that is at least the threshold. Compare **pixels of the mask** with the
# box, not two boxes: a thin mask across a box has the same box as a full one.
#
# **By hand.** Two masks: A fills 6 of 8 pixels of the box of "circle" (0.9) and none outside: 6/8 = 0.75. B fills all 8 and 8 more: 8/16 =
# 0.5. "Square" (0.6) has a box of 8 pixels, too, which A fills by 4, with 2 outside: 4/10 = 0.4; B by 3, with 13 outside: 3/21 = 0.14. Circle
# chooses first and takes A. With a threshold of 0.3, square gets nothing: A is taken, and B fits too badly.


# %% name="label_by_detector" role="solution"
def label_by_detector(masks, boxes, labels, scores, iou_threshold):
    """Give SAM's masks the names that a detector has for its boxes.

    The pixels of a box are those whose centre is inside: that of row y and column x is (x + 0.5, y + 0.5), and

        x1 <= x + 0.5 < x2   and   y1 <= y + 0.5 < y2

    A mask and a box are compared by the IoU of their pixels; it is 0 where both are empty. The detections choose by
    falling score, of equal scores the first of the list. Each takes, of all masks that nobody has taken yet, the one
    with the largest IoU with its box, of equal ones the first, if this IoU is at least `iou_threshold`. Otherwise it
    takes none.

    masks:         (M, H, W) bool, without names. Perhaps M = 0.
    boxes:         (N, 4) floats (x1, y1, x2, y2) in pixels. Perhaps N = 0.
    labels:        (N,) integers, the classes of the boxes.
    scores:        (N,) floats.
    iou_threshold: above 0.

    Returns three tensors. For each detection that took a mask, by falling score: (R,) integers, which mask; (R,)
    integers, its label; and (R,) floats, its score.

    Example: the second mask fills the box. With masks = torch.tensor([[[1, 0, 0, 0]], [[0, 0, 1, 1]]]).bool() and
    box = torch.tensor([[2.0, 0.0, 4.0, 1.0]])
    label_by_detector(masks, box, torch.tensor([7]), torch.tensor([0.9]), 0.5) is ([1], [7], [0.9]).
    """
    ### BEGIN SOLUTION: the pixels of each box, the IoU of each with each mask; then one detection after the other
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
# The masks that stayed meet the boxes of the small DETR of chapter 12. A triangle fills only half of its box, so the threshold is
# 0.3, and not more. Below, both ways on eight new scenes: an object counts as found if a mask of its class has an IoU of at least 0.5
# with it. Which way finds more, and which asks SAM less often?

# %% name="two_ways" role="show"
from segedu.ops.boxes import cxcywh_to_xyxy

detr, name_them = load("shapes_detr"), use(label_by_detector)


@torch.no_grad()
def detect(picture, least=0.5):
    """The boxes of DETR, their labels and scores: (N, 4), (N,), (N,)."""
    said = detr(picture[None])
    scores, labels = said["class_logits"][0].softmax(-1)[:, :-1].max(-1)  # the last one is "no object"
    kept = scores >= least
    return (cxcywh_to_xyxy(said["boxes"][0]) * 64)[kept], labels[kept], scores[kept]


def two_ways(picture, side):
    """Masks and labels: everything, named by boxes; and boxes as prompts."""
    boxes, labels, scores = detect(picture)
    logits, _, _, kept = everything(picture, side)
    masks = logits[kept] > 0
    which, names, _ = (torch.as_tensor(part) for part in name_them(masks, boxes, labels, scores, 0.3))
    with torch.no_grad():
        seen = sam.encode(picture[None])
    asked, _ = ask(seen, (64, 64), boxes=boxes[None], multimask_output=False)
    return {"everything, then names": (masks[which.long()], names), "boxes as prompts": (asked[:, 0] > 0, labels)}


def right(masks, labels, one):
    """How many objects of a scene have a mask of their class with an IoU of at least 0.5."""
    fits = (ious(one["masks"], masks) >= 0.5) & (one["labels"][:, None] == labels)
    return int(fits.any(dim=1).sum())


# %% name="label_by_detector_figure" role="show"
boxes, box_labels, scores = detect(picture)
shown = {
    f"{len(stay)} masks": (many[stay] > 0, None),
    f"{len(boxes)} boxes": (None, box_labels),
    **two_ways(picture, 16),
}
fig = gallery([picture] * 4, [masks for masks, _ in shown.values()], titles=list(shown), columns=4, width=3)
for ax, (masks, words) in zip(fig.axes, shown.values()):
    ax.set(xlim=(-0.5, 63.5), ylim=(63.5, -0.5))
    around = boxes if masks is None else boxes_from_masks(masks)
    for (x1, y1, x2, y2), label in zip(around.tolist(), [] if words is None else words):
        if masks is None:
            ax.fill([x1, x2, x2, x1], [y1, y1, y2, y2], fill=False, edgecolor=BLUE, linewidth=2)
        style = {"fontsize": 8, "color": "white", "bbox": {"facecolor": "#1b1b1b", "pad": 1}}
        ax.text((x1 + x2) / 2, (y1 + y2) / 2, CLASSES[int(label)], ha="center", va="center", **style)
names = [CLASSES[int(label)] for label in shown["everything, then names"][1]]
show(fig, alt=f"Masks without names; named boxes; your named masks: {', '.join(names)}; masks of the boxes.")

# %% name="two_ways_table" role="show"
new = [draw_shapes((1604, i), size=(64, 64)) for i in range(8)]
answers = [two_ways(one["image"].as_subclass(torch.Tensor), 12) for one in new]
total = sum(len(one["labels"]) for one in new)
for way, asked_for in (("everything, then names", 12 * 12), ("boxes as prompts", "as many as boxes")):
    hits = sum(right(*answer[way], one) for answer, one in zip(answers, new))
    print(f"{way:24} {hits} of {total} objects found; prompts for an image: {asked_for}")

# %% [markdown] name="annotate_text"
# ## Label images yourself
#
# The course has a small annotation tool: click, and SAM answers; keep, undo, save for COCO or CVAT. It begins here with your labelled masks,
# to be put right by hand. Set `OPEN` to `True` and run the cell. Click: "this". With Shift: "not this". Drag: a box. You need
# none of it for the points.

# %% name="annotate" role="widget"
OPEN = False
if OPEN:
    from IPython.display import display
    from segedu.teaching.widgets.annotate import annotate

    masks, names = shown["everything, then names"]
    tool = annotate({"scene.png": picture}, list(CLASSES), sam, {"scene.png": {"labels": names, "masks": masks}})
    display(tool)  # and later, in a cell of its own: tool.work.save("scene.json")
else:
    print("The tool is closed. OPEN = True opens it.")

# %% [markdown] name="resample_spacing_idea"
# ## 5. Millimetres, not voxels (4 points)
#
# Now the second half. A CT is a box of voxels, and each scanner has its own distances between them. A network sees voxels only: the same
# liver is 20 of them long here and 60 there. So all volumes are brought to one **spacing** first.
#
# **Idea.** Grey values are amounts: half way between 0 and 100 lies 50, so images are interpolated. Labels are **names**: half way
# between spine (5) and background (0) there is no spleen (3). They take the nearest voxel. And where slices are
# far apart, the organ has moved on between them; a mean of two slices would show two faint organs. There images, too, take the nearest
# slice.
#
# **Formula.** Axis by axis, with $n$ voxels of spacing $s$, and the new spacing $s'$:
#
# $$ n' = \operatorname{round}(n\, s / s') $$
#
# $$ x_i = \bigl(i + \tfrac12\bigr) \frac{n}{n'} - \tfrac12 $$
#
# is the place of new voxel $i$ in old voxels: both grids cover the same millimetres. Before the first centre and behind the last, the
# value stays. Thick: the coarsest spacing is **more than 3 times** the finest.
#
# **By hand.** Four voxels of 3 mm, 10 20 30 40, to 2 mm: 12 mm make 6 voxels. $x_0 = 0.5 \cdot 4/6 - 0.5 = -0.17$: before the first centre, so 10.
# $x_1 = 1.5 \cdot 4/6 - 0.5 = 0.5$: 15. $x_2 = 1.17$: 21.7. Then 28.3, 35, 40.


# %% name="resample_spacing" role="solution"
def resample_spacing(volume, spacing, new_spacing, is_labels):
    """Bring a volume to another spacing.

    The new size of an axis is size * spacing / new_spacing, to the nearest whole number, at least 1. Both grids
    cover the same millimetres: the centre of new voxel i lies at (i + 0.5) * size / new_size - 0.5 in old voxels.
    Images are interpolated linearly along each axis; beyond the first and the last centre the value stays. Labels
    take the nearest voxel. Where the coarsest spacing is more than 3 times the finest one, images too take the
    nearest voxel along the coarsest axis.

    volume:      (D, H, W) array, floats, or integers for labels.
    spacing:     mm from voxel to voxel along D, H, W.
    new_spacing: the same after resampling.
    is_labels:   whether the volume holds labels.

    Returns an array (D', H', W'), floats for an image, integers for labels.

    Example: resample_spacing(np.array([[[10., 20., 30., 40.]]]), [1, 1, 3], [1, 1, 2], False) is
    [[[10., 15., 21.67, 28.33, 35., 40.]]].
    """
    ### BEGIN SOLUTION: which axis is thick; then axis by axis the new size, the places, and the nearest voxel or two neighbours
    thick = int(np.argmax(spacing)) if max(spacing) / min(spacing) > 3 else None
    found = np.asarray(volume) if is_labels else np.asarray(volume, dtype=float)
    for axis, n in enumerate(volume.shape):
        size = max(round(n * spacing[axis] / new_spacing[axis]), 1)
        place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        if is_labels or axis == thick:
            found = found.take(np.floor(place + 0.5).astype(int), axis)
        else:
            low = np.floor(place).astype(int)
            part = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
            found = (1 - part) * found.take(low, axis) + part * found.take(np.minimum(low + 1, n - 1), axis)
    return found
    ### END SOLUTION


# %% name="check_resample_spacing" role="check"
check(resample_spacing)

# %% [markdown] name="resample_spacing_after"
# A drawn patient, seen from the front: head above, the patient's right side on the left. Slices lie 12 mm apart; your function brings them
# to 3 mm. First the image, then the labels as names, then the labels as if they were amounts, rounded: look at the seams. They are
# organs that nobody has.


# %% name="resample_spacing_figure" role="show"
from segedu.datasets import volume as ct
from segedu.teaching.widgets.volume import apply_window, extract_slice

resample, fine = use(resample_spacing), [3.0, 5.5, 5.5]
patient = ct.draw_volume((16, 3), (24, 48, 64), (12, 5.5, 5.5), tumours=0)
hu, organs, spacing = patient["hu"].numpy(), patient["semantic"].numpy(), list(patient["spacing"])
finer = {
    "hu": np.asarray(resample(hu, spacing, fine, False)),
    "semantic": np.asarray(resample(organs, spacing, fine, True)),
    "spacing": fine,
}
wrong = np.rint(resample(organs.astype(float), spacing, fine, False)).astype(int)
views = {
    "12 mm": (patient, patient["semantic"]),
    "3 mm, image": (finer, None),
    "3 mm, labels as names": (finer, finer["semantic"]),
    "labels as amounts": (finer, wrong),
}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.1), layout="constrained")
for ax, (title, (grid_of, labels)) in zip(axes, views.items()):
    one = extract_slice({**grid_of, "semantic": finer["semantic"] * 0 if labels is None else labels}, "coronal", 60)
    ax.imshow(overlay(apply_window(one.hu, 40, 400), one.labels), aspect=one.aspect, interpolation="nearest")
    ax.set(title=title, xticks=[], yticks=[])
counts = [int((labels == 3).sum()) for labels in (finer["semantic"], wrong)]
show(
    fig,
    alt="Four cuts of an abdomen from the front: in thick steps; smooth; with organs tinted; with seams of false organs. "
    f"Spleen: {counts[0]} voxels as names, {counts[1]} as amounts.",
)

# %% [markdown] name="slices_text"
# Look through such a volume, slice by slice, in three directions. Find the spleen. By what do you know it, if not by its grey?

# %% name="slices" role="widget"
from segedu.teaching.widgets.volume import explorer as slices

slices()

# %% [markdown] name="plan_unet_idea"
# ## 6. A plan from measured numbers (4 points)
#
# **Idea.** nnU-Net is no new network. It is a set of rules that plan a plain U-Net from what is measured of the data. Yours are a shorter
# version. A 3 x 3 x 3 kernel should see about the same millimetres along all axes. So a thick axis is not halved at first: it
# **waits** until the others have become as coarse. And an axis with few voxels is left alone.
#
# **Formula.** For a patch of about $V$ voxels, with the spacing $s$ and the median shape $n$,
#
# $$ p_a = \min\Bigl(\operatorname{round} \frac{(V s_1 s_2 s_3)^{1/3}}{s_a}, \; n_a\Bigr) . $$
#
# Then level after level: of the axes with **at least 8** voxels left, halve those whose spacing is **less than twice** the finest among
# them. Stop when there is none to halve, or a single one, and it has fewer than 12. Last, each axis grows to the next multiple of 2 to the power of its
# poolings: else the way up would not meet the way down.
#
# **By hand.** Spacing 4, 1, 1 mm, patch 16 x 30 x 30. The first pooling halves the last two axes only, since 4 is not less than 2: 16 x 15 x
# 15 at 4, 2, 2 mm. The second: 4 is not less than 4, so again the last two: 16 x 8 x 8 (halves are rounded up) at 4, 4, 4. The third
# halves all: 8 x 4 x 4. Only the first has 8 left, and alone it would need 12. So the strides are (1, 2, 2), (1, 2, 2), (2, 2, 2). The
# patch becomes a multiple of 2, 8, 8: 16 x 32 x 32.


# %% name="plan_unet" role="solution"
def plan_unet(shapes, spacings, voxels):
    """Plan a U-Net for volumes.

    Spacing: the median of each axis, in mm. Shape: every volume's at that spacing (size * spacing / new spacing, to
    the nearest whole number), then the median of each axis. Patch: a block of about `voxels` voxels that has the same
    millimetres along every axis, so that axis a has (voxels * product of spacings) ** (1/3) / spacing_a voxels, to the
    nearest whole number, at most those of the median shape. Poolings, level after level: of the axes with at least
    8 voxels left, halve (rounding up) those whose spacing is less than twice the finest spacing among them; halving
    doubles an axis's spacing. End where there is none to halve, or only one, and it has fewer than 12 voxels. Last,
    grow the patch to the next multiple of 2 ** poolings along each axis.

    shapes:   (N, 3) array, voxels of each training volume, N odd.
    spacings: (N, 3) array, mm.
    voxels:   about so many fit into memory.

    Returns a dict of `spacing`, three floats; `patch`, three ints; and `strides`, for each pooling three numbers, 2
    where it halves the axis and else 1, the first pooling first.

    Example: plan_unet(np.array([[16, 30, 30]]), np.array([[4., 1., 1.]]), 10**6) is {"spacing": [4.0, 1.0, 1.0],
    "patch": [16, 32, 32], "strides": [[1, 2, 2], [1, 2, 2], [2, 2, 2]]}.
    """
    ### BEGIN SOLUTION: medians of spacing and of shape, the patch, the poolings in a loop, and the multiples at last
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
# Your plans for three kinds of data. Each line is an axis: its millimetres from voxel to voxel, from level to level. The numbers say how many
# voxels are left. Watch thick axes wait.

# %% name="plan_unet_figure" role="show"
plan_for = use(plan_unet)
kinds_of_data = {
    "brain": ((138, 170, 140), (1.0, 1.0, 1.0)),
    "prostate": ((24, 320, 320), (3.0, 0.6, 0.6)),
    "abdomen": ((100, 512, 512), (5.0, 0.8, 0.8)),
}
fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", sharey=True)
words = []
for ax, (name, (shape, distance)) in zip(axes, kinds_of_data.items()):
    plan = plan_for(np.array([shape] * 3), np.array([distance] * 3), 112**3)
    steps = np.cumprod([[1, 1, 1], *plan["strides"]], axis=0)
    for axis, colour, word in ((0, RED, "depth"), (1, BLUE, "height")):
        mm, left = plan["spacing"][axis] * steps[:, axis], np.array(plan["patch"])[axis] // steps[:, axis]
        ax.plot(mm, "o-" if axis else "s--", color=colour, label=word)
        for level, number in enumerate(left):
            where = {"va": "top", "ha": "left"} if axis else {"va": "bottom", "ha": "right"}
            ax.text(level, mm[level], f" {number} ", color=colour, fontsize=9, **where)
    size_of = " x ".join(map(str, plan["patch"]))
    words.append(f"{name}: patch {size_of}, poolings {np.log2(steps[-1]).astype(int).tolist()}")
    ax.set_yscale("log", base=2)
    ax.set(title=f"{name}: patch {size_of}", xlabel="level", xticks=range(len(steps)))
axes[0].set_ylabel("mm from voxel to voxel")
axes[0].legend()
show(fig, alt=f"Spacing over level for three kinds of data; thick axes stay level at first. {'; '.join(words)}.")

# %% [markdown] name="train_text"
# ## Train it
#
# Drawn patients from three scanners, each with its own shape and spacing: lungs, liver, spleen, kidneys, spine. Your `plan_unet` chooses the
# spacing and the poolings; your `resample_spacing` brings every scan and its labels to it, which here makes 32 x 32 x 32 voxels; a
# [3D U-Net](../course/16-promptable/unet3d.md) with these strides learns. Grey does not name an organ: the bowel is as dark as the
# lung, the heart as bright as the spleen. Place and shape must tell.
#
# The rival knows places only: an **atlas**, at each voxel the organ that most training patients have there.

# %% name="data" role="train"
import time

from segedu.teaching.exercises.lab16_promptable import exercises
from tqdm.auto import tqdm

ORGANS = ct.CLASSES[:6]  # without tumours
SCANNERS = (((32, 32, 32), (9, 8.25, 11)), ((24, 48, 64), (12, 5.5, 5.5)), ((48, 24, 22), (6, 11, 16)))


def affordable(function, *arguments, longest=0.3):
    """Yours, if a call takes at most `longest` seconds; else the library's, so that the training begins soon."""
    mine, start = use(function), time.process_time()
    mine(*arguments)
    if (spent := time.process_time() - start) <= longest:
        return mine
    print(
        f"(Your {function.__name__} takes {spent:.1f} seconds a call. It may be right, but the library's is used here.)"
    )
    return next(exercise.reference for exercise in exercises if exercise.name == function.__name__)


def scan(count, seed, finer):
    """Patients, each in the next scanner: dicts of hu, semantic and spacing."""
    patients = []
    for i in tqdm(range(count), "scan", unit="patient"):
        shape, distance = SCANNERS[i % 3]
        shape, distance = [finer * n for n in shape], [mm / finer for mm in distance]
        patients.append(ct.draw_volume((seed, i), tuple(shape), tuple(distance), tumours=0))
    return patients


def prepare(patients, spacing):
    """All at one spacing: two windows of grey values (N, 2, D, H, W), and labels (N, D, H, W)."""
    scans, labels = [], []
    for one in patients:
        given = list(one["spacing"]), list(spacing)
        scans.append(torch.as_tensor(np.asarray(bring(one["hu"].numpy(), *given, False))).float())
        labels.append(torch.as_tensor(np.asarray(bring(one["semantic"].numpy(), *given, True))).long())
    hu = torch.stack(scans)
    soft, all_of_it = (hu.clamp(-160, 240) - 40) / 150, (hu.clamp(-1000, 400) + 300) / 500
    return torch.stack([soft, all_of_it], dim=1), torch.stack(labels)


# %% [markdown] name="loss_text"
# The loss is cross-entropy, in which rare organs weigh more, plus one minus the Dice of the organs. Each volume is made a little brighter or
# darker at each step.


# %% name="organ_loss" role="train"
def organ_loss(logits, target):
    """Cross-entropy with weights, and one minus the mean Dice of the organs."""
    weights = torch.tensor([0.3, 0.6, 1.0, 6.0, 3.0, 2.0], device=logits.device)
    given, true = logits.softmax(dim=1), F.one_hot(target, len(ORGANS)).movedim(-1, 1)
    shared, both = (given * true).sum((0, 2, 3, 4)), (given + true).sum((0, 2, 3, 4))
    return F.cross_entropy(logits, target, weight=weights) + 1 - ((2 * shared + 1) / (both + 1))[1:].mean()


# %% name="train" role="train"
from segedu.semantic.unet3d import UNet3D
from segedu.training import train_steps

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
finer, count, new_count, width, steps = {"cpu": (1, 21, 9, 8, 280), "gpu": (2, 63, 15, 16, 1500)}[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # so small a net gains little from more threads
patients, new_patients = scan(count, 16, finer), scan(new_count, 17, finer)
first, wide = patients[0], patients[1]
bring = affordable(resample_spacing, wide["hu"].numpy(), list(wide["spacing"]), list(first["spacing"]), False)
shapes, spacings = (np.array(rows) for rows in zip(*[(one["hu"].shape, one["spacing"]) for one in patients]))
plan = use(plan_unet)(shapes, spacings, (40 * finer) ** 3)
(volumes, labels), (new_volumes, new_labels) = (prepare(some, plan["spacing"]) for some in (patients, new_patients))
print("plan:", plan, "\nvolumes:", tuple(volumes.shape))

torch.manual_seed(0)
widths = [(width * 2**level,) * 2 for level in range(1 + len(plan["strides"]))]
net = UNet3D(2, len(ORGANS), widths, strides=[(1, 1, 1), *map(tuple, plan["strides"])], padding=True).to(device)

optimizer = torch.optim.AdamW(net.parameters(), lr=6e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps, pct_start=0.1)
chance = torch.Generator().manual_seed(0)
picks = (torch.randint(count, (2,), generator=chance) for _ in range(steps))
loader = ((volumes[pick] + 0.1 * torch.randn(2, 1, 1, 1, 1, generator=chance), labels[pick]) for pick in picks)
bar = tqdm(train_steps(net, loader, organ_loss, optimizer, scheduler=schedule, clip_norm=1.0), "train", steps)
for loss in bar:
    bar.set_postfix(loss=f"{loss:.3f}")

# %% name="measure" role="train"
atlas = F.one_hot(labels, len(ORGANS)).sum(dim=0).argmax(dim=-1)
net.eval()
with torch.no_grad():
    found = torch.cat([net(one[None].to(device)).argmax(dim=1).cpu() for one in new_volumes])


def dice(answer, truth, organ):
    """Of one organ in one patient."""
    one, other = answer == organ, truth == organ
    return float(2 * (one & other).sum() / (one.sum() + other.sum()).clamp(min=1))


table = {}
for name, answers in (("atlas", atlas.expand_as(new_labels)), ("3D U-Net", found)):
    table[name] = [[dice(a, t, k) for k in range(1, len(ORGANS))] for a, t in zip(answers, new_labels)]
print(f"{'Dice':10}" + "".join(f"{organ:>8}" for organ in ORGANS[1:]) + f"{'mean':>8}   on {new_count} new patients")
for name, rows in table.items():
    means = np.mean(rows, axis=0)
    print(f"{name:10}" + "".join(f"{value:8.3f}" for value in means) + f"{means.mean():8.3f}")

# %% [markdown] name="train_after"
# The atlas is no straw man: bodies are alike, and the lungs are where lungs are. Where does it not help to know the place? Look at the
# columns of spleen and kidneys: small organs, which lie a little elsewhere in everybody. One voxel of error at the outline costs
# a small organ more Dice than a large one, so do not compare columns with each other; compare rows.
#
# Nobody was scanned here, and none of these numbers says anything about medicine. They say that the steps fit together: spacing,
# plan, strides, loss, metric. In one run on a CPU we measured a mean Dice of 0.85 for the 3D U-Net and of 0.67 for the atlas.
# The GPU scale, with 64 x 64 x 64 voxels and 1,500 steps, we have not measured. The
# [page of results](../course/results.md) has the 3D U-Net of the library on larger volumes.

# %% name="train_figure" role="train"
by_patient = np.mean(table["3D U-Net"], axis=1)
fig, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
for row, i, word in zip(axes, (int(by_patient.argmax()), int(by_patient.argmin())), ("best", "worst")):
    whose = {"truth": new_labels[i], "found": found[i]}
    views = [(who, view) for view in ("axial", "coronal") for who in whose]
    for ax, (who, view) in zip(row, views):
        one = extract_slice(
            {"hu": 500 * new_volumes[i, 1] - 300, "semantic": whose[who], "spacing": plan["spacing"]}, view, 55
        )
        ax.imshow(overlay(apply_window(one.hu, 40, 400), one.labels), aspect=one.aspect, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{who}, {view}", fontsize=10)
    row[0].set_ylabel(f"{word}: Dice {by_patient[i]:.2f}")
show(
    fig,
    alt="Slices of two new patients, truth beside what was found, from below and from the front. "
    f"Mean Dice {by_patient.max():.2f} for the best patient and {by_patient.min():.2f} for the worst.",
)

# %% [markdown] name="own_text"
# ## SAM on your own picture
#
# Write the path of a photograph into the cell, and where you click. With a GPU the real SAM with ViT-B answers; its weights, 375 MB, are
# fetched from the authors' address the first time. Without one, or without a connection, the small SAM stands in. It has seen
# drawn scenes only: try it on a photograph, and see what "zero-shot" needs. Without a path, a drawn street is asked.

# %% name="own" role="train"
from PIL import Image
from segedu.datasets.street import draw_street
from segedu.weights import WeightsError

PHOTO, CLICK = "", (0.23, 0.67)  # a path; the click as parts of width and height
if PHOTO:
    colours = np.array(Image.open(PHOTO).convert("RGB"))
    photo = torch.from_numpy(colours).permute(2, 0, 1) / 255
else:
    photo = draw_street((16, 8), size=(64, 96))["image"].as_subclass(torch.Tensor)
model, who = sam, "the small SAM"
if SCALE == "gpu":
    try:
        model, who = load("sam_vit_b"), "SAM, ViT-B"
    except WeightsError as error:
        print(f"(No ViT-B here, so the small one answers: {error})")
model, (height, width_of) = model.to(device), photo.shape[1:]
point = (CLICK[0] * (width_of - 1), CLICK[1] * (height - 1))
with torch.no_grad():
    seen = model.encode(photo[None].to(device))
given = {key: value.to(device) for key, value in clicks([point]).items()}
answer, sure = (part.cpu() for part in ask(seen, (height, width_of), model, **given))
titles = ["your click", *(f"mask {m + 1}: guess {sure[0, m]:.2f}" for m in range(3))]
fig = gallery([photo] * 4, [None, *(answer[0] > 0)], titles=titles, columns=4, width=3)
for ax in fig.axes[:4]:
    draw_click(ax, point)
show(fig, alt=f"A picture with a click, and three masks of {who}. {'; '.join(titles[1:])}.")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the slip: "The user moved the click, so the image had to be encoded anew."
#
# <details><summary>Answer</summary>
# The embedding does not depend on the click. Only prompt encoder and decoder run again; that is why your cells could ask at 256 places of
# one image and encode it once.
# </details>
#
# **2.** Why are the frequencies of the prompt encoder never trained, and yet saved with the weights?
#
# <details><summary>Answer</summary>
# They were drawn once, and all other weights have learnt with just these waves. With others, every click would be somewhere else.
# </details>
#
# **3.** Find the slip: "In training the mask with the highest guess learns, as it is the one that is shown."
#
# <details><summary>Answer</summary>
# The one with the least loss learns. At first guesses mean nothing, and a mask that is chosen by chance would take everything. The guess decides in use,
# where no truth is there.
# </details>
#
# **4.** A mask has a stability of 1, and its true IoU is 0.1. How can that be?
#
# <details><summary>Answer</summary>
# A clear edge is not the right edge: a shadow, or a stripe on a shirt, has one too. Stability knows nothing of objects.
# </details>
#
# **5.** A detector finds one object twice, with scores of 0.9 and 0.6. SAM has one mask of it, and one of its neighbour. What does your
# `label_by_detector` do with a low threshold?
#
# <details><summary>Answer</summary>
# The first takes the object. The second takes the neighbour, if that overlaps its box enough: a wrong name. A threshold, or
# suppression of doubles before it, prevents that.
# </details>
#
# **6.** A volume of 100 slices, 5 mm apart, with pixels of 1 mm. Resampled to 1 mm it has 500 slices. Is there more in it than before?
#
# <details><summary>Answer</summary>
# No. 400 slices are made up: copies, as 5 is more than 3. The labels between are made up, too; Dice on them is not Dice on what was
# drawn. Predictions are resampled back to the spacing of the scan and measured there.
# </details>
#
# **7.** Find the slip: "All three axes are pooled five times, so that the network sees everything."
#
# <details><summary>Answer</summary>
# A thin axis of 24 slices would end after three, at 3 slices; and kernels that see 3 mm to the side and 15 mm in depth from the
# first level on mix what is far apart. The thick axis waits.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 16](../course/16-promptable/index.md): SAM, the loop of labelling, volumes, nnU-Net.
# - SAM's own limits are 0.88 and 0.95; ours are 0.4 and 0.5, for a small network. Change `LEAST_STABILITY` to 0.8, and to 0. How many masks stay, and how many objects are found?
# - In the figure of exercise 2, let the click mean the object nine times out of ten. What are the guesses then?
# - Plan with `plan_unet` for volumes of your own hospital, lab, or hard disk. Which axis waits?
# - **The capstone.** You have met every part: data, losses, networks, metrics, labels. Now choose a problem of your own and carry it from
#   images to a report: [the capstone's notebook](capstone.ipynb), and [what it asks for](../course/capstone.md).
