"""Oxford-IIIT Pet: 7,349 photographs of cats and dogs of 37 breeds, each with a trimap of the animal.

Parkhi et al. 2012, "Cats and Dogs" (CVPR). The folder holds `images/<name>.jpg`, `annotations/trimaps/<name>.png` and
the lists `annotations/trainval.txt` and `annotations/test.txt`: lines "name breed species number". In a trimap 1 is
the animal, 2 the background, and 3 an unlabelled border. The authors offer `images.tar.gz` and
`annotations.tar.gz` at https://www.robots.ox.ac.uk/~vgg/data/pets/ under CC BY-SA 4.0; unpack both into one folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.files import item_of, read_image, read_labels, require
from segedu.datasets.sample import VOID, make_sample

CLASSES = ("background", "pet")
SPECIES = ("cat", "dog")
_ANIMAL, _BACKGROUND, _BORDER = 1, 2, 3
_MOST_BREEDS = 1000  # there are 37; a damaged number must not create a list of millions
_LAYOUT = "images/<name>.jpg, annotations/trimaps/<name>.png and annotations/<trainval|test>.txt"


class OxfordPet(Dataset):
    """Photographs with one animal each, against the background.

    Args:
        root: the folder with `images` and `annotations`.
        split: "trainval" or "test".
        transforms: called with the sample dict, see `segedu.datasets.transforms`.

    Raises:
        FileNotFoundError: if the folder or the list is missing; on reading, if a file is.
        ValueError: if the list is empty or has an invalid line; on reading, if a file is not an image, if sizes differ,
            or if a trimap has a value other than 1, 2 and 3.

    Each item has the keys of `segedu.datasets.sample`, the animal as one instance (or none, if no pixel of the
    trimap is certainly the animal), `semantic` with 255 in the border, and `breed` and `species`,
    int64: indices into the data set's `breeds` and into `SPECIES`.
    """

    def __init__(self, root: str | Path, split: str = "trainval", transforms: Callable | None = None):
        self.root, self.transforms = Path(root), transforms
        path = require(self.root / "annotations" / f"{split}.txt", self.root, _LAYOUT)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not a text file, expected lines such as 'Abyssinian_100 1 1 1': {error}"
            ) from error
        # Lines that begin with # are comments, as in the authors' list.txt.
        self.rows = [self._row(line, path) for line in lines if line.strip() and not line.startswith("#")]
        if not self.rows:
            raise ValueError(f"{path} lists no images, expected lines such as 'Abyssinian_100 1 1 1'")
        # The name of a breed is the name of a file without its number.
        names = {breed: name.rsplit("_", 1)[0] for name, breed, _ in self.rows}
        self.breeds = tuple(names.get(breed, "") for breed in range(max(names) + 1))

    @staticmethod
    def _row(line: str, path: Path) -> tuple[str, int, int]:
        """Parse a line to the name, the breed and the species, both counted from 0."""
        fields = line.split()
        numbers = [int(field) - 1 for field in fields[1:] if field.isascii() and field.isdigit()]
        if len(fields) != 4 or len(numbers) != 3 or not 0 <= numbers[0] < _MOST_BREEDS or numbers[1] not in (0, 1):
            raise ValueError(f"{path} has the line {line!r}, expected 'name breed species number', counted from 1")
        return fields[0], numbers[0], numbers[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return item_of(self.rows, index, self.transforms, self._read)

    def _read(self, row: tuple[str, int, int]) -> dict[str, Tensor]:
        name, breed, species = row
        image = read_image(self.root / "images" / f"{name}.jpg")
        trimap = read_labels(self.root / "annotations" / "trimaps" / f"{name}.png", image.shape[1:])
        is_valid = (trimap >= _ANIMAL) & (trimap <= _BORDER)
        if not is_valid.all():
            invalid = int(trimap[~is_valid][0])
            raise ValueError(
                f"trimaps/{name}.png has the value {invalid}, expected 1 (pet), 2 (background), 3 (border)"
            )
        animal = trimap == _ANIMAL
        sample = make_sample(image, animal.int().numpy(), [1] if animal.any() else [])
        sample["semantic"] = sample["semantic"].masked_fill(trimap == _BORDER, VOID)
        return sample | {"breed": torch.tensor(breed), "species": torch.tensor(species)}
