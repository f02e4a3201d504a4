from argo.fields import FieldError, Kind
from keeper.api.errors import ErrorAnswer, unavailable
from memoize.outcome import Outcome
from memoize.reasons import Reason


def test_a_refusal_is_a_status_of_kubernetes() -> None:
    refusal = ErrorAnswer(422, "the body is invalid", [FieldError("entry", Kind.REQUIRED, "the entry")])
    assert refusal.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the body is invalid; entry: Required value: the entry",
        "reason": "Invalid",
        "details": {
            "causes": [
                {"reason": "FieldValueRequired", "message": "Required value: the entry", "field": "entry"}
            ]
        },
        "code": 422,
    }


def test_what_may_work_later_says_when() -> None:
    assert unavailable("x").headers == {"Retry-After": "1"}
    assert unavailable("x").status["details"] == {"retryAfterSeconds": 1}


def test_the_log_has_a_reason_code_and_no_value() -> None:
    refusal = ErrorAnswer(403, "the Pod is over", [FieldError("key", Kind.INVALID, "bad", "secret")])
    assert refusal.outcome == Outcome(Reason.FORBIDDEN, "the Pod is over")
