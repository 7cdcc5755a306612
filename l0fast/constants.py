"""The numbers that every part of l0fast shares. Kernels get them as arguments; nothing copies them.

Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), section 4, and l0-python for the two bounds.
"""

BETA = 2 / 3
"""Temperature of the gates."""

GAMMA = -0.1
"""Lower end of the stretched interval, below 0."""

ZETA = 1.1
"""Upper end of the stretched interval, above 1."""

LOG_ALPHA_BOUND = 20.0
"""``log_alpha`` is held to [-20, 20]: beyond it the sigmoid is flat in every dtype."""

UNIFORM_EPS = 1e-6
"""The uniform draw is held to [1e-6, 1 - 1e-6], safe in float16."""

WEIGHT_FLOOR = 1e-8
"""Added to an initial weight before its logarithm, so that a weight of 0 has one."""

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
"""torch.optim.Adam's defaults, which calibration uses."""

LINK_EXP, LINK_IDENTITY = 0, 1
"""How a trained parameter becomes a weight before its gate; the values of ``enum class Link`` in csrc/math/link.h."""

RHO_SQUARE, RHO_EPSILON_SQUARE, RHO_CAPPED_ABSOLUTE = 0, 1, 2
"""The shapes of the loss; the values of ``enum class Rho`` in csrc/math/objective.h."""
