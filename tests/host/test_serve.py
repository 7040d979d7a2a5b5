"""`tidalctl serve`: what a client is answered, by the worker and by the host."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from conftest import Chain, chained, tidalctl
from prometheus_client.parser import text_string_to_metric_families
from support.http_host import HttpHost, http_host
from support.served_function import APP


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chained(tmp_path_factory.mktemp("served"), APP, {"do": "answer"})


@pytest.fixture(scope="module")
def host(made: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpHost]:
    folder = tmp_path_factory.mktemp("host")
    options = ("--timeout", "5s", "--max-body", "100KB", "--concurrency", "4", "--queue", "2")
    with http_host(folder, made.bundle, *options, env=made.env) as running:
        running.told("ready")
        yield running


def test_each_event_is_answered_as_by_the_plain_function_in_a_process_of_its_own(made: Chain, host: HttpHost) -> None:
    plain = made.run({"do": "answer"})["output"]
    replies = []
    for number in range(4):
        if number > 1:
            host.spare_ready()
        replies.append(host.invoke({"do": "answer", "given": f"Grüße {number}"}))
    assert {reply.status for reply in replies} == {200}
    assert [reply.start for reply in replies[2:]] == ["spare"] * 2 and replies[0].start == "fork"
    for number, reply in enumerate(replies):
        told = reply.json
        assert told["total"] == plain["total"] and told["torch"] == plain["torch"], "the numbers of a fresh process"
        assert (told["count"], told["left"], told["remaining"]) == (1, "x", True)
        assert told["given"] == f"Grüße {number}" and told["id"] == reply.headers["tidalctl-request-id"]
        assert reply.headers["tidalctl-strategy"] == "snapshot" and 0 < float(reply.headers["tidalctl-ttft"]) < 5
    assert len({reply.json["random"] for reply in replies}) == 4


def test_a_stream_comes_piece_by_piece(host: HttpHost) -> None:
    connection = host.connect()
    event = {"do": "stream", "count": 3, "wait": 0.3}
    connection.request("POST", "/functions/app/invocations", json.dumps(event), {"Content-Type": "application/json"})
    response = connection.getresponse()
    times = [(response.readline(), time.monotonic()) for _ in range(3)]
    assert [line for line, _ in times] == [b"0\n", b"1\n", b"2\n"] and times[2][1] - times[0][1] > 0.4
    assert response.getheader("content-type", "").startswith("application/x-ndjson")
    reply = host.invoke({"do": "stream", "count": 2}, Accept="text/event-stream")
    assert reply.headers["content-type"].startswith("text/event-stream") and reply.body == b"data: 0\n\ndata: 1\n\n"
    assert host.invoke({"do": "stream", "count": 0}).body == b""


FAILS = {
    "raise": (500, "ValueError", "not this one"),
    "sys.exit": (500, "SystemExit", "4"),
    "exit": (502, "WorkerEnded", "ended with exit code 3"),
    "die": (502, "WorkerEnded", "killed by signal 9"),
    "close": (502, "WorkerEnded", "ended"),
}


@pytest.mark.parametrize("do", FAILS)
def test_a_function_that_fails_is_told_and_the_next_event_is_answered(host: HttpHost, do: str) -> None:
    status, kind, message = FAILS[do]
    reply = host.invoke({"do": do})
    assert reply.status == status
    assert reply.json["error"]["type"] == kind and message in reply.json["error"]["message"]
    assert "traceback" not in reply.json["error"]
    assert f"request {reply.headers['tidalctl-request-id']}: {status} {kind}: " in host.log.read_text()
    assert host.invoke({"do": "answer"}).status == 200


def test_an_error_amid_a_stream_is_its_last_piece(host: HttpHost) -> None:
    for option, kind in (("raise_at", "ValueError"), ("die_at", "WorkerEnded")):
        reply = host.invoke({"do": "stream", "count": 3, option: 2})
        assert reply.status == 200 and reply.pieces[:2] == [0, 1] and reply.pieces[2]["error"]["type"] == kind
        reply = host.invoke({"do": "stream", "count": 3, option: 2}, Accept="text/event-stream")
        assert reply.body.startswith(b"data: 0\n\ndata: 1\n\nevent: error\ndata: {")


def test_a_function_that_hangs_is_ended(host: HttpHost) -> None:
    began = time.monotonic()
    events = ({"do": "hang"}, {"do": "stream", "count": 9, "wait": 1})
    with ThreadPoolExecutor() as threads:
        reply, streamed = threads.map(host.invoke, events)
    assert (reply.status, reply.json["error"]["type"]) == (504, "Timeout") and time.monotonic() - began < 7
    assert streamed.pieces[:4] == [0, 1, 2, 3] and streamed.pieces[-1]["error"]["type"] == "Timeout"
    host.until(lambda: host.status()["running"] == 0, 2)


def test_what_a_function_prints_or_leaves_reaches_no_answer(host: HttpHost) -> None:
    assert host.invoke({"do": "print"}).json["count"] == 1
    assert "printed" in host.log.read_text()
    assert host.invoke({"do": "thread"}).status == 200
    before = host.processes()
    assert host.invoke({"do": "forks"}).status == 200
    host.until(lambda: host.status()["running"] == 0, 5)
    host.spare_ready()
    assert len(host.processes()) <= len(before) + 1, "a child that a worker left has ended with it"


def test_a_client_that_goes_takes_its_worker_with_it(host: HttpHost) -> None:
    for event in ({"do": "hang"}, {"do": "stream", "count": 100, "wait": 0.1}):
        with socket.create_connection((host.connect().host, host.connect().port)) as connection:
            body = json.dumps(event).encode()
            head = "POST /functions/app/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            host.until(lambda: host.status()["running"] == 1, 5)
        host.until(lambda: host.status()["running"] == 0, 1.5)


BAD: dict[str, tuple[int, str, Any, dict[str, str]]] = {
    "no JSON": (400, "NotJson", b"{", {}),
    "no number": (400, "NotJson", b'{"a": NaN}', {}),
    "no text": (400, "NotJson", b'{"a": "\xff"}', {}),
    "no object": (400, "NotAnObject", [1], {}),
    "too large": (413, "TooLarge", {"a": "x" * 200_000}, {}),
    "another type": (415, "NotJson", {}, {"Content-Type": "text/plain"}),
    "another host": (403, "ForeignHost", {}, {"Host": "example.com"}),
    "another site": (403, "CrossSite", {}, {"Origin": "http://example.com"}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_by_its_kind(host: HttpHost, case: str) -> None:
    status, kind, body, headers = BAD[case]
    reply = host.ask("POST", "/functions/app/invocations", body, headers)
    assert (reply.status, reply.json["error"]["type"]) == (status, kind)


def test_unknown_names_and_paths(host: HttpHost) -> None:
    reply = host.invoke({}, name="ap")
    assert (reply.status, reply.json["error"]["type"]) == (404, "UnknownFunction")
    assert "did you mean: app" in reply.json["error"]["message"]
    assert host.ask("GET", "/function").status == 404
    assert host.ask("GET", "/functions/app/invocations").status == 405


def test_events_beyond_the_queue_are_told_to_come_again(host: HttpHost) -> None:
    replies: list[int] = []
    event = {"do": "stream", "count": 1, "wait": 1}
    threads = [threading.Thread(target=lambda: replies.append(host.invoke(event).status)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == [200] * 6 + [503] * 3, "four are answered at a time, and two wait"


def test_health_functions_and_metrics(made: Chain, host: HttpHost) -> None:
    assert host.invoke({"do": "answer"}).status == 200
    assert host.ask("GET", "/healthz").json == {"status": "ready"}
    (status,) = host.ask("GET", "/functions").json["functions"]
    assert (status["function"], status["bundle"], status["state"]) == ("app", str(made.bundle), "ready")
    families = {family.name: family for family in text_string_to_metric_families(host.ask("GET", "/metrics").body.decode())}
    ok = [sample.value for sample in families["tidalctl_invocations"].samples if sample.labels.get("outcome") == "ok"]
    assert sum(ok) >= 1 and families["tidalctl_template_ready"].samples[0].value == 1
    assert {"tidalctl_ttft_seconds", "tidalctl_queue", "tidalctl_memory_bytes", "tidalctl_evictions"} <= families.keys()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_curl(host: HttpHost) -> None:
    asked = ("curl", "-sS", "--fail-with-body", "-H", "Content-Type: application/json", "-d")
    url = f"{host.url}/functions/app/invocations"
    done = subprocess.run([*asked, '{"do": "stream", "count": 3}', url], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n"), done.stderr
    done = subprocess.run([*asked, '{"do": "raise"}', url], capture_output=True, text=True, check=False)
    assert done.returncode == 22 and json.loads(done.stdout)["error"]["message"] == "not this one"


def lambda_client(host: HttpHost) -> Any:
    settings = Config(retries={"max_attempts": 0}, read_timeout=60)
    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    return boto3.client("lambda", endpoint_url=host.url, region_name="us-east-1", config=settings, **keys)


def test_a_client_of_aws_lambda(host: HttpHost) -> None:
    client = lambda_client(host)
    context = "eyJjdXN0b20iOiB7ImEiOiAxfX0="  # {"custom": {"a": 1}}
    reply = client.invoke(FunctionName="app", Payload=b'{"do": "answer"}', ClientContext=context)
    told = json.loads(reply["Payload"].read())
    assert (reply["StatusCode"], told["count"], told["custom"]) == (200, 1, {"a": 1}) and "FunctionError" not in reply
    arn = "arn:aws:lambda:us-east-1:123456789012:function:app"
    assert json.loads(client.invoke(FunctionName=arn, Payload=b'{"do": "stream", "count": 2}')["Payload"].read()) == [0, 1]
    for do in ("raise", "exit"):
        reply = client.invoke(FunctionName="app", Payload=json.dumps({"do": do}).encode())
        told = json.loads(reply["Payload"].read())
        assert (reply["StatusCode"], reply["FunctionError"], told["errorType"]) == (200, "Unhandled", FAILS[do][1])
    assert client.invoke(FunctionName="app", InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="other", Payload=b"{}")
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="app", Payload=b"[]")
    with pytest.raises(ClientError, match="is not served"):
        client.invoke(FunctionName="app", InvocationType="Event", Payload=b"{}")


def test_bundles_that_can_not_be_used_keep_nobody_down_and_signals_drain(made: Chain, tmp_path: Path) -> None:
    broken = tmp_path / "broken.bundle"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o600)
    options = ("--token-file", token, "--debug", "--listen", "0.0.0.0:0")
    with http_host(tmp_path, made.bundle, "--name", f"other={broken}", *options, env=made.env) as host:
        (failed,) = host.told("failed")
        assert (failed["function"], failed["cause"]) == ("other", "template-failed")
        host.told("ready")
        allowed = {"Authorization": "Bearer 0123456789abcdef0123", "Host": "app.example.com"}
        assert host.invoke({"do": "answer"}, **allowed).status == 200
        assert host.invoke({"do": "answer"}).status == 401
        assert host.invoke({"do": "answer"}, Authorization="Bearer 0123456789abcdef0124").status == 401
        assert host.ask("GET", "/healthz").status == 200, "a probe has no token"
        refused = host.invoke({"do": "answer"}, name="other", **allowed)
        assert refused.status == 503 and refused.headers["tidalctl-cause"] == "template-failed"
        assert refused.json["error"].keys() == {"type", "request_id"}, "who reaches it from elsewhere is told no more"
        assert host.invoke({"do": "raise"}, **allowed).json["error"].keys() == {"type", "request_id"}
        replies: list[Any] = []
        event = {"do": "stream", "count": 3, "wait": 0.5}
        asking = threading.Thread(target=lambda: replies.append(host.invoke(event, **allowed)))
        asking.start()
        host.until(lambda: "tidalctl_running 1.0" in host.ask("GET", "/metrics", None, allowed).body.decode(), 5)
        host.process.send_signal(signal.SIGTERM)
        asking.join()
        assert replies[0].pieces == [0, 1, 2] and host.process.wait(10) == 0
        assert not host.processes()


@pytest.mark.slow
def test_a_second_signal_ends_what_runs_and_a_socket_can_be_one_of_unix(made: Chain, tmp_path: Path) -> None:
    path = tmp_path / "host.socket"
    with socket.socket(socket.AF_UNIX) as gone:  # of a host that was killed
        gone.bind(str(path))
    with http_host(tmp_path, made.bundle, "--unix", path, env=made.env) as host:
        host.told("ready")
        assert host.url == f"unix:{path}" and path.stat().st_mode & 0o777 == 0o600
        done = tidalctl("serve", made.bundle, "--unix", path, cwd=tmp_path, env=made.env)
        done.one_error("is another host's", "--unix")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            body = b'{"do": "hang"}'
            head = "POST /functions/app/invocations HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            host.until(lambda: len(host.processes()) > 1, 5)
            host.process.send_signal(signal.SIGTERM)
            host.told("draining")
            host.process.send_signal(signal.SIGTERM)
            assert host.process.wait(10) == 0
    assert not path.exists()


def test_a_host_that_is_killed_takes_everything_with_it(made: Chain, tmp_path: Path) -> None:
    env = {**made.env, "XDG_RUNTIME_DIR": str(tmp_path)}
    with http_host(tmp_path, made.bundle, env=env) as host:
        host.told("ready")
        host.invoke({"do": "answer"})
        host.spare_ready()
        shown = tidalctl("ps", cwd=tmp_path, env=env).ok().out
        assert host.url in shown and f"app: {made.bundle}  ready; 1 answered" in shown and "1 spare" in shown
        left = host.processes()
        assert len(left) >= 2
        template = host.status()["pid"]
        os.kill(template, signal.SIGKILL)
        host.until(lambda: host.status()["state"] != "ready")
        assert host.invoke({"do": "answer"}).json["count"] == 1, "a template that is gone is made again"
        left = host.processes()
        host.process.kill()
        host.process.wait()
        ends = time.monotonic() + 5
        while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < ends:
            time.sleep(0.02)
        assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
        assert "no host runs" in tidalctl("ps", cwd=tmp_path, env=env).ok().err
        assert not list(tmp_path.glob("tidalctl/*")), "its socket is removed"


def test_a_mistake_on_the_command_line_names_the_remedy(made: Chain, tmp_path: Path) -> None:
    bundle, token = made.bundle, tmp_path / "token"
    token.write_text("short")
    token.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases: list[tuple[tuple[object, ...], str, str]] = [
            ((), "no bundle to serve", "tidalctl serve app.bundle"),
            ((bundle, "--name", f"app={bundle}"), "two functions would be app", "--name app-2="),
            ((bundle, "--name", "app"), "names no bundle", "--name app=app.bundle"),
            ((tmp_path / "none.bundle",), "no bundle at", "tidalctl compile"),
            ((made.trace,), "no bundle at", "tidalctl compile"),
            ((f"svc={bundle}",), "no bundle at", "--name svc="),
            ((bundle, "--listen", f"127.0.0.1:{port}"), "can't listen on", "127.0.0.1:0"),
            ((bundle, "--listen", "8707"), "is no address", "127.0.0.1:8707"),
            ((bundle, "--timeout", "soon"), "--timeout 'soon' is no time", "60s"),
            ((bundle, "--token-file", token), "others may read", "chmod 600"),
        ]
        for arguments, message, hint in cases:
            tidalctl("serve", *arguments, cwd=tmp_path, env=made.env).one_error(message, hint)


@pytest.mark.slow
def test_a_worker_that_is_kept_answers_other_events_and_ends_after_a_time(made: Chain, tmp_path: Path) -> None:
    with http_host(tmp_path, made.bundle, "--keep-alive", "2s", "--spares", 0, "--debug", env=made.env) as host:
        host.told("ready")
        first, second = (host.invoke({"do": "answer"}) for _ in range(2))
        assert (first.start, second.start) == ("fork", "kept")
        assert (first.json["count"], second.json["count"]) == (1, 2), "globals persist, as was asked for"
        assert second.json["total"] == first.json["total"], "the state is a fresh one"
        raised = host.invoke({"do": "raise"})
        assert raised.start == "kept", "and goes with what went wrong"
        assert "not this one" in raised.json["error"]["traceback"][-1], "which --debug shows"
        assert host.invoke({"do": "answer"}).start == "fork"
        host.until(lambda: len(host.processes()) == 1, 5)
        assert host.invoke({"do": "answer"}).json["count"] == 1
