"""How long the live page takes to answer, and what it does when many people ask at once.

`python benchmarks/serve.py [--people 50] [--seconds 120] [-- OPTIONS OF ragbook serve]` starts the
server and prints

* the time from a question to the first and to the last answer, and to the end of what is behind
  them, warm and with nobody else there, and how much time of a processor each question took (on a
  machine that does other work meanwhile, the latter says more);
* what that many people got who ask for so long, each again as soon as something came back: answers,
  "busy, try again", errors;
* the server's memory before, meanwhile and after.

Ends with status 1 if there was an error. For Linux: processor time and memory are read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2

from ragbook.corpus import load_questions

EVERY = 10.0
"""Seconds between two looks at the memory."""


def memory(pid: int) -> float:
    """The resident memory of a process, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


def processor_seconds(pid: int) -> float:
    """The time that processors have spent on a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(client: httpx2.Client, text: str) -> Iterator[tuple[str, float]]:
    """The kinds of events of a question, each with the seconds since it was asked."""
    began = time.perf_counter()
    with client.stream("POST", "/api/ask", json={"question": text}) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            yield json.loads(line)["event"], time.perf_counter() - began


def one_by_one(address: str, texts: list[str], pid: int) -> None:
    """Ask alone; print the medians."""
    rows = []
    with httpx2.Client(base_url=address, timeout=600) as client:
        for text in texts:
            before = processor_seconds(pid)
            times = list(ask(client, text))
            answers = [seconds for event, seconds in times if event == "answer"]
            spent = processor_seconds(pid) - before
            rows.append((answers[0], answers[-1], times[-1][1], spent))
    first, last, end, spent = (statistics.median(column) for column in zip(*rows, strict=True))
    print(
        f"alone, median of {len(texts)} questions: first answer {first:.2f} s, last answer "
        f"{last:.2f} s, all that is behind them {end:.2f} s, of a processor {spent:.2f} s",
        flush=True,
    )


async def person(client: httpx2.AsyncClient, texts: list[str], until: float, seen: Counter) -> None:
    """Ask again and again; what came of it is counted."""
    at = 0
    while time.monotonic() < until:
        text, at, last = texts[at % len(texts)], at + 1, ""
        try:
            async with client.stream("POST", "/api/ask", json={"question": text}) as response:
                if response.status_code == 503:
                    seen["busy"] += 1
                    await asyncio.sleep(float(response.headers.get("Retry-After", 2)))
                    continue
                response.raise_for_status()
                async for line in response.aiter_lines():
                    event = json.loads(line)
                    last = event["event"]
                    if last in ("failed", "error"):
                        seen[f"error: {event['sentence']}"] += 1
                    if time.monotonic() > until and last == "place":
                        break  # goes away while it waits
        except httpx2.HTTPError as error:
            seen[f"error: {type(error).__name__}"] += 1
            continue
        seen["answered" if last == "end" else "left" if last == "place" else last] += 1


async def crowd(address: str, texts: list[str], people: int, seconds: float, pid: int) -> Counter:
    """That many people at once; prints the memory meanwhile."""
    seen: Counter = Counter()
    until = time.monotonic() + seconds
    limits = httpx2.Limits(max_connections=2 * people, max_keepalive_connections=people)
    async with httpx2.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
        everyone = [
            asyncio.create_task(person(client, texts[at:] + texts[:at], until, seen))
            for at in range(people)
        ]
        while time.monotonic() < until:
            await asyncio.sleep(min(EVERY, max(0.1, until - time.monotonic())))
            print(f"{memory(pid):8.1f} MB   {dict(seen)}", flush=True)
        await asyncio.gather(*everyone)
    return seen


def main() -> int:
    """Start the server, measure, stop it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--questions", type=int, default=20, help="different questions")
    parser.add_argument("options", nargs="*", help="options of ragbook serve")
    given = parser.parse_args()
    texts = [question.text for question in load_questions("miniwiki", "test")][: given.questions]
    command = [sys.executable, "-m", "ragbook", "serve", "--port", "0", *given.options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            print(f"{memory(server.pid):8.1f} MB when it has begun", flush=True)
            one_by_one(address, texts, server.pid)  # also fills what is kept between questions
            one_by_one(address, texts, server.pid)
            before = memory(server.pid)
            seen = asyncio.run(crowd(address, texts, given.people, given.seconds, server.pid))
            after = memory(server.pid)
        finally:
            server.terminate()
            server.wait(60)
    print(f"{given.people} people for {given.seconds:g} s: {dict(seen)}")
    print(f"memory {before:.1f} MB before, {after:.1f} MB after; exit status {server.returncode}")
    return int(any(name.startswith("error") for name in seen) or server.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
