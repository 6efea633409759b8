"""For formats that make their variants one by one, because the variants share no work."""

from __future__ import annotations

from quantizers.protocol import Job, Layout, Output, Variant


class OneByOne:
    """For formats whose variants are checkpoints that share no work: every variant is a separate wave."""

    continues = False

    def check(self, job: Job) -> None:
        """Checks nothing: the plan has already seen in config.json all that there is to check."""

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
