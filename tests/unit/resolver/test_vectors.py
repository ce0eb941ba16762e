"""Plans as JSON are bytes that must not drift: others read them."""

import pytest
from google.protobuf import json_format
from lns.resolver.v1 import resolver_service_pb2 as pb

from services.chassis.run_plan_messages import parse_run_plan
from services.core.run_plan import PLAN_SCHEMA_VERSION
from tests.support.plan_vectors import DIRECTORY, VECTORS, to_json
from tests.support.shelf import Shelf


@pytest.mark.parametrize("name", VECTORS)
async def test_a_plan_is_the_golden_one(name: str) -> None:
    plans = await VECTORS[name](Shelf())

    assert to_json(plans) == (DIRECTORY / f"{name}.json").read_text()


@pytest.mark.parametrize("name", VECTORS)
async def test_a_golden_plan_is_read_back(name: str) -> None:
    text = (DIRECTORY / f"{name}.json").read_text()

    read = json_format.Parse(text, pb.ResolveResponse())

    plans = tuple(parse_run_plan(plan) for plan in read.plans)
    assert plans == await VECTORS[name](Shelf())
    assert {plan.schema_version for plan in plans} == {PLAN_SCHEMA_VERSION}


def test_every_vector_has_its_file() -> None:
    assert {path.stem for path in DIRECTORY.iterdir()} == set(VECTORS)
