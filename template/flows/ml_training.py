"""Train one model per learning rate, side by side, and keep the best.

The model is a straight line fitted by gradient descent: small enough to read, and it
has what a real one has: candidates, a hold-out set, a score, a winner that is saved.
"""

import json
import math
import random
from collections.abc import Sequence
from typing import Annotated

from prefect import flow, get_run_logger, task, unmapped
from prefect.artifacts import create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, Field

from flows.storage import data_folder

Point = tuple[float, float]
LearningRates = Annotated[Sequence[float], Field(min_length=1)]
Count = Annotated[int, Field(ge=10, le=100_000)]


class Model(BaseModel):
    """A fitted line and its error: root mean square on points it was not trained with."""

    learning_rate: float
    slope: float
    intercept: float
    error: float


def make_points(count: int, seed: int) -> list[Point]:
    """Return `count` noisy points around y = 3x + 2; the same seed gives the same points."""
    source = random.Random(seed)
    return [(x, 3 * x + 2 + source.gauss(0, 0.1)) for x in (source.random() for _ in range(count))]


def fit(points: list[Point], learning_rate: float, epochs: int) -> Model:
    """Fit a line to the first four fifths of `points` and score it on the rest."""
    split = len(points) * 4 // 5
    training, held_out = points[:split], points[split:]
    slope = intercept = 0.0
    for _ in range(epochs):
        errors = [(x, slope * x + intercept - y) for x, y in training]
        slope -= learning_rate * 2 * sum(error * x for x, error in errors) / split
        intercept -= learning_rate * 2 * sum(error for _, error in errors) / split
    error = (sum((slope * x + intercept - y) ** 2 for x, y in held_out) / len(held_out)) ** 0.5
    return Model(learning_rate=learning_rate, slope=slope, intercept=intercept, error=error)


@task(retries=1)
def train(points: list[Point], learning_rate: float, epochs: int) -> Model:
    return fit(points, learning_rate, epochs)


@task
def save(model: Model) -> None:
    folder = data_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(model.model_dump(), indent=2), "utf-8")


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4), timeout_seconds=4 * 3600)  # ty: ignore[no-matching-overload]
def ml_training(
    learning_rates: LearningRates = (0.01, 0.05, 0.1, 0.5),
    epochs: Count = 200,
    points: Count = 500,
    seed: int = 7,
) -> Model:
    """Train a model per learning rate and keep the best.

    Args:
        learning_rates: the candidates; each trains as one task
        epochs: passes over the training points
        points: how many points to train and score with
        seed: the same seed gives the same points
    """
    data = make_points(points, seed)
    models = train.map(unmapped(data), learning_rates, unmapped(epochs)).result()
    models.sort(key=lambda model: (math.isnan(model.error), model.error))  # a model that diverged comes last
    best = models[0]
    create_table_artifact(
        [model.model_dump() for model in models],
        key="ml-training-candidates",
        description="Candidates of the last training, the best first",
    )
    save(best)
    get_run_logger().info("Best learning rate %s, error %.4f", best.learning_rate, best.error)
    return best


if __name__ == "__main__":
    ml_training()
