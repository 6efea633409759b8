"""The Prefect flows. They run the stages of quantpress as Prefect tasks, and decide nothing.

Import :mod:`flows` only to run Prefect. The stages themselves do not depend on Prefect.
"""
