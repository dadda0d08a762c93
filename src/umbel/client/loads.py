"""What an app's set-up and data handlers returned in this process, and when they are called."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, final

from umbel import rng
from umbel.client.app import ClientApp
from umbel.client.context import MISSING, ClientInfo, Conditions, Context
from umbel.client.kept import Kept
from umbel.client.memory import resident
from umbel.codec import fingerprint
from umbel.errors import UsageError

_CACHED_CLIENTS = 1024
_CACHED_BYTES = 1 << 30  # in each process: much beside what PyTorch takes, little beside what machines have per core
_DATA_SEED = 0  # a client's data is its own, and the same in every run: a split drawn there does not move
_CACHED_SITES = 64


@final
class Loads:
    """Set-up, once per process or site, and the data of the last clients.

    Args:
        app: the user's code.
        seed: of the run.
        device: where to compute.
        scratch: gives the directory for temporary files; None: the system's.
        prepare: called before a handler, with what it is in words and what seeds the generators.
        done: called when it has returned something of use.
    """

    def __init__(
        self,
        app: ClientApp,
        seed: int,
        *,
        device: Callable[[], str],
        scratch: Callable[[], str] | None,
        prepare: Callable[[str, int], None],
        done: Callable[[], None],
    ) -> None:
        self._app, self._seed, self._device, self._scratch = app, seed, device, scratch
        self._prepare, self._done = prepare, done
        self._shared: OrderedDict[str, Any] = OrderedDict()  # one for all clients, or one for each site
        self._site_matters = False  # does setup look at the site?
        self._data = Kept(_CACHED_CLIENTS, _CACHED_BYTES)

    @property
    def any(self) -> bool:
        """May there be code of the user's to run before a task's own handler?"""
        return not self._app.handlers.keys().isdisjoint(("setup", "data"))

    def shared_of(self, client: ClientInfo) -> Any:
        """What set-up returned, for this client's site if it looks at that."""
        setup = self._app.handlers.get("setup")
        if setup is None:
            return MISSING
        site = fingerprint(client.site) if self._site_matters else ""
        if site not in self._shared:
            ctx = Context(
                ClientInfo(name="", site=client.site),
                Conditions(
                    kind="setup",
                    key=lambda _: rng.derive(self._seed, "ctx", "setup"),
                    device=self._device,
                    scratch=self._scratch,
                ),
            )
            shared = self._load(setup, ctx, "setup")
            if ctx.site.used and not self._site_matters:
                self._site_matters, site = True, fingerprint(client.site)
            _keep(self._shared, site, shared, _CACHED_SITES)
        return self._shared[site]

    def data_of(self, client: ClientInfo) -> Any:
        """What the data handler returned for this client."""
        load = self._app.handlers.get("data")
        if load is None:
            return MISSING
        if client.name not in self._data:
            ctx = Context(
                client,
                Conditions(
                    kind="data",
                    key=lambda name: rng.derive(_DATA_SEED, "ctx", "data", name),
                    device=self._device,
                    scratch=self._scratch,
                ),
                shared=self.shared_of(client),
            )
            before = resident()
            self._data.keep(client.name, self._load(load, ctx, "data", client.name), resident() - before)
        return self._data[client.name]

    def _load(self, handler: Callable[..., Any], ctx: Context, kind: str, *names: str | int) -> Any:
        seed = _DATA_SEED if kind == "data" else self._seed
        self._prepare(f"{kind} handler", rng.derive(seed, "task", kind, *names))
        try:
            loaded = handler(ctx)
        finally:
            ctx.close()
        if _used_up(loaded):
            getattr(loaded, "close", lambda: None)()
            raise UsageError(
                f"its {kind} handler returned a {type(loaded).__name__}, which can be used once",
                advice="return what can be used again in every round, for example a list",
            )
        self._done()
        return loaded


def _used_up(loaded: Any) -> bool:
    """Is it empty, or useless, when it was used once: a generator, a coroutine, what zip, map, open or iter gave?"""
    own = isinstance(loaded, Iterator) and type(loaded).__module__ in ("builtins", "_io", "_csv")
    return own or inspect.iscoroutine(loaded) or inspect.isasyncgen(loaded)


def _keep(cache: OrderedDict[str, Any], name: str, value: Any, most: int) -> None:
    cache[name] = value
    if len(cache) > most:
        cache.popitem(last=False)


__all__ = ["Loads"]
