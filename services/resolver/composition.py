"""Composes one run plan from what was fetched: precedence, merging, origins. No I/O.

Precedence, strongest first: flag, bundle and agent (for sizes: sandbox), image configuration,
default of `lns config`, built-in.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from services.core.artifacts.specs import AgentSpec
from services.core.errors import LnsError
from services.core.run_plan import (
    CredentialNeed,
    Healthcheck,
    OriginKind,
    PinnedImage,
    PortMapping,
    RunPlan,
    VolumeMount,
)
from services.core.signals import parse_signal, signal_name
from services.resolver.flags import guest_path, mount_path, parse_port_flag, parse_volume_flag
from services.resolver.image_config import MAX_TEXT
from services.resolver.ingredients import Ingredients
from services.resolver.mounts import check_volumes
from services.resolver.origins import Offer, Origins
from services.resolver.problems import Problems, ProblemType
from services.resolver.sizes import choose_resources

BUILT_IN_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""`PATH` where neither image nor agent nor flag sets one, as container engines have it."""

_RUN_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)

T = TypeVar("T")


def compose(ingredients: Ingredients, problems: Problems) -> RunPlan | None:
    """Returns the plan; None where a problem was noted that leaves none."""
    return _Composer(ingredients, problems).plan()


class _Composer:
    def __init__(self, ingredients: Ingredients, problems: Problems) -> None:
        self._of = ingredients
        self._problems = problems
        self._origins = Origins()
        self._origins.extend(ingredients.origins)
        self._warnings = list(ingredients.warnings)
        agent = ingredients.agent
        self._agent = AgentSpec.of(agent.artifact.spec) if agent is not None else None
        self._agent_detail = agent.fetched.pinned if agent is not None else ""
        image = ingredients.image
        self._config = image.config if image is not None else None
        self._image_detail = image.fetched.pinned if image is not None else ""

    def plan(self) -> RunPlan | None:
        """Composes; every part is looked at even where another one has a problem."""
        argv = self._argv()
        volumes = self._volumes()
        check_volumes(volumes, self._of.mounts, self._problems)
        resources = choose_resources(self._of, self._origins, self._problems)
        credentials = self._credentials()
        name, user, workdir, ports = self._name(), self._user(), self._workdir(), self._ports()
        env, labels = self._env(), self._labels()
        stop_signal, image_volumes = self._stop_signal(), self._image_volumes(volumes)
        healthcheck, exposed_ports = self._image_values()
        for planned in self._of.mounts:
            self._origins.note(f"mounts[{planned.mount.path}]", planned.kind, planned.detail)
        if argv is None or resources is None:
            return None
        return RunPlan(
            name=name,
            source=self._of.source,
            image=self._image(),
            argv=argv,
            env=env,
            user=user,
            workdir=workdir,
            resources=resources,
            ports=ports,
            volumes=volumes,
            mounts=tuple(planned.mount for planned in self._of.mounts),
            policy=self._of.policy,
            integrations=self._of.integrations,
            credentials=credentials,
            warnings=tuple(dict.fromkeys(self._warnings)),
            labels=labels,
            group=self._of.group,
            member=self._of.name if self._of.group else "",
            closure=self._of.closure,
            has_workflow=self._of.has_workflow,
            stop_signal=stop_signal,
            image_volumes=image_volumes,
            healthcheck=healthcheck,
            exposed_ports=exposed_ports,
            origins=self._origins.sorted(),
        )

    def _image(self) -> PinnedImage | None:
        image = self._of.image
        if image is None:
            return None
        agent, sandbox = self._of.agent, self._of.sandbox
        if agent is None:
            self._origins.note("image", OriginKind.FLAG, "REF")
        elif self._agent is not None and self._agent.image is not None:
            self._origins.note("image", OriginKind.AGENT, self._agent_detail)
        elif sandbox is not None:
            self._origins.note("image", OriginKind.SANDBOX, sandbox.fetched.pinned)
        return PinnedImage(
            reference=image.fetched.pinned,
            manifest=image.fetched.manifest.descriptor,
            platform=image.config.platform,
            requested=image.requested,
        )

    def _argv(self) -> tuple[str, ...] | None:
        """Chooses what is run, as `docker run` does.

        The image's entry point stays when its command is replaced, unless an agent's command or
        `--entrypoint` has taken the place of both.
        """
        overrides, config = self._of.overrides, self._config
        agent_argv = self._agent.argv if self._agent is not None else None
        entrypoint = config.entrypoint if config is not None else ()
        command = config.command if config is not None else ()
        given = overrides.argv or None
        if overrides.entrypoint:
            detail = "--entrypoint"
            offers = [
                Offer(value=(overrides.entrypoint, *overrides.argv), kind=_FLAG, detail=detail)
            ]
        elif given is not None and agent_argv is None:
            offers = [Offer(value=(*entrypoint, *given), kind=_FLAG, detail="command line")]
        else:
            offers = [
                Offer(value=given, kind=_FLAG, detail="command line"),
                Offer(value=agent_argv, kind=OriginKind.AGENT, detail=self._agent_detail),
                Offer(
                    value=(*entrypoint, *command) or None,
                    kind=OriginKind.IMAGE,
                    detail=self._image_detail,
                ),
            ]
        chosen = self._origins.choose("argv", *offers)
        if chosen is None or not chosen.value or not chosen.value[0]:
            if not self._of.is_image_missing:
                self._problems.add(
                    self._of.label, "names no command; give one after --", ProblemType.NO_COMMAND
                )
            return None
        for argument in chosen.value:
            self._check_text("command", argument)
        return chosen.value

    def _env(self) -> tuple[tuple[str, str], ...]:
        merged: dict[str, str] = {}
        sources = (
            ({"PATH": BUILT_IN_PATH}, OriginKind.BUILT_IN, ""),
            (self._config.env if self._config else {}, OriginKind.IMAGE, self._image_detail),
            (self._agent.env if self._agent else {}, OriginKind.AGENT, self._agent_detail),
            (dict(self._of.overrides.env), _FLAG, "-e"),
        )
        for values, kind, detail in sources:
            for name, value in values.items():
                merged[name] = value
                self._origins.note(f"env.{name}", kind, detail)
        for name, value in self._of.overrides.env:
            if not name or "=" in name:
                self._flag_problem("-e", f"{name[:200]!r} is no name of a variable")
            self._check_text("-e", f"{name}={value}")
        return tuple(sorted(merged.items()))

    def _credentials(self) -> tuple[CredentialNeed, ...]:
        kept = []
        given = {name for name, _ in self._of.overrides.env}
        for need in self._agent.credentials if self._agent is not None else ():
            if need.env in given:
                self._warnings.append(
                    f"{need.env} is set with -e: the workload gets that value itself"
                    f" instead of a placeholder for {need.name}"
                )
                continue
            kept.append(need)
            self._origins.note(f"credentials[{need.name}]", OriginKind.AGENT, self._agent_detail)
            if need.name not in self._of.overrides.usable_credentials:
                self._warnings.append(
                    f"agent credentials not set up: {need.name} — the sandbox will ask at first"
                    f" use, or run lns connect {need.name}"
                )
        return tuple(kept)

    def _name(self) -> str:
        given = self._of.overrides.name
        if given is None:
            kind = OriginKind.AGENT if self._of.agent is not None else OriginKind.IMAGE
            built_in = self._of.image is None and self._of.agent is None
            self._origins.note("name", OriginKind.BUILT_IN if built_in else kind)
            return self._of.name
        if not _RUN_NAME.fullmatch(given):
            self._flag_problem("--name", f"{given[:200]!r} is no name: use letters, digits, _ . -")
        self._origins.note("name", _FLAG, "--name")
        return f"{given}-{self._of.name}" if self._of.group else given

    def _user(self) -> str:
        config = self._config
        chosen = self._origins.choose(
            "user",
            Offer(value=self._of.overrides.user, kind=_FLAG, detail="-u"),
            self._from_agent(self._agent.user if self._agent else None),
            self._from_image((config.user or None) if config else None),
            Offer(value="", kind=OriginKind.BUILT_IN),
        )
        user = chosen.value if chosen is not None and chosen.value is not None else ""
        if chosen is not None and chosen.kind is _FLAG and (user.count(":") > 1 or user[:1] == ":"):
            self._flag_problem("-u", f"{user[:200]!r} is not user[:group]")
        self._check_text("-u", user)
        return user

    def _workdir(self) -> str:
        config = self._config
        chosen = self._origins.choose(
            "workdir",
            Offer(value=self._of.overrides.workdir, kind=_FLAG, detail="-w"),
            self._from_agent(self._agent.workdir if self._agent else None),
            self._from_image((config.workdir or None) if config else None),
            Offer(value="/", kind=OriginKind.BUILT_IN),
        )
        workdir = (chosen.value if chosen is not None else None) or "/"
        if workdir == "/":
            return workdir
        subject = "-w" if chosen is not None and chosen.kind is _FLAG else self._of.label
        parsed = self._try(subject, lambda: guest_path(workdir, what="working directory"))
        return parsed or "/"

    def _ports(self) -> tuple[PortMapping, ...]:
        flags = self._of.overrides.ports
        if flags:
            self._origins.note("ports", _FLAG, "-p")
            ports = tuple(self._parse_each("-p", flags, parse_port_flag))
            self._check_ports(ports)
            return ports
        ports = self._agent.ports if self._agent is not None else ()
        if ports:
            self._origins.note("ports", OriginKind.AGENT, self._agent_detail)
        return ports

    def _check_ports(self, ports: Iterable[PortMapping]) -> None:
        seen: set[tuple[str, int]] = set()
        for port in ports:
            place = (port.host_ip, port.host_port)
            if port.host_port and place in seen:
                description = f"port {port.host_port} of {port.host_ip} is published twice"
                self._problems.add("-p", description, ProblemType.PORT_CONFLICT)
            seen.add(place)

    def _volumes(self) -> tuple[VolumeMount, ...]:
        flags = self._of.overrides.volumes
        if flags:
            self._origins.note("volumes", _FLAG, "-v")
            return tuple(self._parse_each("-v", flags, parse_volume_flag))
        volumes = self._agent.volumes if self._agent is not None else ()
        if volumes:
            self._origins.note("volumes", OriginKind.AGENT, self._agent_detail)
        return tuple(self._placed(volume) for volume in volumes)

    def _placed(self, volume: VolumeMount) -> VolumeMount:
        what = f"target of volume {volume.source}:"
        target = self._try(self._of.label, lambda: mount_path(volume.target, what=what))
        return replace(volume, target=target or volume.target)

    def _labels(self) -> dict[str, str]:
        labels: dict[str, str] = {}
        agent = self._of.agent
        for name, value in self._config.labels.items() if self._config is not None else ():
            labels[name] = value
            self._origins.note(f"labels.{name}", OriginKind.IMAGE, self._image_detail)
        for name, value in agent.artifact.labels.items() if agent is not None else ():
            labels[name] = value
            self._origins.note(f"labels.{name}", OriginKind.AGENT, self._agent_detail)
        for name, value in self._of.overrides.labels.items():
            labels[name] = value
            self._origins.note(f"labels.{name}", _FLAG, "--label")
        return dict(sorted(labels.items()))

    def _stop_signal(self) -> str:
        given = self._config.stop_signal if self._config is not None else ""
        if not given:
            return ""
        number = parse_signal(given)
        if number is None:
            self._warnings.append(
                f"the image's StopSignal {given[:40]!r} is not a signal: TERM is used"
            )
            return ""
        self._origins.note("stop_signal", OriginKind.IMAGE, self._image_detail)
        return signal_name(number)

    def _image_volumes(self, volumes: tuple[VolumeMount, ...]) -> tuple[str, ...]:
        """Returns the image's own volumes, without those on which something is mounted."""
        taken = {volume.target for volume in volumes}
        taken.update(planned.mount.path for planned in self._of.mounts)
        kept = []
        for path in self._config.volumes if self._config is not None else ():
            place = self._try(self._of.label, partial(guest_path, path, what="volume of the image"))
            if place is not None and place != "/" and place not in taken:
                kept.append(place)
        if kept:
            self._origins.note("image_volumes", OriginKind.IMAGE, self._image_detail)
        return tuple(sorted(set(kept)))

    def _image_values(self) -> tuple[Healthcheck | None, tuple[str, ...]]:
        """Returns health check and exposed ports, which only the image says."""
        if self._config is None:
            return None, ()
        self._warnings.extend(self._config.ignored)
        if self._config.healthcheck is not None:
            self._origins.note("healthcheck", OriginKind.IMAGE, self._image_detail)
        if self._config.exposed_ports:
            self._origins.note("exposed_ports", OriginKind.IMAGE, self._image_detail)
        return self._config.healthcheck, self._config.exposed_ports

    def _from_agent(self, value: str | None) -> Offer[str]:
        return Offer(value=value, kind=OriginKind.AGENT, detail=self._agent_detail)

    def _from_image(self, value: str | None) -> Offer[str]:
        return Offer(value=value, kind=OriginKind.IMAGE, detail=self._image_detail)

    def _parse_each(
        self, flag: str, texts: Iterable[str], parse: Callable[[str], T]
    ) -> Iterator[T]:
        for text in texts:
            try:
                yield parse(text)
            except LnsError as error:
                self._flag_problem(f"{flag} {text[:200]}", error.message)

    def _try(self, subject: str, parse: Callable[[], T]) -> T | None:
        try:
            return parse()
        except LnsError as error:
            self._problems.add(subject, error.message, ProblemType.FLAG_INVALID)
            return None

    def _check_text(self, subject: str, text: str) -> None:
        if "\0" in text:
            self._flag_problem(subject, "holds a NUL character")
        elif len(text.encode()) > MAX_TEXT:
            self._flag_problem(subject, f"is longer than {MAX_TEXT} bytes")

    def _flag_problem(self, subject: str, description: str) -> None:
        self._problems.add(subject, description, ProblemType.FLAG_INVALID)


_FLAG: Final = OriginKind.FLAG
