"""Waves: rungs (GGUF variants) that share quantized tensors are made together, within the disk budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantizers.gguf.dry_run import PlannedTensor
from quantizers.gguf.rung_plan import RungPlan
from quantizers.gguf.waves import cut_waves, disk_needed


def plan(rung: str, size: int, *targets: str, alone: str | None = None) -> RungPlan:
    tensors = tuple(
        PlannedTensor(f"blk.{layer}", (256, 1, 1, 1), "F16", target) for layer, target in enumerate(targets)
    )
    return RungPlan(rung, tensors, file_bytes=size, by_llama_quantize=alone)


def names(waves: list[list[RungPlan]]) -> list[list[str]]:
    return [[each.rung for each in wave] for wave in waves]


LADDER = [
    plan("Q3_K_M", 40, "Q3_K", "Q5_K"),
    plan("Q4_0", 45, "Q4_0", "Q4_0"),
    plan("Q4_K_M", 50, "Q4_K", "Q6_K"),
    plan("Q5_K_M", 60, "Q5_K", "Q5_K"),
    plan("Q6_K", 65, "Q6_K", "Q6_K"),
]


def test_without_a_budget_there_is_one_wave() -> None:
    assert names(cut_waves(LADDER, None)) == [["Q3_K_M", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"]]


def test_rungs_that_share_types_share_a_wave() -> None:
    assert names(cut_waves(LADDER, 120)) == [["Q3_K_M", "Q5_K_M"], ["Q4_0", "Q4_K_M"], ["Q6_K"]]


def test_a_rung_of_llama_quantize_is_alone() -> None:
    odd = plan("IQ1_S", 20, "IQ1_S", alone="nothing for blk.0")
    assert names(cut_waves([odd, *LADDER[:2]], None)) == [["IQ1_S"], ["Q3_K_M", "Q4_0"]]


def test_a_file_that_is_split_lies_beside_its_parts_for_a_while() -> None:
    assert disk_needed(LADDER[:3], None) == 135
    assert disk_needed(LADDER[:3], 50) == 135
    assert disk_needed(LADDER[:3], 49) == 185
    assert disk_needed(LADDER[:3], 10) == 185
    assert names(cut_waves(LADDER, 170, split_above=10)) == [["Q3_K_M", "Q5_K_M"], ["Q4_0", "Q4_K_M"], ["Q6_K"]]
    assert names(cut_waves(LADDER, 170, split_above=60)) == [["Q3_K_M", "Q4_0", "Q5_K_M"], ["Q4_K_M"], ["Q6_K"]]


@given(
    st.lists(st.tuples(st.integers(1, 100), st.sampled_from(["Q4_K", "Q6_K", "Q8_0"])), max_size=12),
    st.integers(100, 400),
)
def test_every_rung_is_in_one_wave_and_every_wave_fits(rungs: list[tuple[int, str]], budget: int) -> None:
    plans = [plan(f"R{number}", size, target) for number, (size, target) in enumerate(rungs)]
    waves = cut_waves(plans, budget)
    assert sorted(each.rung for wave in waves for each in wave) == sorted(each.rung for each in plans)
    assert all(sum(each.file_bytes for each in wave) <= budget for wave in waves)
