"""Probes: call a function on a case and record what it did.

A probe runs in the same process as the function, which may be the student's, so it holds no answer and decides nothing.
It records raw values (the result, the arguments after the call, gradients, shapes of parameters), and
`segedu.teaching.checks.recording` derives the outcome from them in a process that does not run the student's code.
"""

from __future__ import annotations

import builtins
import inspect
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from segedu.teaching.checks.outcomes import NotPlain, plain


def copy_value(value: Any) -> Any:
    """Copy a case or an argument deeply, without copying fixtures, which are immutable and shared.

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
    """Name the most specific built-in class of an exception, so that a subclass of ValueError counts as ValueError."""
    for cls in type(error).__mro__:
        if getattr(builtins, cls.__name__, None) is cls:
            return cls.__name__
    return "Exception"


def _raised(error: BaseException, function: Callable) -> dict:
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == __file__:  # begin in the student's code
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames, chain=False))
    recording = {"raises": _builtin_name(error), "_message": str(error)[:500], "_traceback": text[-4000:]}
    return {**recording, "_stub": True} if _is_stub(error, function) else recording


def _is_stub(error: BaseException, function: Callable) -> bool:
    """Whether the function itself raises NotImplementedError, as a lab's stub does; torch raises it for some dtypes."""
    frames = error.__traceback__
    while frames and frames.tb_next:
        frames = frames.tb_next
    code = getattr(inspect.unwrap(function), "__code__", None)
    is_own = code is not None and frames is not None and frames.tb_frame.f_code is code
    return type(error) is NotImplementedError and is_own and "NotImplementedError" in code.co_names


def _guarded(run: Callable[[], dict], function: Callable) -> dict:
    try:
        return run()
    except NotPlain as error:
        return {"refused": str(error)}
    except (Exception, SystemExit) as error:
        return _raised(error, function)


def _after_call(arguments: list) -> list:
    """Record the arguments as the function left them; None for arguments that are not plain, such as fixtures."""
    values: list = []
    for argument in arguments:
        try:
            values.append(plain(argument))
        except NotPlain:
            values.append(None)
    return values


def call(function: Callable, case: dict) -> dict:
    """Call `function(*case["args"])`.

    Args:
        function: the student's, the reference or a wrong answer.
        case: `{"args": [...]}`, already a fresh copy.

    Returns:
        `{"value", "arguments"}`, the latter as they are after the call; or `{"raises"}` with the class of the
        exception; or `{"refused"}` if a recording cannot hold the value.
    """

    def run() -> dict:
        value = function(*case["args"])
        return {"value": plain(value), "arguments": _after_call(case["args"])}

    return _guarded(run, function)


def call_grad(function: Callable, case: dict) -> dict:
    """Call the function and differentiate its result, or a weighted sum of it if the result is not a scalar.

    Args:
        function: takes tensors, returns one tensor.
        case: `{"args": [...], "grad": [0, ...]}`; `grad` holds the positions of the arguments with respect to which
            the result is differentiated. `cotangent`, which `draw` adds, is the seed of the weights.

    Returns:
        `call`'s recording and `grads`, one array per position; None if the result does not depend on the argument.
    """
    import torch

    def run() -> dict:
        args = [a.requires_grad_() if i in case["grad"] else a for i, a in enumerate(case["args"])]
        value = function(*args)
        grads: list = []
        if isinstance(value, torch.Tensor):
            grads = _gradients(value, [args[i] for i in case["grad"]], case.get("cotangent", 0))
        return {"value": plain(value), "grads": grads, "arguments": _after_call(args)}

    with torch.inference_mode(False), torch.enable_grad():  # a notebook may have switched gradients off
        return _guarded(run, function)


def _gradients(output: Any, inputs: list, seed: int) -> list:
    """Gradients of a weighted sum of the output; a plain sum would hide errors, because a softmax always sums to 1."""
    import torch

    if not output.requires_grad:
        return [None] * len(inputs)
    weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    weighted = (output * weights.to(output)).sum() if output.ndim else output
    return [plain(g) for g in torch.autograd.grad(weighted, inputs, allow_unused=True)]


def module(function: Callable, case: dict) -> dict:
    """Build a module, fill its weights in order of execution, and run it.

    The order of construction and the names of parameters never matter: a first run on the inputs notes the order in
    which leaf modules execute, then each parameter gets values that depend on the case's seed, on its shape,
    and on how many parameters of that shape came before it.

    Args:
        function: `function(*args)` returns a `torch.nn.Module`.
        case: `{"args": [...], "inputs": [tensor, ...], "seed": int}`.

    Returns:
        `value` (the output in eval mode), `parameters` (the shape of each), `grads` (of the centre of the output, one
        array per input) and `arguments` (the inputs after the call), or `raises`/`refused`.
    """
    import torch

    def run() -> dict:
        net = function(*case["args"])
        if net is None:
            return {"refused": "None (a `return` may be missing), where a torch.nn.Module is expected"}
        if not isinstance(net, torch.nn.Module):
            return {"refused": f"{type(net).__name__}, where a torch.nn.Module is expected"}
        net.eval()
        fill_weights(net, case["inputs"], case["seed"])
        inputs = [x.clone().requires_grad_(x.is_floating_point()) for x in case["inputs"]]
        output = net(*inputs)
        if not isinstance(output, torch.Tensor):
            return {"refused": f"{type(output).__name__} from forward, where a tensor is expected"}
        recording = {"value": plain(output), "arguments": _after_call(inputs)}
        shapes = [list(p.shape) for p in net.parameters()]
        return {**recording, "parameters": shapes, "grads": _centre_gradients(net, case["inputs"], case["seed"])}

    with torch.inference_mode(False), torch.enable_grad():  # a notebook may have switched gradients off
        return _guarded(run, function)


def _centre_gradients(net: Any, inputs: list, seed: int) -> list:
    """Gradients of the centre of the output with respect to each input: which input values it depends on, and how much.

    Computed in float64 if the module supports it: in float32, a ReLU with an input near 0 may be active on one CPU and
    inactive on another.
    """

    def gradients(double: bool) -> list:
        copies = [(x.double() if double else x).clone().requires_grad_() for x in inputs]
        output = net(*copies)
        centre = (slice(None), slice(None), *(n // 2 for n in output.shape[2:]))
        return _gradients(output[centre] if output.ndim > 2 else output, copies, seed)

    try:
        net.double()
        return gradients(double=True)
    except (RuntimeError, TypeError):
        net.float()
        return gradients(double=False)


def fill_weights(net: Any, inputs: list, seed: int) -> None:
    """Fill parameters and buffers of a module in place, reproducibly, in order of execution on the inputs."""
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
    not_executed = [m for m in net.modules() if m not in set(executed)]
    counts: dict[tuple, int] = {}
    filled: set[int] = set()
    for layer in executed + not_executed:
        tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        for name, tensor in tensors:
            if id(tensor) in filled or not tensor.is_floating_point():
                continue
            filled.add(id(tensor))
            key = (*tensor.shape, name in ("running_var",))
            counts[key] = counts.get(key, 0) + 1
            _fill(tensor, name, [seed, counts[key], *tensor.shape])


def _fill(tensor: Any, name: str, key: list[int]) -> None:
    import torch

    rng = np.random.default_rng(key)
    fan_in = max(1, int(np.prod(tensor.shape[1:])))
    values = rng.uniform(-1, 1, tuple(tensor.shape)) * np.sqrt(3 / fan_in)
    if tensor.ndim < 2:
        # a variance must be positive, and neither a scale nor a bias may be close to 0
        values = (
            rng.uniform(0.5, 1.5, tuple(tensor.shape)) if "var" in name else rng.uniform(-0.5, 0.5, tuple(tensor.shape))
        )
        if name == "weight":
            values = values + 1
    with torch.no_grad():
        tensor.copy_(torch.as_tensor(values, dtype=tensor.dtype))
