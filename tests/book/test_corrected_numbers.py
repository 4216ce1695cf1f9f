"""Numbers that were once wrong in the book: each is read from the text and computed again with the library.

A number in the text has to agree at its printed digits. Where a page prints what its cells compute, the cells run here,
and the sentence about the values is compared with them. Values that take long are those of `tests/proofs.csv`.
"""

from __future__ import annotations

import json
import re

import matplotlib.pyplot as plt
import pytest
import torch
from book.page_cells import COURSE, find, rounds_to, run_cells_of, source, states
from exercises.lab_cells import run_cells, sources
from segedu_site.results import read_accuracies
from torch import Tensor, nn

from segedu.datasets.cells import draw_cells
from segedu.datasets.cityscapes import LABEL_IDS
from segedu.instance.omnipose import eikonal_distance, suppressed_euler
from segedu.losses.dice import dice_loss
from segedu.losses.lovasz import lovasz_extension
from segedu.ops.anchors import cell_anchors, grid_anchors
from segedu.ops.mutex_watershed import mutex_watershed
from segedu.ops.roi_align import roi_align
from segedu.semantic.nnunet.plan import make_plan, topology
from segedu.semantic.nnunet.training import oversamples_foreground
from segedu.semantic.res_unet import ResidualUnit
from segedu.semantic.unet import DoubleConv, unet_out_size
from segedu.teaching.evidence.proofs import read_rows
from segedu.teaching.exercises import load
from segedu.weights.own import shapes_sam

NUMBER = r"(\d[\d,]*(?:\.\d+)?)"


def row(claim: str) -> str:
    """The measured figure of the only claim whose name begins so."""
    rows = read_rows(COURSE.parent)
    (name,) = (name for name in rows if name.startswith(claim))
    return rows[name].figure


def reference(lab: str, exercise: str):
    return next(one.reference for one in load(lab).exercises if one.name == exercise)


# --- context ------------------------------------------------------------------------------------------------------


def test_failures_without_context() -> None:
    page = "08-context/failures"
    names, glued, _ = run_cells_of(
        page,
        "def box_images",
        "name: fig-box-context",
        "SIZE = (64, 96)",
        "name: fig-three-failures",
        "name: fig-sizes",
    )
    states(page, "So it assigns car more often than boat to boxes of either class.")
    assert glued["box_boat_as_car"] > glued["box_boat_found"] and glued["box_car_found"] > 50
    assert min(glued["box_boat_context"], glued["box_car_context"]) > max(glued["box_car_found"], 75)
    states(
        page, "labels most pixels of both boxes as car, which is wrong for the boat, and with the summary most pixels"
    )
    for index, label in zip(names["shown"], (2, 1), strict=True):
        box = names["box_test_targets"][index] == label
        assert (names["predictions"]["without context"][index][box] == 1).mean() > 0.5
        assert (names["predictions"]["with context"][index][box] == label).mean() > 0.5
    states(page, "most pixels of these objects receive labels of other classes.")
    assert max(glued["boat_found"], glued["bus_found"]) < 50 and min(glued["boat_car"], glued["bus_building"]) > 0
    states(page, "so this experiment does not show the third failure.")
    assert glued["size_p"] > 0.05


def test_context_of_lab_8() -> None:
    printed = find(
        r"mean IoU is ([\d.]+) to ([\d.]+) without context, ([\d.]+) to ([\d.]+) with \[pyramid pooling\]\(pyramid.md\), and "
        r"([\d.]+) to ([\d.]+) with \[ASPP\]",
        source("08-context/failures"),
    )
    measured = [float(score) for score in row("lab 8: mean IoU in the world of boxes").split()]
    heads = [measured[head::3] for head in range(3)]  # without a head, with ppm, with aspp
    ends = [end for scores in heads for end in (min(scores), max(scores))]
    assert all(rounds_to(end, text) for end, text in zip(ends, printed, strict=True))


# --- U-Net --------------------------------------------------------------------------------------------------------


def test_initialisation_and_not_the_shortcut_keeps_the_gradient() -> None:
    page = "06-unet/variants"
    names, _, printed = run_cells_of(
        page,
        "name: fig-residual-gradient",
        "lengths[0] / lengths[-1]",
        DoubleConv=DoubleConv,
        ResidualUnit=ResidualUnit,
    )
    default, he, residual = (float(value) for value in re.findall(r": ([\d.e+-]+)$", printed, re.M))
    states(page, "With PyTorch's default weights (circles) the gradient of plain blocks almost vanishes")
    assert default < 1e-6
    states(page, "suitable initial weights do so as well, and so does batch normalisation")
    torch.manual_seed(0)
    no_shortcut = names["gradient_lengths"]([ResidualUnit(16, 16).residual for _ in range(10)])
    for ratio in (he, residual, no_shortcut[0] / no_shortcut[-1]):
        assert 0.05 < ratio < 50


def test_tiles_of_a_network_with_poolings() -> None:
    page = "06-unet/sizes"
    out, stride = find(r"with an output of (\d+) pixels, for example, the stride should be (\d+)", source(page))
    assert int(out) == unet_out_size(572, depth=4) and int(stride) == int(out) // 2**4 * 2**4
    names, _, _ = run_cells_of(page, "name: fig-tile", "name: fig-seam", unet_out_size=unet_out_size)
    seams, none = (float(text.split()[-1]) for text in names["said"])
    states(page, "and there is no visible difference.")
    assert seams > 0.05 and none < 0.5 / 256  # the colour scale ends at 0.5


def test_tiles_of_lab_6(monkeypatch) -> None:
    cells = sources("06_unet")
    find("Notice that only this last map shows differences larger than rounding errors", cells["tile_predict_after"])
    given = {"draw_cells": draw_cells, "show": lambda fig, alt: plt.close(fig)}
    names = run_cells(monkeypatch, "06_unet", ["tile_predict_figure"], {}, **given)
    no_pooling, aligned, shifted = (float(gap.max()) for gap in names["differences"].values())
    assert max(no_pooling, aligned) < 1e-5 and shifted > 0.01
    rows, tile, margin, *starts, left_over = map(
        int,
        find(
            r"For an image of (\d+) rows, \$t = (\d+)\$ and \$m = (\d+)\$, the output tiles have \$s = (\d+)\$ rows\. Three "
            r"output tiles begin at rows (\d+), (\d+) and (\d+), and (\d+) row of the last one is discarded",
            cells["tile_predict_text"],
        ),
    )
    out, *starts = starts
    assert out == tile - 2 * margin and starts == list(range(0, rows, out)) and left_over == starts[-1] + out - rows


def test_adaptive_instance_normalisation() -> None:
    low, high, mean, deviation, *printed = find(
        r"content has the two values (\d) and (\d), and the channel of the style has mean (\d+) and standard deviation "
        r"(\d), the result is (\d+) and (\d+)\.",
        source("06-unet/uses"),
    )
    content = torch.tensor([float(low), float(high)], dtype=torch.float64)
    result = nn.functional.instance_norm(content.view(1, 1, 1, 2), eps=0).flatten() * int(deviation) + int(mean)
    assert all(rounds_to(float(value), text) for value, text in zip(result, printed, strict=True))


# --- losses -------------------------------------------------------------------------------------------------------


def dice(foreground: list[tuple[int, int, float]], per_image: bool = True, smooth: float = 1.0) -> float:
    """The Dice loss of the object; each image has (object pixels, background pixels, p on the object, p off it)."""
    longest = max(pixels + rest for pixels, rest, *_ in foreground)
    target, p = torch.full((len(foreground), 1, longest), 255), torch.full((len(foreground), 1, longest), 0.5)
    for i, (pixels, rest, inside, outside) in enumerate(foreground):
        target[i, 0, : pixels + rest], target[i, 0, :pixels] = 0, 1
        p[i, 0, : pixels + rest], p[i, 0, :pixels] = outside, inside
    logit = p.double().logit(eps=1e-12)
    logits = torch.stack([torch.zeros_like(logit), logit], dim=1)
    return float(dice_loss(logits, target, smooth=smooth, per_image=per_image, include_background=False))


def test_dice_loss_of_a_larger_background() -> None:
    page = "07-losses/region-losses"
    pixels, p, off, few, many, less, more, smooth = find(
        rf"With {NUMBER} object pixels at \$p = ([\d.]+)\$ and background at \$p = ([\d.]+)\$, doubling the background "
        rf"from {NUMBER} to {NUMBER} pixels raises the Dice loss from ([\d.]+) to ([\d.]+) \(by the formula "
        r"below, with \$s = (\d)\$",
        source(page),
    )
    for rest, printed in ((few, less), (many, more)):
        of_image = (int(pixels), int(rest.replace(",", "")), float(p), float(off))
        assert rounds_to(dice([of_image], smooth=float(smooth)), printed)


def test_dice_loss_of_a_missed_object() -> None:
    page = "07-losses/region-losses"
    large, small = find(r"One image has an object of ([\d,]+) pixels, another one of (\d+)\.", source(page))
    batch, of_missed, mean = find(
        r": ([\d.]+) with s = 1\. If the loss is computed per image, the second image has a loss of ([\d.]+)\. The mean "
        r"over both images is ([\d.]+), and all of it comes from the missed object",
        source(page),
    )
    images = [(int(large.replace(",", "")), 100, 1.0, 0.0), (int(small), 100, 0.0, 0.0)]
    assert rounds_to(dice(images, per_image=False), batch) and rounds_to(dice(images), mean)
    assert rounds_to(dice(images[1:]), of_missed) and dice(images[:1]) < 1e-6
    one, hundred = find(r"one pixel costs ([\d.]+) and 100 pixels cost ([\d.]+)\.", source(page))
    assert rounds_to(dice([(1, 100, 0.0, 0.0)]), one) and rounds_to(dice([(100, 100, 0.0, 0.0)]), hundred)
    limit = find(r"with s = 100, a missed object of 10 pixels costs less than ([\d.]+)", source(page))[0]
    assert dice([(10, 100, 0.0, 0.0)], smooth=100) < float(limit)


def test_weights_of_the_lovasz_hinge() -> None:
    text = source("10-embeddings/index")
    errors = find(r"background pixels with errors ([\d.]+) and ([\d.]+), and two object pixels with errors ([\d.]+) and "
                  r"([\d.]+)\.", text)  # fmt: skip
    losses = find(r"grows from 0 to (\S+), (\S+), (\S+) and (\S+), so", text)
    weights = find(r"so the weights are (\S+), (\S+), (\S+) and (\S+?)\. The third pixel has a smaller error than the "
                   r"second one, but a larger weight", text)  # fmt: skip
    values = torch.tensor([float(error) for error in errors], dtype=torch.float64, requires_grad=True)
    lovasz_extension(values, torch.tensor([0.0, 0, 1, 1]), torch.ones(4).bool()).backward()
    assert values.grad.tolist() == pytest.approx([fraction(weight) for weight in weights], abs=1e-6)
    assert values.grad.cumsum(0).tolist() == pytest.approx([fraction(loss) for loss in losses], abs=1e-6)


def fraction(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


# --- data ---------------------------------------------------------------------------------------------------------


def test_codes_of_stuff() -> None:
    alone, wrong = find(r"A road pixel has the value (\d+) there, not (\d+)\.", sources("01_tasks")["panoptic_idea"])
    on_page = find(r"a road pixel holds (\d+), not ([\d ]+)\.", source("01-tasks/arrays"))
    assert (int(alone), int(wrong)) == (LABEL_IDS["road"], 1000 * LABEL_IDS["road"])
    assert on_page == (alone, f"{int(wrong):,}".replace(",", " "))
    table = re.findall(r"\| (\d+) \(\w+\) \| (\d+) \| (\d+) \|", sources("01_tasks")["panoptic_idea"])
    category, instance, codes = torch.tensor([[int(value) for value in line] for line in table]).T
    encode = reference("01_tasks", "panoptic_roundtrip")
    encoded, *_ = encode(category[None].to(torch.uint8), instance[None].int(), [11], codes[None])
    assert len(table) == 3 and encoded[0].tolist() == codes.tolist()


def test_how_many_boxes_cost_as_much_as_a_mask() -> None:
    page = "01-tasks/datasets"
    text, glued = source(page), run_cells_of(page, "name: fig-cost").glued
    hours, per = find(rf"over {NUMBER} worker hours per {NUMBER} segmentations", text.partition("COCO reports")[2])
    drawn, by_clicks = find(r"took about (\d+) seconds\. Clicking the four extreme points of an object takes about (\d+) "
                            r"seconds", text)  # fmt: skip
    mask = 3600 * float(hours) / float(per.replace(",", ""))
    assert glued["mask_seconds"] == mask
    assert glued["mask_drawn_boxes"] == mask / float(drawn) and glued["mask_boxes"] == mask / float(by_clicks)
    annotated = find(
        r"At (\d+) seconds per mask, about ([\d,]+) masks\. At (\d+) seconds per drawn box, about ([\d,]+) boxes; at (\d+) "
        r"seconds per box by extreme clicking, about ([\d,]+)\.",
        text,
    )
    assert rounds_to(mask, annotated[0]) and annotated[2:5:2] == (drawn, by_clicks)
    for seconds, number in zip((mask, float(drawn), float(by_clicks)), annotated[1::2], strict=True):
        assert 100 * 3600 / seconds == pytest.approx(float(number.replace(",", "")), rel=0.03)
    assert find(r"a box takes (\d+) seconds if people click", source("16-promptable/labelling")) == (by_clicks,)


def test_patches_that_are_forced_to_contain_foreground() -> None:
    page = "16-promptable/nnunet"
    states(page, "With a batch of 2, this is every second patch.")
    assert [oversamples_foreground(index, 2) for index in range(6)] == [False, True] * 3
    printed = run_cells_of(
        page, "found = fingerprint(volumes)", "oversamples_foreground", make_plan=make_plan, topology=topology
    ).printed
    assert "batch of 2: 300 of 600 patches are forced" in printed
    states(page, "Both classes occur clearly more often in the forced patches.")
    shares = re.findall(r"in (\d+) % of the forced patches, in (\d+) % of the others", printed)
    assert len(shares) == 2 and all(int(forced) >= 1.5 * int(free) for forced, free in shares)


# --- distances ----------------------------------------------------------------------------------------------------


def test_how_far_omnipose_moves_pixels() -> None:
    page = "09-distances/omnipose"
    (printed,) = find(r"at most \$1 \+ \\frac12 \+ \\frac13 \+ \\frac14 \+ \\frac15 = ([\d.]+)\$ pixels", source(page))
    level = torch.stack([torch.zeros(9, 9), torch.ones(9, 9)]).double()
    moved = suppressed_euler(level, torch.ones(9, 9).bool())[0, 1]
    assert rounds_to(float(moved), printed)
    alone, corner = find(
        r"alone, \$u = \\frac12 \\sqrt2 = ([\d.]+)\$ there.*? the geometric mean .*? = ([\d.]+)\$", source(page)
    )
    square = torch.zeros(40, 40).int()
    square[2:38, 2:38] = 1
    assert rounds_to(0.5 * 2**0.5, alone) and rounds_to(float(eikonal_distance(square)[2, 2]), corner)
    glued = run_cells_of(page, "name: fig-omnipose\n", "name: fig-eikonal", "name: fig-omnipose-steps").glued
    states(page, "There, the end points fill a smaller version of the cell and do not form a chain.")
    assert glued["off_skeleton_thin"] < 10 and glued["off_skeleton_wide"] > 50


def test_denoiseg_beside_the_same_network_without_denoising() -> None:
    page = "09-distances/denoiseg"
    denoiseg, same_batches, labelled_only = (
        [float(score) for score in row(f"results: {method} on noisy_cells").split()[-8:-5]]
        for method in ("denoiseg", "denoiseg_alpha_0", "three_classes")
    )
    gains = find(
        r"two of the three seeds, by ([\d.]+) and ([\d.]+), and almost the same score with the third "
        r"\(([\d.]+) and ([\d.]+)\)\.",
        source(page),
    )
    values = (denoiseg[0] - labelled_only[0], denoiseg[2] - labelled_only[2], denoiseg[1], labelled_only[1])
    assert all(rounds_to(value, printed) for value, printed in zip(values, gains, strict=True))
    gains = find(r"it is better with each seed, by ([\d.]+), ([\d.]+) and ([\d.]+)\.", source(page))
    differences = [one - other for one, other in zip(denoiseg, same_batches, strict=True)]
    assert all(rounds_to(value, printed) for value, printed in zip(differences, gains, strict=True))
    states(page, "without denoising, they lower the score with two of the seeds.")
    assert sum(one < other for one, other in zip(same_batches, labelled_only, strict=True)) == 2
    states(page, "All scores are also below 0.5.")
    assert max(*denoiseg, *same_batches, *labelled_only) < 0.5
    states(page, "reaches an instance accuracy of only about 0.2")
    plain = [float(score) for score in row("results: denoiseg on noisy_cells").split()[-11:-8]]
    assert all(0.15 < score < 0.25 for score in plain)


def test_rays_of_stardist() -> None:
    page = "09-distances/stardist"
    _, glued, printed = run_cells_of(page, "name: fig-stardist\n", "for n_rays, step in")
    states(page, "many of its rays end at the edge beside it.")
    assert rounds_to(glued["short_rays"] / 32, "0.5")  # 15 of 32
    table = re.findall(r"(\d+) rays, grid (\d) x \d: mean IoU ([\d.]+), +([\d.]+) % of the nuclei", printed)
    iou = {(int(rays), int(step)): float(value) for rays, step, value, _ in table}
    gain = find(r"from 16 to 32, and again from 32 to 64, increases the mean IoU of these polygons by about ([\d.]+) each",
                source(page))[0]  # fmt: skip
    assert rounds_to(iou[32, 1] - iou[16, 1], gain) and rounds_to(iou[64, 1] - iou[32, 1], gain)
    detected = {int(step): float(value) for rays, step, _, value in table if rays == "32"}
    states(page, "Grids of 2 x 2 and 4 x 4 hardly change the result here, while a grid of 8 x 8 misses whole nuclei.")
    assert max(abs(iou[32, step] - iou[32, 1]) for step in (2, 4)) < 0.01 and detected[4] > 95 > 85 > detected[8]


def test_real_images() -> None:
    page = "09-distances/which"
    nuclei, cells = ({one.method: one for one in read_accuracies(data)} for data in ("nuclei_grouped", "phase_cells"))
    plain, cellpose, stardist = (
        [float(value) for value in values]
        for values in (nuclei["stardist"].plain_at_iou, nuclei["cellpose"].at_iou, nuclei["stardist"].at_iou)
    )
    states(page, "Cellpose is ahead of StarDist at every threshold")
    assert all(better > worse for better, worse in zip(cellpose, stardist, strict=True))
    states(page, "At the thresholds 0.8 and 0.9, StarDist is below the baseline without a network")
    assert [own < other for own, other in zip(stardist, plain, strict=True)] == [False, False, False, True, True]
    states(page, "Cells in phase contrast")
    at_half = {method: float(one.at_iou[0]) for method, one in cells.items()}
    states(page, "Cellpose has about twice the accuracy of StarDist.")
    assert 1.7 < at_half["cellpose"] / at_half["stardist"] < 2.3
    states(page, "Omnipose is ahead of StarDist and behind Cellpose")
    assert at_half["stardist"] < at_half["omnipose"] < at_half["cellpose"]
    states(page, "StarDist also had about half of the training time of Cellpose.")
    assert 0.4 < float(cells["stardist"].cpu_seconds) / float(cells["cellpose"].cpu_seconds) < 0.6
    texts = dict(text.split(maxsplit=1) for text in row("perfect targets of phase_cells").split("; "))
    perfect = {name: [float(value) for value in values.split()] for name, values in texts.items()}
    at_low_iou, at_high_iou = find(
        r"reach ([\d.]+) on these images at an IoU of 0.5, but only ([\d.]+) at 0.8", source(page)
    )
    assert rounds_to(perfect["stardist"][0], at_low_iou) and rounds_to(perfect["stardist"][1], at_high_iou)
    assert all(rounds_to(value, "1.00") for value in perfect["cellpose"])
    before, after = find(r"lower the accuracy from ([\d.]+) to ([\d.]+),", source(page))
    assert rounds_to(perfect["omnipose"][0], before) and rounds_to(perfect["omnipose_tuned"][0], after)


# --- statements that were weakened to what was measured -------------------------------------------------------------


def test_mutex_watershed_of_three_pixels() -> None:
    near, far, last, less = map(
        float,
        find(
            r"A–B attracts with ([\d.]+), A–C repels with ([\d.]+), and B–C attracts with ([\d.]+)\..*The result is "
            r"\{A, B\}, \{C\}\. If the repulsion were ([\d.]+), it would be processed last",
            source("10-embeddings/affinities"),
        ),
    )
    pairs, attractive = torch.tensor([[0, 1], [0, 2], [1, 2]]), torch.tensor([True, False, True])
    clusters = [mutex_watershed(3, pairs, torch.tensor([near, weight, last]), attractive) for weight in (far, less)]
    assert [len(set(one.tolist())) for one in clusters] == [2, 1]


def test_coins_and_specks() -> None:
    page = "02-clustering/watershed"
    glued = run_cells_of(page, "name: fig-watershed\n", "name: fig-watershed-markers").glued
    coins, more_than = find(r"a crop with (\d+) coins.*?it is larger than (\d+), because some components are small specks",
                            source(page))  # fmt: skip
    assert int(coins) == int(more_than) == glued["coin_whole"]
    assert glued["coin_components"] == glued["coin_whole"] + glued["coin_specks"] > glued["coin_whole"]


def test_corrections_of_sam() -> None:
    page = "16-promptable/sam-in-use"
    scores = json.loads(shapes_sam.FILE.with_suffix(".json").read_text())["mean_iou_on_new_scenes"]["all"]
    states(page, "In this measurement the corrections also determine which reading was meant.")
    find(r"`all_corrected:\.2f`, close to the \{glue:text\}`all_box:\.2f` of a box", source(page))
    assert scores["chosen"] + 0.05 < scores["corrected"] and abs(scores["corrected"] - scores["box"]) < 0.02


def test_features_and_colours() -> None:
    features, colours = find(r"with 50 other streets gives ([\d.]+) for the features and ([\d.]+) for colours\.",
                             source("02-clustering/features"))  # fmt: skip
    measured = row("features of a small ViT: adjusted Rand index")
    assert rounds_to(float(find(r"ViT ([\d.]+) [\d.]+; mean of", measured)[0]), features)
    assert rounds_to(float(find(r": colour ([\d.]+) ", measured)[0]), colours)


# --- one convention for RoIAlign and for anchors --------------------------------------------------------------------


def sampled(box: list[float], cells: int, aligned: bool = True) -> Tensor:
    ramp = torch.arange(float(cells)).expand(1, 1, 1, cells)
    return roi_align(ramp, [torch.tensor([[box[0], 0.0, box[1], 1.0]])], (1, 2), 1.0, 1, aligned)[0, 0, 0]


def test_roi_align_of_the_page_and_of_the_lab() -> None:
    text = source("14-top-down/roi-align")
    side, first, second = find(
        r"box reaches from 0 to ([\d.]+), and there are two bins.*?indices are ([\d.]+) and ([\d.]+)\.", text
    )
    wider, third, fourth = find(r"If the box ends at ([\d.]+), they are ([\d.]+) and ([\d.]+)\.", text)
    for end, printed in ((side, (first, second)), (wider, (third, fourth))):
        assert all(rounds_to(float(v), text) for v, text in zip(sampled([0, float(end)], 5), printed, strict=True))
    lab = next(cell for cell in sources("14_top_down").values() if "If you place the" in cell)
    low, high, one, two, wrong_one, wrong_two = find(
        r"A box extends from x = ([\d.]+) to ([\d.]+) and .*?the sample is ([\d.]+)\. At 3\.0, the sample is ([\d.]+)\. If you "
        r"place the centre of cell r at r instead of r \+ 1/2, the samples are (\d) and (\d)\.",
        lab,
    )
    box = [float(low), float(high)]
    assert sampled(box, 4).tolist() == [float(one), float(two)]
    assert sampled(box, 4, aligned=False).tolist() == [float(wrong_one), float(wrong_two)]


def test_anchors_of_the_page_and_of_the_lab() -> None:
    text = source("11-detection/anchors")
    boxes = find(r"are \(([\d., ]+)\) and \(([\d., ]+)\)\. Consider the anchor", text)
    expected = [[float(side) for side in box.split(", ")] for box in boxes]
    of_page = grid_anchors(cell_anchors([2], [1, 4]) + 4, (1, 2), 8)
    assert of_page[:2].tolist() == expected
    lab = next(cell for cell in sources("11_detection").values() if "so the anchor is" in cell)
    anchor = find(r"row 0 and column 1 has its centre at \(12, 4\), so the anchor is \(([\d, ]+)\)\.", lab)[0]
    place = reference("11_detection", "make_anchors")
    assert torch.as_tensor(place((1, 2), 8, [4.0], [4.0]))[1].tolist() == [float(side) for side in anchor.split(", ")]
    states(
        "11-detection/anchors",
        "centre of the first anchors | the centre of the first cell, stride / 2 | the corner of the image, 0",
    )
    assert grid_anchors(cell_anchors([2], [1]), (1, 1), 8).tolist() == [[-1, -1, 1, 1]]
