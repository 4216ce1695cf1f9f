"""Right answers of other kinds: loops, numpy, einsum, unfold, modules. All of them must be accepted."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def dilate_by_taps(features, weight, rate):
    B, _, H, W = features.shape
    D, _, Kh, Kw = weight.shape
    y, x = rate * (Kh // 2), rate * (Kw // 2)
    padded = F.pad(features, [x, x, y, y])
    out = torch.zeros(B, D, H, W, dtype=features.dtype)
    for i in range(Kh):
        for j in range(Kw):
            window = padded[:, :, i * rate : i * rate + H, j * rate : j * rate + W]
            out += torch.einsum("dc,bchw->bdhw", weight[:, :, i, j], window)
    return out


def dilate_by_spreading_the_kernel(features, weight, rate):
    D, C, Kh, Kw = weight.shape
    wide = weight.new_zeros(D, C, (Kh - 1) * rate + 1, (Kw - 1) * rate + 1)
    wide[..., ::rate, ::rate] = weight
    return F.conv2d(features, wide, padding="same")


def dilate_by_unfold(features, weight, rate):
    B, _, H, W = features.shape
    pads = [rate * (k // 2) for k in weight.shape[2:]]
    columns = F.unfold(features, weight.shape[2:], dilation=rate, padding=pads)
    return (weight.flatten(1) @ columns).reshape(B, -1, H, W)


def dilate_in_numpy(features, weight, rate):
    x, w = np.asarray(features), np.asarray(weight)
    out = np.zeros((x.shape[0], w.shape[0], *x.shape[2:]))
    middle = [k // 2 for k in w.shape[2:]]
    for y, row in np.ndindex(x.shape[2], w.shape[2]):
        for column, tap in np.ndindex(x.shape[3], w.shape[3]):
            i, j = y + rate * (row - middle[0]), column + rate * (tap - middle[1])
            if 0 <= i < x.shape[2] and 0 <= j < x.shape[3]:
                out[:, :, y, column] += x[:, :, i, j] @ w[:, :, row, tap].T
    return out


def ppm_with_modules(features, weights, bins):
    levels = [features]
    for n, weight in zip(bins, weights, strict=True):
        conv = nn.Conv2d(*weight.shape[::-1], 1, bias=False, dtype=weight.dtype)
        conv.weight = nn.Parameter(weight[:, :, None, None])
        level = nn.Sequential(nn.AdaptiveAvgPool2d(n), conv, nn.ReLU())(features)
        levels.append(nn.Upsample(features.shape[2:], mode="bilinear", align_corners=True)(level))
    return torch.cat(levels, dim=1)


def ppm_reduced_before_pooling(features, weights, bins):
    size = features.shape[2:]
    reduced = [
        F.adaptive_avg_pool2d(torch.einsum("oc,bchw->bohw", w, features), n) for w, n in zip(weights, bins, strict=True)
    ]
    levels = [F.interpolate(F.relu(x), size, mode="bilinear", align_corners=True) for x in reduced]
    return torch.cat((features, *levels), 1)


def ppm_in_loops(features, weights, bins):
    x = features.numpy()
    _, _, H, W = x.shape
    parts = [x]
    for n, weight in zip(bins, weights, strict=True):
        grid = np.zeros((*x.shape[:2], n, n))
        for i, j in np.ndindex(n, n):
            rows = slice(i * H // n, -((-(i + 1) * H) // n))
            columns = slice(j * W // n, -((-(j + 1) * W) // n))
            grid[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
        grid = np.maximum(np.einsum("oc,bcij->boij", weight.numpy(), grid), 0)
        parts.append(np.einsum("yi,boij,xj->boyx", _stretch(H, n), grid, _stretch(W, n)))
    return np.concatenate(parts, axis=1)


def _stretch(size, cells):
    """The matrix of linear interpolation with aligned corners."""
    places = np.arange(size) * (cells - 1) / max(size - 1, 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))


def aspp_with_modules(features, weights, rates, output_stride):
    def conv(weight, rate=1):
        out, channels, k, _ = weight.shape
        layer = nn.Conv2d(channels, out, k, padding=rate * (k // 2), dilation=rate, bias=False, dtype=weight.dtype)
        layer.weight = nn.Parameter(weight)
        return nn.Sequential(layer, nn.ReLU())

    branches = [conv(weights["one"][..., None, None])(features)]
    branches += [conv(w, r * 16 // output_stride)(features) for w, r in zip(weights["atrous"], rates, strict=True)]
    mean = nn.AdaptiveAvgPool2d(1)(features)
    image = conv(weights["image"][..., None, None])(mean)
    return torch.cat([*branches, F.interpolate(image, features.shape[-2:], mode="bilinear")], dim=1)


def aspp_by_taps(features, weights, rates, output_stride):
    B, _, H, W = features.shape
    out = [torch.einsum("oc,bchw->bohw", weights["one"], features)]
    for rate, weight in zip(rates, weights["atrous"], strict=True):
        rate = math.floor(rate * (16 / output_stride))
        padded = F.pad(features, [rate] * 4)
        total = 0
        for i in range(3):
            for j in range(3):
                window = padded[:, :, i * rate : i * rate + H, j * rate : j * rate + W]
                total = total + torch.einsum("oc,bchw->bohw", weight[:, :, i, j], window)
        out.append(total)
    image = features.flatten(2).mean(dim=2) @ weights["image"].T
    out.append(image[:, :, None, None].repeat(1, 1, H, W))
    return torch.clamp(torch.cat(out, dim=1), min=0)


def os_by_prefix_products(layers, output_stride):
    converted, whole = [], 1
    for kind, kernel, stride, padding in layers:
        dilation = max(1, whole // output_stride)
        whole *= stride
        converted.append([kind, kernel, stride if whole <= output_stride else 1, dilation, padding * dilation])
    return converted


def os_by_recursion(layers, output_stride, dilation=1):
    if not layers:
        return []
    (kind, kernel, stride, padding), *rest = layers
    if stride <= output_stride:
        head, remaining, rate = stride, output_stride // stride, dilation
    else:
        head, remaining, rate = 1, output_stride, dilation * stride
    return [(kind, kernel, head, dilation, padding * dilation), *os_by_recursion(rest, remaining, rate)]


def separable_by_building(in_channels, out_channels, kernel_size, rate):
    depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, dilation=rate, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return sum(weight.numel() for layer in (depthwise, pointwise) for weight in layer.parameters())


def separable_factored(in_channels, out_channels, kernel_size, rate):
    return in_channels * (kernel_size * kernel_size + out_channels)


def decode_with_modules(deep, low, weight):
    reduce = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False, dtype=weight.dtype)
    reduce.weight = nn.Parameter(weight[:, :, None, None])
    large = nn.Upsample(size=low.shape[-2:], mode="bilinear")(deep)
    return torch.cat([large, nn.ReLU()(reduce(low))], 1)


def decode_in_numpy(deep, low, weight):
    deep, low, weight = (x.numpy() for x in (deep, low, weight))
    rows, columns = (_half_pixel(big, small) for big, small in zip(low.shape[2:], deep.shape[2:], strict=True))
    large = np.einsum("yi,bcij,xj->bcyx", rows, deep, columns)
    return np.concatenate([large, np.maximum(np.tensordot(low, weight, (1, 1)).transpose(0, 3, 1, 2), 0)], axis=1)


def _half_pixel(big, small):
    """The matrix of linear interpolation between centres of pixels; beyond the first and last, they are repeated."""
    places = np.clip((np.arange(big) + 0.5) * small / big - 0.5, 0, small - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(small)))


ALTERNATIVES = {
    "ppm": [ppm_with_modules, ppm_reduced_before_pooling, ppm_in_loops],
    "dilate_conv": [dilate_by_taps, dilate_by_spreading_the_kernel, dilate_by_unfold, dilate_in_numpy],
    "convert_os": [os_by_prefix_products, os_by_recursion],
    "aspp": [aspp_with_modules, aspp_by_taps],
    "separable": [separable_by_building, separable_factored],
    "v3plus_decode": [decode_with_modules, decode_in_numpy],
}
