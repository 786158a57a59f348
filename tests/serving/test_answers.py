"""The service says what the detector says: of one image and of many, as JSON, a picture, and in KServe's protocol."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import dracones
from docs_world import texture
from dracones.serving import Settings
from dracones.serving.house import House
from serving_parts import BAD, FLAT, GOOD, SIZE, Stub, client_of, house_of, png

RAW = {"content-type": "image/png"}


def predicted(detector, *images):
    found = detector.predict(np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in images]))
    return found, [float(score) for score in found.scores]


def test_one_image_gets_the_detectors_own_verdict(client, detector):
    found, scores = predicted(detector, BAD)
    answer = client.post("/v1/models/part/score", content=BAD, headers=RAW)
    said = answer.json()
    assert answer.status_code == 200
    assert said["images"][0]["score"] == pytest.approx(scores[0], rel=1e-6)
    assert said["images"][0]["p_value"] == found.p_values[0]
    assert said["images"][0]["is_anomaly"] is True
    assert said["threshold"] == detector.threshold
    assert said["images"][0]["words"].startswith("None of the 60 good images")


def test_many_images_keep_their_order_and_a_broken_one_spoils_none(client, detector):
    _, scores = predicted(detector, GOOD, BAD)
    files = [("image", ("a.png", GOOD)), ("image", ("no.png", b"no image")), ("image", ("b.png", BAD))]
    said = client.post("/v1/models/part/score", files=files).json()["images"]
    assert [each["name"] for each in said] == ["a.png", "no.png", "b.png"]
    assert [said[0]["score"], said[2]["score"]] == pytest.approx(scores, rel=1e-5)
    assert said[1]["score"] is None
    assert "not an image" in said[1]["error"]


def test_images_of_several_sizes_are_scored_as_the_detector_scores_each(client, detector):
    images = [texture(7, (20, 50)), texture(8, (64, 33)), texture(9, SIZE)]
    files = [("image", (f"{i}.png", png(each))) for i, each in enumerate(images)]
    said = client.post("/v1/models/part/score?heatmap=true", files=files).json()["images"]
    for image, each in zip(images, said, strict=True):
        assert each["score"] == pytest.approx(float(detector.predict(image[None]).scores[0]), rel=1e-5)
        layer = Image.open(io.BytesIO(base64.b64decode(each["heatmap"].partition(",")[2])))
        assert (layer.height, layer.width) == image.shape[:2]


def test_a_layer_is_hottest_where_the_map_is_and_clear_where_it_is_cold(client, detector):
    said = client.post("/v1/models/part/score?heatmap=true", content=BAD, headers=RAW).json()["images"][0]
    layer = np.asarray(Image.open(io.BytesIO(base64.b64decode(said["heatmap"].partition(",")[2]))))
    heat = detector.predict(np.asarray(Image.open(io.BytesIO(BAD)))[None]).maps[0]
    low, high = detector.heat_range.colours
    opacity = np.clip((heat - low) / (high - low), 0, 1) * 255
    assert np.abs(layer[..., 3] - opacity).max() <= 1
    assert layer[..., 3].max() == 255


def test_a_heat_map_is_a_picture_with_the_verdict_in_its_headers(client, detector):
    answer = client.post("/v1/models/part/heatmap", content=BAD, headers=RAW)
    picture = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/png"
    assert picture.width >= SIZE[1]
    assert answer.headers["x-dracones-is-anomaly"] == "true"
    assert float(answer.headers["x-dracones-score"]) == pytest.approx(predicted(detector, BAD)[1][0], rel=1e-6)


def test_a_model_without_maps_says_so(stub_file):
    with client_of(house_of(stub_file, lambda path: Stub())) as client:
        answer = client.post("/v1/models/part/heatmap", content=FLAT, headers=RAW)
        assert answer.status_code == 422
        assert "gives no heat maps" in answer.json()["detail"]
        assert (
            client.post("/v1/models/part/score?heatmap=true", content=FLAT, headers=RAW).json()["images"][0]["score"]
            == 77
        )


def test_an_image_that_the_model_does_not_take_leaves_the_others_their_verdict(stub_file):
    with client_of(house_of(stub_file, lambda path: Stub())) as client:
        thirteen = png(np.full((8, 8, 3), 13, np.uint8))
        files = [("image", ("a.png", FLAT)), ("image", ("13.png", thirteen)), ("image", ("c.png", FLAT))]
        said = client.post("/v1/models/part/score", files=files).json()["images"]
        assert [each["score"] for each in said] == [77, None, 77]
        assert said[1]["error"] == "thirteen is not for me"


def test_unknown_models_are_answered_with_the_nearest_names(client):
    for path in ("/v1/models/prat", "/v1/models/prat/recent", "/v2/models/prat"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "'part'" in str(answer.json())
    assert client.post("/v1/models/prat/score", content=GOOD, headers=RAW).status_code == 404


def test_kserve_gives_the_same_numbers_from_pixels_and_from_files(client, detector):
    found, scores = predicted(detector, GOOD, BAD)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in (GOOD, BAD)]).transpose(0, 3, 1, 2)
    decoded = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    encoded = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [2],
        "data": [base64.b64encode(each).decode() for each in (GOOD, BAD)],
    }
    for tensor in (decoded, encoded):
        asked = {"id": "7", "inputs": [tensor], "outputs": [{"name": name} for name in ("score", "is_anomaly", "map")]}
        said = client.post("/v2/models/part/infer", json=asked).json()
        outputs = {each["name"]: each for each in said["outputs"]}
        assert said["id"] == "7"
        assert list(outputs) == ["score", "is_anomaly", "map"]
        assert outputs["score"]["data"] == pytest.approx(scores, rel=1e-5)
        assert outputs["is_anomaly"]["data"] == found.is_anomaly.tolist()
        assert outputs["map"]["shape"] == [2, *SIZE]
        assert np.array(outputs["map"]["data"]).reshape(2, *SIZE) == pytest.approx(np.stack(found.maps), rel=1e-4)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"shape": [1, 3, 2, 2], "data": [1, 2, 3]}, "3 values"),
        ({"shape": [1, 1, 1, 2], "data": [1, 300]}, "outside 0 to 255"),
        ({"shape": [1, 1, 1, 2], "data": [1, 0.5]}, "type float64"),
        ({"shape": [2, 2], "data": [1, 2, 3, 4]}, r"\[B, C, H, W\] is expected"),
        ({"shape": [1, 1, 1, 1], "data": [[1], [2, 3]]}, "UINT8 of shape"),
        ({"shape": [10**6, 1, 1, 1], "data": [1]}, "1000000 images"),
        ({"shape": [1, 1, 10**9, 10**9], "data": [1]}, "pixels, more than the limit"),
        ({"shape": [1], "data": ["no base64!"], "datatype": "BYTES"}, "no base64"),
        ({"shape": [2], "data": ["aGVsbG8="], "datatype": "BYTES"}, "a list of 2 texts"),
        ({"shape": [1], "data": ["aGVsbG8="], "datatype": "BYTES"}, "not an image"),
        ({"shape": [1, 1, 1, 1], "data": [1], "name": "picture"}, "the only one is 'image'"),
        ({"shape": [1, 1, 1, 1], "data": [1], "datatype": "FP32"}, "no request of the protocol"),
    ],
)
def test_kserve_refuses_what_it_cannot_take_in_its_own_words(client, tensor, words):
    asked = {"inputs": [{"name": "image", "datatype": "UINT8", **tensor}]}
    answer = client.post("/v2/models/part/infer", json=asked)
    assert answer.status_code in (400, 413)
    with pytest.raises(ValueError, match=words):
        raise ValueError(answer.json()["error"])


def test_the_facts_of_a_model_and_the_last_hundred(client, detector):
    client.post("/v1/models/part/score?source=camera", content=BAD, headers=RAW)
    client.post("/v1/models/part/score?source=camera", content=BAD, headers=RAW)
    (facts,) = client.get("/v1/models").json()
    assert facts == client.get("/v1/models/part").json()
    assert (facts["method"], facts["calibrated_on"], facts["file"]) == ("padim", 60, "part.safetensors")
    recent = client.get("/v1/models/part/recent").json()
    assert [each["is_anomaly"] for each in recent["verdicts"]] == [True, True]
    assert recent["monitor"]["seen"] == 1, "an image that is sent again is no news of the line"
    assert recent["monitor"]["sources"]["camera"]["seen"] == 1


def test_the_monitor_tells_that_the_images_have_changed(stub_file):
    with client_of(house_of(stub_file, lambda path: Stub())) as client:
        for level in range(101, 141):
            image = png(np.full((8, 8, 3), level, np.uint8))
            assert client.post("/v1/models/part/score?source=line", content=image, headers=RAW).status_code == 200
        assert client.get("/v1/models/part/recent").json()["monitor"]["alarm"] is True
        assert 'dracones_monitor_alarm{model="part",source="line"} 1.0' in client.get("/metrics").text


def test_measures_count_what_happened(client):
    client.post("/v1/models/part/score", content=BAD, headers=RAW)
    client.post("/v1/models/part/score", content=b"no image", headers=RAW)
    text = client.get("/metrics").text
    for line in (
        'dracones_requests_total{route="/v1/models/{name}/score",status="200"} 1.0',
        'dracones_requests_total{route="/v1/models/{name}/score",status="422"} 1.0',
        'dracones_images_total{model="part",verdict="anomaly"} 1.0',
        'dracones_images_total{model="part",verdict="unjudged"} 1.0',
        "dracones_admitted_total 2.0",
        "dracones_finished_total 2.0",
        "dracones_inside 0.0",
        'dracones_batch_images_sum{model="part"} 1.0',
    ):
        assert line in text


def test_a_model_without_threshold_is_served_only_where_that_is_asked_for(tmp_path, detector):
    view = detector.tiled((32, 32))
    path = view.save(tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"has no threshold.*dracones calibrate"):
        house_of(path, dracones.load)
    house = House({"bare": path}, dracones.load, Settings(reload_every=0), without_threshold=True)
    with client_of(house) as client:
        said = client.post("/v1/models/bare/score", content=BAD, headers=RAW).json()
        assert said["threshold"] is None
        assert said["images"][0]["is_anomaly"] is None
        assert "nobody knows" in said["images"][0]["words"]
