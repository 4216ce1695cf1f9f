"""Right answers of different kinds; every one must be accepted."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def kernel_by_unflatten(weight, bias, kernel_size):
    return weight.unflatten(1, (-1, *kernel_size)), bias


def kernel_in_loops(weight, bias, kernel_size):
    h, w = kernel_size
    C = weight.shape[1] // (h * w)
    kernel = torch.zeros(weight.shape[0], C, h, w, dtype=weight.dtype)
    for c in range(C):
        for y in range(h):
            for x in range(w):
                kernel[:, c, y, x] = weight[:, c * h * w + y * w + x]
    return kernel, bias.clone()


def kernel_through_numpy(weight, bias, kernel_size):
    return np.array(weight).reshape(len(weight), -1, *kernel_size), np.array(bias)


def kernel_of_a_conv2d(weight, bias, kernel_size):
    channels = weight.shape[1] // (kernel_size[0] * kernel_size[1])
    layer = torch.nn.Conv2d(channels, len(weight), kernel_size, dtype=weight.dtype)
    layer.weight.data.copy_(weight.view(layer.weight.shape))
    layer.bias.data.copy_(bias)
    return layer.weight, layer.bias


def bilinear_in_numpy(channels, kernel_size):
    factor = (kernel_size + 1) // 2
    centre = factor - 1 if kernel_size % 2 == 1 else factor - 0.5
    rows, columns = np.ogrid[:kernel_size, :kernel_size]
    plane = (1 - abs(rows - centre) / factor) * (1 - abs(columns - centre) / factor)
    kernel = np.zeros((channels, channels, kernel_size, kernel_size))
    kernel[range(channels), range(channels)] = plane
    return kernel


def bilinear_in_loops(channels, kernel_size):
    half = -(-kernel_size // 2)
    kernel = torch.zeros(channels, channels, kernel_size, kernel_size)
    for c in range(channels):
        for y in range(kernel_size):
            for x in range(kernel_size):
                dy, dx = abs(y - (kernel_size - 1) / 2), abs(x - (kernel_size - 1) / 2)
                kernel[c, c, y, x] = (1 - dy / half) * (1 - dx / half)
    return kernel


def bilinear_by_convolved_boxes(channels, kernel_size):
    """A tent is a box convolved with a box."""
    half = -(-kernel_size // 2)
    box = np.ones(half)
    tent = np.convolve(box, box) if kernel_size % 2 else np.convolve(np.convolve(box, box), [0.5, 0.5])
    return torch.einsum("io,y,x->ioyx", torch.eye(channels).double(), *[torch.tensor(tent / half)] * 2)


def fuse_in_a_loop(score32, score16, score8, kernel, offsets):
    scores = score32
    for skip, offset in zip((score16, score8), offsets, strict=True):
        scores = F.conv_transpose2d(scores, kernel, stride=2)
        scores = scores + skip[:, :, offset:, offset:][:, :, : scores.shape[2], : scores.shape[3]]
    return scores


def fuse_with_modules(score32, score16, score8, kernel, offsets):
    up = torch.nn.ConvTranspose2d(*kernel.shape[:2], 4, stride=2, bias=False, dtype=kernel.dtype)
    up.weight.data = kernel
    x = up(score32)
    x += score16.narrow(2, offsets[0], x.shape[2]).narrow(3, offsets[0], x.shape[3])
    x = up(x)
    x += score8.narrow(2, offsets[1], x.shape[2]).narrow(3, offsets[1], x.shape[3])
    return x


def fuse_by_stamps(score32, score16, score8, kernel, offsets):
    """The transposed convolution stamp by stamp, into a copy of the cut skip."""
    scores = score32.numpy()
    for skip, offset in ((score16, offsets[0]), (score8, offsets[1])):
        B, K, h, w = scores.shape
        out = skip.numpy()[:, :, offset : offset + 2 * h + 2, offset : offset + 2 * w + 2].copy()
        for y, x in np.ndindex(h, w):
            patch = np.einsum("bc,coij->boij", scores[:, :, y, x], kernel.numpy())
            out[:, :, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4] += patch
        scores = out
    return scores


def decode_with_torch(features, indices, sizes, weights):
    last = len(weights) - 1
    for step in range(len(weights)):
        i = last - step
        features = F.max_unpool2d(features, indices[i], 2, output_size=[*features.shape[:2], *sizes[i]])
        features = F.conv2d(features, weights[i], padding=1)
        if i > 0:
            features = F.relu(features)
    return features


def decode_recursively(features, indices, sizes, weights):
    if not indices:
        return features
    features = features if len(indices) == len(weights) else features.clamp(min=0)
    *rest, where = indices
    flat = features.new_zeros(*features.shape[:2], sizes[-1][0] * sizes[-1][1])
    sparse = flat.scatter(2, where.flatten(2), features.flatten(2)).unflatten(2, sizes[-1])
    scores = F.conv2d(sparse, weights[-1], padding="same")
    if not rest:
        return scores
    return decode_recursively(scores.relu(), rest, sizes[:-1], weights[:-1])


def decode_in_numpy(features, indices, sizes, weights):
    for i in (*range(len(indices) - 1, 0, -1), 0):
        B, C = features.shape[:2]
        plane = np.zeros((B, C, *sizes[i]))
        for b, c in np.ndindex(B, C):
            plane[b, c].flat[indices[i][b, c].numpy()] = np.asarray(features[b, c])
        features = F.conv2d(torch.from_numpy(plane), weights[i], padding=1)
        if i:
            features[features < 0] = 0
    return features


def ce_with_torch(logits, target, ignore_index):
    if (target == ignore_index).all():
        return logits.sum() * 0
    return F.cross_entropy(logits, target, ignore_index=ignore_index)


def ce_of_chosen_pixels(logits, target, ignore_index):
    counted = target != ignore_index
    scores, truth = logits.movedim(1, -1)[counted], target[counted]
    if len(truth) == 0:
        return 0.0
    return (torch.logsumexp(scores, 1) - scores[torch.arange(len(truth)), truth]).mean()


def ce_one_hot(logits, target, ignore_index):
    K = logits.shape[1]
    one_hot = (target[:, None] == torch.arange(K)[None, :, None, None]) & (target != ignore_index)[:, None]
    return -(one_hot * torch.log_softmax(logits, 1)).sum() / max(1, int((target != ignore_index).sum()))


def ce_sum_then_divide(logits, target, ignore_index):
    total = F.nll_loss(F.log_softmax(logits, 1), target, ignore_index=ignore_index, reduction="sum")
    return total / (target != ignore_index).sum().clamp(min=1)


def augment_with_interpolate(image, target, flip, factor, border):
    if flip:
        image, target = torch.flip(image, [2]), torch.flip(target, [1])
    size = [factor * side for side in target.shape]
    image = F.interpolate(image[None], size=size, mode="bilinear")[0]
    target = F.interpolate(target[None, None].double(), size=size, mode="nearest")[0, 0].long()
    return F.pad(image, (border, border, border, border)), F.pad(target, (border,) * 4, value=255)


def augment_with_torchvision(image, target, flip, factor, border):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as V

    size = [factor * side for side in target.shape]
    target = target[None]
    if flip:
        image, target = V.horizontal_flip(image), V.horizontal_flip(target)
    image = V.resize(image, size, InterpolationMode.BILINEAR)
    target = V.resize(target, size, InterpolationMode.NEAREST)
    return V.pad(image, [border] * 4), V.pad(target, [border] * 4, fill=255)[0]


def augment_in_numpy(image, target, flip, factor, border):
    image, target = image.numpy(), target.numpy()
    if flip:
        image, target = image[:, :, ::-1], target[:, ::-1]
    target = np.kron(target, np.ones((factor, factor), dtype=target.dtype))
    weights = []
    for side in image.shape[1:]:
        at = np.clip((np.arange(side * factor) + 0.5) / factor - 0.5, 0, side - 1)
        weights.append(np.clip(1 - abs(at[:, None] - np.arange(side)), 0, None))
    image = np.einsum("yh,chw,xw->cyx", weights[0], image, weights[1])
    sides = [(border, border)] * 2
    return np.pad(image, [(0, 0), *sides]), np.pad(target, sides, constant_values=255)


ALTERNATIVES = {
    "fc_to_conv": [kernel_by_unflatten, kernel_in_loops, kernel_through_numpy, kernel_of_a_conv2d],
    "bilinear_kernel": [bilinear_in_numpy, bilinear_in_loops, bilinear_by_convolved_boxes],
    "fcn8_fuse": [fuse_in_a_loop, fuse_with_modules, fuse_by_stamps],
    "segnet_decode": [decode_with_torch, decode_recursively, decode_in_numpy],
    "pixel_ce": [ce_with_torch, ce_of_chosen_pixels, ce_one_hot, ce_sum_then_divide],
    "joint_augment": [augment_with_interpolate, augment_with_torchvision, augment_in_numpy],
}
