"""What a cluster may leave on a machine, as sets of lines that can be compared.

Other clusters may run meanwhile and come and go with their pods; what is theirs is left out.
"""

import os
import re
import subprocess
from pathlib import Path


def snapshot(names: tuple[str, ...]) -> dict[str, set[str]]:
    """Everything of the machine that a cluster touches, but for clusters that are not ``names``."""
    owners = _owners()
    return {
        "processes": {pid for pid, owner in owners.items() if owner in names},
        "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
        "network namespaces": _namespaces("net", names, owners),
        "mount namespaces": _namespaces("mnt", names, owners),
        "interfaces": {i for i in os.listdir("/sys/class/net") if not _foreign(i, names)},
        "routes": {r for r in _routes() if not _foreign(r, names)},
        "firewall": _firewall(),
        "cgroups": {c for c in _cgroups() if not _foreign(c, names)},
        "folders": {str(p) for p in Path("/var/lib").iterdir()} | set(os.listdir("/run")),
        "sysctls": _sysctls(),
    }


def left_behind(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not before."""
    new = {what: after[what] - before[what] for what in before}
    return {what: lines for what, lines in new.items() if lines}


def _foreign(line: str, names: tuple[str, ...]) -> bool:
    """Whether it belongs to a cluster, and not to one of ours."""
    found = re.search(r"(?:/canarium-|\bcn-)([a-z0-9-]+)", line)
    return bool(found) and found[1] not in names


def _owners() -> dict[str, str]:
    """Pid -> the cluster that it belongs to, by its cgroup; empty for none."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            mine = re.search(r"/canarium-([a-z0-9-]+)/", path.read_text())
        except OSError:
            continue  # it ended meanwhile
        found[path.parent.name] = mine[1] if mine else ""
    return found


def _namespaces(kind: str, names: tuple[str, ...], owners: dict[str, str]) -> set[str]:
    found = set()
    for pid, owner in owners.items():
        if owner == "" or owner in names:
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:
                continue
    return found


def _routes() -> list[str]:
    return Path("/proc/net/route").read_text().splitlines()


def _cgroups() -> list[str]:
    return [str(p) for p in Path("/sys/fs/cgroup").glob("*/*") if p.is_dir()]


def _firewall() -> set[str]:
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    rules = (line.partition(" [")[0] for line in saved.splitlines())  # without the counters
    return {line for line in rules if not line.startswith("#")}


def _sysctls() -> set[str]:
    names = (
        "vm/overcommit_memory",
        "kernel/panic",
        "kernel/panic_on_oops",
        "net/ipv4/ip_forward",
        "net/netfilter/nf_conntrack_max",
    )
    paths = [Path("/proc/sys", name) for name in names]
    return {f"{p}={p.read_text().strip()}" for p in paths if p.exists()}
