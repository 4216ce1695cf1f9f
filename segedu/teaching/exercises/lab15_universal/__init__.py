"""Lab 15, panoptic and universal: merging, queries and their masks, masked attention, matching, reading, tasks."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab15_universal.mask_match import exercise as mask_match
from segedu.teaching.exercises.lab15_universal.masked_attention import exercise as masked_attention
from segedu.teaching.exercises.lab15_universal.merge_panoptic import exercise as merge_panoptic
from segedu.teaching.exercises.lab15_universal.query_masks import exercise as query_masks
from segedu.teaching.exercises.lab15_universal.semantic_inference import exercise as semantic_inference
from segedu.teaching.exercises.lab15_universal.task_token import exercise as task_token

exercises = [merge_panoptic, query_masks, masked_attention, mask_match, semantic_inference, task_token]
check, use = lab_tools("15_universal", exercises)

__all__ = ["check", "exercises", "use"]
