"""Lab 9, distances and flows: signed distance and watershed, StarDist's rays and NMS, Cellpose's flow and back."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab09_distances.diffusion_flow import exercise as diffusion_flow
from segedu.teaching.exercises.lab09_distances.follow_flows import exercise as follow_flows
from segedu.teaching.exercises.lab09_distances.polygon_nms import exercise as polygon_nms
from segedu.teaching.exercises.lab09_distances.signed_distance import exercise as signed_distance
from segedu.teaching.exercises.lab09_distances.star_distances import exercise as star_distances
from segedu.teaching.exercises.lab09_distances.watershed_decode import exercise as watershed_decode

exercises = [signed_distance, watershed_decode, star_distances, polygon_nms, diffusion_flow, follow_flows]
check, use = lab_tools("09_distances", exercises)

__all__ = ["check", "exercises", "use"]
