"""Creates the artifacts that a run shows in Prefect's interface: the plan, the results and the plots.

The artifacts are only a history. No later run reads them.
"""

from __future__ import annotations

import re

from prefect.artifacts import create_image_artifact, create_table_artifact

from quantpress.evaluation.plots.draw import PERPLEXITY_PLOT
from quantpress.plan.steps import ModelPlan, Step
from quantpress.record.report import ModelReport


def show_plan(plans: list[ModelPlan], orphaned: list[Step]) -> None:
    """Creates the table artifact ``plan``: one row per step with its reason, and one row per orphaned repository (a
    published repository that is no longer in the catalog)."""
    steps = [step for each in plans for step in each.steps] + orphaned
    rows = [step.model_dump(exclude={"estimate"}) for step in steps]
    create_table_artifact(key="plan", table=rows, description="What is to be done, and why")


def show_results(reports: list[ModelReport]) -> None:
    """Creates the table artifact ``results``: one row per variant that was made, with its figures."""
    rows = [row.model_dump() for report in reports for row in report.variants]
    create_table_artifact(key="results", table=rows, description="What was made and published")


def show_plot(endpoint: str, repo_id: str, commit: str) -> None:
    """Creates the image artifact ``plot-…``. It shows the plot of perplexity against size that ``commit`` holds."""
    create_image_artifact(
        image_url=f"{endpoint}/{repo_id}/resolve/{commit}/{PERPLEXITY_PLOT}",
        key="plot-" + re.sub(r"[^a-z0-9]+", "-", repo_id.lower()).strip("-"),
        description=f"Perplexity against size: {repo_id}",
    )
