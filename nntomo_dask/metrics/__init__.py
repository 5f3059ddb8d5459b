"""How far a volume is from a reference, computed block by block."""
