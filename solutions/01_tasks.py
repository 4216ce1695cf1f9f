# %% [markdown] name="goals"
# # Lab 1: What is segmentation?
#
# The same street can be answered by one word, by boxes, or by a number for every pixel. In this lab you turn these
# answers into one another, each in a few lines. All later labs speak in these arrays.
#
# **After this lab you can**
#
# - make one-hot planes of a class map, and leave void pixels out;
# - paint instances on a class map, and say why the way back is a guess;
# - put class and instance into one number, and take them out again;
# - find the box of a mask, and write the mask as COCO does.
#
# **Time**: 45 minutes. **Points**: 20, in six exercises. **Before**: the pages of
# [chapter 1](../course/01-tasks/index.md).
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.
#
# Your functions may call other libraries, but not functions that are the exercise itself, such as
# `torchvision.ops.masks_to_boxes`: checks and grading hide them
# ([which ones](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One street, five answers
#
# A drawn street, because then the truth is exact and free. Under each title: the arrays that the task puts out.
# *Things* can be counted (person, car, bus, boat), *stuff* cannot (road, water, sky, ...). Black lines are **void**:
# pixels on the edge of something, for which nobody is asked.

# %% name="scene" role="show"
from segedu.datasets.street import CLASSES, THINGS, VOID, draw_street
from segedu.viz import overlay, show
from segedu.teaching.widgets.tasks import SCENE, SIZE, five_ways

scene = draw_street(SCENE, SIZE)
fig, alt = five_ways(scene)
show(fig, alt=alt)

# %% [markdown] name="one_hot_idea"
# ## 1. One-hot planes
#
# **Idea.** A network has one output plane for each class. To compare, the truth needs the same form: plane $k$ is 1
# where the pixel has class $k$, and 0 elsewhere.
#
# **Formula.** $h_k(y, x) = 1$ if the class at $(y, x)$ is $k$, else $0$. A void pixel, 255, has no class: it is 0 in
# every plane. K belongs to the data set, not to the image, so a class that does not occur has its plane too.
#
# **By hand.** With K = 3, the map
#
# | 0 | 2 |
# |---|---|
# | 1 | 255 |
#
# has the planes $\begin{pmatrix} 1 & 0 \\ 0 & 0 \end{pmatrix}$, $\begin{pmatrix} 0 & 0 \\ 1 & 0 \end{pmatrix}$,
# $\begin{pmatrix} 0 & 1 \\ 0 & 0 \end{pmatrix}$. Four pixels, three ones.


# %% name="one_hot" role="solution"
def one_hot(target, num_classes):
    """One plane for each class.

    target:      int64 tensor (H, W): classes 0 to num_classes - 1, and 255 for void
    num_classes: K

    Returns a float tensor (K, H, W): 1.0 where the pixel has the class of the plane, else 0.0.
    Void pixels are 0.0 in every plane. Do not change the arguments.
    """
    ### BEGIN SOLUTION: compare the map with every class number at once, then convert to floats
    classes = torch.arange(num_classes, device=target.device)
    return (target == classes[:, None, None]).float()
    ### END SOLUTION


# %% name="check_one_hot" role="check"
check(one_hot)

# %% [markdown] name="one_hot_figure_text"
# The planes of the street. Their sum is 1 at every pixel that has a class. Where is it 0?

# %% name="one_hot_figure" role="show"
planes = torch.as_tensor(use(one_hot)(scene["semantic"], len(CLASSES)))
panels = [*zip(CLASSES, planes, strict=True), ("sum of all planes", planes.sum(0))]
fig, axes = plt.subplots(3, 4, figsize=(10, 5.2), layout="constrained")
for ax in axes.flat:
    ax.set_axis_off()
for ax, (title, plane) in zip(axes.flat, panels, strict=False):
    ax.imshow(plane, cmap="gray", vmin=0, vmax=1)
    ax.set_title(f"{title}: {int(plane.sum())} px", fontsize=9)
void = int((planes.sum(0) == 0).sum())
show(fig, alt=f"Ten black and white planes, one a class, and their sum: 1 everywhere but on {void} void pixels.")

# %% [markdown] name="paint_idea"
# ## 2. From instances to a class map
#
# **Idea.** A detector gives masks with classes. Masks may overlap, a class map cannot. So paint them, the farthest
# first, on a background of 0: what is nearer hides what is behind, as on a painter's canvas.
#
# **By hand.** A row of five pixels. First (far) a car, class 7, on pixels 0 to 2; then (near) a person, class 6, on
# pixels 2 and 3. The map is
#
# | 7 | 7 | 6 | 6 | 0 |
# |---|---|---|---|---|
#
# Pixel 2 was in both masks; the person is nearer. 6 is smaller than 7: that plays no role. Pixel 4 is in no mask.


# %% name="semantic_from_instances" role="solution"
def semantic_from_instances(masks, labels):
    """Class map of a list of instances.

    masks:  bool tensor (N, H, W), from the farthest to the nearest; they may overlap; N may be 0
    labels: int64 tensor (N,), the class of each instance, at least 1

    Returns an int64 tensor (H, W): at each pixel the class of the nearest instance that covers it,
    0 where there is none. Do not change the arguments.
    """
    ### BEGIN SOLUTION: a map of zeros on which each instance is painted in its class, in order
    semantic = torch.zeros(masks.shape[1:], dtype=torch.int64)
    for mask, label in zip(masks, labels):
        semantic[mask] = label
    return semantic
    ### END SOLUTION


# %% name="check_semantic_from_instances" role="check"
check(semantic_from_instances)

# %% [markdown] name="paint_figure_text"
# Here the masks of the street have grown by a few pixels, as the masks of a detector might, so that they overlap.
# What stands lower in the picture is nearer. Painted in the right order, and in the wrong one:

# %% name="paint_figure" role="show"
grown = torch.nn.functional.max_pool2d(scene["masks"].float(), 13, stride=1, padding=6) > 0
order = scene["boxes"][:, 3].argsort()
paint = use(semantic_from_instances)
maps = [torch.as_tensor(paint(grown[o], scene["labels"][o])) for o in (order, order.flip(0))]
fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.2), layout="constrained")
for ax, painted, title in zip(axes, maps, ("nearest last", "nearest first")):
    shown = torch.where(painted > 0, painted - THINGS[0] + 1, 0)
    ax.imshow(overlay(scene["image"], shown, opacity=0.6))
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
changed = int((maps[0] != maps[1]).sum())
show(fig, alt=f"The grown masks painted in both orders; {changed} pixels have another class.")

# %% [markdown] name="panoptic_idea"
# ## 3. Class and instance in one number
#
# **Idea.** A panoptic answer has a class at every pixel, and at every pixel of a thing also the number of the object.
# Cityscapes puts both into one whole number.
#
# **Formula.** Encode: $\text{class} \cdot 1000 + \text{instance}$; stuff and void have instance 0. Decode: the
# thousands are the class, the rest is the instance.
#
# **By hand.** With class 11 the only thing:
#
# | class | instance | number |
# |---|---|---|
# | 7 (stuff) | 4 | 7000 |
# | 11 | 2 | 11002 |
# | 255 (void) | 9 | 255000 |
#
# Back: 11002 is class 11, instance 2. Mind the types: class maps are often stored as `uint8`, which ends at 255.
#
# Your function does both: it encodes two maps, and decodes a third that somebody else has encoded.


# %% name="panoptic_roundtrip" role="solution"
def panoptic_roundtrip(category, instance, things, codes):
    """Encode class and instance; decode other numbers.

    category: uint8 tensor (H, W), the class of each pixel, 255 for void
    instance: int32 tensor (H, W), the number of the object, 0 to 999; it means nothing unless the
              class of the pixel is one of `things`
    things:   list of the classes that have instances
    codes:    int64 tensor (H2, W2), numbers that are encoded already

    Returns a tuple of three tensors of whole numbers: the encoded map (H, W), and the class and the
    instance of every pixel of `codes`, each (H2, W2). Do not change the arguments.
    """
    ### BEGIN SOLUTION: thousands for the class, instances on things only; then whole-number division
    category = category.long()
    is_thing = torch.isin(category, torch.tensor(things))
    encoded = category * 1000 + torch.where(is_thing, instance, 0)
    return encoded, codes // 1000, codes % 1000
    ### END SOLUTION


# %% name="check_panoptic_roundtrip" role="check"
check(panoptic_roundtrip)

# %% [markdown] name="panoptic_figure_text"
# The numbers of the street, with how many pixels each has. One bar for each segment: every thing has its own, all
# road is one. There and back again, nothing is lost.

# %% name="panoptic_figure" role="show"
category, instance = scene["semantic"].to(torch.uint8), scene["label_map"]
roundtrip, empty = use(panoptic_roundtrip), torch.zeros(1, 1, dtype=torch.int64)
encoded = torch.as_tensor(roundtrip(category, instance, list(THINGS), empty)[0])
back = [torch.as_tensor(x) for x in roundtrip(category, instance, list(THINGS), encoded.long())[1:]]
numbers, pixels = encoded.unique(return_counts=True)
fig, ax = plt.subplots(figsize=(10, 3.2), layout="constrained")
colours = ["#D55E00" if int(n) // 1000 in THINGS else "#56B4E9" for n in numbers]
ax.bar([str(int(n)) for n in numbers], pixels, color=colours, edgecolor="black")
for x, (n, count) in enumerate(zip(numbers.tolist(), pixels.tolist())):
    name = "void" if n // 1000 == VOID else CLASSES[n // 1000]
    ax.text(x, count * 1.1, name, ha="center", fontsize=8)
ax.set(yscale="log", ylabel="pixels", ylim=(1, 60000), title="dark: things, light: stuff and void")
ax.tick_params(axis="x", rotation=40)
same = torch.equal(back[0], scene["semantic"]) and torch.equal(back[1], instance.long())
print("there and back:", "all pixels as before" if same else "some pixels have changed")
show(fig, alt=f"Bars of the pixels of {len(numbers)} panoptic numbers: {numbers.tolist()}.")

# %% [markdown] name="count_idea"
# ## 4. Counting things
#
# **Idea.** Can a class map count? Call each *connected* piece of a class one object. Neighbours of a pixel are those
# above, below, left and right of it (4-connectivity); a shared corner does not connect.
#
# **By hand.** Class 2 and class 3 are things:
#
# | 2 | 2 | 0 | 3 |
# |---|---|---|---|
# | 0 | 0 | 2 | 3 |
# | 3 | 3 | 255 | 3 |
#
# Class 2 has two pieces: they meet in a corner only. Class 3 has two: void lies between them and belongs to neither.
#
# Useful: `scipy.ndimage.label(mask)` numbers the connected pieces of a mask and returns the map and their count.


# %% name="count_things" role="solution"
from scipy import ndimage


def count_things(semantic, num_classes, things):
    """Connected pieces of each class of things.

    semantic:    int64 tensor (H, W): classes 0 to num_classes - 1, and 255 for void
    num_classes: K
    things:      list of the classes that are counted

    Returns K whole numbers: entry k is the number of pieces of class k, with 4 neighbours, if k is
    one of `things`, else 0.
    """
    ### BEGIN SOLUTION: one class at a time, the number of connected pieces, 0 for what is no thing
    counts = []
    for k in range(num_classes):
        pieces = ndimage.label((semantic == k).numpy())[1] if k in things else 0
        counts.append(pieces)
    return counts
    ### END SOLUTION


# %% name="check_count_things" role="check"
check(count_things)

# %% [markdown] name="count_figure_text"
# Twelve streets: how many things there are, and how many pieces the class map has. Left: the truth. Its void border cuts
# thin parts off, and what something hides falls apart: too many pieces. Right: void filled with the nearest class, as in
# a prediction, which never has void: things that touch merge, too few. A class map cannot count; that is why instance
# segmentation exists.

# %% name="count_figure" role="show"
count, found = use(count_things), []
for seed in range(12):
    street = draw_street((1, seed), (64, 96))
    nearest = ndimage.distance_transform_edt(street["semantic"] == VOID, return_indices=True)[1]
    maps = (street["semantic"], street["semantic"][tuple(torch.from_numpy(nearest).long())])
    pieces = [count(semantic, len(CLASSES), list(THINGS)) for semantic in maps]
    found += [((street["labels"] == k).sum().item(), *(int(p[k]) for p in pieces), k) for k in THINGS]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
rng = np.random.default_rng(0)
top, said = max(max(row[:3]) for row in found) + 1, []
for column, (ax, title) in enumerate(zip(axes, ("with void", "void filled"), strict=True), start=1):
    for k, marker, colour in zip(THINGS, "o^sD", ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True):
        true, got = np.array([(row[0], row[column]) for row in found if row[3] == k]).T
        ax.plot(true + rng.uniform(-0.2, 0.2, len(true)), got, marker, color=colour, label=CLASSES[k], alpha=0.8)
    ax.plot([0, top], [0, top], ":", color="black", label="right")
    ax.set(xlabel="things (spread out a little)", title=title, xticks=range(top + 1), yticks=range(top + 1))
    few, many = (sum(sign * row[column] > sign * row[0] for row in found) for sign in (-1, 1))
    said.append(f"{title}: too few {few} times, too many {many} times")
axes[0].set(ylabel="connected pieces of the class map")
axes[0].legend(fontsize=9)
show(fig, alt=f"Pieces against things, four classes in twelve streets. {'; '.join(said)}.")

# %% [markdown] name="box_idea"
# ## 5. The box of a mask
#
# **Idea.** A box is the smallest rectangle around all pixels: the smallest and the largest column and row.
#
# **Formula.** $(x_1, y_1, x_2, y_2)$, in this order: $x$ counts columns, $y$ rows. These are *edges*: pixel 3 reaches
# from 3 to 4. So $x_2$ is the last column **plus one**, and $x_2 - x_1$ is the width.
#
# **By hand.** A mask with pixels at (row 1, column 4), (row 2, column 3) and (row 2, column 5): columns 3 to 5, rows 1
# to 2, so the box is $(3, 1, 6, 3)$: 3 wide, 2 high. An empty mask: $(0, 0, 0, 0)$.


# %% name="mask_to_box" role="solution"
def mask_to_box(mask):
    """Smallest box around a mask.

    mask: bool tensor (H, W)

    Returns four whole numbers [x1, y1, x2, y2], edges of pixels: x2 and y2 are one beyond the last
    column and row. An empty mask: [0, 0, 0, 0].
    """
    ### BEGIN SOLUTION: smallest and largest row and column of the True pixels, and the empty mask
    if not mask.any():
        return [0, 0, 0, 0]
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    ### END SOLUTION


# %% name="check_mask_to_box" role="check"
check(mask_to_box)

# %% [markdown] name="box_figure_text"
# The boxes of all things in the street, from their masks. How much of a box is its object?

# %% name="box_figure" role="show"
from matplotlib.patches import Rectangle

fig, axes = plt.subplots(1, 2, figsize=(10, 3.3), width_ratios=(1.5, 1), layout="constrained")
axes[0].imshow(overlay(scene["image"], scene["masks"]))
shares = []
for number, mask in enumerate(scene["masks"], start=1):
    x1, y1, x2, y2 = (int(v) for v in use(mask_to_box)(mask))
    axes[0].add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec="white", lw=1.5))
    axes[0].text(x1, y1 - 1, number, color="white", fontsize=9)
    shares.append(float(mask.sum()) / max((x2 - x1) * (y2 - y1), 1))
axes[0].set_axis_off()
names = [f"{n} {CLASSES[k]}" for n, k in enumerate(scene["labels"].tolist(), start=1)]
axes[1].barh(names, shares, color="#56B4E9", edgecolor="black")
axes[1].set(xlabel="share of the box that is the object", xlim=(0, 1))
axes[1].invert_yaxis()
said = ", ".join(f"{n} {s:.2f}" for n, s in zip(names, shares))
show(fig, alt=f"Boxes around the masks of the street, and the share of each box that its object fills: {said}.")

# %% [markdown] name="rle_idea"
# ## 6. Run lengths
#
# **Idea.** A mask is mostly long stretches of the same value. Write how long each is. COCO's files hold masks like
# this, and so does every evaluation on COCO.
#
# **Formula.** Read the mask **down the columns**, first column first. Write the length of the first run of zeros, of
# the run of ones after it, of the zeros after that, and so on. The first number belongs to zeros, so it is 0 if the
# mask begins with a one. All numbers add up to $H \cdot W$.
#
# **By hand.** $\begin{pmatrix} 0 & 1 & 1 \\ 0 & 1 & 0 \end{pmatrix}$ is read as 0 0, 1 1, 1 0: two zeros, three ones,
# one zero. Counts: [2, 3, 1]. (Row by row they would be [1, 2, 1, 1, 1].)
#
# Your function does both: it encodes a mask, and decodes the counts of another one.


# %% name="rle_roundtrip" role="solution"
def rle_roundtrip(mask, counts, size):
    """Encode a mask; decode other counts.

    mask:   bool tensor (H, W)
    counts: list of whole numbers, the run lengths of another mask; they add up to H2 * W2
    size:   (H2, W2) of that mask

    Returns the tuple (counts of `mask`, mask of `counts`): a list of whole numbers and a bool
    tensor (H2, W2). Columns first; the first count is of zeros and may be 0, all others are not.
    """
    ### BEGIN SOLUTION: find where the value changes down the columns; then repeat False, True in turn
    pixels = mask.T.flatten().numpy()
    edges = [0, *(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1), len(pixels)]
    found = np.diff(edges).tolist()
    if pixels[0]:
        found = [0, *found]
    height, width = size
    values = np.arange(len(counts)) % 2 == 1
    other = np.repeat(values, counts).reshape(width, height).T
    return found, torch.from_numpy(other.copy())
    ### END SOLUTION


# %% name="check_rle_roundtrip" role="check"
check(rle_roundtrip)

# %% [markdown] name="rle_figure_text"
# A disc that grows: bytes as bool, and numbers in its run lengths. An outline has to be crossed twice in every column
# it spans, so run lengths grow with the size of an object, pixels with its square.

# %% name="rle_figure" role="show"
y, x = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
radii, encode = range(4, 97, 8), use(rle_roundtrip)
discs = [(y - 100) ** 2 + (x - 100) ** 2 < r**2 for r in radii]
lengths = [len(encode(disc, [1], (1, 1))[0]) for disc in discs]
fig, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
ax.semilogy(radii, [int(disc.sum()) for disc in discs], "s-", color="#D55E00", label="pixels of the disc")
ax.semilogy(radii, lengths, "o--", color="#0072B2", label="numbers in its run lengths")
ax.set(xlabel="radius (pixels)", ylabel="how many")
ax.legend()
show(
    fig,
    alt=f"Run lengths of discs of radius {radii[0]} to {radii[-1]} grow from {lengths[0]} to {lengths[-1]} numbers.",
)

# %% [markdown] name="widget_text"
# ## Five tasks, many streets
#
# Choose a task and a street. Find a street in which the class map merges two cars, and one in which a thing is cut in
# two by what stands before it.

# %% name="tasks_widget" role="widget"
from segedu.teaching.widgets.tasks import explorer

explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# Images of PASCAL VOC, if you have put them under `data/VOCdevkit`, else drawn streets; then the speed of your one-hot
# planes on large maps, on the CPU and, if there is one, on the GPU.

# %% name="scale" role="train"
import time
from pathlib import Path

from tqdm.auto import tqdm

from segedu.datasets.scenes import Scenes
from segedu.datasets.voc import VOCSegmentation
from segedu.viz import gallery

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
BATCHES, SHAPE = {"cpu": (6, (512, 1024)), "gpu": (50, (4096, 4096))}[SCALE]
voc = Path("data/VOCdevkit/VOC2012")
samples = VOCSegmentation(voc, "val") if voc.is_dir() else Scenes(draw_street, 4, seed=7, size=(64, 96))
picked = [samples[i] for i in range(4)]
fig = gallery([s["image"] for s in picked], [s["label_map"] for s in picked], numbers=True)
show(fig, alt=f"Four images of {type(samples).__name__} with their things outlined and numbered.")
make_planes = use(one_hot)


def speed(device, batches):
    """Million pixels a second; drawing the labels is not timed."""
    generator = torch.Generator(device).manual_seed(0)
    pixels, seconds = 0, 0.0
    for _ in tqdm(range(batches), desc=f"one-hot on {device}"):
        target = torch.randint(0, 19, SHAPE, generator=generator, device=device)
        start = time.perf_counter()
        pixels += int(torch.as_tensor(make_planes(target, 19)).sum())  # int() waits for the GPU
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
# **1.** Which of class map, label map, masks and panoptic map can hold overlapping objects?
#
# <details><summary>Answer</summary>
# Only masks. In the others a pixel has one value.
# </details>
#
# **2.** Find the slip: "PASCAL VOC is for semantic segmentation only, as it has no instances."
#
# <details><summary>Answer</summary>
# VOC 2012 also ships SegmentationObject: a number for each object of the same images.
# </details>
#
# **3.** Find the slip: "Cityscapes: 5,000 images with 20,000 annotations of 30 classes."
#
# <details><summary>Answer</summary>
# 5,000 images are finely annotated, another 20,000 coarsely. 30 classes are defined, 19 are scored.
# </details>
#
# **4.** A road is cut in two by a bus. How many segments of class road has a panoptic map?
#
# <details><summary>Answer</summary>
# One. Stuff is not counted, however many pieces it has.
# </details>
#
# **5.** Your loss counts void pixels as class 0. What does the network learn?
#
# <details><summary>Answer</summary>
# To put class 0 around every object: void lies on outlines. In the metric these pixels do not count, so you may not even
# notice.
# </details>
#
# **6.** The counts of a mask of 3 by 4 pixels are [0, 12]. What are those of its inverse?
#
# <details><summary>Answer</summary>
# [12]: the mask is full, its inverse is empty.
# </details>

# %% [markdown] name="next"
# ## What next
#
# You can say what the right answer looks like. [Lab 4](04_metrics.ipynb) measures how near a given answer comes to it.
# The same arrays return everywhere: one-hot planes in the losses, boxes from masks in the detectors, run lengths in
# COCO's evaluation, panoptic numbers in the metric of chapter 13. Hand in the notebook as it is; grading draws new
# inputs.
