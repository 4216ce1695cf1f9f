# %% [markdown] name="goals"
# # Lab 3: Convolution arithmetic
#
# A network for segmentation makes maps smaller, and then large again. If one size is off by a pixel, nothing fits. In
# this lab you write the operations that change sizes, and the formulas that predict them.
#
# **After this lab you can**
#
# - predict the size of every map: convolution, pooling, transposed convolution, with stride, padding and dilation;
# - say what a transposed convolution does, and why it is not a dilated one;
# - undo a max pooling by its indices;
# - say which pixels of the image one output pixel sees.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises. **Before**: the pages of
# [chapter 3](../course/03-convolution/index.md).
#
# Run the cells from top to bottom. Where a function still misses, later cells use the library's, so the notebook
# always runs to its end.

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One image, four operations
#
# Each picture is the one before it, after one operation. Look at the sizes in the titles: the way up does not lead back
# to where the way down began. Why, and what could be done about it?

# %% name="scene" role="show"
import torch.nn.functional as F
from skimage.data import camera

from segedu.viz import show

photo = torch.from_numpy(camera()[30:240:3, 120:330:3] / 255.0)[None, None]  # (1, 1, 70, 70), float64
sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)[None, None]
edges = F.conv2d(photo, sobel, stride=2).abs()
values, indices = F.max_pool2d(edges, 2, return_indices=True)
sparse = F.max_unpool2d(values, indices, 2)
large = F.conv_transpose2d(sparse, torch.ones(1, 1, 3, 3, dtype=torch.float64), stride=2)
steps = {"image": photo, "convolution": edges, "max pooling": values, "unpooling": sparse, "transposed conv.": large}
fig, axes = plt.subplots(1, 5, figsize=(12, 2.8), layout="constrained")
for ax, (name, step) in zip(axes, steps.items(), strict=True):
    ax.imshow(step[0, 0], cmap="gray", extent=(0, step.shape[3], step.shape[2], 0))
    ax.set(xlim=(0, 70), ylim=(70, 0), xticks=[], yticks=[])
    ax.set_title(f"{name}\n{step.shape[2]} x {step.shape[3]}", fontsize=10)
sizes = [step.shape[2] for step in steps.values()]
show(fig, alt=f"A photograph, its edges, pooled, unpooled and enlarged, to scale; sides of {sizes} pixels.")

# %% [markdown] name="conv_idea"
# ## 1. The size after a convolution
#
# **Idea.** A kernel of $K$ taps is laid on the padded row at its left end. It moves by $S$ pixels as long as it fits. Each
# place gives one output pixel. With dilation $D$ neighbouring taps are $D$ pixels apart, so the kernel spans
# $D(K-1)+1$ pixels: $K$ taps have $K-1$ gaps.
#
# **Formula.** The padded row has $H + 2P$ pixels.
#
# $$H_{\text{out}} = \left\lfloor \frac{H + 2P - D(K - 1) - 1}{S} \right\rfloor + 1$$
#
# The brackets round down: if the rest is too short for another step, it is not seen. Slides and books often print
# this formula without them, and without $D$.
#
# **By hand (the homework).** $K = 3$, $S = 2$, $P = 1$, $D = 1$. From 7 pixels: $\lfloor 6/2 \rfloor + 1 = 4$. From 8
# pixels: $\lfloor 7/2 \rfloor + 1 = 4$. Two sizes, one result.


# %% name="conv_out" role="solution"
def conv_out(size, kernel_size, stride, padding, dilation):
    """Size of the output of a convolution along one axis.

    size:        H, pixels of the input
    kernel_size: K, taps of the kernel
    stride:      S, at least 1
    padding:     P, pixels added on each of the two sides
    dilation:    D, distance between neighbouring taps, at least 1

    All are whole numbers, and the kernel fits into the padded input. Returns a whole number.
    """
    ### BEGIN SOLUTION: the number of places of the kernel, from its span and the padded size
    span = dilation * (kernel_size - 1) + 1
    return (size + 2 * padding - span) // stride + 1
    ### END SOLUTION


# %% name="check_conv_out" role="check"
check(conv_out)

# %% [markdown] name="conv_figure_text"
# The sizes of the homework's convolution. The dotted line is the formula without rounding: it meets the stairs at every
# second size only.

# %% name="conv_figure" role="show"
before = np.arange(3, 17)
after = [use(conv_out)(int(h), 3, 2, 1, 1) for h in before]
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.step(before, after, where="mid", color="#0072B2")
ax.plot(before, after, "o", color="#0072B2", label="with the floor")
ax.plot(before, (before + 2 - 3) / 2 + 1, ":", color="#D55E00", label="as often printed, without")
ax.set(xlabel="input size H", ylabel="output size", title="K = 3, S = 2, P = 1", xticks=before)
ax.legend()
show(fig, alt=f"Output sizes {after} for inputs of 3 to 16 pixels: stairs, each two pixels wide, below a dotted line.")

# %% [markdown] name="loops_idea"
# ## 2. Convolution in loops
#
# **Idea.** One output value is the sum of the products of a window of the image and the kernel. The window reaches through
# all input channels. Each output channel has its own kernel and its own bias. Images of a batch do not meet.
#
# **Formula.** With $x$ the padded images,
#
# $$y_{b,o,i,j} = \beta_o + \sum_{c,\,u,\,v} x_{b,\; c,\; iS + u,\; jS + v} \; w_{o,c,u,v}$$
#
# Deep learning does not flip the kernel. Signal processing does, and calls this one cross-correlation.
#
# **By hand.** The row 1, 2, 4, 8 and the kernel (1, -1): $1 - 2$, $2 - 4$, $4 - 8$, so -1, -2, -4.
#
# Special cases: a 1x1 kernel mixes the channels of each pixel and sees no neighbour. A kernel as large as the image has
# one place: that is a fully connected layer. Padding of $K - 1$ on each side, called full, lets every overlap count.
#
# Four loops are enough (image, output channel, row, column), because a sum over a whole window is one expression.
# `torch.nn.functional.pad(images, [P, P, P, P])` puts zeros around.


# %% name="conv2d_loops" role="solution"
def conv2d_loops(images, weight, bias, stride, padding):
    """Convolution of a batch of images, without flipping the kernel.

    images:  float tensor (B, Cin, H, W)
    weight:  float tensor (Cout, Cin, Kh, Kw)
    bias:    float tensor (Cout,)
    stride:  S, the same along both axes
    padding: P rows and columns of zeros on each side

    Returns a float tensor (B, Cout, Hout, Wout). Do not change the arguments.
    """
    ### BEGIN SOLUTION: pad with zeros; for each output value, sum the products of its window and the kernel
    padded = torch.nn.functional.pad(images, [padding] * 4)
    (B, _, H, W), (Cout, _, Kh, Kw) = padded.shape, weight.shape
    out = torch.zeros(B, Cout, (H - Kh) // stride + 1, (W - Kw) // stride + 1, dtype=images.dtype)
    for b in range(B):
        for o in range(Cout):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    window = padded[b, :, i * stride : i * stride + Kh, j * stride : j * stride + Kw]
                    out[b, o, i, j] = bias[o] + (window * weight[o]).sum()
    return out
    ### END SOLUTION


# %% name="check_conv2d_loops" role="check"
check(conv2d_loops)

# %% [markdown] name="loops_figure_text"
# Three kernels on the photograph: two edge filters, and a blur with stride 3. In a network nobody writes the numbers of a
# kernel. They are learned.

# %% name="loops_figure" role="show"
blur = torch.full((1, 1, 5, 5), 1 / 25, dtype=torch.float64)
kernels = [("left-right edges", sobel, 1), ("up-down edges", sobel.mT, 1), ("blur, stride 3", blur, 3)]
convolve, none = use(conv2d_loops), torch.zeros(1, dtype=torch.float64)
fig, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
axes[0].imshow(photo[0, 0], cmap="gray")
axes[0].set_title("image, 70 x 70", fontsize=10)
said = []
for ax, (name, kernel, stride) in zip(axes[1:], kernels, strict=True):
    result = torch.as_tensor(convolve(photo, kernel, none, stride, 1))[0, 0]
    ax.imshow(result, cmap="gray")
    said.append(f"{name}, {result.shape[0]} x {result.shape[1]}")
    ax.set_title(said[-1], fontsize=10)
for ax in axes:
    ax.set_axis_off()
show(fig, alt=f"A photograph and three convolutions of it: {'; '.join(said)}.")

# %% [markdown] name="pool_idea"
# ## 3. Pooling, and back
#
# **Idea.** Pooling keeps one number of each window: the largest, or the mean. Resolution is lost, and with it the place of
# the maximum, *unless somebody writes it down*. SegNet's decoder is built on that: it keeps the indices of the maxima, one
# small integer a window, and puts each value back where it came from. The result is sparse. Convolutions after it make
# it dense.
#
# **The index** counts the pixels of one plane in reading order: $yW + x$. Each image and each channel has its own.
#
# **By hand.** A 4x4 plane, windows of 2x2. The three panels of the next figure: maxima 4, 5, 6, 8 have the indices 4, 7,
# 8, 14. For example $14 = 3 \cdot 4 + 2$: row 3, column 2.

# %% name="pool_picture" role="show"
plane = torch.tensor([[1.0, 3, 2, 1], [4, 2, 0, 5], [6, 1, 3, 2], [0, 2, 8, 4]])
most, places = F.max_pool2d(plane[None, None], 2, return_indices=True)
mean = F.avg_pool2d(plane[None, None], 2)[0, 0]
panels = {"plane": plane, "max pooling": most[0, 0], "indices": places[0, 0], "average pooling": mean}
panels["average unpooling"] = mean.repeat_interleave(2, 0).repeat_interleave(2, 1)
fig, axes = plt.subplots(1, 5, figsize=(11, 2.5), layout="constrained")
for ax, (name, grid) in zip(axes, panels.items(), strict=True):
    ax.imshow(grid, cmap="cividis", vmin=0, vmax=16 if name == "indices" else 8)
    for (y, x), value in np.ndenumerate(grid.numpy()):
        ax.text(x, y, f"{value:g}", ha="center", va="center", color="white" if value < 5 else "black")
    ax.set_title(name, fontsize=10)
    ax.set(xticks=[], yticks=[])
show(fig, alt=f"A plane {plane.tolist()}, its maxima {most.flatten().tolist()}, indices, averages, and these repeated.")

# %% [markdown] name="unpool_formula"
# Average unpooling fills each window with its mean. Max unpooling puts the maximum at its index, and 0 everywhere else.
#
# Two things to decide. *The size*: planes of 4 and of 5 rows both pool to 2 rows, so the size before must be given. *Shared
# maxima*: where windows overlap, two of them may have the same pixel as their maximum. Its index then occurs twice. It
# had its value once, so it gets it once.


# %% name="max_unpool" role="solution"
def max_unpool(values, indices, size):
    """Put each maximum back where it was.

    values:  float tensor (B, C, h, w), the maxima
    indices: int64 tensor (B, C, h, w), y * W + x in the plane of the same image and channel;
             an index that occurs twice in a plane has the same value both times
    size:    (H, W), the size before the pooling

    Returns a float tensor (B, C, H, W), 0 wherever no maximum was.
    """
    ### BEGIN SOLUTION: write each value into a flat plane of zeros at its index
    H, W = size
    flat = torch.zeros(*values.shape[:2], H * W, dtype=values.dtype)
    flat = flat.scatter(2, indices.flatten(2), values.flatten(2))
    return flat.unflatten(2, (H, W))
    ### END SOLUTION


# %% name="check_max_unpool" role="check"
check(max_unpool)

# %% [markdown] name="unpool_figure_text"
# The edges of the photograph, pooled by 4 and brought back in two ways. Which one keeps outlines where they were?

# %% name="unpool_figure" role="show"
fine = F.conv2d(photo, sobel, padding=1).abs()[..., :68, :68]
maxima, where = F.max_pool2d(fine, 4, return_indices=True)
back = torch.as_tensor(use(max_unpool)(maxima, where, (68, 68)))
smooth = F.avg_pool2d(fine, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
panels = {"edges": fine, "max pooled": maxima, "max unpooled": back, "average pooled and unpooled": smooth}
fig, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for ax, (name, grid) in zip(axes, panels.items(), strict=True):
    ax.imshow(grid[0, 0], cmap="gray", vmin=0, vmax=2)
    ax.set_title(f"{name}, {grid.shape[2]} x {grid.shape[3]}", fontsize=9)
    ax.set_axis_off()
share = float((back != 0).double().mean())
alt = f"Edges, their maxima, the maxima at their places ({share:.1%} of pixels are not zero), and blurred blocks."
show(fig, alt=alt)

# %% [markdown] name="tconv_idea"
# ## 4. The size after a transposed convolution
#
# **Idea.** The transposed convolution is the way back of a convolution, for *shapes*: each input pixel puts down one whole
# kernel, and neighbouring kernels lie $S$ pixels apart. Padding was there before the forward convolution began, so on
# the way back it is *cut off*.
#
# **Formula.** $H-1$ steps of $S$, one span of the kernel, $P$ cut from each side:
#
# $$H_{\text{out}} = (H - 1)S - 2P + D(K - 1) + 1 + OP$$
#
# The last term is the *output padding*. Forward, 7 and 8 pixels both gave 4. Backward, 4 must choose. Without $OP$ it
# takes the smaller, 7. With $OP = 1$ one more row and column are kept at the end: 8. As the forward formula drops up to
# $S - 1$ pixels, $OP$ is below $S$ (torch also allows up to $D - 1$).
#
# **By hand.** $K = 3$, $S = 2$, $P = 0$: 2 pixels become $1 \cdot 2 + 2 + 1 = 5$. With $P = 1$, 4 pixels become
# $3 \cdot 2 - 2 + 2 + 1 = 7$, and 8 with $OP = 1$.


# %% name="tconv_out" role="solution"
def tconv_out(size, kernel_size, stride, padding, output_padding, dilation):
    """Size of the output of a transposed convolution along one axis.

    size:           H, pixels of the input
    kernel_size:    K, taps of the kernel
    stride:         S, distance between the patches of neighbouring input pixels
    padding:        P, pixels cut from each of the two sides
    output_padding: OP, pixels more at the end of the result
    dilation:       D, distance between neighbouring taps

    All are whole numbers, and at least one pixel is left. Returns a whole number.
    """
    ### BEGIN SOLUTION: steps between the pixels, one span of the kernel, the cut, and the output padding
    span = dilation * (kernel_size - 1) + 1
    return (size - 1) * stride + span - 2 * padding + output_padding
    ### END SOLUTION


# %% name="check_tconv_out" role="check"
check(tconv_out)

# %% [markdown] name="tconv_figure_text"
# Down by the homework's convolution and up by its transpose. Sizes that met on the way down are parted by the output
# padding only.

# %% name="tconv_figure" role="show"
fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
up, down, returned = use(tconv_out), use(conv_out), {}
for h in range(5, 13):
    small = down(h, 3, 2, 1, 1)
    ax.annotate("", xy=(small, 1), xytext=(h, 2), arrowprops={"arrowstyle": "->", "color": "#0072B2", "shrinkB": 10})
    returned[small] = [up(small, 3, 2, 1, extra, 1) for extra in (0, 1)]
for small, ends in returned.items():
    for extra, end in enumerate(ends):
        style = {"arrowstyle": "->", "color": "#D55E00", "linestyle": ("-", "--")[extra], "shrinkB": 10}
        ax.annotate("", xy=(end, 0), xytext=(small, 1), arrowprops=style)
for row, found in enumerate([sorted(sum(returned.values(), [])), list(returned), range(5, 13)]):
    for n in found:
        ax.text(n, row, n, ha="center", va="center", bbox={"boxstyle": "circle", "fc": "white", "ec": "#666666"})
ax.set(xlim=(2, 13), ylim=(-0.4, 2.4), xticks=[])
ax.set_yticks([2, 1, 0], ["size", "convolution", "transposed\n(dashed: OP = 1)"])
show(fig, alt=f"Sizes 5 to 12 go down in pairs; back they go without and with output padding: {returned}.")

# %% [markdown] name="scatter_idea"
# ## 5. Transposed convolution
#
# **Idea.** Gather becomes scatter. A convolution reads a window for each output pixel. The transposed convolution writes a
# window for each *input* pixel: its value times the kernel, as it lies. Where patches overlap they add. Many call it
# deconvolution. That is a bad name: it undoes the shape, not the values.
#
# **By hand, in 1-D.** Pixels 1, 2, kernel (1, 2, 3), stride 2. The first puts 1, 2, 3 at places 0 to 2, the second 2, 4, 6
# at places 2 to 4. Together 1, 2, **5**, 4, 6. With $P = 1$ both ends go: 2, 5, 4.
#
# **The weight** has the shape $(C_{in}, C_{out}, K_h, K_w)$: the input channel comes first, because it is the weight of the
# convolution that runs the other way.
#
# **Picture.** 2x2 to 5x5, one patch after the other.

# %% name="scatter_picture" role="show"
four = torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64)
kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
fig, axes = plt.subplots(1, 5, figsize=(11, 2.5), layout="constrained")
total = torch.zeros(5, 5, dtype=torch.float64)
for k, (y, x) in enumerate(np.ndindex(2, 2)):
    one = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    one[0, 0, y, x] = four[y, x]
    patch = F.conv_transpose2d(one, kernel, stride=2)[0, 0]
    total += patch
    axes[k].set_title(f"pixel ({y}, {x}), value {four[y, x]:g}", fontsize=9)
    axes[k].imshow(patch, cmap="cividis", vmin=0, vmax=10)
axes[4].imshow(total, cmap="cividis", vmin=0, vmax=10)
axes[4].set_title("sum", fontsize=9)
for (y, x), value in np.ndenumerate(total.numpy()):
    axes[4].text(x, y, f"{value:g}", ha="center", va="center", color="white" if value < 6 else "black", fontsize=8)
for ax in axes:
    ax.set(xticks=[], yticks=[])
show(fig, alt=f"Four patches of 3 by 3 on a 5 by 5 map, and their sum {total.int().tolist()}.")


# %% name="tconv2d" role="solution"
def tconv2d(images, weight, stride, padding):
    """Transposed convolution of a batch of images.

    images:  float tensor (B, Cin, H, W)
    weight:  float tensor (Cin, Cout, Kh, Kw), the input channel first
    stride:  S, distance between the patches of neighbouring pixels
    padding: P rows and columns cut from each side of the result

    Returns a float tensor (B, Cout, (H - 1) * S + Kh - 2 * P, (W - 1) * S + Kw - 2 * P).
    Do not change the arguments.
    """
    ### BEGIN SOLUTION: for each input pixel add its patch to a map of zeros; cut P off each side at the end
    (B, _, H, W), (_, Cout, Kh, Kw) = images.shape, weight.shape
    out = torch.zeros(B, Cout, (H - 1) * stride + Kh, (W - 1) * stride + Kw, dtype=images.dtype)
    for i in range(H):
        for j in range(W):
            patch = torch.einsum("bc,cohw->bohw", images[:, :, i, j], weight)
            out[:, :, i * stride : i * stride + Kh, j * stride : j * stride + Kw] += patch
    return out[:, :, padding : out.shape[2] - padding, padding : out.shape[3] - padding]
    ### END SOLUTION


# %% name="check_tconv2d" role="check"
check(tconv2d)

# %% [markdown] name="matrix_text"
# **Why "transposed"?** A convolution is linear, so it is a matrix $W$. Its columns are the results for images with a single
# 1. The columns of the transposed convolution come from your other function. Compare the two pictures.

# %% name="matrix_figure" role="show"
kernel = torch.arange(1.0, 10, dtype=torch.float64).reshape(1, 1, 3, 3)
ones = torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)
forward = torch.as_tensor(use(conv2d_loops)(ones, kernel, none, 1, 0)).reshape(16, 4).T
ones = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
backward = torch.as_tensor(use(tconv2d)(ones, kernel, 1, 0)).reshape(4, 16).T
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", width_ratios=(3, 1))
for ax, name, matrix in ((axes[0], "convolution, 4x4 to 2x2", forward), (axes[1], "transposed, 2x2 to 4x4", backward)):
    ax.imshow(matrix, cmap="cividis")
    for (i, j), value in np.ndenumerate(matrix.numpy()):
        if value:
            ax.text(j, i, f"{value:g}", ha="center", va="center", color="white" if value < 5 else "black", fontsize=8)
    ax.set(xlabel="input pixel", ylabel="output pixel", xticks=[], yticks=[])
    ax.set_title(name, fontsize=10)
equal = torch.equal(forward.T, backward)
print("The second is the transpose of the first:", equal)
show(fig, alt=f"A 4 by 16 matrix with nine numbers a row, and a 16 by 4 matrix; transposes of one another: {equal}.")

# %% [markdown] name="checker_text"
# **Checkerboards.** A constant image and a constant kernel. With $K = 3$ and $S = 2$ some pixels get four patches, others
# one. With $K = 4$, a multiple of the stride, all inner pixels get the same number. (Training can learn to balance the
# first. It often does not quite.)

# %% name="checker_figure" role="show"
flat = torch.ones(1, 1, 6, 6, dtype=torch.float64)
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
said = []
for ax, k in zip(axes, (2, 3, 4), strict=True):
    board = torch.as_tensor(use(tconv2d)(flat, torch.ones(1, 1, k, k, dtype=torch.float64), 2, 0))[0, 0]
    inner = sorted(set(board[3:-3, 3:-3].flatten().tolist()))
    ax.imshow(board, cmap="cividis", vmin=0, vmax=4)
    said.append(f"K = {k}: {', '.join(f'{v:g}' for v in inner)}")
    ax.set_title(f"patches inside, {said[-1]}", fontsize=10)
    ax.set_axis_off()
show(fig, alt=f"Transposed convolutions of a constant image, stride 2. Numbers of patches inside, {'; '.join(said)}.")

# %% [markdown] name="field_idea"
# ## 6. The receptive field
#
# **Dilated is not transposed.** Both put zeros somewhere, and both have been called "atrous". A *dilated* (atrous)
# convolution spreads its kernel: with $K = 3$, $D = 2$, $P = 2$, 7 pixels stay 7, and each sees a wider field. A
# *transposed* (fractionally strided) one spreads its input: with $K = 3$, $S = 2$, 7 pixels become 15.
#
# **Idea.** How wide a field does one pixel of a deep map see? Go from the input up. Keep three numbers. The *size* of the
# field, 1 at first. The *jump*: how many input pixels two neighbours of the map lie apart, 1 at first. The *padding*: how
# far the first field hangs over the edge of the image, 0 at first.
#
# **Formula.** A layer with $K, S, P, D$ changes them in this order:
#
# $$\text{size} \mathrel{+}= D(K-1) \cdot \text{jump} \qquad \text{padding} \mathrel{+}= P \cdot \text{jump} \qquad
# \text{jump} \mathrel{\times}= S$$
#
# So a whole stack looks at the image as one convolution does, with that kernel size, stride and padding. A pooling counts
# like any other layer.
#
# **By hand.** Two 3x3 convolutions: 1, 3, 5. Then a pooling by 2: $5 + 1 \cdot 1 = 6$, jump 2. One more 3x3:
# $6 + 2 \cdot 2 = 10$.


# %% name="receptive_field" role="solution"
def receptive_field(layers):
    """What one output pixel of a stack of layers sees, along one axis.

    layers: list from input to output of tuples (name, kernel_size, stride, padding, dilation);
            the name is "conv" or "pool"; the list may be empty

    Returns the tuple (size, jump, padding) of whole numbers: output pixel u sees the input pixels
    from u * jump - padding on, size of them. No layer: (1, 1, 0).
    """
    ### BEGIN SOLUTION: begin with (1, 1, 0) and let each layer change the three numbers
    size, jump, start = 1, 1, 0
    for _, kernel_size, stride, padding, dilation in layers:
        size += dilation * (kernel_size - 1) * jump
        start += padding * jump
        jump *= stride
    return size, jump, start
    ### END SOLUTION


# %% name="check_receptive_field" role="check"
check(receptive_field)

# %% [markdown] name="field_figure_text"
# Three ways to see far with 3x3 kernels. Plain convolutions gain 2 pixels a layer. Poolings double what each later layer
# gains, and lose resolution. Dilations of 1, 2, 4, ... double it too, and lose none.

# %% name="field_figure" role="show"
field, conv, pool = use(receptive_field), ("conv", 3, 1, 1, 1), ("pool", 2, 2, 0, 1)
stacks = {
    "plain 3x3": [conv] * 10,
    "3x3 and pooling by 2 in turn": [conv, pool] * 5,
    "dilation 1, 2, 4, ...": [("conv", 3, 1, 2**i, 2**i) for i in range(7)],
}
fig, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
said = []
for (name, stack), style in zip(stacks.items(), ("o-", "s--", "^:"), strict=True):
    seen = [field(stack[:n])[0] for n in range(len(stack) + 1)]
    jump = field(stack)[1]
    ax.plot(range(len(seen)), seen, style, label=f"{name}: jump {jump} at the end")
    said.append(f"{name}: {seen[-1]} pixels after {len(stack)} layers, jump {jump}")
ax.set(xlabel="layers", ylabel="pixels seen (log scale)", yscale="log")
ax.legend()
show(fig, alt=f"The receptive field by layers. {'; '.join(said)}.")

# %% [markdown] name="widget_text"
# ## Move the kernel
#
# All six numbers have a slider. `pixel` moves the window (or the patch). Set the convolution to $K=3$, $S=2$, $P=1$ and go
# from $H = 7$ to $8$: what is crossed out? Then take the transposed one, and read how many patches add up in each pixel.

# %% name="grids_widget" role="widget"
from segedu.teaching.widgets.convolution import explorer

explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# Nobody convolves in Python loops. One old trick: copy every window into a column (*im2col*), and the convolution is one
# product of matrices. It costs memory: a 3x3 kernel copies each pixel nine times. This cell times it against
# torch's convolution, which chooses among several methods, and against your loops.

# %% name="scale" role="train"
import time

from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
BATCH, CHANNELS, SIDE, ROUNDS = {"cpu": (2, 32, 64, 5), "gpu": (16, 64, 256, 20)}[SCALE]


def im2col(images, weight):
    """3x3 convolution with padding 1 as one matrix product."""
    columns = F.unfold(images, 3, padding=1)  # (B, 9 * Cin, H * W)
    return (weight.flatten(1) @ columns).unflatten(2, images.shape[2:])


def speed(function, images, weight):
    """Milliseconds a call (median), and billion multiplications a second."""
    work, times = images[:, 0].numel() * weight.numel(), []
    for _ in tqdm(range(ROUNDS + 1), desc=function.__name__, leave=False):
        start = time.perf_counter()
        out = function(images, weight)
        float(torch.as_tensor(out).flatten()[-1])  # waits for the GPU
        times.append(time.perf_counter() - start)
    middle = sorted(times[1:])[ROUNDS // 2]  # the first call warms up
    return f"{1e3 * middle:8.2f} ms, {work / middle / 1e9:9.4f} billion multiplications a second"


def torch_conv(images, weight):
    return F.conv2d(images, weight, padding=1)


def your_loops(images, weight):
    return use_loops(images, weight, torch.zeros(len(weight)), 1, 1)


use_loops = use(conv2d_loops)
torch.manual_seed(0)
images, weight = torch.rand(BATCH, CHANNELS, SIDE, SIDE), torch.randn(CHANNELS, CHANNELS, 3, 3)
for device in ("cpu", "cuda") if SCALE == "gpu" else ("cpu",):
    inputs = (images if device == SCALE or device == "cuda" else images[:2]).to(device), weight.to(device)
    gap = float((im2col(*inputs) - torch_conv(*inputs)).abs().max())
    print(f"{device}, {tuple(inputs[0].shape)} (largest difference {gap:.1e})")
    for function in (torch_conv, im2col):
        print(f"  {function.__name__:<11}{speed(function, *inputs)}")
print(f"  {'your loops':<11}{speed(your_loops, images[:1, :4, :16, :16], weight[:4, :4])} (on 16 x 16 pixels)")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the slip: "$H_{out} = (H - K + 2P)/S + 1$."
#
# <details><summary>Answer</summary>
# Two things are missing: the floor, and the dilation. With K = 3, S = 2, P = 1 it gives 4.5 for 8 pixels.
# </details>
#
# **2.** Find the slip, from a textbook: feed X into a convolution f, Y = f(X), and let g be the transposed convolution with
# the same kernel size, padding and stride; "then g(Y) will have the same shape as X".
#
# <details><summary>Answer</summary>
# Only if the floor lost nothing. With K = 3, S = 2, P = 1, X of 8 pixels gives Y of 4, and g(Y) has 7. An output padding
# of 1 repairs it.
# </details>
#
# **3.** Find the slip: "Atrous, dilated, transposed and fractionally strided convolution are four names of one operation."
#
# <details><summary>Answer</summary>
# Two pairs. Atrous is dilated: zeros in the kernel, resolution kept. Transposed is fractionally strided: zeros in the
# input, resolution raised.
# </details>
#
# **4.** Find the slip: "FCN turns VGG's three fully connected layers into 1-D convolutions."
#
# <details><summary>Answer</summary>
# They are 2-D. The first layer saw a map of 7x7, so it becomes a 7x7 convolution; the other two become 1x1.
# </details>
#
# **5.** A decoder upsamples with kernels of 3 and stride 2, and its outputs show a fine grid. Why, and what helps?
#
# <details><summary>Answer</summary>
# Patches overlap unevenly: 1, 2 or 4 add up in a pixel. A kernel that is a multiple of the stride, or resizing followed by
# a convolution, has no such pattern built in.
# </details>
#
# **6.** One 3x3 convolution more: before or after a pooling by 2, what does it add to the receptive field?
#
# <details><summary>Answer</summary>
# Before: 2 pixels. After: 4, because its neighbours are two pixels of the image apart.
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 3](../course/03-convolution/index.md), with the reading list.
# - Chapter 5 builds FCN and SegNet from these parts; lab 6 walks a U-Net from 572 to 388 pixels.
# - Chapter 8 lives on dilation.
