"""Cellpose's size model, against cellpose 3.1.1.3."""

import numpy as np
import pytest
import torch

from segedu.instance.cellpose.cellpose import Cellpose
from segedu.instance.cellpose.size import (
    SizeModel,
    cell_diameter,
    estimate_diameter,
    fit_size_model,
    read_size_model,
    run_at_diameter,
)


def official(path, channels=256):
    """A file as `cellpose.train.train_size` writes it."""
    generator = np.random.default_rng(0)
    given = {
        "A": generator.normal(size=channels).astype(np.float32),
        "smean": generator.normal(size=channels).astype(np.float32),
        "diam_mean": 30.0,
        "ymean": np.float32(0.25),
    }
    np.save(path, given)
    return given


def styles(count, channels=256, seed=1):
    drawn = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def test_official_files_are_read_and_give_the_same_sizes(tmp_path):
    models = pytest.importorskip("cellpose.models")
    given = official(tmp_path / "size_cyto3.npy")
    theirs = object.__new__(models.SizeModel)
    theirs.params, theirs.diam_mean = given, given["diam_mean"]
    ours, batch = read_size_model(tmp_path / "size_cyto3.npy"), styles(5)
    expected = [float(theirs._size_estimation(style)) for style in batch.numpy()]
    np.testing.assert_allclose(ours.diameters(batch).numpy(), expected, rtol=1e-5)
    assert ours.diam_mean == 30.0
    small = SizeModel(ours.weights, ours.style_mean, -9.0, 30.0)
    assert small.diameters(torch.zeros(1, 256)).shape == (1,)
    assert float(SizeModel(0 * ours.weights, ours.style_mean, -9.0, 30.0).diameters(batch)[0]) == 5.0


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    np.save(tmp_path / "evil.npy", {"A": Evil()})
    with pytest.raises(ValueError, match="evil.npy is not a size model of Cellpose .*builtins.print"):
        read_size_model(tmp_path / "evil.npy")
    assert not capsys.readouterr().out


def test_other_files_are_refused(tmp_path):
    given = official(tmp_path / "official.npy")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.save(tmp_path / "short.npy", {**given, "smean": given["smean"][:9]})
    np.save(tmp_path / "key.npy", {"A": given["A"]})
    np.save(tmp_path / "list.npy", np.array([1, None], dtype=object))
    (tmp_path / "text.npy").write_text("not numpy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "official.npy").read_bytes()[:300])
    for name in ("array", "short", "key", "list", "text", "cut"):
        with pytest.raises(ValueError, match=f"{name}.npy is not a size model"):
            read_size_model(tmp_path / f"{name}.npy")


def test_regression_is_that_of_cellpose():
    """The lines of `train_size`: X X' + I, X y."""
    batch = styles(40, 12)
    diameters = torch.linspace(12, 70, 40)
    centred = (batch - batch.mean(dim=0)).T.double().numpy()
    logs = np.log(diameters.double().numpy() / 30)
    expected = np.linalg.solve(centred @ centred.T + np.eye(12), centred @ (logs - logs.mean()))
    model = fit_size_model(batch, diameters)
    np.testing.assert_allclose(model.weights.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert model.log_mean == pytest.approx(logs.mean())


def test_regression_finds_a_linear_law():
    batch = styles(300, 6).double()
    law = torch.tensor([1.0, -0.5, 0.2, 0.0, 0.3, -1.0], dtype=torch.float64)
    diameters = 30 * (batch @ law + 0.1).exp()
    model = fit_size_model(batch[:200], diameters[:200], ridge=1e-9)
    torch.testing.assert_close(model.diameters(batch[200:]), diameters[200:].clamp(min=5), rtol=1e-6, atol=1e-6)


def test_diameter_is_that_of_cellpose():
    utils = pytest.importorskip("cellpose.utils")
    label_map = np.zeros((40, 40), np.int32)
    label_map[2:10, 3:9], label_map[20:25, 20:31], label_map[30:39, 1:4] = 3, 5, 9
    assert cell_diameter(torch.from_numpy(label_map)) == pytest.approx(utils.diameters(label_map)[0])
    assert cell_diameter(torch.zeros(4, 4, dtype=torch.int32)) == 0.0


class Painted(Cellpose):
    """Finds what is painted: the flow of discs of 15 pixels' radius, whatever their size in the image is."""

    def __init__(self):
        super().__init__(1, (2, 3))
        self.seen = []

    def forward(self, images):
        from segedu.instance.cellpose.cellpose import cellpose_targets

        self.seen.append(tuple(images.shape[2:]))
        targets = [cellpose_targets((image[0] > 0.5).int()) for image in images]
        flows = 5 * torch.stack([target["flows"] for target in targets])
        logits = 8.0 * torch.stack([target["foreground"] for target in targets]) - 4
        return {"flows": flows, "logits": logits, "style": torch.ones(len(images), 1)}


def disc(radius, size=160):
    y, x = np.mgrid[:size, :size] - size // 2
    return torch.from_numpy(y**2 + x**2 <= radius**2).float()[None]


def test_the_second_guess_comes_from_the_cells():
    size_model = SizeModel(torch.zeros(1).double(), torch.zeros(1).double(), float(np.log(50 / 30)), 30.0)
    model = Painted()
    found, guess = estimate_diameter(model, size_model, disc(20))
    assert guess == pytest.approx(50) and found == pytest.approx(40, abs=1.5)
    assert model.seen == [(160, 160), (96, 96)]  # 160 * 30 / 50
    assert estimate_diameter(model, size_model, torch.zeros(1, 64, 64))[0] == 30.0  # no cell is found


def test_maps_come_back_as_large_as_the_image():
    model = Painted()
    outputs = run_at_diameter(model, torch.stack([disc(20), disc(10)]), 60.0)
    assert model.seen == [(80, 80)]
    assert outputs["flows"].shape == (2, 2, 160, 160) and outputs["logits"].shape == (2, 160, 160)
    assert ((outputs["logits"] > 0) == torch.cat([disc(20), disc(10)]).bool()).float().mean() > 0.99


def test_bad_input():
    model = fit_size_model(styles(4, 6), torch.full((4,), 20.0))
    for words, call in (
        (r"styles has shape \(2, 5\), expected \(B, 6\)", lambda: model.diameters(torch.zeros(2, 5))),
        ("styles and diameters have shapes", lambda: fit_size_model(torch.zeros(2, 5), torch.ones(3))),
        ("diameters has the value 0.0", lambda: fit_size_model(torch.zeros(2, 5), torch.zeros(2))),
        ("diameter is 0", lambda: run_at_diameter(Painted(), torch.zeros(1, 1, 9, 9), 0)),
    ):
        with pytest.raises(ValueError, match=words):
            call()
