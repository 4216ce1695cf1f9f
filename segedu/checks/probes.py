"""Probes: they call a function on a case and write down what it did.

A probe runs wherever the function lives, in the student's process too, so it holds no answer.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.checks.outcomes import NotPlain, plain, value_difference


def copy_value(value: Any) -> Any:
    """Copy a case or an argument deeply; fixtures are immutable and shared.

    Args:
        value: plain values, tensors, fixtures.

    Returns:
        A copy that shares no memory; tensors keep dtype and `requires_grad`.
    """
    if isinstance(value, np.ndarray):
        return value.copy()
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, list | tuple):
        return type(value)(copy_value(item) for item in value)
    if isinstance(value, dict):
        return {key: copy_value(item) for key, item in value.items()}
    return value


def _builtin_name(error: BaseException) -> str:
    """A subclass of ValueError is as good as ValueError: name the nearest class that Python itself has."""
    for cls in type(error).__mro__:
        if getattr(builtins, cls.__name__, None) is cls:
            return cls.__name__
    return "Exception"


def _raised(error: BaseException) -> dict:
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == __file__:  # a student's traceback begins in their code
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames, chain=False))
    return {"raises": _builtin_name(error), "_message": str(error)[:500], "_traceback": text[-4000:]}


def _guarded(run: Callable[[], dict]) -> dict:
    try:
        return run()
    except NotPlain as error:
        return {"refused": str(error)}
    except (Exception, SystemExit) as error:
        return _raised(error)


def _changed(before: list, after: list) -> list[int]:
    def same(a: Any, b: Any) -> bool:
        try:
            return value_difference(plain(a), plain(b), 0.0) is None
        except NotPlain:
            return True

    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not same(a, b)]


def call(function: Callable, case: dict) -> dict:
    """Call `function(*case["args"])`.

    Args:
        function: the student's, the reference or a wrong one.
        case: `{"args": [...]}`, already a fresh copy.

    Returns:
        `{"value", "mutated"}`; or `{"raises"}` with the class of the exception; or `{"refused"}` where the
        value is of a class that an outcome cannot hold.
    """

    def run() -> dict:
        before = copy_value(case["args"])
        value = function(*case["args"])
        return {"value": plain(value), "mutated": _changed(before, case["args"])}

    return _guarded(run)


def call_grad(function: Callable, case: dict) -> dict:
    """Call the function and differentiate the sum of its result.

    Args:
        function: takes tensors, returns one tensor.
        case: `{"args": [...], "grad": [0, ...]}`; `grad` names the positions to differentiate by.

    Returns:
        `call`'s outcome and `grads`, one array a position; None where the result does not depend on it.
    """
    import torch

    def run() -> dict:
        args = [a.requires_grad_() if i in case["grad"] else a for i, a in enumerate(case["args"])]
        value = function(*args)
        if not isinstance(value, torch.Tensor):
            return {"value": plain(value), "grads": [], "mutated": []}
        inputs = [args[i] for i in case["grad"]]
        if value.requires_grad:
            grads = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
        else:
            grads = [None] * len(inputs)
        return {"value": plain(value), "grads": [plain(g) for g in grads], "mutated": []}

    with torch.inference_mode(False), torch.enable_grad():  # a notebook may have switched gradients off
        return _guarded(run)


def module(function: Callable, case: dict) -> dict:
    """Build a module, fill its weights in order of execution, run it.

    Order of construction and names of parameters never matter: a first run on the inputs notes the order in
    which leaf modules execute, then each parameter gets values that depend on the case's seed, on its shape,
    and on how many of that shape came before it.

    Args:
        function: `function(*args)` returns a `torch.nn.Module`.
        case: `{"args": [...], "inputs": [tensor, ...], "seed": int}`.

    Returns:
        `value` (the output in eval mode), `n_params`, `depends` (does the output depend on each input, by
        gradient, and through how large a window from its centre), or `raises`/`refused`.
    """
    import torch

    def run() -> dict:
        net = function(*case["args"])
        if not isinstance(net, torch.nn.Module):
            return {"refused": f"{type(net).__name__}, where a torch.nn.Module is asked for"}
        net.eval()
        fill_weights(net, case["inputs"], case["seed"])
        inputs = [x.clone().requires_grad_(x.is_floating_point()) for x in case["inputs"]]
        output = net(*inputs)
        if not isinstance(output, torch.Tensor):
            return {"refused": f"{type(output).__name__} from forward, where a tensor is asked for"}
        n_params = sum(p.numel() for p in net.parameters())
        return {"value": plain(output), "n_params": n_params, "depends": _dependence(output, inputs)}

    with torch.inference_mode(False), torch.enable_grad():  # a notebook may have switched gradients off
        return _guarded(run)


def _dependence(output: Any, inputs: list) -> list[int]:
    """For each input, how many of its values the centre of the output depends on.

    Each channel counts with a weight of its own: those of a softmax sum to 1 whatever goes in.
    """
    import torch

    if not output.requires_grad:
        return [0] * len(inputs)
    centre = output[(slice(None), slice(None), *(n // 2 for n in output.shape[2:]))] if output.ndim > 2 else output
    weights = torch.rand(centre.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    weighted = (centre * weights.to(centre)).sum()
    grads = torch.autograd.grad(weighted, [x for x in inputs if x.requires_grad], allow_unused=True)
    return [0 if g is None else int((g != 0).sum()) for g in grads]


def fill_weights(net: Any, inputs: list, seed: int) -> None:
    """Fill parameters and buffers in order of execution, reproducibly.

    Args:
        net: a `torch.nn.Module`; changed in place.
        inputs: what it is run on to learn the order.
        seed: of the values.
    """
    import torch

    order: list = []
    leaves = [m for m in net.modules() if not list(m.children())]
    hooks = [m.register_forward_pre_hook(lambda m, _: order.append(m)) for m in leaves]
    try:
        with torch.no_grad():
            net(*[x.clone() for x in inputs])
    finally:
        for hook in hooks:
            hook.remove()
    executed = list(dict.fromkeys(order))
    rest = [m for m in net.modules() if m not in set(executed)]
    seen: dict[tuple, int] = {}
    done: set[int] = set()
    for part in executed + rest:
        tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, tensor in tensors:
            if id(tensor) in done or not tensor.is_floating_point():
                continue
            done.add(id(tensor))
            key = (*tensor.shape, name in ("running_var",))
            seen[key] = seen.get(key, 0) + 1
            _fill(tensor, name, [seed, seen[key], *tensor.shape])


def _fill(tensor: Any, name: str, key: list[int]) -> None:
    import torch

    rng = np.random.default_rng(key)
    fan_in = max(1, int(np.prod(tensor.shape[1:])))
    values = rng.uniform(-1, 1, tuple(tensor.shape)) * np.sqrt(3 / fan_in)
    if tensor.ndim < 2:
        # a variance must be positive, a scale or a bias not too small: both lie in [0.5, 1.5] or +-0.5
        values = (
            rng.uniform(0.5, 1.5, tuple(tensor.shape)) if "var" in name else rng.uniform(-0.5, 0.5, tuple(tensor.shape))
        )
        if name == "weight":
            values = values + 1
    with torch.no_grad():
        tensor.copy_(torch.as_tensor(values, dtype=tensor.dtype))
