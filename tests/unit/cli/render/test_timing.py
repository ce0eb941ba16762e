"""The table of `lns run --timing`."""

from datetime import timedelta

from lns.vm.v1 import run_pb2

from cli.render.timing import process_age, timing_lines


def test_each_step_is_a_line_in_its_order_and_the_sum_is_the_last() -> None:
    run = run_pb2.Run()
    run.boot_times.way = "ahead"
    run.boot_times.prepare.FromTimedelta(timedelta(milliseconds=4))
    run.boot_times.exec.FromTimedelta(timedelta(milliseconds=30))
    run.start_time.FromNanoseconds(1_000_000_000)
    run.end_time.FromNanoseconds(1_050_500_000)

    lines = list(timing_lines(run, [("resolved", 0.0025)], before=0.02, total=0.2))

    assert [line.split("  ")[0] for line in lines] == [
        "client: start and imports",
        "client: resolved",
        "machine: had (ahead)",
        "machine: answers",
        "machine: configured",
        "machine: program started",
        "machine: program ran",
        "all",
    ]
    values = [line.split()[-2] for line in lines]
    assert values == ["20.0", "2.5", "4.0", "0.0", "0.0", "30.0", "50.5", "200.0"]


def test_a_run_that_never_ran_has_no_time_of_its_program() -> None:
    lines = list(timing_lines(run_pb2.Run(), [], before=0.0, total=0.1))

    assert not any("program ran" in line for line in lines)


def test_a_process_has_an_age() -> None:
    assert 0 <= process_age() < 24 * 3600
