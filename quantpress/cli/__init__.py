"""The command line. Its entry point is :func:`quantpress.cli.app.main`."""
