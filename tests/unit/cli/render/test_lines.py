from cli.render.lines import PrefixedLines


class Written:
    def __init__(self) -> None:
        self.out = b""
        self.err = b""

    async def __call__(self, data: bytes, is_error: bool) -> None:
        if is_error:
            self.err += data
        else:
            self.out += data


async def test_each_line_stands_behind_the_name_of_its_process() -> None:
    written = Written()
    lines = PrefixedLines(["web", "worker"], write=written)

    await lines.add("web", b"one\ntwo\n", is_error=False)
    await lines.add("worker", b"three\n", is_error=True)
    await lines.add("worker", b"\xff\x00\n\n", is_error=False)

    assert written.out == b"web    | one\nweb    | two\nworker | \xff\x00\nworker | \n"
    assert written.err == b"worker | three\n"


async def test_lines_that_come_in_pieces_do_not_run_into_each_other() -> None:
    written = Written()
    lines = PrefixedLines(["a", "b"], write=written)

    await lines.add("a", b"half", is_error=False)
    await lines.add("b", b"other\nrest", is_error=False)
    await lines.add("a", b"error", is_error=True)
    await lines.add("a", b" and half\n", is_error=False)
    assert written.out == b"b | other\na | half and half\n"

    for name in ("a", "b", "a"):
        await lines.finish(name)
    assert written.out.endswith(b"b | rest\n")
    assert written.err == b"a | error\n"


async def test_a_line_without_end_is_cut_and_costs_no_more_memory_than_that() -> None:
    written = Written()
    lines = PrefixedLines(["a"], write=written)

    for _ in range(50):
        await lines.add("a", b"x" * 5000, is_error=False)

    assert written.out.count(b"\n") == 3
    await lines.finish("a")
    assert written.out.replace(b"a | ", b"").replace(b"\n", b"") == b"x" * 250_000


async def test_names_have_colours_of_their_own_where_they_are_shown() -> None:
    written = Written()
    lines = PrefixedLines(["a", "b"], write=written, coloured=(True, False))

    for name in ("a", "b"):
        await lines.add(name, b"x\n", is_error=False)
        await lines.add(name, b"x\n", is_error=True)

    assert written.out == b"\x1b[36ma | \x1b[0mx\n\x1b[33mb | \x1b[0mx\n"
    assert written.err == b"a | x\nb | x\n"
