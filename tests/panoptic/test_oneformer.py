"""OneFormer: what a task changes, its targets, its loss, what it refuses, and that a tiny one learns three tasks."""

from __future__ import annotations

import pytest
import torch
from learning import fit, mean_overlap
from panoptic.small_oneformer import (
    CLASSES,
    CONTEXT,
    QUERIES,
    TASKS,
    THINGS,
    TOKENIZE,
    WIDTH,
    fresh,
    generator,
    images_of,
    segments_of,
    sentences_of,
    small,
    targets_of,
)  # fmt: skip

from segedu.panoptic.inference import instance_inference, panoptic_inference, semantic_inference
from segedu.panoptic.oneformer import (
    OneFormer,
    TaskQueries,
    oneformer_loss,
    oneformer_swin_large,
    oneformer_swin_tiny,
    sample_tasks,
    task_targets,
)


def test_a_sentence_about_the_task_changes_the_queries_and_all_behind_them() -> None:
    model, images = small(), images_of(1, (33, 70))
    said = {task: model(images, tasks=task) for task in TASKS}
    assert list(said["semantic"]) == [
        "class_logits", "mask_logits", "aux_outputs", "sizes", "image_size", "queries"
    ]  # fmt: skip
    assert said["semantic"]["class_logits"].shape == (1, QUERIES, CLASSES + 1)
    assert said["semantic"]["mask_logits"].shape == (1, QUERIES, 9, 18)
    assert said["semantic"]["queries"].shape == (1, QUERIES, WIDTH)
    assert said["semantic"]["sizes"] == [(33, 70)] and said["semantic"]["image_size"] == (33, 70)
    for key in ("queries", "class_logits", "mask_logits"):
        for other in ("instance", "panoptic"):
            assert (said["semantic"][key] - said[other][key]).abs().max() > 1e-3
    together = model(images.expand(3, -1, -1, -1), tasks=TASKS)
    for i, task in enumerate(TASKS):
        torch.testing.assert_close(together["mask_logits"][i], said[task]["mask_logits"][0])
        torch.testing.assert_close(
            together["aux_outputs"][0]["class_logits"][i], said[task]["aux_outputs"][0]["class_logits"][0]
        )
    torch.testing.assert_close(model(images)["class_logits"], said["panoptic"]["class_logits"])  # if nothing is said


def test_the_token_itself_is_the_last_query() -> None:
    model = small()
    queries = model(images_of(2, (32, 32)), tasks=["semantic", "instance"])["queries"]
    tokens = torch.stack([TOKENIZE(f"the task is {task}") for task in ("semantic", "instance")]).double()
    torch.testing.assert_close(queries[:, -1], model.decoder.decoder_norm(model.task_mlp(tokens)))
    (single,) = small(text=False)(images_of(2, (32, 32))[:1], tasks="semantic")["queries"]
    assert single.shape == (QUERIES, WIDTH)


def test_read_outs_of_an_image_of_a_few_pixels() -> None:
    outputs = small()(images_of(1, (5, 9)), sizes=[(4, 7)], tasks="instance")
    assert semantic_inference(outputs).shape == (1, CLASSES, 5, 9)
    assert instance_inference(outputs, THINGS)[0]["masks"].shape[1:] == (4, 7)
    assert panoptic_inference(outputs, THINGS)[0][0].shape == (4, 7)


def test_targets_of_the_three_tasks() -> None:
    scene = segments_of(9, (20, 30), 90)
    labels, masks = scene["labels"], scene["masks"]
    assert labels.tolist() == [0, 1, 2, 4, 4, 4, 4, 3]
    panoptic, instance, semantic = (task_targets(scene, t, THINGS) for t in ("panoptic", "instance", "semantic"))
    assert torch.equal(panoptic["labels"], labels) and torch.equal(panoptic["masks"], masks)
    assert torch.equal(instance["labels"], labels[3:]) and torch.equal(instance["masks"], masks[3:])
    assert semantic["labels"].tolist() == [0, 1, 2, 3, 4] and torch.equal(semantic["masks"][:3], masks[:3])
    assert torch.equal(semantic["masks"][3], masks[7]) and torch.equal(semantic["masks"][4], masks[3:7].any(dim=0))
    assert semantic["labels"].dtype == torch.int64 and semantic["masks"].dtype == torch.bool
    for task in TASKS:
        nothing = task_targets({"labels": labels[:0], "masks": masks[:0]}, task, THINGS)
        assert nothing["labels"].shape == (0,) and nothing["masks"].shape == (0, 20, 30)
    assert len(task_targets(scene, "instance", ())["labels"]) == 0
    with pytest.raises(ValueError, match="task is 'depth', expected 'panoptic', 'instance' or 'semantic'"):
        task_targets(scene, "depth", THINGS)
    with pytest.raises(ValueError, match=r"target has the keys \['labels'\], expected labels, masks"):
        task_targets({"labels": labels}, "semantic", THINGS)
    with pytest.raises(TypeError, match="target has type list"):
        task_targets([labels, masks], "semantic", THINGS)


def test_each_task_is_drawn_as_often() -> None:
    drawn = sample_tasks(3000, generator(1))
    assert all(abs(drawn.count(task) - 1000) < 100 for task in TASKS) and len(drawn) == 3000
    assert drawn == sample_tasks(3000, generator(1)) and sample_tasks(0) == []


def test_loss_reaches_every_weight_and_needs_no_segments() -> None:
    model = small().train()
    targets = targets_of(TASKS, (32, 48))
    outputs = model(images_of(3, (32, 48)), tasks=TASKS, sentences=sentences_of(targets, TASKS))
    losses = oneformer_loss(outputs, targets, num_points=40)
    assert list(losses) == ["classification", "mask", "dice", "contrastive", "loss"]
    torch.testing.assert_close(losses["loss"], sum(list(losses.values())[:-1]))
    losses["loss"].backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    empty = [task_targets(target, "instance", ()) for target in targets]
    assert empty[0]["masks"].shape == (0, 32, 48)
    losses = oneformer_loss(outputs, empty, num_points=40)
    assert losses["mask"] == losses["dice"] == 0 and losses["loss"].isfinite()


def test_without_sentences_nothing_is_compared() -> None:
    model, targets = small(), targets_of(TASKS, (32, 32))
    outputs = model(images_of(3, (32, 32)), tasks=TASKS)
    assert oneformer_loss(outputs, targets, num_points=40)["contrastive"] == 0
    told = model(images_of(3, (32, 32)), tasks=TASKS, sentences=sentences_of(targets, TASKS))
    half, whole = (
        oneformer_loss(told, targets, num_points=40, contrastive_weight=w)["contrastive"] for w in (0.5, 1.0)
    )
    torch.testing.assert_close(2 * half, whole)


def test_refuses_what_does_not_fit() -> None:
    model, images = small(), images_of(2, (32, 32))
    with pytest.raises(ValueError, match="tasks has 3 entries, expected 2, one for each image"):
        model(images, tasks=TASKS)
    with pytest.raises(ValueError, match="task is 'depth', expected 'panoptic'"):
        model(images, tasks="depth")
    lines = [["a semantic photo"] * (QUERIES - CONTEXT)]
    with pytest.raises(ValueError, match="sentences has 1 entries, expected 2, one for each image"):
        model(images, sentences=lines)
    with pytest.raises(ValueError, match=r"sentences\[1\] has 1 entries, expected 4"):
        model(images, sentences=[*lines, ["a semantic photo"]])
    with pytest.raises(ValueError, match="sentences was given, expected None, because the model has no `text`"):
        small(text=False)(images, sentences=2 * lines)
    with pytest.raises(TypeError, match="images has dtype torch.uint8"):
        model((images * 255).byte())
    with pytest.raises(ValueError, match="task_queries.embed_dim is 32, expected 64"):
        OneFormer(model.backbone, model.pixel_decoder, model.decoder, TaskQueries(32, 2, hidden=8), TOKENIZE)
    outputs, targets = model(images), targets_of(TASKS[:2], (32, 32))
    with pytest.raises(ValueError, match="contrastive_weight is -1, expected"):
        oneformer_loss(outputs, targets, contrastive_weight=-1)
    with pytest.raises(ValueError, match=r"outputs has the keys .*, expected queries"):
        oneformer_loss({key: value for key, value in outputs.items() if key != "queries"}, targets)


def test_sizes_of_the_papers_networks() -> None:
    """As transformers counts them for its files of ADE20K (Swin-T) and COCO (Swin-L)."""
    for build, millions in ((oneformer_swin_tiny, 50.7), (oneformer_swin_large, 219)):
        with torch.device("meta"):
            assert sum(p.numel() for p in build().parameters()) / 1e6 == pytest.approx(millions, abs=0.5)


@pytest.mark.learns
def test_a_tiny_one_learns_two_cars_on_a_road() -> None:
    """With all three tasks at once. That it tells them apart takes longer: tests/weights/test_street_oneformer.py."""
    torch.manual_seed(0)
    masks = torch.zeros(3, 32, 48, dtype=torch.bool)
    masks[0, 20:], masks[1, 4:16, 4:20], masks[2, 4:16, 28:44] = True, True, True
    scene = {"labels": torch.tensor([0, 3, 3]), "masks": masks}
    image = torch.full((3, 32, 48), 0.5)
    image[0, masks[0]], image[1, masks[1] | masks[2]] = 0.9, 0.1
    targets = [task_targets(scene, task, THINGS) for task in TASKS]
    model = fresh(layers=1)
    images, sentences, history = image.expand(3, -1, -1, -1), sentences_of(targets, TASKS), []

    def loss_of() -> torch.Tensor:
        losses = oneformer_loss(model(images, tasks=TASKS, sentences=sentences), targets, num_points=100)
        history.append(losses["contrastive"].item())
        return losses["loss"]

    first, last = fit(model, loss_of, steps=100)
    assert last < 0.5 * first
    assert history[-1] < 0.8 * history[0]  # which sentence belongs to which query
    ((seg, info),) = panoptic_inference(model.eval()(image[None], tasks="panoptic"), THINGS, score_threshold=0.5)
    road = {one["id"] for one in info if one["category_id"] == 0}
    cars = {one["id"] for one in info if one["category_id"] == 3}
    labels = torch.zeros(32, 48, dtype=torch.int64)
    labels[torch.isin(seg, torch.tensor(sorted(road)))], labels[torch.isin(seg, torch.tensor(sorted(cars)))] = 1, 2
    assert mean_overlap(labels, masks[0].long() + 2 * (masks[1] | masks[2])) > 0.6
