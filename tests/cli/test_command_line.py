"""The command line as users see it, the form of the log, and the launch of several processes."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import programs
import pytest

from recbole_cierec import __version__, logs, quick_start
from recbole_cierec.__main__ import main
from recbole_cierec.cli.run import split_arguments, usage
from recbole_cierec.config.keys import OF_MMREC
from recbole_cierec.config.properties import model_keys
from recbole_cierec.config.schema import KEYS
from recbole_cierec.distributed.launch import choose_port, spawn, torchrun_keys
from recbole_cierec.errors import ConfigError, DataError, NonFiniteLossError
from recbole_cierec.model.mf import MF
from recbole_cierec.registry import MODELS
from recbole_cierec.trainer.trainer import TrainerMixin

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "run_recbole.py"
LOGGED = {"model": "M", "dataset": "d", "local_rank": 0, "verbose": False}  # what a log reads


def flags(tiny_folder: Path, **extra) -> list[str]:
    keys = {"model": "BPR", "dataset": "tiny", "data_path": tiny_folder, "epochs": 1, **extra}
    return [f"--{key}={value}" for key, value in keys.items()]


def command(arguments: list[str], cwd: Path, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_arguments_are_split_into_launch_and_configuration():
    got = split_arguments(
        "-m|MF|-d=tiny|--config_files=a.yaml b.yaml|--nproc=2|--port|99|--epochs=3".split("|")
    )
    assert got == {
        "model": "MF",
        "dataset": "tiny",
        "config_file_list": ["a.yaml", "b.yaml"],
        "ip": "localhost",
        "port": "99",
        "nproc": 2,
        "world_size": -1,
        "group_offset": 0,
        "cmd_line": {"epochs": "3"},
    }
    assert split_arguments([])["model"] is None


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--nproc=two", "nproc must be a whole number, not 'two'"),
        ("--nproc=0", "nproc must be 1 or more, not 0"),
        ("--world_size=1.5", "world_size must be a whole number, not '1.5'"),
        ("--world_size=-2", "world_size must be -1 or more, not -2"),
        ("--group_offset=-1", "group_offset must be 0 or more, not -1"),
        ("-m", "model has no value"),
    ],
)
def test_launch_flags_are_checked(flag, said):
    with pytest.raises(ConfigError, match=f"command line: --{said}"):
        split_arguments([flag])


def test_help_names_every_model_and_ends_well(capsys):
    assert main(["--epochs=3", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.rstrip() == usage().rstrip()
    assert all(name in said for name in [*MODELS, "LightGCN", "SASRec"])
    assert max(map(len, said.splitlines())) <= 110


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--embeding_size=3"], "unknown key 'embeding_size'; did you mean 'embedding_size'?"),
        (["--epochs"], "--epochs has no value"),
        (["--knn_k=5"], "unknown key 'knn_k'; MMRec's knn_k is neighbours_count here"),
        (["--resume=True"], "'resume' must be auto, or a checkpoint, not True"),
        (["--model=BRP"], "model 'BRP' is not known; did you mean 'BPR'?"),
        (["--config_files=none.yaml"], "none.yaml: there is no such configuration file"),
        (["--nproc=x"], "--nproc must be a whole number"),
        (["--nproc=2", "--port=x"], "port 'x' is not a number"),
    ],
)
def test_mistake_is_one_line_and_code_2(argv, said, in_tmp, capsys):
    assert main(["--dataset=tiny", *argv]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert shown.err.count("\n") == 1


def test_a_misspelt_flag_of_a_command_is_named(in_tmp, capsys):
    assert main(["tune", "--model=MF", "--dataset=tiny", "--trails=3"]) == 2
    assert capsys.readouterr().err == (
        "error: command line: unknown flag --trails; did you mean 'trials'?\n"
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["tune"], "--model=NAME and --dataset=NAME are missing; --help says more"),
        (["tune", "--trials=3", "-m", "MF"], "--dataset=NAME is missing; --help says more"),
        (["tune", "--modle=MF", "-d", "tiny"], "unknown flag --modle; did you mean 'model'?"),
        (["tune", "--config_files=some.yaml"], "--model=NAME is missing; --help says more"),
        (["extract"], "--dataset=NAME is missing; --help says more"),
        (["extract", "--out=a.npy"], "--dataset=NAME is missing; --help says more"),
    ],
)
def test_a_long_command_begins_nothing_before_it_knows_model_and_data(argv, said, in_tmp, capsys):
    Path("some.yaml").write_text("dataset: nowhere\n")
    assert main(argv) == 2
    assert capsys.readouterr().err == f"error: command line: {said}\n"
    assert [path.name for path in in_tmp.iterdir()] == ["some.yaml"]


@pytest.mark.parametrize("command", ["tune", "extract"])
def test_a_file_may_name_model_and_data(command, in_tmp, capsys):
    Path("some.yaml").write_text("model: VBPR\ndataset: nowhere\n")
    assert main([command, "--config_files=some.yaml"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_version_and_help_are_words_too(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    for words, start in ((["help"], "usage: run_recbole.py"), (["help", "tune"], "usage: python")):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith(start)


def test_names_of_mmrec_are_those_of_no_key_and_lead_to_one():
    known = {*KEYS, *model_keys()}
    assert not known & OF_MMREC.keys()
    assert {name for name in OF_MMREC.values() if " " not in name} <= known


def test_ctrl_c_is_130_and_other_errors_are_not_hidden(monkeypatch, in_tmp, capsys):
    def stop(**_):
        raise KeyboardInterrupt

    def fail(**_):
        raise ZeroDivisionError

    def diverge(**_):
        raise NonFiniteLossError("the loss is nan")

    before = signal.getsignal(signal.SIGTERM)
    for deed, code in ((stop, 130), (diverge, 2)):
        monkeypatch.setattr("recbole_cierec.quick_start.run", deed)
        assert main([]) == code
    monkeypatch.setattr("recbole_cierec.quick_start.run", fail)
    with pytest.raises(ZeroDivisionError):
        main([])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("epoch", "said"), [(0, "interrupted\n"), (2, "and --resume=auto\n")])
def test_ctrl_c_in_training_says_how_to_continue(
    tiny_folder, in_tmp, monkeypatch, capsys, epoch, said
):
    def stop(model, number):
        if number == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(MF, "begin_epoch", stop, raising=False)
    assert main(flags(tiny_folder, model="MF", epochs=4)) == 130
    assert capsys.readouterr().err.endswith(said)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_in_the_test_says_how_to_continue(tiny_folder, in_tmp, monkeypatch, capsys, caplog):
    plain = TrainerMixin.evaluate

    def evaluate(*args, load_best_model=True, **kwargs):
        if load_best_model:  # not in validation
            raise KeyboardInterrupt
        return plain(*args, load_best_model=load_best_model, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainerMixin, "evaluate", evaluate)
        assert main(flags(tiny_folder, epochs=2)) == 130
    assert capsys.readouterr().err.endswith("continue by the same command and --resume=auto\n")
    assert main(flags(tiny_folder, epochs=2, resume="auto")) == 0
    assert "The resumed run had finished" in caplog.text


@pytest.mark.parametrize(
    ("argv", "doer", "said"),
    [
        (["tune", "-m", "MF", "-d", "tiny"], "tuning.tune", "continue by the same command"),
        (["experiment", "demo"], "experiment.run_experiment", "continue by the same command"),
        (
            ["-m", "MF", "-d", "tiny", "--nproc=2"],
            "quick_start.run",
            "after the first epoch, continue by the same command and --resume=auto",
        ),
    ],
)
def test_ctrl_c_says_how_to_continue(monkeypatch, in_tmp, capsys, argv, doer, said):
    monkeypatch.setattr(f"recbole_cierec.{doer}", interrupt)
    assert main(argv) == 130
    assert capsys.readouterr().err == f"interrupted; {said}\n"


@pytest.mark.parametrize(("done", "ends"), [(0, "and --resume=auto\n"), (1, "interrupted\n")])
def test_ctrl_c_in_the_demo_names_what_resumes_its_first_run(
    monkeypatch, in_tmp, capsys, done, ends
):
    calls = []

    def run(*model):
        if len(calls) == done:
            raise KeyboardInterrupt(Path("saved/X.last.pth"))
        calls.append(model)
        return {"model": "CIERec"}

    monkeypatch.setattr("recbole_cierec.quick_start.run", run)
    assert main([]) == 130
    assert capsys.readouterr().err.endswith(ends)


def test_a_run_writes_into_its_folder_and_without_control_codes(tiny_folder, in_tmp):
    done = programs.finished(*flags(tiny_folder), cwd=in_tmp)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\nTest result of BPR on tiny")
    assert "epoch 1/1" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert len(list((in_tmp / "log" / "BPR").glob("BPR-tiny-*.log"))) == 1


@pytest.mark.slow
def test_narrow_terminal_c_locale_and_no_color_do_no_harm(tiny_folder, tmp_path):
    """The script of a checkout, started from another folder."""
    done = command(
        flags(tiny_folder, show_progress=True), tmp_path, COLUMNS="20", LC_ALL="C", NO_COLOR="1"
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr  # none that users cannot act on


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def test_torchruns_world_is_joined_not_spawned(tiny_folder, in_tmp):
    port, children = free_port(), []
    for rank in (0, 1):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environ = {key: str(value) for key, value in world.items()}
        words = flags(tiny_folder, use_gpu=False)
        children.append(programs.start(*words, cwd=in_tmp, **environ))
    codes = [child.wait() for child in children]
    said = [child.stdout + child.stderr for child in children]
    assert codes == [0, 0], said
    assert "Test result of BPR" in said[0]
    assert "Test result of BPR" not in said[1]


# -- launch ------------------------------------------------------------------------------------


def test_torchruns_environment_becomes_recboles_keys():
    world = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert torchrun_keys(world) == {}
    world |= {"MASTER_ADDR": "host", "MASTER_PORT": "1234"}
    assert torchrun_keys(world) == {
        "local_rank": 1,
        "offset": 4,
        "world_size": 8,
        "nproc": 4,
        "ip": "host",
        "port": "1234",
    }


def test_taken_port_is_replaced_only_where_nobody_else_must_know_it():
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert choose_port(taken, alone=False) == str(taken)
        other = choose_port(str(taken), alone=True)
        assert other != str(taken)
        assert 0 < int(other) < 65536


def fail_where_the_other_waits(config_dict: dict) -> None:
    """A job: the first process stops on an error; the second waits for it, and fails first."""
    import torch.distributed as dist

    meet = f"tcp://{config_dict['ip']}:{config_dict['port']}"
    rank = config_dict["local_rank"]
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    if rank == 1:
        dist.barrier()
    leave = dist.destroy_process_group
    dist.destroy_process_group = lambda: (leave(), time.sleep(60))  # it is stopped during its sleep
    raise DataError("a.inter: no such file")


def test_the_error_of_a_process_is_raised_though_another_ends_first(quick_processes):
    keys = {"nproc": 2, "world_size": 2, "offset": 0, "ip": "127.0.0.1"}
    keys["port"] = free_port()
    with pytest.raises(DataError) as error:
        spawn(fail_where_the_other_waits, {"config_dict": {}}, keys)
    assert str(error.value) == "a.inter: no such file"


@pytest.mark.parametrize("port", ["x", "", "70000", "-1", "0", 0])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(ConfigError, match="is not a number from 1 to 65535"):
        choose_port(port, alone=True)


def test_files_separated_by_commas_are_told_of_blanks(tmp_path):
    with pytest.raises(ConfigError, match="separate files by blanks"):
        split_arguments(["--config_files=a.yaml,b.yaml"])
    odd = tmp_path / "a,b.yaml"
    odd.touch()
    assert split_arguments([f"--config_files={odd} c.yaml"])["config_file_list"] == [
        str(odd),
        "c.yaml",
    ]


# -- log ---------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_color_is_for_terminals_that_do_not_refuse_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert logs.wants_color(Terminal())
    assert not logs.wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not logs.wants_color(Terminal())


def test_plain_lines_lose_their_control_codes_and_the_record_keeps_them():
    record = logging.LogRecord("x", logging.INFO, "", 0, "\x1b[1;35mpink %s\x1b[0m", ("a",), None)
    assert logs.PlainFormatter("%(message)s").format(record) == "pink a"
    assert record.msg.startswith("\x1b")


def test_log_goes_to_a_new_file_each_time_and_the_old_one_is_closed(in_tmp):
    config = {**LOGGED, "state": "info"}
    first = logs.start_log(config)
    logging.getLogger().info("one")
    second = logs.start_log(config)
    logging.getLogger().info("two")
    logs.stop_log()
    logging.getLogger().info("three")
    assert first != second
    assert first.read_text().endswith("one\n")
    assert second.read_text().endswith("two\n")
    assert "one" not in second.read_text()
    assert logs.start_log({**config, "local_rank": 1}) is None
    logs.stop_log()


@contextmanager
def bare_root():
    """The root logger of a program that has not set up logging; pytest has in each test."""
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []
    try:
        yield root
    finally:
        root.handlers = kept


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_from_python_leaves_logging_as_it_was(tiny, capfd, monkeypatch, fails):
    if fails:
        monkeypatch.setattr(quick_start, "prepare", lambda *_, **__: 1 / 0)
    with bare_root() as root:
        root.setLevel(logging.ERROR)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) if fails else nullcontext():
                quick_start.run("MF", "tiny", config_dict=tiny(epochs=1, state="info"))
            assert root.handlers == []
            assert root.level == logging.ERROR
        logging.getLogger("mine").error("of the notebook")
    files = [path.read_text() for path in Path("log/MF").glob("*.log")]
    assert len(files) == 2
    assert not any("of the notebook" in text for text in files)
    shown = capfd.readouterr()
    if fails:
        assert all("The run failed\nTraceback" in text for text in files)
        assert all(text.endswith("ZeroDivisionError: division by zero\n") for text in files)
        assert "Traceback" not in shown.err, "the caller shows it"
    else:
        assert all("running environment" in text for text in files), "the last record of a run"
        assert shown.out.count("Test result of MF") == 2


def test_the_log_of_a_refused_run_says_why(tiny_folder, in_tmp, capfd):
    with bare_root():
        assert main(flags(tiny_folder, topk="[41]", valid_metric="Recall@41")) == 2
    (path,) = Path("log/BPR").glob("*.log")
    refusal = "tiny: topk 41 is more than its 40 items; lower it"
    assert path.read_text().endswith(f"ERROR  {refusal}\n")
    assert capfd.readouterr().err.count(refusal) == 1


def test_a_run_within_a_run_has_a_separate_log(in_tmp):
    config = {**LOGGED, "state": "info"}
    with bare_root() as root:
        with logs.run_log(config) as outer:
            logging.getLogger().info("before")
            with logs.run_log({**config, "state": "warning"}) as inner:
                logging.getLogger().info("low")
                logging.getLogger().warning("within")
            logging.getLogger().info("after")
        assert root.handlers == []
    assert [line.split()[-1] for line in outer.read_text().splitlines()] == ["before", "after"]
    assert [line.split()[-1] for line in inner.read_text().splitlines()] == ["within"]


def test_a_working_folder_that_cannot_be_written_is_one_line(in_tmp, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=r"^log/M: .*Read-only file system.*start the run in"):
        logs.start_log({**LOGGED, "state": "info"})


def test_quiet_state_writes_errors_only(in_tmp):
    path = logs.start_log({**LOGGED, "state": "error"})
    logging.getLogger().warning("low")
    logging.getLogger().error("high")
    logs.stop_log()
    assert "low" not in path.read_text()
    assert "high" in path.read_text()
