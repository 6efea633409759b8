"""The commands of the command line, in groups. :mod:`quantpress.cli.app` registers the commands."""
