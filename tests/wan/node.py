"""Holdfast nodes as a person has them: a process with a home, asked through `--json`."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab import HERE, Skipped

STARTS_WITHIN_S = 60


def program():
    """The program under test: HOLDFAST, or the release that was built here."""
    path = Path(os.environ.get("HOLDFAST") or HERE.parent.parent / "target/release/holdfast")
    if not path.is_file():
        raise Skipped(f"{path} is missing: run cargo build --release, or set HOLDFAST")
    return path.resolve()


def emit(metric, value, unit):
    """One measure. A value of `None` is something that never happened."""
    if isinstance(value, float):
        value = f"{value:.2f}"
    print(metric, "never" if value is None else value, unit, flush=True)


def until(condition, seconds, every=0.1):
    """Waits; gives the seconds that it took, or `None` when it did not happen in time."""
    begun = time.monotonic()
    while True:
        if condition():
            return time.monotonic() - begun
        if time.monotonic() - begun > seconds:
            return None
        time.sleep(every)


def photos(folder, megabytes, seed=1, each=2.5):
    """Writes so many megabytes of photos, whose picture is noise; gives how many, and their bytes."""
    noise = random.Random(seed)
    head, tail = bytes.fromhex("ffd8ffe000104a46494600010100000100010000"), bytes.fromhex("ffd9")
    folder.mkdir(parents=True)
    number, total = max(1, round(megabytes / each)), 0
    for n in range(number):
        picture = noise.randbytes(round(megabytes * 1e6 / number)).replace(b"\xff", b"\xfe")
        path = folder / f"IMG_{seed:02}{n:04}.jpg"
        path.write_bytes(head + picture + tail)
        os.utime(path, (1_600_000_000 + n, 1_600_000_000 + n))
        total += path.stat().st_size
    return number, total


class Node:
    """A device with a home. Its node runs or not."""

    def __init__(self, lab, name, space, *settings):
        self.lab, self.name, self.space, self.settings = lab, name, space, settings
        self.home, self.log = lab.folder / name, lab.folder / f"{name}.log"
        self.process = None
        lab.nodes.append(self)

    def command(self, *arguments):
        return [str(a) for a in (program(), "--home", self.home, "--json", *arguments)]

    def start(self, *arguments):
        environment = {"HOLDFAST_LOG": "info", **os.environ, "NO_COLOR": "1"}
        with open(self.log, "a") as log, open(self.lab.folder / f"{self.name}.events", "a") as events:
            self.process = subprocess.Popen(
                self.space.inside(*self.command(*arguments, *self.settings)), stdin=subprocess.DEVNULL, stdout=events, stderr=log, env=environment
            )

    def started(self):
        """Waits for its first answer."""
        answered = until(lambda: self.process.poll() is not None or self.status(), STARTS_WITHIN_S)
        if answered is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.name} does not run: {self.last_words()}")
        return self

    def up(self, *arguments):
        self.start("up", "--name", self.name, *arguments)
        return self.started()

    def join(self, other, *arguments):
        self.start("join", other.invite(), "--name", self.name, *arguments)
        return self.started()

    def ask(self, *arguments):
        """The answer's one line, or what went wrong as one; `{}` when nothing was said."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60)
        lines = (done.stdout or done.stderr).splitlines()
        try:
            return json.loads(lines[-1])
        except (IndexError, ValueError):
            return {}

    def status(self):
        """Its status; `{}` while the node does not answer."""
        answer = self.ask("status")
        return answer if answer.get("type") == "status" else {}

    def invite(self):
        answer = {}
        until(lambda: answer.update(self.ask("invite")) or "ticket" in answer, 20)
        if "ticket" not in answer:
            raise RuntimeError(f"{self.name} gave no ticket: {answer}")
        return answer["ticket"]

    def holds(self, number):
        status = self.status()
        return status.get("photos") == status.get("held_here") == number

    def imported(self, number):
        """Waits until it has its own photos."""
        if until(lambda: self.holds(number), 120) is None:
            raise RuntimeError(f"{self.name} did not import {number} photos: {self.status()}")
        return self

    def listening(self, prefix):
        """The addresses of which a relay has told, that begin so."""
        lines = (self.lab.folder / f"{self.name}.events").read_text().splitlines()
        told = (address for line in lines for address in json.loads(line).get("addresses", []))
        return [address for address in told if address.startswith(prefix)]

    def received(self):
        return self.status().get("traffic", {}).get("received", 0)

    def is_connected(self):
        return self.status().get("peers_connected", 0) > 0

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def logged(self, *words):
        """How many lines of its log have one of these words."""
        return sum(any(word in line for word in words) for line in self.log.read_text(errors="replace").splitlines())

    def last_words(self, lines=12):
        return "\n  ".join(["", *self.log.read_text(errors="replace").splitlines()[-lines:]])


def explain(lab):
    """What every node said last, for somebody who looks why a scenario failed."""
    for node in lab.nodes:
        print(f"{node.name}:{node.last_words(25)}", file=sys.stderr)
