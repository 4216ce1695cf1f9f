"""The table of methods: each of the course has its file, page, lab, tests and weights, or says that there are none."""

from __future__ import annotations

import pytest
from segedu_site import methods

NAMED = {  # by the course's plan
    "unsupervised": "thresholding kmeans mean_shift watershed graph_cut normalized_cut selective_search dino",
    "semantic": "fcn deconvnet segnet unet res_unet dense_unet pspnet deeplabv1 deeplabv2 dense_crf deeplabv3 "
    "deeplabv3plus unet3d nnunet/nnunet",
    "detection": "rcnn fast_rcnn faster_rcnn yolov1 ssd retinanet fcos detr",
    "instance": "signed_distance stardist cellpose/cellpose omnipose denoiseg spatial_embedding mask_rcnn yolact condinst solov2 "
    "yolo11_seg",
    "panoptic": "panoptic_fpn detr_panoptic maskformer mask2former/mask2former oneformer",
    "promptable": "sam/image_encoder sam/prompt_encoder sam/mask_decoder sam/sam mobile_sam everything detect_then_segment",
}
FOUND = {method.path: method for group in methods.read_methods().values() for method in group}


@pytest.mark.parametrize(
    "path", [f"segedu/{task}/{name}.py" for task, names in NAMED.items() for name in names.split()]
)
def test_every_method_has_its_file_header_page_lab_and_tests(path: str) -> None:
    method = FOUND[path]
    assert set(methods.FIELDS) <= set(method.fields), "a field of the header is missing"
    chapter, lab = methods.places(method)
    assert "Chapter" in chapter and "Lab" in lab
    assert methods.tests_of(method), "no tests"


@pytest.mark.parametrize("path", sorted(FOUND))
def test_a_lab_belongs_to_the_chapter_that_the_header_names(path: str) -> None:
    assert FOUND[path].fields["Course"][:2] == FOUND[path].fields["Lab"][:2]


@pytest.mark.parametrize(
    ("path", "compared", "ours"),
    [
        ("panoptic/mask2former/mask2former", "transformers", "street_mask2former"),
        ("panoptic/mask2former/pixel_decoder", "transformers", ""),
        ("panoptic/oneformer_text", "transformers", ""),
        ("promptable/sam/mask_decoder", "segment-anything", ""),
        ("promptable/sam/sam", "segment-anything", "shapes_sam photo_sam"),
        ("detection/detr", "transformers", "shapes_detr"),
        ("instance/solov2", "mmdet, a record of it", "shapes_solov2"),
        ("instance/yolo11_seg", "ultralytics", ""),
        ("unsupervised/dino", "scikit-learn", "scenes_vit"),
        ("semantic/dense_unet", "", ""),  # dense_crf is another method
        ("panoptic/panoptic_fpn", "", "street_panoptic_fpn"),
    ],
)
def test_what_a_method_is_compared_with_and_its_small_weights(path: str, compared: str, ours: str) -> None:
    method = FOUND[f"segedu/{path}.py"]
    assert (compared in methods.peers(methods.tests_of(method))) == bool(compared)
    assert methods.weights(method)[0] == ours.split()
    if not compared:
        assert methods.peers(methods.tests_of(method)) == []


def test_every_small_file_of_a_method_is_in_the_table() -> None:
    listed = {name for method in FOUND.values() for name in methods.weights(method)[0]}
    small = {name for name, row in methods.WEIGHTS.items() if row.url == row.file_name}
    assert small - listed == {"street_vgg"}  # a backbone


def test_the_table_says_by_hand_and_none_where_nothing_is() -> None:
    method = FOUND["segedu/semantic/dense_unet.py"]
    row = next(line for line in methods.markdown({"semantic": [method]}).splitlines() if f"**{method.name}**" in line)
    assert row.endswith("| by hand | none |")
