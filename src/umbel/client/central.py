"""Evaluations where the server is, after rounds: their failures are values, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from umbel.arrays import Arrays
from umbel.client.context import ClientInfo, Conditions, Context, pick_device
from umbel.client.failures import report_failure
from umbel.engine.app import CentralTest
from umbel.engine.checksum import Checksum
from umbel.errors import Failure, UsageError
from umbel.update import Metrics


@final
class CentralTests:
    """What a server app evaluates after its rounds; call it with the model and the round.

    Args:
        tests: of the app.
        prepare: seeds the generators from a stream of the run's, by its names, sets the threads, and gives the
            stream's key.
        devices: "auto", or a device's name.
    """

    def __init__(
        self, tests: Sequence[CentralTest], prepare: Callable[[str, int, int], int], *, devices: str = "auto"
    ) -> None:
        self._tests, self._prepare, self._devices = tests, prepare, devices

    def __call__(self, model: Arrays, round: int) -> tuple[Mapping[str, Any], Failure | None]:  # the field's word
        """The metrics of this round's evaluations, and what went wrong."""
        values: dict[str, Any] = {}
        checksum = Checksum(model)
        for n, test in enumerate(self._tests):
            try:
                if round % test.every == 0:
                    found = self._test(test, n, model, round)
                    _check_apart(values, found)
                    values |= found
            except Exception as error:  # noqa: BLE001  # a task ends here; the run goes on
                return values, report_failure("server", round, "central evaluation", error)
            finally:
                checksum.check(f"round {round}: the server's evaluate")
        return values, None

    def _test(self, test: CentralTest, n: int, model: Arrays, round: int) -> Mapping[str, Any]:  # the field's word
        key = self._prepare("central", n, round)
        ctx = Context(
            ClientInfo(name="server"),
            Conditions(
                kind="server.evaluate",
                key=lambda _: key,
                round=round,
                device=lambda: pick_device(self._devices),
            ),
        )
        try:
            returned = test.function(model, ctx)
        finally:
            ctx.close()
        if not isinstance(returned, Metrics):
            raise UsageError(f"it returned a {type(returned).__name__}", advice='return umbel.Metrics({"test": ...})')
        return returned.values


def _check_apart(values: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Two central evaluations may not call two things by one name."""
    name = next((name for name in found if name in values), None)
    if name is not None:
        raise UsageError(f"two central evaluations have a metric {name!r}", advice="rename it in one of the two")


__all__ = ["CentralTests"]
