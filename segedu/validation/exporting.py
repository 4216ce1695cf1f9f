"""Whether a network is being exported: then the values of tensors are unknown, and no shape may depend on them."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """Whether `torch.export`, `torch.onnx.export` or `torch.jit.trace` is recording the running code.

    Argument checks that read the values of a tensor are then skipped, because the program is recorded once for all
    values. Checks of types and shapes remain.

    Returns:
        True while a program is recorded, False in ordinary computation and under `torch.compile`.

    Example:
        >>> class Scale(torch.nn.Module):
        ...     def forward(self, x: torch.Tensor) -> torch.Tensor:
        ...         return x * (3 if is_exporting() else 2)
        >>> program = torch.export.export(Scale(), (torch.ones(1),)).module()
        >>> program(torch.ones(1)), Scale()(torch.ones(1))
        (tensor([3.]), tensor([2.]))
    """
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # is_exporting is new in torch 2.7
    return exporting() or torch.jit.is_tracing()
