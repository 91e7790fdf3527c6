"""A TCP proxy that holds each packet back: delay.py PORT TARGET_PORT ROUND_TRIP_MS, on the loopback address."""

import asyncio
import sys
from collections import deque


async def copy(reader, writer, delay):
    """Passes bytes on, each `delay` seconds after it came."""
    held = deque()
    arrived = asyncio.Event()

    async def send():
        loop = asyncio.get_running_loop()
        while True:
            while not held:
                arrived.clear()
                await arrived.wait()
            due, data = held.popleft()
            await asyncio.sleep(max(due - loop.time(), 0))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    sender = asyncio.ensure_future(send())
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                data = await reader.read(1 << 18)
            except ConnectionError:
                data = b""
            held.append((loop.time() + delay, data))
            arrived.set()
            if not data:
                break
        await sender
    except ConnectionError:
        sender.cancel()
        writer.close()


async def main():
    port, target, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 2000

    async def serve(reader, writer):
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, to_writer, delay), copy(to_reader, writer, delay))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


asyncio.run(main())
