# %% [markdown] name="goals"
# # Lab 3: Convolution arithmetic
#
# A segmentation network first reduces the size of its maps and then increases it again. If two maps that have to be
# joined differ by a single pixel, the network fails. In this lab you write the operations that change the size of a
# map, and the formulas that predict the new size.
#
# **After this lab you can**
#
# - predict the size of a map after a convolution, a pooling or a transposed convolution, with stride, padding and
#   dilation;
# - explain what a transposed convolution computes, and why it is not a dilated convolution;
# - restore the positions of maxima with the indices of a max pooling;
# - compute on which pixels of the image one output pixel depends.
#
# **Time**: 60 minutes. **Points**: 20, in six exercises.
#
# **Prerequisites**: [chapter 3](../course/03-convolution/index.md), which introduces convolution; matrix
# multiplication and transposition for exercise 5. You do not need an earlier lab.
#
# Run the cells from top to bottom. Until your function for an exercise passes its check, later cells use the library's
# function instead, so the notebook always runs to its end.
#
# Your functions may call other libraries, but not functions that solve the exercise on their own, such as
# `torch.nn.functional.conv2d` and `torch.nn.Conv2d`. Checks and grading hide these functions ([list of hidden
# functions](../course/grading/trust.md)). Everywhere else in the notebook you can use them, for example to compare your
# results with theirs.

# %% name="setup" role="setup"

# %% [markdown] name="picture"
# ## One image, four operations
#
# The next figure shows an image and the maps after four operations, each applied to the result of the previous one: a
# convolution, max pooling, max unpooling, and a transposed convolution. The titles give the sizes. The last two
# operations should reverse the size changes of the first two. Compare the sizes: where do they differ, and how could
# you correct this?

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
stages = {"image": photo, "convolution": edges, "max pooling": values, "unpooling": sparse, "transposed conv.": large}
fig, axes = plt.subplots(2, 3, figsize=(7.5, 5.4), layout="constrained")
axes[1, 2].set_axis_off()  # five panels in a grid of six
for ax, (name, stage) in zip(axes.flat, stages.items(), strict=False):
    ax.imshow(stage[0, 0], cmap="gray", extent=(0, stage.shape[3], stage.shape[2], 0))
    ax.set(xlim=(0, 70), ylim=(70, 0), xticks=[], yticks=[])
    ax.set_title(f"{name}\n{stage.shape[2]} x {stage.shape[3]}", fontsize=10)
sizes = [stage.shape[2] for stage in stages.values()]
show(
    fig,
    alt="A photograph, its edges, and the edges after max pooling, max unpooling and a transposed convolution, "
    f"drawn to scale; the sides have {sizes} pixels.",
)

# %% [markdown] name="conv_idea"
# ## 1. The size after a convolution (3 points)
#
# **Idea.** A kernel with $K$ weights, called taps, starts at the left end of the padded row. It moves on by the
# stride, $S$ pixels, as long as it fits into the row. Each position of the kernel gives one output pixel, so the output
# size is the number of positions. With dilation $D$, neighbouring taps are $D$ pixels apart. The kernel then spans
# $D(K-1)+1$ pixels, because the distance from its first to its last tap consists of $K-1$ such steps.
#
# **Formula.** The padded row has $H + 2P$ pixels.
#
# $$H_{\text{out}} = \left\lfloor \frac{H + 2P - D(K - 1) - 1}{S} \right\rfloor + 1$$
#
# The brackets mean rounding down: pixels at the end that are too few for another step are not used. Slides and books
# often print this formula without the rounding and without $D$.
#
# **Worked example.** This is the homework of the chapter, with $K = 3$, $S = 2$, $P = 1$ and $D = 1$. For 7 pixels,
# the output size is $\lfloor 6/2 \rfloor + 1 = 4$. For 8 pixels, it is $\lfloor 7/2 \rfloor + 1 = 4$. Two different
# input sizes give the same output size.


# %% name="conv_out" role="solution"
def conv_out(size, kernel_size, stride, padding, dilation):
    """Compute the output size of a convolution along one axis.

    size:        H, the number of pixels of the input
    kernel_size: K, the number of taps of the kernel
    stride:      S, at least 1
    padding:     P, the number of pixels added on each of the two sides
    dilation:    D, the distance between neighbouring taps, at least 1

    All arguments are integers, and the kernel fits into the padded input. Returns an integer.
    """
    ### BEGIN SOLUTION: compute the number of positions of the kernel from its span and the padded size
    span = dilation * (kernel_size - 1) + 1
    return (size + 2 * padding - span) // stride + 1
    ### END SOLUTION


# %% name="check_conv_out" role="check"
check(conv_out)

# %% [markdown] name="conv_figure_text"
# The next figure shows the output sizes of the convolution from the homework. The dotted line is the formula without
# rounding. It agrees with the correct size only for odd input sizes.

# %% name="conv_figure" role="show"
in_sizes = np.arange(3, 17)
out_sizes = [use(conv_out)(int(h), 3, 2, 1, 1) for h in in_sizes]
fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.step(in_sizes, out_sizes, where="mid", color="#0072B2")
ax.plot(in_sizes, out_sizes, "o", color="#0072B2", label="with rounding down")
ax.plot(in_sizes, (in_sizes + 2 - 3) / 2 + 1, ":", color="#D55E00", label="without rounding, as often printed")
ax.set(xlabel="input size H", ylabel="output size", title="K = 3, S = 2, P = 1", xticks=in_sizes)
ax.legend()
show(fig, alt=f"Output sizes {out_sizes} for inputs of 3 to 16 pixels: steps of two pixels, at or below a dotted line.")

# %% [markdown] name="loops_idea"
# ## 2. Convolution in loops (4 points)
#
# **Idea.** To compute one output value, multiply each value of a window of the image by the corresponding weight of the
# kernel, add up the products, and add the bias. The window includes all input channels. Each output channel has its own
# kernel and its own bias. Each image of a batch is processed separately.
#
# **Formula.** With the padded images $x$, the weights $w$ and the biases $\beta$, the output $y$ of image $b$ in
# channel $o$ at row $i$ and column $j$ is
#
# $$y_{b,o,i,j} = \beta_o + \sum_{c,\,u,\,v} x_{b,\; c,\; iS + u,\; jS + v} \; w_{o,c,u,v}$$
#
# The sum runs over the input channels $c$ and the taps $(u, v)$ of the kernel. In deep learning the kernel is not
# flipped. In signal processing a convolution flips the kernel, and the operation of this formula is called
# cross-correlation.
#
# **Worked example.** The row 1, 2, 4, 8 and the kernel (1, -1) give $1 - 2$, $2 - 4$ and $4 - 8$. The output
# is -1, -2, -4.
#
# Three special cases are worth knowing:
#
# - A 1x1 kernel combines the channels of each pixel, and does not use the neighbouring pixels.
# - Without padding, a kernel as large as the image has only one position. It computes the same as a fully connected
#   layer.
# - With stride 1 and a padding of $K - 1$ on each side, called full padding, every position at which the kernel
#   overlaps the image contributes an output pixel.
#
# Four loops are enough: over images, output channels, rows and columns. The sum over a whole window is a single
# expression. `torch.nn.functional.pad(images, [P, P, P, P])` adds the zeros around the images.


# %% name="conv2d_loops" role="solution"
def conv2d_loops(images, weight, bias, stride, padding):
    """Convolve a batch of images without flipping the kernel.

    images:  float tensor (B, Cin, H, W)
    weight:  float tensor (Cout, Cin, Kh, Kw)
    bias:    float tensor (Cout,), one value per output channel
    stride:  S, the same along both axes
    padding: P, the number of rows and columns of zeros that are added on each side

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
# The next figure applies three kernels to the photograph: two edge filters, and a blur with stride 3. Compare the two
# edge filters: which edges does each of them miss? These kernels were designed by people. In a network, the weights of
# the kernels are learned.

# %% name="loops_figure" role="show"
blur = torch.full((1, 1, 5, 5), 1 / 25, dtype=torch.float64)
kernels = [("vertical edges", sobel, 1), ("horizontal edges", sobel.mT, 1), ("blur, stride 3", blur, 3)]
convolve, no_bias = use(conv2d_loops), torch.zeros(1, dtype=torch.float64)
fig, axes = plt.subplots(2, 2, figsize=(6.4, 6.4), layout="constrained")
axes = axes.ravel()
axes[0].imshow(photo[0, 0], cmap="gray")
axes[0].set_title("image, 70 x 70", fontsize=10)
titles = []
for ax, (name, kernel, stride) in zip(axes[1:], kernels, strict=True):
    result = torch.as_tensor(convolve(photo, kernel, no_bias, stride, 1))[0, 0]
    ax.imshow(result, cmap="gray")
    titles.append(f"{name}, {result.shape[0]} x {result.shape[1]}")
    ax.set_title(titles[-1], fontsize=10)
for ax in axes:
    ax.set_axis_off()
show(fig, alt=f"A photograph and three convolutions of it: {'; '.join(titles)}.")

# %% [markdown] name="pool_idea"
# ## 3. Pooling and unpooling (3 points)
#
# **Idea.** Pooling keeps one value per window: the maximum, or the mean. This lowers the resolution, and the position
# of the maximum is lost *unless you store it*. The decoder of SegNet is based on this observation. For each window,
# the encoder stores the index of the maximum. In the decoder, max unpooling puts each value back at this index. The
# result is sparse, and the convolutions that follow fill the gaps.
#
# **The index** counts the pixels of one plane in reading order: pixel $(y, x)$ has the index $yW + x$, where $W$ is
# the width of the plane. Each image and each channel has its own indices.
#
# **Worked example.** The next figure shows a 4x4 plane and its pooling with windows of 2x2. The maxima 4, 5, 6 and 8
# have the indices 4, 7, 8 and 14. For example, the maximum 8 is in row 3 and column 2, so its index is
# $3 \cdot 4 + 2 = 14$. The last two panels show average pooling and average unpooling.

# %% name="pool_picture" role="show"
plane = torch.tensor([[1.0, 3, 2, 1], [4, 2, 0, 5], [6, 1, 3, 2], [0, 2, 8, 4]])
maxima, indices = F.max_pool2d(plane[None, None], 2, return_indices=True)
mean = F.avg_pool2d(plane[None, None], 2)[0, 0]
panels = {"plane": plane, "max pooling": maxima[0, 0], "indices": indices[0, 0], "average pooling": mean}
panels["average unpooling"] = mean.repeat_interleave(2, 0).repeat_interleave(2, 1)
fig, axes = plt.subplots(2, 3, figsize=(7, 4.8), layout="constrained")
axes[1, 2].set_axis_off()
for ax, (name, grid) in zip(axes.flat, panels.items(), strict=False):
    ax.imshow(grid, cmap="cividis", vmin=0, vmax=16 if name == "indices" else 8)
    for (y, x), value in np.ndenumerate(grid.numpy()):
        ax.text(x, y, f"{value:g}", ha="center", va="center", color="white" if value < 5 else "black")
    ax.set_title(name, fontsize=10)
    ax.set(xticks=[], yticks=[])
show(
    fig,
    alt=f"A plane {plane.tolist()}, its maxima {maxima.flatten().tolist()}, their indices, "
    "the means of its windows, and a plane in which each window is filled with its mean.",
)

# %% [markdown] name="unpool_formula"
# Average unpooling fills each window with its mean. Max unpooling puts each maximum at its index, and writes 0
# everywhere else.
#
# Max unpooling needs two conventions:
#
# - *Size.* With 2x2 windows, planes of 4 rows and of 5 rows are both pooled to 2 rows. The size before the pooling
#   must therefore be an argument.
# - *Shared maxima.* If windows overlap, two of them can have their maximum at the same pixel. The index of this pixel
#   then occurs twice, both times with the same value. Unpooling writes this value to the pixel, and does not add the
#   two values.


# %% name="max_unpool" role="solution"
def max_unpool(values, indices, size):
    """Put each maximum back at its position before the pooling.

    values:  float tensor (B, C, h, w), the maxima
    indices: int64 tensor (B, C, h, w), the index y * W + x of each maximum in the plane of the same image
             and channel; an index that occurs twice in a plane has the same value both times
    size:    (H, W), the size before the pooling

    Returns a float tensor (B, C, H, W) with each value at its index, and 0 where there was no maximum.
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
# The next figure starts with the edges of the photograph, pooled with windows of 4x4. The two panels below
# restore the size by max unpooling and by average unpooling. In which of them are the outlines still at their original
# positions?

# %% name="unpool_figure" role="show"
fine = F.conv2d(photo, sobel, padding=1).abs()[..., :68, :68]
maxima, indices = F.max_pool2d(fine, 4, return_indices=True)
unpooled = torch.as_tensor(use(max_unpool)(maxima, indices, (68, 68)))
smooth = F.avg_pool2d(fine, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
panels = {"edges": fine, "max pooled": maxima, "max unpooled": unpooled, "average pooled and unpooled": smooth}
fig, axes = plt.subplots(2, 2, figsize=(6.6, 6.8), layout="constrained")
for ax, (name, grid) in zip(axes.flat, panels.items(), strict=True):
    ax.imshow(grid[0, 0], cmap="gray", vmin=0, vmax=2)
    ax.set_title(f"{name}, {grid.shape[2]} x {grid.shape[3]}", fontsize=9)
    ax.set_axis_off()
fraction = float((unpooled != 0).double().mean())
alt = f"Edges, their maxima, the maxima at their positions ({fraction:.1%} of pixels are not 0), and blocks of means."
show(fig, alt=alt)

# %% [markdown] name="tconv_idea"
# ## 4. The size after a transposed convolution (3 points)
#
# **Idea.** A transposed convolution reverses the change of *size* that a convolution causes. Each input pixel adds one
# whole patch, the kernel times the value of the pixel, to the output. The patches of neighbouring input pixels are $S$
# pixels apart. A convolution adds its padding at the start, so the transposed convolution *crops* the padding at the
# end.
#
# **Formula.** The output size consists of $H-1$ steps of $S$ pixels and the span of one kernel, minus the $P$ pixels
# that are cropped from each side, plus the *output padding* $OP$:
#
# $$H_{\text{out}} = (H - 1)S - 2P + D(K - 1) + 1 + OP$$
#
# Why is the output padding needed? In the homework, the convolution maps both 7 and 8 pixels to 4, so in the reverse
# direction there are two possible sizes for 4 pixels. Without output padding, the transposed convolution gives the
# smaller size, 7. With $OP = 1$, one more row and one more column are kept at the end, which gives 8. The convolution
# can leave up to $S - 1$ pixels unused, so $OP$ is smaller than $S$. (PyTorch also accepts an $OP$ up to $D - 1$.)
#
# **Worked example.** With $K = 3$, $S = 2$ and $P = 0$, 2 pixels become $1 \cdot 2 + 2 + 1 = 5$. With $P = 1$, 4
# pixels become $3 \cdot 2 - 2 + 2 + 1 = 7$, and 8 with $OP = 1$.


# %% name="tconv_out" role="solution"
def tconv_out(size, kernel_size, stride, padding, output_padding, dilation):
    """Compute the output size of a transposed convolution along one axis.

    size:           H, the number of pixels of the input
    kernel_size:    K, the number of taps of the kernel
    stride:         S, the distance between the patches of neighbouring input pixels
    padding:        P, the number of pixels cropped from each of the two sides
    output_padding: OP, the number of additional pixels at the end of the result
    dilation:       D, the distance between neighbouring taps, at least 1

    All arguments are integers, and the result has at least one pixel. Returns an integer.
    """
    ### BEGIN SOLUTION: add the steps and the span of the kernel, subtract the padding, add the output padding
    span = dilation * (kernel_size - 1) + 1
    return (size - 1) * stride + span - 2 * padding + output_padding
    ### END SOLUTION


# %% name="check_tconv_out" role="check"
check(tconv_out)

# %% [markdown] name="tconv_figure_text"
# The next figure applies the convolution of the homework to sizes from 5 to 12 (top row), and the transposed
# convolution to the resulting sizes (middle row). The convolution maps two input sizes to each output size. Only with
# output padding (dashed arrows) does the transposed convolution restore the larger of the two.

# %% name="tconv_figure" role="show"
fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
up_size, down_size, restored = use(tconv_out), use(conv_out), {}
for h in range(5, 13):
    small = down_size(h, 3, 2, 1, 1)
    ax.annotate("", xy=(small, 1), xytext=(h, 2), arrowprops={"arrowstyle": "->", "color": "#0072B2", "shrinkB": 10})
    restored[small] = [up_size(small, 3, 2, 1, extra, 1) for extra in (0, 1)]
for small, sizes in restored.items():
    for extra, size in enumerate(sizes):
        style = {"arrowstyle": "->", "color": "#D55E00", "linestyle": ("-", "--")[extra], "shrinkB": 10}
        ax.annotate("", xy=(size, 0), xytext=(small, 1), arrowprops=style)
for row, sizes in enumerate([sorted(sum(restored.values(), [])), list(restored), range(5, 13)]):
    for n in sizes:
        ax.text(n, row, n, ha="center", va="center", bbox={"boxstyle": "circle", "fc": "white", "ec": "#666666"})
ax.set(xlim=(2, 13), ylim=(-0.4, 2.4), xticks=[])
ax.set_yticks([2, 1, 0], ["input size", "convolution", "transposed\n(dashed: OP = 1)"])
show(
    fig,
    alt="The convolution maps pairs of the sizes 5 to 12 to the same size. "
    f"The transposed convolution maps each of these sizes back, without and with output padding: {restored}.",
)

# %% [markdown] name="scatter_idea"
# ## 5. Transposed convolution (4 points)
#
# **Idea.** A convolution gathers: for each output pixel, it reads a window of the input. A transposed convolution
# scatters: for each *input* pixel, it adds a patch to the output. The patch is the value of the pixel times the
# kernel, which is not flipped. Where patches overlap, their values add up. The operation is often called
# deconvolution. This name is misleading, because the operation restores only the shape of the input of a convolution,
# not its values.
#
# **Worked example in 1-D.** The input has the pixels 1, 2, the kernel is (1, 2, 3), and the stride is 2. The first
# pixel adds 1, 2, 3 at positions 0 to 2. The second pixel adds 2, 4, 6 at positions 2 to 4. The sum is 1, 2, **5**,
# 4, 6. With $P = 1$, the first and the last position are cropped, which leaves 2, 5, 4.
#
# **The weight** has the shape $(C_{in}, C_{out}, K_h, K_w)$. The same array is the weight of the convolution in the
# opposite direction. The output channels of that convolution, which come first in its weight, are the input channels of
# the transposed convolution.
#
# **Picture.** The next figure shows a 2x2 image that becomes a 5x5 map, with a 3x3 kernel of ones and stride 2. The
# first four panels show the patch of each input pixel, and the last panel shows the sum of the four patches.

# %% name="scatter_picture" role="show"
image = torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64)
kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
fig, axes = plt.subplots(2, 3, figsize=(7, 4.8), layout="constrained")
axes = axes.ravel()
axes[5].set_axis_off()
total = torch.zeros(5, 5, dtype=torch.float64)
for k, (y, x) in enumerate(np.ndindex(2, 2)):
    one = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    one[0, 0, y, x] = image[y, x]
    patch = F.conv_transpose2d(one, kernel, stride=2)[0, 0]
    total += patch
    axes[k].set_title(f"pixel ({y}, {x}), value {image[y, x]:g}", fontsize=9)
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
    """Compute the transposed convolution of a batch of images, without flipping the kernel.

    images:  float tensor (B, Cin, H, W)
    weight:  float tensor (Cin, Cout, Kh, Kw), with the input channel first
    stride:  S, the distance between the patches of neighbouring input pixels
    padding: P, the number of rows and columns cropped from each side of the result

    Returns a float tensor (B, Cout, (H - 1) * S + Kh - 2 * P, (W - 1) * S + Kw - 2 * P).
    Do not change the arguments.
    """
    ### BEGIN SOLUTION: for each input pixel, add its patch to a map of zeros; finally crop P from each side
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
# **Why "transposed"?** A convolution without bias is linear, so it is the multiplication by a matrix $W$. Each column
# of $W$ is the result for an image with a single 1 and zeros elsewhere. The next figure shows this matrix, computed
# with your `conv2d_loops`, and the matrix of the transposed convolution, computed in the same way with your `tconv2d`.
# How are the two matrices related?

# %% name="matrix_figure" role="show"
kernel = torch.arange(1.0, 10, dtype=torch.float64).reshape(1, 1, 3, 3)
ones = torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)
forward = torch.as_tensor(use(conv2d_loops)(ones, kernel, no_bias, 1, 0)).reshape(16, 4).T
ones = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
backward = torch.as_tensor(use(tconv2d)(ones, kernel, 1, 0)).reshape(4, 16).T
fig, axes = plt.subplots(1, 2, figsize=(8, 4.8), layout="constrained", width_ratios=(3, 1))
for ax, name, matrix in ((axes[0], "convolution, 4x4 to 2x2", forward), (axes[1], "transposed, 2x2 to 4x4", backward)):
    ax.imshow(matrix, cmap="cividis")
    for (i, j), value in np.ndenumerate(matrix.numpy()):
        if value:
            ax.text(j, i, f"{value:g}", ha="center", va="center", color="white" if value < 5 else "black", fontsize=8)
    ax.set(xlabel="input pixel", ylabel="output pixel", xticks=[], yticks=[])
    ax.set_title(name, fontsize=10)
equal = torch.equal(forward.T, backward)
print("The second matrix is the transpose of the first:", equal)
show(fig, alt=f"A 4 by 16 matrix with nine values per row, and a 16 by 4 matrix; transposes of each other: {equal}.")

# %% [markdown] name="checker_text"
# **Checkerboards.** The next figure shows transposed convolutions of a constant image with constant kernels and
# stride 2. The value at each pixel is the number of patches that overlap there. With $K = 3$, this number differs
# between neighbouring pixels: 1, 2 or 4. With $K = 2$ and $K = 4$, which are multiples of the stride, the number is the
# same at all inner pixels. A network can learn weights that compensate for an uneven overlap, but it often does so only
# partly. Its output then shows a checkerboard pattern.

# %% name="checker_figure" role="show"
flat = torch.ones(1, 1, 6, 6, dtype=torch.float64)
fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
counts = []
for ax, k in zip(axes, (2, 3, 4), strict=True):
    board = torch.as_tensor(use(tconv2d)(flat, torch.ones(1, 1, k, k, dtype=torch.float64), 2, 0))[0, 0]
    inner = sorted(set(board[3:-3, 3:-3].flatten().tolist()))
    ax.imshow(board, cmap="cividis", vmin=0, vmax=4)
    counts.append(f"K = {k}: {', '.join(f'{v:g}' for v in inner)}")
    ax.set_title(f"patches per pixel, {counts[-1]}", fontsize=10)
    ax.set_axis_off()
show(
    fig,
    alt="Transposed convolutions of a constant image with stride 2. "
    f"Number of patches that overlap at an inner pixel: {'; '.join(counts)}.",
)

# %% [markdown] name="field_idea"
# ## 6. The receptive field (3 points)
#
# **Dilated is not transposed.** Both operations can be computed by inserting zeros, and both have been called
# "atrous". A *dilated* (atrous) convolution inserts zeros between the taps of its kernel. With $K = 3$, $D = 2$ and
# $P = 2$, 7 pixels remain 7, and each output pixel depends on a wider range of the input. A *transposed* (fractionally
# strided) convolution inserts zeros between the pixels of its input. With $K = 3$ and $S = 2$, 7 pixels become 15.
#
# **Idea.** On how many pixels of the image does one pixel of a deep map depend? These pixels are its receptive field.
# You can compute the receptive field layer by layer, starting at the image, with three values:
#
# - the *size* of the receptive field along one axis, from its first to its last pixel, which starts at 1;
# - the *jump*, the distance in image pixels between two neighbouring pixels of the current map, which starts at 1;
# - the *padding*, the number of pixels by which the first receptive field extends beyond the edge of the image, which
#   starts at 0.
#
# **Formula.** A layer with $K, S, P, D$ changes the three values in this order:
#
# $$\text{size} \mathrel{+}= D(K-1) \cdot \text{jump} \qquad \text{padding} \mathrel{+}= P \cdot \text{jump} \qquad
# \text{jump} \mathrel{\times}= S$$
#
# The output of a whole stack of layers therefore depends on the same range of pixels as the output of one convolution
# whose kernel size is the final size, whose stride is the final jump, and whose padding is the final padding. A pooling
# counts like any other layer.
#
# **Worked example.** Two 3x3 convolutions with stride 1 increase the size from 1 to 3 and then to 5. A pooling with
# kernel size 2 and stride 2 follows: the size becomes $5 + 1 \cdot 1 = 6$, and the jump becomes 2. One more 3x3
# convolution increases the size to $6 + 2 \cdot 2 = 10$.


# %% name="receptive_field" role="solution"
def receptive_field(layers):
    """Compute the receptive field of a stack of layers along one axis.

    layers: list of tuples (name, kernel_size, stride, padding, dilation), from input to output;
            the name is "conv" or "pool"; the list may be empty

    Returns a tuple of three integers (size, jump, padding): the receptive field of output pixel u is a
    range of `size` input pixels, starting at pixel u * jump - padding. Without any layer, returns
    (1, 1, 0).
    """
    ### BEGIN SOLUTION: start with (1, 1, 0), and update the three values for each layer
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
# The next figure compares three ways to enlarge the receptive field with 3x3 kernels. Ordinary convolutions add 2
# pixels per layer. Each pooling doubles what every later layer adds, but it lowers the resolution. Dilations of 1, 2,
# 4 and so on double the contribution as well, and keep the resolution.

# %% name="field_figure" role="show"
field, conv, pool = use(receptive_field), ("conv", 3, 1, 1, 1), ("pool", 2, 2, 0, 1)
stacks = {
    "ordinary 3x3": [conv] * 10,
    "3x3 and pooling by 2, alternating": [conv, pool] * 5,
    "dilation 1, 2, 4, ...": [("conv", 3, 1, 2**i, 2**i) for i in range(7)],
}
fig, ax = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
summary = []
for (name, stack), style in zip(stacks.items(), ("o-", "s--", "^:"), strict=True):
    sizes = [field(stack[:n])[0] for n in range(len(stack) + 1)]
    jump = field(stack)[1]
    ax.plot(range(len(sizes)), sizes, style, label=f"{name}: final jump {jump}")
    summary.append(f"{name}: {sizes[-1]} pixels after {len(stack)} layers, jump {jump}")
ax.set(xlabel="number of layers", ylabel="receptive field (pixels)", yscale="log")
ax.legend()
show(fig, alt=f"The receptive field against the number of layers. {'; '.join(summary)}.")

# %% [markdown] name="widget_text"
# ## Explore the kernel
#
# The next cell shows two explorers. In the first one, a convolution, click an output pixel to mark its window in the
# input, or choose the pixel with the sliders "output row" and "output column". Keep $K=3$, $S=2$, $P=1$, and change $H$
# from 7 to 8. Which rows and columns of the padded input are struck through, because they are not used? The second
# explorer is a transposed convolution. Click an input pixel to mark its patch in the output. Then let the output cells
# show the "number of patches", and read how many patches overlap at each output pixel. For which strides is the number
# the same everywhere, except at the border?

# %% name="grids_widget" role="widget"
from segedu.teaching.widgets.convolution import explorer

explorer()

# %% [markdown] name="scale_text"
# ## At scale
#
# Loops in Python are too slow for real networks. A classic alternative copies every window into a column of a matrix
# (*im2col*), so that the convolution becomes one matrix product. This needs more memory: with a 3x3 kernel, each pixel
# is copied nine times. The next cell measures the time of im2col, of PyTorch's convolution, which chooses among
# several methods, and of your loops.

# %% name="scale" role="train"
import time

from tqdm.auto import tqdm

SCALE = "gpu" if torch.cuda.is_available() else "cpu"
BATCH, CHANNELS, SIDE, REPEATS = {"cpu": (2, 32, 64, 5), "gpu": (16, 64, 256, 20)}[SCALE]


def im2col(images, weight):
    """Compute a 3x3 convolution with padding 1 as one matrix product."""
    columns = F.unfold(images, 3, padding=1)  # (B, 9 * Cin, H * W)
    return (weight.flatten(1) @ columns).unflatten(2, images.shape[2:])


def speed(function, images, weight):
    """Measure the median time per call in milliseconds, and the multiplications per second in billions."""
    work, times = images[:, 0].numel() * weight.numel(), []
    for _ in tqdm(range(REPEATS + 1), desc=function.__name__, leave=False):
        start = time.perf_counter()
        out = function(images, weight)
        float(torch.as_tensor(out).flatten()[-1])  # waits for the GPU
        times.append(time.perf_counter() - start)
    median = sorted(times[1:])[REPEATS // 2]  # the first call, which warms up, is not counted
    return f"{1e3 * median:8.2f} ms, {work / median / 1e9:9.4f} billion multiplications per second"


def torch_conv(images, weight):
    return F.conv2d(images, weight, padding=1)


def your_loops(images, weight):
    return use_loops(images, weight, torch.zeros(len(weight)), 1, 1)


use_loops = use(conv2d_loops)
torch.manual_seed(0)
images, weight = torch.rand(BATCH, CHANNELS, SIDE, SIDE), torch.randn(CHANNELS, CHANNELS, 3, 3)
for device in ("cpu", "cuda") if SCALE == "gpu" else ("cpu",):
    inputs = (images if device == SCALE or device == "cuda" else images[:2]).to(device), weight.to(device)
    difference = float((im2col(*inputs) - torch_conv(*inputs)).abs().max())
    print(f"{device}, {tuple(inputs[0].shape)} (largest difference between im2col and PyTorch {difference:.1e})")
    for function in (torch_conv, im2col):
        print(f"  {function.__name__:<11}{speed(function, *inputs)}")
print(f"  {'your loops':<11}{speed(your_loops, images[:1, :4, :16, :16], weight[:4, :4])} (on 16 x 16 pixels)")

# %% [markdown] name="quiz"
# ## Quiz
#
# **1.** Find the error: "$H_{out} = (H - K + 2P)/S + 1$."
#
# <details><summary>Answer</summary>
#
# The rounding down and the dilation are missing. With K = 3, S = 2, P = 1, the formula gives 4.5 for 8 pixels.
#
# </details>
#
# **2.** Find the error in this statement from a textbook. Apply a convolution f to X, which gives Y = f(X), and let g
# be the transposed convolution with the same kernel size, padding and stride. "Then g(Y) will have the same shape as
# X."
#
# <details><summary>Answer</summary>
#
# This is true only if the rounding in f discards nothing. With K = 3, S = 2, P = 1, an X of 8 pixels gives a Y of 4
# pixels, and g(Y) has 7. An output padding of 1 corrects this.
#
# </details>
#
# **3.** Find the error: "Atrous, dilated, transposed and fractionally strided convolution are four names of one
# operation."
#
# <details><summary>Answer</summary>
#
# They are names of two operations. An atrous convolution is a dilated convolution: the zeros are in the kernel, and
# the resolution stays the same. A transposed convolution is a fractionally strided convolution: the zeros are in the
# input, and the resolution increases.
#
# </details>
#
# **4.** Find the error: "FCN turns VGG's three fully connected layers into 1-D convolutions."
#
# <details><summary>Answer</summary>
#
# The convolutions are 2-D. The input of the first fully connected layer is a map of 7x7, so the layer becomes a 7x7
# convolution. The other two layers become 1x1 convolutions.
#
# </details>
#
# **5.** A decoder upsamples by transposed convolutions with kernel size 3 and stride 2, and its outputs show a fine
# grid. What is the reason, and what helps?
#
# <details><summary>Answer</summary>
#
# The patches overlap unevenly: 1, 2 or 4 patches add up at a pixel. Two remedies avoid the uneven overlap: a kernel
# size that is a multiple of the stride, or resizing followed by a convolution.
#
# </details>
#
# **6.** You add a 3x3 convolution with stride 1 either before or after a pooling by 2. By how much does it enlarge the
# receptive field in each case?
#
# <details><summary>Answer</summary>
#
# Before the pooling, by 2 pixels. After the pooling, by 4 pixels, because neighbouring pixels of the pooled map are
# two image pixels apart.
#
# </details>

# %% [markdown] name="next"
# ## What next
#
# - [The pages of chapter 3](../course/03-convolution/index.md) contain the reading list.
# - Chapter 5 builds FCN and SegNet from these operations.
# - In lab 6 you follow the sizes of a U-Net from 572 pixels to 388 pixels.
# - Chapter 8 uses dilation to keep the resolution of deep maps.
#
# Before you hand in this notebook, save it, and run `segedu check labs/03_convolution.ipynb` in a terminal. The command
# runs the notebook as the grader will, and prints your points and the feedback.
