"""Files of microscopes and of other programs."""
