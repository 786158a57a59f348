"""What an operator relies on: who may ask, changed files, the audit log, confirmed images, an orderly end."""

import hashlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.main import get_command

import dracones
from dracones.cli import main
from dracones.cli.main import app
from dracones.cli.serve import names_of
from dracones.serving import Settings
from dracones.serving.audit import Audit
from dracones.serving.words import p_value_in_words
from serving_parts import BAD, FLAT, GOOD, Stub, client_of, house_of

RAW = {"content-type": "image/png"}
SCORE = "/v1/models/part/score"


# Who may ask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "set a token in the environment"),
        ({"host": "::"}, "set a token"),
        ({"host": "part.example"}, "set a token"),
        ({"token": "short"}, "fewer than 8 characters"),
        ({"audit_images": Path("images")}, "beside an audit log"),
    ],
)
def test_settings_that_let_anybody_in_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Settings(**options)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1", "localhost"])
def test_the_loopback_needs_no_token(host):
    assert Settings(host=host).is_local


def test_with_a_token_only_who_bears_it_is_answered(stub_file):
    house = house_of(stub_file, lambda path: Stub(), token="long enough")
    with client_of(house) as client:
        bearer = {"authorization": "Bearer long enough"}
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v2/models/part", "/v1/models/part/recent"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"authorization": "Bearer long enougH"}).status_code == 401
            assert client.get(path, headers=bearer).status_code == 200
        assert client.post(SCORE, content=FLAT, headers=RAW).status_code == 401
        assert client.post(SCORE, content=FLAT, headers={**RAW, **bearer}).status_code == 200
        for path in ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        assert client.get("/", headers={"host": "part.example"}).status_code == 200


def test_without_a_token_other_sites_pages_are_turned_away(stub_file):
    with client_of(house_of(stub_file, lambda path: Stub())) as client:
        for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"host": "evil.example:80"}):
            assert client.post(SCORE, content=FLAT, headers={**RAW, **headers}).status_code == 403
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "192.168.1.5:80"):
            assert client.get("/healthz", headers={"host": host, "sec-fetch-site": "same-origin"}).status_code == 200


# Changed files -------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_put_in_service_once_it_is_whole(stub_file):
    shifts = {b"one": 0.0, b"two": 100.0}
    house = house_of(stub_file, lambda path: Stub(shift=shifts[path.read_bytes()]))
    served = house.served["part"]

    def says():
        (image,) = client.post(SCORE, content=FLAT, headers=RAW).json()["images"]
        return image["score"]

    with client_of(house) as client:
        assert served.look() is None
        assert says() == 77
        stub_file.write_bytes(b"half of t")
        assert served.look() is None, "still being written, for all that is known"
        stub_file.write_bytes(b"two")
        os.utime(stub_file, ns=(1, 1))
        assert served.look() is None
        assert says() == 77
        assert served.look() is True
        assert says() == 177
        two = hashlib.sha256(b"two").hexdigest()
        assert client.get("/v1/models/part").json()["sha256"] == two
        house.measures.reloaded(served, True)
        text = client.get("/metrics").text
        assert f'dracones_model{{model="part",sha256="{two}"}} 1.0' in text
        assert text.count("\ndracones_model{") == 1


def test_a_bad_file_leaves_the_old_model_in_place_and_says_so(model, tmp_path, caplog):
    path = tmp_path / "part.safetensors"
    path.write_bytes(model.read_bytes())
    house = house_of(path, dracones.load, reload_every=0.05)
    with client_of(house) as client:
        before = client.post(SCORE, content=BAD, headers=RAW).json()
        path.write_bytes(model.read_bytes()[:-100])
        with caplog.at_level(logging.ERROR):
            wait_for(lambda: client.get("/v1/models/part").json()["trouble"])
        assert "stays as it was" in caplog.text
        assert client.post(SCORE, content=BAD, headers=RAW).json() == before
        assert 'outcome="refused"} 1.0' in client.get("/metrics").text
        path.unlink()
        wait_for(lambda: "no such model file" in (client.get("/v1/models/part").json()["trouble"] or ""))
        assert client.post(SCORE, content=BAD, headers=RAW).json() == before
        path.write_bytes(model.read_bytes())
        wait_for(lambda: client.get("/v1/models/part").json()["trouble"] is None)


def test_a_new_model_that_could_give_no_verdict_is_a_bad_file(stub_file):
    house = house_of(stub_file, lambda path: Stub())
    blind = Stub()
    blind.threshold = None
    served = house.served["part"]
    served._load = lambda path: blind
    stub_file.write_bytes(b"two")
    assert [served.look(), served.look()] == [None, False]
    assert "has no threshold" in served.trouble
    mad = Stub(shift=float("nan"))
    served._load = lambda path: mad
    stub_file.write_bytes(b"three")
    assert [served.look(), served.look()] == [None, False]
    assert "gives NaN" in served.trouble
    house.close()


def test_a_file_that_changes_while_it_is_read_is_not_served_under_the_others_hash(stub_file):
    house = house_of(stub_file, lambda path: Stub())
    served = house.served["part"]

    def load(path):
        path.write_bytes(b"three")
        return Stub(shift=1)

    served._load = load
    stub_file.write_bytes(b"two")
    assert [served.look(), served.look()] == [None, False]
    assert "changed while it was read" in served.trouble
    served._load = lambda path: Stub(shift=2)
    assert [served.look(), served.look()] == [None, True]
    assert served.current.sha256 == hashlib.sha256(b"three").hexdigest()
    house.close()


def test_reloading_under_load_fails_no_request(stub_file):
    house = house_of(stub_file, lambda path: Stub(0.002), reload_every=0.01)
    swaps = 0
    with client_of(house) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.post, SCORE, content=FLAT, headers=RAW) for _ in range(200)]
        for number in range(5):
            stub_file.write_bytes(b"v%d" % number)
            wait_for(
                lambda: (
                    client.get("/v1/models/part").json()["sha256"] == hashlib.sha256(stub_file.read_bytes()).hexdigest()
                )
            )
            swaps += 1
        assert {each.result().status_code for each in asked} == {200}
        assert swaps == 5


def wait_for(what, seconds=20):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


# The audit log -------------------------------------------------------------------------------------------------------


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_image_leaves_a_line_and_not_itself(stub_file, tmp_path):
    log = tmp_path / "audit.jsonl"
    with client_of(house_of(stub_file, lambda path: Stub(), audit=log)) as client:
        client.post(SCORE + "?source=line", content=FLAT, headers=RAW)
        client.post(SCORE, content=b"no image", headers=RAW)
    good, bad = lines(log)
    assert good["image"] == hashlib.sha256(FLAT).hexdigest()
    assert good["model_sha256"] == hashlib.sha256(b"one").hexdigest()
    assert (good["score"], good["p_value"], good["is_anomaly"], good["threshold"]) == (77, 0.5, False, 100)
    assert (good["source"], good["model"], good["error"]) == ("line", "part", None)
    assert 0 < good["latency"] < 10
    assert "not an image" in bad["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.jsonl", "stub.safetensors"]


def test_images_are_kept_where_asked_for(stub_file, tmp_path):
    kept = tmp_path / "images"
    house = house_of(stub_file, lambda path: Stub(), audit=tmp_path / "audit.jsonl", audit_images=kept)
    with client_of(house) as client:
        for _ in range(2):
            client.post(SCORE, content=FLAT, headers=RAW)
    (path,) = kept.iterdir()
    assert path.name == hashlib.sha256(FLAT).hexdigest() + ".png"
    assert path.read_bytes() == FLAT


def test_the_log_is_rotated_and_the_oldest_dropped(tmp_path):
    audit = Audit(tmp_path / "a.jsonl", max_bytes=100, files=2, images=None)
    for number in range(20):
        audit.note({"number": number, "text": "x" * 20})
    audit.close()
    names = ["a.jsonl.2", "a.jsonl.1", "a.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    kept = [line["number"] for name in names for line in lines(tmp_path / name)]
    assert kept == list(range(20 - len(kept), 20))
    assert all((tmp_path / name).stat().st_size <= 100 for name in names)


def test_a_full_disk_costs_lines_and_no_answers_and_is_said(stub_file, tmp_path, monkeypatch, caplog):
    log = tmp_path / "audit.jsonl"
    with client_of(house_of(stub_file, lambda path: Stub(), audit=log)) as client:
        client.post(SCORE, content=FLAT, headers=RAW)
        wait_for(lambda: len(lines(log)) == 1)
        written, full = os.write, [True]

        def write(handle, data):
            if not full[0] or not data.startswith(b'{"time"'):
                return written(handle, data)
            return written(handle, data[:10])  # what a full disk lets through

        monkeypatch.setattr("dracones.serving.audit.os.write", write)
        with caplog.at_level(logging.WARNING):
            assert client.post(SCORE, content=FLAT, headers=RAW).status_code == 200
            wait_for(lambda: client.get("/readyz").json()["audit"] != "written")
        assert "loses lines, and the service goes on" in caplog.text
        assert "dracones_audit_lost_total 1.0" in client.get("/metrics").text
        full[0] = False
        client.post(SCORE, content=FLAT, headers=RAW)
        wait_for(lambda: client.get("/readyz").json()["audit"] == "written")
    assert len(lines(log)) == 2, "no half line is left"


def test_a_log_that_cannot_be_written_at_all_is_said_at_the_start(stub_file, tmp_path):
    with pytest.raises(OSError, match="Is a directory"):
        house_of(stub_file, lambda path: Stub(), audit=tmp_path)


# Confirmed images ----------------------------------------------------------------------------------------------------


def test_a_confirmed_image_is_kept_as_it_came(stub_file, tmp_path, monkeypatch):
    folder = tmp_path / "confirmed"
    with client_of(house_of(stub_file, lambda path: Stub(), confirmed=folder)) as client:
        confirm = "/v1/models/part/confirm"
        for body, kept in ((GOOD, 1), (GOOD, 1), (BAD, 2)):
            said = client.post(confirm, content=body, headers=RAW).json()
            assert said == {"sha256": hashlib.sha256(body).hexdigest(), "kept": kept}
        assert {path.read_bytes() for path in (folder / "part").iterdir()} == {GOOD, BAD}
        assert client.post(confirm, content=b"no image", headers=RAW).status_code == 422
        assert client.post(confirm, files=[("a", ("a.png", GOOD)), ("b", ("b.png", BAD))]).status_code == 422

        def full(path, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("dracones.serving.audit.write_bytes", full)
        answer = client.post(confirm, content=FLAT, headers=RAW)
        assert (answer.status_code, "No space left" in answer.json()["detail"]) == (507, True)
        assert len(list((folder / "part").iterdir())) == 2
        assert client.get("/v1/models/part/recent").json()["confirms"] is True


# The process ---------------------------------------------------------------------------------------------------------


def test_draining_is_said_and_lines_are_closed(stub_file):
    house = house_of(stub_file, lambda path: Stub())
    with client_of(house) as client:
        assert client.get("/readyz").status_code == 200
        house.draining = True
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert client.get("/v2/health/ready").json() == {"error": "draining: the service is about to stop"}
        assert client.get("/healthz").status_code == 200
        assert client.post(SCORE, content=FLAT, headers=RAW).status_code == 200


def test_sigterm_answers_what_is_inside_and_ends_with_0(model, tmp_path):
    log = tmp_path / "audit.jsonl"
    command = [sys.executable, "-m", "dracones", "serve", f"part={model}", "--port", "0", "--audit", str(log)]
    process = subprocess.Popen(
        [*command, "--drain", "0.2"], stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        said = process.stderr.readline()
        assert "serving part at http://127.0.0.1:" in said
        port = int(said.rsplit(":", 1)[1].strip(" /\n"))
        body = GOOD
        head = f"POST {SCORE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
            line.sendall(head + body[:-5])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.6)  # the door is closed by now
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", port))
            line.sendall(body[-5:])
            answer = line.recv(65536)
            assert b" 200 " in answer.split(b"\r\n")[0]
            assert b"connection: close" in answer
        while process.poll() is None:  # told again and again, by whoever has no patience
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
        assert process.returncode == 0
        assert len(lines(log)) == 1
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def run_verb(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["dracones", "serve", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_what_cannot_be_served_is_one_line(monkeypatch, capsys, tmp_path, model):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, said in [
            ([model, "--port", port], f"cannot listen on 127.0.0.1 port {port}"),
            ([model, "--host", "0.0.0.0"], "set a token in the environment (DRACONES_TOKEN="),
            ([model, f"part={broken}", "--port", 0], "two models are called 'part'"),
            ([tmp_path / "none.safetensors", "--port", 0], "no such model file"),
            ([broken, "--port", 0], "broken.safetensors"),
            ([model, "--audit", tmp_path / "no" / "a.jsonl"], "does not exist"),
        ]:
            assert run_verb(monkeypatch, *words) == 2
            errors = capsys.readouterr().err
            assert said in errors
            assert "Traceback" not in errors


def test_without_the_extra_the_verb_names_it(monkeypatch, capsys, model):
    monkeypatch.delattr("dracones.serving.server", raising=False)
    monkeypatch.delitem(sys.modules, "dracones.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run_verb(monkeypatch, model) == 2
    assert "pip install 'dracones[serve]'" in capsys.readouterr().err


def test_names_come_from_files_or_are_given(tmp_path):
    odd = tmp_path / "a=b.onnx"
    odd.touch()
    with pytest.raises(ValueError, match="cannot be a model's name"):
        names_of([str(odd)])
    assert names_of([f"cap={odd}"]) == {"cap": odd}
    with pytest.raises(ValueError, match="'x/y' cannot"):
        names_of(["x/y=a.onnx"])


@pytest.mark.parametrize(
    ("p_value", "count", "words"),
    [
        (1 / 100, 99, "None of the 99"),
        (2 / 100, 99, "1 of the 99 good images it was calibrated on looks"),
        (51 / 100, 99, "50 of the 99 good images it was calibrated on look "),
        (1.0, 99, "All of the 99"),
        (None, 99, "nobody knows"),
    ],
)
def test_a_p_value_is_said_in_words(p_value, count, words):
    assert p_value_in_words(p_value, count).startswith(words) or words in p_value_in_words(p_value, count)


def test_a_thread_that_died_is_not_ready(stub_file):
    house = house_of(stub_file, lambda path: Stub())
    house.served["part"].batcher.close()
    assert house.unready == "no thread scores for part"
    house.close()


# What is written down ------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["deploy/Dockerfile", "deploy/compose.yaml", "docs/service.md"])
def test_every_option_that_is_written_down_exists(name):
    text = (ROOT / name).read_text()
    known = {option for parameter in get_command(app).commands["serve"].params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    others = {
        "--create-home",
        "--directory",
        "--owner",
        "--uid",
        "--no-cache-dir",
        "--constraint",
        "--interval",
        "--start-period",
        "--data-binary",
    }
    assert named & known
    assert named - known - others - {"--build"} == set()
    assert "https://" not in text


def test_the_compose_file_binds_to_this_machine_and_the_measures_bear_the_token():
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for each in services.values() for port in each["ports"])
    scrape = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/token"
    assert scrape["static_configs"] == [{"targets": ["dracones:8000"]}]
