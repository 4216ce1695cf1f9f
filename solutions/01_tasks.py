# %% [markdown] name="goals"
# # Lab 1: What is segmentation?
#
# One street scene can be described by a single label, by boxes, or by a class at every pixel. Each of these
# descriptions is an array or a list. In this lab you convert several of them into one another, with a few lines of
# code for each conversion. Most later labs use the same arrays.
#
# **After this lab you can**
#
# - convert a class map to one-hot planes, and exclude void pixels;
# - convert instance masks to a class map, and explain why the opposite conversion has to guess;
# - store a class and an instance in one integer, and decode them again;
# - compute the box of a mask, and encode a mask as COCO's run lengths.
#
# **Time**: 45 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 1](../course/01-tasks/index.md), and indexing and comparing arrays in NumPy or PyTorch.
# You do not need an earlier lab.
#
# Run the cells from top to bottom. Until your function for an exercise passes its check, later cells use the library's
# function instead, so the notebook always runs to its end.
#
# Your functions may call other libraries. They may not call a ready-made solution of an exercise, such as
# `torchvision.ops.masks_to_boxes`: such functions are not available during checks and grading
# ([full list](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One street and the outputs of five tasks
#
# Image classification, object detection, and semantic, instance and panoptic segmentation have different outputs for
# the same image. The next figure shows the five outputs for one street. The street is synthetic, so its ground truth
# is exact and costs nothing to annotate.
#
# The title of each panel names a task and the arrays of its output. *Things* are classes whose objects can be
# counted (person, car, bus, boat). *Stuff* cannot be counted (road, water, sky and others). Black lines are **void**:
# pixels on the border of an object, which have no label and are not scored.

# %% name="scene" role="show"
from segedu.datasets.street import CLASSES, THINGS, VOID, draw_street
from segedu.viz import overlay, show
from segedu.teaching.widgets.tasks import SCENE, SIZE, five_ways

scene = draw_street(SCENE, SIZE)
fig, alt = five_ways(scene)
show(fig, alt=alt)

# %% [markdown] name="one_hot_idea"
# ## 1. One-hot planes (3 points)
#
# **Idea.** A class map stores the class of each pixel as an integer. A network for semantic segmentation does not
# output such integers. It outputs one plane, an array of H x W scores, per class. To compare these planes with the
# ground truth, you need the ground truth in the same form: plane $k$ is 1 where the pixel has class $k$, and 0
# elsewhere.
#
# **Formula.** $h_k(y, x) = 1$ if the class at $(y, x)$ is $k$, and 0 otherwise. A void pixel has the value 255 and no
# class, so it is 0 in every plane. The number of classes $K$ is a property of the data set, not of one image. A class
# that does not occur in an image therefore still has a plane.
#
# **Worked example.** With $K = 3$, the map
#
# ```text
# 0    2
# 1  255
# ```
#
# has the planes $\begin{pmatrix} 1 & 0 \\ 0 & 0 \end{pmatrix}$, $\begin{pmatrix} 0 & 0 \\ 1 & 0 \end{pmatrix}$ and
# $\begin{pmatrix} 0 & 1 \\ 0 & 0 \end{pmatrix}$. The map has four pixels. The planes contain three ones, because one
# of the pixels is void.


# %% name="one_hot" role="solution"
def one_hot(target, num_classes):
    """Convert a class map to one plane per class.

    target:      int64 tensor (H, W) with the class of each pixel, 0 to num_classes - 1, or 255 for void
    num_classes: the number of classes K

    Returns a float tensor (K, H, W): plane k is 1.0 where the pixel has class k, and 0.0 elsewhere.
    Void pixels are 0.0 in every plane. Classes that do not occur in `target` have a plane too.
    Do not change the arguments.
    """
    ### BEGIN SOLUTION: compare the map with every class index, then convert the result to floats
    classes = torch.arange(num_classes, device=target.device)
    return (target == classes[:, None, None]).float()
    ### END SOLUTION


# %% name="check_one_hot" role="check"
check(one_hot)

# %% [markdown] name="one_hot_figure_text"
# The next figure shows the planes of the street. Their sum is 1 at every pixel that has a class. At which pixels is
# the sum 0?

# %% name="one_hot_figure" role="show"
planes = torch.as_tensor(use(one_hot)(scene["semantic"], len(CLASSES)))
panels = [*zip(CLASSES, planes, strict=True), ("sum of all planes", planes.sum(0))]
fig, axes = plt.subplots(4, 3, figsize=(7.5, 6.8), layout="constrained")
for ax in axes.flat:
    ax.set_axis_off()
for ax, (title, plane) in zip(axes.flat, panels, strict=False):
    ax.imshow(plane, cmap="gray", vmin=0, vmax=1)
    ax.set_title(f"{title}: {int(plane.sum())} px", fontsize=9)
void = int((planes.sum(0) == 0).sum())
show(fig, alt=f"Ten black and white planes, one per class, and their sum: 1 everywhere except at {void} void pixels.")

# %% [markdown] name="paint_idea"
# ## 2. From instances to a class map (3 points)
#
# **Idea.** Instance segmentation outputs one mask and one class per object. Masks may overlap, but a class map has
# only one class per pixel. Where masks overlap, the nearest object should be visible, because it hides the objects
# behind it. To achieve this, start with a map of zeros (the background) and write the class of each mask into it, from
# the farthest object to the nearest. This order is called the painter's algorithm.
#
# **Worked example.** An image has one row of five pixels. The first and farthest instance is a car, class 7, on pixels
# 0 to 2. The second and nearest is a person, class 6, on pixels 2 and 3. The class map is
#
# ```text
# 7  7  6  6  0
# ```
#
# Pixel 2 is in both masks and gets the class of the person, who is nearer. Only the order of the instances matters,
# not which class index is larger. Pixel 4 is in no mask, so it is background.


# %% name="semantic_from_instances" role="solution"
def semantic_from_instances(masks, labels):
    """Convert a list of instances to a class map.

    masks:  bool tensor (N, H, W), from the farthest instance to the nearest; masks may overlap, and
            N may be 0
    labels: int64 tensor (N,), the class of each instance, at least 1

    Returns an int64 tensor (H, W): the class of the nearest instance that covers the pixel, or 0
    (background) where no mask covers it. Do not change the arguments.
    """
    ### BEGIN SOLUTION: create a map of zeros, then write the class of each instance into it, in order
    semantic = torch.zeros(masks.shape[1:], dtype=torch.int64)
    for mask, label in zip(masks, labels):
        semantic[mask] = label
    return semantic
    ### END SOLUTION


# %% name="check_semantic_from_instances" role="check"
check(semantic_from_instances)

# %% [markdown] name="paint_figure_text"
# For the next figure the masks of another street were dilated by a few pixels, so that they overlap like the masks of a
# detector. The lower the bottom edge of an object is in the image, the nearer the object is to the camera. The left
# panel paints the nearest objects last, which is the correct order. The right panel uses the opposite order. Compare
# the two panels where objects of different classes overlap: in the right panel, a car far from the camera covers the
# person in front of it.

# %% name="paint_figure" role="show"
street = draw_street((1, 15), SIZE)
dilated = torch.nn.functional.max_pool2d(street["masks"].float(), 13, stride=1, padding=6) > 0
order = street["boxes"][:, 3].argsort()
paint = use(semantic_from_instances)
maps = [torch.as_tensor(paint(dilated[o], street["labels"][o])) for o in (order, order.flip(0))]
fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
for ax, class_map, title in zip(axes, maps, ("nearest last", "nearest first")):
    shown = torch.where(class_map > 0, class_map - THINGS[0] + 1, 0)
    ax.imshow(overlay(street["image"], shown, opacity=0.6))
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
changed = int((maps[0] != maps[1]).sum())
show(
    fig,
    alt="The class map of the dilated masks, painted with the nearest object last (left) and first (right). "
    f"{changed} pixels differ in their class.",
)

# %% [markdown] name="panoptic_idea"
# ## 3. Class and instance in one integer (4 points)
#
# **Idea.** A panoptic segmentation gives every pixel a class, and every pixel of a thing also an instance id, the
# number of its object. To save such a segmentation as a single map, you can combine the class and the instance id in
# one integer per pixel.
#
# **Formula.** To encode: $\text{class} \cdot 1000 + \text{instance}$, where stuff and void always have instance 0. To
# decode: the integer quotient by 1000 is the class, and the remainder is the instance.
#
# This is the convention of this exercise. The `instanceIds` files of Cityscapes use a variant of it: they number
# instances from 0, and for stuff they store the class alone. A road pixel has the value 7 there, not 7000.
#
# **Worked example.** Class 11 is the only thing class:
#
# | class | instance | encoded |
# |---|---|---|
# | 7 (stuff) | 4 | 7000 |
# | 11 (thing) | 2 | 11002 |
# | 255 (void) | 9 | 255000 |
#
# The instance ids 4 and 9 are ignored, because stuff and void have no instances. Decoding 11002 gives class 11 and
# instance 2. Pay attention to the data types: class maps are often stored as `uint8`, whose largest value is 255.
#
# Your function does both: it encodes one pair of maps, and it decodes another map that is already encoded.


# %% name="panoptic_roundtrip" role="solution"
def panoptic_roundtrip(category, instance, things, codes):
    """Encode one pair of maps, class and instance, and decode another map that is already encoded.

    category: uint8 tensor (H, W), the class of each pixel, or 255 for void
    instance: int32 tensor (H, W), the instance id of each pixel, 0 to 999; ignore it unless the class
              of the pixel is in `things`
    things:   list of the classes that have instances
    codes:    int64 tensor (H2, W2), another map, which is already encoded

    Returns a tuple of three integer tensors: the encoded map (H, W), then the class and the instance
    of every pixel of `codes`, each of shape (H2, W2). Stuff and void have instance 0 in the encoded
    map. Do not change the arguments.
    """
    ### BEGIN SOLUTION: encode: class times 1000, plus the instance for things only; decode by integer division
    category = category.long()
    is_thing = torch.isin(category, torch.tensor(things))
    encoded = category * 1000 + torch.where(is_thing, instance, 0)
    return encoded, codes // 1000, codes % 1000
    ### END SOLUTION


# %% name="check_panoptic_roundtrip" role="check"
check(panoptic_roundtrip)

# %% [markdown] name="panoptic_figure_text"
# The next figure shows the encoded values that occur in the street, with one bar per value. The height of a bar is the
# number of pixels, on a logarithmic axis. Every thing has its own value, while all road pixels share one. The printed
# line reports whether decoding recovers the class and the instance of every pixel.

# %% name="panoptic_figure" role="show"
category, instance = scene["semantic"].to(torch.uint8), scene["label_map"]
roundtrip, empty = use(panoptic_roundtrip), torch.zeros(1, 1, dtype=torch.int64)
encoded = torch.as_tensor(roundtrip(category, instance, list(THINGS), empty)[0])
decoded = [torch.as_tensor(x) for x in roundtrip(category, instance, list(THINGS), encoded.long())[1:]]
values, pixels = encoded.unique(return_counts=True)
fig, ax = plt.subplots(figsize=(10, 3.2), layout="constrained")
colours = ["#D55E00" if int(n) // 1000 in THINGS else "#56B4E9" for n in values]
ax.bar([str(int(n)) for n in values], pixels, color=colours, edgecolor="black")
for x, (n, count) in enumerate(zip(values.tolist(), pixels.tolist())):
    name = "void" if n // 1000 == VOID else CLASSES[n // 1000]
    ax.text(x, count * 1.1, name, ha="center", fontsize=8)
ax.set(yscale="log", ylabel="pixels", ylim=(1, 60000), title="things: dark orange; stuff and void: light blue")
ax.tick_params(axis="x", rotation=40)
same = torch.equal(decoded[0], scene["semantic"]) and torch.equal(decoded[1], instance.long())
print("after encoding and decoding:", "all pixels are unchanged" if same else "some pixels have changed")
show(fig, alt=f"Bar chart of the number of pixels of {len(values)} encoded values: {values.tolist()}.")

# %% [markdown] name="count_idea"
# ## 4. Counting things (3 points)
#
# **Idea.** Does a class map contain enough information to count objects? A simple method counts the *connected
# components* of each class, and takes each component for one object. The neighbours of a pixel are the pixels above,
# below, left and right of it (4-connectivity). Two pixels that share only a corner are not neighbours.
#
# **Worked example.** Classes 2 and 3 are things:
#
# ```text
# 2  2    0  3
# 0  0    2  3
# 3  3  255  3
# ```
#
# Class 2 has two components, because its two groups of pixels touch only at a corner. Class 3 has two components as
# well: the void pixel between its two groups of pixels does not belong to class 3, so it does not connect them.
#
# A useful function is `scipy.ndimage.label(mask)`. It numbers the connected components of a mask, and returns the map
# of these numbers and the number of components. By default it uses 4-connectivity.


# %% name="count_things" role="solution"
from scipy import ndimage


def count_things(semantic, num_classes, things):
    """Count the connected components of each thing class.

    semantic:    int64 tensor (H, W) with the class of each pixel, 0 to num_classes - 1, or 255 for void
    num_classes: the number of classes K
    things:      list of the classes that are counted

    Returns K integers: entry k is the number of connected components of class k (4-connectivity) if k
    is in `things`, and 0 otherwise.
    """
    ### BEGIN SOLUTION: for each class, count the connected components if the class is in `things`, else 0
    counts = []
    for k in range(num_classes):
        components = ndimage.label((semantic == k).numpy())[1] if k in things else 0
        counts.append(components)
    return counts
    ### END SOLUTION


# %% name="check_count_things" role="check"
check(count_things)

# %% [markdown] name="count_figure_text"
# The next figure compares the number of things with the number of connected components of the class map, for four
# classes in twelve streets. Each marker is one class in one street. The dotted line marks one component per thing:
# above the line there are too many components, below it too few.
#
# - Left: the ground truth, with its void borders. The borders separate thin parts of objects from the rest, and an
#   object that is partly hidden can be split. The count is then too large.
# - Right: every void pixel has the class of the nearest labelled pixel, as in a prediction, which never contains void.
#   Things of one class that touch merge, so the count is mostly too small.
#
# Counting things from a class map is therefore unreliable. Instance segmentation solves this problem.

# %% name="count_figure" role="show"
count, results = use(count_things), []
for seed in range(12):
    street = draw_street((1, seed), (64, 96))
    nearest = ndimage.distance_transform_edt(street["semantic"] == VOID, return_indices=True)[1]
    maps = (street["semantic"], street["semantic"][tuple(torch.from_numpy(nearest).long())])
    counts = [count(semantic, len(CLASSES), list(THINGS)) for semantic in maps]
    results += [((street["labels"] == k).sum().item(), *(int(c[k]) for c in counts), k) for k in THINGS]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
rng = np.random.default_rng(0)
limit, summary = max(max(row[:3]) for row in results) + 1, []
for column, (ax, title) in enumerate(zip(axes, ("with void borders", "void filled"), strict=True), start=1):
    for k, marker, colour in zip(THINGS, "o^sD", ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True):
        actual, counted = np.array([(row[0], row[column]) for row in results if row[3] == k]).T
        ax.plot(
            actual + rng.uniform(-0.2, 0.2, len(actual)), counted, marker, color=colour, label=CLASSES[k], alpha=0.8
        )
    ax.plot([0, limit], [0, limit], ":", color="black", label="correct count")
    ax.set(xlabel="things (with a small random shift)", title=title, xticks=range(limit + 1), yticks=range(limit + 1))
    few, many = (sum(sign * row[column] > sign * row[0] for row in results) for sign in (-1, 1))
    summary.append(f"{title}: too few components {few} times, too many {many} times")
axes[0].set(ylabel="connected components of the class map")
axes[0].legend(fontsize=9)
show(
    fig,
    alt="Number of connected components against number of things, for four classes in twelve streets. "
    f"{'; '.join(summary)}.",
)

# %% [markdown] name="box_idea"
# ## 5. The box of a mask (3 points)
#
# **Idea.** The box of a mask is the smallest rectangle that contains all its pixels. It follows from the smallest and
# the largest column and row in which the mask has a pixel.
#
# **Formula.** A box is $(x_1, y_1, x_2, y_2)$, in this order, where $x$ counts columns and $y$ counts rows. These
# coordinates are *edges* of pixels: pixel 3 reaches from 3 to 4. Therefore $x_2$ is the last column **plus one**, and
# $x_2 - x_1$ is the width. The same holds for $y$ and the height.
#
# **Worked example.** A mask has pixels at (row 1, column 4), (row 2, column 3) and (row 2, column 5). Its columns run
# from 3 to 5 and its rows from 1 to 2, so its box is $(3, 1, 6, 3)$, which is 3 pixels wide and 2 pixels high. The box
# of an empty mask is defined as $(0, 0, 0, 0)$.


# %% name="mask_to_box" role="solution"
def mask_to_box(mask):
    """Compute the smallest box around a mask.

    mask: bool tensor (H, W)

    Returns four integers [x1, y1, x2, y2], which are edges of pixels: x2 is the index of the last
    column plus one, and y2 is the index of the last row plus one. For an empty mask, returns
    [0, 0, 0, 0].
    """
    ### BEGIN SOLUTION: handle the empty mask; take the smallest and largest row and column of the True pixels
    if not mask.any():
        return [0, 0, 0, 0]
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    ### END SOLUTION


# %% name="check_mask_to_box" role="check"
check(mask_to_box)

# %% [markdown] name="box_figure_text"
# The next figure shows the boxes of all things in the street, computed from their masks. The bars show which fraction
# of its box each object covers. Which objects cover only a small fraction of their box, and why?

# %% name="box_figure" role="show"
from matplotlib.patches import Rectangle

fig, axes = plt.subplots(1, 2, figsize=(8.5, 3), width_ratios=(1.5, 1), layout="constrained")
axes[0].imshow(overlay(scene["image"], scene["masks"]))
fractions = []
for number, mask in enumerate(scene["masks"], start=1):
    x1, y1, x2, y2 = (int(v) for v in use(mask_to_box)(mask))
    axes[0].add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec="white", lw=1.5))
    axes[0].text(x1, y1, number, color="black", ha="center", va="center", bbox={"facecolor": "white", "pad": 1.5})
    fractions.append(float(mask.sum()) / max((x2 - x1) * (y2 - y1), 1))
axes[0].set_axis_off()
names = [f"{n} {CLASSES[k]}" for n, k in enumerate(scene["labels"].tolist(), start=1)]
axes[1].barh(names, fractions, color="#56B4E9", edgecolor="black")
axes[1].set(xlabel="fraction of the box covered by the object", xlim=(0, 1))
axes[1].invert_yaxis()
summary = ", ".join(f"{n} {f:.2f}" for n, f in zip(names, fractions))
show(fig, alt=f"Boxes around the masks of the street, and the fraction of each box that its object covers: {summary}.")

# %% [markdown] name="rle_idea"
# ## 6. Run lengths (4 points)
#
# **Idea.** A mask consists mostly of long runs of equal values. It takes less memory to store only the length of each
# run. This is called run-length encoding (RLE). COCO's annotation files use it for crowds (groups of objects), while
# they store single objects as polygons. COCO's evaluation code uses it for all masks.
#
# **Formula.** Read the mask **down the columns**, first column first. Write the length of the first run of zeros, then
# the length of the run of ones after it, then that of the next run of zeros, and so on. The first count always belongs
# to zeros, so it is 0 if the mask begins with a one. All counts add up to $H \cdot W$.
#
# **Worked example.** The mask $\begin{pmatrix} 0 & 1 & 1 \\ 0 & 1 & 0 \end{pmatrix}$ is read as 0 0, 1 1, 1 0. These
# are two zeros, three ones and one zero, so the counts are [2, 3, 1]. (If you read the mask row by row, you get
# [1, 2, 1, 1, 1], which is wrong.)
#
# Your function does both: it encodes one mask, and it decodes the counts of another mask.


# %% name="rle_roundtrip" role="solution"
def rle_roundtrip(mask, counts, size):
    """Encode one mask as run lengths, and decode the run lengths of another mask.

    mask:   bool tensor (H, W)
    counts: list of integers, the run lengths of another mask; they add up to H2 * W2
    size:   (H2, W2), the size of that other mask

    Returns a tuple of two results: the counts of `mask`, a list of integers, and the mask of `counts`,
    a bool tensor (H2, W2). Both use column-major order. The first count is that of zeros and may be
    0; no other count is 0.
    """
    ### BEGIN SOLUTION: encode: find the changes of value down the columns; decode: repeat False, True in turn
    pixels = mask.T.flatten().numpy()
    edges = [0, *(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1), len(pixels)]
    runs = np.diff(edges).tolist()
    if pixels[0]:
        runs = [0, *runs]
    height, width = size
    values = np.arange(len(counts)) % 2 == 1
    other = np.repeat(values, counts).reshape(width, height).T
    return runs, torch.from_numpy(other.copy())
    ### END SOLUTION


# %% name="check_rle_roundtrip" role="check"
check(rle_roundtrip)

# %% [markdown] name="rle_figure_text"
# How much memory do run lengths save? The next figure shows the number of pixels and the number of counts for discs of
# increasing radius. In each column that the disc covers, the value changes at most twice, so the number of counts
# grows in proportion to the radius. The number of pixels grows with the square of the radius.

# %% name="rle_figure" role="show"
y, x = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
radii, encode = range(4, 97, 8), use(rle_roundtrip)
discs = [(y - 100) ** 2 + (x - 100) ** 2 < r**2 for r in radii]
lengths = [len(encode(disc, [1], (1, 1))[0]) for disc in discs]
fig, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
ax.semilogy(radii, [int(disc.sum()) for disc in discs], "s-", color="#D55E00", label="pixels of the disc")
ax.semilogy(radii, lengths, "o--", color="#0072B2", label="counts of its run-length encoding")
ax.set(xlabel="radius (pixels)", ylabel="number of pixels or counts")
ax.legend()
show(
    fig,
    alt="Number of pixels and number of counts against the radius of a disc, on a logarithmic axis. "
    f"From radius {radii[0]} to {radii[-1]}, the number of counts grows from {lengths[0]} to {lengths[-1]}.",
)

# %% [markdown] name="widget_text"
# ## Explore the five tasks on other streets
#
# Choose a task and a street. Find a street in which two cars merge into one region of the class map. Then find a
# street in which a thing is split into two parts by an object in front of it.

# %% name="tasks_widget" role="widget"
from segedu.teaching.widgets.tasks import explorer

explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# The next cell first shows four images with their outlined objects. They are images of PASCAL VOC if you have stored
# this data set in `data/VOCdevkit`, and synthetic streets otherwise. The cell then measures how fast your `one_hot`
# processes large class maps on the CPU and, if a GPU is available, on the GPU.

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
examples = [samples[i] for i in range(4)]
fig = gallery([s["image"] for s in examples], [s["label_map"] for s in examples], numbers=True)
show(fig, alt=f"Four images of {type(samples).__name__} with outlined and numbered objects.")
make_planes = use(one_hot)


def speed(device, batches):
    """Return the throughput in million pixels per second. Generating the labels is not timed."""
    generator = torch.Generator(device).manual_seed(0)
    pixels, seconds = 0, 0.0
    for _ in tqdm(range(batches), desc=f"one-hot on {device}"):
        target = torch.randint(0, 19, SHAPE, generator=generator, device=device)
        start = time.perf_counter()
        pixels += int(torch.as_tensor(make_planes(target, 19)).sum())  # int() waits for the GPU
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
# **1.** Consider a class map, a label map, a stack of masks and a panoptic map. Which of them can represent
# overlapping objects?
#
# <details><summary>Answer</summary>
#
# Only the stack of masks. The other three have a single value per pixel.
#
# </details>
#
# **2.** Find the error: "PASCAL VOC is for semantic segmentation only, as it has no instances."
#
# <details><summary>Answer</summary>
#
# VOC 2012 also provides SegmentationObject: maps that number the objects in the same images.
#
# </details>
#
# **3.** Find the error: "Cityscapes: 5,000 images with 20,000 annotations of 30 classes."
#
# <details><summary>Answer</summary>
#
# 5,000 images are finely annotated, and another 20,000 images are coarsely annotated. 30 classes are defined, but only
# 19 are scored.
#
# </details>
#
# **4.** A bus divides a road into two separate regions. How many segments of class road does the panoptic map contain?
#
# <details><summary>Answer</summary>
#
# One. All pixels of a stuff class form one segment, however many connected components they have.
#
# </details>
#
# **5.** Your loss treats void pixels as class 0. What does the network learn?
#
# <details><summary>Answer</summary>
#
# It learns to predict class 0 along the outline of every object, because that is where the void pixels are. The metric
# ignores these pixels, so you may not even notice the mistake.
#
# </details>
#
# **6.** The counts of a mask of 3 by 4 pixels are [0, 12]. What are the counts of the inverted mask?
#
# <details><summary>Answer</summary>
#
# [12]. The given mask is full, so the inverted mask is empty: a single run of 12 zeros.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# You now know in which forms a segmentation can be stored. [Lab 4](04_metrics.ipynb) measures how close a prediction
# comes to the ground truth. The arrays of this lab occur again in later labs: one-hot planes in the loss functions,
# boxes of masks in the detectors, run lengths in the evaluation of COCO, and the panoptic encoding in the metric of
# chapter 13.
#
# Submit the notebook as it is. Grading uses new inputs of the same kinds.
#
# Before you hand in this notebook, save it, and run `segedu check labs/01_tasks.ipynb` in a terminal. The command runs
# the notebook as the grader will, and prints your points and the feedback.
