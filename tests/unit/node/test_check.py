from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.node.scripted import APP, make_app, on_a_loop
from umbel.arrays import Arrays
from umbel.errors import AppError, UsageError
from umbel.node.check import check
from umbel.node.config import Dataset, NodeConfig

SERVER = """
server = umbel.ServerApp(
    model=lambda: {"w": np.ones(4)},
    strategy=umbel.fed_avg(config={"do": "print('trained')"}),
    rounds=1,
)
"""
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@on_a_loop
async def test_an_app_is_trained_and_evaluated_once(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", APP + SERVER)
    found = await check(NodeConfig(name="berlin"), app, tmp_path, environment=ENVIRONMENT, server="myfed:server")
    assert found.ok
    assert [step.kind for step in found.steps] == ["train", "evaluate"]
    train, evaluate = found.steps
    assert train.output == "trained\n"
    assert set(train.metrics) == {"loss"}
    assert train.weight == 3
    assert train.size > 32
    assert evaluate.metrics == {"sum": 4.0}
    assert found.app.handlers == ("evaluate", "site", "train")
    assert found.seconds > 0


@on_a_loop
async def test_a_failure_is_a_value(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    model = Arrays({"w": np.ones(4)})
    found = await check(
        NodeConfig(), app, tmp_path, environment=ENVIRONMENT, model=model, settings={"do": "print('here'); 1/0"}
    )
    assert not found.ok
    assert found.steps[0].code == "client-failed"
    assert "ZeroDivisionError" in found.steps[0].traceback
    assert found.steps[0].output == "here\n"
    assert found.steps[1].code == ""


@on_a_loop
async def test_an_app_that_can_be_asked_nothing_cannot_be_loaded(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", "import umbel\nclient = umbel.ClientApp()\n")
    with pytest.raises(AppError, match=r"'myfed' cannot be loaded: .*no handler.*\n  What to do: register functions"):
        await check(NodeConfig(), app, tmp_path, environment=ENVIRONMENT)


@on_a_loop
async def test_what_is_missing_is_said(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    with pytest.raises(UsageError, match="no model to begin with"):
        await check(NodeConfig(), app, tmp_path, environment=ENVIRONMENT)
    with pytest.raises(UsageError, match="no data set 'lung'"):
        await check(NodeConfig(), app, tmp_path, environment=ENVIRONMENT, dataset="lung")
    two = NodeConfig(data={name: Dataset(name=name) for name in ("heart", "lung")})
    with pytest.raises(UsageError, match=r"several data sets, and none is the default\n.*--dataset: heart, lung"):
        await check(two, app, tmp_path, environment=ENVIRONMENT)
    broken = make_app(tmp_path / "broken", "import nothing_of_this_name\n", name="broken")
    with pytest.raises(AppError, match="nothing_of_this_name"):
        await check(NodeConfig(), broken, tmp_path, environment=ENVIRONMENT, model=Arrays({"w": np.ones(4)}))
