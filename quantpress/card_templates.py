"""The earlier name of :mod:`quantpress.card.templates`. Other packages that add a format import this module to check
their card template."""

from __future__ import annotations

from quantpress.card.templates import (
    TEMPLATES,
    fingerprint,
    markdown_environment,
    template_path,
    templates_fingerprint,
)

__all__ = ["TEMPLATES", "fingerprint", "markdown_environment", "template_path", "templates_fingerprint"]
