"""Command lines in forks of one process that has imported torch and MONAI, which takes most of a short run.

Each line of the standard input is a call, as JSON: module, arguments, folder, environment and the files that
receive its output. A fork runs it as `python -m MODULE ...` does: the same sys.argv, the module as __main__,
the interpreter's own end with its exit code. There are two lines of answer per call, the fork's number and
its code. Nothing of pretext3d is imported here: each fork does that, in the order of a real command line.
"""

import importlib
import json
import os
import runpy
import sys

IMPORTED = (
    "torch", "monai.bundle", "monai.transforms", "monai.engines", "monai.handlers", "monai.inferers",
    "monai.networks.nets", "ignite.engine", "ignite.handlers", "nibabel", "scipy.ndimage",
)  # fmt: skip


def serve() -> str:
    """Answer calls until the input ends: ''; in a fork, the module that it has to run."""
    for line in iter(sys.stdin.readline, ""):
        call = json.loads(line)
        fork = os.fork()
        if fork == 0:
            for number, (path, mode) in enumerate(
                ((os.devnull, os.O_RDONLY), (call["stdout"], os.O_WRONLY), (call["stderr"], os.O_WRONLY))
            ):
                os.dup2(os.open(path, mode), number)
            os.chdir(call["cwd"])
            os.environ.clear()
            os.environ.update(call["environment"])
            sys.path[0] = call["cwd"]
            sys.argv = [call["module"], *call["arguments"]]
            return str(call["module"])
        print(fork, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
    return ""


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    MODULE = serve()
    if MODULE:  # in a fork; its end is that of the interpreter, with what sys.excepthook says
        runpy._run_module_as_main(MODULE)  # as the interpreter does for -m: __main__ stays the module
