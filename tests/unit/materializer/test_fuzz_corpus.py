"""Inputs that fuzzing found worth keeping: one for each way they end, sound or refused.

A file that makes the code fail in any other way is added to `tests/data/fuzz` with its fix.
"""

import gzip
from pathlib import Path

import pytest

from services.core.errors import LayerUnsafe
from services.materializer.composefs.dump import DumpInvalid, parse_dump
from services.materializer.composefs.image import write_image
from services.materializer.layers.limits import LayerLimits
from tests.support.erofs_reader import Reader
from tests.support.tars import ingest

CORPUS = Path(__file__).parents[2] / "data" / "fuzz"
DUMPS = sorted(path.name for path in CORPUS.glob("dumps/*.dump"))
LAYERS = sorted(path.name for path in CORPUS.glob("layers/*.tar.gz"))
assert DUMPS, "no dump was found, and a test without cases passes"
assert LAYERS, "no layer was found, and a test without cases passes"
LIMITS = LayerLimits(layer_bytes=1 << 20, file_bytes=1 << 20, list_bytes=1 << 20)


@pytest.mark.parametrize("name", DUMPS)
def test_a_dump_is_read_or_refused(name: str) -> None:
    try:
        image = write_image(parse_dump((CORPUS / "dumps" / name).read_bytes()))
    except DumpInvalid as refused:
        assert refused.message.isprintable()  # noqa: PT017 - only one of two good ends
    else:
        assert Reader(bytes(image)).root


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    data = gzip.decompress((CORPUS / "layers" / name).read_bytes())
    try:
        ingested = ingest(data, tmp_path, limits=LIMITS)
    except LayerUnsafe as refused:
        assert refused.message.isprintable()  # noqa: PT017 - only one of two good ends
    else:
        assert len(ingested.objects) == ingested.facts.object_count
