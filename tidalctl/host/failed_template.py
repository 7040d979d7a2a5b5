"""The message by which a template process, or a worker, says that it can't answer events."""

from tidalctl.artifacts.cause import Cause
from tidalctl.artifacts.errors import TidalError


def failed_template(error: object) -> dict[str, str]:
    """Return it: the code and the text of the cause. `error` is what went wrong, an exception or words."""
    if isinstance(error, TidalError):
        error = error.message
    elif isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}"
    reason = Cause.TEMPLATE_FAILED.of(error=error)
    return {"code": reason.code, "text": reason.text}
