"""Exact leave-one-out: every sample scored by the mixture of all others, without a refit.

========================  =======================================================================
``calibration``           scores of all samples as those of later items will be
``judge``                 the driver: which samples leave together, tiles, scores
``samples``               all samples of a fit, and the ones that a tile takes out
``settling``              what class means of all samples would change in these scores
``updates``               Gaussians after a change of low rank; anchors between which to interpolate
``spherical`` ...         one file a family: its class densities and its background without a unit
========================  =======================================================================
"""

from mixtura.core.leave_one_out.calibration import calibration_scores
from mixtura.core.leave_one_out.judge import cross_val_predict, has_exact_form

__all__ = ["calibration_scores", "cross_val_predict", "has_exact_form"]
