"""What a server and its nodes cost, as processes of their own on this machine, over TLS.

python -m bench.deployment [D1 D2 ...] [--dir DIRECTORY] [--nodes COUNT]

D1: a round of tiny answers, and how often it waits for the disk. D2 and D6: a large model there and back, beside a bare
gRPC stream and a bare file in the same run. D3: the server's memory under many uploads. D4: many idle nodes.
D5: a server that is killed. Prints one JSON line per figure, then a table. Needs Linux.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.deployed.copies import copies
from bench.deployed.crowd import NODES, crowd
from bench.deployed.models import model_ways
from bench.deployed.restart import restarts
from bench.deployed.rounds import commits, round_times
from bench.deployed.uploads import uploads
from bench.figures import Figure, report

Measure = Callable[[Path], Iterator[Figure]]


def main() -> int:
    """Print each figure as it comes, then the table; return 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", nargs="*", help="D1 to D6; all if none is given")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="on the disk that is used")
    parser.add_argument("--nodes", type=int, default=NODES, help="of D4")
    options = parser.parse_args()
    measures: dict[str, tuple[Measure, ...]] = {
        "D1": (round_times, commits),
        "D2": (model_ways,),
        "D3": (uploads,),
        "D4": (lambda directory: crowd(directory, options.nodes),),
        "D5": (restarts,),
        "D6": (model_ways, copies),
    }
    which = [name.upper() for name in options.which] or list(measures)
    if unknown := sorted(set(which) - set(measures)):
        parser.error(f"there is no {' or '.join(unknown)}; there are {', '.join(measures)}")
    chosen = dict.fromkeys(measure for name in which for measure in measures[name])
    logging.getLogger("umbel").setLevel(logging.ERROR)  # runs lose their servers here
    failed: list[str] = []
    missed = report(_going_on(measure, options.dir, failed) for measure in chosen)
    print(*failed, sep="\n", file=sys.stderr)
    return 1 if failed else missed


def _going_on(measure: Measure, directory: Path, failed: list[str]) -> Iterator[Figure]:
    """The figures of a measure; what goes wrong in one does not end the others."""
    try:
        yield from measure(directory)
    except Exception as error:  # noqa: BLE001  # it is told at the end
        failed.append(f"{measure.__module__} failed: {error}")


if __name__ == "__main__":
    sys.exit(main())
