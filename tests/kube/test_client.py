import math

import pytest
from kubernetes_asyncio.client.exceptions import ApiException

from kube import client


def refusal(retry_after: str | None) -> ApiException:
    error = ApiException(status=429)
    error.headers = {} if retry_after is None else {"Retry-After": retry_after}
    return error


@pytest.mark.parametrize(("said", "seconds"), [("0", 0), ("7", 7), ("30", 30), ("31", 30), ("9" * 400, 30)])
def test_seconds_that_the_api_server_asks_for_are_heeded_up_to_a_bound(said: str, seconds: float) -> None:
    assert client.retry_after(refusal(said), 30) == seconds


@pytest.mark.parametrize("said", [None, "", "-1", "1.5", "soon", "²", "٣", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_of_another_form_asks_for_nothing(said: str | None) -> None:
    assert client.retry_after(refusal(said), math.inf) == 0


@pytest.mark.parametrize("error", [ApiException(status=503), TimeoutError(), ConnectionResetError()])
def test_without_an_answers_headers_nothing_is_asked_for(error: Exception) -> None:
    assert client.retry_after(error, math.inf) == 0
