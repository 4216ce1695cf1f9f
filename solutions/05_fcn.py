# %% [markdown] name="title"
# # Lab 5: FCN and SegNet
#
# You turn a classifier into a net that answers for every pixel. Its first answer is coarse. You bring it up, sharpen it
# in two ways, by adding scores of finer layers and by putting maxima back to their places, and train the result.
#
# **Time:** about 70 minutes. **Points:** 20, in six exercises. Read
# [chapter 5](../course/05-fcn/index.md) first, or beside this lab.
#
# Each exercise has a cell to write in and a cell that checks it. The check draws a few inputs, and grading
# draws new ones. If you are stuck, go on: later cells use the library's function until yours passes.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - run a fully connected layer as a convolution, over images of any size;
# - write the kernel with which a transposed convolution interpolates;
# - add scores of strides 32, 16 and 8, each pixel on its own place;
# - decode as SegNet does, by the indices of the poolings;
# - write the loss of all these nets, and augment image and target together.
#
# After five poolings one number stands for 32 by 32 pixels. How much can such a net say at all? In this picture no net
# took part: the truth itself was averaged over cells of 32, 16 and 8 pixels, and interpolated again.

# %% name="picture" role="show"
from segedu.viz import show
from segedu.teaching.widgets.fcn import class_picture, street, upper_bound

image, target = street(3)
fig, axes = plt.subplots(1, 4, figsize=(12, 2.3), layout="constrained")
axes[0].imshow(class_picture(target))
axes[0].set_title("truth")
for axis, stride in zip(axes[1:], (32, 16, 8)):
    axis.imshow(class_picture(upper_bound(target, stride, 10)))
    axis.set_title(f"from cells of {stride} pixels")
for axis in axes:
    axis.set_axis_off()
show(fig, alt="A street's ten classes; from cells of 32 pixels only large shapes are left, from 8 pixels nearly all.")

# %% [markdown] name="fc_to_conv_text"
# ## 1. A classifier sees one window. Slide it (4 points)
#
# A classification net ends in **fully connected** layers: the features $(C, h, w)$ are flattened and multiplied by a
# matrix. Flattened means channel after channel, and within a channel row after row. So column $c\,hw + y\,w + x$ of the
# matrix belongs to the feature at channel $c$, row $y$, column $x$:
#
# $$ s_o = b_o + \sum_{c,\,y,\,x} M_{o,\;c\,hw + y\,w + x}\; f_{c,y,x} $$
#
# That is a convolution whose kernel is as large as the map. On a larger map the kernel slides, and the one score
# becomes a **map of scores**. In VGG-16 the first such layer sees 7x7 features of 512 channels: it becomes a 7x7
# convolution. Those after it see one pixel, and become 1x1 convolutions.
#
# With numbers: the matrix (1, 2, 3, 4) over one channel of 2x2 becomes the kernel below. On the 3x3 map it gives
# four scores, one for each window.

# %% name="fc_by_hand" role="show"
layer = torch.nn.Linear(4, 1, bias=False)
layer.weight.data = torch.tensor([[1.0, 2, 3, 4]])
features = torch.tensor([[[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]])
with torch.no_grad():
    windows = {(y, x): layer(features[:, y : y + 2, x : x + 2].flatten()).item() for y in (0, 1) for x in (0, 1)}
print("the layer, window by window:", windows)
print("the convolution:", torch.nn.functional.conv2d(features, torch.tensor([[[[1.0, 2], [3, 4]]]])).tolist())


# %% name="fc_to_conv" role="solution"
def fc_to_conv(
    weight: torch.Tensor, bias: torch.Tensor, kernel_size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of a fully connected layer as those of a convolution that gives the same numbers.

    Args:
        weight: (O, C h w), as in torch.nn.Linear, for features (C, h, w) flattened in this order.
        bias: (O,).
        kernel_size: (h, w) of the features that the layer reads. C follows from the weight.

    Returns:
        The weight (O, C, h, w) and the bias (O,) for a torch.nn.Conv2d without padding.
    """
    ### BEGIN SOLUTION: return the weight in its new shape, and the bias
    return weight.reshape(weight.shape[0], -1, *kernel_size), bias
    ### END SOLUTION


# %% name="check_fc_to_conv" role="check"
check(fc_to_conv)

# %% [markdown] name="fc_after"
# A classifier of one class: is this window the eye in the white frame? It is one fully connected layer, fitted by least
# squares to all windows of the photograph: 1 for this one, 0 for every other. As a convolution it asks at every place
# at once.

# %% name="fc_figure" role="show"
from skimage.data import astronaut

photo = torch.from_numpy(astronaut()[20:260:2, 130:370:2] / 255.0).permute(2, 0, 1)  # (3, 120, 120)
windows = torch.nn.functional.unfold(photo[None], 12)[0].T  # one row for each window, flattened
centred, eye = windows - windows.mean(0), 34 * 109 + 48  # the window at row 34, column 48; there are 109 in a row
spread = centred.T @ centred / len(windows) + 1e-3 * torch.eye(432, dtype=torch.float64)
matrix = torch.linalg.solve(spread, centred[eye])[None]
weight, bias = use(fc_to_conv)(matrix, -matrix @ windows.mean(0), (12, 12))
scores = torch.nn.functional.conv2d(photo, torch.as_tensor(weight), torch.as_tensor(bias))[0]
best = divmod(int(scores.argmax()), scores.shape[1])
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
axes[0].imshow(photo.permute(1, 2, 0))
axes[0].add_patch(plt.Rectangle((47.5, 33.5), 12, 12, fill=False, edgecolor="white", linewidth=2))
axes[0].set_title("the window that was learnt")
axes[1].imshow(scores.clamp(min=0), cmap="cividis")
axes[1].plot(best[1], best[0], "o", color="white", fillstyle="none", markersize=14)
axes[1].set_title(f"{scores.shape[0]} x {scores.shape[1]} scores, best at {best}")
show(
    fig, alt=f"A face with a frame around one eye, and a map of scores with one bright peak, at row and column {best}."
)

# %% [markdown] name="bilinear_text"
# ## 2. Bring it up (3 points)
#
# The map of scores is small. A transposed convolution with stride $f$ enlarges it: each score puts down a kernel,
# weighted by itself, $f$ pixels from its neighbour's. Which kernel gives a smooth result? A **tent** in each direction:
# 1 above the score, falling to 0 where the next score is. For a kernel of $k$ pixels, with
# $f = \lceil k/2 \rceil$ and the centre at $(k-1)/2$,
#
# $$ t_i = 1 - \frac{\lvert i - (k-1)/2 \rvert}{f}, \qquad w_{y,x} = t_y\, t_x $$
#
# In an even kernel the centre lies between two pixels, in an odd one on a pixel. With numbers, $k = 4$, $f = 2$:
# $t = (\tfrac14, \tfrac34, \tfrac34, \tfrac14)$, so the corner of the kernel is $\tfrac1{16}$, the middle
# $\tfrac9{16}$.
#
# The kernel does not sum to 1. For $k = 2f$ it sums to $f^2$, because one score has $f^2$ pixels to fill. And it mixes
# no classes: from class $c$ to class $c$ there is the tent, between different classes there are zeros.
#
# FCN starts with these weights. Training may change those of its first steps, which you meet in section 3. The last
# step, to the size of the image, stays as it is.


# %% name="bilinear_kernel" role="solution"
def bilinear_kernel(channels: int, kernel_size: int) -> torch.Tensor:
    """Weight with which a transposed convolution interpolates bilinearly, each channel by itself.

    Args:
        channels: C, of the scores and of the result, at least 1.
        kernel_size: k, height and width, odd or even, at least 1.

    Returns:
        Floats (C, C, k, k), as torch.nn.ConvTranspose2d has them (without groups): the product of two tents
        where both channels are the same, 0 where they differ.
    """
    ### BEGIN SOLUTION: a tent, its product with itself, and a place for it in each channel
    factor = (kernel_size + 1) // 2
    tent = 1 - (torch.arange(kernel_size) - (kernel_size - 1) / 2).abs() / factor
    weight = torch.zeros(channels, channels, kernel_size, kernel_size)
    for channel in range(channels):
        weight[channel, channel] = tent[:, None] * tent[None, :]
    return weight
    ### END SOLUTION


# %% name="check_bilinear_kernel" role="check"
check(bilinear_kernel)

# %% name="bilinear_figure" role="show"
small = torch.tensor([[0.0, 1, 0, 0], [0, 2, 1, 0], [0, 0, 3, 0]])[None, None]
kernel = torch.as_tensor(use(bilinear_kernel)(1, 16), dtype=torch.float32)
large = torch.nn.functional.conv_transpose2d(small, kernel, stride=8)
panels = {"3 x 4 scores": small, "one kernel, 16 x 16": kernel, f"{large.shape[2]} x {large.shape[3]} scores": large}
fig, axes = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained")
for axis, (title, panel) in zip(axes, panels.items()):
    axis.imshow(panel[0, 0], cmap="cividis")
    axis.set(title=title, xticks=[], yticks=[])
show(
    fig,
    alt="A grid of 3 by 4 scores, a bright square bump, and the scores enlarged smoothly with kernels that overlap.",
)

# %% [markdown] name="fuse_text"
# ## 3. Add what finer layers say (4 points)
#
# Enlarging brings no outline back. But layers before the last poolings still know where things are, so FCN asks them
# too: a 1x1 convolution gives each its own scores. Then, with $U$ the transposed convolution,
#
# $$ s = U\bigl(U(s_{32}) + \operatorname{cut}(s_{16})\bigr) + \operatorname{cut}(s_8) $$
#
# $U$ has a kernel of 4, stride 2, no padding: $h$ rows become $2h + 2$. The scores are **added**, class by class, before
# any softmax. The skips are larger, because the net pads its input by 100 pixels. Which part lies under $U(s_{32})$? In
# a map of stride $s$ neighbours are $s$ pixels of the image apart. Where the first one stands, the table says: in rows
# of the image, so that what is negative lies in the padding.
#
# | map | stride | its row 0 stands at row |
# |---|---|---|
# | $s_{16}$ | 16 | $-91.5$ |
# | $U(s_{32})$ | 16 | $-11.5$ |
# | $s_8$ | 8 | $-95.5$ |
# | $U$ of the first sum | 8 | $-23.5$ |
#
# So row 0 of $U(s_{32})$ belongs on row $(-11.5 + 91.5) / 16 = 5$ of $s_{16}$, and row 0 of the next one on row
# $(-23.5 + 95.5) / 8 = 9$ of $s_8$; with columns it is the same. What is too much at the other end goes too; it need not
# be as much. Your function is given both offsets.
#
# With numbers: one class, all weights of the kernel 1. $s_{32} = (4)$ becomes a 4x4 map of fours. If $s_{16}$ is $-1$
# everywhere, the sum is 3 everywhere.


# %% name="fcn8_fuse" role="solution"
def fcn8_fuse(
    score32: torch.Tensor,
    score16: torch.Tensor,
    score8: torch.Tensor,
    kernel: torch.Tensor,
    offsets: tuple[int, int],
) -> torch.Tensor:
    """Scores of three strides, each brought up, laid on the next finer one, and added.

    Args:
        score32: (B, K, h, w), the coarsest scores.
        score16: (B, K, H, W), at least as large as what lies on it; so is score8, with an H and W of its own.
        score8: (B, K, H, W).
        kernel: (K, K, 4, 4), weight of the transposed convolution, of stride 2 without padding, for both steps.
        offsets: the first row and column of score16, and of score8, that is used (5 and 9 in the paper's net).

    Returns:
        (B, K, 4h + 6, 4w + 6). The arguments stay as they are.
    """
    ### BEGIN SOLUTION: bring up, cut, add; twice
    scores = score32
    for skip, first in zip((score16, score8), offsets):
        scores = torch.nn.functional.conv_transpose2d(scores, kernel, stride=2)
        height, width = scores.shape[-2:]
        scores = scores + skip[..., first : first + height, first : first + width]
    return scores
    ### END SOLUTION


# %% name="check_fcn8_fuse" role="check"
check(fcn8_fuse)

# %% [markdown] name="fuse_after"
# What is the sum good for? Below, the coarse scores are right but blunt. The finer ones know outlines, but are unsure:
# noise was added, and most at stride 8. Each alone makes mistakes of its own kind.

# %% name="fuse_figure" role="show"
from segedu.teaching.widgets.fcn import pooled_target, upsampled_labels

from segedu.metrics.semantic import mean_iou

noise = torch.Generator().manual_seed(0)
exact = [pooled_target(target, stride, 10).float() for stride in (32, 16, 8)]
unsure = [s + a * torch.randn(s.shape, generator=noise) for s, a in zip(exact, (0, 0.2, 0.3))]
# beyond the image the scores repeat: the maps that come up reach 1 and 3 cells further on each side
skips = [torch.nn.functional.pad(s[None], [more] * 4, mode="replicate") for s, more in zip(unsure, (0, 1, 3))]
fused = use(fcn8_fuse)(*skips, torch.as_tensor(use(bilinear_kernel)(10, 4), dtype=torch.float32), (0, 0))
maps = dict(zip(("stride 32", "stride 16", "stride 8"), unsure)) | {"the sum": torch.as_tensor(fused)[0, :, 3:-3, 3:-3]}
fig, axes = plt.subplots(1, 4, figsize=(12, 2.4), layout="constrained")
for axis, (name, scores) in zip(axes, maps.items()):
    labels = upsampled_labels(scores, 192 // scores.shape[1], (192, 320))
    axis.imshow(class_picture(labels, lines=False))
    iou = mean_iou(labels, target, 10, ignore_index=255)
    axis.set_title(f"{name}: mean IoU {iou:.2f}")
    axis.set_axis_off()
show(fig, alt="Four answers: from stride 32 blunt, from 16 and 8 full of specks, and the sum, cleaner than all three.")

# %% [markdown] name="segnet_text"
# ## 4. The other way up: remembered places (4 points)
#
# SegNet adds no scores. Each of its poolings writes down *where* each maximum was. The decoder goes backwards: it puts
# every value back to that place, leaves 0 everywhere else, and lets a convolution fill the gaps. Then comes the
# pooling before, until the image's size is reached.
#
# $$ x_{i-1} = \operatorname{ReLU}\bigl( W_i * \operatorname{unpool}(x_i, \text{indices}_i) \bigr) $$
#
# The last convolution, $W_1$, gives the logits and has no ReLU. The indices belong to one plane of one image. And the
# size has to be known: 4 and 5 rows both pool to 2.
#
# Why not keep the features, as U-Net does? Memory: the four features of a window take 4 x 32 = 128 bits, the place of the
# largest among four takes 2. (Frameworks spend 64 bits on an index all the same.)
#
# With numbers: the value 7 with index 4 in a plane 3 columns wide goes to row 1, column 1. A 3x3 kernel of ones then
# writes a 7 there and on the eight pixels around it.


# %% name="segnet_decode" role="solution"
def segnet_decode(
    features: torch.Tensor,
    indices: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    weights: list[torch.Tensor],
) -> torch.Tensor:
    """Undo the poolings one after the other, the last one first; after each unpooling follows a convolution.

    Args:
        features: (B, C, h, w), what the last pooling gave.
        indices: one int64 tensor for each pooling, the first pooling of the encoder first. indices[i] has the
            shape of what pooling i gave: row * width + column of each maximum in its plane before pooling i.
        sizes: (H, W) before each pooling, in the same order. All poolings are 2x2 with stride 2; a last odd row
            or column was left out.
        weights: of the 3x3 convolutions, (channels out, channels in, 3, 3), in the same order: weights[i] follows
            the unpooling that undoes pooling i. Stride 1, padding 1, no bias.

    Returns:
        (B, K, *sizes[0]). After each convolution comes a ReLU, but not after the last one, weights[0].
    """
    ### BEGIN SOLUTION: from the last pooling to the first: unpool, convolve, ReLU
    for stage in reversed(range(len(indices))):
        size = list(sizes[stage])
        features = torch.nn.functional.max_unpool2d(features, indices[stage], 2, output_size=size)
        features = torch.nn.functional.conv2d(features, weights[stage], padding=1)
        if stage > 0:
            features = torch.relu(features)
    return features
    ### END SOLUTION


# %% name="check_segnet_decode" role="check"
check(segnet_decode)

# %% [markdown] name="segnet_after"
# An encoder of poolings alone, two of them, takes outlines of the first picture. Two ways back: interpolation, and
# your decoder, with kernels written by hand (the last one spreads each value over its neighbours). With the indices,
# every value lands on an outline again.

# %% name="segnet_figure" role="show"
from segedu.viz import outline

lines = torch.from_numpy(outline(target.numpy()) * 1.0)[None, None, 71:192, 60:225]  # 121 x 165
x, places, sizes = lines, [], []
for _ in range(2):
    sizes.append(tuple(x.shape[2:]))
    x, where = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    places.append(where)
spread = torch.outer(*[torch.tensor([0.5, 1, 0.5], dtype=torch.float64)] * 2)[None, None]
keep = (spread == 1).double()
decoded = torch.as_tensor(use(segnet_decode)(x, places, sizes, [spread, keep]))
smooth = torch.nn.functional.interpolate(x, size=sizes[0], mode="bilinear")
panels = {"outlines": lines, "after two poolings": x, "interpolated": smooth, "SegNet's way": decoded}
fig, axes = plt.subplots(1, 4, figsize=(12, 2.5), layout="constrained")
for axis, (title, panel) in zip(axes, panels.items()):
    axis.imshow(panel[0, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{title}, {panel.shape[2]} x {panel.shape[3]}", fontsize=10)
    axis.set_axis_off()
show(fig, alt="Thin outlines, what two poolings leave, blurred bands, and dotted lines where the outlines were.")

# %% [markdown] name="ce_text"
# ## 5. The loss of all these nets (3 points)
#
# A net that labels every pixel is a classifier at every pixel. So its loss is that of a classifier, collected over the
# pixels: with $z$ the $K$ logits of a pixel and $y$ its true class,
#
# $$ \ell = -\log \operatorname{softmax}(z)_y = \log \sum_k e^{z_k} - z_y $$
#
# The papers write the sum over pixels. Here the mean is taken, so that the loss does not grow with the image. Pixels
# without a truth (**void**, the border around things) are in neither the sum nor the number that divides it. If no
# pixel counts, the loss is 0.
#
# With numbers: two classes, logits (2, 0). If class 0 is true, $\ell = \log(e^2 + 1) - 2 = 0.127$; if class 1 is,
# $2.127$. If the pixel is void, it has no part in anything.


# %% name="pixel_ce" role="solution"
def pixel_ce(logits: torch.Tensor, target: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Mean cross-entropy over all pixels of the batch that count.

    Args:
        logits: (B, K, H, W) scores, before the softmax.
        target: (B, H, W) int64, the true class of each pixel, or ignore_index. Its other values are 0 to K - 1.
        ignore_index: mark of pixels that do not count: often 255, but also -1, or a class that is not to be learnt.

    Returns:
        A tensor with one number, whose gradient reaches the logits; 0 if no pixel counts.
    """
    ### BEGIN SOLUTION: log-probabilities, those of the true classes, the mean over pixels that count
    counted = target != ignore_index
    truth = torch.where(counted, target, 0)
    log_p = torch.log_softmax(logits, dim=1).gather(1, truth[:, None])[:, 0]
    return -(log_p * counted).sum() / counted.sum().clamp(min=1)
    ### END SOLUTION


# %% name="check_pixel_ce" role="check"
check(pixel_ce)

# %% [markdown] name="ce_after"
# Where does the loss of a coarse net sit? Here are the scores of the first picture as logits, and the loss of each
# pixel: dark inside, bright along the outlines. The number above each map is your mean.

# %% name="ce_figure" role="show"
fig, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
for axis, stride in zip(axes, (32, 16, 8)):
    shares = torch.nn.functional.interpolate(
        pooled_target(target, stride, 10)[None], scale_factor=stride, mode="bilinear"
    )
    logits = torch.log(shares + 1e-3)
    each = torch.nn.functional.cross_entropy(logits, target[None], ignore_index=255, reduction="none")
    axis.imshow(each[0], cmap="cividis", vmin=0, vmax=3)
    axis.set_title(f"stride {stride}: mean {float(use(pixel_ce)(logits, target[None], 255)):.3f}")
    axis.set_axis_off()
show(fig, alt="Three maps of the loss: broad bright bands along outlines at stride 32, thin lines at stride 8.")

# %% [markdown] name="augment_text"
# ## 6. One change for two (2 points)
#
# Labels are dear, so each image is changed a little every time it is used. What happens to *places* happens to image
# and target alike. What happens to *values* depends on what they are: brightness may be mixed, names of classes may
# not. Half-way between class 2 and class 8 there is no class 5.
#
# Three steps, in this order:
#
# 1. mirror left and right, if `flip`;
# 2. enlarge `factor` times: the image bilinearly (`align_corners=False`), the target by repeating each pixel;
# 3. a border of `border` pixels on all four sides: 0 in the image, and in the target 255, because nobody knows what
#    is there.
#
# With numbers: the target row (2, 8), mirrored, twice as large, with a border of 1, is
# (255, 8, 8, 2, 2, 255), between two rows of 255.


# %% name="joint_augment" role="solution"
def joint_augment(
    image: torch.Tensor, target: torch.Tensor, flip: bool, factor: int, border: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, enlarge and surround an image and its target.

    Args:
        image: (3, H, W) floats.
        target: (H, W) int64, classes, and 255 for void.
        flip: whether to mirror left and right.
        factor: a whole number of at least 1.
        border: pixels on each side, at least 0.

    Returns:
        The image (3, H', W') and the target (H', W'), still int64, with H' = factor H + 2 border, and W' likewise.
        The arguments stay as they are.
    """
    ### BEGIN SOLUTION: both alike in place, each in its own way in value
    if flip:
        image, target = image.flip(-1), target.flip(-1)
    image = torch.nn.functional.interpolate(image[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
    target = target.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)
    sides = [border] * 4
    return torch.nn.functional.pad(image, sides), torch.nn.functional.pad(target, sides, value=255)
    ### END SOLUTION


# %% name="check_joint_augment" role="check"
check(joint_augment)

# %% name="augment_figure" role="show"
cut = (slice(88, 184), slice(60, 200))
changes = {"as it was": (False, 1, 0), "mirrored": (True, 1, 0), "3 x, with a border": (False, 3, 30)}
fig, axes = plt.subplots(2, 3, figsize=(9, 4.4), layout="constrained")
for column, (title, change) in zip(axes.T, changes.items()):
    changed = use(joint_augment)(image[:, cut[0], cut[1]], target[cut], *change)
    picture, labels = (torch.as_tensor(part) for part in changed)
    column[0].imshow(picture.clamp(0, 1).permute(1, 2, 0))
    column[0].set_title(f"{title}: {labels.shape[0]} x {labels.shape[1]}", fontsize=10)
    column[1].imshow(class_picture(labels))
    for axis in column:
        axis.set_axis_off()
show(fig, alt="A part of a street and its classes: as it was, mirrored, and three times as large inside a dark border.")

# %% [markdown] name="widget_text"
# ## Move the stride
#
# How much can scores of each stride say at best? Move to a stride and a scene, with the mouse, or with Tab and the arrow
# keys. Which classes are lost first? What does stride 16 bring, and what does 8 bring on top? Why does FCN stop at 8?
#
# <details><summary>Why at 8?</summary>
# At best, finer scores could say more. But the layers they come from see little of the scene and hardly know classes. The
# paper's authors stopped when another skip gained next to nothing.
# </details>

# %% name="widget" role="widget"
from segedu.teaching.widgets.fcn import explorer

explorer()

# %% [markdown] name="train_text"
# ## Train three nets
#
# FCN-32s, FCN-16s and FCN-8s learn the ten classes of a street. Recipes of `segedu train` build them. Each starts from
# the same small VGG, which has learnt to name what windows of other streets show, as the paper's VGG knew ImageNet. Each
# sees the same images in the same order, and takes the same number of steps. They differ in one thing: how many finer
# layers are asked for scores. Your `joint_augment` mirrors about half of the images, and your `pixel_ce` is the loss.
#
# On a CPU there are only seconds for each net. So the streets are plain ones: the sun shines, and every surface has the
# colour that one would expect (`variety` 0). On a GPU they are as usual, the images larger, the steps more.

# %% name="train_parts" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.scenes import Scenes
from segedu.datasets.street import CLASSES, draw_street
from segedu.recipes.recipe import find_recipe
from segedu.training import evaluate, train_steps
from tqdm.auto import tqdm

augment, yours = use(joint_augment), use(pixel_ce)


def draw_streets(length, seed, size, variety):
    """Images (B, 3, H, W) and targets (B, H, W)."""
    scenes = Scenes(draw_street, length, seed, size, variety=variety)
    return semantic_batch(list(tqdm(scenes, desc="draw", unit="image")))


def batches(images, target, steps, batch):
    """Random batches, half of the images mirrored; the same ones at every call."""
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        picks = torch.randint(len(images), (batch,), generator=order).tolist()
        flips = (torch.rand(batch, generator=order) < 0.5).tolist()
        pairs = [augment(images[i], target[i], flip, 1, 0) for i, flip in zip(picks, flips)]
        parts = [torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*pairs)]
        yield parts[0].float(), parts[1].long()


def loss(logits, target):
    """Yours on the CPU; torch's on a GPU, for yours may make tensors that are not there."""
    torchs = torch.nn.functional.cross_entropy
    return torchs(logits, target, ignore_index=255) if logits.is_cuda else yours(logits, target, 255)


# %% name="train" role="train"
SCALE = "gpu" if torch.cuda.is_available() else "cpu"
scales = {"cpu": ((96, 160), 0.0, 160, 250, 4), "gpu": ((256, 256), 0.35, 400, 2000, 16)}
size, variety, length, steps, batch = scales[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # so small a net gains nothing from more threads, which only wait for each other
images, truth = draw_streets(length, 0, size, variety)
val_images, val_truth = draw_streets(length // 5, 1, size, variety)
val = list(zip(val_images.split(batch), val_truth.split(batch)))
nets, scores = {}, {}
for stride in (32, 16, 8):
    torch.manual_seed(0)
    net = find_recipe(f"fcn{stride}", "street")[0].build().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    loader = batches(images, truth, steps, batch)
    run = train_steps(net, loader, loss, optimizer, scheduler=schedule, clip_norm=1.0)
    bar = tqdm(run, f"FCN-{stride}s", steps)
    for value in bar:
        bar.set_postfix(loss=f"{value:.3f}")
    scores[stride] = evaluate(net, val, len(CLASSES))
    nets[stride] = net.eval().cpu()
    print(f"FCN-{stride}s: mean IoU {scores[stride]['mean_iou']:.3f} on {len(val_images)} new scenes, scale {SCALE}")

# %% [markdown] name="table_text"
# The table begins with a plain baseline: at each pixel the class that is most frequent there in the training
# scenes. The rows "at best" are no nets: scores made of the truth itself, as in the widget.

# %% name="train_table" role="train"
from segedu.metrics.semantic import iou_per_class

common = torch.stack([(truth == k).sum(0) for k in range(len(CLASSES))]).argmax(0)
rows = {"most frequent": iou_per_class(common.expand_as(val_truth), val_truth, len(CLASSES), ignore_index=255)}
for stride in (32, 16, 8):
    rows[f"FCN-{stride}s"] = torch.tensor(scores[stride]["iou_per_class"])
for stride in (32, 16, 8):
    best = torch.stack([upper_bound(one, stride, len(CLASSES)) for one in val_truth])
    rows[f"stride {stride} at best"] = iou_per_class(best, val_truth, len(CLASSES), ignore_index=255)
print(f"{'IoU':<18}{'mean':>6} |" + "".join(f"{name[:6]:>7}" for name in CLASSES))
for name, ious in rows.items():
    print(f"{name:<18}{float(ious.nanmean()):6.2f} |" + "".join(f"{float(value):7.2f}" for value in ious))

# %% [markdown] name="train_figure_text"
# Look at the outlines, and at thin things. Large surfaces are alike in all three answers.

# %% name="train_figure" role="train"
from segedu.teaching.widgets.fcn import error_picture

shown = int((val_truth == CLASSES.index("person")).sum((1, 2)).argmax())
fig, axes = plt.subplots(2, 4, figsize=(12, 4.4), layout="constrained")
axes[0, 0].imshow(val_images[shown].permute(1, 2, 0))
axes[1, 0].imshow(class_picture(val_truth[shown]))
axes[0, 0].set_title("a new scene, and its truth")
for column, (stride, net) in zip(axes.T[1:], nets.items()):
    with torch.no_grad():
        labels = net(val_images[shown : shown + 1])[0].argmax(0)
    wrong = (labels != val_truth[shown]) & (val_truth[shown] != 255)
    column[0].imshow(class_picture(labels))
    column[0].set_title(f"FCN-{stride}s")
    column[1].imshow(error_picture(val_images[shown], wrong))
    column[1].set_title(f"{float(wrong.float().mean()):.0%} wrong", fontsize=9)
for axis in axes.flat:
    axis.set_axis_off()
show(
    fig,
    alt="A street, its classes, and the answers of three nets with their wrong pixels: outlines sharpen from 32 to 8.",
)

# %% [markdown] name="voc_text"
# ## The real thing, if you have it
#
# PASCAL VOC 2012 cannot be shipped with a course. If you have it, write its folder into the cell. The backbone is a
# ResNet-18; `PRETRAINED` fetches 45 MiB of weights for it that were trained on ImageNet. Use a GPU.

# %% name="voc" role="train"
VOC = None  # for example "VOCdevkit/VOC2012"
PRETRAINED = False
VOC_STEPS = 5000

if VOC:
    from segedu.weights import pretrained
    from segedu.backbones.resnet import resnet18
    from segedu.datasets.voc import VOCSegmentation

    def window(sample):
        """256 x 256 pixels from a random place, mirrored or not; a border of void where the image is smaller."""
        border = max(0, 256 - min(sample["semantic"].shape))
        pair = augment(sample["image"], sample["semantic"], bool(torch.rand(()) < 0.5), 1, border)
        photo, labels = (torch.as_tensor(part) for part in pair)
        top, left = (int(torch.randint(side - 255, ())) for side in labels.shape)
        cut = (..., slice(top, top + 256), slice(left, left + 256))
        return {"image": photo[cut].float(), "semantic": labels[cut].long()}

    data = VOCSegmentation(VOC, "train", window)
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=VOC_STEPS * batch)
    loader = torch.utils.data.DataLoader(data, batch, sampler=sampler, collate_fn=semantic_batch, num_workers=2)
    FCN = type(nets[8])  # of the nets above, which a recipe built
    net = FCN(pretrained.load("resnet18") if PRETRAINED else resnet18(), 21, stride=8).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, total_steps=VOC_STEPS, pct_start=0.1)
    bar = tqdm(train_steps(net, loader, loss, optimizer, scheduler=schedule, clip_norm=1.0), "VOC", VOC_STEPS)
    for value in bar:
        bar.set_postfix(loss=f"{value:.3f}")
    held_out = VOCSegmentation(VOC, "val")
    pairs = (semantic_batch([held_out[i]]) for i in tqdm(range(len(held_out)), "val"))
    print(f"mean IoU on VOC 2012 val: {evaluate(net, pairs, 21)['mean_iou']:.3f}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1. VGG-16 ends in three fully connected layers over 7x7 features. What are they as convolutions?**
#
# <details><summary>Answer</summary>
# 7x7, then 1x1, then 1x1. Often all three are called "1x1 convolutions": that is wrong for the first.
# </details>
#
# **2. A net takes images of 224 pixels, has five poolings and then a 7x7 convolution without padding. An image of 320
# pixels comes. How many scores come out?**
#
# <details><summary>Answer</summary>
# 320 / 32 = 10 features a side, so 4 x 4 scores for each class. No weight changes.
# </details>
#
# **3. Why are the skips of FCN-8 added, and those of the U-Net concatenated?**
#
# <details><summary>Answer</summary>
# FCN's skips are scores of the same classes: adding them is a vote. The U-Net's are features without a fixed meaning,
# which the next convolution has to weigh itself.
# </details>
#
# **4. SegNet stores indices, U-Net features. What does each know that the other does not?**
#
# <details><summary>Answer</summary>
# Indices say where the maximum of each window was, for 2 bits, and nothing of the other pixels. Features say what
# every pixel looked like, for much more memory.
# </details>
#
# **5. In a batch half of all pixels are void. Somebody divides the sum of the losses by all pixels. What happens?**
#
# <details><summary>Answer</summary>
# The loss and all gradients are half as large as they should be, and how much so changes from batch to batch: a
# learning rate that wobbles.
# </details>
#
# **6. Find the slip: "A deconvolution undoes a convolution."**
#
# <details><summary>Answer</summary>
# It only brings the size back. The transposed convolution puts down weighted kernels; what the convolution lost, stays
# lost. That is why FCN needs its skips.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - Change one thing in the training cell: start `FCN` with `stride=4`. Is it worth it? What does the widget say?
# - Turn the mirroring off. How does the loss in training change, and how the mean IoU?
# - Chapter 6 gives the way up as many channels as the way down: the U-Net.
# - Chapter 8 asks what FCN cannot see: the whole scene at once.
