"""What a run imports, for the server of programs.py."""

import psutil
import torch
import torch._dynamo  # by the first optimizer

import recbole_cierec.__main__
import recbole_cierec.cli.run
import recbole_cierec.quick_start  # noqa: F401
from recbole_cierec.config.properties import model_keys

torch.set_num_threads(1)
psutil.cpu_percent = lambda interval=None: 0.0  # RecBole measures it for a second
model_keys()
