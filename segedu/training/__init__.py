"""Training: the loop, checkpoints, and devices.

Labs and pages import from here: `from segedu.training import fit, train_steps`.
"""

from segedu.training.best_weights import Validation
from segedu.training.checkpoints import load_checkpoint, save_checkpoint, shuffled_loader
from segedu.training.devices import start_fabric, to_device
from segedu.training.loop import Trained, evaluate, fit, train_one_epoch, train_steps

__all__ = [
    "Trained",
    "Validation",
    "evaluate",
    "fit",
    "load_checkpoint",
    "save_checkpoint",
    "shuffled_loader",
    "start_fabric",
    "to_device",
    "train_one_epoch",
    "train_steps",
]
