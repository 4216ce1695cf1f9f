"""Bad and empty input to `segedu.ops.polyhedra`."""

import torch
from bad_input.rows import INF, NAN, defined, refused, zeros

from segedu.ops.polyhedra import polyhedron_volumes, rasterize_polyhedra, suppress_polyhedra

RAYS = torch.cat([torch.eye(3), -torch.eye(3)])
FACES = torch.tensor([[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)])
REACH, POINTS = torch.full((2, 6), 1.0), zeros(2, 3)
NONE, NOWHERE = REACH[:0], POINTS[:0]
CALLS = (
    (polyhedron_volumes, lambda d, p, r, f: (d, r, f)),
    (rasterize_polyhedra, lambda d, p, r, f: (d, p, r, f, (2, 2, 2))),
    (suppress_polyhedra, lambda d, p, r, f: (d, p, r, f, 0.5)),
)

ROWS = [
    *(
        refused(error, words, f, *arguments(*bad))
        for f, arguments in CALLS
        for error, words, bad in (
            (TypeError, "distances has dtype torch.int64", (REACH.long(), POINTS, RAYS, FACES)),
            (TypeError, "rays has type list", (REACH, POINTS, [[0.0]], FACES)),
            (TypeError, "faces has dtype torch.float32", (REACH, POINTS, RAYS, FACES.float())),
            (ValueError, "rays has shape (6, 2)", (REACH, POINTS, RAYS[:, :2], FACES)),
            (ValueError, "faces has shape (3, 3)", (REACH, POINTS, RAYS, FACES[:3])),
            (ValueError, "faces has indices from 1 to 6", (REACH, POINTS, RAYS, FACES + 1)),
            (ValueError, "distances has shape (2, 5)", (REACH[:, :5], POINTS, RAYS, FACES)),
            (ValueError, "distances has the value -1", (-REACH, POINTS, RAYS, FACES)),
            (ValueError, "distances has the value inf", (INF * REACH, POINTS, RAYS, FACES)),
        )
    ),
    *(
        refused(error, words, f, *arguments(REACH, bad, RAYS, FACES))
        for f, arguments in CALLS[1:]
        for error, words, bad in (
            (TypeError, "points has type list", [[0, 0, 0]]),
            (ValueError, "points has shape (2, 2)", POINTS[:, :2]),
            (ValueError, "points has the value nan", NAN + POINTS),
        )
    ),
    refused(TypeError, "size is (2, 2)", rasterize_polyhedra, REACH, POINTS, RAYS, FACES, (2, 2)),
    refused(ValueError, "overlap_threshold is 2", suppress_polyhedra, REACH, POINTS, RAYS, FACES, 2),
    defined([], polyhedron_volumes, NONE, RAYS, FACES),
    defined([0.0], polyhedron_volumes, 0 * REACH[:1], RAYS, FACES),
    defined([[[0, 0]]], rasterize_polyhedra, NONE, NOWHERE, RAYS, FACES, (1, 1, 2)),
    defined([[[2, 2]]], rasterize_polyhedra, REACH, POINTS, RAYS, FACES, (1, 1, 2)),
    defined([], suppress_polyhedra, NONE, NOWHERE, RAYS, FACES, 0.5),
    defined([True, False], suppress_polyhedra, REACH, POINTS, RAYS, FACES, 0.5),
    defined([True, True], suppress_polyhedra, 0 * REACH, POINTS, RAYS, FACES, 0.5),
]
