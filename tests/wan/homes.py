"""Homes with routers, relays and slow lines on one internet."""
import time

from links import LISTEN
from node import Node, emit, photos, until

HOME_LINE = (20_000, 100_000)
LINE_DELAY_MS = 10


class Internet:
    """Lines that meet in one router. What is connected to line N has the address 203.0.N.2."""

    def __init__(self, lab):
        self.lab, self.lines = lab, 0
        self.router = lab.space("internet")
        self.router.forward()

    def line(self, name, rate=(100_000, 100_000), queue=300):
        """A machine at the end of a line of this rate, up and down: its space, the wire, and its device."""
        self.lines += 1
        net = f"203.0.{self.lines}"
        space = self.lab.space(name)
        wire, device, _ = self.lab.wire(
            space, f"{net}.2/24", self.router, f"{net}.1/24", delay=LINE_DELAY_MS, rate=rate, queue=queue
        )
        space.route(f"{net}.1")
        return space, wire, device

    def home(self, name, kind, rate=HOME_LINE):
        """A machine in a home behind a router that translates addresses; its space, and the home's wire."""
        router, wire, outside = self.line(f"{name}_router", rate)
        router.translate(outside, kind)
        inside, net = self.lab.space(name), f"192.168.{self.lines}"
        self.lab.cable(inside, f"{net}.2/24", router, f"{net}.1/24")
        inside.route(f"{net}.1")
        return inside, wire


    def relay(self, library):
        """A public machine that relays for the devices of a library: its address, and the wire that all it relays goes over."""
        space, wire, _ = self.line("relay")
        public = f"/ip4/203.0.{self.lines}.2/tcp/4001"
        node = Node(self.lab, "relay", space)
        node.start("relay", "--library", library, "--listen", LISTEN["both"])
        until(lambda: node.process.poll() is not None or node.listening(public), 20)
        heard = node.listening(public)
        if not heard:
            raise RuntimeError(f"the relay does not run: {node.last_words()}")
        return heard[-1], wire


def left_home(lab, internet, kind, megabytes):
    """A device with photos behind a router, and a relay that it was told of: the device, how many photos, the wire of the relay."""
    number, _ = photos(lab.folder / "photos", megabytes)
    left = Node(lab, "left", internet.home("left", kind)[0])
    left.up(lab.folder / "photos", "--place", "home").imported(number)
    relay, wire = internet.relay(left.status()["library"])
    left.stop()
    left.up("--relay", relay)
    time.sleep(10)  # until the relay has taken it in
    return left, number, relay, wire


def nat_join(lab, kind="plain"):
    """nat_join plain|symmetric: a device behind one router joins one behind another, through a relay that the ticket names"""
    internet = Internet(lab)
    left, number, _, wire = left_home(lab, internet, kind, 30)
    begun, before = time.monotonic(), wire.counts()
    right = Node(lab, "right", internet.home("right", kind)[0]).join(left, "--place", "office")
    name = f"nat_join_{kind}"
    emit(f"{name}.joined", time.monotonic() - begun, "s")
    moved(name, right, number, wire, before)


def nat_moved(lab, kind="plain"):
    """nat_moved plain|symmetric: two devices are paired in one home; one moves to another, and photos are taken in the first"""
    internet = Internet(lab)
    left, number, relay, wire = left_home(lab, internet, kind, 5)
    right = Node(lab, "right", left.space).join(left, "--place", "office", "--relay", relay)
    if until(lambda: right.holds(number), 60) is None:
        raise RuntimeError("nothing moved at home already")
    right.stop()
    right.space = internet.home("right", kind)[0]
    before = wire.counts()
    right.up()
    name = f"nat_moved_{kind}"
    emit(f"{name}.connected_after", until(right.is_connected, 120), "s")
    more, _ = photos(lab.folder / "photos" / "new", 60, seed=2)
    moved(name, right, number + more, wire, before)


def moved(name, receiver, number, wire, before):
    """Waits until the receiver holds all; says how much went over the relay meanwhile."""
    emit(f"{name}.all_held", until(lambda: receiver.holds(number), 180), "s")
    emit(f"{name}.relayed", (wire.counts()[0] - before[0]) / 1e6, "MB")


def slow_uplink(lab, kbit="5000", megabytes="40"):
    """slow_uplink KBIT MEGABYTES: one source with a slow line up, three receivers, two of them in one home"""
    internet, kbit = Internet(lab), int(kbit)
    home, wire, _ = internet.line("home", (kbit, 50_000), 1000)
    cabin, _, _ = internet.line("cabin", (10_000, 50_000))
    office_router, _, _ = internet.line("office_router", (10_000, 50_000))
    office_router.forward()
    desks = [lab.space("desk1"), lab.space("desk2")]
    lab.switch("office", (office_router, "10.2.0.1/24"), *((desk, f"10.2.0.{n}/24") for n, desk in enumerate(desks, 2)))
    internet.router.route("203.0.3.2", "10.2.0.0/24")
    for desk in desks:
        desk.route("10.2.0.1")

    number, total = photos(lab.folder / "photos", float(megabytes), each=1)
    source = Node(lab, "source", home, "--listen", LISTEN["both"]).up(lab.folder / "photos", "--place", "home")
    source.imported(number)
    begun, before = time.monotonic(), wire.counts()[0]
    receivers = [
        Node(lab, name, space).join(source, "--place", place)
        for name, space, place in (("desk1", desks[0], "office"), ("desk2", desks[1], "office"), ("cabin", cabin, "cabin"))
    ]
    estimates = []

    def everywhere():
        estimates.append((time.monotonic(), source.status().get("moving") or {}))
        return all(receiver.holds(number) for receiver in receivers)

    done = until(everywhere, 8 * total * 8 / kbit / 1000, every=1)
    name, ended = f"slow_uplink_{kbit}", time.monotonic()
    emit(f"{name}.all_held", done and ended - begun, "s")
    emit(f"{name}.ideal", total * 8 / kbit / 1000, "s")
    emit(f"{name}.source_share", (wire.counts()[0] - before) / total, "x")
    worst = 1.0
    for at, moving in estimates:
        real, said = ended - at, moving.get("seconds")
        if begun + 0.1 * (ended - begun) < at < ended - 10:
            worst = max(worst, said / real, real / max(said, 1)) if said else worst
    emit(f"{name}.estimate_off", worst, "x")
    emit(f"{name}.estimate_missing", sum(not moving.get("seconds") for _, moving in estimates) / len(estimates), "of answers")
