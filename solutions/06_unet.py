# %% [markdown] name="title"
# # Lab 6: U-Net
#
# In this lab you build the U-Net (Ronneberger et al., 2015), from its smallest block to the whole network. You compute
# which image sizes it accepts, train it with and without its skips, give large weights to the pixels between cells, and
# predict an image that is larger than the input of the network. Below, "the paper" is the paper by Ronneberger et al.
#
# **Time:** about 80 minutes. **Points:** 20, in six exercises.
#
# **Prerequisites:** the pages of [chapter 6](../course/06-unet/index.md), and labs 3 (convolutions) and 5 (loss and
# training). The mathematics is integer arithmetic and the exponential function.
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
# - build a U-Net and say what each arrow of its figure does;
# - compute the size of its output, and say which image sizes it does not accept;
# - train it, and show what it loses without its skips;
# - give large weights to the pixels between touching cells;
# - predict an image of any size in tiles, and say when the tiles join without seams.
#
# The U-Net was designed for images like those in the next figure: the cells touch, and only a few images are labelled.

# %% name="picture" role="show"
from segedu.datasets.cells import draw_cells
from segedu.viz import gallery, show

cells = [draw_cells(seed, size=(96, 96)) for seed in (1, 2)]
pictures = [sample["image"] for sample in cells for _ in range(2)]
labels = [label for sample in cells for label in (None, sample["label_map"])]
titles = ["image", "one label per cell", "image", "one label per cell"]
show(
    gallery(pictures, labels, titles=titles, numbers=True),
    alt="Two noisy synthetic microscope images of bright touching cells. Beside each is its ground truth, in which "
    "every cell has its own colour and number.",
)

# %% [markdown] name="idea"
# ## The idea
#
# A network with poolings has a large receptive field, but it loses the exact positions of what it sees. The U-Net first
# reduces the resolution with poolings (the contracting path), and then restores it (the expanding path). At every
# resolution, the expanding path receives a copy of the features that the contracting path computed at that resolution.
# This copy is called a **skip** or skip connection. The contracting path recognises *what* is in the image. The skips
# preserve *where* its outlines are.
#
# In the next figure each box stands for two convolutions. The number inside the box is the number of channels. The
# numbers below the box are the numbers of pixels per side, before and after the two convolutions.

# %% name="the_u" role="show"
from segedu.teaching.widgets.unet import draw_unet

draw_unet(depth=4, base_channels=64, padding=0, size=572)

# %% [markdown] name="double_conv_text"
# ## 1. The block (2 points)
#
# **Idea.** Every box of the figure is the same block: a 3x3 convolution, a ReLU, another 3x3 convolution and another
# ReLU. The convolutions of the paper are **unpadded**: they compute an output only where the window lies entirely
# inside the image. So each convolution removes one pixel on every side.
#
# **Formula.** A block therefore reduces the height by 4, and the width by 4 as well:
#
# $$ H \;\to\; H - 2 \;\to\; H - 4 $$
#
# **Worked example.** A 5x5 image becomes 3x3, and then 1x1. The next cell shows these sizes.
#
# The first convolution changes the number of channels, and the second one keeps it. The block has no batch
# normalisation, because the U-Net of the paper has none.

# %% name="sizes_by_hand" role="show"
image = torch.zeros(1, 1, 5, 5)
layer = torch.nn.Conv2d(1, 1, kernel_size=3)
print(tuple(image.shape), "->", tuple(layer(image).shape), "->", tuple(layer(layer(image)).shape))


# %% name="double_conv" role="solution"
def double_conv(in_channels: int, out_channels: int) -> torch.nn.Module:
    """Build the block: 3x3 convolution, ReLU, 3x3 convolution, ReLU; unpadded, with bias, without normalisation.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels after the first convolution, and also after the second.

    Returns:
        A module that maps (B, in_channels, H, W) to (B, out_channels, H - 4, W - 4).
    """
    ### BEGIN SOLUTION: return a torch.nn.Module of two unpadded 3x3 convolutions, each with its ReLU
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, out_channels, kernel_size=3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(out_channels, out_channels, kernel_size=3),
        torch.nn.ReLU(),
    )
    ### END SOLUTION


# %% name="check_double_conv" role="check"
check(double_conv)

# %% [markdown] name="double_conv_after"
# How large is the receptive field of such a block? Each output value depends on a 5x5 window of the image. To see this,
# the next cell sums the channels of one output position and computes the gradient of this sum with respect to the
# image. The figure shows the absolute value of the gradient, for a block with random weights. Notice that it is zero
# outside a window of 5x5 pixels.

# %% name="double_conv_figure" role="show"
torch.manual_seed(0)
block = use(double_conv)(1, 8)
image = torch.rand(1, 1, 13, 13, requires_grad=True)
block(image)[0, :, 4, 4].sum().backward()
fig, axis = plt.subplots(figsize=(3.2, 3))
axis.imshow(image.grad[0, 0].abs(), cmap="cividis")
axis.set(title="gradient of one output position", xticks=[], yticks=[])
show(
    fig,
    alt="A grid of 13 by 13 pixels. The gradient is zero except in a window of 5 by 5 pixels in the middle, on which "
    "the output depends.",
)

# %% [markdown] name="crop_concat_text"
# ## 2. The skip (3 points)
#
# **Idea.** Because of the unpadded convolutions, the maps of the expanding path are smaller than those of the
# contracting path. At the top level of the figure, the skip has 568 pixels per side, and the upsampled features have
# 392 pixels per side. The skip is therefore cropped to its **centre**, because the convolutions removed equally many
# pixels on all four sides.
#
# **Formula.** The crop begins at
#
# $$ \text{top} = \left\lfloor \frac{H - h}{2} \right\rfloor, \qquad
#    \text{left} = \left\lfloor \frac{W - w}{2} \right\rfloor $$
#
# So if the number of rows to remove is odd, one more row is removed at the bottom than at the top.
#
# **Worked example.** A skip of 8 rows is cropped to 5 rows. The crop begins at row $\lfloor 3/2 \rfloor = 1$, so rows 1
# to 5 (counted from 0) remain. One row is removed at the top and two at the bottom.
#
# After the crop, the skip and the upsampled features are **concatenated along the channels**, skip first. They are not
# added: the next convolution learns how to combine them. The figure after the check shows this example in two
# dimensions: a skip of 8x8 values, its crop, and a map of 5x5 upsampled features.


# %% name="crop_concat" role="solution"
def crop_concat(skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Crop the centre of `skip` to the size of `up`, and concatenate both along the channels, skip first.

    Args:
        skip: (B, C, H, W).
        up: (B, D, h, w), the upsampled features, with h <= H and w <= W. H - h and W - w may be odd, 0, and
            different from each other.

    Returns:
        (B, C + D, h, w): first the C channels of the crop, which begins at row (H - h) // 2 and column
        (W - w) // 2 of the skip, then the D channels of `up`. Do not change the arguments in place.
    """
    ### BEGIN SOLUTION: crop the centre of the skip and concatenate
    h, w = up.shape[-2:]
    top, left = (skip.shape[-2] - h) // 2, (skip.shape[-1] - w) // 2
    return torch.cat([skip[:, :, top : top + h, left : left + w], up], dim=1)
    ### END SOLUTION


# %% name="check_crop_concat" role="check"
check(crop_concat)

# %% name="crop_concat_figure" role="show"
rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
skip, up = (8 * rows + columns)[None, None], torch.full((1, 1, 5, 5), 63.0)
joined = use(crop_concat)(skip, up)
fig, axes = plt.subplots(1, 3, figsize=(7.5, 2.6))
panels = [("skip, 8 x 8", skip[0, 0]), ("channel 0: its crop", joined[0, 0]), ("channel 1: up", joined[0, 1])]
for axis, (title, panel) in zip(axes, panels):
    axis.imshow(panel, cmap="cividis", vmin=0, vmax=63)
    axis.set(title=title, xticks=range(len(panel)), yticks=range(len(panel)))
show(
    fig,
    alt="A skip of 8 by 8 values that increase row by row; its crop of 5 by 5 values, which begins at row 1 and "
    "column 1; and a constant map, the upsampled features.",
)

# %% [markdown] name="unet_out_size_text"
# ## 3. Which image sizes are legal? (3 points)
#
# **Idea.** Follow one side of an image through the whole network. A block removes 4 pixels, a pooling halves the size,
# and an up-convolution doubles it. The image of the paper has 572 pixels per side. Its size changes on the contracting
# path as follows:
#
# $$ 572 \to 568 \to 284 \to 280 \to 140 \to 136 \to 68 \to 64 \to 32 \to 28 $$
#
# On the expanding path it changes as follows:
#
# $$ 28 \to 56 \to 52 \to 104 \to 100 \to 200 \to 196 \to 392 \to 388 $$
#
# **Rule.** An image size is **illegal** if a pooling receives a map of odd size. The pooling would then ignore a row,
# and the upsampled features would no longer be aligned with the skips. A size is also illegal if no pixels are left:
# every size along the way, including that of the output, has to be at least 1.
#
# **Worked example.** At depth 1, $20 \to 16 \to 8 \to 4 \to 8 \to 4$ is legal. The size 21 is illegal, because
# $21 \to 17$ and 17 is odd. The size 16 is illegal, because $16 \to 12 \to 6 \to 2 \to 4 \to 0$ leaves no pixels. The
# figure after the check shows all legal sizes up to 300. Notice that a deeper network has fewer legal sizes, and that
# its output is smaller.


# %% name="unet_out_size" role="solution"
def unet_out_size(size: int, depth: int = 4) -> int:
    """Compute the height of the output of the unpadded U-Net for an image of height `size`.

    Args:
        size: height (or width) of the image, at least 1.
        depth: number of poolings, at least 1. The contracting path has `depth` blocks, there is one block at the
            bottom, and the expanding path has `depth` blocks.

    Returns:
        Height (or width) of the output, an int.

    Raises:
        ValueError: if a pooling receives a map of odd size, or if a size is less than 1.
    """
    ### BEGIN SOLUTION: follow the size down and up again; raise a ValueError if it is illegal
    for _ in range(depth):
        size -= 4
        if size % 2:
            raise ValueError("a pooling receives a map of odd size")
        size //= 2
    size -= 4
    for _ in range(depth):
        size = 2 * size - 4
    if size < 1:
        raise ValueError("no pixels are left")
    return size
    ### END SOLUTION


# %% name="check_unet_out_size" role="check"
check(unet_out_size)


# %% name="unet_out_size_figure" role="show"
def sizes(depth):
    """All legal image sizes up to 300, with their output sizes."""
    for size in range(1, 301):
        try:
            yield size, use_size(size, depth)
        except ValueError:
            pass


use_size = use(unet_out_size)
fig, axis = plt.subplots(figsize=(6, 3.2))
for depth, marker in ((1, "."), (2, "x"), (3, "+"), (4, "o")):
    axis.plot(*zip(*sizes(depth)), marker, label=f"depth {depth}", markersize=5)
axis.set(xlabel="legal image size", ylabel="output size")
axis.legend()
show(
    fig,
    alt="Output size against legal image size, one series of markers per depth from 1 to 4. For deeper networks there "
    "are fewer legal sizes, and the outputs are smaller.",
)

# %% [markdown] name="build_unet_text"
# ## 4. The whole network (5 points)
#
# Most implementations today pad the convolutions. The logits are then as large as the image, and no skip has to be
# cropped. Build this padded U-Net. It has, in order of execution:
#
# 1. a block (3x3 convolution, ReLU, 3x3 convolution, ReLU, **padding 1**) from `in_channels` to `base_channels`;
# 2. for each of the `depth` levels of the contracting path: a 2x2 max pooling, and then a block that doubles the number
#    of channels;
# 3. for each level of the expanding path: a **2x2 up-convolution with stride 2 that halves the number of channels**
#    (`torch.nn.ConvTranspose2d`), the concatenation with the skip, **skip first**, and a block that reduces the
#    concatenated channels to the number of channels of this level;
# 4. a 1x1 convolution from `base_channels` to `num_classes`. Neither a ReLU nor a softmax follows, because the network
#    returns logits.
#
# The skip of a level is the output of its block, before the pooling. All layers have a bias.
#
# **Worked example.** In `build_unet(3, 4, 8, 2)` the image has 3 channels, and the blocks of the contracting path
# output 8, 16 and 32. The first concatenation has 16 + 16 channels, and its block outputs 16. The second has 8 + 8, and
# its block outputs 8. The logits have 4 channels.
#
# The check copies its own weights into your layers, in the order in which the layers are executed. The names of your
# layers and the order in which you create them do not matter. Write the block again inside this function, and do not
# call the functions of your other exercises.


# %% name="build_unet" role="solution"
def build_unet(in_channels: int, num_classes: int, base_channels: int, depth: int) -> torch.nn.Module:
    """Build the padded U-Net that is described above.

    Args:
        in_channels: number of channels of the image.
        num_classes: number of channels of the logits.
        base_channels: number of channels at the full resolution; it doubles after every pooling.
        depth: number of poolings, at least 1.

    Returns:
        A module that maps images (B, in_channels, H, W) to logits (B, num_classes, H, W). H and W are divisible by
        2**depth.
    """

    ### BEGIN SOLUTION: define a subclass of torch.nn.Module in this function, and return an instance of it
    def block(before, after):
        first = torch.nn.Conv2d(before, after, 3, padding=1)
        second = torch.nn.Conv2d(after, after, 3, padding=1)
        return torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU())

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            widths = [base_channels * 2**level for level in range(depth + 1)]
            pairs = zip([in_channels, *widths[:-1]], widths)
            self.down = torch.nn.ModuleList(block(before, after) for before, after in pairs)
            widths = widths[-2::-1]
            self.up = torch.nn.ModuleList(torch.nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths)
            self.merge = torch.nn.ModuleList(block(2 * w, w) for w in widths)
            self.head = torch.nn.Conv2d(base_channels, num_classes, 1)

        def forward(self, images):
            features, skips = self.down[0](images), []
            for double in self.down[1:]:
                skips.append(features)
                features = double(torch.nn.functional.max_pool2d(features, 2))
            for up, merge in zip(self.up, self.merge):
                features = merge(torch.cat([skips.pop(), up(features)], dim=1))
            return self.head(features)

    return Net()
    ### END SOLUTION


# %% name="check_build_unet" role="check"
check(build_unet)

# %% [markdown] name="build_unet_after"
# How large is the receptive field of one logit? The next figure shows the gradient of the logits of the pixel in the
# middle with respect to the image, for your network at depth 1, 2 and 3. The title of each panel gives the number
# of rows on which these logits depend. The scale is logarithmic: the influence of distant pixels is small, but not
# zero.

# %% name="build_unet_figure" role="show"
torch.manual_seed(0)
image = torch.rand(1, 1, 128, 128)
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3))
for axis, depth in zip(axes, (1, 2, 3)):
    net, x = use(build_unet)(1, 2, 8, depth), image.clone().requires_grad_()
    net(x)[0, :, 64, 64].sum().backward()
    seen = int((x.grad != 0).any(dim=3).sum())
    axis.imshow(torch.log10(x.grad[0, 0].abs() + 1e-12), cmap="cividis", vmin=-9, vmax=-1)
    axis.set(title=f"depth {depth}: {seen} rows", xticks=[], yticks=[])
show(
    fig,
    alt="Three maps of the gradient, for depth 1, 2 and 3. The window on which the middle logits depend grows with the "
    "depth of the network.",
)

# %% [markdown] name="weight_map_text"
# ## 5. The weight map (4 points)
#
# **Idea.** Two neighbouring cells are separated by a line of background that is one or two pixels wide. These pixels
# are so few that the mean loss hardly increases if the network misses them. The paper therefore makes errors on these
# pixels expensive: the loss of each pixel is multiplied by a weight, which is large in narrow gaps.
#
# **Formula.** The weight of a pixel is
#
# $$ w = w_c + w_0 \exp\left( - \frac{(d_1 + d_2)^2}{2 \sigma^2} \right) $$
#
# where $d_1$ is the distance from the pixel to the nearest cell, and $d_2$ the distance to the second nearest cell. A
# distance to a cell is the distance between the centre of the pixel and the centre of the nearest pixel of this cell.
# Both distances are small only in a gap between two cells. The class weight $w_c$ compensates for one class being rarer
# than the other.
#
# In this lab the second term is added on the **background only**, and it is omitted if there are fewer than two cells.
#
# **Worked example.** Let the gap be one pixel wide, with $w_0 = 10$ and $\sigma = 5$. Then $d_1 = d_2 = 1$, so the
# second term is $10\, e^{-4/50} = 9.23$. Halfway between two cells that are 20 pixels apart, $d_1 = d_2 = 10$, so the
# second term is only $10\, e^{-400/50} = 0.003$.
#
# The function `scipy.ndimage.distance_transform_edt(mask)` returns, for each pixel of the mask, the distance between
# the centre of this pixel and the centre of the nearest pixel outside the mask.


# %% name="weight_map" role="solution"
def weight_map(label_map: np.ndarray, class_weights: tuple[float, float], w0: float, sigma: float) -> np.ndarray:
    """Compute the weight of each pixel in the loss.

    Args:
        label_map: (H, W) integers. 0 is the background, and every other label is one cell. The labels are not
            necessarily 1, 2, 3, ...; cells may touch; there may be only one cell, or none.
        class_weights: two values of w_c, the first for background pixels and the second for pixels of cells.
        w0: the factor of the second term.
        sigma: the range of the second term, in pixels.

    Returns:
        (H, W) floats: w_c, plus the second term on background pixels if there are at least two cells.
    """
    ### BEGIN SOLUTION: compute the distances to all cells, take the two smallest, and apply the formula
    from scipy.ndimage import distance_transform_edt

    weights = np.where(label_map == 0, class_weights[0], class_weights[1])
    numbers = np.unique(label_map[label_map > 0])
    if len(numbers) < 2:
        return weights
    distances = np.sort([distance_transform_edt(label_map != number) for number in numbers], axis=0)
    border = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights + np.where(label_map == 0, border, 0.0)
    ### END SOLUTION


# %% name="check_weight_map" role="check"
check(weight_map)

# %% name="weight_map_figure" role="show"
label_map = np.zeros((40, 64), dtype=np.int32)
rows, columns = np.mgrid[:40, :64]
for number, (row, column, radius) in enumerate([(20, 13, 10), (20, 35, 10), (19, 54, 7)], start=1):
    label_map[np.hypot(rows - row, columns - column) < radius] = number
weights = use(weight_map)(label_map, (0.7, 1.8), 10.0, 5.0)
fig, axes = plt.subplots(1, 2, figsize=(8.4, 2.7), layout="constrained")
axes[0].imshow(label_map, cmap="cividis")
axes[0].set(title="label map of three cells", xticks=[], yticks=[])
picture = axes[1].imshow(weights, cmap="cividis")
axes[1].set(title="weights", xticks=[], yticks=[])
fig.colorbar(picture, ax=axes[1])
show(
    fig,
    alt="A label map with three discs, and their weight map. The weights are largest in the narrow gaps between the "
    "discs, up to 8. They are 1.8 in the discs, and 0.7 in most of the background.",
)

# %% [markdown] name="tile_predict_text"
# ## 6. Tiles (3 points)
#
# **Idea.** A microscope image may have 10,000 pixels per side, which is too large for the memory of a GPU. The image is
# therefore predicted in **tiles**. The input tiles overlap, and the output tiles lie side by side. If the network is
# unpadded, every logit depends only on pixels of the (mirrored) image, and not on zeros that padding adds at the border
# of a tile.
#
# **Rules.**
#
# - An input tile of $t$ pixels gives an output tile of $s = t - 2m$ pixels. The model removes $m$ pixels on each side.
#   The number $m$ is called the **margin**.
# - Output tile $i$ begins at row $i \cdot s$ of the image. The corresponding input tile begins at row
#   $i \cdot s - m$. The same holds for columns.
# - Outside the image, the input tile is filled by **mirroring**. Row $-1$ is row 1, and row $-2$ is row 2. The border
#   row itself is not repeated (`mode="reflect"` in `np.pad` and in `torch.nn.functional.pad`).
# - The last tile may extend beyond the image. The part of its output that lies outside the image is discarded.
#
# **Worked example.** For an image of 17 rows, $t = 10$ and $m = 2$, the output tiles have $s = 6$ rows. Three output
# tiles begin at rows 0, 6 and 12, and 1 row of the last one is discarded.
#
# **When do the tiles agree with a prediction of the whole image?** For an unpadded network without pooling, they always
# agree. With poolings, the stride between the tiles, here $s$, has to be a multiple of the product of the pooling
# strides, which is $2^D$ for a U-Net of depth $D$. The reason is that a pooling forms its windows from the corner of
# its tile. If $s$ is not such a multiple, some tiles form other windows than the whole image does, so their logits
# differ, and seams can appear between the tiles. The output tile of the paper has 388 pixels, which is not a multiple
# of 16. [Page 6.2](../course/06-unet/sizes.md) shows the effect for a U-Net, and uses a smaller stride to avoid it.


# %% name="tile_predict" role="solution"
def tile_predict(model, image: torch.Tensor, tile_size: int, margin: int) -> torch.Tensor:
    """Predict a whole image, tile by tile, with a model that accepts tiles of one size only.

    Args:
        model: maps a tensor (1, C, t, t), with t = tile_size, to a tensor (1, K, s, s), with s = t - 2 * margin. It
            accepts no other height and width. You may pass a batch of several tiles, (B, C, t, t).
        image: (C, H, W), with H and W at least tile_size.
        tile_size: t, the height and width of an input tile.
        margin: m, the number of pixels that the model removes on each side.

    Returns:
        (K, H, W): for each pixel, the output of the model for this pixel, computed from a tile of the mirrored
        image. K is not an argument: read it from the output of the model. Do not change the image in place.
    """
    ### BEGIN SOLUTION: mirror the image, crop the tiles, and put the outputs side by side
    _, height, width = image.shape
    valid = tile_size - 2 * margin
    down, right = -height % valid, -width % valid
    sides = (margin, margin + right, margin, margin + down)
    mirrored = torch.nn.functional.pad(image[None], sides, mode="reflect")
    strips = []
    for top in range(0, height, valid):
        strip = mirrored[:, :, top : top + tile_size]
        outputs = [model(strip[..., left : left + tile_size]) for left in range(0, width, valid)]
        strips.append(torch.cat(outputs, dim=3))
    return torch.cat(strips, dim=2)[0, :, :height, :width]
    ### END SOLUTION


# %% name="check_tile_predict" role="check"
check(tile_predict)

# %% [markdown] name="tile_predict_after"
# Do tiles and whole image agree? The next cell compares tiles with a prediction of the whole mirrored image, for two
# networks: your block of exercise 1, which has no pooling, and the same block followed by a 4x4 max pooling with stride
# 4 and nearest-neighbour upsampling. Both networks remove 2 pixels on each side, so tiles of 24 pixels have a stride of
# 20, which is a multiple of 4. For the last map, the output of the pooled network is also cropped by one pixel on each
# side. The margin is then 3 and the stride 18, which is not a multiple of 4. Notice that only this last map shows
# differences larger than rounding errors.

# %% name="tile_predict_figure" role="show"
torch.manual_seed(0)
block, image = use(double_conv)(1, 8), draw_cells(3, size=(52, 68))["image"][:1]
pooled = torch.nn.Sequential(block, torch.nn.MaxPool2d(4), torch.nn.Upsample(scale_factor=4))
mirrored = torch.nn.functional.pad(image[None], (2, 2, 2, 2), mode="reflect")
runs = {  # title: the model of a tile, the margin that it removes, the same model for the whole image
    "no pooling, stride 20": (block, 2, block),
    "pooling by 4, stride 20": (pooled, 2, pooled),
    "pooling by 4, stride 18": (lambda tile: pooled(tile)[..., 1:-1, 1:-1], 3, pooled),
}
differences = {}
with torch.no_grad():
    for title, (model, margin, whole_model) in runs.items():
        tiles = use(tile_predict)(model, image, tile_size=24, margin=margin)
        differences[title] = (tiles - whole_model(mirrored)[0]).abs().amax(0)
largest = {title: f"{float(gap.max()):.0e}" for title, gap in differences.items()}
fig, axes = plt.subplots(2, 2, figsize=(7, 6), layout="constrained")
axes = axes.ravel()
axes[0].imshow(image[0], cmap="cividis")
axes[0].set(title="image", xticks=[], yticks=[])
for axis, (title, gap) in zip(axes[1:], differences.items()):
    axis.imshow(gap, cmap="cividis", vmin=0, vmax=max(1e-3, *(float(gap.max()) for gap in differences.values())))
    axis.set(title=f"{title}\nat most {largest[title]}", xticks=[], yticks=[])
    print(f"{title}: tiles and whole image differ by at most {largest[title]}")
show(
    fig,
    alt="An image of cells, and three maps of the difference between tiles and whole image, for each pixel. Largest "
    f"difference: {'; '.join(f'{title}: {value}' for title, value in largest.items())}.",
)

# %% [markdown] name="widget_text"
# ## Explore depth, width and padding
#
# The depth, the number of base channels ("channels at the top") and the padding determine the shapes, the number of
# parameters and the memory. The sentence below the figure states both totals, and the bars show the share of each
# level. By which factor does the number of parameters grow if you double the number of base channels? By which factor
# does the memory grow? Set the depth to 5 and the image size to 100, without padding: which legal size does the
# explorer draw instead, and why must the image be so large?

# %% name="widget" role="widget"
from segedu.teaching.widgets.unet import explorer

explorer()

# %% [markdown] name="train_text"
# ## Train it, with skips and without
#
# Now you train your network to classify each pixel as cell or background. A second network is trained for comparison.
# The second network differs in one respect only: its skips are replaced by zeros. It has equally many weights, and is
# trained for the same number of iterations.
#
# The images are standardised: they have a mean of about 0 and a standard deviation of about 1. The weights are
# initialised as in the paper: they are drawn from a Gaussian distribution with standard deviation $\sqrt{2/N}$, where
# $N$ is the number of input values on which one output value of the layer depends. Without this initialisation, a
# network that has no normalisation layers learns slowly or not at all.
#
# On a CPU the images are synthetic. On a GPU they are microscope images with nuclei of cells, of the 2018 Data Science
# Bowl ([BBBC038](https://bbbc.broadinstitute.org/BBBC038), CC0), in grey and with bright nuclei. The cell downloads
# them once (83 MB), and prints licence and citation. If the folder that `SEGEDU_DATA` names contains `nuclei_grouped`,
# it is used instead. Without an internet connection, the images are synthetic, and larger than on a CPU.

# %% name="train_parts" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.cells import Cells
from segedu.datasets.real_folder import real_folder
from segedu.recipes.real_samples import nuclei
from tqdm.auto import tqdm


def get_data(length, seed, size):
    """Images (B, 1, H, W) with mean about 0 and standard deviation about 1, and targets (B, H, W)."""
    if folder:
        samples = nuclei(folder, seed == 1, (size, size), length)
    else:
        samples = tqdm(Cells(length, seed, (size, size)), desc="render", unit="image")
    images, target = semantic_batch(list(samples))
    return standardise(images[:, :1]), target


def standardise(images):
    """Apply the same shift and scale to all images, whose mean is about 0.3 and standard deviation about 0.2."""
    return (images - 0.3) / 0.2


def paper_weights(net):
    """Set Gaussian weights with standard deviation sqrt(2 / N), and biases of 0."""
    for layer in net.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            taps = 1 if isinstance(layer, torch.nn.ConvTranspose2d) else layer.kernel_size[0] ** 2
            torch.nn.init.normal_(layer.weight, std=(2 / (layer.in_channels * taps)) ** 0.5)
            torch.nn.init.zeros_(layer.bias)
    return net


# %% name="train" role="train"
from segedu.teaching.exercises.lab06_unet import without_skips
from segedu.losses.cross_entropy import cross_entropy
from segedu.training import evaluate, train_steps

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
folder = real_folder("nuclei_grouped") if SCALE == "gpu" else None
scales = {"cpu": (64, 256, 8, 3, 120, 16), "gpu": (512, 96, 32, 4, 600, 8)}
size, length, base, depth, steps, batch = scales[SCALE] if not folder else (256, 400, 32, 4, 1200, 8)
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # such a small network does not become faster with more threads
images, target = get_data(length, 0, size)
val = list(zip(*(part.split(batch) for part in get_data(length // 4, 1, size))))
nets, scores = {}, {}
for name, build in (("with skips", use(build_unet)), ("without skips", without_skips)):
    torch.manual_seed(0)
    net = paper_weights(build(1, 2, base, depth)).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)
    picks = torch.randint(len(images), (steps, batch), generator=torch.Generator().manual_seed(0))
    loader = ((images[pick], target[pick]) for pick in picks)
    bar = tqdm(train_steps(net, loader, cross_entropy, optimizer, scheduler=schedule), name, steps)
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")
    scores[name] = evaluate(net, val, 2)["mean_iou"]
    nets[name] = net.eval().cpu()
    print(f"{name}: mean IoU {scores[name]:.3f} on {sum(len(part) for part, _ in val)} new images, scale {SCALE}")

# %% [markdown] name="train_after"
# What do the skips contribute? Compare the outlines in the figures below. Both networks find most of the cells, but
# only the network with skips follows most of their outlines accurately. The first row of the table is a baseline from
# chapter 2: smooth the image, and then apply Otsu's threshold.
#
# A single run proves little. With three seeds on synthetic images we measured a mean IoU of 0.86 to 0.89 with skips, of
# 0.76 to 0.82 without skips, and of 0.74 for Otsu's threshold. On real images we have
# run the cell only on a CPU, for a few iterations.

# %% name="train_table" role="train"
from segedu.metrics.semantic import mean_iou
from skimage.filters import gaussian, threshold_otsu

val_images, val_target = (torch.cat(part) for part in zip(*val))
smooth = [gaussian(image[0].numpy(), sigma=1) for image in val_images]
otsu = torch.stack([torch.from_numpy(image > threshold_otsu(image)).long() for image in smooth])
print(f"{'Gaussian, then Otsu':<20} mean IoU {mean_iou(otsu, val_target, 2):.3f}")
for name, score in scores.items():
    print(f"{'U-Net ' + name:<20} mean IoU {score:.3f}")

# %% name="train_figure" role="train"
from segedu.viz import compare

shown = (val_images[0, 0] - val_images[0, 0].min()) / (val_images[0, 0].max() - val_images[0, 0].min())
for name, net in nets.items():
    with torch.no_grad():
        predicted = net(val_images[:1])[0].argmax(dim=0)
    fig = compare(shown, val_target[0], predicted, width=1.8)
    fig.suptitle(f"U-Net {name}", y=1.06, va="bottom")  # above the titles of the panels
    show(
        fig,
        alt=f"A new image, its ground truth, the prediction of the U-Net {name}, and its errors: false "
        "positives and false negatives.",
    )

# %% [markdown] name="tiles_of_the_net"
# Now you combine both parts: your network was trained on small square images, and your `tile_predict` applies it to an
# image of 200 by 264 pixels. A padded network sees zeros beyond the edge of each tile. The next cell therefore crops 16
# pixels from each side of its output and treats them as the margin. The stride is then $64 - 2 \cdot 16 = 32$. The
# network has depth 3 on a CPU and depth 4 on a GPU, and 32 is a multiple of $2^3$ and of $2^4$, so the poolings of all
# tiles are aligned. Some influence of the zeros remains: a margin of $6 \cdot 2^D$ pixels, which is 48 at depth
# $D = 3$, would remove it entirely.

# %% name="whole_image" role="train"
large = nuclei(folder, True, (200, 264), 1)[0] if folder else draw_cells(7, size=(200, 264))
net = nets["with skips"]


def without_margin(tile):
    """Crop 16 pixels from each side of the logits, so that the output is smaller than the tile."""
    with torch.no_grad():
        return net(tile)[..., 16:-16, 16:-16]


predicted = use(tile_predict)(without_margin, standardise(large["image"][:1]), 64, 16).argmax(dim=0)
fig = compare(large["image"], large["semantic"], predicted, width=1.8)
show(
    fig,
    alt="A large image of cells, its ground truth, the prediction composed of tiles, and its errors. No seams are "
    "visible.",
)

# %% [markdown] name="prostate_text"
# ## A small organ, with the focal loss
#
# The same network can be trained for another task: it segments the prostate in synthetic slices that resemble magnetic
# resonance images. The prostate covers about 3 % of the pixels. So a network that predicts "no prostate" everywhere has
# an accuracy of 0.97, but a Dice score of 0.
#
# The focal loss is $-(1 - p_t)^\gamma \log p_t$, where $p_t$ is the probability of the ground-truth class. It reduces
# the loss of easy pixels. With $\gamma = 2$, a pixel of fat with $p_t = 0.9$ contributes $0.1^2 = 0.01$ of its
# cross-entropy. A pixel of the prostate with $p_t = 0.3$ contributes $0.7^2 = 0.49$ of it.

# %% name="prostate" role="train"
from segedu.datasets.prostate import draw_prostate
from segedu.datasets.scenes import Scenes
from segedu.losses.focal import focal_loss
from segedu.metrics.semantic import dice_per_class_from_confusion

side, slices, width, iterations = {"cpu": (64, 96, 8, 250), "gpu": (192, 256, 32, 600)}[SCALE]
(mri, organ), (new_mri, new_organ) = (
    semantic_batch(list(tqdm(Scenes(draw_prostate, number, seed, (side, side)), "render", unit="slice")))
    for number, seed in ((slices, 0), (32, 1))
)
torch.manual_seed(0)
net = paper_weights(use(build_unet)(1, 2, width, 3)).to(device)
net = net.to(memory_format=torch.channels_last)  # in this memory layout, convolutions on a CPU are faster
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=iterations, pct_start=0.1)
picks = torch.randint(slices, (iterations, 8), generator=torch.Generator().manual_seed(0))
loader = ((standardise(mri[pick, :1]), organ[pick]) for pick in picks)
bar = tqdm(train_steps(net, loader, focal_loss, optimizer, scheduler=schedule, clip_norm=1.0), "prostate", iterations)
for loss in bar:
    bar.set_postfix(loss=f"{loss:.4f}")
matrix = evaluate(net, zip(standardise(new_mri[:, :1]).split(8), new_organ.split(8)), 2)["confusion"]
dice = float(dice_per_class_from_confusion(matrix)[1])
print(f"prostate: Dice {dice:.3f} on 32 new slices, scale {SCALE}")

# %% name="prostate_figure" role="train"
with torch.no_grad():
    predicted = net(standardise(new_mri[:1, :1]).to(device))[0].argmax(dim=0).cpu()
fig = compare(new_mri[0], new_organ[0], predicted, width=1.8)
show(
    fig,
    alt="A new synthetic slice through a pelvis, the ground truth of its prostate, the prediction of the U-Net, and "
    "its errors: false positives and false negatives.",
)

# %% [markdown] name="pets_text"
# ## Photographs: Oxford-IIIT Pet
#
# Oxford-IIIT Pet has 7,349 photographs of cats and dogs, each with a ground-truth mask of the animal. If you have
# downloaded it, enter the path of its folder in the next cell. This is the folder that contains `images` and
# `annotations`. Use a GPU.

# %% name="pets" role="train"
PETS = None  # for example "oxford-iiit-pet"
PETS_STEPS = 4000

if PETS:
    from segedu.datasets.oxford_pet import OxfordPet
    from segedu.datasets.transforms import Joint
    from torchvision.transforms.v2 import RandomHorizontalFlip, Resize

    data = OxfordPet(PETS, "trainval", Joint(Resize((192, 192)), RandomHorizontalFlip()))
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=PETS_STEPS * batch)
    loader = torch.utils.data.DataLoader(data, batch, sampler=sampler, collate_fn=semantic_batch, num_workers=2)
    net = paper_weights(use(build_unet)(3, 2, base, depth)).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=PETS_STEPS, pct_start=0.1)
    pairs = ((standardise(images), target) for images, target in loader)
    bar = tqdm(train_steps(net, pairs, cross_entropy, optimizer, scheduler=schedule, clip_norm=1.0), "pets", PETS_STEPS)
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")
    held_out = OxfordPet(PETS, "test", Joint(Resize((192, 192))))
    loader = torch.utils.data.DataLoader(held_out, batch, collate_fn=semantic_batch, num_workers=2)
    pairs = ((standardise(images), target) for images, target in tqdm(loader, "test"))
    print(f"mean IoU on the test photographs: {evaluate(net, pairs, 2)['mean_iou']:.3f}")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1. The image of the paper has 572 pixels per side. Which is the next larger legal size?**
#
# <details><summary>Answer</summary>
#
# The next larger legal size is 588. At depth 4, legal sizes are 16 pixels apart: the size at the bottom of the U
# changes in steps of 1, and each of the four poolings doubles this step in the image.
#
# </details>
#
# **2. You pad the convolutions of a U-Net of depth 4, and keep images of 572 pixels per side. Is this size legal?**
#
# <details><summary>Answer</summary>
#
# No. With padding only the poolings and up-convolutions change the size, so it has to be divisible by 16, and 572 =
# 35.75 x 16.
#
# </details>
#
# **3. The network without skips has as many parameters as the network with skips. Why is it worse?**
#
# <details><summary>Answer</summary>
#
# All information from the image to the logits passes through all poolings of the network. The poolings discard the
# exact positions of the outlines, and no number of parameters can recover these positions.
#
# </details>
#
# **4. Why does the weight map use two distances and not one?**
#
# <details><summary>Answer</summary>
#
# With one distance, every cell would get a rim of large weights. The sum of two distances is small only between two
# cells.
#
# </details>
#
# **5. Find the error: "The contracting path of the U-Net is an existing classification network."**
#
# <details><summary>Answer</summary>
#
# The U-Net of the paper is trained from scratch. Encoders taken from classification networks came later.
#
# </details>
#
# **6. Suppose that each tile is padded with zeros instead of overlapping its neighbours. Where do seams appear?**
#
# <details><summary>Answer</summary>
#
# Along every edge between two tiles, and not only at the border of the image: next to these edges the network sees
# zeros, which are not in the image.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - Change one thing in the training cell: depth 1, or 4 base channels. How much do the skips contribute then?
# - Train with your weight map: `cross_entropy` has an argument `pixel_weights`.
# - Chapter 7 is about losses: how do you train when the cells cover 2 % of the image?
# - Later chapters separate cells that touch (9, 10) and extend the U-Net to three dimensions (16).
#
# Before you hand in this notebook, save it, and run `segedu check labs/06_unet.ipynb` in a terminal. The command runs
# the notebook as the grader will, and prints your points and the feedback.
