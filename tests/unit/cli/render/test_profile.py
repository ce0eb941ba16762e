"""Where the time went, of the stacks in which threads were found."""

from cli.render.profile import busiest, collapsed

STACKS = [(("a:main", "b:read", "b:read"), 30), (("a:main", "c:write"), 10), (("a:main",), 5)]


def test_a_function_has_its_own_share_and_that_with_what_it_calls_once() -> None:
    assert busiest(STACKS, 100) == [
        {"self": "30.0%", "total": "30.0%", "function": "b:read"},
        {"self": "10.0%", "total": "10.0%", "function": "c:write"},
        {"self": "5.0%", "total": "45.0%", "function": "a:main"},
    ]


def test_a_process_that_was_never_seen_at_work_has_no_rows() -> None:
    assert busiest([], 0) == []


def test_whole_stacks_are_lines_that_flame_graphs_are_made_of() -> None:
    assert collapsed(STACKS)[0] == "a:main;b:read;b:read 30"
