"""What to change where init runs instead of being restored: one line for each cause of a start, for hints."""

from tidalctl.artifacts.cause import PAGE, Cause, Reason

_BY_CAUSE = {
    Cause.NO_INIT: "mark what builds the state with @tidalctl.init, or find it with trace --init auto",
    Cause.EAGER_ASKED_FOR: "leave --eager out",
    Cause.PACKAGES_DIFFER: "install the versions that the bundle was made with, or trace and compile it here",
    Cause.ARGUMENTS_DIFFER: "give the traced arguments after --, or trace with these",
    Cause.CPU_DIFFERS: "compile the bundle on the kind of machine that runs it",
    Cause.DEVICE_DIFFERS: "compile the bundle on the kind of machine that runs it",
    Cause.ENVIRONMENT_DIFFERS: "set it as it was in the trace, or trace and compile with this value",
    Cause.EVENT_NOT_SERVED: "trace such an event, too, or move what depends on it out of init",
    Cause.SCRIPT_FAILED: "see that the files that the event names can be read and don't change, or trace such an event, too",
    Cause.CALL_DIFFERS: "call init with the traced arguments, or trace that call",
    Cause.ORDER_DIFFERS: "call the inits in the order of the trace",
    Cause.DIRECTORY_DIFFERS: "change the directory as in the trace, or after init",
    Cause.SETTING_DIFFERS: "set it as in the trace before init is called, or in init",
    Cause.VARIABLE_SET_BEFORE_INIT: "set it as in the trace, or after init",
    Cause.GENERATOR_DIFFERS: "seed the generator in init",
    Cause.STRATEGY_DIFFERS: "require what the bundle has, or change what kept it from more, then trace and compile it again",
    Cause.INIT_NOT_CALLED: "give an event for which the handler calls init",
}
_REMEDIES = {cause.code: text for cause, text in _BY_CAUSE.items()}


def remedy(reason: Reason) -> str:
    """Return what to change, and where the docs say more. A cause that compile found needs another function."""
    page = f"{PAGE}#{reason.code}"
    found = _REMEDIES.get(reason.code)
    return f"{found} ({page})" if found else f"change the function as {page} says, then trace and compile it again"
