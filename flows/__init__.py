"""Prefect flows: they order the stages and decide nothing.

Import :mod:`flows` only where Prefect is to run: the stages themselves know nothing of it.
"""
