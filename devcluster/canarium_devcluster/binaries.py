"""Builds the cluster's binaries from Go modules, in groups that are cached separately.

A group's key covers what decides its content: the module's pins, our own sources that it links,
the Go version and the flags. Everything else (the checkout's place, times) is kept out, so that a
fresh clone on the same machine finds what an earlier one built. Interrupted builds resume: Go
keeps each compiled package, and a finished group is not built again.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from canarium_devcluster import cache, go_modules, layout, processes
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.progress import Progress, Step

KUBERNETES_VERSION = "1.37.2"

_VERSION_PACKAGE = "k8s.io/component-base/version"
NOTHING_INSIDE: Mapping[str, go_modules.Module] = MappingProxyType({})
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
# Without a version in the binary `kubectl version` fails and clients refuse to talk to it.
_KUBERNETES_LDFLAGS = " ".join(
    [
        "-s -w",
        f"-X {_VERSION_PACKAGE}.gitVersion=v{KUBERNETES_VERSION}",
        f"-X {_VERSION_PACKAGE}.gitMajor={_MAJOR}",
        f"-X {_VERSION_PACKAGE}.gitMinor={_MINOR}",
        f"-X {_VERSION_PACKAGE}.gitTreeState=clean",
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Binaries that are built by one command."""

    name: str
    title: str
    packages: tuple[str, ...]
    sources: tuple[str, ...] = ()  # below devcluster/, beside go.mod and go.sum
    tags: str = ""
    ldflags: str = "-s -w"
    cgo: bool = False

    @property
    def binaries(self) -> tuple[str, ...]:
        """Names of the files that come out."""
        return tuple(p.rpartition("/")[2] for p in self.packages)

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of ``go build``; the same for everybody, so that Go's own cache is shared."""
        flags = ("-trimpath", "-buildvcs=false", "-ldflags", self.ldflags)
        return (*flags, "-tags", self.tags) if self.tags else flags

    @property
    def kind(self) -> str:
        """The cache's name for it."""
        return f"bin-{self.name}"


GROUPS = (
    Group(
        name="kubernetes",
        title=f"Kubernetes {KUBERNETES_VERSION} and etcd in one binary",
        packages=("./cmd/devcluster",),
        sources=("cmd/devcluster", "internal"),
        ldflags=_KUBERNETES_LDFLAGS,
    ),
    Group(
        name="containerd",
        title="containerd",
        packages=(
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ),
        tags="no_btrfs no_zfs no_devmapper no_aufs",
    ),
    Group(
        name="runc",
        title="runc",
        packages=("github.com/opencontainers/runc",),
        tags="seccomp",  # without it no pod with the RuntimeDefault profile starts
        cgo=True,  # libseccomp, and the C code that enters namespaces
    ),
    Group(
        name="cni",
        title="network plugins",
        packages=(
            "github.com/containernetworking/plugins/plugins/main/bridge",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
        ),
    ),
    Group(name="pause", title="pause", packages=("./cmd/pause",), sources=("cmd/pause",)),
    Group(name="coredns", title="CoreDNS", packages=("./cmd/coredns",), sources=("cmd/coredns",)),
    Group(
        name="metrics-server",
        title="metrics-server",
        packages=("./cmd/metrics-server",),
        sources=("cmd/metrics-server",),
    ),
    Group(
        name="prometheus",
        title="Prometheus",
        packages=("github.com/prometheus/prometheus/cmd/prometheus",),
        # Only one of its many ways to discover targets; two others need modules that cannot
        # always be had.
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
)

NODE_GROUPS = ("kubernetes", "containerd", "runc", "cni")


def group(name: str) -> Group:
    """The group of that name."""
    return next(g for g in GROUPS if g.name == name)


class Builder:
    """Finds groups in the cache and builds what is missing."""

    def __init__(self, where: layout.Layout, store: cache.Cache, progress: Progress) -> None:
        self._layout = where
        self._cache = store
        self._progress = progress
        self._go_version: str | None = None

    def missing(self) -> list[Group]:
        """Groups that must be built."""
        return [g for g in GROUPS if self._cache.get(g.kind, self._key(g)) is None]

    def ensure(self, wanted: Group) -> Path:
        """The folder with the group's binaries, built if need be."""
        return self._cache.get_or_make(
            wanted.kind, self._key(wanted), lambda target: self._build(wanted, target)
        )

    def ensure_named(self, name: str) -> Path:
        """The same by the group's name."""
        return self.ensure(group(name))

    def ensure_all(self) -> dict[str, Path]:
        """All groups, by name."""
        return {g.name: self.ensure(g) for g in GROUPS}

    def _key(self, wanted: Group) -> str:
        source = self._layout.source
        roots = [source / "go.mod", source / "go.sum", *(source / s for s in wanted.sources)]
        files = cache.tree_parts(roots, source, ignore=("_test.go",))
        return cache.key_of([self._version(), *wanted.flags, str(wanted.cgo), *files])

    def _version(self) -> str:
        if self._go_version is None:
            found = processes.answer(["go", "env", "GOVERSION"], timeout_seconds=30)
            if not found:
                raise DevclusterError(
                    "`go` does not answer", "install Go, see go.mod for the version"
                )
            self._go_version = found.strip()
        return self._go_version

    def has_module(self, kind: str, module: go_modules.Module) -> bool:
        """Whether ``ensure_module`` would find it."""
        return self._cache.get(kind, self._module_key(module)) is not None

    def ensure_module(
        self,
        kind: str,
        module: go_modules.Module,
        *,
        package: str,
        title: str,
        inside: Mapping[str, go_modules.Module] = NOTHING_INSIDE,
    ) -> Path:
        """The folder with a program of another module, built with that module's own pins.

        ``inside`` is for a module whose go.mod replaces others by folders of its own repository, which no
        module's archive has: folder to the module that belongs there.
        """
        wanted = Group(name=kind.removeprefix("bin-"), title=title, packages=(package,))

        def fill(target: Path) -> None:
            with go_modules.assembled(module, inside) as folder:
                self._build(wanted, target, folder, module.environment)

        return self._cache.get_or_make(kind, self._module_key(module), fill)

    def _module_key(self, module: go_modules.Module) -> str:
        go = module.go or self._version()
        return cache.key_of([go, module.path, module.version, module.sum])

    def _build(
        self,
        wanted: Group,
        target: Path,
        source: Path | None = None,
        environment: Mapping[str, str] = go_modules.OUR_GO,
    ) -> None:
        title = f"Building {wanted.title}"
        folder = source or self._layout.source
        with self._progress.step(title, remember=wanted.kind) as step:
            processes.run_logged(
                # -v names each package when it is compiled: that is the progress to show.
                ["nice", "go", "build", "-v", *wanted.flags, "-o", f"{target}/", *wanted.packages],
                self._layout.build_logs / f"{wanted.kind}.log",
                what=title,
                cwd=folder,
                env={
                    "CGO_ENABLED": "1" if wanted.cgo else "0",
                    **environment,
                    "PWD": os.fspath(folder),
                },
                on_line=_PackageCounter(step),
                remedy="run the command again to resume",
            )


class _PackageCounter:
    """Turns the output of ``go build -v`` into a step's detail."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._compiled = 0
        self._fetched = 0

    def __call__(self, line: str) -> None:
        if line.startswith("go: downloading"):
            self._fetched += 1
        elif not line.startswith("go: "):
            self._compiled += 1
        self._step.detail = f"{self._fetched} modules fetched, {self._compiled} packages compiled"
