"""SegNet: the decoder unpools each value to the position from which the encoder's max pooling took it.

Paper: Badrinarayanan, Kendall, Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
    Segmentation", PAMI 2017, arXiv 1511.00561.
Idea: Max pooling discards where in its window the maximum was, and with it the position of object boundaries. SegNet
    keeps these indices, 2 bits per window, instead of feature maps. Each stage of the decoder unpools: it writes the
    values at the indices of the pooling of the same size and zeros elsewhere. Convolutions make the sparse map dense.
Simplified: the local contrast normalisation of the images is left to the caller.
Shapes: images (B, C, H, W) -> logits (B, K, H, W), any H and W: poolings round up, as in the authors' Caffe, and
    unpooling restores the exact size. `postprocess`: logits -> labels (B, H, W).
    `SegNet(vgg16_bn(), 11)` is the paper's network. For a small one that trains in minutes on a CPU:
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
from segedu.validation.numbers import check_integers
from segedu.validation.tensors import check_tensor


class SegNet(nn.Module):
    """Figure 2 of the paper: the encoder, and a decoder with the same stages in reverse order.

    Each convolution of the decoder mirrors one of the encoder, with input and output channels exchanged. The mirror
    image of the encoder's first convolution, which reads the image, outputs the classes.

    Args:
        encoder: stages of convolutions with batch normalisation; its poolings are replaced by poolings with indices.
        num_classes: K, background included.
    """

    def __init__(self, encoder: VGG, num_classes: int) -> None:
        super().__init__()
        check_integers(num_classes=num_classes)
        if (padding := encoder.stage(0)[0].padding) != (1, 1):
            raise ValueError(f"encoder has a first_padding of {padding[0]}, expected 1, which keeps the size")
        self.encoder = encoder
        self.decoder = nn.ModuleList(_mirrored(encoder.stage(i)) for i in reversed(range(len(encoder.channels))))
        classifier = self.decoder[-1][-1][0]  # the mirror image of the first convolution
        self.decoder[-1] = self.decoder[-1][:-1]
        self.classifier = nn.Conv2d(classifier.in_channels, num_classes, kernel_size=3, padding=1)
        for module in (*self.decoder.modules(), self.classifier):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.encoder.in_channels)
        x = self.encoder.normalize(images)
        pooled = []
        for i in range(len(self.decoder)):
            x = self.encoder.stage(i)(x)  # (B, C, h, w)
            size = x.shape[-2:]
            x, indices = F.max_pool2d(x, kernel_size=2, ceil_mode=True, return_indices=True)
            pooled.append((indices, size))
        for stage in self.decoder:
            indices, size = pooled.pop()
            x = stage(F.max_unpool2d(x, indices, kernel_size=2, output_size=size))
        return self.classifier(x)


def _mirrored(stage: nn.Sequential) -> nn.Sequential:
    convolutions = [layer for layer in stage if isinstance(layer, nn.Conv2d)]
    return nn.Sequential(*(conv_bn_relu(conv.out_channels, conv.in_channels) for conv in reversed(convolutions)))


def median_frequency_weights(counts: Tensor) -> Tensor:
    """Class weights for unbalanced data: the median of the class frequencies / the frequency of the class.

    The frequency of a class is its share of the pixels of the images in which it is present (Eigen, Fergus, ICCV 2015).
    A class that occurs in few images is therefore not also penalised for their small number.

    Args:
        counts: (N, K) pixels of each class in each of N training images, without ignored pixels.

    Returns:
        (K,) float32. A class that occurs in no image has weight 0 and does not count for the median. The median of an
        even number of frequencies is the mean of the middle two.

    >>> median_frequency_weights(torch.tensor([[80, 20, 0], [60, 30, 10]]))
    tensor([0.3571, 1.0000, 2.5000])
    """
    check_tensor("counts", counts, "N K")
    counts = counts.double()
    if not 0 <= counts.min() or not 0 < counts.sum() < torch.inf:
        raise ValueError(f"counts has minimum {counts.min()} and sum {counts.sum()}, expected at least 0 and above 0")
    pixels = (counts > 0).double().T @ counts.sum(dim=1)  # (K,) all pixels of the images that show the class
    present = pixels > 0
    frequency = counts.sum(dim=0)[present] / pixels[present]
    weights = torch.zeros_like(pixels)
    weights[present] = frequency.quantile(0.5) / frequency
    return weights.float()


def segnet_loss(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy with one weight per class; 0 if every pixel is ignored.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64; 255 is ignored.
        class_weights: (K,), for example of `median_frequency_weights`; None weights all classes equally.
    """
    return cross_entropy(logits, target, ignore_index=255, class_weights=class_weights)


postprocess = highest_class
