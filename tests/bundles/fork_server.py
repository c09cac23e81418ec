"""Command lines in forks of one process that has imported torch and MONAI, which takes most of a short run.

Each line of the standard input is a call, as JSON: module, arguments, folder, the files that receive its
output, and the environment of each of its processes, of which there may be several, as under torchrun. A fork
runs it as `python -m MODULE ...` does, or `python SCRIPT.py ...`: the same sys.argv, sys.path and __main__,
what `sys.excepthook` says of an exception, functions of `atexit`, the exit code. It does not take its modules
apart at the end, which takes longer than a short run; what was imported before the fork is not looked at by
the garbage collector.
There are two lines of answer per call: the numbers of the forks, and the first code that is not 0, else 0.
Nothing of pretext3d is imported here: each fork does that, in the order of a real command line.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import sys
import threading
from pathlib import Path

IMPORTED = (
    "torch", "monai.bundle", "monai.transforms", "monai.engines", "monai.handlers", "monai.inferers",
    "monai.networks.nets", "ignite.engine", "ignite.handlers", "nibabel", "scipy.ndimage",
    "torch._dynamo",  # which every optimiser asks for
)  # fmt: skip


def serve() -> str:
    """Answer calls until the input ends: ''; in a fork, the module that it has to run."""
    for line in iter(sys.stdin.readline, ""):
        call = json.loads(line)
        forks = []
        for environment in call["environments"]:
            fork = os.fork()
            if fork == 0:
                become(call, environment)
                return str(call["module"])
            forks.append(fork)
        print(*forks, flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) for fork in forks]
        print(next((code for code in codes if code), 0), flush=True)
    return ""


def become(call: dict, environment: dict) -> None:
    """Make of this process the one that a call asks for."""
    for number, (path, mode) in enumerate(
        (
            (os.devnull, os.O_RDONLY),
            (call["stdout"], os.O_WRONLY | os.O_APPEND),
            (call["stderr"], os.O_WRONLY | os.O_APPEND),
        )
    ):
        os.dup2(os.open(path, mode), number)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = str(Path(call["module"]).parent) if is_script(call["module"]) else call["cwd"]
    sys.argv = [call["module"], *call["arguments"]]


def is_script(module: str) -> bool:
    """Whether a call names a file, and no module."""
    return module.endswith(".py")


def run_as_main(module: str) -> int:
    """Run a module as the interpreter does for -m, or a script, to the end of the program; its exit code."""
    code: object = 0
    try:
        if is_script(module):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy._run_module_as_main(module)  # __main__ stays the module
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        sys.last_value = error
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    return int(code or 0)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    MODULE = serve()
    if MODULE:  # in a fork
        CODE = run_as_main(MODULE)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(CODE)
