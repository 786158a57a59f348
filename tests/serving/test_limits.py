"""Nothing a client sends costs more than was set aside for it: bodies, pixels, time, and places in the house."""

import asyncio
import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

from dracones.images.limits import Limits, UnreadableImage
from dracones.serving.app import create_app
from dracones.serving.batcher import Batcher, Job
from dracones.serving.decoding import Decoder, Late
from dracones.serving.refusal import Refused
from serving_parts import BAD, FLAT, GOOD, Stub, client_of, house_of, running

RAW = {"content-type": "image/png"}
SCORE = "/v1/models/part/score"


def served(stub_file, seconds=0.0, **settings):
    stub = Stub(seconds)
    return stub, house_of(stub_file, lambda path: stub, **settings)


# Batches -------------------------------------------------------------------------------------------------------------


def test_what_waits_is_scored_together(stub_file):
    stub, house = served(stub_file, 0.05, max_batch=8)
    stub.batches.clear()
    with client_of(house) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(SCORE, content=FLAT, headers=RAW).status_code, range(20)))
    assert answers == [200] * 20
    assert sum(stub.batches) == 20
    assert max(stub.batches) > 1
    assert max(stub.batches) <= 8
    assert len(stub.batches) < 15


def run_batcher(work, score, **options):
    async def run():
        batcher = Batcher("test", score, **{"coming": lambda: 0, "max_batch": 4, "max_wait": 0.0, **options})
        try:
            return await work(batcher)
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(run())


def job(deadline=60.0):
    return Job(np.zeros((2, 2, 1), np.uint8), False, time.monotonic() + deadline)


def test_an_image_past_its_deadline_leaves_the_queue_unscored():
    counts = []

    def score(images, maps):
        counts.append(len(images))
        time.sleep(0.1)
        return [len(counts)] * len(images)

    async def work(batcher):
        first, late, timely = job(), job(0.03), job()
        batcher.submit([first])
        await asyncio.sleep(0.02)
        batcher.submit([late, timely])
        return await asyncio.gather(first.future, late.future, timely.future, return_exceptions=True)

    first, late, timely = run_batcher(work, score)
    assert (first, timely) == (1, 2)
    assert isinstance(late, Late)
    assert counts == [1, 1]


def test_a_batch_waits_for_what_is_coming_and_for_nothing_else():
    coming = [1]

    async def work(batcher):
        alone = job()
        begun = time.monotonic()
        batcher.submit([alone])
        threading.Timer(0.05, lambda: (coming.__setitem__(0, 0), batcher.submit([second]))).start()
        second = job()
        counts = await asyncio.gather(alone.future, second.future)
        third = job()
        batcher.submit([third])
        return counts, await third.future, time.monotonic() - begun

    def score(images, maps):
        return [len(images)] * len(images)

    counts, last, seconds = run_batcher(work, score, max_wait=5.0, coming=lambda: coming[0])
    assert counts == [2, 2]
    assert last == 1
    assert seconds < 2.5


def test_a_model_that_raises_answers_and_goes_on():
    def score(images, maps):
        if len(images) == 2:
            raise RuntimeError("broken")
        return ["fine"] * len(images)

    async def work(batcher):
        pair, alone = [job(), job()], job()
        batcher.submit(pair)
        found = await asyncio.gather(*(each.future for each in pair), return_exceptions=True)
        batcher.submit([alone])
        return found, await alone.future, batcher.alive

    found, alone, alive = run_batcher(work, score)
    assert [str(each) for each in found] == ["broken", "broken"]
    assert (alone, alive) == ("fine", True)


def test_a_failing_model_is_an_error_of_the_service_and_not_its_end(stub_file):
    stub, house = served(stub_file)
    with client_of(house, raise_server_exceptions=False) as client:
        stub.iterate = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of luck"))
        answer = client.post(SCORE, content=FLAT, headers=RAW)
        assert (answer.status_code, answer.json()["detail"]) == (500, "the service failed: RuntimeError")
        del stub.iterate
        assert client.post(SCORE, content=FLAT, headers=RAW).status_code == 200


def test_a_closed_batcher_scores_what_waits():
    async def work(batcher):
        jobs = [job() for _ in range(9)]
        batcher.submit(jobs)
        await asyncio.to_thread(batcher.close)
        return await asyncio.gather(*(each.future for each in jobs))

    assert run_batcher(work, lambda images, maps: [1] * len(images)) == [1] * 9


# Admission -----------------------------------------------------------------------------------------------------------


def ask_raw(house, path=SCORE, headers=()):
    """The application's answer to a request whose body must not be asked for before the answer has begun."""
    sent, asked = [], []

    async def receive():
        asked.append(len(sent))
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "headers": [*headers, (b"host", b"127.0.0.1")],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(create_app(house)(scope, receive, send))
    assert all(asked), "the body was asked for before the answer was sent"
    return sent[0]["status"], dict(sent[0]["headers"])


def test_a_full_house_refuses_before_it_reads(stub_file):
    _, house = served(stub_file, max_requests=1)
    with client_of(house) as client, running(house_of(stub_file, lambda path: Stub(), max_requests=1)) as port:
        assert client.post(SCORE, content=FLAT, headers=RAW).status_code == 200
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /v1/models/part/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nx")
            time.sleep(0.2)
            status, text = send_whole(port, FLAT)
            assert status == 429
            assert "retry-after: 1" in text
            assert "1 requests are in the house" in text


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (SCORE, [(b"content-length", b"999999999")], 413),
        (SCORE, [(b"content-type", b"text/html")], 415),
        ("/v1/models/nobody/score", [], 404),
        (SCORE, [(b"sec-fetch-site", b"cross-site")], 403),
        (SCORE, [(b"host", b"evil.example")], 403),
        ("/v1/models/part/confirm", [], 403),
        ("/v1/models/part/heatmap", [], 422),
    ],
)
def test_what_can_be_refused_by_its_head_is(stub_file, path, headers, status):
    _, house = served(stub_file)
    found, sent = ask_raw(house, path, headers)
    house.close()
    assert found == status
    assert sent[b"connection"] == b"close"


def test_a_token_is_asked_for_before_the_body(stub_file):
    _, house = served(stub_file, token="long enough")
    found, sent = ask_raw(house)
    house.close()
    assert found == 401
    assert sent[b"www-authenticate"] == b"Bearer"


def test_who_would_be_answered_too_late_is_refused_at_once(stub_file):
    _, house = served(stub_file, deadline=1.0)
    batcher = house.served["part"].batcher
    for _ in range(50):
        batcher.learn(1, 0.3)
    assert batcher.seconds_until_answered(1) == 0, "an idle house takes a request, and so measures anew"
    assert batcher.seconds_until_answered(4) == pytest.approx(1.2, rel=0.01)
    house.served["part"].coming = 3
    status, sent = ask_raw(house)
    house.close()
    assert (status, sent[b"retry-after"]) == (429, b"2")


def test_the_more_are_refused_the_longer_they_are_asked_to_stay_away(stub_file):
    _, house = served(stub_file, max_requests=1)
    house.intake.inside = 1
    away = []
    for _ in range(100):
        for _ in range(10):
            with pytest.raises(Refused) as refused:
                house.intake.check_room()
        away.append(refused.value.retry_after)
        house.intake._left(SimpleNamespace(since=0, whole_at=None, served=house.served["part"]), 1.0)
    house.close()
    assert away[0] == 1
    assert away == sorted(away)
    assert 10 < away[-1] < 11.1


def test_deadlines_hold_under_load_and_all_are_answered(stub_file):
    _, house = served(stub_file, 0.05, deadline=0.4, max_batch=1, max_requests=50)
    seconds, statuses = [], []

    def ask(_):
        begun = time.monotonic()
        statuses.append(client.post(SCORE, content=FLAT, headers=RAW).status_code)
        seconds.append(time.monotonic() - begun)

    with client_of(house) as client, ThreadPoolExecutor(40) as pool:
        list(pool.map(ask, range(80)))
        assert set(statuses) <= {200, 429, 503}
        assert statuses.count(200) >= 3
        assert statuses.count(429) > 0
        assert max(seconds) < 3
        assert house.measures.registry.get_sample_value("dracones_inside") == 0
        assert client.post(SCORE, content=FLAT, headers=RAW).status_code == 200


def test_a_slow_model_answers_503_at_the_deadline(stub_file):
    stub, house = served(stub_file, deadline=0.2)
    stub.seconds = 0.6
    with client_of(house) as client:
        begun = time.monotonic()
        answer = client.post(SCORE, content=FLAT, headers=RAW)
        assert time.monotonic() - begun < 0.55
        assert answer.status_code == 503
        assert "not done by the deadline of 0.2 s" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1


# Bodies --------------------------------------------------------------------------------------------------------------


def send_whole(port, body, *, stated=None, path=SCORE):
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {stated or len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(head.encode() + body)
        return answer_on(line)


def answer_on(line):
    text = b""
    while chunk := line.recv(65536):
        text += chunk
    return int(text.split()[1]) if text else None, text.decode(errors="replace")


def test_bodies_that_dawdle_or_lie_are_cut_off_and_the_service_goes_on(stub_file):
    _, house = served(stub_file, deadline=0.4, max_body_bytes=1000)
    with running(house) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(f"POST {SCORE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\nfew".encode())
            begun = time.monotonic()
            status, text = answer_on(slow)
            assert status == 408
            assert "3 bytes came" in text
            assert 0.3 < time.monotonic() - begun < 3
        assert send_whole(port, FLAT, stated=len(FLAT) + 7)[0] == 408  # the rest never comes
        assert send_whole(port, FLAT, stated=len(FLAT) - 30)[0] == 422  # cut off where it says it ends
        with socket.create_connection(("127.0.0.1", port), timeout=10) as endless:
            endless.sendall(f"POST {SCORE} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode())
            endless.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
            assert answer_on(endless)[0] == 413
        assert send_whole(port, FLAT)[0] == 200
        assert house.measures.registry.get_sample_value("dracones_inside") == 0


def test_bodies_in_the_house_share_a_bound(stub_file):
    _, house = served(stub_file, max_held_bytes=2 * len(FLAT) - 2, deadline=2.0)
    with running(house) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        head = f"POST {SCORE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(FLAT)}\r\n\r\n".encode()
        slow.sendall(head + FLAT[:-1])
        time.sleep(0.3)
        assert send_whole(port, FLAT)[0] == 429
        slow.sendall(FLAT[-1:])
        assert b" 200 " in slow.recv(65536)
        assert send_whole(port, FLAT)[0] == 200


def bomb(side=4000):
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"\x89PNG\r\n\x1a\n and no more", 422, "corrupt"),
        (GOOD[: len(GOOD) // 2], 422, "corrupt or truncated"),
        (bomb(), 422, "more than the limit of 1,000,000"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "not an image"),
        (BAD + b"\0" * 200_000, 422, "more than the limit of 100,000"),
    ],
)
def test_a_bad_image_is_said_to_be_one(stub_file, body, status, words):
    _, house = served(stub_file, limits=Limits(max_pixels=10**6, max_file_bytes=100_000))
    with client_of(house) as client:
        answer = client.post(SCORE, content=body, headers=RAW)
        assert answer.status_code == status
        assert words in answer.json()["detail"]
        assert client.post(SCORE, content=FLAT, headers=RAW).status_code == 200


def test_forms_without_files_damaged_or_with_too_many_are_refused(stub_file):
    _, house = served(stub_file, max_images=2)
    form = {"content-type": "multipart/form-data; boundary=x"}
    with client_of(house) as client:
        for body, headers in [
            (b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\nno file\r\n--x--\r\n", form),
            (b"nothing of the kind", form),
            (b"--x--\r\n", {"content-type": "multipart/form-data"}),
        ]:
            answer = client.post(SCORE, content=body, headers=headers)
            assert answer.status_code == 400
            assert "form" in answer.json()["detail"]
        answer = client.post(SCORE, files=[("image", (f"{i}.png", FLAT)) for i in range(3)])
        assert answer.status_code == 400
        assert "at most 2 images" in answer.json()["detail"]
        answer = client.post("/v1/models/part/score", files=[("image", ("x\x1b[31m.png", FLAT))])
        assert "\x1b" not in answer.text


def test_decoded_images_share_a_bound_and_give_it_back():
    async def run():
        decoder = Decoder(Limits(), max_bytes=8 * 8 * 3)
        first = await decoder.decode(FLAT, "a", time.monotonic() + 5)
        with pytest.raises(Late):
            await decoder.decode(FLAT, "b", time.monotonic() + 0.2)
        del first
        assert (await decoder.decode(FLAT, "c", time.monotonic() + 5)).shape == (8, 8, 3)
        with pytest.raises(UnreadableImage):
            await decoder.decode(b"nothing", "d", time.monotonic() + 5)
        decoder.close()

    asyncio.run(run())


def test_a_line_on_which_no_request_comes_is_closed(stub_file, monkeypatch):
    monkeypatch.setattr("dracones.serving.server._HEAD_SECONDS", 0.3)
    _, house = served(stub_file)
    with running(house) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as silent:
            assert silent.recv(10) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=5) as half:
            half.sendall(b"GET /healthz HTTP/1.1\r\nhost: loc")
            assert half.recv(10) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=5) as again:
            for _ in range(4):  # longer than one head may take, and a request in between
                again.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                text = b""
                while b"alive" not in text:
                    text += again.recv(4096)
                assert text.startswith(b"HTTP/1.1 200")
                time.sleep(0.15)


def test_a_client_that_hangs_up_leaves_no_trace(stub_file):
    _, house = served(stub_file)
    with running(house) as port:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as line:
                line.sendall(f"POST {SCORE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\nfew".encode())
        time.sleep(0.3)
        assert house.measures.registry.get_sample_value("dracones_inside") == 0
        assert send_whole(port, FLAT)[0] == 200


def test_an_estimate_of_nothing_refuses_nobody(stub_file):
    _, house = served(stub_file)
    intake = house.intake
    request = Request({"type": "http", "headers": [], "method": "POST", "path": "/"})

    async def enter():
        async with intake.admitted(request, house.served["part"]):
            assert (intake.inside, house.served["part"].coming) == (1, 1)
            raise Refused(422, "whatever happens inside")

    with pytest.raises(Refused):
        asyncio.run(enter())
    house.close()
    assert (intake.inside, house.served["part"].coming, intake.held) == (0, 0, 0)
