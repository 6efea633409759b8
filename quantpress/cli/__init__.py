"""The command line: words in, words out. The entry point is :func:`quantpress.cli.app.main`."""
