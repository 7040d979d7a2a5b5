"""Why something is done the plain way: one enumeration of causes, each with a text and a paragraph in docs/troubleshooting.md.

A cause is either found by `compile`, and then it holds for every start from the bundle, or by one start, where something is not as it
was in the trace (a mismatch).
"""

import enum

from tidalctl.artifacts.records import Record

PAGE = "docs/troubleshooting.md"


class Reason(Record, frozen=True):
    """A cause in one case: the code of the `Cause`, and its text with the names of this case."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.code})"


class Cause(enum.Enum):
    """A reason to run init, or to import modules, the plain way. The value is the text, with fields for the names of a case."""

    # -- there is no state to restore
    NO_INIT = "the function calls no init: its imports come from the bundle, and what it builds it builds itself"

    # -- init did something that no restored state can stand for
    ARGUMENT_WRITTEN = "{init} writes to {what}, which the handler may read"
    ARGUMENTS_NOT_JSON = (
        "{init} was called{place} with an argument that is not JSON, so that no later call can be compared with it"
    )
    GLOBAL_SET_BEFORE_INIT = (
        "{name} is set before {init} is called, which may look at it: if it does not, mark it with static=True, "
        "or name it with --init and --static"
    )
    GLOBAL_DIFFERS_BY_EVENT = "{init} sets {name} otherwise for another event"
    GLOBAL_DELETED = "{init} deletes {name}"
    GLOBAL_NOT_FILLABLE = "{init} changes {name} in place, and no snapshot fills a {kind}"
    GLOBAL_BOUND_ANEW = "init binds {name} anew, and a snapshot would find what it was at import by that name"
    DEFINED_AMID = "{what} may hang on statements of {init} above it, and a start runs imports and definitions alone"
    STATE_KEPT = "{init} keeps its state, and may give it again for another event"
    THREAD_STARTED = "{init} starts a thread that runs {work}, and no snapshot holds a thread"
    SYS_PATH_CHANGED = "{init} changes sys.path"
    DIRECTORY_CHANGED = "{init} changes the working directory"
    OUTSIDE_PROJECT = "the working directory is {directory} when {init} is called, outside of the project"
    WRITTEN_FILE_READ = "{init} writes {file}, which the handler reads, and no snapshot holds a file"
    INIT_IN_CLOSURE = "{init} is defined in a function, and takes variables of it"

    # -- the state can't be put on disk
    NOT_PICKLABLE = "what init leaves can't be pickled without loss: {what}"
    NOT_UNPICKLABLE = "the state can be pickled but not unpickled: {error}"
    SHARED_BY_STATES = "its state holds a {kind} that the state of {other} holds, too, and would get a copy of it"
    NEEDS_ANOTHER_STATE = "its state needs that of another init to be there, and the bundle does not hold that one"
    COPIED_FROM_GLOBAL = "the state holds a {kind} from deep inside a global that init leaves alone, and would get a copy of it"

    # -- the state is not the same each time
    EVENT_READ_BESIDES = "{init} reads {what}, and of a bundle's states only the largest may depend on the event"
    UNSEEDED = "{weight}: {init} draws it at random without a seed"
    NEVER_WRITTEN = "never written: torch.empty in {weight}, so that it holds what was in that memory before (use torch.zeros)"
    NOT_REPRODUCIBLE = "two runs of {init} differ in {what} (random numbers without a seed, times or addresses?)"
    STATE_DIFFERS_BY_EVENT = "{init} {mark}gave another state for event {event}, though it read nothing of it that differs"
    PROOF_FAILED = "the proof: {what}"

    # -- no script makes what depends on the event
    VARY_NOT_PROMISED = (
        "the traced events differ in {fields}: if init takes the same steps for any value of that, say so with {options}"
    )
    EVENT_READ_WHOLE = "{init} looks at all of the event"
    FIELD_NOT_SCALAR = "{fields} is not a text, and not a number, in every traced event"
    FIELD_WITHOUT_USE = "nothing that init does shows what it makes of {fields}: no path, and no number that torch is given"
    NOT_EXPLAINED = "nothing in the traced events gives {what}: make it a field of the event, in every traced one"
    STEPS_DIFFER = "init takes other steps for one event than for another: they differ in {what}"
    STRUCTURE_DIFFERS = "the traced events differ in {what}, which no script makes"
    VALUES_READ = (
        "init looks at the values of a tensor that depends on the event, or gives its memory to something outside of torch"
    )
    NOT_IN_A_SCRIPT = "no script can do what init does: {what}"
    NOTHING_STATIC = "{init} reads no tensor of which the traced events show that it is the same for all"

    # -- a start that is not as the trace was
    EAGER_ASKED_FOR = "--eager was given"
    PACKAGES_DIFFER = "packages are not as they were: {packages}"
    ARGUMENTS_DIFFER = "the function was traced with other arguments"
    CPU_DIFFERS = "the CPU offers {here}, the bundle was made with {traced}, and {computed}"
    DEVICE_DIFFERS = "the device is {here}, the bundle was made on {traced}"
    ENVIRONMENT_DIFFERS = "the environment variable {name}, which the function reads, is not what it was in the trace"
    FILE_DIFFERS = "{name}, which the bundle leaves out, is another file than in the trace"
    EVENT_NOT_SERVED = "the bundle does not serve this event: {what}"
    SCRIPT_FAILED = "dynamic_init.py could not make its part: {error}"
    CALL_DIFFERS = "{init} was called with other arguments than in the trace"
    ORDER_DIFFERS = "{init} was called after other inits than in the trace, and one of them leaves what the other may look at"
    DIRECTORY_DIFFERS = "the working directory is another one when {init} is called than in the trace"
    SETTING_DIFFERS = "{name} is {now} where {init} is called, and was {traced} in the trace"
    VARIABLE_SET_BEFORE_INIT = "the environment variable {name} is set before {init}, otherwise than in the trace"
    GENERATOR_DIFFERS = "{init} draws from {name}, which was seeded, or used, otherwise before it"

    # -- a start that was to use the bundle's state, and can't (`--require`)
    STRATEGY_DIFFERS = "the bundle makes its state by {strategy}, not by {required}{why}"
    INIT_NOT_CALLED = "the handler never called {init}, so that nothing of the bundle's state was used"

    # -- a start that no fork of a host's template answers
    DEVICE_NOT_FORKED = "the state lives on {device}, which no fork can use"
    THREADS_NOT_FORKED = "importing the function leaves threads running ({count}), which no fork has"
    TEMPLATE_FAILED = "the host could not import the function: {error}"
    TEMPLATE_TOO_LARGE = "its bundle has {need}, and --memory is {bound}"
    TEMPLATE_ENVIRONMENT_DIFFERS = "the environment variable {name} is not what it was when the host imported the function"

    # -- a process image can't be made, or not be used for a start
    IMAGE_NO_CRIU = "no CRIU is on PATH, and {variable} names none"
    IMAGE_OLD_CRIU = "{path} is CRIU {version}, and {oldest} or later is needed"
    IMAGE_NOT_DUMPED = "CRIU could not dump the process: {error}"
    IMAGE_HOLDS = "importing the function leaves {what} open, which no image holds"
    IMAGE_COMPUTED = "importing the function computes with {what}, and nothing may before the process is dumped"
    IMAGE_ALL_VARIABLES_READ = (
        "importing the function looks at all environment variables, and nobody has said which ones matter"
    )
    IMAGE_PROCESS_CHANGED = "importing the function changes {what}, which a restored process has of its caller"
    IMAGE_SECRET_READ = "importing the function reads {what}, and an image would hold it"
    IMAGE_NOT_READABLE = "the image is another user's, who keeps it to himself"
    IMAGE_WRITABLE = "others may write to {path}"
    IMAGE_SPOILED = "{file} of the image is not what was written"
    IMAGE_OF_OTHER_BUNDLE = "the image was made of {what}"
    IMAGE_MACHINE_DIFFERS = "{what} is not that of the machine where the image was made"
    IMAGE_ENVIRONMENT_DIFFERS = "the environment variable {name} is not what it was when the image was made"
    IMAGE_USER_DIFFERS = "the function's imports ask who their user is, and the image was made by another one"
    IMAGE_FILE_DIFFERS = "{file} is not the file that it was when the image was made"
    IMAGE_NAMESPACES_FORBIDDEN = "this process may not make namespaces: {error}"
    IMAGE_NOT_RESTORED = "CRIU could not restore the image: {error}"

    # -- modules that are imported the ordinary way
    OTHER_BYTECODE = "the code pack's bytecode is of another Python"
    OTHER_OPTIMIZATION = "the code pack was made under optimization level {level}"
    IMPORT_SYSTEM_PATCHED = "the import system is patched"
    PACK_PACKAGES_DIFFER = "packages are not those that the code pack was made with: {packages}"

    @property
    def code(self) -> str:
        """The name in reports, and the anchor of the paragraph in the docs."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def by_code(cls, code: str) -> "Cause":
        """Return the cause of a code."""
        return cls[code.upper().replace("-", "_")]

    def of(self, **names: object) -> Reason:
        """The cause in one case, with the names that its text has fields for."""
        return Reason(code=self.code, text=self.value.format(**names))


def ordinary_way(cause: str) -> str:
    """Say of a start that did without a restored state that init ran, for a cause's text, or that there is none."""
    return cause if cause == Cause.NO_INIT.value else f"init ran the ordinary way: {cause}"


class Refused(Exception):
    """Raised where something can't be done but in the plain way. `reason` says why."""

    def __init__(self, cause: Cause, **names: object) -> None:
        self.reason = cause.of(**names)
        super().__init__(self.reason.text)
