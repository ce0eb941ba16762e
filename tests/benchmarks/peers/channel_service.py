"""vm_runner whose one machine is the guest agent as a process, connected without a relay.

`python -m tests.benchmarks.peers.channel_service HOME`: serves `HOME/vm.sock`, says so by a line,
and ends with its standard input.
"""

import asyncio
import sys
from pathlib import Path

from services.vm_runner.adapters.socket_channel import adopt_socket
from services.vm_runner.channel.byte_channel import ByteChannel
from services.vm_runner.machines import Machine, MachineSpec
from tests.fakes.hypervisor import FakeHypervisor, FakeMachine
from tests.support.vm_service import vm_service, vm_world

_LOG_BYTES = 64 << 20


class _DirectMachine(FakeMachine):
    """An agent whose socket is the host's: what is measured has no relay in it."""

    async def connect(self) -> ByteChannel:
        return await adopt_socket(self._agent_side.dup())

    async def _from_agent(self) -> None:
        await asyncio.to_thread(self._process.wait)
        await self._end()


class _DirectHypervisor(FakeHypervisor):
    async def start(self, spec: MachineSpec) -> Machine:
        machine = _DirectMachine(self.host, spec.run_id)
        self.host.machines[spec.run_id] = machine
        return machine


async def _serve(home: Path) -> None:
    async with vm_world(home) as world:
        world.hypervisor = _DirectHypervisor(world.host)
        world.log_bytes = _LOG_BYTES
        async with vm_service(world):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
