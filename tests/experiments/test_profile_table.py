"""The table of the operations of a trace."""

from types import SimpleNamespace

import pytest

from experiments import profile_table


def event(start: float, end: float, name: str, **stats) -> SimpleNamespace:
    return SimpleNamespace(start_ns=start, end_ns=end, name=name, stats=stats.items())


def trace(line: str, *events: SimpleNamespace) -> SimpleNamespace:
    """A trace of two steps with one line of operations."""
    host = SimpleNamespace(name="python", events=[event(0, 1, "train"), event(5, 6, "train")])
    device = SimpleNamespace(name=line, events=events)
    return SimpleNamespace(planes=[SimpleNamespace(lines=[host, device])])


def row(name: str, share: str, milliseconds: float, runs: str) -> dict:
    return {"operation": name, "share": share, "ms per step": milliseconds, "runs per step": runs}


MS = 1e6


def test_operations_are_added_up_by_kind_and_loops_leave_out_their_inside():
    data = trace(
        "a thread",
        event(0, 10 * MS, "while.3", hlo_op="while.3"),
        event(1 * MS, 4 * MS, "dot.12", hlo_op="dot.12"),
        event(4 * MS, 7 * MS, "dot.65", hlo_op="dot.65"),
        event(10 * MS, 20 * MS, "add_fusion", hlo_op="add_fusion"),
        event(0, 20 * MS, "ThunkExecutor::Execute"),
    )
    assert profile_table.rows(data) == [
        row("add_fusion", "50.0%", 5.0, "0.5"),
        row("dot", "30.0%", 3.0, "1"),
        row("while", "20.0%", 2.0, "0.5"),
    ]


def test_operations_of_a_tpu_are_named_by_their_instruction():
    data = trace("XLA Ops", event(0, 4 * MS, "%fusion.7 = bf16[8,128]{1,0} fusion(bf16[8]{0} %x)"))
    assert profile_table.rows(data) == [row("fusion", "100.0%", 2.0, "0.5")]


def test_the_newest_trace_is_read(tmp_path):
    with pytest.raises(SystemExit, match=r"has no trace; train with --config\.profile\.steps=10"):
        profile_table.newest_trace(tmp_path)
    for moment in ("2026_11_21", "2026_11_20"):
        folder = tmp_path / "profile/plugins/profile" / moment
        folder.mkdir(parents=True)
        (folder / "host.xplane.pb").touch()
    assert profile_table.newest_trace(tmp_path).parent.name == "2026_11_21"
