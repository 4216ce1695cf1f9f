"""Newspaper pages: regions, articles and lines agree; pages without a bend have upright boxes."""

from __future__ import annotations

import pytest
import torch

from segedu.datasets import page
from segedu.datasets.page import CLASSES, draw_page

TEXTS = torch.tensor([CLASSES.index(name) for name in ("headline", "text", "caption")])


@pytest.mark.parametrize("size", [(48, 48), (49, 131), (192, 144), (300, 210)])
def test_articles_and_lines_agree_with_regions(size: tuple[int, int]) -> None:
    for seed in range(3):
        sample = draw_page(seed, size)
        assert sample["articles"].dtype == torch.int64 and sample["articles"].shape == sample["labels"].shape
        assert (sample["articles"] >= 1).all()
        lines = sample["lines"]
        assert lines.dtype == torch.int32 and lines.shape == size
        assert sorted(set(lines.unique().tolist()) | {0}) == list(range(int(lines.max()) + 1))
        assert torch.isin(sample["semantic"][lines > 0], TEXTS).all()
        pairs = torch.stack([lines, sample["label_map"]], dim=-1)[lines > 0].unique(dim=0)
        assert len(pairs) == int(lines.max())  # a line lies in one region


def test_every_kind_of_region_occurs_and_articles_have_several() -> None:
    pages = [draw_page(seed) for seed in range(8)]
    labels = torch.cat([sample["labels"] for sample in pages])
    assert labels.bincount(minlength=5)[1:].min() > 5
    assert all(sample["articles"].bincount().max() >= 3 for sample in pages)
    assert all(len(sample["labels"]) > 10 for sample in pages)


def test_a_flat_page_is_made_of_rectangles() -> None:
    sample = draw_page(3, bend=0)
    for mask, box in zip(sample["masks"], sample["boxes"], strict=True):
        assert mask.sum() == (box[2] - box[0]) * (box[3] - box[1])
    bent = draw_page(3)
    filled = [m.sum() / ((b[2] - b[0]) * (b[3] - b[1])) for m, b in zip(bent["masks"], bent["boxes"], strict=True)]
    assert min(filled) < 0.95


def test_text_is_darker_than_paper() -> None:
    sample = draw_page(1, noise=0)
    grey = sample["image"].mean(0)
    assert grey[sample["lines"] > 0].mean() < grey[sample["semantic"] == 0].mean() - 0.1


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise PAGE_VERSION and measure again whatever was trained on them."""
    sample = draw_page((0, 0))
    assert page.PAGE_VERSION == 1
    assert sample["labels"].tolist() == GOLDEN["labels"]
    assert sample["image"].mean().item() == pytest.approx(GOLDEN["mean"], abs=1e-4)


GOLDEN = {"labels": [1, 1, 3, 4, 2, 2, 2, 1, 2, 1, 3, 4, 2, 1, 3, 4, 2, 1, 2, 2, 1, 2, 1, 3, 4, 2], "mean": 0.59273}


@pytest.mark.parametrize(("bend", "error"), [(-1, ValueError), (4, ValueError), ("much", TypeError), (True, TypeError)])
def test_bad_bend(bend: object, error: type) -> None:
    with pytest.raises(error, match="bend is"):
        draw_page(0, bend=bend)
