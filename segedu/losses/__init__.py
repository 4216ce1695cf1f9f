"""Losses: functions of (logits, target) that know no model.

The 25 losses of the survey of Azad et al. 2023 (arXiv 2312.05391), by its taxonomy, and where they are:

- distribution: cross-entropy (``cross_entropy``), top-k and distance-map cross-entropy (``distribution``), focal
  (``focal``);
- region: Dice, log-cosh Dice, generalised Wasserstein Dice (``dice``), IoU, Tversky, focal Tversky, sensitivity and
  specificity (``region``), Lovász (``lovasz``), region mutual information (``rmi``), robust T (``robust_t``);
- boundary: boundary, Hausdorff, boundary DoU, region-wise (``boundary``), boundary-aware (``boundary_aware``), active
  boundary (``active_boundary``), InverseForm (``inverse_form``), conditional boundary (``conditional_boundary``);
- compound: combo, exponential-logarithmic, unified focal (``compound``).

Besides: binary cross-entropy, Lovász hinge, clDice (``cldice``), numbers (``regression``) and boxes (``boxes``).
What they share: ``checks`` of input and the rule of the mean, soft counts (``overlap``), ``distance_maps``.
"""
