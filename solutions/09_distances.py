# %% [markdown] name="title"
# # Lab 9: Distances and flows
#
# A network that only classifies each pixel as "cell" or "background" merges cells that touch into one region. In this
# lab, the network predicts more for each pixel: its distance to the edge, how far its cell extends in all directions,
# or the direction to the middle of its cell. For each of these representations, you write the function that computes it
# from labelled cells, and the function that recovers single cells from it.
#
# **Time**: 90 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 9](../course/09-distances/index.md), which you can read first or alongside this lab; the
# [watershed](../course/02-clustering/watershed.md) of chapter 2; and lab 4 for the IoU. The mathematics is Euclidean
# distances, sine and cosine, and the gradient of a function of two variables.
#
# Run the cells from top to bottom. Until a function of yours passes its check, later cells use the library's version of
# it, so the notebook always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - explain why a class map cannot be used to count cells, and what a network has to predict instead;
# - compute a signed distance map for cells that touch, and flood it from its peaks;
# - compute StarDist's distances along rays, and select among overlapping polygons;
# - compute Cellpose's flow, and follow it until the pixels of each cell have met;
# - train one small network for each of the three representations, and identify the cells on which each network fails.
#
# The problem that all three methods solve is easy to see. A class map marks the foreground, and the simplest way to
# obtain cells from it is to number its connected components. Two cells that touch are one connected component, so they
# get one number. The next figure shows a synthetic microscope image, its ground-truth cells, and the connected
# components of the same foreground. How many cells are lost?

# %% name="picture" role="show"
from segedu.datasets.cells import draw_cells
from segedu.viz import gallery, show
from skimage.measure import label as connected

scene = draw_cells(12, size=(64, 64), touching=0.9)
label_map = scene["label_map"].long()
components = torch.from_numpy(connected(label_map.numpy() > 0))
titles = ["image", f"{label_map.max()} cells", f"{components.max()} connected components"]
show(
    gallery([scene["image"]] * 3, [None, label_map, components], titles=titles, numbers=True, columns=3, width=2.4),
    alt=f"Bright cells that touch, with {label_map.max()} numbered ground-truth cells, and the "
    f"{components.max()} numbered connected components of the same foreground.",
)

# %% [markdown] name="signed_distance_idea"
# ## 1. The signed distance (3 points)
#
# **Idea.** Assign to each pixel its distance to the edge **of its own cell**. The distance is largest in the middle of
# a cell, so each cell becomes a hill. Where two cells touch, there is a valley between two hills, although both sides
# are foreground. Outside the cells, the distance is negative: -1/2 beside a cell, and lower further away.
#
# **Formula.** The edge lies halfway between two pixels. In cell $c$
#
# $$ d(p) = \min_{q \notin c} \lVert p - q \rVert - \tfrac12, $$
#
# and in the background
#
# $$ d(p) = \tfrac12 - \min_{q \in \text{any cell}} \lVert p - q \rVert . $$
#
# In both formulas $p$ and $q$ are pixels of the image. The border of the image is not an edge, because the image does
# not show how far a cell continues beyond it.
#
# **Worked example.** One row with the cells 3 and 5:
#
# | label | 3 | 3 | 3 | 3 | 0 | 0 | 5 |
# |---|---|---|---|---|---|---|---|
# | distance | 3.5 | 2.5 | 1.5 | 0.5 | -0.5 | -0.5 | 0.5 |
#
# The function `scipy.ndimage.distance_transform_edt(mask)` computes for each pixel of the mask the distance to the
# nearest pixel outside the mask, measured between pixel centres.


# %% name="signed_distance" role="solution"
def signed_distance(label_map):
    """Compute the distance from each pixel centre to the edge of its cell: positive inside cells, negative outside.

    The edge lies halfway between two pixels. Inside a cell the distance is therefore the Euclidean distance to the
    nearest pixel that does not belong to this cell, minus 1/2; that pixel may be background or part of another cell.
    In the background it is minus the distance to the nearest pixel of any cell, plus 1/2. The border of the image is
    not an edge.

    label_map: (H, W) integers: 0 is background, every other label is one cell. The labels may have gaps.

    Returns (H, W) floats, in pixels. Two kinds of images have no edge. In an image without any cell, the distance is
    minus the diagonal of the image, -sqrt(H^2 + W^2). If one cell fills the image, the distance is the diagonal.
    """
    ### BEGIN SOLUTION: compute the distance outside all cells, then the distance inside each cell separately
    from scipy.ndimage import distance_transform_edt

    labels = label_map.numpy()
    cells, diagonal = labels > 0, np.hypot(*labels.shape)
    distance = 0.5 - distance_transform_edt(~cells) if cells.any() else np.full(labels.shape, -diagonal)
    for label in np.unique(labels[cells]):
        inside = labels == label
        depth = np.full(labels.shape, diagonal) if inside.all() else distance_transform_edt(inside) - 0.5
        distance[inside] = depth[inside]
    return torch.from_numpy(distance)
    ### END SOLUTION


# %% name="check_signed_distance" role="check"
check(signed_distance)

# %% [markdown] name="signed_distance_after"
# Why is the distance measured to the edge of the pixel's **own** cell? The left panel shows the map that your function
# computes from the cells. The right panel shows the map for the whole foreground treated as one cell: where cells
# touch, the valley between the hills is missing, so the map no longer contains the line of contact. Black lines mark
# distance 0.

# %% name="signed_distance_figure" role="show"
compute_distance = use(signed_distance)
distance, merged = (torch.as_tensor(compute_distance(m)) for m in (label_map, (label_map > 0).long()))
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, title, panel in zip(axes, ("each cell separately", "the foreground as one cell"), (distance, merged)):
    shown = ax.imshow(panel, cmap="RdBu", vmin=-10, vmax=10)
    ax.contour(panel, levels=[0.0], colors="black", linewidths=1)
    ax.set(title=title, xticks=[], yticks=[])
fig.colorbar(shown, ax=axes, label="signed distance in pixels")
show(fig, alt="Two signed distance maps: hills with valleys between touching cells; the same hills without valleys.")

# %% [markdown] name="watershed_decode_idea"
# ## 2. From distances back to cells (3 points)
#
# **Idea.** Each peak of the map stands for one cell. Turn the map upside down, so that peaks become pits, and flood the
# map from the pits. The border between two cells lies where two floods meet. This is the watershed of chapter 2,
# applied to a map that a network predicts.
#
# **What can go wrong.** A predicted map is never perfectly smooth, so one cell may have several peaks and would be
# split. Therefore, of two peaks that are nearer to each other than `min_distance`, only the higher one is kept. This
# rule applies only within one connected component of the foreground: a small cell that stands alone beside a large one
# is still a cell.
#
# **Worked example.** One row. A peak is a pixel without a higher neighbour; the distances of the two peaks are set in bold.
# The last two rows are the cells for two values of `min_distance`.
#
# | pixel | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
# |---|---|---|---|---|---|---|---|---|
# | distance | 0.5 | 1.5 | **2.5** | 1.2 | 0.5 | **1.5** | 0.5 | -0.5 |
# | `min_distance` 2 | 1 | 1 | 1 | 1 | 2 | 2 | 2 | 0 |
# | `min_distance` 4 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 0 |
#
# The peaks are 3 pixels apart. With `min_distance` 2 both are kept, and with 4 only the higher one. The function
# `skimage.morphology.local_maxima` finds plateaus that are peaks; read in its documentation what `connectivity` means.


# %% name="watershed_decode" role="solution"
def watershed_decode(distance, min_distance):
    """Number the peaks of a distance map and flood the foreground from them.

    1. A pixel is foreground where its distance is above 0.
    2. A plateau is a set of foreground pixels of equal height that are connected by shared edges; a single pixel can be
       a plateau. A peak is a plateau without a higher pixel that shares an edge with it. Its position is its first
       pixel in reading order.
    3. Visit the peaks from the highest to the lowest, equally high ones in reading order. Drop a peak if it is nearer
       than `min_distance` to a peak that was kept before *in the same connected component*: two foreground pixels are
       in one component if a path of foreground pixels, each sharing an edge with the next, connects them. So each
       component has a cell, however small it is.
    4. The positions of the kept peaks are the markers: 1, 2, ... in the order in which they were kept. Flood the
       foreground from them: visit pixels from the highest to the lowest; each passes its label to the foreground pixels
       that share an edge with it and have no label yet. `skimage.segmentation.watershed` floods from low to high, so it
       does this for the negative map: `watershed(-distance, markers, mask=distance > 0)`.

    distance:     (H, W) floats, positive inside cells, as a network predicts them.
    min_distance: Euclidean, in pixels; 0 keeps all peaks.

    Returns (H, W) integers: 0 in the background, else the number of the cell.
    """
    ### BEGIN SOLUTION: find the peaks, keep markers from the highest peak down, and flood the foreground from them
    from scipy import ndimage
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    heights = distance.numpy()
    foreground = heights > 0
    components, _ = ndimage.label(foreground)
    plateaus, count = ndimage.label(local_maxima(heights, connectivity=1) & foreground)
    positions = [np.argwhere(plateaus == number)[0] for number in range(1, count + 1)]
    positions.sort(key=lambda position: (-heights[tuple(position)], *position))
    markers, kept = np.zeros(heights.shape, np.int32), []
    for position in positions:
        others = [other for other in kept if components[tuple(other)] == components[tuple(position)]]
        if all(np.hypot(*(position - other)) >= min_distance for other in others):
            kept.append(position)
            markers[tuple(position)] = len(kept)
    return torch.from_numpy(watershed(-heights, markers, mask=foreground))
    ### END SOLUTION


# %% name="check_watershed_decode" role="check"
check(watershed_decode)

# %% [markdown] name="watershed_decode_after"
# To imitate a predicted map, the next cell adds smooth noise to the ground-truth distances. With `min_distance` 0,
# every small bump becomes a cell. With a large value, small cells are merged with their neighbours.

# %% name="watershed_decode_figure" role="show"
from scipy.ndimage import gaussian_filter

noise = gaussian_filter(np.random.default_rng(0).normal(size=distance.shape), 1.5)
noisy = distance + 0.5 * torch.from_numpy(noise / noise.std())
flood = use(watershed_decode)
decoded = {min_distance: torch.as_tensor(flood(noisy, min_distance)) for min_distance in (0.0, 8.0, 16.0)}
titles = [
    f"ground truth: {label_map.max()} cells",
    *(f"min_distance {min_distance:g}: {m.max()}" for min_distance, m in decoded.items()),
]
show(
    gallery([scene["image"]] * 4, [label_map, *decoded.values()], titles=titles, columns=2, width=3),
    alt="The ground-truth cells, and the cells that the watershed finds in a noisy map. Number of cells with "
    + "; ".join(titles[1:])
    + ".",
)

# %% [markdown] name="star_distances_idea"
# ## 3. How far does the cell extend? (4 points)
#
# **Idea.** StarDist predicts several distances per pixel: one along each of $R$ rays, for example 32. The ends of the
# rays are the corners of a polygon, so **every single pixel describes a whole cell**. This works for cells whose whole
# outline is visible from a pixel in the middle. Such shapes are called star-convex, and most nuclei are star-convex.
#
# **Formula.** Ray $k$ has the angle $2 \pi k / R$ and the direction $(dy, dx) = (\sin, \cos)$ of this angle. Ray 0
# points to the right. Because $y$ grows downwards, the next rays turn towards the bottom of the image. Walk in steps of
# length 1 and round each position to the nearest pixel. Let step number $t$ be the first one that leaves the cell or
# the image, so $t - 1$ is the last one inside. The edge lies half a pixel beyond the position of step $t - 1$, measured
# along the axis that changes faster:
#
# $$ d = t - 1 + \frac{0.5}{\max(|dy|, |dx|)} $$
#
# **Worked example.** The image is the single row `0 7 7 7 7 0`, and the rays start at the second 7. To the right, steps
# 1 and 2 reach a 7 and step 3 reaches a 0, so $d = 3 - 1 + 0.5 = 2.5$. To the left, step 1 reaches a 7 and step 2
# reaches a 0, so $d = 1.5$. The sum is 4, the width of the cell. Upwards and downwards, step 1 leaves the image, so
# $d = 0.5$. On a diagonal $|dy| = |dx| = 0.71$, and half a pixel along one axis is a length of $0.5 / 0.71 = 0.71$
# along the ray.


# %% name="star_distances" role="solution"
def star_distances(label_map, n_rays):
    """Walk from each pixel of a cell along rays until the cell ends.

    Ray k has the angle 2 pi k / n_rays and the direction (dy, dx) = (sin, cos) of it. Ray 0 points to the right. As y
    grows downwards, the next rays turn towards the bottom of the image.

    From pixel (y, x) take steps of length 1: after t steps you are on the pixel (round(y + t dy), round(x + t dx)).
    Stop at the first t = 1, 2, 3, ... whose pixel does not belong to this cell: it is background, part of another cell,
    or outside the image. The edge lies half a pixel beyond the position of step t - 1, along the axis that changes
    faster. The distance is

        t - 1 + 0.5 / max(|dy|, |dx|)

    label_map: (H, W) integers: 0 is background, every other label is one cell.
    n_rays:    R, at least 3. (With the values that checks and grading use, no step ends halfway between two pixels.)

    Returns (R, H, W) floats, in pixels, one plane per ray; 0 in the background.
    """
    ### BEGIN SOLUTION: for each ray, let all pixels walk at once until the last one has left its cell
    height, width = label_map.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distances = torch.zeros(n_rays, height, width, dtype=torch.float64)
    for k in range(n_rays):
        dy, dx = np.sin(2 * np.pi * k / n_rays), np.cos(2 * np.pi * k / n_rays)
        walking, t = label_map > 0, 0
        while walking.any():
            t += 1
            row, column = (y + t * dy).round().long(), (x + t * dx).round().long()
            same = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            same &= label_map[row.clamp(0, height - 1), column.clamp(0, width - 1)] == label_map
            distances[k][walking & ~same] = t - 1 + 0.5 / max(abs(dy), abs(dx))
            walking = walking & same
    return distances
    ### END SOLUTION


# %% name="check_star_distances" role="check"
check(star_distances)

# %% [markdown] name="star_distances_after"
# How well does a single pixel describe its cell? The first panel shows the distances along ray 0 for all cells. The
# other two panels show one cell with the polygons of three of its pixels, with 8 rays and with 32 rays. With 8 rays,
# compare the polygon of the pixel in the middle with those of pixels near the edge: where the corners are far from the
# pixel, long straight sides join them. With 32 rays the polygons differ less.
#
# StarDist therefore also predicts an **object probability** for each pixel. Its target is the distance from the pixel
# to the nearest pixel outside its cell, divided by the largest such distance in the cell. Polygons are ranked by this
# score.


# %% name="corners" role="show"
def corners(distances, points):
    """Corners (N, R, 2) of N polygons: the ends of R rays of lengths `distances` (N, R) from `points` (N, 2)."""
    angles = torch.arange(distances.shape[1]) * (2 * np.pi / distances.shape[1])
    return points[:, None] + distances[:, :, None] * torch.stack([angles.sin(), angles.cos()], dim=-1)


# %% name="star_distances_figure" role="show"
cell = label_map == 4
positions, depths = cell.nonzero(), distance[cell]
chosen = positions[depths.argsort(descending=True)[[0, len(depths) // 2, len(depths) - 3]]]
fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
compute_rays = use(star_distances)
rays = torch.as_tensor(compute_rays(label_map, 32))
axes[0].imshow(rays[0], cmap="cividis")
axes[0].set_title("ray 0: distance to the right")
for ax, n_rays in zip(axes[1:], (8, 32)):
    planes = torch.as_tensor(compute_rays(label_map, n_rays))
    ax.imshow(cell, cmap="Greys", vmax=3)
    for (row, column), colour, line in zip(chosen, ("#0072B2", "#D55E00", "#009E73"), ("-", "--", ":")):
        ends = corners(planes[:, row, column][None], torch.stack([row, column])[None])[0]
        ax.fill(ends[:, 1], ends[:, 0], fill=False, edgecolor=colour, linestyle=line, linewidth=2)
        ax.plot(column, row, "o", color=colour)
    ax.set(
        title=f"polygons of three pixels, {n_rays} rays", xlim=(positions[:, 1].min() - 4, positions[:, 1].max() + 4)
    )
    ax.set_ylim(positions[:, 0].max() + 4, positions[:, 0].min() - 4)
for ax in axes:
    ax.set(xticks=[], yticks=[])
show(
    fig,
    alt="The distance to the right edge for each pixel of each cell; polygons of three pixels of one cell, with 8 rays "
    "and with 32 rays. Polygons of pixels nearer to the middle fit the cell better.",
)

# %% [markdown] name="widget_rays_text"
# ## Change the rays
#
# Change the cell and the number of rays. The plot on the right shows the IoU of polygon and cell for all numbers of
# rays. From which number on does the polygon of the round cell hardly improve? How many rays does the long cell need?
# Then drag the pixel in the left panel, or use the sliders. Does the polygon improve if the pixel is nearer to one end
# of the long cell? Why does no number of rays describe the C-shaped cell, whichever of its pixels you choose?

# %% name="widget_rays" role="widget"
from segedu.teaching.widgets.rays import explorer

explorer()

# %% [markdown] name="polygon_nms_idea"
# ## 4. Many polygons, one cell (4 points)
#
# **Idea.** Hundreds of pixels describe the same cell. Visit their polygons in descending order of object probability.
# Keep a polygon, and suppress all others that overlap it by too much. This is **non-maximum suppression**, or NMS.
# StarDist compares polygons and not bounding boxes, because the bounding boxes of neighbouring oblique cells overlap by
# much even if their polygons do not overlap at all.
#
# **Formula.** The overlap of two polygons is the area of their intersection divided by the area of the **smaller**
# polygon:
#
# $$ o(A, B) = \frac{|A \cap B|}{\min(|A|, |B|)} $$
#
# In contrast to the IoU, the area of the intersection is not divided by the area of the union. A small polygon inside a
# large one is a bad description of the same cell. The overlap of these two polygons is $o = 1$, so the polygon with the
# lower score is suppressed.
#
# **Worked example.** Three polygons, threshold 0.4:
#
# | polygon | score | area | shared with A | shared with B | shared with C |
# |---|---|---|---|---|---|
# | A | 0.8 | 16 | | 6 | 5 |
# | B | 0.9 | 12 | 6 | | 1 |
# | C | 0.7 | 10 | 5 | 1 | |
#
# B has the highest score and is kept. A and B share an area of 6, and B is smaller, so their overlap is 6/12 = 0.5 and
# A is suppressed. C overlaps A by 5/10 = 0.5, but A is suppressed and therefore does not suppress others. C overlaps B
# by 1/10, so C is kept. The result is B, C. (The IoU of A and B is 6/22 = 0.27. If you compared the IoU with the
# threshold, A would be kept.)


# %% name="polygon_nms" role="solution"
def polygon_nms(polygons, scores, shared, overlap_threshold):
    """Visit polygons in descending order of score; keep each that does not overlap a kept one by too much.

    The overlap of two polygons is the area of their intersection divided by the area of the *smaller* of the two, as in
    StarDist: a small polygon inside a large one overlaps it completely. A polygon without area has overlap 0.

    A polygon is suppressed if its overlap with a polygon that was kept before is above `overlap_threshold`. Suppressed
    polygons do not suppress others. Of equal scores the polygon with the lower index comes first.

    polygons: (N, R, 2) floats: the corners (y, x) of each polygon in order, clockwise or anticlockwise. They serve for
              figures only, because `shared` contains all areas.
    scores:   (N,) floats.
    shared:   (N, N) floats: `shared[i, j]` is the area of the intersection of polygons i and j, already computed; so
              `shared[i, i]` is the area of polygon i.
    overlap_threshold: in [0, 1].

    Returns (K,) integers: the indices of the kept polygons, in descending order of score.
    """
    ### BEGIN SOLUTION: in descending order of score, compare each polygon with those kept so far
    areas, kept = shared.diagonal(), []
    for i in scores.argsort(descending=True, stable=True).tolist():
        smaller = torch.minimum(areas[i], areas[kept])
        overlap = torch.where(smaller > 0, shared[i, kept] / smaller, 0.0)
        if not (overlap > overlap_threshold).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)
    ### END SOLUTION


# %% name="check_polygon_nms" role="check"
check(polygon_nms)

# %% [markdown] name="polygon_nms_after"
# The next cell imitates predictions again: the polygon of each pixel is too large or too small, at random. The
# candidates lie on a grid of every second row and every second column, at the pixels whose object probability is above
# one half. A matrix product counts the pixels that two polygons share, whereas the library computes the areas exactly.
# The threshold of the right panel is too low: polygons of touching cells suppress each other.

# %% name="paint" role="show"
from skimage.draw import polygon as fill


def render_polygons(polygons, size):
    """Masks (N, H, W) of N polygons: 1 inside, 0 outside."""
    masks = np.zeros((len(polygons), *size), np.float32)
    for mask, polygon in zip(masks, np.asarray(polygons)):
        mask[fill(polygon[:, 0], polygon[:, 1], size)] = 1
    return torch.from_numpy(masks)


def probability_of(label_map, distance):
    """Object probability: the distance to the nearest pixel outside the cell, divided by its maximum over the cell."""
    largest = torch.zeros(int(label_map.max()) + 1).double()
    largest = largest.scatter_reduce(0, label_map.flatten(), distance.double().flatten() + 0.5, "amax")
    return torch.where(label_map > 0, (distance + 0.5) / largest[label_map].clamp(min=0.5), 0.0)


# %% name="polygon_nms_figure" role="show"
probability = probability_of(label_map, distance)
candidate = torch.zeros_like(label_map, dtype=torch.bool)
candidate[::2, ::2] = probability[::2, ::2] > 0.5
random = torch.Generator().manual_seed(0)
noisy_rays = rays * (
    1 + 0.15 * torch.randn(64, 64, generator=random) + 0.04 * torch.randn(rays.shape, generator=random)
)
polygons, scores = corners(noisy_rays[:, candidate].T, candidate.nonzero()), probability[candidate]
flat = render_polygons(polygons, label_map.shape).flatten(1)
shared = (flat @ flat.T).double()
suppress, panels = use(polygon_nms), {f"{len(polygons)} candidates": range(len(polygons))}
for threshold in (0.4, 0.05):
    kept = suppress(polygons, scores, shared, threshold)
    panels[f"threshold {threshold}: {len(kept)} kept"] = kept
fig, axes = plt.subplots(1, 3, figsize=(10, 3.5), layout="constrained")
for ax, (title, indices) in zip(axes, panels.items()):
    ax.imshow(scene["image"][0], cmap="gray")
    for i in indices:
        ax.fill(polygons[i, :, 1], polygons[i, :, 0], fill=False, edgecolor="#F0E442", linewidth=0.8)
    ax.set(title=title, xticks=[], yticks=[], xlim=(-0.5, 63.5), ylim=(63.5, -0.5))
show(fig, alt="Outlines of polygons on cells: " + "; ".join(panels) + f". There are {label_map.max()} cells.")

# %% [markdown] name="diffusion_flow_idea"
# ## 5. A flow to the middle (3 points)
#
# **Idea.** Cellpose predicts a direction for each pixel, which leads to the middle of its cell. The straight direction
# does not work for a bent cell, whose middle may lie outside the cell. To compute the target, Cellpose therefore
# simulates **heat** that spreads from a pixel in the middle, only within the cell. The target is the direction in which
# the heat increases. A path that follows this direction stays inside the cell, however bent the cell is.
#
# **Formula.** The source is the pixel of the cell that is nearest to the mean position of all its pixels (in the paper,
# nearest to the median). Each diffusion step has two parts: add 1 at the source, then replace each pixel of the cell by
# the mean of its 3x3 neighbourhood. Outside the cell, the heat is always 0. Let $T$ be the heat after the last step.
# The flow is its gradient $g$, normalized to length 1:
#
# $$ \begin{aligned}
#    (dy, dx) &= \frac{g}{\lVert g \rVert}, \\
#    g &= \bigl( T_{y+1,x} - T_{y-1,x},\; T_{y,x+1} - T_{y,x-1} \bigr)
#    \end{aligned} $$
#
# **Worked example.** A cell is a row of four pixels, numbered 0 to 3. Their mean position is 1.5. Pixels 1 and 2 are
# equally near to it, and the first one in reading order counts, so the source is pixel 1. After one step, the heat is
# 1/9, 1/9, 1/9, 0: each mean is taken over nine pixels, most of which are outside the cell. At pixel 0 the gradient is
# 1/9 - 0, so the flow points to the right. At pixel 3 it is 0 - 1/9, so the flow points to the left. At pixel 1 the
# gradient is still 0. After three steps, the heat is 104, 115, 105, 12, each divided by 729. Now the gradient at pixel
# 1 is 1/729, and pixel 1 points to the right too. The reason is that the cell extends further to the right of pixel 1,
# so less heat is lost on that side.


# %% name="diffusion_flow" role="solution"
def diffusion_flow(label_map, steps):
    """Diffuse heat from the centre of each cell; return the direction in which the heat increases.

    For each cell separately:

    1. The source is the pixel of the cell that is nearest to the mean position of all its pixels; of equally near
       pixels, the first in reading order. So the source lies in the cell, even if the mean does not.
    2. The heat is 0 at first. Each of the `steps` steps adds 1 at the source, then replaces each pixel of the cell by
       the mean of its 3x3 neighbourhood (always a sum divided by 9). Outside the cell and beyond the image, heat stays
       0.
    3. The gradient at (y, x) is (heat[y + 1, x] - heat[y - 1, x], heat[y, x + 1] - heat[y, x - 1]), with the heat of
       this cell only. The flow is the gradient divided by its length. It is 0 where the length is below 3e-7, because
       rounding would decide the direction there.

    label_map: (H, W) integers: 0 is background, every other label is one cell. The labels may have gaps.
    steps:     number of diffusion steps.

    Returns (2, H, W) floats, dy before dx: vectors of length 1 or 0 in cells, 0 in the background.
    """
    ### BEGIN SOLUTION: for each cell find the source, diffuse heat, compute its gradient and normalize it to length 1
    flows = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for label in label_map.unique():
        if label == 0:
            continue
        inside = label_map == label
        positions = inside.nonzero()
        offsets = positions - positions.double().mean(dim=0)
        y, x = positions[(offsets**2).sum(dim=1).argmin()]
        heat = torch.zeros(1, *label_map.shape, dtype=torch.float64)
        for _ in range(steps):
            heat[0, y, x] += 1
            heat = torch.nn.functional.avg_pool2d(heat, 3, stride=1, padding=1) * inside
        padded = torch.nn.functional.pad(heat[0], (1, 1, 1, 1))
        gradient = torch.stack([padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]])
        length = gradient.norm(dim=0)
        valid = inside & (length >= 3e-7)
        flows[:, valid] = gradient[:, valid] / length[valid]
    return flows
    ### END SOLUTION


# %% name="check_diffusion_flow" role="check"
check(diffusion_flow)

# %% [markdown] name="diffusion_flow_after"
# The figure shows a bent cell beside a round one. On the left is your flow, which runs along the bend. On the right,
# each arrow points straight to the mean position of its cell's pixels, which is marked by a cross. The mean of the bent
# cell lies outside this cell, so pixels at the tips of the cell would leave it.

# %% name="diffusion_flow_figure" role="show"
y, x = torch.meshgrid(torch.arange(44.0), torch.arange(60.0), indexing="ij")
bent = ((torch.hypot(y - 22, x - 22) - 14).abs() < 5) & (torch.atan2(y - 22, x - 22).abs() < 2.3)
pair = torch.where(torch.hypot(y - 22, x - 50) < 9.2, 2, bent.long())  # they touch
flow = torch.as_tensor(use(diffusion_flow)(pair, 200))
means = torch.stack([(pair == number).nonzero().double().mean(dim=0) for number in (1, 2)])
straight = torch.where(pair > 0, means[pair.clamp(min=1) - 1].movedim(-1, 0) - torch.stack([y, x]), 0.0)
straight = straight / straight.norm(dim=0).clamp(min=1e-9)
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for ax, title, field in zip(axes, ("direction of increasing heat", "straight to the mean (cross)"), (flow, straight)):
    ax.imshow(pair, cmap="Greys", vmax=6)
    rows, columns = (pair > 0).nonzero()[::3].T
    ax.quiver(columns, rows, field[1, rows, columns], field[0, rows, columns], angles="xy", scale=35, color="#0072B2")
    ax.set(title=title, xticks=[], yticks=[])
axes[1].plot(means[:, 1], means[:, 0], "x", color="#D55E00", markersize=12, markeredgewidth=3)
show(
    fig,
    alt="Left: arrows that run along a bent cell to its middle. Right: arrows that point straight to the mean, across "
    "the gap, because the mean of the bent cell lies outside it.",
)

# %% [markdown] name="follow_flows_idea"
# ## 6. Follow the flow (3 points)
#
# **Idea.** Put a particle on each foreground pixel and let it drift along the flow. All particles of one cell meet, and
# the particles of a neighbouring cell meet elsewhere. **Pixels whose particles end together therefore form one cell.**
# The line of contact between two cells does not need to be predicted: it lies where neighbouring particles drift apart.
#
# **Formula.** This is Euler's method, with the flow at the *current* position of the particle:
#
# $$ p_{t+1} = p_t + f(p_t) $$
#
# After the first step, particles lie between pixels, so $f$ is interpolated bilinearly. In the background the flow
# counts as 0, and particles cannot leave the image. After the last step, two particles that are at most 1 pixel apart
# belong to one cell, and so do all particles that a chain of such pairs connects. (Cellpose's own code instead finds
# peaks in a histogram of the final positions; see [the chapter's page](../course/09-distances/cellpose.md).)
#
# **Worked example.** A row has the flow 1, 0.5, 0 at the positions 0, 1, 2. A particle starts at 1 and moves by 0.5 to
# 1.5. There, the interpolated flow is half of 0.5 plus half of 0, which is 0.25. The particle moves to 1.75, and then
# to 1.875. Never round positions between steps: 1.5 would be rounded to 2 or back to 1.


# %% name="follow_flows" role="solution"
def follow_flows(flows, foreground, steps):
    """Let each foreground pixel drift along the flow; pixels whose final positions are close form one cell.

    Final positions: each foreground pixel is a particle that starts at its own position; the P particles are in reading
    order. Each step moves a particle by the flow at its current position, which is interpolated bilinearly between
    pixels. In the background the flow counts as 0, whatever `flows` contains there. A particle that would leave the
    image stays on its border: y in [0, H - 1] and x in [0, W - 1].

    Cells: two particles belong to the same cell if their final positions are at most 1 pixel apart (Euclidean), or if a
    chain of such pairs connects them: if a belongs with b, and b with c, then a belongs with c. Cells are numbered
    1, 2, ... in the reading order of their first pixels.

    flows:      (2, H, W) floats, dy before dx, in pixels per step.
    foreground: (H, W) bool.
    steps:      number of steps; 0 leaves the particles where they are.

    Returns ends, (P, 2) floats, the final positions, y before x; and label_map, (H, W) integers: 0 in the background,
    else the number of the cell.
    """
    ### BEGIN SOLUTION: move all particles step by step, then group those whose final positions are close
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    height, width = foreground.shape
    field = torch.where(foreground, flows.double(), 0.0)
    ends = foreground.nonzero().double()
    for _ in range(steps):
        y, x = ends.T
        top, left = y.floor().long(), x.floor().long()
        bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
        v, u = y - top, x - left
        flow = field[:, top, left] * (1 - v) * (1 - u) + field[:, top, right] * (1 - v) * u
        flow = flow + field[:, bottom, left] * v * (1 - u) + field[:, bottom, right] * v * u
        ends = torch.stack([(y + flow[0]).clamp(0, height - 1), (x + flow[1]).clamp(0, width - 1)], dim=1)
    pairs = cKDTree(ends.numpy()).query_pairs(1.0, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(ends), len(ends)))
    label_map = torch.zeros(height, width, dtype=torch.int64)
    label_map[foreground] = torch.from_numpy(connected_components(graph, directed=False)[1]).long() + 1
    return ends, label_map
    ### END SOLUTION


# %% name="check_follow_flows" role="check"
check(follow_flows)

# %% [markdown] name="follow_flows_after"
# The figure follows the particles of the two cells of the figure above. Each combination of colour and marker is one
# group of particles. At first, every particle is within 1 pixel of a neighbour, so a single chain connects all of them.
# The groups are correct once the particles of each cell have met.

# %% name="follow_flows_figure" role="show"
follow = use(follow_flows)
fig, axes = plt.subplots(2, 2, figsize=(7.5, 5.8), layout="constrained")
for ax, steps in zip(axes.flat, (0, 5, 15, 60)):
    ends, groups = (torch.as_tensor(part) for part in follow(flow, pair > 0, steps))
    group_numbers = groups[pair > 0]
    ax.imshow(pair, cmap="Greys", vmax=6)
    for number in group_numbers.unique():
        row, column = ends[group_numbers == number].T
        colour, marker = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")[number % 4], "osD^v"[number % 5]
        ax.scatter(column, row, s=9 if steps < 60 else 60, marker=marker, color=colour)
    ax.set(title=f"{steps} steps: {groups.max()} group" + "s" * (groups.max() > 1), xticks=[], yticks=[])
show(
    fig,
    alt="Particles of a bent and a round cell after 0, 5, 15 and 60 steps. In the end they are at two positions.",
)

# %% [markdown] name="widget_flows_text"
# ## Change the number of steps
#
# The explorer shows the same process for other scenes. Its particles start at all pixels of the cells, and the plot
# shows at how many different positions they are after each number of steps. Drag the pixel in the first panel to follow
# the path of a single particle. How many steps does the bent cell need until all its particles are at one position? How
# many do the round cells need until the number of positions no longer changes? (It can stay larger than the number of
# cells: then the particles of one cell end at two neighbouring positions. This is why the grouping has to tolerate
# small distances.) Which cells would you get after too few steps?

# %% name="widget_flows" role="widget"
from segedu.teaching.widgets.flows import explorer

explorer()

# %% [markdown] name="gallery_text"
# ## One cell, five representations
#
# The figure shows the training targets of the methods in this chapter, for one cell and its neighbours. Two of the
# methods have no exercise in this lab. **Omnipose** predicts a smooth distance to the edge, and the flow that follows
# the gradient of this distance, so it does not need the middle of a cell. **DenoiSeg** predicts three classes, with a
# border class between cells, and learns to remove noise at the same time.

# %% name="gallery" role="show"
from segedu.teaching.exercises.lab09_distances.targets import heat
from segedu.instance.denoiseg import three_classes
from segedu.instance.omnipose import eikonal_distance, field_flow

eikonal = eikonal_distance(label_map)
flow = torch.as_tensor(use(diffusion_flow)(label_map, 80))
panels = {
    "image": scene["image"][0],
    "signed distance": distance,
    "StarDist: object probability": probability,
    "StarDist: ray 0 of 32": rays[0],
    "Cellpose: heat (logarithm)": (heat(label_map) + 1e-6).log10(),
    "Cellpose: flow": flow,
    "Omnipose: distance": eikonal,
    "Omnipose: flow": field_flow(eikonal, label_map),
    "DenoiSeg: three classes": three_classes(label_map),
}
(top, left), (bottom, right) = (positions.amin(dim=0) - 6).tolist(), (positions.amax(dim=0) + 7).tolist()
fig, axes = plt.subplots(3, 3, figsize=(6.8, 8.6), layout="constrained")
for ax, (title, panel) in zip(axes.flat, panels.items()):
    for number in range(1, int(label_map.max()) + 1):
        ax.contour(label_map == number, levels=[0.5], colors="#D55E00", linewidths=1)
    if panel.ndim == 2:
        ax.imshow(
            panel[top:bottom, left:right], cmap="cividis", extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5)
        )
    else:
        rows, columns = (label_map > 0).nonzero().T
        dy, dx = panel[:, rows, columns]
        ax.quiver(columns, rows, dx, dy, angles="xy", scale_units="xy", scale=1.1, pivot="mid", width=0.009)
    ax.set(title=title, xticks=[], yticks=[], xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5), aspect=1)
show(fig, alt="Nine maps of one cell and its neighbours, with outlines in orange: " + ", ".join(panels) + ".")

# %% [markdown] name="decoders_text"
# ## Three decoders
#
# Later in this lab, each of three networks predicts one or more maps per image. A decoder turns these maps into cells.
# The three decoders below consist of your functions and a few lines of glue. Read them before you continue.

# %% name="decoders" role="train"
flood, suppress, follow = use(watershed_decode), use(polygon_nms), use(follow_flows)


def without_small(label_map, least=15):
    """Remove cells of fewer pixels than `least`."""
    label_map = torch.as_tensor(label_map).long()
    return torch.where(torch.bincount(label_map.flatten())[label_map] < least, 0, label_map)


def from_distance(maps):
    """One map: the signed distance in units of 8 pixels, smoothed slightly because a rough map has many small peaks."""
    smooth = torch.nn.functional.avg_pool2d(8 * maps.double(), 3, stride=1, padding=1, count_include_pad=False)
    return without_small(flood(smooth[0], 6.0))


def from_stars(maps):
    """1 + R maps: a logit of the object probability, and distances along R rays; candidates on a grid of 2 x 2."""
    score, distances = maps[0].sigmoid(), maps[1:].clamp(min=0.5)
    candidate = torch.zeros(score.shape, dtype=torch.bool)
    candidate[::2, ::2] = score[::2, ::2] > 0.5
    polygons, scores = corners(distances[:, candidate].T, candidate.nonzero()), score[candidate]
    masks = render_polygons(polygons, score.shape)
    shared = masks.flatten(1) @ masks.flatten(1).T
    label_map = torch.zeros(score.shape, dtype=torch.int64)
    for number, i in reversed(list(enumerate(suppress(polygons, scores, shared, 0.4), 1))):
        label_map[masks[i] > 0] = number  # the highest score last, so that no other polygon covers it
    return without_small(label_map)


def from_flows(maps, steps=80):
    """Three maps: dy and dx, both times five, and a logit of the foreground."""
    return without_small(follow(maps[:2].double() / 5, maps[2] > 0, steps)[1])


# %% [markdown] name="perfect_text"
# ## What if the network were perfect?
#
# Before we train a network, we replace it by perfect predictions: the targets of a ground-truth label map go straight
# into the decoders. Whatever is lost now is lost by the representation or by the decoder, and no training can recover
# it. The upper row of the figure shows cells, the lower row long bent bacteria.
#
# The score counts objects. A prediction is a true positive (TP) if its IoU with a ground-truth cell is at least a
# threshold, here 0.5 or 0.75. The accuracy is TP / (TP + FP + FN), where FP counts predictions without a matching cell
# and FN counts missed cells. Papers on cells call this score AP, and AP50 at the threshold 0.5, although it is not an
# area under a curve. The library calls it `instance_accuracy`.

# %% name="perfect" role="train"
from segedu.datasets.bacteria import draw_bacteria
from segedu.metrics.instance import instance_accuracy


compute_distance, compute_rays, compute_flow = use(signed_distance), use(star_distances), use(diffusion_flow)


def perfect_maps(label_map):
    """The maps that perfect networks would predict, for the three decoders in turn."""
    distance, inside = torch.as_tensor(compute_distance(label_map)), label_map > 0
    probability = probability_of(label_map, distance)
    rays, flows = torch.as_tensor(compute_rays(label_map, 32)), torch.as_tensor(compute_flow(label_map, 250))
    stars = torch.cat([torch.logit(probability, eps=1e-6)[None], rays])
    return distance[None] / 8, stars, torch.cat([5 * flows, inside[None].double() - 0.5])


bacteria = draw_bacteria(5, (96, 96), rod_length=(30, 100))
pictures, maps, titles = [], [], []
for dataset, sample in (("cells", scene), ("bacteria", bacteria)):
    ground_truth = sample["label_map"].long()
    decoders = zip(("distance", "stars", "flows"), (from_distance, from_stars, from_flows), perfect_maps(ground_truth))
    decoded = {
        name: decode(predicted) if name != "flows" else decode(predicted, 250) for name, decode, predicted in decoders
    }
    for name, cells in decoded.items():
        scores = [instance_accuracy(cells, ground_truth, threshold) for threshold in (0.5, 0.75)]
        print(f"{dataset:<9} {name:<9} accuracy {scores[0]:.2f} at IoU 0.5, {scores[1]:.2f} at IoU 0.75")
        titles.append(f"{name}: {scores[1]:.2f}")
    titles.insert(-3, f"{dataset}, ground truth")
    pictures += [sample["image"]] * 4
    maps += [ground_truth, *decoded.values()]

# %% name="perfect_figure" role="train"
show(
    gallery(pictures, maps, titles=titles, columns=4, width=2.3),
    alt="Cells and bacteria: the ground truth, and the cells decoded from each representation, with their "
    "accuracy at IoU 0.75: " + ", ".join(titles) + ".",
)

# %% [markdown] name="perfect_after"
# All three representations preserve round cells. A long bent bacterium has no pixel from which its whole outline is
# visible, so a star polygon covers only a part of the bacterium. The distance map of the bacterium has a ridge with
# many small peaks, and your watershed splits the bacterium there.
# [The library's decoder](../course/09-distances/signed-distance.md#back-to-cells) first levels hills that are less than
# 1 high. Heat follows the bend, so the flow recovers the whole bacterium.

# %% [markdown] name="train_text"
# ## One network, three targets
#
# Now you train three networks. They have the same small U-Net, the same images and the same number of iterations. Only
# the target differs, and with it the output channels and the loss. Each of the three is a small version of a published
# method: `distance` regresses the signed distance, `stars` is a mini-StarDist, and `flows` is a mini-Cellpose.
#
# The library's compiled loops compute the targets here, because there are many images. They compute the same values as
# your functions.
#
# On a CPU the images are synthetic. On a GPU they are microscope images with nuclei of cells, of the 2018 Data Science
# Bowl ([BBBC038](https://bbbc.broadinstitute.org/BBBC038), CC0), in grey and with bright nuclei. The cell downloads
# them once (83 MB), and prints licence and citation. If the folder that `SEGEDU_DATA` names contains `nuclei_grouped`,
# it is used instead. Without an internet connection, the images are synthetic, and larger than on a CPU.

# %% name="train_parts" role="train"
from segedu.datasets.cells import Cells
from segedu.datasets.real_folder import real_folder
from segedu.recipes.real_samples import nuclei
from segedu.teaching.exercises.lab09_distances.targets import all_targets
from segedu.training import train_steps
from tqdm.auto import tqdm

F = torch.nn.functional


def get_data(length, seed, size, n_rays):
    """Images (B, 1, H, W) of mean about 0 and standard deviation about 1, their targets and label maps."""
    if folder:
        samples = nuclei(folder, seed == 1, (size, size), length)
    else:
        samples = list(tqdm(Cells(length, seed, (size, size)), "images", unit="image"))
    targets = [all_targets(sample["label_map"], n_rays) for sample in tqdm(samples, "targets", unit="image")]
    images = torch.stack([sample["image"][:1] for sample in samples])
    stacked = {name: torch.stack([target[name] for target in targets]) for name in targets[0]}
    return (images - 0.3) / 0.2, stacked, [sample["label_map"] for sample in samples]


def distance_loss(maps, target):
    """Mean absolute error to tanh(distance / 8): flat far from edges, where the distance matters little."""
    return F.l1_loss(maps[:, 0], torch.tanh(target["distance"] / 8))


def star_loss(maps, target):
    """Cross-entropy of the object probability, and absolute errors of the rays, weighted by the object probability."""
    weight = target["probability"][:, None]
    errors = ((maps[:, 1:] - target["rays"]).abs() * weight).mean(dim=1).sum() / weight.sum()
    return F.binary_cross_entropy_with_logits(maps[:, 0], target["probability"]) + errors


def flow_loss(maps, target):
    """Half the mean squared error to five times the flow, as in Cellpose, and cross-entropy of the foreground."""
    foreground = F.binary_cross_entropy_with_logits(maps[:, 2], target["inside"])
    return F.mse_loss(maps[:, :2], 5 * target["flows"]) / 2 + foreground


# %% name="train" role="train"
from segedu.backbones.stardist_unet import StarDistUNet
from segedu.metrics.instance import InstanceMetrics

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
folder = real_folder("nuclei_grouped") if SCALE == "gpu" else None
scales = {"cpu": (64, 192, 48, 8, 200, 16), "gpu": (256, 128, 24, 32, 1000, 32)}
size, length, new, width, steps, n_rays = scales[SCALE] if not folder else (256, 400, 48, 32, 1200, 32)
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # more threads do not speed up such a small network
images, targets, _ = get_data(length, 0, size, n_rays)
new_images, _, ground_truths = get_data(new, 1, size, n_rays)
plans = {"distance": (1, distance_loss, from_distance), "stars": (1 + n_rays, star_loss, from_stars)}
plans["flows"] = (3, flow_loss, from_flows)
decoded, scores = {}, {}
for name, (channels, loss_function, decode) in plans.items():
    torch.manual_seed(0)
    backbone = StarDistUNet(1, width, depth=2, grid=(1, 1), batch_norm=True)
    head = torch.nn.Conv2d(width, 4 * width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4 * width, channels, 1)
    net = torch.nn.Sequential(backbone, *head).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps, pct_start=0.1)
    batches = torch.randint(len(images), (steps, 8), generator=torch.Generator().manual_seed(0))
    loader = ((images[batch], {key: value[batch] for key, value in targets.items()}) for batch in batches)
    bar = tqdm(train_steps(net, loader, loss_function, optimizer, scheduler=schedule, clip_norm=1.0), name, steps)
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")
    net.eval()
    with torch.no_grad():
        decoded[name] = [decode(net(image[None].to(device))[0].cpu()) for image in tqdm(new_images, "decode")]
    metrics = InstanceMetrics([0.5, 0.75])
    for cells, ground_truth in zip(decoded[name], ground_truths):
        metrics.update(cells, ground_truth)
    scores[name] = metrics.compute()["accuracy"].tolist()
    print(f"{name}: accuracy {scores[name][0]:.3f} at IoU 0.5 on {len(new_images)} new images, scale {SCALE}")

# %% [markdown] name="train_after"
# The first row of the table needs no training. It is a classical pipeline: smooth the image with a Gaussian, apply
# Otsu's threshold, compute the distance to the background, and flood it from its peaks.
#
# Compare the two columns. Which network loses most between IoU 0.5 and 0.75? Look at the outlines in the figure and
# explain why. (On real images we have run these cells only on a CPU, for a few iterations.)

# %% name="train_table" role="train"
from segedu.recipes.baselines import OtsuWatershed

baseline = InstanceMetrics([0.5, 0.75])
for image, ground_truth in zip(new_images, ground_truths):
    baseline.update(OtsuWatershed()((0.2 * image + 0.3).expand(1, 3, -1, -1))[0], ground_truth)
rows = {"Gaussian, Otsu, watershed": baseline.compute()["accuracy"].tolist(), **scores}
print(f"{'accuracy at IoU':<28}{'0.5':>6}{'0.75':>7}")
for name, (at_50, at_75) in rows.items():
    print(f"{name:<28}{at_50:>6.2f}{at_75:>7.2f}")

# %% name="train_figure" role="train"
shown = [0, 1]
pictures, maps, titles = [], [], []
for i in shown:
    pictures += [0.2 * new_images[i] + 0.3] * 4
    maps += [ground_truths[i], *(decoded[name][i] for name in plans)]
    titles += ["ground truth", *plans]
show(
    gallery([picture.clamp(0, 1) for picture in pictures], maps, titles=titles, columns=4, width=2.3),
    alt="Two new images of cells with the ground truth, and the cells that the three networks predict.",
)

# %% [markdown] name="failures_text"
# ## Where each network fails
#
# For each network, the figure shows the new image with the lowest accuracy. Look at cells that touch, and at cells that
# the border of the image cuts off. Which cells are merged? Which cells are split, and which are missed? Do all three
# networks fail on the same cells?

# %% name="failures" role="train"
pictures, maps, titles = [], [], []
for name in plans:
    accuracies = [instance_accuracy(cells, ground_truth) for cells, ground_truth in zip(decoded[name], ground_truths)]
    i = min(range(len(accuracies)), key=accuracies.__getitem__)
    pictures += [(0.2 * new_images[i] + 0.3).clamp(0, 1)] * 3
    maps += [None, ground_truths[i], decoded[name][i]]
    titles += [f"image {i}", f"ground truth: {ground_truths[i].max()} cells", f"{name}: accuracy {accuracies[i]:.2f}"]
show(
    gallery(pictures, maps, titles=titles, numbers=True, columns=3, width=2.4),
    alt="For each network, the new image with the lowest accuracy, its ground truth, and the predicted cells: "
    + ", ".join(titles[2::3])
    + ".",
)

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** A colleague computes one distance transform of the whole foreground and says: "The watershed will find the
# border between touching cells anyway." When is this true?
#
# <details><summary>Answer</summary>
#
# It is true if the foreground has a neck between the cells. At a neck the distance is smaller than in the middle of
# both cells. Cells that touch along a long side have no neck, and their distances form a single hill.
#
# </details>
#
# **2.** Why does StarDist's NMS divide by the smaller area and not by the union?
#
# <details><summary>Answer</summary>
#
# The polygon of a pixel near the edge is often a small polygon inside the correct one. Its IoU with the correct polygon
# may be low, so it would be kept as a second cell. Its overlap relative to the smaller area is 1, so it is suppressed.
#
# </details>
#
# **3.** Find the error: "With enough rays, StarDist describes every shape."
#
# <details><summary>Answer</summary>
#
# A ray stops at the first edge. From the pixel, the part of a cell that lies around a bend is not visible, however many
# rays there are. The shape has to be star-convex.
#
# </details>
#
# **4.** Why does Cellpose not let pixels flow straight to the mean of their cell?
#
# <details><summary>Answer</summary>
#
# The mean of a bent cell may lie outside the cell, or even in another cell. The straight path then leaves the cell, and
# the network cannot infer its direction from the surroundings of the pixel. Heat spreads only inside the cell.
#
# </details>
#
# **5.** All vectors of a flow have length 1. What would be lost if a network predicted the gradient of the heat itself?
#
# <details><summary>Answer</summary>
#
# Far from the source the gradient is tiny. An error there would hardly change the loss, and pixels at the tips of a
# cell would hardly move. Decoding needs only the direction.
#
# </details>
#
# **6.** The network predicts a wrong vector at a background pixel, and this vector points into a cell. What happens?
#
# <details><summary>Answer</summary>
#
# Nothing happens. Only foreground pixels are particles, and in the background the flow counts as 0. A pixel that is
# wrongly predicted as foreground, however, would drift along the flow and become part of that cell.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 9](../course/09-distances/index.md) cover Omnipose and DenoiSeg, the published networks, and a
#   page that helps you choose a method.
# - Replace `Cells` by `Bacteria` (from `segedu.datasets.bacteria`) in `get_data`. Which network loses most accuracy?
# - Train `stars` with 8 rays, and with 4. What does the accuracy at IoU 0.75 show that the accuracy at 0.5 does not?
# - In chapter 10, the network predicts two other quantities for each pixel: the offset to the centre of its object, and
#   how large a region around this centre belongs to the object.
#
# Before you hand in this notebook, save it, and run `segedu check labs/09_distances.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
