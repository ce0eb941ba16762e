"""The composition root of vm_runner."""

import contextlib
import os
import platform
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from lns.egress.v1 import credential_service_pb2 as credentials_pb
from lns.egress.v1 import credential_service_pb2_grpc as credentials_rpc
from lns.egress.v1 import egress_service_pb2 as egress_pb
from lns.egress.v1 import egress_service_pb2_grpc as egress_rpc
from lns.materializer.v1 import materializer_service_pb2 as images_pb
from lns.materializer.v1 import materializer_service_pb2_grpc as images_rpc
from lns.vm.v1 import vm_service_pb2 as pb
from lns.vm.v1 import vm_service_pb2_grpc as rpc

from services.chassis.blocking import Blocking
from services.chassis.channel import open_channel
from services.chassis.guest_kernels import FOREIGN
from services.chassis.keyrings import open_keyring
from services.chassis.locks import owner_lock
from services.chassis.reserve import Reserve
from services.chassis.server import Service
from services.chassis.settings import content_target
from services.core.errors import HostUnready
from services.vm_runner.adapters.answer_files import AnswerFile
from services.vm_runner.adapters.boot_files.cache import GuestFileCache, default_agent
from services.vm_runner.adapters.confinement.cgroups import Cgroups, find_place
from services.vm_runner.adapters.confinement.confinement import Confinement, default_launcher
from services.vm_runner.adapters.confinement.host_support import HostSupport
from services.vm_runner.adapters.credentials.commands import ShellCommands
from services.vm_runner.adapters.credentials.credential_file import CredentialFile
from services.vm_runner.adapters.credentials.integration_file import IntegrationFile
from services.vm_runner.adapters.credentials.oauth_issuer import OAuthIssuer
from services.vm_runner.adapters.disk_images import Ext4Images, find_mkfs
from services.vm_runner.adapters.egress.authorities import RunAuthorities
from services.vm_runner.adapters.egress.boundary_files import BoundaryFiles
from services.vm_runner.adapters.egress.host_network import HostNetwork
from services.vm_runner.adapters.egress.worker_processes import WorkerProcesses
from services.vm_runner.adapters.file_servers import FileServers
from services.vm_runner.adapters.log_files import LogFiles
from services.vm_runner.adapters.materializer_client import MaterializerImages
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice, Emulated
from services.vm_runner.adapters.qemu.board import BOARDS, Accelerator
from services.vm_runner.adapters.qemu.every_architecture import EveryArchitecture
from services.vm_runner.adapters.qemu.hypervisor import QemuHypervisor
from services.vm_runner.adapters.run_files import RunFiles
from services.vm_runner.adapters.tcp_listeners import TcpListeners
from services.vm_runner.adapters.volume_files import VolumeFiles
from services.vm_runner.architectures import Architecture
from services.vm_runner.boundary.approvals import Approvals
from services.vm_runner.boundary.boundary import BoundaryOutside
from services.vm_runner.boundary.run_credentials import CredentialSource
from services.vm_runner.credential_servicer import CredentialServicer
from services.vm_runner.credentials.authorizations import Authorizations
from services.vm_runner.credentials.integrations import Integrations
from services.vm_runner.credentials.vault import Vault
from services.vm_runner.egress_servicer import EgressServicer
from services.vm_runner.host import AcceleratorReport, ConfinementReport, Host
from services.vm_runner.life.boot_queue import BootQueue
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.metrics import runs_counted
from services.vm_runner.records.answered import AnsweredRequests
from services.vm_runner.runner import Runner
from services.vm_runner.servicer import VmServicer
from services.vm_runner.settings import CredentialStore, VmProcess, VmSettings
from services.vm_runner.snapshot_stores import opened_snapshots
from services.vm_runner.snapshots.traffic import Traffic
from services.vm_runner.storage.binds import Binds
from services.vm_runner.storage.volumes import Volumes
from services.vm_runner.vmm_options import ConfinementMode

_THREADS = 16
_RESOLVER_THREADS = 32
_AUDIT_FILES = 4


@contextlib.asynccontextmanager
async def open_services(settings: VmProcess) -> AsyncIterator[Sequence[Service]]:
    """Opens the runner of a process of its own; see `open_vm_runner`."""
    async with open_vm_runner(settings.home, settings.vm_runner) as services:
        yield services


@contextlib.asynccontextmanager
async def open_vm_runner(home: Path, own: VmSettings) -> AsyncIterator[Sequence[Service]]:
    """Yields the services of the runs below `home`, recovered, and owned until the block ends.

    Raises:
        InUse: another process owns the runs.
        HostUnready: this machine's architecture is not supported.
    """
    async with contextlib.AsyncExitStack() as stack:
        (home / "runs").mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(owner_lock(home / "runs" / ".lock", what=f"the runs below {home}"))
        blocking = stack.enter_context(Blocking(_THREADS, name="vm_runner"))
        channel = await stack.enter_async_context(
            open_channel(
                own.materializer, images_pb.DESCRIPTOR, default_target=content_target(home)
            )
        )
        choice = _accelerator_choice(home, own)
        cgroups = _cgroups(own)
        confinement = _confinement(own, cgroups)
        hypervisor = _hypervisors(home, own, choice, confinement, blocking)
        disks = Ext4Images()
        kept = await _reserve(home, blocking)
        answered, volumes = _kept(home, own, blocking, kept, disks)
        limits = own.limits()
        images = MaterializerImages(images_rpc.MaterializerServiceStub(channel), root=home)
        traffic = Traffic()
        starts, saved = await stack.enter_async_context(
            opened_snapshots(home, own, hypervisor, disks, images, traffic, blocking)
        )
        issuer = OAuthIssuer(blocking)
        credentials = _credentials(own, blocking, issuer)
        surroundings = Surroundings(
            plain_registries=own.plain_registries,
            hypervisor=hypervisor,
            images=images,
            store=RunFiles(home / "runs", blocking=blocking, kept=kept),
            logs=_logs(home, own, blocking),
            disks=disks,
            listeners=TcpListeners(),
            volumes=volumes,
            binds=_binds(home, own, cgroups),
            limits=limits,
            boots=BootQueue(limits.boots_at_once, traffic),
            starts=starts,
            saved=saved,
            boundary=_boundary(stack, own, cgroups, blocking, credentials),
            answered=answered,
        )
        runner = Runner(surroundings)
        stack.push_async_callback(runner.close)
        await runner.recover()
        stack.enter_context(runs_counted(runner.register.runs))
        host = _host(hypervisor, choice, confinement, home, surroundings)
        servicer = VmServicer(runner, volumes, host, starts)
        yield [
            *_services(runner, servicer, surroundings),
            _credential_service(credentials, Authorizations(issuer, credentials.vault)),
        ]


def _logs(home: Path, own: VmSettings, blocking: Blocking) -> LogFiles:
    return LogFiles(
        home / "runs",
        blocking=blocking,
        default_limit=own.log,
        stall_seconds=own.stall_time,
    )


async def _reserve(home: Path, blocking: Blocking) -> Reserve:
    """Returns the room that is kept for records; a disk that is full already has none."""
    kept = Reserve(home / "runs" / ".reserve")
    await blocking.run(kept.fill)
    return kept


def _kept(
    home: Path, own: VmSettings, blocking: Blocking, kept: Reserve, disks: Ext4Images
) -> tuple[AnsweredRequests, Volumes]:
    answers = AnswerFile(home / "runs" / "answered.json", blocking=blocking, kept=kept)
    answered = AnsweredRequests(answers)
    store = VolumeFiles(home / "volumes", blocking=blocking, kept=kept)
    return answered, Volumes(store, disks, default_bytes=own.disk, answered=answered)


def _hypervisors(
    home: Path,
    own: VmSettings,
    choice: AcceleratorChoice,
    confinement: Confinement,
    blocking: Blocking,
) -> EveryArchitecture:
    """Returns the node's hypervisors; what settings name is for guests of its own architecture."""

    def of(architecture: Architecture, *, is_own: bool) -> QemuHypervisor:
        agent = default_agent(Path(__file__).parent, architecture)
        files = GuestFileCache(
            directory=home / "guest",
            architecture=architecture,
            kernels=own.kernels if is_own else own.kernels / FOREIGN,
            kernel=own.kernel if is_own else None,
            agent=(own.agent if is_own else None) or agent,
            blocking=blocking,
        )
        return QemuHypervisor(
            binary=(own.qemu if is_own else "") or BOARDS[architecture].program,
            files=files,
            choice=choice if is_own else Emulated(),
            confinement=confinement,
            architecture=architecture,
        )

    machine = platform.machine()
    architecture = Architecture.of_machine(machine)
    if architecture is None:
        raise HostUnready(f"microVMs are not supported on {machine} hosts")
    foreign = {one: of(one, is_own=False) for one in architecture.others}
    return EveryArchitecture(of(architecture, is_own=True), foreign)


def _accelerator_choice(home: Path, own: VmSettings) -> AcceleratorChoice:
    return AcceleratorChoice(
        mode=own.accelerator, directory=home / "guest", probe_seconds=own.probe_time
    )


def _cgroups(own: VmSettings) -> Cgroups:
    cgroups = Cgroups(find_place(own.cgroup, is_root=os.geteuid() == 0))
    cgroups.sweep()
    return cgroups


def _confinement(own: VmSettings, cgroups: Cgroups) -> Confinement:
    is_root = os.geteuid() == 0
    launcher = own.launcher or default_launcher(Path(__file__).parent)
    return Confinement(
        launcher=launcher,
        support=HostSupport(
            launcher=launcher,
            mode=own.confinement,
            users=own.vmm_users() if is_root else None,
        ),
        cgroups=cgroups,
    )


def _binds(home: Path, own: VmSettings, cgroups: Cgroups) -> Binds:
    required = own.confinement is ConfinementMode.REQUIRED
    servers = FileServers(home, cgroups=cgroups, view_required=required)
    return Binds(servers, default_rate=own.disk_rate)


def _boundary(
    stack: contextlib.AsyncExitStack,
    own: VmSettings,
    cgroups: Cgroups,
    blocking: Blocking,
    credentials: CredentialSource,
) -> BoundaryOutside:
    resolving = stack.enter_context(Blocking(_RESOLVER_THREADS, name="egress names"))
    return BoundaryOutside(
        workers=WorkerProcesses(
            cgroups=cgroups,
            users=own.worker_users(),
            view_required=own.confinement is ConfinementMode.REQUIRED,
        ),
        network=HostNetwork(blocking=resolving, names=own.fixed_names()),
        files=BoundaryFiles(blocking=blocking, audit_bytes=own.audit // _AUDIT_FILES),
        authorities=RunAuthorities(blocking=blocking),
        approvals=Approvals(),
        credentials=credentials,
        settings=own.boundary(),
    )


def _credentials(own: VmSettings, blocking: Blocking, issuer: OAuthIssuer) -> CredentialSource:
    records = CredentialFile(
        own.credentials,
        blocking=blocking,
        keyring=lambda: open_keyring("lns-credentials"),
        prefer_keyring=own.credential_store is CredentialStore.KEYRING,
    )
    return CredentialSource(
        integrations=Integrations(IntegrationFile(own.integrations, blocking=blocking)),
        vault=Vault(records, ShellCommands(), issuer),
    )


def _credential_service(credentials: CredentialSource, authorizations: Authorizations) -> Service:
    servicer = CredentialServicer(credentials.vault, credentials.integrations, authorizations)
    return Service(
        add_to_server=credentials_rpc.add_CredentialServiceServicer_to_server,
        servicer=servicer,
        full_name=credentials_pb.DESCRIPTOR.services_by_name["CredentialService"].full_name,
    )


def _services(
    runner: Runner, servicer: VmServicer, surroundings: Surroundings
) -> Sequence[Service]:
    return [
        Service(
            add_to_server=rpc.add_VmServiceServicer_to_server,
            servicer=servicer,
            full_name=pb.DESCRIPTOR.services_by_name["VmService"].full_name,
        ),
        Service(
            add_to_server=egress_rpc.add_EgressServiceServicer_to_server,
            servicer=EgressServicer(runner, surroundings.boundary.approvals),
            full_name=egress_pb.DESCRIPTOR.services_by_name["EgressService"].full_name,
        ),
    ]


def _host(
    hypervisors: EveryArchitecture,
    choice: AcceleratorChoice,
    confinement: Confinement,
    home: Path,
    surroundings: Surroundings,
) -> Host:
    own = hypervisors.own

    async def formatter() -> str:
        return find_mkfs()

    async def accelerator(again: bool) -> AcceleratorReport:
        found = await choice.find(own.start_with, again=again)
        return AcceleratorReport(
            accelerator=found.accelerator.value,
            is_hardware=found.accelerator is Accelerator.KVM,
            detail=found.detail,
            remedy=found.remedy,
        )

    async def confined() -> ConfinementReport:
        return await confinement.report(own.find_program())

    async def snapshots() -> str:
        return f"{await surroundings.starts.describe()}; {surroundings.saved.describe()}"

    return Host(
        needs={**own.needs(), "mkfs.ext4": formatter},
        accelerator=accelerator,
        confinement=confined,
        snapshots=snapshots,
        home=home,
        foreign={
            architecture: {**one.needs(), "mkfs.ext4": formatter}
            for architecture, one in hypervisors.foreign.items()
        },
        platform=str(surroundings.platform),
    )
