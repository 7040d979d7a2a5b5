"""The deployment examples agree with the program and with one another: options, paths, ports, times, memory."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
from conftest import Chain
from support.http_host import http_host

from tidalctl.artifacts.errors import TidalError
from tidalctl.cli import _app
from tidalctl.commands.duration import parse_duration
from tidalctl.commands.serve import _token
from tidalctl.commands.size import parse_size

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
# systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5), systemd.resource-control(5)
UNIT_KEYS = {
    "Unit": {"Description", "Documentation", "After", "Wants", "Requires"},
    "Service": {
        *("Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStopSec", "KillMode", "KillSignal"),
        *("User", "Group", "DynamicUser", "Environment", "EnvironmentFile", "LoadCredential", "UMask", "WorkingDirectory"),
        *("MemoryMax", "MemoryHigh", "TasksMax", "ProtectSystem", "ProtectHome", "PrivateTmp", "NoNewPrivileges"),
    },
    "Install": {"WantedBy"},
}
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")


def unit() -> dict[str, dict[str, str]]:
    """Return the unit's keys and values by section. No key stands in it twice."""
    sections: dict[str, dict[str, str]] = {}
    section = ""
    for line in (DEPLOY / "tidalctl.service").read_text().replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = {}
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            assert name not in sections[section]
            sections[section][name] = value
    return sections


def image() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its arguments."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return [(word, rest) for line in text.splitlines() if line and line[0] != "#" for word, _, rest in [line.partition(" ")]]


def words(instruction: str) -> list[str]:
    """Return the words of an instruction that has a list."""
    (rest,) = [rest for word, rest in image() if word == instruction]
    return [str(word) for word in json.loads(rest)]


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest's deployment and service."""
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with other packages, if at all")
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    return deployment, service


def pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod of the manifest, and its one container."""
    found = kubernetes()[0]["spec"]["template"]["spec"]
    (container,) = found["containers"]
    return found, container


def command_of(file: str) -> list[str]:
    """Return a file's command line, from `tidalctl` on."""
    if file == "tidalctl.service":
        return ["tidalctl", *shlex.split(unit()["Service"]["ExecStart"])[1:]]
    return [*words("ENTRYPOINT"), *(words("CMD") if file == "Dockerfile" else pod()[1]["args"])]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize("file", ["tidalctl.service", "Dockerfile", "kubernetes.yaml"])
def test_options_are_those_of_serve_and_times_and_memory_leave_room(file: str) -> None:
    command = command_of(file)
    serve: Any = typer.main.get_command(_app())
    context = serve.commands["serve"].make_context("serve", command[2:])  # raises for an option that there is not
    assert command[:2] == ["tidalctl", "serve"] and [path.name for path in context.params["bundles"]] == ["app.bundle"]
    assert context.params["token_file"] is not None
    bound, timeout = parse_size("--memory", context.params["memory"]), parse_duration("--timeout", context.params["timeout"])
    if file == "tidalctl.service":
        limit, grace = parse_size("MemoryMax", unit()["Service"]["MemoryMax"] + "iB"), int(unit()["Service"]["TimeoutStopSec"])
    elif file == "Dockerfile":
        comments = (DEPLOY / "Dockerfile").read_text()
        limit = parse_size("--memory", re.findall(r"--memory (\w+) -p", comments)[0])
        grace = int(re.findall(r"--time (\d+)", comments)[0])
    else:
        limit = parse_size("limits", pod()[1]["resources"]["limits"]["memory"])
        grace = pod()[0]["terminationGracePeriodSeconds"] - int(pod()[1]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert bound < limit and timeout < grace


def test_the_unit_has_known_keys_and_signals_the_host_alone() -> None:
    found = unit()
    assert [name for section, keys in found.items() for name in keys if name not in UNIT_KEYS[section]] == []
    service = found["Service"]
    assert service["KillMode"] == "mixed" and service["ExecReload"].endswith("kill -HUP $MAINPID")
    (name,) = re.findall(r"(\w+):/", service["LoadCredential"])
    assert option(command_of("tidalctl.service"), "--token-file") == f"${{CREDENTIALS_DIRECTORY}}/{name}"


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd is not here")
def test_systemd_knows_the_units_keys() -> None:
    assert SYSTEMD_ANALYZE is not None
    command = [SYSTEMD_ANALYZE, "verify", str(DEPLOY / "tidalctl.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if "tidalctl.service" in line]
    assert [line for line in complaints if "is not executable" not in line] == [], "the program is not installed there"


def test_the_image_holds_what_it_is_made_of_and_serves() -> None:
    copied = [rest.split()[0].rstrip("/") for word, rest in image() if word == "COPY"]
    assert all((ROOT / path).exists() for path in copied)
    (run,) = [rest for word, rest in image() if word == "RUN" and rest.startswith("tidalctl trace")]
    files = re.findall(r"\w+\.(?:py|json)", run)
    assert files and all((ROOT / copied[-1] / file).is_file() for file in files)
    assert re.findall(r"\w+\.trace", run) == [option(words("ENTRYPOINT"), "serve").replace(".bundle", ".trace")]
    assert "USER" in dict(image()), "functions don't run as root"
    assert option(words("ENTRYPOINT"), "--listen") == f"0.0.0.0:{dict(image())['EXPOSE']}"


def test_the_manifest_fits_the_image_and_its_own_parts() -> None:
    found, container = pod()
    deployment, service = kubernetes()
    (port,) = container["ports"]
    assert str(port["containerPort"]) == dict(image())["EXPOSE"]
    (served,) = service["spec"]["ports"]
    assert served["targetPort"] == container["readinessProbe"]["httpGet"]["port"] == port["name"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == deployment["spec"]["selector"]["matchLabels"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in found["volumes"]}
    assert option(container["args"], "--token-file") == f"{mounts['token']}/token"
    assert str(found["securityContext"]["runAsUser"]) == dict(image())["USER"]
    created = re.findall(r"create secret generic (\S+) --from-literal=(\w+)=", (DEPLOY / "README.md").read_text())
    (secret,) = [volume["secret"] for volume in found["volumes"] if "secret" in volume]
    assert created == [(secret["secretName"], "token")] and secret["defaultMode"] & 0o037 == 0


def test_a_token_may_be_shared_with_a_group_by_root_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef0123")
    file.chmod(0o440)
    if os.getuid() == 0:
        assert _token(file) == "0123456789abcdef0123"
        os.chown(file, 1, -1)
    for mode in (0o440, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(TidalError, match="others may read"):
            _token(file)


@pytest.mark.slow
def test_a_host_answers_with_the_manifests_options(decoder: Chain, tmp_path: Path) -> None:
    command = command_of("kubernetes.yaml")[2:]
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123")
    token.chmod(0o600)
    command[command.index("app.bundle")] = str(decoder.bundle)
    command[command.index("--token-file") + 1] = str(token)
    command[command.index("--listen") + 1] = "0.0.0.0:0"
    probed = pod()[1]["readinessProbe"]["httpGet"]["path"]
    with http_host(tmp_path, *command, env=decoder.env) as host:
        host.until(lambda: host.ask("GET", probed, None, {"Host": "10.0.0.7:8707"}).status == 200)
        assert host.invoke(decoder.events[0], decoder.bundle.stem).status == 401
        allowed = {"Authorization": f"Bearer {token.read_text()}", "Host": "app"}
        assert host.invoke(decoder.events[0], decoder.bundle.stem, **allowed).status == 200
        path = f"/functions/{decoder.bundle.stem}"
        os.kill(host.ask("GET", path, None, allowed).json["pid"], signal.SIGKILL)
        host.until(lambda: host.ask("GET", path, None, allowed).json["state"] != "ready")
        assert host.ask("GET", probed).status == 200, "it is made again by a request, which a probe must not keep away"
        assert host.invoke(decoder.events[0], decoder.bundle.stem, **allowed).status == 200
