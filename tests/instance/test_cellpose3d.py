"""Cellpose in three dimensions, against cellpose 3.1.1.3."""

import numpy as np
import pytest
import torch

from segedu.instance.cellpose.cellpose import Cellpose
from segedu.instance.cellpose.cellpose3d import (
    ThreeViews,
    diffusion_flow3d,
    follow_flows3d,
    masks_from_flows3d,
    postprocess3d,
)

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")
BALLS = ((8, 9, 9, 6), (9, 22, 11, 6), (17, 14, 24, 7), (8, 26, 27, 5))


def balls():
    grid = np.mgrid[:26, :34, :36]
    label_map = np.zeros((26, 34, 36), np.int32)
    for number, (*centre, radius) in enumerate(BALLS, 1):
        inside = ((grid - np.array(centre)[:, None, None, None]) ** 2).sum(axis=0) <= radius**2
        label_map[inside & (label_map == 0)] = number
    return torch.from_numpy(label_map)


def test_flow_is_that_of_cellpose():
    dynamics = pytest.importorskip("cellpose.dynamics")
    label_map = balls()
    expected = dynamics.masks_to_flows(label_map.numpy().astype(int), device=CPU)
    np.testing.assert_allclose(diffusion_flow3d(label_map).numpy(), expected, rtol=0, atol=1e-5)


def test_round_trip_finds_the_balls_and_agrees_with_cellpose():
    dynamics = pytest.importorskip("cellpose.dynamics")
    label_map = balls()
    flows, inside = diffusion_flow3d(label_map), label_map > 0
    found = masks_from_flows3d(flows, inside)
    assert found.dtype == torch.int32 and found.max() == 4
    logits = np.where(inside, 4.0, -4.0).astype(np.float32)
    theirs = dynamics.compute_masks(5 * flows.numpy(), logits, do_3D=True, min_size=15, device=CPU)
    assert theirs.max() == 4
    for number in range(1, 5):
        ball = label_map == number
        other = torch.mode(found[ball]).values
        assert (ball & (found == other)).sum() >= 0.98 * (ball | (found == other)).sum()
        same = torch.from_numpy(theirs == np.bincount(theirs[ball.numpy()]).argmax())
        assert (same & (found == other)).sum() >= 0.95 * (same | (found == other)).sum()


def test_views_add_up():
    """A network whose flow shows its own axes: rows are 1, columns 2, the logit 3."""

    class Known(torch.nn.Module):
        in_channels = 2

        def forward(self, images):
            part = images[:, 0]
            return {"flows": torch.stack([part, 2 * part], dim=1), "logits": 3 * part}

    volumes = torch.rand(2, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    outputs, voxels = ThreeViews(Known(), batch_size=3)(volumes), volumes[:, 0]
    torch.testing.assert_close(outputs["logits"], 9 * voxels)
    # Across z: rows y, columns x. Across y: z, x. Across x: z, y.
    torch.testing.assert_close(outputs["flows"], torch.stack([2 * voxels, 3 * voxels, 4 * voxels], dim=1))


@pytest.mark.parametrize("size", [(16, 24, 32), (13, 21, 18)])  # the second with sides that are no multiples of 8
def test_network_is_that_of_cellpose_on_each_view(size):
    core, CPnet = pytest.importorskip("cellpose.core"), pytest.importorskip("cellpose.resnet_torch").CPnet
    theirs = CPnet([2, 4, 6, 8, 256], 3, 3).eval()
    ours = Cellpose(2, (4, 6, 8, 256)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    volume = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    flat = {}
    for axis in range(3):  # their run_3D pads slices by more, which the style sees: compare slice by slice
        slices = volume[0].movedim(1 + axis, 0)
        with torch.no_grad():
            (height, width) = slices.shape[2:]
            padded = torch.nn.functional.pad(slices, (0, -width % 8, 0, -height % 8))
            flat[axis] = theirs(padded)[0][..., :height, :width].numpy()
    views = [flat[axis].transpose(0, 2, 3, 1) for axis in range(3)]

    def run_net(net, planes, **options):
        return views.pop(0), None

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(core, "run_net", run_net)
        expected, _ = core.run_3D(theirs, volume[0].movedim(0, -1).numpy())
        outputs = ThreeViews(ours)(volume)
    np.testing.assert_allclose(outputs["flows"][0].movedim(0, -1).numpy(), expected[..., :3], rtol=0, atol=1e-4)
    np.testing.assert_allclose(outputs["logits"][0].numpy(), expected[..., 3], rtol=0, atol=1e-4)


def test_postprocess():
    label_map = balls()
    flows, logits = 5 * diffusion_flow3d(label_map)[None], 4.0 * (label_map > 0)[None] - 2
    nothing = {"flows": torch.cat([flows, 0 * flows]), "logits": torch.cat([logits, 0 * logits - 2])}
    first, second = postprocess3d(nothing)
    assert first.max() == 4 and not second.any() and second.shape == label_map.shape


def test_voxels_move_trilinearly_and_stay_inside():
    flows = torch.zeros(3, 2, 2, 3)
    flows[2] = torch.tensor([0.5, 1.0, 9.0])
    ends = follow_flows3d(flows, torch.ones(2, 2, 3).bool(), steps=2)
    assert torch.allclose(ends[2].reshape(4, 3), torch.tensor([0.5 + 0.75, 2.0, 2.0]))
    assert torch.equal(ends[:2], torch.ones(2, 2, 3).nonzero().T[:2].float())
    thin = follow_flows3d(torch.ones(3, 1, 1, 4), torch.ones(1, 1, 4).bool(), steps=9)
    assert thin.tolist() == [[0] * 4, [0] * 4, [3] * 4]


def test_bad_input():
    flows, inside = torch.zeros(3, 4, 5, 6), torch.ones(4, 5, 6).bool()
    for error, words, call in (
        (ValueError, r"label_map has shape \(5, 6\), expected \(D, H, W\)", lambda: diffusion_flow3d(inside[0].int())),
        (TypeError, "label_map has dtype torch.bool, expected", lambda: diffusion_flow3d(inside)),
        (
            ValueError,
            r"flows has shape \(2, 4, 5, 6\), expected \(3, D, H, W\) with D = 4",
            lambda: follow_flows3d(flows[:2], inside),
        ),
        (ValueError, "flows has the value nan", lambda: masks_from_flows3d(flows / 0, inside)),
        (ValueError, "steps is -1", lambda: follow_flows3d(flows, inside, -1)),
        (ValueError, "max_size_fraction is 2", lambda: masks_from_flows3d(flows, inside, max_size_fraction=2)),
        (ValueError, "outputs has the keys", lambda: postprocess3d({"flows": flows})),
        (
            ValueError,
            r"outputs\['logits'\] has shape \(2, 4, 5, 6\), expected \(B, D, H, W\) with B = 1",
            lambda: postprocess3d({"flows": flows[None], "logits": torch.zeros(2, 4, 5, 6)}),
        ),
        (ValueError, "batch_size is 0", lambda: ThreeViews(Cellpose(), 0)),
        (ValueError, r"images has shape \(1, 2, 8, 8\)", lambda: ThreeViews(Cellpose())(torch.zeros(1, 2, 8, 8))),
    ):
        with pytest.raises(error, match=words):
            call()
