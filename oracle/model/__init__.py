"""A real, small language model on this machine: SmolLM2-135M-Instruct, run by llama.cpp."""
