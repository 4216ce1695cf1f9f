# %% [markdown] name="title"
# # Lab 8: Context
#
# A net that sees a small window takes a boat's cabin for a car. In this lab you build what PSPNet and DeepLab did about
# it: pyramid pooling, atrous convolution, a finer output stride, ASPP, and the decoder of DeepLab v3+.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises. Read [chapter 8](../course/08-context/index.md) first, or beside
# this lab.
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - say what a net confuses that sees a small window only, and find it in a table;
# - give every pixel a summary of the whole image, by pyramid pooling;
# - widen the view of a convolution without any new weight, and say what holes do;
# - turn stride into dilation in a network that is already trained;
# - build ASPP, and say what changed from DeepLab v1 to v3+.
#
# First be the net yourself. Four windows of 13 by 13 pixels: what is in the middle of each? Answer before you look at the
# next row.

# %% name="picture" role="show"
from segedu.datasets.street import CLASSES, draw_street
from segedu.viz import show
from segedu.teaching.widgets.context import class_maps, draw_keyholes

draw_keyholes()

# %% [markdown] name="ppm_idea"
# ## 1. Pyramid pooling (5 points)
#
# **Idea.** Tell every pixel what the whole picture is like, and its half, its third, its sixth. PSPNet lays grids of
# 1x1, 2x2, 3x3 and 6x6 cells over its last map and takes the **mean** of each cell. So few numbers need few channels: a 1x1
# convolution brings the $C$ channels to $C/4$, so that the four levels together are as many as the map itself.
#
# **Formula.** Cell $i$ of $n$ covers the rows
#
# $$ \left\lfloor \tfrac{iH}{n} \right\rfloor, \;\ldots,\; \left\lceil \tfrac{(i+1)H}{n} \right\rceil - 1 $$
#
# and columns likewise. Where $n$ does not divide $H$, neighbouring cells overlap. (`adaptive_avg_pool2d` has these cells.)
# Each level goes through three steps, in this order: **1x1 convolution, ReLU, bilinear enlargement** to the size of the map.
#
# **By hand.** Five pixels, 1 2 3 4 5, and 2 cells: pixels 0 to 2 and 2 to 4, with means 2 and 4. Enlarged to 5
# pixels with **aligned corners** (the first cell lies on the first pixel, the last on the last): 2, 2.5, 3, 3.5, 4.

# %% name="ppm_by_hand" role="show"
row = torch.tensor([[[1.0, 2, 3, 4, 5]]])
cells = torch.nn.functional.adaptive_avg_pool1d(row, 2)
large = torch.nn.functional.interpolate(cells, 5, mode="linear", align_corners=True)
print("means:", cells[0, 0].tolist(), " enlarged:", large[0, 0].tolist())


# %% name="ppm" role="solution"
def ppm(features, weights, bins):
    """Pyramid pooling of PSPNet, without its batch normalisation.

    features: float tensor (B, C, H, W)
    weights:  list of float tensors (c, C), one for each grid: the 1x1 convolution of its level, without bias
    bins:     list of as many whole numbers, such as [1, 2, 3, 6]: the grid of a level has n x n cells. n may be larger
              than H or W, and need not divide them: see the formula above.

    Each level: the mean of each cell, 1x1 convolution, ReLU, bilinear enlargement to H x W with align_corners=True.
    Returns (B, C + len(bins) * c, H, W): first the features as they came, then the levels in the order of `bins`.
    """
    ### BEGIN SOLUTION: pool, reduce, cut and enlarge each level; concatenate behind the features
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
# What does a pixel learn from each level? Here the features are the colours of a street, and the 1x1 convolutions pass
# them on. (A real net pools features of objects, not colours.)

# %% name="ppm_figure" role="show"
street = draw_street(3)
image = street["image"][None]
levels = use(ppm)(image, [torch.eye(3)] * 4, [1, 2, 3, 6])
fig, axes = plt.subplots(1, 5, figsize=(12, 1.9), layout="constrained")
for ax, name, level in zip(axes, ("the map", "1 x 1", "2 x 2", "3 x 3", "6 x 6"), torch.as_tensor(levels)[0].split(3)):
    ax.imshow(level.permute(1, 2, 0).clamp(0, 1))
    ax.set(title=name, xticks=[], yticks=[])
show(
    fig,
    alt="A street, and beside it its mean colour, and the mean colours of 2x2, 3x3 and 6x6 cells, blurred together.",
)

# %% [markdown] name="dilate_conv_idea"
# ## 2. Atrous convolution (3 points)
#
# **Idea.** Pooling sees far and forgets where. Spread the kernel instead: between its taps lie holes (French *à trous*,
# "with holes"). The same nine weights see a wider field, and the map keeps its size. **Atrous is dilated**; it is not
# transposed, which makes maps larger.
#
# **Formula.** With rate $r$ and a kernel of $K$ taps, $k$ counted from its middle:
#
# $$ y[i] = \sum_k w[k]\; x[i + r k] $$
#
# The kernel spans $r(K - 1) + 1$ pixels, and reaches $r (K-1)/2$ beyond each end of the map, where there are zeros.
#
# **By hand.** The row 1 2 3 4 5, the kernel (1, 0, -1), rate 2: $y[2] = 1 \cdot 1 + 0 \cdot 3 - 1 \cdot 5 = -4$, and at the
# left end $y[0] = 0 + 0 - 3 = -3$. With rate 1: $y[2] = 2 - 4 = -2$.


# %% name="dilate_conv" role="solution"
def dilate_conv(features, weight, rate):
    """Atrous convolution that keeps the size of the map.

    features: float tensor (B, C, H, W)
    weight:   float tensor (D, C, Kh, Kw); Kh and Kw are odd, and may differ
    rate:     r, at least 1: neighbouring taps lie r pixels apart, so that rate 1 is a plain convolution. The kernel may
              span more than the map.

    Stride 1, zeros outside the map, the kernel not flipped (as in torch), no bias. Returns (B, D, H, W).
    """
    ### BEGIN SOLUTION: a dilated convolution with the padding that keeps H and W
    padding = [rate * (taps // 2) for taps in weight.shape[2:]]
    return torch.nn.functional.conv2d(features, weight, padding=padding, dilation=rate)
    ### END SOLUTION


# %% name="check_dilate_conv" role="check"
check(dilate_conv)

# %% [markdown] name="dilate_conv_after"
# Three layers of your convolution, all weights 1, on one bright pixel. The same rate in every layer leaves a lattice: a
# pixel never hears of its direct neighbours. This is **gridding**. Rates that grow from 1 leave no hole.

# %% name="dilate_conv_figure" role="show"
spot, ones, atrous = torch.zeros(1, 1, 31, 31), torch.ones(1, 1, 3, 3), use(dilate_conv)
spot[..., 15, 15] = 1
fig, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for ax, rates in zip(axes, ([1, 1, 1], [2, 2, 2], [4, 4, 4], [1, 2, 4])):
    seen = spot
    for rate in rates:
        seen = torch.as_tensor(atrous(seen, ones, rate))
    ax.imshow(seen[0, 0], cmap="cividis")
    ax.set(title=f"rates {rates}\n{int((seen > 0).sum())} pixels", xticks=[], yticks=[])
show(fig, alt="One pixel after three layers: a small square, two lattices of 49 dots, and a square of 225 pixels.")

# %% [markdown] name="widget_text"
# ## Move the rate
#
# Try: which patterns of rates leave no hole? How large is the field of four layers whose rates double from 1? What does
# rate 3 see in two layers?

# %% name="widget" role="widget"
from segedu.teaching.widgets.dilation import explorer

explorer()

# %% [markdown] name="convert_os_idea"
# ## 3. Stride becomes dilation (3 points)
#
# **Idea.** A classification network halves its map five times: **output stride** 32, one pixel of its last map for 32 x 32
# of the image. Take the last strides away, and the map stays finer. But then a later kernel meets neighbours that lie too
# close together: its taps must move apart by as much as the map has become denser. The weights stay as they are, so a
# network trained for ImageNet can be used.
#
# **Rule.** Walk from the image to the end. Keep a stride as long as the product of the strides kept before it, times
# itself, is at most the output stride; after that, every stride becomes 1. Each stride that is taken away multiplies the
# dilation of all **later** layers by it. The layer itself still reads the old map, and keeps the dilation that it has. Its
# padding is multiplied by its own dilation, so that the kernel reaches as far beyond the border as it must. Poolings obey the
# same rule.
#
# **By hand.** Three layers of (kernel 3, stride 2, padding 1), to output stride 2:
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

    layers:        list of (kind, kernel_size, stride, padding), from the image to the end; kind is "conv" or "pool",
                   strides are 1 or 2. The list may be empty.
    output_stride: 1, 2, 4, 8, 16 or 32. If the product of all strides is not larger, no stride changes.

    Returns a list of (kind, kernel_size, stride, dilation, padding), one for each layer, by the rule above.
    """
    ### BEGIN SOLUTION: walk through the layers with the product of the strides and the dilation so far
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
# Is it the same network? Below are four strided layers with random weights, at output stride 16, and the same weights
# after your conversion to 4. Every fourth pixel of the dense map must be the pixel of the coarse one.

# %% name="convert_os_figure" role="show"
torch.manual_seed(0)
convert = use(convert_os)
kernels = [torch.randn(8, channels, 3, 3) / (3 * channels**0.5) for channels in (3, 8, 8, 8)]


def run(image, output_stride):
    """Four 3x3 layers of stride 2, converted."""
    features = image
    layers = convert([("conv", 3, 2, 1)] * 4, output_stride)
    for weight, (_, _, stride, dilation, padding) in zip(kernels, layers):
        features = torch.nn.functional.conv2d(features, weight, None, stride, padding, dilation).relu()
    return features


coarse, dense = run(image, 16), run(image, 4)
gap = float((dense[..., ::4, ::4] - coarse).abs().max())
fig, axes = plt.subplots(1, 3, figsize=(11, 2.5), layout="constrained")
for ax, title, panel in zip(axes, ("output stride 16", "output stride 4"), (coarse, dense)):
    ax.imshow(panel[0].mean(0), cmap="cividis")
    ax.set(title=f"{title}: {panel.shape[2]} x {panel.shape[3]}", xticks=[], yticks=[])
axes[2].imshow(dense[0, :, ::4, ::4].mean(0), cmap="cividis")
axes[2].set(title=f"every 4th pixel; difference {gap:.0e}", xticks=[], yticks=[])
show(fig, alt="A coarse map, the same at four times the resolution, and every fourth pixel of it, equal to the first.")

# %% [markdown] name="aspp_idea"
# ## 4. Atrous spatial pyramid pooling (5 points)
#
# **Idea.** Things are near or far, so no single rate fits them all. ASPP looks at the same map with several rates **side by
# side**, where the stack of exercise 2 had them one after the other. DeepLab v3 has five branches:
#
# 1. a 1x1 convolution;
# 2. three 3x3 convolutions with rates 6, 12 and 18;
# 3. the **image feature**: the mean of each channel over the whole map, a 1x1 convolution, and the result at every pixel.
#
# Each branch ends with a ReLU, and the five are concatenated. (A 1x1 convolution that mixes them follows; it is not
# part of the exercise.)
#
# **Why the image feature?** With a large rate most taps lie outside a small map, and the kernel shrinks to its middle tap.
#
# **Rates belong to an output stride.** The numbers 6, 12, 18 are meant for 16. At output stride $s$ use
# $r \cdot 16 / s$: on a map that is twice as dense, the same two places lie twice as many pixels apart.
#
# **By hand.** Rates 6, 12, 18 at output stride 8: 12, 24, 36. A 3x3 kernel of rate 12 spans 25 pixels; on a map of 12
# by 20 no tap above or below the middle row ever meets the map.


# %% name="aspp" role="solution"
def aspp(features, weights, rates, output_stride):
    """The five branches of DeepLab v3's ASPP, without batch normalisation and without the 1x1 convolution at the end.

    features:      float tensor (B, C, H, W)
    weights:       dict of float tensors, none with bias: "one" (c, C), the 1x1 branch; "atrous", a list of one
                   (c, C, 3, 3) for each rate; "image" (c, C), the 1x1 convolution of the image feature
    rates:         list of whole numbers, for an output stride of 16; any number of them
    output_stride: of the features, 8, 16 or 32; the rates to use are rates * 16 / output_stride, always whole numbers

    Returns (B, (2 + len(rates)) * c, H, W): 1x1, the atrous branches in the order of `rates`, image feature. Zeros
    outside the map, a ReLU at the end of each branch.
    """
    ### BEGIN SOLUTION: the branches, each with its ReLU, concatenated
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
# How many of the nine taps meet a map of 33 by 33 pixels? Your `dilate_conv` counts them: all weights 1, on a map of
# ones. When the rate is as large as the map, only the middle tap is left: a 3x3 convolution has become a 1x1.

# %% name="aspp_figure" role="show"
field, rates, atrous = torch.ones(1, 1, 33, 33), list(range(1, 37)), use(dilate_conv)
taps = [torch.as_tensor(atrous(field, torch.ones(1, 1, 3, 3), rate)) for rate in rates]
fig, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for count, marker in ((9, "o"), (6, "s"), (4, "^"), (2, "v"), (1, "x")):
    ax.plot(
        rates,
        [float((t == count).float().mean()) for t in taps],
        marker,
        label=f"{count} tap{'s' * (count > 1)}",
        markersize=4,
    )
ax.set(xlabel="rate", ylabel="share of the pixels", ylim=(-0.03, 1.03))
ax.legend(title="taps that meet the map", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
show(
    fig,
    alt="Share of pixels against rate: with 9 taps they fall to 0 by rate 17; with 1 they rise to all at 33.",
)

# %% [markdown] name="separable_idea"
# ## 5. Separable convolutions (2 points)
#
# **Idea.** DeepLab v3+ makes its 3x3 convolutions cheap by doing two things one after the other. First **depthwise**: each
# channel is convolved with a kernel of its own, and the channels do not meet. Then **pointwise**: a 1x1 convolution
# mixes them. The depthwise step may be atrous.
#
# **By hand.** A plain 3x3 convolution from 2 to 5 channels has $3 \cdot 3 \cdot 2 \cdot 5 = 90$ weights. Depthwise: 2 kernels
# of 9 weights, 18. Pointwise: each of 5 outputs reads 2 channels, 10. Together 28.
#
# Write the count as a formula. Neither step has a bias.


# %% name="separable" role="solution"
def separable(in_channels, out_channels, kernel_size, rate):
    """Number of weights of an atrous separable convolution: depthwise, then pointwise, both without bias.

    in_channels, out_channels: C and D, at least 1; the depthwise step keeps the C channels
    kernel_size:               K; the depthwise kernels have K x K taps
    rate:                      dilation of the depthwise step, at least 1

    Returns a whole number.
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
ax.set(xlabel="channels in and out", ylabel="times fewer weights", xscale="log", ylim=(0, 10))
ax.set_xticks(channels, [str(n) for n in channels])
ax.minorticks_off()
show(
    fig,
    alt=f"A 3x3 convolution has {ratio[0]:.1f} to {ratio[-1]:.1f} times fewer weights when separated; the limit is 9.",
)

# %% [markdown] name="v3plus_decode_idea"
# ## 6. The decoder of DeepLab v3+ (2 points)
#
# **Idea.** At output stride 16 outlines are soft: one pixel of the map stands for 16 x 16. Version 3+ fetches them from
# an early layer, as FCN and the U-Net did. There the map is fine (a quarter of the image), and its many channels are
# **reduced to a few** (48 in the paper) by a 1x1 convolution, so that they do not outweigh the deep ones.
#
# **Steps.** 1. Enlarge the deep map bilinearly, with `align_corners=False`, **to the size of the low-level map**. 2. Reduce
# the low-level map: 1x1 convolution, ReLU. 3. Concatenate, deep first. (Two 3x3 convolutions and the classes follow.)
#
# **By hand.** An image of 225 x 225: the low-level map has 57 pixels a side, the deep one 15. Four times 15 is 60,
# not 57. So the size is taken from the other map, never from a factor.


# %% name="v3plus_decode" role="solution"
def v3plus_decode(deep, low, weight):
    """The decoder of DeepLab v3+ up to the concatenation, without batch normalisation.

    deep:   float tensor (B, C, h, w), from the ASPP
    low:    float tensor (B, E, H, W), from an early layer, H >= h and W >= w; H and W are not always multiples of h and w
    weight: float tensor (R, E), the 1x1 convolution that reduces `low`, without bias

    Returns (B, C + R, H, W): first `deep`, enlarged bilinearly with align_corners=False, then `low`, reduced and cut
    by a ReLU.
    """
    ### BEGIN SOLUTION: enlarge, reduce, concatenate
    F = torch.nn.functional
    large = F.interpolate(deep, low.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([large, F.conv2d(low, weight[:, :, None, None]).relu()], dim=1)
    ### END SOLUTION


# %% name="check_v3plus_decode" role="check"
check(v3plus_decode)

# %% [markdown] name="v3plus_decode_after"
# What does each side bring? Below, the deep side is the truth of a street at output stride 16: it knows all classes, and no
# outline. The low-level side is the edges of the image: it knows outlines, and no class.

# %% name="v3plus_decode_figure" role="show"
one_hot = (street["semantic"][None, None] == torch.arange(10)[:, None, None]).float()
deep = torch.nn.functional.avg_pool2d(one_hot, 16)
grey = image.mean(1, keepdim=True)
low = torch.nn.functional.pad(grey, (1, 0, 1, 0), mode="replicate").diff(dim=2)[..., 1:].abs()
joined = torch.as_tensor(use(v3plus_decode)(deep, torch.nn.functional.max_pool2d(low, 4), torch.ones(1, 1)))
panels = {"image": image[0], "deep": deep[0].argmax(0), "deep, enlarged": joined[0, :10].argmax(0)}
fig = class_maps({**panels, "low level": (joined[0, 10:] / joined[0, 10].max()).expand(3, -1, -1)})
show(
    fig, alt="A street; its classes in blocks of 16 pixels; the same enlarged, with soft outlines; and a map of edges."
)

# %% [markdown] name="toy_text"
# ## Is it context? A world with one question
#
# A large box stands on water, with waves from left to right, or on a road, with stripes from top to bottom. On water it is
# a boat, on the road a car; the box itself says nothing. Three small nets, whose layers see 15 pixels, differ only in
# their head: none, your `ppm`, your `aspp`.

# %% name="toy_parts" role="train"
from segedu.losses.cross_entropy import cross_entropy
from segedu.training import evaluate, train_steps
from tqdm.auto import tqdm


def draw_boxes(length, seed, size=48):
    """Images (B, 3, size, size) and targets: 0 ground, 1 a box on a road, 2 a box on water."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.03, (length, 3, size, size))
    target = np.zeros((length, size, size), np.int64)
    for image, truth in zip(images, target):
        water = int(rng.integers(2))
        waves = 0.15 * np.sin(np.arange(size) * rng.uniform(0.8, 1.4) + rng.uniform(0, 6))
        image += rng.uniform(0.2, 0.8, (3, 1, 1)) + (waves[:, None] if water else waves)
        (h, w), (y, x) = rng.integers(22, 30, 2), rng.integers(3, 15, 2)
        image[:, y : y + h, x : x + w] = rng.uniform(0.1, 0.9, (3, 1, 1)) + rng.normal(0, 0.03, (3, h, w))
        truth[y : y + h, x : x + w] = 1 + water
    return torch.from_numpy(images).float(), torch.from_numpy(target)


def fit(net, data, steps, batch, name, rate=5e-3):
    """Train `net` on random batches of (images, target), half of them mirrored."""
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
    """A stack of 3x3 layers, its output stride at most the one asked for; a head, a classifier, an enlargement."""

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
        draws = [torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5 for shape in shapes[head]]
        self.weights = torch.nn.ParameterList(draws)
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
    torch.set_num_threads(1)  # so small a net gains nothing from more threads, which only wait for each other
boxes, new_boxes = draw_boxes(256, 0), draw_boxes(64, 1)
found, toy_scores = {}, {}
for head in (None, "ppm", "aspp"):
    torch.manual_seed(0)
    net = fit(Net([16, 24, 32], [2, 2, 1], 16, 3, head), boxes, 100, 16, f"head: {head}")
    with torch.no_grad():
        found[head] = net(new_boxes[0]).argmax(1)
    toy_scores[head] = evaluate(net, [new_boxes], 3)["mean_iou"]
    print(f"head {head}: mean IoU {toy_scores[head]:.3f} on 64 new images")

# %% name="toy_figure" role="train"
shown = [
    int((new_boxes[1] == 1).flatten(1).any(1).int().argmax()),
    int((new_boxes[1] == 2).flatten(1).any(1).int().argmax()),
]
fig, axes = plt.subplots(2, 5, figsize=(10, 4.2), layout="constrained")
for line, i in zip(axes, shown):
    panels = [new_boxes[0][i].permute(1, 2, 0).clamp(0, 1), new_boxes[1][i], *(labels[i] for labels in found.values())]
    for ax, title, panel in zip(line, ("image", "truth", "no head", "ppm", "aspp"), panels):
        ax.imshow(panel, cmap="cividis", vmin=0, vmax=2)
        ax.set(title=title, xticks=[], yticks=[])
show(
    fig, alt="A box on a road and one on water with truth and three predictions; without a head the middle is guessed."
)

# %% [markdown] name="toy_after"
# Without a head the net knows ground from box, and at the rim of a box it still sees waves or stripes. In the middle it
# guesses. With context it hardly errs. With three seeds we measured on a CPU a mean IoU of 0.55, 0.58 and 0.57 without a
# head, 0.88, 0.88 and 0.88 with pyramid pooling, and 0.91, 0.90 and 0.89 with ASPP.
#
# Is ASPP better, then? It has more weights here. What the world of boxes shows is what both have and the plain net has not.

# %% [markdown] name="train_text"
# ## How fine must the map be?
#
# Now the street. One net, with the same weights at the start and as many of them, at output stride 32, 16 and 8: your
# `convert_os` makes the three. At the GPU scale it is larger, and both heads come too.

# %% name="train" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.scenes import Scenes

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
scales = {"cpu": ((64, 96), 160, 1, 200, 8), "gpu": ((256, 384), 1000, 4, 2000, 16)}
size, length, wide, steps, batch = scales[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
draw = [semantic_batch(list(tqdm(Scenes(draw_street, n, seed, size), "draw"))) for n, seed in ((length, 0), (48, 1))]
val = list(zip(*(part.split(batch) for part in draw[1])))
widths = [wide * width for width in (16, 16, 24, 24, 32, 32, 48, 48, 64, 64)]
plans = [(32, None), (16, None), (8, None)] + ([(8, "ppm"), (8, "aspp")] if SCALE == "gpu" else [])
nets, scores = {}, {}
for output_stride, head in plans:
    torch.manual_seed(0)
    name = f"output stride {output_stride}" + (f", {head}" if head else "")
    net = Net(widths, [2, 1] * 5, output_stride, len(CLASSES), head).to(device)
    nets[name] = fit(net, draw[0], steps, batch, name, 3e-3)
    scores[name] = evaluate(net, val, len(CLASSES))
    print(f"{name}: mean IoU {scores[name]['mean_iou']:.3f} on 48 new streets, scale {SCALE}")

# %% [markdown] name="train_after"
# The coarse net has as many weights and as many steps. It loses what is small or thin: below, compare the classes. The
# finer maps cost time: the last layers compute 16 times as many pixels at output stride 8 as at 32.
#
# With three seeds we measured on a CPU a mean IoU of 0.29, 0.27 and 0.28 at output stride 32; 0.36, 0.37 and 0.37 at 16;
# 0.43, 0.42 and 0.43 at 8. These are small nets after 200 steps: the [results page](../course/results.md) has longer runs.

# %% name="train_table" role="train"
print(f"{'IoU':<22}" + "".join(f"{name:>11}" for name in CLASSES))
for name, score in scores.items():
    print(f"{name:<22}" + "".join(f"{float(value):>11.2f}" for value in score["iou_per_class"]))

# %% name="train_figure" role="train"
number = max(range(len(draw[1][1])), key=lambda i: len(draw[1][1][i].unique()))  # the street with most classes
photo, truth = draw[1][0][number], draw[1][1][number]
with torch.no_grad():
    answers = {name: net.cpu()(photo[None])[0].argmax(0) for name, net in nets.items()}
fig = class_maps({"a new street": photo, "truth": truth, **answers}, columns=5)
show(
    fig,
    alt=f"A street, its truth, and what nets of {len(answers)} kinds say: the finer the map, the finer the outlines.",
)

# %% [markdown] name="failures_text"
# Which failures are left? For each class the table names the class that its missed pixels went to most often, on all new
# streets, for the net at output stride 8. Do you find the boat that became a car, the bus that became a house?

# %% name="failures" role="train"
counts = torch.as_tensor(scores["output stride 8"]["confusion"]).double()
for label, row in enumerate(counts):
    missed = row / row.sum()
    missed[label] = 0
    print(
        f"{CLASSES[label]:<11}{1 - missed.sum():>6.0%} found, most missed pixels to {CLASSES[missed.argmax()]}: {missed.max():.0%}"
    )

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the slip: "Atrous convolution, also called transposed or fractionally strided convolution, ..."
#
# <details><summary>Answer</summary>
# Atrous is dilated: zeros between the taps of the kernel, the map keeps its size. Transposed is fractionally strided: zeros
# between the pixels of the map, which grows.
# </details>
#
# **2.** A map has 2,048 channels. How many come out of PSPNet's pyramid pooling with grids 1, 2, 3 and 6?
#
# <details><summary>Answer</summary>
# 2,048 + 4 x 512 = 4,096: the map itself, and four levels of a quarter of its channels each.
# </details>
#
# **3.** Find the slip: "DeepLab works without downsampling."
#
# <details><summary>Answer</summary>
# An output stride of 8 or 16 remains. At output stride 1 the last maps would have 64 times as many pixels as at 8.
# </details>
#
# **4.** A network of output stride 32 is converted to 8. Which dilation has the last layer, and which has the layer that lost
# the first of the two strides?
#
# <details><summary>Answer</summary>
# 4, since two strides of 2 are gone. The layer that lost the first one keeps 1: it reads a map that is as dense as before.
# </details>
#
# **5.** Find the slip: "DeepLab v3 adds a decoder."
#
# <details><summary>Answer</summary>
# v3 has ASPP with image pooling and batch normalisation, and enlarges its logits at the end. The decoder came with v3+.
# </details>
#
# **6.** Why does ASPP need the image feature, when it has a rate of 18 already?
#
# <details><summary>Answer</summary>
# On a map that is not much larger than the rate most taps of the 3x3 kernel lie in the zeros outside, and what is left is
# a 1x1 convolution. The mean of the map is context at any size.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 8](../course/08-context/index.md): all versions of DeepLab, and what the CRF of the first two does.
# - Change one thing in the toy world: boxes of 12 pixels, or `widths` with two more layers. When does the plain head suffice?
# - Give the net at output stride 16 your `aspp` (a row of `plans`). Does it help on the street after 200 steps? After 1,000?
