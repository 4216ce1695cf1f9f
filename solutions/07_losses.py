# %% [markdown] name="goals"
# # Lab 7: Losses
#
# A metric says how good a model is. A loss has to say more: in which direction every number should move. In this
# lab you write the losses that most segmentation and detection papers use, and find out where they fall silent.
#
# **After this lab you can**
#
# - compute cross-entropy from scores of any size, and say why its gradient does not vanish;
# - make rare classes count (weights) and easy pixels not (focal loss);
# - turn Dice and IoU into losses, and say what the smoothing does to small objects;
# - show where the IoU of boxes has no gradient, and cure it.
#
# **Time**: 70 minutes. **Points**: 20, in six exercises. **Before**: the pages of
# [chapter 7](../course/07-losses/index.md).
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end. Most checks compare two things: the value of your loss, and its **gradient**. So work with
# torch tensors throughout.
#
# Your functions may call other libraries, but not functions that are the exercise itself, such as
# `torchvision.ops.sigmoid_focal_loss`: checks and grading hide them
# ([which ones](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## The same mistake, four gradients
#
# One pixel of the object. The net gives it the probability $p = \sigma(z)$. Left: what four losses say of it. Right:
# how hard each pulls at the score $z$. Look at the left end of the right picture, where the net is sure and wrong.

# %% name="four_losses" role="show"
from segedu.viz import show
from segedu.teaching.widgets.losses import draw_losses

draw_losses(p=0.05)

# %% [markdown] name="ce_idea"
# ## 1. Cross-entropy from scores (3 points)
#
# **Idea.** How surprised is the net by the truth? The loss of a pixel is $-\log p_t$, with $p_t$ the probability of
# the true class $t$.
#
# **Formula.** With scores $z$ and $p = \text{softmax}(z)$,
#
# $$ -\log p_t = -\log \frac{e^{z_t}}{\sum_k e^{z_k}} = \log \sum_k e^{z_k} - z_t
# \qquad \frac{\partial}{\partial z_k}(-\log p_t) = p_k - y_k $$
#
# The gradient is the error itself. It is largest where the net is most wrong. For $L_2$, $(1 - p)^2$, it has the
# factor $p(1 - p)$ and dies there.
#
# **By hand.** $z = (\log 3, 0)$, so $p = (\tfrac34, \tfrac14)$. If class 0 is true the loss is $-\log \tfrac34 = 0.288$
# and the gradient $(-\tfrac14, \tfrac14)$. If class 1 is true: $\log 4 = 1.386$ and $(\tfrac34, -\tfrac34)$.
#
# **Two traps.** $e^{1000}$ is no number any more, and $\log$ of a rounded 0 is infinite: simplify first, then compute
# (`torch.logsumexp`). And the truth may be **soft**: a probability $y_k$ for each class, with the loss
# $-\sum_k y_k \log p_k$.


# %% name="ce_from_logits" role="solution"
def ce_from_logits(logits, target):
    """Mean cross-entropy of pixels.

    logits: float tensor (B, K, H, W), scores before the softmax, of any size
    target: int64 tensor (B, H, W), the true classes 0 to K - 1;
            or float tensor (B, K, H, W), a probability for each class (they sum to 1)

    Returns a tensor of one number, differentiable by logits: the mean over the B * H * W pixels.
    """
    ### BEGIN SOLUTION: log-probabilities without overflow, then the true class or the weighted sum over classes
    log_p = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    if target.is_floating_point():
        return -(target * log_p).sum(dim=1).mean()
    return -log_p.gather(1, target[:, None]).mean()
    ### END SOLUTION


# %% name="check_ce_from_logits" role="check"
check(ce_from_logits)

# %% [markdown] name="ce_figure_text"
# Does it matter in practice? Here a single score walks down its own gradient, from $z = -6$, sure and wrong
# ($p = 0.0025$). Cross-entropy needs a few steps. $L_2$ hardly starts.

# %% name="ce_figure" role="show"
entropy = use(ce_from_logits)


def walk(loss_of, steps=60, rate=1.0):
    """Gradient descent on one score; the probability after each step."""
    z, path = torch.tensor(-6.0), []
    for _ in range(steps):
        z = z.detach().requires_grad_()
        path.append(z.sigmoid().item())
        (slope,) = torch.autograd.grad(loss_of(z), z)
        z = z - rate * slope
    return path


truth = torch.ones(1, 1, 1, dtype=torch.int64)
by_entropy = walk(lambda z: entropy(torch.stack([torch.zeros(()), z]).reshape(1, 2, 1, 1), truth))
by_square = walk(lambda z: (1 - z.sigmoid()) ** 2)
fig, ax = plt.subplots(figsize=(6.5, 3), layout="constrained")
ax.plot(by_entropy, color="#0072B2", label="cross-entropy")
ax.plot(by_square, "--", color="#E69F00", label="L2")
ax.set(xlabel="step", ylabel="probability of the truth", ylim=(-0.03, 1.03))
ax.legend()
alt = f"After 60 steps cross-entropy has p = {by_entropy[-1]:.2f}; L2 has moved from 0.0025 to {by_square[-1]:.4f}."
show(fig, alt=alt)

# %% [markdown] name="weights_idea"
# ## 2. Weights for rare classes (3 points)
#
# **Idea.** If 98 of 100 pixels are background, the mean loss is about background. Give each pixel the weight of its
# **true** class, one over the number of pixels of that class in the training set.
#
# **Formula.** With $w_k = 1/n_k$ and the loss $\ell_i$ of pixel $i$ with truth $t_i$,
#
# $$ L = \frac{\sum_i w_{t_i} \ell_i}{\sum_i w_{t_i}} $$
#
# It is a weighted *mean*: multiply all weights by 10 and nothing changes. An ignored pixel has weight 0, and so has a
# class with $n_k = 0$. If all weights are 0, so is the loss.
#
# **By hand.** $n = (98, 2)$. One background pixel has loss 0.1, one object pixel 2. The plain mean is 1.05. The weighted
# one is $(0.1/98 + 2/2) / (1/98 + 1/2) = 1.96$: nearly the object's.


# %% name="weighted_ce" role="solution"
def weighted_ce(logits, target, pixel_counts, ignore_index):
    """Cross-entropy with weights 1 / count of the true class.

    logits:       float tensor (B, K, H, W), scores before the softmax
    target:       int64 tensor (B, H, W), the true classes 0 to K - 1, or ignore_index
    pixel_counts: int64 tensor (K,), n_k: pixels of each class in the training set; 0 gives weight 0
    ignore_index: pixels with this target do not count, neither in the sum nor in the divisor.
                  It may be 255 or -1, and is never a class

    Returns a tensor of one number, differentiable by logits: the weighted sum of the losses of the pixels,
    divided by the sum of their weights; 0 if that sum is 0.
    """
    ### BEGIN SOLUTION: a weight for each class, a loss and a weight for each pixel, then the weighted mean
    weights = torch.where(pixel_counts > 0, 1 / pixel_counts.clamp(min=1), 0.0).to(logits)
    counted = target != ignore_index
    safe_target = torch.where(counted, target, 0)
    weight = weights[safe_target] * counted
    log_p = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    loss = -log_p.gather(1, safe_target[:, None])[:, 0]
    total = weight.sum()
    return (weight * loss).sum() / torch.where(total > 0, total, 1.0)
    ### END SOLUTION


# %% name="check_weighted_ce" role="check"
check(weighted_ce)

# %% [markdown] name="scene_text"
# Here are the scenes of this lab: small nuclei in noise, on about 2 % of the pixels. The bars show whose loss it is
# when a net knows nothing yet and answers $p = 0.5$ everywhere: without weights nearly all of it is the background's.

# %% name="scene" role="show"
from segedu.datasets.cells import draw_cells

SCENE = {"count": (1, 3), "radius": (3.0, 5.0)}
samples = [draw_cells((7, i), size=(64, 64), **SCENE) for i in range(3)]
target = torch.stack([sample["semantic"] for sample in samples])
share = target.double().mean()
parts = torch.stack([1 - share, share]) * np.log(2)  # pixels of each class times -log 0.5
fig, axes = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
for ax, sample in zip(axes, samples):
    ax.imshow(sample["image"][0], cmap="gray", vmin=0, vmax=0.7)
    ax.contour(sample["semantic"], levels=[0.5], colors="#E69F00", linewidths=1)
    ax.set_axis_off()
for x, values in enumerate((parts, parts / torch.stack([1 - share, share]))):
    low, high = (values / values.sum()).tolist()
    axes[3].bar(x, low, color="#999999", label="background" if x == 0 else None)
    axes[3].bar(x, high, bottom=low, color="#E69F00", hatch="//", label="nuclei" if x == 0 else None)
axes[3].set_xticks([0, 1], ["plain", "weighted"])
axes[3].set(ylabel="share of the loss", ylim=(0, 1.35))
axes[3].legend(loc="upper center", ncols=2, fontsize=8)
show(
    fig,
    alt=f"Three noisy scenes with tiny outlined nuclei, {share:.1%} of the pixels and of the loss; with weights half of it.",
)

# %% [markdown] name="focal_idea"
# ## 3. The focal loss (4 points)
#
# **Idea.** Weights make a class louder. They do not tell an easy pixel from a hard one: ten thousand background pixels
# at $p_t = 0.99$ still add up. The focal loss turns **easy** pixels down, of whatever class. That is often told as
# "it weights rare classes"; the balance of classes is the job of its other number, $\alpha$.
#
# **Formula.** One score $z$ a pixel, $p = \sigma(z)$. For target 1: $p_t = p$, $\alpha_t = \alpha$. For target 0:
# $p_t = 1 - p$, $\alpha_t = 1 - \alpha$.
#
# $$ L = -\alpha_t\,(1 - p_t)^\gamma \log p_t $$
#
# **By hand.** $\gamma = 2$. At $p_t = 0.9$ the factor is $0.1^2 = 0.01$: a hundredth of the cross-entropy. At
# $p_t = 0.5$ it is a quarter, at $p_t = 0.1$ it is $0.81$.
#
# Scores of 1000 must work again: `torch.nn.functional.logsigmoid(z)` is $\log \sigma(z)$, and $1 - \sigma(z) =
# \sigma(-z)$.


# %% name="focal" role="solution"
def focal(logits, target, alpha, gamma):
    """Mean focal loss of pixels with one score each.

    logits: float tensor of any shape, scores before the sigmoid, of any size
    target: int64 tensor of the same shape, 0 or 1
    alpha:  weight of the targets 1, from 0 to 1; the targets 0 have 1 - alpha
    gamma:  the exponent, at least 0

    Returns a tensor of one number, differentiable by logits: the sum over pixels divided by their number.
    """
    ### BEGIN SOLUTION: log p_t and 1 - p_t from the score with the sign of the target, alpha_t, the mean
    score = torch.where(target == 1, logits, -logits)
    alpha_t = torch.where(target == 1, alpha, 1 - alpha)
    loss = -alpha_t * torch.sigmoid(-score) ** gamma * torch.nn.functional.logsigmoid(score)
    return loss.mean()
    ### END SOLUTION


# %% name="check_focal" role="check"
check(focal)

# %% [markdown] name="focal_figure_text"
# The curves of the paper, drawn by your function, and what they do to a crowd. Right: 9,800 easy background pixels
# ($p_t = 0.95$) against 200 hard object pixels ($p_t = 0.3$). Which share of the total loss do the easy ones have?

# %% name="focal_figure" role="show"
focal_loss, one = use(focal), torch.ones(1, dtype=torch.int64)


def focal_at(p_t, gamma):
    """The loss of one pixel without alpha: alpha = 1/2 counts half."""
    return 2 * float(focal_loss(torch.logit(torch.tensor([float(p_t)])), one, 0.5, gamma))


gammas, styles = (0.0, 0.5, 1.0, 2.0, 5.0), ("-", ":", "-.", "--", "-")
colours = ("#000000", "#0072B2", "#009E73", "#E69F00", "#CC79A7")
ps = np.linspace(0.01, 0.99, 99)
fig, axes = plt.subplots(1, 2, figsize=(10, 3.3), layout="constrained")
shares = []
for gamma, style, colour in zip(gammas, styles, colours):
    axes[0].plot(ps, [focal_at(p, gamma) for p in ps], style, color=colour, label=f"gamma {gamma:g}")
    easy, hard = 9800 * focal_at(0.95, gamma), 200 * focal_at(0.3, gamma)
    shares.append(easy / (easy + hard))
axes[0].set(xlabel="probability of the truth, $p_t$", ylabel="loss", ylim=(0, 4))
axes[0].legend()
axes[1].bar([f"{g:g}" for g in gammas], shares, color=colours)
axes[1].bar_label(axes[1].containers[0], fmt="%.3f")
axes[1].set(xlabel="gamma", ylabel="share of the easy pixels", ylim=(0, 1))
said = ", ".join(f"gamma {g:g}: {s:.3f}" for g, s in zip(gammas, shares))
show(fig, alt=f"Focal loss by probability: the larger gamma, the flatter at the right. Share of easy pixels: {said}.")

# %% [markdown] name="dice_idea"
# ## 4. The Dice loss (4 points)
#
# **Idea.** Cross-entropy is a mean over pixels. The metric is not: Dice compares whole masks. Put probabilities in the
# place of mask pixels, and Dice can be differentiated. True negatives are not in it, so however large the background
# is, it drowns nothing.
#
# **Formula.** For each image and each class but the background, with sums over the pixels,
#
# $$ L = 1 - \frac{2\sum y p + s}{\sum y + \sum p + s} $$
#
# then the mean over images and classes. (The background is large and nearly always right, so its Dice says little.)
# The sums belong **inside** the fraction. It is often printed without them.
#
# **By hand.** Four pixels, $y = (1, 1, 0, 0)$, $p = (1, \tfrac12, \tfrac12, 0)$, $s = 1$: $\sum yp = 1.5$, both areas
# are 2, $L = 1 - 4/5 = 0.2$. A fraction for each pixel, then the mean: $1 - (1 + 0.8 + 0.667 + 1)/4 = 0.133$, another
# number, which no longer knows where the object is.
#
# **What is $s$?** Not only protection from $0/0$: it is generous to small objects. With $s = 0$ a class with no pixel
# and no probability has $0/0$: here its loss is 0.


# %% name="soft_dice" role="solution"
def soft_dice(logits, target, smooth):
    """Soft Dice loss, mean over images and over the classes but the background.

    logits: float tensor (B, K, H, W), scores before the softmax
    target: int64 tensor (B, H, W), the true classes 0 to K - 1
    smooth: s, at least 0; it is added above and below

    Returns a tensor of one number, differentiable by logits: the mean of B * (K - 1) losses, of each image and
    each class from 1 on, each from the sums over the pixels of that image. Denominator 0: the loss is 0.
    """
    ### BEGIN SOLUTION: probabilities, one-hot truth, sums over rows and columns, one fraction an image and class
    p = torch.softmax(logits, dim=1)
    y = torch.nn.functional.one_hot(target, p.shape[1]).movedim(-1, 1).to(p)
    inter, areas = (y * p).sum(dim=(2, 3)), (y + p).sum(dim=(2, 3))
    whole = areas + smooth
    empty = whole == 0
    dice = torch.where(empty, 1.0, (2 * inter + smooth) / torch.where(empty, 1.0, whole))
    return (1 - dice[:, 1:]).mean()
    ### END SOLUTION


# %% name="check_soft_dice" role="check"
check(soft_dice)

# %% [markdown] name="dice_figure_text"
# The effect of $s$, measured with your function. An image of 64 by 64 pixels has one object of $n$ pixels, and the net
# misses it altogether. The loss should be near 1, whatever the size. With $s = 1$ an object of one
# pixel costs a half. With $s = 100$ ten pixels are almost free.

# %% name="dice_figure" role="show"
dice, sizes = use(soft_dice), (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
missed = torch.zeros(1, 2, 64, 64, dtype=torch.float64)
missed[:, 0] = 50.0  # background, surely


def cost_of_missing(n, smooth):
    """The loss of an image whose object of n pixels nobody saw."""
    target = torch.zeros(64 * 64, dtype=torch.int64)
    target[:n] = 1
    return float(dice(missed, target.reshape(1, 64, 64), smooth))


fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for smooth, style, colour in ((0.01, "o-", "#0072B2"), (1.0, "s--", "#E69F00"), (100.0, "^:", "#CC79A7")):
    ax.plot(sizes, [cost_of_missing(n, smooth) for n in sizes], style, color=colour, label=f"s = {smooth:g}")
ax.set(xscale="log", xlabel="pixels of the missed object", ylabel="Dice loss", ylim=(0, 1.05))
ax.legend()
costs = [round(cost_of_missing(n, 1.0), 2) for n in (1, 10, 100)]
show(
    fig, alt=f"Cost of missing an object by its size. With s = 1: {costs} for 1, 10 and 100 pixels; with s = 100 less."
)

# %% [markdown] name="grad_idea"
# ## 5. Where IoU falls silent (2 points)
#
# **Idea.** The same trick for boxes: $1 - \text{IoU}$ as a loss. But a gradient needs something that changes. Boxes
# that share no area have IoU 0, and after a small step they still have.
#
# **Formula.** The intersection is $w h$ with $w = \max(0, \min(x_2, x_2') - \max(x_1, x_1'))$ and $h$ likewise. Where
# $w$ or $h$ is 0, so are all derivatives.
#
# **By hand.** The homework: $(0, 0, 2, 2)$ and $(1, 1, 3, 4)$, $I = 1$, $U = 9$. Move $x_2$: $I$ grows by $h = 1$ and $U$
# by $2 - 1 = 1$, so $(1 \cdot 9 - 1 \cdot 1)/81 = 8/81$. Move $x_1$: only $U$ changes, by $-2$, so $2/81$: the box gets
# smaller. By symmetry the gradient is $(2, 2, 8, 8)/81$.
#
# Boxes that only **touch** share no area: here their gradient is 0 too. Automatic differentiation has an opinion of its
# own at such a corner, and not every way to write $\max(0, x)$ has the same: `torch.relu` gives 0 there.


# %% name="iou_grad_zero" role="solution"
def iou_grad_zero(boxes, target):
    """Gradient of the IoU of pairs of boxes, and where it is zero.

    boxes:  float tensor (N, 4), predicted boxes (x1, y1, x2, y2) with x1 < x2 and y1 < y2
    target: float tensor (N, 4), the true box of each, likewise

    Returns the tuple (grad, zero). grad (N, 4), floats: the derivative of each pair's own IoU by the four
    coordinates of its predicted box. zero (N,), bools: true where all four are exactly 0. Pairs that share no
    area, touching ones included, have gradient 0. Do not change the arguments.
    """
    ### BEGIN SOLUTION: IoU of the pairs, torch.autograd.grad of the sum, and the rows that are zero
    boxes = boxes.detach().clone().requires_grad_()
    overlap = torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2])
    inter = torch.relu(overlap).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (target[:, 2:] - target[:, :2]).prod(dim=1)
    iou = inter / (areas - inter)
    (grad,) = torch.autograd.grad(iou.sum(), boxes)
    return grad, (grad == 0).all(dim=1)
    ### END SOLUTION


# %% name="check_iou_grad_zero" role="check"
check(iou_grad_zero)

# %% [markdown] name="grad_figure_text"
# A map of silence. The predicted box is 8 by 6 pixels. Each point of the map is a place of its centre; the colour is
# the length of the gradient there. In the hatched part it is exactly zero. A network starts with random boxes: most
# of them begin there.

# %% name="grad_figure" role="show"
from matplotlib.patches import Rectangle

cx, cy = torch.meshgrid(torch.arange(0.25, 48, 0.5), torch.arange(0.25, 32, 0.5), indexing="xy")
moving = torch.stack([cx - 4, cy - 3, cx + 4, cy + 3], dim=-1).reshape(-1, 4)
fixed = torch.tensor([[18.1, 12.1, 28.2, 19.2]])
grad, zero = (torch.as_tensor(x) for x in use(iou_grad_zero)(moving, fixed.expand(len(moving), 4)))
length = grad.norm(dim=1).reshape(cx.shape)
fig, ax = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
picture = ax.imshow(length, cmap="cividis", extent=(0, 48, 32, 0))
ax.contourf(cx, cy, zero.reshape(cx.shape).float(), levels=[0.5, 1.5], colors="none", hatches=["//"])
ax.add_patch(Rectangle((18.1, 12.1), 10.1, 7.1, fill=False, ec="white", lw=2))
ax.set(xlabel="x of the centre", ylabel="y of the centre", title=f"no gradient on {zero.float().mean():.0%} of the map")
fig.colorbar(picture, ax=ax, label="length of the gradient")
show(
    fig, alt=f"Map of the gradient of IoU: zero, hatched, on {zero.float().mean():.0%}; not zero around the fixed box."
)

# %% [markdown] name="giou_idea"
# ## 6. The GIoU loss (4 points)
#
# **Idea.** Let the loss see the empty space between the boxes: the smallest box around both, of area $C$. (The paper
# defines GIoU for convex shapes of any kind; this is the closed form for axis-aligned boxes.)
#
# **Formula.** With intersection $I$ and union $U$ of each pair, and the mean over **all** pairs,
#
# $$ L = 1 - \text{GIoU} = 1 - \frac{I}{U} + \frac{C - U}{C} $$
#
# **By hand.** The homework: $1 - \tfrac19 + \tfrac{12 - 9}{12} = 1 + \tfrac5{36} = 1.139$.
#
# **Edges.** A prediction may shrink to a point. Two equal points have $U = C = 0$: both fractions count as 0, so the
# loss is 1, and no gradient may be NaN. An image without objects has no pairs: the loss is 0.


# %% name="giou_loss" role="solution"
def giou_loss(boxes, target):
    """Mean GIoU loss of pairs of boxes.

    boxes:  float tensor (N, 4), predicted boxes (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2; N may be 0
    target: float tensor (N, 4), the true box of each, likewise

    Returns a tensor of one number, differentiable by boxes: the mean over the N pairs, 0 if N is 0. A fraction
    whose denominator is 0 counts as 0, and gives no NaN to the gradient.
    """

    ### BEGIN SOLUTION: intersection, union and enclosing box of each pair; guarded fractions; the mean
    def ratio(part, whole):
        return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)

    inner = torch.minimum(boxes[:, 2:], target[:, 2:]) - torch.maximum(boxes[:, :2], target[:, :2])
    outer = torch.maximum(boxes[:, 2:], target[:, 2:]) - torch.minimum(boxes[:, :2], target[:, :2])
    inter, hull = torch.relu(inner).prod(dim=1), outer.prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (target[:, 2:] - target[:, :2]).prod(dim=1)
    union = areas - inter
    loss = 1 - ratio(inter, union) + ratio(hull - union, hull)
    return loss.sum() / max(len(loss), 1)
    ### END SOLUTION


# %% name="check_giou_loss" role="check"
check(giou_loss)

# %% [markdown] name="giou_figure_text"
# A race. The same box starts far away and walks down four losses: $1 - \text{IoU}$, your GIoU loss, and two more cures
# from the library: distance IoU, and $L_1 + (1 - \text{IoU})$. The curves show the best IoU that each has reached so far.

# %% name="giou_figure" role="show"
from segedu.teaching.widgets.losses import draw_race

draw_race({"your GIoU loss": use(giou_loss)})

# %% [markdown] name="widget_text"
# ## Move the probability
#
# A group of pixels with the same probability $p$ of being object. Move $p$ and watch value and gradient. Try: which
# losses fall silent at $p = 0.01$? What does $\gamma$ do at $p = 0.9$? Then make the truth "background", and the group
# one pixel large: how does Dice punish false alarms in an image without an object, and what does $s$ change?

# %% name="losses_widget" role="widget"
from segedu.teaching.widgets.losses import explorer

explorer()

# %% [markdown] name="train_text"
# ## Train with them
#
# The same small U-Net, the same scenes with about 2 % foreground, the same number of steps and the same learning rate:
# five losses. Only the loss differs.

# %% name="train_parts" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.cells import Cells
from tqdm.auto import tqdm


def draw_data(length, seed, size):
    """Images (B, 1, H, W) of mean about 0 and deviation about 1, and their targets (B, H, W)."""
    samples = tqdm(Cells(length, seed, (size, size), **SCENE), desc="draw", unit="image")
    images, target = semantic_batch(list(samples))
    return (images[:, :1] - 0.15) / 0.1, target


def five_losses(counts):
    """Your five functions, each as a function of (logits, target)."""
    ce, weighted, dice, focal_loss = use(ce_from_logits), use(weighted_ce), use(soft_dice), use(focal)
    return {
        "cross-entropy": ce,
        "weighted CE": lambda z, t: weighted(z, t, counts.to(z.device), 255),
        "focal": lambda z, t: focal_loss(z[:, 1] - z[:, 0], t, 0.75, 2.0),  # softmax of two is sigmoid of z1 - z0
        "Dice": lambda z, t: dice(z, t, 1.0),
        "CE + Dice": lambda z, t: ce(z, t) + dice(z, t, 1.0),
    }


# %% name="train" role="train"
from segedu.semantic.unet import UNet
from segedu.training import evaluate, train_steps

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
scales = {"cpu": (64, 128, 8, 2, 120, 8), "gpu": (256, 512, 32, 4, 1000, 16)}
size, length, base, depth, steps, batch = scales[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # so small a net gains nothing from more threads, which only wait for each other
if SCALE == "gpu":
    SCENE = {"count": (16, 48), "radius": (3.0, 5.0)}  # as dense as in the small images
images, target = draw_data(length, 0, size)
val = list(zip(*(part.split(batch) for part in draw_data(64, 1000, size))))
counts = torch.bincount(target.flatten(), minlength=2)
nets, scores = {}, {}
for name, loss_function in five_losses(counts).items():
    torch.manual_seed(0)
    net = UNet(1, 2, base, depth, padding=1).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.2)
    picks = torch.randint(length, (steps, batch), generator=torch.Generator().manual_seed(0))
    loader = ((images[pick], target[pick]) for pick in picks)
    bar = tqdm(train_steps(net, loader, loss_function, optimizer, scheduler=schedule), name, steps)
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")
    scores[name] = float(evaluate(net, val, 2)["iou_per_class"][1])
    nets[name] = net.eval().cpu()
print(f"{len(scores)} nets of {steps} steps, {counts[1] / counts.sum():.1%} foreground, scale {SCALE}")

# %% [markdown] name="train_after"
# What is the IoU of the foreground on new images? The first row is the plain method of chapter 2: smooth the image,
# then take Otsu's threshold.
#
# One run proves little. We measured three seeds on a CPU (0, 1 and 2, as here): cross-entropy 0.56, 0.61, 0.41; weighted
# 0.46, 0.47, 0.59; focal 0.61, 0.70, 0.68; Dice 0.73, 0.73, 0.75; cross-entropy and Dice added 0.72, 0.78, 0.74.
#
# **Is Dice the better loss, then?** After 120 steps at this learning rate, which we chose because all five train with it.
# At 0.02, cross-entropy reaches 0.74, 0.74 and 0.02. At 0.01, Dice alone found nothing with one of two seeds. Dice
# starts sooner on a rare class, but it does not win everywhere: after 480 steps, cross-entropy has 0.83 with seed 0. And
# weights of one over the count find too much: look at the outlines.

# %% name="train_table" role="train"
from segedu.metrics.semantic import iou_per_class
from skimage.filters import gaussian, threshold_otsu

val_images, val_target = (torch.cat(part) for part in zip(*val))
smoothed = [gaussian(image[0].numpy(), sigma=1) for image in val_images]
plain = torch.stack([torch.from_numpy(image > threshold_otsu(image)).long() for image in smoothed])
table = {"Gaussian, then Otsu": float(iou_per_class(plain, val_target, 2)[1]), **scores}
for name, score in table.items():
    print(f"{name:<20} IoU of the foreground {score:.3f}")

# %% name="train_figure" role="train"
first = int((val_target == 1).flatten(1).sum(dim=1).argmax())  # the image with most foreground
image, truth = val_images[first : first + 1], val_target[first]
fig, axes = plt.subplots(2, 5, figsize=(11, 4.9), layout="constrained")
for column, (name, net) in zip(axes.T, nets.items()):
    with torch.no_grad():
        logits = net(image)[0]
    p = torch.sigmoid(logits[1] - logits[0])
    column[0].imshow(image[0, 0], cmap="gray")
    column[0].contour(logits.argmax(0) > 0, levels=[0.5], colors="#56B4E9")
    column[0].set_title(f"{name}\nIoU {scores[name]:.3f}", fontsize=10)
    column[1].imshow(p, cmap="cividis", vmin=0, vmax=1)
    column[1].contour(truth, levels=[0.5], colors="white", linewidths=1)
    column[1].set_title("probability", fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()
said = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
show(fig, alt=f"One new image with the outlines that five nets predict, and their probabilities. IoU: {said}.")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** A net gives the true class $p = 0.001$. Compare the gradient by the score of cross-entropy and of $L_2$.
#
# <details><summary>Answer</summary>
# Cross-entropy: 1 - p = 0.999. L2: 2 (1 - p) p (1 - p) = 0.002. The surer and wronger the net, the less L2 tells it.
# </details>
#
# **2.** Find the slip: "The Dice loss is $1 - (2 y p + 1)/(y + p + 1)$, averaged over pixels."
#
# <details><summary>Answer</summary>
# The sums are missing: $1 - (2 \sum y p + 1)/(\sum y + \sum p + 1)$, once for each image and class.
# </details>
#
# **3.** Find the slip: "The focal loss increases the weight of rare classes."
#
# <details><summary>Answer</summary>
# The factor $(1 - p_t)^\gamma$ turns easy pixels down, of whatever class. Classes are balanced by $\alpha$.
# </details>
#
# **4.** Find the slip: "The + 1 in the Dice loss is there for numerical stability."
#
# <details><summary>Answer</summary>
# Half of the truth: it is generous to small objects. A missed object of 1 pixel costs 0.50, one of 100 pixels 0.99.
# </details>
#
# **5.** Somebody multiplies all class weights by 10 and trains again with the same learning rate. What changes?
#
# <details><summary>Answer</summary>
# Nothing, if the loss divides by the sum of the weights. If it divides by the number of pixels, the loss and its
# gradient are 10 times as large.
# </details>
#
# **6.** Find the slip: "GIoU is defined for bounding boxes only."
#
# <details><summary>Answer</summary>
# The paper defines it for convex shapes. Only the short formula with an enclosing box is for axis-aligned boxes.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 7](../course/07-losses/index.md): all 25 losses of a survey, in its own groups.
# - Change one thing in the training cell: $\gamma = 0$, $s = 100$, or ten times as many steps. Does cross-entropy catch up?
# - Chapters 11 and 12 train detectors with the box losses; chapter 15 adds Dice and cross-entropy for masks.
