"""The one exception for a user's mistake, and how a run shows it: one message, no stack trace."""

import errno
import importlib.util
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from pretext3d.messages import plain_log, printable

__all__ = ["UserError", "install_excepthook", "one_line"]


def one_line(message: BaseException | str) -> str:
    r"""The message of an exception, or a text, on one line of at most 300 printable characters.

    Examples:
        >>> one_line(OSError("no space\n  left")), one_line(KeyError())
        ('no space left', 'KeyError')
    """
    text = str(message).strip() or type(message).__name__
    return " ".join(printable(text[:3000]).split())[:300]


class UserError(ValueError):
    """A mistake in a file, key or argument that the user can fix.

    The message names the file or key, what was found and what was expected. It is printable, whatever the
    names and values in it.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


def as_error(message: object) -> str:
    r"""A mistake as a program prints it; further lines are indented, so that none passes for another message.

    Examples:
        >>> as_error("2 bad volumes:\na: empty\x1b[2J")
        'error: 2 bad volumes:\n  a: empty[2J'
    """
    return "error: " + printable(str(message)).replace("\n", "\n  ")


# torch raises a worker's exception again in the main process, with the complete traceback as its message
_IN_WORKER = re.compile(r"^(?:[\w.]+\.)?UserError: (.+?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


RESOLVER = "monai.bundle.reference_resolver"  # builds the components of a configuration, by their ids


# errors of gloo and NCCL in the other processes of a distributed run when one process dies
_PEER_LOST = re.compile(
    r"gloo.*(reset by peer|closed by peer|broken pipe)|remote process exited|connection closed by remote",
    re.IGNORECASE | re.DOTALL,
)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, its cause, the cause of that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def find_user_error(error: BaseException | None) -> UserError | None:
    """The outermost `UserError` in the chain of causes of an exception, or None.

    MONAI's parser and transforms wrap each error in a chain of `RuntimeError`; the user's mistake is
    inside. One from a `DataLoader`'s worker is returned with its own message only. Its key is named as it is
    typed, see `typed_key`.
    """
    for each in chain(error):
        text = str(each)
        in_worker = text.startswith("Caught ") and "\nOriginal Traceback" in text
        mistake = _IN_WORKER.search(text) if in_worker else None
        if mistake is not None:
            return typed_key(UserError(mistake[1].strip()), error)
        if isinstance(each, UserError):
            return typed_key(each, error)
    return None


def typed_key(mistake: UserError, error: BaseException | None) -> UserError:
    """The mistake with its key as it is typed: `views::zoom_range` for the argument zoom_range of `views`.

    A component of a configuration knows its arguments, not the place of its block. The tracebacks name it:
    it is the innermost one that was being built, or had been built and was at work, and whose block has the
    key with which the message begins. The message gets that place or, where the file has a reference there,
    as `prob: '@flip_prob'`, the key that it refers to. It stays where the value is made of others and the
    top level has the key, as `roi_size: '@crop_size'`. Where no component is found, as in the process of a
    data loader, it is the one place that has the key; where there is none or several, the message stays.

    Args:
        mistake: The mistake, which begins with a key and a colon.
        error: The exception with its tracebacks, in which MONAI's resolver is found.
    """
    key = re.match(r"(\w+): ", str(mistake))
    building = [
        frame.f_locals
        for frame in frames(error)
        if frame.f_code.co_name == "_resolve_one_item" and frame.f_globals["__name__"] == RESOLVER
    ]
    if key is None or not building:
        return mistake
    resolver = building[-1]["self"]
    items = resolver.items
    at_work = components_at_work(error, resolver)
    places = [f"{component}::{key[1]}" for component in at_work if f"{component}::{key[1]}" in items][:1]
    if not places and key[1] not in items and not at_work:
        places = [place for place in items if str(place).endswith(f"::{key[1]}")]
    if len(places) != 1:
        return mistake
    value = getattr(items[places[0]], "config", None)
    if key[1] in items and isinstance(value, str) and value.startswith(("@", "$")):
        return mistake
    reference = re.fullmatch(r"@(\w+(?:(?:::|#)\w+)*)", value) if isinstance(value, str) else None
    place = reference[1].replace("#", "::") if reference else places[0]
    return UserError(place + str(mistake)[key.end(1) :])


def components_at_work(error: BaseException | None, resolver: Any) -> list[str]:
    """The ids of the components that an exception has passed through, the innermost one first.

    Args:
        error: The exception with its tracebacks.
        resolver: MONAI's resolver of the configuration.
    """
    built = {id(value): name for name, value in resolver.resolved_content.items()}
    found = []
    for trace in (each.__traceback__ for each in chain(error)):  # a cause is farther inside
        here = []
        while trace is not None:
            frame, trace = trace.tb_frame, trace.tb_next
            if frame.f_code.co_name == "_resolve_one_item" and frame.f_locals.get("self") is resolver:
                here.append(frame.f_locals.get("id"))
            else:
                here.append(built.get(id(frame.f_locals.get("self"))))
        found.append(here)
    names = [str(name) for here in reversed(found) for name in reversed(here) if name]
    configs = {name: getattr(resolver.items.get(name), "config", None) for name in names}
    return [  # what is called in `initialize` checks the keys of others
        name
        for name, config in configs.items()
        if isinstance(config, dict) and "_target_" in config and not name.startswith("initialize::")
    ]


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an exception."""
    return any(isinstance(each, KeyboardInterrupt) for each in chain(error))


def peer_lost(error: BaseException | None) -> bool:
    """Whether a distributed run ends here because another of its processes has ended."""
    return any(_PEER_LOST.search(str(each)) for each in chain(error))


def frames(error: BaseException | None) -> Iterator[FrameType]:
    """The frames of an exception's traceback, and of those of its causes."""
    for each in chain(error):
        trace = each.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next


# torch's report where a checkpoint with its record is read as a state dict
_WITH_RECORD = re.compile(r'loading state_dict.*Unexpected key.*"record", "network"', re.DOTALL)
_NOT_IN_ONNX = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


def verb_mistake(error: BaseException | None) -> str:
    """What was wrong with the arguments of a verb of `python -m monai.bundle`; '' where that is unknown.

    MONAI's `ckpt_export`, `onnx_export` and `verify_net_in_out` build the network of a configuration and end
    in an error of torch where the arguments do not suit it.
    """
    if not is_monai_command():
        return ""
    if any(_WITH_RECORD.search(str(each)) for each in chain(error)):
        return (
            "ckpt_file: found a checkpoint with its record, whose weights are the entry network; expected "
            "--key_in_ckpt network"
        )
    for frame in frames(error):
        name = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"
        if name == "monai.bundle.scripts.onnx_export":
            return _onnx_mistake(error)
        if name == "monai.bundle.scripts.verify_net_in_out":
            record = (frame.f_locals["parser"].config or {}).get("record")
            target = record.get("_target_", "") if isinstance(record, dict) else ""
            if target.endswith(".pretraining_record"):
                return (
                    "config_file: found a pre-training, whose network has the inputs and outputs of its "
                    "method; expected inference.yaml, with --pretrained RUN where the bundle has no "
                    "segmentation weights"
                )
    return ""


def _onnx_mistake(error: BaseException | None) -> str:
    """What a network's export to ONNX lacked; '' where that is unknown."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"onnx_export: found no package {' and no '.join(missing)}; expected: pip install onnx onnxscript"
        )
    unknown = next((found[1] for each in chain(error) if (found := _NOT_IN_ONNX.search(str(each)))), "")
    if not unknown:
        return ""
    return (
        f"onnx_export: found the operation {unknown} in the network, which torch cannot write as ONNX; "
        "expected another network, or ckpt_export, which writes TorchScript"
    )


def memory_short(error: BaseException | None) -> bool:
    """Whether a GPU's memory, or the machine's, was too small."""
    kinds = ("OutOfMemoryError", "MemoryError")
    return any(type(each).__name__ in kinds or "can't allocate memory" in str(each) for each in chain(error))


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def disk_full(error: BaseException | None) -> OSError | None:
    """The error of a full disk, a used-up quota or a limit of a file's size, where that is the cause."""
    return next((e for e in chain(error) if isinstance(e, OSError) and e.errno in DISK_FULL), None)


class _Hook:
    """A `sys.excepthook`: a user's mistake is one message, an interruption or a lost process one line."""

    def __init__(self) -> None:
        self.previous = sys.excepthook
        self.message: str | Callable[[], str] = ""
        self.exit_code = 0  # exit code of a program that a signal is ending

    @property
    def interrupted(self) -> str:
        """What an interruption prints."""
        return self.message if isinstance(self.message, str) else self.message()

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        mistake, full = find_user_error(error), disk_full(error)
        sys.stdout.flush()
        if self.exit_code:  # further errors during the exit are ignored: the workers received the signal too
            sys.stderr.flush()
            os._exit(self.exit_code)
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(f"\n{self.interrupted}\n")
        elif full is not None:
            what = mistake or f"{full.filename or 'a file'} cannot be written: {full.strerror}"
            sys.stderr.write(f"\n{as_error(what)}; {self.interrupted}\n")
        elif mistake is not None:
            sys.stderr.write(f"\n{as_error(mistake)}\n")
        elif verb_mistake(error):
            sys.stderr.write(f"\n{as_error(verb_mistake(error))}\n")
        elif memory_short(error):
            sys.stderr.write(
                "\nerror: the memory is too small for this run; expected a smaller --batch_size or "
                "--roi_size, or --profile laptop\n"
            )
        elif peer_lost(error):
            sys.stderr.write(
                f"\nerror: another process of this run has ended, and so it is {self.interrupted}\n"
            )
        elif self.previous is sys.__excepthook__:
            sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))
        else:
            self.previous(kind, error, trace)


def install_excepthook(interrupted: str | Callable[[], str] = "stopped") -> None:
    """Let an uncaught `UserError`, also a wrapped one, end the program with only its message, exit code 1.

    The log shows printable characters only, see `messages`. Ctrl-C, and SIGTERM, by which a cluster or
    torchrun ends a process, end it with one line, too; the exit code is then that of the signal, 130 and 143
    in a shell.

    Args:
        interrupted: Message in that case, or what gives it then; a second call changes it.
    """
    plain_log()
    hook = sys.excepthook if isinstance(sys.excepthook, _Hook) else _Hook()
    hook.message = interrupted
    sys.excepthook = hook
    # an enclosing program keeps its own handler
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, partial(_terminate, os.getpid()))


def is_monai_command() -> bool:
    """Whether this program is `python -m monai.bundle`, whichever of its verbs runs."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", "") == "monai.bundle.__main__"


def _terminate(owner: int, signum: int, frame: Any) -> None:
    """End with the exit code of SIGTERM; the data loader's workers, which inherit this, print nothing."""
    if os.getpid() != owner:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    if isinstance(sys.excepthook, _Hook):
        sys.stderr.write(f"\n{sys.excepthook.interrupted}\n")
        sys.stderr.flush()
        sys.excepthook.exit_code = 128 + signum
        sys.unraisablehook = lambda _: None
    raise SystemExit(128 + signum)


# Its verbs build components of a bundle without a workflow, and without the checks at the start of a run.
if is_monai_command():
    install_excepthook()
