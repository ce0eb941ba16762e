import json

import pytest
from lns.registry.v1 import registry_service_pb2
from lns.vm.v1 import vm_service_pb2

from services.chassis.channel import open_channel, service_config
from services.chassis.settings import PeerSettings
from services.core.errors import SettingsInvalid
from tests.support.echo import DESCRIPTOR, FULL_NAME


def test_only_methods_whose_proto_permits_it_are_tried_again() -> None:
    config = json.loads(service_config((DESCRIPTOR,)))

    (rule,) = config["methodConfig"]
    assert rule["name"] == [{"service": FULL_NAME, "method": "Echo"}]
    assert rule["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert rule["retryPolicy"]["maxAttempts"] == 4


def test_the_policy_is_computed_for_every_file_given() -> None:
    config = json.loads(
        service_config((registry_service_pb2.DESCRIPTOR, vm_service_pb2.DESCRIPTOR))
    )

    names = {f"{name['service']}/{name['method']}" for name in config["methodConfig"][0]["name"]}
    assert "lns.registry.v1.RegistryService/GetManifest" in names
    assert "lns.vm.v1.VmService/GetRun" in names
    assert "lns.vm.v1.VmService/Attach" not in names


def test_without_files_nothing_is_tried_again() -> None:
    assert "methodConfig" not in json.loads(service_config(()))


async def test_a_peer_needs_an_address() -> None:
    with pytest.raises(SettingsInvalid):
        async with open_channel(PeerSettings()):
            pass
