"""The model's process: `python -m oracle.model.child SETTINGS` serves until its standard input ends.

Prints one line of JSON, `{"address": "http://127.0.0.1:PORT"}`, once the model is loaded and the port is open.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import xllamacpp


def main(settings: dict[str, Any]) -> None:
    # What the parent reads stays ours alone: anything that llama.cpp may print to standard output goes to the log.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    try:
        server = xllamacpp.Server(_params(settings))
    except RuntimeError as error:
        sys.exit(str(error))  # a traceback would push llama.cpp's own words out of what the parent keeps
    print(json.dumps({"address": server.listening_address}), file=answer, flush=True)

    # The parent holds the other end and never writes. However it dies, this read ends, and we end with it.
    sys.stdin.buffer.read()
    os._exit(0)  # not by way of ~Server, which does not return while a request is in flight


def _params(settings: dict[str, Any]) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = settings["weights"]
    params.model_alias = {settings["model_id"]}
    params.port = 0  # the kernel picks a free one: nothing to race for
    params.verbosity = 1  # errors only

    params.n_ctx = settings["context_tokens"]
    params.fit_params = False  # the context that was asked for, or an error: never a smaller one in silence
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = settings["threads"]

    # Logits depend on how tokens are batched, so on what else runs and what is cached: one at a time, from nothing.
    params.n_parallel = 1
    params.cache_prompt = False
    params.cache_ram_mib = 0
    # llama.cpp's own defaults are a temperature of 0.8, a seed from the clock and answers without end.
    params.sampling.temp = 0.0
    params.sampling.seed = settings["seed"]
    params.n_predict = settings["max_tokens"]

    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN

    params.ui = False
    # By default any web page that this user opens may ask this server.
    params.cors_origins = "http://127.0.0.1"
    params.cors_origins_explicit = True
    params.cors_credentials = False
    return params


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
