import asyncio
import threading

from pipeline.chat.offline import OfflineModel


class Chat:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.m = OfflineModel()

    async def ask(self, r):
        return self.m.answer(r)

    def submit(self, c):
        return asyncio.run_coroutine_threadsafe(c, self.loop)


_c = {}


def open_chat(config):
    return _c.setdefault(config, None) or _c.__setitem__(config, Chat()) or _c[config]
