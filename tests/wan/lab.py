"""Networks in a box: namespaces, and what connects them.

Everything here lives in namespaces of the process that `confine` started: when that ends, however it ends, the kernel ends the
processes and takes the networks away. Nothing leaves the machine.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFINED = "HOLDFAST_WAN_CONFINED"
CONGESTION = os.environ.get("CONGESTION", "cubic")  # control of TCP on every machine: most have this one
NAMESPACES = Path("/run/netns")
SKIPPED = 77  # the exit code by which automake, and `run-all`, know a test that was skipped


class Skipped(Exception):
    """This machine does not allow the scenario."""


def confine():
    """Runs this script again in namespaces of its own, where it returns. Raises `Skipped` where the machine allows none."""
    if os.environ.get(CONFINED):
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
        NAMESPACES.mkdir()
        return
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    ways = [unshare] if os.geteuid() == 0 else [[*unshare, "--user", "--map-root-user"]]
    probe = "mount -t tmpfs none /run && mkdir /run/netns && ip netns add probe && ip tuntap add probe mode tun"
    for way in ways:
        tried = subprocess.run([*way, "sh", "-c", probe], capture_output=True, text=True)
        if tried.returncode == 0:
            os.execvpe(way[0], [*way, sys.executable, *sys.argv], {**os.environ, CONFINED: "1"})
    raise Skipped(f"namespaces or TUN devices are not allowed here: {tried.stderr.strip()}")


def tool(name):
    """Needs a program that not every machine has."""
    if not shutil.which(name):
        raise Skipped(f"{name} is not installed")
    return name


def command(*arguments, **options):
    """Runs a command and gives what it printed; an exception that carries its errors when it fails."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


class Space:
    """A machine: a network namespace with loopback."""

    def __init__(self, name):
        self.name = name
        command("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def inside(self, *arguments):
        """A command line that runs in here."""
        return ["nsenter", f"--net={NAMESPACES / self.name}", *map(str, arguments)]

    def ip(self, *arguments):
        return command("ip", "-n", self.name, *arguments)

    def address(self, device, *addresses):
        """Gives a device these addresses instead of those that it has, and switches it on."""
        self.ip("address", "flush", "dev", device, "scope", "global")
        for address in addresses:
            self.ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        self.ip("link", "set", device, "up")
        # By route, since a namespace may not choose every control that the machine has as its default.
        for route in json.loads(self.ip("-json", "route", "show", "dev", device)):
            self.ip("route", "replace", route["dst"], "dev", device, "congctl", CONGESTION)

    def route(self, via, to="default"):
        self.ip("route", "replace", to, "via", via, "congctl", CONGESTION)

    def forward(self):
        """Passes on what is for others, as a router does."""
        command(*self.inside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"))

    def filter(self, rules):
        """Loads nftables rules."""
        command(*self.inside(tool("nft"), "-f", "-"), input=rules)

    def translate(self, outside, kind):
        """Makes a home's router of it: what comes from inside leaves by `outside` under its address, and nothing gets in
        that was not asked for. A plain one keeps ports, a symmetric one takes another for each destination."""
        self.forward()
        flags = {"plain": "", "symmetric": "fully-random"}[kind]
        self.filter(f"""
            table ip home {{
                chain leaving {{
                    type nat hook postrouting priority 100
                    oifname {outside} masquerade {flags}
                }}
                chain passing {{
                    type filter hook forward priority 0; policy drop
                    ct state established,related accept
                    oifname {outside} accept
                }}
            }}""")


class Wire:
    """A connection with delay, loss and a rate; what it does is told to the program of wire.c."""

    def __init__(self, program, a, device_a, b, device_b, log):
        spaces = [NAMESPACES / a.name, device_a, NAMESPACES / b.name, device_b]
        self.process = subprocess.Popen(
            [program, *map(str, spaces)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
        )
        self.answer()

    def answer(self):
        line = self.process.stdout.readline().strip()
        if not line or line.startswith("not"):
            raise RuntimeError(f"the wire broke: {line or 'see its log'}")
        return line

    def order(self, text):
        self.process.stdin.write(text + "\n")
        return self.answer()

    def shape(self, delay=0, loss=0, rate=(0, 0), queue=200):
        """Milliseconds one way, percent, kbit/s from `a` to `b` and back, milliseconds that a packet waits at most."""
        for text in (f"delay {delay}", f"loss {loss}", f"rate {rate[0]} {rate[1]}", f"queue {queue}"):
            self.order(text)

    def cut(self):
        self.order("cut")

    def mend(self):
        self.order("mend")

    def counts(self):
        """Bytes that came through: from `a` to `b`, and back."""
        return tuple(map(int, self.order("count").split()))


class Lab:
    """A folder, and the machines and connections of one scenario."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-wan-"))
        self.devices = 0
        self.nodes = []

    def space(self, name):
        return Space(name)

    def device(self):
        self.devices += 1
        return f"net{self.devices}"

    def cable(self, a, addresses_a, b, addresses_b):
        """A perfect connection; gives the devices at its ends."""
        ends = self.device(), self.device()
        command("ip", "link", "add", ends[0], "netns", a.name, "type", "veth", "peer", "name", ends[1], "netns", b.name)
        for space, device, addresses in ((a, ends[0], addresses_a), (b, ends[1], addresses_b)):
            space.address(device, *([addresses] if isinstance(addresses, str) else addresses))
        return ends

    def wire(self, a, address_a, b, address_b, **shape):
        """A connection as they are between homes; gives it and the devices at its ends."""
        program = self.folder / "wire"
        if not program.exists():
            command(tool("cc"), "-O2", "-o", program, HERE / "wire.c")
        ends = self.device(), self.device()
        with open(self.folder / "wire.log", "a") as log:
            wire = Wire(program, a, ends[0], b, ends[1], log)
        for space, device, address in ((a, ends[0], address_a), (b, ends[1], address_b)):
            space.address(device, address)
            space.ip("link", "set", device, "txqueuelen", 20000)
        wire.shape(**shape)
        return wire, *ends

    def switch(self, name, *machines):
        """A local network of these (space, address); gives the device of each."""
        switch = self.space(name)
        switch.ip("link", "add", "bridge", "type", "bridge")
        switch.ip("link", "set", "bridge", "up")
        devices = []
        for space, addresses in machines:
            port, device = self.cable(switch, [], space, addresses)
            switch.ip("link", "set", port, "master", "bridge")
            devices.append(device)
        return devices

    def close(self, failed):
        """Ends the nodes. The folder stays when something failed, or KEEP is set."""
        for node in self.nodes:
            node.stop()
        if failed or os.environ.get("KEEP"):
            print(f"logs and homes are kept in {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
