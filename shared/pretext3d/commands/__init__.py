"""The users' commands: `pretext3d NAME ...`, also as `python -m pretext3d NAME ...`."""

from dataclasses import dataclass

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: Name of its module in `pretext3d.commands`: its command line, which imports torch and MONAI
            only after what was typed has been checked.
        summary: Line in `pretext3d --help`.
        mistake: Exit code for a user's mistake.
        stopped: Message on Ctrl-C or SIGTERM.
    """

    module: str
    summary: str
    mistake: int = 1
    stopped: str = "stopped"


COMMANDS = {
    "run": Command("run", "pre-train, fine-tune, evaluate, segment: MONAI's run, a mistake is one line"),
    "preview": Command("preview.options", "pictures of what a network sees of your scans and must predict"),
    "compare": Command(
        "compare.options",
        "does pre-training help on your data? a table and a plot, with intervals",
        mistake=2,
        stopped="stopped; finished work is kept, and the same command continues from there",
    ),
    "probe": Command("probe.options", "what frozen features know of your classes, with few labels and many"),
    "doctor": Command("doctor.options", "did a pre-training learn, do labelled data fit it, what to do next"),
    "curves": Command("curves", "the curves of one run or several as a picture"),
    "shapes": Command(
        "shapes.options",
        "automatically generated volumes with labels as files, for a training anywhere",
        stopped="stopped; finished volumes are kept, and the same command continues from there",
    ),
    "bundles": Command("bundles", "the bundles at hand; a copy of one, to read and to change"),
    "promote": Command("promote.options", "a fine-tuned run becomes a bundle that can be deployed"),
    "download": Command(
        "download",
        "download a packed bundle, checked against its index",
        stopped="stopped; the same command resumes the transfer",
    ),
    "env": Command("env", "versions, devices and folders, for a report of a bug"),
    "completion": Command("completion", "a script that completes commands and options in your shell"),
}
