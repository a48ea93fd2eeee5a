"""Two devices on one local network: restarts, ports, discovery over IPv6."""
import subprocess
import sys
import time

from node import Node, emit, photos, until


def neighbours(lab, addresses_a="10.7.0.1/24", addresses_b="10.7.0.2/24"):
    a, b = lab.space("a"), lab.space("b")
    return a, b, lab.cable(a, addresses_a, b, addresses_b)


def pair(lab, a, b, *settings):
    """A source and a receiver that holds its photos."""
    number, _ = photos(lab.folder / "photos", 5)
    source = Node(lab, "source", a, *settings).up(lab.folder / "photos", "--place", "home").imported(number)
    receiver = Node(lab, "receiver", b, *settings).join(source, "--place", "office")
    emit("pair.all_held", until(lambda: receiver.holds(number), 60), "s")
    return source, receiver


def restart(lab):
    """restart: both devices are restarted on default settings, without discovery; a ticket from before is used"""
    a, b, _ = neighbours(lab)
    source, receiver = pair(lab, a, b, "--no-mdns")
    ticket = source.invite()
    source.stop()
    source.up()
    emit("restart.one_connected_after", until(receiver.is_connected, 90), "s")
    source.stop()
    receiver.stop()
    source.up()
    receiver.up()
    emit("restart.both_connected_after", until(receiver.is_connected, 90), "s")
    third = Node(lab, "third", b, "--no-mdns")
    time.sleep(15)  # a device that has just started may have to hear the others first
    third.start("join", ticket)
    joined = until(lambda: third.process.poll() is not None or third.is_connected(), 60)
    emit("restart.ticket_from_before", int(joined is not None and third.process.poll() is None), "bool")


def ports(lab):
    """ports: a port that another program has, and one that another node has, are refused and not remembered"""
    a, _, _ = neighbours(lab)
    number, _ = photos(lab.folder / "photos", 5)
    taken = "/ip4/0.0.0.0/tcp/4001"
    first = Node(lab, "first", a, "--no-mdns").up(lab.folder / "photos", "--listen", taken).imported(number)
    emit("ports.second_node_refused", int(is_refused(lab, a, "second", taken)), "bool")
    first.stop()
    other = subprocess.Popen(a.inside("python3", "-m", "http.server", "4001"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(1)
    emit("ports.other_program_refused", int(is_refused(lab, a, "third", taken)), "bool")
    forgotten = Node(lab, "third", a, "--no-mdns")
    forgotten.start("up", lab.folder / "photos")
    emit("ports.refused_is_forgotten", int(until(forgotten.status, 10) is not None), "bool")
    other.terminate()
    other.wait()


def is_refused(lab, space, name, listen):
    """Whether a new node ends instead of listening there."""
    node = Node(lab, name, space, "--no-mdns")
    node.start("up", lab.folder / "photos", "--listen", listen)
    ended = until(lambda: node.process.poll() is not None, 10) is not None
    if ended:
        print(f"{name}:{node.last_words(1)}", file=sys.stderr)
    node.stop()
    return ended


def mdns6(lab):
    """mdns6: a network with IPv6 alone; after a restart at other addresses the two find each other by discovery"""
    a, b, ends = neighbours(lab, "fd00:7::1/64", "fd00:7::2/64")
    time.sleep(2)  # link-local addresses are checked for duplicates first
    source, receiver = pair(lab, a, b)
    source.stop()
    receiver.stop()
    for space, end, address in ((a, ends[0], "fd00:7::11/64"), (b, ends[1], "fd00:7::12/64")):
        space.address(end, address)
    source.up()
    receiver.up()
    emit("mdns6.connected_after", until(receiver.is_connected, 60), "s")
