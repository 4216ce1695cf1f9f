# %% [markdown] name="title"
# # Lab 2: Segmentation as clustering
#
# No labels, no training: describe every pixel by a few numbers, say how near two descriptions are, and group what is
# near. That was segmentation for forty years, and with features that a network learnt by itself it is again.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises. Read [chapter 2](../course/02-clustering/index.md) first, or
# beside this lab.
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.
#
# Your functions may call other libraries, but not functions that are the exercise itself, such as
# `sklearn.decomposition.PCA`: checks and grading hide them
# ([which ones](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - find a threshold by Otsu's rule, and say when no threshold can work;
# - write k-means, and say what it minimises and what its first centres decide;
# - give pixels a place as well as a colour, and weigh one against the other;
# - look at features of hundreds of numbers through their principal components;
# - say why a minimum cut cuts off single pixels, and how the normalised cut does not;
# - part cells that touch, with one marker for each.
#
# An image is a cloud of points. Below, every pixel of a photograph lies where its colour says. Where are the clumps, and
# which things do they belong to?

# %% name="picture" role="show"
from segedu.viz import palette, show
from skimage.data import coffee, coins


def small_image(photo, shrink):
    """(3, H, W) in [0, 1] from (H, W, 3) in [0, 255]; each pixel the mean of shrink x shrink."""
    image = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
    return torch.nn.functional.avg_pool2d(image, shrink)


cup = small_image(coffee(), 4)
colours = cup.flatten(1).T.numpy()
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=(1.3, 1))
axes[0].imshow(cup.permute(1, 2, 0))
axes[0].set(xticks=[], yticks=[], title=f"{cup.shape[1]} x {cup.shape[2]} pixels ...")
axes[1].scatter(colours[::3, 0], colours[::3, 2], c=colours[::3], s=3)
axes[1].set(xlabel="red", ylabel="blue", title="... are as many points", aspect="equal")
show(fig, alt="A cup of coffee on a table; beside it its pixels as points of red and blue: dark brown, orange, white.")

# %% [markdown] name="otsu_idea"
# ## 1. Otsu's threshold (3 points)
#
# **Idea.** The simplest description of a pixel is its grey value, and the simplest grouping is two groups: dark and bright.
# Where is the line between them? Otsu (1979) tries every line, and takes the one that puts the two groups furthest apart.
#
# **Formula.** Make a histogram of $b$ bins of equal width, from the smallest value to the largest. Every pixel counts with
# the **centre** of its bin. A split behind bin $t$ makes bins $0$ to $t$ dark and the rest bright. With $n_0$ and $n_1$
# pixels and means $m_0$ and $m_1$, the variance between the two is
#
# $$ \sigma^2(t) = \frac{n_0}{n}\,\frac{n_1}{n}\,(m_0 - m_1)^2, \qquad t = 0, \ldots, b - 2. $$
#
# The threshold is the centre of bin $t$ for the **first** $t$ with the largest $\sigma^2$. (The variance of all pixels is the
# variance between the groups plus the variance within them. So the groups are tightest at the same $t$.)
#
# **By hand.** Six pixels, 0 1 1 6 7 8, four bins of width 2: counts 3, 0, 0, 3 with centres 1, 3, 5, 7. The split behind
# bin 0 gives $\tfrac12 \cdot \tfrac12 \cdot (1 - 7)^2 = 9$. Behind bin 1 and behind bin 2 it is 9 as well, since an empty
# bin changes no group. The first counts: the threshold is 1.


# %% name="otsu" role="solution"
def otsu(image, bins):
    """Otsu's threshold.

    image: float tensor (H, W), any values, negative ones too
    bins:  b, at least 2. The bins reach from the smallest value of the image to its largest. A value on an edge between
           two bins belongs to the upper one, the largest value to the last bin (as in np.histogram and
           torch.histogram).

    Returns a number: the centre of the last dark bin, at the first of the best splits. If all pixels have the same
    value, that value.
    """
    ### BEGIN SOLUTION: a histogram, the variance between the groups for every split, the centre of the best bin
    if image.min() == image.max():
        return float(image.min())
    counts, edges = np.histogram(image.numpy().astype(np.float64), bins)
    centres = (edges[:-1] + edges[1:]) / 2
    n0, s0 = counts.cumsum()[:-1], (counts * centres).cumsum()
    n1, s1 = counts.sum() - n0, s0[-1] - s0[:-1]
    between = n0 * n1 * (s0[:-1] / n0 - s1 / n1) ** 2
    return float(centres[between.argmax()])
    ### END SOLUTION


# %% name="check_otsu" role="check"
check(otsu)

# %% [markdown] name="otsu_after"
# Coins on a dark ground. One threshold for all of them, then one for each quarter of the image. Where does the first take the
# ground for a coin, and why there? Can any threshold tell a coin from its own shade?

# %% name="otsu_figure" role="show"
grey = small_image(coins()[..., None], 2)[0]
threshold = use(otsu)
level = float(threshold(grey, 256))
quarters = torch.zeros_like(grey, dtype=torch.bool)
for rows in (slice(0, 75), slice(75, None)):
    for columns in (slice(0, 96), slice(96, None)):
        part = grey[rows, columns].contiguous()
        quarters[rows, columns] = part > float(threshold(part, 256))
fig, axes = plt.subplots(1, 4, figsize=(12, 2.5), layout="constrained")
axes[1].hist(grey.flatten(), 64, color="#0072B2")
axes[1].axvline(level, color="#D55E00")
axes[1].set(title=f"threshold {level:.2f}", yticks=[], xlabel="grey value")
panels = {"coins": grey, "one threshold": grey > level, "one a quarter": quarters}
for ax, (title, panel) in zip(axes[[0, 2, 3]], panels.items()):
    ax.imshow(panel, cmap="gray")
    ax.set(title=title, xticks=[], yticks=[])
show(fig, alt="Coins; their histogram with a line; bright pixels by one threshold, and by one for each quarter.")

# %% [markdown] name="kmeans_step_idea"
# ## 2. One step of k-means (4 points)
#
# **Idea.** More than two groups, and points of more than one number. Guess $k$ centres. Give each point to its nearest
# centre; move each centre to the mean of its points; repeat until nothing moves.
#
# **Formula.** Both halves of a step lower the same sum, so it must come to rest:
#
# $$ E = \sum_i \lVert x_i - c_{l_i} \rVert^2, \qquad l_i = \arg\min_k \lVert x_i - c_k \rVert^2, \qquad
# c_k = \frac{1}{n_k} \sum_{l_i = k} x_i . $$
#
# **By hand.** Points 0, 1, 5 on a line, centres 0, 4 and 9. Labels: 0, 0, 1. New centres: $(0 + 1)/2 = 0.5$; 5; and 9,
# which has no points and **stays where it is**. Had a point been at 2, half-way between 0 and 4, it would go to the **first**.


# %% name="kmeans_step" role="solution"
def kmeans_step(points, centres):
    """Assign all points, then move the centres.

    points:  float tensor (N, D)
    centres: float tensor (K, D)

    Returns (labels, new_centres): labels, integers (N,), the nearest of the old centres by Euclidean distance, the first
    of those that are equally near; new_centres, (K, D), the means of their points. A centre without points keeps its
    place. Do not change the arguments.
    """
    ### BEGIN SOLUTION: distances of all points to all centres; the nearest; means where there are points
    squared = ((points[:, None] - centres[None]) ** 2).sum(dim=2)
    labels = squared.argmin(dim=1)
    moved = centres.clone()
    for k in range(len(centres)):
        if (labels == k).any():
            moved[k] = points[labels == k].mean(dim=0)
    return labels, moved
    ### END SOLUTION


# %% name="check_kmeans_step" role="check"
check(kmeans_step)

# %% [markdown] name="kmeans_step_after"
# Your step, again and again, on the colours of the cup, from two different first guesses. The sum never rises. Does it come
# to rest at the same height? Which of the two would you keep, and what did the other start miss?


# %% name="kmeans_figure" role="show"
def kmeans(points, k, steps, seed=0):
    """Labels after each step, and the sum of squared distances to the centres; first centres are random points."""
    step, history, sums = use(kmeans_step), [], []
    centres = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:k]]
    for _ in range(steps):
        before = centres
        labels, centres = (torch.as_tensor(part) for part in step(points, centres))
        centres = centres.to(points)
        history.append(labels)
        sums.append(float(((points - before[labels]) ** 2).sum()))
    return history, sums


def painted(labels, shape):
    """A colour for each label, (H, W, 3)."""
    labels = torch.as_tensor(labels).reshape(shape)
    return palette(int(labels.max()) + 1)[labels.numpy()]


points, shape = cup.flatten(1).T, cup.shape[1:]
runs = [kmeans(points, 5, 20, seed) for seed in (0, 1)]
fig, axes = plt.subplots(1, 5, figsize=(13, 2.3), layout="constrained")
panels = [("step 1", runs[0][0][0]), ("step 5", runs[0][0][4]), ("step 20", runs[0][0][19])]
panels.append(("another start, step 20", runs[1][0][19]))
for ax, (title, labels) in zip(axes, panels):
    ax.imshow(painted(labels, shape))
    ax.set(title=title, xticks=[], yticks=[])
for (_, sums), style, start in zip(runs, ("-o", "--s"), ("first", "other")):
    axes[4].plot(range(2, 21), sums[1:], style, markersize=3, label=f"{start} start: {sums[-1]:.0f}")
axes[4].set(xlabel="step", title="sum of squares", xticks=[2, 10, 20])
axes[4].legend(fontsize=8)
show(fig, alt="Five clusters after 1, 5 and 20 steps, and from another start, whose sum of squares ends lower.")

# %% [markdown] name="xy_features_idea"
# ## 3. Colour and place (3 points)
#
# **Idea.** The clusters above are in hundreds of pieces: k-means never learnt where a pixel is. So tell it. Append the
# row and the column to the colour, and clusters that hang together become cheaper.
#
# **Formula.** Colours reach from 0 to 1, rows to hundreds: without a scale the place would decide alone. Both coordinates are
# divided by the **longer** side, so that a step down is as far as a step aside, and multiplied by a weight $\lambda$:
#
# $$ f(y, x) = \bigl(I_1, \ldots, I_C,\; \lambda\, y / m,\; \lambda\, x / m\bigr), \qquad m = \max(H, W). $$
#
# Pixels come in reading order: row 0 from left to right, then row 1.
#
# **By hand.** One channel, one row of two pixels, 0.3 and 0.9, $\lambda = 4$: $m = 2$, so the points are (0.3, 0, 0) and
# (0.9, 0, 2).


# %% name="xy_features" role="solution"
def xy_features(image, weight):
    """Every pixel as a point of colour and place.

    image:  float tensor (C, H, W)
    weight: lambda, at least 0

    Returns a float tensor (H * W, C + 2), one row a pixel in reading order: the channels, then
    weight * row / max(H, W), then weight * column / max(H, W), both counted from 0.
    """
    ### BEGIN SOLUTION: rows and columns as two more channels, scaled; then one row of the table for each pixel
    C, H, W = image.shape
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    place = torch.stack([y, x]) * (weight / max(H, W))
    return torch.cat([image, place.to(image.dtype)]).reshape(C + 2, H * W).T
    ### END SOLUTION


# %% name="check_xy_features" role="check"
check(xy_features)

# %% name="xy_figure" role="show"
with_place = use(xy_features)
fig, axes = plt.subplots(1, 4, figsize=(12, 2.4), layout="constrained")
for ax, weight in zip(axes, (0.0, 0.5, 1.0, 4.0)):
    labels = kmeans(torch.as_tensor(with_place(cup, weight)).float(), 6, 15)[0][-1]
    ax.imshow(painted(labels, shape))
    ax.set(title=f"weight {weight:g}", xticks=[], yticks=[])
show(fig, alt="Six clusters of a cup for four weights of the place: scattered, then whole pieces, then mere tiles.")

# %% [markdown] name="widget_text"
# ## Move the weight
#
# Try: which $k$ finds the spoon? Does another colour space help it? From which weight on do you see tiles, not things? In
# the second photograph: which clusters does the sky need, and why more than one?

# %% name="widget" role="widget"
from segedu.teaching.widgets.clustering import explorer

explorer()

# %% [markdown] name="pca_project_idea"
# ## 4. Principal components (4 points)
#
# **Idea.** Colour says little about texture. Describe a pixel by its whole neighbourhood: 7 x 7 pixels of 3 channels are
# 147 numbers. Or by what a network makes of it: 384 numbers. Nobody can look at those. But most of them say nearly the same,
# and a few **directions** hold most of the variance.
#
# **Formula.** Take the mean off every column, $X_c = X - \bar x$. The first component is the direction $v_1$ (of length 1) in
# which the points vary most; the next is the best at a right angle to it. They are the eigenvectors of $X_c^\top X_c$ with
# the largest eigenvalues, or the right singular vectors of $X_c = U S V^\top$. The **scores** are the points along them:
#
# $$ Z = X_c\, V_n \qquad (N \times n). $$
#
# $-v$ is as good a direction as $v$: the sign of each column of $Z$ is yours to choose.
#
# **By hand.** Points (1, 2), (3, 4), (5, 6): the mean is (3, 4), and the rest lies on the diagonal, $v_1 = (1, 1)/\sqrt 2$.
# Scores: $-2.83,\; 0,\; 2.83$. Nothing is left for a second component: its scores are 0.


# %% name="pca_project" role="solution"
def pca_project(features, n):
    """Scores of the first n principal components.

    features: float tensor (N, D): N points of D numbers; N may be smaller or larger than D
    n:        number of components, at most min(N, D)

    Returns (N, n): the component of largest variance first. Scores keep their variance. Either sign of a column is right.
    """
    ### BEGIN SOLUTION: centre, find the directions, project
    centred = features - features.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:n].T
    ### END SOLUTION


# %% name="check_pca_project" role="check"
check(pca_project)

# %% [markdown] name="pca_after"
# Neighbourhoods of the cup, 147 numbers each. Their first three components, as red, green and blue; and how much of the
# variance the first ten hold.


# %% name="pca_figure" role="show"
def as_colours(scores, shape):
    """The first three columns as an image (H, W, 3): each from its 2nd to its 98th percentile."""
    low, high = scores[:, :3].quantile(torch.tensor([0.02, 0.98], dtype=scores.dtype), dim=0)
    return ((scores[:, :3] - low) / (high - low)).clamp(0, 1).reshape(*shape, 3)


windows = torch.nn.functional.unfold(torch.nn.functional.pad(cup[None], [3] * 4, mode="replicate"), 7)[0].T
scores = torch.as_tensor(use(pca_project)(windows, 10)).float()
share = scores.var(dim=0) / windows.var(dim=0).sum()
fig, axes = plt.subplots(1, 4, figsize=(12, 2.5), layout="constrained")
axes[0].imshow(cup.permute(1, 2, 0))
axes[1].imshow(as_colours(scores, shape))
axes[2].imshow(painted(kmeans(scores, 6, 15)[0][-1], shape))
for ax, title in zip(axes, ("image", "components 1 to 3", "6 clusters of 10 components")):
    ax.set(title=title, xticks=[], yticks=[])
axes[3].bar(range(1, 11), share, color="#0072B2")
axes[3].set(title=f"{float(share.sum()):.0%} of the variance", xlabel="component")
show(fig, alt="A cup, three components of its neighbourhoods as colours, clusters of ten components, falling bars.")

# %% [markdown] name="ncut_value_idea"
# ## 5. The normalised cut (3 points)
#
# **Idea.** Now no centres: a **graph**. Pixels are nodes, and an edge between two of them weighs as much as they are alike.
# A segmentation removes edges. Which ones? The cheapest set that parts the graph in two often parts one single pixel from
# the rest, for a single pixel has few edges. Shi and Malik (2000) ask for more: what is cut must be little **compared
# with all that each side is tied to**.
#
# **Formula.** $A$ and $B$ are the two sides, $V$ all nodes, $W$ the symmetric matrix of weights:
#
# $$ \mathrm{cut}(A, B) = \sum_{i \in A,\, j \in B} W_{ij}, \qquad \mathrm{assoc}(A, V) = \sum_{i \in A,\, j \in V} W_{ij}, $$
#
# $$ \mathrm{Ncut} = \frac{\mathrm{cut}(A, B)}{\mathrm{assoc}(A, V)} + \frac{\mathrm{cut}(A, B)}{\mathrm{assoc}(B, V)} . $$
#
# The diagonal, what ties a node to itself, counts in assoc like everything else in its row. A side without any weight (an
# isolated node, or no node at all) has nothing to cut: its fraction is **0**.
#
# **By hand.** Three nodes in a chain, $W_{01} = 3$, $W_{12} = 1$, zeros on the diagonal. $A = \{0, 1\}$: the cut is 1,
# assoc(A) $= 3 + (3 + 1) = 7$, assoc(B) $= 1$; Ncut $= 1/7 + 1 = 1.14$. $A = \{0\}$: $3/3 + 3/5 = 1.6$.


# %% name="ncut_value" role="solution"
def ncut_value(weights, inside):
    """What the normalised cut costs.

    weights: float tensor (N, N), symmetric, at least 0; the diagonal need not be 0
    inside:  bool tensor (N,): True for the nodes of A, False for those of B; one side may be empty

    Returns a number from 0 to 2.
    """
    ### BEGIN SOLUTION: the cut, once; the association of each side; two fractions, each 0 where there is nothing
    cut = float(weights[inside][:, ~inside].sum())
    associations = (float(weights[side].sum()) for side in (inside, ~inside))
    return sum(cut / association for association in associations if association > 0)
    ### END SOLUTION


# %% name="check_ncut_value" role="check"
check(ncut_value)

# %% [markdown] name="ncut_after"
# Two groups of points on a line, and one point off to the right. Each split has its cost. Where is the minimum cut, and
# where the minimum of yours?

# %% name="ncut_figure" role="show"
rng = np.random.default_rng(2)
line = torch.from_numpy(np.sort(np.concatenate([rng.normal(0, 0.6, 14), rng.normal(4.2, 0.6, 12), [8.0]])))
alike = torch.exp(-((line[:, None] - line) ** 2) / 2)
splits = range(1, len(line))
cost = use(ncut_value)
ncuts = [float(cost(alike, torch.arange(len(line)) < t)) for t in splits]
cuts = [float(alike[:t, t:].sum()) for t in splits]
fig, axes = plt.subplots(1, 2, figsize=(10, 2.6), layout="constrained")
for ax, name, values in zip(axes, ("cut", "normalised cut"), (cuts, ncuts)):
    best = int(np.argmin(values))
    ax.plot((line[:-1] + line[1:]) / 2, values, "-o", markersize=3, color="#0072B2")
    ax.plot(line, np.zeros(len(line)), "|", markersize=12, color="#1b1b1b")
    ax.axvline(float(line[best] + line[best + 1]) / 2, color="#D55E00", linestyle="--")
    ax.set(title=f"{name}: best behind point {best + 1}", xlabel="points (bars) and splits (dots)")
show(fig, alt="Points on a line in two groups and one apart. The least cut parts the one, the least Ncut the groups.")

# %% [markdown] name="watershed_markers_idea"
# ## 6. Markers for the watershed (3 points)
#
# **Idea.** Cells, or coins, that touch are one blob for every threshold. But blobs have necks. The **distance** to the
# background is large in the middle of each cell and small at a neck. Turn it upside down, and each cell is a valley; pour
# water into each, and where two waters meet is the border: a **watershed**. What it needs from you is where to pour: one
# marker for each summit of the distance.
#
# **Definition.** $d$ is the Euclidean distance of a pixel of the mask to the nearest pixel outside the mask
# (`scipy.ndimage.distance_transform_edt`; beyond the border of the image there is no background). A pixel of the mask is a
# **summit** if no pixel in the square window around it, which reaches `min_distance` rows and columns to each side, has a
# larger $d$. Windows are cut off at the border of the image. Summits that touch, also at a corner, are **one** marker.
# Markers are numbered 1, 2, ... in reading order of their first pixels, as `scipy.ndimage.label` does.
#
# **By hand.** A row of the mask, 0 1 1 1 1 0 1: the distances are 0 1 2 2 1 0 1. With `min_distance` 1 the summits are both 2s,
# which touch: marker 1. The last pixel is higher than its only neighbour: marker 2. The result is 0 0 1 1 0 0 2. With
# `min_distance` 3 the last pixel meets a 2 in its window, and is none.


# %% name="watershed_markers" role="solution"
def watershed_markers(mask, min_distance):
    """One number for each summit of the distance to the background.

    mask:         bool tensor (H, W), never True everywhere; it may be False everywhere
    min_distance: how many rows and columns the window reaches to each side, at least 1

    Returns integers (H, W): 1, 2, ... at the summits, as defined above, 0 elsewhere.
    """
    ### BEGIN SOLUTION: distances, their largest value in each window, the summits in the mask, numbers for groups
    import scipy.ndimage as nd

    distance = nd.distance_transform_edt(mask.numpy())
    highest = nd.maximum_filter(distance, size=2 * min_distance + 1)
    summits = (distance == highest) & mask.numpy()
    return torch.from_numpy(nd.label(summits, structure=np.ones((3, 3)))[0])
    ### END SOLUTION


# %% name="check_watershed_markers" role="check"
check(watershed_markers)

# %% [markdown] name="watershed_after"
# Drawn cells that touch, with wavy outlines. The flood rises from your markers: the deepest pixel first, and each gets the
# number of the water that reaches it first. Where is the eighth marker with `min_distance` 1? Which are lost with 25?

# %% name="watershed_figure" role="show"
from heapq import heappop, heappush

from scipy import ndimage


def flood(depth, markers):
    """Spread the markers over all pixels of depth > 0, the deepest first."""
    labels, queue = np.array(markers), []
    for y, x in np.argwhere(labels):
        heappush(queue, (-depth[y, x], len(queue), y, x))
    while queue:
        _, turn, y, x = heappop(queue)
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < len(depth) and 0 <= u < depth.shape[1] and depth[v, u] > 0 and not labels[v, u]:
                labels[v, u] = labels[y, x]
                heappush(queue, (-depth[v, u], turn + depth.size, v, u))
    return labels


y, x = np.mgrid[:90, :150]
cells = torch.zeros(90, 150, dtype=torch.bool)
discs = [(30, 28, 17), (48, 52, 15), (24, 60, 13), (60, 110, 22), (38, 134, 11), (70, 20, 12), (0, 100, 16)]
for n, (r, c, s) in enumerate(discs):
    waves = 1 + 0.09 * np.sin(5 * np.arctan2(y - r, x - c) + n)
    cells |= torch.from_numpy(np.hypot(y - r, x - c) <= s * waves)
depth = ndimage.distance_transform_edt(cells)
fig, axes = plt.subplots(1, 4, figsize=(13, 2.4), layout="constrained")
axes[0].imshow(depth, cmap="cividis")
axes[0].set(title=f"distance; {ndimage.label(cells)[1]} blobs, {len(discs)} cells")
for ax, reach in zip(axes[1:], (1, 5, 25)):
    markers = np.asarray(use(watershed_markers)(cells, reach))
    ax.imshow(np.concatenate([np.ones((1, 3)), palette(int(markers.max()))])[flood(depth, markers)])
    ax.plot(*np.argwhere(markers).T[::-1], "k.", markersize=3)
    ax.set(title=f"min_distance {reach}: {markers.max()} cells")
for ax in axes:
    ax.set(xticks=[], yticks=[])
show(fig, alt="Seven wavy discs that touch, and their flood from too many markers, from seven, and from too few.")

# %% [markdown] name="train_text"
# ## Features that nobody designed
#
# Colour, place, neighbourhood: we chose these. A network that learnt **without a single label** gives every patch of an image
# some hundred numbers of its own. Group them with your functions: the image, its feature map, the points along two
# components, the segmentation. At the GPU scale this is DINOv2's ViT-S/14 (84 MiB are fetched once), on a CPU our own small
# one, which saw nothing but scenes that this course drew. `PHOTO` takes an image of yours.

# %% name="features_parts" role="train"
from PIL import Image
from segedu.weights import catalogue, pretrained
from segedu.backbones.vit import ViT
from skimage.data import astronaut
from sklearn.datasets import load_sample_image
from tqdm.auto import tqdm


def small_vit():
    """64 numbers for each patch of 4 x 4 pixels, before it has learnt anything."""
    torch.manual_seed(0)
    return ViT(**catalogue.SCENES_VIT).eval()


def load_vit(name):
    """A Vision Transformer that has learnt; our own small one where the official file cannot be had."""
    try:
        if name != "small":
            return pretrained.load(name)
    except pretrained.WeightsError as error:
        print(f"{error}\nThis cell goes on with the small one.")
    return pretrained.load("scenes_vit")


def resized(photo, side, patch):
    """(1, 3, H, W) in [0, 1]: the longer side has about `side` pixels, and both are multiples of the patch."""
    image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
    size = [round(n * side / max(image.shape[2:]) / patch) * patch for n in image.shape[2:]]
    return torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)


def patch_features(vit, images):
    """(B, 3, H, W) -> (B, D, h, w), on the CPU."""
    with torch.no_grad():
        return vit(images.to(device))["patches"].cpu()


# %% name="features" role="train"
SCALE = "gpu" if torch.cuda.is_available() else "cpu"
PHOTO = None  # for example "my_street.jpg"
name, side, scenes = {"cpu": ("small", 192, 6), "gpu": ("dinov2_vits14", 518, 48)}[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
photos = {"coffee": coffee(), "astronaut": astronaut(), "china": load_sample_image("china.jpg")}
if PHOTO:
    photos = {PHOTO: Image.open(PHOTO).convert("RGB"), **photos}
vit, seen = load_vit(name).to(device), {}
for title, photo in tqdm(photos.items(), "features"):
    picture = resized(photo, side, vit.patch_size)
    seen[title] = (picture[0], patch_features(vit, picture)[0])

# %% name="features_figure" role="train"
fig, axes = plt.subplots(len(seen), 4, figsize=(11, 2.5 * len(seen)), layout="constrained", squeeze=False)
for line, (title, (picture, features)) in zip(axes, seen.items()):
    size = features.shape[1:]
    scores = torch.as_tensor(use(pca_project)(features.flatten(1).T, 10)).float()
    labels = kmeans(scores, 5, 20)[0][-1]
    line[0].imshow(picture.permute(1, 2, 0))
    line[1].imshow(as_colours(scores, size))
    line[2].scatter(scores[:, 0], scores[:, 1], c=painted(labels, (1, -1))[0], s=5)
    line[3].imshow(painted(labels, size))
    names = (title, f"{len(features)} numbers, as colours", "components 1 and 2", "5 clusters")
    for ax, text in zip(line, names):
        ax.set(title=text, xticks=[], yticks=[])
show(
    fig, alt=f"{', '.join(seen)}: each with its feature map, a scatter of two components in 5 colours, and 5 clusters."
)

# %% [markdown] name="score_text"
# Which features group best? On streets whose truth we know, each description gets as many clusters as the street has classes.
# The **adjusted Rand index** asks of all pairs of pixels whether truth and clusters agree on "together" or "apart": 1 is the
# same grouping, 0 what chance gives. Names of clusters do not matter. The patches of a ViT are coarse, which costs it some.

# %% name="score" role="train"
from segedu.datasets.street import draw_street
from sklearn.metrics import adjusted_rand_score

features_of = {
    "colour": lambda image: image,
    "colour and place": lambda image: torch.as_tensor(use_place(image, 0.5)).float().T.unflatten(1, image.shape[1:]),
    "ViT before it learnt": lambda image: components(patch_features(blank_vit, image[None])[0]),
    "ViT": lambda image: components(patch_features(vit, image[None])[0]),
}
use_place, use_pca, blank_vit = use(xy_features), use(pca_project), small_vit().to(device)


def components(features):
    """(D, h, w) -> its first 10 principal components (10, h, w)."""
    scores = torch.as_tensor(use_pca(features.flatten(1).T, 10)).float()
    return scores.T.unflatten(1, features.shape[1:])


found = {kind: [] for kind in features_of}
size = [n // vit.patch_size * vit.patch_size for n in ((96, 144) if SCALE == "cpu" else (336, 504))]
for seed in tqdm(range(scenes), "streets"):
    street = draw_street(seed, size)
    truth, known = street["semantic"], street["semantic"] != 255
    for kind, describe in features_of.items():
        points = describe(street["image"])
        labels = kmeans(points.flatten(1).T, len(truth[known].unique()), 12)[0][-1].reshape(1, 1, *points.shape[1:])
        labels = torch.nn.functional.interpolate(labels.double(), size, mode="nearest")[0, 0]
        found[kind].append(adjusted_rand_score(truth[known].numpy(), labels[known].numpy()))
for kind, values in found.items():
    print(f"{kind:<22}{np.mean(values):.2f} on {len(values)} streets, from {min(values):.2f} to {max(values):.2f}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** All pixels of an image are 0 or 1. How many thresholds are equally good, and which one does Otsu's rule with 256
# bins give?
#
# <details><summary>Answer</summary>
# All of them: every split has the same two groups. The first is asked for, the centre of the first bin, 1/512.
# </details>
#
# **2.** Find the slip: "k-means finds the best k clusters."
#
# <details><summary>Answer</summary>
# It comes to rest where no single step helps, which depends on the first centres. Try several, and keep the smallest sum. And
# k is yours to choose: the sum falls with every further centre, so it cannot tell.
# </details>
#
# **3.** Colours go from 0 to 255 instead of 0 to 1. How must the weight of the place change for the same clusters?
#
# <details><summary>Answer</summary>
# It is 255 times as large. Only the ratio counts: if all coordinates are multiplied by the same number, no nearest centre
# changes.
# </details>
#
# **4.** Features of 384 numbers at 20 patches. How many components can have any variance?
#
# <details><summary>Answer</summary>
# 19. Twenty points lie in a space of 19 directions around their mean.
# </details>
#
# **5.** Find the slip: "The minimum cut of a graph is a good segmentation, since it removes the weakest edges."
#
# <details><summary>Answer</summary>
# It adds up what it removes. A single pixel has few edges, so cutting it off is cheap even if they are strong. The normalised
# cut asks what share of the side's edges that is: for a single pixel nearly all, close to 1.
# </details>
#
# **6.** A cell is not round but long, with a slight waist. What will the watershed of its distance do, and what can you do
# about it?
#
# <details><summary>Answer</summary>
# Two summits, so it is cut at the waist. A larger `min_distance` joins them, until it also joins cells that are neighbours:
# no single number serves long and small cells alike. Chapter 9 lets a network predict what tells them apart.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 2](../course/02-clustering/index.md): mean shift, graph cut, superpixels, and how DINO learns.
# - Change one thing: `xy_features` of Lab colours, a k-means with the best of ten starts, or your own image as `PHOTO`.
# - Which of your segmentations would you call good, and by how much? That needs a number: [lab 4](04_metrics.ipynb).
