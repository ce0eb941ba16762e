from collections.abc import AsyncIterator

import pytest
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.log_reading import read_log
from services.core.errors import RunUnknown, ServiceUnavailable


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lns.client.running.log_reading._PAUSE_SECONDS", 0)


class Log:
    """A log of pieces with times, whose reader dies after some of them, once for each number."""

    def __init__(self, *pieces: tuple[int, bytes], dies_after: list[int]) -> None:
        self.pieces = pieces
        self.dies_after = dies_after
        self.asked: list[pb.ReadLogsRequest] = []
        self.revived = 0

    async def ReadLogs(  # noqa: N802 - the RPC
        self, request: pb.ReadLogsRequest, /
    ) -> AsyncIterator[pb.ReadLogsResponse]:
        asked = pb.ReadLogsRequest()
        asked.CopyFrom(request)
        self.asked.append(asked)
        left = self.dies_after.pop(0) if self.dies_after else len(self.pieces)
        since = request.since_time.ToNanoseconds()
        for time, data in self.pieces:
            if time < since:
                continue
            if left == 0:
                raise ServiceUnavailable("gone")
            left -= 1
            piece = pb.ReadLogsResponse(data=data)
            piece.log_time.FromNanoseconds(time)
            yield piece

    async def revive(self) -> None:
        self.revived += 1

    async def read(self, **query: object) -> bytes:
        request = pb.ReadLogsRequest(run="web", **query)  # type: ignore[arg-type]  # the fields of the message
        return b"".join([piece.data async for piece in read_log(self, request, revive=self.revive)])


@pytest.mark.parametrize("dies_after", [[], [0], [1], [2], [3], [1, 1, 2], [2, 1, 1], [4, 0]])
async def test_a_followed_log_is_read_on_without_a_piece_twice(dies_after: list[int]) -> None:
    log = Log((5, b"a"), (7, b"b"), (7, b"c"), (7, b"d"), (9, b"e"), dies_after=dies_after[:])

    assert await log.read(follow=True, tail_lines=9) == b"abcde"
    assert log.revived == len(dies_after)
    assert log.asked[0].HasField("tail_lines")


async def test_a_log_that_is_not_followed_fails_with_its_reader() -> None:
    with pytest.raises(ServiceUnavailable):
        await Log((5, b"a"), (6, b"b"), dies_after=[1]).read()


async def test_a_reader_that_stays_away_is_given_up() -> None:
    log = Log((5, b"a"), dies_after=[0] * 20)

    with pytest.raises(ServiceUnavailable):
        await log.read(follow=True)
    assert log.revived == 5


async def test_a_refusal_is_final() -> None:
    class Unknown(Log):
        async def ReadLogs(  # noqa: N802 - the RPC
            self, request: pb.ReadLogsRequest, /
        ) -> AsyncIterator[pb.ReadLogsResponse]:
            raise RunUnknown("none")
            yield

    log = Unknown(dies_after=[])
    with pytest.raises(RunUnknown, match="none"):
        await log.read(follow=True)
    assert log.revived == 0
