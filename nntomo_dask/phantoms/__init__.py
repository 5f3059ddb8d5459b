"""Volumes that are known: to train networks on, and to test reconstructions with."""
