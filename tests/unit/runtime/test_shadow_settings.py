"""What the operator tells servers and the comparer arrives as it was meant."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from canarium_api.runtime_config import RuntimeConfig
from canarium_api.shadow_config import ShadowConfig, Targets

FULL = ShadowConfig(
    deployment="shop/fraud",
    revision="abc",
    targets_file="/t.json",
    token_file="/token",
    absolute_tolerance=1e-9,
    relative_tolerance=0,
    window=timedelta(minutes=1.5),
    pull_interval=timedelta(milliseconds=50),
    answers_per_second=12.5,
    port=9,
    log_level="debug",
)


@pytest.mark.parametrize("config", [FULL, ShadowConfig()])
def test_settings_survive_the_environment(config: ShadowConfig) -> None:
    """Rendered and read again they are the same; nothing is needed."""
    assert ShadowConfig.from_env(config.to_env()) == config


def test_variables_are_named_after_the_fields() -> None:
    """With one prefix."""
    environment = FULL.to_env()
    assert environment["CANARIUM_SHADOW_WINDOW"] == "1m30s"
    assert environment["CANARIUM_SHADOW_ABSOLUTE_TOLERANCE"] == "1e-09"


def test_clients_cannot_be_led_to_the_answers() -> None:
    """Both ports equal: refused, and both variables are named."""
    environment = {"CANARIUM_MODEL_URI": "file:///m", "CANARIUM_ANSWERS_PORT": "8080"}
    with pytest.raises(ValidationError) as caught:
        RuntimeConfig.from_env(environment)
    text = RuntimeConfig.describe(caught.value)
    assert "CANARIUM_ANSWERS_PORT must differ from CANARIUM_PORT" in text


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("http://10.1.2.3:8081", True),
        ("http://fraud-abc-answers.shop.svc:8081", True),
        ("http://[fd00::1]:8081", True),
        ("http://10.1.2.3", False),
        ("http://10.1.2.3:8081/path", False),
        ("https://10.1.2.3:8081", False),
        ("http://user:password@10.1.2.3:8081", False),
        ("http://10.1.2.3:8081\n", False),
    ],
)
def test_a_target_is_a_host_and_a_port(url: str, fits: bool) -> None:
    """Nothing else can be smuggled in."""
    if fits:
        assert Targets(stable=[url]).stable == [url]
    else:
        with pytest.raises(ValidationError):
            Targets(stable=[url])
