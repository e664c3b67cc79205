"""The operator's command line: mistakes give one sentence and an exit status, never a stack trace."""

import socket

import pytest

from canarium_operator import __main__ as command


@pytest.fixture(autouse=True)
def _logging_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the logging of this process to pytest."""
    monkeypatch.setattr(command.telemetry, "configure_logging", lambda level: None)


def test_an_unusable_kubeconfig_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the file and the option."""
    monkeypatch.setenv("CANARIUM_METRICS_PORT", "0")
    monkeypatch.setenv("KUBECONFIG", "unset")
    monkeypatch.setattr(command, "start_http_server", lambda port: None)
    assert command.main(["--kubeconfig", "/does/not/exist"]) == 1
    written = capsys.readouterr().err
    assert "/does/not/exist" in written
    assert "Traceback" not in written


def test_a_taken_port_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the port and the setting."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - the address that the server wants
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("CANARIUM_METRICS_PORT", str(port))
        assert command.main([]) == 1
    written = capsys.readouterr().err
    assert str(port) in written
    assert "CANARIUM_METRICS_PORT" in written


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the environment variable that it is."""
    monkeypatch.setenv("CANARIUM_PROMETHEUS_URL", "prometheus:9090")
    assert command.main([]) == 2
    assert "CANARIUM_PROMETHEUS_URL" in capsys.readouterr().err
