"""Lab 10, embeddings: offsets, Gaussians, greedy clustering, the Lovász gradient, pull and push, affinities."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab10_embeddings.affinities import exercise as affinities
from segedu.teaching.exercises.lab10_embeddings.gaussian_mask import exercise as gaussian_mask
from segedu.teaching.exercises.lab10_embeddings.greedy_cluster import exercise as greedy_cluster
from segedu.teaching.exercises.lab10_embeddings.lovasz_grad import exercise as lovasz_grad
from segedu.teaching.exercises.lab10_embeddings.offset_target import exercise as offset_target
from segedu.teaching.exercises.lab10_embeddings.pull_push import exercise as pull_push

exercises = [offset_target, gaussian_mask, greedy_cluster, lovasz_grad, pull_push, affinities]
check, use = lab_tools("10_embeddings", exercises)

__all__ = ["check", "exercises", "use"]
