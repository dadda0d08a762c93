"""One run on a server, from packing it to its result."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from umbel import rng
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.client.determinism import isolated, prepare
from umbel.client.failures import report_failure
from umbel.codec import Json
from umbel.engine.app import ServerApp
from umbel.engine.arguments import check_trainable
from umbel.engine.checkpoint import Checkpoint, EarlyStopping
from umbel.engine.submission import EvaluationOnly, Submission
from umbel.errors import Failure, NotAllowed, NotThere, Rejected, UmbelError, UsageError
from umbel.progress import Display
from umbel.recipe import write_recipe
from umbel.remote.directory import RunDirectory
from umbel.remote.follower import Ending, Event, Follower, find_run
from umbel.remote.line import Line, patiently
from umbel.remote.outcome import ENDED, Outcome, error_of
from umbel.remote.parcel import Parcel, pack
from umbel.remote.place import RemotePlace
from umbel.remote.shipment import Shipment
from umbel.result import Result, as_model
from umbel.session import Callback, as_function, miss_metrics, only_checkpoint, with_roles_of

if TYPE_CHECKING:
    from umbel import wire
    from umbel.apps.describe import App

logger = logging.getLogger("umbel")
_TRIES = 10  # to read a result that changes meanwhile
_KEPT_BLOBS = 4  # the state's and the best model, now and a round ago


@final
class RemoteSession:
    """One run on a server.

    Args:
        line: to the server.
        place: which nodes.
        submission: what is done.
        app: that the nodes run.
        server: the server app that the submission is from; None where there is none.
        callbacks: called here after each round.
        name: of the run.
        directory: of the run, or None.
        recipe: what the directory remembers the run by.
        heard: called with each event.
        shipment: the app's wheel, for nodes that lack it; None: nothing travels.

    Attributes:
        run: at the server; None: it is not submitted yet.
        outcome: what it had come to when its result was made last.
    """

    def __init__(
        self,
        line: Line,
        place: RemotePlace,
        submission: Submission,
        app: App,
        *,
        server: ServerApp | None = None,
        callbacks: Sequence[Callback] = (),
        name: str = "run",
        directory: RunDirectory | None = None,
        recipe: Json = None,
        heard: Callable[[Event], object] = lambda _: None,
        shipment: Shipment | None = None,
    ) -> None:
        if shipment is not None:
            shipment.check_same(app)
        self._shipment = shipment
        self._line, self._place, self._submission = line, place, submission
        self._parcel: Parcel = pack(submission, app, server)
        self._callbacks = [(c, as_function(c)) for c in callbacks if not isinstance(c, Checkpoint | EarlyStopping)]
        self._name, self._directory, self._recipe, self._heard = name, directory, recipe, heard
        self._blobs: dict[str, Arrays] = dict(self._parcel.blobs)
        self._noted: list[Failure] = []  # of callbacks
        self._stopped, self._asked = "", 0
        self.run: wire.Run | None = None
        self.outcome = Outcome()
        self._server = server

    # --- submitting --------------------------------------------------------------------------

    def submit(self) -> wire.Run:
        """Hand the run to the server; doing it again gives the same run.

        Raises:
            Unreachable: nobody answers at the first try.
            RecipeChanged: the directory holds another run.
            NotAllowed: it holds somebody else's.
            InUse: another process works in the directory.
        """
        try:
            return self._submit()
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        if self._directory is not None:
            self._directory.release()

    def _submit(self) -> wire.Run:
        from umbel import wire

        me = self._line.call("GetServer", greeting())  # who cannot speak with this server learns it before all else
        key = secrets.token_hex(16)
        if self._directory is not None:
            address = self._line.address.without_secret()
            key = self._directory.begin(self._recipe, seed=self._submission.seed, server=address)
            self._check_mine(self._directory, me.person)
        for arrays in self._parcel.large:
            self._line.write(arrays)
        if self._shipment is not None:
            self._line.write_bytes(self._shipment.digest, memoryview(self._shipment.content))
        place = self._place
        request = self._parcel.request(key, self._name, nodes=place.nodes, labels=place.labels, dataset=place.dataset)
        if self._shipment is not None:
            self._shipment.add_to(request.app)
        run: wire.Run = patiently(lambda: self._line.call("SubmitRun", request)).run
        if self._directory is not None:
            self._directory.is_run(run.id)
            self._directory.check_rounds(run.round, self._submission.rounds)
            if self._goes_on(run):
                more = wire.ResumeRunRequest(run=run.id, rounds=self._submission.rounds or 0)
                run = patiently(lambda: self._line.call("ResumeRun", more)).run
        self.run = run
        return run

    def _check_mine(self, directory: RunDirectory, person: str) -> None:
        """Refuse a directory with a run of somebody else, in whose place another would begin.

        Raises:
            NotAllowed: it has.
        """
        run = directory.content["run"]
        with suppress(NotThere):  # it was removed
            owner = find_run(self._line, run).owner if run else person
            if owner != person:
                raise NotAllowed(
                    f"{directory.path} holds a run of {owner!r}, and you are {person!r} at this server",
                    advice=f"give another dir=, or log in as {owner!r}",
                )

    def _goes_on(self, run: wire.Run) -> bool:
        """Is there something left to do in a run that ended before?"""
        if run.status not in ENDED:
            return False
        return run.status != "finished" or (self._submission.rounds or 0) > run.rounds > 0

    # --- following ---------------------------------------------------------------------------

    def follow(self, shown: Display) -> Result:
        """Follow the run to its end, and give its result.

        Raises:
            RunError: it failed; of the class that a simulation raises.
            KeyboardInterrupt: Ctrl-C; the run goes on at the server.
        """
        run = self.run if self.run is not None else self.submit()
        try:
            return self._followed(run, shown)
        finally:
            self._release()

    def _followed(self, run: wire.Run, shown: Display) -> Result:
        follower = Follower(self._line, run.id, shown, after_round=self._after_round, heard=self._heard)
        try:
            ending = follower.to_the_end()
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(detached(run.id))
            raise
        finally:
            shown.close()
        return self._ended(run.id, ending)

    def _ended(self, run: str, ending: Ending) -> Result:
        status = ending.reason or ending.status
        if ending.status == "failed":
            raise self._failed(ending)
        result = self._result(status)
        last = result.history[-1]["round"] if len(result.history) else 0
        if self._stopped and (ending.status == "stopped" or last == self._asked):
            result = replace(result, status=f"stopped early: {self._stopped}")
        elif ending.status == "stopped":
            logger.warning("run-stopped: run %s was %s; what it had committed is its result", run[:8], status)
        if ending.status == "finished":
            self._miss_metrics(result)
        if self._directory is not None:
            self._directory.lay_out(result)
        return result

    def _miss_metrics(self, result: Result) -> None:
        strategy = self._server.strategy if self._server is not None else None
        combined = strategy.metrics if strategy is not None else ()
        miss_metrics(result.history, self._submission.checkpoint, self._submission.stopping, combined)

    def _failed(self, ending: Ending) -> UmbelError:
        error = error_of(ending.reason, ending.code, ending.failures)
        if self._parcel.main and "code that runs at the server" in error.what:
            return Rejected(
                f"{self._parcel.why}; the server does not have {self._parcel.main}: {error.what}", advice=error.advice
            )
        return error

    def _result(self, status: str) -> Result:
        assert self.run is not None
        run = self._read(self.run.id)
        seconds = (run.ended or time.time()) - (run.started or run.submitted)
        result = self.outcome.result(
            status=status,
            seed=self._submission.seed,
            name=self._name,
            seconds=max(0.0, seconds),
            initial=self._submission.initial,
            dir=self._directory.path if self._directory is not None else None,
            also=self._noted,
        )
        self._forget()
        return result

    def _read(self, id: str) -> Any:
        """Read what came out so far; gives the run. While it goes on, what it had a moment ago may be gone."""
        for left in reversed(range(_TRIES)):
            run, found = patiently(lambda: self._line.run(id))
            try:
                self.outcome = Outcome.read(found, self._fetch)
                return run
            except NotThere:
                if not left:
                    raise
        raise AssertionError("it tries at least once")

    def _fetch(self, digest: str) -> Arrays:
        """The arrays of a digest, from here if they are."""
        assert self.run is not None
        found = self._blobs.pop(digest, None)
        if found is None:
            found = self._line.read(self.run.id, digest)
        self._blobs[digest] = found  # the last that was used stands last
        return found

    def _forget(self) -> None:
        while len(self._blobs) > _KEPT_BLOBS:
            del self._blobs[next(iter(self._blobs))]

    # --- callbacks ---------------------------------------------------------------------------

    def _after_round(self, round: int) -> None:
        """Call the callbacks. The server goes on meanwhile: who is slow sees several rounds at once."""
        if not self._callbacks or round <= self._asked or self._stopped:
            return
        result = self._result("running")
        self._asked = int(result.history[-1]["round"]) if len(result.history) else round
        reasons = [self._call(callback, function, result, self._asked) for callback, function in self._callbacks]
        self._stopped = next((reason for reason in reasons if reason), "")
        if self._stopped:
            self._stop()

    def _call(self, callback: Callback, function: Callable[[Result], Any], result: Result, round: int) -> str:
        try:
            reason = function(result)
        except Exception as error:  # noqa: BLE001  # a task ends here; the run goes on
            name = getattr(callback, "__name__", type(callback).__name__)
            self._noted.append(report_failure(name, round, "callback", error))
            return ""
        return reason if isinstance(reason, str) else ""

    def _stop(self) -> None:
        from umbel import wire

        assert self.run is not None
        request = wire.StopRunRequest(run=self.run.id)
        with suppress(Rejected):  # it has ended on its own
            patiently(lambda: self._line.call("StopRun", request))


def greeting() -> wire.GetServerRequest:
    """What this program says of itself."""
    import sys

    from umbel import wire
    from umbel.version import __version__

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return wire.GetServerRequest(
        versions=wire.VERSIONS, program=f"umbel {__version__}, Python {python}", time=time.time()
    )


def detached(run: str) -> str:
    """What is said to who lets a run go on alone."""
    short = run[:8]
    return (
        f"The run goes on at the server as {short}. To follow it: umbel logs -f {short}; to stop it: umbel stop "
        f"{short}; to get what it has come to: umbel fetch {short} DIRECTORY."
    )


def submission_of(
    server: ServerApp,
    client: ClientApp,
    place: RemotePlace,
    *,
    seed: int | None,
    rounds: int | None,
    given: Any,
    callbacks: Sequence[Callback],
    directory: RunDirectory | None,
) -> tuple[Submission, Json]:
    """A run as data, and its recipe; the initial model is made here.

    Args:
        server: the server app.
        client: the client app.
        place: which nodes.
        seed: of the run; None: that of the directory, or drawn.
        rounds: how many; None: as many as the server app says.
        given: the model to start from, or None.
        callbacks: of which some travel.
        directory: of the run, or None.
    """
    known = directory.seed if directory is not None else None
    seed = seed if seed is not None else known if known is not None else secrets.randbits(32)
    rounds = rounds if rounds is not None else server.rounds
    initial = _initial(server, given, seed, place.threads)
    checkpoint = only_checkpoint(callbacks)
    recipe = write_recipe(
        server,
        client,
        place.recipe(),
        seed=seed,
        rounds=rounds,
        initial=initial,
        given=given is not None,
        checkpoint=checkpoint,
    )
    made = Submission(
        seed=seed,
        rounds=rounds,
        initial=initial,
        handlers=tuple(sorted(client.names())),
        strategy=server.strategy,
        threads=place.threads,
        checkpoint=checkpoint,
        stopping=tuple(c for c in callbacks if isinstance(c, EarlyStopping)),
        recipe=recipe,
    )
    return made, recipe


def evaluation_of(model: Arrays, client: ClientApp, place: RemotePlace, what: EvaluationOnly, seed: int) -> Submission:
    """One evaluation as data."""
    return Submission(
        seed=seed,
        rounds=1,
        initial=model,
        handlers=tuple(sorted(client.names())),
        evaluation=what,
        threads=place.threads,
    )


def _initial(server: ServerApp, given: Any, seed: int, threads: int) -> Arrays | None:
    """The model at the start, made as a simulation makes it."""
    with isolated(threads):
        prepare(rng.derive(seed, "initial"), threads)
        model = server.initial_model()
        if given is not None:
            own = as_model(given).canonical()
            model = own if model is None else with_roles_of(model, own)
    if model is not None:
        check_trainable("the initial model", model)
    return model


def directory_of(dir: str | os.PathLike[str] | Path | None) -> RunDirectory | None:
    """The directory of a run, if one is given."""
    return RunDirectory.open(dir) if dir is not None else None


def check_labels(labels: Mapping[str, Any]) -> Mapping[str, str]:
    """Labels as text.

    Raises:
        UsageError: they are no mapping.
    """
    if not isinstance(labels, Mapping):
        raise UsageError(f"labels is a {type(labels).__name__}", advice='give a mapping: labels={"country": "de"}')
    return {str(name): str(value) for name, value in labels.items()}


__all__ = [
    "RemoteSession",
    "check_labels",
    "detached",
    "directory_of",
    "evaluation_of",
    "greeting",
    "submission_of",
]
