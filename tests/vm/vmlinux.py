#!/usr/bin/env python3
"""vmlinux.py VMLINUZ OUT: the uncompressed kernel out of a bzImage.

qemu starts it by its PVH entry, which spares an emulated CPU the unpacking (3 s of a 5 s boot).
"""
import subprocess
import sys

# Magic bytes of what the kernel may be compressed with, and who unpacks it from a stream with a tail.
FORMATS = [
    (b"\xfd7zXZ\0", ["xz", "-dc", "--single-stream"]),
    (b"\x28\xb5\x2f\xfd", ["zstd", "-dc"]),
    (b"\x02!L\x18", ["lz4", "-dc"]),
    (b"\x1f\x8b\x08", ["gzip", "-dc"]),
]
SETUP_CODE = 0x4000  # bytes before which no payload begins


def main():
    image, out = sys.argv[1:]
    data = open(image, "rb").read()
    for magic, unpack in FORMATS:
        at = data.find(magic, SETUP_CODE)
        while at > 0:
            found = subprocess.run(unpack, input=data[at:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            if found.startswith(b"\x7fELF"):
                open(out, "wb").write(found)
                return
            at = data.find(magic, at + 1)
    sys.exit(f"vmlinux.py: no kernel found inside {image}")


main()
