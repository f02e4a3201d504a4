import pytest

import keeper.settings
from cli import installation


def deployed(**container: object) -> dict[str, object]:
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (deployed(command=["python3", "-m", "keeper", "--gate-timeout=40s"]), 40),
        (deployed(args=["--gate-timeout=40s"], env=[{"name": "STEPMEMO_GATE_TIMEOUT", "value": "50s"}]), 40),
        (deployed(env=[{"name": "STEPMEMO_GATE_TIMEOUT", "value": "50s"}]), 50),
        (deployed(env=[{"name": "STEPMEMO_GATE_TIMEOUT", "valueFrom": {}}]), 30),
        (deployed(args=["--of-another-release", "--help"]), 30),
        (deployed(args=["--gate-timeout=never"]), 30),
        (deployed(), 30),
        ({}, 30),
        (None, 30),
    ],
)
def test_settings_are_read_off_a_deployment_by_the_programs_own_reader(
    found: dict[str, object] | None, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert installation.settings(found, keeper.settings.parse, {}).gate_timeout == seconds
    assert capsys.readouterr() == ("", "")
