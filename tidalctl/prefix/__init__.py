"""An init in two: the statements at its start that never mention the event, and the rest.

What the first leave behind is the same for every event, so it can be kept, and a run does only the rest. Taken together the two do what
the function does, in results, errors, and the lines that a traceback shows. Where that can't be seen in the source, there is no split,
and NoPrefix says why.

Limits, none of which a name in the source shows: a static statement may still reach the event through a global that the handler set, or
change what the caller passes. A deferred extraction that raises does so after the static statements below it. A local that the suffix
never reads is gone when the prefix ends, not when the function does. Imports run again, and are taken to give the same again.
"""

from tidalctl.prefix.halves import Split, split_init
from tidalctl.prefix.source import NoPrefix

__all__ = ["NoPrefix", "Split", "split_init"]
