"""The earlier address of :mod:`quantpress.card.templates`: packages with a format check their card's template by it."""

from __future__ import annotations

from quantpress.card.templates import (
    TEMPLATES,
    fingerprint,
    markdown_environment,
    template_path,
    templates_fingerprint,
)

__all__ = ["TEMPLATES", "fingerprint", "markdown_environment", "template_path", "templates_fingerprint"]
