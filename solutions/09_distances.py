# %% [markdown] name="title"
# # Lab 9: Distances and flows
#
# A net that says "cell" or "background" melts cells that touch into one. In this lab each pixel says more: how far
# it is from the edge, how far its cell reaches in all directions, or which way its cell's middle is. From each of
# these numbers you build the way back to single cells.
#
# **Time**: 90 minutes. **Points**: 20, in six exercises. Read [chapter 9](../course/09-distances/index.md) first, or
# beside this lab.
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - say why a map of classes cannot count cells, and what a pixel must say instead;
# - compute a signed distance map for cells that touch, and flood it from its tops;
# - compute StarDist's distances along rays, and choose among polygons that overlap;
# - compute Cellpose's flow, and follow it until the pixels of a cell have met;
# - train one small net for each of the three, and find the cells on which each of them fails.
#
# Below, a drawn microscope image. Every true cell has a number on the left. On the right we took the same foreground and
# gave each connected piece a number. How many cells are lost?

# %% name="picture" role="show"
from segedu.datasets.cells import draw_cells
from segedu.viz import gallery, show
from skimage.measure import label as connected

scene = draw_cells(12, size=(64, 64), touching=0.9)
label_map = scene["label_map"].long()
pieces = torch.from_numpy(connected(label_map.numpy() > 0))
titles = ["image", f"{label_map.max()} cells", f"{pieces.max()} connected pieces"]
show(
    gallery([scene["image"]] * 3, [None, label_map, pieces], titles=titles, numbers=True, columns=3, width=3),
    alt=f"Bright cells that touch: {label_map.max()} numbered cells, of which a map of classes keeps {pieces.max()}.",
)

# %% [markdown] name="signed_distance_idea"
# ## 1. The signed distance (3 points)
#
# **Idea.** Let each pixel say how far it is from the edge **of its own cell**. In the middle of a cell this is a hill. Where
# two cells touch there is a valley between two hills, although all of it is foreground. Outside, count down: -1/2, -3/2, ...
#
# **Formula.** The edge lies half-way between two pixels. In cell $c$
#
# $$ d(p) = \min_{q \notin c} \lVert p - q \rVert - \tfrac12, $$
#
# and in the background
#
# $$ d(p) = \tfrac12 - \min_{q \in \text{any cell}} \lVert p - q \rVert . $$
#
# The border of the image is no edge: nobody knows how far a cell goes on there.
#
# **By hand.** One row, cells 3 and 5:
#
# | label | 3 | 3 | 3 | 3 | 0 | 0 | 5 |
# |---|---|---|---|---|---|---|---|
# | distance | 3.5 | 2.5 | 1.5 | 0.5 | -0.5 | -0.5 | 0.5 |
#
# `scipy.ndimage.distance_transform_edt(mask)` gives, for each pixel of the mask, the distance to the nearest pixel outside
# of it, from centre to centre.


# %% name="signed_distance" role="solution"
def signed_distance(label_map):
    """Measure how far the centre of each pixel is from the edge of its cell: above 0 inside cells, below 0 outside.

    The edge lies half-way between two pixels. So in a cell the distance is the Euclidean distance to the nearest pixel
    that is not of this cell, minus 1/2; that pixel may be background or of another cell. In the background it is minus
    the distance to the nearest pixel of any cell, plus 1/2. The border of the image is no edge.

    label_map: (H, W) integers: 0 is background, every other number is one cell. Numbers may have gaps.

    Returns (H, W) floats, in pixels. Where there is no such nearest pixel, there is no edge: without any cell the
    distance is minus the diagonal of the image, sqrt(H^2 + W^2), and where one cell fills the image it is the diagonal.
    """
    ### BEGIN SOLUTION: the distance outside of all cells, then cell by cell the distance inside
    from scipy.ndimage import distance_transform_edt

    labels = label_map.numpy()
    cells, diagonal = labels > 0, np.hypot(*labels.shape)
    distance = 0.5 - distance_transform_edt(~cells) if cells.any() else np.full(labels.shape, -diagonal)
    for number in np.unique(labels[cells]):
        inside = labels == number
        depth = np.full(labels.shape, diagonal) if inside.all() else distance_transform_edt(inside) - 0.5
        distance[inside] = depth[inside]
    return torch.from_numpy(distance)
    ### END SOLUTION


# %% name="check_signed_distance" role="check"
check(signed_distance)

# %% [markdown] name="signed_distance_after"
# Why "of its own cell"? Left, your distance of the label map. Right, your distance of the whole foreground taken as one
# cell: where cells touch, the valley is gone, and with it the border.

# %% name="signed_distance_figure" role="show"
measure = use(signed_distance)
distance, melted = (torch.as_tensor(measure(m)) for m in (label_map, (label_map > 0).long()))
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, title, panel in zip(axes, ("each cell by itself", "the foreground as one cell"), (distance, melted)):
    shown = ax.imshow(panel, cmap="RdBu", vmin=-10, vmax=10)
    ax.contour(panel, levels=[0.0], colors="black", linewidths=1)
    ax.set(title=title, xticks=[], yticks=[])
fig.colorbar(shown, ax=axes, label="signed distance in pixels")
show(fig, alt="Two maps of distances: hills with valleys between cells that touch, and the same hills melted together.")

# %% [markdown] name="watershed_decode_idea"
# ## 2. From distances back to cells (3 points)
#
# **Idea.** Each top of the map is a cell. Turn the map upside down, so that tops become pits, and let water rise from each
# pit. Where two waters meet is the border. This is the watershed of chapter 2, on a map that a net has drawn.
#
# **What goes wrong.** A net's map is never smooth: one cell gets several tops, and would be cut into pieces. So tops that are
# nearer to each other than `min_distance` count once, and the highest one stays. But only in one connected piece of the
# foreground: a small cell that stands alone beside a large one is a cell.
#
# **By hand.** One row; a top is a pixel with no higher neighbour.
#
# | distance | 0.5 | 1.5 | **2.5** | 1.2 | 0.5 | **1.5** | 0.5 | -0.5 |
# |---|---|---|---|---|---|---|---|---|
# | `min_distance` 2 | 1 | 1 | 1 | 1 | 2 | 2 | 2 | 0 |
# | `min_distance` 4 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 0 |
#
# The tops are 3 pixels apart: with 2 both stay, with 4 only the higher one. `skimage.morphology.local_maxima` finds
# plateaus that are tops; see what its `connectivity` means.


# %% name="watershed_decode" role="solution"
def watershed_decode(distance, min_distance):
    """Give each top of a distance map a number, and let water run down from there over the inside.

    1. A pixel is inside where its distance is above 0.
    2. A top is a plateau inside: pixels of one height that share edges (one pixel alone is a plateau too), where no
       pixel that shares an edge with it is higher. Its place is its first pixel in reading order.
    3. Take tops from the highest down, of equal ones the first in reading order. Leave a top out if it is nearer than
       `min_distance` to one that was taken before *in the same piece*: two pixels of the inside are in one piece if a
       way inside, over shared edges, leads from one to the other. So each piece has a cell, however small it is.
    4. The places of the tops that are taken are the seeds: 1, 2, ... in the order in which they were taken. Water
       runs from them: pixels have their turn from the highest down, and each hands its number to those inside that
       share an edge with it and have none yet. `skimage.segmentation.watershed` does this for heights upside down:
       `watershed(-distance, seeds, mask=distance > 0)`.

    distance:     (H, W) floats, above 0 inside of cells, as a network predicts them.
    min_distance: pixels, Euclidean; 0 keeps all tops.

    Returns (H, W) integers: 0 outside, else the number of the cell.
    """
    ### BEGIN SOLUTION: find the tops, take them from the highest down, let water run from them
    from scipy import ndimage
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    heights = distance.numpy()
    inside = heights > 0
    pieces, _ = ndimage.label(inside)
    plateaus, count = ndimage.label(local_maxima(heights, connectivity=1) & inside)
    places = [np.argwhere(plateaus == number)[0] for number in range(1, count + 1)]
    places.sort(key=lambda place: (-heights[tuple(place)], *place))
    seeds, taken = np.zeros(heights.shape, np.int32), []
    for place in places:
        rivals = [other for other in taken if pieces[tuple(other)] == pieces[tuple(place)]]
        if all(np.hypot(*(place - other)) >= min_distance for other in rivals):
            taken.append(place)
            seeds[tuple(place)] = len(taken)
    return torch.from_numpy(watershed(-heights, seeds, mask=inside))
    ### END SOLUTION


# %% name="check_watershed_decode" role="check"
check(watershed_decode)

# %% [markdown] name="watershed_decode_after"
# Let us play the net: we add smooth noise to the true map. With `min_distance` 0 every wave is a cell; with a large one,
# small cells fall to their neighbours.

# %% name="watershed_decode_figure" role="show"
from scipy.ndimage import gaussian_filter

noise = gaussian_filter(np.random.default_rng(0).normal(size=distance.shape), 1.5)
wavy = distance + 0.5 * torch.from_numpy(noise / noise.std())
flood = use(watershed_decode)
found = {gap: torch.as_tensor(flood(wavy, gap)) for gap in (0.0, 8.0, 16.0)}
titles = [f"truth: {label_map.max()} cells", *(f"min_distance {gap:g}: {m.max()}" for gap, m in found.items())]
show(
    gallery([scene["image"]] * 4, [label_map, *found.values()], titles=titles, width=2.8),
    alt="The true cells, and what the watershed finds in a noisy map: " + "; ".join(titles[1:]) + ".",
)

# %% [markdown] name="star_distances_idea"
# ## 3. How far does the cell reach? (4 points)
#
# **Idea.** StarDist asks each pixel for more than one distance: for one along each of $R$ rays, say 32. Their ends are the
# corners of a polygon, so **every single pixel describes a whole cell**. This works for cells of which a pixel in the
# middle sees all the outline. Such shapes are called star-convex, and most nuclei have one.
#
# **Formula.** Ray $k$ has the angle $2 \pi k / R$ and the direction $(dy, dx) = (\sin, \cos)$. As $y$ grows downwards, ray 0
# goes right and the next ones turn towards the bottom. Walk in steps of length 1 and round to the nearest pixel; the first
# step that leaves the cell, or the image, is number $t$. The edge lay half a pixel before it, along the faster axis:
#
# $$ d = t - 1 + \frac{0.5}{\max(|dy|, |dx|)} $$
#
# **By hand.** The row `0 7 7 7 7 0`, from the second 7. To the right: 7, 7, then 0 with step 3, so
# $d = 3 - 1 + 0.5 = 2.5$. To the left: 7, then 0 with step 2, so $d = 1.5$. Together 4, the width of the cell. Up and
# down one leaves the image with step 1: $d = 0.5$. On a diagonal $dy = dx = 0.71$, and the half pixel is
# $0.5 / 0.71 = 0.71$ long.


# %% name="star_distances" role="solution"
def star_distances(label_map, n_rays):
    """Walk from each pixel of a cell along rays until the cell ends.

    Ray k has the angle 2 pi k / n_rays and the direction (dy, dx) = (sin, cos) of it: ray 0 points to the right, and
    as y grows downwards, the next ones turn towards the bottom.

    From pixel (y, x) go 1, 2, 3, ... steps of length 1: after t steps you are on the pixel
    (round(y + t dy), round(x + t dx)). Stop at the first t whose pixel is not of this cell: background, another cell,
    or outside of the image. The cell ended half a pixel before it, along the faster axis. So the distance is

        t - 1 + 0.5 / max(|dy|, |dx|)

    label_map: (H, W) integers: 0 is background, every other number is one cell.
    n_rays:    R, at least 3. (None of those that are asked for lets a step end half-way between two pixels.)

    Returns (R, H, W) floats, in pixels, one plane a ray; 0 in the background.
    """
    ### BEGIN SOLUTION: for each ray, walk with all pixels at once until the last one has left its cell
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
# What does one pixel know? Three pixels of one cell, 8 rays and 32. The pixel in the middle draws the cell best. One at the
# edge has long sides between far corners. So StarDist also learns an **object probability**, the distance to the edge
# divided by the largest of the cell: it says how much a pixel is to be believed.


# %% name="corners" role="show"
def corners(distances, points):
    """Corners (N, R, 2) of the polygons on the ends of N times R rays, from points (N, 2)."""
    angles = torch.arange(distances.shape[1]) * (2 * np.pi / distances.shape[1])
    return points[:, None] + distances[:, :, None] * torch.stack([angles.sin(), angles.cos()], dim=-1)


# %% name="star_distances_figure" role="show"
cell = label_map == 4
places, depths = cell.nonzero(), distance[cell]
chosen = places[depths.argsort(descending=True)[[0, len(depths) // 2, len(depths) - 3]]]
fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
reach_of = use(star_distances)
rays = torch.as_tensor(reach_of(label_map, 32))
axes[0].imshow(rays[0], cmap="cividis")
axes[0].set_title("ray 0: the way to the right")
for ax, n_rays in zip(axes[1:], (8, 32)):
    planes = torch.as_tensor(reach_of(label_map, n_rays))
    ax.imshow(cell, cmap="Greys", vmax=3)
    for (row, column), colour, line in zip(chosen, ("#0072B2", "#D55E00", "#009E73"), ("-", "--", ":")):
        ends = corners(planes[:, row, column][None], torch.stack([row, column])[None])[0]
        ax.fill(ends[:, 1], ends[:, 0], fill=False, edgecolor=colour, linestyle=line, linewidth=2)
        ax.plot(column, row, "o", color=colour)
    ax.set(title=f"{n_rays} rays, three pixels", xlim=(places[:, 1].min() - 4, places[:, 1].max() + 4))
    ax.set_ylim(places[:, 0].max() + 4, places[:, 0].min() - 4)
for ax in axes:
    ax.set(xticks=[], yticks=[])
show(fig, alt="The way to the right in each cell; polygons of three pixels of one cell with 8 rays and with 32 rays.")

# %% [markdown] name="widget_rays_text"
# ## Move the rays
#
# Try: from how many rays on does the round cell gain nothing? How many does the long one need? And why does no number
# help the C?

# %% name="widget_rays" role="widget"
from segedu.teaching.widgets.rays import explorer

explorer()

# %% [markdown] name="polygon_nms_idea"
# ## 4. Many polygons, one cell (4 points)
#
# **Idea.** Hundreds of pixels describe the same cell. Go through the polygons from the highest object probability down: keep
# one, and drop all that overlap it too much. This is **non-maximum suppression**, NMS for short. Boxes of neighbours that lie
# aslant overlap much; their polygons do not.
#
# **Formula.** The overlap of two polygons is the shared area over the area of the **smaller** one:
#
# $$ o(A, B) = \frac{|A \cap B|}{\min(|A|, |B|)} $$
#
# Not over the union: a small polygon inside a large one is the same cell seen badly, and has $o = 1$.
#
# **By hand.** Three polygons, threshold 0.4:
#
# | polygon | score | area | shared with A | with B | with C |
# |---|---|---|---|---|---|
# | A | 0.8 | 16 | | 6 | 5 |
# | B | 0.9 | 12 | 6 | | 1 |
# | C | 0.7 | 10 | 5 | 1 | |
#
# B is first and stays. A shares 6 of 12: 0.5, it goes. C shares half of itself with A, but A is gone and removes nobody;
# with B it shares 1 of 10. C stays. The answer is B, C. (The IoU of A and B would be 6/22 = 0.27, and A would have stayed.)


# %% name="polygon_nms" role="solution"
def polygon_nms(polygons, scores, shared, overlap_threshold):
    """Go through polygons from the highest score down; keep each that does not overlap a kept one by too much.

    The overlap of two polygons is the area that they share over the area of the *smaller* of the two, as in StarDist:
    a small polygon inside of a large one overlaps it fully. A polygon without area overlaps nothing: 0.

    A polygon goes if its overlap with one that was kept before is above `overlap_threshold`; what has gone removes
    nobody. Of equal scores the polygon with the lower index comes first.

    polygons: (N, R, 2) floats: the corners (y, x) of each polygon in order, one way round or the other (for pictures;
              `shared` holds all areas).
    scores:   (N,) floats.
    shared:   (N, N) floats: `shared[i, j]` is the area that polygons i and j have in common, already computed; so
              `shared[i, i]` is the whole area of polygon i.
    overlap_threshold: in [0, 1].

    Returns (K,) integers: the indices of the polygons that are kept, the highest score first.
    """
    ### BEGIN SOLUTION: from the highest score down, compare each polygon with those kept so far
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
# Let us play the net once more, and let each pixel draw its cell too large or too small. Every second pixel, along both axes, whose object
# probability is above one half is a candidate. Shared areas are counted in pixels here, by one product of matrices; the
# library computes them exactly. Right, the threshold is too low: cells that touch suppress each other.

# %% name="paint" role="show"
from skimage.draw import polygon as fill


def painted(polygons, size):
    """The pixels (N, H, W) inside each of N polygons, 1 or 0."""
    masks = np.zeros((len(polygons), *size), np.float32)
    for mask, polygon in zip(masks, np.asarray(polygons)):
        mask[fill(polygon[:, 0], polygon[:, 1], size)] = 1
    return torch.from_numpy(masks)


def probability_of(label_map, distance):
    """Object probability: the distance to the nearest pixel of no or another cell, over the largest of the cell."""
    largest = torch.zeros(int(label_map.max()) + 1).double()
    largest = largest.scatter_reduce(0, label_map.flatten(), distance.double().flatten() + 0.5, "amax")
    return torch.where(label_map > 0, (distance + 0.5) / largest[label_map].clamp(min=0.5), 0.0)


# %% name="polygon_nms_figure" role="show"
probability = probability_of(label_map, distance)
candidate = torch.zeros_like(label_map, dtype=torch.bool)
candidate[::2, ::2] = probability[::2, ::2] > 0.5
random = torch.Generator().manual_seed(0)
erring = rays * (1 + 0.15 * torch.randn(64, 64, generator=random) + 0.04 * torch.randn(rays.shape, generator=random))
polygons, scores = corners(erring[:, candidate].T, candidate.nonzero()), probability[candidate]
flat = painted(polygons, label_map.shape).flatten(1)
shared = (flat @ flat.T).double()
suppress, panels = use(polygon_nms), {f"{len(polygons)} candidates": range(len(polygons))}
for threshold in (0.4, 0.05):
    kept = suppress(polygons, scores, shared, threshold)
    panels[f"threshold {threshold}: {len(kept)} stay"] = kept
fig, axes = plt.subplots(1, 3, figsize=(10, 3.5), layout="constrained")
for ax, (title, indices) in zip(axes, panels.items()):
    ax.imshow(scene["image"][0], cmap="gray")
    for i in indices:
        ax.fill(polygons[i, :, 1], polygons[i, :, 0], fill=False, edgecolor="#F0E442", linewidth=0.8)
    ax.set(title=title, xticks=[], yticks=[], xlim=(-0.5, 63.5), ylim=(63.5, -0.5))
show(fig, alt="Outlines on cells: " + "; ".join(panels) + f". There are {label_map.max()} cells.")

# %% [markdown] name="diffusion_flow_idea"
# ## 5. A flow to the middle (3 points)
#
# **Idea.** Cellpose asks each pixel for a direction: which way is the middle of your cell? Straight towards it is a bad
# answer for a bent cell, whose middle may lie outside of it. So let **heat** spread from a pixel in the middle, only within
# the cell, and go where it gets warmer. That way leads along the cell, however bent it is.
#
# **Formula.** The source is the pixel of the cell that is nearest to the mean of all its pixels. Again and again: add 1
# at the source, then each pixel of the cell becomes the mean of the 3x3 pixels around it. Outside of the cell heat is
# 0, always. With heat $T$ at the end, the flow is the slope, cut to length 1:
#
# $$ (dy, dx) = \frac{s}{\lVert s \rVert}, \qquad
#    s = \bigl( T_{y+1,x} - T_{y-1,x},\; T_{y,x+1} - T_{y,x-1} \bigr) $$
#
# **By hand.** A row of four pixels. The mean is 1.5; pixels 1 and 2 are equally near, the first counts: pixel 1. After one
# step, heat is 1/9, 1/9, 1/9, 0 (each mean is over nine places, most of them outside). The slope at pixel 0 is
# 1/9 - 0: it points right. At pixel 3 it is 0 - 1/9: it points left. At pixel 1 it is still 0. After three steps heat is
# 104, 115, 105, 12, over 729: pixel 1 points right too, by 1/729, since on its right side there is more cell to keep warm.


# %% name="diffusion_flow" role="solution"
def diffusion_flow(label_map, steps):
    """Let heat spread in each cell from its middle; return the direction in which it rises.

    For each cell by itself:

    1. The source is the pixel of the cell that is nearest to the mean of the places of all its pixels; of equally near
       ones the first in reading order. So the source is inside, even where the mean is not.
    2. Heat is 0 at first. Each of the `steps` adds 1 at the source; then each pixel of the cell becomes the mean of the
       3x3 pixels around it (always a sum over 9). Outside of the cell heat stays 0, also beyond the image.
    3. The slope at (y, x) is (heat[y + 1, x] - heat[y - 1, x], heat[y, x + 1] - heat[y, x - 1]), with the heat of this
       cell only. The flow is the slope divided by its length; it is 0 where the length is below 3e-7, as rounding
       would decide its direction.

    label_map: (H, W) integers: 0 is background, every other number is one cell. Numbers may have gaps.
    steps:     how often heat spreads.

    Returns (2, H, W) floats, dy before dx: of length 1 or 0 in cells, 0 in the background.
    """
    ### BEGIN SOLUTION: for each cell find the source, spread heat, take the slope and cut it to length 1
    flows = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for number in label_map.unique():
        if number == 0:
            continue
        inside = label_map == number
        places = inside.nonzero()
        off = places - places.double().mean(dim=0)
        y, x = places[(off**2).sum(dim=1).argmin()]
        heat = torch.zeros(1, *label_map.shape, dtype=torch.float64)
        for _ in range(steps):
            heat[0, y, x] += 1
            heat = torch.nn.functional.avg_pool2d(heat, 3, stride=1, padding=1) * inside
        padded = torch.nn.functional.pad(heat[0], (1, 1, 1, 1))
        slope = torch.stack([padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]])
        length = slope.norm(dim=0)
        good = inside & (length >= 3e-7)
        flows[:, good] = slope[:, good] / length[good]
    return flows
    ### END SOLUTION


# %% name="check_diffusion_flow" role="check"
check(diffusion_flow)

# %% [markdown] name="diffusion_flow_after"
# A bent cell beside a round one. Left, your flow: it runs along the bend. Right, arrows straight to the mean of each
# cell's pixels, which for the bent one is the cross outside of it: its tips would leave the cell.

# %% name="diffusion_flow_figure" role="show"
y, x = torch.meshgrid(torch.arange(44.0), torch.arange(60.0), indexing="ij")
bent = ((torch.hypot(y - 22, x - 22) - 14).abs() < 5) & (torch.atan2(y - 22, x - 22).abs() < 2.3)
pair = torch.where(torch.hypot(y - 22, x - 50) < 9.2, 2, bent.long())  # they touch
flow = torch.as_tensor(use(diffusion_flow)(pair, 200))
means = torch.stack([(pair == number).nonzero().double().mean(dim=0) for number in (1, 2)])
straight = torch.where(pair > 0, means[pair.clamp(min=1) - 1].movedim(-1, 0) - torch.stack([y, x]), 0.0)
straight = straight / straight.norm(dim=0).clamp(min=1e-9)
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for ax, title, field in zip(axes, ("where heat rises", "straight to the mean"), (flow, straight)):
    ax.imshow(pair, cmap="Greys", vmax=6)
    rows, columns = (pair > 0).nonzero()[::3].T
    ax.quiver(columns, rows, field[1, rows, columns], field[0, rows, columns], angles="xy", scale=35, color="#0072B2")
    ax.set(title=title, xticks=[], yticks=[])
axes[1].plot(means[:, 1], means[:, 0], "x", color="#D55E00", markersize=12, markeredgewidth=3)
show(fig, alt="Arrows along a bent cell to its middle; beside it arrows that point across the gap to a mean outside.")

# %% [markdown] name="follow_flows_idea"
# ## 6. Follow it (3 points)
#
# **Idea.** Put a particle on each pixel of the foreground and let it drift. All particles of a cell meet, and those of its
# neighbour meet elsewhere. So **who ends together is one cell**. Borders need not be seen: they lie where
# neighbouring pixels drift apart.
#
# **Formula.** Euler's method, with the flow at the place where the particle is *now*:
#
# $$ p_{t+1} = p_t + f(p_t) $$
#
# Particles lie between pixels after the first step, so $f$ is read by bilinear interpolation. In the background the flow
# counts as 0, and nobody leaves the image. In the end, particles at most 1 pixel apart are one cell, and so are chains of
# them. (Cellpose's own code looks for peaks in a histogram of the ends; see the page of the chapter.)
#
# **By hand.** A row with the flow 1, 0.5, 0. A particle starts at 1 and moves by 0.5 to 1.5. There the flow is half
# of 0.5 and half of 0: 0.25. It comes to 1.75, then 1.875. Never round on the way: from 1.5 it would jump to 2, or back to 1.


# %% name="follow_flows" role="solution"
def follow_flows(flows, foreground, steps):
    """Let each pixel of the foreground drift along the flow; pixels that end near each other are one cell.

    The ends: each pixel of the foreground is a particle, P of them in reading order, and starts at its own place. Each
    step moves a particle by the flow at the place where it is now, between pixels by bilinear interpolation. In the
    background the flow counts as 0, whatever `flows` holds there. A particle that would leave the image stays on its
    border: y in [0, H - 1] and x in [0, W - 1].

    The cells: two particles whose ends are at most 1 pixel apart (Euclidean) are of one cell, and so are chains of
    them: if a is of one cell with b, and b with c, then a is with c. Cells are numbered 1, 2, ... in the order in which
    their first pixels come in reading order.

    flows:      (2, H, W) floats, dy before dx, in pixels a step.
    foreground: (H, W) bool.
    steps:      how often particles move; 0 leaves them where they are.

    Returns ends, (P, 2) floats, y before x; and label_map, (H, W) integers: 0 in the background, else the number of
    the cell.
    """
    ### BEGIN SOLUTION: move all particles, step by step, then group those that ended within 1 pixel
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
        moved = field[:, top, left] * (1 - v) * (1 - u) + field[:, top, right] * (1 - v) * u
        moved = moved + field[:, bottom, left] * v * (1 - u) + field[:, bottom, right] * v * u
        ends = torch.stack([(y + moved[0]).clamp(0, height - 1), (x + moved[1]).clamp(0, width - 1)], dim=1)
    near = cKDTree(ends.numpy()).query_pairs(1.0, output_type="ndarray")
    graph = coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(len(ends), len(ends)))
    label_map = torch.zeros(height, width, dtype=torch.int64)
    label_map[foreground] = torch.from_numpy(connected_components(graph, directed=False)[1]).long() + 1
    return ends, label_map
    ### END SOLUTION


# %% name="check_follow_flows" role="check"
check(follow_flows)

# %% [markdown] name="follow_flows_after"
# The two cells of the figure above, step by step. Each colour, and each sign, is one group. At first everybody is within 1
# pixel of a neighbour, so all are one chain; the groups are right once the particles have met.

# %% name="follow_flows_figure" role="show"
follow = use(follow_flows)
fig, axes = plt.subplots(1, 4, figsize=(12.5, 2.9), layout="constrained")
for ax, steps in zip(axes, (0, 5, 15, 60)):
    ends, groups = (torch.as_tensor(part) for part in follow(flow, pair > 0, steps))
    owners = groups[pair > 0]
    ax.imshow(pair, cmap="Greys", vmax=6)
    for number in owners.unique():
        row, column = ends[owners == number].T
        colour, sign = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")[number % 4], "osD^v"[number % 5]
        ax.scatter(column, row, s=9 if steps < 60 else 60, marker=sign, color=colour)
    ax.set(title=f"{steps} steps: {groups.max()} group" + "s" * (groups.max() > 1), xticks=[], yticks=[])
show(
    fig, alt="Particles of a bent and a round cell after 0, 5, 15 and 60 steps: in the end two places hold all of them."
)

# %% [markdown] name="widget_flows_text"
# ## Move the steps
#
# The same for other scenes, with Cellpose's own way to group: by peaks. Try: how many steps does the bent cell need until one
# place holds all its pixels, and how many do the round ones? What would you get from too few steps?

# %% name="widget_flows" role="widget"
from segedu.teaching.widgets.flows import explorer

explorer()

# %% [markdown] name="gallery_text"
# ## One cell, five answers
#
# What nets of this chapter learn, for the same cell and its neighbours. The last row is of two methods without exercise here:
# **Omnipose** learns a smooth distance to the edge and the flow that climbs it, which needs no middle; **DenoiSeg** learns
# three classes, with a border between cells, and to remove noise at the same time.

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
(top, left), (bottom, right) = (places.amin(dim=0) - 6).tolist(), (places.amax(dim=0) + 7).tolist()
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
show(fig, alt="Nine maps of one cell and its neighbours: " + ", ".join(panels) + ".")

# %% [markdown] name="decoders_text"
# ## The three ways back
#
# Each net will give one or more maps for an image. Your functions make cells of them. Read the three decoders: nothing
# else is left to do.

# %% name="decoders" role="train"
flood, suppress, follow = use(watershed_decode), use(polygon_nms), use(follow_flows)


def without_small(label_map, least=15):
    """Cells of fewer pixels than `least` are dropped."""
    label_map = torch.as_tensor(label_map).long()
    return torch.where(torch.bincount(label_map.flatten())[label_map] < least, 0, label_map)


def from_distance(maps):
    """One map: the signed distance in units of 8 pixels, smoothed a little: a rough map has many small tops."""
    smooth = torch.nn.functional.avg_pool2d(8 * maps.double(), 3, stride=1, padding=1, count_include_pad=False)
    return without_small(flood(smooth[0], 6.0))


def from_stars(maps):
    """1 + R maps: a logit of the object probability, then the distances along R rays; candidates on a grid of 2."""
    score, reach = maps[0].sigmoid(), maps[1:].clamp(min=0.5)
    candidate = torch.zeros(score.shape, dtype=torch.bool)
    candidate[::2, ::2] = score[::2, ::2] > 0.5
    polygons, scores = corners(reach[:, candidate].T, candidate.nonzero()), score[candidate]
    masks = painted(polygons, score.shape)
    shared = masks.flatten(1) @ masks.flatten(1).T
    label_map = torch.zeros(score.shape, dtype=torch.int64)
    for number, i in reversed(list(enumerate(suppress(polygons, scores, shared, 0.4), 1))):
        label_map[masks[i] > 0] = number  # the best last, so that it stays whole
    return without_small(label_map)


def from_flows(maps, steps=80):
    """Three maps: five times dy and dx, and a logit of the foreground."""
    return without_small(follow(maps[:2].double() / 5, maps[2] > 0, steps)[1])


# %% [markdown] name="perfect_text"
# ## What if the net were perfect?
#
# Before we train, let us leave the net out: your targets of a true label map go straight into your decoders. What is lost now is
# lost by the targets or by the way back, and no training of the net repairs it. Above the cells, below long bent bacteria.
#
# We count objects: found ones (IoU at least 0.5, or 0.75) over found, missed and invented ones, TP / (TP + FP + FN). Papers on
# cells call this AP, and AP50 at 0.5; it is no area under a curve. The library calls it `instance_accuracy`.

# %% name="perfect" role="train"
from segedu.datasets.bacteria import draw_bacteria
from segedu.metrics.instance import instance_accuracy


measure, reach_of, spread = use(signed_distance), use(star_distances), use(diffusion_flow)


def perfect_maps(label_map):
    """What perfect nets would give."""
    distance, inside = torch.as_tensor(measure(label_map)), label_map > 0
    probability = probability_of(label_map, distance)
    rays, flows = torch.as_tensor(reach_of(label_map, 32)), torch.as_tensor(spread(label_map, 250))
    stars = torch.cat([torch.logit(probability, eps=1e-6)[None], rays])
    return distance[None] / 8, stars, torch.cat([5 * flows, inside[None].double() - 0.5])


bacteria = draw_bacteria(5, (96, 96), rod_length=(30, 100))
pictures, maps, titles = [], [], []
for kind, one in (("cells", scene), ("bacteria", bacteria)):
    truth = one["label_map"].long()
    ways = zip(("distance", "stars", "flows"), (from_distance, from_stars, from_flows), perfect_maps(truth))
    found = {name: way(given) if name != "flows" else way(given, 250) for name, way, given in ways}
    for name, cells in found.items():
        scores = [instance_accuracy(cells, truth, threshold) for threshold in (0.5, 0.75)]
        print(f"{kind:<9} {name:<9} accuracy {scores[0]:.2f} at IoU 0.5, {scores[1]:.2f} at IoU 0.75")
        titles.append(f"{name}: {scores[1]:.2f}")
    titles.insert(-3, f"{kind}, truth")
    pictures += [one["image"]] * 4
    maps += [truth, *found.values()]

# %% name="perfect_figure" role="train"
show(
    gallery(pictures, maps, titles=titles, columns=4, width=2.9),
    alt="Cells and bacteria with true labels, and what each representation gives back: " + ", ".join(titles) + ".",
)

# %% [markdown] name="perfect_after"
# Round cells survive all three. A long bent bacterium has no pixel that sees all of it, so a star covers only a part. Its
# distance map has a ridge with many small tops, and your watershed cuts it there;
# [the library's](../course/09-distances/signed-distance.md#back-to-cells) first levels hills that are less than 1 high. Heat
# follows the bend.

# %% [markdown] name="train_text"
# ## One net, three questions
#
# Now three nets learn: the same small U-Net, the same images, the same number of steps. Only the question differs, that is,
# the maps at the end and the loss. Each is a method in small: `distance`, mini-StarDist (`stars`), mini-Cellpose (`flows`).
#
# For the targets of so many images we take the library's loops in machine code. They give the numbers that your functions
# give.

# %% name="train_parts" role="train"
from segedu.datasets.cells import Cells
from segedu.teaching.exercises.lab09_distances.targets import all_targets
from segedu.training import train_steps
from tqdm.auto import tqdm

F = torch.nn.functional


def draw_data(length, seed, size, n_rays):
    """Images (B, 1, H, W) of mean about 0 and deviation about 1, their targets, and true label maps."""
    samples = list(tqdm(Cells(length, seed, (size, size)), "draw", unit="image"))
    targets = [all_targets(sample["label_map"], n_rays) for sample in tqdm(samples, "targets", unit="image")]
    images = torch.stack([sample["image"][:1] for sample in samples])
    stacked = {name: torch.stack([target[name] for target in targets]) for name in targets[0]}
    return (images - 0.3) / 0.2, stacked, [sample["label_map"] for sample in samples]


def distance_loss(maps, target):
    """Absolute error to tanh(distance / 8), which is flat far from all edges: the exact number does not matter there."""
    return F.l1_loss(maps[:, 0], torch.tanh(target["distance"] / 8))


def star_loss(maps, target):
    """Cross-entropy of the object probability; errors of the rays count as much as their pixel is central."""
    weight = target["probability"][:, None]
    errors = ((maps[:, 1:] - target["rays"]).abs() * weight).mean(dim=1).sum() / weight.sum()
    return F.binary_cross_entropy_with_logits(maps[:, 0], target["probability"]) + errors


def flow_loss(maps, target):
    """Half the squared error to five times the flow, as in Cellpose, and cross-entropy of the foreground."""
    foreground = F.binary_cross_entropy_with_logits(maps[:, 2], target["inside"])
    return F.mse_loss(maps[:, :2], 5 * target["flows"]) / 2 + foreground


# %% name="train" role="train"
from segedu.backbones.stardist_unet import StarDistUNet
from segedu.metrics.instance import InstanceMetrics

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
scales = {"cpu": (64, 192, 48, 8, 200, 16), "gpu": (256, 128, 24, 32, 1000, 32)}
size, length, new, width, steps, n_rays = scales[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # so small a net gains nothing from more threads, which only wait for each other
images, targets, _ = draw_data(length, 0, size, n_rays)
new_images, _, truths = draw_data(new, 1, size, n_rays)
plans = {"distance": (1, distance_loss, from_distance), "stars": (1 + n_rays, star_loss, from_stars)}
plans["flows"] = (3, flow_loss, from_flows)
found, scores = {}, {}
for name, (channels, loss_function, decode) in plans.items():
    torch.manual_seed(0)
    trunk = StarDistUNet(1, width, depth=2, grid=(1, 1), batch_norm=True)
    head = torch.nn.Conv2d(width, 4 * width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4 * width, channels, 1)
    net = torch.nn.Sequential(trunk, *head).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps, pct_start=0.1)
    picks = torch.randint(length, (steps, 8), generator=torch.Generator().manual_seed(0))
    loader = ((images[pick], {key: value[pick] for key, value in targets.items()}) for pick in picks)
    bar = tqdm(train_steps(net, loader, loss_function, optimizer, scheduler=schedule, clip_norm=1.0), name, steps)
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")
    net.eval()
    with torch.no_grad():
        found[name] = [decode(net(image[None].to(device))[0].cpu()) for image in tqdm(new_images, "decode")]
    metrics = InstanceMetrics([0.5, 0.75])
    for cells, truth in zip(found[name], truths):
        metrics.update(cells, truth)
    scores[name] = metrics.compute()["accuracy"].tolist()
    print(f"{name}: accuracy {scores[name][0]:.3f} at IoU 0.5 on {new} new images, scale {SCALE}")

# %% [markdown] name="train_after"
# The first row of the table needs no training: smooth the image, take Otsu's threshold, and flood the distance to the
# background from its tops.
#
# Compare the columns: which net loses most from 0.5 to 0.75? Look at the outlines below and say why.

# %% name="train_table" role="train"
from segedu.recipes.baselines import OtsuWatershed

plain = InstanceMetrics([0.5, 0.75])
for image, truth in zip(new_images, truths):
    plain.update(OtsuWatershed()((0.2 * image + 0.3).expand(1, 3, -1, -1))[0], truth)
rows = {"Gaussian, Otsu, watershed": plain.compute()["accuracy"].tolist(), **scores}
print(f"{'accuracy at IoU':<28}{'0.5':>6}{'0.75':>7}")
for name, (half, most) in rows.items():
    print(f"{name:<28}{half:>6.2f}{most:>7.2f}")

# %% name="train_figure" role="train"
shown = [0, 1]
pictures, maps, titles = [], [], []
for i in shown:
    pictures += [0.2 * new_images[i] + 0.3] * 4
    maps += [truths[i], *(found[name][i] for name in plans)]
    titles += ["truth", *plans]
show(
    gallery([picture.clamp(0, 1) for picture in pictures], maps, titles=titles, columns=4, width=2.9),
    alt="Two new images of cells with true labels, and the cells that the three nets find.",
)

# %% [markdown] name="failures_text"
# ## Where each one fails
#
# For each net the new image on which it does worst. Look at cells that touch, and at those that the border of the image cuts.
# Which cells are melted into one? Which are cut in two, which are missed? Is it the same cell for all three?

# %% name="failures" role="train"
pictures, maps, titles = [], [], []
for name in plans:
    each = [instance_accuracy(cells, truth) for cells, truth in zip(found[name], truths)]
    i = min(range(new), key=each.__getitem__)
    pictures += [(0.2 * new_images[i] + 0.3).clamp(0, 1)] * 3
    maps += [None, truths[i], found[name][i]]
    titles += [f"image {i}", f"truth: {truths[i].max()} cells", f"{name}: accuracy {each[i]:.2f}"]
show(
    gallery(pictures, maps, titles=titles, numbers=True, columns=3, width=2.9),
    alt="The worst new image of each net with its truth and what was found: " + ", ".join(titles[2::3]) + ".",
)

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Somebody computes one distance transform of the whole foreground and says: "The watershed will find the border
# between touching cells anyway." When is this true?
#
# <details><summary>Answer</summary>
# When there is a neck between the cells: then the distance is smaller there than in both middles. Cells that touch along
# a long side have no neck, and become one hill.
# </details>
#
# **2.** Why does StarDist's NMS divide by the smaller area, and not by the union?
#
# <details><summary>Answer</summary>
# A pixel near the edge often draws a small polygon inside the true one. Its IoU with the good polygon may be low, so it would
# stay as a second cell. By the smaller area its overlap is 1, and it goes.
# </details>
#
# **3.** Find the slip: "With enough rays, StarDist describes every shape."
#
# <details><summary>Answer</summary>
# Rays stop at the first edge. What lies behind a bend cannot be seen from the pixel, with any number of rays: the shape
# has to be star-convex.
# </details>
#
# **4.** Why does Cellpose not let pixels flow straight to the mean of their cell?
#
# <details><summary>Answer</summary>
# The mean of a bent cell may lie outside of it, even in another cell. The way there leaves the cell, and a pixel cannot see
# from its surroundings which way that would be. Heat stays inside.
# </details>
#
# **5.** All arrows of a flow have length 1. What would be lost if a net learned the slope of the heat itself?
#
# <details><summary>Answer</summary>
# Far from the source the slope is tiny. Its error would not count in the loss, and pixels at the tips of a cell would not
# move. Only the direction matters.
# </details>
#
# **6.** A pixel of the background has a wrong arrow that points into a cell. What happens?
#
# <details><summary>Answer</summary>
# Nothing: only pixels of the foreground are particles, and in the background the flow counts as 0. A wrong pixel of the
# foreground would drift along and be part of that cell.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 9](../course/09-distances/index.md): Omnipose and DenoiSeg, the networks as they are published, and a
#   page that says which method to take.
# - Change one thing: `Cells` for `Bacteria` (from `segedu.datasets.bacteria`) in `draw_data`. Which net suffers most?
# - Train `stars` with 8 rays, and with 4. What does the accuracy at IoU 0.75 say that the one at 0.5 does not?
# - Chapter 10 asks a pixel for yet another thing: the way to its centre, and how sure it is of it.
