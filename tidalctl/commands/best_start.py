"""`run`: the best start that holds here: from the bundle's process image, or else an ordinary one. `--keep` asks the host before."""

import os
import sys
from typing import Any

from tidalctl.artifacts.bundle import IMAGE_FOLDER, MANIFEST

# options about what a template, or an image, has done already, and what they are where nobody gives them
ORDINARY = {"eager": False, "verify": "stream", "ahead": None, "io": "auto", "prewarm": "auto"}


def own_start_option(fields: dict[str, Any]) -> str | None:
    """Return the first option that was given and that only a start of its own can follow, or None."""
    return next((option for option, usual in ORDINARY.items() if fields.get(option, usual) != usual), None)


def best_start(fields: dict[str, Any]) -> int:
    """Answer with the fields of RunOptions and `image`, whichever parser they came from. Returns the exit code."""
    wanted = fields.pop("image", "auto")
    refused = None
    if wanted == "require" or (wanted == "auto" and os.path.lexists(os.path.join(fields["bundle"], IMAGE_FOLDER))):
        code, refused = _from_image(fields, required=wanted == "require")
        if code is not None:
            return code
    from tidalctl.runtime.launch import start

    return start({**fields, "no_image": refused})


def _from_image(fields: dict[str, Any], *, required: bool) -> tuple[int | None, tuple[str, str] | None]:
    """Return the exit code of a start from the image; or None, with the code and the text of the cause why there was none."""
    from tidalctl.artifacts.errors import CheckFailed, TidalError
    from tidalctl.runtime.process.timeline import process_entered_ns, process_start_ns

    started, entered = process_start_ns(), process_entered_ns()
    if (option := own_start_option(fields)) is not None:
        if required:
            raise TidalError(f"--image require, and --{option} is for a start without one", f"leave out --{option}")
        print(f"note: started without the image: --{option} is for a start without one", file=sys.stderr)
        return None, None
    from tidalctl.image.launcher import NotRestored, run_image
    from tidalctl.image.manifest import NoImage

    try:
        return run_image(fields, started, entered), None
    except NoImage as error:
        if not required:
            print(f"note: started without the image: {error}", file=sys.stderr)
            return None, None
        if not os.path.isfile(os.path.join(fields["bundle"], MANIFEST)):
            return None, None  # an ordinary start says what is wrong
        what = error if error.found else "the bundle has none"
        raise CheckFailed(f"no image: {what}", f"make one: tidalctl image {fields['bundle']}") from None
    except NotRestored as error:
        from tidalctl.artifacts.cause import Cause

        code, names = error.refusal
        reason = Cause.by_code(code).of(**names)
    if required:
        from tidalctl.artifacts.errors import StateNotUsed

        hint = f"see what has changed, or make it anew: tidalctl image {fields['bundle']}"
        raise StateNotUsed(f"the image can't be used: {reason}", hint, reason.code)
    print(f"note: started without the image: {reason}", file=sys.stderr)
    return None, (reason.code, reason.text)
