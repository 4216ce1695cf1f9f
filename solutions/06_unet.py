# %% [markdown] name="title"
# # Lab 6: U-Net
#
# You build the U-Net from its smallest block to the whole net, work out which image sizes it takes, train it,
# look at what its skips are for, give more weight to the borders between cells, and predict an image
# that is larger than the net's input.
#
# **Time:** about 80 minutes. **Points:** 20, in six exercises. Read
# [chapter 6](../course/06-unet/index.md) first, or beside this lab.
#
# Each exercise has a cell to write in and a cell that checks it. The check draws a few inputs, and grading
# draws new ones. If you are stuck, go on: later cells use the library's function until yours passes.

# %% name="setup" role="setup"

# %% [markdown] name="goals"
# ## What you can do afterwards
#
# - build a U-Net and say what each arrow of its figure does;
# - say how large its output is, and which images it refuses;
# - train it, and show what happens without skips;
# - weight the pixels between touching cells;
# - predict an image of any size in tiles, without seams.
#
# Here is what the U-Net was made for: cells that touch, of which only a few images are labelled.

# %% name="picture" role="show"
from segedu.datasets.cells import draw_cells
from segedu.viz import gallery, show

cells = [draw_cells(seed, size=(96, 96)) for seed in (1, 2)]
pictures = [sample["image"] for sample in cells for _ in range(2)]
labels = [label for sample in cells for label in (None, sample["label_map"])]
titles = ["image", "every cell a number", "image", "every cell a number"]
show(
    gallery(pictures, labels, titles=titles, numbers=True),
    alt="Two noisy microscope images of bright touching cells, each beside its truth, where every cell has a number.",
)

# %% [markdown] name="idea"
# ## The idea
#
# A net that pools sees a large part of the image, but it forgets where things are. The U-Net pools and then
# goes back up. On the way up it gets, at every resolution, a copy of what the way down saw there: the **skip**.
# The way down says *what* is in the picture, the skips say *where* its outline runs.
#
# In the figure each box is two convolutions, with the number of channels inside it and the sizes before and
# after them below it.

# %% name="the_u" role="show"
from segedu.teaching.widgets.unet import draw_unet

draw_unet(depth=4, base_channels=64, padding=0, size=572)

# %% [markdown] name="double_conv_text"
# ## 1. The block (2 points)
#
# Every box is the same block: a 3x3 convolution, a ReLU, another 3x3 convolution, another ReLU. The
# convolutions of the paper are **unpadded**: a window that would stick out of the image is left out, so each
# convolution takes one pixel off every side. A block therefore takes 4 pixels off the height and 4 off the width:
#
# $$ H \;\to\; H - 2 \;\to\; H - 4 $$
#
# With numbers: a 5x5 image becomes 3x3, then 1x1.
#
# The first convolution changes the number of channels, the second keeps it. There is no batch normalisation:
# the paper is from 2015, and has none.

# %% name="sizes_by_hand" role="show"
image = torch.zeros(1, 1, 5, 5)
layer = torch.nn.Conv2d(1, 1, kernel_size=3)
print(tuple(image.shape), "->", tuple(layer(image).shape), "->", tuple(layer(layer(image)).shape))


# %% name="double_conv" role="solution"
def double_conv(in_channels: int, out_channels: int) -> torch.nn.Module:
    """The block: 3x3 convolution, ReLU, 3x3 convolution, ReLU; unpadded, with bias, without normalisation.

    Args:
        in_channels: channels of the input.
        out_channels: channels after the first convolution and after the second.

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
# What can such a block see? Each value that comes out depends on a 5x5 window of the image. Here is the
# gradient of one output value by the image, for a block with random weights.

# %% name="double_conv_figure" role="show"
torch.manual_seed(0)
block = use(double_conv)(1, 8)
image = torch.rand(1, 1, 13, 13, requires_grad=True)
block(image)[0, :, 4, 4].sum().backward()
fig, axis = plt.subplots(figsize=(3.2, 3))
axis.imshow(image.grad[0, 0].abs(), cmap="cividis")
axis.set(title="what one output value sees", xticks=[], yticks=[])
show(fig, alt="A 13 by 13 grid, zero but for a 5 by 5 window in the middle: the pixels one output value depends on.")

# %% [markdown] name="crop_concat_text"
# ## 2. The skip (3 points)
#
# Unpadded convolutions make the way up smaller than the way down. At the top level of the figure the skip has
# 568 pixels a side, and what comes from below has 392. The skip is cut to its **centre**: all four sides lost the
# same. The cut begins at
#
# $$ \text{top} = \left\lfloor \frac{H - h}{2} \right\rfloor, \qquad
#    \text{left} = \left\lfloor \frac{W - w}{2} \right\rfloor $$
#
# so when an odd number of rows has to go, one more goes at the bottom. With numbers: from 8 rows to 5,
# $\lfloor 3/2 \rfloor = 1$: rows 1 to 5 stay, one row goes at the top and two at the bottom.
#
# Then the two are **concatenated along the channels**, skip first. Nothing is added: the next convolution decides
# itself how to mix them.


# %% name="crop_concat" role="solution"
def crop_concat(skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Cut the centre of the skip to the size of `up`; put both side by side along the channels, skip first.

    Args:
        skip: (B, C, H, W).
        up: (B, D, h, w) with h <= H and w <= W. H - h and W - w may be odd, 0, and different from each other.

    Returns:
        (B, C + D, h, w): the C channels of the skip from row (H - h) // 2 and column (W - w) // 2 on, then the
        D channels of `up`. The arguments stay as they are.
    """
    ### BEGIN SOLUTION: cut the centre out of the skip and concatenate
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
panels = [("skip, 8 x 8", skip[0, 0]), ("channel 0: its centre", joined[0, 0]), ("channel 1: up", joined[0, 1])]
for axis, (title, panel) in zip(axes, panels):
    axis.imshow(panel, cmap="cividis", vmin=0, vmax=63)
    axis.set(title=title, xticks=range(len(panel)), yticks=range(len(panel)))
show(fig, alt="An 8 by 8 ramp of numbers, its 5 by 5 centre that begins in row 1 and column 1, and a constant map.")

# %% [markdown] name="unet_out_size_text"
# ## 3. Which sizes are legal? (3 points)
#
# Now the whole walk. The image of the paper has 572 pixels a side:
#
# $$ 572 \to 568 \to 284 \to 280 \to 140 \to 136 \to 68 \to 64 \to 32 \to 28 $$
#
# on the way down (a block takes 4, a pooling halves), and
#
# $$ 28 \to 56 \to 52 \to 104 \to 100 \to 200 \to 196 \to 392 \to 388 $$
#
# on the way up (an up-convolution doubles, a block takes 4).
#
# A size is **illegal** if a pooling meets an odd number, because then a row would be lost and the way up would
# no longer lie on the way down. It is also illegal if nothing is left: every size on the walk, the output too, has to
# be at least 1. With numbers, depth 1: $20 \to 16 \to 8 \to 4 \to 8 \to 4$ is legal. $21 \to 17$ is not: 17 is odd. $16 \to
# 12 \to 6 \to 2 \to 4 \to 0$ is not: nothing is left.


# %% name="unet_out_size" role="solution"
def unet_out_size(size: int, depth: int = 4) -> int:
    """Height of the output of the unpadded U-Net for an image of height `size`.

    Args:
        size: height (or width) of the image, at least 1.
        depth: number of poolings, at least 1. There are depth blocks on the way down, one at the bottom,
            and depth on the way up.

    Returns:
        Height (or width) of the output, an int.

    Raises:
        ValueError: a pooling meets an odd size, or less than one pixel is left.
    """
    ### BEGIN SOLUTION: walk down and up; raise ValueError for an illegal size
    for _ in range(depth):
        size -= 4
        if size % 2:
            raise ValueError("a pooling meets an odd size")
        size //= 2
    size -= 4
    for _ in range(depth):
        size = 2 * size - 4
    if size < 1:
        raise ValueError("nothing is left")
    return size
    ### END SOLUTION


# %% name="check_unet_out_size" role="check"
check(unet_out_size)


# %% name="unet_out_size_figure" role="show"
def sizes(depth):
    """All legal sizes up to 300 with their outputs."""
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
    alt="Output size against legal image size: four lines of dots; the deeper the net, the rarer and lower the dots.",
)

# %% [markdown] name="build_unet_text"
# ## 4. The whole net (5 points)
#
# Most people pad the convolutions nowadays: the logits are then as large as the image, and nothing is
# cut. Build that U-Net. It has, in order of execution,
#
# 1. a block (3x3 convolution, ReLU, 3x3 convolution, ReLU, **padding 1**) from `in_channels` to `base_channels`;
# 2. for each of the `depth` levels below: a 2x2 max pooling, then a block that doubles the channels;
# 3. for each level on the way back up: a **2x2 up-convolution with stride 2 that halves the channels**
#    (`torch.nn.ConvTranspose2d`), the concatenation **skip first**, and a block that brings the doubled channels
#    back to those of the level;
# 4. a 1x1 convolution from `base_channels` to `num_classes`. No ReLU and no softmax after it: the net returns
#    logits.
#
# The skip of a level is the output of its block, before the pooling. All layers have a bias. With numbers, for
# `build_unet(3, 4, 8, 2)`: channels 3, 8, 16, 32, then 16 + 16, 16, then 8 + 8, 8, and 4 at the end.
#
# The check fills your weights in the order in which your layers run: their names and the order of construction do
# not matter. Write the block again inside; do not call your other exercises.


# %% name="build_unet" role="solution"
def build_unet(in_channels: int, num_classes: int, base_channels: int, depth: int) -> torch.nn.Module:
    """A padded U-Net, as described above.

    Args:
        in_channels: channels of the image.
        num_classes: channels of the logits.
        base_channels: channels at the full resolution; every pooling is followed by a doubling.
        depth: number of poolings, at least 1.

    Returns:
        A module that maps images (B, in_channels, H, W), H and W divisible by 2**depth, to logits
        (B, num_classes, H, W).
    """

    ### BEGIN SOLUTION: define a class derived from torch.nn.Module in here and return one
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
# How far does one logit see? The picture shows the gradient of the logits in the middle by the image, for your
# net at depth 1, 2 and 3. The scale is logarithmic: far away there is little, but it is not nothing.

# %% name="build_unet_figure" role="show"
torch.manual_seed(0)
image = torch.rand(1, 1, 64, 64)
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3))
for axis, depth in zip(axes, (1, 2, 3)):
    net, x = use(build_unet)(1, 2, 8, depth), image.clone().requires_grad_()
    net(x)[0, :, 32, 32].sum().backward()
    seen = int((x.grad != 0).any(dim=3).sum())
    axis.imshow(torch.log10(x.grad[0, 0].abs() + 1e-12), cmap="cividis", vmin=-9, vmax=-1)
    axis.set(title=f"depth {depth}: {seen} rows seen", xticks=[], yticks=[])
show(fig, alt="Three maps: the window that the middle logit depends on grows with the depth of the net.")

# %% [markdown] name="weight_map_text"
# ## 5. The weight map (4 points)
#
# Two cells that touch are separated by a line one or two pixels wide. It is so few pixels that the loss hardly
# notices when the net forgets it. So the paper makes them expensive. Each pixel gets the weight
#
# $$ w = w_c + w_0 \exp\left( - \frac{(d_1 + d_2)^2}{2 \sigma^2} \right) $$
#
# where $d_1$ is the distance to the nearest cell and $d_2$ the distance to the second nearest one. Both are small
# only in a gap between two cells. The class weight $w_c$ makes up for one class being rarer than the other.
#
# In this lab the second term is there on the **background only**, and it is 0 with fewer than two cells. With
# numbers, for a gap one pixel wide, $w_0 = 10$ and $\sigma = 5$: $d_1 = d_2 = 1$, so the term is
# $10\, e^{-4/50} = 9.23$. Half-way between cells that are 20 pixels apart it is $10\, e^{-400/50} = 0.003$.
#
# `scipy.ndimage.distance_transform_edt(mask)` gives for each pixel of the mask the distance to the nearest pixel
# outside it, from centre to centre.


# %% name="weight_map" role="solution"
def weight_map(label_map: np.ndarray, class_weights: tuple[float, float], w0: float, sigma: float) -> np.ndarray:
    """Weight of each pixel in the loss.

    Args:
        label_map: (H, W) integers, 0 is background, every other number is one cell. The numbers need not be
            1, 2, 3, ...; cells may touch; there may be one cell or none.
        class_weights: w_c of background pixels and of pixels of cells.
        w0: height of the second term.
        sigma: its reach in pixels.

    Returns:
        (H, W) floats: w_c, plus the second term on background pixels if there are at least two cells.
    """
    ### BEGIN SOLUTION: distances to each cell, the two smallest, the formula
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
fig, axes = plt.subplots(1, 2, figsize=(8.4, 2.7))
axes[0].imshow(label_map, cmap="cividis")
axes[0].set(title="label map: three cells", xticks=[], yticks=[])
picture = axes[1].imshow(weights, cmap="cividis")
axes[1].set(title="weights", xticks=[], yticks=[])
fig.colorbar(picture, ax=axes[1])
show(fig, alt="Three discs, and a map that is brightest in the narrow gaps between them, up to ten times the rest.")

# %% [markdown] name="tile_predict_text"
# ## 6. Tiles (3 points)
#
# A microscope image may have 10,000 pixels a side: too large for the memory. An unpadded net can work on it in
# **tiles** without any seam, because every logit that it gives has seen its full neighbourhood. The input tiles
# overlap, the output tiles lie side by side:
#
# - a tile of $t$ pixels gives an output of $s = t - 2m$ pixels, $m$ on each side being the **margin**;
# - output tile $i$ begins at row $i \cdot s$ of the image; its input begins $m$ rows above;
# - what sticks out of the image is filled by **mirroring**. Row $-1$ is row 1, row $-2$ is row 2. The border row
#   itself is not repeated (`mode="reflect"` in `np.pad` and `torch.nn.functional.pad`);
# - the last tile hangs over the end; what is too much of its output is thrown away.
#
# With numbers: an image of 17 rows, $t = 10$, $m = 2$, so $s = 6$. Three tiles begin at rows 0, 6 and 12 of the
# output, and 1 row of the last one is thrown away.


# %% name="tile_predict" role="solution"
def tile_predict(model, image: torch.Tensor, tile_size: int, margin: int) -> torch.Tensor:
    """Predict a whole image with a model that takes tiles of one size only.

    Args:
        model: maps a tensor (1, C, t, t), t = tile_size, to a tensor (1, K, s, s), s = t - 2 margin. It takes
            no other height and width. Many tiles at once, (B, C, t, t), are allowed.
        image: (C, H, W), H and W at least tile_size.
        tile_size: t.
        margin: m, pixels that the model takes off each side.

    Returns:
        (K, H, W): for each pixel what the model gives for it in the mirrored image. K is known from the
        model's output only. The image stays as it is.
    """
    ### BEGIN SOLUTION: mirror the image, cut tiles, put the outputs side by side
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
# Is there a seam? Your block from exercise 1 takes 2 pixels off each side. Here it runs over an image in 12
# tiles, and over the whole mirrored image at once. The last map shows the difference.

# %% name="tile_predict_figure" role="show"
torch.manual_seed(0)
block, image = use(double_conv)(1, 8), draw_cells(3, size=(50, 66))["image"][:1]
with torch.no_grad():
    tiles = use(tile_predict)(block, image, tile_size=24, margin=2)
    whole = block(torch.nn.functional.pad(image[None], (2, 2, 2, 2), mode="reflect"))[0]
gap = (tiles - whole).abs()
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6))
panels = [("image", image[0]), ("from 12 tiles", tiles.sum(0)), (f"difference, at most {gap.max():.0e}", gap.sum(0))]
for axis, (title, panel) in zip(axes, panels):
    axis.imshow(panel, cmap="cividis", vmin=0, vmax=max(1e-3, float(panel.max())))
    axis.set(title=title, xticks=[], yticks=[])
show(
    fig, alt="An image of cells, its features computed in tiles, and the difference to the whole: no seam can be seen."
)

# %% [markdown] name="widget_text"
# ## Move the numbers
#
# Depth, base channels and padding decide the shapes, the number of parameters and the memory. Try: what doubles the
# parameters, and what doubles the memory? Why does depth 5 need so large an image without padding?

# %% name="widget" role="widget"
from segedu.teaching.widgets.unet import explorer

explorer()

# %% [markdown] name="train_text"
# ## Train it, with skips and without
#
# Now your net learns: cell or background? Beside it learns a net that is the same but for one thing: where the
# skips arrive, it gets zeros. It has as many weights, and the same number of steps.
#
# Images and weights begin as in the paper: images about 0, weights Gaussian with deviation
# $\sqrt{2/N}$ for $N$ incoming values. Without this, a net without normalisation learns slowly or not at all.

# %% name="train_parts" role="train"
from segedu.datasets.batch import semantic_batch
from segedu.datasets.cells import Cells
from tqdm.auto import tqdm


def draw_data(length, seed, size):
    """Images (B, 1, H, W) of mean about 0 and deviation about 1, and their targets (B, H, W)."""
    samples = tqdm(Cells(length, seed, (size, size)), desc="draw", unit="image")
    images, target = semantic_batch(list(samples))
    return standardise(images[:, :1]), target


def standardise(images):
    """The same shift and scale for all images: these cells have mean 0.3 and deviation 0.2, about."""
    return (images - 0.3) / 0.2


def paper_weights(net):
    """Gaussian weights of deviation sqrt(2 / N), biases 0."""
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
scales = {"cpu": (64, 256, 8, 3, 120, 16), "gpu": (512, 96, 32, 4, 600, 8)}
size, length, base, depth, steps, batch = scales[SCALE]
device = "cuda" if SCALE == "gpu" else "cpu"
if SCALE == "cpu":
    torch.set_num_threads(1)  # so small a net gains nothing from more threads, which only wait for each other
images, target = draw_data(length, 0, size)
val = list(zip(*(part.split(batch) for part in draw_data(length // 4, 1, size))))
nets, scores = {}, {}
for name, build in (("with skips", use(build_unet)), ("without skips", without_skips)):
    torch.manual_seed(0)
    net = paper_weights(build(1, 2, base, depth)).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)
    picks = torch.randint(length, (steps, batch), generator=torch.Generator().manual_seed(0))
    loader = ((images[pick], target[pick]) for pick in picks)
    bar = tqdm(train_steps(net, loader, cross_entropy, optimizer, scheduler=schedule), name, steps)
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")
    scores[name] = evaluate(net, val, 2)["mean_iou"]
    nets[name] = net.eval().cpu()
    print(f"{name}: mean IoU {scores[name]:.3f} on {length // 4} new images, scale {SCALE}")

# %% [markdown] name="train_after"
# What do the skips bring? Look at the outlines. Both nets find the cells; only one of them knows exactly where they
# end. The first row of the table is the plain method of chapter 2: smooth the image, then take Otsu's threshold.
#
# One run proves little. With three seeds we measured on a CPU 0.86 to 0.89 with skips, 0.76 to 0.82 without, and
# 0.74 for Otsu.

# %% name="train_table" role="train"
from segedu.metrics.semantic import mean_iou
from skimage.filters import gaussian, threshold_otsu

val_images, val_target = (torch.cat(part) for part in zip(*val))
smooth = [gaussian(image[0].numpy(), sigma=1) for image in val_images]
plain = torch.stack([torch.from_numpy(image > threshold_otsu(image)).long() for image in smooth])
print(f"{'Gaussian, then Otsu':<20} mean IoU {mean_iou(plain, val_target, 2):.3f}")
for name, score in scores.items():
    print(f"{'U-Net ' + name:<20} mean IoU {score:.3f}")

# %% name="train_figure" role="train"
from segedu.viz import compare

shown = (val_images[0, 0] - val_images[0, 0].min()) / (val_images[0, 0].max() - val_images[0, 0].min())
for name, net in nets.items():
    with torch.no_grad():
        predicted = net(val_images[:1])[0].argmax(dim=0)
    fig = compare(shown, val_target[0], predicted)
    fig.suptitle(f"U-Net {name}", y=1.04)
    show(fig, alt=f"A new image, its truth, the prediction of the U-Net {name}, and its errors by kind.")

# %% [markdown] name="tiles_of_the_net"
# Now everything together: your net was trained on small squares, and your tiles carry it over an image of 200 by
# 264 pixels. A padded net sees zeros beyond the edge of a tile, so 16 pixels of its output are cut off on each
# side and count as its margin.

# %% name="whole_image" role="train"
large = draw_cells(7, size=(200, 264))
net = nets["with skips"]


def without_margin(tile):
    """The net's logits less 16 pixels on each side, as an unpadded net would give them."""
    with torch.no_grad():
        return net(tile)[..., 16:-16, 16:-16]


predicted = use(tile_predict)(without_margin, standardise(large["image"][:1]), 64, 16).argmax(dim=0)
fig = compare(large["image"], large["semantic"], predicted, width=3.4)
show(fig, alt="A large image of cells, its truth, the prediction put together from tiles, and its errors: no seams.")

# %% [markdown] name="prostate_text"
# ## A small organ, with the focal loss
#
# The same net for another task: the prostate in drawn slices that look like magnetic resonance. It covers about 3 % of
# the pixels, so "no organ anywhere" has an accuracy of 0.97 and a Dice score of 0.
#
# The focal loss $-(1 - p_t)^\gamma \log p_t$, $p_t$ being the probability of the true class, makes what is easy cheap.
# With $\gamma = 2$, a pixel of fat with $p_t = 0.9$ counts $0.1^2 = 0.01$ of its cross-entropy. A pixel of the organ with
# $p_t = 0.3$ counts $0.7^2 = 0.49$ of it.

# %% name="prostate" role="train"
from segedu.datasets.prostate import draw_prostate
from segedu.datasets.scenes import Scenes
from segedu.losses.focal import focal_loss
from segedu.metrics.semantic import dice_per_class_from_confusion

side, slices, width, turns = {"cpu": (64, 96, 8, 250), "gpu": (192, 256, 32, 600)}[SCALE]
(mri, organ), (new_mri, new_organ) = (
    semantic_batch(list(tqdm(Scenes(draw_prostate, number, seed, (side, side)), "draw", unit="slice")))
    for number, seed in ((slices, 0), (32, 1))
)
torch.manual_seed(0)
net = paper_weights(use(build_unet)(1, 2, width, 3)).to(device)
net = net.to(memory_format=torch.channels_last)  # a layout in memory that convolutions on a CPU like
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=turns, pct_start=0.1)
picks = torch.randint(slices, (turns, 8), generator=torch.Generator().manual_seed(0))
loader = ((standardise(mri[pick, :1]), organ[pick]) for pick in picks)
bar = tqdm(train_steps(net, loader, focal_loss, optimizer, scheduler=schedule, clip_norm=1.0), "prostate", turns)
for loss in bar:
    bar.set_postfix(loss=f"{loss:.4f}")
matrix = evaluate(net, zip(standardise(new_mri[:, :1]).split(8), new_organ.split(8)), 2)["confusion"]
dice = float(dice_per_class_from_confusion(matrix)[1])
print(f"prostate: Dice {dice:.3f} on 32 new slices, scale {SCALE}")

# %% name="prostate_figure" role="train"
with torch.no_grad():
    predicted = net(standardise(new_mri[:1, :1]).to(device))[0].argmax(dim=0).cpu()
fig = compare(new_mri[0], new_organ[0], predicted)
show(fig, alt="A new slice through a drawn pelvis, its prostate, the prediction of the U-Net, and its errors by kind.")

# %% [markdown] name="pets_text"
# ## Photographs, if you have them
#
# Oxford-IIIT Pet has 7,349 photographs of cats and dogs with their outlines. If you have it, write its folder into the
# cell: the one that holds `images` and `annotations`. Use a GPU.

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
# **1. The paper's image has 572 pixels a side. Which is the next larger legal size?**
#
# <details><summary>Answer</summary>
# 588. At depth 4 legal sizes are 16 pixels apart: each pooling halves the distance, and at the bottom it has to be 1.
# </details>
#
# **2. Somebody pads the convolutions and says: the image must still have 572 pixels. Is it legal now?**
#
# <details><summary>Answer</summary>
# No. With padding only the poolings change the size, so it has to be divisible by 16, and 572 = 35.75 x 16.
# </details>
#
# **3. The net without skips has as many parameters as the net with them. Why is it worse?**
#
# <details><summary>Answer</summary>
# Its only way from the image to the logits leads through three poolings. What they throw away, where exactly an
# outline runs, cannot be brought back by any number of parameters.
# </details>
#
# **4. In the weight map, why are there two distances and not one?**
#
# <details><summary>Answer</summary>
# With one, every cell would get a bright rim. Both distances are small only between two cells.
# </details>
#
# **5. Find the slip: "The contracting path of the U-Net is an existing classification network."**
#
# <details><summary>Answer</summary>
# The U-Net of the paper is trained from scratch. Encoders taken from classification networks came later.
# </details>
#
# **6. Where would tiles show a seam, if each tile were padded with zeros instead of overlapping its neighbours?**
#
# <details><summary>Answer</summary>
# Along every edge between two tiles, not only at the border of the image: the net sees black pixels there which
# the image does not have.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - Change one thing in the training cell: depth 1, or 4 base channels. What do the skips bring then?
# - Train with your weight map: `cross_entropy` takes `pixel_weights`.
# - Chapter 7 is about losses: what to do when the cells are 2 % of the image.
# - Later chapters separate the cells that touch (9, 10) and take the U into three dimensions (16).
