"""Kills commands at random moments, runs them again, and compares the results with those of undisturbed commands."""

import random
import signal
import subprocess

from tests.campaign.commands import COMMANDS, Command, Products, begin_output
from tests.campaign.programs import Ended, Fault, Folder, find_reason, finish, run, start

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STATUSES = {
    signal.SIGTERM: (143, 75, -signal.SIGTERM),  # 75: train has saved; negative: before the handlers are installed
    signal.SIGHUP: (143, 75, -signal.SIGHUP),
    signal.SIGINT: (130, -signal.SIGINT),
    signal.SIGKILL: (-signal.SIGKILL,),
}
_RESUMABLE = ("train", "blend", "evaluate", "recommend")
"""Commands that leave their unfinished output for the next start."""
_MOST_RUNS = 3


def kill(name: str, choices: random.Random, folder: Folder, products: Products) -> signal.Signals | None:
    """Kills a command, runs it until it ends by itself, and compares its output with that of an undisturbed command.

    Args:
      name: key of `COMMANDS`.
      choices: chooses the signal, and the moment as a share of the undisturbed command's duration.
      folder: empty folder of the case.
      products: results of undisturbed commands.

    Returns:
      The signal; None if it did not end the command.

    Raises:
      Fault: the command ended in a wrong way, left unfinished files or has a different result.
    """
    command, expected = COMMANDS[name], products(name)
    number, share = choices.choice(SIGNALS), choices.random()
    begin_output(command, products, folder)
    arguments = command.arguments(products, folder.output)
    process = start(arguments, folder)
    was_killed = _send(process, number, share * products.seconds[name])
    ended = finish(process, folder)
    if not was_killed and (reason := find_reason(ended)):
        raise Fault(f"refused without a kill: {reason}")
    if not was_killed or ended.status == 0:
        number = None  # it ended before, or Python dropped the exception of the signal, as in a `__del__`
    else:
        _check_killed(name, number, ended, folder)
    is_published = _is_published(name, command, folder)
    if ended.status and not is_published:
        _run_to_end(arguments, folder)
    if litter := folder.litter(was_killed=is_published and number == signal.SIGKILL):
        raise Fault(f"left these files behind: {', '.join(litter)}")
    command.compare(expected, folder.output)
    return number


def _send(process: subprocess.Popen, number: signal.Signals, delay: float) -> bool:
    """Sends a signal after some seconds; returns False if the process ended before."""
    try:
        process.wait(delay)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return True


def _check_killed(name: str, number: signal.Signals, ended: Ended, folder: Folder) -> None:
    """Checks how a killed command ended, and what it left."""
    if ended.status not in _STATUSES[number]:
        raise Fault(f"{number.name}: status {ended.status}: {ended.err[-300:]!r}")
    if "Traceback" in ended.err and ended.status > 0:
        raise Fault(f"{number.name}: traceback: {ended.err.strip().splitlines()[-1]}")
    if "nothing was published" in ended.err and folder.output.exists() and name not in _RESUMABLE:
        raise Fault(f"{number.name}: says that nothing was published, but {folder.output} exists")
    if ended.status > 0 and name not in _RESUMABLE and (litter := folder.litter()):
        raise Fault(f"{number.name}: left these files behind: {', '.join(litter)}")


def _is_published(name: str, command: Command, folder: Folder) -> bool:
    """Returns True if a command that refuses an existing output published its output before the kill."""
    return command.starts_from is None and name not in ("train", "blend") and folder.output.exists()


def _run_to_end(arguments: list, folder: Folder) -> None:
    for _ in range(_MOST_RUNS):
        ended = run(arguments, folder)
        if ended.status == 0:
            return
    raise Fault(f"the command does not succeed after a kill: {find_reason(ended) or ended.status}")
