"""Random maps, and value and gradient of two functions side by side: what the tests of losses share."""

import torch

SHAPES = [(2, 3, 6, 8), (1, 5, 7, 9), (3, 2, 4, 1)]
VOLUME = (2, 3, 3, 5, 4)


def random_maps(shape, seed=0, ignored=0.0):
    """Logits (B, K, ...) in float64 and a target (B, ...), of which a part is 255."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    space = (shape[0], *shape[2:])
    target = torch.randint(shape[1], space, generator=generator)
    target[torch.rand(space, generator=generator) < ignored] = 255
    return logits, target


def one_hot(target, num_classes):
    """(B, K, ...) float64, zeros where the target is 255."""
    return torch.stack([(target == k).double() for k in range(num_classes)], dim=1)


def value_and_gradient(function, logits):
    """The value, and the gradient of it (weighted, where it is a map)."""
    z = logits.clone().requires_grad_()
    value = function(z)
    weights = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value.double(), *torch.autograd.grad((weights * value).sum(), z)


def assert_same(ours, theirs, logits, atol=1e-12):
    """Value and gradient of two functions of logits agree."""
    torch.testing.assert_close(value_and_gradient(ours, logits), value_and_gradient(theirs, logits), rtol=0, atol=atol)
