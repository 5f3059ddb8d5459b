"""From a volume to its tilt series and back: the projector pair that iterative reconstructions are built on."""
