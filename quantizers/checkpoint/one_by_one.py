"""The base class of formats that make their variants one by one, because the variants share no work."""

from __future__ import annotations

from quantizers.protocol import Job, Layout, Output, Variant


class OneByOne:
    """Puts every variant into a wave of its own. A wave is a group of variants that are made together."""

    continues = False

    def check(self, job: Job) -> None:
        """Checks nothing, because the plan has already checked config.json, and there is nothing else to check."""

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
