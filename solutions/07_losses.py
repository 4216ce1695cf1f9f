# %% [markdown] name="goals"
# # Lab 7: Losses
#
# A metric measures how good a network is. A loss trains it: the gradient of the loss determines in which direction each
# parameter changes. In this lab you write the losses that most segmentation and detection papers use, and you find out
# where their gradients vanish.
#
# **After this lab you can**
#
# - compute cross-entropy from logits of any magnitude, and say why its gradient does not vanish;
# - increase the influence of rare classes (weights) and reduce that of easy pixels (focal loss);
# - turn Dice and IoU into losses, and say what the smoothing term does to small objects;
# - show where the IoU of boxes has no gradient, and use GIoU to avoid this problem.
#
# **Time**: 70 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: the pages of [chapter 7](../course/07-losses/index.md), and labs 4 (Dice and IoU) and 5
# (cross-entropy). The mathematics is the softmax, the sigmoid, and derivatives with the chain rule.
#
# Run the cells from top to bottom. As long as one of your functions is missing or wrong, later cells use the library's
# function, so the notebook always runs to its end. Most checks compare two things: the value of your loss, and its
# **gradient**. So compute with torch operations from the logits to the loss: a detour through NumPy or `.item()` loses
# the gradient.
#
# Your functions may call other libraries, but not functions that solve the exercise on their own, such as
# `torch.nn.functional.cross_entropy` or `torchvision.ops.sigmoid_focal_loss`. Checks and grading hide these functions
# ([list of hidden functions](../course/grading/trust.md)).

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## The same error, four gradients
#
# The next figure shows four losses of a single object pixel. The network assigns it the probability $p = \sigma(z)$ of
# being object, where $z$ is the logit. Left: the values of the losses. Right: the absolute values of their derivatives
# with respect to the logit $z$, that is, how strongly gradient descent changes $z$. Look at the left end of the right
# plot, where the network is confident and wrong: which of the four losses still have a gradient there?

# %% name="four_losses" role="show"
from segedu.viz import show
from segedu.teaching.widgets.losses import draw_losses

draw_losses(p=0.05)

# %% [markdown] name="ce_idea"
# ## 1. Cross-entropy from logits (3 points)
#
# **Idea.** The loss of a pixel is $-\log p_t$, where $p_t$ is the predicted probability of its ground-truth class $t$.
# It is 0 if the network is certain and right. It grows without bound if the network is certain and wrong.
#
# **Formula.** With logits $z$, $p = \text{softmax}(z)$, and $y_k = 1$ for the ground-truth class and 0 for all others,
#
# $$ -\log p_t = -\log \frac{e^{z_t}}{\sum_k e^{z_k}} = \log \sum_k e^{z_k} - z_t
# \qquad \frac{\partial}{\partial z_k}(-\log p_t) = p_k - y_k $$
#
# The gradient equals the error of the probabilities. It is largest where the prediction is most wrong. The $L_2$ loss
# of one logit, $(1 - p)^2$ with $p = \sigma(z)$, has a gradient with the factor $p(1 - p)$. This gradient therefore
# vanishes where the prediction is most wrong.
#
# **Worked example.** Let $z = (\log 3, 0)$, so $p = (\tfrac34, \tfrac14)$. If the ground truth is class 0, the loss is
# $-\log \tfrac34 = 0.288$ and the gradient is $(-\tfrac14, \tfrac14)$. If it is class 1, the loss is $\log 4 = 1.386$
# and the gradient is $(\tfrac34, -\tfrac34)$.
#
# **Two difficulties.** First, $e^{1000}$ overflows, and the logarithm of a probability that was rounded to 0 is
# infinite. So simplify the formula before you compute it (`torch.logsumexp`). Second, the target may be **soft**: it
# then gives a probability $y_k$ for each class, and the loss is $-\sum_k y_k \log p_k$.


# %% name="ce_from_logits" role="solution"
def ce_from_logits(logits, target):
    """Mean cross-entropy over the pixels.

    logits: float tensor (B, K, H, W), scores before the softmax, of any magnitude
    target: either an int64 tensor (B, H, W), the ground-truth classes 0 to K - 1;
            or a float tensor (B, K, H, W), a probability for each class (the K probabilities of a pixel sum to 1)

    Returns a tensor with a single value, differentiable with respect to logits: the mean over the B * H * W pixels.
    """
    ### BEGIN SOLUTION: log-probabilities without overflow; pick the class, or for a soft target sum over the classes
    log_p = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    if target.is_floating_point():
        return -(target * log_p).sum(dim=1).mean()
    return -log_p.gather(1, target[:, None]).mean()
    ### END SOLUTION


# %% name="check_ce_from_logits" role="check"
check(ce_from_logits)

# %% [markdown] name="ce_figure_text"
# How much does this matter in practice? The next figure shows gradient descent on a single logit. It starts at
# $z = -6$, where the network is confident and wrong ($p = 0.0025$). With cross-entropy the probability exceeds 0.75
# after ten steps. With $L_2$ it hardly changes in 60 steps.

# %% name="ce_figure" role="show"
entropy = use(ce_from_logits)


def descend(loss_of, steps=60, rate=1.0):
    """Gradient descent on one logit; the probability at each step."""
    z, path = torch.tensor(-6.0), []
    for _ in range(steps):
        z = z.detach().requires_grad_()
        path.append(z.sigmoid().item())
        (slope,) = torch.autograd.grad(loss_of(z), z)
        z = z - rate * slope
    return path


target = torch.ones(1, 1, 1, dtype=torch.int64)
by_entropy = descend(lambda z: entropy(torch.stack([torch.zeros(()), z]).reshape(1, 2, 1, 1), target))
by_square = descend(lambda z: (1 - z.sigmoid()) ** 2)
fig, ax = plt.subplots(figsize=(6.5, 3), layout="constrained")
ax.plot(by_entropy, color="#0072B2", label="cross-entropy")
ax.plot(by_square, "--", color="#E69F00", label="L2")
ax.set(xlabel="step", ylabel="probability of the ground truth", ylim=(-0.03, 1.03))
ax.legend()
alt = (
    "Probability of the ground truth in 60 steps of gradient descent. At the end cross-entropy has "
    f"p = {by_entropy[-1]:.2f}; L2 has moved only from 0.0025 to {by_square[-1]:.4f}."
)
show(fig, alt=alt)

# %% [markdown] name="weights_idea"
# ## 2. Weights for rare classes (3 points)
#
# **Idea.** If 98 of 100 pixels are background, the mean loss depends almost only on the background. To compensate, each
# pixel gets the weight of its **ground-truth** class. This weight is 1 divided by $n_k$, the number of pixels of class
# $k$ in the training set.
#
# **Formula.** With $w_k = 1/n_k$, and with the loss $\ell_i$ and the ground-truth class $t_i$ of pixel $i$,
#
# $$ L = \frac{\sum_i w_{t_i} \ell_i}{\sum_i w_{t_i}} $$
#
# This is a weighted *mean*: it does not change if you multiply all weights by 10. An ignored pixel has weight 0, and so
# has a pixel of a class with $n_k = 0$. If all weights are 0, the loss is 0.
#
# **Worked example.** Let $n = (98, 2)$. One background pixel has loss 0.1, and one object pixel has loss 2. Their
# unweighted mean is 1.05. The weighted mean is $(0.1/98 + 2/2) / (1/98 + 1/2) = 1.96$, which is close to the loss of
# the object pixel.


# %% name="weighted_ce" role="solution"
def weighted_ce(logits, target, pixel_counts, ignore_index):
    """Cross-entropy with weights 1 / count of the ground-truth class.

    logits:       float tensor (B, K, H, W), scores before the softmax
    target:       int64 tensor (B, H, W), the ground-truth classes 0 to K - 1, or ignore_index
    pixel_counts: int64 tensor (K,), the number n_k of pixels of each class in the training set; a class with count 0
                  has weight 0
    ignore_index: pixels with this target must not count, neither in the numerator nor in the denominator.
                  It may be 255 or -1, and is never one of the classes

    Returns a tensor with a single value, differentiable with respect to logits: the weighted sum of the losses of the
    pixels, divided by the sum of their weights; 0 if the sum of the weights is 0.
    """
    ### BEGIN SOLUTION: a weight for each class, a loss and a weight for each pixel, and their weighted mean
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
# The images of this lab are synthetic. They show small nuclei in a noisy background, and the nuclei cover 2 to 3 % of
# the pixels. Consider an untrained network that predicts $p = 0.5$ everywhere. The bars show what fraction of its loss
# comes from each class. Without weights, nearly all of the loss comes from the background. With weights, each class
# contributes one half.

# %% name="scene" role="show"
from segedu.datasets.cells import draw_cells

SCENE = {"count": (1, 3), "radius": (3.0, 5.0)}
samples = [draw_cells((7, i), size=(64, 64), **SCENE) for i in range(3)]
target = torch.stack([sample["semantic"] for sample in samples])
fraction = target.double().mean()
parts = torch.stack([1 - fraction, fraction]) * np.log(2)  # pixels of each class times -log 0.5
fig, axes = plt.subplots(2, 2, figsize=(7, 6), layout="constrained")
axes = axes.ravel()
for ax, sample in zip(axes, samples):
    ax.imshow(sample["image"][0], cmap="gray", vmin=0, vmax=0.7)
    ax.contour(sample["semantic"], levels=[0.5], colors="#E69F00", linewidths=1)
    ax.set_axis_off()
for x, values in enumerate((parts, parts / torch.stack([1 - fraction, fraction]))):
    low, high = (values / values.sum()).tolist()
    axes[3].bar(x, low, color="#999999", label="background" if x == 0 else None)
    axes[3].bar(x, high, bottom=low, color="#E69F00", hatch="//", label="nuclei" if x == 0 else None)
axes[3].set_xticks([0, 1], ["unweighted", "weighted"])
axes[3].set(ylabel="fraction of the loss", ylim=(0, 1.35))
axes[3].legend(loc="upper center", ncols=2)
show(
    fig,
    alt="Three noisy synthetic images with small nuclei, which are outlined. Bars: the nuclei are "
    f"{fraction:.1%} of the pixels and of the unweighted loss, and half of the weighted loss.",
)

# %% [markdown] name="focal_idea"
# ## 3. The focal loss (4 points)
#
# **Idea.** A class weight increases the influence of a class. It does not distinguish between easy and hard pixels: the
# losses of ten thousand background pixels with $p_t = 0.99$ still add up. The focal loss (Lin et al., 2017) reduces the
# influence of **easy** pixels of any class, with a factor whose exponent is $\gamma$. It is often said that this factor
# gives rare classes a larger weight. But the classes are balanced by the other parameter of the focal loss, $\alpha$.
#
# **Formula.** Each pixel has one logit $z$, and $p = \sigma(z)$. For target 1, $p_t = p$ and $\alpha_t = \alpha$. For
# target 0, $p_t = 1 - p$ and $\alpha_t = 1 - \alpha$.
#
# $$ L = -\alpha_t\,(1 - p_t)^\gamma \log p_t $$
#
# **Worked example.** Let $\gamma = 2$. At $p_t = 0.9$ the factor is $0.1^2 = 0.01$, so a hundredth of the cross-entropy
# remains. At $p_t = 0.5$ the factor is a quarter, and at $p_t = 0.1$ it is $0.81$.
#
# Logits of 1000 must again give a finite loss. The function `torch.nn.functional.logsigmoid(z)` computes
# $\log \sigma(z)$ without overflow, and $1 - \sigma(z) = \sigma(-z)$.


# %% name="focal" role="solution"
def focal(logits, target, alpha, gamma):
    """Mean focal loss of pixels with one logit each.

    logits: float tensor of any shape, scores before the sigmoid, of any magnitude
    target: int64 tensor of the same shape, 0 or 1
    alpha:  weight of pixels with target 1, from 0 to 1; pixels with target 0 have the weight 1 - alpha
    gamma:  the exponent, at least 0

    Returns a tensor with a single value, differentiable with respect to logits: the sum over all pixels, divided by
    their number.
    """
    ### BEGIN SOLUTION: log p_t and 1 - p_t from the logit, negated for target 0; alpha_t; the mean
    score = torch.where(target == 1, logits, -logits)
    alpha_t = torch.where(target == 1, alpha, 1 - alpha)
    loss = -alpha_t * torch.sigmoid(-score) ** gamma * torch.nn.functional.logsigmoid(score)
    return loss.mean()
    ### END SOLUTION


# %% name="check_focal" role="check"
check(focal)

# %% [markdown] name="focal_figure_text"
# The left plot of the next figure shows the curves of the paper by Lin et al., computed by your function. The right
# plot considers 9,800 easy background pixels ($p_t = 0.95$) and 200 hard object pixels ($p_t = 0.3$). It shows which
# fraction of the total loss comes from the easy pixels, for several values of $\gamma$. With $\gamma = 0$
# (cross-entropy) the easy pixels contribute two thirds of the loss, and with $\gamma = 2$ about 1 %.

# %% name="focal_figure" role="show"
focal_loss, one = use(focal), torch.ones(1, dtype=torch.int64)


def focal_at(p_t, gamma):
    """The loss of one pixel without alpha: with alpha = 1/2 the loss is halved, so it is doubled here."""
    return 2 * float(focal_loss(torch.logit(torch.tensor([float(p_t)])), one, 0.5, gamma))


gammas, styles = (0.0, 0.5, 1.0, 2.0, 5.0), ("-", ":", "-.", "--", "-")
colours = ("#000000", "#0072B2", "#009E73", "#E69F00", "#CC79A7")
ps = np.linspace(0.01, 0.99, 99)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
fractions = []
for gamma, style, colour in zip(gammas, styles, colours):
    axes[0].plot(ps, [focal_at(p, gamma) for p in ps], style, color=colour, label=f"gamma {gamma:g}")
    easy, hard = 9800 * focal_at(0.95, gamma), 200 * focal_at(0.3, gamma)
    fractions.append(easy / (easy + hard))
axes[0].set(xlabel="probability of the ground truth, $p_t$", ylabel="loss", ylim=(0, 4))
axes[0].legend()
axes[1].bar([f"{g:g}" for g in gammas], fractions, color=colours)
axes[1].bar_label(axes[1].containers[0], fmt="%.3f")
axes[1].set(xlabel="gamma", ylabel="loss fraction of easy pixels", ylim=(0, 1))
summary = ", ".join(f"gamma {g:g}: {s:.3f}" for g, s in zip(gammas, fractions))
show(
    fig,
    alt="Left: the focal loss against the probability of the ground truth. The larger gamma is, the lower and "
    f"flatter the curve is on the right. Right: the fraction of the loss that comes from the easy pixels: {summary}.",
)

# %% [markdown] name="dice_idea"
# ## 4. The Dice loss (4 points)
#
# **Idea.** Cross-entropy is a mean over pixels. The Dice metric is not: it compares whole masks. If you replace the
# predicted mask by probabilities, Dice becomes differentiable. Dice does not contain the true negatives, so background
# pixels with probability 0 contribute nothing, however many they are.
#
# **Formula.** For each image and each class except the background, with sums over the pixels,
#
# $$ L = 1 - \frac{2\sum y p + s}{\sum y + \sum p + s} $$
#
# where $y$ is the ground truth, $p$ the probability and $s$ the smoothing term. The result is the mean over images and
# classes. (The background is excluded because it is large and nearly always predicted well, so its Dice carries little
# information.) The sums belong **inside** the fraction. The formula is often printed without them.
#
# **Worked example.** Four pixels have $y = (1, 1, 0, 0)$ and $p = (1, \tfrac12, \tfrac12, 0)$, and $s = 1$. Then
# $\sum yp = 1.5$, both areas are 2, and $L = 1 - 4/5 = 0.2$. The mean of one fraction per pixel gives a different
# result, $1 - (1 + 0.8 + 0.667 + 1)/4 = 0.133$. This mean does not compare masks, because each pixel contributes a
# fraction of its own.
#
# **What does $s$ do?** It prevents $0/0$, but it also reduces the loss of small objects that are missed. With $s = 0$,
# the fraction is $0/0$ for a class that has no ground-truth pixels and whose probability is 0 everywhere. In this
# exercise the loss of such a class is 0.


# %% name="soft_dice" role="solution"
def soft_dice(logits, target, smooth):
    """Soft Dice loss, averaged over images and over all classes except the background.

    logits: float tensor (B, K, H, W), scores before the softmax
    target: int64 tensor (B, H, W), the ground-truth classes 0 to K - 1; class 0 is the background
    smooth: s, at least 0; it is added to the numerator and to the denominator

    Returns a tensor with a single value, differentiable with respect to logits: the mean of B * (K - 1) losses, one
    for each image and each class from 1 on. Each loss uses sums over the pixels of its image. If the denominator is
    0, the loss of this image and class is 0.
    """
    ### BEGIN SOLUTION: probabilities; one-hot targets; sums over rows and columns; one fraction per image and class
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
# The next figure shows the effect of $s$, measured with your function. An image of 64 by 64 pixels contains one object
# of $n$ pixels, and the network misses it completely. The loss should be close to 1, whatever the size of the object.
# With $s = 1$, missing an object of one pixel costs only 0.5. With $s = 100$, missing an object of ten pixels costs
# only 0.09.

# %% name="dice_figure" role="show"
dice, sizes = use(soft_dice), (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
missed = torch.zeros(1, 2, 64, 64, dtype=torch.float64)
missed[:, 0] = 50.0  # background with probability 1


def cost_of_missing(n, smooth):
    """The loss of an image whose object of n pixels is missed completely."""
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
    fig,
    alt="Dice loss of a missed object against its size, for three values of s. With s = 1 the loss is "
    f"{costs} for 1, 10 and 100 pixels; with s = 100 it is smaller.",
)

# %% [markdown] name="grad_idea"
# ## 5. Where the IoU has no gradient (2 points)
#
# **Idea.** The IoU of boxes can be turned into a loss in the same way, $1 - \text{IoU}$. But two boxes that do not
# overlap have IoU 0, and after a small change of the boxes it is still 0. So the gradient is zero, and the loss cannot
# tell in which direction the box should move.
#
# **Formula.** Let the predicted box be $(x_1, y_1, x_2, y_2)$ and the ground-truth box $(x_1', y_1', x_2', y_2')$. The
# area of their intersection is $I = w h$ with $w = \max(0, \min(x_2, x_2') - \max(x_1, x_1'))$ and $h$ likewise. With
# the area $U$ of their union, the IoU is $I/U$. If there is a gap between the boxes, $w$ or $h$ stays 0 after a small
# change of the boxes, so all derivatives of the IoU are 0.
#
# **Worked example.** Take the predicted box $(0, 0, 2, 2)$ and the ground-truth box $(1, 1, 3, 4)$, with $I = 1$ and
# $U = 9$. With respect to $x_2$, $I$ has the derivative $h = 1$, and $U$ has the derivative $2 - 1 = 1$. So the
# derivative of the IoU is $(1 \cdot 9 - 1 \cdot 1)/81 = 8/81$. With respect to $x_1$, only $U$ changes, with the
# derivative $-2$, so the derivative of the IoU is $2/81$. Increasing $x_1$ makes the box smaller, which increases the
# IoU. In this example the derivatives with respect to $y$ equal those with respect to $x$, so the gradient is
# $(2, 2, 8, 8)/81$.
#
# Boxes that only **touch** share no area. For such a pair the IoU is not differentiable, and the result of automatic
# differentiation depends on how you write $\max(0, x)$. In this exercise the gradient of such a pair is 0, which is the
# result if you use `torch.relu`.


# %% name="iou_grad_zero" role="solution"
def iou_grad_zero(boxes, target):
    """Gradient of the IoU of pairs of boxes, and the pairs for which it is zero.

    boxes:  float tensor (N, 4), predicted boxes (x1, y1, x2, y2) with x1 < x2 and y1 < y2
    target: float tensor (N, 4), the ground-truth box of each predicted box, in the same format

    Returns the tuple (grad, zero). grad is a float tensor (N, 4): the derivatives of the IoU of each pair with respect
    to the four coordinates of its predicted box. zero is a bool tensor (N,): true where all four derivatives are
    exactly 0. Pairs that share no area, including pairs that only touch, have gradient 0. Do not change the arguments.
    """
    ### BEGIN SOLUTION: compute the IoU of each pair, the gradient of their sum, and which rows are zero
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
# Where does the IoU have a gradient? The predicted box is 8 by 6 pixels, and each point of the next figure is a
# position of its centre. The colour is the length of the gradient at this position. In the hatched region the gradient
# is exactly zero. If a detector begins with random boxes, most of them lie in this region.

# %% name="grad_figure" role="show"
from matplotlib.patches import Rectangle

cx, cy = torch.meshgrid(torch.arange(0.25, 48, 0.5), torch.arange(0.25, 32, 0.5), indexing="xy")
moving = torch.stack([cx - 4, cy - 3, cx + 4, cy + 3], dim=-1).reshape(-1, 4)
fixed = torch.tensor([[18.1, 12.1, 28.2, 19.2]])
grad, zero = (torch.as_tensor(x) for x in use(iou_grad_zero)(moving, fixed.expand(len(moving), 4)))
length = grad.norm(dim=1).reshape(cx.shape)
fig, ax = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
picture = ax.imshow(length, cmap="cividis", extent=(0, 48, 32, 0))
hatched = ax.contourf(cx, cy, zero.reshape(cx.shape).float(), levels=[0.5, 1.5], colors="none", hatches=["//"])
hatched.set(edgecolor="#999999", linewidth=0)
ax.add_patch(Rectangle((18.1, 12.1), 10.1, 7.1, fill=False, ec="white", lw=2))
ax.set(
    xlabel="x of the centre", ylabel="y of the centre", title=f"no gradient at {zero.float().mean():.0%} of positions"
)
fig.colorbar(picture, ax=ax, label="length of the gradient")
show(
    fig,
    alt="Length of the gradient of the IoU for each position of the centre of the predicted box. It is zero "
    f"(hatched) at {zero.float().mean():.0%} of the positions, and not zero only around the fixed box.",
)

# %% [markdown] name="giou_idea"
# ## 6. The GIoU loss (4 points)
#
# **Idea.** Let $C$ be the area of the smallest box that encloses both boxes. GIoU adds a penalty: the fraction of this
# area that neither box covers. Because of this penalty, boxes that do not overlap have a gradient too. (The paper,
# Rezatofighi et al., 2019, defines GIoU for arbitrary convex shapes. For axis-aligned boxes, intersection, union and
# enclosing box have a closed form.)
#
# **Formula.** For each pair with intersection $I$ and union $U$,
#
# $$ L = 1 - \text{GIoU} = 1 - \frac{I}{U} + \frac{C - U}{C} $$
#
# The loss is the mean over **all** pairs.
#
# **Worked example.** The boxes of exercise 5 have $C = 3 \cdot 4 = 12$ and the loss
# $1 - \tfrac19 + \tfrac{12 - 9}{12} = 1 + \tfrac5{36} = 1.139$.
#
# **Special cases.** A predicted box may shrink to a point. For two equal points, $U = C = 0$. Both fractions then count
# as 0, so the loss is 1, and the gradient must not be NaN. An image without objects has no pairs, and its loss is 0.


# %% name="giou_loss" role="solution"
def giou_loss(boxes, target):
    """Mean GIoU loss of pairs of boxes.

    boxes:  float tensor (N, 4), predicted boxes (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2; N may be 0
    target: float tensor (N, 4), the ground-truth box of each predicted box, in the same format

    Returns a tensor with a single value, differentiable with respect to boxes: the mean over the N pairs, or 0 if N is
    0. A fraction whose denominator is 0 counts as 0, and must not make the gradient NaN.
    """

    ### BEGIN SOLUTION: intersection, union and enclosing box of each pair; fractions without 0 / 0; the mean
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
# The next figure compares four box losses: $1 - \text{IoU}$, your GIoU loss, and two further remedies from the library,
# distance IoU and $L_1 + (1 - \text{IoU})$. Gradient descent on each of them moves the same distant box. The curves
# show the best IoU that each loss has reached so far. Notice that $1 - \text{IoU}$ stays at 0, because the boxes do not
# overlap at the start.

# %% name="giou_figure" role="show"
from segedu.teaching.widgets.losses import draw_race

draw_race({"your GIoU loss": use(giou_loss)})

# %% [markdown] name="widget_text"
# ## Explore values and gradients
#
# In the explorer, the network assigns the same probability $p$ of being object to all pixels of a group. The left plot
# shows the losses, the right plot the size of their derivatives with respect to the score. Drag the circle in one of
# the plots, or move the slider, to change $p$; the legend states the values. Which losses have almost no derivative at
# $p = 0.01$? What does $\gamma$ do at $p = 0.9$? Then set the ground truth to "background", and the group to one pixel.
# How large is the Dice loss of a false positive in an image without objects, and how does "s of Dice" change it?

# %% name="losses_widget" role="widget"
from segedu.teaching.widgets.losses import explorer

explorer()

# %% [markdown] name="train_text"
# ## Train with them
#
# The same small U-Net is trained with five losses. The images, with 2 to 3 % foreground, the number of iterations and
# the learning rate are the same each time. Only the loss differs.

# %% name="train_parts" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.cells import Cells
from tqdm.auto import tqdm


def draw_data(length, seed, size):
    """Images (B, 1, H, W) with mean about 0 and standard deviation about 1, and targets (B, H, W)."""
    samples = tqdm(Cells(length, seed, (size, size), **SCENE), desc="render", unit="image")
    images, target = semantic_batch(list(samples))
    return (images[:, :1] - 0.15) / 0.1, target


def five_losses(counts):
    """Five losses that consist of your functions, each as a function of (logits, target)."""
    ce, weighted, dice, focal_loss = use(ce_from_logits), use(weighted_ce), use(soft_dice), use(focal)
    return {
        "cross-entropy": ce,
        "weighted CE": lambda z, t: weighted(z, t, counts.to(z.device), 255),
        "focal": lambda z, t: focal_loss(z[:, 1] - z[:, 0], t, 0.75, 2.0),  # softmax of two logits: sigmoid(z1 - z0)
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
    torch.set_num_threads(1)  # such a small network does not become faster with more threads
if SCALE == "gpu":
    SCENE = {"count": (16, 48), "radius": (3.0, 5.0)}  # the same number of nuclei per area as in the small images
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
print(f"{len(scores)} networks, {steps} iterations each, {counts[1] / counts.sum():.1%} foreground, scale {SCALE}")

# %% [markdown] name="train_after"
# Which loss gives the highest IoU of the foreground on new images? The next code cell prints this IoU for a baseline
# and for the five networks. The baseline is from chapter 2: smooth the image, and then apply Otsu's threshold.
#
# A single run proves little. Your values can differ from ours by some hundredths even with the same seed, because sums
# that are computed in a different order are rounded differently, and training amplifies such small differences. The
# order depends on the processor and on how a loss is written. With three seeds on a CPU and the library's losses, we
# measured the following IoU. The cells of this lab use seed 0.
#
# | loss | seed 0 | seed 1 | seed 2 |
# |---|---|---|---|
# | cross-entropy | 0.56 | 0.61 | 0.41 |
# | weighted cross-entropy | 0.46 | 0.47 | 0.59 |
# | focal loss | 0.61 | 0.70 | 0.68 |
# | Dice | 0.73 | 0.73 | 0.75 |
# | cross-entropy + Dice | 0.72 | 0.78 | 0.74 |
#
# **Is Dice the better loss, then?** It is better after 120 iterations at this learning rate, which we chose because all
# five losses train with it. The result is not general. At a learning rate of 0.02, cross-entropy reaches 0.74, 0.74 and
# 0.02. At 0.01, Dice alone detected no foreground with one of two seeds. Dice begins to learn a rare class sooner. But
# after 480 iterations, cross-entropy reaches 0.83 with seed 0. The network that was trained with weights of 1 divided
# by the count predicts too much foreground: compare the outlines in the figure below.

# %% name="train_table" role="train"
from segedu.metrics.semantic import iou_per_class
from skimage.filters import gaussian, threshold_otsu

val_images, val_target = (torch.cat(part) for part in zip(*val))
smoothed = [gaussian(image[0].numpy(), sigma=1) for image in val_images]
otsu = torch.stack([torch.from_numpy(image > threshold_otsu(image)).long() for image in smoothed])
table = {"Gaussian, then Otsu": float(iou_per_class(otsu, val_target, 2)[1]), **scores}
for name, score in table.items():
    print(f"{name:<20} IoU of the foreground {score:.3f}")

# %% name="train_figure" role="train"
first = int((val_target == 1).flatten(1).sum(dim=1).argmax())  # the image with the most foreground
image, ground_truth = val_images[first : first + 1], val_target[first]
fig, axes = plt.subplots(2, 5, figsize=(11, 4.9), layout="constrained")
for column, (name, net) in zip(axes.T, nets.items()):
    with torch.no_grad():
        logits = net(image)[0]
    p = torch.sigmoid(logits[1] - logits[0])
    column[0].imshow(image[0, 0], cmap="gray")
    column[0].contour(logits.argmax(0) > 0, levels=[0.5], colors="#56B4E9")
    column[0].set_title(f"{name}\nIoU {scores[name]:.3f}", fontsize=11)
    column[1].imshow(p, cmap="cividis", vmin=0, vmax=1)
    column[1].contour(ground_truth, levels=[0.5], colors="white", linewidths=1)
    column[1].set_title("probability", fontsize=11)
for ax in axes.flat:
    ax.set_axis_off()
summary = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
show(
    fig,
    alt="Top: a new image with the outlines that each of the five networks predicts. Bottom: the predicted "
    f"probabilities with the outlines of the ground truth. IoU on all new images: {summary}.",
)

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** A network assigns the probability $p = 0.001$ to the ground-truth class. How large are the gradients of
# cross-entropy and of $L_2$ with respect to the logit?
#
# <details><summary>Answer</summary>
#
# Their absolute values are 1 - p = 0.999 for cross-entropy and 2 (1 - p) p (1 - p) = 0.002 for L2. The more confident
# and wrong the network is, the smaller the gradient of L2.
#
# </details>
#
# **2.** Find the error: "The Dice loss is $1 - (2 y p + 1)/(y + p + 1)$, averaged over pixels."
#
# <details><summary>Answer</summary>
#
# The sums are missing: $1 - (2 \sum y p + 1)/(\sum y + \sum p + 1)$, computed once for each image and class.
#
# </details>
#
# **3.** Find the error: "The focal loss increases the weight of rare classes."
#
# <details><summary>Answer</summary>
#
# The factor $(1 - p_t)^\gamma$ reduces the loss of easy pixels of any class. The classes are balanced by $\alpha$.
#
# </details>
#
# **4.** Find the error: "The + 1 in the Dice loss only serves numerical stability."
#
# <details><summary>Answer</summary>
#
# It also reduces the loss of small objects. Missing an object of 1 pixel costs 0.50, and missing one of 100 pixels
# costs 0.99.
#
# </details>
#
# **5.** You multiply all class weights by 10. What changes in the loss of exercise 2, and what changes in a loss that
# divides the weighted sum by the number of pixels?
#
# <details><summary>Answer</summary>
#
# The loss of exercise 2 does not change, because it divides by the sum of the weights. The other loss and its gradient
# become 10 times as large.
#
# </details>
#
# **6.** Find the error: "GIoU is defined for bounding boxes only."
#
# <details><summary>Answer</summary>
#
# The paper defines GIoU for arbitrary convex shapes. Only the closed form of its areas is specific to axis-aligned
# boxes.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 7](../course/07-losses/index.md) present all 25 losses of a survey, in the survey's groups.
# - Change one thing in the training cell: $\gamma = 0$, $s = 100$, or ten times as many iterations. Does cross-entropy
#   reach the IoU of Dice?
# - Chapters 11 and 12 train detectors with box losses. Chapter 15 combines Dice and cross-entropy for masks.
#
# Before you hand in this notebook, save it, and run `segedu check labs/07_losses.ipynb` in a terminal. The command runs
# the notebook as the grader will, and prints your points and the feedback.
