"""Delivering an answer: large arrays first, each from where the server has it, then the report."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path

from umbel import wire
from umbel.errors import NotThere, Rejected
from umbel.link.base import Link
from umbel.link.pieces import file_pieces
from umbel.node.answers import sent_blobs
from umbel.node.outbox import Finished, Outbox

_TRIES = 3  # of an upload that ends without an error, and without all bytes


async def deliver(link: Link, answer: Finished, outbox: Outbox, *, chunk: int) -> int:
    """Send an answer; gives the server's verdict when it is durable there.

    Args:
        link: to the server.
        answer: what to send.
        outbox: where its files are.
        chunk: bytes of a piece, as the server has said.

    Raises:
        LinkError: it has not arrived.
    """
    report = wire.ReportRequest.FromString(answer.report)
    files = {name: outbox.path(answer.key, name) for name in answer.files}
    for _ in range(_TRIES - 1):
        await _upload_all(link, report, files, chunk)
        try:
            return (await link.report(report)).verdict
        except (NotThere, Rejected):
            if not files or not await _is_missing_any(link, report, files):
                raise
    await _upload_all(link, report, files, chunk)
    return (await link.report(report)).verdict


async def _upload_all(link: Link, report: wire.ReportRequest, files: Mapping[str, Path], chunk: int) -> None:
    for blob in sent_blobs(report):
        if (path := files.get(blob.digest.hex())) is not None:
            await upload(link, blob.digest, blob.size, path, chunk=chunk)


async def _is_missing_any(link: Link, report: wire.ReportRequest, names: Container[str]) -> bool:
    """Has the server dropped a blob that it had?"""
    for blob in sent_blobs(report):
        if blob.digest.hex() in names:
            there = await link.stat_blob(wire.StatBlobRequest(digest=blob.digest))
            if not there.complete:
                return True
    return False


async def upload(link: Link, digest: bytes, size: int, path: Path, *, chunk: int) -> None:
    """Write a blob, from the offset that the server has.

    Args:
        link: to the server.
        digest: of its bytes, 32 bytes.
        size: of the file, bytes.
        path: of the file.
        chunk: bytes of a piece.

    Raises:
        Rejected: the server did not take it in.
        LinkError: the connection broke; what arrived need not be sent again.
    """
    for _ in range(_TRIES):
        there = await link.stat_blob(wire.StatBlobRequest(digest=digest))
        if there.complete:
            return
        offset = min(there.received, size)
        head = wire.BlobHead(digest=digest, size=size, offset=offset)
        if (await link.write_blob(head, file_pieces(path, offset, chunk))).complete:
            return
    raise Rejected(
        f"the server did not take in the blob {digest.hex()[:12]} of {size:,} bytes",
        advice="look into the server's log, and at the room on its disk",
    )


__all__ = ["deliver", "upload"]
