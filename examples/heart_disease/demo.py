"""Four hospitals train one model together, and no patient's data leaves a hospital.

make demo    or    python examples/heart_disease/demo.py

First in a simulation; then for real: a server and the four hospitals are programs of their own that speak TLS, the
server is killed with kill -9 in the middle and started again, and the model is the same, to the bit. Then it prints how
often three kinds of model are right: one that a hospital trains alone, one that all train together, and one that is
trained on all data in one place, for comparison. Writes the model, the history and a plot to demo-output.
Needs no PyTorch: the app (heart_disease) is a logistic regression in NumPy.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from heart_disease import hospitals, logistic
from heart_disease.app import LR, ROUNDS, SEED, STEPS, client, server
from heart_disease.hospitals import Patients
from programs import Broken, Program, Programs

import umbel
from umbel.node.journal import read_journal

APP = Path(__file__).parent
KILL_AFTER = ROUNDS // 4  # rounds; the server goes on while this program learns of it
PATIENCE = 120.0  # seconds for the deployed run; it takes a few


def main(folder: Path) -> None:
    os.environ["no_grpc_proxy"] = "localhost"  # noqa: SIM112  # gRPC's; nothing here leaves this machine
    say("Four hospitals train a model of heart disease together, and no patient's data leaves a hospital.")
    simulated = simulate()
    deployed = deploy(folder / "deployed")
    say_same(simulated, deployed)

    deployed.model.save(folder / "model.safetensors")
    deployed.history.save(folder / "history.csv")
    deployed.plot().savefig(folder / "history.png")
    print_comparison(deployed.model)
    say(f"\nIn {folder}: model.safetensors, history.csv, history.png, and deployed, with logs and journals of all")


def say(text: str) -> None:
    print(text, flush=True)


# 1. Simulated.


def simulate() -> umbel.Result:
    say("\n1. Simulated, inside this program.")
    federation = umbel.Simulation(clients=list(hospitals.HOSPITALS))
    result = umbel.run(server, client, on=federation, seed=SEED)
    say(f"   {ROUNDS} rounds took {result.timing['total']:.1f} s.")
    return result


# 2. Deployed.


def deploy(directory: Path) -> umbel.Result:
    """The same with programs of their own, one of which is killed."""
    say("\n2. Deployed: a server and four hospitals, each a program of its own on this machine. They speak TLS.")
    shutil.rmtree(directory, ignore_errors=True)  # the last demo
    directory.mkdir(parents=True)
    logging.basicConfig(filename=directory / "demo.log")  # that the server is away is no news here
    with Programs(directory) as programs:
        federation = Federation(programs, directory)
        result = federation.run()
    tell_of_journals(directory, federation.killed_at)
    return result


class Federation:
    """A server, its four nodes, and the run that this program submits to it."""

    def __init__(self, programs: Programs, directory: Path) -> None:
        self.programs, self.directory = programs, directory
        self.server = self.start_server(port=0)
        self.token = self.server.wait_for(r"umbel login (\S+)")[1]
        ticket = self.server.wait_for(r"umbel node (\S+)")[1]
        place = self.server.wait_for(r"Server at (umbel://\S+:(\d+))")
        self.port = int(place[2])
        self.server.wait_for(r"Ready\.")
        say(f"   The server listens at {place[1]}. It has made a certificate, and a ticket to join with.")
        nodes = {name: self.start_node(name, ticket) for name in hospitals.HOSPITALS}
        for name, node in nodes.items():
            node.wait_for(r"connected: ")
            say(f"   {hospitals.HOSPITALS[name]} has joined as {name}, with the ticket and a key of its own.")
        self.killed_at = 0.0
        self.outcome: umbel.Result | BaseException | None = None

    def start_server(self, port: int) -> Program:
        place = ("--dir", str(self.directory / "server"), "--host", "127.0.0.1", "--port", str(port))
        return self.programs.start("server", "server", *place, "--pages", "")

    def start_node(self, name: str, ticket: str) -> Program:
        who = ("--name", name, "--dir", str(self.directory / name), "--app", str(APP))
        return self.programs.start(name, "node", ticket, *who)

    def run(self) -> umbel.Result:
        """Have the run done, in a thread of its own, so that this one can watch over the programs."""
        say("   This program logs in, and submits the run that it simulated.")
        begin = time.monotonic()
        running = threading.Thread(target=self.submit, daemon=True)
        running.start()
        while running.is_alive():
            running.join(0.1)
            if self.outcome is None:
                self.programs.check()
            if time.monotonic() - begin > PATIENCE:
                raise self.server.broken(f"has not finished the run in {PATIENCE:g} s")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome is not None
        say(f"   {ROUNDS} rounds took {self.outcome.timing['total']:.1f} s, killing included.")
        return self.outcome

    def submit(self) -> None:
        try:
            on = umbel.connect(self.token)
            result = umbel.run(server, client, on=on, seed=SEED, callbacks=[self.after_round])
            if result.failures:
                raise Broken(f"the run had failures: {result.failures[0]}")
            self.outcome = result
        except BaseException as error:  # noqa: BLE001  # it is raised where somebody waits for this thread
            self.outcome = error

    def after_round(self, result: umbel.Result) -> None:
        """Kill the server once."""
        if self.killed_at or len(result.history) < KILL_AFTER:
            return
        self.killed_at = time.time()
        say(f"   Round {result.history[-1]['round']} of {ROUNDS} is done. Now: kill -9 {self.server.pid}, the server.")
        self.server.kill()
        try:
            self.server = self.start_server(self.port)
            self.server.wait_for(r"Ready\.")
        except Broken as error:
            raise SystemExit(str(error)) from error  # an ordinary error of a callback does not end a run
        say("   It is started again, with the same files. The hospitals come back to it.")


def tell_of_journals(directory: Path, killed_at: float) -> None:
    """Say what each hospital's own journal says of its trainings.

    Raises:
        Broken: one was done twice, or none after the server was killed.
    """
    say("   How often each hospital trained, according to its own journal:\n")
    say(f"   {'':15}{'before the kill':>18}{'after it':>12}{'twice':>9}")
    for name, title in hospitals.HOSPITALS.items():
        trained = trainings(directory / name / "journal")
        before = sum(moment < killed_at for _, moment in trained)
        twice = len(trained) - len({exchange for exchange, _ in trained})
        say(f"   {title:15}{before:18}{len(trained) - before:12}{twice:9}")
        if twice:
            raise Broken(f"{title} has trained twice for the same question; {directory / name / 'journal'} says when")
        if before == len(trained):
            raise Broken("the run had ended before the server was killed; start the demo again")
    say("\n   What was finished when the server died was kept on both sides, and nobody did it again.")


def trainings(journal: Path) -> list[tuple[int, float]]:
    """Each training that a journal tells of: for which question of the run, and when its model was sent."""
    lines = list(read_journal(journal))
    return [(line["exchange"], line["time"]) for line in lines if line["event"] == "sent" and line["what"] == "model"]


# 3. Compared.


def say_same(simulated: umbel.Result, deployed: umbel.Result) -> None:
    """Say that both are the same.

    Raises:
        Broken: they are not.
    """
    say("\n3. The same? The digests of the two models:")
    for title, result in (("simulated", simulated), ("deployed", deployed)):
        say(f"   {title:12}{result.model.digest()}")
    if simulated.model != deployed.model or simulated.history != deployed.history:
        raise Broken("the deployed run did not give what the simulation gave")
    say("   Yes, to the bit, and so is the history of all rounds.")


# For comparison: as many of the same steps from the same start, without a federation.


def train_centrally(patients: Patients) -> dict[str, Any]:
    batches = logistic.batches(len(patients), np.random.default_rng(SEED))
    return logistic.sgd(logistic.start(SEED), patients, islice(batches, ROUNDS * STEPS), lr=LR)


def print_comparison(federated: umbel.Arrays) -> None:
    hospital = {name: hospitals.load(name) for name in hospitals.HOSPITALS}
    everyone = hospitals.join(hospital.values())
    pooled = train_centrally(everyone.train)
    print("\nWhat it is good for. Test patients judged correctly by a model that the hospital trained alone, that all")
    print("four trained together, or that was trained on pooled data, which is what the hospitals may not do:\n")
    print(f"{'':24}{'of its own test patients':^36}{'of all':>12}")
    print(f"{'':15}{'patients':>9}{'alone':>12}{'federated':>12}{'pooled':>12}{'alone':>12}")
    for name, own in hospital.items():
        alone = train_centrally(own.train)
        rates = [logistic.accuracy(model, own.test) for model in (alone, federated, pooled)]
        rates.append(logistic.accuracy(alone, everyone.test))
        print(f"{hospitals.HOSPITALS[name]:15}{len(own):9}", *(f"{rate:11.1%}" for rate in rates))
    rates = [logistic.accuracy(model, everyone.test) for model in (federated, pooled)]
    print(f"{'all four':15}{len(everyone):9}{'':12}", *(f"{rate:11.1%}" for rate in rates))

    published = logistic.accuracy(federated, hospitals.load(*hospitals.HOSPITALS).test)
    print(f"\nCounted as the FLamby benchmark counts, the federated model reaches {published:.1%}. Published for")
    print("these hospitals are 74.8% to 77.9% federated and 79.7% pooled; flamby.py, beside this file, repeats them.")


if __name__ == "__main__":
    try:
        main(Path("demo-output"))
    except (Broken, umbel.UmbelError) as error:
        sys.exit(f"\nThe demo has failed: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped; the server and the hospitals have ended, too.")
