"""io.net's IO Intelligence: hosted inference on decentralised GPUs, over the OpenAI wire format with other edges."""
