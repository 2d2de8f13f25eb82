"""The embedded MQTT server: `python -m hil.mqtt_server PORT`, for machines without mosquitto.

It says `ready` when everything is loaded, and listens once a line arrives on its standard
input (loading takes longer than a restart may). It ends when that input ends, so it
cannot outlive the demo that started it. Nothing is kept on disk: killed and started
again it has forgotten every retained message.

Why amqtt: it is pure Python, MIT licensed, kept up, and speaks MQTT 3.1.1 with retained
messages, wills (retained ones too) and clean sessions; hil's tests hold it to that with
the same tests as mosquitto. It passes on some thousand messages a second where the demo
has a few dozen. It refuses an MQTT 5 client with "unsupported protocol version", so
whoever connects falls back to 3.1.1. The other candidate was mqttools, which speaks
MQTT 5 alone (hil and many a client of the field do not) and was last released in 2021.

One thing is put right: amqtt sends every new client the retained messages of everybody
else's subscriptions.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

from amqtt.broker import Broker
from amqtt.session import Session

# No plugins but the one that lets everybody in: loopback only, for minutes.
_PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


class Server(Broker):
    """amqtt, but a client gets the retained messages of its own subscriptions only.

    Beside being wrong, the other way walks over the table of subscriptions while other
    clients change it, which ends the newcomer's connection when many return at once.
    """

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        holders = self._subscriptions.get(subscription[0], [])
        if any(holder.client_id == session.client_id for holder, _qos in holders):
            await super()._publish_retained_messages_for_subscription(subscription, session)


async def serve(port: int, stop: asyncio.Event) -> None:
    """Listen on 127.0.0.1 until `stop`."""
    broker = Server(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": _PLUGINS,
        }
    )
    await broker.start()
    await stop.wait()
    await broker.shutdown()


async def _main(port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def until_closed() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=until_closed, daemon=True).start()
    await serve(port, stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    print("ready", flush=True)
    if sys.stdin.readline():
        asyncio.run(_main(int(sys.argv[1])))
