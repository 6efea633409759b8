"""Prints tables and lines of results to the terminal."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from quantpress.plan.steps import WORK, ModelPlan, Step
from quantpress.record.measurement import Evaluation
from quantpress.record.report import ModelReport, VariantReport
from quantpress.record.verification import Verification
from quantpress.settings import Settings
from quantpress.terminal import console
from quantpress.toolchain.registry import Installed, Toolchain


def megabytes(size: int) -> str:
    """Returns a size in decimal megabytes, the unit of download pages."""
    return f"{size / 1e6:,.1f} MB"


def print_plan(plans: list[ModelPlan], orphaned: list[Step], stored: int | None, settings: Settings) -> None:
    """Prints a table per model, with one row per step of the plan and the step's reason.

    Below the tables, prints the repos that are no longer in the catalog (``orphaned``), and how many bytes the
    namespace holds (``stored``). If there is work, also prints the number of steps of each kind and the estimated cost.
    """
    terminal = console()
    for plan in plans:
        table = Table(title=plan.line.repo, title_justify="left")
        for column in ("action", "format", "variant", "reason"):
            table.add_column(column, overflow="fold")
        for step in plan.steps:
            table.add_row(step.action, step.format, step.variant, step.reason)
        terminal.print(table)
    for step in orphaned:
        terminal.print(f"{step.repo_id}: {step.reason}", soft_wrap=True)
    if stored is not None:
        terminal.print(f"{settings.namespace} holds {megabytes(stored)} on {settings.target_endpoint}.", soft_wrap=True)
    if not any(plan.has_work for plan in plans):
        terminal.print("Nothing to do.")
        return
    steps = [step for plan in plans for step in plan.steps]
    counts = Counter(step.action for step in steps)
    terminal.print(f"To do: {', '.join(f'{counts[action]} {action}' for action in WORK if counts[action])}.")
    estimates = [step.estimate for step in steps if step.estimate is not None]
    if not estimates:
        return
    minutes = sum(estimate.core_seconds for estimate in estimates) / settings.thread_count() / 60
    terminal.print(
        f"{len(estimates)} variants to make: about {minutes:.0f} min on {settings.thread_count()} cores, "
        f"upload {megabytes(sum(estimate.upload for estimate in estimates))}, "
        f"disk {megabytes(max(plan.disk_needed(settings) for plan in plans))}, "
        f"memory {megabytes(max(estimate.memory for estimate in estimates))}."
    )


def print_results(reports: list[ModelReport], settings: Settings) -> None:
    """Prints a table per repository, with one row per variant made, and the repository's address below the table. Then
    prints why variants were withheld, and what else was committed."""
    rows = [row for report in reports for row in report.variants]
    committed = [line for report in reports for line in report.committed]
    terminal = console()
    if not rows and not committed:
        terminal.print("Nothing was made." if any(report.failures for report in reports) else "Nothing to do.")
    for repo_id in dict.fromkeys(row.repo_id for row in rows):
        terminal.print(_figures(repo_id, [row for row in rows if row.repo_id == repo_id]))
        terminal.print(f"{settings.target_endpoint}/{repo_id}", soft_wrap=True)
    for row in rows:
        if row.withheld:
            terminal.print(row.withheld, soft_wrap=True)
    for line in committed:
        terminal.print(f"Committed: {line}", soft_wrap=True)


def print_variants(title: str, rows: list[VariantReport]) -> None:
    """Prints a table with one row per variant and its figures."""
    console().print(_figures(title, rows))


def _figures(title: str, rows: list[VariantReport]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("variant", "status"):
        table.add_column(column, overflow="fold")
    for column in ("size", "bits/weight", "perplexity", "mean KLD"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.variant,
            row.status,
            megabytes(row.size),
            f"{row.bits_per_weight:.2f}",
            f"{row.perplexity:.3f} ± {row.perplexity_error:.3f}",
            "" if row.divergence is None else f"{row.divergence:.4f}",
        )
    return table


def print_verification(found: Verification) -> None:
    """Prints one line per verified file, one per variant with the text that the variant wrote, and one per client.

    A client here is a program, such as Ollama, that chooses a file by a tag.
    """
    terminal = console()
    for file in found.files:
        style = "red" if file.problem else "green"
        terminal.print(f"{file.path}  {megabytes(file.size)}  {file.problem or 'ok'}", style=style, soft_wrap=True)
    for spoken in found.variants:
        style = "red" if spoken.problem else "green"
        said = spoken.failure or f"loads and writes: {' '.join(spoken.text.split())}"
        terminal.print(f"{spoken.variant}  {said}", style=style, soft_wrap=True)
    for each in found.resolved:
        style = "red" if each.problem else "yellow" if each.note else "green"
        said = each.problem or each.note or f"takes {each.path} for {each.tag}"
        terminal.print(f"{each.client}  {said}", style=style, soft_wrap=True)


def print_toolchains(found: list[tuple[Toolchain, Installed | None]]) -> None:
    """Prints one line per toolchain: version and folder, or the command that installs the toolchain."""
    terminal = console()
    for each, there in found:
        state = f"{there.version}  {there.folder}" if there else f"missing: quantpress toolchain install {each.name}"
        terminal.print(f"{each.name}  (for {each.purpose})  {state}", soft_wrap=True)


def print_evaluation(found: Evaluation) -> None:
    """Prints one figure per line, each with its unit."""
    terminal = console()
    protocol, divergence = found.protocol, found.divergence
    lines = [f"perplexity        {found.perplexity:.4f} ± {found.perplexity_error:.4f}"]
    if divergence is not None:
        lines.append(f"mean KLD          {divergence.mean:.6f} ± {divergence.mean_error:.6f} nats per token")
        lines.append(f"same top token    {divergence.same_top:.2%}")
    lines.append(f"not finite        {found.non_finite} of {found.scored_tokens} positions")
    if found.weights_bytes is not None:
        lines.append(f"weights           {megabytes(found.weights_bytes)}")
    lines.append(f"peak memory       {megabytes(found.memory_bytes)}")
    lines.append(f"prompt            {found.tokens_per_second:,.0f} tokens/s")
    if found.generation_tokens_per_second is not None:
        lines.append(f"generation        {found.generation_tokens_per_second:,.1f} tokens/s")
    lines.append(f"measured on       {found.runner}, by {found.engine} {found.engine_version}")
    lines.append(
        f"protocol          {protocol.text}, {protocol.windows} windows of {protocol.n_ctx} tokens, "
        f"version {protocol.version}"
    )
    for line in lines:
        terminal.print(line, soft_wrap=True)
