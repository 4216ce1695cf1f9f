"""Bad and empty input to `segedu.ops.polygons`."""

import torch
from bad_input.rows import INF, NAN, defined, refused, zeros

from segedu.ops.polygons import (
    polygon_areas,
    polygon_intersections,
    polygon_iou,
    rasterize_polygons,
    star_polygons,
    star_rays,
    suppress_polygons,
)

REACH, POINTS = torch.full((2, 4), 1.0), zeros(2, 2)
NONE, NOWHERE = REACH[:0], POINTS[:0]
DOT = 0 * REACH[:1]  # a polygon without area
CALLS = (
    (star_polygons, ()),
    (polygon_intersections, (REACH, POINTS)),
    (polygon_iou, (REACH, POINTS)),
    (rasterize_polygons, ((3, 3),)),
    (suppress_polygons, (0.5,)),
)

ROWS = [
    *(
        refused(error, words, f, *bad, *more)
        for f, more in CALLS
        for error, words, bad in (
            (TypeError, "distances has dtype torch.int64", (REACH.long(), POINTS)),
            (TypeError, "distances has type list", ([[1.0] * 4], POINTS)),
            (TypeError, "points has type list", (REACH, [[0, 0]])),
            (TypeError, "points has dtype torch.bool", (REACH, POINTS.bool())),
            (ValueError, "distances has shape (4,)", (REACH[0], POINTS)),
            (ValueError, "distances has shape (2, 2)", (REACH[:, :2], POINTS)),
            (ValueError, "points has shape (2, 3)", (REACH, zeros(2, 3))),
            (ValueError, "points has shape (0, 2)", (REACH, NOWHERE)),
            (ValueError, "distances has the value -1", (-REACH, POINTS)),
            (ValueError, "distances has the value nan", (NAN * REACH, POINTS)),
            (ValueError, "points has the value inf", (REACH, INF + POINTS)),
        )
    ),
    refused(ValueError, "points has shape (1, 2)", polygon_iou, REACH, POINTS, REACH, POINTS[:1]),
    refused(ValueError, "n_rays is 2", star_rays, 2),
    refused(TypeError, "polygons has dtype torch.int64", polygon_areas, zeros(1, 3, 2)),
    refused(TypeError, "polygons has type list", polygon_areas, [[0.0]]),
    refused(ValueError, "polygons has shape (1, 2, 2)", polygon_areas, torch.zeros(1, 2, 2)),
    refused(ValueError, "size is (0, 3)", rasterize_polygons, REACH, POINTS, (0, 3)),
    refused(TypeError, "size is (3, 3, 3)", rasterize_polygons, REACH, POINTS, (3, 3, 3)),
    *(refused(ValueError, f"overlap_threshold is {t}", suppress_polygons, REACH, POINTS, t) for t in (-0.1, 1.1, NAN)),
    defined(torch.zeros(0, 4, 2), star_polygons, NONE, NOWHERE),
    defined([], polygon_areas, torch.zeros(0, 3, 2)),
    defined(torch.zeros(0, 2), polygon_intersections, NONE, NOWHERE, REACH, POINTS),
    defined(torch.zeros(2, 0), polygon_iou, REACH, POINTS, NONE, NOWHERE),
    defined([[0.0]], polygon_iou, DOT, POINTS[:1], DOT, POINTS[:1]),
    defined([[0.0]], polygon_intersections, DOT, POINTS[:1], REACH[:1], POINTS[:1]),
    defined([[0, 0], [0, 0]], rasterize_polygons, NONE, NOWHERE, (2, 2)),
    defined([[0, 0], [0, 1]], rasterize_polygons, DOT, POINTS[:1] + 1, (2, 2)),
    defined([[0, 0], [0, 0]], rasterize_polygons, DOT, POINTS[:1] + 2, (2, 2)),
    defined([], suppress_polygons, NONE, NOWHERE, 0.5),
    defined([True, True], suppress_polygons, 0 * REACH, POINTS, 0.5),
    defined([True, False], suppress_polygons, REACH, POINTS, 0.5),
    defined([True, True], suppress_polygons, REACH, POINTS, 1.0),
]
