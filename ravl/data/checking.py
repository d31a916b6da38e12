"""Every image of a set is read and decoded once: which is how damage is found, and what sizes and digests come from.

Large sets are read in processes of their own, a file at a time, so that memory stays flat and a file which kills or
stops its reader is listed like any other damaged one. Small sets are read on a few threads: starting a process takes
longer than reading them.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from ravl.data.decoding import decoded, read_file
from ravl.data.images import in_order
from ravl.errors import DataError

SMALL = 512
"""Sets of up to so many images are read in this process."""
PATIENCE = 120.0
"""Seconds after which a file that is still being decoded counts as damaged."""

_CHUNK = 32  # files a worker is given at a time


@dataclass(frozen=True)
class Checked:
    """width, height: upright pixels. digest: of the file's bytes. reason: why it cannot be used, or empty.

    headers: allowed header values of a DICOM file, see `ravl.data.dicom`; empty for others.
    """

    width: int
    height: int
    digest: str
    reason: str
    headers: dict[str, str] = field(default_factory=dict)


def check_files(paths: Sequence[str], frames: str, salt: str, small: int = SMALL) -> Iterator[Checked]:
    """Read and decode files, in order. frames: which one of a DICOM file with several. salt: key of pseudonyms."""
    if len(paths) <= small:
        yield from in_order(lambda path: check(path, frames, salt), paths)
        return
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    count = max(1, min(_processors(), len(chunks)))
    idle: queue.Queue[_Worker] = queue.Queue()
    workers = [_Worker(frames, salt) for _ in range(count)]
    for worker in workers:
        idle.put(worker)

    def run(chunk: Sequence[str]) -> list[Checked]:
        worker = idle.get()
        try:
            return worker.check(chunk)
        finally:
            idle.put(worker)

    try:
        for found in in_order(run, chunks, threads=count):
            yield from found
    finally:
        for worker in workers:
            worker.stop()


def check(path: str, frames: str, salt: str) -> Checked:
    """Read and decode one file."""
    try:
        data = read_file(path)
        found = decoded(data, frames, salt)
    except DataError as error:
        return Checked(0, 0, "", str(error))
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Checked(found.image.width, found.image.height, digest, "", found.headers)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """A process that reads files: a list of paths goes in as a line of JSON, a line per path comes out."""

    def __init__(self, frames: str, salt: str) -> None:
        self._options = json.dumps({"frames": frames, "salt": salt, "max_pixels": Image.MAX_IMAGE_PIXELS})
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def check(self, paths: Sequence[str]) -> list[Checked]:
        """What each file holds; one that ends the process, or keeps it too long, is unusable."""
        found: list[Checked] = []
        while len(found) < len(paths):
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(paths[len(found) :]).encode() + b"\n")
                process.stdin.flush()
                while len(found) < len(paths):
                    found.append(Checked(**json.loads(self._line())))
            except (EOFError, BrokenPipeError):
                found.append(Checked(0, 0, "", "ended the process that read it; it is damaged, or too large"))
                self.stop()
            except TimeoutError:
                found.append(Checked(0, 0, "", f"was not decoded within {PATIENCE:g} seconds; save it again"))
                self.stop()
        return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            package = str(Path(__file__).parents[2])
            code = "import sys; sys.path.insert(0, sys.argv[1]); from ravl.data.checking import serve; serve()"
            command = [sys.executable, "-c", code, package]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert self._process.stdin is not None
            self._process.stdin.write(self._options.encode() + b"\n")
            self._process.stdin.flush()
            try:
                self._line()
            except (EOFError, TimeoutError):
                self.stop()
                raise DataError(
                    "images are read in processes of their own, but none could be started. Free some memory, try again."
                ) from None
        return self._process

    def _line(self) -> bytes:
        """One line from the process. Raises EOFError when it is gone, TimeoutError when it takes too long."""
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
                raise TimeoutError
            piece = os.read(self._process.stdout.fileno(), 65_536)
            if not piece:
                raise EOFError
            self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def stop(self) -> None:
        process, self._process, self._rest = self._process, None, b""
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was still to be written concerned a process that is gone
        process.wait()


def serve() -> None:
    """The other end: read options and lists of paths from the standard input until it ends."""
    options = json.loads(sys.stdin.readline())
    Image.MAX_IMAGE_PIXELS = options.pop("max_pixels")
    print("ready", flush=True)
    for line in sys.stdin:
        for path in json.loads(line):
            print(json.dumps(asdict(check(path, **options))), flush=True)
