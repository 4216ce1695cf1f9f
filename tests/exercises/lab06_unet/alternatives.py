"""Right answers of other kinds than the library's: each must be accepted."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial.distance import cdist
from torch import nn
from torchvision.transforms.v2.functional import crop


class FunctionalDoubleConv(nn.Module):
    """Functional ReLUs; the layers are built in the wrong order, which must not matter."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.second = nn.Conv2d(out_channels, out_channels, (3, 3), padding="valid")
        self.first = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x):
        return self.second(self.first(x).relu()).clamp(min=0)


class BareParameters(nn.Module):
    """No layers at all: parameters and F.conv2d."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3).normal_())
        self.b1 = nn.Parameter(torch.zeros(out_channels))
        self.w2 = nn.Parameter(torch.empty(out_channels, out_channels, 3, 3).normal_())
        self.b2 = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x):
        return F.relu(F.conv2d(F.relu(F.conv2d(x, self.w1, self.b1)), self.w2, self.b2))


def sequential_double_conv(in_channels, out_channels):
    layers = []
    for before in (in_channels, out_channels):
        layers += [nn.Conv2d(before, out_channels, 3), nn.Threshold(0.0, 0.0)]
    return nn.Sequential(*layers)


def crop_with_torchvision(skip, up):
    h, w = up.shape[-2:]
    top, left = (skip.shape[-2] - h) // 2, (skip.shape[-1] - w) // 2
    return torch.concat([crop(skip, top, left, h, w), up], 1)


def crop_by_negative_padding(skip, up):
    rows, columns = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
    cut = F.pad(skip, (-(columns // 2), -(columns - columns // 2), -(rows // 2), -(rows - rows // 2)))
    return torch.hstack((cut, up))


def crop_in_numpy_loop(skip, up):
    skip, up = skip.numpy(), up.numpy()
    batch, c, height, width = skip.shape
    _, d, h, w = up.shape
    out = np.empty((batch, c + d, h, w), dtype=np.float64)
    for y in range(h):
        for x in range(w):
            out[:, :c, y, x] = skip[:, :, y + (height - h) // 2, x + (width - w) // 2]
    out[:, c:] = up
    return out


def crop_by_gather(skip, up):
    rows = torch.arange(up.shape[2]) + (skip.shape[2] - up.shape[2]) // 2
    columns = torch.arange(up.shape[3]) + (skip.shape[3] - up.shape[3]) // 2
    return torch.cat((skip.index_select(2, rows).index_select(3, columns), up), dim=-3)


def size_by_walk(size, depth=4):
    for _ in range(depth):
        size = size - 2 - 2
        if size % 2 == 1 or size <= 0:
            raise ValueError("illegal")
        size = size // 2
    size = size - 4
    for _ in range(depth):
        size = size * 2 - 2 - 2
    if size <= 0:
        raise ValueError("nothing left")
    return size


def size_in_closed_form(size, depth=4):
    lost = 4 * (2**depth - 1)
    if (size - lost) % 2**depth:
        raise ValueError("odd")
    out = size - 2 * lost - 4 * 2**depth
    if out < 1:
        raise ValueError("too small")
    return out


def size_by_recursion(size, depth=4):
    if depth == 0:
        out = size - 4
    else:
        half = (size - 4) / 2
        if half != int(half):
            raise ValueError("odd")
        out = 2 * _inner(int(half), depth - 1) - 4
    if out < 1:
        raise ValueError("too small")
    return out


def _inner(size, depth):
    return size_by_recursion(size, depth) if size > 4 else _refuse()


def _refuse():
    raise ValueError("too small")


class RecursiveUNet(nn.Module):
    """A U around a smaller U; the head is at the outermost level only."""

    def __init__(self, in_channels, out_channels, width, depth):
        super().__init__()
        self.head = nn.Conv2d(width, out_channels, 1) if out_channels else nn.Identity()
        self.down = self.block(in_channels, width)
        self.inner = None
        if depth:
            self.inner = RecursiveUNet(width, 0, 2 * width, depth - 1)
            self.merge = self.block(2 * width, width)
            self.up = nn.ConvTranspose2d(2 * width, width, kernel_size=2, stride=2)
            self.pool = nn.MaxPool2d(2)

    @staticmethod
    def block(a, b):
        conv1, conv2 = nn.Conv2d(a, b, 3, padding="same"), nn.Conv2d(b, b, 3, 1, 1)
        return nn.Sequential(conv1, nn.ReLU(True), conv2, nn.ReLU(True))

    def forward(self, x):
        skip = self.down(x)
        if self.inner is None:
            return self.head(skip)
        return self.head(self.merge(torch.cat((skip, self.up(self.inner(self.pool(skip)))), 1)))


def recursive_unet(in_channels, num_classes, base_channels, depth):
    return RecursiveUNet(in_channels, num_classes, base_channels, depth)


class FlatUNet(nn.Module):
    """Lists of single layers; pooling by reshape and amax; padding by F.pad; concatenation into a buffer."""

    def __init__(self, in_channels, num_classes, base_channels, depth):
        super().__init__()
        self.depth, before = depth, in_channels
        self.convs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in range(depth + 1):
            self.add(before, base_channels << level)
            before = base_channels << level
        for level in reversed(range(depth)):
            self.ups.append(nn.ConvTranspose2d(before, base_channels << level, 2, 2))
            self.add(before, base_channels << level)
            before = base_channels << level
        self.last = nn.Conv2d(before, num_classes, kernel_size=(1, 1))

    def add(self, before, after):
        self.convs.extend([nn.Conv2d(before, after, 3), nn.Conv2d(after, after, 3)])

    def twice(self, x, k):
        for conv in self.convs[2 * k : 2 * k + 2]:
            x = torch.maximum(conv(F.pad(x, (1, 1, 1, 1))), torch.zeros(()))
        return x

    def forward(self, x):
        kept = [self.twice(x, 0)]
        for k in range(1, self.depth + 1):
            b, c, h, w = kept[-1].shape
            kept.append(self.twice(kept[-1].reshape(b, c, h // 2, 2, w // 2, 2).amax((3, 5)), k))
        x = kept.pop()
        for k, up in enumerate(self.ups):
            left = kept.pop()
            b, c, h, w = left.shape
            both = left.new_empty(b, 2 * c, h, w)
            both[:, :c], both[:, c:] = left, up(x)
            x = self.twice(both, self.depth + 1 + k)
        return self.last(x)


def weights_by_brute_force(label_map, class_weights, w0, sigma):
    out = np.zeros(label_map.shape)
    cells = [np.argwhere(label_map == label) for label in set(label_map.ravel().tolist()) - {0}]
    for y, x in np.ndindex(label_map.shape):
        out[y, x] = class_weights[1 if label_map[y, x] else 0]
        if label_map[y, x] == 0 and len(cells) >= 2:
            d = sorted(np.sqrt(((cell - (y, x)) ** 2).sum(1)).min() for cell in cells)
            out[y, x] += w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))
    return out


def weights_in_torch(label_map, class_weights, w0, sigma):
    labels = torch.from_numpy(label_map)
    out = torch.tensor(class_weights)[(labels > 0).long()]
    ids = [i for i in labels.unique().tolist() if i]
    if len(ids) < 2:
        return out
    d = torch.stack([torch.from_numpy(ndimage.distance_transform_edt(label_map != i)) for i in ids])
    two = d.topk(2, dim=0, largest=False).values.sum(0)
    return out + (labels == 0) * w0 * torch.exp(-(two**2) / (2 * sigma**2))


def weights_by_cdist(label_map, class_weights, w0, sigma):
    pixels = np.argwhere(np.ones_like(label_map, dtype=bool))
    ids = np.unique(label_map)[np.unique(label_map) > 0]
    d = np.full((len(pixels), len(ids) + 2), np.inf)
    for k, i in enumerate(ids):
        d[:, k] = cdist(pixels, np.argwhere(label_map == i)).min(1)
    total = np.partition(d, 1, axis=1)[:, :2].sum(1).reshape(label_map.shape)
    term = w0 * np.exp(-(total**2) / 2 / sigma / sigma)
    return np.where(label_map > 0, class_weights[1], class_weights[0] + term).astype(np.float32)


def tiles_that_hang_over(model, image, tile_size, margin):
    channels, height, width = image.shape
    valid = tile_size - 2 * margin
    down, right = -height % valid, -width % valid
    padded = F.pad(image[None], (margin, margin + right, margin, margin + down), mode="reflect")
    rows = []
    for y in range(0, height, valid):
        row = [model(padded[:, :, y : y + tile_size, x : x + tile_size]) for x in range(0, width, valid)]
        rows.append(torch.cat(row, dim=3))
    return torch.cat(rows, dim=2)[0, :, :height, :width]


def tiles_moved_back(model, image, tile_size, margin):
    channels, height, width = image.shape
    valid = tile_size - 2 * margin
    padded = np.pad(image.numpy(), [(0, 0), (margin, margin), (margin, margin)], "reflect")
    total, count = 0, np.zeros((height, width))
    for y in {min(y, height - valid) for y in range(0, height, valid)}:
        for x in {min(x, width - valid) for x in range(0, width, valid)}:
            tile = torch.tensor(padded[None, :, y : y + tile_size, x : x + tile_size])
            place = np.zeros((1, 1, height, width))
            place[..., y : y + valid, x : x + valid] = 1
            logits = model(tile)[0].numpy()
            canvas = np.zeros((len(logits), height, width))
            canvas[:, y : y + valid, x : x + valid] = logits
            total, count = total + canvas, count + place[0, 0]
    return total / count


def tiles_in_one_batch(model, image, tile_size, margin):
    channels, height, width = image.shape
    valid = tile_size - 2 * margin
    ny, nx = -(-height // valid), -(-width // valid)
    pad = (margin, nx * valid - width + margin, margin, ny * valid - height + margin)
    tiles = F.unfold(F.pad(image[None], pad, mode="reflect"), tile_size, stride=valid)
    tiles = tiles[0].T.reshape(ny * nx, channels, tile_size, tile_size)
    logits = model(tiles)
    k = logits.shape[1]
    grid = logits.reshape(ny, nx, k, valid, valid).permute(2, 0, 3, 1, 4).reshape(k, ny * valid, nx * valid)
    return grid[:, :height, :width]


ALTERNATIVES = {
    "double_conv": [FunctionalDoubleConv, BareParameters, sequential_double_conv],
    "crop_concat": [crop_with_torchvision, crop_by_negative_padding, crop_in_numpy_loop, crop_by_gather],
    "unet_out_size": [size_by_walk, size_in_closed_form, size_by_recursion],
    "build_unet": [recursive_unet, FlatUNet],
    "weight_map": [weights_by_brute_force, weights_in_torch, weights_by_cdist],
    "tile_predict": [tiles_that_hang_over, tiles_moved_back, tiles_in_one_batch],
}
