"""NIfTI: one order of axes whatever the file's, labels written back on the file's grid, damage named."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from segedu.datasets.nifti import read_case, read_nifti, read_nifti_labels, write_nifti_labels

SPACING = (2.0, 0.5, 1.25)  # z, y, x


def stored_in(codes: str, volume: np.ndarray, spacing: tuple = SPACING) -> nibabel.Nifti1Image:
    """The file of a volume (z, y, x) in our order, its axes stored as `codes` says."""
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = 11, -7, 30
    ours = nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine)
    to = nibabel.orientations.axcodes2ornt(tuple(codes))
    return ours.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), to))


ORDERS = ["".join(c) for axes in itertools.permutations(("LR", "PA", "SI")) for c in itertools.product(*axes)]


@pytest.fixture
def volume() -> np.ndarray:
    """4 slices of 5 rows and 6 columns, each voxel another number."""
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.nii.gz"


def test_every_order_of_axes_reads_the_same(volume, path) -> None:
    assert len(set(ORDERS)) == 48
    for codes in ORDERS:
        image = stored_in(codes, volume)
        assert "".join(nibabel.aff2axcodes(image.affine)) == codes
        image.to_filename(path)
        read = read_nifti(path)
        assert read.array.dtype == torch.float32 and torch.equal(read.array, torch.from_numpy(volume).float()), codes
        assert read.spacing == pytest.approx(SPACING)
        assert read.affine[:3, 3].tolist() == pytest.approx([11, -7, 30])
        assert read.affine[:3, :3] == pytest.approx(np.diag([-1.25, -0.5, 2.0]))


def test_directions_are_those_stated(path) -> None:
    """The voxel nearest the patient's head, back and left side is the last of all axes."""
    affine = np.array([[0, 0, 3.0, -4], [2, 0, 0, -10], [0, -1, 0, 8], [0, 0, 0, 1]])
    data = np.zeros((6, 9, 3), np.float32)
    world = nibabel.affines.apply_affine(affine, np.argwhere(data == 0))
    extreme = np.argmin(world[:, 0] + world[:, 1] - world[:, 2])  # RAS: left, back and head are -x, -y, +z
    data.reshape(-1)[extreme] = 1
    nibabel.Nifti1Image(data, affine).to_filename(path)
    read = read_nifti(path)
    assert read.array.shape == (9, 6, 3) and read.spacing == pytest.approx((1, 2, 3))
    assert read.array[-1, -1, -1] == 1 and read.array.sum() == 1


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
def test_labels_go_back_to_the_grid_of_the_file(codes, volume, path, tmp_path) -> None:
    stored_in(codes, volume).to_filename(path)
    case = read_nifti(path)
    labels = (case.array > 50).long() * 3
    write_nifti_labels(tmp_path / "labels.nii.gz", labels, case)
    source, written = nibabel.load(path), nibabel.load(tmp_path / "labels.nii.gz")
    assert written.shape == source.shape and written.get_data_dtype() == np.uint8
    assert np.array_equal(written.affine, source.affine)
    assert np.array_equal(np.asarray(written.dataobj), 3 * (np.asarray(source.dataobj) > 50))
    back = read_nifti_labels(tmp_path / "labels.nii.gz")
    assert back.array.dtype == torch.int64 and torch.equal(back.array, labels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case.nii.gz", "labels.nii.gz"]


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (256, np.uint16), (70_000, np.int32)])
def test_labels_of_any_number_survive(top, dtype, volume, path, tmp_path) -> None:
    stored_in("RAS", volume).to_filename(path)
    case = read_nifti(path)
    labels = torch.zeros(case.array.shape, dtype=torch.int32)
    labels[1, 2, 3] = top
    write_nifti_labels(tmp_path / "labels.nii", labels, case)
    assert nibabel.load(tmp_path / "labels.nii").get_data_dtype() == dtype
    assert read_nifti_labels(tmp_path / "labels.nii").array[1, 2, 3] == top


def test_scale_and_unit_of_the_header(volume, path) -> None:
    image = stored_in("RAS", volume, (0.002, 0.0005, 0.00125))
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(2.0, -1024.0)
    image.to_filename(path)
    read = read_nifti(path)
    assert read.spacing == pytest.approx(SPACING)
    raw = nibabel.load(path).dataobj.get_unscaled()
    assert sorted(read.array.flatten().tolist()) == sorted((2.0 * raw.astype(float) - 1024).flatten().tolist())


def test_oblique_volume_is_not_resampled(volume, path) -> None:
    turn = np.radians(20)
    affine = np.diag([1.5, 1.5, 4, 1])
    affine[:2, :2] = 1.5 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine).to_filename(path)
    read = read_nifti(path)
    assert read.spacing == pytest.approx((4, 1.5, 1.5))
    assert torch.equal(read.array, torch.from_numpy(volume[:, ::-1, ::-1].copy()).float())
    corner = nibabel.affines.apply_affine(read.affine, (0, 0, 0))
    assert corner == pytest.approx(nibabel.affines.apply_affine(affine, (5, 4, 0)))


def test_case_has_the_keys_of_a_drawn_volume(volume, path, tmp_path) -> None:
    stored_in("RAS", volume).to_filename(path)
    write_nifti_labels(tmp_path / "labels.nii.gz", (read_nifti(path).array > 9).long(), read_nifti(path))
    sample = read_case(path, tmp_path / "labels.nii.gz", window=(20, 100))
    assert sample["image"].shape == (1, 4, 5, 6) and sample["image"].dtype == torch.float32
    assert sample["image"].flatten()[[0, 20, 60, 100, 119]].tolist() == [0, 0, 0.5, 1, 1]
    assert sample["spacing"] == pytest.approx(SPACING) and sample["semantic"].sum() == 110
    by_rank = read_case(path)
    assert "semantic" not in by_rank and 0 < by_rank["image"].mean() < 1 and by_rank["image"].max() == 1
    stored_in("RAS", np.full((4, 5, 6), np.nan, np.float32)).to_filename(path)
    assert not read_case(path)["image"].any()


def test_grids_that_differ(volume, path, tmp_path) -> None:
    stored_in("RAS", volume).to_filename(path)
    other = tmp_path / "labels.nii"
    stored_in("RAS", volume[1:]).to_filename(other)
    with pytest.raises(ValueError, match=r"shape \(3, 5, 6\), expected \(4, 5, 6\) as its image"):
        read_case(path, other)
    stored_in("RAS", volume, (2.0, 0.6, 1.25)).to_filename(other)
    with pytest.raises(ValueError, match="is at another position than its image"):
        read_case(path, other)
    with pytest.raises(ValueError, match=r"window is \(5, 5\)"):
        read_case(path, window=(5, 5))


def test_missing_damaged_and_foreign_files(volume, path, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="case.nii.gz', which is not a file; expected a NIfTI file"):
        read_nifti(path)
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        read_nifti(tmp_path)
    noisy = np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32)
    stored_in("RAS", noisy).to_filename(path)
    whole = path.read_bytes()
    for content in (b"", b"not gzip at all", whole[:200], whole[: len(whole) // 2], gzip.compress(b"x" * 400)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="case.nii.gz is (not a readable file|damaged or truncated)"):
            read_nifti(path)
    path.write_bytes(whole[:5000] + bytes(50) + whole[5050:])  # damaged in the middle: gzip's own check
    with pytest.raises(ValueError, match="case.nii.gz is damaged or truncated"):
        read_nifti(path)
    foreign = tmp_path / "case.mgz"
    nibabel.MGHImage(volume.astype(np.int32), np.eye(4)).to_filename(foreign)
    with pytest.raises(ValueError, match="is a MGHImage, expected a NIfTI file"):
        read_nifti(foreign)


def raw_header(path: Path, place: int, layout: str, *values) -> None:
    """Overwrite bytes of the header of an unpacked file."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + layout, content, place, *values)
    path.write_bytes(content)


def test_volumes_that_are_none_or_too_much(volume, tmp_path) -> None:
    path = tmp_path / "case.nii"
    nibabel.Nifti1Image(np.zeros((4, 4, 4, 2)), np.eye(4)).to_filename(path)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 4, 2\), expected one volume"):
        read_nifti(path)
    nibabel.Nifti1Image(np.zeros((4, 5)), np.eye(4)).to_filename(path)
    with pytest.raises(ValueError, match=r"shape \(4, 5\), expected one volume"):
        read_nifti(path)
    nibabel.Nifti1Image(np.zeros((4, 5, 6, 1)), np.eye(4)).to_filename(path)
    assert read_nifti(path).array.shape == (6, 5, 4)
    with pytest.raises(ValueError, match="expected at most 119 voxels"):
        read_nifti(path, max_voxels=119)
    raw_header(path, 42, "3h", 30_000, 30_000, 30_000)  # a few bytes that promise 27 tera-voxels
    with pytest.raises(ValueError, match=r"shape \(30000, 30000, 30000, 1\), expected at most"):
        read_nifti(path)
    colours = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.Nifti1Image(colours, np.eye(4)).to_filename(path)
    with pytest.raises(ValueError, match="expected one number per voxel"):
        read_nifti(path)
    image = nibabel.Nifti1Image(volume, np.eye(4))
    image.to_filename(path)
    raw_header(path, 280, "12f", *([1, 0, 0, 0] * 3))  # srow_x, srow_y, srow_z: three times the same direction
    with pytest.raises(ValueError, match="expected three linearly independent directions"):
        read_nifti(path)


def test_bad_labels(volume, path, tmp_path) -> None:
    for bad in (0.5, -1.0, np.nan):
        values = np.zeros((4, 5, 6), np.float32)
        values[1, 1, 1] = bad
        stored_in("RAS", values).to_filename(path)
        with pytest.raises(ValueError, match=f"has a voxel of {bad}, expected integers"):
            read_nifti_labels(path)
    case, out = read_nifti(path), tmp_path / "out.nii.gz"
    good = torch.zeros(4, 5, 6, dtype=torch.int64)
    for labels, where, error, message in (
        (good.float(), out, TypeError, "labels has dtype torch.float32"),
        (good[1:], out, ValueError, r"shape \(3, 5, 6\), expected \(4, 5, 6\)"),
        (good - 1, out, ValueError, "labels has values from -1 to -1"),
        (good + 2**31, out, ValueError, "expected 0 to 2147483647"),
        (good, tmp_path / "out.png", ValueError, "ends in .nii or .nii.gz"),
    ):
        with pytest.raises(error, match=message):
            write_nifti_labels(where, labels, case)
    assert not out.exists()


def test_units_and_axes_of_one_voxel(volume, tmp_path) -> None:
    path = tmp_path / "case.nii"
    for shape in itertools.product((1, 3), repeat=3):
        part = volume[: shape[0], : shape[1], : shape[2]]
        for codes in ("RAS", "LPS", "PIR", "SLA"):
            stored_in(codes, part).to_filename(path)
            assert np.array_equal(read_nifti(path).array.numpy(), part), (shape, codes)
    image = nibabel.Nifti1Image(volume, np.diag([5e-4, 4e-4, 3e-4, 1]))
    image.header.set_xyzt_units("meter")
    image.to_filename(path)
    assert read_nifti(path).spacing == pytest.approx((0.3, 0.4, 0.5))
    raw_header(path, 123, "B", 5)  # a code that no unit has
    with pytest.raises(ValueError, match="has the unit .* of a damaged header, expected a NIfTI file"):
        read_nifti(path)


def test_labels_that_no_integer_holds(path) -> None:
    stored_in("RAS", np.full((4, 5, 6), 1e30, np.float32)).to_filename(path)
    with pytest.raises(ValueError, match="has a voxel of 1.*e[+]30, expected integers"):
        read_nifti_labels(path)


def test_a_step_that_is_a_little_longer_adds_up(path, tmp_path) -> None:
    """5 % of a millimetre is nothing in the affine, and 5 mm after 100 slices."""
    tall, labels = np.zeros((100, 2, 2), np.uint8), tmp_path / "labels.nii"
    nibabel.Nifti1Image(tall.T, np.diag([1.0, 1, 1, 1])).to_filename(path)
    nibabel.Nifti1Image(tall.T, np.diag([1.0, 1, 1.05, 1])).to_filename(labels)
    with pytest.raises(ValueError, match="is at another position than its image"):
        read_case(path, labels)
    nibabel.Nifti1Image(tall.T, np.diag([1.0, 1, 1.0005, 1])).to_filename(labels)
    assert not read_case(path, labels)["semantic"].any()


def test_windows(volume, path) -> None:
    stored_in("RAS", volume).to_filename(path)
    for window in ((-np.inf, 1), (np.nan, 1), (0, 1, 2), (0,)):
        with pytest.raises(ValueError, match="^window is .* expected"):
            read_case(path, window=window)
    stored_in("RAS", np.full((4, 5, 6), 1e30, np.float32)).to_filename(path)  # one grey: nothing to spread
    assert not read_case(path)["image"].any()


def test_labels_that_cannot_be_written(volume, path, tmp_path) -> None:
    stored_in("RAS", volume).to_filename(path)
    case, labels = read_nifti(path), torch.zeros(4, 5, 6, dtype=torch.int64)
    with pytest.raises(TypeError, match="labels has type ndarray"):
        write_nifti_labels(tmp_path / "out.nii", labels.numpy(), case)
    with pytest.raises(FileNotFoundError, match="^path is .*out.nii', expected a path in an existing folder"):
        write_nifti_labels(tmp_path / "none" / "out.nii", labels, case)
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(OSError):
        write_nifti_labels(tmp_path / "folder.nii", labels, case)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case.nii.gz", "folder.nii"]  # no half a file


# --- real files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "labels", "shape", "count"),
    [
        ("example_ct_sm", "example_seg", (30, 101, 122), 41),
        ("example_mr_sm", "example_seg_mr", (20, 91, 117), 23),
        ("example_ct", "example_seg_fast_force_split", (112, 101, 122), 61),
    ],
)
def test_real_volumes(shared_data, tmp_path, image, labels, shape, count) -> None:
    ct = shared_data / "ct"
    window = (-160, 240) if "ct" in image else None
    case = read_case(ct / f"{image}.nii.gz", ct / f"{labels}.nii.gz", window)
    assert case["values"].shape == shape and case["spacing"] == pytest.approx((3, 3, 3))
    assert len(case["semantic"].unique()) == count + 1
    volume = read_nifti(ct / f"{image}.nii.gz")
    write_nifti_labels(tmp_path / "again.nii.gz", case["semantic"], volume)
    source, again = (nibabel.load(p) for p in (ct / f"{labels}.nii.gz", tmp_path / "again.nii.gz"))
    assert np.array_equal(np.asarray(source.dataobj), np.asarray(again.dataobj))
    assert np.array_equal(again.affine, volume.stored_affine)


def test_a_real_patient_lies_as_stated(shared_data) -> None:
    """CT: the liver is to the patient's right of the spleen, the vertebrae are behind both, air is at -1000."""
    import json

    ct = shared_data / "ct"
    names = {name: int(k) for k, name in json.loads((ct / "labels.json").read_text())["total"].items()}
    case = read_case(ct / "example_ct_sm.nii.gz", ct / "example_seg.nii.gz")
    middle = {}
    for name in ("liver", "spleen", "vertebrae_L1"):
        middle[name] = (case["semantic"] == names[name]).nonzero().double().mean(0)
    assert middle["liver"][2] < middle["vertebrae_L1"][2] < middle["spleen"][2]
    assert middle["liver"][1] < middle["vertebrae_L1"][1] and middle["spleen"][1] < middle["vertebrae_L1"][1] + 10
    assert float(case["values"][:, 0].median()) == pytest.approx(-1000, abs=30)
