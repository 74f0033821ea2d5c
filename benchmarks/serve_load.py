"""Does the service keep the encoder busy, and whom does it keep waiting when too many ask?

    python benchmarks/serve_load.py               # about four minutes; wants an idle machine
    python benchmarks/serve_load.py --seconds 10
    python benchmarks/serve_load.py --catalog shop --photos photos/

A server process with a catalog (the demo's if none is given), and this process as its clients over loopback: both
share the cores, so the rates are those of a machine that also does the asking. In one run:

- ``bare``: the encoder by itself, in batches of 32 and one by one, before and after the server's turn;
- ``single``: one client that asks for one photo after the other, beside decoding and encoding the same photos bare;
- ``saturated``: 16 clients that ask again as soon as they are answered or refused;
- ``unloaded``: requests at random moments at a tenth of the saturated rate;
- ``overloaded``: the same at twice the saturated rate, however many are answered: those above it get 503 at once
  (``settled``: without the first three seconds, in which the server finds out that it is too much);
- the memory of the server, sampled once a second, and its slope over the second half.

On a busy machine trust ``encoder_of_servers_processor`` at one thread: the share of the server's processor time, at
saturation, that the bare encoder takes for the same photos in batches of 32.
"""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image

from mixtura.datasets import demo as photos
from mixtura.datasets.decode import decode
from mixtura.features.inputs import stacked
from mixtura.model import bundle
from mixtura.tasks import demo
from mixtura.tasks.predict import encoder_for

CLIENTS, BATCH, PHOTOS, GOOD = 16, 32, 256, 200
SETTLING = 3.0  # seconds


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each part")
    parser.add_argument("--catalog", type=Path, help="folder of a model to serve; the demo's by default")
    parser.add_argument("--photos", type=Path, help="folder of JPEGs to ask about; the demo's by default")
    options = parser.parse_args()
    shop = options.catalog or options.work / "demo"
    if not (shop / "config.json").exists():
        demo.run(shop)
    files = pngs() if options.photos is None else jpegs(options.photos)
    encoder = encoder_for(bundle.from_pretrained(shop))
    record = {
        "seconds": options.seconds,
        "clients": CLIENTS,
        "photos": described(files, encoder),
        "bare": bare(encoder, files),
    }
    with running(shop) as (process, port):
        memory = Memory(process.pid)
        record |= asyncio.run(measured(port, files, options.seconds, memory))
        record["memory"] = memory.summary()
    record["bare_after"] = bare(encoder, files)
    rate = statistics.mean([record["bare"]["batched_per_s"], record["bare_after"]["batched_per_s"]])
    single = statistics.mean([record["bare"]["single_p50_ms"], record["bare_after"]["single_p50_ms"]])
    record["shares"] = {
        "saturated_of_bare_batched": round(record["saturated"]["answered_per_s"] / rate, 3),
        "single_of_bare": round(record["single"]["p50_ms"] / single, 3),
        "overloaded_p99_of_unloaded_p99": round(record["overloaded"]["p99_ms"] / record["unloaded"]["p99_ms"], 2),
        "settled_overloaded_p99_of_unloaded_p99": round(
            record["overloaded"]["settled_p99_ms"] / record["unloaded"]["p99_ms"], 2
        ),
    }
    processor = statistics.mean([record["bare"]["processor_ms"], record["bare_after"]["processor_ms"]])
    record["shares"]["encoder_of_servers_processor"] = round(processor / record["saturated"]["server_processor_ms"], 3)
    print(json.dumps(record, indent=2))
    common.write("serve_load" if options.photos is None else "serve_load_photos", record)


def pngs():
    """Some photos of the demo, as files."""
    data = photos.load()
    made = []
    for index in range(PHOTOS):
        target = io.BytesIO()
        data.image(index).save(target, "PNG")
        made.append(target.getvalue())
    return made


def jpegs(folder):
    """Real photos, in an order of their own."""
    found = sorted(folder.rglob("*.jpg"), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    return [path.read_bytes() for path in found[:PHOTOS]]


def described(files, encoder):
    """The photos and the encoder in words."""
    sizes = np.array([Image.open(io.BytesIO(file)).size for file in files])
    width, height = np.median(sizes, axis=0).astype(int)
    return f"{width} x {height} {Image.open(io.BytesIO(files[0])).format}, {encoder.name} at {encoder.size} px"


def bare(encoder, files):
    """The encoder without a server: the rate in batches, and the time of one photo with its decoding."""
    prepared = [encoder.prepare(decode(file, draft=encoder.draft)) for file in files]
    batches = [stacked(prepared[start : start + BATCH])[0][1] for start in range(0, len(files), BATCH)]
    encoder.encode(batches[0])
    rates, processor, times = [], [], []
    for _ in range(3):
        began, used = time.perf_counter(), time.process_time()
        for batch in batches:
            encoder.encode(batch)
        rates.append(len(files) / (time.perf_counter() - began))
        processor.append((time.process_time() - used) / len(files))
    for file in files[:200]:
        began = time.perf_counter()
        encoder.encode(encoder.prepare(decode(file, draft=encoder.draft))[None])
        times.append(time.perf_counter() - began)
    whole = {"batched_per_s": round(statistics.median(rates), 1)}
    whole["processor_ms"] = round(1000 * statistics.median(processor), 2)
    return whole | {f"single_{k}": v for k, v in spread(times).items()}


@contextlib.contextmanager
def running(shop):
    """A server process and its port; nobody is refused for asking often."""
    command = [sys.executable, "-m", "mixtura", "serve", str(shop), "--port", "0", "--json", "--reads", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = ""
    while not said.endswith("}\n"):
        said += process.stdout.readline()
    try:
        yield process, int(json.loads(said)["address"].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(30)


async def measured(port, files, seconds, memory):
    """All parts, one after the other."""
    watching = asyncio.create_task(memory.watch())
    await closed(port, files, 1, 2.0)  # first requests make what later ones find
    single = await closed(port, files, 1, seconds / 2)
    used = memory.processor(), time.process_time()
    saturated = await closed(port, files, CLIENTS, seconds)
    count = saturated["answered_per_s"] * seconds
    saturated["server_processor_ms"] = round(1000 * (memory.processor() - used[0]) / count, 2)
    saturated["client_processor_ms"] = round(1000 * (time.process_time() - used[1]) / count, 2)
    capacity = saturated["answered_per_s"]
    unloaded = await opened(port, files, capacity / 10, seconds)
    overloaded = await opened(port, files, 2 * capacity, seconds)
    watching.cancel()
    return {"single": single, "saturated": saturated, "unloaded": unloaded, "overloaded": overloaded}


async def closed(port, files, clients, seconds):
    """Clients that ask again as soon as they are answered."""
    seen, end = Answers(), time.perf_counter() + seconds

    async def client(number):
        async with Connection(port) as connection:
            place = number
            while time.perf_counter() < end:
                seen.add(*await connection.ask(files[place % len(files)]))
                place += clients

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return seen.summary(time.perf_counter() - began)


async def opened(port, files, rate, seconds):
    """Requests at random moments at a rate, whatever becomes of those before; an idle connection takes each."""
    seen, idle, tasks = Answers(), [], set()
    rng = np.random.default_rng(0)

    async def one(file):
        while idle:
            connection = idle.pop()
            if not connection.closed:  # the server closes what was idle for five seconds
                break
        else:
            connection = await Connection(port).__aenter__()
        seen.add(*await connection.ask(file))
        idle.append(connection)

    began = due = time.perf_counter()
    count = 0
    while due < began + seconds:
        due += rng.exponential(1 / rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(files[count % len(files)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        count += 1
    await asyncio.gather(*tasks)
    made = seen.summary(time.perf_counter() - began)
    for connection in idle:
        await connection.__aexit__()
    return made | {"asked_per_s": round(count / seconds, 1)}


class Connection:
    """One connection that is kept; as little work for the client as Python allows."""

    def __init__(self, port):
        self._port = port

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *error):
        self._writer.close()

    @property
    def closed(self):
        """Whether the server has left."""
        return self._reader.at_eof()

    async def ask(self, file):
        """Status and seconds of one request."""
        began = time.perf_counter()
        head = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/*\r\nContent-Length: {len(file)}"
        self._writer.write(head.encode() + b"\r\n\r\n" + file)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(answer[9:12]), time.perf_counter() - began


class Answers:
    """Times of the answers, by status; apart, those of the good ones that were asked for after the first seconds."""

    def __init__(self):
        self.times, self.settled, self._began = {}, [], time.perf_counter()

    def add(self, status, seconds):
        self.times.setdefault(status, []).append(seconds)
        if status == GOOD and time.perf_counter() - seconds > self._began + SETTLING:
            self.settled.append(seconds)

    def summary(self, seconds):
        good = self.times.get(GOOD, [])
        total = sum(map(len, self.times.values()))
        shares = {str(status): round(len(times) / total, 4) for status, times in sorted(self.times.items())}
        return (
            {"answered_per_s": round(len(good) / seconds, 1), "shares": shares}
            | spread(good)
            | {"settled_p99_ms": spread(self.settled)["p99_ms"]}
        )


class Memory:
    """The resident memory of a process, in MiB, and its processor time."""

    def __init__(self, pid):
        self._path, self.samples = Path(f"/proc/{pid}/status"), []

    def processor(self):
        """Seconds of processor time that it has used."""
        fields = self._path.with_name("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def watch(self):
        while True:
            line = next(line for line in self._path.read_text().splitlines() if line.startswith("VmRSS"))
            self.samples.append((time.monotonic(), int(line.split()[1]) / 1024))
            await asyncio.sleep(1)

    def summary(self):
        half = np.array(self.samples[len(self.samples) // 2 :])
        slope = np.polyfit(half[:, 0] / 60, half[:, 1], 1)[0]
        largest = max(size for _, size in self.samples)
        return {
            "first_mib": round(self.samples[0][1]),
            "largest_mib": round(largest),
            "slope_mib_per_min": round(slope, 2),
        }


def spread(times):
    """Median and 99th percentile, in milliseconds."""
    ms = 1000 * np.asarray(times or [np.nan])
    return {"p50_ms": round(float(np.median(ms)), 2), "p99_ms": round(float(np.percentile(ms, 99)), 2)}


if __name__ == "__main__":
    main()
