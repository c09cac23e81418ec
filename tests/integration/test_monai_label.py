"""A promoted bundle in the real MONAI Label server, over HTTP: listed, infers, trains on saved labels.

PRETEXT3D_MONAI_LABEL is the folder of its environment, which tools/monai_label/install.sh makes.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.command import ROOT, environment, succeed
from tests.labelled import save, volume, write_labelled

pytestmark = pytest.mark.slow

NAME, DEADLINE = "two_boxes", 300  # seconds until the server answers, or a training ends
# beyond the four cases of the training; each test compares with the truth
CASES = {"new_0": 10, "new_1": 11, "new_2": 12}


class Server:
    """A MONAI Label server and the requests that its clients send.

    Args:
        port: where it listens on the loopback address.
        process: the server.
        log: its output.
        bundle: the bundle's folder that it serves.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path, bundle: Path) -> None:
        self.port, self.process, self.log, self.bundle = port, process, log, bundle

    def request(
        self, method: str, path: str, form: dict[str, str | Path] | None = None, body: Any = None
    ) -> bytes:
        """The answer's body; a form's paths are sent as files."""
        data, kind = None, "application/json"
        if body is not None:
            data = json.dumps(body).encode()
        if form is not None:
            data, kind = multipart(form)
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            pytest.fail(f"{method} {path}: {error.code}: {error.read()[:300]!r}; {self.tail()}")

    def json(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.tail()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        pytest.fail(f"no server after {DEADLINE} s: {self.tail()}")

    def train(self, **params: Any) -> dict[str, Any]:
        """Train to the end; the state that the server reports."""
        self.request("POST", f"/train/{NAME}", body={"device": "cpu", **params})
        deadline = time.monotonic() + DEADLINE
        state: dict[str, Any] = self.json("/train/")
        while state["status"] in ("SUBMITTED", "RUNNING") and time.monotonic() < deadline:
            time.sleep(0.5)
            state = self.json("/train/")
        return state


def multipart(form: dict[str, str | Path]) -> tuple[bytes, str]:
    """A form as the body of a request, and its content type."""
    boundary, parts = uuid.uuid4().hex, []
    for name, value in form.items():
        file = f'; filename="{value.name}"' if isinstance(value, Path) else ""
        content = value.read_bytes() if isinstance(value, Path) else value.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def dice(pred: np.ndarray, label: np.ndarray) -> list[float]:
    """Of the classes 1 and 2."""
    return [2 * np.sum((pred == c) & (label == c)) / (np.sum(pred == c) + np.sum(label == c)) for c in (1, 2)]


def check_result(content: bytes, image: Path, label: np.ndarray, folder: Path) -> None:
    """On the image's own grid, of the classes' values alone, near the truth: no axis swapped or flipped."""
    file = folder / "result.nii.gz"
    file.write_bytes(content)
    result, original = nib.load(file), nib.load(image)
    pred = np.asarray(result.dataobj)
    assert result.shape == original.shape
    np.testing.assert_allclose(result.affine, original.affine, atol=1e-3)
    assert set(np.unique(pred)) <= {0, 1, 2}
    assert min(dice(pred, label)) > 0.7


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = os.environ.get("PRETEXT3D_MONAI_LABEL", "")
    if not given:
        pytest.skip("PRETEXT3D_MONAI_LABEL is not set: no environment of MONAI Label here")
    scripts = Path(given).resolve() / "bin"
    assert (scripts / "monailabel").is_file(), f"PRETEXT3D_MONAI_LABEL: no MONAI Label in {given}"
    folder = tmp_path_factory.mktemp("monai_label")
    keys = {
        "profile": "laptop", "encoder": "unet", "roi_size": 16, "batch_size": 4, "num_workers": 0,
        "max_epochs": 8, "steps_per_epoch": 20, "learning_rate": 0.01, "val_fraction": 0.25,
        "cache_dir": folder / "cache",
    }  # fmt: skip
    succeed("finetune", dataset_dir=write_labelled(folder / "data"), output_dir=folder / "run", **keys)
    promoted = [
        sys.executable,
        "-m",
        "pretext3d",
        "promote",
        folder / "run",
        "--name",
        NAME,
        "--licence",
        "CC0",
        "--labels",
        "grey",
        "white",
    ]
    subprocess.run([*promoted, "--output_dir", folder], cwd=ROOT, check=True, timeout=DEADLINE)
    # the server's own Python, home folder and package: nothing of this process
    env = environment(
        PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}",
        HOME=str(folder),
        PRETEXT3D_CACHE=str(folder / "cache"),
    )
    env.pop("PYTHONPATH", None)
    apps = ["bash", scripts / "monailabel", "apps", "--download", "--name", "monaibundle", "--output", "apps"]
    subprocess.run(apps, cwd=folder, env=env, check=True, timeout=DEADLINE)
    bundle = folder / "apps" / "monaibundle" / "model" / NAME
    shutil.copytree(folder / NAME, bundle)
    for name, seed in CASES.items():
        save(volume(seed)[0], folder / "studies" / f"{name}.nii.gz")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "bash", scripts / "monailabel", "start_server", "--app", "apps/monaibundle", "--studies", "studies",
        "--conf", "models", NAME, "--conf", "zoo_source", "ngc", "--conf", "sam2", "false",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    started = Server(port, process, log, bundle)
    try:
        started.wait()
        yield started
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_it_is_listed(server: Server) -> None:
    info = server.json("/info/")
    assert info["models"][NAME]["labels"] == {"grey": 1, "white": 2}
    assert info["models"][NAME]["type"] == "segmentation"
    assert info["models"][NAME]["version"] == "0.1.0"
    assert NAME in info["trainers"]


def test_it_infers_by_image_id(server: Server, tmp_path: Path) -> None:
    result = server.request("POST", f"/infer/{NAME}?image=new_0&output=image", {"params": "{}"})
    image = server.bundle.parents[3] / "studies" / "new_0.nii.gz"
    check_result(result, image, volume(CASES["new_0"])[1], tmp_path)


def test_it_infers_by_upload(server: Server, tmp_path: Path) -> None:
    """Of another size, spacing and orientation, oblique."""
    array, label = volume(20, (30, 20, 24))
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-2.5, 2.0, 2.0])
    affine[:3, 3] = 30, -12, 5
    image = save(array, tmp_path / "upload.nii.gz", affine)
    result = server.request("POST", f"/infer/{NAME}?output=image", {"params": "{}", "file": image})
    check_result(result, image, label, tmp_path)


def test_it_trains_on_saved_labels(server: Server, tmp_path: Path) -> None:
    models = server.bundle / "models"
    before = (models / "model.pt").read_bytes()
    labels = {name: save(volume(seed)[1], tmp_path / f"{name}.nii.gz") for name, seed in CASES.items()}
    for name, file in labels.items():
        server.request("PUT", f"/datastore/label?image={name}", {"params": "{}", "label": file})
    state = server.train(max_epochs=2, val_split=0.34)
    assert state["status"] == "DONE", "\n".join(state["details"])
    assert (models / "model_previous.pt").read_bytes() == before
    assert (models / "model.pt").read_bytes() != before
    provenance = json.loads((models / "provenance.json").read_text())
    assert (provenance["training_cases"], provenance["epochs"] in (1, 2)) == (2, True)
    assert provenance["trained_before"][0]["data"] == "data"
    result = server.request("POST", f"/infer/{NAME}?image=new_0&output=image", {"params": "{}"})
    image = server.bundle.parents[3] / "studies" / "new_0.nii.gz"
    check_result(result, image, volume(CASES["new_0"])[1], tmp_path)


def test_a_bad_label_is_named(server: Server, tmp_path: Path) -> None:
    bad = save(np.ones((5, 6, 7), np.uint8), tmp_path / "bad.nii.gz")
    server.request("PUT", "/datastore/label?image=new_1", {"params": "{}", "label": bad})
    state = server.train(max_epochs=1, val_split=0)
    assert state["status"] == "ERROR"
    assert [line for line in state["details"] if "labelled cases are bad: new_1: label shape" in line]
    server.request("DELETE", "/datastore/label?id=new_1&tag=final")
