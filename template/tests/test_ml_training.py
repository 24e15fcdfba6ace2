"""The plain functions of flows/ml_training.py, and one real run."""

import base64
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.ml_training import Model, fit, make_points, ml_training, picture, save


def test_the_same_seed_gives_the_same_points() -> None:
    assert make_points(50, seed=1) == make_points(50, seed=1)
    assert make_points(50, seed=1) != make_points(50, seed=2)


def test_points_lie_near_the_line() -> None:
    points = make_points(200, seed=1)
    assert len(points) == 200
    assert all(abs(y - (3 * x + 2)) < 0.6 for x, y in points)


def test_fit_finds_the_line() -> None:
    points = [(n / 10, 3 * n / 10 + 2) for n in range(10)]
    model = fit(points, learning_rate=0.5, epochs=500)
    assert (model.slope, model.intercept) == pytest.approx((3, 2), abs=0.01)
    assert model.error < 0.01


def test_fit_scores_points_that_it_did_not_train_with() -> None:
    training, held_out = [(0.0, 2.0)] * 8, [(0.0, 5.0)] * 2
    assert fit(training + held_out, learning_rate=0.5, epochs=100).error == pytest.approx(3)


def test_more_epochs_fit_better() -> None:
    points = make_points(100, seed=1)
    assert fit(points, 0.1, epochs=200).error < fit(points, 0.1, epochs=10).error


def test_a_model_that_diverges_has_an_error_and_raises_none() -> None:
    assert fit(make_points(50, seed=1), learning_rate=5, epochs=200).error > 1e100


def test_the_picture_is_one_that_a_browser_shows() -> None:
    points = make_points(20, seed=1)
    kind, content = picture(points, fit(points, learning_rate=0.5, epochs=100)).split(",")
    assert kind == "data:image/svg+xml;base64"
    shapes = [shape.tag.split("}")[1] for shape in ElementTree.fromstring(base64.b64decode(content))]  # noqa: S314
    assert shapes == ["circle"] * 20 + ["line"]


def test_save_writes_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "new"))
    model = Model(learning_rate=0.1, slope=3, intercept=2, error=0.01)
    save.fn(model)
    assert Model.model_validate(json.loads((tmp_path / "new" / "model.json").read_text("utf-8"))) == model


@pytest.mark.server
def test_flow_keeps_the_best_candidate(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    # 50 is so large that the training runs away, and its error is not a number
    state = ml_training(learning_rates=[50, 0.001, 0.5], epochs=300, points=50, return_state=True)
    assert state.is_completed()
    assert state.result().learning_rate == 0.5
    assert json.loads((tmp_path / "model.json").read_text("utf-8"))["learning_rate"] == 0.5
    with get_client(sync_client=True) as client:
        key = ArtifactFilterKey(like_="ml-training-")
        left = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=ArtifactFilter(key=key))}
    assert left.keys() >= {"ml-training-candidates", "ml-training-fit", "ml-training-progress"}
    assert left["ml-training-progress"].data == 100
    assert all(artifact.description for artifact in left.values())


@pytest.mark.server
def test_a_model_that_is_kept_outlasts_a_training_without_result(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    (tmp_path / "model.json").write_text("kept", "utf-8")
    assert ml_training(learning_rates=[50, 60], epochs=300, points=50, return_state=True).is_failed()
    assert (tmp_path / "model.json").read_text("utf-8") == "kept"
