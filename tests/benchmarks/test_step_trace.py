"""How many files a reader of one GRPO step has to open; the bounds are those that the design promises."""

from benchmarks.step_trace import trace_steps
from benchmarks.workloads import workload


def test_a_step_runs_through_few_files():
    first, warm = trace_steps(workload("short-text", prompts=8, group_size=2))
    assert len(first.calls) <= 28 and first.switches <= 400, first
    assert len(warm.calls) <= 12, warm
    assert "rl/grpo.py" in warm.calls, "the trace sees the step"
