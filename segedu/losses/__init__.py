"""Losses: functions of logits and a target that do not depend on a model.

The 25 losses of the survey of Azad et al. 2023 (arXiv 2312.05391) in its taxonomy, with the file of each:

- distribution: cross-entropy (``cross_entropy``), top-k and distance-map cross-entropy (``distribution``), focal
  (``focal``);
- region: Dice, log-cosh Dice, generalised Wasserstein Dice (``dice``), IoU, Tversky, focal Tversky, sensitivity and
  specificity (``region``), Lovász (``lovasz``), region mutual information (``rmi``), robust T (``robust_t``);
- boundary: boundary, Hausdorff, boundary DoU, region-wise (``boundary``), boundary-aware (``boundary_aware``), active
  boundary (``active_boundary``), InverseForm (``inverse_form``), conditional boundary (``conditional_boundary``);
- compound: combo, exponential-logarithmic, unified focal (``compound``).

Also here: binary cross-entropy, Lovász hinge, clDice (``cldice``), regression losses (``regression``), box losses
(``boxes``), and losses of masks and of sets of predictions (``masks``, ``set_prediction``). They share the weighted
mean (``reduction``), soft counts (``overlap``) and ``distance_maps``.
"""
