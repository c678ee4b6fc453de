"""Runs any Pipecat bot file for exactly one session.

`python3 -m callbox_bot bot.py` loads a bot file (`async def bot(runner_args)`) and serves the
HTTP contract of Pipecat's base image. Everything that does not depend on a session happens before
`GET /readyz` answers 200, so that a machine can be frozen there and cloned; `POST /_callbox/wake`
makes each clone different from its template before any session data arrives.

A bot file that keeps random state of its own registers a hook:

    from callbox_bot import Wake, on_wake

    @on_wake
    def reseed(wake: Wake) -> None:
        my_generator.seed(wake.derive("my-generator", 32))

A bot that wants to take its leave before the session's deadline registers another:

    from callbox_bot import EndWarning, on_warning

    @on_warning
    async def say_goodbye(warning: EndWarning) -> None:
        ...
"""

from callbox_bot.wake import Wake, on_wake
from callbox_bot.warning import EndWarning, on_warning

__all__ = ["EndWarning", "Wake", "on_wake", "on_warning"]
__version__ = "0.1.0"
