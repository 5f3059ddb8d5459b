"""The `nntomo` command: one module a group of verbs; options come from the declarations of methods and phantoms."""
