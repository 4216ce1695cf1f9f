"""Bad and empty input to `segedu.ops.mutex_watershed`."""

import torch
from bad_input.rows import INF, NAN, defined, refused, zeros

from segedu.ops.mutex_watershed import mutex_watershed

EDGES, WEIGHTS, SIGNS = torch.tensor([[0, 1]]), torch.ones(1), torch.ones(1).bool()
NONE = zeros(0, 2), torch.zeros(0), torch.zeros(0).bool()

ROWS = [
    refused(TypeError, "edges has type list", mutex_watershed, 2, [[0, 1]], WEIGHTS, SIGNS),
    refused(TypeError, "weights has type list", mutex_watershed, 2, EDGES, [1.0], SIGNS),
    refused(TypeError, "attractive has type list", mutex_watershed, 2, EDGES, WEIGHTS, [True]),
    refused(TypeError, "edges has dtype torch.float32", mutex_watershed, 2, EDGES.float(), WEIGHTS, SIGNS),
    refused(TypeError, "edges has dtype torch.bool", mutex_watershed, 2, EDGES.bool(), WEIGHTS, SIGNS),
    refused(TypeError, "weights has dtype torch.int64", mutex_watershed, 2, EDGES, zeros(1), SIGNS),
    refused(TypeError, "attractive has dtype torch.int64", mutex_watershed, 2, EDGES, WEIGHTS, zeros(1)),
    refused(ValueError, "edges has shape (1, 1)", mutex_watershed, 2, EDGES[:, :1], WEIGHTS, SIGNS),
    refused(ValueError, "weights has shape (2,)", mutex_watershed, 2, EDGES, WEIGHTS.repeat(2), SIGNS),
    refused(ValueError, "edges has nodes from 0 to 1", mutex_watershed, 1, EDGES, WEIGHTS, SIGNS),
    refused(ValueError, "edges has nodes from -1 to 0", mutex_watershed, 2, EDGES - 1, WEIGHTS, SIGNS),
    refused(ValueError, "nodes is -1", mutex_watershed, -1, *NONE),
    *(
        refused(ValueError, "weights has a negative", mutex_watershed, 2, EDGES, bad * WEIGHTS, SIGNS)
        for bad in (-1, NAN, INF)
    ),
    defined([], mutex_watershed, 0, *NONE),
    defined([0, 1, 2], mutex_watershed, 3, *NONE),
    defined([0, 1], mutex_watershed, 2, EDGES, 0 * WEIGHTS, SIGNS),
]
