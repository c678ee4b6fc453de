"""The one session that this process serves, and the way there."""

from __future__ import annotations

import asyncio
import json
import os
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callbox_bot import log
from callbox_bot.log import logger
from callbox_bot.wake import Wake, reseed

if TYPE_CHECKING:
    from callbox_bot.botfile import BotFile

ENV_FILE = Path("/run/callbox/env.json")
"""Where the agent puts the secrets of the bot's configuration, once there is a session."""


class Phase(Enum):
    """How far the process has come. Only moves down this list, but for a repeated wake."""

    PREPARING = auto()
    READY = auto()
    WAKING = auto()
    AWAKE = auto()
    IN_SESSION = auto()
    OVER = auto()
    BROKEN = auto()


class NotNowError(Exception):
    """The call came at the wrong time.

    Parameters:
        message: For people.
        code: Stable, kebab-case.
        final: Whether asking again can never help.
    """

    def __init__(self, message: str, code: str, *, final: bool):
        super().__init__(message)
        self.code = code
        self.final = final


class Life:
    """Carries one process from its preparation to the end of its only session."""

    def __init__(self, bot_file: BotFile, env_file: Path = ENV_FILE):
        self._bot_file = bot_file
        self._env_file = env_file
        self._conversation: asyncio.Task[None] | None = None
        self.phase = Phase.PREPARING

    def prepared(self) -> None:
        """Everything that does not depend on a session is done."""
        self.phase = Phase.READY

    @property
    def can_serve(self) -> bool:
        """Whether a session could start now or is running, as probes see the base image."""
        return self.phase in (Phase.READY, Phase.AWAKE, Phase.IN_SESSION)

    async def wake(self, wake: Wake) -> list[str]:
        """Reseed everything, as often as it is asked for before there is a session.

        A machine of a reserve is woken when it is made, and again when a session takes it.

        Raises:
            NotNowError: A wake is under way, or there is a session, or nothing is ready yet.
            Exception: A generator could not be reseeded; the process stays unready for good.
        """
        if self.phase not in (Phase.READY, Phase.AWAKE):
            raise NotNowError(
                f"cannot wake a process that is {self._words()}", "wrong-phase", final=True
            )
        self.phase = Phase.WAKING
        try:
            reseeded = await reseed(wake)
        except BaseException:
            self.phase = Phase.BROKEN
            raise
        self.phase = Phase.AWAKE
        return reseeded

    def claim(self, session_id: str | None, incarnation: str | None = None) -> None:
        """Take the process for a session. Nobody can take it again, ever.

        The bot finds `incarnation`, which machine of the session this is, in its environment.

        Raises:
            NotNowError: It is taken, not prepared, or could not be reseeded.
        """
        if self.phase not in (Phase.READY, Phase.AWAKE):
            taken = self.phase in (Phase.IN_SESSION, Phase.OVER)
            code = "session-taken" if taken else "not-ready"
            raise NotNowError(
                f"cannot take a session: this process is {self._words()}",
                code,
                final=taken or self.phase is Phase.BROKEN,
            )
        self.phase = Phase.IN_SESSION
        if session_id is not None:
            log.set_session(session_id)
        os.environ["CALLBOX_INCARNATION"] = incarnation or "1"

    async def converse(self, runner_args: Any) -> bool:
        """Run the bot until it returns, is cancelled, or fails.

        Returns:
            Whether it returned by itself.
        """
        started = asyncio.get_running_loop().time()
        self._conversation = asyncio.create_task(self._run_bot(runner_args), name="bot")
        try:
            # The bot's end is all that is waited for: a handler that is cancelled (the server
            # stops) takes the bot with it.
            await self._conversation
        except asyncio.CancelledError:
            logger.warning("the bot was cancelled")
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise
            return False
        except (Exception, SystemExit) as error:
            logger.opt(exception=error).error(f"the bot failed: {type(error).__name__}: {error}")
            return False
        finally:
            self.phase = Phase.OVER
        took = asyncio.get_running_loop().time() - started
        logger.info(f"the bot returned after {took:.1f} s")
        return True

    async def cancel(self, patience: float) -> None:
        """Cancel a running bot and wait for it, at most `patience` seconds."""
        if self._conversation is None or self._conversation.done():
            return
        self._conversation.cancel()
        await asyncio.wait({self._conversation}, timeout=patience)

    async def _run_bot(self, runner_args: Any) -> None:
        self._load_env()
        await self._bot_file.bot(runner_args)

    def _load_env(self) -> None:
        try:
            text = self._env_file.read_text()
        except FileNotFoundError:
            return
        for name, value in json.loads(text).items():
            os.environ[name] = str(value)

    def _words(self) -> str:
        return self.phase.name.lower().replace("_", " ")
