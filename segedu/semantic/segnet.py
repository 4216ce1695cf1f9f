"""SegNet: the decoder puts every value back where the encoder's max-pooling took it from.

Paper: Badrinarayanan, Kendall, Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
    Segmentation", PAMI 2017, arXiv 1511.00561.
Idea: Pooling forgets where in its window the largest value stood, and with it where borders run. SegNet keeps these
    indices, 2 bits a window, and no features. Each step of the decoder places values at the indices of the pooling
    of the same size, zeros elsewhere, and convolutions make the sparse map dense.
Simplified: the local contrast normalisation of the images is left to the caller.
Shapes: images (B, C, H, W) -> logits (B, K, H, W), any H and W: poolings round up, as in the authors' Caffe, and
    unpooling goes back to the exact size. `postprocess`: logits -> labels (B, H, W).
    `SegNet(vgg16_bn(), 11)` is the paper's net. For a small one that trains in minutes on a CPU:
    SegNet(VGG(((8,), (16,), (32,), (64,), (64,)), batch_norm=True), num_classes=10).
Quality: street: mean IoU 0.7845, the least of three seeds (forest 0.48), 104.9 CPU-s, from the small VGG.
Course: 05-fcn
Lab: 05_fcn
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segedu.backbones.vgg import VGG
from segedu.layers.conv import conv_bn_relu
from segedu.layers.labels import highest_class
from segedu.losses.cross_entropy import cross_entropy
from segedu.validation.images import check_images


class SegNet(nn.Module):
    """Figure 2 of the paper: the encoder's stages, and the same stages read backwards.

    Each convolution of the decoder has the channels of one of the encoder, in and out exchanged. The partner of
    the encoder's first convolution, which reads the image, gives the classes.

    Args:
        encoder: stages of convolutions with batch normalisation; its poolings are replaced by some with indices.
        num_classes: K, background included.
    """

    def __init__(self, encoder: VGG, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}, expected at least 1")
        if (padding := encoder.stage(0)[0].padding) != (1, 1):
            raise ValueError(f"encoder has a first_padding of {padding[0]}, expected 1, which keeps the size")
        self.encoder = encoder
        self.decoder = nn.ModuleList(_mirrored(encoder.stage(i)) for i in reversed(range(len(encoder.channels))))
        classifier = self.decoder[-1][-1][0]  # the convolution that would lead back to the image
        self.decoder[-1] = self.decoder[-1][:-1]
        self.classifier = nn.Conv2d(classifier.in_channels, num_classes, kernel_size=3, padding=1)
        for module in (*self.decoder.modules(), self.classifier):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.encoder.in_channels)
        x = self.encoder.normalize(images)
        kept = []
        for i in range(len(self.decoder)):
            x = self.encoder.stage(i)(x)  # (B, C, h, w)
            size = x.shape[-2:]
            x, indices = F.max_pool2d(x, kernel_size=2, ceil_mode=True, return_indices=True)
            kept.append((indices, size))
        for stage in self.decoder:
            indices, size = kept.pop()
            x = stage(F.max_unpool2d(x, indices, kernel_size=2, output_size=size))
        return self.classifier(x)


def _mirrored(stage: nn.Sequential) -> nn.Sequential:
    convolutions = [layer for layer in stage if isinstance(layer, nn.Conv2d)]
    return nn.Sequential(*(conv_bn_relu(conv.out_channels, conv.in_channels) for conv in reversed(convolutions)))


def median_frequency_weights(counts: Tensor) -> Tensor:
    """Weights that make rare classes count more: median of the frequencies / frequency of the class.

    The frequency of a class is taken over the images in which it is present (Eigen, Fergus, ICCV 2015), so that a
    class that is rare because few images show it is not also punished for them.

    Args:
        counts: (N, K) pixels of each class in each of N training images, ignored pixels left out.

    Returns:
        (K,) float32. A class that no image shows has weight 0 and is left out of the median; of an even number
        of frequencies the median is the mean of the middle two.

    Raises:
        TypeError: not a tensor.
        ValueError: a wrong shape, a count that is negative or no finite number, or no pixel at all.

    >>> median_frequency_weights(torch.tensor([[80, 20, 0], [60, 30, 10]]))
    tensor([0.3571, 1.0000, 2.5000])
    """
    if not isinstance(counts, Tensor):
        raise TypeError(f"counts has type {type(counts).__name__}, expected a Tensor")
    if counts.ndim != 2 or 0 in counts.shape:
        raise ValueError(f"counts has shape {tuple(counts.shape)}, expected (N, K), no axis empty")
    counts = counts.double()
    if not 0 <= counts.min() or not 0 < counts.sum() < torch.inf:
        raise ValueError(f"counts has minimum {counts.min()} and sum {counts.sum()}, expected at least 0 and above 0")
    where_present = (counts > 0).double().T @ counts.sum(dim=1)  # (K,) all pixels of the images that show the class
    present = where_present > 0
    frequency = counts.sum(dim=0)[present] / where_present[present]
    weights = torch.zeros_like(where_present)
    weights[present] = frequency.quantile(0.5) / frequency
    return weights.float()


def segnet_loss(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy with a weight for each class.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64; 255 is ignored.
        class_weights: (K,) such as `median_frequency_weights` gives; None weighs all the same.

    Returns:
        A scalar, 0 where no pixel counts.
    """
    return cross_entropy(logits, target, ignore_index=255, class_weights=class_weights)


postprocess = highest_class
