"""What a disk may hold after a power cut, computed from the record of powercut.c.

A `Disk` starts from the files under a root and is fed records one after another. For each file it keeps the bytes that
are durable and the changes since its last sync; for each directory the durable names and the changes since. `cut` writes
one of the possible results: what was not synced is dropped (`strict`), or a random part of it has survived: any subset
of the names, and of each page any prefix of the writes to it, as a kernel that writes back when it likes would leave it.
"""

import os
import random
import re
import struct
from dataclasses import dataclass, field

CREATE, NEW, MKDIR, WRITE, TRUNCATE, EXTEND, SYNC_BEGIN, SYNC_END, LINK, RENAME, UNLINK, RMDIR, MARK, SYNC_FAIL = range(
    1, 15
)
HEAD = struct.Struct("<IIQQIIQ")
MAGIC = 0x54554350
PAGE = 4096


def mark(log, text):
    """Adds what somebody outside of the program was promised to the record, a file opened with O_APPEND, in its order."""
    data = text.encode()
    os.write(log, HEAD.pack(MAGIC, MARK, 0, 0, 0, 0, len(data)) + data)


@dataclass
class Record:
    op: int
    a: int
    b: int
    name1: str
    name2: str
    data: bytes


def read_log(path):
    """The records in order. The last may be cut, since its writer was killed; it is left out."""
    with open(path, "rb") as file:
        log = file.read()
    records, at = [], 0
    while at + HEAD.size <= len(log):
        magic, op, a, b, length1, length2, size = HEAD.unpack_from(log, at)
        assert magic == MAGIC, f"no record at byte {at}"
        end = at + HEAD.size + length1 + length2 + size
        if end > len(log):
            break
        at += HEAD.size
        name1 = log[at : at + length1].decode()
        name2 = log[at + length1 : at + length1 + length2].decode()
        records.append(Record(op, a, b, name1, name2, log[at + length1 + length2 : end]))
        at = end
    return records


@dataclass
class File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list = field(default_factory=list)  # (op, offset or size, bytes)
    applied: int = 0  # changes that left `pending`
    doomed: int = 0  # of the first so many of `pending` the writes are not in the next sync, as one failed before


@dataclass
class Dir:
    durable: dict = field(default_factory=dict)  # name -> inode
    pending: list = field(default_factory=list)  # (remove or None, add or None, inode)
    applied: int = 0


def change_file(content, op, at, data):
    if op == WRITE:
        if len(content) < at:
            content.extend(bytes(at - len(content)))
        content[at : at + len(data)] = data
    elif op == TRUNCATE and at < len(content):
        del content[at:]
    elif len(content) < at:
        content.extend(bytes(at - len(content)))


def change_dir(names, remove, add, inode):
    if remove is not None and (add is None or names.get(remove) == inode):
        names.pop(remove, None)
    if add is not None:
        names[add] = inode


class Disk:
    """`skip` is a pattern; syncs of paths that match it do nothing. Paths are relative to the root, those of directories
    end in /; a file's is also looked at with `=` and its first 4 bytes behind it, and while a program starts, up to its
    first line, with `start:` before it."""

    def __init__(self, root, skip=None):
        self.root = os.stat(root).st_ino
        self.files, self.dirs, self.paths, self.begun = {}, {}, {}, {}
        self.skip = re.compile(skip) if skip else None
        self.starting = False
        self.synced = {}  # path -> how often, for a look at what is there to be left out
        self._scan(root, "")

    def _scan(self, path, relative):
        inode = os.stat(path).st_ino
        directory = self.dirs[inode] = Dir()
        self.paths[inode] = relative + "/" if relative else "/"
        for entry in os.scandir(path):
            if entry.name.endswith("-shm"):
                continue
            # The entry's own inode number, since a scan's may differ on overlays.
            child = os.stat(entry.path).st_ino
            directory.durable[entry.name] = child
            below = f"{relative}/{entry.name}".lstrip("/")
            if entry.is_dir():
                self._scan(entry.path, below)
            else:
                with open(entry.path, "rb") as file:
                    self.files[child] = File(bytearray(file.read()))
                self.paths[child] = below

    def _path(self, directory, name):
        return (self.paths.get(directory, "?/") + name).lstrip("/")

    def feed(self, record):
        op, a, b = record.op, record.a, record.b
        if op in (CREATE, NEW, LINK, MKDIR):
            inode = a if op == NEW else b
            if op == MKDIR:
                self.dirs[inode] = Dir()
                self.paths[inode] = self._path(a, record.name1) + "/"
            else:
                if op != LINK:
                    self.files[inode] = File()
                self.paths.setdefault(inode, "?")
                if op == CREATE:
                    self.paths[inode] = self._path(a, record.name1)
            if op != NEW:
                self.dirs[a].pending.append((None, record.name1, inode))
        elif op == RENAME:
            inode = int.from_bytes(record.data[:8], "little") if record.data else None
            if a == b:
                self.dirs[a].pending.append((record.name1, record.name2, inode))
            else:
                self.dirs[b].pending.append((None, record.name2, inode))
                self.dirs[a].pending.append((record.name1, None, inode))
        elif op in (UNLINK, RMDIR):
            self.dirs[a].pending.append((record.name1, None, 0))
        elif op in (WRITE, TRUNCATE, EXTEND):
            # A file that has no name any more may still be written to; nobody will find it.
            self.files.setdefault(a, File()).pending.append((op, b, record.data))
        elif op == SYNC_BEGIN:
            target = self.dirs.get(b) or self.files.get(b)
            if target is not None:
                self.begun[a] = (b, target, target.applied + len(target.pending))
        elif op == SYNC_END and a in self.begun:
            self._sync(*self.begun.pop(a))
        elif op == SYNC_FAIL and a in self.files:
            self.files[a].doomed = len(self.files[a].pending)
        elif op == MARK:
            self.starting = record.data == b"started\n"

    def _sync(self, inode, target, upto):
        path = self.paths.get(inode, "?")
        shown = path if isinstance(target, Dir) else f"{path}={self._begin(target)}"
        self.synced[shown] = self.synced.get(shown, 0) + 1
        names = (path, shown, "start:" + path) if self.starting else (path, shown)
        if self.skip and any(self.skip.search(name) for name in names):
            return
        count = max(upto - target.applied, 0)
        done, target.pending = target.pending[:count], target.pending[count:]
        target.applied += count
        if isinstance(target, Dir):
            for change in done:
                change_dir(target.durable, *change)
            return
        for number, change in enumerate(done):
            if number >= target.doomed or change[0] != WRITE:
                change_file(target.durable, *change)
        target.doomed = max(target.doomed - count, 0)

    @staticmethod
    def _begin(file) -> str:
        """The first bytes of a file, to tell one without a good name."""
        new = (data for op, at, data in file.pending if op == WRITE and at == 0)
        begin = bytes(file.durable[:4]) or next(new, b"")[:4]
        return "".join(chr(b) for b in begin if 32 < b < 127)

    def cut(self, into, seed=None):
        """Writes what is left below the new directory `into`; without a seed only what was synced."""
        chance = random.Random(seed) if seed is not None else None
        os.mkdir(into)
        self._write_dir(self.root, into, chance)

    def _write_dir(self, inode, path, chance):
        directory = self.dirs[inode]
        names = dict(directory.durable)
        if chance:
            likely = chance.choice((0.1, 0.5, 0.9, 1.0))
            for change in directory.pending:
                if chance.random() < likely:
                    change_dir(names, *change)
        for name, child in sorted(names.items()):
            below = os.path.join(path, name)
            if child in self.dirs:
                os.mkdir(below)
                self._write_dir(child, below, chance)
            else:
                with open(below, "wb") as file:
                    file.write(self._content(self.files.get(child, File()), chance))

    def _content(self, file, chance):
        if not chance or not file.pending:
            return file.durable
        content = bytearray(file.durable)
        # Of the changes of size a prefix has survived; of each page, of the writes to it, a prefix of its own.
        resizes = sum(op != WRITE for op, _, _ in file.pending)
        resizes = chance.randint(0, resizes)
        writes = {}
        for op, at, data in file.pending:
            if op == WRITE:
                for page in range(at // PAGE, (at + max(len(data), 1) - 1) // PAGE + 1):
                    writes[page] = writes.get(page, 0) + 1
        likely = chance.choice((0.1, 0.5, 0.9, 1.0))
        left = {page: chance.randint(0, n) if chance.random() > likely else n for page, n in writes.items()}
        for op, at, data in file.pending:
            if op != WRITE:
                if resizes:
                    change_file(content, op, at, data)
                    resizes -= 1
                continue
            position = at
            while position < at + len(data):
                page = position // PAGE
                end = min((page + 1) * PAGE, at + len(data))
                if left[page]:
                    left[page] -= 1
                    change_file(content, WRITE, position, data[position - at : end - at])
                position = end
        return content
