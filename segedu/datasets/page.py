"""Synthetic newspaper pages: articles with headlines, columns of text, pictures and captions.

A page depends on its seed and its arguments only. Articles fill the page between gutters; the scan is skewed,
bent, yellowed and noisy. All ink has the same colour: whether a dark pixel belongs to a headline, to text or to a
caption depends on the size of the letters, the position, and the region above. The targets are regions, the article of
each region, and lines of text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from segedu.datasets.sample import compact, make_sample
from segedu.datasets.texture import scene_rng, smooth_field
from segedu.validation.numbers import check_number, check_size

PAGE_VERSION = 1  # Increase it when a scene changes: every measured result must then be measured again.
CLASSES = ("paper", "headline", "text", "figure", "caption")
_PAPER, _HEADLINE, _TEXT, _FIGURE, _CAPTION = range(len(CLASSES))
_MIN_SIZE = 48
_SPECK = 6  # pixels; a region that the bend of the page leaves fewer is dropped


@dataclass
class _Page:
    """Ink in [0, 1] and targets of the page before it was scanned."""

    ink: np.ndarray
    regions: np.ndarray
    lines: np.ndarray
    labels: list[int] = field(default_factory=list)
    articles: list[int] = field(default_factory=list)

    def add(self, top: int, left: int, bottom: int, right: int, label: int, article: int) -> None:
        """Assign a rectangle to a new region."""
        self.labels.append(label)
        self.articles.append(article)
        self.regions[top:bottom, left:right] = len(self.labels)


def _letters(rng: np.random.Generator, height: int, width: int, dark: float) -> np.ndarray:
    """Ink of one line of words: letters are random patterns of strokes on a grid of 5 by 3."""
    step = max(1.0, 0.62 * height)
    count = int(np.ceil(width / step)) + 1
    bits = rng.uniform(size=(5, count, 3)) < 0.62
    bits[:, :, 2] = False  # the gap after each letter
    ends = np.cumsum(rng.integers(2, 9, count))
    bits[:, ends[ends < count]] = False  # and after each word
    rows = np.minimum(np.arange(height) * 5 // height, 4)
    position = np.arange(width) / step
    letter, part = position.astype(int), np.minimum((position % 1 * 3).astype(int), 2)
    ink = bits[rows[:, None], letter[None], part[None]].astype(float)
    if height < 4:  # too small to be read: grey strokes
        ink = 0.35 * ~bits[0].all(axis=1)[letter] + 0.6 * ink
    return dark * ink


def _text(rng, page: _Page, box: tuple[int, int, int, int], pitch: int, label: int, article: int, dark=0.85) -> None:
    """Fill a rectangle with lines of print; the last line of a paragraph is short, the next one indented."""
    top, left, bottom, right = box
    tall = max(2, pitch - max(1, pitch // 3))
    count = (bottom - top) // pitch
    if count < 1 or right - left < 4:
        return
    page.add(top, left, top + (count - 1) * pitch + tall, right, label, article)
    indent = 0
    for number in range(count):
        row, end = top + number * pitch, right
        if label != _HEADLINE and (rng.uniform() < 0.16 or number == count - 1):
            end = left + max(4, int((right - left) * rng.uniform(0.3, 0.95)))
        if label == _HEADLINE:
            end = left + int((right - left) * rng.uniform(0.65, 1.0))
        start = min(left + indent, end - 2)
        page.ink[row : row + tall, start:end] = _letters(rng, tall, end - start, dark)
        page.lines[row : row + tall, start:end] = page.lines.max() + 1
        indent = 3 if end < right and label == _TEXT else 0


def _picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Ink of a photograph: sky, hills, a sun or a head before it, in halftone."""
    rows, columns = np.mgrid[:height, :width]
    ridge = height * (0.5 + 0.25 * smooth_field(rng, (2, width), max(4, width / 3))[0])
    ink = 0.15 + 0.2 * rows / height + 0.1 * smooth_field(rng, (height, width), 6)
    land = 0.55 + 0.3 * smooth_field(rng, (height, width), 4)
    ink = np.where(rows > ridge, land, ink)
    for _ in range(int(rng.integers(1, 4))):
        radius = height * rng.uniform(0.1, 0.28)
        row, column = rng.uniform(0.15, 0.7) * height, rng.uniform(0.1, 0.9) * width
        head = np.hypot(rows - row, columns - column) < radius
        chest = (rows > row + radius) & (np.abs(columns - column) < 1.7 * radius)
        shade = rng.uniform(0.05, 0.95)
        ink = np.where(head, shade, np.where(chest & (shade > 0.4), 0.9 * shade, ink))
    return np.clip(ink + 0.12 * ((rows + columns) % 2) - 0.06, 0.03, 0.95)


def _article(rng: np.random.Generator, page: _Page, box: tuple, columns: int, article: int) -> None:
    """Draw a headline over the full width, sometimes a picture with a caption, and columns of text below."""
    top, left, bottom, right = box
    gutter = 3
    pitch = int(rng.integers(5, 9)) if columns == 1 else int(rng.integers(7, 12))
    rows = min(int(rng.integers(1, 3)), (bottom - top) // (3 * pitch))
    if rows:
        _text(rng, page, (top, left, top + rows * pitch, right), pitch, _HEADLINE, article, 1.0)
        top += rows * pitch + 2
    edges = np.round(np.linspace(left, right + gutter, columns + 1)).astype(int)
    tops = np.full(columns, top)
    if rng.uniform() < 0.65 and bottom - top > 24 and edges[1] - edges[0] > 14:
        span = int(rng.integers(1, columns + 1))
        first = int(rng.integers(0, columns - span + 1))
        x0, x1 = edges[first], edges[first + span] - gutter
        height = min(int(0.55 * (bottom - top)), max(10, int((x1 - x0) * rng.uniform(0.5, 0.9))))
        y0 = top if rng.uniform() < 0.7 else top + max(0, (bottom - top) // 3)
        page.add(y0, x0, y0 + height, x1, _FIGURE, article)
        page.ink[y0 : y0 + height, x0:x1] = _picture(rng, height, x1 - x0)
        lines = int(rng.integers(1, 3))
        _text(
            rng,
            page,
            (y0 + height + 2, x0, y0 + height + 2 + 3 * lines, x1),
            3,
            _CAPTION,
            article,
            0.95,
        )
        if y0 > top + 6:
            for number in range(first, first + span):
                _text(rng, page, (top, edges[number], y0 - 2, edges[number + 1] - gutter), 3, _TEXT, article)
        tops[first : first + span] = y0 + height + 3 * lines + 4
    for number in range(columns):
        _text(rng, page, (tops[number], edges[number], bottom, edges[number + 1] - gutter), 3, _TEXT, article)


def _compose(rng: np.random.Generator, size: tuple[int, int]) -> _Page:
    """Lay out a masthead, then rows of articles, each over one or more columns."""
    height, width = size
    page = _Page(np.zeros(size), np.zeros(size, np.int32), np.zeros(size, np.int32))
    margin = max(3, width // 24)
    columns = int(np.clip(width // 32, 1, 8)) + int(rng.integers(0, 2))
    left, right, top = margin, width - margin, margin
    if rng.uniform() < 0.5 and height > 90:
        tall = max(8, height // 14)
        _text(rng, page, (top, left + width // 8, top + tall, right - width // 8), tall, _HEADLINE, 1, 1.0)
        top += tall + 3
        page.ink[top - 2, left:right] = 0.8
    edges = np.round(np.linspace(left, right + 4, columns + 1)).astype(int)
    article = 1
    while height - margin - top > 20:
        bottom = min(height - margin, top + int(rng.uniform(0.22, 0.5) * height))
        bottom = height - margin if height - margin - bottom < 24 else bottom
        first = 0
        while first < columns:
            span = min(int(rng.integers(1, 4)), columns - first)
            article += 1
            _article(rng, page, (top, edges[first], bottom, edges[first + span] - 4), span, article)
            first += span
            if first < columns and rng.uniform() < 0.5:
                page.ink[top:bottom, edges[first] - 2] = 0.5  # a rule between articles
        top = bottom + 4
        if height - margin - top > 20 and rng.uniform() < 0.6:
            page.ink[top - 2, left:right] = 0.6
    return page


def _scan(rng: np.random.Generator, page: _Page, noise: float, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Scan the page: image (3, H, W), and the position on the page of each pixel (2, H, W)."""
    size = page.ink.shape
    rows, columns = np.mgrid[: size[0], : size[1]] - (np.array(size)[:, None, None] - 1) / 2
    angle = np.radians(rng.uniform(-2.0, 2.0)) * bend
    position = np.stack(
        [rows * np.cos(angle) + columns * np.sin(angle), columns * np.cos(angle) - rows * np.sin(angle)]
    )
    position += (np.array(size)[:, None, None] - 1) / 2
    position += bend * 0.012 * max(size) * np.stack([smooth_field(rng, size, max(size) / 2) for _ in range(2)])
    ink = ndimage.map_coordinates(page.ink, position, order=1, mode="constant")
    show_through = ndimage.gaussian_filter(page.ink[:, ::-1], 1.0) * rng.uniform(0.0, 0.16)
    paper = np.array([1.0, rng.uniform(0.9, 0.98), rng.uniform(0.68, 0.95)])[:, None, None] * rng.uniform(0.75, 0.97)
    stains = 1 - 0.12 * np.clip(smooth_field(rng, size, max(size) / 4), 0, 1) - 0.03 * rng.uniform(0, 1, size)
    light = 1 + 0.12 * smooth_field(rng, size, max(size))
    black = rng.uniform(0.05, 0.25)
    image = paper * stains * light * (1 - show_through) * (1 - (1 - black) * ink)
    return np.clip(image + noise * rng.standard_normal((3, *size)), 0, 1), position


def draw_page(
    seed: int | tuple[int, ...], size: tuple[int, int] = (192, 144), *, bend: float = 1.0, noise: float = 0.03
) -> dict[str, Tensor | list]:
    """Draw one page.

    Args:
        seed: an integer, or a tuple such as (seed, index); the same seed gives the same page.
        size: height and width, at least 48 each.
        bend: skew and waves of the scan, 0 (none) to 3.
        noise: standard deviation of the pixel noise, 0 to 1.

    Returns:
        `image` float32 (3, H, W) in [0, 1]; `semantic` int64 (H, W), indices into `CLASSES`; `label_map` int32
        (H, W), one label per region, 0 for paper; `boxes` float32 (N, 4) xyxy; `labels` int64 (N,); `masks`
        bool (N, H, W); `articles` int64 (N,), the article that each region belongs to; `lines` int32 (H, W),
        one label per printed line, 0 elsewhere; `panoptic_seg` and `segments_info`.
    """
    size = check_size("size", size, _MIN_SIZE)
    bend, noise = check_number("bend", bend, 0, 3), check_number("noise", noise, 0, 1)
    rng = scene_rng(seed)
    page = _compose(rng, size)
    image, page_positions = _scan(rng, page, noise, bend)
    row, column = np.round(page_positions).astype(int)
    inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    row, column = row.clip(0, size[0] - 1), column.clip(0, size[1] - 1)
    visible_regions, lines = page.regions[row, column] * inside, page.lines[row, column] * inside
    visible_regions[np.isin(visible_regions, np.flatnonzero(np.bincount(visible_regions.ravel()) < _SPECK))] = 0
    lines[visible_regions == 0] = 0
    label_map, old_labels = compact(torch.from_numpy(visible_regions))
    labels, articles = (np.array(values, np.int64)[old_labels.numpy() - 1] for values in (page.labels, page.articles))
    sample = make_sample(image, label_map.numpy(), labels, stuff=np.zeros(size, np.int64))
    line_map, _ = compact(torch.from_numpy(lines))
    return sample | {"articles": torch.from_numpy(articles), "lines": line_map}
