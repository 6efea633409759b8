"""Prefect flows. They order the stages and decide nothing.

Import :mod:`flows` only to run Prefect. The stages themselves know nothing of Prefect.
"""
