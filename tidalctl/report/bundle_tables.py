"""What `tidalctl inspect` says of a bundle: a document with everything for `--json`, and its top for a person."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidalctl.artifacts.bundle.code_pack import PackFile
from tidalctl.artifacts.bundle.directory import check_file, read_checked
from tidalctl.artifacts.bundle.import_cache import summary_of
from tidalctl.artifacts.bundle.manifest import (
    DYNAMIC_INIT,
    IMPORT_CACHE,
    PACK,
    PREWARM,
    PROVENANCE,
    Manifest,
    NeededFile,
    state_prefix,
)
from tidalctl.artifacts.bundle.provenance import Observed, provenance_fields
from tidalctl.artifacts.errors import COMPILE_AGAIN, Corrupt, NewerSchema
from tidalctl.report.needs import needs_text
from tidalctl.report.pins import pinned_by
from tidalctl.report.terminal import count_text, print_facts, print_paragraph, print_table, printable, seconds_text, size_text
from tidalctl.report.trace_tables import environment_text, function_text, plain, shape_text

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
PREWARM_SCHEMA = 1


def bundle_document(manifest: Manifest, path: Path) -> dict[str, Any]:
    """Everything in a bundle but the bytes of its weights and code. Small files that are shown are checked first.

    Raises Corrupt or NewerSchema where one of them is not what compile wrote.
    """
    body, observed = plain(manifest), provenance_fields(path, Observed)
    executed = None if observed.executed is None else frozenset(observed.executed)
    return {
        **body,
        "schema": SCHEMA,
        "bundle_schema": manifest.schema,
        "kind": "bundle",
        "path": str(path),
        "size": sum(stored.size for stored in manifest.files.values()),
        "files": [{"name": name, **plain(stored)} for name, stored in sorted(manifest.files.items())],
        "modules": [{"name": name, "ran": None if executed is None else name in executed} for name in manifest.modules],
        "weights": [{**weight, "first_use_s": observed.first_uses.get(weight["name"])} for weight in body["weights"]],
        "pinned_by": pinned_by(manifest),
        "code_pack": _code_pack(manifest, path),
        "import_cache": _import_cache(manifest, path),
        "prewarm": _prewarm(manifest, path),
        "dynamic_init": _dynamic_init(manifest, path),
        "provenance": _provenance(path),
    }


def _code_pack(manifest: Manifest, path: Path) -> dict[str, Any] | None:
    """The pack's size and modules. Its index is checked; its bytecode, which is not shown, is not."""
    if not manifest.pack:
        return None
    pack = PackFile(path / PACK, manifest.pack)
    pack.close()
    index = pack.index
    names = [{"name": module.name, "source_size": module.size, "late": module.late} for module in index.modules]
    return {"size": manifest.files[PACK].size, "magic": index.magic, "segments": len(index.segments), "modules": names}


def _import_cache(manifest: Manifest, path: Path) -> dict[str, Any] | None:
    """Return the import cache's own summary. Of another Python's only the size is known."""
    if IMPORT_CACHE not in manifest.files:
        return None
    return {
        "size": manifest.files[IMPORT_CACHE].size,
        **(summary_of(read_checked(path, manifest, IMPORT_CACHE), path / IMPORT_CACHE) or {}),
    }


def _prewarm(manifest: Manifest, path: Path) -> list[Any] | None:
    if PREWARM not in manifest.files:
        return None
    check_file(path, manifest, PREWARM)
    try:
        body = json.loads((path / PREWARM).read_bytes())
        schema, kernels = body["schema"], list(body["kernels"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"{path}: {PREWARM} is no prewarm list: {error}", COMPILE_AGAIN) from None
    if schema != PREWARM_SCHEMA:
        raise NewerSchema(f"{path}: {PREWARM} has schema {schema}; this tidalctl reads {PREWARM_SCHEMA}", "upgrade tidalctl")
    return kernels


def _dynamic_init(manifest: Manifest, path: Path) -> dict[str, str] | None:
    if DYNAMIC_INIT not in manifest.files:
        return None
    check_file(path, manifest, DYNAMIC_INIT)
    text = (path / DYNAMIC_INIT).read_text(encoding="utf-8", errors="replace")
    return {"sha256": manifest.files[DYNAMIC_INIT].sha256, "text": text}


def _provenance(path: Path) -> Any:
    """Who made it, when and where: no part of the digest, so it may be missing or changed, and then says nothing."""
    try:
        return msgspec.json.decode((path / PROVENANCE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _further_facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a line for each state besides the main one: its init, and the weights that are stored for it alone."""
    facts = []
    for state in document["further"]:
        prefix = state_prefix(state["number"], state["init"])
        own = [weight["nbytes"] for weight in document["weights"] if weight["name"].startswith(prefix)]
        adds = f"{count_text(len(own), 'weight')}, {size_text(sum(own))}" if own else "no weights of its own"
        facts.append(("besides", f"{state['init']}: {adds} ({prefix.removesuffix('/')})"))
    return facts


def show_bundle(document: dict[str, Any], console: "Console") -> None:
    size, files = size_text(document["size"]), count_text(len(document["files"]), "file")
    console.print(f"bundle {printable(document['path'])}: {size} in {files}", style="bold")
    print_facts(
        console,
        [
            ("function", function_text(document["function"])),
            ("init", document["init"]),
            *_further_facts(document),
            ("digest", document["digest"]),
            ("strategy", document["strategy"]),
            ("serves", _serves_text(document)),
            ("needs", needs_text(msgspec.convert(document["needs"], tuple[NeededFile, ...]), document["strategy"])),
            ("pinned by", ", ".join(document["pinned_by"])),
            *_part_facts(document),
            *_pack_fact(document["code_pack"]),
            *_import_cache_fact(document["import_cache"]),
            ("reproducible", "yes" if document["reproducible"] else "no: its plain runs differ, so outputs are not compared"),
            ("environment", environment_text(document["fingerprint"])),
            *((f"event {index}", f"sha256 {digest}") for index, digest in enumerate(document["events"])),
        ],
    )
    rows = [(file["name"], size_text(file["size"]), file["sha256"][:12]) for file in document["files"]]
    print_table(console, "files", ("name", "size>", "sha256>"), rows)
    _show_weights(document["weights"], console)
    rows = [(lost["part"], lost["strategy"], f"{lost['cause']} ({lost['code']})") for lost in document["fallbacks"]]
    print_table(console, "done again the ordinary way", ("part", "how", "cause"), rows)
    _show_modules(document["modules"], console)
    _show_prewarm(document["prewarm"], console)
    script = document["dynamic_init"]
    if script:
        # line by line, so that the script's own line ends stay and anything else that drives a terminal does not
        text = "\n".join("  " + printable(line) for line in script["text"].expandtabs().splitlines())
        console.print(f"\n{DYNAMIC_INIT}, sha256 {script['sha256'][:12]}", style="bold")
        console.print(text, soft_wrap=True)
    print_paragraph(console, "plan", _plan(document))


def _serves_text(document: dict[str, Any]) -> str:
    strategy = document["strategy"]
    if strategy == "script":
        return f"events that {DYNAMIC_INIT} has nothing against"
    return "any event" if strategy in ("replay", "eager") else _guard_text(document["guard"])


def _part_facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What of the state is not simply in the bundle."""
    facts = []
    if document["dynamic"]:
        facts.append(("dynamic", f"{count_text(len(document['dynamic']), 'weight')}, made by {DYNAMIC_INIT}"))
    if document["answers"]:
        facts.append(("answers", f"{count_text(len(document['answers']), 'tensor')} that init need not read"))
    return facts


def _pack_fact(pack: dict[str, Any] | None) -> list[tuple[str, str]]:
    if pack is None:
        return []
    late = sum(module["late"] for module in pack["modules"])
    words = f"{count_text(len(pack['modules']), 'module')}, {size_text(pack['size'])} of bytecode"
    return [("code pack", f"{words}; {late:,} imported while the weights come in" if late else words)]


def _import_cache_fact(cache: dict[str, Any] | None) -> list[tuple[str, str]]:
    if cache is None:
        return []
    if "texts" not in cache:
        return [("import cache", f"{size_text(cache['size'])}, of another Python than this one")]
    texts, patterns = count_text(cache["texts"], "compiled text"), count_text(cache["patterns"], "pattern")
    folders = dict.fromkeys(scan["path"].removesuffix("/__init__.py") for scan in cache["scans"])
    found = f"; what {', '.join(folders)} holds" if folders else ""
    return [("import cache", f"{texts}, {patterns}{found}: {size_text(cache['size'])}")]


def _guard_text(guard: dict[str, Any]) -> str:
    if guard["static"]:
        return "any event (init is static)"
    if guard["event_whole"]:
        return "only the event that was traced: init may have looked at all of it"
    keys = ", ".join(guard["event_reads"])
    return f"events whose {keys} are as traced" if keys else "any event (init read nothing of it)"


def _show_weights(weights: list[dict[str, Any]], console: "Console") -> None:
    rows = [
        (
            str(place),
            weight["name"],
            f"{weight['dtype']} {shape_text(weight['shape'])}",
            size_text(weight["nbytes"]),
            "never" if weight["first_use"] is None else weight["operator"],
            seconds_text(weight["first_use_s"]),
        )
        for place, weight in enumerate(weights)
    ]
    written = sum(weight["written"] for weight in weights)
    title = f"weights in order: {count_text(len(weights), 'weight')}, {size_text(sum(weight['nbytes'] for weight in weights))}"
    title += f"; the handler writes to {written:,} of them" if written else ""
    print_table(console, title, ("#>", "weight~", "kind", "size>", "first used by", "at>"), rows)
    folded = [weight for weight in weights if weight["folded"]]
    sources = [(weight["name"], " → ".join(weight["folded"]), ", ".join(weight["sources"])) for weight in folded]
    title = f"folded: {len(folded):,}, computed once at compile"
    print_table(console, title, ("weight~", "operators", "from"), sources)


def _show_modules(modules: list[dict[str, Any]], console: "Console") -> None:
    """Modules by the package that they belong to, those with most of them first: thousands of names tell a person nothing."""
    packages: dict[str, list[bool | None]] = {}
    for module in modules:
        packages.setdefault(module["name"].partition(".")[0], []).append(module["ran"])
    ordered = sorted(packages.items(), key=lambda package: -len(package[1]))
    known = all(module["ran"] is not None for module in modules)  # or provenance is gone
    idle = sum(not module["ran"] for module in modules)
    title = f"modules: {len(modules):,} imported" + (f"; {idle:,} ran nothing in the handler" if known else "")
    rows = [(name, f"{len(ran):,}", f"{sum(map(bool, ran)):,}" if known else "–") for name, ran in ordered]
    print_table(console, title, ("package", "modules>", "ran in the handler>"), rows)


def _show_prewarm(kernels: list[Any] | None, console: "Console") -> None:
    known = [kernel for kernel in kernels or () if isinstance(kernel, dict)]
    rows = [(str(kernel.get("operator", "")), " ".join(map(str, kernel.get("operands", ())))) for kernel in known]
    print_table(console, f"prewarm: {count_text(len(known), 'kernel')}", ("operator", "operands"), rows)


def _plan(document: dict[str, Any]) -> str:
    """How a run from this bundle will start."""
    weights = document["weights"]
    total = sum(weight["nbytes"] for weight in weights)
    modules = count_text(len(document["modules"]), "module")
    if document["strategy"] == "eager":
        cause = next((lost["cause"] for lost in document["fallbacks"] if lost["part"] == "state"), "no snapshot could be taken")
        then = "and runs init the ordinary way" if document["init"] else "and calls the handler"
        return f"A run imports the function's {modules}, reading them ahead, {then}: {cause}."
    shards = len({weight["file"] for weight in weights})
    used = sum(weight["nbytes"] for weight in weights if weight["first_use"] is not None)
    made = {
        "snapshot": "then it unpickles the skeleton over the mapped weights in place of init",
        "script": f"then {DYNAMIC_INIT} makes the dynamic weights, and the skeleton is unpickled over all of them in place of init",
        "replay": "then init runs, with its reads answered from the weights",
    }[document["strategy"]]
    words = [
        f"A run reads {size_text(total)} of weights from {count_text(shards, 'file')} in the order of first use"
        f" ({size_text(used)} of it is used), checking digests, beside the imports of {modules};"
        f" {made}, and calls the handler.",
        f"It does so for {_serves_text(document)}.",
    ]
    if document["strategy"] == "script" or (document["strategy"] == "snapshot" and not document["guard"]["static"]):
        words.append("For other events init runs the ordinary way.")
    return " ".join(words)
