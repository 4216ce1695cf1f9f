"""The query widget shows what the network does: its attention masks and its predictions."""

from __future__ import annotations

import pytest
import torch

from segedu.teaching.widgets import queries as widget

STREETS = list(widget.STREETS)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(widget, "show", lambda fig, alt: calls.append((fig, alt)))
    return calls


@pytest.mark.parametrize("street", STREETS)
def test_the_network_says_and_looks_as_shown(street):
    answers, given = widget.predictions(street), []
    hooks = [
        layer.cross_attn.register_forward_pre_hook(lambda _, args, named: given.append(named), with_kwargs=True)
        for layer in widget.model().decoder.layers
    ]
    with torch.no_grad():
        outputs = widget.model()(answers.image[None])
    for hook in hooks:
        hook.remove()
    layers = [*outputs["aux_outputs"], outputs]
    assert len(layers) == widget.LAYERS + 1 == len(answers.mask_logits)
    for key in ("class_logits", "mask_logits"):
        assert torch.equal(getattr(answers, key), torch.cat([layer[key] for layer in layers]))
    for layer, named in enumerate(given):
        for query in range(20):
            allowed = ~named["attn_mask"][0, query].unflatten(0, answers.sizes[layer])
            assert torch.equal(widget.attended(street, query, layer), allowed)
    assert widget.attended(street, 0, widget.LAYERS) is None


@pytest.mark.parametrize("street", STREETS)
def test_every_segment_has_a_query_and_its_overlap_is_counted(street):
    answers = widget.predictions(street)
    assert sorted(answers.matched.values()) == list(range(len(answers.labels)))
    for query, segment in answers.matched.items():
        enlarged = torch.nn.functional.interpolate(answers.mask_logits[:, query, None], widget.SIZE, mode="bilinear")
        for value, mask in zip(widget.ious(street, query), enlarged[:, 0] > 0, strict=True):
            own = set(mask.flatten().nonzero().flatten().tolist())
            true = set(answers.masks[segment].flatten().nonzero().flatten().tolist())
            assert value == pytest.approx(len(own & true) / len(own | true))


def test_what_the_page_says_of_the_frames():
    street = "people and two cars"
    assert widget.attended(street, 10, 0).all() and widget.attended(street, 10, 1).sum() < 5
    before, *_, after = widget.ious(street, 10)
    assert before < 0.01 and after > 0.5
    kinds = [widget.CLASS_NAMES[k] for k in widget.predictions(street).class_logits[:, 18].argmax(dim=1).tolist()]
    assert kinds == ["person", "person", "building", "building"]
    assert widget.attended(street, 18, 1).all() and widget.ious(street, 18)[-1] > 0.8
    start, lost, *_, end = widget.ious("a boat", 7)
    assert lost < 0.1 < 0.5 < start < end
    nothing = widget.predictions("two buses").class_logits[-1, 3].softmax(dim=0)
    assert widget.CLASS_NAMES[int(nothing.argmax())] == "water" and widget.ious("two buses", 3) is None


def test_before_any_layer_classes_are_the_same_for_all_images():
    first, *others = (widget.predictions(street).class_logits[0] for street in STREETS)
    assert all(torch.equal(first, other) for other in others)


def test_the_picture_says_what_it_shows(shown):
    widget.draw_query(query=10, layer=1, street="people and two cars")
    fig, alt = shown[0]
    places = int(widget.attended("people and two cars", 10, 1).sum())
    assert "Query 10 after layer 1 of 3: car with probability" in alt
    assert f"Layer 2 may attend to {places} of 96 locations." in alt
    assert fig.axes[0].get_title() == "finally matched with: car"
    heights = [bar.get_height() for bar in fig.axes[3].patches]
    assert len(heights) == len(widget.CLASS_NAMES) and sum(heights) == pytest.approx(1)


def test_static_frames_are_drawn(monkeypatch, shown):
    monkeypatch.setenv("SEGEDU_WIDGETS", "static")
    widget.explorer()
    assert len({alt for _, alt in shown}) == len(widget.FRAMES)
