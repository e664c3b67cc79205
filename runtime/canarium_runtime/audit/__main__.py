"""`canarium audit verify FILE...`: says whether an audit log is as it was written.

Exit status 0: it is; 1: it is not, and the first broken place is named; 2: it could not be read.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from canarium_runtime.audit.verify import BrokenError, Report, verify_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        key = options.key_file.read_bytes().strip() if options.key_file else b""
        report = verify_files(
            _in_order(options.files),
            key=key,
            head=options.head or "",
            after=options.after or "",
            among_logs=options.among_logs,
        )
    except BrokenError as error:
        print(f"BROKEN: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"canarium audit: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    _print(report, knows_head=bool(options.head))
    return 0


def _print(report: Report, *, knows_head: bool) -> None:
    logs = "1 log" if report.chains == 1 else f"{report.chains} logs"
    print(f"intact: {report.records} records in {report.blocks} blocks of {logs}")
    print(f"head: {report.head}")
    for notice in report.notices:
        print(f"note: {notice}")
    if report.dropped:
        print(f"note: the server itself left out {report.dropped} records, as its buffer was full")
    if not knows_head:
        print(
            "note: whether the end was cut off shows only against a head that was kept elsewhere: --head"
        )


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """Sort as the files were written: `x.000001` before `x.000002` before `x`, whatever the shell made of it."""

    def place(path: Path) -> tuple[str, float]:
        match = re.fullmatch(r"(.+)\.(\d{6,})", str(path))
        return (match[1], int(match[2])) if match else (str(path), float("inf"))

    return sorted(paths, key=place)


def _hash(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        msg = "expected 64 hex digits"
        raise argparse.ArgumentTypeError(msg)
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="canarium audit", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("verify", help="say whether an audit log is as it was written")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="all files of one log")
    check.add_argument(
        "--head",
        type=_hash,
        help="a seal that was kept elsewhere: the log must hold it",
    )
    check.add_argument("--after", type=_hash, help="seal of the files before these, kept elsewhere")
    check.add_argument("--key-file", type=Path, help="secret of the chain, where it has one")
    check.add_argument(
        "--among-logs",
        action="store_true",
        help="the files hold other lines too, and chains of several starts of servers",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
