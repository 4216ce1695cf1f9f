"""Architecture diagrams in one visual language: boxes with channels and strides, arrows, one colour per role.

The sizes are read from a network that runs: `output_shapes` records the shape of what every module returns, and
`Diagram.module` writes it into the box. A diagram can therefore not contradict the code, and a module that is renamed
or removed is an error when the page is built.

    net = SegNet(vgg16_bn(), num_classes=11).eval()
    image = torch.zeros(1, 3, 64, 96)
    diagram = Diagram(output_shapes(net, image), image)
    diagram.box("image", "image", at=(0, 0), role="data", shape=image.shape)
    diagram.module("decoder.0", "unpool, convolve", at=(1, 0), role="decoder")
    diagram.arrow("image", "decoder.0")
    show(diagram.figure(), alt="...")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle
from matplotlib.text import Text
from torch import Tensor, nn

INK = "#1b1b1b"
# role -> (colour of the box, name in the legend)
ROLES = {
    "data": ("#ffffff", "data"),
    "backbone": ("#cfe5f5", "backbone or encoder"),
    "neck": ("#cdebd8", "neck or decoder"),
    "transformer": ("#e9d7f0", "attention"),
    "layer": ("#cfe5f5", "layers with weights"),
    "head": ("#fbdcb4", "head"),
    "operation": ("#ececec", "operation without weights"),
    "loss": ("#f6cfc6", "loss, in training only"),
}
OPAQUE = {"bbox": {"fc": "white", "lw": 0, "pad": 1}, "zorder": 3}
WIDTH, HEIGHT = 1.6, 0.6  # of a box, in inches


def output_shapes(net: nn.Module, *inputs: Any, method: str = "forward", **options: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of what each module of a network returned last, in one forward pass without gradients.

    Of a module that returns a list or a dict, its tensors have the names `module.0`, `module.1` or `module.key`. A
    network built on the device "meta" computes nothing, so that networks of any size take no memory and no time.

    Args:
        net: in eval mode.
        *inputs: of the method.
        method: for example "forward_with_aux", which also runs the heads that only training needs.
        **options: of the method.

    >>> output_shapes(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2)), torch.zeros(1, 3, 6, 6))
    {'0': (1, 8, 4, 4), '1': (1, 8, 2, 2), '': (1, 8, 2, 2)}
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape)
        elif isinstance(output, Mapping):
            for key, value in output.items():
                record(f"{name}.{key}".lstrip("."), value)
        elif isinstance(output, Sequence) and not isinstance(output, str):
            for index, value in enumerate(output):
                record(f"{name}.{index}".lstrip("."), value)

    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: record(name, output))
        for name, module in net.named_modules()
    ]
    try:
        with torch.no_grad():
            if method == "forward":
                net(*inputs, **options)
            else:
                record("", getattr(net, method)(*inputs, **options))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


class Diagram:
    """Boxes on a grid of columns and rows, joined by arrows. Row 0 is the lowest one.

    Args:
        shapes: what `output_shapes` returned; needed by `module` only.
        image: the image that went through the network, (B, C, H, W); strides are relative to its height and width.
        spacing: distance between the centres of neighbouring columns and rows, in inches.
        fontsize: of the text in the boxes, in points.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        image: Tensor | None = None,
        spacing: tuple[float, float] = (2.0, 0.95),
        fontsize: float = 9,
    ) -> None:
        self.shapes = dict(shapes or {})
        self.image_size = None if image is None else image.shape[-2:]
        self.spacing, self.fontsize = spacing, fontsize
        self.boxes: dict[str, dict[str, Any]] = {}
        self.arrows: list[dict[str, Any]] = []
        self.frames: list[tuple[str, list[str]]] = []

    def box(
        self,
        key: str,
        text: str,
        at: tuple[float, float],
        role: str,
        shape: Sequence[int] | None = None,
        size: tuple[float, float] = (WIDTH, HEIGHT),
        stride: bool = True,
    ) -> None:
        """Add a box.

        Args:
            key: name by which arrows refer to the box.
            text: its first lines; the size is written below.
            at: (column, row) of its centre; fractions are allowed.
            role: a key of `ROLES`, which decides the colour.
            shape: of the tensor that leaves the box, (B, C, H, W) or (B, N, C); None writes no size.
            size: width and height in inches.
            stride: whether the size of a map is its stride; False writes rows and columns, as for pooled regions.
        """
        if key in self.boxes:
            raise ValueError(f"key {key!r} is used by two boxes")
        if role not in ROLES:
            raise ValueError(f"role is {role!r}, expected one of {', '.join(ROLES)}")
        lines = text if shape is None else f"{text}\n{self.size_text(shape, stride)}"
        self.boxes[key] = {"text": lines, "at": at, "role": role, "size": size}

    def module(
        self,
        name: str,
        text: str,
        at: tuple[float, float],
        role: str,
        size: tuple[float, float] = (WIDTH, HEIGHT),
        stride: bool = True,
    ) -> None:
        """Add a box for a module of the network, with the size of its output. Its key is the module's name."""
        if name not in self.shapes:
            raise KeyError(f"the network returned nothing named {name!r}; it has {', '.join(sorted(self.shapes)[:40])}")
        self.box(name, text, at, role, self.shapes[name], size, stride)

    def size_text(self, shape: Sequence[int], stride: bool = True) -> str:
        """A shape in words: channels and stride of a map, number and channels of a list of vectors."""
        if len(shape) == 4:
            channels, height, width = shape[1:]
            step = _stride(self.image_size, (height, width)) if stride and self.image_size is not None else 0
            if not step:
                return f"{channels} × {height} × {width}"
            words = f"{channels} channel" if channels == 1 else f"{channels} channels"
            return f"{words}, 1/{step}" if step > 1 else words
        if len(shape) == 3:
            return f"{shape[1]} × {shape[2]}"
        return " × ".join(map(str, shape[1:])) or "scalar"

    def arrow(
        self,
        start: str,
        end: str,
        text: str = "",
        dashed: bool = False,
        bend: str = "",
        shift: tuple[float, float] = (0, 0),
    ) -> None:
        """Join two boxes by an arrow.

        Args:
            start, end: keys of the boxes.
            text: beside the arrow.
            dashed: for what happens in training only, or only sometimes.
            bend: "" for a straight arrow; "hv" leaves horizontally and arrives vertically, "vh" the other way round;
                "over" and "under" run above or below the boxes between.
            shift: of the text, in inches.
        """
        for key in (start, end):
            if key not in self.boxes:
                raise ValueError(f"no box has the key {key!r}; there are {', '.join(self.boxes)}")
        if bend not in ("", "hv", "vh", "over", "under"):
            raise ValueError(f"bend is {bend!r}, expected '', 'hv', 'vh', 'over' or 'under'")
        self.arrows.append({"start": start, "end": end, "text": text, "dashed": dashed, "bend": bend, "shift": shift})

    def frame(self, title: str, keys: Sequence[str]) -> None:
        """Draw a thin frame with a title around some boxes and the arrows between them."""
        self.frames.append((title, list(keys)))

    def _extent(self, key: str) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of a box in inches."""
        box = self.boxes[key]
        x, y = box["at"][0] * self.spacing[0], box["at"][1] * self.spacing[1]
        width, height = box["size"]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def _path(self, arrow: dict[str, Any]) -> list[tuple[float, float]]:
        """Corners of an arrow."""
        (l1, b1, r1, t1), (l2, b2, r2, t2) = self._extent(arrow["start"]), self._extent(arrow["end"])
        x1, y1, x2, y2 = (l1 + r1) / 2, (b1 + t1) / 2, (l2 + r2) / 2, (b2 + t2) / 2
        right, up = x2 > x1, y2 > y1
        if arrow["bend"] == "hv":
            return [(r1 if right else l1, y1), (x2, y1), (x2, b2 if up else t2)]
        if arrow["bend"] == "vh":
            return [(x1, t1 if up else b1), (x1, y2), (l2 if right else r2, y2)]
        if arrow["bend"]:
            over = arrow["bend"] == "over"
            level = max(t1, t2) + 0.28 if over else min(b1, b2) - 0.28
            # not at the centres, so that an arrow that arrives and one that leaves the same box do not touch
            sign = 1 if right else -1
            x1, x2 = x1 + sign * (r1 - l1) / 5, x2 - sign * (r2 - l2) / 5
            return [(x1, t1 if over else b1), (x1, level), (x2, level), (x2, t2 if over else b2)]
        # straight: between the facing sides, at a height or column that both boxes share where there is one
        low, high = max(b1, b2), min(t1, t2)
        if high - low > 0.4 * min(t1 - b1, t2 - b2) and (l2 >= r1 or l1 >= r2):
            level = (low + high) / 2
            return [(r1 if right else l1, level), (l2 if right else r2, level)]
        left, far = max(l1, l2), min(r1, r2)
        if left < far:
            column = (left + far) / 2
            return [(column, t1 if up else b1), (column, b2 if up else t2)]
        return [(r1 if right else l1, y1), (l2 if right else r2, y2)]

    def figure(self) -> Figure:
        """Draw everything.

        Raises:
            ValueError: if two boxes overlap or a text is larger than its box.
        """
        extents = {key: self._extent(key) for key in self.boxes}
        paths = [self._path(arrow) for arrow in self.arrows]
        framed = {}
        for title, keys in self.frames:
            inside = [p for arrow, path in zip(self.arrows, paths, strict=True) for p in path if _joins(arrow, keys)]
            framed[title] = _around([*(extents[key] for key in keys), *((x, y, x, y) for x, y in inside)])
        corners = [*extents.values(), *framed.values(), *((x, y, x, y) for path in paths for x, y in path)]
        left, bottom, right, top = _bounds(corners)
        left, bottom, right, top = left - 0.12, bottom - 0.5, right + 0.12, top + 0.12
        fig = Figure(figsize=(right - left, top - bottom))
        FigureCanvasAgg(fig)
        ax = fig.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
        ax.set_axis_off()
        small = {"fontsize": max(self.fontsize - 1, 8)}
        for title, (x1, y1, x2, y2) in framed.items():
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec="#767676", lw=0.9, ls=(0, (4, 3))))
            ax.text(x1 + 0.06, y2 - 0.05, title, ha="left", va="top", color="#4a4a4a", **OPAQUE, **small)
        for arrow, path in zip(self.arrows, paths, strict=True):
            _draw_arrow(ax, arrow, path, small)
        texts = {}
        for key, (x1, y1, x2, y2) in extents.items():
            colour, text = ROLES[self.boxes[key]["role"]][0], self.boxes[key]["text"]
            rounded = "round,pad=0,rounding_size=0.06"
            ax.add_patch(FancyBboxPatch((x1, y1), x2 - x1, y2 - y1, rounded, fc=colour, ec=INK, lw=0.9))
            centred = {"ha": "center", "va": "center", "fontsize": self.fontsize, "color": INK}
            texts[key] = ax.text((x1 + x2) / 2, (y1 + y2) / 2, text, **centred)
        used = [values for role, values in ROLES.items() if any(box["role"] == role for box in self.boxes.values())]
        handles = [Patch(fc=colour, ec=INK, lw=0.9, label=name) for colour, name in used]
        tight = {"frameon": False, "borderaxespad": 0.1, "handlelength": 1.2, "columnspacing": 1.2}
        ax.legend(handles=handles, loc="lower center", ncols=len(handles), **tight, **small)
        self._check(fig, extents, texts)
        return fig

    def _check(self, fig: Figure, extents: Mapping[str, tuple[float, ...]], texts: Mapping[str, Text]) -> None:
        keys = list(extents)
        for i, first in enumerate(keys):
            for second in keys[i + 1 :]:
                a, b = extents[first], extents[second]
                if min(a[2], b[2]) - max(a[0], b[0]) > 0.01 and min(a[3], b[3]) - max(a[1], b[1]) > 0.01:
                    raise ValueError(f"boxes {first!r} and {second!r} overlap; give them other columns, rows or sizes")
        renderer = fig.canvas.get_renderer()
        for key, text in texts.items():
            drawn = text.get_window_extent(renderer)
            width, height = drawn.width / fig.dpi, drawn.height / fig.dpi
            room = self.boxes[key]["size"]
            if width > room[0] - 0.04 or height > room[1] - 0.02:
                raise ValueError(
                    f"the text of box {key!r} needs {width:.2f} x {height:.2f} inches, its box has {room[0]} x "
                    f"{room[1]}; shorten the text or enlarge the box"
                )


def _stride(image_size: Sequence[int], size: Sequence[int]) -> int:
    """Stride of a map with these rows and columns; 0 if no integer fits both.

    A power of two is preferred: 12 of 360 rows are 1/32 and not 1/30, because each pooling rounds up.
    """
    for stride in (*(2**n for n in range(8)), round(image_size[0] / size[0])):
        pairs = zip(image_size, size, strict=True)
        if stride and all(side in (full // stride, -(-full // stride)) for full, side in pairs):
            return stride
    return 0


def _draw_arrow(
    ax: Axes, arrow: Mapping[str, Any], path: Sequence[tuple[float, float]], small: Mapping[str, float]
) -> None:
    ax.plot(*zip(*path, strict=True), lw=1.1, color=INK, ls=(0, (4, 2)) if arrow["dashed"] else "-")
    tip = {"arrowstyle": "-|>", "mutation_scale": 9, "lw": 0, "fc": INK, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(path[-2], path[-1], **tip))
    if not arrow["text"]:
        return
    (x1, y1), (x2, y2) = max(zip(path, path[1:], strict=False), key=lambda ends: _length(*ends))
    x, y = (x1 + x2) / 2 + arrow["shift"][0], (y1 + y2) / 2 + arrow["shift"][1]
    if abs(y2 - y1) > abs(x2 - x1):
        ax.text(x + 0.05, y, arrow["text"], ha="left", va="center", color=INK, **small)
    else:
        ax.text(x, y + 0.03, arrow["text"], ha="center", va="bottom", color=INK, **small)


def _joins(arrow: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return arrow["start"] in keys and arrow["end"] in keys


def _length(start: tuple[float, float], end: tuple[float, float]) -> float:
    return abs(start[0] - end[0]) + abs(start[1] - end[1])


def _bounds(extents: Sequence[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    lefts, bottoms, rights, tops = zip(*extents, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _around(extents: Sequence[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    left, bottom, right, top = _bounds(extents)
    return left - 0.14, bottom - 0.12, right + 0.14, top + 0.3
