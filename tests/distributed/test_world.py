"""How the processes of a run wait for each other."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch.distributed as dist

from recbole_cierec.distributed import world as processes


@pytest.fixture
def begin(tmp_path):
    """``begin(name)`` makes this process a group of one."""

    def make(name: str) -> None:
        dist.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/{name}", rank=0, world_size=1
        )

    yield make
    if dist.is_initialized():
        dist.destroy_process_group()


def test_there_is_one_patient_group_for_each_run_and_none_after_it(begin):
    begin("first")
    group = processes._patient_group()
    assert processes._patient_group() is group
    assert group is not dist.group.WORLD
    first = weakref.ref(group)
    dist.destroy_process_group()
    del group
    gc.collect()
    assert first() is None, "a group that is kept can abort the process at its exit"
    begin("second")
    assert dist.get_world_size(processes._patient_group()) == 1
