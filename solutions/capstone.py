# %% [markdown] name="title"
# # Capstone: a method of your own, and a report that others can trust
#
# In the sixteen labs, the functions that you write are specified in advance. Here you decide yourself what to write.
# You choose a data set, build a method that is better than a simple baseline, and report the results in a way that
# convinces a sceptical reader. The report has at least three metrics, at least two seeds for every trained method, a
# test set that was used neither for training nor for choosing settings, and an analysis of the ten test images with the
# lowest scores.
#
# **Time**: 4 hours; no GPU is needed. **Prerequisites**: the chapters and labs that match your data set. They are
# listed on the [page of the capstone](../course/capstone.md), which also explains the rubric. An honest table with a
# good explanation earns more points than a high score.
#
# Every cell below that ends in `NotImplementedError` is yours to complete. The last cell checks your report and lists
# what is missing. Save the notebook with its outputs, and hand in the saved file.

# %% name="setup"
import torch

from segedu.teaching import capstone
from segedu.teaching.checks import setup

setup()

# %% [markdown] name="question"
# ## 1. The question
#
# Before you train anything, write three sentences: which data set you use (`cells`, `street` or `volume`), what your
# method should segment, and which errors you expect.

# %% [markdown] name="question_answer"
# ### BEGIN SOLUTION: three sentences
# I use synthetic `cells` of 128 x 128 pixels, and my method should segment every nucleus as a separate object. Nuclei
# touch and a threshold merges them, so I train Cellpose, which predicts for each pixel the direction to the centre of
# its nucleus. I train it for only 100 iterations with 8 crops each, so I expect that it misses small and dim nuclei.
# ### END SOLUTION

# %% [markdown] name="data_text"
# ## 2. The data and the split
#
# You need three sets: one for training, one for choosing settings, and a test set of at least ten images, which you
# use only **once**, at the end. The last lines of the next cell compute a fingerprint of every image and run the leak
# test, which compares the test images with the images that you use for training or for choosing settings. The leak test
# reports a test image that is a copy of one of those images, even if the copy is flipped or noisy.

# %% name="data"
# DATA is the name of your data set, and train, val and test are lists of its samples.
### BEGIN SOLUTION: DATA, train, val and test
from segedu.datasets.cells import Cells

DATA = "cells"
train, val, test = ([scenes[i] for i in range(len(scenes))] for scenes in (Cells(64, 10), Cells(8, 11), Cells(32, 12)))
### END SOLUTION
seen = [capstone.fingerprint(sample["image"]) for sample in [*train, *val]]
unseen = [capstone.fingerprint(sample["image"]) for sample in test]
leaking = capstone.leaks(seen, unseen)
print(
    f"{len(train)} training, {len(val)} validation and {len(test)} test images; {len(leaking)} test images are leaked."
)

# %% [markdown] name="metrics_text"
# ## 3. The metrics
#
# Choose at least three metrics. The first metric determines which images are worst, so it has to be defined for a
# single image, and higher values have to be better. Give fractions as numbers from 0 to 1, not as percentages. For each
# metric, state in one sentence which errors it does not detect. Chapters 4 and 13 discuss such errors.

# %% name="metrics"
# METRICS is a tuple of names, and measure(prediction, sample) returns one value per metric.
### BEGIN SOLUTION: METRICS and measure
from segedu.metrics.instance import instance_metrics
from segedu.metrics.semantic import binary_dice

METRICS = ("accuracy, IoU 0.5", "accuracy, IoU 0.8", "foreground Dice")


def measure(prediction, sample):
    """Accuracy, TP / (TP + FP + FN), does not measure how accurate a matched mask is. Dice ignores merged objects."""
    target = sample["label_map"]
    accuracies = instance_metrics(prediction, target, [0.5, 0.8])["accuracy"].tolist()
    return (*accuracies, binary_dice(prediction > 0, target > 0))


### END SOLUTION

# %% [markdown] name="methods_text"
# ## 4. The methods
#
# Begin with a **baseline** that needs no training. Without a baseline, a reader cannot judge whether a score is high.
# Then add a method of your own. Write each method as a function of a seed. It trains the method, and returns a function
# from an image to a prediction. Everything that is random during the training must depend on this seed only. If nothing
# in a method is random, its seed is `None`.

# %% name="methods"
# METHODS is a dict from names to functions (seed) -> (image -> prediction).
# BASELINE is the name of one of them.
### BEGIN SOLUTION: METHODS and BASELINE
from segedu.recipes.baselines import OtsuWatershed
from segedu.instance.cellpose.cellpose import Cellpose, cellpose_loss, cellpose_targets, postprocess
from segedu.training import train_steps
from tqdm.auto import tqdm

BASELINE, STEPS = OtsuWatershed.name, 100


def threshold(seed):
    """Otsu's threshold and a watershed. Nothing is random, so the seed is ignored."""
    return lambda image: OtsuWatershed()(image[None])[0]


def random_crops(generator):
    """Batches of eight crops of 64 x 64 pixels, randomly flipped, and their targets."""
    for _ in range(STEPS):
        crops = []
        for pick in torch.randint(len(train), (8,), generator=generator).tolist():
            top, left, flip = torch.randint(0, 65, (3,), generator=generator).tolist()
            image, cells = (train[pick][key][..., top : top + 64, left : left + 64] for key in ("image", "label_map"))
            crops.append((image.flip(-1), cells.flip(-1)) if flip > 32 else (image, cells))
        targets = [cellpose_targets(cells) for _, cells in crops]
        yield torch.stack([image for image, _ in crops]), {k: torch.stack([t[k] for t in targets]) for k in targets[0]}


def cellpose(seed):
    """A Cellpose with few channels, trained for STEPS iterations."""
    torch.manual_seed(seed)
    net = Cellpose(3, [8, 16, 32, 64])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
    steps = train_steps(
        net,
        random_crops(torch.Generator().manual_seed(seed)),
        cellpose_loss,
        optimizer,
        scheduler=schedule,
        clip_norm=1.0,
    )
    for _ in tqdm(steps, f"cellpose, seed {seed}", STEPS):
        pass
    net.eval()
    with torch.no_grad():
        return lambda image: postprocess({k: v.detach() for k, v in net(image[None]).items()})[0]


METHODS = {BASELINE: threshold, "Cellpose": cellpose}
### END SOLUTION

# %% [markdown] name="run_text"
# ## 5. Train and measure
#
# Train each method once per seed. Then compute the mean of each metric over the test images, and store one
# `capstone.Row` per method and seed in the list `rows`. If the first metric is not defined for an image, the score of
# this image is NaN. In that case, state whether the mean excludes the image.
#
# The next cells use two more lists, with one entry per test image, from one run of your best method: `predictions`, and
# `scores`, the values of the first metric.

# %% name="run"
# rows is a list of capstone.Row(method, seed, values).
# predictions and scores are those of your best method.
### BEGIN SOLUTION: rows, predictions and scores
rows, by_method = [], {}
for name, start in METHODS.items():
    for seed in [None] if name == BASELINE else [0, 1]:
        predict = start(seed)
        predictions = [predict(sample["image"]) for sample in test]
        values = torch.tensor(
            [measure(prediction, sample) for prediction, sample in zip(predictions, test, strict=True)]
        )
        rows.append(capstone.Row(name, seed, tuple(values.mean(0).tolist())))
        by_method[name] = predictions, values[:, 0].tolist()
predictions, scores = by_method["Cellpose"]
### END SOLUTION

# %% [markdown] name="worst_text"
# ## 6. The ten worst images
#
# Look at the images before you explain the errors. What do they have in common? If you suspect a cause, count how
# often it occurs.

# %% name="worst"
from segedu.viz import gallery, show

ranked = capstone.worst(scores)
titles = [f"{i}: {scores[i]:.2f}" for i in ranked]
# Show a figure of the images in `ranked`: each prediction, and beside or below it its ground truth.
### BEGIN SOLUTION: the figure
images = [test[i]["image"] for i in ranked]
maps = [[predictions[i] for i in ranked], [test[i]["label_map"] for i in ranked]]
fig = gallery(images * 2, maps[0] + maps[1], titles=[*titles, *["ground truth"] * len(ranked)], columns=5, width=1.4)
fig.set_layout_engine("constrained")  # leaves room for the titles between the rows
alt = f"The {len(ranked)} images with the lowest accuracy, {ranked}: predictions above, ground truth below."
show(fig, alt=alt)
### END SOLUTION


# %% name="why"
# WORST_BECAUSE has one sentence per image of `ranked`, in the same order: what is wrong, and why.
### BEGIN SOLUTION: WORST_BECAUSE
import textwrap


def unmatched(prediction, sample):
    """For each unmatched nucleus: the error, and whether the nucleus is dimmer than the image's nuclei on average."""
    target, image = (sample[key].as_subclass(torch.Tensor) for key in ("label_map", "image"))
    for number in target.unique()[1:].tolist():
        nucleus = target == number
        label = prediction[nucleus].mode().values
        if label == 0 or (nucleus & (prediction == label)).sum() < 0.5 * (nucleus | (prediction == label)).sum():
            merged = label > 0 and (target[prediction == label] != number).float().mean() > 0.5
            error = "merged with its neighbour" if merged else "missed" if label == 0 else "segmented inaccurately"
            edge = nucleus[[0, -1]].any() or nucleus[:, [0, -1]].any()
            what = "a nucleus at the border" if edge else "a whole nucleus"
            yield f"{what} is {error}", bool(image[:, nucleus].mean() < image[:, target > 0].mean())


errors = [list(unmatched(predictions[i], test[i])) for i in ranked]
EXTRA = "every nucleus is matched, but a prediction matches no nucleus"
WORST_BECAUSE = [
    f"{len(pairs)} unmatched: {', '.join(why for why, _ in pairs)}" if pairs else EXTRA for pairs in errors
]
together = [pair for pairs in errors for pair in pairs]
at_edge, dim = sum("border" in why for why, _ in together), sum(dim for _, dim in together)
print(f"{len(together)} nuclei are unmatched: {at_edge} at the border, {dim} dimmer than average in their image.\n")
for i, why in zip(ranked, WORST_BECAUSE, strict=True):
    print(textwrap.fill(f"{i}: {why}", 85, subsequent_indent="    "))
### END SOLUTION

# %% [markdown] name="discussion"
# ## 7. What you learnt
#
# Write half a page. What does the table show, and what does it not show? Is the difference from the baseline larger
# than the difference between seeds? What would you try next, and how would you find out whether it helps?
#
# ### BEGIN SOLUTION: half a page
# By all three metrics, Cellpose is much better than the threshold, and the difference is many times larger than that
# between its two seeds. By Dice the threshold is not bad: it finds most foreground pixels, but it cannot separate
# nuclei that touch. I expected that small and dim nuclei would be missed. Size does matter: most unmatched nuclei of
# the ten worst images are cut by the border of the image, so that only a small part of them is visible. Some of them
# are missed, and others are merged with their neighbours. Whether brightness matters remains open: no more than half
# of the unmatched nuclei are dimmer than average, and they are too few to tell. Two seeds are few. With 60
# iterations instead of 100, one of the seeds learnt almost nothing, and with a single seed I could have missed that.
# Next, I would train on crops that include the borders of the images, and measure on images that I have not used yet
# whether the nuclei at the border are segmented.
# ### END SOLUTION

# %% [markdown] name="report_text"
# ## 8. The report
#
# Run this cell last, and save the notebook. The output of the cell contains the report, so a reader does not have to
# run your code.

# %% name="report"
report = capstone.Report(
    data=DATA,
    metrics=METRICS,
    rows=tuple(rows),
    baseline=BASELINE,
    train=tuple(seen),
    test=tuple(unseen),
    scores=tuple(scores),
    worst=tuple(zip(ranked, WORST_BECAUSE, strict=True)),
)
lacks = capstone.hand_in(report)
