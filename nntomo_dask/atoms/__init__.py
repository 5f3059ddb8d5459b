"""Atoms: found in volumes, matched with a crystal, kept in files."""
