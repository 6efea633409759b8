"""Commands of the command line, in groups; :mod:`quantpress.cli` registers them."""
