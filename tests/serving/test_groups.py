"""A model calibrated by groups in service: each request names its images' group and gets that group's verdict."""

import base64
import json

import numpy as np
import pytest

import dracones
from docs_world import texture
from dracones.serving import Settings
from dracones.serving.audit import KeptImages
from dracones.serving.house import House
from serving_parts import BAD, GOOD, SIZE, client_of

RAW = {"content-type": "image/png"}
SCORE = "/v1/models/part/score"


@pytest.fixture(scope="module")
def grouped(detector):
    """Two cameras, of which the second sees twice the noise."""
    own = dracones.Detector(detector.method)
    own.config = detector.config
    own.know(detector.fitted())
    left = [texture(1000 + i, SIZE) for i in range(40)]
    noise = np.random.default_rng(0).normal(0, 25, (40, *SIZE, 3))
    right = [(texture(2000 + i, SIZE) + noise[i]).clip(0, 255).astype(np.uint8) for i in range(40)]
    return own.calibrate(np.stack(left + right), false_alarm_rate=0.05, groups=["left"] * 40 + ["right"] * 40)


@pytest.fixture
def client(grouped, tmp_path):
    path = grouped.save(tmp_path / "part.safetensors")
    settings = Settings(reload_every=0, deadline=20, audit=tmp_path / "audit.jsonl", confirmed=tmp_path / "confirmed")
    with client_of(House({"part": path}, dracones.load, settings)) as found:
        yield found


def test_a_verdict_is_by_the_calibration_of_the_group_that_is_named(client, grouped, tmp_path):
    limits = grouped.groups.thresholds
    assert limits["right"] > limits["left"]
    for group in ("left", "right"):
        said = client.post(f"{SCORE}?group={group}&source=hand", content=BAD, headers=RAW).json()
        (image,) = said["images"]
        expected = grouped.groups.p_values([image["score"]], [group])[0]
        assert (said["threshold"], image["group"]) == (limits[group], group)
        assert image["p_value"] == pytest.approx(expected)
        assert image["is_anomaly"] is (image["score"] > limits[group])
        assert "of the 40 good images" in image["words"]
        headers = client.post(f"/v1/models/part/heatmap?group={group}", content=BAD, headers=RAW).headers
        assert float(headers["x-dracones-p-value"]) == pytest.approx(expected)
    assert client.get("/v1/models/part").json()["groups"] == limits
    client.house.audit.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["group"], line["threshold"]) for line in lines[::2]] == list(limits.items())
    assert lines[0]["source"] == "hand"


def test_images_of_both_groups_are_scored_together(grouped):
    from dracones.serving.judging import judge

    images = [texture(i, SIZE) for i in range(4)]
    found = judge(grouped, images, False, ["left", "right", "centre", "left"])
    assert [getattr(each, "group", None) for each in found] == ["left", "right", None, "left"]
    assert "groups that were not calibrated" in str(found[2])


def test_a_request_without_a_known_group_is_refused_by_name(client):
    for query, said in (
        ("", "needs the images' group"),
        ("?group=rihgt", "knows no group 'rihgt' (?group=); there is"),
    ):
        for route in (SCORE, "/v1/models/part/heatmap", "/v1/models/part/confirm"):
            answer = client.post(route + query, content=GOOD, headers=RAW)
            assert answer.status_code == 422
            assert said in answer.json()["detail"]
            assert "'right'" in answer.json()["detail"]


def test_one_calibration_for_all_takes_no_group(model):
    with client_of(House({"part": model}, dracones.load, Settings(reload_every=0))) as client:
        answer = client.post(f"{SCORE}?group=left", content=GOOD, headers=RAW)
        assert answer.status_code == 422
        assert "one calibration for all images; leave out the group" in answer.json()["detail"]
        assert client.get("/v1/models/part").json()["groups"] is None


def test_kserve_takes_the_group_as_a_parameter(client, grouped):
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(BAD).decode()]}
    said = client.post("/v2/models/part/infer", json={"inputs": [tensor], "parameters": {"group": "right"}}).json()
    outputs = {each["name"]: each["data"][0] for each in said["outputs"]}
    assert outputs["p_value"] == pytest.approx(grouped.groups.p_values([outputs["score"]], ["right"])[0])
    refused = client.post("/v2/models/part/infer", json={"inputs": [tensor]})
    assert refused.status_code == 400
    assert "needs the images' group" in refused.json()["error"]


def test_the_monitor_compares_each_group_with_its_own_images(client):
    for group in ("left", "left", "right"):
        image = GOOD if group == "left" else BAD
        client.post(f"{SCORE}?group={group}", content=image, headers=RAW)
    monitor = client.get("/v1/models/part/recent").json()["monitor"]
    assert {name: each["seen"] for name, each in monitor["sources"].items()} == {"left": 1, "right": 1}


def test_confirmed_images_lie_by_group(client, tmp_path):
    assert client.post("/v1/models/part/confirm?group=left", content=GOOD, headers=RAW).json()["kept"] == 1
    assert [path.parent.name for path in (tmp_path / "confirmed" / "part").rglob("*.png")] == ["left"]


@pytest.mark.parametrize("group", ["..", "../..", "/etc", ".", "", "a/../../b", "a b/c", ".hidden"])
def test_no_group_leads_out_of_the_folder(tmp_path, group):
    kept = KeptImages(tmp_path / "kept").keep(GOOD, "part", group)
    assert kept.resolve().is_relative_to((tmp_path / "kept" / "part").resolve())
    assert kept.is_file()
