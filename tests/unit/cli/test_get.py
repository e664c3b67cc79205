"""`canarium get`: the cells of `kubectl get mdep`, in every namespace, followed, and for programs."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
import yaml
from tests.unit.cli.api_server import ApiServer, body_of, run
from tests.unit.cli.films import situation

from canarium_api.crdgen import make_crd
from canarium_cli.rendering.listing import Listing
from canarium_operator.testing.scenario import START


def other(namespace: str, name: str, **labels: str) -> dict[str, Any]:
    """A ModelDeployment that no operator has looked at."""
    meta = {"namespace": namespace, "name": name, "generation": 1, "labels": labels}
    meta["creationTimestamp"] = "2026-01-01T11:59:00Z"
    return {"kind": "ModelDeployment", "metadata": meta, "spec": {}}


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """What was printed, as cells."""
    return [re.split(r" {2,}", line.rstrip()) for line in capsys.readouterr().out.splitlines()]


def test_the_columns_are_those_of_kubectl() -> None:
    """Who knows the one can read the other; `-o wide` adds the message in both."""
    columns = make_crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    names = [column["name"].upper() for column in columns]
    assert Listing(wide=True).columns == ["NAME", *names]
    assert Listing(namespaces=True).columns == ["NAMESPACE", "NAME", *names[:-1]]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("02-serving", ["fraud", "True", "Promoted", "", "", "", "v1@26cfa01c", "Serving", "60m"]),
        (
            "04-pause",
            ["fraud", "False", "Canary", "1/3", "10", "v2@6a7e947d", "v1@26cfa01c", "AwaitingPause", "60m"],
        ),
        ("08-failed-and-serving", ["fraud", "False", "Aborted", "", "", "", "v1@26cfa01c", "AnalysisFailed", "61m"]),
    ],
)  # fmt: skip
def test_a_row_says_where_it_stands(name: str, row: list[str]) -> None:
    """In a line."""
    world = situation(name)
    assert Listing().row(body_of(world), world.now) == row


def test_a_status_of_an_earlier_spec_is_not_taken_for_ready() -> None:
    """Right after a commit the old condition is still there."""
    world = situation("02-serving")
    row = Listing().row(body_of(world, generation=7), world.now)
    assert (row[1], row[7]) == ("Unknown", "NotSeenYet")


def test_columns_of_a_list_that_is_followed_never_narrow() -> None:
    """So that lines stay below each other."""
    listing = Listing()
    world = situation("04-pause")
    listing.lines([body_of(world, name="a-rather-long-name")], world.now)
    [line] = listing.lines([body_of(world)], world.now, heading=False)
    assert line.plain.index("False") == len("a-rather-long-name") + 3


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(0, "0s"), (119, "119s"), (330, "5m30s"), (600, "10m"), (10740, "179m"), (12000, "3h20m"),
     (100_000, "27h"), (187_200, "2d4h"), (40 * 86400, "40d"), (-5, "0s")],
)  # fmt: skip
def test_ages_are_written_as_kubectl_writes_them(seconds: int, age: str) -> None:
    """In its units."""
    body = body_of(situation("02-serving"), creationTimestamp=START.isoformat())
    assert Listing().row(body, START + timedelta(seconds=seconds))[-1] == age


def test_one_namespace_or_all_of_them(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default, that of the context."""
    server.others = [other("shop", "deliveries", team="ops"), other("ml", "churn")]
    assert run("get") == 0
    assert [row[0] for row in lines_of(capsys)] == ["NAME", "churn", "fraud"]
    assert run("get", "-A") == 0
    rows = lines_of(capsys)
    assert [row[:2] for row in rows] == [
        ["NAMESPACE", "NAME"],
        ["ml", "churn"],
        ["ml", "fraud"],
        ["shop", "deliveries"],
    ]
    assert run("get", "-A", "-l", "team=ops", "--no-headers") == 0
    assert [row[1] for row in lines_of(capsys)] == ["deliveries"]
    assert run("get", "shop/deliveries") == 0
    assert lines_of(capsys)[1][:3] == ["deliveries", "Unknown", "NotSeenYet"]


def test_programs_get_the_objects_themselves(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON, as YAML, or only names."""
    assert run("get", "fraud", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["name"] == "fraud"
    assert run("get", "-o", "yaml") == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert [item["metadata"]["name"] for item in document["items"]] == ["fraud"]
    assert run("get", "-o", "name") == 0
    assert capsys.readouterr().out == "modeldeployment.canarium.dev/fraud\n"
    assert run("get", "-o", "wide") == 0
    assert server.world.status.message in capsys.readouterr().out


def test_nothing_there_is_said_and_is_no_error(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error: a program that counts lines counts none."""
    assert run("get", "-n", "empty") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there are no ModelDeployments in empty; -A looks in all namespaces" in captured.err


@pytest.mark.parametrize(
    "words", [("get", "fraud", "-A"), ("get", "fraud", "-l", "a=b"), ("get", "-w", "-o", "json")]
)
def test_what_does_not_go_together_is_refused(server: ApiServer, words: tuple[str, ...]) -> None:
    """Rather than one of the two being dropped."""
    assert run(*words) == 2


def test_a_list_can_be_followed(
    server: ApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each change, and what is deleted is named."""
    server.changes.put(situation("08-failed-and-serving"))
    server.changes.put(None)
    lists = iter([True])

    def once_more(*_arguments: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    from canarium_cli.access import Access

    first = Access.watch

    def watch(access: Access, *words: Any, **options: Any) -> Any:
        return first(access, *words, **options) if next(lists, False) else once_more()

    monkeypatch.setattr(Access, "watch", watch)
    assert run("get", "-w") == 130
    out = capsys.readouterr().out.splitlines()
    assert "Paused" in out[1] or "Canary" in out[1]
    assert "Aborted" in out[2]
    assert out[3] == "fraud was deleted"
