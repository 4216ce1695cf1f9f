# %% [markdown] name="title"
# # Lab 5: FCN and SegNet
#
# In this lab you turn a classifier into a network that predicts a class for every pixel. Its first prediction is
# coarse. You then recover the outlines in two ways: FCN upsamples the coarse scores and adds the scores of finer
# layers, and SegNet puts each maximum back at its stored position. At the end you train FCN-32s, FCN-16s and FCN-8s.
#
# **Time:** about 70 minutes. **Points:** 20, in six exercises.
#
# **Prerequisites:** the pages of [chapter 5](../course/05-fcn/index.md), and labs 3 (convolutions) and 4 (mean IoU).
# The mathematics that you need is sums, logarithms and the softmax.
#
# Each exercise has a cell in which you write a function, and a cell that checks your function on a few random inputs.
# Grading uses other random inputs. If you are stuck, go on to the next exercise: later cells use the library's function
# until yours passes its check.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## Goals
#
# After this lab you can
#
# - apply a fully connected layer as a convolution, to images of any size;
# - write the kernel with which a transposed convolution interpolates bilinearly;
# - add scores of strides 32, 16 and 8, so that every pixel keeps its position;
# - decode as SegNet does, with the indices of the pooling maxima;
# - write the loss of all these networks, and augment an image and its target together.
#
# After five poolings, one score represents 32 by 32 pixels. How accurate can a prediction of this resolution be? The
# next figure shows an approximate upper bound. No network was used for the figure. Instead, the ground truth of a
# synthetic street was averaged over square cells with sides of 32, 16 and 8 pixels, and then upsampled to the size of
# the image. Which objects disappear with cells of 32 pixels, and which of them are visible again with cells of 8
# pixels?

# %% name="picture" role="show"
from segedu.viz import show
from segedu.teaching.widgets.fcn import class_picture, street, upper_bound

image, target = street(3)
fig, axes = plt.subplots(1, 4, figsize=(12, 2.3), layout="constrained")
axes[0].imshow(class_picture(target))
axes[0].set_title("ground truth")
for axis, stride in zip(axes[1:], (32, 16, 8)):
    axis.imshow(class_picture(upper_bound(target, stride, 10)))
    axis.set_title(f"cells of {stride} pixels, upsampled")
for axis in axes:
    axis.set_axis_off()
show(
    fig,
    alt="The ten ground-truth classes of a street, and three upsampled versions: cells of 32 pixels keep only large "
    "shapes, cells of 8 pixels keep nearly all.",
)

# %% [markdown] name="fc_to_conv_text"
# ## 1. A fully connected layer as a convolution (4 points)
#
# **Idea.** The input of a classifier is one window of fixed size. If you apply the classifier to every window of a
# larger image, you get a map of scores. A convolution computes this map in a single operation.
#
# **Formula.** A classification network ends in **fully connected** layers: the features $(C, h, w)$ are flattened and
# multiplied by a matrix $M$. They are flattened channel by channel, and row by row within a channel. So column
# $c\,hw + y\,w + x$ of the matrix belongs to the feature at channel $c$, row $y$, column $x$. Score $o$ is
#
# $$ s_o = b_o + \sum_{c,\,y,\,x} M_{o,\;c\,hw + y\,w + x}\; f_{c,y,x} $$
#
# This is a convolution whose kernel is as large as the feature map. On a larger map the kernel fits at several
# positions, and the single score becomes a **map of scores**. In VGG-16 the first fully connected layer reads 7x7
# features of 512 channels, so it becomes a 7x7 convolution. Each of the following layers reads a single position and
# becomes a 1x1 convolution.
#
# **Worked example.** The matrix (1, 2, 3, 4), applied to one channel of 2x2 features, becomes a 2x2 kernel with the
# rows (1, 2) and (3, 4). The next cell applies both to a 3x3 map. Each gives the same four scores, one per window: 1,
# 4, 4 and 5.

# %% name="fc_by_hand" role="show"
layer = torch.nn.Linear(4, 1, bias=False)
layer.weight.data = torch.tensor([[1.0, 2, 3, 4]])
features = torch.tensor([[[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]])
with torch.no_grad():
    windows = {(y, x): layer(features[:, y : y + 2, x : x + 2].flatten()).item() for y in (0, 1) for x in (0, 1)}
print("fully connected layer:", windows)
print("convolution:", torch.nn.functional.conv2d(features, torch.tensor([[[[1.0, 2], [3, 4]]]])).tolist())


# %% name="fc_to_conv" role="solution"
def fc_to_conv(
    weight: torch.Tensor, bias: torch.Tensor, kernel_size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert the weights of a fully connected layer to those of a convolution that gives the same result.

    Args:
        weight: (O, C * h * w), as in torch.nn.Linear, for features (C, h, w) that were flattened in this order.
        bias: (O,).
        kernel_size: (h, w), the size of the features that the layer reads. C follows from the shape of the weight.

    Returns:
        A pair: the weight (O, C, h, w) and the bias (O,) of a torch.nn.Conv2d without padding.
    """
    ### BEGIN SOLUTION: return the reshaped weight, and the bias
    return weight.reshape(weight.shape[0], -1, *kernel_size), bias
    ### END SOLUTION


# %% name="check_fc_to_conv" role="check"
check(fc_to_conv)

# %% [markdown] name="fc_after"
# Here is a classifier with one class: does this window show the eye inside the white frame? The classifier is one fully
# connected layer, fitted by least squares to all windows of the photograph. The target is 1 for the framed window and 0
# for every other window. Your function converts the layer to a convolution, which computes the scores of all windows at
# once. The right panel shows these scores, with a circle at the highest one. Is it at the position of the framed
# window, row 34 and column 48?

# %% name="fc_figure" role="show"
from skimage.data import astronaut

photo = torch.from_numpy(astronaut()[20:260:2, 130:370:2] / 255.0).permute(2, 0, 1)  # (3, 120, 120)
windows = torch.nn.functional.unfold(photo[None], 12)[0].T  # one row per flattened window
centred, eye = windows - windows.mean(0), 34 * 109 + 48  # the window at row 34, column 48; there are 109 in a row
spread = centred.T @ centred / len(windows) + 1e-3 * torch.eye(432, dtype=torch.float64)
matrix = torch.linalg.solve(spread, centred[eye])[None]
weight, bias = use(fc_to_conv)(matrix, -matrix @ windows.mean(0), (12, 12))
scores = torch.nn.functional.conv2d(photo, torch.as_tensor(weight), torch.as_tensor(bias))[0]
best = divmod(int(scores.argmax()), scores.shape[1])
fig, axes = plt.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
axes[0].imshow(photo.permute(1, 2, 0))
axes[0].add_patch(plt.Rectangle((47.5, 33.5), 12, 12, fill=False, edgecolor="white", linewidth=2))
axes[0].set_title("image, with the window to detect")
axes[1].imshow(scores.clamp(min=0), cmap="cividis")
axes[1].plot(best[1], best[0], "o", color="white", fillstyle="none", markersize=14)
axes[1].set_title(f"{scores.shape[0]} x {scores.shape[1]} scores, highest at {best}")
show(
    fig,
    alt=f"A face with a white frame around one eye, and the map of scores, with the highest value at {best}.",
)

# %% [markdown] name="bilinear_text"
# ## 2. Bilinear upsampling (3 points)
#
# **Idea.** The map of scores is small. A transposed convolution with stride $f$ upsamples it: it adds one copy of its
# kernel per score. Each copy is multiplied by the score, and neighbouring copies are $f$ pixels apart. Which kernel
# gives a smooth result? A **tent** (a triangle function) along each axis: it is 1 at the position of the score and
# falls linearly to 0 at the positions of the two neighbouring scores.
#
# **Formula.** For a kernel of $k$ pixels, with $f = \lceil k/2 \rceil$ and the centre at $(k-1)/2$,
#
# $$ t_i = 1 - \frac{\lvert i - (k-1)/2 \rvert}{f}, \qquad w_{y,x} = t_y\, t_x $$
#
# If $k$ is even, the centre lies between two pixels. If $k$ is odd, the centre is a pixel.
#
# **Worked example.** For $k = 4$ and $f = 2$, the tent is $t = (\tfrac14, \tfrac34, \tfrac34, \tfrac14)$. So the value
# at each corner of the kernel is $\tfrac1{16}$, and each of the four values in the middle is $\tfrac9{16}$.
#
# The values of the kernel add up to $f^2$ and not to 1, because each score has to fill $f^2$ pixels. The kernel also
# does not mix classes: from class $c$ to class $c$ it is the product of two tents, and between different classes it is
# zero.
#
# FCN initialises its transposed convolutions with these weights. Training may change the weights of the upsampling by
# 2, which you meet in section 3. The weights of the last upsampling, to the size of the image, stay fixed.
#
# The figure after the check applies your kernel with $k = 16$ and stride 8 to a map of 3 x 4 scores. Note that the
# upsampled scores change smoothly, without visible blocks.


# %% name="bilinear_kernel" role="solution"
def bilinear_kernel(channels: int, kernel_size: int) -> torch.Tensor:
    """Return the weight with which a transposed convolution interpolates each channel bilinearly.

    Args:
        channels: C, the number of channels of the input and of the output, at least 1.
        kernel_size: k, the height and width of the kernel, odd or even, at least 1.

    Returns:
        Floats (C, C, k, k), the layout of torch.nn.ConvTranspose2d without groups. The kernel is the product of
        two tents where the input and the output channel are the same, and 0 where they differ.
    """
    ### BEGIN SOLUTION: compute the tent and its product with itself, and write it to each weight[c, c]
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
panels = {
    "3 x 4 scores": small,
    "kernel, 16 x 16": kernel,
    f"{large.shape[2]} x {large.shape[3]} scores, upsampled": large,
}
fig, axes = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained")
for axis, (title, panel) in zip(axes, panels.items()):
    axis.imshow(panel[0, 0], cmap="cividis")
    axis.set(title=title, xticks=[], yticks=[])
show(
    fig,
    alt="A grid of 3 by 4 scores; the kernel, which is bright in the middle and falls to dark at its border; and the "
    "smoothly upsampled scores, a sum of overlapping kernels.",
)

# %% [markdown] name="fuse_text"
# ## 3. Add the scores of finer layers (4 points)
#
# **Idea.** Interpolation cannot recover outlines. But the features before the last poolings still contain them. FCN
# therefore computes scores from these features too, with a 1x1 convolution for each of two earlier layers. In this lab,
# these additional scores are called skips. The scores are **added**, class by class, before any softmax.
#
# **Formula.** Let $s_{32}$ be the coarsest scores, which have stride 32, let $s_{16}$ and $s_8$ be the skips, which
# have strides 16 and 8, and let $U$ be the transposed convolution. The sum is
#
# $$ s = U\bigl(U(s_{32}) + \operatorname{crop}(s_{16})\bigr) + \operatorname{crop}(s_8) $$
#
# $U$ has a kernel of 4x4, stride 2 and no padding, so $h$ rows become $2h + 2$. The skips are larger than the upsampled
# scores, because FCN pads its input by 100 pixels. So each skip has to be cropped to the part that covers the same
# region of the image as the upsampled scores.
#
# **Where does the crop begin?** In a map of stride $s$, the centres of neighbouring rows are $s$ pixels of the image
# apart. The table gives the centre of row 0 of each map, as a row of the image. Negative values lie in the padding.
#
# | map | stride | centre of its row 0, as a row of the image |
# |---|---|---|
# | $s_{16}$ | 16 | $-91.5$ |
# | $U(s_{32})$ | 16 | $-11.5$ |
# | $s_8$ | 8 | $-95.5$ |
# | $U$ of the first sum | 8 | $-23.5$ |
#
# So row 0 of $U(s_{32})$ corresponds to row $(-11.5 + 91.5) / 16 = 5$ of $s_{16}$. Row 0 of the second upsampled map
# corresponds to row $(-23.5 + 95.5) / 8 = 9$ of $s_8$. The same holds for columns. The crop is as large as the
# upsampled scores. The rows that remain after it are removed as well, and their number may differ from the offset. Your
# function receives the two offsets, 5 and 9 in this example, as an argument.
#
# The result has stride 8. FCN-8s then upsamples it by 8 to the size of the image, which is not part of this exercise.
#
# **Worked example.** Take one class, and let all weights of the kernel be 1. Then the single score $s_{32} = (4)$
# becomes a 4x4 map of fours. If $s_{16}$ is $-1$ everywhere, the first sum is 3 everywhere. The second step upsamples
# this 4x4 map to 10x10 and adds the crop of $s_8$.


# %% name="fcn8_fuse" role="solution"
def fcn8_fuse(
    score32: torch.Tensor,
    score16: torch.Tensor,
    score8: torch.Tensor,
    kernel: torch.Tensor,
    offsets: tuple[int, int],
) -> torch.Tensor:
    """Upsample the coarsest scores and add the cropped finer scores, twice.

    Args:
        score32: (B, K, h, w), the coarsest scores.
        score16: (B, K, H, W), large enough for the crop, which begins at its offset and is as large as the
            upsampled scores.
        score8: (B, K, H, W), with its own H and W, large enough for its crop as well.
        kernel: (K, K, 4, 4), the weight of the transposed convolution (stride 2, no padding), used both times.
        offsets: two integers. The first is the row, and also the column, at which the crop of score16 begins. The
            second is the same for score8. In the network of the paper they are 5 and 9.

    Returns:
        (B, K, 4h + 6, 4w + 6). Do not change the arguments in place.
    """
    ### BEGIN SOLUTION: upsample, crop the skip, add; do this for both skips
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
# What is the advantage of the sum? The next figure uses artificial scores. Those of stride 32 are exact but blurred.
# Those of stride 16 and 8 have sharper outlines, but noise was added to them, and most of it at stride 8. The noise is
# independent at each stride, so in the sum it often does not suffice to change the predicted class.

# %% name="fuse_figure" role="show"
from segedu.teaching.widgets.fcn import pooled_target, upsampled_labels

from segedu.metrics.semantic import mean_iou

noise = torch.Generator().manual_seed(0)
exact = [pooled_target(target, stride, 10).float() for stride in (32, 16, 8)]
noisy = [s + a * torch.randn(s.shape, generator=noise) for s, a in zip(exact, (0, 0.2, 0.3))]
# repeat the scores beyond the image: the upsampled maps extend 1 and 3 cells further on each side
skips = [torch.nn.functional.pad(s[None], [extra] * 4, mode="replicate") for s, extra in zip(noisy, (0, 1, 3))]
fused = use(fcn8_fuse)(*skips, torch.as_tensor(use(bilinear_kernel)(10, 4), dtype=torch.float32), (0, 0))
maps = dict(zip(("stride 32", "stride 16", "stride 8"), noisy)) | {"sum": torch.as_tensor(fused)[0, :, 3:-3, 3:-3]}
fig, axes = plt.subplots(1, 4, figsize=(12, 2.4), layout="constrained")
for axis, (name, scores) in zip(axes, maps.items()):
    labels = upsampled_labels(scores, 192 // scores.shape[1], (192, 320))
    axis.imshow(class_picture(labels, lines=False))
    iou = mean_iou(labels, target, 10, ignore_index=255)
    axis.set_title(f"{name}: mean IoU {iou:.2f}")
    axis.set_axis_off()
show(
    fig,
    alt="Four predictions: stride 32 has blurred outlines, strides 16 and 8 have many noisy pixels, and the sum has "
    "sharper outlines than stride 32 and fewer noisy pixels than the other two.",
)

# %% [markdown] name="segnet_text"
# ## 4. SegNet: decode with pooling indices (4 points)
#
# **Idea.** SegNet adds no scores. Each of its poolings stores the *position* of each maximum. The decoder undoes the
# poolings in reverse order. For each of them it puts every value back at the stored position, leaves 0 everywhere else,
# and lets a convolution fill the gaps. After the last of these stages, the map is as large as the image.
#
# **Formula.**
#
# $$ x_{i-1} = \operatorname{ReLU}\bigl( W_i * \operatorname{unpool}(x_i, \text{indices}_i) \bigr) $$
#
# Here $x_i$ is the map from which the decoder undoes pooling $i$, and $*$ is a convolution. The last convolution, with
# the weight $W_1$, computes the logits and has no ReLU. (Python counts from 0, so $W_1$ is `weights[0]` in your
# function.) Each image and each channel has its own indices. The size before each pooling has to be known as well,
# because 4 rows and 5 rows are both pooled to 2.
#
# **Why not store the features, as the U-Net does?** Because features need more memory. The four features of a 2x2
# window need 4 x 32 = 128 bits. The position of the largest of the four needs 2 bits. (Deep learning frameworks
# nevertheless store an index in 64 bits.)
#
# **Worked example.** The value 7 with index 4, in a plane 3 columns wide, goes to row 1, column 1. A 3x3 kernel of ones
# then gives 7 at this pixel and at the eight pixels around it.


# %% name="segnet_decode" role="solution"
def segnet_decode(
    features: torch.Tensor,
    indices: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    weights: list[torch.Tensor],
) -> torch.Tensor:
    """Undo the poolings, the last one first; apply a convolution after each unpooling.

    Args:
        features: (B, C, h, w), the output of the last pooling.
        indices: one int64 tensor per pooling, the first pooling of the encoder first. indices[i] has the shape of
            the output of pooling i. It holds the position of each maximum in its plane before pooling i, as
            row * width + column, where width is that of the plane.
        sizes: (H, W) before each pooling, in the same order. All poolings are 2x2 with stride 2. If a size is odd,
            the pooling ignored the last row or column.
        weights: one weight (out_channels, in_channels, 3, 3) per convolution, in the same order: weights[i] is
            applied after the unpooling that undoes pooling i. Stride 1, padding 1, no bias.

    Returns:
        (B, K, *sizes[0]). A ReLU follows every convolution except the last one, which has weights[0].
    """
    ### BEGIN SOLUTION: from the last pooling to the first: unpool, convolve, and apply the ReLU except at the end
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
# The encoder of the next figure consists of two poolings and has no convolutions. Its input is an image of the outlines
# of the street. The result is upsampled in two ways: by bilinear interpolation, and by your decoder. The weights of the
# decoder were set manually, and its last convolution spreads each value over the neighbouring pixels. The interpolated
# outlines are broad and blurred. With the indices, every value returns to a pixel of an outline.

# %% name="segnet_figure" role="show"
from segedu.viz import outline

lines = torch.from_numpy(outline(target.numpy()) * 1.0)[None, None, 71:192, 60:225]  # 121 x 165
x, indices, sizes = lines, [], []
for _ in range(2):
    sizes.append(tuple(x.shape[2:]))
    x, positions = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    indices.append(positions)
spread = torch.outer(*[torch.tensor([0.5, 1, 0.5], dtype=torch.float64)] * 2)[None, None]
keep = (spread == 1).double()
decoded = torch.as_tensor(use(segnet_decode)(x, indices, sizes, [spread, keep]))
smooth = torch.nn.functional.interpolate(x, size=sizes[0], mode="bilinear")
panels = {"outlines": lines, "after two poolings": x, "interpolated": smooth, "decoded by SegNet": decoded}
fig, axes = plt.subplots(2, 2, figsize=(7.5, 5.6), layout="constrained")
for axis, (title, panel) in zip(axes.flat, panels.items()):
    axis.imshow(panel[0, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{title}, {panel.shape[2]} x {panel.shape[3]}", fontsize=10)
    axis.set_axis_off()
show(
    fig,
    alt="Four images: thin outlines; the coarse map after two poolings; its interpolation, with broad blurred bands; "
    "and the decoded map, with dotted lines at the positions of the outlines.",
)

# %% [markdown] name="ce_text"
# ## 5. The loss of all these networks (3 points)
#
# **Idea.** A network that labels every pixel is a classifier applied at every pixel. So its loss is the loss of a
# classifier, combined over all pixels.
#
# **Formula.** With $z$ the $K$ logits of a pixel and $y$ its ground-truth class, the loss of the pixel is
#
# $$ \ell = -\log \operatorname{softmax}(z)_y = \log \sum_k e^{z_k} - z_y $$
#
# The papers sum this loss over the pixels. Here you take the mean, so that the loss does not grow with the size of the
# image. Pixels without a ground-truth class (**void** pixels, for example the border around objects) are excluded both
# from the sum and from the number of pixels by which you divide. If all pixels of the batch are void, the loss is 0.
#
# **Worked example.** Take two classes and the logits (2, 0). If the ground truth is class 0,
# $\ell = \log(e^2 + 1) - 2 = 0.127$. If it is class 1, $\ell = 2.127$. If the pixel is void, it contributes neither to
# the sum nor to the number of pixels.


# %% name="pixel_ce" role="solution"
def pixel_ce(logits: torch.Tensor, target: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Mean cross-entropy over all pixels of the batch that are not ignored.

    Args:
        logits: (B, K, H, W), scores before the softmax.
        target: (B, H, W) int64, the ground-truth class of each pixel, 0 to K - 1, or ignore_index.
        ignore_index: pixels whose target has this value must not count. It is often 255, but it may also be -1, or
            a class from 0 to K - 1 that the network should not learn.

    Returns:
        A tensor with a single value, through which gradients flow back to the logits; 0 if all pixels are ignored.
    """
    ### BEGIN SOLUTION: log-probabilities of the ground-truth classes; their mean over pixels not ignored
    counted = target != ignore_index
    truth = torch.where(counted, target, 0)
    log_p = torch.log_softmax(logits, dim=1).gather(1, truth[:, None])[:, 0]
    return -(log_p * counted).sum() / counted.sum().clamp(min=1)
    ### END SOLUTION


# %% name="check_pixel_ce" role="check"
check(pixel_ce)

# %% [markdown] name="ce_after"
# At which pixels is the loss of a coarse network large? The next figure uses the upsampled scores of the first figure
# as probabilities, and shows the loss of each pixel. The loss is small (dark) inside large regions and large (bright)
# along the outlines. The number above each map is the mean that your function returns.

# %% name="ce_figure" role="show"
fig, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
for axis, stride in zip(axes, (32, 16, 8)):
    fractions = torch.nn.functional.interpolate(
        pooled_target(target, stride, 10)[None], scale_factor=stride, mode="bilinear"
    )
    logits = torch.log(fractions + 1e-3)
    each = torch.nn.functional.cross_entropy(logits, target[None], ignore_index=255, reduction="none")
    axis.imshow(each[0], cmap="cividis", vmin=0, vmax=3)
    axis.set_title(f"stride {stride}: mean {float(use(pixel_ce)(logits, target[None], 255)):.3f}")
    axis.set_axis_off()
show(
    fig,
    alt="Three maps of the loss per pixel: at stride 32 there are broad bright bands along the outlines, at stride 8 "
    "thin lines.",
)

# %% [markdown] name="augment_text"
# ## 6. Augment the image and its target together (2 points)
#
# **Idea.** Labels are expensive. Each labelled image is therefore changed at random every time it is used, which is
# called **augmentation**. A change of *positions* must be applied to the image and to the target alike. A change of
# *values* depends on what the values mean: you may interpolate brightness, but not class indices. The mean of class 2
# and class 8 is not class 5.
#
# Apply three operations, in this order:
#
# 1. If `flip`, flip left and right.
# 2. Upsample by `factor`: the image bilinearly (`align_corners=False`), the target by repeating each pixel.
# 3. Add a border of `border` pixels on all four sides. The border is 0 in the image. In the target it is 255 (void),
#    because the class of these pixels is unknown.
#
# **Worked example.** The target row (2, 8), flipped, upsampled by 2 and with a border of 1, becomes (255, 8, 8, 2, 2,
# 255). The new target contains this row twice, because rows are repeated too, between a first and a last row of 255.
#
# The figure after the check shows an image (top) and its target (bottom). Compare each column: do the image and the
# target still match?


# %% name="joint_augment" role="solution"
def joint_augment(
    image: torch.Tensor, target: torch.Tensor, flip: bool, factor: int, border: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flip an image and its target, upsample them, and add a border.

    Args:
        image: (3, H, W) floats.
        target: (H, W) int64, class indices, and 255 for void pixels.
        flip: whether to flip left and right.
        factor: an integer, at least 1.
        border: number of pixels to add on each side, at least 0.

    Returns:
        The image (3, H', W') and the target (H', W'), still int64, with H' = factor * H + 2 * border, and
        W' likewise. Do not change the arguments in place.
    """
    ### BEGIN SOLUTION: flip both; interpolate the image and repeat the target; add both borders
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
crop = (slice(88, 184), slice(60, 200))
changes = {"unchanged": (False, 1, 0), "flipped": (True, 1, 0), "3 x, with a border": (False, 3, 30)}
fig, axes = plt.subplots(2, 3, figsize=(9, 4.4), layout="constrained")
for column, (title, change) in zip(axes.T, changes.items()):
    changed = use(joint_augment)(image[:, crop[0], crop[1]], target[crop], *change)
    picture, labels = (torch.as_tensor(part) for part in changed)
    column[0].imshow(picture.clamp(0, 1).permute(1, 2, 0))
    column[0].set_title(f"{title}: {labels.shape[0]} x {labels.shape[1]}", fontsize=10)
    column[1].imshow(class_picture(labels))
    for axis in column:
        axis.set_axis_off()
show(
    fig,
    alt="A crop of a street and its classes, in three versions: unchanged, flipped left and right, and three times as "
    "large inside a dark border.",
)

# %% [markdown] name="widget_text"
# ## Explore the stride
#
# How accurate can a prediction with scores of each stride be? Choose a stride and a scene, with the mouse or with Tab
# and the arrow keys. Which classes are lost first? How much does stride 16 improve the upper bound over stride 32, and
# stride 8 over stride 16? Why does FCN stop at 8?
#
# <details><summary>Why does FCN stop at stride 8?</summary>
# Finer scores have a higher upper bound. But the layers that compute them have small receptive fields, so their
# features carry little information about classes. The authors of the paper observed diminishing returns: adding the
# scores of stride 8 improved the results less than adding those of stride 16.
#
# </details>

# %% name="widget" role="widget"
from segedu.teaching.widgets.fcn import explorer

explorer()

# %% [markdown] name="train_text"
# ## Train three networks
#
# FCN-32s, FCN-16s and FCN-8s learn the ten classes of a synthetic street. The recipes of `segedu train` build them.
# Each network starts from the same small VGG, which was trained to classify windows of other streets, just as the VGG
# of the paper was trained to classify images of ImageNet. All three networks are trained on the same images in the same
# order, for the same number of iterations. They differ only in how many finer layers contribute scores. Your
# `joint_augment` flips about half of the images, and your `pixel_ce` is the loss.
#
# On a CPU there is time for only a few seconds of training per network. The streets are therefore simple: none is dark
# or misty, and surfaces such as road and water always have their usual colour (`variety` 0).
#
# On a GPU the networks learn to separate cats and dogs from the background, in photographs of
# [Oxford-IIIT Pet](https://www.robots.ox.ac.uk/~vgg/data/pets/). Pixels along the outline of an animal are void. The
# backbone is then a ResNet-18 that was trained on ImageNet. The cell downloads 811 MB of photographs and 45 MiB of
# weights once, and prints licence and citation. If the folder that `SEGEDU_DATA` names contains `pets`, it is used
# instead. Without an internet connection, the networks learn streets of the usual variety, which are larger than on a
# CPU.

# %% name="train_parts" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.real_folder import real_folder
from segedu.datasets.scenes import Scenes
from segedu.datasets.street import CLASSES, draw_street
from segedu.recipes.real_samples import PET_CLASSES, pets
from segedu.recipes.recipe import find_recipe
from segedu.training import evaluate, train_steps
from segedu.weights.offline import load_or_random
from tqdm.auto import tqdm

augment, yours = use(joint_augment), use(pixel_ce)


def get_data(length, seed, size, variety):
    """Images (B, 3, H, W) and targets (B, H, W): photographs of pets if there is a folder, else synthetic streets."""
    if folder:
        return semantic_batch(pets(folder, seed == 1, size[0], length))
    scenes = Scenes(draw_street, length, seed, size, variety=variety)
    return semantic_batch(list(tqdm(scenes, desc="render", unit="image")))


def build_fcn(stride):
    """The FCN of a recipe for streets; for photographs, a larger one on a ResNet-18."""
    net = find_recipe(f"fcn{stride}", "street")[0].build()
    return type(net)(load_or_random("resnet18"), len(classes), stride=stride) if folder else net


def batches(images, target, steps, batch):
    """Random batches, about half of the images flipped; every call yields the same batches."""
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        picks = torch.randint(len(images), (batch,), generator=order).tolist()
        flips = (torch.rand(batch, generator=order) < 0.5).tolist()
        pairs = [augment(images[i], target[i], flip, 1, 0) for i, flip in zip(picks, flips)]
        parts = [torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*pairs)]
        yield parts[0].float(), parts[1].long()


def loss(logits, target):
    """Your loss on the CPU; torch's on a GPU, because yours may create tensors on the CPU."""
    torchs = torch.nn.functional.cross_entropy
    return torchs(logits, target, ignore_index=255) if logits.is_cuda else yours(logits, target, 255)


# %% name="train" role="train"
SCALE = "gpu" if torch.cuda.is_available() else "cpu"
folder = real_folder("pets") if SCALE == "gpu" else None
scales = {"cpu": ((96, 160), 0.0, 160, 250, 4), "gpu": ((256, 256), 0.35, 400, 2000, 16)}
size, variety, length, steps, batch = scales[SCALE] if not folder else ((192, 192), None, 1000, 1500, 16)
classes, rate = (PET_CLASSES, 5e-4) if folder else (CLASSES, 3e-3)
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # such a small network does not become faster with more threads
images, targets = get_data(length, 0, size, variety)
val_images, val_targets = get_data(length // 5, 1, size, variety)
val = list(zip(val_images.split(batch), val_targets.split(batch)))
nets, scores = {}, {}
for stride in (32, 16, 8):
    torch.manual_seed(0)
    net = build_fcn(stride).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    loader = batches(images, targets, steps, batch)
    run = train_steps(net, loader, loss, optimizer, scheduler=schedule, clip_norm=1.0)
    bar = tqdm(run, f"FCN-{stride}s", steps)
    for value in bar:
        bar.set_postfix(loss=f"{value:.3f}")
    scores[stride] = evaluate(net, val, len(classes))
    nets[stride] = net.eval().cpu()
    print(f"FCN-{stride}s: mean IoU {scores[stride]['mean_iou']:.3f} on {len(val_images)} new images, scale {SCALE}")

# %% [markdown] name="table_text"
# The column "frequent" is a simple baseline: at each pixel it predicts the class that is most frequent at this
# position in the training images. The columns "bound" are not predictions of a network but approximate upper bounds.
# They use scores computed from the ground truth, as the widget does, so a network can exceed them for some classes, and
# even in the mean. For which classes is a network farthest below its bound? (On photographs we have run these cells only
# on a CPU, for a few iterations and without the weights of ImageNet.)

# %% name="train_table" role="train"
from segedu.metrics.semantic import iou_per_class

most_frequent = torch.stack([(targets == k).sum(0) for k in range(len(classes))]).argmax(0)
rows = {"frequent": iou_per_class(most_frequent.expand_as(val_targets), val_targets, len(classes), ignore_index=255)}
for stride in (32, 16, 8):
    rows[f"FCN-{stride}s"] = torch.tensor(scores[stride]["iou_per_class"])
for stride in (32, 16, 8):
    best = torch.stack([upper_bound(single, stride, len(classes)) for single in val_targets])
    rows[f"bound {stride}"] = iou_per_class(best, val_targets, len(classes), ignore_index=255)
print(f"{'IoU':<12}" + "".join(f"{name:>10}" for name in rows))
columns = [[float(ious.nanmean()), *ious.tolist()] for ious in rows.values()]
for name, *values in zip(("mean", *classes), *columns):
    print(f"{name:<12}" + "".join(f"{value:10.2f}" for value in values))

# %% [markdown] name="train_figure_text"
# The next figure shows the predictions of the three networks for one validation image, and below each prediction its
# wrong pixels. Compare the outlines and the thin objects. On large surfaces the three predictions are similar.

# %% name="train_figure" role="train"
from segedu.teaching.widgets.fcn import error_picture

shown = int((val_targets == classes.index("pet" if folder else "person")).sum((1, 2)).argmax())
fig, axes = plt.subplots(2, 4, figsize=(12, 4.4), layout="constrained")
axes[0, 0].imshow(val_images[shown].permute(1, 2, 0))
axes[1, 0].imshow(class_picture(val_targets[shown]))
axes[0, 0].set_title("validation image")
axes[1, 0].set_title("ground truth")
for column, (stride, net) in zip(axes.T[1:], nets.items()):
    with torch.no_grad():
        labels = net(val_images[shown : shown + 1])[0].argmax(0)
    wrong = (labels != val_targets[shown]) & (val_targets[shown] != 255)
    column[0].imshow(class_picture(labels))
    column[0].set_title(f"FCN-{stride}s")
    column[1].imshow(error_picture(val_images[shown], wrong))
    column[1].set_title(f"{float(wrong.float().mean()):.0%} wrong")
for axis in axes.flat:
    axis.set_axis_off()
show(
    fig,
    alt=f"A {'photograph' if folder else 'street'} and its ground-truth classes; the predictions of FCN-32s, FCN-16s "
    "and FCN-8s; and below them their wrong pixels.",
)

# %% [markdown] name="voc_text"
# ## Photographs: PASCAL VOC 2012
#
# PASCAL VOC 2012 cannot be distributed with this course. If you have downloaded it, enter the path of its folder in the
# next cell. The backbone is a ResNet-18. If you set `PRETRAINED` to `True`, the cell downloads 45 MiB of weights that
# were trained on ImageNet. Use a GPU.

# %% name="voc" role="train"
VOC = None  # for example "VOCdevkit/VOC2012"
PRETRAINED = False
VOC_STEPS = 5000

if VOC:
    from segedu.weights import pretrained
    from segedu.backbones.resnet import resnet18
    from segedu.datasets.voc import VOCSegmentation

    def window(sample):
        """Crop 256 x 256 pixels at a random position, flipped at random; pad smaller images with void."""
        border = max(0, 256 - min(sample["semantic"].shape))
        pair = augment(sample["image"], sample["semantic"], bool(torch.rand(()) < 0.5), 1, border)
        photo, labels = (torch.as_tensor(part) for part in pair)
        top, left = (int(torch.randint(side - 255, ())) for side in labels.shape)
        crop = (..., slice(top, top + 256), slice(left, left + 256))
        return {"image": photo[crop].float(), "semantic": labels[crop].long()}

    data = VOCSegmentation(VOC, "train", window)
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=VOC_STEPS * batch)
    loader = torch.utils.data.DataLoader(data, batch, sampler=sampler, collate_fn=semantic_batch, num_workers=2)
    FCN = type(nets[8])  # the class of the networks above, which a recipe built
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
# **1. VGG-16 ends in three fully connected layers, the first of which reads 7x7 features. Which kernel size does each
# layer have as a convolution?**
#
# <details><summary>Answer</summary>
#
# 7x7, 1x1 and 1x1. Often all three are called "1x1 convolutions", which is wrong for the first one.
#
# </details>
#
# **2. A network was trained on images of 224 x 224 pixels. It has five poolings by 2 and then a 7x7 convolution without
# padding; all other layers keep the size. How many scores per class does it compute for an image of 320 x 320 pixels?**
#
# <details><summary>Answer</summary>
#
# The last feature map has 320 / 32 = 10 rows and columns. A 7x7 kernel has 10 - 7 + 1 = 4 positions along each axis, so
# there are 4 x 4 scores per class. The weights do not change.
#
# </details>
#
# **3. Why does FCN-8s add its skips, while the U-Net concatenates them?**
#
# <details><summary>Answer</summary>
#
# The skips of FCN are scores of the same classes, so adding them combines several predictions. The skips of the U-Net
# are features without a fixed meaning, and the next convolution learns how to combine them.
#
# </details>
#
# **4. SegNet stores indices, and the U-Net stores features. Which information about a 2x2 window does each of them
# store? Is there information that only the indices contain?**
#
# <details><summary>Answer</summary>
#
# An index stores only the position of the maximum, in 2 bits, and no value of any of the four pixels. The features are
# the values of all four pixels. There is no information that only the indices contain, because the features determine
# the position of the maximum. The disadvantage of the features is that they need more memory.
#
# </details>
#
# **5. In a batch, half of all pixels are void. Your code divides the sum of the losses by the number of all pixels.
# What happens?**
#
# <details><summary>Answer</summary>
#
# The loss and all gradients are half as large as they should be. The factor depends on the number of void pixels, so it
# differs from batch to batch, as if the learning rate changed from batch to batch.
#
# </details>
#
# **6. Find the error: "A deconvolution undoes a convolution."**
#
# <details><summary>Answer</summary>
#
# A deconvolution, or transposed convolution, restores only the size. It adds weighted copies of its kernel, and the
# information that convolutions and poolings have discarded remains lost. This is why FCN needs its skip connections.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - Change one thing in the training cell: build an `FCN` with `stride=4`. Does the mean IoU increase? Compare it with
#   the upper bound in the widget.
# - Switch off the random flips. How do the training loss and the mean IoU change?
# - Chapter 6 gives the upsampling path about as many channels as the downsampling path. The result is the U-Net.
# - Chapter 8 examines what FCN cannot see: the whole scene at once.
#
# Before you hand in this notebook, save it, and run `segedu check labs/05_fcn.ipynb` in a terminal. The command runs
# the notebook as the grader will, and prints your points and the feedback.
