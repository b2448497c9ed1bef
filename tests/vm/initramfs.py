#!/usr/bin/env python3
"""Writes the VM bench's initramfs archives (newc, see the kernel's buffer-format.rst); needs neither root nor kmod.

initramfs.py base  OUT MODULES BUSYBOX MODULE,...   busybox, /init, and kernel modules with all they need
initramfs.py files OUT PREFIX DEST=SRC ...          files and folders; without a prefix with their shared libraries
"""
import lzma
import os
import re
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDERS = "bin dev etc lib lib64 mnt proc root run sbin sys tmp usr var".split()


class Archive:
    def __init__(self):
        self.bytes = bytearray()
        self.names = set()

    def add(self, name, mode, data=b"", device=(0, 0)):
        name = name.strip("/")
        if name in self.names:
            return
        folder = os.path.dirname(name)
        if folder:
            self.add(folder, stat.S_IFDIR | 0o755)
        self.names.add(name)
        path = name.encode() + b"\0"
        header = (len(self.names), mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        self.bytes += b"070701" + b"".join(b"%08x" % field for field in header) + path
        self._pad(4)
        self.bytes += data
        self._pad(4)

    def _pad(self, size):
        self.bytes += b"\0" * (-len(self.bytes) % size)

    def write(self, out):
        self.add("TRAILER!!!", 0)
        self._pad(512)
        with open(out, "wb") as file:
            file.write(self.bytes)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def modules_with_needs(folder, wanted):
    """The bytes of modules in the order of loading; what is built into the kernel has no file and is left out."""
    files = {}
    for where, _, names in os.walk(folder):
        for name in names:
            match = re.match(r"(.*)\.ko(\.xz)?$", name)
            if match:
                files[match[1].replace("-", "_")] = os.path.join(where, name)
    loaded = {}

    def load(module):
        if module in loaded or module not in files:
            return
        data = read(files[module])
        if files[module].endswith(".xz"):
            data = lzma.decompress(data)
        depends = re.search(rb"\0depends=([^\0]*)\0", b"\0" + data)
        for other in depends[1].decode().split(",") if depends else []:
            load(other.replace("-", "_"))
        loaded[module] = data

    for module in wanted:
        load(module)
    return loaded


def base(out, modules, busybox, wanted):
    archive = Archive()
    for folder in FOLDERS:
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, read(busybox))
    archive.add("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    for number, (name, data) in enumerate(modules_with_needs(modules, wanted.split(",")).items()):
        archive.add(f"lib/boot/{number:02}-{name}.ko", stat.S_IFREG | 0o644, data)
    archive.add("etc/passwd", stat.S_IFREG | 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
    archive.add("etc/group", stat.S_IFREG | 0o644, b"root:x:0:\n")
    archive.add("etc/hosts", stat.S_IFREG | 0o644, b"127.0.0.1 localhost\n")
    archive.add("init", stat.S_IFREG | 0o755, read(os.path.join(HERE, "init")))
    archive.write(out)


def libraries(program):
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return re.findall(r"(?:=> )?(/\S+) \(0x", listed)


def files(out, prefix, items):
    archive = Archive()

    def put(dest, source):
        source = os.path.realpath(source)
        if os.path.isdir(source):
            for name in sorted(os.listdir(source)):
                put(os.path.join(dest, name), os.path.join(source, name))
            return
        data = read(source)
        archive.add(prefix + "/" + dest, stat.S_IFREG | stat.S_IMODE(os.stat(source).st_mode), data)
        if not prefix and data.startswith(b"\x7fELF"):
            for library in libraries(source):
                archive.add(library, stat.S_IFREG | 0o755, read(library))

    for item in items:
        dest, source = item.split("=", 1)
        put(dest.strip("/"), source)
    archive.write(out)


match sys.argv[1:]:
    case ["base", out, modules, busybox, wanted]:
        base(out, modules, busybox, wanted)
    case ["files", out, prefix, *items]:
        files(out, prefix, items)
    case _:
        sys.exit(__doc__)
