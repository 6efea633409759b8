"""Checkpoints are made one by one: they share no work."""

from __future__ import annotations

from quantizers.protocol import Job, Layout, Output, Variant


class OneByOne:
    """For formats whose variants are checkpoints that share no work: every variant is a wave of its own."""

    continues = False

    def check(self, job: Job) -> None:
        """Nothing that the plan did not see in config.json already."""

    def costly_files(self, model_name: str) -> list[str]:
        return []

    def refresh(self, job: Job) -> str | None:
        from quantizers.checkpoint.files import refresh_checkpoint

        refresh_checkpoint(job)
        return None

    def layout(self, job: Job, variants: list[Variant], standing: list[Variant], budget: int | None) -> Layout:
        return Layout(waves=[[variant.name] for variant in variants])

    def quantize_wave(self, jobs: list[Job]) -> list[Output]:
        raise NotImplementedError("variants of this format are never made together")
