"""Makes up for cut channels without training: least squares, layer by layer, front to back.

Each layer behind the cut gets the weights that bring its output, computed from what the *cut* model feeds it, closest
to what the *original* computed there, over calibration data (He et al. 2017, "Channel Pruning for Accelerating Very
Deep Neural Networks", arXiv:1707.06168, section 3.1). Three things make the difference:

* The error that is already upstream is in the layer's input, so it is absorbed and not passed on.
* Where the output is added to a shortcut, the target is the original's *sum* minus the cut model's shortcut: the layer
  also makes up for the error that comes along the shortcut.
* Where a Relu follows, what it sets to zero on both sides is no error: with the target renewed accordingly a few
  times, the fit is one of the layer and its Relu together.

The pull toward the cut weights is scaled by the mean of the Gram matrix's diagonal, so that it means the same for
every layer; sums are in float64.
"""
