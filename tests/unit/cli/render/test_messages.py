from google.protobuf.timestamp_pb2 import Timestamp
from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.vm.v1 import run_pb2

from cli.render.messages import to_document


def test_integers_are_numbers_at_any_depth() -> None:
    image = materializer_pb.Image(metadata_bytes=1 << 40)
    image.layers.add(objects_bytes=5)

    document = to_document(image)

    assert document["metadata_bytes"] == 1 << 40
    assert document["layers"][0]["objects_bytes"] == 5


def test_texts_and_times_stay_what_they_are() -> None:
    volume = run_pb2.Volume(
        name="12", limit_bytes=3, create_time=Timestamp(seconds=60), labels={"limit_bytes": "7"}
    )

    document = to_document(volume)

    assert (document["name"], document["limit_bytes"]) == ("12", 3)
    assert document["create_time"] == "1970-01-01T00:01:00Z"
    assert document["labels"] == {"limit_bytes": "7"}
