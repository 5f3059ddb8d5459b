"""Which method serves a measured series best: by how well each predicts projections that it has not seen.

`candidates` lists methods with their settings, `stack` chooses slices, `predictions` computes and keeps what each
candidate says of each projection that was left out, `comparison` compares candidates pairwise and chooses, `assess` is
the whole of it, `page` tells it.
"""
