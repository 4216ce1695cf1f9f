# %% [markdown] name="title"
# # Lab 10: Embeddings and pixel offsets
#
# A network that only classifies each pixel as "cell" or "background" cannot count cells that touch. In this lab, the
# network predicts for every pixel **where the centre of its cell is**. Pixels that point at the same position form one
# cell. You write the target, the Gaussian that selects the pixels of an object, the clustering, and the weights of the
# loss. Then you write two alternatives: a loss for arbitrary vectors, and affinities for pairs of pixels. At the end,
# you train a network that points at centres.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 10](../course/10-embeddings/index.md), which you can read first or alongside this lab, and
# lab 4 for the IoU. The mathematics is vectors and their Euclidean length, the Gaussian function, and the gradient of a
# loss.
#
# Run the cells from top to bottom. Until a function of yours passes its check, later cells use the library's version of
# it, so the notebook always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - compute for each pixel the offset to the centre of its object;
# - assign pixels to objects with a Gaussian, and explain why each object needs its own sigma;
# - extract objects from a map of offsets, starting with the best seed;
# - compute by how much a wrong pixel lowers the IoU, and use this amount as a weight in training;
# - compute the pull and the push of a set of vectors, and the affinities of a label map.
#
# The idea fits into one figure. The cells in the image touch, so connected components do not separate them. Now move
# each pixel towards the centre of its cell. After half of the way there are gaps between the cells, and at the end the
# pixels of each cell form a small cluster.

# %% name="picture" role="show"
from segedu.datasets.cells import draw_cells
from segedu.viz import gallery, show
from segedu.teaching.widgets.embedding import draw_walk

draw_walk()

# %% [markdown] name="offset_target_idea"
# ## 1. The offset to the centre (3 points)
#
# **Idea.** The target of each pixel is an offset: the vector from the pixel to the centre of its object. The centre is
# the **mean position of the object's pixels**. The centre may lie between pixels, and the centre of a banana lies
# outside the banana. Any other point would separate the objects as well, provided that no two objects share it. The
# mean has the advantage that a network can predict it from the surroundings of a pixel.
#
# **Formula.** With the pixels $x_1, \dots, x_N$ of an object,
#
# $$ c = \frac{1}{N} \sum_i x_i, \qquad o_i = \frac{c - x_i}{u} $$
#
# The unit $u$ is a number of pixels. It scales the offsets to a length of about 1, a range that a network can predict
# easily.
#
# **Worked example.** The object is an L of three pixels, in (y, x): (0, 0), (1, 0), (1, 1). Their mean is $(2/3, 1/3)$,
# while the middle of the bounding box is $(1/2, 1/2)$. With $u = 1$, the offset of the first pixel is $(2/3, 1/3)$, and
# that of the last one is $(-1/3, -2/3)$. With $u = 4$, all offsets are a quarter as long.


# %% name="offset_target" role="solution"
def offset_target(label_map, unit):
    """Compute the offset from each pixel to the centre of its object: the mean position of the object's pixels.

    label_map: integer tensor (H, W): 0 is background, every other label is one object. The labels may have gaps. All
               pixels with one label share one centre, even if they are not connected.
    unit:      number of pixels per unit of length; offsets in pixels are divided by it.

    Returns a float tensor (2, H, W), dy before dx: (centre - pixel) / unit, and 0 in the background.

    Example: offset_target(torch.tensor([[5, 5, 5, 0]]), 1.0)[1] is [[1, 0, -1, 0]].
    """
    ### BEGIN SOLUTION: for each label except 0, subtract the positions of its pixels from their mean position
    offsets = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for label in label_map[label_map > 0].unique():
        rows, columns = torch.nonzero(label_map == label, as_tuple=True)
        offsets[0, rows, columns] = (rows.double().mean() - rows) / unit
        offsets[1, rows, columns] = (columns.double().mean() - columns) / unit
    return offsets
    ### END SOLUTION


# %% name="check_offset_target" role="check"
check(offset_target)

# %% [markdown] name="offset_target_after"
# The figure shows your offsets on an image with one large cell and small cells around it. On the left, every third
# pixel of every third row has an arrow that is half as long as its offset. At the border of two cells, neighbouring
# pixels point in opposite directions. This is how offsets separate touching cells.

# %% name="offset_target_figure" role="show"
sample = draw_cells(36, (64, 64), radius=(3.5, 13), touching=0.8, noise=0.5)
image, label_map = sample["image"], sample["label_map"].long()
offsets = torch.as_tensor(np.stack(use(offset_target)(label_map, 1.0))).double()


def draw_arrows(ax, picture, offsets, foreground, title, step=3):
    """Draw the offsets (2, H, W) of every `step`-th foreground pixel on an image, at half their length."""
    ax.imshow(torch.as_tensor(picture).permute(1, 2, 0))
    y, x = torch.nonzero(foreground, as_tuple=True)
    chosen = (y % step == 0) & (x % step == 0)
    y, x = y[chosen], x[chosen]
    ax.quiver(x, y, *offsets.flip(0)[:, y, x], angles="xy", scale_units="xy", scale=2, color="#E69F00", width=0.005)
    ax.set(title=title, xticks=[], yticks=[])


fig, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
draw_arrows(axes[0], image, offsets, label_map > 0, "offsets to the centre, at half their length")
picture = axes[1].imshow(offsets.norm(dim=0), cmap="cividis")
axes[1].set(title="length of the offset in pixels", xticks=[], yticks=[])
fig.colorbar(picture, ax=axes[1], shrink=0.9)
show(
    fig,
    alt="Cells with arrows from their pixels towards their centres; a map of the lengths, 0 in each centre, largest at "
    "the rim.",
)

# %% [markdown] name="gaussian_mask_idea"
# ## 2. Which pixels are near enough? (4 points)
#
# **Idea.** The position of a pixel plus its offset is the pixel's **embedding**: the position at which it points.
# Predicted offsets are never exact. An object therefore contains all pixels whose embeddings lie *near* its centre. A
# Gaussian defines how near an embedding $e$ must be to the centre $c$:
#
# $$ \begin{aligned}
#    \varphi(e) &= \exp\left( - \frac{(e_y - c_y)^2}{2 \sigma_y^2} - \frac{(e_x - c_x)^2}{2 \sigma_x^2} \right), \\
#    \varphi(e) &> \frac{1}{2}
#    \end{aligned} $$
#
# This Gaussian is 1 at the centre for every $\sigma$, because it is not a density. Along one axis, it falls to 1/2 at
# the distance $d = \sigma\sqrt{2 \ln 2} = 1.18\,\sigma$.
#
# **The network predicts $\log \sigma$**, because the output of a network may be negative and $\sigma$ must be positive.
# For example, $\log\sigma = 0$ means $\sigma = 1$.
#
# **Worked example.** Let $\sigma = 1$. At distance 1 the Gaussian is $e^{-1/2} = 0.61$, so the pixel belongs to the
# object. At distance 2 it is $e^{-2} = 0.14$, so the pixel does not. With $\sigma = 2$, a pixel at distance 2 belongs
# to the object, because $e^{-4/8} = 0.61$.


# %% name="gaussian_mask" role="solution"
def gaussian_mask(embeddings, centres, log_sigmas):
    """Assign to each object the pixels whose embedding lies near its centre: where the object's Gaussian is above 1/2.

    embeddings: float tensor (2, H, W): the position at which each pixel points, y before x.
    centres:    float tensor (N, 2), y before x; N may be 0.
    log_sigmas: float tensor (N, 2): log(sigma_y) and log(sigma_x) of each object.

    Returns a bool tensor (N, H, W), one mask per object. Objects are independent: a pixel may belong to two masks.

    Example: embeddings [[[0., 0., 0.]], [[0., 1., 2.]]], one centre (0, 0), log sigmas (0, 0): [[[True, True, False]]].
    """
    ### BEGIN SOLUTION: compute the Gaussians of all objects at all pixels, and compare them with 1/2
    sigmas = log_sigmas.exp()[:, :, None, None]
    differences = embeddings - centres[:, :, None, None]
    exponents = (differences**2 / (2 * sigmas**2)).sum(dim=1)
    return torch.exp(-exponents) > 0.5
    ### END SOLUTION


# %% name="check_gaussian_mask" role="check"
check(gaussian_mask)

# %% [markdown] name="gaussian_mask_after"
# The figure shows long bent bacteria. In the middle panel, pixels are not moved, so each embedding is the position of
# its pixel. Each bacterium is then approximated by an upright ellipse, whose two sigmas are fitted to it. In the right
# panel, pixels are moved by 90 % of their offsets. Now a single sigma of 3 pixels works for all bacteria, because their
# shapes hardly matter any more. Background pixels are excluded from the masks of both panels.

# %% name="gaussian_mask_figure" role="show"
from segedu.datasets.bacteria import draw_bacteria

rods = draw_bacteria(5, (64, 64), rod_length=(18, 45), count=7, noise=0.5)
inside = rods["label_map"] > 0
pixels = torch.stack(torch.meshgrid(*[torch.arange(64.0).double()] * 2, indexing="ij"))
centres = torch.stack([pixels[:, rod].mean(dim=1) for rod in rods["masks"]])
spreads = torch.stack([pixels[:, rod].std(dim=1) for rod in rods["masks"]])
moved = pixels + 0.9 * torch.as_tensor(np.stack(use(offset_target)(rods["label_map"].long(), 1.0)))
settings = {"pixels not moved": (pixels, 1.7 * spreads), "pixels moved by 90 %": (moved, torch.full_like(spreads, 3.0))}
predicted, titles, mask_of = [], [], use(gaussian_mask)
for name, (embeddings, sigmas) in settings.items():
    masks = torch.as_tensor(mask_of(embeddings, centres, sigmas.log())) & inside
    overlap = [float((mask & rod).sum() / (mask | rod).sum()) for mask, rod in zip(masks, rods["masks"])]
    predicted.append(masks)
    titles.append(f"{name}: mean IoU {np.mean(overlap):.2f}")
two_lines = ["ground truth", *(title.replace(": ", ":\n") for title in titles)]
fig = gallery([rods["image"]] * 3, [rods["masks"], *predicted], titles=two_lines, numbers=True, width=2.4)
show(
    fig,
    alt="Bent bacteria: the ground truth, ellipses that include too much and miss too much, and almost exact masks. "
    f"{'; '.join(titles)}.",
)

# %% [markdown] name="widget_text"
# ## Move sigma
#
# The explorer uses two cells of the first figure and **one sigma for both**. Choose a cell, and change sigma with the
# slider or by dragging the circle in the second panel. At first the pixels have moved by a tenth of their offsets
# ("fraction of the offset" is 0.1). Which sigma fits the small cell, and which fits the large one? How good is the best
# compromise, whose IoU is in the title of the plot? Then move the pixels further. What happens to the compromise?
#
# This is the idea of the paper (Neven et al., 2019): nothing about sigma is set in advance. The network learns the
# offsets **and** one sigma per object from a single loss.

# %% name="widget" role="widget"
from segedu.teaching.widgets.embedding import explorer

explorer()

# %% [markdown] name="greedy_cluster_idea"
# ## 3. Extract objects, best seed first (4 points)
#
# **Idea.** In a new image, the centres are unknown. The network therefore predicts one more map, the **seed** map, with
# values from 0 to 1. Inside an object, the seed of a pixel measures how near the embedding of this pixel is to the
# centre. In the background, the seed is 0. The embedding of the pixel with the highest seed, which we also call the
# best seed, is therefore a good estimate of a centre.
#
# **Steps.** The foreground consists of the pixels with a seed above 1/2. All of them are free at first. Repeat:
#
# 1. Only pixels with a seed above `seed_threshold` may start an object. Among the free pixels that may start one, take
#    the pixel with the highest seed, and the first in reading order if several are equally high. This is the start
#    pixel. If no such pixel is left, stop.
# 2. The members are all free pixels at whose embedding a Gaussian is above 1/2. The centre of this Gaussian is the
#    **embedding of the start pixel**, and its sigmas are those of the start pixel.
# 3. If there are at least `min_pixels` members, they become the next object, 1, 2, ..., and are no longer free. If
#    there are fewer, they become no object, and the number remains for the next one. The members stay free, so a later
#    object may include them, but none of them may start an object any more.
#
# **Worked example.** Four pixels point at x = 1, 1.5, 6, 6. Their seeds are 0.8, 0.7, 0.6, 0.9, all sigmas are 1, the
# threshold is 0.75, and one pixel is enough for an object. The last pixel has the highest seed and starts first; the
# third pixel points at the same position, and both become object 1. Then the first pixel starts, and the second one is
# near enough. The result is 2 2 1 1.


# %% name="greedy_cluster" role="solution"
def greedy_cluster(embeddings, sigma, seed, seed_threshold, min_pixels):
    """Extract objects one by one, each around the best remaining seed, by the steps that are listed above.

    embeddings:     float tensor (2, H, W): the position at which each pixel points, y before x, in any unit.
    sigma:          float tensor (2, H, W), above 0: sigma_y and sigma_x of each pixel, in the unit of the embeddings.
    seed:           float tensor (H, W) in [0, 1]; pixels with a seed of at most 1/2 never join an object.
    seed_threshold: only pixels with a seed above it may start an object; it may be below 1/2.
    min_pixels:     an object has at least this many pixels.

    Returns an integer tensor (H, W): 0 for background, 1 for the first object that is extracted, and so on.
    """
    ### BEGIN SOLUTION: mark free pixels and pixels that may start an object, then loop over the three steps
    labels, count = torch.zeros(seed.shape, dtype=torch.int32), 0
    free, may_start = seed > 0.5, seed > seed_threshold
    while (free & may_start).any():
        best = int(torch.where(free & may_start, seed, -1.0).argmax())
        row, column = divmod(best, seed.shape[1])
        centre, start_sigma = embeddings[:, row, column], sigma[:, row, column]
        scaled = (embeddings - centre[:, None, None]) / start_sigma[:, None, None]
        members = free & ((-(scaled**2).sum(dim=0) / 2).exp() > 0.5)
        may_start = may_start & ~members
        if members.sum() >= min_pixels:
            count += 1
            labels[members] = count
            free = free & ~members
    return labels
    ### END SOLUTION


# %% name="check_greedy_cluster" role="check"
check(greedy_cluster)

# %% [markdown] name="greedy_cluster_after"
# The figure shows your clustering for offsets that contain an artificial error of about one pixel. The labels are
# numbered in the order in which the objects are extracted: the most confident seeds come first.

# %% name="greedy_cluster_figure" role="show"
noise = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
embeddings, seed = pixels + 0.8 * offsets + noise, torch.zeros(64, 64, dtype=torch.float64)
for number in range(1, int(label_map.max()) + 1):
    cell = label_map == number
    differences = embeddings[:, cell] - pixels[:, cell].mean(dim=1, keepdim=True)
    seed[cell] = torch.exp(-(differences**2).sum(dim=0) / (2 * 4.0**2))
labels = torch.as_tensor(use(greedy_cluster)(embeddings, torch.full_like(embeddings, 4.0), seed, 0.8, 10)).long()
steps = [torch.where(labels <= count, labels, 0) for count in (1, 3, int(labels.max()))]
titles = ["seed map", "the first object", "three objects", f"all {int(labels.max())} objects"]
fig = gallery([seed.float()] + [image] * 3, [None, *steps], titles=titles, columns=2, numbers=True, width=2.7)
show(
    fig, alt="A seed map, bright on cells and dark between them; then one, three and all extracted cells, with numbers."
)

# %% [markdown] name="lovasz_grad_idea"
# ## 4. How much IoU does a wrong pixel cost? (2 points)
#
# **Idea.** Masks are evaluated by their IoU, so it makes sense to train for the IoU. But the IoU counts pixels, and a
# count has zero gradient almost everywhere with respect to the predictions. The **Lovász** extension turns the count
# into weights. Sort the pixels by their errors, the largest first, and let them become wrong one after another. The
# weight of a pixel is the amount by which the cost $1 - \text{IoU}$ grows when this pixel becomes wrong. The loss is
# $\sum_i \text{error}_i \cdot \text{weight}_i$.
#
# **Formula.** Let $n$ be the number of object pixels. Among the first $k$ pixels, let $o_k$ be object pixels and $b_k$
# background pixels. After these $k$ pixels have become wrong,
#
# $$ \text{cost}_k = 1 - \frac{n - o_k}{n + b_k}, $$
#
# $$ \text{weight}_k = \text{cost}_k - \text{cost}_{k-1}, \qquad \text{cost}_0 = 0 . $$
#
# An object pixel that becomes wrong leaves the intersection. A background pixel that becomes wrong is added to the
# union.
#
# **Worked example.** A background pixel has the error 0.9, and two object pixels have the errors 0.5 and 0.2, so
# $n = 2$. The costs are $1 - 2/3 = 1/3$, $1 - 1/3 = 2/3$ and $1 - 0/3 = 1$. Each weight is $1/3$, and the loss is
# $(0.9 + 0.5 + 0.2)/3 = 0.53$.


# %% name="lovasz_grad" role="solution"
def lovasz_grad(errors, truth):
    """Compute for each pixel by how much 1 - IoU grows if this pixel becomes wrong after those with larger errors.

    errors: float tensor (P,), at least 0; no two are equal.
    truth:  float tensor (P,): the ground truth, 1 on the object and 0 in the background. It may be 0 everywhere; the
            formula still holds.

    Returns a float tensor (P,): the weight of each pixel, in the order of the arguments, not of the sorted errors.

    Example: lovasz_grad(torch.tensor([0.2, 0.9, 0.5]), torch.tensor([1.0, 0.0, 1.0])) is [1/3, 1/3, 1/3].
    """
    ### BEGIN SOLUTION: sort truth by the errors, compute the costs and their increases, and undo the sorting
    order = errors.argsort(descending=True)
    ranked = truth[order]
    intersection = ranked.sum() - ranked.cumsum(dim=0)
    union = ranked.sum() + (1 - ranked).cumsum(dim=0)
    cost = 1 - intersection / union
    weights = torch.zeros_like(cost)
    weights[order] = torch.diff(cost, prepend=cost.new_zeros(1))
    return weights
    ### END SOLUTION


# %% name="check_lovasz_grad" role="check"
check(lovasz_grad)

# %% [markdown] name="lovasz_grad_after"
# The figure shows the weights for the same twelve errors, once for a small and once for a large object. Notice the
# different heights of the bars. Cross-entropy would give the same weight to every pixel. The Lovász weights depend on
# the size of the object. If both pixels of the small object are missing, its IoU is 0, so the cost is 1. If two pixels
# of the large object are missing, the cost is only 2/8.

# %% name="lovasz_grad_figure" role="show"
errors, costs = torch.linspace(1.2, 0.1, 12), use(lovasz_grad)
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained", sharey=True)
for ax, object_size, object_pixels in zip(axes, ("small", "large"), ([1, 4], [1, 2, 4, 5, 6, 8, 9, 11])):
    truth = torch.zeros(12)
    truth[object_pixels] = 1
    weights = torch.as_tensor(costs(errors, truth))
    for value, name, colour, hatch in ((1, "object pixel", "#0072B2", ""), (0, "background pixel", "#E69F00", "///")):
        indices = torch.nonzero(truth == value)[:, 0]
        ax.bar(indices + 1, weights[indices], color=colour, hatch=hatch, edgecolor="#1b1b1b", label=name)
    ax.set(title=f"a {object_size} object: {len(object_pixels)} of 12 pixels", xlabel="pixel, largest error first")
    ax.legend()
axes[0].set_ylabel("weight")
show(
    fig,
    alt="Bar charts of the weights of twelve pixels. The two pixels of a small object have high "
    "weights; the eight pixels of a large object have low weights.",
)

# %% [markdown] name="pull_push_idea"
# ## 5. A second method: pull and push (4 points)
#
# **Idea.** Does an embedding have to be a position in the image? The **discriminative loss** (De Brabandere et al.,
# 2017) allows any vector of $D$ values per pixel. It pulls the vectors of an object towards their mean, and it pushes
# the means of two objects apart. Both forces stop at a margin.
#
# **Formula.** There are $C$ objects. Object $c$ has $N_c$ pixels with the vectors $x_i$ and their mean $m_c$, and $|v|$
# is the Euclidean length of a vector $v$:
#
# $$ \begin{aligned}
#    \text{pull} = \frac{1}{C} &\sum_c \frac{1}{N_c} \sum_{i \in c} \\
#    &\max(0, |x_i - m_c| - \delta_{\text{pull}})^2,
#    \end{aligned} $$
#
# $$ \begin{aligned}
#    \text{push} = \frac{1}{C(C-1)} &\sum_{a \ne b} \\
#    &\max(0, 2\delta_{\text{push}} - |m_a - m_b|)^2
#    \end{aligned} $$
#
# The second sum contains each pair of objects twice, as (a, b) and as (b, a). The third term of the paper, which keeps
# the means near 0, is omitted here.
#
# **Worked example.** The vectors have one value per pixel. Object 1 has the values 0 and 2, object 2 has the value 5,
# and the margins are 0.5 and 3. The means are 1 and 5. Both pixels of object 1 are at distance 1 from their mean, which
# is 0.5 more than the margin, so object 1 contributes $0.5^2 = 0.25$. Object 2 contributes 0. The pull is
# $(0.25 + 0)/2 = 0.125$. The means are 4 apart, which is 2 less than twice the push margin, 6. The push is
# $(2^2 + 2^2)/2 = (4 + 4)/2 = 4$.


# %% name="pull_push" role="solution"
def pull_push(embeddings, label_map, pull_margin, push_margin):
    """Penalise vectors far from the mean of their object, and means of two objects close to each other.

    embeddings:  float tensor (D, H, W): one vector of D values per pixel.
    label_map:   integer tensor (H, W): 0 is background, which is ignored; the labels of objects may have gaps.
    pull_margin: a vector whose distance to its mean is less than this contributes no pull.
    push_margin: two means that are at least 2 * push_margin apart contribute no push.

    Returns (pull, push), two scalars. With one object the push is 0; with none both are 0.
    """
    ### BEGIN SOLUTION: compute the means of the objects, the pull within each object, and the push between any two
    groups = [embeddings[:, label_map == number] for number in label_map.unique() if number > 0]
    means = [group.mean(dim=1) for group in groups]
    pull = push = torch.tensor(0.0)
    for group, mean in zip(groups, means):
        distances = (group - mean[:, None]).norm(dim=0)
        pull = pull + ((distances - pull_margin).clamp(min=0) ** 2).mean() / len(groups)
    for a, first in enumerate(means):
        for b, second in enumerate(means):
            if a != b:
                gap = (2 * push_margin - (first - second).norm()).clamp(min=0)
                push = push + gap**2 / (len(means) * (len(means) - 1))
    return pull, push
    ### END SOLUTION


# %% name="check_pull_push" role="check"
check(pull_push)

# %% [markdown] name="pull_push_after"
# The next cell uses no network. Gradient descent on your loss moves the vectors of two cells directly. At first, the
# vectors of both cells are mixed. At the end, the vectors of each cell lie in a circle of radius $\delta_{\text{pull}}$
# around their mean, the means are $2\delta_{\text{push}}$ apart, and the gradient is 0.

# %% name="pull_push_figure" role="show"
from segedu.teaching.exercises.lab10_embeddings.pull_push import pull_push as library_pull_push

two = torch.tensor([[1] * 40 + [2] * 40])
vectors = torch.randn(2, 1, 80, generator=torch.Generator().manual_seed(1)).requires_grad_()
loss_of = use(pull_push)
try:
    torch.autograd.grad(torch.as_tensor(sum(loss_of(vectors, two, 0.5, 1.5))), vectors)
except RuntimeError:
    print("(Your pull_push does not use torch for every step, so it has no gradient: this cell uses the library's.)")
    loss_of = library_pull_push
fig, axes = plt.subplots(1, 3, figsize=(9.3, 3.4), layout="constrained", sharex=True, sharey=True)
for step in range(121):
    pull, push = loss_of(vectors, two, 0.5, 1.5)
    if step in (0, 6, 120):
        ax = axes[(0, 6, 120).index(step)]
        for number, marker, colour in ((1, "o", "#0072B2"), (2, "^", "#D55E00")):
            group = vectors.detach()[:, two == number]
            ax.scatter(*group, s=14, marker=marker, color=colour, label=f"cell {number}")
            ax.add_patch(plt.Circle(group.mean(1), 0.5, fill=False, ec="#1b1b1b"))
        ax.set(title=f"step {step}: pull {pull.item():.2f}, push {push.item():.2f}", aspect="equal")
    (gradient,) = torch.autograd.grad(pull + push, vectors)
    vectors = (vectors - 4 * gradient).detach().requires_grad_()
axes[0].legend()
show(fig, alt="Vectors of two cells: mixed at first, then moving apart, and finally in two circles that are 3 apart.")

# %% [markdown] name="affinities_idea"
# ## 6. A third method: affinities (3 points)
#
# **Idea.** This method needs neither centres nor vectors. For each pixel, the network predicts whether the pixel one
# step to the left belongs to **the same object**. It predicts the same for other offsets, for example three rows up or
# ten columns to the right. These values are **affinities**. Affinities of near pairs show the outlines. Affinities of
# distant pairs show that two cells are different even where their outline is blurred. A clustering on the graph of
# pixels turns affinities into objects.
#
# **Rule.** For the offset $(dy, dx)$, pixel $(y, x)$ is compared with pixel $(y + dy, x + dx)$. The affinity is
#
# - 1 if both pixels belong to one object;
# - 0 if both lie in the image and do not belong to one object. This includes pairs of which one or both pixels are
#   background, because the background is not an object;
# - 255 if the second pixel lies outside the image, even if the first one is background. The label of the second pixel
#   is unknown, and the loss ignores the pair.
#
# **Worked example.** For the row 3 3 8 0 0 and the offset (0, -1), which is the pixel to the left, the affinities are
# 255, 1, 0, 0, 0. The figure after the check shows your affinities for four offsets. Notice the thin lines of 0 between
# cells for near pairs, and the wide ones for distant pairs.


# %% name="affinities" role="solution"
def affinities(label_map, offsets):
    """Decide for every pixel (y, x) and every offset (dy, dx) if pixel (y + dy, x + dx) belongs to the same object.

    label_map: integer tensor (H, W): 0 is background, every other label is one object.
    offsets:   list of A pairs (dy, dx) of integers, positive or negative, possibly larger than the image.

    Returns an integer tensor (A, H, W), one plane per offset: 1, 0 or 255 by the rule above.
    """
    ### BEGIN SOLUTION: shift the label map by each offset, mark pixels outside the image, and compare the labels
    height, width = label_map.shape
    reach = max(abs(step) for offset in offsets for step in offset)
    padded = torch.nn.functional.pad(label_map, [reach] * 4, value=-1)
    planes = []
    for dy, dx in offsets:
        shifted = padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        same = (shifted == label_map) & (label_map > 0)
        planes.append(torch.where(shifted < 0, 255, same.long()))
    return torch.stack(planes)
    ### END SOLUTION


# %% name="check_affinities" role="check"
check(affinities)

# %% name="affinities_figure" role="show"
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

steps = [(0, -1), (-1, 0), (0, -8), (-8, 8)]
planes = torch.as_tensor(np.stack(use(affinities)(label_map, steps)))
colours, names = (
    ("#1b1b1b", "#F0E442", "#9a9a9a"),
    ("0: not the same object", "1: same object", "255: outside the image"),
)
fig, axes = plt.subplots(1, 4, figsize=(8.8, 2.8), layout="constrained")
for ax, step, plane in zip(axes, steps, planes):
    ax.imshow(torch.where(plane == 255, 2, plane), cmap=ListedColormap(colours), vmin=0, vmax=2)
    if (plane == 255).sum() > 64:
        ax.contourf(plane == 255, levels=[0.5, 1.5], colors="none", hatches=["///"])
    ax.set(title=f"offset {step}", xticks=[], yticks=[])
handles = [Patch(facecolor=c, edgecolor="#1b1b1b", hatch="///" * (i == 2)) for i, c in enumerate(colours)]
fig.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
show(
    fig,
    alt="Affinities of cells for four offsets: near pairs leave thin dark lines between cells, distant ones wide gaps.",
)

# %% [markdown] name="train_text"
# ## A network that points
#
# We return to offsets. A small U-Net predicts five channels: two for the offset, two for $\log\sigma$, and one for the
# seed. The loss has three terms. Your `lovasz_grad` is part of the first one, and your `greedy_cluster` turns the
# predictions into cells.
#
# 1. **Mask**: for each cell, the Lovász hinge compares the Gaussian around the centre with the ground-truth mask of the
#    cell.
# 2. **Smoothness**: the sigmas of all pixels of a cell should be equal, because the clustering uses the sigma of a
#    single pixel, the start pixel, for the whole cell.
# 3. **Seed**: inside a cell, the target of the seed is the Gaussian at the pixel's own embedding. In the background,
#    the target is 0.
#
# Note that the loss does *not* compare offsets with your `offset_target`. The mask term alone makes the offsets point
# at the centres, and only as precisely as the masks require.
#
# Each iteration calls your `lovasz_grad` once for each cell, so a Python loop over pixels would make the training slow.
#
# On a CPU the images are synthetic. If a GPU is available, the following cells use a larger network and microscope
# images with nuclei of cells, of the 2018 Data Science Bowl ([BBBC038](https://bbbc.broadinstitute.org/BBBC038), CC0),
# in grey and with bright nuclei. The cell downloads them once (83 MB), and prints licence and citation. If the folder
# that `SEGEDU_DATA` names contains `nuclei_grouped`, it is used instead. Without an internet connection, the images are
# synthetic, and larger than on a CPU.

# %% name="channels" role="train"
UNIT = 16  # pixels per unit of length; no offset is longer than one unit along y or x
LEARNED = False  # False: a cell's centre is the mean of its pixels' positions. True: of their embeddings


def grid(height, width):
    """Positions (2, H, W) of the pixels, in units."""
    axes = [torch.arange(size) / UNIT for size in (height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def read(channels):
    """Convert the five channels of an image: embeddings (2, H, W) in units, log sigma (2, H, W), seed (H, W)."""
    embeddings = grid(*channels.shape[1:]) + channels[:2].tanh()
    return embeddings, 5 * channels[2:4], channels[4].sigmoid()  # times 5, so that sigma learns as fast as the offsets


# %% name="loss" role="train"
def mask_loss(exponent, inside):
    """Lovász hinge between the Gaussian exp(-exponent) and the ground-truth mask of a cell."""
    relevant = inside | (exponent < 18)  # further away the Gaussian and the error are practically 0
    scores, target = 2 * torch.exp(-exponent[relevant]) - 1, inside[relevant].float()
    errors = (1 - scores * (2 * target - 1)).clamp(min=0)
    return (errors * torch.as_tensor(step_costs(errors.detach(), target)).to(errors)).sum()


def embedding_loss(outputs, label_maps):
    """Mean over images of the mask and smoothness terms (means over cells) plus the seed term (mean over pixels)."""
    losses = []
    for channels, label_map in zip(outputs.cpu(), label_maps.cpu()):
        embeddings, log_sigma, seed = read(channels)
        cell_losses, seed_target = [], torch.zeros_like(seed)
        for label in label_map.unique()[1:]:  # without 0, which every image has
            inside = label_map == label
            centre = (embeddings if LEARNED else grid(*seed.shape))[:, inside].mean(dim=1)
            mean_log_sigma = log_sigma[:, inside].mean(dim=1)
            scaled = (embeddings - centre[:, None, None]) / mean_log_sigma.exp()[:, None, None]
            exponent = scaled.square().sum(dim=0) / 2
            smoothness = (log_sigma[:, inside] - mean_log_sigma[:, None]).square().mean()
            cell_losses.append(mask_loss(exponent, inside) + smoothness)
            seed_target[inside] = torch.exp(-exponent[inside]).detach()
        cell_loss = torch.stack(cell_losses).mean() if cell_losses else 0
        losses.append(cell_loss + (seed - seed_target).square().mean())
    return torch.stack(losses).mean()


# %% name="data" role="train"
from segedu.datasets.real_folder import real_folder
from segedu.recipes.real_samples import nuclei
from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
folder = real_folder("nuclei_grouped") if SCALE == "gpu" else None
scales = {"cpu": (64, 192, 8, 250, 8), "gpu": (128, 512, 32, 800, 16)}
size, length, base, iterations, batch = scales[SCALE] if not folder else (128, 800, 32, 800, 16)
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # more threads do not speed up such a small network
if folder:
    UNIT = 32  # some nuclei have a diameter of 60 pixels, so offsets have to be longer


def get_data(count, seed):
    """Images (B, 1, H, W) of mean about 0 and standard deviation about 1, and their label maps (B, H, W)."""
    if folder:
        samples = nuclei(folder, seed == 1, (size, size), count)
    else:
        samples = [draw_cells((seed, i), (size, size)) for i in tqdm(range(count), "images", leave=False)]
    images = torch.stack([sample["image"][:1] for sample in samples])
    return (images - 0.3) / 0.2, torch.stack([sample["label_map"] for sample in samples])


(images, maps), (new_images, new_maps) = get_data(length, 0), get_data(32, 1)

# %% name="train" role="train"
from segedu.semantic.unet import UNet
from segedu.training import train_steps

step_costs = use(lovasz_grad)
torch.manual_seed(0)
net = UNet(1, 5, base_channels=base, depth=3, padding=1)
with torch.no_grad():  # initial predictions: offsets near 0, and a sigma of 4 pixels everywhere
    net.head.weight *= 0.01
    net.head.bias[2:4] = np.log(4 / UNIT) / 5
net = net.to(device, memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=iterations, pct_start=0.2)
batch_indices = torch.randint(len(images), (iterations, batch), generator=torch.Generator().manual_seed(0))
loader = ((images[indices], maps[indices]) for indices in batch_indices)
bar = tqdm(train_steps(net, loader, embedding_loss, optimizer, scheduler=schedule, clip_norm=1.0), "train", iterations)
snapshots = {}  # step -> channels predicted for the first new image
for step, loss in enumerate(bar):
    bar.set_postfix(loss=f"{loss:.3f}")
    if step in (0, iterations // 5, iterations - 1):
        with torch.no_grad():
            snapshots[step] = net(new_images[:1].to(device))[0].cpu()

# %% name="train_score" role="train"
from segedu.recipes.baselines import OtsuWatershed
from segedu.metrics.instance import InstanceMetrics

cluster = use(greedy_cluster)
net.eval()
with torch.no_grad():
    outputs = torch.cat([net(part.to(device)).cpu() for part in new_images.split(8)])
found = []
for channels in tqdm(outputs, "cluster", leave=False):
    embeddings, log_sigma, seed = read(channels)
    found.append(torch.as_tensor(cluster(embeddings, log_sigma.exp(), seed, 0.8, 20)).long())
baseline = OtsuWatershed()((new_images * 0.2 + 0.3).expand(-1, 3, -1, -1))
scores = {}
for name, predictions in (("Gaussian + Otsu + watershed", baseline), ("offsets and seeds, learned", found)):
    metrics = InstanceMetrics(iou_thresholds=[0.5, 0.75])
    for prediction, ground_truth in zip(predictions, new_maps):
        metrics.update(prediction, ground_truth)
    scores[name] = metrics.compute()["accuracy"].tolist()
    print(f"{name:<28} instance accuracy {scores[name][0]:.3f} at IoU 0.5, {scores[name][1]:.3f} at 0.75")
print(f"on {len(new_maps)} new images, scale {SCALE}")

# %% [markdown] name="train_after"
# `instance_accuracy` is TP / (TP + FP + FN) over all cells. At IoU 0.5, papers on cells call it AP50. The first line
# above is the score of the classical method of chapter 2. A single run proves little: with three random seeds on a CPU,
# we measured 0.88, 0.83 and 0.87 at IoU 0.5 on synthetic images, and 0.52 for the classical method. On real images we
# have run these cells only on a CPU, for a few iterations.
#
# How did the network learn to point? The next figure shows the predictions for one new image after three different
# numbers of iterations. Each pixel of a cell is drawn **at its embedding**, in the colour of its ground-truth cell. The
# labels stand at the ground-truth centres.

# %% name="space_figure" role="train"
from segedu.viz import palette

ground_truth = new_maps[0].long()
fig, axes = plt.subplots(1, len(snapshots), figsize=(8.6, 3.2), layout="constrained")
for ax, (step, channels) in zip(axes, snapshots.items()):
    y, x = (read(channels)[0] * UNIT)[:, ground_truth > 0]
    ax.scatter(x, y, s=5, color=palette(int(ground_truth.max()))[ground_truth[ground_truth > 0] - 1])
    for label in ground_truth.unique()[1:]:
        row, column = torch.nonzero(ground_truth == label).double().mean(dim=0)
        ax.text(column, row, int(label), ha="center", va="center", fontsize=9, bbox={"fc": "white", "pad": 1})
    ax.set(title=f"after step {step + 1}", xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[], aspect="equal")
show(
    fig,
    alt="Embeddings of the pixels of cells: at the pixels themselves after one step, closer together later, and "
    "finally in small clusters.",
)

# %% name="maps_figure" role="train"
picture = (new_images[0] * 0.2 + 0.3).clamp(0, 1)
embeddings, log_sigma, seed = read(outputs[0])
mean_sigma = (log_sigma.exp().mean(dim=0) * UNIT).where(seed > 0.5, torch.nan)
fig, axes = plt.subplots(1, 3, figsize=(9.3, 3.1), layout="constrained")
draw_arrows(
    axes[0],
    picture.expand(3, -1, -1),
    outputs[0, :2].tanh() * UNIT,
    seed > 0.5,
    "offsets,\nat half their length",
    step=2,
)
for ax, title, panel in ((axes[1], "seed map", seed), (axes[2], "sigma in pixels,\non the foreground", mean_sigma)):
    ax.set(title=title, xticks=[], yticks=[])
    fig.colorbar(ax.imshow(panel, cmap="cividis"), ax=ax, shrink=0.9)
show(fig, alt="Predictions for a new image: arrows towards the centres of cells, a seed map, and a map of sigma.")
fig = gallery(
    [picture] * 3,
    [ground_truth, found[0], baseline[0]],
    titles=["ground truth", "your clustering", "watershed"],
    width=3,
)
show(
    fig,
    alt="The same image with its ground-truth cells, the cells from your clustering, and the cells of the watershed.",
)

# %% [markdown] name="maps_after"
# Look at the scale of sigma: it hardly differs between these cells. The cells are of similar size and their offsets are
# precise, so a single width works for all of them, as in the widget when the pixels are moved most of the way. The
# seeds are near 1 almost everywhere in a cell. They are low where cells touch, because the predicted offsets are least
# reliable there.

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** An object is a ring. Where is its centre, and can its pixels point at it?
#
# <details><summary>Answer</summary>
#
# The centre lies in the hole. The pixels can point at it, because an embedding can be any position, inside or outside
# the object. Only the start pixel of the clustering has to lie on the object, and it points at the centre like all the
# others.
#
# </details>
#
# **2.** Find the error: "Sigma is the width of the noise of the offsets, so it should be as small as possible."
#
# <details><summary>Answer</summary>
#
# A Gaussian that is too narrow misses pixels of its own cell. Sigma is learned together with the offsets so that the
# resulting mask has the best IoU. Where offsets are less precise, sigma becomes larger.
#
# </details>
#
# **3.** The Gaussian is 1/2 at a distance of 5.9 pixels from the centre. How large is sigma?
#
# <details><summary>Answer</summary>
#
# 5.9 / 1.18 = 5 pixels.
#
# </details>
#
# **4.** Why does the clustering start with the *best* seed, and not in reading order?
#
# <details><summary>Answer</summary>
#
# The pixel with the best seed points most precisely at the centre, so the Gaussian around its embedding contains the
# whole object. In reading order, a pixel at the rim would start, and its offset may be wrong. Its Gaussian might
# contain only half of the cell, and the other half would become a second object.
#
# </details>
#
# **5.** In the pull and push loss, what happens if $\delta_{\text{push}} < \delta_{\text{pull}}$?
#
# <details><summary>Answer</summary>
#
# Even if the loss is 0, the means may be less than twice the pull margin apart, so the circles of two objects may
# overlap. A vector in both circles could belong to either object. With a push margin of more than twice the pull
# margin, as in the paper (1.5 and 0.5), a loss of 0 means that each vector is nearer to all vectors of its own object
# than to those of any other.
#
# </details>
#
# **6.** Find the error: "With affinities to the direct neighbours, each wrong prediction affects only one pixel."
#
# <details><summary>Answer</summary>
#
# If objects are the connected components, a single wrong 1 between two cells can merge them. Distant offsets, and a
# clustering that considers all affinities, make the result more robust.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 10](../course/10-embeddings/index.md) explain the three methods and their papers.
# - Change one parameter of the clustering in the cell that prints the scores: set `min_pixels` to 1 instead of 20, or
#   the seed threshold to 0.5 instead of 0.8. Which false detections appear?
# - Set `LEARNED = True`, as in the paper by Neven et al. The pixels of a cell may then agree on any position as their
#   centre. Look at the offsets in the figures. With three random seeds, we measured accuracies of 0.90, 0.88 and 0.85.
#   Is that better than before?
# - Use cells of many sizes: pass `radius=(3.5, 13)` to `draw_cells` in the data cell. How does the map of sigma change?
# - Chapter 9 solves the same task with distances and flows. Lab 11 starts from bounding boxes.
#
# Before you hand in this notebook, save it, and run `segedu check labs/10_embeddings.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
