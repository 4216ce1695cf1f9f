"""Weights from which a training starts: those of an earlier run or of the catalogue, and layers that keep them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segedu.recipes.reduced_network import Reduced
from segedu.training import load_checkpoint
from segedu.training.best_weights import best_weights
from segedu.weights import load
from segedu.weights.catalogue import WEIGHTS


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Attributes:
        weights: folder of a run, its checkpoint, or a name of `segedu.weights`; "" for the weights of a new network.
        frozen: names of parts of the network, such as "encoder", whose parameters are not trained. Their batch
            normalisation still updates its running statistics.
    """

    weights: str = ""
    frozen: tuple[str, ...] = ()

    def apply(self, model: nn.Module) -> dict[str, Any]:
        """Copy the weights that fit into `model` and freeze its parts; returns a description of plain values."""
        state = names_as_in(model, read_weights(self.weights)) if self.weights else {}
        copied = copy_matching(model, state, self.weights) if self.weights else []
        for part in self.frozen:
            freeze(model, part)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(f"frozen is {', '.join(self.frozen)}, which is the whole network, expected only a part")
        digest = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in copied)).hexdigest()[:16]
        return {"weights": self.weights, "digest": digest, "copied": len(copied), "frozen": list(self.frozen)}


def read_weights(source: str) -> dict[str, Tensor]:
    """The weights of a run, given by its folder or its checkpoint, or of a name in `segedu.weights`.

    Raises:
        FileNotFoundError: the folder has no checkpoint.
        ValueError: `source` is neither.
    """
    path = Path(source)
    if path.is_dir() and not (path / "checkpoint.pt").is_file():
        raise FileNotFoundError(f"{path} has no checkpoint.pt, expected the folder of a run of segedu train")
    if path.exists():
        return best_weights(load_checkpoint(path / "checkpoint.pt" if path.is_dir() else path))[0]
    if source in WEIGHTS:
        return {name: value.detach() for name, value in load(source).state_dict().items()}
    raise ValueError(
        f"the weights are {source!r}, expected the folder of a run of segedu train or a name such as "
        f"{', '.join(list(WEIGHTS)[:3])} (segedu.weights.catalogue lists {len(WEIGHTS)})"
    )


def names_as_in(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the names of a model: `Reduced` keeps the layers of its network under `network`."""
    prefix = "network."
    are_reduced = all(name.startswith(prefix) for name in state)
    if are_reduced and not isinstance(model, Reduced):
        return {name.removeprefix(prefix): value for name, value in state.items()}
    if isinstance(model, Reduced) and not are_reduced:
        return {prefix + name: value for name, value in state.items()}
    return state


def copy_matching(model: nn.Module, state: dict[str, Tensor], source: str) -> list[str]:
    """Copy the values whose name and shape a model has, and return their names.

    The last layer of another number of classes does not fit, so it keeps its random values.

    Raises:
        ValueError: less than half of the model's values would be copied.
    """
    own = model.state_dict()
    fitting = [name for name, value in state.items() if name in own and own[name].shape == value.shape]
    count = sum(own[name].numel() for name in fitting)
    total = sum(value.numel() for value in own.values())
    if 2 * count < total:
        raise ValueError(
            f"the weights {source!r} have {count} of the {total} values of this network, expected at least half: "
            f"they are of another network; train the same method, or give other weights"
        )
    model.load_state_dict({name: state[name] for name in fitting}, strict=False)
    return fitting


def freeze(model: nn.Module, part: str) -> None:
    """Exclude the parameters whose names begin with `part` from the training.

    Raises:
        ValueError: the model has no such part.
    """
    chosen = [parameter for name, parameter in model.named_parameters() if f"{name}.".startswith(f"{part}.")]
    if not chosen:
        parts = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"frozen is {part!r}, which the network does not have, expected one of its parts: {parts}")
    for parameter in chosen:
        parameter.requires_grad_(False)
