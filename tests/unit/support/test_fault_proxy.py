"""Each scripted fault is on the wire what its name says, and each request is on record."""

import contextlib
import hashlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import urllib3

from tests.support import faults
from tests.support.fault_proxy import ANY, Fault, FaultProxy, Match
from tests.support.gate import Gate
from tests.support.http_messages import Kind, answer
from tests.support.http_peer import Exchange, HttpPeer

BLOB = bytes(range(256)) * 1200  # more than a few packets
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
PATH = f"/v2/team/thing/blobs/{DIGEST}"
UPLOAD = "/v2/team/thing/blobs/uploads/"


class Origin:
    """The server behind: one blob with ranges, and uploads that are kept as far as they came."""

    def __init__(self) -> None:
        self.uploads: list[bytes] = []
        self.received = threading.Event()

    def serve(self, exchange: Exchange) -> None:
        if exchange.request.method in ("PATCH", "PUT", "POST"):
            self._receive(exchange)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.request.headers.get("range", ""))
        if asked is None:
            exchange.send(answer(200, BLOB, {"Docker-Content-Digest": DIGEST}))
            return
        begin, end = int(asked[1]), int(asked[2] or len(BLOB) - 1)
        headers = {"Content-Range": f"bytes {begin}-{end}/{len(BLOB)}"}
        exchange.send(answer(206, BLOB[begin : end + 1], headers))

    def _receive(self, exchange: Exchange) -> None:
        kept = bytearray()
        try:
            for piece in exchange.pieces():
                kept += piece
        finally:
            self.uploads.append(bytes(kept))
            self.received.set()
        exchange.send(answer(202, headers={"Location": "/next"}))


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def proxy(origin: Origin) -> Iterator[FaultProxy]:
    with HttpPeer(origin.serve) as behind, FaultProxy(behind.host) as proxy:
        yield proxy


def get(
    proxy: FaultProxy, path: str = PATH, headers: dict[str, str] | None = None
) -> urllib3.BaseHTTPResponse:
    return urllib3.request(
        "GET", proxy.url + path, headers=headers, retries=False, redirect=False, timeout=5
    )


@contextlib.contextmanager
def get_by_hand(proxy: FaultProxy, path: str = PATH) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(proxy.host, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path)
        with connection.getresponse() as response:
            yield response


# --- passing through ------------------------------------------------------------------------------


def test_without_a_script_everything_passes(proxy: FaultProxy) -> None:
    response = get(proxy)

    assert (response.status, response.data) == (200, BLOB)
    assert response.headers["Docker-Content-Digest"] == DIGEST


def test_a_request_is_recorded_with_what_it_is_about(proxy: FaultProxy) -> None:
    get(proxy, headers={"X-Canary": "tweet", "Range": "bytes=10-19"})

    (request,) = proxy.requests
    assert (request.method, request.kind, request.repository) == ("GET", Kind.BLOB, "team/thing")
    assert request.digest == request.reference == DIGEST
    assert (request.headers["x-canary"], request.headers["range"]) == ("tweet", "bytes=10-19")
    assert (request.status, request.sent_bytes, request.peer) == (206, 10, proxy.host)


@pytest.mark.parametrize(
    ("path", "kind", "repository", "digest"),
    [
        ("/v2/", Kind.BASE, "", ""),
        ("/v2/a/manifests/v1", Kind.MANIFEST, "a", ""),
        (f"/v2/a/b/manifests/{DIGEST}", Kind.MANIFEST, "a/b", DIGEST),
        ("/v2/a/b/tags/list?n=3", Kind.TAGS, "a/b", ""),
        (f"/v2/a/b/referrers/{DIGEST}", Kind.REFERRERS, "a/b", DIGEST),
        (f"/v2/a/blobs/uploads/?mount={DIGEST}&from=c", Kind.UPLOAD, "a", DIGEST),
        (f"/v2/a/blobs/uploads/17?digest={DIGEST}", Kind.UPLOAD, "a", DIGEST),
        ("/ext/v1/types", Kind.TYPES, "", ""),
        ("/token?service=x", Kind.OTHER, "", ""),
    ],
)
def test_paths_of_the_distribution_api_are_distinguished(
    proxy: FaultProxy, path: str, kind: Kind, repository: str, digest: str
) -> None:
    get(proxy, path)

    (request,) = proxy.requests
    assert (request.kind, request.repository, request.digest) == (kind, repository, digest)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_body_reaches_the_server_behind(
    proxy: FaultProxy, origin: Origin, chunked: bool
) -> None:
    body = iter([BLOB[:1000], BLOB[1000:]]) if chunked else BLOB  # of unknown length: in chunks

    response = urllib3.request(
        "PATCH", proxy.url + UPLOAD + "17", body=body, retries=False, timeout=5
    )

    assert response.status == 202
    assert origin.uploads == [BLOB]
    assert proxy.requests[0].received_bytes == len(BLOB)


def test_repeated_headers_arrive_as_one_list(proxy: FaultProxy) -> None:
    headers = urllib3.HTTPHeaderDict([("Accept", "a/b"), ("Accept", "c/d, e/f")])

    urllib3.request("GET", proxy.url + PATH, headers=headers, timeout=5)

    assert proxy.requests[0].headers["accept"] == "a/b, c/d, e/f"


def test_head_has_headers_and_no_body(proxy: FaultProxy) -> None:
    response = urllib3.request("HEAD", proxy.url + PATH, retries=False, timeout=5)

    assert (response.headers["Content-Length"], response.data) == (str(len(BLOB)), b"")
    assert proxy.requests[0].sent_bytes == 0


def test_a_connection_serves_several_requests(proxy: FaultProxy) -> None:
    with urllib3.HTTPConnectionPool(proxy.host, maxsize=1) as pool:
        bodies = [pool.request("GET", PATH, timeout=5).data for _ in range(3)]
        assert pool.num_connections == 1

    assert bodies == [BLOB] * 3


# --- the script -----------------------------------------------------------------------------------


def test_a_fault_is_played_so_many_times_and_after_so_many_requests(proxy: FaultProxy) -> None:
    scripted = proxy.script(Match(kind=Kind.BLOB), faults.server_error(503), skip=1, times=2)

    statuses = [get(proxy).status for _ in range(5)]

    assert statuses == [200, 503, 503, 200, 200]
    assert scripted.played == 2
    assert scripted.first.is_set()


def test_a_fault_meets_only_what_it_matches(proxy: FaultProxy) -> None:
    proxy.script(
        Match(method="GET", digest=DIGEST, where=lambda request: "range" in request.headers),
        faults.server_error(),
    )

    assert get(proxy).status == 200
    assert get(proxy, headers={"Range": "bytes=0-1"}).status == 500
    assert urllib3.request("HEAD", proxy.url + PATH, retries=False).status == 200


def test_faults_play_in_the_order_of_the_script_until_it_is_healed(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.server_error(500), times=1)
    proxy.script(ANY, faults.too_many_requests("1"))

    before = [get(proxy).status for _ in range(3)]
    proxy.heal()

    assert before == [500, 429, 429]
    assert get(proxy).status == 200


def test_requests_are_counted_by_match_and_forgotten_on_demand(proxy: FaultProxy) -> None:
    get(proxy)
    get(proxy, "/v2/")

    assert proxy.count(Match(kind=Kind.BLOB)) == 1
    assert proxy.count(ANY) == 2
    proxy.forget()
    assert proxy.requests == ()


def test_a_mistake_in_a_fault_is_raised_at_the_end(origin: Origin) -> None:
    class Mistaken:
        def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
            raise ZeroDivisionError

    with (
        pytest.raises(ExceptionGroup) as caught,
        HttpPeer(origin.serve) as behind,
        FaultProxy(behind.host) as proxy,
    ):
        proxy.script(ANY, Mistaken())
        with pytest.raises(urllib3.exceptions.ProtocolError):
            get(proxy)

    assert caught.group_contains(ZeroDivisionError)


# --- connections ----------------------------------------------------------------------------------


def test_refusing_refuses_connections_and_the_same_address_answers_afterwards(
    proxy: FaultProxy,
) -> None:
    host, _, port = proxy.host.partition(":")

    with proxy.refusing(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)

    assert get(proxy).status == 200


def test_refusing_ends_connections_that_are_open(proxy: FaultProxy) -> None:
    gate = Gate()
    proxy.script(ANY, faults.Hold(gate=gate, after=10))

    with get_by_hand(proxy) as response:
        gate.wait_for()
        with proxy.refusing(), pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        gate.open()


def test_reset_before_any_answer(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.Reset(), times=1)

    with pytest.raises(ConnectionResetError), get_by_hand(proxy):
        pass

    assert proxy.requests[0].status is None


def test_reset_in_the_middle_of_a_body(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.Reset(after=1000), times=1)

    with get_by_hand(proxy) as response, pytest.raises(ConnectionResetError):
        while response.read(100):
            pass

    assert proxy.requests[0].sent_bytes == 1000
    assert get(proxy).data == BLOB


def test_truncated_body_ends_early_though_the_headers_promise_all(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.Truncate(after=1000))

    with get_by_hand(proxy) as response, pytest.raises(http.client.IncompleteRead) as caught:
        assert response.headers["Content-Length"] == str(len(BLOB))
        response.read()

    assert caught.value.partial == BLOB[:1000]


def test_dripping_body_is_slow_and_whole(proxy: FaultProxy) -> None:
    slow = faults.Drip(after=len(BLOB) - 6, piece=2, interval=0.02)
    proxy.script(ANY, slow)
    begin = time.monotonic()

    assert get(proxy).data == BLOB
    assert time.monotonic() - begin >= 3 * slow.interval


def test_held_answer_waits_for_its_gate(proxy: FaultProxy) -> None:
    gate = Gate()
    proxy.script(ANY, faults.Hold(gate=gate, after=1000))

    with get_by_hand(proxy) as response:
        assert response.read(1000) == BLOB[:1000]
        gate.wait_for()
        assert proxy.requests[0].sent_bytes == 1000
        gate.open()
        assert response.read() == BLOB[1000:]


def test_held_request_is_kept_from_the_server_behind(proxy: FaultProxy, origin: Origin) -> None:
    gate = Gate()
    proxy.script(Match(method="PATCH"), faults.Hold(gate=gate))
    thread = threading.Thread(
        target=urllib3.request, args=("PATCH", proxy.url + UPLOAD), kwargs={"body": b"x"}
    )
    thread.start()

    gate.wait_for()
    before = list(origin.uploads)
    gate.open()
    thread.join()

    assert (before, origin.uploads) == ([], [b"x"])


def test_closing_the_proxy_ends_what_is_held(origin: Origin) -> None:
    with HttpPeer(origin.serve) as behind, FaultProxy(behind.host) as proxy:
        hold = faults.Hold(after=10)
        proxy.script(ANY, hold)
        with get_by_hand(proxy):
            hold.gate.wait_for()
            begin = time.monotonic()
            proxy.__exit__()
            assert time.monotonic() - begin < 2


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "retry_after", "code"),
    [
        (faults.too_many_requests("7"), 429, "7", "TOOMANYREQUESTS"),
        (faults.server_error(), 500, None, "UNKNOWN"),
        (faults.server_error(503, "2"), 503, "2", "UNKNOWN"),
        (faults.error_answer(403, "DENIED"), 403, None, "DENIED"),
    ],
)
def test_refusals_have_the_form_of_the_distribution_specification(
    proxy: FaultProxy, fault: Fault, status: int, retry_after: str | None, code: str
) -> None:
    proxy.script(ANY, fault)

    response = get(proxy)

    assert (response.status, response.headers.get("Retry-After")) == (status, retry_after)
    assert response.json()["errors"][0]["code"] == code


def test_flipped_byte_changes_the_digest_and_not_the_length(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.FlipByte(at=70_000))

    data = get(proxy).data

    assert [i for i, (a, b) in enumerate(zip(data, BLOB, strict=True)) if a != b] == [70_000]


@pytest.mark.parametrize("by", [-1, 1, 100_000])
def test_resized_body_agrees_with_its_headers(proxy: FaultProxy, by: int) -> None:
    proxy.script(ANY, faults.Resize(by=by))

    response = get(proxy)

    assert int(response.headers["Content-Length"]) == len(response.data) == len(BLOB) + by
    assert response.data[: len(BLOB)] == BLOB[: len(BLOB) + by]


def test_misdeclared_length_promises_more_than_comes(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.Misdeclare(by=5))

    with get_by_hand(proxy) as response, pytest.raises(http.client.IncompleteRead) as caught:
        response.read()

    assert caught.value.partial == BLOB


def test_headers_can_lie_or_be_missing(proxy: FaultProxy) -> None:
    proxy.script(
        ANY,
        faults.ReplaceHeaders(headers={"Content-Type": "text/html", "Docker-Content-Digest": None}),
    )

    response = get(proxy)

    assert response.headers["Content-Type"] == "text/html"
    assert "Docker-Content-Digest" not in response.headers
    assert response.data == BLOB


def test_endless_body_ends_only_with_the_client(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.GiantBody())

    with get_by_hand(proxy) as response:
        data = response.read(5 * 1024 * 1024)

    assert len(data) == 5 * 1024 * 1024
    assert data.strip() == b"{"


def test_giant_body_has_the_size_it_declares(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.GiantBody(size=5_000_000))

    response = get(proxy)

    assert int(response.headers["Content-Length"]) == len(response.data) == 5_000_000


def test_head_of_an_endless_body_is_answered(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.GiantBody())

    assert urllib3.request("HEAD", proxy.url + PATH, retries=False, timeout=5).status == 200


def test_deep_json_is_as_deep_as_asked(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.deep_json(3))

    assert get(proxy).data == b"[[[]]]"


# --- ranges and redirects -------------------------------------------------------------------------


def test_ignored_range_is_answered_with_the_whole(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.IgnoreRange())

    response = get(proxy, headers={"Range": "bytes=100-"})

    assert (response.status, response.data) == (200, BLOB)


@pytest.mark.parametrize(("honest", "claimed"), [(True, 90), (False, 100)])
def test_shifted_range_sends_another_part(proxy: FaultProxy, honest: bool, claimed: int) -> None:
    proxy.script(ANY, faults.ShiftRange(by=10, honest=honest))

    response = get(proxy, headers={"Range": "bytes=100-199"})

    assert (response.status, response.data) == (206, BLOB[90:190])
    assert response.headers["Content-Range"] == f"bytes {claimed}-{claimed + 99}/{len(BLOB)}"


@pytest.mark.parametrize("other_port", [False, True])
def test_redirect_leads_to_another_door_that_records_what_arrived(
    proxy: FaultProxy, other_port: bool
) -> None:
    proxy.script(Match(peer=proxy.host), faults.Redirect(other_port=other_port))

    location = get(proxy).headers["Location"]
    response = urllib3.request("GET", location, headers={"Authorization": "Basic x"}, timeout=5)

    door = proxy.other_port if other_port else proxy.other_host
    assert location == f"http://{door}{PATH}"
    assert response.data == BLOB
    (followed,) = proxy.select(Match(peer=door))
    assert followed.headers["authorization"] == "Basic x"


def test_doors_differ_in_host_or_in_port_alone(proxy: FaultProxy) -> None:
    host, _, port = proxy.host.partition(":")

    assert proxy.other_host.partition(":")[0] != host
    assert proxy.other_port.partition(":")[0] == host
    assert proxy.other_port.partition(":")[2] != port


def test_redirect_loop_never_ends(proxy: FaultProxy) -> None:
    proxy.script(ANY, faults.RedirectLoop())

    with pytest.raises(urllib3.exceptions.MaxRetryError):
        urllib3.request("GET", proxy.url + PATH, retries=urllib3.Retry(redirect=5), timeout=5)

    assert proxy.count(ANY) == 6


# --- uploads --------------------------------------------------------------------------------------


def test_upload_cut_in_its_body_leaves_a_part_behind(proxy: FaultProxy, origin: Origin) -> None:
    proxy.script(Match(method="PATCH"), faults.CutUpload(after=100_000), times=1)

    with pytest.raises(urllib3.exceptions.ProtocolError):
        urllib3.request("PATCH", proxy.url + UPLOAD, body=BLOB, retries=False, timeout=5)

    assert origin.received.wait(5)
    assert origin.uploads == [BLOB[:100_000]]


def test_dropped_answer_hides_what_the_server_did(proxy: FaultProxy, origin: Origin) -> None:
    proxy.script(Match(method="PATCH"), faults.DropAnswer(), times=1)

    with pytest.raises(urllib3.exceptions.ProtocolError):
        urllib3.request("PATCH", proxy.url + UPLOAD, body=BLOB, retries=False, timeout=5)

    assert origin.uploads == [BLOB]
    assert proxy.requests[0].status is None
