# %% [markdown] name="title"
# # Lab 2: Segmentation as clustering
#
# Can you segment an image without labels and without training? The methods of this lab describe every pixel by a few
# values, its features. They measure how similar two pixels are, and group similar pixels. Most of these methods are
# older than deep learning. They are in use again today, with features that a network has learned without labels.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 2](../course/02-clustering/index.md), which you can also read beside the lab; mean and
# variance; matrix products and eigenvectors for exercise 4. You do not need an earlier lab.
#
# Run the cells from top to bottom. Until your function for an exercise passes its check, later cells use the library's
# function instead, so the notebook always runs to its end.
#
# Your functions may call other libraries. They may not call a ready-made solution of an exercise, such as
# `sklearn.decomposition.PCA`: such functions are not available during checks and grading
# ([full list](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## Goals
#
# After this lab you can
#
# - compute a threshold by Otsu's method, and recognise images that no single threshold can segment;
# - implement a step of k-means, state what k-means minimises, and explain how the result depends on the first centres;
# - add the position of a pixel to its colour, and choose the weight between the two;
# - visualise features with hundreds of values by their principal components;
# - explain why a minimum cut tends to separate single pixels, and how the normalised cut avoids this;
# - separate touching cells by a watershed with one marker per cell.
#
# Most of these methods treat an image as a set of points in a feature space. The next figure shows a photograph and
# its pixels as points, whose coordinates are the red and the blue value of the pixel. Which groups of points do you
# see, and to which objects do they belong?

# %% name="picture" role="show"
from segedu.viz import palette, show
from skimage.data import coffee, coins


def small_image(photo, shrink):
    """Convert (H, W, 3) in [0, 255] to (3, H, W) in [0, 1], and average blocks of shrink x shrink pixels."""
    image = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
    return torch.nn.functional.avg_pool2d(image, shrink)


cup = small_image(coffee(), 4)
colours = cup.flatten(1).T.numpy()
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", width_ratios=(1.3, 1))
axes[0].imshow(cup.permute(1, 2, 0))
axes[0].set(xticks=[], yticks=[], title=f"image, {cup.shape[1]} x {cup.shape[2]} pixels")
axes[1].scatter(colours[::3, 0], colours[::3, 2], c=colours[::3], s=3)
axes[1].set(xlabel="red", ylabel="blue", title="every third pixel as a point", aspect="equal")
show(fig, alt="A cup of coffee on a table, and its pixels by their red and blue values: dark brown, orange, white.")

# %% [markdown] name="otsu_idea"
# ## 1. Otsu's threshold (3 points)
#
# **Idea.** The simplest feature of a pixel is its grey value, and the simplest grouping has two groups: dark and
# bright. Where should the threshold between the two groups be? Otsu (1979) evaluates every possible split and chooses
# the one with the largest variance between the groups (**between-class variance**). This variance is large if the
# means of the groups are far apart and neither group is very small.
#
# **Formula.** Compute a histogram with $b$ bins of equal width, from the smallest value to the largest. Every pixel is
# represented by the **centre** of its bin. In the split after bin $t$, the pixels of bins $0$ to $t$ are dark and all
# others are bright. If the two groups have $n_0$ and $n_1$ pixels with means $m_0$ and $m_1$, and $n = n_0 + n_1$, the
# variance between the groups is
#
# $$ \sigma^2(t) = \frac{n_0}{n}\,\frac{n_1}{n}\,(m_0 - m_1)^2, \qquad t = 0, \ldots, b - 2. $$
#
# The threshold is the centre of bin $t$, for the **first** $t$ with the largest $\sigma^2$. The variance of all pixels
# is the sum of the variance between the groups and the variance within them. The same $t$ therefore also minimises the
# variance within the groups.
#
# **Worked example.** Six pixels have the values 0, 1, 1, 6, 7, 8. Four bins of width 2 have the counts 3, 0, 0, 3 and
# the centres 1, 3, 5, 7. The split after bin 0 has the variance $\tfrac12 \cdot \tfrac12 \cdot (1 - 7)^2 = 9$. The
# splits after bins 1 and 2 have the same variance, because an empty bin changes neither group. The first of the three
# splits is chosen, so the threshold is 1.


# %% name="otsu" role="solution"
def otsu(image, bins):
    """Compute Otsu's threshold.

    image: float tensor (H, W); the values may have any range and may be negative
    bins:  b, the number of bins, at least 2. The bins reach from the smallest value of the image to the largest. A
           value on the edge between two bins belongs to the upper bin, and the largest value belongs to the last bin
           (as in np.histogram and torch.histogram).

    Returns a number, the threshold: the centre of the last dark bin in the best split. If several splits are equally
    good, the first one counts. If all pixels have the same value, returns that value.
    """
    ### BEGIN SOLUTION: compute a histogram; find the split with the largest variance; return a bin centre
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
# The next figure shows coins on a dark background. The threshold was computed once for the whole image, and then
# separately for each quarter of the image. Where does the single threshold classify background as coin, and why there?
# Can any threshold separate a coin from a part of the background that has the same grey value?

# %% name="otsu_figure" role="show"
grey = small_image(coins()[..., None], 2)[0]
threshold = use(otsu)
level = float(threshold(grey, 256))
quarters = torch.zeros_like(grey, dtype=torch.bool)
for rows in (slice(0, 75), slice(75, None)):
    for columns in (slice(0, 96), slice(96, None)):
        quarter = grey[rows, columns].contiguous()
        quarters[rows, columns] = quarter > float(threshold(quarter, 256))
fig, axes = plt.subplots(2, 2, figsize=(7.5, 5.4), layout="constrained")
axes = axes.ravel()
axes[1].hist(grey.flatten(), 64, color="#0072B2")
axes[1].axvline(level, color="#D55E00")
axes[1].set(title=f"histogram, threshold {level:.2f}", yticks=[], xlabel="grey value")
panels = {"coins": grey, "one threshold": grey > level, "one per quarter": quarters}
for ax, (title, panel) in zip((axes[0], axes[2], axes[3]), panels.items()):
    ax.imshow(panel, cmap="gray")
    ax.set(title=title, xticks=[], yticks=[])
show(
    fig,
    alt="Coins; the histogram of their grey values with a line at the threshold; "
    "the pixels above one threshold, and the pixels above a threshold per quarter of the image.",
)

# %% [markdown] name="kmeans_step_idea"
# ## 2. One step of k-means (4 points)
#
# **Idea.** Otsu's method finds two groups of points with one feature. k-means finds $k$ groups of points with any
# number of features. It starts with $k$ centres and repeats a step with two halves: it assigns each point to the
# nearest centre, and then moves each centre to the mean of the points assigned to it. It stops when nothing changes.
# In this exercise you write one step.
#
# **Formula.** Neither half of a step can increase the inertia $J$, so the algorithm converges:
#
# $$ J = \sum_i \lVert x_i - c_{l_i} \rVert^2, \qquad l_i = \arg\min_k \lVert x_i - c_k \rVert^2, \qquad
# c_k = \frac{1}{n_k} \sum_{l_i = k} x_i . $$
#
# Here $x_i$ is a point, $l_i$ its label, $c_k$ a centre, and $n_k$ the number of points with label $k$.
#
# **Worked example.** The points 0, 1 and 5 lie on a line, and the centres are 0, 4 and 9. The labels are 0, 0 and 1.
# The new centres are $(0 + 1)/2 = 0.5$, then 5, and then 9: the third centre has no points, so it **keeps its
# position**. A point at 2 would be halfway between the centres 0 and 4. In such a tie, the **first** of the two
# centres is chosen.


# %% name="kmeans_step" role="solution"
def kmeans_step(points, centres):
    """Assign every point to its nearest centre, then move the centres.

    points:  float tensor (N, D)
    centres: float tensor (K, D)

    Returns (labels, new_centres). labels are integers (N,): the index of the nearest old centre by Euclidean distance.
    If several centres are equally near, choose the first. new_centres has the shape (K, D): each centre is the mean of
    its points. A centre without points keeps its position. Do not change the arguments.
    """
    ### BEGIN SOLUTION: find the nearest centre of each point; then take the mean of the points of each centre
    squared = ((points[:, None] - centres[None]) ** 2).sum(dim=2)
    labels = squared.argmin(dim=1)
    new_centres = centres.clone()
    for k in range(len(centres)):
        if (labels == k).any():
            new_centres[k] = points[labels == k].mean(dim=0)
    return labels, new_centres
    ### END SOLUTION


# %% name="check_kmeans_step" role="check"
check(kmeans_step)

# %% [markdown] name="kmeans_step_after"
# The next figure repeats your step on the colours of the photograph, starting from two different sets of centres. In
# the first four panels, each colour is one cluster, and the same colour may mean different clusters for the two
# starts. The last panel shows the inertia from step 2 on, which never increases. Does it reach the same value from both
# starts? Which of the two results is better, and what does the other one miss?


# %% name="kmeans_figure" role="show"
def kmeans(points, k, steps, seed=0):
    """Return the labels after each step, and the inertia of each step. The first centres are random points."""
    step, history, inertias = use(kmeans_step), [], []
    centres = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:k]]
    for _ in range(steps):
        old_centres = centres
        labels, centres = (torch.as_tensor(result) for result in step(points, centres))
        centres = centres.to(points)
        history.append(labels)
        inertias.append(float(((points - old_centres[labels]) ** 2).sum()))
    return history, inertias


def label_colours(labels, shape):
    """Return one colour per label, (H, W, 3)."""
    labels = torch.as_tensor(labels).reshape(shape)
    return palette(int(labels.max()) + 1)[labels.numpy()]


points, shape = cup.flatten(1).T, cup.shape[1:]
runs = [kmeans(points, 5, 20, seed) for seed in (0, 1)]
fig, axes = plt.subplot_mosaic("01;23;44", figsize=(7.5, 7.2), layout="constrained")
panels = [("step 1", runs[0][0][0]), ("step 5", runs[0][0][4]), ("step 20", runs[0][0][19])]
panels.append(("another start, step 20", runs[1][0][19]))
for name, (title, labels) in zip("0123", panels):
    axes[name].imshow(label_colours(labels, shape))
    axes[name].set(title=title, xticks=[], yticks=[])
for (_, inertias), style, start in zip(runs, ("-o", "--s"), ("first", "other")):
    axes["4"].plot(range(2, 21), inertias[1:], style, markersize=3, label=f"{start} start: {inertias[-1]:.0f}")
axes["4"].set(xlabel="step", title="inertia", xticks=[2, 10, 20])
axes["4"].legend()
show(fig, alt="Five clusters after 1, 5 and 20 steps, and clusters from another start, whose inertia ends lower.")

# %% [markdown] name="xy_features_idea"
# ## 3. Colour and position (3 points)
#
# **Idea.** The clusters above consist of hundreds of connected components, because the features contain only the
# colour of a pixel and not its position. If you append the row and the column to the features, clusters of pixels that
# are close together get a smaller inertia than scattered ones.
#
# **Formula.** Colours have a range from 0 to 1, but rows and columns go up to hundreds. Without scaling, only the
# position would matter. Divide both coordinates by the **longer** side of the image, so that one row down is as far as
# one column to the right. Then multiply them by a weight $\lambda$:
#
# $$ f(y, x) = \bigl(I_1, \ldots, I_C,\; \lambda\, y / m,\; \lambda\, x / m\bigr), \qquad m = \max(H, W). $$
#
# The pixels are in reading order: row 0 from left to right, then row 1, and so on.
#
# **Worked example.** An image with one channel has one row of two pixels, 0.3 and 0.9. With $\lambda = 4$ and $m = 2$,
# the points are (0.3, 0, 0) and (0.9, 0, 2).
#
# The figure after the check shows six clusters of the photograph for four weights of the position.


# %% name="xy_features" role="solution"
def xy_features(image, weight):
    """Describe every pixel by its colour and its position.

    image:  float tensor (C, H, W)
    weight: lambda, the weight of the position, at least 0

    Returns a float tensor (H * W, C + 2) with one row per pixel, in reading order. Its columns are the C channels,
    then weight * row / max(H, W), then weight * column / max(H, W). Rows and columns are counted from 0.
    """
    ### BEGIN SOLUTION: append the scaled rows and columns as two more channels; then make one row per pixel
    C, H, W = image.shape
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    position = torch.stack([y, x]) * (weight / max(H, W))
    return torch.cat([image, position.to(image.dtype)]).reshape(C + 2, H * W).T
    ### END SOLUTION


# %% name="check_xy_features" role="check"
check(xy_features)

# %% name="xy_figure" role="show"
describe = use(xy_features)
fig, axes = plt.subplots(2, 2, figsize=(7.5, 5.4), layout="constrained")
for ax, weight in zip(axes.flat, (0.0, 0.5, 1.0, 4.0)):
    labels = kmeans(torch.as_tensor(describe(cup, weight)).float(), 6, 15)[0][-1]
    ax.imshow(label_colours(labels, shape))
    ax.set(title=f"weight {weight:g}", xticks=[], yticks=[])
show(
    fig,
    alt="Six clusters of a cup for four weights of the position. "
    "The clusters are scattered at weight 0, more compact as the weight grows, and mere tiles at weight 4.",
)

# %% [markdown] name="widget_text"
# ## Vary the weight of the position
#
# In the figure above, the clusters become more compact as the weight of the position increases. The widget varies this
# weight, the number of clusters $k$, the colour space and the photograph. For which $k$ does the spoon get a cluster of
# its own? Does another colour space help? From which weight on do the clusters become tiles that ignore the objects? In
# the second photograph, how many clusters cover the sky, and why is it more than one?

# %% name="widget" role="widget"
from segedu.teaching.widgets.clustering import explorer

explorer()

# %% [markdown] name="pca_project_idea"
# ## 4. Principal components (4 points)
#
# **Idea.** The colour of a single pixel contains no information about texture. A neighbourhood of 7 x 7 pixels does,
# but with 3 channels it has 147 values. The features of a network can have 384 values. You cannot plot so many values
# directly. Many of the values are strongly correlated, however, so that a few **directions** contain most of the
# variance. Principal component analysis (PCA) finds these directions.
#
# **Formula.** Subtract from every column its mean: $X_c = X - \bar x$. The first direction $v_1$ has length 1, and the
# points vary most along it. Each further direction is orthogonal to the previous ones and has the largest variance
# that remains. The directions are the eigenvectors of $X_c^\top X_c$ with the largest eigenvalues, which are also the
# right singular vectors in $X_c = U S V^\top$. The **scores** are the coordinates of the points along the first $n$
# directions:
#
# $$ Z = X_c\, V_n \qquad (N \times n). $$
#
# The direction $-v$ is as good as $v$, so you may choose the sign of each column of $Z$.
#
# **Worked example.** The points (1, 2), (3, 4) and (5, 6) have the mean (3, 4). After you subtract it, all points lie
# on the diagonal, so $v_1 = (1, 1)/\sqrt 2$. The scores are $-2.83,\; 0,\; 2.83$. No variance remains for a second
# component, so its scores are all 0.


# %% name="pca_project" role="solution"
def pca_project(features, n):
    """Compute the scores of the first n principal components.

    features: float tensor (N, D): N points with D features each; N may be smaller or larger than D
    n:        number of components, at most min(N, D)

    Returns the scores, (N, n), with the component of largest variance first. Do not scale the scores: they keep their
    variance. Either sign of a column is correct.
    """
    ### BEGIN SOLUTION: subtract the mean, find the directions of largest variance, project onto them
    centred = features - features.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:n].T
    ### END SOLUTION


# %% name="check_pca_project" role="check"
check(pca_project)

# %% [markdown] name="pca_after"
# The next figure uses the 7 x 7 neighbourhoods of the photograph, with 147 values per pixel. The second panel shows the
# first three principal components as red, green and blue. The third panel shows clusters of the first ten components.
# The bars show which fraction of the variance each of these ten components contains. How many components would you
# keep?


# %% name="pca_figure" role="show"
def as_colours(scores, shape):
    """Convert the first three columns to an image (H, W, 3): scale each from its 2nd to its 98th percentile."""
    low, high = scores[:, :3].quantile(torch.tensor([0.02, 0.98], dtype=scores.dtype), dim=0)
    return ((scores[:, :3] - low) / (high - low)).clamp(0, 1).reshape(*shape, 3)


windows = torch.nn.functional.unfold(torch.nn.functional.pad(cup[None], [3] * 4, mode="replicate"), 7)[0].T
scores = torch.as_tensor(use(pca_project)(windows, 10)).float()
explained = scores.var(dim=0) / windows.var(dim=0).sum()
fig, axes = plt.subplots(2, 2, figsize=(7.5, 5.4), layout="constrained")
axes = axes.ravel()
axes[0].imshow(cup.permute(1, 2, 0))
axes[1].imshow(as_colours(scores, shape))
axes[2].imshow(label_colours(kmeans(scores, 6, 15)[0][-1], shape))
for ax, title in zip(axes, ("image", "components 1 to 3", "6 clusters of 10 components")):
    ax.set(title=title, xticks=[], yticks=[])
axes[3].bar(range(1, 11), explained, color="#0072B2")
axes[3].set(title=f"{float(explained.sum()):.0%} of the variance", xlabel="component")
show(
    fig,
    alt="A cup, three principal components of its neighbourhoods as colours, clusters of ten components, "
    "and bars of the variance per component, which fall from left to right.",
)

# %% [markdown] name="ncut_value_idea"
# ## 5. The normalised cut (3 points)
#
# **Idea.** This method has no centres. It represents the image as a **graph**: pixels are nodes, and the weight of the
# edge between two nodes is their similarity. A segmentation into two parts removes all edges between the parts, and
# the sum of the weights of these edges is called the cut. Which segmentation has the best cut? The minimum cut often
# separates one single pixel from the rest, because a single pixel has few edges. Shi and Malik (2000) therefore divide
# the cut by the **total weight of all edges** of each side.
#
# **Formula.** Let $A$ and $B$ be the two sides, $V$ the set of all nodes, and $W$ the symmetric matrix of weights. The
# association of a side is the sum of the weights from its nodes to all nodes:
#
# $$ \mathrm{cut}(A, B) = \sum_{i \in A,\, j \in B} W_{ij}, \qquad
# \mathrm{assoc}(A, V) = \sum_{i \in A,\, j \in V} W_{ij}, $$
#
# $$ \mathrm{Ncut} =
# \frac{\mathrm{cut}(A, B)}{\mathrm{assoc}(A, V)} + \frac{\mathrm{cut}(A, B)}{\mathrm{assoc}(B, V)} . $$
#
# The diagonal of $W$ holds the weight of each node to itself. It belongs to the association like every other entry of
# the row. If the association of a side is 0 (an isolated node, or no node at all), nothing is cut there, and the
# fraction of this side is defined as **0**.
#
# **Worked example.** Three nodes form a chain with $W_{01} = 3$, $W_{12} = 1$ and zeros on the diagonal. For
# $A = \{0, 1\}$, the cut is 1, assoc(A) $= 3 + (3 + 1) = 7$ and assoc(B) $= 1$, so Ncut $= 1/7 + 1 = 1.14$. For
# $A = \{0\}$, it is $3/3 + 3/5 = 1.6$. Of these two splits, the first has the smaller Ncut.


# %% name="ncut_value" role="solution"
def ncut_value(weights, inside):
    """Compute the normalised cut between two sides of a graph.

    weights: float tensor (N, N), symmetric, with entries of at least 0; the diagonal may differ from 0
    inside:  bool tensor (N,): True for the nodes of A, False for the nodes of B; one side may be empty

    Returns Ncut, a number from 0 to 2. The fraction of a side whose association is 0 is 0.
    """
    ### BEGIN SOLUTION: divide the cut by the association of each side (unless it is 0); add both fractions
    cut = float(weights[inside][:, ~inside].sum())
    associations = (float(weights[side].sum()) for side in (inside, ~inside))
    return sum(cut / association for association in associations if association > 0)
    ### END SOLUTION


# %% name="check_ncut_value" role="check"
check(ncut_value)

# %% [markdown] name="ncut_after"
# The next figure shows points on a line: two groups, and one isolated point at the right. The curves show the cut and
# the normalised cut of every split of this line into a left and a right side. A dashed line marks the minimum. Which
# points does the minimum cut separate, and which does the minimum of your normalised cut?

# %% name="ncut_figure" role="show"
rng = np.random.default_rng(2)
positions = torch.from_numpy(np.sort(np.concatenate([rng.normal(0, 0.6, 14), rng.normal(4.2, 0.6, 12), [8.0]])))
weights = torch.exp(-((positions[:, None] - positions) ** 2) / 2)
splits = range(1, len(positions))
ncut = use(ncut_value)
ncuts = [float(ncut(weights, torch.arange(len(positions)) < t)) for t in splits]
cuts = [float(weights[:t, t:].sum()) for t in splits]
fig, axes = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
for ax, name, values in zip(axes, ("cut", "normalised cut"), (cuts, ncuts)):
    best = int(np.argmin(values))
    ax.plot((positions[:-1] + positions[1:]) / 2, values, "-o", markersize=3, color="#0072B2")
    ax.plot(positions, np.zeros(len(positions)), "|", markersize=12, color="#1b1b1b")
    ax.axvline(float(positions[best] + positions[best + 1]) / 2, color="#D55E00", linestyle="--")
    ax.set(title=f"{name}: minimum after point {best + 1}", xlabel="points (black bars) and splits (blue dots)")
show(
    fig,
    alt="Two groups of points and one isolated point on a line. "
    "The minimum cut separates the isolated point, the minimum normalised cut separates the two groups.",
)

# %% [markdown] name="watershed_markers_idea"
# ## 6. Markers for the watershed (3 points)
#
# **Idea.** No threshold separates cells that touch: they form one connected component. But two round cells that touch
# have a narrow neck between them. The **distance** of a pixel to the background is large in the middle of each cell
# and small at the neck. The negative distance is a landscape in which each cell is a valley. The **watershed** floods
# this landscape: water rises from a marker in each valley, and the border between two cells is where the water of
# their markers meets. The watershed needs one marker per cell. You compute these markers from the local maxima of the
# distance.
#
# **Definition.** Let $d$ be the Euclidean distance of a pixel of the mask to the nearest pixel outside the mask
# (`scipy.ndimage.distance_transform_edt`; there is no background beyond the border of the image).
#
# - The window of a pixel is a square that reaches `min_distance` rows and columns to each side. It ends at the border
#   of the image.
# - A pixel of the mask is a **local maximum** if no pixel in its window has a larger $d$.
# - Maxima that touch, also at a corner, form **one** marker.
# - Markers are numbered 1, 2, ... in the reading order of their first pixels, like the labels of
#   `scipy.ndimage.label`.
#
# **Worked example.** An image has one row, and its mask is 0 1 1 1 1 0 1. The distances are 0 1 2 2 1 0 1. With
# `min_distance` 1, both pixels with distance 2 are maxima. They touch, so they form marker 1. The last pixel has a
# larger distance than its only neighbour, so it is marker 2. The result is 0 0 1 1 0 0 2. With `min_distance` 3, the
# window of the last pixel contains a distance of 2, so the last pixel is not a maximum.


# %% name="watershed_markers" role="solution"
def watershed_markers(mask, min_distance):
    """Compute one marker for each local maximum of the distance to the background.

    mask:         bool tensor (H, W), never True everywhere; it may be False everywhere
    min_distance: the number of rows and columns that the window reaches to each side, at least 1

    Returns integers (H, W): the number of the marker, 1, 2, ..., at the local maxima as defined above, and 0
    elsewhere. An empty mask has no markers.
    """
    ### BEGIN SOLUTION: find the pixels of the mask with the largest distance in their window; number them
    import scipy.ndimage as nd

    distance = nd.distance_transform_edt(mask.numpy())
    highest = nd.maximum_filter(distance, size=2 * min_distance + 1)
    maxima = (distance == highest) & mask.numpy()
    return torch.from_numpy(nd.label(maxima, structure=np.ones((3, 3)))[0])
    ### END SOLUTION


# %% name="check_watershed_markers" role="check"
check(watershed_markers)

# %% [markdown] name="watershed_after"
# The next figure shows seven synthetic cells with wavy outlines, some of which touch. The watershed floods the cells
# from your markers (black dots). It always processes the pixel with the largest distance first, and each pixel gets the
# label of the marker whose water reaches it first. With `min_distance` 1 there are more markers than cells. Where is
# the extra marker? Which cells have no marker of their own with `min_distance` 25?

# %% name="watershed_figure" role="show"
from heapq import heappop, heappush

from scipy import ndimage


def flood(depth, markers):
    """Extend the markers to all pixels of depth > 0, the deepest pixel first."""
    labels, queue = np.array(markers), []
    for y, x in np.argwhere(labels):
        heappush(queue, (-depth[y, x], len(queue), y, x))
    while queue:
        _, order, y, x = heappop(queue)
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < len(depth) and 0 <= u < depth.shape[1] and depth[v, u] > 0 and not labels[v, u]:
                labels[v, u] = labels[y, x]
                heappush(queue, (-depth[v, u], order + depth.size, v, u))
    return labels


y, x = np.mgrid[:90, :150]
cells = torch.zeros(90, 150, dtype=torch.bool)
discs = [(30, 28, 17), (48, 52, 15), (24, 60, 13), (60, 110, 22), (38, 134, 11), (70, 20, 12), (0, 100, 16)]
for n, (r, c, s) in enumerate(discs):
    waves = 1 + 0.09 * np.sin(5 * np.arctan2(y - r, x - c) + n)
    cells |= torch.from_numpy(np.hypot(y - r, x - c) <= s * waves)
depth = ndimage.distance_transform_edt(cells)
fig, axes = plt.subplots(2, 2, figsize=(8, 5.2), layout="constrained")
axes = axes.ravel()
axes[0].imshow(depth, cmap="cividis")
axes[0].set(title=f"distance; {ndimage.label(cells)[1]} components, {len(discs)} cells")
for ax, reach in zip(axes[1:], (1, 5, 25)):
    markers = np.asarray(use(watershed_markers)(cells, reach))
    ax.imshow(np.concatenate([np.ones((1, 3)), palette(int(markers.max()))])[flood(depth, markers)])
    ax.plot(*np.argwhere(markers).T[::-1], "k.", markersize=3)
    ax.set(title=f"min_distance {reach}: {markers.max()} markers")
for ax in axes:
    ax.set(xticks=[], yticks=[])
show(
    fig,
    alt="The distance map of seven wavy discs, some of which touch; "
    "and their watershed from too many markers, from seven, and from too few.",
)

# %% [markdown] name="train_text"
# ## Learned features
#
# Colour, position and neighbourhood are features that people have designed. Networks can also learn features **without
# a single label**, by self-supervised learning. Such a network computes tens or hundreds of values for every patch of
# an image. The next cells group these features with your functions. For each photograph, the figure shows the image,
# its feature map (the first three principal components as red, green and blue), the patches as points along the first
# two components, and the segmentation.
#
# On a GPU, the network is DINOv2's ViT-S/14, whose weights (84 MiB) are downloaded once. On a CPU it is a small network
# of this course, which was trained on synthetic scenes only. To use an image of your own, set `PHOTO` to its path.

# %% name="features_parts" role="train"
from PIL import Image
from segedu.weights import catalogue, pretrained
from segedu.backbones.vit import ViT
from skimage.data import astronaut
from sklearn.datasets import load_sample_image
from tqdm.auto import tqdm


def small_vit():
    """Create the small network without training: 64 features per patch of 4 x 4 pixels."""
    torch.manual_seed(0)
    return ViT(**catalogue.SCENES_VIT).eval()


def load_vit(name):
    """Load a trained vision transformer, or the small one of this course if the download fails."""
    try:
        if name != "small":
            return pretrained.load(name)
    except pretrained.WeightsError as error:
        print(f"{error}\nThis cell continues with the small network.")
    return pretrained.load("scenes_vit")


def resize(photo, side, patch):
    """Return (1, 3, H, W) in [0, 1]. The longer side has about `side` pixels; both are multiples of the patch."""
    image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
    size = [round(n * side / max(image.shape[2:]) / patch) * patch for n in image.shape[2:]]
    return torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)


def patch_features(vit, images):
    """Compute the features of all patches: (B, 3, H, W) -> (B, D, h, w), on the CPU."""
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
vit, maps = load_vit(name).to(device), {}
for title, photo in tqdm(photos.items(), "features"):
    images = resize(photo, side, vit.patch_size)
    maps[title] = (images[0], patch_features(vit, images)[0])

# %% name="features_figure" role="train"
fig, axes = plt.subplots(len(maps), 4, figsize=(11, 2.5 * len(maps)), layout="constrained", squeeze=False)
for row, (title, (image, features)) in zip(axes, maps.items()):
    size = features.shape[1:]
    scores = torch.as_tensor(use(pca_project)(features.flatten(1).T, 10)).float()
    labels = kmeans(scores, 5, 20)[0][-1]
    row[0].imshow(image.permute(1, 2, 0))
    row[1].imshow(as_colours(scores, size))
    row[2].scatter(scores[:, 0], scores[:, 1], c=label_colours(labels, (1, -1))[0], s=5)
    row[3].imshow(label_colours(labels, size))
    names = (title, f"{len(features)} features, as colours", "components 1 and 2", "5 clusters")
    for ax, text in zip(row, names):
        ax.set(title=text, xticks=[], yticks=[])
show(
    fig,
    alt=f"{', '.join(maps)}: each image with its feature map as colours, a scatter plot of two components, "
    "and its segmentation into 5 clusters.",
)

# %% [markdown] name="score_text"
# Which features give the best clusters? The next cell compares four descriptions of a pixel on synthetic streets, for
# which the ground truth is known. Each method gets as many clusters as the street has classes.
#
# The score is the **adjusted Rand index**. It considers all pairs of pixels, and counts how often the ground truth and
# the clustering agree that a pair belongs to the same group or to different groups. The index is 1 for identical
# groupings, and 0 on average for random ones. It does not depend on the labels of the clusters. The patches of a ViT
# are larger than a pixel, which lowers the score of both ViTs.

# %% name="score" role="train"
from segedu.datasets.street import draw_street
from sklearn.metrics import adjusted_rand_score

features_of = {
    "colour": lambda image: image,
    "colour and position": lambda image: torch.as_tensor(use_xy(image, 0.5)).float().T.unflatten(1, image.shape[1:]),
    "untrained ViT": lambda image: components(patch_features(untrained_vit, image[None])[0]),
    "trained ViT": lambda image: components(patch_features(vit, image[None])[0]),
}
use_xy, use_pca, untrained_vit = use(xy_features), use(pca_project), small_vit().to(device)


def components(features):
    """Compute the first 10 principal components of a feature map: (D, h, w) -> (10, h, w)."""
    scores = torch.as_tensor(use_pca(features.flatten(1).T, 10)).float()
    return scores.T.unflatten(1, features.shape[1:])


rand_indices = {kind: [] for kind in features_of}
size = [n // vit.patch_size * vit.patch_size for n in ((96, 144) if SCALE == "cpu" else (336, 504))]
for seed in tqdm(range(scenes), "streets"):
    street = draw_street(seed, size)
    target, labelled = street["semantic"], street["semantic"] != 255
    for kind, describe in features_of.items():
        points = describe(street["image"])
        labels = kmeans(points.flatten(1).T, len(target[labelled].unique()), 12)[0][-1].reshape(1, 1, *points.shape[1:])
        labels = torch.nn.functional.interpolate(labels.double(), size, mode="nearest")[0, 0]
        rand_indices[kind].append(adjusted_rand_score(target[labelled].numpy(), labels[labelled].numpy()))
for kind, values in rand_indices.items():
    print(f"{kind:<22}{np.mean(values):.2f} on {len(values)} streets, from {min(values):.2f} to {max(values):.2f}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Every pixel of an image has the value 0 or 1, and both values occur. How many of the 255 splits are equally
# good, and which threshold does Otsu's method with 256 bins give?
#
# <details><summary>Answer</summary>
#
# All of them, because every split gives the same two groups. The first split is chosen, so the threshold is the centre
# of the first bin, 1/512.
#
# </details>
#
# **2.** Find the error: "k-means finds the best k clusters."
#
# <details><summary>Answer</summary>
#
# k-means converges to a local minimum, which depends on the first centres. Run it from several starts and keep the
# result with the smallest inertia. Moreover, you have to choose k yourself: the minimum inertia decreases with every
# additional centre, so it does not show which k is right.
#
# </details>
#
# **3.** Colours range from 0 to 255 instead of from 0 to 1. By which factor must you multiply the weight of the
# position to get the same clusters?
#
# <details><summary>Answer</summary>
#
# By 255. Only the ratio matters: if all features are multiplied by the same factor, the nearest centre of every point
# stays the same.
#
# </details>
#
# **4.** You have 20 patches with 384 features each. How many principal components can have a variance larger than 0?
#
# <details><summary>Answer</summary>
#
# 19. After you subtract their mean, 20 points span at most 19 dimensions.
#
# </details>
#
# **5.** Find the error: "The minimum cut of a graph is a good segmentation, since it removes the weakest edges."
#
# <details><summary>Answer</summary>
#
# The minimum cut minimises the sum of the removed weights, not the strength of each edge. A single pixel has few
# edges, so separating it is inexpensive even if these edges are strong. The normalised cut divides by the total weight
# of the edges of each side. For a single pixel nearly all of this weight is cut, so its fraction is close to 1.
#
# </details>
#
# **6.** A cell is not round but long, with a slight waist. What does the watershed of its distance map do, and how can
# you prevent it?
#
# <details><summary>Answer</summary>
#
# The distance has two local maxima, so the watershed splits the cell at its waist. A larger `min_distance` keeps only
# one of the maxima. A `min_distance` that is too large, however, leaves small cells without a marker, so that they
# merge with their neighbours. No single value suits both long cells and small cells. In chapter 9, a network predicts
# what distinguishes the two cases.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 2](../course/02-clustering/index.md) explain mean shift, graph cuts, superpixels, and how
#   DINO learns.
# - Change one thing: apply `xy_features` to Lab colours, run k-means from ten starts and keep the best result, or set
#   `PHOTO` to an image of your own.
# - How good is a segmentation? To answer this question you need a metric, which is the topic of
#   [lab 4](04_metrics.ipynb).
#
# Before you hand in this notebook, save it, and run `segedu check labs/02_clustering.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
