"""Run a command that has no network but its own machine: `python tests/offline.py COMMAND …`.

Where Linux lets us, in a fresh network namespace, which has nothing but the loopback device; elsewhere with
a `sitecustomize` that refuses Python's connections to other machines, in the command and all it starts.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

REFUSE = """
import socket

def refused(method):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"The network is cut off: {address}")
        return method(self, address)

    return connect

socket.socket.connect = refused(socket.socket.connect)
socket.socket.connect_ex = refused(socket.socket.connect_ex)
"""
NAMESPACE = ["unshare", "--map-root-user", "--net"]


def main(command: list[str]) -> int:
    if command[0] == "--inside":
        loopback_up()
        return subprocess.call(command[1:])
    possible = shutil.which("unshare") and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    if possible:
        return subprocess.call([*NAMESPACE, sys.executable, __file__, "--inside", *command])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(REFUSE)
        return subprocess.call(command, env=os.environ | {"PYTHONPATH": folder})


def loopback_up() -> None:
    """`ip link set lo up`, without the program `ip`, which small machines lack."""
    import fcntl
    import struct

    set_flags, up, running = 0x8914, 0x1, 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, set_flags, struct.pack("16sh14x", b"lo", up | running))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
