"""Lab 2, segmentation as clustering: a threshold, k-means, coordinates, components, cuts, markers."""

from __future__ import annotations

from segedu.teaching.checks.cell import lab_tools
from segedu.teaching.exercises.lab02_clustering.kmeans_step import exercise as kmeans_step
from segedu.teaching.exercises.lab02_clustering.ncut_value import exercise as ncut_value
from segedu.teaching.exercises.lab02_clustering.otsu import exercise as otsu
from segedu.teaching.exercises.lab02_clustering.pca_project import exercise as pca_project
from segedu.teaching.exercises.lab02_clustering.watershed_markers import exercise as watershed_markers
from segedu.teaching.exercises.lab02_clustering.xy_features import exercise as xy_features

exercises = [otsu, kmeans_step, xy_features, pca_project, ncut_value, watershed_markers]
# answers of other libraries, hidden in grading and while a check runs
FORBIDDEN = (
    "skimage.filters.threshold_otsu",
    "skimage.filters.threshold_multiotsu",
    "sklearn.cluster.KMeans",
    "sklearn.cluster.k_means",
    "scipy.cluster.vq.kmeans2",
    "sklearn.decomposition.PCA",
    "sklearn.decomposition.KernelPCA",
    "sklearn.decomposition.IncrementalPCA",
)
check, use = lab_tools("02_clustering", exercises, FORBIDDEN)

__all__ = ["check", "exercises", "use"]
