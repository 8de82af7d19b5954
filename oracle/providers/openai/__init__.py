"""Any server that speaks the OpenAI wire format: hosted fallbacks, vLLM, Ollama, llama.cpp."""
