"""Which method serves a measured series best: by how well each predicts projections that it has not seen.

`candidates` lists methods with their settings, `stack` chooses slices, `plan` refuses what cannot be assessed,
`predictions` computes and keeps what each candidate says of each projection that was left out, `comparison` compares
candidates pairwise and chooses, `assess` is the whole of it, `result` what it found, `page` tells it. `check` is
a short look at one network.
"""
