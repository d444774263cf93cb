"""Many conversations at once inside a Beam bundle: a window that is refilled as they end, not batch and gather."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from queue import SimpleQueue
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.chat.config import ChatConfig
from pipeline.chat.session import Chat, open_chat
from pipeline.recipe import Recipe
from pipeline.records import Deferred, Rejected, Tuple
from pipeline.synthesis import Outcome

Conversation = Callable[[Tuple, Recipe, Any], Coroutine[Any, Any, Outcome]]

GOING_ON = "going_on"
ENDED = "ended"

AHEAD = 2
"""Conversations under way a stage, in multiples of the window: enough that the window never waits for a stage."""


class Converse(beam.PTransform):
    """Run one conversation a tuple. Gives `going_on` (tuples) and `ended` (rejected and deferred), nothing lost."""

    def __init__(self, conversation: Conversation, recipe: Recipe, chat: ChatConfig) -> None:
        super().__init__()
        self._dofn = _ConverseFn(conversation, recipe, chat)

    def expand(self, tuples: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Apply to tuples."""
        return tuples | beam.ParDo(self._dofn).with_outputs(ENDED, main=GOING_ON)


class _ConverseFn(beam.DoFn):
    """Starts conversations on the process's event loop, and emits each as it ends.

    The process-wide chat bounds the requests in flight; this bounds the conversations that wait for one.
    """

    _chat: Chat
    _done: SimpleQueue[tuple[Outcome, BaseException | None]]

    def __init__(self, conversation: Conversation, recipe: Recipe, config: ChatConfig) -> None:
        self._conversation = conversation
        self._recipe = recipe
        self._config = config
        self._ahead = max(1, AHEAD * config.concurrency)

    def setup(self) -> None:
        self._chat = open_chat(self._config)

    def start_bundle(self) -> None:
        self._done = SimpleQueue()
        self._under_way = 0

    def process(self, element: Tuple) -> Iterator[Any]:
        self._chat.submit(self._conversation(element, self._recipe, self._chat), self._ended)
        self._under_way += 1
        while self._under_way and (self._under_way >= self._ahead or not self._done.empty()):
            yield self._tagged(self._take())

    def finish_bundle(self) -> Iterator[Any]:
        window = GlobalWindow()
        while self._under_way:
            outcome = self._take()
            value = WindowedValue(outcome, window.max_timestamp(), (window,))
            yield beam.pvalue.TaggedOutput(ENDED, value) if isinstance(outcome, Rejected | Deferred) else value

    def _take(self) -> Outcome:
        """The next conversation to end. An exception in it is a defect of ours and fails the bundle, loudly."""
        outcome, error = self._done.get()
        self._under_way -= 1
        if error is not None:
            raise error
        return outcome

    def _ended(self, outcome: Outcome, error: BaseException | None) -> None:
        self._done.put((outcome, error))

    def _tagged(self, outcome: Outcome) -> Any:
        return beam.pvalue.TaggedOutput(ENDED, outcome) if isinstance(outcome, Rejected | Deferred) else outcome
