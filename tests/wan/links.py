"""Two devices and one link between them: cuts, other addresses, kills, loss, paths with small packets."""
import random
import subprocess
import time

from lab import tool
from node import Node, emit, photos, until

LISTEN = {"tcp": "/ip4/0.0.0.0/tcp/4001", "quic": "/ip4/0.0.0.0/udp/4001/quic-v1"}
LISTEN["both"] = ",".join(LISTEN.values())
# Bytes on the wire for each byte of a photo, in packets of 1500: their headers, Noise, Yamux, and what is said beside.
OVERHEAD = 1.04
HOME_LINE = {"delay": 20, "rate": (20_000, 20_000), "queue": 300}


class Transfer:
    """A source with photos, and a receiver that has just joined it over a wire."""

    def __init__(self, lab, megabytes, transport="tcp", **shape):
        self.a, self.b = lab.space("a"), lab.space("b")
        self.wire, self.end_a, self.end_b = lab.wire(self.a, "10.1.0.1/24", self.b, "10.1.0.2/24", **shape)
        self.folder = lab.folder / "photos"
        self.number, self.bytes = photos(self.folder, megabytes)
        settings = ("--no-mdns", "--listen", LISTEN[transport])
        self.source = Node(lab, "source", self.a, *settings).up(self.folder, "--place", "home").imported(self.number)
        self.receiver = Node(lab, "receiver", self.b, *settings).join(self.source, "--place", "office")
        self.begun = time.monotonic()

    def moved(self, megabytes=5):
        """Waits until so much has arrived, so that what follows happens in the midst of it."""
        if until(lambda: self.receiver.received() > megabytes * 1e6, 120) is None:
            raise RuntimeError(f"{megabytes} MB did not arrive: {self.receiver.status()}")

    def goes_on(self, within=600):
        """Seconds until more arrives."""
        before = self.receiver.received()
        return until(lambda: self.receiver.received() > before, within)

    def finish(self, name, within=600, interruptions=0):
        """Waits for the last photo; says how long all took, and what was sent more than once."""
        done = until(lambda: self.receiver.holds(self.number), within)
        emit(f"{name}.all_held", done and time.monotonic() - self.begun, "s")
        spare = self.wire.counts()[0] - self.bytes * OVERHEAD
        emit(f"{name}.sent_again", max(0.0, spare / 1e6), "MB")
        if interruptions:
            emit(f"{name}.sent_again_each", max(0.0, spare / 1e6 / interruptions), "MB")
        blamed = sum(node.logged("broke the protocol") for node in (self.source, self.receiver))
        emit(f"{name}.blamed", blamed, "times")


def cut(lab, seconds="10", transport="tcp", megabytes="40"):
    """cut SECONDS tcp|quic|both [MEGABYTES]: nothing passes for so long; from then on, until bytes arrive again"""
    transfer = Transfer(lab, float(megabytes), transport, **HOME_LINE)
    transfer.moved()
    transfer.wire.cut()
    time.sleep(float(seconds))
    transfer.wire.mend()
    name = f"cut_{seconds}_{transport}"
    emit(f"{name}.bytes_after", transfer.goes_on(), "s")
    transfer.finish(name)


def cuts(lab, number="20"):
    """cuts NUMBER: so many cuts of 0.3 to 8 seconds while photos move"""
    transfer, moments = Transfer(lab, 150, **HOME_LINE), random.Random(1)
    longest, count = 0.0, 0
    while count < int(number) and not transfer.receiver.holds(transfer.number):
        time.sleep(moments.uniform(1, 4))
        transfer.wire.cut()
        time.sleep(moments.choice([0.3, 1, 2, 4, 8]))
        transfer.wire.mend()
        count += 1
        longest = max(longest, transfer.goes_on(60) or 60.0)
    emit("cuts.number", count, "cuts")
    emit("cuts.bytes_after_worst", longest, "s")
    transfer.finish("cuts", interruptions=count)


def kills(lab, number="10"):
    """kills NUMBER: one of the two is killed and started again, so many times, while photos move"""
    transfer, moments = Transfer(lab, 100, **HOME_LINE), random.Random(1)
    longest = 0.0
    for n in range(int(number)):
        time.sleep(moments.uniform(0.5, 5))
        victim = transfer.source if n % 3 == 0 else transfer.receiver
        victim.kill()
        victim.up()
        longest = max(longest, until(transfer.receiver.is_connected, 60) or 60.0)
    emit("kills.connected_after_worst", longest, "s")
    transfer.finish("kills", interruptions=int(number))
    exported = lab.folder / "exported"
    transfer.receiver.ask("export", exported)
    same = subprocess.run(["diff", "-r", transfer.folder, exported / transfer.folder.name], capture_output=True)
    emit("kills.identical", int(same.returncode == 0), "bool")


def address(lab, transport="tcp", whose="receiver"):
    """address tcp|quic|both receiver|source: it gets another address while photos move; until bytes arrive again"""
    transfer = Transfer(lab, 40, transport, **HOME_LINE)
    transfer.moved()
    if whose == "receiver":
        transfer.b.address(transfer.end_b, "10.1.0.77/24")
    else:
        transfer.a.address(transfer.end_a, "10.1.0.99/24")
    time.sleep(0.5)  # what has come through already is taken in
    name = f"address_{transport}_{whose}"
    emit(f"{name}.bytes_after", transfer.goes_on(), "s")
    transfer.finish(name)


def sleep(lab, seconds="180"):
    """sleep SECONDS: the receiver's machine sleeps while photos move; until bytes arrive again"""
    transfer = Transfer(lab, 40, **HOME_LINE)
    transfer.moved()
    transfer.receiver.pause()
    time.sleep(float(seconds))
    transfer.receiver.resume()
    emit("sleep.bytes_after", transfer.goes_on(), "s")
    transfer.finish("sleep")


def throughput(lab, delay="40", loss="0", transport="tcp"):
    """throughput DELAY_MS LOSS_PERCENT tcp|quic|both: over 100 Mbit/s and this round trip, beside rsync over the same wire"""
    shape = {"delay": float(delay) / 2, "loss": float(loss), "rate": (100_000, 100_000), "queue": 100}
    megabytes, within = (150, 120) if loss == "0" else (60, 100)
    name = f"throughput_{delay}_{loss}_{transport}"
    transfer = Transfer(lab, megabytes, transport, **shape)
    begun, before = time.monotonic(), transfer.wire.counts()[0]
    until(lambda: transfer.receiver.holds(transfer.number), within)
    emit(f"{name}.holdfast", (transfer.wire.counts()[0] - before) / OVERHEAD / 1e6 / (time.monotonic() - begun), "MB/s")
    transfer.receiver.stop()
    emit(f"{name}.rsync", rsync_rate(lab, transfer, within), "MB/s")


def rsync_rate(lab, transfer, within):
    """Megabytes a second of an rsync from the source to the receiver's machine."""
    settings = lab.folder / "rsyncd.conf"
    settings.write_text(f"use chroot = no\nuid = root\ngid = root\n[photos]\npath = {transfer.folder}\n")
    serve = [tool("rsync"), "--daemon", "--no-detach", f"--config={settings}", "--port=8730"]
    daemon = subprocess.Popen(transfer.a.inside(*serve), stderr=subprocess.DEVNULL)
    time.sleep(1)
    begun, before = time.monotonic(), transfer.wire.counts()[0]
    fetch = ["rsync", "-a", "--whole-file", "rsync://10.1.0.1:8730/photos/", lab.folder / "rsync"]
    fetching = subprocess.Popen(transfer.b.inside(*fetch), stderr=subprocess.DEVNULL)
    until(lambda: fetching.poll() is not None, within)
    rate = (transfer.wire.counts()[0] - before) / OVERHEAD / 1e6 / (time.monotonic() - begun)
    for process in (fetching, daemon):
        process.terminate()
        process.wait()
    return rate


def small_packets(lab, path="told", transport="both"):
    """small_packets told|blackhole tcp|quic|both: packets above 1280 bytes do not pass; a black hole does not even say so"""
    a, router, b = lab.space("a"), lab.space("router"), lab.space("b")
    end_a, _ = lab.cable(a, "10.7.0.2/24", router, "10.7.0.1/24")
    narrow, end_b = lab.cable(router, "10.8.0.1/24", b, "10.8.0.2/24")
    a.route("10.7.0.1")
    b.route("10.8.0.1")
    router.forward()
    router.ip("link", "set", narrow, "mtu", 1280)
    for space, end in ((a, end_a), (b, end_b)):
        space.ip("link", "set", end, "gso_max_segs", 1)  # large segments would be cut to fit on their way
    if path == "blackhole":
        router.filter("""table ip hole {
            chain leaving { type filter hook output priority 0; icmp type destination-unreachable drop; }
        }""")
    number, _ = photos(lab.folder / "photos", 40)
    settings = ("--no-mdns", "--listen", LISTEN[transport])
    source = Node(lab, "source", a, *settings).up(lab.folder / "photos").imported(number)
    receiver = Node(lab, "receiver", b, *settings).join(source)
    emit(f"small_packets_{path}_{transport}.all_held", until(lambda: receiver.holds(number), 180), "s")
