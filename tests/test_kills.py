"""A run that is killed, at whatever moment, ends as if it never had been.

The processes are real ones. Most are forked from a server that has
imported PyTorch already, which saves some seconds for each.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from test_training import assert_equal_runs, lines
from tiny import Features, tiny_config, write_pictures

from srgan_lib import training
from srgan_lib.checkpoints import load_checkpoint
from srgan_lib.errors import UserError
from srgan_lib.images import read_image, write_image
from srgan_lib.imresize import imresize

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
KILLS = 20  # for each network
server = multiprocessing.get_context("forkserver")
# The second is what PyTorch imports when it makes an optimizer.
server.set_forkserver_preload(["test_kills", "torch._dynamo"])


def work(network, folder, pairs, limit=None):
    """Train, in a process of its own; what is refused goes into a file.

    limit: bytes that a file may have from the first checkpoint on.
    """
    torch.set_num_threads(1)
    training.load_features = lambda stage: Features()
    training.tqdm = quiet(training.tqdm)
    fsync = os.fsync  # of a slow disk, to be killed in the middle of
    os.fsync = lambda file: time.sleep(0.01) or fsync(file)
    config = tiny_config(
        srresnet={"network": "srresnet"}, srgan={"network": "srgan"}
    )
    config.steps_per_epoch = 8
    config.checkpoint_minutes = 1e-9  # after every step
    if limit:
        save = training.Run.save

        def limited(run):
            save(run)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        training.Run.save = limited
    try:
        training.train(config, network, folder, pairs, pairs[:1])
    except UserError as error:
        folder.with_suffix(".error").write_text(str(error))


def quiet(bar):
    return lambda *arguments, **options: bar(
        *arguments, **options | {"disable": True}
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two small pictures; and the server runs, and finds what it imports."""
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        patch.setenv("PYTHONPATH", path)
        multiprocessing.forkserver.ensure_running()
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for hr in write_pictures(folder / "hr"):
        found.append((hr, folder / "lr" / hr.name))
        write_image(found[-1][1], imresize(read_image(hr), 0.25))
    return found


def start(*arguments):
    process = server.Process(target=work, args=arguments)
    process.start()
    return process


def finish(*arguments):
    process = start(*arguments)
    process.join(60)
    assert process.exitcode == 0


def half_written(folder):
    """The checkpoint that is just being written, or was when all ended."""
    return list(folder.glob(".*.pt")) if folder.exists() else []


@pytest.mark.parametrize("network", ["srresnet", "srgan"])
def test_killed_at_any_moment(network, pairs, tmp_path):
    whole = tmp_path / "whole"
    finish(network, tmp_path / "first", pairs)  # the server has started now
    begin = time.monotonic()
    finish(network, whole, pairs)
    duration = time.monotonic() - begin
    draw, interrupted, torn = random.Random(0), 0, 0
    for k in range(KILLS):
        folder = tmp_path / f"killed{k}"
        process = start(network, folder, pairs)
        deadline = time.monotonic() + draw.uniform(0, duration)
        while time.monotonic() < deadline and process.is_alive():
            time.sleep(0.001)
        while k % 2 and process.is_alive() and not half_written(folder):
            pass  # every other time: until a checkpoint is being written
        interrupted += process.is_alive()
        process.kill()
        process.join(60)
        torn += bool(half_written(folder))
        finish(network, folder, pairs)
        assert not half_written(folder)
        assert_equal_runs(whole, folder)
        shutil.rmtree(folder)
    assert interrupted > KILLS / 2 and torn > KILLS / 10


@pytest.mark.parametrize("network", ["srresnet", "srgan"])
def test_a_full_disk_keeps_the_last_checkpoint(network, pairs, tmp_path):
    whole, full = tmp_path / "whole", tmp_path / "full"
    finish(network, whole, pairs)
    size = (whole / "checkpoint.pt").stat().st_size
    finish(network, full, pairs, size // 2)
    error = full.with_suffix(".error").read_text()
    path = full / "checkpoint.pt"
    assert f"{path} cannot be written (File too large); free some" in error
    assert f"The last good state is {path}" in error
    assert load_checkpoint(path)["step"] == 1
    assert not half_written(full)
    finish(network, full, pairs)
    assert_equal_runs(whole, full)


# --- the command ---------------------------------------------------------


@pytest.fixture
def srgan(tmp_path):
    """srgan(run) -> a process that trains it, in a folder of its own."""
    profile = yaml.safe_load(
        (HERE.parent / "srgan_lib/profiles/smoke.yaml").read_text()
    )
    del profile["faults"]  # they begin from runs that are not here
    profile["steps_per_epoch"] = 25
    profile["runs"] = {
        "SRResNet": {"network": "srresnet", "epochs": 4},
    }
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(profile))
    environment = os.environ | {
        "PYTHONPATH": str(HERE.parent),
        "OMP_NUM_THREADS": "1",
    }

    def launch(where, *launcher):
        (tmp_path / where).mkdir(exist_ok=True)
        return subprocess.Popen(
            [
                *(sys.executable, "-m", *launcher, "srgan_lib", "train"),
                *("SRResNet", "--profile", tmp_path / "long.yaml"),
            ],
            cwd=tmp_path / where,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return launch


def run_of(tmp_path, where):
    return tmp_path / where / "runs" / "long" / "SRResNet"


def wait_for_steps(process, folder, steps):
    """Until the history tells of so many steps."""
    end = time.monotonic() + 120
    while len(training.read_lines(folder / "history.jsonl")) < steps:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_signals_and_a_full_disk_end_the_command_properly(srgan, tmp_path):
    whole = srgan("whole")
    broken = run_of(tmp_path, "broken")
    for signum, steps in ((signal.SIGINT, 10), (signal.SIGTERM, 40)):
        process = srgan("broken")
        wait_for_steps(process, broken, steps)
        process.send_signal(signum)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signum
        last = out.splitlines()[-1]
        assert last.startswith(f"srgan: {signal.Signals(signum).name}: saved")
        assert f"{broken}/checkpoint.pt; start again to go on" in last
        assert "Traceback" not in out
        step = load_checkpoint(broken / "checkpoint.pt")["step"]
        assert steps <= step < 100
    process = srgan("broken")
    wait_for_steps(process, broken, step + 2)
    before = (broken / "checkpoint.pt").read_bytes()
    room = (broken / "history.jsonl").stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in out
    last = out.splitlines()[-1]
    assert last.startswith("srgan: ") and "(File too large); free some" in last
    assert f"The last good state is {broken}/checkpoint.pt" in last
    assert (broken / "checkpoint.pt").read_bytes() == before
    process = srgan("broken")
    assert process.wait(timeout=120) == 0
    assert whole.wait(timeout=120) == 0
    assert_equal_runs(run_of(tmp_path, "whole"), broken)


TORCHRUN = (
    *("torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    "-m",
)


def workers(process):
    """The process ids of what torchrun has started, first rank first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(map(int, children.read_text().split()))


def test_what_ends_one_of_two_processes_ends_both(srgan, tmp_path):
    whole = srgan("whole", *TORCHRUN)
    assert whole.wait(timeout=120) == 0
    broken = run_of(tmp_path, "broken")
    for step, rank, signum, words in (
        (10, 0, signal.SIGTERM, "SIGTERM: saved"),
        (40, 1, signal.SIGINT, "SIGINT: saved"),
        (60, 1, signal.SIGKILL, "another process of this training is gone"),
    ):
        process = srgan("broken", *TORCHRUN)
        wait_for_steps(process, broken, step)
        os.kill(workers(process)[rank], signum)
        begin = time.monotonic()
        out, _ = process.communicate(timeout=60)
        assert process.returncode != 0 and time.monotonic() - begin < 30
        told = [line for line in out.splitlines() if line.startswith("srgan:")]
        assert len(told) == 1 and words in told[0]
        assert f"{broken}/checkpoint.pt" in told[0]
    process = srgan("broken", *TORCHRUN)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.count(f"SRResNet stands in {broken}") == 1
    assert_equal_runs(run_of(tmp_path, "whole"), broken)
    steps = [r["step"] for r in lines(broken / "history.jsonl")]
    assert steps == list(range(1, 101))
