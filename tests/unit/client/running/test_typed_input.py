"""What is typed is sent once, also where a connection is lost and other clients type too."""

from lns.client.running.typed_input import TypedInput

BOOT = 1


def sent(kept: TypedInput) -> bytes:
    """Sends everything that may be sent now."""
    pieces = []
    while piece := kept.next_now():
        pieces.append(piece)
    return b"".join(pieces)


async def connected(position: int = 0) -> TypedInput:
    kept = TypedInput()
    kept.connect(again=False)
    kept.ready(position, BOOT)
    return kept


async def test_what_is_typed_while_the_service_is_away_is_sent_though_others_typed() -> None:
    kept = await connected()
    await kept.add(b"stty size\n")
    assert sent(kept) == b"stty size\n"

    kept.connect(again=True)
    await kept.add(b"echo still\n")
    kept.ready(20, BOOT)  # ten bytes of this client and ten of another

    assert sent(kept) == b"echo still\n"


async def test_what_did_not_arrive_is_sent_again_and_the_rest_is_not() -> None:
    kept = await connected(position=100)
    await kept.add(b"abcdef")
    sent(kept)

    kept.connect(again=True)
    kept.ready(104, BOOT)

    assert sent(kept) == b"ef"


async def test_a_connection_that_is_lost_again_before_it_was_ready_changes_nothing() -> None:
    kept = await connected()
    await kept.add(b"abc")
    sent(kept)
    for _ in range(3):
        kept.connect(again=True)
        await kept.add(b"d")
        assert sent(kept) == b""
    kept.ready(9, BOOT)

    assert sent(kept) == b"ddd"


async def test_positions_go_on_from_the_last_connection() -> None:
    kept = await connected()
    await kept.add(b"abc")
    sent(kept)
    kept.connect(again=True)
    kept.ready(5, BOOT)  # two of another client
    await kept.add(b"def")
    sent(kept)

    kept.connect(again=True)
    kept.ready(7, BOOT)

    assert sent(kept) == b"f"


async def test_another_life_of_the_workload_gets_nothing_that_was_typed_for_the_last_one() -> None:
    kept = await connected()
    await kept.add(b"abc")
    sent(kept)
    kept.connect(again=True)
    kept.ready(0, BOOT + 1)

    assert sent(kept) == b""
    await kept.add(b"new")
    assert sent(kept) == b"new"
