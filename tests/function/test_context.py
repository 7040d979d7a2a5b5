"""The context: as AWS Lambda's Python runtime gives it, the same each time for one event."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tidalctl.artifacts.errors import TidalError
from tidalctl.function.context import context_argument, make_context, parse_context
from tidalctl.function.event_probe import arguments_digest


def test_a_context_has_what_awss_has_and_is_the_same_for_one_event() -> None:
    one, again, other = (make_context("package.app", event) for event in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2}))
    assert one.function_name == "package-app" and one.function_version == "$LATEST"
    assert one.invoked_function_arn.endswith(":function:package-app") and one.log_group_name == "/aws/lambda/package-app"
    assert isinstance(one.memory_limit_in_mb, str), "as AWS's"
    assert one.client_context is None and one.identity.cognito_identity_id is None
    assert len(one.aws_request_id) == 36
    assert one.aws_request_id == again.aws_request_id != other.aws_request_id


def test_fields_that_are_given_take_the_place_of_the_defaults(tmp_path: Any) -> None:
    given = {
        "aws_request_id": "r-1",
        "function_name": "mine",
        "remaining_time_in_millis": 50,
        "identity": {"cognito_identity_id": "me"},
        "client_context": {"custom": {"tenant": "a"}, "client": {"app_title": "it"}},
    }
    (tmp_path / "context.json").write_text(json.dumps(given))
    made = make_context("app", {}, parse_context(str(tmp_path / "context.json")))
    assert (made.aws_request_id, made.function_name, made.identity.cognito_identity_id) == ("r-1", "mine", "me")
    assert made.invoked_function_arn.endswith(":mine") and made.identity.cognito_identity_pool_id is None
    assert made.client_context is not None and made.client_context.env is None
    assert made.client_context.custom == {"tenant": "a"} and made.client_context.client.app_title == "it"
    assert 0 <= made.get_remaining_time_in_millis() <= 50
    time.sleep(0.06)
    assert made.get_remaining_time_in_millis() == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"functon_name": "a"}', "a context has no functon_name"),
        ('{"function_name": 3}', "function_name is 3, and not a string"),
        ('{"identity": {"id": "a"}}', "a context has no identity.id"),
        ('{"client_context": {"client": {"title": "a"}}}', "a context has no client_context.client.title"),
        ("[]", "--context [] is not a JSON object"),
        ("nowhere.json", "--context nowhere.json: no such file"),
    ],
)
def test_a_field_that_no_context_has_is_an_error(text: str, told: str) -> None:
    with pytest.raises(TidalError) as caught:
        parse_context(text)
    assert caught.value.message.startswith(f"--context: {told}" if not told.startswith("--") else told)
    assert caught.value.hint


def test_a_context_among_inits_arguments_counts_without_what_is_new_each_time() -> None:
    class Aws:
        """As the runtime on AWS makes it: other classes than ours, with the same attributes."""

        def __init__(self, **fields: Any) -> None:
            self.__dict__.update(fields)

        def get_remaining_time_in_millis(self) -> int:
            return 5

    def digest(context: Any, event: Any) -> str | None:
        return arguments_digest(event, (event, context), {})

    events: tuple[dict[str, Any], ...] = ({"a": 1}, {"a": 2})
    one, two = (digest(make_context("app", event), event) for event in events)
    assert one is not None and one == two
    tenant = '{"client_context": {"custom": {"tenant": "a"}}}'
    assert digest(make_context("app", events[0], tenant), events[0]) not in (one, None), "what may differ by caller counts"
    ours = make_context("app", {}, '{"aws_request_id": "r-2"}')
    theirs = Aws(**{name: value for name, value in vars(ours).items() if not name.startswith("_")})
    assert digest(theirs, events[0]) == one
    assert context_argument(SimpleNamespace(aws_request_id="a")) is None and digest(SimpleNamespace(), events[0]) is None
