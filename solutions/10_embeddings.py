# %% [markdown] name="title"
# # Lab 10: Embeddings and pixel offsets
#
# A net that says "cell" or "background" cannot count cells that touch. In this lab every pixel says **where the centre of its
# cell is**. Pixels that point at one place are one cell. You write the target, the Gaussian that collects pixels, the
# clustering, and the loss; then two other ways to say which pixels belong together; at the end a net learns it.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises. Read [chapter 10](../course/10-embeddings/index.md) first, or
# beside this lab.
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - give each pixel the way to the centre of its object;
# - collect pixels by a Gaussian, and say why each object needs a sigma of its own;
# - cut objects out of an image of pointers, best seed first;
# - say what a wrong pixel costs in IoU, and train with it;
# - pull and push vectors, and ask neighbours whether they belong together.
#
# First the idea in one picture. The cells touch. Let each pixel walk to the centre of its cell: half-way there are gaps
# already, and at the end each cell is one heap.

# %% name="picture" role="show"
from segedu.datasets.cells import draw_cells
from segedu.viz import gallery, show
from segedu.teaching.widgets.embedding import draw_walk

draw_walk()

# %% [markdown] name="offset_target_idea"
# ## 1. Where is my centre? (3 points)
#
# **Idea.** The target of each pixel is an arrow: from the pixel to the centre of its object. The centre is the **mean of the
# object's pixels**, so it may lie between pixels, and for a banana outside of the object. Any single point would do;
# the mean is one that a net can guess.
#
# **Formula.** With the pixels $x_1, \dots, x_N$ of an object,
#
# $$ c = \frac{1}{N} \sum_i x_i, \qquad o_i = \frac{c - x_i}{u} $$
#
# The unit $u$ is a number of pixels. It makes the arrows about as long as 1, which a net gives easily.
#
# **By hand.** An L of three pixels (y, x): (0, 0), (1, 0), (1, 1). Their mean is $(2/3, 1/3)$; the middle of the box would be
# $(1/2, 1/2)$. With $u = 1$ the first pixel gets $(2/3, 1/3)$, the last one $(-1/3, -2/3)$. With $u = 4$ a quarter of it.


# %% name="offset_target" role="solution"
def offset_target(label_map, unit):
    """The way from each pixel to the centre of its object, which is the mean of the places of the object's pixels.

    label_map: integer tensor (H, W): 0 is background, every other number is one object. Numbers may have gaps, and an
               object may lie in several pieces: all pixels with one number share one centre.
    unit:      pixels in one unit of length; the way in pixels is divided by it.

    Returns a float tensor (2, H, W), dy before dx: (centre - pixel) / unit, and 0 in the background.

    Example: offset_target(torch.tensor([[5, 5, 5, 0]]), 1.0)[1] is [[1, 0, -1, 0]].
    """
    ### BEGIN SOLUTION: for each number but 0, the mean place of its pixels minus their places
    offsets = torch.zeros(2, *label_map.shape, dtype=torch.float64)
    for number in label_map[label_map > 0].unique():
        rows, columns = torch.nonzero(label_map == number, as_tuple=True)
        offsets[0, rows, columns] = (rows.double().mean() - rows) / unit
        offsets[1, rows, columns] = (columns.double().mean() - columns) / unit
    return offsets
    ### END SOLUTION


# %% name="check_offset_target" role="check"
check(offset_target)

# %% [markdown] name="offset_target_after"
# Your arrows on a large cell with small ones around it, for every third pixel, drawn at half their length. At the border of
# two cells neighbours point in opposite directions. That is how touching cells come apart.

# %% name="offset_target_figure" role="show"
sample = draw_cells(36, (64, 64), radius=(3.5, 13), touching=0.8, noise=0.5)
image, label_map = sample["image"], sample["label_map"].long()
offsets = torch.as_tensor(np.stack(use(offset_target)(label_map, 1.0))).double()


def draw_arrows(ax, picture, offsets, foreground, title, step=3):
    """Arrows in pixels on an image, at half their length, from every `step`-th pixel of the foreground."""
    ax.imshow(torch.as_tensor(picture).permute(1, 2, 0))
    y, x = torch.nonzero(foreground, as_tuple=True)
    chosen = (y % step == 0) & (x % step == 0)
    y, x = y[chosen], x[chosen]
    ax.quiver(x, y, *offsets.flip(0)[:, y, x], angles="xy", scale_units="xy", scale=2, color="#E69F00", width=0.005)
    ax.set(title=title, xticks=[], yticks=[])


fig, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
draw_arrows(axes[0], image, offsets, label_map > 0, "half of the way to the centre")
picture = axes[1].imshow(offsets.norm(dim=0), cmap="cividis")
axes[1].set(title="length of the way in pixels", xticks=[], yticks=[])
fig.colorbar(picture, ax=axes[1], shrink=0.9)
show(
    fig, alt="Cells with arrows from their pixels to their centres, and the lengths: 0 in each centre, most at the rim."
)

# %% [markdown] name="gaussian_mask_idea"
# ## 2. Who is near enough? (4 points)
#
# **Idea.** Pixel plus offset is the pixel's **embedding**: the place it points at. A net's arrows miss a little. So an object
# takes all pixels whose embeddings lie *near* its centre. How near is near? A Gaussian says it:
#
# $$ \varphi(e) = \exp\left( - \frac{(e_y - c_y)^2}{2 \sigma_y^2} - \frac{(e_x - c_x)^2}{2 \sigma_x^2} \right) > \frac{1}{2} $$
#
# It is 1 at the centre, however wide it is: not a density. For one $\sigma$ the border lies at $d = \sigma\sqrt{2 \ln 2} = 1.18\,\sigma$.
#
# **The net gives $\log \sigma$**, since a net's output may be negative and a sigma may not. $\log\sigma = 0$ means $\sigma = 1$.
#
# **By hand.** $\sigma = 1$: at distance 1 the Gaussian is $e^{-1/2} = 0.61$, in. At distance 2 it is $e^{-2} = 0.14$, out. With
# $\sigma = 2$ distance 2 is in: $e^{-4/8} = 0.61$.


# %% name="gaussian_mask" role="solution"
def gaussian_mask(embeddings, centres, log_sigmas):
    """Take into each object the pixels whose embedding lies near its centre: where its Gaussian is above 1/2.

    embeddings: float tensor (2, H, W): where each pixel points, y before x
    centres:    float tensor (N, 2), y before x; N may be 0
    log_sigmas: float tensor (N, 2): log(sigma_y) and log(sigma_x) of each object

    Returns a bool tensor (N, H, W), one mask an object. Objects do not know of each other: a pixel may be in two masks.

    Example: embeddings [[[0., 0., 0.]], [[0., 1., 2.]]], one centre (0, 0), log sigmas (0, 0): [[[True, True, False]]].
    """
    ### BEGIN SOLUTION: exponents of the Gaussians of all objects at all pixels, then compare with 1/2
    sigmas = log_sigmas.exp()[:, :, None, None]
    ways = embeddings - centres[:, :, None, None]
    exponents = (ways**2 / (2 * sigmas**2)).sum(dim=1)
    return torch.exp(-exponents) > 0.5
    ### END SOLUTION


# %% name="check_gaussian_mask" role="check"
check(gaussian_mask)

# %% [markdown] name="gaussian_mask_after"
# Long bent bacteria. In the middle no pixel points anywhere, so each must fit into an upright ellipse; its two sigmas are
# fitted to it. On the right pixels go 90 % of the way, and one sigma of 3 pixels is enough: shapes no longer matter.

# %% name="gaussian_mask_figure" role="show"
from segedu.datasets.bacteria import draw_bacteria

rods = draw_bacteria(5, (64, 64), rod_length=(18, 45), count=7, noise=0.5)
inside = rods["label_map"] > 0
pixels = torch.stack(torch.meshgrid(*[torch.arange(64.0).double()] * 2, indexing="ij"))
centres = torch.stack([pixels[:, rod].mean(dim=1) for rod in rods["masks"]])
spread = torch.stack([pixels[:, rod].std(dim=1) for rod in rods["masks"]])
walked = pixels + 0.9 * torch.as_tensor(np.stack(use(offset_target)(rods["label_map"].long(), 1.0)))
plans = {"pixels stay": (pixels, 1.7 * spread), "pixels point": (walked, torch.full_like(spread, 3.0))}
found, titles, mask_of = [], [], use(gaussian_mask)
for name, (places, sigmas) in plans.items():
    masks = torch.as_tensor(mask_of(places, centres, sigmas.log())) & inside
    overlap = [float((mask & rod).sum() / (mask | rod).sum()) for mask, rod in zip(masks, rods["masks"])]
    found.append(masks)
    titles.append(f"{name}: mean IoU {np.mean(overlap):.2f}")
fig = gallery([rods["image"]] * 3, [rods["masks"], *found], titles=["truth", *titles], numbers=True, width=3)
show(fig, alt=f"Bent bacteria in truth, as ellipses that take too much and too little, and exact. {'; '.join(titles)}.")

# %% [markdown] name="widget_text"
# ## Move sigma
#
# Two cells of the picture, and **one sigma for both**. Try, with pixels that go a tenth of the way: which sigma fits
# the small cell, which the large one, and how good is the best compromise? Then let pixels point better. What becomes of
# the compromise?
#
# This is the paper's idea: nobody sets sigma. The net learns arrows **and** sigmas, each object its own, from one loss.

# %% name="widget" role="widget"
from segedu.teaching.widgets.embedding import explorer

explorer()

# %% [markdown] name="greedy_cluster_idea"
# ## 3. Cut objects out, best seed first (4 points)
#
# **Idea.** In a new image nobody knows the centres. So the net gives one more map: the **seed**, from 0 to 1. On an object it
# says how near the pixel's own arrow lands to the centre; in the background it is 0. The best seed is a good centre.
#
# **Steps.** Foreground are pixels with a seed above 1/2, all free at first. Again and again:
#
# 1. Start from the free pixel with the highest seed; of equal ones the first in reading order. Only a seed above
#    `seed_threshold` may start. If none is left, stop.
# 2. Members: all free pixels whose embedding lies in the Gaussian (above 1/2) around the **embedding of the start**, with the
#    sigmas of the start.
# 3. With at least `min_pixels` members they are the next object, 1, 2, ..., and free no longer. With fewer no object arises
#    and no number is used up; the members stay free for a later object, but none of them may start any more.
#
# **By hand.** Four pixels point at x = 1, 1.5, 6, 6; seeds 0.8, 0.7, 0.6, 0.9; all sigmas 1, threshold 0.75, one pixel is
# enough. The last pixel starts and takes the third: object 1. Then the first starts and takes the second: 2 2 1 1.


# %% name="greedy_cluster" role="solution"
def greedy_cluster(embeddings, sigma, seed, seed_threshold, min_pixels):
    """Cut objects out one by one, each around the best seed that is left; the steps stand above.

    embeddings:     float tensor (2, H, W): where each pixel points, y before x
    sigma:          float tensor (2, H, W), above 0: sigma_y and sigma_x of each pixel, in the unit of the embeddings
    seed:           float tensor (H, W) in [0, 1]; pixels with a seed of 1/2 or less never join an object
    seed_threshold: only pixels with a seed above it may start an object; it may be below 1/2
    min_pixels:     an object has at least so many pixels

    Returns an integer tensor (H, W): 0 for background, 1 for the first object that was cut out, and so on.
    """
    ### BEGIN SOLUTION: free pixels, pixels that may start, and the loop of the three steps
    labels, count = torch.zeros(seed.shape, dtype=torch.int32), 0
    free, may_start = seed > 0.5, seed > seed_threshold
    while (free & may_start).any():
        best = int(torch.where(free & may_start, seed, -1.0).argmax())
        row, column = divmod(best, seed.shape[1])
        centre, width = embeddings[:, row, column], sigma[:, row, column]
        ways = (embeddings - centre[:, None, None]) / width[:, None, None]
        members = free & ((-(ways**2).sum(dim=0) / 2).exp() > 0.5)
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
# Your clustering on arrows that miss by about a pixel. The numbers are the order: the surest seeds come first.

# %% name="greedy_cluster_figure" role="show"
noise = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
places, seed = pixels + 0.8 * offsets + noise, torch.zeros(64, 64, dtype=torch.float64)
for number in range(1, int(label_map.max()) + 1):
    cell = label_map == number
    away = places[:, cell] - pixels[:, cell].mean(dim=1, keepdim=True)
    seed[cell] = torch.exp(-(away**2).sum(dim=0) / (2 * 4.0**2))
labels = torch.as_tensor(use(greedy_cluster)(places, torch.full_like(places, 4.0), seed, 0.8, 10)).long()
steps = [torch.where(labels <= count, labels, 0) for count in (1, 3, int(labels.max()))]
titles = ["seed map", "the first object", "three objects", f"all {int(labels.max())}"]
fig = gallery([seed.float()] + [image] * 3, [None, *steps], titles=titles, numbers=True, width=2.7)
show(fig, alt="A seed map, bright on cells and dark between them; then one, three and all cells cut out, with numbers.")

# %% [markdown] name="lovasz_grad_idea"
# ## 4. What does a wrong pixel cost? (2 points)
#
# **Idea.** A mask is judged by its IoU, so train for IoU. But IoU counts pixels, and counting has no gradient. The **Lovász**
# trick: put the pixels in the order of their errors, largest first, and turn them wrong one after the other. Each
# step costs so much IoU: that is the pixel's weight. The loss is $\sum_i \text{error}_i \cdot \text{weight}_i$.
#
# **Formula.** Of $n$ true pixels, after $k$ steps,
#
# $$ \text{cost}_k = 1 - \frac{n - (\text{true ones among the first } k)}{n + (\text{false ones among the first } k)}, $$
#
# $$ \text{weight}_k = \text{cost}_k - \text{cost}_{k-1}, \qquad \text{cost}_0 = 0 . $$
#
# A true pixel that is wrong is missing in the intersection. A false one that is wrong makes the union larger.
#
# **By hand.** Errors 0.9, 0.5, 0.2 of a false, a true and a true pixel; $n = 2$. Costs: $1 - 2/3 = 1/3$, $1 - 1/3 = 2/3$, $1 - 0/3 = 1$.
# Each weight is $1/3$, and the loss is $(0.9 + 0.5 + 0.2)/3 = 0.53$.


# %% name="lovasz_grad" role="solution"
def lovasz_grad(errors, truth):
    """What each pixel costs in 1 - IoU when it turns wrong, after all pixels with larger errors did.

    errors: float tensor (P,), at least 0; no two are equal
    truth:  float tensor (P,): 1 on the object, 0 off it; perhaps 0 everywhere, where the formula holds too

    Returns a float tensor (P,): the weight of each pixel, in the order of the arguments, not in that of the errors.

    Example: lovasz_grad(torch.tensor([0.2, 0.9, 0.5]), torch.tensor([1.0, 0.0, 1.0])) is [1/3, 1/3, 1/3].
    """
    ### BEGIN SOLUTION: sort truth by the errors, costs by cumulative sums, their steps, back to the order of the pixels
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
# The same twelve errors for a small object and for a large one. Cross-entropy would give every pixel the same weight. Here
# two missing pixels of a small object cost everything, and of a large one a quarter.

# %% name="lovasz_grad_figure" role="show"
errors, costs = torch.linspace(1.2, 0.1, 12), use(lovasz_grad)
fig, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained", sharey=True)
for ax, kind, true in zip(axes, ("small", "large"), ([1, 4], [1, 2, 4, 5, 6, 8, 9, 11])):
    truth = torch.zeros(12)
    truth[true] = 1
    weights = torch.as_tensor(costs(errors, truth))
    for value, name, colour, hatch in ((1, "on the object", "#0072B2", ""), (0, "off it", "#E69F00", "///")):
        where = torch.nonzero(truth == value)[:, 0]
        ax.bar(where + 1, weights[where], color=colour, hatch=hatch, edgecolor="#1b1b1b", label=name)
    ax.set(title=f"a {kind} object: {len(true)} of 12 pixels", xlabel="pixel, largest error first", ylabel="weight")
    ax.legend()
show(fig, alt="Weights of twelve pixels: high for two pixels of a small object; low and even for eight of a large one.")

# %% [markdown] name="pull_push_idea"
# ## 5. Another way: pull and push (4 points)
#
# **Idea.** Must an embedding be a place in the image? The **discriminative loss** gives each pixel any vector of $D$ numbers.
# It pulls the vectors of an object to their mean, and pushes the means of two objects apart. Both forces stop at a margin.
#
# **Formula.** $C$ objects; object $c$ has $N_c$ pixels with vectors $x_i$ and the mean $m_c$; $|v|$ is the Euclidean length:
#
# $$ \text{pull} = \frac{1}{C} \sum_c \frac{1}{N_c} \sum_{i \in c} \max(0, |x_i - m_c| - \delta_{\text{pull}})^2, $$
#
# $$ \text{push} = \frac{1}{C(C-1)} \sum_{a \ne b} \max(0, 2\delta_{\text{push}} - |m_a - m_b|)^2 $$
#
# Each pair comes twice in the second sum, as (a, b) and as (b, a). The paper's third term, which keeps the means
# near 0, is left out.
#
# **By hand.** One number a pixel: object 1 has 0 and 2, object 2 has 5; margins 0.5 and 3. The means are 1 and 5. Both pixels of
# object 1 are 1 away, 0.5 too far: $0.25$. Object 2: 0. Pull $= (0.25 + 0)/2 = 0.125$. The means are 4 apart, 2 too near for
# 6: push $= (4 + 4)/2 = 4$.


# %% name="pull_push" role="solution"
def pull_push(embeddings, label_map, pull_margin, push_margin):
    """How far the vectors of each object are from their mean, and how near the means of two objects are.

    embeddings:  float tensor (D, H, W): one vector of D numbers a pixel
    label_map:   integer tensor (H, W): 0 is background, which plays no part; numbers of objects may have gaps
    pull_margin: vectors nearer to their mean than this are left alone
    push_margin: means that are at least twice this apart are left alone

    Returns (pull, push), two scalars. With one object the push is 0; with none both are 0.
    """
    ### BEGIN SOLUTION: means of the objects, the pull within each, the push between any two
    groups = [embeddings[:, label_map == number] for number in label_map.unique() if number > 0]
    means = [group.mean(dim=1) for group in groups]
    pull = push = torch.tensor(0.0)
    for group, mean in zip(groups, means):
        distances = (group - mean[:, None]).norm(dim=0)
        pull = pull + ((distances - pull_margin).clamp(min=0) ** 2).mean() / len(groups)
    for a, one in enumerate(means):
        for b, other in enumerate(means):
            if a != b:
                gap = (2 * push_margin - (one - other).norm()).clamp(min=0)
                push = push + gap**2 / (len(means) * (len(means) - 1))
    return pull, push
    ### END SOLUTION


# %% name="check_pull_push" role="check"
check(pull_push)

# %% [markdown] name="pull_push_after"
# No net yet: the vectors of two cells themselves go down the gradient of your loss. First they lie on top of each other.
# Then each cell fits into its circle of radius $\delta_{\text{pull}}$, the means are $2\delta_{\text{push}}$ apart, and nothing moves any more.

# %% name="pull_push_figure" role="show"
from segedu.teaching.exercises.lab10_embeddings.pull_push import pull_push as with_gradients

two = torch.tensor([[1] * 40 + [2] * 40])
vectors = torch.randn(2, 1, 80, generator=torch.Generator().manual_seed(1)).requires_grad_()
loss_of = use(pull_push)
try:
    torch.autograd.grad(torch.as_tensor(sum(loss_of(vectors, two, 0.5, 1.5))), vectors)
except RuntimeError:
    print("(Your pull_push leaves torch on the way, so it has no gradient: this cell uses the library's.)")
    loss_of = with_gradients
fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharex=True, sharey=True)
for step in range(121):
    pull, push = loss_of(vectors, two, 0.5, 1.5)
    if step in (0, 6, 120):
        ax = axes[(0, 6, 120).index(step)]
        for number, marker, colour in ((1, "o", "#0072B2"), (2, "^", "#D55E00")):
            group = vectors.detach()[:, two == number]
            ax.scatter(*group, s=14, marker=marker, color=colour, label=f"cell {number}")
            ax.add_patch(plt.Circle(group.mean(1), 0.5, fill=False, ec="#1b1b1b"))
        ax.set(title=f"step {step}: pull {pull.item():.2f}, push {push.item():.2f}", aspect="equal")
    (slope,) = torch.autograd.grad(pull + push, vectors)
    vectors = (vectors - 4 * slope).detach().requires_grad_()
axes[0].legend()
show(fig, alt="Vectors of two cells: mixed at first, then drifting apart, at last in two circles that are 3 apart.")

# %% [markdown] name="affinities_idea"
# ## 6. A third way: ask your neighbour (3 points)
#
# **Idea.** No centre and no vector: each pixel says whether the pixel one step to the left is of **the same object**. Or three
# rows up, or ten columns to the right. Such answers are **affinities**. Near ones find outlines; far ones see that two cells
# are two where the outline is blurred. A clustering on the graph of pixels makes objects of them.
#
# **Rule.** For the offset $(dy, dx)$ pixel $(y, x)$ looks at pixel $(y + dy, x + dx)$:
#
# - 1 if both belong to one object;
# - 0 if they do not; also where one of them or both are background, which is no object;
# - 255 if the other pixel lies outside the image. Nobody knows, and the loss leaves the pair out.
#
# **By hand.** The row 3 3 8 0 0 and the offset (0, -1), the pixel to the left: 255, 1, 0, 0, 0.


# %% name="affinities" role="solution"
def affinities(label_map, offsets):
    """For every pixel (y, x) and every offset (dy, dx): is pixel (y + dy, x + dx) of the same object?

    label_map: integer tensor (H, W): 0 is background, every other number an object
    offsets:   list of A pairs (dy, dx) of whole numbers, positive or negative, perhaps larger than the image

    Returns an integer tensor (A, H, W), one plane an offset: 1, 0 or 255 by the rule above.
    """
    ### BEGIN SOLUTION: the label map moved by each offset with a mark for outside, compared with itself
    height, width = label_map.shape
    reach = max(abs(step) for offset in offsets for step in offset)
    padded = torch.nn.functional.pad(label_map, [reach] * 4, value=-1)
    planes = []
    for dy, dx in offsets:
        other = padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        same = (other == label_map) & (label_map > 0)
        planes.append(torch.where(other < 0, 255, same.long()))
    return torch.stack(planes)
    ### END SOLUTION


# %% name="check_affinities" role="check"
check(affinities)

# %% name="affinities_figure" role="show"
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

steps = [(0, -1), (-1, 0), (0, -8), (-8, 8)]
planes = torch.as_tensor(np.stack(use(affinities)(label_map, steps)))
colours, names = ("#1b1b1b", "#F0E442", "#9a9a9a"), ("0: not one object", "1: one object", "255: outside")
fig, axes = plt.subplots(1, 4, figsize=(11, 3.3), layout="constrained")
for ax, step, plane in zip(axes, steps, planes):
    ax.imshow(torch.where(plane == 255, 2, plane), cmap=ListedColormap(colours), vmin=0, vmax=2)
    if (plane == 255).sum() > 64:
        ax.contourf(plane == 255, levels=[0.5, 1.5], colors="none", hatches=["///"])
    ax.set(title=f"offset {step}", xticks=[], yticks=[])
handles = [Patch(facecolor=c, edgecolor="#1b1b1b", hatch="///" * (i == 2)) for i, c in enumerate(colours)]
fig.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
show(
    fig, alt="Affinities of cells for four offsets: near ones leave a thin dark line between cells, far ones wide gaps."
)

# %% [markdown] name="train_text"
# ## A net that points
#
# Back to the arrows. A small U-Net gives five channels: two for the offset, two for $\log\sigma$, one for the seed. Its loss has
# three parts. Your `lovasz_grad` is in the first; your `greedy_cluster` makes cells of what the net says.
#
# 1. **mask**: for each cell, the Gaussian around its centre against its true mask, by Lovász;
# 2. **even**: sigmas within a cell should agree, since one seed speaks for all;
# 3. **seed**: on a cell the Gaussian of the pixel itself, in the background 0.
#
# Note what is *not* there: nobody compares arrows with your `offset_target`. The masks alone make them point at the centres,
# and only as well as the masks need it.
#
# Each step asks your `lovasz_grad` once for each cell: a loop over pixels makes the training slow. On a GPU the cells below
# take larger images and a larger net by themselves.

# %% name="channels" role="train"
UNIT = 16  # pixels in one unit of length: no offset is longer
LEARNED = False  # the centre of a cell: the mean of its pixels. True: the mean of its embeddings, wherever that is


def grid(height, width):
    """Where the pixels are, (2, H, W), in units."""
    axes = [torch.arange(size) / UNIT for size in (height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def read(channels):
    """What the five channels of an image mean: embeddings (2, H, W) in units, log sigma (2, H, W), seed (H, W)."""
    places = grid(*channels.shape[1:]) + channels[:2].tanh()
    return places, 5 * channels[2:4], channels[4].sigmoid()  # times 5: sigma learns as fast as the arrows


# %% name="loss" role="train"
def mask_loss(exponent, inside):
    """Lovász hinge of the Gaussian exp(-exponent) against the mask of a cell."""
    near = inside | (exponent < 18)  # further away the Gaussian is 0, and so is the error
    score, truth = 2 * torch.exp(-exponent[near]) - 1, inside[near].float()
    wrong = (1 - score * (2 * truth - 1)).clamp(min=0)
    return (wrong * torch.as_tensor(step_costs(wrong.detach(), truth)).to(wrong)).sum()


def embedding_loss(outputs, label_maps):
    """Mean over images of: mask and even, means over the cells; and seed, a mean over all pixels."""
    losses = []
    for channels, numbers in zip(outputs.cpu(), label_maps.cpu()):
        places, log_sigma, seed = read(channels)
        of_cells, wanted = [], torch.zeros_like(seed)
        for number in numbers.unique()[1:]:  # without 0, which every image has
            inside = numbers == number
            centre = (places if LEARNED else grid(*seed.shape))[:, inside].mean(dim=1)
            width = log_sigma[:, inside].mean(dim=1)
            scaled = (places - centre[:, None, None]) / width.exp()[:, None, None]
            exponent = scaled.square().sum(dim=0) / 2
            even = (log_sigma[:, inside] - width[:, None]).square().mean()
            of_cells.append(mask_loss(exponent, inside) + even)
            wanted[inside] = torch.exp(-exponent[inside]).detach()
        cell_loss = torch.stack(of_cells).mean() if of_cells else 0
        losses.append(cell_loss + (seed - wanted).square().mean())
    return torch.stack(losses).mean()


# %% name="data" role="train"
from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
scales = {"cpu": (64, 192, 8, 250, 8), "gpu": (128, 512, 32, 800, 16)}
size, length, base, turns, batch = scales[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # so small a net gains nothing from more threads, which only wait for each other


def draw_data(number, seed):
    """Images (B, 1, H, W) of mean about 0 and deviation about 1, and their label maps (B, H, W)."""
    samples = [draw_cells((seed, i), (size, size)) for i in tqdm(range(number), "draw", leave=False)]
    images = torch.stack([sample["image"][:1] for sample in samples])
    return (images - 0.3) / 0.2, torch.stack([sample["label_map"] for sample in samples])


(images, maps), (new_images, new_maps) = draw_data(length, 0), draw_data(32, 1)

# %% name="train" role="train"
from segedu.semantic.unet import UNet
from segedu.training import train_steps

step_costs = use(lovasz_grad)
torch.manual_seed(0)
net = UNet(1, 5, base_channels=base, depth=3, padding=1)
with torch.no_grad():  # to begin with: nearly no offset, and a sigma of 4 pixels everywhere
    net.head.weight *= 0.01
    net.head.bias[2:4] = np.log(4 / UNIT) / 5
net = net.to(device, memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=turns, pct_start=0.2)
picks = torch.randint(length, (turns, batch), generator=torch.Generator().manual_seed(0))
loader = ((images[pick], maps[pick]) for pick in picks)
bar = tqdm(train_steps(net, loader, embedding_loss, optimizer, scheduler=schedule, clip_norm=1.0), "train", turns)
looks = {}  # step -> what the net says of the first new image
for step, loss in enumerate(bar):
    bar.set_postfix(loss=f"{loss:.3f}")
    if step in (0, turns // 5, turns - 1):
        with torch.no_grad():
            looks[step] = net(new_images[:1].to(device))[0].cpu()

# %% name="train_score" role="train"
from segedu.recipes.baselines import OtsuWatershed
from segedu.metrics.instance import InstanceMetrics

cluster = use(greedy_cluster)
net.eval()
with torch.no_grad():
    outputs = torch.cat([net(part.to(device)).cpu() for part in new_images.split(8)])
found = []
for channels in tqdm(outputs, "cluster", leave=False):
    places, log_sigma, seed = read(channels)
    found.append(torch.as_tensor(cluster(places, log_sigma.exp(), seed, 0.8, 20)).long())
plain = OtsuWatershed()((new_images * 0.2 + 0.3).expand(-1, 3, -1, -1))
scores = {}
for name, answers in (("Gaussian + Otsu + watershed", plain), ("a net that points", found)):
    metrics = InstanceMetrics(iou_thresholds=[0.5, 0.75])
    for answer, truth in zip(answers, new_maps):
        metrics.update(answer, truth)
    scores[name] = metrics.compute()["accuracy"].tolist()
    print(f"{name:<28} instance accuracy {scores[name][0]:.3f} at IoU 0.5, {scores[name][1]:.3f} at 0.75")
print(f"on {len(new_maps)} new images, scale {SCALE}")

# %% [markdown] name="train_after"
# `instance_accuracy` is TP / (TP + FP + FN) over all cells; papers on cells call it AP50 at IoU 0.5. The first row is the plain
# method of chapter 2. One run proves little: with three seeds we measured on a CPU 0.88, 0.83 and 0.87 at IoU 0.5, and 0.52 for
# the plain method.
#
# How did the arrows come about? Below is a new image at three times of the training: each pixel of a cell is drawn **where it
# points**, with the colour of its true cell. The numbers stand at the true centres.

# %% name="space_figure" role="train"
from segedu.viz import palette

truth = new_maps[0].long()
fig, axes = plt.subplots(1, len(looks), figsize=(11, 3.9), layout="constrained")
for ax, (step, channels) in zip(axes, looks.items()):
    y, x = (read(channels)[0] * UNIT)[:, truth > 0]
    ax.scatter(x, y, s=5, color=palette(int(truth.max()))[truth[truth > 0] - 1])
    for number in truth.unique()[1:]:
        row, column = torch.nonzero(truth == number).double().mean(dim=0)
        ax.text(column, row, int(number), ha="center", va="center", fontsize=9, bbox={"fc": "white", "pad": 1})
    ax.set(title=f"after step {step + 1}", xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[], aspect="equal")
show(
    fig,
    alt="Where the pixels of cells point: at themselves after one step, drawn together later, in small heaps at last.",
)

# %% name="maps_figure" role="train"
picture = (new_images[0] * 0.2 + 0.3).clamp(0, 1)
places, log_sigma, seed = read(outputs[0])
width = (log_sigma.exp().mean(dim=0) * UNIT).where(seed > 0.5, torch.nan)
fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
draw_arrows(
    axes[0], picture.expand(3, -1, -1), outputs[0, :2].tanh() * UNIT, seed > 0.5, "offsets, half their length", step=2
)
for ax, title, panel in ((axes[1], "seed map", seed), (axes[2], "sigma in pixels, on the foreground", width)):
    ax.set(title=title, xticks=[], yticks=[])
    fig.colorbar(ax.imshow(panel, cmap="cividis"), ax=ax, shrink=0.9)
show(fig, alt="What the net says of a new image: arrows to the centres of cells, a seed map, and sigmas of each cell.")
fig = gallery([picture] * 3, [truth, found[0], plain[0]], titles=["truth", "your clustering", "watershed"], width=3)
show(
    fig, alt="The same image with its true cells, the cells that the net and the clustering found, and the watershed's."
)

# %% [markdown] name="maps_after"
# Look at the scale of sigma: it hardly differs between these cells. They are of about one size and their arrows hit, so one
# width does for all, as in the widget with arrows that go most of the way. The seeds are near 1 on
# all of a cell, and low where cells touch: there the arrows are least sure.

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** An object is a ring. Where is its centre, and can its pixels point there?
#
# <details><summary>Answer</summary>
# In the hole. They can: an embedding is any place, on the object or not. Only a seed must lie on the object, and it points at
# the centre as the others do.
# </details>
#
# **2.** Find the slip: "Sigma is the width of the noise of the offsets, so it should be as small as possible."
#
# <details><summary>Answer</summary>
# A Gaussian that is too narrow loses pixels of its own cell. Sigma is learned with the arrows, so that the mask it cuts out
# has the best IoU: where arrows miss more, it becomes wider.
# </details>
#
# **3.** The Gaussian is 1/2 at a distance of 5.9 pixels from the centre. How large is sigma?
#
# <details><summary>Answer</summary>
# 5.9 / 1.18 = 5 pixels.
# </details>
#
# **4.** Why does the clustering start with the *best* seed, and not in reading order?
#
# <details><summary>Answer</summary>
# The best seed points best, and its Gaussian is the whole object's. In reading order a pixel at the rim would start, whose
# arrow misses: it takes half a cell, and the other half becomes a second one.
# </details>
#
# **5.** In the pull and push loss, what happens with $\delta_{\text{push}} < \delta_{\text{pull}}$?
#
# <details><summary>Answer</summary>
# The means may be less than 2 pull margins apart, and then the circles of two objects overlap: a vector in both belongs to
# either. The paper wants a push margin of more than twice the pull margin.
# </details>
#
# **6.** Find the slip: "With affinities to the direct neighbours, each wrong answer costs one pixel."
#
# <details><summary>Answer</summary>
# One wrong 1 between two cells can join them into one object, if objects are what is connected. Far offsets and a
# clustering that weighs all answers make it safer.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 10](../course/10-embeddings/index.md): the three methods with their papers.
# - Change one thing where the clustering is called: `min_pixels` 1 instead of 20, or a seed threshold of 0.5 instead of 0.8. What
#   is found too often?
# - Set `LEARNED = True`, as in the paper: a cell's pixels may agree on any place. Look where the arrows go. We measured 0.90,
#   0.88 and 0.85 with three seeds; is that better than before?
# - Draw cells of many sizes: give `draw_cells` in the data cell `radius=(3.5, 13)`. What does the map of sigma show now?
# - Chapter 9 solves the same task with distances and flows; lab 11 begins with boxes.
