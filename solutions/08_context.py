# %% [markdown] name="title"
# # Lab 8: Context
#
# A network that sees only a small window may take the cabin of a boat for a car. In this lab you build the remedies of
# PSPNet and DeepLab: pyramid pooling, atrous convolution, a finer output stride, ASPP, and the decoder of DeepLab v3+.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: the pages of [chapter 8](../course/08-context/index.md), and labs 3 (convolutions) and 5
# (upsampling and training). The mathematics is sums and integer arithmetic.
#
# Run the cells from top to bottom. As long as one of your functions is missing or wrong, later cells use the library's
# function, so the notebook always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## Goals
#
# After this lab you can
#
# - say which classes a network with a small receptive field confuses, and find these confusions in a table;
# - give every pixel a summary of the whole image, by pyramid pooling;
# - enlarge the receptive field of a convolution without new weights, and say which pixels it then skips;
# - turn stride into dilation in a network that is already trained;
# - build ASPP, and say what changed from DeepLab v1 to v3+.
#
# First, try to do the task of a network with a small receptive field. The top row of the next figure shows four windows
# of 13 by 13 pixels. To which class does the pixel in the middle of each window belong? Answer before you look at the
# bottom row, which shows the streets around the windows.

# %% name="picture" role="show"
from segedu.datasets.street import CLASSES, draw_street
from segedu.viz import show
from segedu.teaching.widgets.context import class_maps, draw_keyholes

draw_keyholes()

# %% [markdown] name="ppm_idea"
# ## 1. Pyramid pooling (5 points)
#
# **Idea.** Pyramid pooling gives every pixel a summary of the whole image and of its regions. PSPNet divides its last
# map into grids of 1x1, 2x2, 3x3 and 6x6 cells and computes the **mean** of each cell. One grid is one level of the
# pyramid. A level contains little information, so it needs few channels: a 1x1 convolution reduces the $C$ channels to
# $C/4$. The four levels together then have as many channels as the map itself.
#
# **Formula.** A grid of $n$ x $n$ cells divides the $H$ rows of the map into $n$ parts. Part $i$ (counted from 0)
# covers the rows
#
# $$ \left\lfloor \tfrac{iH}{n} \right\rfloor, \;\ldots,\; \left\lceil \tfrac{(i+1)H}{n} \right\rceil - 1 $$
#
# and columns are divided likewise. If $n$ does not divide $H$, some neighbouring cells overlap. (`adaptive_avg_pool2d`
# uses these cells.) Three steps are applied to the means of each level, in this order: **1x1 convolution, ReLU,
# bilinear upsampling** to the size of the map.
#
# **Worked example.** The five pixels 1 2 3 4 5 are divided into 2 cells: pixels 0 to 2 and pixels 2 to 4, with the
# means 2 and 4. Upsampled to 5 pixels with **aligned corners**, they become 2, 2.5, 3, 3.5, 4. (With aligned corners,
# the centre of the first cell lies on the first pixel, and that of the last cell on the last pixel.) The next cell
# computes this example, without the convolution and the ReLU.

# %% name="ppm_by_hand" role="show"
row = torch.tensor([[[1.0, 2, 3, 4, 5]]])
cells = torch.nn.functional.adaptive_avg_pool1d(row, 2)
large = torch.nn.functional.interpolate(cells, 5, mode="linear", align_corners=True)
print("means:", cells[0, 0].tolist(), " upsampled:", large[0, 0].tolist())


# %% name="ppm" role="solution"
def ppm(features, weights, bins):
    """Pyramid pooling of PSPNet, without batch normalisation.

    features: float tensor (B, C, H, W)
    weights:  list of float tensors (c, C), one for each level: its 1x1 convolution, without bias
    bins:     list of equally many integers, such as [1, 2, 3, 6]. The grid of a level has n x n cells, where n is its
              entry in this list. n may be larger than H or W, and does not have to divide them: see the formula above.

    Each level: the mean of each cell, 1x1 convolution, ReLU, bilinear upsampling to H x W with align_corners=True.
    Returns (B, C + len(bins) * c, H, W): first the features, unchanged, then the levels in the order of `bins`.
    """
    ### BEGIN SOLUTION: pool, reduce and upsample each level, and concatenate the levels after the features
    F = torch.nn.functional
    parts = [features]
    for n, weight in zip(bins, weights):
        grid = F.adaptive_avg_pool2d(features, n)
        grid = F.conv2d(grid, weight[:, :, None, None]).relu()
        parts.append(F.interpolate(grid, features.shape[2:], mode="bilinear", align_corners=True))
    return torch.cat(parts, dim=1)
    ### END SOLUTION


# %% name="check_ppm" role="check"
check(ppm)

# %% [markdown] name="ppm_after"
# What information does each level give to a pixel? In the next figure the features are the colours of a street, and the
# 1x1 convolutions leave them unchanged. (A real network pools learned features, not colours.) Notice that the 1x1 level
# is the same for all pixels, and that finer grids describe smaller regions.

# %% name="ppm_figure" role="show"
street = draw_street(3)
image = street["image"][None]
levels = use(ppm)(image, [torch.eye(3)] * 4, [1, 2, 3, 6])
fig, axes = plt.subplots(2, 3, figsize=(8, 3.8), layout="constrained")
axes[1, 2].set_axis_off()  # five panels in a grid of six
for ax, name, level in zip(axes.flat, ("map", "1 x 1", "2 x 2", "3 x 3", "6 x 6"), torch.as_tensor(levels)[0].split(3)):
    ax.imshow(level.permute(1, 2, 0).clamp(0, 1))
    ax.set(title=name, xticks=[], yticks=[])
show(
    fig,
    alt="A street; its mean colour; and the mean colours of its 2x2, 3x3 and 6x6 cells, upsampled with smooth "
    "transitions.",
)

# %% [markdown] name="dilate_conv_idea"
# ## 2. Atrous convolution (3 points)
#
# **Idea.** Pooling enlarges the receptive field, but it loses positions. An atrous convolution instead spreads the taps
# of its kernel. The gaps between the taps are called holes (French *à trous*, "with holes"). The same nine weights of a
# 3x3 kernel then cover a larger area, and the map keeps its size. **Atrous convolution is dilated convolution.** It is
# not transposed convolution, which upsamples a map.
#
# **Formula.** With rate $r$, and with taps $k$ counted from the middle of a kernel of $K$ taps:
#
# $$ y[i] = \sum_k w[k]\; x[i + r k] $$
#
# The kernel spans $r(K - 1) + 1$ pixels. At each end of the map it reaches $r (K-1)/2$ pixels beyond the map, where the
# values are zero.
#
# **Worked example.** Take the row 1 2 3 4 5, the kernel (1, 0, -1) and rate 2. In the middle,
# $y[2] = 1 \cdot 1 + 0 \cdot 3 - 1 \cdot 5 = -4$. At the left end, $y[0] = 0 + 0 - 3 = -3$. With rate 1,
# $y[2] = 2 - 4 = -2$.


# %% name="dilate_conv" role="solution"
def dilate_conv(features, weight, rate):
    """Atrous convolution that keeps the size of the map.

    features: float tensor (B, C, H, W)
    weight:   float tensor (D, C, Kh, Kw); Kh and Kw are odd, and may differ
    rate:     r, an integer, at least 1: neighbouring taps are r pixels apart, so rate 1 is a plain convolution. The
              kernel may span more pixels than the map has.

    The stride is 1, the values outside the map are zero, the kernel is not flipped (as in torch), and there is no bias.
    Returns (B, D, H, W).
    """
    ### BEGIN SOLUTION: a dilated convolution, with the padding that keeps H and W
    padding = [rate * (taps // 2) for taps in weight.shape[2:]]
    return torch.nn.functional.conv2d(features, weight, padding=padding, dilation=rate)
    ### END SOLUTION


# %% name="check_dilate_conv" role="check"
check(dilate_conv)

# %% [markdown] name="dilate_conv_after"
# The next figure applies three layers of your convolution, with all weights equal to 1, to an image with a single
# bright pixel. If all layers have the same rate, which is larger than 1, the result is a lattice: an output pixel never
# depends on its direct neighbours. This effect is called **gridding**. With the rates 1, 2 and 4 of the last map, no
# pixel is skipped.

# %% name="dilate_conv_figure" role="show"
impulse, ones, atrous = torch.zeros(1, 1, 31, 31), torch.ones(1, 1, 3, 3), use(dilate_conv)
impulse[..., 15, 15] = 1
fig, axes = plt.subplots(1, 4, figsize=(9, 2.8), layout="constrained")
for ax, rates in zip(axes, ([1, 1, 1], [2, 2, 2], [4, 4, 4], [1, 2, 4])):
    seen = impulse
    for rate in rates:
        seen = torch.as_tensor(atrous(seen, ones, rate))
    ax.imshow(seen[0, 0], cmap="cividis")
    ax.set(title=f"rates {rates}\n{int((seen > 0).sum())} pixels", xticks=[], yticks=[])
show(
    fig,
    alt="A single bright pixel after three layers, for four lists of rates: a small square of 49 pixels for 1, 1, 1; "
    "lattices of 49 dots for 2, 2, 2 and for 4, 4, 4; and a square of 225 pixels for 1, 2, 4.",
)

# %% [markdown] name="widget_text"
# ## Explore the rates
#
# Each slider sets the rate of one 3x3 layer, and rate 0 leaves a layer out. At first there are three layers of rate 2:
# which pixels of the image does an output pixel not use? Find rates that skip no pixel. How large is the receptive
# field of four layers whose rates double from layer to layer, beginning with 1? Which pixels do two layers of rate 3
# use? Switch on "neighbouring output": how many pixels do two neighbouring outputs share if all rates are 2?

# %% name="widget" role="widget"
from segedu.teaching.widgets.dilation import explorer

explorer()

# %% [markdown] name="convert_os_idea"
# ## 3. Stride becomes dilation (3 points)
#
# **Idea.** A classification network halves the resolution of its map five times. Its **output stride** is then 32: one
# pixel of its last map stands for 32 x 32 pixels of the image. If you remove the last strides, the map keeps a higher
# resolution. But the following kernels were trained on a coarser map, whose neighbouring pixels are further apart in
# the image. So the taps of these kernels have to be spread by the factor by which the map has become denser. The
# weights stay the same, so you can use a network that was trained on ImageNet.
#
# **Rule.** Go through the layers in order, beginning at the image.
#
# - Keep the stride of a layer if the product of all strides kept before it, multiplied by its own stride, is at most
#   the output stride. Otherwise the stride is **removed**, that is, it becomes 1.
# - Each removed stride multiplies the dilation of all **later** layers by its value. The layer itself still reads a map
#   of the old density, so it keeps the dilation that it has so far.
# - The padding of each layer is multiplied by the dilation of this layer, so that the dilated kernel extends beyond the
#   border by the same number of taps.
# - The rule holds for poolings as well as for convolutions.
#
# **Worked example.** Convert three layers of (kernel 3, stride 2, padding 1) to output stride 2. The column "product"
# is the product that the first rule compares with the output stride:
#
# | layer | stride | product | new stride | dilation | padding |
# |---|---|---|---|---|---|
# | 1 | 2 | 2 | 2 | 1 | 1 |
# | 2 | 2 | 2 x 2 = 4 > 2 | 1 | 1 | 1 |
# | 3 | 2 | 2 x 2 = 4 > 2 | 1 | 2 | 2 |
#
# A fourth layer would have dilation 4.


# %% name="convert_os" role="solution"
def convert_os(layers, output_stride):
    """Convert a stack of layers to a finer output stride.

    layers:        list of tuples (kind, kernel_size, stride, padding), first layer first; kind is "conv" or "pool",
                   and strides are 1 or 2. The list may be empty.
    output_stride: 1, 2, 4, 8, 16 or 32. If the product of all strides is not larger than this, no stride changes.

    Returns a list of tuples (kind, kernel_size, stride, dilation, padding), one for each layer, by the rule above.
    """
    ### BEGIN SOLUTION: go through the layers, keeping the product of the strides and the dilation so far
    product, dilation, converted = 1, 1, []
    for kind, kernel_size, stride, padding in layers:
        removed = 1
        if product * stride > output_stride:
            stride, removed = 1, stride
        converted.append((kind, kernel_size, stride, dilation, padding * dilation))
        product *= stride
        dilation *= removed
    return converted
    ### END SOLUTION


# %% name="check_convert_os" role="check"
check(convert_os)

# %% [markdown] name="convert_os_after"
# Does the converted network compute the same features? The next figure shows the output of four layers of stride 2 with
# random weights, at output stride 16, and the output of the same weights after your conversion to output stride 4.
# Every fourth pixel of the dense map, along both axes, must be equal to the corresponding pixel of the coarse map. The
# title of the third panel gives their largest difference.

# %% name="convert_os_figure" role="show"
torch.manual_seed(0)
convert = use(convert_os)
kernels = [torch.randn(8, channels, 3, 3) / (3 * channels**0.5) for channels in (3, 8, 8, 8)]


def run(image, output_stride):
    """Apply four 3x3 layers of stride 2, converted to this output stride."""
    features = image
    layers = convert([("conv", 3, 2, 1)] * 4, output_stride)
    for weight, (_, _, stride, dilation, padding) in zip(kernels, layers):
        features = torch.nn.functional.conv2d(features, weight, None, stride, padding, dilation).relu()
    return features


coarse, dense = run(image, 16), run(image, 4)
difference = float((dense[..., ::4, ::4] - coarse).abs().max())
fig, axes = plt.subplots(1, 3, figsize=(9, 2.2), layout="constrained")
for ax, title, panel in zip(axes, ("output stride 16", "output stride 4"), (coarse, dense)):
    ax.imshow(panel[0].mean(0), cmap="cividis")
    ax.set(title=f"{title}: {panel.shape[2]} x {panel.shape[3]}", xticks=[], yticks=[])
axes[2].imshow(dense[0, :, ::4, ::4].mean(0), cmap="cividis")
axes[2].set(title=f"every 4th pixel; difference {difference:.0e}", xticks=[], yticks=[])
show(
    fig,
    alt="A coarse map; the same features at four times the resolution; and every fourth pixel of the second map, which "
    "is equal to the first map.",
)

# %% [markdown] name="aspp_idea"
# ## 4. Atrous spatial pyramid pooling (5 points)
#
# **Idea.** Objects can be near or distant, so no single rate suits all of them. Atrous spatial pyramid pooling (ASPP)
# applies several rates to the same map **in parallel**. In the stack of exercise 2, they were applied one after the
# other. The ASPP of DeepLab v3 has five branches:
#
# 1. a 1x1 convolution;
# 2. three 3x3 convolutions with rates 6, 12 and 18;
# 3. the **image feature**: the mean of each channel over the whole map, followed by a 1x1 convolution, and copied to
#    every pixel.
#
# Each branch ends with a ReLU, and the five results are concatenated. (In the network, a 1x1 convolution then combines
# them. It is not part of this exercise.)
#
# **Why the image feature?** The larger the rate is compared with the map, the more taps lie outside the map. If only
# the middle tap lies inside, the 3x3 convolution acts like a 1x1 convolution. The mean over the map provides context in
# this case too.
#
# **The rates depend on the output stride.** The rates 6, 12 and 18 are meant for output stride 16. At output stride
# $s$, use $r \cdot 16 / s$. For example, a map of output stride 8 is twice as dense, so two given positions of the
# image are twice as many pixels of the map apart.
#
# **Worked example.** At output stride 8, the rates 6, 12 and 18 become 12, 24 and 36. A 3x3 kernel of rate 12 spans 25
# pixels. On a map of 12 rows and 20 columns, the upper and the lower taps of this kernel always lie outside the map.


# %% name="aspp" role="solution"
def aspp(features, weights, rates, output_stride):
    """The branches of DeepLab v3's ASPP, without batch normalisation and without the 1x1 convolution at the end.

    features:      float tensor (B, C, H, W)
    weights:       dict with three entries, all without bias. "one": float tensor (c, C), the 1x1 branch. "atrous": list
                   of float tensors (c, C, 3, 3), one for each rate. "image": float tensor (c, C), the 1x1 convolution
                   of the image feature
    rates:         list of any number of integers, meant for output stride 16
    output_stride: that of the features, 8, 16 or 32. Use the rates r * 16 / output_stride, which are always integers

    Returns (B, (2 + len(rates)) * c, H, W): the 1x1 branch, the atrous branches in the order of `rates`, and the image
    feature. The values outside the map are zero. Each branch ends with a ReLU.
    """
    ### BEGIN SOLUTION: compute the branches, each with its ReLU, and concatenate them
    F = torch.nn.functional
    branches = [F.conv2d(features, weights["one"][:, :, None, None])]
    for weight, rate in zip(weights["atrous"], rates):
        rate = rate * 16 // output_stride
        branches.append(F.conv2d(features, weight, padding=rate, dilation=rate))
    mean = features.mean(dim=(2, 3), keepdim=True)
    image = F.conv2d(mean, weights["image"][:, :, None, None])
    branches.append(image.expand(-1, -1, *features.shape[2:]))
    return torch.cat(branches, dim=1).relu()
    ### END SOLUTION


# %% name="check_aspp" role="check"
check(aspp)

# %% [markdown] name="aspp_after"
# How many of the nine taps of a 3x3 kernel lie inside a map of 33 by 33 pixels? Your `dilate_conv` counts them, because
# all weights are 1 and the map consists of ones. The figure shows the fraction of the output pixels for each number of
# taps. If the rate is as large as the map, only the middle tap is inside, and the 3x3 convolution has become a 1x1
# convolution.

# %% name="aspp_figure" role="show"
all_ones, rates, atrous = torch.ones(1, 1, 33, 33), list(range(1, 37)), use(dilate_conv)
taps = [torch.as_tensor(atrous(all_ones, torch.ones(1, 1, 3, 3), rate)) for rate in rates]
fig, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for count, marker in ((9, "o"), (6, "s"), (4, "^"), (2, "v"), (1, "x")):
    ax.plot(
        rates,
        [float((t == count).float().mean()) for t in taps],
        marker,
        label=f"{count} tap{'s' * (count > 1)}",
        markersize=4,
    )
ax.set(xlabel="rate", ylabel="fraction of the pixels", ylim=(-0.03, 1.03))
ax.legend(title="taps inside the map", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
show(
    fig,
    alt="Fraction of the pixels against the rate, for each number of taps inside the map. The fraction with 9 taps "
    "falls to 0 by rate 17. The fraction with 1 tap rises to 1 at rate 33.",
)

# %% [markdown] name="separable_idea"
# ## 5. Separable convolutions (2 points)
#
# **Idea.** DeepLab v3+ reduces the cost of its 3x3 convolutions by splitting each of them into two steps. The
# **depthwise** step convolves each channel with its own kernel, without mixing channels. The **pointwise** step is a
# 1x1 convolution, which mixes the channels. The depthwise step may be atrous.
#
# **Worked example.** A plain 3x3 convolution from 2 to 5 channels has $3 \cdot 3 \cdot 2 \cdot 5 = 90$ weights. The
# depthwise step has 2 kernels of 9 weights, 18 in total. In the pointwise step, each of the 5 outputs reads 2 channels,
# which gives 10 weights. Together these are 28.
#
# Write a function that computes the number of weights of both steps together, for any sizes. Neither step has a bias.
# The figure after the check shows by what factor a plain convolution has more weights. Notice that this factor
# approaches 9, the number of taps, as the number of channels grows.


# %% name="separable" role="solution"
def separable(in_channels, out_channels, kernel_size, rate):
    """Number of weights of an atrous separable convolution: depthwise, then pointwise, both without bias.

    in_channels, out_channels: C and D, at least 1; the depthwise step keeps the C channels
    kernel_size:               K; the depthwise kernels have K x K taps
    rate:                      dilation of the depthwise step, at least 1

    Returns an integer.
    """
    ### BEGIN SOLUTION: weights of the depthwise step plus weights of the pointwise step
    return in_channels * kernel_size**2 + in_channels * out_channels
    ### END SOLUTION


# %% name="check_separable" role="check"
check(separable)

# %% name="separable_figure" role="show"
channels = [16, 32, 64, 128, 256, 512]
count = use(separable)
ratio = [9 * n * n / count(n, n, 3, 12) for n in channels]
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.plot(channels, ratio, "o-", color="#0072B2")
ax.axhline(9, color="#1b1b1b", linestyle="--", linewidth=1)
ax.set(xlabel="channels (input and output)", ylabel="weights, plain / separable", xscale="log", ylim=(0, 10))
ax.set_xticks(channels, [str(n) for n in channels])
ax.minorticks_off()
show(
    fig,
    alt="Ratio of the weights of a plain and a separable 3x3 convolution against the number of channels. It rises from "
    f"{ratio[0]:.1f} to {ratio[-1]:.1f}; the limit is 9.",
)

# %% [markdown] name="v3plus_decode_idea"
# ## 6. The decoder of DeepLab v3+ (2 points)
#
# **Idea.** At output stride 16 outlines are blurred, because one pixel of the map stands for 16 x 16 pixels of the
# image. DeepLab v3+ recovers outlines from the features of an early layer, as FCN and the U-Net do. This low-level map
# has output stride 4. A 1x1 convolution **reduces its many channels to a few** (48 in the paper), so that they do not
# outweigh the deep features.
#
# **Steps.**
#
# 1. Upsample the deep map bilinearly, with `align_corners=False`, **to the size of the low-level map**.
# 2. Reduce the low-level map: 1x1 convolution, ReLU.
# 3. Concatenate both, the deep features first. (In the network, 3x3 convolutions and a classifier follow.)
#
# **Worked example.** For an image of 225 x 225 pixels, the low-level map has 57 pixels per side, and the deep map has
# 15 pixels per side. Four times 15 is 60, not 57. So take the size from the low-level map, and do not upsample by a
# fixed factor.


# %% name="v3plus_decode" role="solution"
def v3plus_decode(deep, low, weight):
    """The decoder of DeepLab v3+ up to the concatenation, without batch normalisation.

    deep:   float tensor (B, C, h, w), the deep features, from the ASPP
    low:    float tensor (B, E, H, W), the low-level features, from an early layer, with H >= h and W >= w; H and W are
            not always multiples of h and w
    weight: float tensor (R, E), the 1x1 convolution that reduces `low`, without bias

    Returns (B, C + R, H, W): first `deep`, upsampled bilinearly with align_corners=False, then `low`, reduced by the
    1x1 convolution, which is followed by a ReLU.
    """
    ### BEGIN SOLUTION: upsample the deep features, reduce the low-level features, and concatenate
    F = torch.nn.functional
    large = F.interpolate(deep, low.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([large, F.conv2d(low, weight[:, :, None, None]).relu()], dim=1)
    ### END SOLUTION


# %% name="check_v3plus_decode" role="check"
check(v3plus_decode)

# %% [markdown] name="v3plus_decode_after"
# What does each of the two inputs contribute? In the next figure the deep features are computed from the ground truth
# of a street, averaged over cells of 16 by 16 pixels. They carry the classes, but only coarse outlines. The low-level
# features are the edges of the image. They carry the outlines, but no classes.

# %% name="v3plus_decode_figure" role="show"
one_hot = (street["semantic"][None, None] == torch.arange(10)[:, None, None]).float()
deep = torch.nn.functional.avg_pool2d(one_hot, 16)
grey = image.mean(1, keepdim=True)
low = torch.nn.functional.pad(grey, (1, 0, 1, 0), mode="replicate").diff(dim=2)[..., 1:].abs()
joined = torch.as_tensor(use(v3plus_decode)(deep, torch.nn.functional.max_pool2d(low, 4), torch.ones(1, 1)))
panels = {"image": image[0], "deep": deep[0].argmax(0), "deep, upsampled": joined[0, :10].argmax(0)}
panels["low level"] = (joined[0, 10:] / joined[0, 10].max()).expand(3, -1, -1)
fig = class_maps(panels, columns=2, width=3.5)
show(
    fig,
    alt="A street; its classes in blocks of 16 by 16 pixels; the same classes upsampled, with coarse outlines; and a "
    "map of the edges of the image.",
)

# %% [markdown] name="toy_text"
# ## Is it context? Images in which only context decides
#
# Each synthetic image of this experiment shows a large box. If the box is on water, which has waves from left to right,
# its class is boat. If it is on a road, which has stripes from top to bottom, its class is car. The appearance of the
# box is independent of its class. You train three small networks. Their convolutional layers have a receptive field of
# 15 by 15 pixels, and the boxes have at least 22 pixels per side. The networks differ only in their head: no head, your
# `ppm`, or your `aspp`.

# %% name="toy_parts" role="train"
from segedu.losses.cross_entropy import cross_entropy
from segedu.training import evaluate, train_steps
from tqdm.auto import tqdm


def draw_boxes(length, seed, size=48):
    """Images (B, 3, size, size) and targets (B, size, size): 0 ground, 1 box on a road, 2 box on water."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.03, (length, 3, size, size))
    target = np.zeros((length, size, size), np.int64)
    for image, labels in zip(images, target):
        water = int(rng.integers(2))
        waves = 0.15 * np.sin(np.arange(size) * rng.uniform(0.8, 1.4) + rng.uniform(0, 6))
        image += rng.uniform(0.2, 0.8, (3, 1, 1)) + (waves[:, None] if water else waves)
        (h, w), (y, x) = rng.integers(22, 30, 2), rng.integers(3, 15, 2)
        image[:, y : y + h, x : x + w] = rng.uniform(0.1, 0.9, (3, 1, 1)) + rng.normal(0, 0.03, (3, h, w))
        labels[y : y + h, x : x + w] = 1 + water
    return torch.from_numpy(images).float(), torch.from_numpy(target)


def fit(net, data, steps, batch, name, rate=5e-3):
    """Train `net` on random batches of (images, target), half of which are flipped."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    picks = torch.randint(len(data[0]), (steps, batch), generator=torch.Generator().manual_seed(0))
    loader = ([part[pick].flip(-1) if i % 2 else part[pick] for part in data] for i, pick in enumerate(picks))
    bar = tqdm(train_steps(net, loader, cross_entropy, optimizer, scheduler=schedule), name, steps)
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")
    return net.eval()


# %% name="net" role="train"
class Net(torch.nn.Module):
    """A stack of 3x3 layers with at most the given output stride, a head, a classifier and bilinear upsampling."""

    def __init__(self, widths, strides, output_stride, num_classes, head=None):
        super().__init__()
        layers = use(convert_os)([("conv", 3, stride, 1) for stride in strides], output_stride)
        stack, before = [], 3
        for width, (_, kernel, stride, dilation, padding) in zip(widths, layers):
            convolution = torch.nn.Conv2d(before, width, kernel, stride, padding, dilation, bias=False)
            stack += [convolution, torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
            before = width
        self.stack = torch.nn.Sequential(*stack)
        shapes = {None: [], "ppm": [(before // 4, before)] * 4}
        shapes["aspp"] = [(before // 2, before)] * 2 + [(before // 2, before, 3, 3)] * 3
        initial = [torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5 for shape in shapes[head]]
        self.weights = torch.nn.ParameterList(initial)
        self.head, self.output_stride = head, output_stride
        self.run = use({"ppm": ppm, "aspp": aspp}[head]) if head else None
        channels = before * (head != "aspp") + sum(shape[0] for shape in shapes[head])
        self.classes = torch.nn.Conv2d(channels, num_classes, 1)

    def forward(self, images):
        x, w = self.stack(images), list(self.weights)
        if self.head == "ppm":
            x = self.run(x, w, [1, 2, 3, 6])
        if self.head == "aspp":
            x = self.run(x, {"one": w[0], "image": w[1], "atrous": w[2:]}, [2, 4, 6], self.output_stride)
        return torch.nn.functional.interpolate(self.classes(x), images.shape[2:], mode="bilinear")


# %% name="toy" role="train"
if not torch.cuda.is_available():
    torch.set_num_threads(1)  # such a small network does not become faster with more threads
boxes, new_boxes = draw_boxes(256, 0), draw_boxes(64, 1)
predictions, toy_scores = {}, {}
for head in (None, "ppm", "aspp"):
    torch.manual_seed(0)
    net = fit(Net([16, 24, 32], [2, 2, 1], 16, 3, head), boxes, 100, 16, f"head: {head}")
    with torch.no_grad():
        predictions[head] = net(new_boxes[0]).argmax(1)
    toy_scores[head] = evaluate(net, [new_boxes], 3)["mean_iou"]
    print(f"head {head}: mean IoU {toy_scores[head]:.3f} on 64 new images")

# %% name="toy_figure" role="train"
shown = [
    int((new_boxes[1] == 1).flatten(1).any(1).int().argmax()),
    int((new_boxes[1] == 2).flatten(1).any(1).int().argmax()),
]
fig, axes = plt.subplots(2, 5, figsize=(10, 4.2), layout="constrained")
for line, i in zip(axes, shown):
    panels = [
        new_boxes[0][i].permute(1, 2, 0).clamp(0, 1),
        new_boxes[1][i],
        *(labels[i] for labels in predictions.values()),
    ]
    for ax, title, panel in zip(line, ("image", "ground truth", "no head", "ppm", "aspp"), panels):
        ax.imshow(panel, cmap="cividis", vmin=0, vmax=2)
        ax.set(title=title, xticks=[], yticks=[])
show(
    fig,
    alt="A box on a road and a box on water, each with its ground truth and three predictions. Without a head, the "
    "prediction in the middle of a box is a guess; with ppm and aspp it is mostly correct.",
)

# %% [markdown] name="toy_after"
# Without a head, the network distinguishes the ground from the box. At the rim of a box the waves or stripes are still
# inside its receptive field. In the middle of the box it has to guess. The networks with a context head make few errors
# there. With three seeds on a CPU we measured a mean IoU of 0.55, 0.62 and 0.58 without a head, 0.88, 0.88 and 0.86
# with pyramid pooling, and 0.91, 0.90 and 0.89 with ASPP.
#
# Does this show that ASPP is better than pyramid pooling? It does not, because ASPP has more weights here. The
# experiment shows what both heads provide and the network without a head lacks: context.

# %% [markdown] name="train_text"
# ## How fine must the map be?
#
# Now you train on synthetic streets. The same network is trained at output stride 32, 16 and 8, each time with the same
# number of weights and the same initial weights. Your `convert_os` computes the strides and dilations of the three
# versions. On a GPU the network has more channels, and it is also trained with each of the two heads at output stride
# 8.

# %% name="train" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.scenes import Scenes

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
scales = {"cpu": ((64, 96), 160, 1, 200, 8), "gpu": ((256, 384), 1000, 4, 2000, 16)}
size, length, wide, steps, batch = scales[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
data = [semantic_batch(list(tqdm(Scenes(draw_street, n, seed, size), "render"))) for n, seed in ((length, 0), (48, 1))]
val = list(zip(*(part.split(batch) for part in data[1])))
widths = [wide * width for width in (16, 16, 24, 24, 32, 32, 48, 48, 64, 64)]
plans = [(32, None), (16, None), (8, None)] + ([(8, "ppm"), (8, "aspp")] if SCALE == "gpu" else [])
nets, scores = {}, {}
for output_stride, head in plans:
    torch.manual_seed(0)
    name = f"output stride {output_stride}" + (f", {head}" if head else "")
    net = Net(widths, [2, 1] * 5, output_stride, len(CLASSES), head).to(device)
    nets[name] = fit(net, data[0], steps, batch, name, 3e-3)
    scores[name] = evaluate(net, val, len(CLASSES))
    print(f"{name}: mean IoU {scores[name]['mean_iou']:.3f} on 48 new streets, scale {SCALE}")

# %% [markdown] name="train_after"
# The network with the coarse map has as many weights as the others, and was trained for as many iterations. It misses
# small and thin objects: compare the classes in the table. The finer maps cost time. At output stride 8 the last layers
# compute 16 times as many pixels as at 32.
#
# With three seeds on a CPU we measured a mean IoU of 0.29, 0.27 and 0.28 at output stride 32, of 0.36, 0.37 and 0.37 at
# 16, and of 0.43, 0.42 and 0.43 at 8. These are small networks after 200 iterations. The [results
# page](../course/results.md) has longer runs.

# %% name="train_table" role="train"
print(f"{'IoU':<11}" + "".join(f"{name.removeprefix('output '):>16}" for name in scores))
for label, *values in zip(CLASSES, *(score["iou_per_class"] for score in scores.values())):
    print(f"{label:<11}" + "".join(f"{float(value):>16.2f}" for value in values))

# %% name="train_figure" role="train"
number = max(range(len(data[1][1])), key=lambda i: len(data[1][1][i].unique()))  # the street with the most classes
photo, ground_truth = data[1][0][number], data[1][1][number]
with torch.no_grad():
    predictions = {name: net.cpu()(photo[None])[0].argmax(0) for name, net in nets.items()}
fig = class_maps({"a new street": photo, "ground truth": ground_truth, **predictions}, columns=2, width=3.5)
show(
    fig,
    alt=f"A street, its ground truth, and the predictions of {len(predictions)} networks. The finer the map, the more "
    "accurate the outlines.",
)

# %% [markdown] name="failures_text"
# Which errors remain? For each class, the next cell prints what percentage of its pixels is correct, and the class that
# is most often predicted for the other pixels. The numbers are for all new streets and the network at output stride 8.
# Do you find boats that are predicted as cars, or buses that are predicted as buildings?

# %% name="failures" role="train"
counts = torch.as_tensor(scores["output stride 8"]["confusion"]).double()
for label, row in enumerate(counts):
    missed = row / row.sum()
    missed[label] = 0
    print(
        f"{CLASSES[label]:<11}{1 - missed.sum():>6.0%} correct, "
        f"{missed.max():>4.0%} predicted as {CLASSES[missed.argmax()]}"
    )

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the error: "Atrous convolution, also called transposed or fractionally strided convolution, ..."
#
# <details><summary>Answer</summary>
#
# Atrous convolution is dilated convolution: it has gaps between the taps of the kernel, and the map keeps its size.
# Transposed and fractionally strided convolution are two names of another operation: zeros are inserted between the
# pixels of the map, which becomes larger.
#
# </details>
#
# **2.** A map has 2,048 channels. How many channels does the result of PSPNet's pyramid pooling with grids 1, 2, 3 and
# 6 have?
#
# <details><summary>Answer</summary>
#
# 2,048 + 4 x 512 = 4,096: the map itself, and four levels, each with a quarter of its channels.
#
# </details>
#
# **3.** Find the error: "DeepLab works without downsampling."
#
# <details><summary>Answer</summary>
#
# An output stride of 8 or 16 remains. At output stride 1 the last maps would have 64 times as many pixels as at 8.
#
# </details>
#
# **4.** A network of output stride 32, whose last layer has stride 1, is converted to output stride 8. Which dilation
# does the last layer have, and which dilation does the layer have whose stride is the first of the two that are
# removed?
#
# <details><summary>Answer</summary>
#
# The last layer has dilation 4, because two strides of 2 are removed before it. The layer whose stride is removed first
# keeps dilation 1, because the map that it reads is as dense as before.
#
# </details>
#
# **5.** Find the error: "DeepLab v3 adds a decoder."
#
# <details><summary>Answer</summary>
#
# DeepLab v3 adds the image feature and batch normalisation to ASPP, and upsamples its logits bilinearly at the end. The
# decoder is new in v3+.
#
# </details>
#
# **6.** ASPP has a branch with rate 18. Why does it need the image feature as well?
#
# <details><summary>Answer</summary>
#
# On a map that is not much larger than the rate, most taps of the 3x3 kernel lie outside the map, where the values are
# zero. The branch then acts like a 1x1 convolution. The mean over the map provides context at any size of the map.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 8](../course/08-context/index.md) present all versions of DeepLab, and the CRF of the first
#   two.
# - Change one thing in the experiment with boxes: boxes of 12 pixels, or two more layers (add two entries to each of
#   the lists `[16, 24, 32]` and `[2, 2, 1]`). When is the network without a head good enough?
# - Add your `aspp` to the network at output stride 16 (one more entry in `plans`). Does it help on the streets after
#   200 iterations, and after 1,000?
#
# Before you hand in this notebook, save it, and run `segedu check labs/08_context.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
