"""Whether a network runs to be exported: then no value of a tensor is known, and no shape may depend on one."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """Whether `torch.export`, `torch.onnx.export` or `torch.jit.trace` records the code that runs.

    An argument check that reads the values of a tensor is left out then: the program is recorded once for all values.
    Checks of types and shapes stay.

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
    # before torch 2.7 there is no is_exporting
    recorded = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return recorded() or torch.jit.is_tracing()
